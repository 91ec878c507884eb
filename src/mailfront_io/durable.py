"""Files that survive a crash: write, fsync, link, fsync the directory, in that order.

A `NewFile` has no name until it is complete (O_TMPFILE), so a process that is killed leaves nothing behind. Where a
file system cannot do that, it has one in a directory for such files, ending in `SUFFIX`, and is locked (flock) as long
as somebody writes it: `remove_leftovers` takes away those that nobody writes any more.

A message is acknowledged after `publish` has returned and not before. All functions block: call them in a
`mailfront_io.ops.Thread`.
"""

import errno
import os
from _thread import allocate_lock  # `threading` is slow to import, for a program that starts for each connection
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

SUFFIX = ".unfinished"
"""What the names of unfinished files end in."""

ABANDONED_SECONDS = 36 * 3600.0
"""Age at which an unfinished file is a leftover where locks cannot be had: as long as maildirs allow for it."""


class UniqueTimes:
    """Times in microseconds, each later than any that this process has had before, also when the clock is set
    back. A name made of one and the process id must not come again, also when its file has moved on."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._last = 0

    def next(self, now: float) -> tuple[int, int]:
        """Seconds and microseconds: `now`, or a little later."""
        with self._lock:
            self._last = max(int(now * 1_000_000), self._last + 1)
            return divmod(self._last, 1_000_000)


TIMES = UniqueTimes()
"""Those of this process."""


@contextmanager
def open_directory(path: str) -> Iterator[int]:
    """A descriptor of the directory, for the block. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class NewFile:
    """A file in the making, in the file system of a directory, which is given by its descriptor; with `mode` (less the
    umask). A context manager: what was not published is gone at its end. Raises `OSError`, as all methods do."""

    def __init__(self, directory: int, mode: int) -> None:
        self._directory = directory
        self._name: str | None = None
        self._descriptor = _open_unnamed(directory, mode)
        if self._descriptor < 0:
            self._descriptor, self._name = _open_named(directory, mode)

    def __enter__(self) -> "NewFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def write(self, blocks: Iterable[bytes]) -> None:
        """Append all `blocks`. A full disk in the middle is an error, too."""
        for block in blocks:
            view = memoryview(block)
            while view:
                view = view[os.write(self._descriptor, view) :]

    def publish(self, directory: int, name: Callable[[], str], sync: bool = True) -> str:
        """Give the file a name in `directory` (a descriptor), where readers look for it, and return it; `name` makes
        one, and another where that is taken. `sync`: its content before, and the directory afterwards, are on disk when
        this returns. When it raises, the file has no name there."""
        if sync:
            os.fsync(self._descriptor)
        final = self._link(directory, name)
        if sync:
            try:
                os.fsync(directory)
            except OSError:
                _remove(final, directory)
                raise
        self.discard()
        return final

    def _link(self, directory: int, name: Callable[[], str]) -> str:
        while True:
            final = name()
            try:
                if self._name is None:  # with a descriptor for a directory this is linkat, which follows the link
                    os.link(f"/proc/self/fd/{self._descriptor}", final, dst_dir_fd=directory)
                else:
                    os.link(self._name, final, src_dir_fd=self._directory, dst_dir_fd=directory)
                return final
            except FileExistsError:
                continue  # of a process with our number, on another host or in another container

    def discard(self) -> None:
        """Drop the file; a name that it has been published under stays. To no effect the second time."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        try:
            if self._name is not None:
                _remove(self._name, self._directory)  # while it is locked
        except OSError:
            pass  # a leftover. A message that was published is where it belongs: to refuse it would make a second copy
        finally:
            os.close(descriptor)


def remove_leftovers(directory: int) -> None:
    """Remove the unfinished files in `directory` (a descriptor) that nobody writes any more. Those of other programs
    stay, and so does what cannot be looked at: no delivery fails for it."""
    try:
        found = [name for name in os.listdir(directory) if name.endswith(SUFFIX)]
    except OSError:
        return
    for name in found:
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            try:
                if _is_abandoned(descriptor):
                    os.unlink(name, dir_fd=directory)
            finally:
                os.close(descriptor)
        except OSError:
            continue


def _is_abandoned(descriptor: int) -> bool:
    """Whether nobody writes the file: by its lock, or by its age where there are no locks."""
    import fcntl
    import time

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return os.fstat(descriptor).st_mtime < time.time() - ABANDONED_SECONDS


def _open_unnamed(directory: int, mode: int) -> int:
    """A file without a name, or -1: this system or file system has none, or has no /proc to name it by."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
        return -1
    try:
        return os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            return -1
        raise


def _open_named(directory: int, mode: int) -> tuple[int, str]:
    """A file with a name that no other has, and that name; locked, where locks can be had."""
    import fcntl

    while True:
        name = os.urandom(12).hex() + SUFFIX
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, mode, dir_fd=directory)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # waits for `remove_leftovers`, which may look at it just now
        except OSError:
            pass  # this file system has no locks
        if os.fstat(descriptor).st_nlink:
            return descriptor, name
        os.close(descriptor)  # it was removed before it was locked


def _remove(name: str, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
