"""What a server session is made of, below its commands: its state, its output, how it refuses and how it ends.

`ServerSession` is the ground on which `mailfront_proto.smtp.server_auth` and `mailfront_proto.smtp.server` stand:
bytes in and out, the event that is owed an answer, the transaction, and the budgets that a client may spend.
"""

from typing import TYPE_CHECKING, ClassVar, Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.machine import ServerMachine
from mailfront_proto.sasl.masking import MASK, shown_argument
from mailfront_proto.sasl.options import NOTHING_OFFERED
from mailfront_proto.smtp import answers
from mailfront_proto.smtp.answers import NOT_IMPLEMENTED
from mailfront_proto.smtp.body import DotDecoder
from mailfront_proto.smtp.budgets import Budgets
from mailfront_proto.smtp.events import (
    ConnectionClosed,
    Event,
    Refused,
)
from mailfront_proto.smtp.profile import LineEnds, Profile
from mailfront_proto.smtp.replies import Reply, encode_reply
from mailfront_proto.smtp.states import (
    TRANSACTION_STATES,
    State,
    after_message,
)

if TYPE_CHECKING:
    from mailfront_proto.sasl.exchange import ServerExchange

_HTTP_VERBS: Final = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS"))

# Bound once: an attribute of an Enum costs a descriptor call each time.
_CONNECTED: Final = State.CONNECTED
_CLOSED: Final = State.CLOSED


