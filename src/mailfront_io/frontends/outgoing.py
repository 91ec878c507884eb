"""The message that a client sends: bytes, a file, or any iterable of pieces, read in blocks.

Strategy: what can be looked at beforehand (bytes, a file that can be rewound) is measured, so that a server
learns the size before the message, and that it is 8-bit only where it is. What cannot be is sent as it comes.
Files are read in the driver's threads, so that a slow disk holds up nobody else.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from mailfront_io.ops import Thread
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.client_lines import envelope_line, to_address

BLOCK: Final = 64 * 1024
"""Bytes that are read, and written, at once (twice as many at most): a few per socket buffer, so that a deadline
for each block (RFC 5321 section 4.5.3.2.5) says that the connection moves."""


class ReadableFile(Protocol):
    """A binary file, as far as it is needed. One that has ``seekable``, ``tell`` and ``seek`` is rewound."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; ``b""`` at the end."""
        ...


Message = bytes | ReadableFile | Iterable[bytes]
"""A message with CRLF or LF line ends: bytes; a binary file, sent from where it stands; or an iterable of
pieces cut anywhere, which is asked for the next piece in the midst of the session and must not block."""


@dataclass(slots=True)
class Measure:
    """What is known of a message. `size`: its octets on the wire, CRLF line ends, before dot-stuffing
    (RFC 1870 section 5); `eight_bit`: it has bytes of 128 and above. None: not known."""

    size: int | None = None
    eight_bit: bool | None = None


def measure(blocks: Iterable[bytes]) -> Measure:
    """Measure a message that is given in blocks."""
    size = 0
    eight_bit = False
    last = b"\n"
    for block in blocks:
        if not block:
            continue
        size += len(block) + block.count(b"\n") - block.count(b"\r\n")
        if last == b"\r" and block.startswith(b"\n"):
            size -= 1  # a CRLF that was cut in two
        eight_bit = eight_bit or not block.isascii()
        last = block[-1:]
    return Measure(size + (0 if last == b"\n" else 2), eight_bit)


class OutgoingMessage:
    """One message to send. `sender` is empty for the null path; `recipients`: one at least.

    Raises `LocalProtocolError`, before anything is connected, for an address that cannot be sent (above
    all: with CR, LF, NUL or another control character), and TypeError for a `body` that is no `Message`.
    """

    __slots__ = ("recipients", "sender", "source")

    def __init__(self, sender: Address | str, recipients: Sequence[Address | str], body: Message) -> None:
        if isinstance(recipients, str):
            raise LocalProtocolError(f"the recipients are a list: write [{recipients!r}]")
        self.sender = to_address(sender)
        self.recipients = [to_address(recipient) for recipient in recipients]
        self.source = MessageSource(body)
        if not self.recipients:
            raise LocalProtocolError("the message has no recipient: give one at least")
        envelope_line("MAIL", self.sender, (), True)
        for address in self.recipients:
            envelope_line("RCPT", address, (), True)


class MessageSource:
    """Reads `message` once: `measure`, then `read` until it returns ``b""``. Small pieces are put together.

    Raises TypeError for what is no `Message`, above all for text, whose encoding nobody but its author knows.
    """

    def __init__(self, message: Message) -> None:
        self._read: Callable[[int], bytes] | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._bytes: bytes | None = None
        read = getattr(message, "read", None)
        if isinstance(message, str):
            raise TypeError("the message is text: encode it, for instance message.encode('ascii')")
        if isinstance(message, bytes | bytearray | memoryview):
            self._bytes = bytes(message)
            self._pieces = _blocks([self._bytes])
        elif callable(read):
            self._read = read
            self._file = message
        elif isinstance(message, Iterable):
            self._pieces = _blocks(message)
        else:
            raise TypeError(f"the message is bytes, a binary file or an iterable of bytes, no {type(message).__name__}")

    async def measure(self) -> Measure:
        """What can be known before the message is read. Raises OSError for a file that cannot be read."""
        if self._bytes is not None:
            return measure([self._bytes])
        if self._read is not None and getattr(self._file, "seekable", bool)():
            return await Thread(self._measure_file)
        return Measure()

    def _measure_file(self) -> Measure:
        file = self._file
        start = file.tell()  # type: ignore[union-attr]  # it is seekable
        found = measure(iter(self._read_file, b""))
        file.seek(start)  # type: ignore[union-attr]
        return found

    def _read_file(self) -> bytes:
        assert self._read is not None
        return _checked(self._read(BLOCK))

    async def read(self) -> bytes:
        """The next block, ``b""`` at the end. Raises what the file or the iterable raises."""
        if self._read is not None:
            return await Thread(self._read_file)
        pieces = []
        size = 0
        for piece in self._pieces:
            pieces.append(piece)
            size += len(piece)
            if size >= BLOCK:
                break
        return b"".join(pieces)


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in map(_checked, pieces):
        for start in range(0, len(piece), BLOCK):
            yield piece[start : start + BLOCK]


def _checked(piece: object) -> bytes:
    if not isinstance(piece, bytes):
        raise LocalProtocolError(
            f"the message gave {type(piece).__name__} where bytes are wanted: open its file with mode 'rb'"
        )
    return piece
