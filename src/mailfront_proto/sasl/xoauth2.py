"""XOAUTH2 (no RFC; what large providers took before OAUTHBEARER): a bearer token with a user name."""

import re
from typing import Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl.mechanism import (
    Cause,
    Challenge,
    Failed,
    ServerMechanism,
    Step,
    decode_identity,
)
from mailfront_proto.sasl.oauthbearer import BEARER, TokenClient
from mailfront_proto.sasl.requests import VerifyToken
from mailfront_proto.secret import Secret

# "user=" {User} "^Aauth=Bearer " {Access Token} "^A^A"
_MESSAGE: Final = re.compile(rb"user=([^\x01]+)\x01auth=([^\x01]+)\x01\x01\Z")


class XOAuth2Server(ServerMechanism):
    """The server role: one message, then `VerifyToken`. A client whose token is refused for good is told why, and
    answers with an empty response, before it hears of the failure. `scope`: told to such a client, if not empty."""

    def __init__(self, scope: str = "") -> None:
        self._scope = scope

    def respond(self, response: bytes) -> Step:
        """The user name and the token, neither empty."""
        match = _MESSAGE.match(response)
        username = decode_identity(match[1]) if match is not None else None
        token = BEARER.match(match[2]) if match is not None else None
        if username is None or token is None:
            return Failed(Cause.MALFORMED)
        return VerifyToken("XOAUTH2", "XOAUTH2", username, Secret(token[1]), {})

    def refused(self) -> Challenge:
        """A JSON object, as the providers send it."""
        import json

        reason = {"status": "401", "schemes": "bearer"}
        if self._scope:
            reason["scope"] = self._scope
        return Challenge(json.dumps(reason).encode("ascii"))


class XOAuth2Client(TokenClient):
    """The client role. `token`: as it was issued, for `username`. After a failure `reason` may say why."""

    name = "XOAUTH2"
    _acknowledgement = b""

    def __init__(self, username: str, token: Secret) -> None:
        if not username or decode_identity(username.encode()) is None:
            raise LocalProtocolError("XOAUTH2 takes a user name that is not empty, without control characters")
        if BEARER.match(b"Bearer " + token.reveal()) is None:
            raise LocalProtocolError("XOAUTH2 takes a bearer token as RFC 6750 section 2.1 has it")
        self._message = b"user=%s\x01auth=Bearer %s\x01\x01" % (username.encode(), token.reveal())
