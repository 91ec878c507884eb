"""What a server session is made of, below its commands: its state, its output, how it refuses and how it ends.

`ServerSession` is the ground on which `mailfront_proto.smtp.server_auth` and `mailfront_proto.smtp.server` stand:
bytes in and out, the event that is owed an answer, the transaction, and the budgets that a client may spend.
"""

import re
from collections.abc import Callable
from typing import ClassVar, Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.sasl.masking import MASK, shown_argument
from mailfront_proto.sasl.server_machine import SASLServerMachine
from mailfront_proto.smtp import answers
from mailfront_proto.smtp.answers import NOT_IMPLEMENTED
from mailfront_proto.smtp.body import ChunkDecoder, DotDecoder
from mailfront_proto.smtp.budgets import Budgets
from mailfront_proto.smtp.enhanced_codes import enhanced_code
from mailfront_proto.smtp.events import (
    ConnectionClosed,
    Event,
    Refused,
)
from mailfront_proto.smtp.offers import Facts, offers
from mailfront_proto.smtp.parameters import Registered
from mailfront_proto.smtp.replies import Reply, encode_reply
from mailfront_proto.smtp.rules import NOTHING_ADDED, Additions, Rules
from mailfront_proto.smtp.states import TRANSACTION_STATES, UNFINISHED_STATES, State

_HTTP_VERBS: Final = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS"))

# Bound once: an attribute of an Enum costs a descriptor call each time.
_GREETING: Final = State.GREETING
_RECIPIENTS: Final = State.RECIPIENTS
_CLOSED: Final = State.CLOSED

_KEYWORD: Final = compile_later(r"[A-Za-z0-9][A-Za-z0-9-]*\Z", re.ASCII)  # RFC 5321 section 4.1.1.1
_CAPABILITY: Final = compile_later(r"[A-Za-z0-9][A-Za-z0-9-]*(?: [!-~]+)*\Z", re.ASCII)


class Transaction:
    """One message on its way in. It is never cleaned: when it ends, another takes its place."""

    # Defaults are those of the class: few transactions have more of their own than recipients.
    recipients = 0
    """How many were accepted."""
    smtputf8 = False
    """MAIL said SMTPUTF8."""
    binary = False
    """MAIL said BODY=BINARYMIME."""
    decoder: DotDecoder | ChunkDecoder | None = None
    """Made with the first chunk of BDAT, and behind DATA when there is no short way for the message."""
    refusal: Reply | None = None
    """With what the machine will refuse the message, which is read all the same."""
    chunk_left = 0
    """Octets of the current chunk that are still to come."""
    last_chunk = False


