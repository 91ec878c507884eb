"""The message that a client sends: bytes, a file, or any iterable of pieces, read in blocks.

Strategy: what can be looked at beforehand (bytes, a file that can be rewound) is measured, so that a server
learns the size before the message, and that it is 8-bit only where it is. Of what cannot be, the beginning is read
ahead: it says whether the header is ASCII, and it is the whole message where that is short. Files are read in the
driver's threads, so that a slow disk holds up nobody else. A message that several transactions need is read again,
and where that cannot be done, kept.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from mailfront_io.ops import Thread
from mailfront_io.spool import Spool
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.client import EnvelopeRecipient
from mailfront_proto.smtp.client_events import RecipientResult, Stage
from mailfront_proto.smtp.client_lines import envelope_line, to_address
from mailfront_proto.smtp.parameters import NO_MAIL_OPTIONS, NO_RECIPIENT_OPTIONS, RecipientOptions
from mailfront_proto.smtp.replies import Reply

BLOCK: Final = 64 * 1024
"""Bytes that are read, and written, at once (twice as many at most): a few per socket buffer, so that a deadline
for each block (RFC 5321 section 4.5.3.2.5) says that the connection moves. Also how much of a message is read ahead."""


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
    (RFC 1870 section 5); `raw_size`: as they are. `eight_bit`: it has bytes of 128 and above;
    `eight_bit_header`: its header has. None: not known."""

    size: int | None = None
    raw_size: int | None = None
    eight_bit: bool | None = None
    eight_bit_header: bool | None = None


def measure(blocks: Iterable[bytes]) -> Measure:
    """Measure a message that is given in blocks."""
    size = raw_size = 0
    eight_bit = False
    last = b"\n"
    header = _Header()
    for block in blocks:
        if not block:
            continue
        raw_size += len(block)
        size += block.count(b"\n") - block.count(b"\r\n")
        if last == b"\r" and block.startswith(b"\n"):
            size -= 1  # a CRLF that was cut in two
        eight_bit = eight_bit or not block.isascii()
        header.feed(block)
        last = block[-1:]
    size += raw_size + (0 if last == b"\n" else 2)
    return Measure(size, raw_size, eight_bit, header.is_eight_bit)


class _Header:
    """Looks at the header of a message that is fed in blocks."""

    def __init__(self) -> None:
        self.is_over = False
        self.is_eight_bit = False
        self._tail = b"\n"  # an empty line may be the first

    def feed(self, block: bytes) -> None:
        """The next block."""
        if self.is_over:
            return
        block = self._tail + block
        ends = [end for end in (block.find(b"\n\n"), block.find(b"\n\r\n")) if end >= 0]
        self.is_over = bool(ends)
        self.is_eight_bit = self.is_eight_bit or not block[: min(ends, default=len(block))].isascii()
        self._tail = block[-2:]


class OutgoingMessage:
    """One message to send, and what became of it so far. `sender` is empty for the null path; `recipients`: one at
    least.

    Raises `LocalProtocolError`, before anything is connected, for an address or an option that cannot be sent (above
    all: with CR, LF, NUL or another control character), and TypeError for a `body` that is no `Message`.
    """

    __slots__ = ("_results", "recipients", "sender", "source")

    def __init__(self, sender: Address | str, recipients: Sequence[EnvelopeRecipient], body: Message) -> None:
        if isinstance(recipients, str):
            raise LocalProtocolError(f"the recipients are a list: write [{recipients!r}]")
        self.sender = to_address(sender)
        self.recipients: list[tuple[Address, RecipientOptions]] = [
            (to_address(recipient[0]), recipient[1])
            if isinstance(recipient, tuple)
            else (to_address(recipient), NO_RECIPIENT_OPTIONS)
            for recipient in recipients
        ]
        self.source = MessageSource(body)
        self._results: list[RecipientResult | None] = [None] * len(self.recipients)
        if not self.recipients:
            raise LocalProtocolError("the message has no recipient: give one at least")
        envelope_line("MAIL", self.sender, NO_MAIL_OPTIONS, True)
        for address, options in self.recipients:
            envelope_line("RCPT", address, options, True)

    @property
    def left(self) -> list[int]:
        """The recipients, by index, of whom nothing has become yet."""
        return [index for index, result in enumerate(self._results) if result is None]

    @property
    def results(self) -> list[RecipientResult]:
        """What has become of the others, in the order given."""
        return [result for result in self._results if result is not None]

    def result(self, index: int) -> RecipientResult | None:
        """What has become of the recipient `index`; None: nothing yet."""
        return self._results[index]

    def decide_left(self, reply: Reply, stage: Stage = Stage.CONNECTION) -> None:
        """`reply` is what becomes of all who are left."""
        left = self.left
        self.decide(left, [RecipientResult(self.recipients[index][0], reply, stage) for index in left])

    def reopen(self, indices: Sequence[int]) -> None:
        """What has become of the recipients `indices` is open again: they are for another session."""
        for index in indices:
            self._results[index] = None

    def decide(self, indices: Sequence[int], results: Sequence[RecipientResult]) -> None:
        """What has become of the recipients `indices`."""
        for index, result in zip(indices, results, strict=True):
            self._results[index] = result


