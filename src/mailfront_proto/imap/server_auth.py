"""The server's side of a login: LOGIN (RFC 9051 section 6.2.3), and how IMAP carries the exchange of
`mailfront_proto.sasl.exchange` (RFC 9051 section 6.2.2, RFC 4959)."""

from typing import TYPE_CHECKING, Final

from mailfront_proto.buffer import OVERSIZED
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.imap import answers
from mailfront_proto.imap.command_reader import Argument, Atom
from mailfront_proto.imap.replies import Reply, Status
from mailfront_proto.imap.server_session import Secrets, ServerSession
from mailfront_proto.imap.states import State
from mailfront_proto.pull import NEED_DATA, Event, NeedData
from mailfront_proto.sasl.requests import FindKeys, Request, VerifyPassword
from mailfront_proto.secret import Secret

if TYPE_CHECKING:
    from mailfront_proto.sasl.mechanism import Failed, Step
    from mailfront_proto.sasl.scram_keys import ScramKeys

_CODES: Final = {
    "OTHER_IDENTITY": "AUTHORIZATIONFAILED",
    "NOT_PROVEN": "AUTHENTICATIONFAILED",
    "NO_SUCH_MECHANISM": "CANNOT",
}
"""The response codes (RFC 5530 section 3) for the causes that have one."""

_BAD: Final = ("ABORTED", "BAD_INITIAL_RESPONSE", "BAD_RESPONSE", "INITIAL_RESPONSE")
"""The causes that are answered with BAD: a cancelled exchange, what is no base64 (RFC 9051 section 6.2.2), an initial
response where the server speaks first (RFC 4959 section 3)."""


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

    # -- LOGIN -------------------------------------------------------------------------------------------

    def _login(self, arguments: list[Argument], next_state: State) -> None:
        if not arguments:
            return self._refuse(answers.NEEDS_ARGUMENTS)
        if len(arguments) != 2 or not all(isinstance(argument, bytes) for argument in arguments):
            return self._refuse(answers.LOGIN_ARGUMENTS)
        if not self.offers_login:
            code = "" if self.in_tls else answers.LOGIN_DISABLED.code
            return self._refuse(Reply("NO", answers.LOGIN_DISABLED.text, code))
        from mailfront_proto.sasl.mechanism import decode_identity, has_control

        name, password = arguments
        assert isinstance(name, bytes) and isinstance(password, bytes)
        username = decode_identity(name)
        if not username or not password or has_control(password):
            # No such user can exist: it is a failed login, and counts as one.
            self._login_failed(answers.LOGIN_FAILED)
            return
        self._owe(VerifyPassword("LOGIN", "", username, Secret(bytes(password)), ""), next_state)

    # -- AUTHENTICATE ------------------------------------------------------------------------------------

    def _authenticate(self, arguments: list[Argument], next_state: State) -> None:
        self._secrets = Secrets.WORDS  # until it is under way
        if not arguments:
            return self._refuse(answers.NEEDS_ARGUMENTS)
        wanted = Atom if self.profile.strict_grammar else bytes
        if len(arguments) > 2 or not all(isinstance(argument, wanted) for argument in arguments):
            return self._refuse(answers.AUTHENTICATE_ARGUMENTS)
        from mailfront_proto.sasl.exchange import ServerExchange

        name, response = arguments[0], arguments[1] if len(arguments) == 2 else None
        assert isinstance(name, bytes) and not isinstance(response, list)
        self._next_state = next_state
        self._exchange = ServerExchange(
            self.sasl, ignores_authorization_identity=self.profile.free_authorization_identity
        )
        self._auth_step(self._exchange.start(name, response))

    def _next_auth_response(self) -> Event | NeedData | None:
        line = self._buffer.read_line(self.profile.limits.auth_line) if self._buffer.has_unread else None
        if line is None:
            return self._end_of_input() if self._eof else NEED_DATA
        assert self._exchange is not None
        if line == OVERSIZED:
            self._auth_step(self._exchange.oversized())
        else:
            self._auth_step(self._exchange.respond(line[:-2] if line.endswith(b"\r\n") else line[:-1]))
        return None

    def _auth_step(self, step: "Step") -> None:
        from mailfront_proto.sasl.base64_line import encode_base64
        from mailfront_proto.sasl.mechanism import Challenge, Failed

        if isinstance(step, Challenge):
            self._state = State.AUTH
            self._put(b"+ " + encode_base64(step.data) + b"\r\n")
            return
        self._state = self._command_state
        if isinstance(step, Failed):
            self._auth_failed(step)
        else:
            self._owe(step, State.HANDED_OVER)

    def _auth_failed(self, failed: "Failed") -> None:
        """The exchange has failed by itself; what was not cancelled, and reached a mechanism, counts."""
        exchange, held = self._exchange, self._refused_auth
        assert exchange is not None
        self._exchange = self._refused_auth = None
        self._secrets = Secrets.WORDS
        if held is not None:
            self._login_failed(held)
            return
        cause = failed.cause
        status: Status = "BAD" if self.profile.strict_grammar and cause.name in _BAD else "NO"
        reply = Reply(status, answers.AUTHENTICATE_FAILED + cause.text, _CODES.get(cause.name, ""))
        if cause.is_attempt or not self.profile.strict_grammar:
            self._login_failed(reply, exchange.mechanism, cause.words)
        else:
            self._refuse(reply, mechanism=exchange.mechanism, cause=cause.words)

    # -- the application's verdict -----------------------------------------------------------------------

    def _login_accepted(self, event: Request) -> None:
        """Nothing is said: that is for who owns the connection next."""
        if isinstance(event, FindKeys):
            raise LocalProtocolError("FindKeys is answered with supply_keys(keys), or refused with reply()")
        self._pending = None
        self._exchange = None
        self.username = getattr(event, "authorization_identity", "") or getattr(event, "username", "")
        self._hand_over()

    def _login_refused(self, reply: Reply) -> None:
        """`reply` goes out, unless the mechanism has something to tell first."""
        self._pending = None
        exchange = self._exchange
        challenge = exchange.refused() if exchange is not None and not reply.is_temporary else None
        if challenge is not None:
            self._refused_auth = reply
            self._auth_step(challenge)
            return
        if exchange is not None:
            self._exchange = None
            self._secrets = Secrets.WORDS
        self._login_failed(reply)

    def _login_failed(self, reply: Reply, mechanism: str = "", cause: str = "") -> None:
        self._budgets.errors_in_row = 0
        self._say(reply, self._tag, mechanism, cause)
        self._end_with(self._budgets.auth_failure())

    def _usual_refusal(self, code: str) -> Reply:
        """What is said to a failed login, in the original's words; `code`: the application's, or an empty string."""
        temporary = Reply("NO", "", code).is_temporary
        if self._exchange is None:
            usual = answers.LOGIN_UNAVAILABLE if temporary else answers.LOGIN_FAILED
            return Reply("NO", usual.text, code or usual.code)
        text = "Internal error." if temporary else "Authentication failed."
        return Reply("NO", answers.AUTHENTICATE_FAILED + text, code or "AUTHENTICATIONFAILED")
