"""A package that is here in one piece, as nearly all are, read in one go.

Strategy: a pattern for what stands in front of the message, and one for what stands behind it; what they take must add
up to the lengths that are written there. Nothing is judged here: whatever is odd, broken, refused or not here yet is
None, nothing of it is used up, and the reader that takes one netstring after the other finds out what it is. So this
saves time (two thirds of the machine's work) and decides nothing.
"""

from typing import Final

from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.qmtp.profile import Limits

# A length as it is printed, and an address as nearly all are: no control byte, and no comma, which would have to be
# counted. Repeats are possessive: nothing is tried twice.
_LENGTH: Final = rb"(?:0|[1-9][0-9]{0,3}+)"
_ADDRESS: Final = rb"[^\x00-\x1f\x7f,]*+"
_NETSTRING: Final = _LENGTH + rb":" + _ADDRESS + rb","
_GROUPS: Final = rb"(" + _LENGTH + rb"):(" + _ADDRESS + rb"),"
_RECIPIENTS: Final = _GROUPS + rb"((?:" + _NETSTRING + rb")*+)"

# In front of the message. The groups: QMTP: the length that counts it and its first byte, which is not part of it;
# QMQP: the length of all, and its own.
QMTP_HEAD: Final = compile_later(rb"([1-9][0-9]{0,9}+):[\r\n]")
QMQP_HEAD: Final = compile_later(rb"([1-9][0-9]{0,9}+):([1-9][0-9]{0,9}+):")

# Behind it. The groups: lengths and contents of the sender and of the first recipient, and the netstrings of all the
# others; QMTP: in front of the recipients the length that these have, and all of them.
QMTP_ENVELOPE: Final = compile_later(rb"," + _GROUPS + rb"([1-9][0-9]{0,9}+):(" + _RECIPIENTS + rb"),")
QMQP_ENVELOPE: Final = compile_later(rb"," + _GROUPS + _RECIPIENTS + rb",")


def more_recipients(netstrings: bytes, limits: Limits) -> list[bytes] | None:
    """The recipients behind the first one: those in `netstrings`, as the patterns above have found them; None where one
    of them is not as long as is written there, or longer than it may be, or there are too many."""
    recipients = []
    for netstring in netstrings[:-1].split(b","):
        length, _, recipient = netstring.partition(b":")
        if not len(recipient) == int(length) <= limits.address:
            return None
        recipients.append(recipient)
    return None if limits.recipients is not None and len(recipients) >= limits.recipients else recipients
