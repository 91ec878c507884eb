"""Files that survive a crash: write, fsync, link, fsync the directory, in that order.

A message is acknowledged after `publish` has returned and not before. All functions block: call them in a
`mailfront_io.ops.Thread`.
"""

import os
from collections.abc import Iterable


def create(path: str, mode: int) -> int:
    """Make `path`, which must not exist, for writing; the descriptor. Raises `OSError`."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)


def write_blocks(descriptor: int, blocks: Iterable[bytes]) -> None:
    """Write all `blocks`. Raises `OSError`, also when the disk is full in the middle."""
    for block in blocks:
        view = memoryview(block)
        while view:
            view = view[os.write(descriptor, view) :]


def publish(descriptor: int, temporary: str, final: str, sync: bool = True) -> None:
    """Give the file its `final` name, where readers look for it, and remove the `temporary` one.

    `sync`: the content before it, and the directory of `final` after it, are on disk when this returns. Closes
    `descriptor`. Raises `OSError`; then the file has no final name.
    """
    try:
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.link(temporary, final)
    try:
        if sync:
            _sync_directory(os.path.dirname(final))
    except OSError:
        os.unlink(final)
        raise
    try:
        os.unlink(temporary)
    except OSError:
        return  # a leftover; the message is where it belongs, and to refuse it now would make a second copy


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(descriptor: int | None, temporary: str) -> None:
    """Close and remove a file that gets no final name; one that is gone already is no error."""
    if descriptor is not None:
        os.close(descriptor)
    try:
        os.unlink(temporary)
    except FileNotFoundError:
        return
