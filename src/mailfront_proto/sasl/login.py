"""LOGIN (no RFC; draft-murchison-sasl-login): the server asks for user name and password in turn."""

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.sasl.mechanism import (
    Cause,
    Challenge,
    ClientMechanism,
    Failed,
    ServerMechanism,
    Step,
    decode_identity,
    has_control,
)
from mailfront_proto.sasl.requests import VerifyPassword
from mailfront_proto.secret import Secret


class LoginServer(ServerMechanism):
    """The server role. An initial response, where there is one, is the user name."""

    takes_empty = False

    def __init__(self) -> None:
        self._username: str | None = None

    def start(self, initial_response: bytes | None) -> Step:
        """Ask for the user name, unless it came along."""
        return Challenge(b"Username:") if initial_response is None else self.respond(initial_response)

    def respond(self, response: bytes) -> Step:
        """The user name first, then the password; neither may be empty."""
        if self._username is None:
            self._username = decode_identity(response)
            return Challenge(b"Password:") if self._username else Failed(Cause.MALFORMED)
        if not response or has_control(response):
            return Failed(Cause.MALFORMED)
        return VerifyPassword("LOGIN", "LOGIN", self._username, Secret(response), "")


class LoginClient(ClientMechanism):
    """The client role: answers two challenges, whatever their words."""

    name = "LOGIN"

    def __init__(self, username: str, password: Secret) -> None:
        if not username or not password:
            raise LocalProtocolError("LOGIN takes a user name and a password that are not empty")
        self._answers = [username.encode(), password.reveal()]

    def initial_response(self) -> None:
        """None: the server speaks first."""
        return None

    def respond(self, challenge: bytes) -> bytes:
        """The user name, then the password; servers word the challenges as they like."""
        if not self._answers:
            raise RemoteProtocolError("the server asks for a third answer in a LOGIN exchange")
        return self._answers.pop(0)
