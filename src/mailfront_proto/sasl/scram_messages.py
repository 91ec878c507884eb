"""The four messages of SCRAM (RFC 5802 section 7), read strictly, and the gs2 header that OAUTHBEARER shares."""

import re
from typing import Final

from mailfront_proto.record import record
from mailfront_proto.sasl.base64_line import decode_base64
from mailfront_proto.secret import Secret

MAX_NONCE: Final = 1024
"""Octets of a nonce, ours behind it included. Usual ones have 40; with this a challenge fits into any line."""

# gs2-header: RFC 5801 section 4, RFC 5802 section 7. saslname is UTF-8 without NUL, "," and "=", these two escaped.
_GS2: Final = re.compile(rb"(?:p=([A-Za-z0-9.-]{1,64})|([ny])),(?:a=([^,\0]+))?,")
_NONCE: Final = rb"r=([!-+\--~]+)"
_BASE64: Final = rb"[A-Za-z0-9+/=]"
# Optional extensions are ignored (RFC 5802 section 5.1); a mandatory one, m=, stands where none of these allows it.
_EXTENSIONS: Final = rb"(?:,[A-Za-ln-z]=[^,\0]+)*"
_CLIENT_FIRST: Final = re.compile(rb"n=([^,\0]+)," + _NONCE + _EXTENSIONS + rb"\Z")
_SERVER_FIRST: Final = re.compile(
    _NONCE + rb",s=(" + _BASE64 + rb"+),i=([1-9][0-9]{0,8})" + _EXTENSIONS + rb"\Z"
)
_CLIENT_FINAL: Final = re.compile(
    rb"(c=(" + _BASE64 + rb"+)," + _NONCE + _EXTENSIONS + rb"),p=(" + _BASE64 + rb"+)\Z"
)
_SERVER_FINAL: Final = re.compile(rb"(?:v=(" + _BASE64 + rb"+)|e=([^,\0]+))" + _EXTENSIONS + rb"\Z")


@record
class GS2Header:
    """The beginning of a first message. `binding`: ``n``, ``y`` or a channel binding type (then `bound`)."""

    raw: bytes
    bound: bool
    binding: str
    authorization_identity: bytes

    @classmethod
    def parse(cls, message: bytes) -> "GS2Header | None":
        """The header in front of `message`; None if there is none."""
        match = _GS2.match(message)
        if match is None:
            return None
        authzid = unescape_name(match[3]) if match[3] is not None else b""
        if authzid is None:
            return None
        bound = match[1] is not None
        return cls(match[0], bound, (match[1] if bound else match[2]).decode("ascii"), authzid)


@record
class ClientFirst:
    """``client-first-message-bare``."""

    raw: bytes
    username: bytes
    nonce: bytes

    @classmethod
    def parse(cls, message: bytes) -> "ClientFirst | None":
        """None for what does not follow the grammar."""
        match = _CLIENT_FIRST.match(message)
        username = unescape_name(match[1]) if match is not None else None
        if match is None or username is None or len(match[2]) > MAX_NONCE // 2:
            return None
        return cls(message, username, match[2])


@record
class ServerFirst:
    """``server-first-message``."""

    raw: bytes
    nonce: bytes
    salt: bytes
    iterations: int

    @classmethod
    def parse(cls, message: bytes) -> "ServerFirst | None":
        """None for what does not follow the grammar."""
        match = _SERVER_FIRST.match(message)
        salt = decode_base64(match[2]) if match is not None else None
        if match is None or not salt or len(match[1]) > MAX_NONCE:
            return None
        return cls(message, match[1], salt, int(match[3]))


@record
class ClientFinal:
    """``client-final-message``; `without_proof`: all of it in front of the proof."""

    without_proof: bytes
    channel_binding: bytes
    nonce: bytes
    proof: Secret

    @classmethod
    def parse(cls, message: bytes) -> "ClientFinal | None":
        """None for what does not follow the grammar."""
        match = _CLIENT_FINAL.match(message)
        if match is None:
            return None
        binding, proof = decode_base64(match[2]), decode_base64(match[4])
        return None if binding is None or proof is None else cls(match[1], binding, match[3], Secret(proof))


@record
class ServerFinal:
    """``server-final-message``: the server's signature, or else its error."""

    verifier: Secret
    error: bytes

    @classmethod
    def parse(cls, message: bytes) -> "ServerFinal | None":
        """None for what does not follow the grammar."""
        match = _SERVER_FINAL.match(message)
        if match is None:
            return None
        if match[2] is not None:
            return cls(Secret(b""), match[2])
        verifier = decode_base64(match[1])
        return None if verifier is None else cls(Secret(verifier), b"")


def escape_name(name: str) -> bytes:
    """A ``saslname``: ``=`` and ``,`` as ``=3D`` and ``=2C``."""
    return name.replace("=", "=3D").replace(",", "=2C").encode()


def unescape_name(name: bytes) -> bytes | None:
    """The name; None for an ``=`` that begins none of the two (RFC 5802 section 5.1: "MUST abort")."""
    if name.count(b"=") != name.count(b"=2C") + name.count(b"=3D"):
        return None
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")
