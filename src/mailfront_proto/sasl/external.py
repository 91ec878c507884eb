"""EXTERNAL (RFC 4422 appendix A): who the client is has been established outside, by its TLS certificate say."""

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl.mechanism import (
    Cause,
    Failed,
    ServerMechanism,
    SingleMessageClient,
    Step,
    decode_identity,
)
from mailfront_proto.sasl.requests import Authorize


class ExternalServer(ServerMechanism):
    """The server role: one message, the authorization identity or nothing, then `Authorize`.

    `identity`: who the client is, as the application knows from elsewhere. Nothing that the client says changes it.
    """

    def __init__(self, identity: str) -> None:
        self._identity = identity

    def respond(self, response: bytes) -> Step:
        """The identity to act as; empty for the client's own."""
        authorization_identity = decode_identity(response)
        if authorization_identity is None:
            return Failed(Cause.MALFORMED)
        return Authorize("EXTERNAL", "EXTERNAL", self._identity, authorization_identity)


class ExternalClient(SingleMessageClient):
    """The client role. `authorization_identity`: the identity to act as; empty for our own."""

    name = "EXTERNAL"

    def __init__(self, authorization_identity: str = "") -> None:
        if "\0" in authorization_identity:
            raise LocalProtocolError("EXTERNAL takes an authorization identity without NUL")
        self._message = authorization_identity.encode()
