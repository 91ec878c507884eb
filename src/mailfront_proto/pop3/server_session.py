"""What a POP3 server session is made of, below its commands: its state, its output, how it refuses and how it ends.

`ServerSession` is the ground on which `mailfront_proto.pop3.server_auth` and `mailfront_proto.pop3.server` stand: the
event that is owed an answer, what a command shows of itself in a log, and the budgets that a client may spend.
"""

from collections.abc import Iterable
from typing import ClassVar, Final

from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.login_machine import LoginMachine
from mailfront_proto.pop3 import answers
from mailfront_proto.pop3.budgets import Budgets
from mailfront_proto.pop3.events import Answered, ConnectionClosed, HandOver, Refused
from mailfront_proto.pop3.maildrop import Maildrop
from mailfront_proto.pop3.message_encoder import MessageEncoder
from mailfront_proto.pop3.profile import Profile
from mailfront_proto.pop3.replies import Reply, encode_line
from mailfront_proto.pop3.states import COMMANDS, Mode, State
from mailfront_proto.pull import Event
from mailfront_proto.sasl.masking import MASK, shown_argument

_HTTP_VERBS: Final = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS"))
_VERBS: Final = frozenset(verb.encode() for verb in COMMANDS)
# Keywords have three or four letters (RFC 1939 section 3): what has another length may be anything.
_KEYWORD: Final = compile_later(rb"[A-Za-z0-9]{3,4}\Z")
_SYNTAX_ERRORS: Final = (
    answers.SYNTAX_ERROR, answers.NOT_IMPLEMENTED, answers.LINE_TOO_LONG, answers.NEED_USER,
)  # fmt: skip

_CLOSED: Final = State.CLOSED
_DONE: Final = answers.DONE.encode()


