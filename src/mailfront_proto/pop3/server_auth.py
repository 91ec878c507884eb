"""The server's side of a login: USER and PASS (RFC 1939 section 7), and how POP3 carries the exchange of
`mailfront_proto.sasl.exchange` (RFC 5034)."""

from typing import TYPE_CHECKING, Final

from mailfront_proto.buffer import OVERSIZED
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.pop3 import answers
from mailfront_proto.pop3.events import Answered, ConnectionClosed, Refused
from mailfront_proto.pop3.replies import Reply
from mailfront_proto.pop3.server_session import ServerSession
from mailfront_proto.pop3.states import State
from mailfront_proto.pull import NEED_DATA, Event, NeedData
from mailfront_proto.sasl.requests import Authorize, FindKeys, VerifyPassword, VerifyResponse, VerifyToken
from mailfront_proto.secret import Secret

if TYPE_CHECKING:
    from mailfront_proto.sasl.mechanism import Failed, Step
    from mailfront_proto.sasl.scram_keys import ScramKeys

_WRONG_CREDENTIALS: Final = ("OTHER_IDENTITY", "NOT_PROVEN")
"""The causes for which a client should ask its user again (RFC 3206 section 6)."""


class ServerAuth(ServerSession):
    """A session that can authenticate its client. What is of SASL is imported when the first client asks for it."""

    __slots__ = ()

    def supply_keys(self, keys: "ScramKeys | None") -> None:
        """Answer `FindKeys`: the keys that are stored for the user, or None. Call `next_event` next.

        Raises `LocalProtocolError` for another event, and for keys of another hash than the mechanism's.
        """
        exchange = self._exchange
        if exchange is None or type(self._pending) is not FindKeys:
            raise LocalProtocolError("supply_keys() answers FindKeys, and nothing else")
        challenge = exchange.supply_keys(keys)
        self._pending = None
        self._auth_step(challenge)

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
        from mailfront_proto.sasl.exchange import ServerExchange

        name, _, response = argument.partition(b" ")
        self._state_before_auth = self._state
        self._state_behind_auth = next_state
        self._exchange = ServerExchange(
            self.sasl, ignores_authorization_identity=self.profile.free_authorization_identity
        )
        return self._auth_step(self._exchange.start(name, response.strip(b" ") or None))

    def _next_auth_response(self) -> Event | NeedData | None:
        line = self._buffer.read_line(self.profile.limits.auth_line) if self._buffer.has_unread else None
        if line is None:
            return self._end_of_input() if self._eof else NEED_DATA
        assert self._exchange is not None
        if line == OVERSIZED:
            return self._auth_step(self._exchange.oversized())
        return self._auth_step(self._exchange.respond(line[:-2] if line.endswith(b"\r\n") else line[:-1]))

    def _auth_step(self, step: "Step") -> Event | None:
        from mailfront_proto.sasl.base64_line import encode_base64
        from mailfront_proto.sasl.mechanism import Challenge, Failed

        if isinstance(step, Challenge):
            self._state = State.AUTH
            self._put(b"+ " + encode_base64(step.data) + b"\r\n")  # RFC 5034 section 4
            return None
        self._state = self._state_before_auth
        return self._auth_failed(step) if isinstance(step, Failed) else self._owe(step, self._state_behind_auth)

    def _auth_failed(self, failed: "Failed") -> Event | None:
        """The exchange has failed by itself; what was not cancelled, and reached a mechanism, counts."""
        exchange, held = self._exchange, self._refused_auth
        assert exchange is not None
        self._exchange = self._refused_auth = None
        self._secrets_may_follow = True
        if held is not None:
            self._login_failed(held)
            return None
        cause = failed.cause
        reply = Reply("-ERR", cause.text, "AUTH" if cause.name in _WRONG_CREDENTIALS else "")
        if not cause.is_attempt:
            return self._refuse(reply, mechanism=exchange.mechanism, cause=cause.words)
        event = Refused(self.last_line, self._coded(reply), exchange.mechanism, cause.words)
        self._login_failed(reply)
        return event

    # -- the application's verdict -----------------------------------------------------------------------------

    def _login_accepted(self, event: Event) -> None:
        """Nothing is said yet: that is for `OpenMailbox`, or for who owns the connection next."""
        if isinstance(event, FindKeys):
            raise LocalProtocolError("FindKeys is answered with supply_keys(keys), or refused with reply()")
        assert isinstance(event, VerifyPassword | VerifyResponse | VerifyToken | Authorize)
        self._pending = None
        self._exchange = None
        self.username = getattr(event, "authorization_identity", "") or event.username
        if self._next_state is State.HANDED_OVER:
            self._hand_over()
        else:
            self._state = State.OPENING

    def _login_refused(self, event: Event, reply: Reply) -> None:
        """`reply` goes out, unless the mechanism has something to tell first."""
        self._pending = None
        exchange = self._exchange
        challenge = exchange.refused() if exchange is not None and not reply.is_temporary else None
        if challenge is not None:
            self._refused_auth = reply
            self._auth_step(challenge)
            return
        self._exchange = None
        self._secrets_may_follow = exchange is not None
        self._login_failed(reply)

    def _login_failed(self, reply: Reply) -> None:
        self._say(reply)
        if self._budgets.auth_failure():
            self._close(ConnectionClosed(reply.text, reply=self._coded(reply)))


def as_identity(argument: bytes) -> str | None:
    """The argument of USER as text; None for invalid UTF-8 or control characters."""
    if argument.isascii() and argument.isalnum():
        return argument.decode("ascii")
    from mailfront_proto.sasl.mechanism import decode_identity

    return decode_identity(argument)
