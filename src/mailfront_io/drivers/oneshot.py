"""One session on descriptors that this process was started with: inetd, tcpserver, a pipe, a forked child.

Strategy: `poll` before every read and write, because the descriptors are shared with whoever started us, and
O_NONBLOCK on them would be theirs too. A write that could block in spite of `poll` is kept small enough not
to (pipes take `PIPE_BUF` bytes at once) or is told not to block (sockets, MSG_DONTWAIT), so that a peer that
does not read meets the deadline. Signals only write a byte into a pipe that is polled as well: a session is
interrupted where it waits and nowhere else. A `Thread` runs its function here and now.

The start-up of a one-shot program is its cost: no socket, ssl, typing or dataclasses are imported here.
"""

import os
import select
import signal
import time
from stat import S_ISREG, S_ISSOCK

from mailfront_io.drivers.stepper import CLOCK, NO_PARENT_TLS, World, run
from mailfront_io.ops import (
    RECEIVE_SIZE,
    Cancelled,
    Connection,
    ConnectionLost,
    DeadlineExceeded,
    SessionFactory,
    Stopping,
    Thread,
    TLSFailed,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket as raw_socket
    from collections.abc import Callable, Sequence
    from typing import Any

    from mailfront_io.drivers.stepper import Interest
    from mailfront_io.ops import StartParentTLS

SMALL_WRITE = 512
"""What POSIX lets any pipe take at once when `poll` says that it can be written (`_POSIX_PIPE_BUF`)."""

DISCARD_BYTES = 1024 * 1024
"""What of the peer's late input is thrown away at most before a socket is closed."""


def run_descriptors(session: SessionFactory, input_fd: int = 0, output_fd: int = 1) -> int:
    """Run one session on two descriptors (they may be one socket) and return its result.

    SIGTERM and SIGINT throw `Cancelled` into the session; if it lets it through the result is 128 + the
    signal's number, as a shell shows it. What else the session raises is raised. Must be called in the
    main thread; puts back the signal handlers that were there.
    """
    with Signals(stop=(), cancel=(signal.SIGTERM, signal.SIGINT)) as signals:
        world = DescriptorWorld(input_fd, output_fd, signals, alone=True)
        try:
            return run(session(Connection(world.clock)), world)
        except Cancelled:
            return 128 + signals.received
        finally:
            world.close()


class Signals:
    """Signals, and calls of `stop`, as something that can be polled: `fd` is readable when one has come.

    `stopping` and `cancelled` tell which kind has come; `received` is the last signal's number. `stop` and
    `cancel` are the signals that mean so; those of `wake` only make `fd` readable; with `escalate`, to stop
    twice is to cancel. A `Signals` with any signal must be entered and left in the main thread.
    """

    def __init__(
        self,
        stop: tuple[int, ...] = (),
        cancel: tuple[int, ...] = (),
        wake: tuple[int, ...] = (),
        escalate: bool = False,
    ) -> None:
        self._cancel = cancel
        self._all = stop + cancel + wake
        self._wake = wake
        self._escalate = escalate
        self.received = 0
        self.closing = False
        """Nothing more is accepted."""
        self.stopping = False
        self.cancelled = False

    def __enter__(self) -> "Signals":
        return self.open()

    def __exit__(self, *_: object) -> None:
        if self._all:
            for number, handler in self._old:
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._old_fd)
        self.close()

    def open(self) -> "Signals":
        """Install the handlers. For a process that ends without putting back the old ones."""
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        if self._all:
            self._old_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
            self._old = [(number, signal.signal(number, self._on_signal)) for number in self._all]
        return self

    def close(self) -> None:
        """Close the descriptors and nothing else: what a forked child does with its parent's."""
        fd, self._write_fd = self._write_fd, -1
        os.close(fd)
        os.close(self.fd)

    def _on_signal(self, number: int, _frame: object) -> None:
        if number not in self._wake:
            self.received = number
            self._note(number in self._cancel)

    def _note(self, cancel: bool) -> None:
        if cancel or (self._escalate and self.stopping):
            self.cancelled = True
        self.closing = self.stopping = True

    def stop(self, *, gently: bool = False) -> None:
        """Do as a signal of `stop` does, or only end accepting; from any thread."""
        if gently:
            self.closing = True
        else:
            self._note(False)
        self.wake()

    def wake(self) -> None:
        """Make `fd` readable; from any thread."""
        try:
            os.write(self._write_fd, b".")
        except OSError:
            pass  # it is full, so readable already; or left already

    def drain(self) -> None:
        """Make `fd` unreadable until the next signal."""
        try:
            while os.read(self.fd, 512):
                pass
        except BlockingIOError:
            pass

    def wait_until(
        self,
        condition: "Callable[[], object]",
        seconds: float,
        on_wake: "Callable[[], None] | None" = None,
    ) -> None:
        """Wait until `condition`, which is looked at when `fd` wakes us, but at most `seconds`."""
        end = time.monotonic() + seconds
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        while not condition() and (left := end - time.monotonic()) > 0:
            if poller.poll(min(left, 3600) * 1000):
                self.drain()
                if on_wake is not None:
                    on_wake()


