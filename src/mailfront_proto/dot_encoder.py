"""Message framing for sending, as SMTP and POP3 have it: line ends, and dots and the end of data (RFC 5321 section
4.5.2, RFC 1939 section 3).

Strategy: as in `DotDecoder`, work on whole blocks with `count` and `replace`, never line by line. A block
in wire form without lines that begin with a dot, the common case, goes out as it came. What cannot be
decided at the end of a block is one CR, which waits for the next byte, and whether a line begins there.

In SMTP no CR or LF leaves alone, whatever came in (only CRLF ends a line, RFC 5321 section 2.3.8): a bare LF is a
line end, a bare CR becomes a space, as when we receive. In POP3, where the message is the client's own, a bare CR
stays.
"""

END_OF_DATA = b".\r\n"


class LineEncoder:
    """Puts line ends right: `feed` the pieces of a message, cut anywhere, then `finish`. `bare_cr`: what a CR that
    stands alone becomes."""

    __slots__ = ("_bare_cr", "_held", "_line_begins")

    def __init__(self, bare_cr: bytes = b" ") -> None:
        self._bare_cr = bare_cr
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
                data = data.replace(b"\r\n", b"\n").replace(b"\r", self._bare_cr)
            data = data.replace(b"\n", b"\r\n")
        self._line_begins = data.endswith(b"\n")
        return data

    def finish(self) -> bytes:
        """What is missing at the end: a line end, if the last line has none."""
        rest = self._bare_cr if self._held else b""
        self._held = b""
        return rest if self._line_begins and not rest else rest + b"\r\n"


class DotEncoder(LineEncoder):
    """The same for DATA: lines that begin with a dot get another, and a dot alone ends the message."""

    __slots__ = ("ended",)

    def __init__(self, bare_cr: bytes = b" ") -> None:
        super().__init__(bare_cr)
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
