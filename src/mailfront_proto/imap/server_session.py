"""What an IMAP server session is made of, below its commands: its state, its output, how it refuses and how it ends.

`ServerSession` is the ground on which `mailfront_proto.imap.server_auth` and `mailfront_proto.imap.server` stand.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import ClassVar

from mailfront_proto.imap import answers
from mailfront_proto.imap.budgets import Budgets
from mailfront_proto.imap.command_reader import CommandReader
from mailfront_proto.imap.events import Answered, ConnectionClosed, HandOver
from mailfront_proto.imap.profile import Profile
from mailfront_proto.imap.replies import Reply
from mailfront_proto.imap.states import State
from mailfront_proto.login_machine import LoginMachine
from mailfront_proto.pull import Event
from mailfront_proto.sasl.masking import MASK


class Secrets(Enum):
    """What a client may send where a command should be: it did not wait, and was refused."""

    NONE = "none"
    WORDS = "words"
    """Responses of an exchange: one word each."""
    ANYTHING = "anything"
    """The content of a literal."""


class ServerSession(LoginMachine[Reply]):
    """The state of one session; see `mailfront_proto.imap.server.IMAPServer` for its arguments."""

    __slots__ = (
        "_budgets",
        "_command",
        "_command_state",
        "_events",
        "_next_state",
        "_reader",
        "_secrets",
        "_shown_tag",
        "_tag",
        "application_capabilities",
        "greeting",
        "in_tls",
        "offers_login",
        "offers_starttls",
        "profile",
        "server_id",
    )

    _handshake_state: ClassVar[object] = State.TLS
    _handed_over_state: ClassVar[object] = State.HANDED_OVER
    _state: State

    def __init__(self, profile: Profile, greeting: str) -> None:
        super().__init__(
            State.GREETING,
            auth_line=profile.limits.auth_line,
            free_authorization_identity=profile.free_authorization_identity,
            auth_as_original=profile.auth_as_original,
        )
        self.profile = profile
        self.greeting = greeting
        self.offers_starttls = False
        self.offers_login = False
        self.application_capabilities: Sequence[str] = ()
        self.server_id: Mapping[str, str] = {"name": "mailfront"}
        self.in_tls = False
        """TLS is in use."""
        self.username = ""

        self._reader = CommandReader(self._buffer, profile)
        self._budgets = Budgets(profile.limits)
        self._events: deque[Event] = deque()  # in front of what is read next
        self._tag = self._shown_tag = b"*"
        self._command = ""
        self._secrets = Secrets.NONE
        self._next_state = self._command_state = State.CLEAR
        self._trailing_data = b""

    # -- what the application asks -----------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    @property
    def capabilities(self) -> list[str]:
        """What CAPABILITY tells now (RFC 9051 section 7.2.2)."""
        offered = ["IMAP4rev1"]
        given = [word for word in self.application_capabilities if word.upper() != "IMAP4REV1"]
        if self.profile.extensions:
            if not any(word.upper() in ("LITERAL+", "LITERAL-") for word in given):
                offered.append("LITERAL-")  # RFC 7888 section 5
            offered += ["SASL-IR", "ID"]  # RFC 4959, RFC 2971
            if self.offers_starttls and not self.in_tls:
                offered.append("STARTTLS")
            if not self.offers_login:
                offered.append("LOGINDISABLED")  # RFC 9051 section 6.2.3
            offered += [f"AUTH={mechanism}" for mechanism in self.sasl.mechanisms]
        return [*offered, *(word for word in given if word not in offered)]

    # -- answers -----------------------------------------------------------------------------------------

    def _coded(self, reply: Reply) -> Reply:
        """`reply`, with its response code if the profile has those."""
        return reply if self.profile.response_codes or not reply.code else Reply(reply.status, reply.text)

    def _say(self, reply: Reply, tag: bytes = b"*", mechanism: str = "", cause: str = "") -> Reply:
        """Queue `reply`, and tell of it; returns it as it was sent."""
        reply = self._coded(reply)
        line = reply.encode(tag)
        self._put(line)
        said = line[:-2] if tag == b"*" else self._shown_tag + line[len(tag) : -2]
        command = "" if tag == b"*" else self._command
        self._events.append(Answered(_as_text(said), reply, command, mechanism, cause))
        return reply

    def _say_line(self, line: bytes) -> None:
        """The same for a line that is no status response."""
        self._put(line + b"\r\n")
        self._events.append(Answered(_as_text(line)))

    def _done(self, reply: Reply) -> None:
        """The usual end of a command that the machine has carried out itself."""
        spent = self._budgets.idle()
        self._say(reply, self._tag)
        self._end_with(spent)

    def _owe(self, event: Event, next_state: State) -> None:
        self._events.append(event)
        self._pending = event
        self._next_state = next_state

    def _refuse(self, reply: Reply, *, mechanism: str = "", cause: str = "") -> None:
        """Answer with `reply`, and count it."""
        if reply.status == "BAD":
            spent = self._budgets.error()
        else:
            self._budgets.errors_in_row = 0
            spent = self._budgets.idle()
        self._say(reply, self._tag, mechanism, cause)
        self._end_with(spent)

    def _begin_command(self, tag: bytes, name: str, has_name: bool) -> None:
        """Note what is being answered. `name`: empty for a command that is not known."""
        self._tag = tag
        self._command = name
        masked = not name and (self._secrets is Secrets.ANYTHING or (self._secrets is Secrets.WORDS and not has_name))
        self._shown_tag = MASK.encode() if masked and tag != b"*" else tag

    # -- the end -----------------------------------------------------------------------------------------

    def _end_with(self, reply: Reply | None) -> None:
        """Say `reply` as the last word and close, if there is one, and the end has not come yet."""
        if reply is None or self._state is State.CLOSED:
            return
        if self.profile.says_bye:
            self._say(reply)
        self._end(reply.text, reply)

    def _end_of_input(self) -> Event:
        return self._end("EOF")

    def _end(self, reason: str, reply: Reply | None = None) -> Event:
        """No more input is read; what is queued still goes out."""
        closed = ConnectionClosed(reason, self._state in (State.AUTH, State.TLS), reply)
        self._state = State.CLOSED
        self._close(closed)
        return closed

    def _hand_over(self) -> None:
        """The login is done: the connection is another's."""
        self._trailing_data = self._buffer.read_all()
        self._state = State.HANDED_OVER
        self._close(HandOver(self._tag, self.username, self._command))

    def _log_out(self) -> None:
        """LOGOUT (RFC 9051 section 6.1.3)."""
        if self.profile.says_bye:
            self._say(answers.LOGGING_OUT)
        else:
            self._say_line(b"* " + answers.LOGGING_OUT.text.encode())
        self._say(answers.LOGOUT_DONE, self._tag)
        self._end("LOGOUT")


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
