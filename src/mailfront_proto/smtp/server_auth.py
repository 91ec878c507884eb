"""The server's side of AUTH (RFC 4954): how SMTP carries the exchange of `mailfront_proto.sasl.exchange`."""

from typing import TYPE_CHECKING, Final

from mailfront_proto.buffer import OVERSIZED
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.pull import NEED_DATA, NeedData
from mailfront_proto.sasl.requests import FindKeys, Request
from mailfront_proto.smtp import answers
from mailfront_proto.smtp.events import Event
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.server_session import ServerSession
from mailfront_proto.smtp.states import State

if TYPE_CHECKING:
    from mailfront_proto.sasl.mechanism import Failed, Step
    from mailfront_proto.sasl.scram_keys import ScramKeys

_REPLIES: Final = {
    "ABORTED": answers.AUTH_CANCELLED,
    "NO_SUCH_MECHANISM": answers.NO_SUCH_MECHANISM,
    "BAD_INITIAL_RESPONSE": answers.UNDECODABLE_RESPONSE,
    "BAD_RESPONSE": answers.UNDECODABLE_RESPONSE,
    "TOO_LONG": answers.RESPONSE_TOO_LONG,
    "INITIAL_RESPONSE": answers.INITIAL_RESPONSE_REFUSED,
    "MALFORMED": answers.UNDECODABLE_RESPONSE,
    "OTHER_IDENTITY": answers.AUTHORIZATION_REFUSED,
    "NOT_PROVEN": answers.AUTH_FAILED,
}
"""The answer to each `Cause`, by its name."""


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

    def _auth(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if not argument:
            return self._refuse(verb, "", self._wrong_parameter(needed=True))
        if self.authenticated:
            return self._refuse(verb, self._shown(verb, argument), answers.ALREADY_AUTHENTICATED)
        from mailfront_proto.sasl.exchange import ServerExchange

        name, _, response = argument.partition(b" ")
        self._state_before_auth = self._state
        self._exchange = ServerExchange(
            self.sasl, ignores_authorization_identity=self.profile.free_authorization_identity
        )
        return self._auth_step(self._exchange.start(name, response.strip(b" ") or None))

    def _next_auth_response(self) -> Event | NeedData | None:
        line = self._buffer.read_line(self.profile.limits.auth_line)
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
            self._put(b"334 " + encode_base64(step.data) + b"\r\n")
            return None
        self._state = self._state_before_auth
        return self._auth_failed(step) if isinstance(step, Failed) else self._owe(step, self._state)

    def _auth_failed(self, failed: "Failed") -> Event | None:
        """The exchange has failed by itself; what was not cancelled, and reached a mechanism, counts."""
        exchange, held = self._exchange, self._refused_auth
        assert exchange is not None
        if held is not None:
            self._send(held.code, held.text)
            self._auth_over(False)
            return None
        cause = failed.cause
        reply = _REPLIES[cause.name]
        if reply is answers.AUTH_FAILED:
            reply = Reply(self.profile.auth_failed_code, reply.text)
        elif reply is answers.INITIAL_RESPONSE_REFUSED:
            reply = Reply(self.profile.initial_response_refused_code, reply.text)
        if not self._enhances and reply.enhanced_code:
            reply = Reply(reply.code, reply.text.partition(" ")[2])
        self._exchange = None
        event = self._refuse("AUTH", "", reply, mechanism=exchange.mechanism, cause=cause.words)
        if cause.is_attempt:
            self._end_with(self._budgets.auth_failure())
        return event

    def _auth_goes_on(self, code: int, text: str) -> bool:
        """Whether an answer to a request is not the exchange's end: the client is to hear out why first."""
        exchange = self._exchange
        assert exchange is not None and isinstance(self._pending, Request)
        if code < 400 and type(self._pending) is FindKeys:
            raise LocalProtocolError("FindKeys is answered with supply_keys(keys), or refused with reply()")
        challenge = exchange.refused() if code >= 500 else None
        if challenge is None:
            return False
        self._pending = None
        self._refused_auth = Reply(code, text)
        self._auth_step(challenge)
        return True

    def _auth_over(self, accepted: bool) -> None:
        """The exchange has ended with the application's answer, which is in the output."""
        self._exchange = self._refused_auth = None
        self._state = self._state_before_auth
        self._secrets_may_follow = True
        if accepted:
            self.authenticated = True
        else:
            self._end_with(self._budgets.auth_failure())