class ServerSession(SASLServerMachine[Reply]):
    """The state of one session; see `mailfront_proto.smtp.server.SMTPServer` for its arguments."""

    __slots__ = (
        "_additions",
        "_advertised",
        "_after_drain",
        "_budgets",
        "_drain_left",
        "_drain_state",
        "_enhances",
        "_greeted",
        "_next_state",
        "_plain",
        "_rules",
        "_secrets_may_follow",
        "_short_line",
        "_transaction",
        "anonymous",
        "authenticated",
        "esmtp",
        "extensions",
        "greeting",
        "helo_host",
        "hostname",
        "in_tls",
        "lf_bodies",
        "lmtp",
        "message_size",
        "offers_starttls",
        "offers_xclient",
        "profile",
        "refuses_inside_tls",
    )

    _handshake_state: ClassVar[object] = State.TLS
    _state: State
    _next_state: State
    """The state that follows when the application accepts the event that is owed its answer."""
    _drain_left: int
    """Octets of a refused chunk that are still to come; then `_drain_state` follows, and `_after_drain` is done."""
    _drain_state: State
    _after_drain: Callable[[], Event | None]

    def __init__(self, rules: Rules, hostname: str, lmtp: bool, greeting: str | None, lf_bodies: bool) -> None:
        profile = rules.profile
        limits = profile.limits
        super().__init__(
            _GREETING,
            auth_line=limits.auth_line,
            free_authorization_identity=profile.free_authorization_identity,
            auth_as_original=profile.auth_as_original,
        )
        self._rules = rules
        self._additions = NOTHING_ADDED
        self._budgets = Budgets(limits)
        self.lf_bodies = lf_bodies
        self.profile = profile
        self.hostname = hostname
        self.lmtp = lmtp
        self.greeting = greeting if greeting is not None else f"{hostname} mailfront"
        self.offers_starttls = False
        self.refuses_inside_tls = False
        self.offers_xclient = False
        self.extensions = rules.extensions
        self.message_size = limits.message_size
        self.in_tls = False
        """TLS is in use."""
        self._enhances = profile.enhanced_codes
        self._plain = rules.plain
        self._short_line = 0
        """Octets in a line that may be all that it seems: see `mailfront_proto.smtp.server_commands`."""
        self._secrets_may_follow = False
        self._greeted = False
        self._forget_client()

    def _forget_client(self) -> None:
        """What TLS start makes us forget (RFC 3207 section 4.2)."""
        self.helo_host: str | None = None
        self.esmtp = False
        """EHLO was given: the protocol's name is ESMTP for the rest of the session."""
        self.authenticated = False
        self.anonymous = False
        """The client has authenticated as nobody: it is trusted no more than before."""
        self._advertised: frozenset[str] = frozenset()
        self._drop_transaction()

    def _drop_transaction(self) -> None:
        self._transaction = Transaction()

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
    def recipients(self) -> int:
        """How many recipients of the message were accepted: so many replies LMTP gives to it (RFC 2033 section 4.2)."""
        return self._transaction.recipients

    @property
    def capabilities(self) -> list[str]:
        """The machine's own capability lines, behind those of the application."""
        return list(offers(self._facts()).values())

    def _facts(self) -> Facts:
        return (
            frozenset(self.extensions),
            self.message_size,
            self.profile.limits.recipients,
            () if self.authenticated else tuple(self.sasl.mechanisms),  # RFC 4954 section 4: not twice
            self.in_tls,
            self.offers_starttls,
            self.offers_xclient,
        )

    def _add(self) -> Additions:
        """What the application has added, where more is added."""
        if self._additions is NOTHING_ADDED:
            self._additions = Additions()
        return self._additions

    def register_command(self, verb: str, parameter: str = "optional") -> None:
        """Hand the command `verb` to the application as `VendorCommand`, in place of a built-in one.

        `parameter`: ``required``, ``forbidden`` or ``optional``; a command that differs is refused here.
        """
        if not verb.isascii() or not verb.isalnum() or parameter not in ("required", "forbidden", "optional"):
            raise LocalProtocolError(
                f"register_command({verb!r}, {parameter!r}): the verb is ASCII letters and digits, "
                "the parameter 'required', 'forbidden' or 'optional'"
            )
        self._add().commands[verb.upper().encode()] = parameter
        self._short_line = 0

    def unregister_command(self, verb: str) -> None:
        """Take `verb` back: the built-in command, or none, is in force again."""
        self._additions.commands.pop(verb.upper().encode(), None)

    def register_capability(self, line: str) -> None:
        """Offer ``KEYWORD`` or ``KEYWORD PARAMETERS`` in the answer to EHLO and LHLO, in place of the machine's own
        line for that keyword and in front of the others."""
        if not _CAPABILITY.match(line):
            raise LocalProtocolError(
                f"register_capability({line!r}): a keyword of ASCII letters, digits and hyphens, and printable words "
                "behind single blanks (RFC 5321 section 4.1.1.1)"
            )
        self._add().capabilities[line.partition(" ")[0].upper()] = line

    def unregister_capability(self, keyword: str) -> None:
        """Take the line of `keyword` back."""
        self._additions.capabilities.pop(keyword.upper(), None)

    def register_parameter(
        self,
        verb: str,
        keyword: str,
        check: Callable[[str | None], bool] | None = None,
        capability: str = "",
    ) -> None:
        """Take the parameter `keyword` of `verb`, ``MAIL`` or ``RCPT``: it is in ``options.others`` of the event.

        `check`: whether a value is good (None: there was no ``=``); what is not is 501. `capability`: a keyword that
        must have been offered in EHLO, else the parameter is 555. A built-in parameter of that name is yours then.
        """
        if verb not in self._additions.parameters or not _KEYWORD.match(keyword):
            raise LocalProtocolError(
                f"register_parameter({verb!r}, {keyword!r}): the verb is 'MAIL' or 'RCPT', the keyword ASCII letters, "
                "digits and hyphens (RFC 5321 section 4.1.2)"
            )
        self._add().parameters[verb][keyword.upper()] = Registered(capability.upper(), check)

    def unregister_parameter(self, verb: str, keyword: str) -> None:
        """Take `keyword` back: the built-in parameter, or none, is in force again."""
        self._additions.parameters[verb].pop(keyword.upper(), None)

    def override_reply(self, reply: Reply, replacement: Reply) -> None:
        """Say `replacement` wherever the machine would say `reply` by itself: one of
        `mailfront_proto.smtp.answers`, or the usual reply of ``accept()``. What happens besides stays the same, so
        both must accept, or both refuse, or both end the session (421)."""
        if _kind_of_answer(reply) != _kind_of_answer(replacement):
            raise LocalProtocolError(
                f"override_reply(): {replacement.code} cannot stand for {reply.code}: 2yz stands for 2yz, 3yz for 3yz, "
                "4yz and 5yz for each other, and 421 for 421 alone"
            )
        self._add().replies[reply] = replacement
        self._plain = {}  # `replies` is asked from now on

    def _say(self, reply: Reply) -> Reply:
        """Send what the machine says by itself, or what the application has put in its place."""
        if self._additions.replies:
            reply = self._additions.replies.get(reply, reply)
        self._send(reply.code, reply.text)
        return reply

    def _send(self, code: int, text: str) -> None:
        self._put(self._encode(type(self._pending), code, text))

    def _encode(self, kind: type[Event | None], code: int, text: str) -> bytes:
        """The wire form of an answer to an event of `kind`. The greeting has no enhanced code: the client
        does not know yet that we have them (RFC 2034 section 4)."""
        enhanced = enhanced_code(kind, code) if self._enhances and self._state is not _GREETING else ""
        return encode_reply(code, text, self._rules.max_wire_line, enhanced)

    def completed(self, reply: Reply) -> Reply:
        """`reply` as the answer to the last event, with the enhanced code that it will get (for logs)."""
        if not self._enhances or self._state is State.GREETING:
            return reply
        return reply.with_enhanced_code(enhanced_code(type(self._pending), reply.code))

    # -- events and the end ------------------------------------------------------------------------------

    def _owe(self, event: Event, next_state: State) -> Event:
        self._pending = event
        self._next_state = next_state
        self._budgets.errors_in_row = 0
        return event

    def _message_done(self, accepted: bool) -> None:
        after = Transaction()
        self._state = state = self._rules.after_message
        if state is _RECIPIENTS:  # the same envelope for another message
            before = self._transaction
            after.recipients, after.smtputf8, after.binary = before.recipients, before.smtputf8, before.binary
        self._transaction = after
        if accepted:
            self._budgets.idle_commands = 0

    def _end_of_input(self) -> ConnectionClosed:
        closed = ConnectionClosed("EOF", in_message=self._state in UNFINISHED_STATES)
        self._close(closed)
        return closed

    def _close(self, closed: Event) -> None:
        """No more input is read; what is queued still goes out."""
        self._closed = closed
        self._buffer.clear()
        self._state = _CLOSED

    def _close_with(self, reply: Reply) -> None:
        self._close(ConnectionClosed(str(reply).split("\n", 1)[0], reply=reply))

    def _end_with(self, reply: Reply | None) -> None:
        """Say `reply` and close, if a budget is spent and it is not said yet."""
        if reply is not None and self._state is not _CLOSED:
            self._close_with(self._say(reply))

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
    ) -> Refused:
        """Answer with `reply`, count it, and tell the application. 421 closes."""
        self._short_line = 0
        if reply.code in (500, 501, 555):
            reply = self._budgets.error() or reply
        else:
            self._budgets.errors_in_row = 0
        reply = self._say(reply)
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
            self._close_with(event.reply)
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


def _kind_of_answer(reply: Reply) -> int:
    """2 accepts, 3 goes on, 4 refuses, 421 ends."""
    if reply.code == 421:
        return 421
    return 4 if reply.code >= 400 else reply.code // 100
