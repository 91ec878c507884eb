"""The server's side of a login: LOGIN (RFC 9051 section 6.2.3), AUTHENTICATE (RFC 9051 section 6.2.2, RFC 4959), and
what comes of them."""

from typing import TYPE_CHECKING, Final

from mailfront_proto.imap import answers
from mailfront_proto.imap.command_reader import Argument, Atom
from mailfront_proto.imap.replies import Reply, Status
from mailfront_proto.imap.server_session import Secrets, ServerSession
from mailfront_proto.imap.states import State
from mailfront_proto.sasl.requests import Request, VerifyPassword
from mailfront_proto.secret import Secret

if TYPE_CHECKING:
    from mailfront_proto.sasl.mechanism import Cause

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
    """A session that can authenticate its client."""

    __slots__ = ()

    _auth_state = State.AUTH

    # -- LOGIN -------------------------------------------------------------------------------------------

    def _login(self, arguments: list[Argument], next_state: State) -> None:
        if not arguments:
            return self._refuse(answers.NEEDS_ARGUMENTS)
        if len(arguments) != 2 or not all(isinstance(argument, bytes) for argument in arguments):
            return self._refuse(answers.LOGIN_ARGUMENTS)
        if not self.offers_login:
            return self._refuse(self._login_disabled())
        from mailfront_proto.sasl.mechanism import decode_identity, has_control

        name, password = arguments
        assert isinstance(name, bytes) and isinstance(password, bytes)
        username = decode_identity(name)
        if not username or not password or has_control(password):
            # No such user can exist: it is a failed login, and counts as one.
            self._refuse_login(answers.LOGIN_FAILED)
            return
        self._owe(VerifyPassword("LOGIN", "", username, Secret(bytes(password)), ""), next_state)

    def _login_disabled(self) -> Reply:
        return Reply("NO", answers.LOGIN_DISABLED.text, "" if self.in_tls else answers.LOGIN_DISABLED.code)

    # -- AUTHENTICATE ------------------------------------------------------------------------------------

    def _authenticate(self, arguments: list[Argument], next_state: State) -> None:
        self._secrets = Secrets.WORDS  # until it is under way
        if not arguments:
            return self._refuse(answers.NEEDS_ARGUMENTS)
        wanted = Atom if self.profile.strict_grammar else bytes
        if len(arguments) > 2 or not all(isinstance(argument, wanted) for argument in arguments):
            return self._refuse(answers.AUTHENTICATE_ARGUMENTS)
        name, response = arguments[0], arguments[1] if len(arguments) == 2 else None
        assert isinstance(name, bytes) and not isinstance(response, list)
        self._begin_exchange(name, response, next_state)

    def _exchange_failed(self, mechanism: str, cause: "Cause") -> None:
        status: Status = "BAD" if self.profile.strict_grammar and cause.name in _BAD else "NO"
        reply = Reply(status, answers.AUTHENTICATE_FAILED + cause.text, _CODES.get(cause.name, ""))
        if cause.is_attempt or not self.profile.strict_grammar:
            self._refuse_login(reply, mechanism, cause.words)
        else:
            self._refuse(reply, mechanism=mechanism, cause=cause.words)

    def _expect_secrets(self) -> None:
        self._secrets = Secrets.WORDS

    # -- the application's verdict -----------------------------------------------------------------------

    def _login_accepted(self, event: Request) -> None:
        """To who owns the connection next."""
        self._note_login(event)
        self._hand_over()

    def _refuse_login(self, reply: Reply, mechanism: str = "", cause: str = "") -> None:
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
