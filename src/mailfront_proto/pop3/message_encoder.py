"""A message on its way to the client (RFC 1939 sections 3, 5 and 7): line ends, dots, and how much of it TOP wants.

Strategy: whole pieces, cut anywhere, no object for a line. The lines that TOP wants are counted in what comes in; how
they are written is `DotEncoder`'s.
"""

from mailfront_proto.dot_encoder import END_OF_DATA, DotEncoder


class MessageEncoder:
    """Encodes one message: `feed` its pieces, cut anywhere, then `finish`.

    `lines`: lines of the body to send besides the header; None: all. `crlf_files`, `ends_with_empty_line`: fields of
    the profile.
    """

    __slots__ = ("_crlf_files", "_dots", "_ends_with_empty_line", "_in_header", "_lines", "_tail", "is_complete")

    def __init__(self, lines: int | None, crlf_files: bool = True, ends_with_empty_line: bool = False) -> None:
        self._dots = DotEncoder(bare_cr=b"\r")
        self._lines = lines
        self._crlf_files = crlf_files
        self._ends_with_empty_line = ends_with_empty_line
        self._in_header = True
        self._tail = b"\n"  # the last bytes that were looked at: an empty first line ends the header, too
        self.is_complete = False
        """The client has all the lines that it wants."""

    def feed(self, data: bytes) -> bytes:
        """The wire form of the next piece, as far as it is wanted."""
        if self._lines is not None:
            data = self._wanted(data, self._lines)
        if not self._crlf_files:
            data = data.replace(b"\n", b"\r\n")
        return self._dots.feed(data)

    def finish(self) -> bytes:
        """What ends the message: a line end, if the last line has none, and the final dot."""
        end = self._dots.finish()
        return b"\r\n" + END_OF_DATA if self._ends_with_empty_line and end == END_OF_DATA else end

    def _wanted(self, data: bytes, lines: int) -> bytes:
        """The header, its empty line, and `lines` lines behind it: how much of that is in `data`."""
        if self.is_complete:
            return b""
        start = 0
        if self._in_header:
            start = self._end_of_header(data)
            if not start:
                return data
            self._in_header = False
        count = data.count(b"\n", start)
        if count < lines:
            self._lines = lines - count
            return data
        self.is_complete = True
        if not lines:
            return data[:start]
        rest = data[start:].split(b"\n", lines)[-1]
        return data[: len(data) - len(rest)]

    def _end_of_header(self, data: bytes) -> int:
        """Where the body begins in `data`; 0 if not in it."""
        seen = len(self._tail)
        window = self._tail + data
        end = window.find(b"\n\n") + 2
        if self._crlf_files:
            other = window.find(b"\n\r\n") + 3
            if other > 2 and (end < 2 or other < end):
                end = other
        self._tail = window[-2:]
        return end - seen if end > 1 else 0
