"""A message as it comes from a server (RFC 1939 section 3): dots unstuffed, and where it ends.

Strategy: whole slices, no object for a line. What a slice ends with is held back while it may be the beginning of the
end or of a stuffed dot, and stands in front of the next one. Unlike SMTP's `DotDecoder` this repairs nothing: only CRLF
ends a line, and every other CR and LF is content, so a message comes out as it was sent, signatures and all.
"""

from typing import Final

# Where a slice may be cut inside CRLF . CRLF: its proper beginnings, longest first.
_HOLDS: Final = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")


class MessageDecoder:
    """Decodes one message: `feed` it until it returns what follows the end."""

    __slots__ = ("_begun", "_held")

    def __init__(self) -> None:
        self._held = b"\r\n"  # the end of the +OK line, which is no part of the message
        self._begun = False

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take the next slice; returns (the message's next bytes, what follows its end or None)."""
        slice_ = self._held + data
        end = slice_.find(b"\r\n.\r\n")
        rest = None
        self._held = b""
        if end >= 0:
            piece, rest = slice_[: end + 2], slice_[end + 5 :]
        else:
            self._held = next((hold for hold in _HOLDS if slice_.endswith(hold)), b"")
            piece = slice_[: len(slice_) - len(self._held)]
        if b"\r\n." in piece:
            piece = piece.replace(b"\r\n.", b"\r\n")
        if piece and not self._begun:
            self._begun = True
            piece = piece[2:]
        return piece, rest
