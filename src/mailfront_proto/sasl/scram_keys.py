"""The keys that a SCRAM server stores in place of a password (RFC 5802 section 3), and their stored form (RFC 5803)."""

import re
from typing import Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.record import record
from mailfront_proto.sasl.base64_line import decode_base64, encode_base64
from mailfront_proto.secret import Secret

HASHES: Final = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}
"""The mechanisms (each also with ``-PLUS``) and their hashes, as `hashlib` names them."""

_SIZES: Final = {"sha1": 20, "sha256": 32}

SALT_SIZE: Final = 16
"""Octets of a salt. Give all users of a store salts of this size: so long are those of users who do not exist."""

# RFC 5803 section 2, with the blanks that RFC 3112 section 2 allows
_STORED: Final = re.compile(
    rb" *(SCRAM-SHA-1|SCRAM-SHA-256) *\$ *([1-9][0-9]{0,8}):([A-Za-z0-9+/=]{1,256}) *\$ *"
    rb"([A-Za-z0-9+/=]{1,64}):([A-Za-z0-9+/=]{1,64}) *\Z"
)


@record(frozen=True)
class ScramKeys:
    """What a server stores of a password: with it a login can be verified, but none be made.

    `hash_name`: ``sha1`` or ``sha256``; `salt`: octets; `iterations`: of PBKDF2; `stored_key`, `server_key`: as
    RFC 5802 section 3 computes them. Raises `LocalProtocolError` for what cannot be such keys.
    """

    hash_name: str
    salt: bytes
    iterations: int
    stored_key: Secret
    server_key: Secret

    def __post_init__(self) -> None:
        size = _SIZES.get(self.hash_name)
        if size is None:
            raise LocalProtocolError(f"ScramKeys: the hash is sha1 or sha256, not {self.hash_name!r}")
        if not self.salt or self.iterations < 1:
            raise LocalProtocolError("ScramKeys: the salt is not empty, and one iteration is the least")
        if len(self.stored_key.reveal()) != size or len(self.server_key.reveal()) != size:
            raise LocalProtocolError(f"ScramKeys: keys of {self.hash_name} have {size} octets")

    def encode(self) -> Secret:
        """The keys in their stored form, ``SCRAM-SHA-256$ITERATIONS:SALT$STORED-KEY:SERVER-KEY`` (RFC 5803)."""
        mechanism = next(name for name, hash_name in HASHES.items() if hash_name == self.hash_name)
        salt, stored_key, server_key = map(
            encode_base64, (self.salt, self.stored_key.reveal(), self.server_key.reveal())
        )
        return Secret(b"%s$%d:%s$%s:%s" % (mechanism.encode(), self.iterations, salt, stored_key, server_key))

    @classmethod
    def decode(cls, stored: Secret) -> "ScramKeys":
        """Read the stored form. Raises `LocalProtocolError` without showing what it was given."""
        match = _STORED.match(stored.reveal())
        decoded = [decode_base64(part) for part in match.groups()[2:]] if match is not None else []
        if match is None or None in decoded:
            raise LocalProtocolError("ScramKeys.decode(): no SCRAM-SHA-1$… or SCRAM-SHA-256$… of RFC 5803")
        salt, stored_key, server_key = [part or b"" for part in decoded]
        return cls(HASHES[match[1].decode()], salt, int(match[2]), Secret(stored_key), Secret(server_key))


def derive_keys(password: Secret, salt: bytes, iterations: int, hash_name: str = "sha256") -> ScramKeys:
    """The keys to store for `password` (UTF-8). Slow by intent: it computes PBKDF2 with `iterations`.

    `salt`: `SALT_SIZE` octets of chance, made anew for each user. Raises `LocalProtocolError` for a password that is
    empty, no UTF-8, or prohibited by SASLprep, and for what `ScramKeys` refuses.
    """
    if hash_name not in _SIZES or not salt or iterations < 1:
        raise LocalProtocolError("derive_keys(): the hash is sha1 or sha256, the salt not empty, iterations at least 1")
    client_key, server_key = keys_of(salted_password(password, salt, iterations, hash_name), hash_name)
    return ScramKeys(hash_name, salt, iterations, Secret(digest(client_key, hash_name)), Secret(server_key))


def salted_password(password: Secret, salt: bytes, iterations: int, hash_name: str) -> bytes:
    """``SaltedPassword`` of RFC 5802 section 3: PBKDF2."""
    import hashlib

    return hashlib.pbkdf2_hmac(hash_name, prepared_password(password), salt, iterations)


def prepared_password(password: Secret) -> bytes:
    """``Normalize(password)`` of RFC 5802 section 2.2."""
    from mailfront_proto.sasl.saslprep import saslprep

    try:
        prepared = saslprep(password.reveal().decode("utf-8"), stored=True)
    except UnicodeDecodeError:
        prepared = None
    if not prepared:
        raise LocalProtocolError("SCRAM takes a password that is UTF-8, not empty, and allowed by SASLprep (RFC 4013)")
    return prepared.encode()


def keys_of(salted: bytes, hash_name: str) -> tuple[bytes, bytes]:
    """``ClientKey`` and ``ServerKey`` of RFC 5802 section 3."""
    return keyed(salted, b"Client Key", hash_name), keyed(salted, b"Server Key", hash_name)


def keyed(key: bytes, message: bytes, hash_name: str) -> bytes:
    """HMAC (RFC 2104)."""
    import hmac

    return hmac.digest(key, message, hash_name)


def digest(data: bytes, hash_name: str) -> bytes:
    """The hash itself."""
    import hashlib

    return hashlib.new(hash_name, data).digest()
