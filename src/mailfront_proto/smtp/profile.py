"""Profiles and limits: every tolerance and every number of the server machine, each a named field.

`DEFAULT` is strict and bounded; `COMPAT` takes and answers what the original mailfront did. Both are
values: change one field with ``dataclasses.replace(DEFAULT, helo_required=False)``.
"""

from enum import Enum
from typing import Final

from mailfront_proto.record import record
from mailfront_proto.smtp.addresses import ORIGINAL, TOLERANT, AddressSyntax

PROMISES: Final = frozenset(("BINARYMIME", "DSN", "REQUIRETLS"))
"""Extensions that promise something of what becomes of the message behind the machine: that it is kept octet by
octet, that reports are sent or asked for, that it goes on through verified TLS only."""


class LineEnds(Enum):
    """What is done with a CR or LF that stands alone (only CRLF ends a line, RFC 5321 section 2.3.8)."""

    NORMALIZE = "normalize"
    """A bare LF ends a line, but is never part of the end of a message. A bare CR in a message becomes a
    space; in a command it is a syntax error."""

    REJECT = "reject"
    """In a command ``500 5.5.2`` and close; a message is read to its end and refused with 554 5.6.0."""

    ACCEPT = "accept"
    """A bare LF is a line end everywhere, also in the end of a message, and a bare CR is data: what the
    original takes. It lets messages be smuggled past a stricter relay."""


@record(frozen=True)
class Limits:
    """Bounds of one session. None: no bound."""

    command_line: int = 4096
    """Octets in a command line, CRLF included. RFC 5321 section 4.5.3.1.4 wants 512, and every extension
    adds to MAIL and RCPT; DSN alone adds 500."""

    auth_line: int = 12288
    """Octets in an AUTH command or response, CRLF included: what RFC 4954 section 4 asks for."""

    message_size: int | None = 50 * 1024 * 1024
    """Octets in a message, counted as RFC 1870 section 6.1 does: CRLF line ends, without dot-stuffing and
    final dot. Advertised in SIZE. 50 MiB is what large providers take."""

    recipients: int | None = 1000
    """Recipients of a message. RFC 5321 section 4.5.3.1.8 asks for 100 at least."""

    parameters: int = 16
    """ESMTP parameters of a command. All registered ones together are fewer."""

    refused_recipients: int | None = 100
    """Refused recipients of a connection before 421: a harvest of addresses ends here."""

    errors_in_row: int | None = 10
    """Unknown or malformed commands in a row before 421: what a client that is lost in the protocol, or
    sends a body to a refused DATA, may cost."""

    errors: int | None = 50
    """The same, in all."""

    idle_commands: int | None = 100
    """NOOP, RSET, VRFY, EXPN, HELP, HELO, EHLO, STARTTLS, and MAIL within a transaction, since the last accepted
    message before 421."""

    unknown_in_row: int | None = None
    """Unknown commands in a row before the original's ``503 Too many unimplemented commands``."""

    auth_failures: int | None = 5
    """Refused AUTH exchanges before 421. RFC 4954 section 4 asks for 3 at least."""


@record(frozen=True)
class Profile:
    """How a server behaves where it has a choice."""

    name: str = "default"

    line_ends: LineEnds = LineEnds.NORMALIZE
    """What a bare CR or LF does."""

    addresses: AddressSyntax = TOLERANT
    """What the argument of MAIL and RCPT may look like."""

    limits: Limits = Limits()
    """The numbers."""

    helo_required: bool = True
    """MAIL needs HELO or EHLO first (RFC 5321 section 4.1.1.1)."""

    helo_argument_required: bool = True
    """HELO and EHLO without a name, or with more than a word, are 501 (RFC 5321 section 4.1.1.1)."""

    extensions: frozenset[str] = PROMISES | {
        *("SIZE", "8BITMIME", "CHUNKING", "ENHANCEDSTATUSCODES", "LIMITS", "PIPELINING", "SMTPUTF8")
    }
    """Capability keywords that may be offered. `PROMISES` among them are offered only once the application has put
    them into ``machine.extensions``."""

    knows_expn: bool = False
    """EXPN is handed on as `Verify`. Otherwise it is an unknown command, as in the original."""

    auth_in_transaction: bool = False
    """AUTH between MAIL and the end of the message is taken (RFC 4954 section 4 forbids it)."""

    parameters_checked: bool = True
    """An unknown or unadvertised ESMTP parameter is 555 and a malformed or repeated one 501; otherwise all
    are handed on as they came."""

    enhanced_codes: bool = True
    """Every 2yz, 4yz and 5yz reply behind the greeting gets an enhanced status code (RFC 2034)."""

    envelope_survives_message: bool = False
    """DATA again without MAIL sends another message to the same recipients (the original does)."""

    swapped_parameter_texts: bool = False
    """The texts for a missing and a needless parameter the wrong way round, as the original has them."""

    free_authorization_identity: bool = False
    """An authorization identity in PLAIN is ignored, whatever it is (the original does); otherwise one
    that differs from the user name is refused."""

    auth_as_original: bool = False
    """AUTH fails as in the original: a connection that ends in the middle of it gets an answer, ``End of file
    reached.``, and an initial response that is no base64 comes before a mechanism that is unknown."""

    auth_failed_code: int = 535
    """The code of a failed AUTH: 535 (RFC 4954 section 6), where the original says 501."""

    initial_response_refused_code: int = 501
    """The code where an initial response comes though the server speaks first: 501 (RFC 4954 section 4), where
    the original says 535."""

    closes_on_421: bool = True
    """A 421 from the application ends the session (RFC 5321 section 3.8)."""

    refuses_http: bool = True
    """An HTTP verb as a command closes the connection at once: a browser was made to talk to us."""

    wraps_replies: bool = True
    """Reply lines over 512 octets are wrapped (RFC 5321 section 4.5.3.1.5)."""


DEFAULT = Profile()
"""Strict, bounded, as the RFCs say."""

COMPAT = Profile(
    name="compat",
    line_ends=LineEnds.ACCEPT,
    addresses=ORIGINAL,
    limits=Limits(
        command_line=65536,
        auth_line=65536,
        message_size=None,
        recipients=None,
        parameters=1000,
        refused_recipients=None,
        errors_in_row=None,
        errors=None,
        idle_commands=None,
        auth_failures=None,
    ),
    helo_required=False,
    helo_argument_required=False,
    extensions=frozenset(("SIZE", "8BITMIME", "ENHANCEDSTATUSCODES", "PIPELINING")),
    auth_in_transaction=True,
    parameters_checked=False,
    enhanced_codes=False,
    envelope_survives_message=True,
    swapped_parameter_texts=True,
    free_authorization_identity=True,
    auth_as_original=True,
    auth_failed_code=501,
    initial_response_refused_code=535,
    closes_on_421=False,
    refuses_http=False,
    wraps_replies=False,
)
"""Bytes and codes of the original mailfront. Ask for it by name, and only where an old set-up needs it."""
