"""Message framing for sending (RFC 5321 section 4.5.2): line ends, dot-stuffing, the end of data.

Strategy: as in `DotDecoder`, work on whole chunks with `count` and `replace`, never line by line. A chunk
in wire form without lines that begin with a dot, the common case, goes out as it came. What cannot be
decided at the end of a chunk is one CR, which waits for the next byte, and whether a line begins there.

No CR or LF leaves alone, whatever came in (only CRLF ends a line, RFC 5321 section 2.3.8): a bare LF is a
line end, a bare CR becomes a space, as when we receive.
"""

END_OF_DATA = b".\r\n"


class DotEncoder:
    """Encodes one message: `feed` its pieces, cut anywhere, then `finish`."""

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
        if line_ends == returns and line_ends == data.count(b"\r\n"):
            if b"\r\n." in data:
                data = data.replace(b"\r\n.", b"\r\n..")
        else:
            if returns:
                data = data.replace(b"\r\n", b"\n").replace(b"\r", b" ")
            if b"\n." in data:
                data = data.replace(b"\n.", b"\n..")
            data = data.replace(b"\n", b"\r\n")
        if self._line_begins and data.startswith(b"."):
            data = b"." + data
        self._line_begins = data.endswith(b"\n")
        return data

    def finish(self) -> bytes:
        """What ends the message: a line end if the last line has none, and the final dot."""
        rest = b" " if self._held else b""  # a bare CR
        self._held = b""
        return rest + END_OF_DATA if self._line_begins and not rest else rest + b"\r\n" + END_OF_DATA
