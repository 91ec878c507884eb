"""Netstrings (D. J. Bernstein): a length in decimal digits, a colon, that many bytes, a comma.

Strategy: the length is read and judged first, before a byte of the content is waited for; what is too long for its
reader is thrown away as it comes, so that the reader stays in step. Small contents come whole (`read_whole`), large
ones in slices as they arrive (`read_length`, then `read_slice`). Limits are arguments of the reading call.
"""

import re
from enum import Enum
from typing import Final

from mailfront_proto.buffer import ReceiveBuffer
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.lazy_patterns import compile_later

MAX_DIGITS: Final = 10
"""Digits of a length: 9,999,999,999 is more than any limit here, and fits 64 bits everywhere."""

# Most are short, and here as a whole: they are read at a glance.
_GLANCE: Final = 64
_SHORT: Final = compile_later(rb"(0|[1-9][0-9]?):")

_LENGTH: Final = compile_later(rb"(0|[1-9][0-9]*):")

# Total: any bytes match, if only the empty beginning of them.
_ODD_LENGTH: Final = compile_later(rb"([0-9]*)(:?)")


class Fault(Enum):
    """What is wrong with a netstring."""

    LENGTH = "length"
    """The length is no number: a byte that is no digit, no digit at all, a leading zero, too many digits."""
    ROOM = "room"
    """It is longer than what is left of the netstring around it."""
    COMMA = "comma"
    """The comma at its end is missing."""


class NetstringError(ValueError):
    """The bytes are no netstring; what follows them cannot be understood any more. `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"bad netstring: {fault.value}")
        self.fault = fault


class Oversized(Enum):
    """The type of `OVERSIZED`."""

    OVERSIZED = "OVERSIZED"


OVERSIZED: Final = Oversized.OVERSIZED
"""What `NetstringReader.read_whole` returns for a netstring over its limit, once all of it was thrown away."""


def encode_netstring(data: bytes) -> bytes:
    """`data` as a netstring."""
    return b"%d:%b," % (len(data), data)


class NetstringReader:
    """Reads the netstrings in `buffer`, a `mailfront_proto.buffer.ReceiveBuffer` that the caller feeds, one after the
    other.

    `max_digits`: digits in a length. `free_lengths`: leading zeros pass, and no digits mean 0. Both are faults
    otherwise. Set `room` to the bytes left of a netstring around these; it counts down, and what does not fit is a
    fault. None: no bound.
    """

    __slots__ = ("_buffer", "_free", "_max_digits", "_oversized", "left", "room")

    def __init__(self, buffer: ReceiveBuffer, *, max_digits: int = MAX_DIGITS, free_lengths: bool = False) -> None:
        self._buffer = buffer
        self._max_digits = max_digits
        self._free = free_lengths
        self._oversized = False
        self.room: int | None = None
        self.left: int | None = None
        """Bytes of content still to come of the netstring whose length was read; None between two netstrings."""

    def read_length(self) -> int | None:
        """The length of the next netstring, once its colon is here; None before. Raises `NetstringError` for what is
        no length, as soon as that can be seen. Then `read_slice`, or `read_whole`."""
        room = self.room
        size = self._max_digits + 1
        if room is not None and room < size:
            size = room
        head = self._buffer.peek(size)
        match = _LENGTH.match(head)
        if match is not None:
            length = int(match[1])
        else:
            match = self._odd_length(head)
            if match is None:
                return None
            length = int(match[1] or b"0")
        end = match.end()
        if room is not None:
            room -= end
            if length > room:
                raise NetstringError(Fault.ROOM)
            self.room = room
        self._buffer.skip(end)
        self._oversized = False
        self.left = length
        return length

    def _odd_length(self, head: bytes) -> re.Match[bytes] | None:
        """What begins `head` where that is no length as it is printed: a free one, or None while one may still come."""
        match = _ODD_LENGTH.match(head)
        assert match is not None
        digits, colon = match.groups()
        if not self._free and ((not digits and head) or (len(digits) > 1 and digits[0] == 0x30)):
            raise NetstringError(Fault.LENGTH)
        if colon:
            return match
        if len(digits) < len(head) or len(digits) > self._max_digits:
            raise NetstringError(Fault.LENGTH)
        if len(head) == self.room:
            raise NetstringError(Fault.ROOM)
        return None

    def read_slice(self, limit: int | None = None) -> bytes | None:
        """The next slice of the content behind `read_length`, as large as it came (but `limit` bytes at most); None
        when no more is here yet; b"" at the end, once the comma was read. Raises `NetstringError` if another byte
        stands in its place."""
        left = self.left
        if left is None:
            raise LocalProtocolError("read_slice() follows a read_length() that has returned the length")
        if left:
            piece = self._buffer.read_some(left if limit is None else min(left, limit))
            self.left = left - len(piece)
            if self.room is not None:
                self.room -= len(piece)
            return piece or None
        return b"" if self._read_comma() else None

    def read_whole(self, limit: int) -> bytes | Oversized | None:
        """The next netstring's content; None when not all of it is here yet. One of more than `limit` bytes is thrown
        away as it comes; `OVERSIZED` is returned at its end. Raises `NetstringError`."""
        if self.left is None:
            short = self.read_short(limit)
            if short is not None:
                return short
            length = self.read_length()
            if length is None:
                return None
            self._oversized = length > limit
        if self._oversized:
            while piece := self.read_slice():
                pass
            return None if piece is None else OVERSIZED
        left = self.left
        assert left is not None
        if self.room == left:
            raise NetstringError(Fault.COMMA)
        if len(self._buffer) <= left:
            return None
        content = self._buffer.read_exactly(left)
        assert content is not None
        if self.room is not None:
            self.room -= left
        self._read_comma()
        return content

    def read_short(self, limit: int) -> bytes | None:
        """The next netstring's content if it is short, whole, here as a whole and of at most `limit` bytes; else None,
        and nothing is read."""
        head = self._buffer.peek(_GLANCE)
        match = _SHORT.match(head)
        if match is None:
            return None
        start = match.end()
        size = int(match[1])
        comma = start + size
        room = self.room
        if size > limit or head[comma : comma + 1] != b"," or (room is not None and comma >= room):
            return None
        self._buffer.skip(comma + 1)
        if room is not None:
            self.room = room - comma - 1
        return head[start:comma]

    def _read_comma(self) -> bool:
        if self.room == 0:
            raise NetstringError(Fault.COMMA)
        comma = self._buffer.read_exactly(1)
        if comma is None:
            return False
        if comma != b",":
            raise NetstringError(Fault.COMMA)
        if self.room is not None:
            self.room -= 1
        self.left = None
        return True
