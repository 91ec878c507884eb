"""What comes of a message's bytes: line ends, and in DATA the dots and the end (RFC 5321 section 4.5.2).

Strategy: work on whole slices with `find` and `replace`, never line by line. What a
slice ends with is held back while it may be the beginning of the end of data, of a line end or of a stuffed
dot, and stands in front of the next slice; so no decision needs a look back. The line end of the DATA command
itself counts as the line end in front of the message: it is held first, and left out of the result. In BDAT (RFC
3030) somebody else counts the octets, and only a CR waits for what follows it, from one chunk to the next too.
"""

from typing import ClassVar, Final

from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.smtp.profile import LineEnds

_DOT: Final = 46
_BARE = compile_later(rb"\r(?!\n)|(?<!\r)\n")

# Where a chunk may be cut inside CRLF . CRLF: its proper beginnings, longest first.
_STRICT_HOLDS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r", b"\n")

# ACCEPT, as the original has it: both line ends may be bare, and a dot also counts as first in its line
# behind one CR (LF CR . LF is an end; LF CR . CR LF, oddly, is not).
_FREE_ENDS = (b"\n.\r\n", b"\n.\n", b"\n\r.\n")
_FREE_HOLDS = (b"\n\r.", b"\n.\r", b"\n\r", b"\n.", b"\n", b"\r")


END_OF_DATA: Final = b"\r\n.\r\n"
"""The end of data, and of the last line before it."""


def decode_whole(data: bytes | bytearray, start: int, lf: bool) -> tuple[bytes, int] | None:
    """The message that begins in `data` at `start`, behind DATA, and its octets with the end of data. `lf`: as in
    `LineDecoder`. None when its end is not here, when a line of it begins with a dot, or when not every CR and LF in it
    is part of a CRLF: then `DotDecoder` has to say what it is. (It would say the same of all others.)"""
    line_end = data.find(b"\r\n.", start)
    if line_end < 0 or not data.startswith(b"\r\n", line_end + 3) or data[start] == _DOT:
        return None
    text = _convert(bytes(data[start : line_end + 2]), lf)
    return None if text is None else (text, line_end + 5 - start)


def _convert(piece: bytes, lf: bool) -> bytes | None:
    """`piece` with the line ends that are wanted; None when not every CR and LF in it is part of a CRLF.

    Every one is if nothing has changed once all CRs are taken out and one is put in front of each LF. To replace a
    single byte is to go from one to the next by the fastest search that there is, in every build of Python; to look for
    two bytes, or to count them, takes several times as long."""
    text = piece.replace(b"\r", b"")
    if text.replace(b"\n", b"\r\n") != piece:
        return None
    return text if lf else piece


class LineDecoder:
    """Decodes the lines of one message. `line_ends`: the policy for a CR or LF that stands alone. `lf`: give lines
    that end in LF, as files have them; otherwise they end in CRLF, as on the wire."""

    __slots__ = ("_held", "_lf", "_policy", "has_bare_line_ends", "size")

    _unstuffs: ClassVar[bool] = False

    def __init__(self, line_ends: LineEnds, lf: bool = False) -> None:
        self._policy = line_ends
        self._lf = lf
        self._held = b""
        self.has_bare_line_ends = False
        """Whether a CR or LF stood alone in what was decoded so far."""
        self.size = 0
        """Octets decoded so far, in the form of the wire: RFC 1870 section 6.1 counts so."""

    def cut(self, decoded: bytes, room: int) -> bytes:
        """The first `room` octets of a slice, counted on the wire: the same however the message was cut."""
        if not self._lf:
            return decoded[:room]
        return decoded.replace(b"\n", b"\r\n")[:room].replace(b"\r\n", b"\n").removesuffix(b"\r")

    def _decode(self, piece: bytes, dotted: bool) -> bytes:
        """A piece without half a line end, by the policy; `dotted`: there may be dots to unstuff."""
        converted = _convert(piece, self._lf)
        if converted is not None:
            text = converted
            if dotted:
                text = text.replace(b"\n.", b"\n") if self._lf else text.replace(b"\r\n.", b"\r\n")
            self.size += len(piece) - (len(converted) - len(text))
            return text
        self.has_bare_line_ends = True
        piece = self._repair(piece)
        self.size += len(piece) + piece.count(b"\n")
        return piece if self._lf else piece.replace(b"\n", b"\r\n")

    def _repair(self, piece: bytes) -> bytes:
        """A piece with line ends that stand alone, by the policy; with LF line ends, unstuffed."""
        if self._policy is LineEnds.REJECT:
            # What stands in front of the first one is the same however the message was cut.
            bare = _BARE.search(piece)
            piece = piece[: bare.start() if bare else None]
        piece = piece.replace(b"\r\n", b"\n")
        if self._policy is LineEnds.ACCEPT:
            if self._unstuffs:
                piece = piece.replace(b"\n\r.", b"\n\r")  # the dot goes, the CR was data
        else:
            piece = piece.replace(b"\r", b" ")
        return piece.replace(b"\n.", b"\n") if self._unstuffs else piece


