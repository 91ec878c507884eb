"""The server's side of AUTH (RFC 4954): the SASL exchange in the SMTP session."""

from mailfront_proto.buffer import OVERSIZED
from mailfront_proto.pull import NEED_DATA, NeedData
from mailfront_proto.sasl import (
    Aborted,
    Challenge,
    LoginServer,
    Malformed,
    PasswordRequest,
    PlainServer,
    ServerExchange,
    ServerMechanism,
    Step,
    Undecodable,
)
from mailfront_proto.sasl.exchange import encode_base64
from mailfront_proto.smtp import answers
from mailfront_proto.smtp.events import (
    Event,
    VerifyPassword,
)
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.server_session import ServerSession, as_text, shown_mechanism
from mailfront_proto.smtp.states import (
    State,
)


class ServerAuth(ServerSession):
    """A session that can authenticate its client; the mechanisms are in `mailfront_proto.sasl`."""

    __slots__ = ()

    def _auth(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if not argument:
            return self._refuse(verb, "", self._wrong_parameter(needed=True))
        if self.authenticated:
            return self._refuse(verb, self._shown(verb, argument), answers.ALREADY_AUTHENTICATED)
        name, _, response = argument.partition(b" ")
        self._mechanism = as_text(name)
        self._state_before_auth = self._state
        mechanism = self._new_mechanism(as_text(name.upper()))
        if mechanism is None:
            self._mechanism = shown_mechanism(self._mechanism)
            return self._auth_refused(answers.NO_SUCH_MECHANISM, "no such mechanism")
        self._exchange = ServerExchange(mechanism)
        return self._auth_step(self._exchange.start(response.strip(b" ") or None), initial=True)

    def _new_mechanism(self, name: str) -> ServerMechanism | None:
        if name not in self.mechanisms:
            return None
        if name == "PLAIN":
            return PlainServer(self.profile.free_authorization_identity)
        return LoginServer() if name == "LOGIN" else None

    def _next_auth_response(self) -> Event | NeedData | None:
        line = self._buffer.read_line(self.profile.limits.auth_line)
        if line is None:
            return self._end_of_input() if self._eof else NEED_DATA
        if line == OVERSIZED:
            return self._auth_refused(answers.RESPONSE_TOO_LONG, "bad response")
        assert self._exchange is not None
        return self._auth_step(self._exchange.line(line[:-2] if line.endswith(b"\r\n") else line[:-1]))

    def _auth_step(self, step: Step | Aborted | Undecodable, initial: bool = False) -> Event | None:
        if isinstance(step, Challenge):
            self._state = State.AUTH
            self._put(b"334 " + encode_base64(step.data) + b"\r\n")
            return None
        if isinstance(step, PasswordRequest):
            authorization = step.authorization_identity
            if authorization not in ("", step.username) and not self.allows_authorization_identity:
                return self._auth_refused(answers.AUTHORIZATION_REFUSED, "failed")
            self._state = self._state_before_auth
            name = self._mechanism
            return self._owe(
                VerifyPassword(name.upper(), name, step.username, step.password, authorization), self._state
            )
        if isinstance(step, Aborted):
            return self._auth_refused(answers.AUTH_CANCELLED, "aborted")
        assert isinstance(step, Undecodable | Malformed)
        cause = "failed"
        if isinstance(step, Undecodable):
            cause = "bad initial response" if initial else "bad response"
        return self._auth_refused(answers.UNDECODABLE_RESPONSE, cause)

    def _auth_refused(self, reply: Reply, cause: str) -> Event:
        """End the exchange; what was not cancelled, and reached a mechanism, counts as a failure."""
        self._exchange = None
        self._state = self._state_before_auth
        if not self._enhances and reply.enhanced_code:
            reply = Reply(reply.code, reply.text.partition(" ")[2])
        event = self._refuse("AUTH", "", reply, mechanism=self._mechanism, cause=cause)
        if cause not in ("aborted", "no such mechanism"):
            self._end_with(self._budgets.auth_failure())
        return event
