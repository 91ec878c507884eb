"""What came of a client session: a result for each recipient, or why no message was begun."""

from collections.abc import Sequence
from dataclasses import dataclass

from mailfront_io.ops import TLSFacts
from mailfront_proto.smtp.capabilities import Capabilities
from mailfront_proto.smtp.client_events import RecipientResult
from mailfront_proto.smtp.replies import Reply


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a session and its `seconds`, counted from the end of the step before.

    `name`: ``connect``, ``greeting``, a verb, ``TLS`` for the handshake, ``message`` for writing it, ``.`` for
    the wait behind its final dot. Where commands are pipelined an answer may come with the one before, in no
    time.
    """

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SendResult:
    """What came of a message that was begun.

    `recipients`: one result each, in the order given. `greeting`: the server's. `capabilities`: what it offered,
    at last. `tls`: what was agreed, None without TLS. `steps`: how long each took.
    """

    recipients: Sequence[RecipientResult]
    greeting: Reply
    capabilities: Capabilities
    tls: TLSFacts | None
    steps: Sequence[Step]

    @property
    def delivered(self) -> bool:
        """The server has taken responsibility for every recipient."""
        return all(result.delivered for result in self.recipients)

    @property
    def temporary(self) -> list[RecipientResult]:
        """Those to try again later."""
        return [result for result in self.recipients if not result.delivered and result.reply.code < 500]

    @property
    def refused(self) -> list[RecipientResult]:
        """Those that were refused for good."""
        return [result for result in self.recipients if not result.delivered and result.reply.code >= 500]


class SendError(Exception):
    """No message was begun. The text is one sentence with what was found and what can be done.

    `temporary`: the same may succeed later. `reply`: the server's answer that says so, None where there is none.
    """

    def __init__(self, text: str, *, temporary: bool = True, reply: Reply | None = None) -> None:
        super().__init__(text)
        self.temporary = temporary
        self.reply = reply


class ConnectionFailed(SendError):
    """The server could not be reached, was lost, did not answer in time, or broke the protocol."""


class ServerRefused(SendError):
    """The server takes no mail from us now: so says its greeting, its answer to EHLO, or a 421."""


class TLSUnavailable(SendError):
    """There is no TLS, or none that can be trusted, where there must be; nothing was sent without it."""


class AuthenticationRefused(SendError):
    """AUTH failed, or could not be tried safely."""
