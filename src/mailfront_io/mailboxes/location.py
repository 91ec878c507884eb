"""Where a user's mailbox is, and the way to it: names become directory descriptors, never paths put together.

A name that came from outside is walked part by part below a root, and no part of it may lead out: no ``..``, no
symbolic link, nothing hidden.
"""

import os
from errno import ENOENT

from mailfront_proto.record import record

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@record(frozen=True)
class Location:
    """A directory: `path` as it is, or below `root`, which it cannot leave."""

    path: str
    root: str | None = None

    def __str__(self) -> str:
        return self.path if self.root is None else f"{self.root}/{self.path}"


def user_location(root: str | None, username: str, mailbox: str) -> Location | None:
    """The mailbox of a user: `mailbox` is what the credential store says of it, a path, or one below `root`; where it
    says nothing, the directory `username` below `root`. None: there is no telling."""
    if mailbox.startswith("/"):
        return Location(mailbox)
    if not root:
        return None
    if mailbox:
        return Location(mailbox, root)
    return Location(username, root) if "/" not in username else None


def open_directory(location: Location) -> int:
    """A descriptor of the directory. Raises `OSError`; for a name that leads out of its root, ENOENT."""
    if "\0" in location.path:
        raise _no_such(location)
    if location.root is None:
        return os.open(location.path, _DIRECTORY)
    parts = location.path.split("/")
    if any(not part or part[0] == "." for part in parts):
        raise _no_such(location)
    descriptor = os.open(location.root, _DIRECTORY)
    for part in parts:
        try:
            deeper = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = deeper
    return descriptor


def open_subdirectory(name: str, descriptor: int) -> int:
    """A descriptor of the directory `name` in another, which is no symbolic link. Raises `OSError`."""
    return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)


def _no_such(location: Location) -> OSError:
    return OSError(ENOENT, os.strerror(ENOENT), str(location))