class ChunkDecoder(LineDecoder):
    """Decodes what BDAT brings (RFC 3030 section 2): every octet as it is, but for line ends, whose policy is that of
    DATA. `binary`: a BINARYMIME message (section 3), in which nothing is changed, not even by `lf`."""

    __slots__ = ("_binary",)

    def __init__(self, line_ends: LineEnds, lf: bool = False, binary: bool = False) -> None:
        super().__init__(line_ends, lf and not binary)
        self._binary = binary

    def feed(self, data: bytes) -> bytes:
        """The next octets of the message, decoded. A CR at their end waits for what follows."""
        octets = self._held + data if self._held else data
        if octets.endswith(b"\r"):
            self._held = b"\r"
            octets = octets[:-1]
        else:
            self._held = b""
        return self._take(octets)

    def finish(self) -> bytes:
        """What was still held at the end of the last chunk."""
        rest, self._held = self._held, b""
        return self._take(rest)

    def _take(self, octets: bytes) -> bytes:
        if self._binary:
            self.size += len(octets)
            return octets
        return self._decode(octets, False)


class DotDecoder(LineDecoder):
    """Decodes what DATA brings: lines, dot-stuffed, up to a line with a dot alone."""

    __slots__ = ("_first",)

    _unstuffs = True

    def __init__(self, line_ends: LineEnds, lf: bool = False) -> None:
        super().__init__(line_ends, lf)
        self._held = b"\r\n"
        self._first = True

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take the next chunk; returns (decoded slice, what follows the end of data or None)."""
        chunk = self._held + data if self._held else data
        # Without a dot behind a line end there is nothing to unstuff, and no end. One byte is found much faster than
        # three are, and base64, in which most of all mail comes, has no dots at all.
        dotted = b"." in chunk and b"\r\n." in chunk
        holds: tuple[bytes, ...]
        if self._policy is LineEnds.ACCEPT:
            dotted = dotted or b"\n." in chunk or b"\n\r." in chunk
            end, after = _find_free_end(chunk) if dotted else (0, 0)
            holds = _FREE_HOLDS
        else:
            found = chunk.find(b"\r\n.\r\n") if dotted else -1
            end, after = (found + 2, found + 5) if found >= 0 else (0, 0)
            holds = _STRICT_HOLDS
        rest: bytes | None = None
        self._held = b""
        if end:
            piece, rest = chunk[:end], chunk[after:]
        else:
            for hold in holds:
                if chunk.endswith(hold):
                    if hold[0] == 10 and chunk.endswith(b"\r" + hold):
                        hold = b"\r" + hold  # a CRLF stays together
                    self._held = hold
                    break
            piece = chunk[: len(chunk) - len(self._held)] if self._held else chunk
        decoded = self._decode(piece, dotted)
        if self._first and piece:
            # The line end of the DATA command, which is no part of the message.
            self._first = False
            self.size -= 2
            decoded = decoded[1:] if self._lf else decoded[2:]
        return decoded, rest


def _find_free_end(chunk: bytes) -> tuple[int, int]:
    """The first end of data under ACCEPT, as (end of content, start of what follows), or (0, 0)."""
    best, length = len(chunk), 0
    for pattern in _FREE_ENDS:
        found = chunk.find(pattern, 0, best + len(pattern))
        if 0 <= found < best:
            best, length = found, len(pattern)
    return (best + 1, best + length) if length else (0, 0)
