"""What an IMAP client machine tells its application, and what to call next.

No event owes the server an answer, but most leave the machine waiting for the application's next command: it returns
`PAUSED` then. `ConnectionClosed` is the server role's class.

All are mutable records for speed; treat them as read-only.
"""

from collections.abc import Mapping

from mailfront_proto.imap.events import ConnectionClosed
from mailfront_proto.imap.replies import Reply
from mailfront_proto.record import record


@record
class Greeting:
    """The server has greeted (RFC 9051 section 7.1): the first event.

    ``OK``: call ``capability()`` next, if ``client.capabilities`` is still empty; then ``starttls()``, ``login()`` or
    ``authenticate()``. ``PREAUTH`` (only where the client was made with ``allow_preauth=True``): somebody else has seen
    to the login; call ``hand_over()`` or ``logout()``. ``BYE``: the server takes nobody; `ConnectionClosed` follows.
    """

    reply: Reply


@record
class CapabilityDone:
    """CAPABILITY was answered (RFC 9051 section 6.1.1). `capabilities`: what the server offers, in upper case."""

    reply: Reply
    capabilities: tuple[str, ...]


@record
class IdDone:
    """ID was answered (RFC 2971 section 3.2). `fields`: what the server says that it is, names in lower case; None for
    NIL."""

    reply: Reply
    fields: Mapping[str, str | None]


@record
class ReadyForTLS:
    """STARTTLS was answered with OK (RFC 9051 section 6.2.1). Nothing may be read or written in clear now.

    Do the handshake, then call ``tls_established()``, and ``capability()`` again. If it fails: ``receive_eof()``. A
    refused STARTTLS is a `ReplyReceived`.
    """

    reply: Reply


@record
class Authenticated:
    """The login has succeeded (RFC 9051 section 3.3). Call ``hand_over()`` next, or ``logout()``. Until then nothing
    more is read. `reply` may hold a ``CAPABILITY`` code, which ``client.capabilities`` has then."""

    reply: Reply


@record
class AuthenticationFailed:
    """The login has failed; `reply` says why (its code may be ``AUTHENTICATIONFAILED``, ``UNAVAILABLE`` and others, RFC
    5530). Another mechanism, or another password, may be tried.

    `cancelled`: why we gave the exchange up ourselves (the server's challenge made no sense), else empty.
    """

    reply: Reply
    cancelled: str = ""


@record
class ReplyReceived:
    """The answer to a command that has no event of its own (``NOOP``, ``LOGOUT``), or that failed (``CAPABILITY``,
    ``ID``, ``STARTTLS``)."""

    command: str
    reply: Reply


@record
class Notice:
    """The server has something to say, unasked (RFC 9051 section 7.1). Text with the code ``ALERT`` must be shown to
    the user."""

    reply: Reply


ClientEvent = (
    Greeting
    | CapabilityDone
    | IdDone
    | ReadyForTLS
    | Authenticated
    | AuthenticationFailed
    | ReplyReceived
    | Notice
    | ConnectionClosed
)
"""Every event of the client machine."""
