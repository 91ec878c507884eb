"""What an SMTP client machine tells its application, and what to call next.

No event owes the server an answer, but most leave the machine waiting for the application's next command:
it returns `PAUSED` then. `ConnectionClosed` is the server role's class.

All are mutable records for speed; treat them as read-only.
"""

from collections.abc import Sequence
from enum import Enum

from mailfront_proto.record import record
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.capabilities import Capabilities
from mailfront_proto.smtp.events import ConnectionClosed
from mailfront_proto.smtp.replies import Reply


@record
class Greeting:
    """The server has greeted (RFC 5321 section 3.1): the first event, and the answer to an XCLIENT that was taken.

    With a positive `reply` (220) call ``hello()`` next; with another (554, 421) the server takes no mail:
    call ``quit()``, or close (after 421 comes `ConnectionClosed`).
    """

    reply: Reply


@record
class HelloDone:
    """EHLO, LHLO or HELO was answered (RFC 5321 section 4.1.1.1).

    With a positive `reply` `capabilities` says what is offered (nothing, after HELO); go on with
    ``starttls()``, ``authenticate()``, ``send_message()``, ``mail()`` or ``quit()``. With another, only
    ``hello()``, ``noop()`` and ``quit()`` are left.
    """

    reply: Reply
    capabilities: Capabilities


@record
class ReadyForTLS:
    """STARTTLS was answered with 220 (RFC 3207 section 4). Nothing may be read or written in clear now.

    Do the handshake, then call ``tls_established()``, and ``hello()`` again. If it fails: ``receive_eof()``.
    A refused STARTTLS is a `ReplyReceived`.
    """

    reply: Reply


@record
class Authenticated:
    """AUTH has succeeded (235, RFC 4954 section 6)."""

    reply: Reply


@record
class AuthenticationFailed:
    """AUTH has failed. `reply` is temporary (454) or permanent (535 and others); another mechanism, or
    another password, may be tried.

    `cancelled`: why we gave the exchange up ourselves (the server's challenge made no sense), else empty.
    """

    reply: Reply
    cancelled: str = ""


@record
class ReplyReceived:
    """The answer to a command that has no event of its own, or that failed.

    `command`: ``MAIL``, ``RCPT``, ``DATA``, ``RSET``, ``NOOP``, ``VRFY``, ``QUIT``, ``STARTTLS`` or ``XCLIENT``;
    ``BDAT`` for a chunk that is not the last; and ``.`` for the answer to a message, by its last chunk, too (in LMTP
    one for each accepted recipient, in order: RFC 2033 section 4.2). Answers come in the order of the commands.
    Under ``send_message()`` they tell only. After a refused chunk there is only ``reset()`` (or ``quit()``).
    """

    command: str
    reply: Reply


@record
class ReadyForBody:
    """The message may go out: call ``send_body()`` for each piece of it, draining ``data_to_send()`` in between, then
    ``end_of_body()``. Closing the connection instead is the one way to give the message up.

    `reply`: the answer to DATA, 354 (RFC 5321 section 4.1.1.4); None if the message goes in chunks (RFC 3030),
    which ``send_message()`` makes of what it is given. A long one is best given a piece at a time, each when
    ``next_event()`` returns `PAUSED`: chunks wait for answers, and what waits is held.
    """

    reply: Reply | None = None


class Stage(Enum):
    """Where it was decided what became of a recipient."""

    LOCAL = "local"
    """Here: the server lacks an extension that the address or the message needs, or takes none so large. Nothing
    was sent."""
    MAIL = "MAIL"
    """By the answer to MAIL."""
    RCPT = "RCPT"
    """By the answer to this recipient's RCPT."""
    DATA = "DATA"
    """By the answer to DATA."""
    MESSAGE = "message"
    """By the answer to the message, or to a chunk of it: the only stage at which a recipient can be delivered."""
    CONNECTION = "connection"
    """By the loss of the connection, or of the protocol, before an answer. Always temporary, since nobody
    knows whether the server has the message: a duplicate is better than a loss (RFC 5321 section 4.2.5)."""


@record
class RecipientResult:
    """What became of one recipient of ``send_message()``.

    `reply`: the server's answer that decided it; at `Stage.LOCAL` and `Stage.CONNECTION` one of our own
    that says the same. `owes_report`: NOTIFY=SUCCESS was asked for, and the server has taken the message without
    knowing DSN, so that nobody will tell the sender: a report that it was *relayed* is for the application to send
    (RFC 3461 section 5.2.2).
    """

    address: Address
    reply: Reply
    stage: Stage
    owes_report: bool = False

    @property
    def delivered(self) -> bool:
        """The server has taken responsibility for this recipient (RFC 5321 section 6.1)."""
        return self.stage is Stage.MESSAGE and self.reply.is_positive


@record
class MessageDone:
    """The message of ``send_message()`` is over. `results`: one for each recipient, in the order given.

    Then ``send_message()`` again, or ``quit()``. (After a lost connection `ConnectionClosed` follows.)
    """

    results: Sequence[RecipientResult]


ClientEvent = (
    Greeting
    | HelloDone
    | ReadyForTLS
    | Authenticated
    | AuthenticationFailed
    | ReplyReceived
    | ReadyForBody
    | MessageDone
    | ConnectionClosed
)
"""Every event of the client machine."""
