"""The shape of a SASL mechanism (RFC 4422), both roles: small machines over decoded bytes.

A mechanism knows neither base64 nor SMTP, POP3 or IMAP: `ServerExchange` and `ClientExchange` carry its messages for
all three. A server mechanism that needs something verified says so with a `Request`, and never sees the credential
store.
"""

from abc import ABC, abstractmethod
from enum import Enum
from typing import TYPE_CHECKING

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.record import record
from mailfront_proto.sasl.requests import Request

if TYPE_CHECKING:
    from mailfront_proto.sasl.scram_keys import ScramKeys


@record
class Challenge:
    """The server wants another response to `data` (may be empty; not shown, since a signature may be in it)."""

    data: bytes

    def __repr__(self) -> str:
        return f"Challenge(<{len(self.data)} octets>)"


class Cause(Enum):
    """Why an exchange has failed without the application: `words` for a log, `text` for the client."""

    ABORTED = ("aborted", "Authentication failed.")
    """The client has cancelled it."""
    NO_SUCH_MECHANISM = ("no such mechanism", "Unrecognized authentication mechanism.")
    """The mechanism is not offered."""
    BAD_INITIAL_RESPONSE = ("bad initial response", "Could not decode the response.")
    """The initial response is not base64."""
    BAD_RESPONSE = ("bad response", "Could not decode the response.")
    """A response is not base64."""
    TOO_LONG = ("bad response", "Authentication exchange line is too long")
    """A response is longer than the limit; it was thrown away."""
    INITIAL_RESPONSE = ("failed", "Initial response not allowed.")
    """There is an initial response, where the server speaks first."""
    MALFORMED = ("failed", "Could not decode the response.")
    """A response does not follow the mechanism's grammar, or holds bytes that are not wanted."""
    OTHER_IDENTITY = ("failed", "Acting for another identity is not allowed")
    """The authorization identity is not the user's."""
    END_OF_FILE = ("end of file", "End of file reached.")
    """The connection has ended in the middle of it. (Only the original answers that.)"""
    NOT_PROVEN = ("failed", "Authentication failed.")
    """The client does not know the password, or the channel binding is not that of the connection."""
    REFUSED = ("failed", "Authentication refused.")
    """The application has refused it, and the client has taken note: the answer that was held goes out now."""

    def __init__(self, words: str, text: str) -> None:
        self.words = words
        self.text = text

    @property
    def is_attempt(self) -> bool:
        """Whether it counts as a failed attempt to get in. (`REFUSED` does, once, when its answer goes out.)"""
        return self not in (Cause.ABORTED, Cause.NO_SUCH_MECHANISM)


@record
class Failed:
    """The exchange has failed by itself."""

    cause: Cause


Step = Challenge | Request | Failed
"""What comes of a message of the client: another challenge, a question to the application, or the end."""


class ServerMechanism(ABC):
    """The server role of one exchange; an object serves one exchange."""

    takes_empty: bool = True
    """An empty response may make sense. Otherwise an empty line cancels the exchange, and ``=`` in place of an initial
    response is no base64, as in the original."""

    def start(self, initial_response: bytes | None) -> Step:
        """Begin; `initial_response` is None when the client sent none (b"" is an empty one). Where the client speaks
        first an empty challenge asks for what is missing."""
        return Challenge(b"") if initial_response is None else self.respond(initial_response)

    @abstractmethod
    def respond(self, response: bytes) -> Step:
        """Take the client's decoded answer to the last `Challenge`."""

    def supply_keys(self, keys: "ScramKeys | None") -> Challenge:
        """Take the answer to `FindKeys`."""
        raise LocalProtocolError("supply_keys() answers FindKeys, and nothing else")

    def refused(self) -> Challenge | None:
        """The application has refused; what the mechanism tells the client first, or None."""
        return None


class ClientMechanism(ABC):
    """The client role of one exchange; an object serves one exchange.

    Both methods hand over what is to be sent, decoded; they, and `objection`, are called by `ClientExchange`.
    """

    name: str
    """The mechanism's registered name, such as ``PLAIN``."""

    @abstractmethod
    def initial_response(self) -> bytes | None:
        """What to send along with the mechanism's name, or None where the server speaks first."""

    @abstractmethod
    def respond(self, challenge: bytes) -> bytes:
        """The answer to a decoded challenge. Raises `RemoteProtocolError` for one that makes no sense."""

    def objection(self) -> str:
        """Why a success that the server claims now cannot be believed, as in "the server …"; empty if it can."""
        return ""


class SingleMessageClient(ClientMechanism):
    """A client role that says all it has to say in one message."""

    _message: bytes

    def initial_response(self) -> bytes:
        """The whole message."""
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        """The message again, for a server that asks with an empty challenge."""
        if challenge:
            raise RemoteProtocolError(f"the server sent a challenge for {self.name} that is not empty")
        return self._message


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
