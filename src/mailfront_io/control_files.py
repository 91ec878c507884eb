"""Files that plugins look things up in: read once, kept, and read again when they change.

A `Cache` holds what was made of each file. Whoever makes it opens every file through the `Sources` that it is handed,
so the cache knows what to watch: the file itself, those that it refers to, and those that are missing. To ask costs one
``stat`` for each of them, and no more as long as nothing has changed.

What a peer sends is only ever a key here: no path is made of it, so a lookup cannot leave the file that it is in.
"""

import os
import time
import weakref
from collections.abc import Callable, Container
from errno import EISDIR
from stat import S_ISDIR
from struct import error as StructError
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Signature = tuple[int, ...] | None
"""What shows that a file has changed; None: it is not there."""

SETTLED_SECONDS = 0.1
"""A file that was changed so shortly before it was read may change again within the same tick of its time stamp.
Until then it is read every time; a tick is 10 ms at most."""


class DamagedFile(Exception):
    """A file is not what it should be: one sentence."""


class MissingPackage(Exception):
    """A package is needed and is not installed: one sentence with the remedy."""


def cause(error: OSError | ValueError) -> str:
    """Why a file cannot be opened, without its name. (A `ValueError` says that there is a NUL in that.)"""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class Sources:
    """The files that one value was made from."""

    def __init__(self) -> None:
        self._signatures: dict[str | bytes, Signature] = {}
        self._settled = True

    def open(self, path: str | bytes) -> int:
        """A descriptor of the file, for reading; a pipe without a writer is empty. Raises `OSError`."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            self._signatures[path] = _signature(path)
            raise
        status = os.fstat(descriptor)
        if S_ISDIR(status.st_mode):
            os.close(descriptor)
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR), path)
        self._signatures[path] = _signature_of(status)
        self._settled &= status.st_ctime < time.time() - SETTLED_SECONDS
        return descriptor

    def read(self, path: str | bytes) -> bytes:
        """All of the file. Raises `OSError`."""
        with open(self.open(path), "rb") as file:
            return file.read()

    def unchanged(self) -> bool:
        """Whether every file is still what it was."""
        return self._settled and all(_signature(path) == was for path, was in self._signatures.items())


def _signature(path: str | bytes) -> Signature:
    try:
        return _signature_of(os.stat(path))
    except OSError:
        return None


def _signature_of(status: os.stat_result) -> Signature:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Cache(Generic[T]):
    """Values made of files. `make` is handed a path and the `Sources` to open it with; what it raises is not kept."""

    def __init__(self, make: Callable[[str, Sources], T]) -> None:
        self._make = make
        self._made: dict[str, tuple[T, Sources]] = {}

    def current(self, path: str) -> T | None:
        """What was made of `path`, if nothing has changed since; else None: call `load`, in a `Thread`."""
        made = self._made.get(path)
        return made[0] if made is not None and made[1].unchanged() else None

    def load(self, path: str) -> T:
        """Make it, and keep it. Reads files, so it may block."""
        sources = Sources()
        value = self._make(path, sources)
        self._made[path] = value, sources
        return value


def read_list(path: str | bytes, sources: Sources) -> frozenset[bytes]:
    """A text list: an entry a line, blanks around it dropped, letters in lower case; blank lines and ``#`` lines are
    none. Raises `OSError`."""
    lines = (line.strip().lower() for line in sources.read(path).split(b"\n"))
    return frozenset(line for line in lines if line and not line.startswith(b"#"))


def open_cdb(path: str | bytes, sources: Sources) -> Container[bytes]:
    """The keys of a CDB file. Raises `OSError`, `DamagedFile`, or `MissingPackage` without the extra ``cdb``."""
    name = os.fsdecode(path)
    try:
        from cdblib import Reader
    except ImportError:
        raise MissingPackage(f"{name} needs the package pure-cdb: run pip install 'mailfront[cdb]'") from None
    data = _FileBytes(sources.open(path))
    try:
        reader = Reader(data=data)
    except OSError:  # so it says that the file is too short for a CDB's head
        raise DamagedFile(f"{name} is no CDB file") from None
    if any(slots and (start < 2048 or start + 8 * slots > len(data)) for start, slots in reader.index):
        raise DamagedFile(f"{name} is no CDB file, or has been cut short")
    return _CDB(name, reader)


class _CDB:
    """The keys of a CDB file."""

    def __init__(self, name: str, reader: Any) -> None:
        self._name = name
        self._reader = reader

    def __contains__(self, key: object) -> bool:
        try:
            return key in self._reader
        except StructError:
            raise DamagedFile(f"{self._name} is a damaged CDB file") from None


class _FileBytes:
    """A file as a sequence of bytes. It is not mapped into memory: one that somebody cuts short would kill us."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._head = os.pread(descriptor, 2048, 0)
        weakref.finalize(self, os.close, descriptor)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: slice) -> bytes:
        start, stop = place.start, place.stop
        if stop <= len(self._head):
            return self._head[start:stop]
        return os.pread(self._descriptor, stop - start, start)
