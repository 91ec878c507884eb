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
_RECIPIENTS: Final = rb"((?:" + _LENGTH + rb":" + _ADDRESS + rb",)++)"
_SENDER: Final = rb",(" + _LENGTH + rb"):(" + _ADDRESS + rb"),"

# In front of the message. The groups: the length that counts it, its first byte where that is not part of it. QMQP: the
# length of all.
QMTP_HEAD: Final = compile_later(rb"([1-9][0-9]{0,9}+):([\r\n])")
QMQP_HEAD: Final = compile_later(rb"([1-9][0-9]{0,9}+):([1-9][0-9]{0,9}+):")

# Behind it. The groups: the length of the sender and the sender, recipients; QMTP: the length that these have.
QMTP_ENVELOPE: Final = compile_later(_SENDER + rb"([1-9][0-9]{0,9}+):" + _RECIPIENTS + rb",")
QMQP_ENVELOPE: Final = compile_later(_SENDER + _RECIPIENTS + rb",")


def usual_recipients(netstrings: bytes, limits: Limits) -> list[bytes] | None:
    """The recipients in `netstrings`, as the patterns above have found them; None where one of them is not as long as
    is written there, or longer than it may be, or there are too many."""
    longest = limits.address
    length, _, rest = netstrings.partition(b":")
    if len(rest) - 1 == int(length) <= longest and limits.recipients != 0:
        return [rest[:-1]]  # one, as nearly always
    recipients = []
    for netstring in netstrings[:-1].split(b","):
        length, _, recipient = netstring.partition(b":")
        if len(recipient) != int(length) or len(recipient) > longest:
            return None
        recipients.append(recipient)
    return None if limits.recipients is not None and len(recipients) > limits.recipients else recipients
