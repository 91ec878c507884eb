"""What a server offers of SASL, and what its mechanisms need from outside."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.record import record
from mailfront_proto.secret import Secret

NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "PLAIN": (),
    "LOGIN": (),
    "CRAM-MD5": ("challenge_source",),
    "SCRAM-SHA-1": ("nonce_source", "salt_secret"),
    "SCRAM-SHA-1-PLUS": ("nonce_source", "salt_secret", "channel_bindings"),
    "SCRAM-SHA-256": ("nonce_source", "salt_secret"),
    "SCRAM-SHA-256-PLUS": ("nonce_source", "salt_secret", "channel_bindings"),
    "EXTERNAL": ("external_identity",),
    "OAUTHBEARER": (),
    "XOAUTH2": (),
    "ANONYMOUS": (),
}
"""The mechanisms that a server can offer, and the options that each needs."""


@record(frozen=True)
class ServerOptions:
    """The SASL mechanisms that are offered now, and what they need; set as ``machine.sasl`` of any server machine.

    Raises `LocalProtocolError` for a mechanism that is unknown, or lacks what it needs.
    """

    mechanisms: Sequence[str] = ()
    """Names of mechanisms in upper case, in the order in which they are listed. Empty: authentication is not
    offered."""

    nonce_source: Callable[[int], bytes] | None = None
    """SCRAM: gives so many octets of chance that nobody can foretell, ``secrets.token_bytes`` say."""

    salt_secret: Secret | None = None
    """SCRAM: the salts of users who do not exist are made from it. The same in every process and after every start,
    or strangers can tell who exists; 16 octets of chance or more."""

    iterations: int = 15_000
    """SCRAM: the iteration count that users who do not exist seem to have. Give that of your store."""

    channel_bindings: Mapping[str, bytes] = MappingProxyType({})
    """SCRAM-…-PLUS: the channel bindings of this connection, type to data: ``tls-server-end-point`` (RFC 5929
    section 4), ``tls-exporter`` (RFC 9266)."""

    challenge_source: Callable[[], bytes] | None = None
    """CRAM-MD5: gives a challenge, a new one each time; `random_challenges` makes such a function."""

    external_identity: str = ""
    """EXTERNAL: the name in the certificate that the client has shown. Never anything that the client says."""

    token_scope: str = ""
    """OAUTHBEARER, XOAUTH2: the scope that a token needs, told to a client whose token was refused."""

    openid_configuration: str = ""
    """OAUTHBEARER: the URL of the OpenID provider's configuration, told to such a client (RFC 7628 section 3.2.2)."""

    allows_authorization_identity: bool = False
    """Hand on an authorization identity that differs from the user name, instead of refusing it."""

    def __post_init__(self) -> None:
        for name in self.mechanisms:
            if name not in NEEDED:
                raise LocalProtocolError(f"the mechanism {name!r} is not known; there are {', '.join(NEEDED)}")
            for option in NEEDED[name]:
                if not getattr(self, option):
                    raise LocalProtocolError(f"{name} needs {option}: ServerOptions(…, {option}=…)")
        if self.salt_secret is not None and len(self.salt_secret.reveal()) < 16:
            raise LocalProtocolError("ServerOptions: the salt_secret has 16 octets of chance or more")


NOTHING_OFFERED: Final = ServerOptions()
"""No mechanism: authentication is not offered."""
