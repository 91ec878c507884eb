"""What can be read, of all connections of an event loop: one descriptor for the loop to watch.

A loop's own way costs, for each readiness, a handle in its queue, a context to run it in and a call through both; and
for each connection, with uvloop, six system calls. Here the connections stand in an epoll of their own (Linux's), the
loop watches that, and those that are ready are called in turn: it spares some tenth of a short message's CPU.
"""

import asyncio
import select
from collections.abc import Callable

AT_ONCE = 64
"""Connections that are called before the loop's other callbacks have their turn."""


class Readiness:
    """Calls who has something to read, or has come to its end. The epoll is there while somebody is. The loop is an
    argument, so that no loop is kept alive from here."""

    def __init__(self) -> None:
        self._calls: dict[int, Callable[[], None]] = {}
        self._epoll: select.epoll | None = None

    def add(self, fd: int, call: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Call `call` whenever `fd` is readable. Raises OSError where the system watches no more of them."""
        epoll = self._epoll
        if epoll is None:
            epoll = self._epoll = select.epoll()
            loop.add_reader(epoll.fileno(), self._ready)
        epoll.register(fd, select.EPOLLIN)
        self._calls[fd] = call

    def remove(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        """Do not call about `fd` any more. It must be open still."""
        assert self._epoll is not None
        del self._calls[fd]
        self._epoll.unregister(fd)
        if not self._calls:
            loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _ready(self) -> None:
        assert self._epoll is not None
        calls = self._calls
        for fd, _ in self._epoll.poll(0, AT_ONCE):
            call = calls.get(fd)
            if call is not None:  # else it was removed by one that was called before
                call()


class LoopsOwn(Readiness):
    """The same where there is no epoll: the loop watches each connection by itself."""

    def add(self, fd: int, call: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """See `Readiness`."""
        loop.add_reader(fd, call)

    def remove(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        """See `Readiness`."""
        loop.remove_reader(fd)


def readiness() -> Readiness:
    """Return what this system has."""
    return Readiness() if hasattr(select, "epoll") else LoopsOwn()
