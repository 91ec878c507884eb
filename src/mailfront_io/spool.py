"""The spool: a whole message kept until its end, in memory first, then in a temporary file."""

import os
from collections.abc import Iterator
from typing import BinaryIO

MEMORY_LIMIT = 512 * 1024
"""Bytes kept in memory before the message moves to a file. Most mail is smaller; 1,000 sessions at this
limit are 512 MiB, and only those that are in the middle of a message count."""

BLOCK = 64 * 1024
"""Bytes handed on at once."""

MAX_HEADER = 1024 * 1024
"""Bytes of a header that are looked at."""


class Spool:
    """A message, with LF line ends, to be read from its start any number of times.

    `directory`: where the file goes (mode 0600, without a name). `in_file`: use the file from the start.
    Raises `OSError` where the file cannot be made or written.
    """

    def __init__(self, directory: str, in_file: bool = False) -> None:
        self._directory = directory
        self._memory = bytearray()
        self._file: BinaryIO | None = self._open() if in_file else None
        self.size = 0
        """Bytes written."""

    def _open(self) -> BinaryIO:
        try:
            descriptor = os.open(self._directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            return open(descriptor, "w+b", buffering=0)
        except (OSError, AttributeError):
            # Not every file system has O_TMPFILE, nor every system; the long way round.
            import tempfile

            return tempfile.TemporaryFile(dir=self._directory, buffering=0)

    def write(self, data: bytes) -> None:
        """Append `data`."""
        self.size += len(data)
        if self._file is None:
            self._memory += data
            if self.size <= MEMORY_LIMIT:
                return
            self._file = self._open()
            data = bytes(self._memory)
            self._memory.clear()
        _write_all(self._file, data)

    def blocks(self) -> Iterator[bytes]:
        """The message, in blocks of at most `BLOCK` bytes."""
        if self._file is None:
            for start in range(0, len(self._memory), BLOCK):
                yield bytes(self._memory[start : start + BLOCK])
            return
        self._file.seek(0)
        while block := self._file.read(BLOCK):
            yield block
        self._file.seek(0, os.SEEK_END)

    def header(self) -> bytes | None:
        """The header, or what stands in its place: all in front of the first empty line. None: it has more than
        `MAX_HEADER` bytes."""
        header = b""
        for block in self.blocks():
            header += block
            if header.startswith(b"\n"):
                return b""
            if (end := header.find(b"\n\n") + 1):
                return header[:end]
            if len(header) > MAX_HEADER:
                return None
        return header

    def content(self) -> bytes | BinaryIO:
        """The message for who reads it in his own way: its bytes while it is in memory, else its file, at its start
        and only until `close`."""
        if self._file is None:
            return bytes(self._memory)
        self._file.seek(0)
        return self._file

    def replace(self, blocks: Iterator[bytes]) -> None:
        """Put another message in place of this one, only once `blocks` has ended without an error."""
        with self.another() as new:
            for block in blocks:
                new.write(block)
            self.take(new)

    def another(self) -> "Spool":
        """An empty one of the same kind, for a message that may take this one's place: see `take`."""
        return Spool(self._directory, in_file=self._file is not None)

    def take(self, new: "Spool") -> None:
        """Put the message of `new`, now that it is complete, in place of this one; `new` is empty then."""
        self.close()
        self._memory, self._file, self.size = new._memory, new._file, new.size
        new._memory, new._file, new.size = bytearray(), None, 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def descriptor(self) -> int:
        """The file's descriptor; -1 while the message is in memory."""
        return -1 if self._file is None else self._file.fileno()

    def close(self) -> None:
        """Forget the message and its file."""
        self._memory.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
