"""Streams of bytes that never block: sockets, pipes, and the descriptors that a one-shot program was started with.

What the operations on peers and children are made of. A read or write does what can be done now; who must wait asks
`reading` or `writing` what for, and awaits that (`drivers.stepper.Ready`). TLS is one more such stream, around another
(`drivers.tls.TLSStream`).
"""

import os
import select
import socket
from collections.abc import Sequence
from stat import S_ISSOCK
from typing import Protocol

from mailfront_io.drivers.stepper import READ, WRITE, Interest
from mailfront_io.ops import RECEIVE_SIZE, ConnectionLost

SMALL_WRITE = 512
"""What POSIX lets any pipe take at once when `poll` says that it can be written (`_POSIX_PIPE_BUF`)."""


class Stream(Protocol):
    """Raises `ConnectionLost` (and `TLSFailed`, inside TLS) where the other side is gone."""

    def read(self) -> bytes | None:
        """The bytes that are there, at most `RECEIVE_SIZE`; None: none now; ``b""``: the end, then and ever after."""
        ...

    def write(self, data: memoryview) -> int:
        """Write what there is room for now; return its length."""
        ...

    def finish(self) -> None:
        """End what is written: what is held still goes out before that (`flush`)."""
        ...

    def flush(self) -> bool:
        """Write what is held back in this object; whether all of it is gone."""
        ...

    def reading(self) -> Sequence[Interest]:
        """What to wait for before the next `read`."""
        ...

    def writing(self) -> Sequence[Interest]:
        """What to wait for before the next `write` or `flush`."""
        ...

    def gone(self) -> bool:
        """Whether the other side has certainly closed both directions."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class SocketStream:
    """A connected stream socket, blocking or not."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._eof = False
        self._reading = ((connection.fileno(), READ),)
        self._writing = ((connection.fileno(), WRITE),)

    def read(self) -> bytes | None:
        """See `Stream`."""
        if self._eof:
            return b""
        try:
            data = self.socket.recv(RECEIVE_SIZE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise lost(error) from error
        self._eof = not data
        return data

    def write(self, data: memoryview) -> int:
        """See `Stream`."""
        try:
            return self.socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise lost(error) from error

    def finish(self) -> None:
        """See `Stream`."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise lost(error) from error

    def flush(self) -> bool:
        """See `Stream`."""
        return True

    def reading(self) -> Sequence[Interest]:
        """See `Stream`."""
        return self._reading

    def writing(self) -> Sequence[Interest]:
        """See `Stream`."""
        return self._writing

    def gone(self) -> bool:
        """See `Stream`."""
        poller = select.poll()
        poller.register(self.socket, 0)
        return bool(poller.poll(0))  # POLLHUP, or an error

    def close(self) -> None:
        """See `Stream`."""
        self.socket.close()


class PipeStream:
    """Our end of a pipe to or from a child; owns the descriptor, and makes it non-blocking, which concerns no other
    process: each end of a pipe is a file of its own."""

    def __init__(self, fd: int, writes: bool) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._writes = writes

    def read(self) -> bytes | None:
        """See `Stream`."""
        if self._writes:
            raise RuntimeError("this pipe is written, not read")
        try:
            return os.read(self._fd, RECEIVE_SIZE)
        except BlockingIOError:
            return None

    def write(self, data: memoryview) -> int:
        """See `Stream`."""
        if not self._writes:
            raise RuntimeError("this pipe is read, not written")
        if self._fd < 0:
            raise RuntimeError("this pipe was ended with send_eof")
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise lost(error) from error

    def finish(self) -> None:
        """See `Stream`."""
        if self._writes:
            self.close()

    def flush(self) -> bool:
        """See `Stream`."""
        return True

    def reading(self) -> Sequence[Interest]:
        """See `Stream`."""
        return ((self._fd, READ),)

    def writing(self) -> Sequence[Interest]:
        """See `Stream`."""
        return ((self._fd, WRITE),)

    def gone(self) -> bool:
        """See `Stream`."""
        return False

    def close(self) -> None:
        """See `Stream`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DescriptorStream:
    """Two descriptors that others hold as well, so that O_NONBLOCK is not ours to set; `close` leaves them open.

    `finish` gives the descriptor up: behind it, writes go nowhere.
    """

    def __init__(self, input_fd: int, output_fd: int) -> None:
        self._input = input_fd
        self._output = output_fd
        self._eof = False
        try:
            self._piece = max(SMALL_WRITE, os.fpathconf(output_fd, "PC_PIPE_BUF"))
        except (OSError, ValueError):
            self._piece = SMALL_WRITE

    def read(self) -> bytes | None:
        """See `Stream`."""
        if self._eof:
            return b""
        if not self._is_ready(self._input, READ):
            return None
        try:
            data = os.read(self._input, RECEIVE_SIZE)
        except BlockingIOError:  # someone else made it non-blocking
            return None
        except OSError as error:
            raise lost(error) from error
        self._eof = not data
        return data

    def write(self, data: memoryview) -> int:
        """See `Stream`."""
        if not self._is_ready(self._output, WRITE):
            return 0
        try:
            return os.write(self._output, data[: self._piece])
        except BlockingIOError:
            return 0
        except OSError as error:
            raise lost(error) from error

    def finish(self) -> None:
        """See `Stream`."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._output)
        os.close(nowhere)

    def flush(self) -> bool:
        """See `Stream`."""
        return True

    def reading(self) -> Sequence[Interest]:
        """See `Stream`."""
        return ((self._input, READ),)

    def writing(self) -> Sequence[Interest]:
        """See `Stream`."""
        return ((self._output, WRITE),)

    def gone(self) -> bool:
        """See `Stream`."""
        return False

    def close(self) -> None:
        """See `Stream`."""

    def _is_ready(self, fd: int, what: int) -> bool:
        poller = select.poll()
        poller.register(fd, what)
        return bool(poller.poll(0))


def own_stream(input_fd: int, output_fd: int) -> Stream:
    """The stream of a session whose driver has these descriptors. To close it leaves them open."""
    one, other = os.fstat(input_fd), os.fstat(output_fd)
    if S_ISSOCK(one.st_mode) and os.path.samestat(one, other):
        return SocketStream(socket.socket(fileno=os.dup(input_fd)))
    return DescriptorStream(input_fd, output_fd)


def lost(error: OSError) -> ConnectionLost:
    """`error` as a session sees it."""
    return ConnectionLost(error.strerror or str(error))
