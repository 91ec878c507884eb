"""What a POP3 client machine tells its application, and what to call next.

Each command ends with one event: `CapaDone`, `ReadyForTLS`, `Authenticated`, `AuthenticationFailed`, `MailboxStatus`,
and for all others, and for those that failed, `ReplyReceived`. In front of it come the slices of a long answer:
`Sizes`, `UniqueIds`, `MessageData`. Answers come in the order of the commands.

No event owes the server an answer, but most leave the machine waiting for the application's next command: it returns
`PAUSED` then. `ConnectionClosed` is the server role's class. All are mutable records for speed; treat them as
read-only.
"""

from collections.abc import Mapping, Sequence

from mailfront_proto.pop3.events import ConnectionClosed
from mailfront_proto.pop3.replies import Reply
from mailfront_proto.record import record


@record
class Greeting:
    """The server has greeted (RFC 1939 section 4): the first event. Call ``capa()`` next; where `reply` is ``-ERR`` the
    server takes nobody now: close."""

    reply: Reply


@record
class CapaDone:
    """CAPA was answered (RFC 2449 section 5). With ``-ERR`` the server does not know it, and `capabilities` is empty.

    Go on with ``stls()``, ``login()`` or ``authenticate()``; after the login with any other command.
    """

    reply: Reply
    capabilities: Mapping[str, tuple[str, ...]]


@record
class ReadyForTLS:
    """STLS was answered with ``+OK`` (RFC 2595 section 4). Nothing may be read or written in clear now.

    Do the handshake, then call ``tls_established()``, and ``capa()`` again. If it fails: ``receive_eof()``. A refused
    STLS is a `ReplyReceived`.
    """

    reply: Reply


@record
class Authenticated:
    """The login has succeeded, and the mailbox is open: ``stat()``, ``list()``, ``uidl()``, ``retr()`` may follow."""

    reply: Reply


@record
class AuthenticationFailed:
    """The login has failed. ``reply.code`` may say why (RFC 2449 section 8, RFC 3206): ``AUTH``, ``IN-USE``,
    ``SYS/TEMP`` and others. Another mechanism, or another password, may be tried.

    `cancelled`: why we gave the exchange up ourselves (the server's challenge made no sense), else empty.
    """

    reply: Reply
    cancelled: str = ""


@record
class MailboxStatus:
    """STAT was answered: so many messages, and so many octets (RFC 1939 section 5)."""

    messages: int
    octets: int


@record
class Sizes:
    """A part of the answer to LIST: pairs of message number and octets, at most 1,000. `ReplyReceived` ends it."""

    entries: Sequence[tuple[int, int]]


@record
class UniqueIds:
    """A part of the answer to UIDL: pairs of message number and unique-id, at most 1,000. `ReplyReceived` ends it."""

    entries: Sequence[tuple[int, bytes]]


@record
class MessageData:
    """A slice of the message that RETR or TOP asked for, as the network cut it: lines end in CRLF, dots unstuffed.
    `ReplyReceived` says that the message is complete; without it, it is not."""

    data: bytes


@record
class ReplyReceived:
    """The answer to `command` (its verb) is complete; `reply` is its first line. `number`: the message it is about, 0
    if none."""

    command: str
    reply: Reply
    number: int = 0


ClientEvent = (
    Greeting
    | CapaDone
    | ReadyForTLS
    | Authenticated
    | AuthenticationFailed
    | MailboxStatus
    | Sizes
    | UniqueIds
    | MessageData
    | ReplyReceived
    | ConnectionClosed
)
"""Every event of the client machine."""
