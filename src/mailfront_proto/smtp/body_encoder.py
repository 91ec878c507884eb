"""Message framing for sending: line ends; dots and the end of data (RFC 5321 section 4.5.2); chunks (RFC 3030).

Strategy: as in `DotDecoder`, work on whole blocks with `count` and `replace`, never line by line. A block
in wire form without lines that begin with a dot, the common case, goes out as it came. What cannot be
decided at the end of a block is one CR, which waits for the next byte, and whether a line begins there.

No CR or LF leaves alone, whatever came in (only CRLF ends a line, RFC 5321 section 2.3.8): a bare LF is a
line end, a bare CR becomes a space, as when we receive. A BINARYMIME message alone goes out as it is: its
length is all that ends it.
"""

END_OF_DATA = b".\r\n"


class LineEncoder:
    """Puts line ends right: `feed` the pieces of a message, cut anywhere, then `finish`."""

    __slots__ = ("_held", "_line_begins")

    def __init__(self) -> None:
        self._held = b""
        self._line_begins = True

    def feed(self, data: bytes) -> bytes:
        """The wire form of the next piece, whose lines end in CRLF or LF."""
        if self._held:
            data = self._held + data
            self._held = b""
        if data.endswith(b"\r"):
            self._held = b"\r"
            data = data[:-1]
        if not data:
            return b""
        line_ends = data.count(b"\n")
        returns = data.count(b"\r")
        if line_ends != returns or line_ends != data.count(b"\r\n"):
            if returns:
                data = data.replace(b"\r\n", b"\n").replace(b"\r", b" ")
            data = data.replace(b"\n", b"\r\n")
        self._line_begins = data.endswith(b"\n")
        return data

    def finish(self) -> bytes:
        """What is missing at the end: a line end, if the last line has none."""
        rest = b" " if self._held else b""  # a bare CR
        self._held = b""
        return rest if self._line_begins and not rest else rest + b"\r\n"


class DotEncoder(LineEncoder):
    """The same for DATA: lines that begin with a dot get another, and a dot alone ends the message."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        super().__init__()
        self.ended = False
        """Whether `finish` was called."""

    def feed(self, data: bytes) -> bytes:
        """The wire form of the next piece, whose lines end in CRLF or LF."""
        line_begins = self._line_begins
        data = super().feed(data)
        if b"\r\n." in data:
            data = data.replace(b"\r\n.", b"\r\n..")
        return b"." + data if line_begins and data.startswith(b".") else data

    def finish(self) -> bytes:
        """What ends the message: a line end if the last line has none, and the final dot."""
        self.ended = True
        return super().finish() + END_OF_DATA


class ChunkEncoder:
    """The same for BDAT (RFC 3030 section 2): collects what is fed, and gives chunks of `size` octets.

    `binary`: a BINARYMIME message (section 3), whose bytes stay what they are.
    """

    __slots__ = ("_done", "_held", "_lines", "_size", "ended")

    def __init__(self, size: int, binary: bool = False) -> None:
        self._size = size
        self._lines = None if binary else LineEncoder()
        self._held = bytearray()
        self._done = False
        self.ended = False
        """Whether `finish` was called."""

    def feed(self, data: bytes) -> None:
        """The next piece of the message."""
        self._held += self._lines.feed(data) if self._lines is not None else data

    def finish(self) -> None:
        """The message is complete."""
        if self._lines is not None:
            self._held += self._lines.finish()
        self.ended = True

    def clear(self) -> None:
        """Nobody wants the rest."""
        self._held.clear()
        self._done = True

    def next_chunk(self) -> tuple[bytes, bool] | None:
        """The next chunk and whether it is the last; None until more is fed, and when there are no more.

        A chunk waits until there are octets behind it, or the end, so that the last one is not empty (unless the
        message is) and a short message is one chunk.
        """
        held = self._held
        if self._done or (len(held) <= self._size and not self.ended):
            return None
        chunk = bytes(held[: self._size])
        del held[: self._size]
        self._done = self.ended and not held
        return chunk, self._done
