"""CRAM-MD5 (RFC 2195): the server sends a challenge, the client answers ``user SP digest``.

The digest is keyed with the password itself, so a server must have that, or ask somebody who has it. MD5 is weak; what
it keyed is still not known to be forged (RFC 6151 section 2.3), but who listens can try passwords at leisure: under TLS
PLAIN is the better choice, and SCRAM without.
"""

import re
from collections.abc import Callable
from typing import Final

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.sasl.mechanism import (
    Cause,
    Challenge,
    ClientMechanism,
    Failed,
    ServerMechanism,
    Step,
    decode_identity,
)
from mailfront_proto.sasl.requests import VerifyResponse
from mailfront_proto.secret import Secret

# RFC 2195 section 2: hexadecimal "using lower-case characters"; the original takes both.
_DIGEST: Final = re.compile(rb"[0-9A-Fa-f]{32}\Z")


def random_challenges(random_bytes: Callable[[int], bytes], hostname: str) -> Callable[[], bytes]:
    """Makes challenges for ``ServerOptions.challenge_source``: ``<RANDOM@HOSTNAME>``, in which nothing is of the
    process or the clock. `random_bytes`: ``secrets.token_bytes``, say."""

    def challenge() -> bytes:
        return b"<%s@%s>" % (random_bytes(16).hex().encode(), hostname.encode())

    return challenge


def keyed_digest(password: Secret, challenge: bytes) -> bytes:
    """HMAC-MD5 (RFC 2104) of `challenge`, keyed with `password`: 16 octets."""
    import hmac

    return hmac.digest(password.reveal(), challenge, "md5")


class CramMD5Server(ServerMechanism):
    """The server role: one challenge, then `VerifyResponse`. `challenge`: a new one for each exchange."""

    takes_empty = False

    def __init__(self, challenge: bytes) -> None:
        self._challenge = challenge

    def start(self, initial_response: bytes | None) -> Step:
        """The server speaks first: there can be no initial response."""
        return Challenge(self._challenge) if initial_response is None else Failed(Cause.INITIAL_RESPONSE)

    def respond(self, response: bytes) -> Step:
        """The user name, a space, and 32 hexadecimal digits."""
        name, _, digest = response.partition(b" ")
        if len(digest) != 32:
            return Failed(Cause.MALFORMED)
        username = decode_identity(name)
        if not username or _DIGEST.match(digest) is None:
            return Failed(Cause.NOT_PROVEN)  # the original asks, and nobody knows such a user or digest
        answer = Secret(bytes.fromhex(digest.decode("ascii")))
        return VerifyResponse("CRAM-MD5", "CRAM-MD5", username, self._challenge, answer)


class CramMD5Client(ClientMechanism):
    """The client role."""

    name = "CRAM-MD5"

    def __init__(self, username: str, password: Secret) -> None:
        if not username or " " in username or not password:
            raise LocalProtocolError("CRAM-MD5 takes a user name and a password, not empty, the name without a space")
        self._username = username.encode()
        self._password = password
        self._answered = False

    def initial_response(self) -> None:
        """None: the server speaks first."""
        return None

    def respond(self, challenge: bytes) -> bytes:
        """User name and digest, once."""
        if self._answered or not challenge:
            raise RemoteProtocolError("the server sent a second or an empty challenge for CRAM-MD5")
        self._answered = True
        return self._username + b" " + keyed_digest(self._password, challenge).hex().encode()