class DescriptorWorld(World):
    """The operations on two descriptors. `alone`: this process serves nothing else, so a program may take its
    place."""

    def __init__(self, input_fd: int, output_fd: int, signals: Signals, alone: bool = False) -> None:
        self.clock = CLOCK
        self._alone = alone
        self._signals = signals
        self._shielded = False  # Cancelled was thrown: nothing interrupts any more
        self._timer = self._poll(None, 0)
        self._attach(input_fd, output_fd)

    def _attach(self, input_fd: int, output_fd: int) -> None:
        """Read and write these from now on."""
        self._input = input_fd
        self._output = output_fd
        self._eof = False
        self._broken: str | None = None
        self._readable = self._poll(input_fd, select.POLLIN)
        self._writable = self._poll(output_fd, select.POLLOUT)
        self._size = RECEIVE_SIZE
        self._peek: Callable[[], int] | None = None  # how far the next line goes
        self._peeked: raw_socket.socket | None = None
        self._socket: raw_socket.socket | None = None
        self._write: Callable[[int, memoryview], int] = os.write
        self._piece = SMALL_WRITE
        mode = os.fstat(output_fd).st_mode
        if S_ISSOCK(mode):
            import _socket  # the C module alone: `socket` is slow to import

            self._socket = sender = _socket.socket(fileno=output_fd)
            self._write = lambda _, data: sender.send(data, _socket.MSG_DONTWAIT)
            self._piece = RECEIVE_SIZE
        elif S_ISREG(mode):
            self._piece = RECEIVE_SIZE  # never blocks for long
        else:
            try:
                self._piece = max(SMALL_WRITE, os.fpathconf(output_fd, "PC_PIPE_BUF"))
            except (OSError, ValueError):
                pass

    def recv(self, deadline: float | None, idle: bool) -> bytes:
        """`Recv`."""
        if deadline is not None and deadline <= self.clock.monotonic():
            self._interrupt(idle)
            raise DeadlineExceeded
        while not self._eof:
            self._wait(self._readable, deadline, idle)
            if self._broken is not None:
                raise ConnectionLost(self._broken)
            try:
                data = os.read(self._input, self._size)
            except BlockingIOError:  # someone else made it non-blocking, or another process was faster
                continue
            except OSError as error:
                raise self._lost(error) from error
            self._eof = not data
            return data
        self._interrupt(idle)
        return b""

    def send(self, data: bytes, deadline: float | None) -> None:
        """`Send`, in pieces."""
        rest = memoryview(data)
        while rest:
            self._wait(self._writable, deadline, False)
            if self._broken is not None:
                raise ConnectionLost(self._broken)
            try:
                rest = rest[self._write(self._output, rest[: self._piece]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._lost(error) from error

    def sleep(self, seconds: float, deadline: float | None) -> None:
        """`Sleep`."""
        end = self.clock.monotonic() + seconds
        try:
            self._wait(self._timer, end if deadline is None else min(end, deadline), False)
        except DeadlineExceeded:
            if deadline is not None and deadline < end:
                raise

    def thread(self, operation: "Thread[Any]") -> "Any":
        """`Thread`: calls the function here."""
        self._interrupt(False)
        return operation.function(*operation.arguments)

    def wait(self, interests: "Sequence[Interest]", deadline: float | None) -> None:
        """`Ready`."""
        poller = self._poll(None, 0)
        register(poller, interests)
        self._wait(poller, deadline, False)

    def own_stream(self) -> "Any":
        """`OwnStream`."""
        from mailfront_io.drivers.streams import own_stream

        return own_stream(self._input, self._output)

    def take_over(self) -> tuple[int, int] | None:
        """`TakeOver`."""
        return (self._input, self._output) if self._alone else None

    def start_parent_tls(self, operation: "StartParentTLS") -> None:
        """`StartParentTLS`."""
        if not self._alone:
            raise NO_PARENT_TLS
        try:
            os.write(operation.control, b"y")
            os.fstat(operation.read)
            os.fstat(operation.write)
        except OSError as error:
            raise TLSFailed(f"UCSPI-TLS: {error.strerror}") from error
        self.let_go()
        self._attach(operation.read, operation.write)

    def recv_line(self, deadline: float | None, idle: bool) -> bytes:
        """`RecvLine`: a socket is looked at first, from anything else one byte is taken."""
        if self._peek is None:
            self._peek = self._make_peek()
        try:
            if not self._eof and (deadline is None or deadline > self.clock.monotonic()):
                self._wait(self._readable, deadline, idle)
                self._size = self._peek()
            return self.recv(deadline, idle)
        finally:
            self._size = RECEIVE_SIZE

    def _make_peek(self) -> "Callable[[], int]":
        if not S_ISSOCK(os.fstat(self._input).st_mode):
            return lambda: 1
        import _socket

        self._peeked = peeked = _socket.socket(fileno=self._input)

        def peek() -> int:
            try:
                data = peeked.recv(RECEIVE_SIZE, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
            except OSError:
                return 1  # whoever reads will see it too
            return data.find(b"\n") + 1 or len(data) or 1

        return peek

    def close(self) -> None:
        """Let go of the descriptors, which stay open, and read away what the peer of a socket has sent but
        nobody read: closing over it would send a reset, which can destroy our last reply on its way."""
        is_socket = self._socket is not None
        self.let_go()
        if not is_socket:
            return
        left = DISCARD_BYTES
        try:
            while left > 0 and S_ISSOCK(os.fstat(self._input).st_mode):
                if not select.select([self._input], [], [], 0)[0]:
                    break
                if not (data := os.read(self._input, RECEIVE_SIZE)):
                    break
                left -= len(data)
        except (OSError, ValueError):  # gone, or a descriptor beyond what select takes
            pass

    def let_go(self) -> None:
        """Use the descriptors no more; they stay open."""
        for made in (self._peeked, self._socket):
            if made is not None:
                made.detach()
        self._peeked = self._socket = None

    def _poll(self, fd: int | None, events: int) -> select.poll:
        poller = select.poll()
        poller.register(self._signals.fd, select.POLLIN)
        if fd is not None:
            poller.register(fd, events)
        return poller

    def _wait(self, poller: select.poll, deadline: float | None, idle: bool) -> None:
        """Wait until the descriptor of `poller` is ready; raise what interrupts that."""
        while True:
            self._interrupt(idle)
            timeout = None
            if deadline is not None:  # in milliseconds, in a C int
                timeout = min(max((deadline - self.clock.monotonic()) * 1000, 0), 1e9)
            ready = poller.poll(timeout)
            if any(fd == self._signals.fd for fd, _ in ready):
                self._signals.drain()
            elif ready:
                return
            elif timeout == 0:
                raise DeadlineExceeded

    def _interrupt(self, idle: bool) -> None:
        if self._shielded:
            return
        if self._signals.cancelled:
            self._shielded = True
            raise Cancelled
        if idle and self._signals.stopping:
            raise Stopping

    def _lost(self, error: OSError) -> ConnectionLost:
        self._broken = error.strerror or str(error)
        return ConnectionLost(self._broken)


def register(poller: select.poll, interests: "Sequence[Interest]") -> None:
    """Let `poller` poll `interests`; a descriptor that is there twice for both."""
    events: dict[int, int] = {}
    for fd, what in interests:
        events[fd] = events.get(fd, 0) | what
    for fd, both in events.items():
        poller.register(fd, both)
