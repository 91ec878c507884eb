"""The shape of a SASL mechanism (RFC 4422), both roles: small machines over decoded bytes.

A mechanism knows neither base64 nor SMTP, POP3 or IMAP: `mailfront_proto.sasl.exchange` carries its
messages for all three. A server mechanism that needs something verified says so with a request value,
and never sees the credential store.
"""

from typing import Protocol

from mailfront_proto.record import record
from mailfront_proto.secret import Secret


@record
class Challenge:
    """The server wants another response to `data` (may be empty)."""

    data: bytes


@record
class PasswordRequest:
    """The application must say whether `password` is that of `username`.

    `authorization_identity`: the identity to act as, empty when none was sent. All three as sent; `username`
    and `authorization_identity` hold no control bytes and are valid UTF-8.
    """

    username: str
    password: Secret
    authorization_identity: str


@record
class Malformed:
    """The response does not follow the mechanism's grammar. The exchange has failed."""


Step = Challenge | PasswordRequest | Malformed


class ServerMechanism(Protocol):
    """The server role of one exchange. One object serves one exchange."""

    def start(self, initial_response: bytes | None) -> Step:
        """Begin; `initial_response` is None when the client sent none (b"" is an empty one)."""
        ...

    def respond(self, response: bytes) -> Step:
        """Take the client's decoded answer to the last `Challenge`."""
        ...


class ClientMechanism(Protocol):
    """The client role of one exchange. One object serves one exchange."""

    @property
    def name(self) -> str:
        """The mechanism's registered name, such as ``PLAIN``."""
        ...

    def initial_response(self) -> bytes | None:
        """What to send along with the mechanism's name, or None where the server speaks first."""
        ...

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a decoded challenge. Raises `RemoteProtocolError` for one that makes no sense."""
        ...


def decode_identity(data: bytes) -> str | None:
    """An identity as text: None for invalid UTF-8, or for control bytes, which must not reach a log, a
    header or a credential store."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if any(c < " " or "\x7f" <= c <= "\x9f" for c in text):
        return None
    return text


def has_control(data: bytes) -> bool:
    """Whether a secret holds a NUL, CR, LF or another control byte: such a one is refused."""
    return any(c < 0x20 or c == 0x7F for c in data)
