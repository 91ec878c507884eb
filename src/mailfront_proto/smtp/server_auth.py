"""The server's side of AUTH (RFC 4954): how SMTP says what comes of an exchange."""

from typing import TYPE_CHECKING, Final

from mailfront_proto.sasl.requests import Request
from mailfront_proto.smtp import answers
from mailfront_proto.smtp.events import Event
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.server_session import ServerSession
from mailfront_proto.smtp.states import State

if TYPE_CHECKING:
    from mailfront_proto.sasl.mechanism import Cause

_REPLIES: Final = {
    "ABORTED": answers.AUTH_CANCELLED,
    "NO_SUCH_MECHANISM": answers.NO_SUCH_MECHANISM,
    "BAD_INITIAL_RESPONSE": answers.UNDECODABLE_RESPONSE,
    "BAD_RESPONSE": answers.UNDECODABLE_RESPONSE,
    "TOO_LONG": answers.RESPONSE_TOO_LONG,
    "INITIAL_RESPONSE": answers.INITIAL_RESPONSE_REFUSED,
    "MALFORMED": answers.UNDECODABLE_RESPONSE,
    "OTHER_IDENTITY": answers.AUTHORIZATION_REFUSED,
    "END_OF_FILE": answers.END_OF_FILE_IN_AUTH,
    "NOT_PROVEN": answers.AUTH_FAILED,
}
"""The answer to each `Cause`, by its name."""


class ServerAuth(ServerSession):
    """A session that can authenticate its client."""

    __slots__ = ()

    _auth_state = State.AUTH
    _challenge_mark = b"334 "

    def _auth(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if not argument:
            return self._refuse(verb, "", self._wrong_parameter(needed=True))
        if self.authenticated:
            return self._refuse(verb, self._shown(verb, argument), answers.ALREADY_AUTHENTICATED)
        name, blank, response = argument.partition(b" ")
        if self._as_original:  # one that is empty is one
            return self._begin_exchange(name, response.lstrip(b" ") if blank else None, self._state)
        return self._begin_exchange(name, response.strip(b" ") or None, self._state)

    def _exchange_failed(self, mechanism: str, cause: "Cause") -> Event | None:
        reply = _REPLIES[cause.name]
        if reply is answers.AUTH_FAILED:
            reply = Reply(self.profile.auth_failed_code, reply.text)
        elif reply is answers.INITIAL_RESPONSE_REFUSED:
            reply = Reply(self.profile.initial_response_refused_code, reply.text)
        if not self._enhances and reply.enhanced_code:
            reply = Reply(reply.code, reply.text.partition(" ")[2])
        event = self._refuse("AUTH", "", reply, mechanism=mechanism, cause=cause.words)
        if cause.is_attempt:
            self._end_with(self._budgets.auth_failure())
        return event

    def _refuse_login(self, reply: Reply) -> None:
        self._send(reply.code, reply.text)
        self._end_with(self._budgets.auth_failure())

    def _expect_secrets(self) -> None:
        self._secrets_may_follow = True

    def _auth_goes_on(self, code: int, text: str) -> bool:
        """Whether an answer to a request is not the exchange's end: the client is to hear out why first."""
        assert isinstance(self._pending, Request)
        if code < 400:
            self._check_acceptable()
            return False
        return self._holds(Reply(code, text), permanent=code >= 500)

    def _auth_over(self, accepted: bool) -> None:
        """The exchange has ended with the application's answer, which is in the output."""
        assert self._exchange is not None
        mechanism = self._exchange.mechanism.upper()
        self._end_exchange()
        self._state = self._state_before_auth
        if accepted:
            self.authenticated, self.anonymous = True, mechanism == "ANONYMOUS"
        else:
            self._end_with(self._budgets.auth_failure())
