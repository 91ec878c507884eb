"""What the machine keeps of an open mailbox: sizes, marks, and the way to the UIDs. About eleven bytes a message.

Strategy: the sizes are in one array, the marks in bytearrays with a byte for each message; the UIDs stay the
application's, and each is looked at when it is sent. No object is made for a message. Numbers begin at 1.
"""

from array import array
from collections.abc import Iterable, Sequence
from itertools import compress, count
from typing import Any, Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.lazy_patterns import compile_later

LINES_AT_ONCE: Final = 500
"""Lines of a listing that are made in one go: at most 50 kB."""

# unique-id: one to 70 characters 0x21 to 0x7E (RFC 1939 section 7)
_LONGEST_UID: Final = 70
_NOT: Final = bytes((1, 0)) + bytes(254)
_USUAL_OCTETS: Final = bytes(range(0x21, 0x7F)).replace(b"%", b"")
_UID: Final = compile_later(rb"[!-~]{1,%d}\Z" % _LONGEST_UID)


def wire_uid(uid: bytes) -> bytes:
    """`uid` as it goes out: itself if RFC 1939 section 7 allows it, else its SHA-256 digest in hexadecimal. So no name
    of a file can forge a line of the listing, and long ones stay unique past 70 octets."""
    if _UID.match(uid):
        return uid
    from hashlib import sha256  # slow to import, for a program that starts for each connection

    return sha256(uid).hexdigest().encode("ascii")


def _uid_lines(uids: Sequence[bytes]) -> bytes:
    """A format of lines of unique-ids, which lacks the numbers. Nearly always all are fit to be sent and have no ``%``,
    which is seen without looking at them one by one."""
    fit = all(0 < length <= _LONGEST_UID for length in set(map(len, uids)))
    if not fit or b"".join(uids).translate(None, _USUAL_OCTETS):
        uids = [wire_uid(uid).replace(b"%", b"%%") for uid in uids]
    return b"%d " + b"\r\n%d ".join(uids) + b"\r\n" if uids else b""


def _marks(read: Iterable[int], total: int) -> bytearray:
    """A byte for each message, which is 1 for those that are read; a range, as of all, is marked in one go."""
    marks = bytearray(total)
    numbers = read if isinstance(read, range) and read.step == 1 else sorted(read)
    if not numbers:
        return marks
    for number in (numbers[0], numbers[-1]):
        if not 1 <= number <= total:
            raise LocalProtocolError(f"open_mailbox(): {number} is marked read; messages are 1 to {total}")
    if isinstance(numbers, range):
        marks[numbers.start - 1 : numbers.stop - 1] = b"\1" * len(numbers)
    else:
        for number in numbers:
            marks[number - 1] = 1
    return marks


class Maildrop:
    """The messages of one session. Arguments as in ``POP3Server.open_mailbox()``."""

    __slots__ = ("_deleted", "_read", "_read_before", "_sizes", "_uids", "count", "octets")

    def __init__(self, sizes: Iterable[int], uids: Sequence[bytes], read: Iterable[int]) -> None:
        try:
            self._sizes = array("Q", sizes)
        except (OverflowError, TypeError) as error:
            raise LocalProtocolError(f"open_mailbox(): sizes are integers from 0 to 2^64-1 ({error})") from None
        total = len(self._sizes)
        if len(uids) != total:
            raise LocalProtocolError(f"open_mailbox(): {total} sizes, but {len(uids)} UIDs; each message has both")
        if total and not isinstance(uids[0], bytes):
            raise LocalProtocolError(f"open_mailbox(): UIDs are bytes, not {type(uids[0]).__name__}")
        self._uids = uids
        self._read = _marks(read, total)
        self._read_before = bytes(self._read)
        self._deleted = bytearray(total)
        self.count = total
        """Messages that are not marked deleted."""
        self.octets = sum(self._sizes)
        """Their sizes together."""

    def __len__(self) -> int:
        """All messages, those marked deleted included."""
        return len(self._sizes)

    @property
    def last(self) -> int:
        """The highest number that is marked read, or 0 (RFC 1460 section 5: LAST)."""
        return self._read.rfind(1) + 1

    def is_deleted(self, number: int) -> bool:
        """Whether the message is marked deleted."""
        return self._deleted[number - 1] != 0

    def delete(self, number: int) -> None:
        """Mark a message that is not yet."""
        self._deleted[number - 1] = 1
        self.count -= 1
        self.octets -= self._sizes[number - 1]

    def mark_read(self, number: int) -> None:
        """The message was sent whole."""
        self._read[number - 1] = 1

    def reset(self) -> None:
        """Take back all marks of this session."""
        self._deleted = bytearray(len(self._sizes))
        self._read[:] = self._read_before
        self.count = len(self._sizes)
        self.octets = sum(self._sizes)

    def scan_listing(self, number: int) -> bytes:
        """``number size`` (RFC 1939 section 5: LIST)."""
        return b"%d %d" % (number, self._sizes[number - 1])

    def unique_id(self, number: int) -> bytes:
        """``number uid`` (RFC 1939 section 7: UIDL)."""
        return b"%d %s" % (number, wire_uid(self._uids[number - 1]))

    def lines(self, of_uids: bool, start: int) -> bytes:
        """The lines of `LINES_AT_ONCE` messages from the one behind `start`, without those marked deleted."""
        end = start + LINES_AT_ONCE
        deleted = self._deleted[start:end]
        numbers: Iterable[int] = range(start + 1, start + 1 + len(deleted))
        listed: Iterable[Any] = self._uids[start:end] if of_uids else self._sizes[start:end]
        if 1 in deleted:
            kept = deleted.translate(_NOT)
            numbers, listed = compress(numbers, kept), compress(listed, kept)
        values = tuple(listed)
        # All numbers are put in by one format: that is faster than one for each line, or one for numbers and values.
        lines = _uid_lines(values) if of_uids else b"%%d %d\r\n" * len(values) % values
        return lines % tuple(numbers)

    def deleted(self) -> list[int]:
        """The numbers of the messages that are marked deleted, in order."""
        return list(compress(count(1), self._deleted)) if 1 in self._deleted else []

    def newly_read(self) -> list[int]:
        """The numbers of those that were read in this session, and stay."""
        if self._read == self._read_before:
            return []
        marks = zip(self._read, self._read_before, self._deleted, strict=True)
        return [number for number, (read, before, gone) in enumerate(marks, 1) if read and not before and not gone]