class ServerSession(ServerMachine[Event]):
    """The state of one session; see `mailfront_proto.smtp.server.SMTPServer` for its arguments."""

    __slots__ = (
        "_advertised",
        "_body_ended",
        "_budgets",
        "_command_limit",
        "_decoder",
        "_enhances",
        "_exchange",
        "_frame_limit",
        "_max_wire_line",
        "_next_state",
        "_recipients",
        "_refusal",
        "_refused_auth",
        "_secrets_may_follow",
        "_state_before_auth",
        "_strict_lines",
        "_vendor",
        "authenticated",
        "esmtp",
        "greeting",
        "helo_host",
        "hostname",
        "in_tls",
        "lf_bodies",
        "lmtp",
        "message_size",
        "offers_starttls",
        "profile",
        "sasl",
    )

    _handshake_state: ClassVar[object] = State.TLS
    _state: State

    def __init__(
        self,
        hostname: str,
        profile: Profile,
        lmtp: bool,
        greeting: str | None,
        lf_bodies: bool,
    ) -> None:
        super().__init__(State.GREETING)
        self.lf_bodies = lf_bodies
        self.profile = profile
        self.hostname = hostname
        self.lmtp = lmtp
        self.greeting = greeting if greeting is not None else f"{hostname} mailfront"
        self.offers_starttls = False
        self.sasl = NOTHING_OFFERED
        self.message_size = profile.limits.message_size
        self.in_tls = False
        """TLS is in use."""

        self._strict_lines = profile.line_ends is not LineEnds.ACCEPT
        self._enhances = profile.enhanced_codes
        self._max_wire_line = 512 if profile.wraps_replies else None
        self._command_limit = profile.limits.command_line
        self._frame_limit = max(profile.limits.command_line, profile.limits.auth_line)
        self._vendor: dict[bytes, str] = {}
        self._budgets = Budgets(profile.limits)

        self._secrets_may_follow = False
        self._next_state = _CONNECTED
        self._forget_client()

    def _forget_client(self) -> None:
        """What TLS start makes us forget (RFC 3207 section 4.2)."""
        self.helo_host: str | None = None
        self.esmtp = False
        """EHLO was given: the protocol's name is ESMTP for the rest of the session."""
        self.authenticated = False
        self._advertised: frozenset[str] = frozenset()
        self._exchange: ServerExchange | None = None
        self._refused_auth: Reply | None = None
        self._state_before_auth = _CONNECTED
        self._drop_transaction()

    def _drop_transaction(self) -> None:
        self._recipients = 0
        self._decoder: DotDecoder | None = None
        self._refusal: Reply | None = None
        self._body_ended = False

    # -- what the application asks -----------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    @property
    def in_transaction(self) -> bool:
        """A sender was accepted and its message is not done."""
        return self._state in TRANSACTION_STATES

    @property
    def capabilities(self) -> list[str]:
        """The machine's own capability lines, behind those of the application."""
        offered = []
        if self.message_size is not None:
            offered.append(f"SIZE {self.message_size}")
        if self.sasl.mechanisms and not self.authenticated:  # RFC 4954 section 4: not twice
            offered.append("AUTH " + " ".join(self.sasl.mechanisms))
        offered += ["8BITMIME", "ENHANCEDSTATUSCODES", "PIPELINING"]
        if self.offers_starttls and not self.in_tls:
            offered.append("STARTTLS")
        return offered

    def register_command(self, verb: str, parameter: str = "optional") -> None:
        """Hand the command `verb` to the application as `VendorCommand`, in place of a built-in one.

        `parameter`: ``required``, ``forbidden`` or ``optional``; a command that differs is refused here.
        """
        if not verb.isascii() or not verb.isalnum() or parameter not in ("required", "forbidden", "optional"):
            raise LocalProtocolError(
                f"register_command({verb!r}, {parameter!r}): the verb is ASCII letters and digits, "
                "the parameter 'required', 'forbidden' or 'optional'"
            )
        self._vendor[verb.upper().encode()] = parameter

    def unregister_command(self, verb: str) -> None:
        """Take `verb` back: the built-in command, or none, is in force again."""
        self._vendor.pop(verb.upper().encode(), None)

    def _send(self, code: int, text: str) -> None:
        enhanced = self._enhances and self._state is not State.GREETING
        self._put(encode_reply(code, text, self._max_wire_line, enhanced))

    # -- events and the end ------------------------------------------------------------------------------

    def _owe(self, event: Event, next_state: State) -> Event:
        self._pending = event
        self._next_state = next_state
        self._budgets.errors_in_row = 0
        return event

    def _message_done(self, accepted: bool) -> None:
        recipients = self._recipients
        self._drop_transaction()
        self._state = after_message(self.profile)
        if self._state is State.RECIPIENTS:
            self._recipients = recipients
        if accepted:
            self._budgets.message_accepted()

    def _end_of_input(self) -> ConnectionClosed:
        closed = ConnectionClosed("EOF", in_message=self._state in (State.BODY, State.AUTH, State.TLS))
        self._close(closed)
        return closed

    def _close(self, closed: Event) -> None:
        """No more input is read; what is queued still goes out."""
        super()._close(closed)
        self._state = _CLOSED

    def _close_with(self, reply: Reply) -> None:
        self._close(ConnectionClosed(str(reply).split("\n", 1)[0], reply=reply))

    def _end_with(self, reply: Reply | None) -> None:
        """Say `reply` and close, if a budget is spent and it is not said yet."""
        if reply is not None and self._state is not _CLOSED:
            self._send(reply.code, reply.text)
            self._close_with(reply)

    # -- refusals ----------------------------------------------------------------------------------------

    def _refuse(
        self,
        verb: str,
        argument: str,
        reply: Reply,
        *,
        unknown: bool = False,
        transaction_dropped: bool = False,
        mechanism: str = "",
        cause: str = "",
    ) -> Event:
        """Answer with `reply`, count it, and tell the application. 421 closes."""
        if reply.code in (500, 501, 555):
            reply = self._budgets.error() or reply
        else:
            self._budgets.errors_in_row = 0
        self._send(reply.code, reply.text)
        if reply.code == 421:
            self._close_with(reply)
        if verb == "AUTH":
            # What follows may be the responses of a client that did not wait.
            self._secrets_may_follow = True
        return Refused(verb, argument, reply, unknown, transaction_dropped, mechanism, cause)

    def _unknown(self, raw_verb: bytes, argument: bytes) -> Event:
        verb, text = as_text(raw_verb), as_text(argument)
        upper = raw_verb.upper()
        if self.profile.refuses_http and upper in _HTTP_VERBS:
            return self._refuse(verb, "", answers.NOT_SMTP, unknown=True)
        if upper == b"AUTH":
            text = self._shown("AUTH", argument)
            self._secrets_may_follow = True
        elif self._secrets_may_follow:
            # What follows a refused AUTH may be its response, a password in base64.
            verb, text = MASK, ""
        too_many = self._budgets.unknown()
        event = self._refuse(verb, text, too_many or NOT_IMPLEMENTED, unknown=True)
        if too_many is not None and self._state is not _CLOSED:
            self._close_with(too_many)
        return event

    def _shown(self, verb: str, argument: bytes) -> str:
        """An argument for the log, without what may be secret in it."""
        return shown_argument(as_text(argument)) if verb == "AUTH" else as_text(argument)

    def _wrong_parameter(self, needed: bool) -> Reply:
        if needed != self.profile.swapped_parameter_texts:
            return answers.PARAMETER_NEEDED
        return answers.PARAMETER_NOT_ALLOWED


def as_text(data: bytes) -> str:
    """Bytes of the client as text that keeps them: what is no UTF-8 becomes surrogate escapes."""
    return data.decode("utf-8", "surrogateescape")
