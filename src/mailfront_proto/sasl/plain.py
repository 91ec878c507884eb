"""PLAIN (RFC 4616): ``[authzid] NUL authcid NUL passwd``, in one message."""

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl.mechanism import (
    Cause,
    Failed,
    ServerMechanism,
    SingleMessageClient,
    Step,
    decode_identity,
    has_control,
)
from mailfront_proto.sasl.requests import VerifyPassword
from mailfront_proto.secret import Secret


class PlainServer(ServerMechanism):
    """The server role: one message, then `VerifyPassword`.

    `ignores_authorization_identity`: any bytes pass for it, and none is handed on (compat). `takes_empty_names`: user
    name and password may be empty (compat).
    """

    takes_empty = False

    def __init__(self, ignores_authorization_identity: bool = False, takes_empty_names: bool = False) -> None:
        self._ignores = ignores_authorization_identity
        self._takes_empty_names = takes_empty_names

    def respond(self, response: bytes) -> Step:
        """RFC 4616 section 2: exactly two NULs, a user name and a password that are not empty (but see above)."""
        parts = response.split(b"\0")
        if len(parts) != 3:
            return Failed(Cause.MALFORMED)
        authzid, authcid, password = parts
        username = decode_identity(authcid)
        authorization = "" if self._ignores else decode_identity(authzid)
        if username is None or authorization is None or has_control(password):
            return Failed(Cause.MALFORMED)
        if not self._takes_empty_names and not (username and password):
            return Failed(Cause.MALFORMED)
        return VerifyPassword("PLAIN", "PLAIN", username, Secret(password), authorization)


class PlainClient(SingleMessageClient):
    """The client role. NUL in an argument is a `LocalProtocolError`."""

    name = "PLAIN"

    def __init__(self, username: str, password: Secret, authorization_identity: str = "") -> None:
        message = [authorization_identity.encode(), username.encode(), password.reveal()]
        if any(b"\0" in part for part in message) or not message[1] or not message[2]:
            raise LocalProtocolError("PLAIN takes a user name and a password that are not empty, without NUL")
        self._message = b"\0".join(message)
