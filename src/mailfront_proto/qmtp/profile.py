"""Profile and limits of the QMTP and QMQP servers. Both are values: change one field with
``dataclasses.replace(DEFAULT, crlf_messages=False)``.
"""

from mailfront_proto.netstring import MAX_DIGITS
from mailfront_proto.record import record


@record(frozen=True)
class Limits:
    """Bounds of one session. None: no bound."""

    length_digits: int = MAX_DIGITS
    """Digits in the length of a netstring."""

    message_size: int | None = 50 * 1024 * 1024
    """Bytes in a message, as its netstring counts them. 50 MiB is what large providers take."""

    address: int = 1000
    """Bytes in an address. SMTP's are at most 254; a relay may encode more into them."""

    recipients: int | None = 1000
    """Recipients of a package that are asked about; those behind them get ``Z`` (QMTP), or all of it does (QMQP). The
    same number as in SMTP."""

    recipient_list: int = 1024 * 1024
    """QMTP: bytes in the netstring that holds the recipients. It is held until it is complete; 1,000 recipients
    of 1,000 bytes fit."""


@record(frozen=True)
class Profile:
    """How a server behaves where it has a choice."""

    name: str = "default"

    limits: Limits = Limits()
    """The numbers."""

    free_lengths: bool = False
    """Lengths may have leading zeros, or no digits (0)."""

    crlf_messages: bool = True
    """QMTP: a message whose lines end in CRLF (its first byte is CR) is taken; otherwise the connection ends."""

    repairs_line_ends: bool = True
    """A CRLF ends a line in each of the two forms, and a CR that stands alone becomes a space. Otherwise CRs are
    data."""

    response_per_recipient: bool = True
    """QMTP: a response for each recipient, as the protocol wants it; otherwise one for the package."""

    wrapper_enforced: bool = True
    """QMQP: what the package holds must fill its netstring exactly; otherwise a comma behind a recipient ends it."""

    recipients_needed: bool = True
    """A package without recipients is refused, instead of being handed on."""


DEFAULT = Profile()
"""Strict, bounded, as the protocols say."""

COMPAT = Profile(
    name="compat",
    limits=Limits(message_size=None, address=65536, recipients=None, recipient_list=16 * 1024 * 1024),
    free_lengths=True,
    crlf_messages=False,
    repairs_line_ends=False,
    response_per_recipient=False,
    wrapper_enforced=False,
    recipients_needed=False,
)
"""Bytes and codes of the original mailfront."""
