"""The keys of a user that a SCRAM server stores (RFC 5802 section 3)."""

from mailfront_proto.record import record
from mailfront_proto.secret import Secret


@record(frozen=True)
class ScramKeys:
    """What a server stores of a password.

    `hash_name`: ``sha1`` or ``sha256``; `salt`: octets; `iterations`: of PBKDF2; `stored_key`, `server_key`: as
    RFC 5802 section 3 computes them.
    """

    hash_name: str
    salt: bytes
    iterations: int
    stored_key: Secret
    server_key: Secret
