"""A message on its way out, for DATA (`DotEncoder`, which POP3 uses too) and for BDAT (RFC 3030): `ChunkEncoder`."""

from mailfront_proto.dot_encoder import END_OF_DATA, DotEncoder, LineEncoder

__all__ = ["END_OF_DATA", "ChunkEncoder", "DotEncoder"]


class ChunkEncoder:
    """Encodes one message for BDAT (RFC 3030 section 2): collects what is fed, and gives chunks of `size` octets.

    `binary`: a BINARYMIME message (section 3), whose bytes stay what they are: its length is all that ends it.
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
        message is) and a short message is one chunk. No CRLF is cut in two, for servers that look at each chunk alone.
        """
        held, size = self._held, self._size
        if self._done or (len(held) <= size and not self.ended):
            return None
        if self._lines is not None and size > 1 and held[size - 1 : size + 1] == b"\r\n":
            size -= 1
        chunk = bytes(held[:size])
        del held[:size]
        self._done = self.ended and not held
        return chunk, self._done
