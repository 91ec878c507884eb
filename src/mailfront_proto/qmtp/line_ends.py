"""Line ends of messages in QMTP and QMQP, converted on whole chunks."""

from typing import Final

CR: Final = 0x0D  # to look for a number takes a fifth of the time that looking for b"\r" takes


def convert(data: bytes, repairs: bool, lf: bool) -> bytes:
    """A whole message, or a part of it that does not end within a CRLF; arguments as in `LineEndDecoder`."""
    if repairs and CR in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b" ")
    return data if lf else data.replace(b"\n", b"\r\n")


class LineEndDecoder:
    """Converts one message. `repairs`: CRLF ends a line as LF does, and a CR that stands alone becomes a space;
    otherwise CRs are data. `lf`: give lines that end in LF; otherwise they end in CRLF."""

    __slots__ = ("_held", "_lf", "_repairs")

    def __init__(self, repairs: bool, lf: bool) -> None:
        self._repairs = repairs
        self._lf = lf
        self._held = b""

    def feed(self, data: bytes, last: bool) -> bytes:
        """The next chunk, converted; `last`: there is no more. A CR at the end of a chunk is held back until it is
        known what follows it, so a slice may be empty."""
        if self._repairs:
            if self._held:
                data = self._held + data
                self._held = b""
            if not last and data.endswith(b"\r"):
                self._held = b"\r"
                data = data[:-1]
        return convert(data, self._repairs, self._lf)