class MessageSource:
    """Reads `message`: `measure`, then `read` until it returns ``b""``. Small pieces are put together.

    To read it again call `keep` before the first `read`, and `rewind`; and `close` when all is done. Raises TypeError
    for what is no `Message`, above all for text, whose encoding nobody but its author knows.
    """

    def __init__(self, message: Message) -> None:
        self._read: Callable[[int], bytes] | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._bytes: bytes | None = None
        self._start: int | None = None  # where a file that can be rewound begins
        self._ahead: list[bytes] = []  # what was read already, the next block last
        self._ended = False
        self._copy: Spool | None = None
        self._replay: Iterator[bytes] = iter(())
        self._measured: Measure | None = None
        self._was_read = False
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
        """What can be known before the message is sent. Raises OSError for a file that cannot be read."""
        if self._measured is None:
            if self._bytes is not None:
                self._measured = measure([self._bytes])
            elif self._read is not None and getattr(self._file, "seekable", bool)():
                self._measured = await Thread(self._measure_file)
            else:
                self._measured = await self._look_ahead()
        return self._measured

    def _measure_file(self) -> Measure:
        file = self._file
        self._start = start = file.tell()  # type: ignore[union-attr]  # it is seekable
        found = measure(iter(self._read_file, b""))
        file.seek(start)  # type: ignore[union-attr]
        return found

    async def _look_ahead(self) -> Measure:
        """Of a stream: read its first block, which has the header, or all of it."""
        ahead: list[bytes] = []
        size = 0
        while size < BLOCK and not self._ended:
            block = await self._next_block()
            ahead.append(block)
            size += len(block)
        self._ahead = [block for block in reversed(ahead) if block]
        found = measure(ahead)
        return found if self._ended else Measure(None, None, found.eight_bit or None, found.eight_bit_header)

    def keep(self) -> None:
        """The message will be read more than once: what cannot be rewound is kept as it is read."""
        if self._bytes is None and self._start is None and self._copy is None:
            import tempfile

            self._copy = Spool(tempfile.gettempdir())

    async def rewind(self) -> None:
        """Begin at the beginning again, if anything was read."""
        if not self._was_read:
            return
        if self._bytes is not None:
            self._pieces = _blocks([self._bytes])
        elif self._start is not None:
            await Thread(self._file.seek, self._start)  # type: ignore[union-attr]  # it is seekable
            self._ended = False
        elif self._copy is not None:
            self._replay = self._copy.blocks()

    def close(self) -> None:
        """The message is not read again. A file that was given stays open."""
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    async def read(self) -> bytes:
        """The next block, ``b""`` at the end. Raises what the file or the iterable raises."""
        self._was_read = True
        if block := next(self._replay, b""):
            return block
        block = self._ahead.pop() if self._ahead else await self._next_block()
        if self._copy is not None and block:
            self._copy.write(block)
        return block

    def _read_file(self) -> bytes:
        assert self._read is not None
        return _checked(self._read(BLOCK))

    async def _next_block(self) -> bytes:
        if self._read is not None:
            block = b"" if self._ended else await Thread(self._read_file)
        else:
            pieces = []
            size = 0
            for piece in self._pieces:
                pieces.append(piece)
                size += len(piece)
                if size >= BLOCK:
                    break
            block = b"".join(pieces)
        self._ended = not block  # a terminal would be asked again
        return block


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
