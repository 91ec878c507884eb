"""The receive buffer: bounded, linear in its input however that is chunked.

Strategy: while nothing is left over, the chunk that came is kept as it came (no copy) and read by an
offset. Only what is left of a chunk when the next one arrives is joined, in a bytearray that grows
amortized. A search for a line end remembers how far it looked, so that input that drips in byte by byte
is looked at once.

Framing comes before parsing: `read_line` returns whole lines only, whatever they hold, and an oversized
line is thrown away to its end, which keeps the reader in step with the peer.
"""

from collections.abc import Callable
from re import Match
from typing import Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.pull import MAX_HELD_INPUT

OVERSIZED: Final = b""
"""What `ReceiveBuffer.read_line` returns for a line over its limit. A framed line is never empty, since
its LF counts."""


class ReceiveBuffer:
    """Bytes received and not yet used.

    `max_held`: bytes held past which `feed` raises `LocalProtocolError`.
    """

    __slots__ = ("_data", "_max_held", "_pos", "_searched", "has_unread")

    def __init__(self, max_held: int = MAX_HELD_INPUT) -> None:
        # With nothing unread _data is empty and _pos is 0.
        self._data: bytes | bytearray = b""
        self._pos = 0
        # At the front: 0, a line of which nothing is known; above, a line that does not end before this offset;
        # below, the rest of a line over its limit.
        self._searched = 0
        self._max_held = max_held
        self.has_unread = False
        """Whether there is anything to read."""

    def __len__(self) -> int:
        return len(self._data) - self._pos

    def feed(self, data: bytes) -> None:
        """Store `data`, without looking at it."""
        if self.has_unread or len(data) > self._max_held:
            self._join(data)
        else:
            self._data = data
            self.has_unread = data != b""

    def _join(self, data: bytes) -> None:
        """Store `data` behind what is held."""
        held = len(self._data) - self._pos
        if held + len(data) > self._max_held:
            raise LocalProtocolError(
                f"{held + len(data)} bytes fed but not yet used (limit {self._max_held}): "
                "call next_event() until it returns NEED_DATA before reading more"
            )
        if isinstance(self._data, bytes) or self._pos > held:  # the move costs less than the reading of it did
            self._data = bytearray(self._data[self._pos :])
            if self._searched > 0:
                self._searched = max(0, self._searched - self._pos)
            self._pos = 0
        self._data += data
        self.has_unread = len(self._data) > 0

    def read_line(self, limit: int) -> bytes | None:
        """The next line with its LF; None when it is not here yet; `OVERSIZED` for one of more than
        `limit` bytes, LF included, which is thrown away to its end first.
        """
        data = self._data
        start = self._pos
        searched = self._searched
        end = data.find(b"\n", searched if searched > start else start) + 1
        if not end:
            if searched < 0 or len(data) - start >= limit:
                # It cannot fit any more, wherever its LF is: hold nothing of it. (A line of exactly
                # `limit` bytes has its LF among them.)
                self.clear()
                self._searched = -1
            else:
                self._searched = len(data)
            return None
        if end == len(data):
            self._data = b""
            self._pos = 0
            self.has_unread = False
        else:
            self._pos = end
        if searched:
            self._searched = 0
        if searched < 0 or end - start > limit:
            return OVERSIZED
        line = data[start:end]  # all of a chunk is no copy: a client that waits for each reply sends no more
        return line if isinstance(line, bytes) else bytes(line)

    def read_match(
        self, match: "Callable[[bytes | bytearray, int, int], Match[bytes] | None]", limit: int
    ) -> "Match[bytes] | None":
        """What a pattern, whose `match` this is, finds in front, in no more than `limit` bytes, which is used up; None
        when it finds nothing there. It looks at the beginnings of lines only, and at each of them once: what comes in
        pieces is for `read_line`.
        """
        if self._searched:
            return None
        data = self._data
        start = self._pos
        found = match(data, start, start + limit)
        if found is not None:
            end = found.end()
            if end == len(data):
                self._data = b""
                self._pos = 0
                self.has_unread = False
            else:
                self._pos = end
        return found

    def read_through(self, end: bytes) -> bytes | None:
        """Everything through the first `end`; None, and nothing is used up, while that is not here."""
        data = self._data
        start = self._pos
        found = data.find(end, start)
        if found < 0:
            return None
        found += len(end)
        if found == len(data):
            self._data = b""
            self._pos = 0
            self.has_unread = False
        else:
            self._pos = found
        block = data[start:found]
        return block if isinstance(block, bytes) else bytes(block)

    def read_all(self) -> bytes:
        """Everything that is held, in one piece (the chunk itself when it came in one)."""
        data = self._data
        rest = data[self._pos :] if self._pos else data
        self.clear()
        return rest if isinstance(rest, bytes) else bytes(rest)

    def read_some(self, limit: int) -> bytes:
        """What is held, but `limit` bytes at most; b"" when nothing is."""
        if len(self._data) - self._pos <= limit:
            return self.read_all()
        piece = self.read_exactly(limit)
        assert piece is not None
        return piece

    def peek(self, size: int) -> bytes:
        """The next bytes, `size` of them at most, which stay."""
        piece = self._data[self._pos : self._pos + size]
        return piece if isinstance(piece, bytes) else bytes(piece)

    def view(self) -> tuple[bytes | bytearray, int]:
        """What is held as it is, and where in it the next byte stands; all of it stays. For patterns that look at more
        than `peek` should copy; use it before the next call of anything else."""
        return self._data, self._pos

    def skip(self, size: int) -> None:
        """Use up `size` bytes that `peek` or `view` has shown."""
        self._pos += size
        if self._pos >= len(self._data):
            self._data = b""
            self._pos = self._searched = 0
            self.has_unread = False

    def read_exactly(self, size: int) -> bytes | None:
        """Exactly `size` bytes, or None when they are not here yet."""
        start = self._pos
        end = start + size
        data = self._data
        if end > len(data):
            return None
        if end == len(data):
            self.clear()
        else:
            self._pos = end
        block = data[start:end]
        return block if isinstance(block, bytes) else bytes(block)

    def push_back(self, data: bytes) -> None:
        """Put `data`, the unused end of what was read last, in front again."""
        if data:
            self._data = data if not len(self) else data + self._data[self._pos :]
            self._pos = self._searched = 0
            self.has_unread = True

    def clear(self) -> None:
        """Forget everything held."""
        self._data = b""
        self._pos = self._searched = 0
        self.has_unread = False