class ServerSession(LoginMachine[Reply]):
    """The state of one session; see `mailfront_proto.pop3.server.POP3Server` for its arguments."""

    __slots__ = (
        "_at",
        "_budgets",
        "_encoder",
        "_frame_limit",
        "_listing_uids",
        "_maildrop",
        "_next_state",
        "_opened",
        "_reading",
        "_secrets_may_follow",
        "_user_name",
        "expire",
        "greeting",
        "implementation",
        "in_tls",
        "in_utf8",
        "last_line",
        "login_delay",
        "mode",
        "offers_stls",
        "offers_user",
        "offers_utf8",
        "profile",
    )

    _handshake_state: ClassVar[object] = State.TLS
    _handed_over_state: ClassVar[object] = State.HANDED_OVER
    _state: State

    def __init__(self, profile: Profile, mode: Mode, greeting: str) -> None:
        super().__init__(
            State.GREETING,
            auth_line=profile.limits.auth_line,
            free_authorization_identity=profile.free_authorization_identity,
            auth_as_original=profile.auth_as_original,
        )
        self.profile = profile
        self.mode = mode
        self.greeting = greeting
        self.offers_stls = False
        self.offers_user = mode is Mode.MAILBOX
        self.offers_utf8 = False
        self.expire = "NEVER"
        self.login_delay = ""
        self.implementation = "mailfront"
        self.in_tls = False
        """TLS is in use."""
        self.last_line = ""
        """The last command as it came, fit for a log: what may be secret in it is masked."""

        self._frame_limit = max(profile.limits.command_line, profile.limits.auth_line)
        self._budgets = Budgets(profile.limits)
        self._next_state = State.AUTHORIZATION
        self._secrets_may_follow = False
        self._trailing_data = b""
        self._maildrop = Maildrop((), (), ())
        self._opened = False
        self._listing_uids = False
        self._at = 0  # messages that are listed already
        self._encoder: MessageEncoder | None = None
        self._reading = 0  # the message that is read now, where it is to be marked
        self._forget_client()

    def _forget_client(self) -> None:
        """What TLS start makes us forget (RFC 2595 section 4)."""
        self.username = ""
        self.in_utf8 = False
        """The client has said UTF8 (RFC 6856 section 2)."""
        self._user_name = ""

    # -- what the application asks -----------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    # -- answers -----------------------------------------------------------------------------------------

    def _coded(self, reply: Reply) -> Reply:
        """`reply`, with its response code if the profile has those."""
        return reply if self.profile.response_codes or not reply.code else Reply(reply.status, reply.text)

    def _say(self, reply: Reply) -> Reply:
        """Queue `reply`; returns it as it was sent."""
        reply = self._coded(reply)
        self._put(reply.encode())
        return reply

    def _put_lines(self, first: Reply, lines: Iterable[str]) -> None:
        """An answer of several short lines (RFC 1939 section 3); none of ours begins with a dot."""
        self._say(first)
        for line in lines:
            self._put(encode_line(line))
        self._put(b".\r\n")

    def _done(self) -> Event:
        """``+OK`` and nothing more."""
        self._put(_DONE)
        return Answered(self.last_line, answers.DONE)

    def _owe(self, event: Event, next_state: State) -> Event:
        self._pending = event
        self._next_state = next_state
        return event

    def _refuse(self, reply: Reply, *, mechanism: str = "", cause: str = "") -> Event:
        """Answer with `reply`, count it, and tell the application."""
        if reply in _SYNTAX_ERRORS:
            spent = answers.TOO_MANY_ERRORS if self._budgets.error() else None
        else:
            self._budgets.errors_in_row = 0
            spent = answers.TOO_MANY_IDLE_COMMANDS if self._budgets.idle() else None
        if spent is not None:
            return self._refuse_last(spent)
        return Refused(self.last_line, self._say(reply), mechanism, cause)

    def _refuse_last(self, reply: Reply) -> Event:
        """Answer with `reply`, and close."""
        reply = self._say(reply)
        self._close(ConnectionClosed(reply.text, reply=reply))
        return Refused(self.last_line, reply)

    # -- lines -------------------------------------------------------------------------------------------

    def _unknown(self, verb: bytes) -> Event:
        if self.profile.refuses_http and verb.upper() in _HTTP_VERBS:
            return self._refuse_last(answers.NOT_POP3)
        return self._refuse(answers.NOT_IMPLEMENTED)

    def _shown(self, verb: bytes, blank: bytes, argument: bytes) -> str:
        """A command for the log, without what may be secret in it: the argument of PASS, what follows the mechanism in
        AUTH, and of an unknown command (which may be either, mistyped) all but a keyword."""
        upper = verb.upper()
        if upper == b"AUTH" and argument:
            return f"{as_text(verb)} {shown_argument(as_text(argument.strip(b' ')))}"
        if upper == b"PASS":
            return f"{as_text(verb)} {MASK}"
        if upper in _VERBS:
            return as_text(verb + blank + argument)
        expected = self._secrets_may_follow or self._state is State.USER
        shown = as_text(verb) if not verb or (not expected and _KEYWORD.match(verb)) else MASK
        return f"{shown} {MASK}" if argument else shown

    # -- the end -----------------------------------------------------------------------------------------

    def _end_of_input(self) -> ConnectionClosed:
        closed = ConnectionClosed("EOF", unfinished=self._state in (State.AUTH, State.TLS))
        self._close(closed)
        return closed

    def _close(self, closed: Event) -> None:
        """No more input is read; what is queued still goes out."""
        super()._close(closed)
        self._state = _CLOSED
        self._encoder = None

    def _hand_over(self) -> None:
        """The login is done, in `Mode.LOGIN`."""
        self._trailing_data = self._buffer.read_all()
        super()._close(HandOver(self.username))
        self._state = State.HANDED_OVER


def as_text(data: bytes) -> str:
    """Bytes of the client as text that keeps them: what is no UTF-8 becomes surrogate escapes."""
    return data.decode("utf-8", "surrogateescape")

