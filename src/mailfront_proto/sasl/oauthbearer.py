"""OAUTHBEARER (RFC 7628): an OAuth 2.0 bearer token (RFC 6750) in place of a password."""

import re
from typing import ClassVar, Final

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.sasl.mechanism import (
    Cause,
    Challenge,
    Failed,
    ServerMechanism,
    SingleMessageClient,
    Step,
    decode_identity,
)
from mailfront_proto.sasl.requests import VerifyToken
from mailfront_proto.sasl.scram_messages import GS2Header, escape_name
from mailfront_proto.secret import Secret

# RFC 6750 section 2.1: credentials = "Bearer" 1*SP b64token; the scheme in any case (RFC 9110 section 11.1)
BEARER: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]+=*)\Z")
_PAIR: Final = re.compile(rb"([A-Za-z]+)=(.*)\Z", re.DOTALL)

SEPARATOR: Final = b"\x01"
"""``kvsep``; alone, the client's answer to the reason of a failure."""


class OAuthBearerServer(ServerMechanism):
    """The server role: one message, then `VerifyToken`. A client whose token is refused for good is told why, and has
    to answer, before it hears of the failure (RFC 7628 section 3.2.3).

    `scope`, `openid_configuration`: told to such a client, if not empty.
    """

    def __init__(self, scope: str = "", openid_configuration: str = "") -> None:
        self._scope = scope
        self._openid_configuration = openid_configuration

    def respond(self, response: bytes) -> Step:
        """RFC 7628 section 3.1: ``gs2-header kvsep *kvpair kvsep``, no key twice, ``auth`` among them."""
        header = GS2Header.parse(response)
        if header is None or header.bound or not response.endswith(SEPARATOR * 2):
            return Failed(Cause.MALFORMED)
        first, *pairs = response[len(header.raw) : -2].split(SEPARATOR)
        username = decode_identity(header.authorization_identity)
        if first or username is None:
            return Failed(Cause.MALFORMED)
        properties: dict[str, str] = {}
        token = None
        for pair in pairs:
            match = _PAIR.match(pair)
            value = decode_identity(match[2]) if match is not None else None
            if match is None or value is None or match[1].decode("ascii") in properties:
                return Failed(Cause.MALFORMED)
            properties[match[1].decode("ascii")] = value
            if match[1] == b"auth":
                token = BEARER.match(match[2])
        if token is None:
            return Failed(Cause.MALFORMED)
        del properties["auth"]
        return VerifyToken("OAUTHBEARER", "OAUTHBEARER", username, Secret(token[1]), properties)

    def refused(self) -> Challenge:
        """RFC 7628 section 3.2.2: a JSON object."""
        import json

        reason = {"status": "invalid_token"}
        if self._scope:
            reason["scope"] = self._scope
        if self._openid_configuration:
            reason["openid-configuration"] = self._openid_configuration
        return Challenge(json.dumps(reason).encode("ascii"))


class TokenClient(SingleMessageClient):
    """A client role that says all it has to say in one message, a token in it, and hears why that was refused."""

    _acknowledgement: ClassVar[bytes]
    """What the server's reason is answered with."""

    reason = b""
    """Why the server has refused: a JSON object (RFC 7628 section 3.2.2) as it came, or empty."""

    def respond(self, challenge: bytes) -> bytes:
        """To an empty challenge the message; to the reason of a failure, that we have read it."""
        if self.reason:
            raise RemoteProtocolError("the server sent a second reason for a failure")
        self.reason = challenge
        return self._acknowledgement if challenge else self._message


class OAuthBearerClient(TokenClient):
    """The client role.

    `token`: as it was issued; `username`: whose it is, where the server wants to be told; `host`, `port`: the server
    that we mean to reach (RFC 7628 section 3.1 wants both). After a failure `reason` may say why.
    """

    name = "OAUTHBEARER"
    _acknowledgement = SEPARATOR

    def __init__(self, token: Secret, username: str = "", host: str = "", port: int = 0) -> None:
        if BEARER.match(b"Bearer " + token.reveal()) is None:
            raise LocalProtocolError("OAUTHBEARER takes a bearer token as RFC 6750 section 2.1 has it")
        if decode_identity((username + host).encode()) is None:
            raise LocalProtocolError("OAUTHBEARER takes a user and host name without control characters")
        authzid = b"a=" + escape_name(username) if username else b""
        pairs = [b"host=" + host.encode()] if host else []
        pairs += [b"port=%d" % port] if port else []
        pairs.append(b"auth=Bearer " + token.reveal())
        self._message = SEPARATOR.join([b"n,%s," % authzid, *pairs]) + SEPARATOR * 2
