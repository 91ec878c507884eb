"""Message framing in DATA (RFC 5321 section 4.5.2): dot-unstuffing and the end of data.

Strategy: work on whole chunks with `find`, `count` and `replace`, never line by line. What a chunk ends
with is held back while it may be the beginning of the end of data, of a line end or of a stuffed dot, and
stands in front of the next chunk; so no decision needs a look back. The line end of the DATA command
itself counts as the line end in front of the message: it is held first, and left out of the result.

Decoded slices have CRLF line ends.
"""

import re

from mailfront_proto.smtp.profile import LineEnds

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")

# Where a chunk may be cut inside CRLF . CRLF: its proper beginnings, longest first.
_STRICT_HOLDS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r", b"\n")

# ACCEPT, as the original has it: both line ends may be bare, and a dot also counts as first in its line
# behind one CR (LF CR . LF is an end; LF CR . CR LF, oddly, is not).
_FREE_ENDS = (b"\n.\r\n", b"\n.\n", b"\n\r.\n")
_FREE_HOLDS = (b"\n\r.", b"\n.\r", b"\n\r", b"\n.", b"\n", b"\r")


class DotDecoder:
    """Decodes one message. `line_ends`: the policy for a CR or LF that stands alone."""

    __slots__ = ("_first", "_held", "_policy", "has_bare_line_ends")

    def __init__(self, line_ends: LineEnds) -> None:
        self._policy = line_ends
        self._held = b"\r\n"
        self._first = True
        self.has_bare_line_ends = False
        """Whether a CR or LF stood alone in what was decoded so far."""

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take the next chunk; returns (decoded slice, what follows the end of data or None)."""
        chunk = self._held + data if self._held else data
        holds: tuple[bytes, ...]
        if self._policy is LineEnds.ACCEPT:
            end, after = _find_free_end(chunk)
            holds = _FREE_HOLDS
        else:
            found = chunk.find(b"\r\n.\r\n")
            end, after = (found + 2, found + 5) if found >= 0 else (0, 0)
            holds = _STRICT_HOLDS
        rest: bytes | None
        if end:
            piece, rest = chunk[:end], chunk[after:]
            self._held = b""
        else:
            rest = None
            self._held = b""
            for hold in holds:
                if chunk.endswith(hold):
                    if hold[0] == 10 and chunk.endswith(b"\r" + hold):
                        hold = b"\r" + hold  # a CRLF stays together
                    self._held = hold
                    break
            piece = chunk[: len(chunk) - len(self._held)] if self._held else chunk
        decoded = self._decode(piece)
        if self._first and piece:
            # The line end of the DATA command, which is no part of the message.
            self._first = False
            decoded = decoded[2:]
        return decoded, rest

    def _decode(self, piece: bytes) -> bytes:
        line_ends = piece.count(b"\n")
        if line_ends == piece.count(b"\r\n") and line_ends == piece.count(b"\r"):
            # Every CR and LF is part of a CRLF: only dots are left to do.
            return piece.replace(b"\r\n.", b"\r\n") if b"\r\n." in piece else piece
        self.has_bare_line_ends = True
        if self._policy is LineEnds.REJECT:
            # What stands in front of the first one is the same however the message was cut.
            bare = _BARE.search(piece)
            return piece[: bare.start() if bare else None].replace(b"\r\n.", b"\r\n")
        piece = piece.replace(b"\r\n", b"\n")
        if self._policy is LineEnds.ACCEPT:
            piece = piece.replace(b"\n\r.", b"\n\r")  # the dot goes, the CR was data
        else:
            piece = piece.replace(b"\r", b" ")
        return piece.replace(b"\n.", b"\n").replace(b"\n", b"\r\n")


def _find_free_end(chunk: bytes) -> tuple[int, int]:
    """The first end of data under ACCEPT, as (end of content, start of what follows), or (0, 0)."""
    best, length = len(chunk), 0
    for pattern in _FREE_ENDS:
        found = chunk.find(pattern, 0, best + len(pattern))
        if 0 <= found < best:
            best, length = found, len(pattern)
    return (best + 1, best + length) if length else (0, 0)
