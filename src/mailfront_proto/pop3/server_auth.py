"""The server's side of a login: USER and PASS (RFC 1939 section 7), AUTH (RFC 5034), and what comes of them."""

from typing import TYPE_CHECKING, Final

from mailfront_proto.pop3 import answers
from mailfront_proto.pop3.events import Answered, ConnectionClosed, Refused
from mailfront_proto.pop3.replies import Reply
from mailfront_proto.pop3.server_session import ServerSession
from mailfront_proto.pop3.states import State
from mailfront_proto.pull import Event
from mailfront_proto.sasl.requests import Request, VerifyPassword
from mailfront_proto.secret import Secret

if TYPE_CHECKING:
    from mailfront_proto.sasl.mechanism import Cause

_WRONG_CREDENTIALS: Final = ("OTHER_IDENTITY", "NOT_PROVEN")
"""The causes for which a client should ask its user again (RFC 3206 section 6)."""


class ServerAuth(ServerSession):
    """A session that can authenticate its client."""

    __slots__ = ()

    _auth_state = State.AUTH

    # -- USER and PASS -------------------------------------------------------------------------------------

    def _user(self, argument: bytes, next_state: State) -> Event:
        if not self.offers_user:
            return self._refuse(answers.NOT_IMPLEMENTED)
        if self._budgets.user():
            return self._refuse_last(answers.TOO_MANY_USERS)
        name = as_identity(argument)
        if name is None:
            return self._refuse(answers.SYNTAX_ERROR)
        self._user_name = name
        self._state = next_state
        return self._done()

    def _pass(self, argument: bytes, next_state: State) -> Event:
        if any(c < 0x20 or c == 0x7F for c in argument):
            return self._refuse(answers.SYNTAX_ERROR)
        self._state = State.AUTHORIZATION
        return self._owe(VerifyPassword("USER", "USER", self._user_name, Secret(argument), ""), next_state)

    # -- AUTH ------------------------------------------------------------------------------------------------

    def _auth(self, argument: bytes, next_state: State) -> Event | None:
        if not argument:  # as servers had it before CAPA; RFC 5034 does not speak of it
            if self._budgets.idle():
                return self._refuse_last(answers.TOO_MANY_IDLE_COMMANDS)
            self._put_lines(answers.DONE, self.sasl.mechanisms)
            return Answered(self.last_line, answers.DONE)
        name, blank, response = argument.partition(b" ")
        if self.profile.auth_as_original:  # what is behind the blank is a response, though it be empty
            return self._begin_exchange(name, response.lstrip(b" ") if blank else None, next_state)
        return self._begin_exchange(name, response.strip(b" ") or None, next_state)

    def _exchange_failed(self, mechanism: str, cause: "Cause") -> Event:
        reply = Reply("-ERR", cause.text, "AUTH" if cause.name in _WRONG_CREDENTIALS else "")
        if not (cause.is_attempt or self.profile.counts_every_auth):
            return self._refuse(reply, mechanism=mechanism, cause=cause.words)
        event = Refused(self.last_line, self._coded(reply), mechanism, cause.words)
        self._refuse_login(reply)
        return event

    def _expect_secrets(self) -> None:
        self._secrets_may_follow = True

    # -- the application's verdict -----------------------------------------------------------------------------

    def _login_accepted(self, event: Event) -> None:
        """To `OpenMailbox`, or to who owns the connection next."""
        assert isinstance(event, Request)
        self._note_login(event)
        if self._next_state is State.HANDED_OVER:
            self._hand_over()
        else:
            self._state = State.OPENING

    def _refuse_login(self, reply: Reply) -> None:
        self._say(reply)
        if self._budgets.auth_failure():
            self._close(ConnectionClosed(reply.text, reply=self._coded(reply)))


def as_identity(argument: bytes) -> str | None:
    """The argument of USER as text; None for invalid UTF-8 or control characters."""
    if argument.isascii() and argument.isalnum():
        return argument.decode("ascii")
    from mailfront_proto.sasl.mechanism import decode_identity

    return decode_identity(argument)
