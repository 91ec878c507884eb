"""The blocking driver: a thread for each connection; a client; one accepted stream.

Strategy: sockets stay blocking and the kernel keeps the time. SO_RCVTIMEO and SO_SNDTIMEO are set only when
the value in force would be too long, not for each read: a deadline that moves forward with every command
costs no system call, at worst an idle thread wakes once in `LONGEST_WAIT`. (`settimeout` would put a `poll`
before every read.)

Another thread interrupts a session by a flag and, where the session sits in the kernel, by shutting down one
direction of its socket: reading when the server stops, both when a cancelled session is stuck in a write.
The flag is set before the other side's state is looked at, on both sides, so one of them always sees the
other; see `SocketWorld._look`.

`serve` is for embedding; `run_server` is the same as the whole business of a process. The forking server is
in `drivers.forking`, one session on descriptors 0 and 1 in `drivers.oneshot`.
"""

import _thread
import os
import queue
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Sequence
from math import inf
from socket import MSG_DONTWAIT, SO_RCVTIMEO, SO_SNDTIMEO
from time import monotonic, sleep
from typing import Any, TypeVar

from mailfront_io.drivers.listener import (
    SMALL_READ,
    Address,
    Backoff,
    Listener,
    Report,
    Started,
    accept,
    address,
    close_gently,
    no_delay,
    raise_descriptor_limit,
    release,
    report_to_stderr,
    tell,
)
from mailfront_io.drivers.oneshot import Signals, register
from mailfront_io.drivers.stepper import CLOCK, Interest, World, run
from mailfront_io.ops import (
    CLEANUP_SECONDS,
    RECEIVE_SIZE,
    Cancelled,
    Connection,
    ConnectionLost,
    DeadlineExceeded,
    Operation,
    Recv,
    SessionFactory,
    Stopping,
    Thread,
)

T = TypeVar("T")

LONGEST_WAIT = 60.0
"""Seconds that one system call waits at most: deadlines further off are waited for in steps."""

EARLY = 0.875
"""Part of the time to a deadline after which we wake, to set what is left exactly. Without it a deadline of
"30 seconds from now" would come a microsecond too early for the timeout in force, command after command."""

IDLE_THREAD_SECONDS = 10.0
"""How long a thread without a connection waits for the next one: to start a thread costs more than that."""


class SocketWorld(World):
    """The operations on one blocking stream socket, and `stop` and `cancel` for other threads."""

    clock = CLOCK

    # Of the class, as long as nothing unusual happens to a connection: most never do more than read and answer.
    committing = False
    _send_wait = inf  # the timeout in force
    _sending = False  # in the kernel, and can be woken by a shutdown
    _eof = False
    _broken: str | None = None
    _stopping = False
    _cancelled = False
    _shielded = False  # Cancelled was thrown: nothing interrupts any more
    _alarm: _thread.LockType | None = None  # held; released to wake a sleep; made for the first
    _waker: tuple[socket.socket, socket.socket] | None = None  # wakes a wait; made for the first

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._receive_wait = inf  # the timeout in force
        self._size = SMALL_READ
        self._receiving: bool | None = None  # in the kernel, and can be woken by a shutdown; whether that is idle
        self._attention = False  # one of these is set: `_eof`, `_broken`, `_stopping`, `_cancelled`

    # The operations

    def exchange(self, operation: Recv, deadline: float | None) -> bytes:
        """`Recv` with its output."""
        if output := operation.output:
            # As in `send`; a call less for each answer.
            if self._attention:
                self._look_before_use(False)
            try:
                sent = self._socket.send(output, MSG_DONTWAIT)
            except OSError as error:
                sent = self._not_sent(error)
            if sent < len(output):
                self._send_rest(memoryview(output)[sent:], deadline)
            operation.output = b""
        while True:
            left = LONGEST_WAIT if deadline is None else deadline - monotonic()
            if left < self._receive_wait:
                self._receive_within(left)
            self._receiving = operation.idle
            if self._attention:
                self._look_before_use(operation.idle)
                if self._eof:
                    self._receiving = None
                    return b""
            try:
                data = self._socket.recv(self._size)
            except BlockingIOError:  # the timeout: time is up, or LONGEST_WAIT or an older deadline is over
                self._receive_wait = self._set_timeout(SO_RCVTIMEO, self._left(deadline))
                continue
            except OSError as error:
                raise self._lost(error) from error
            finally:
                self._receiving = None
                if self._attention:
                    self._look(operation.idle)
            self._size = SMALL_READ if len(data) < SMALL_READ else RECEIVE_SIZE
            if not data:
                self._eof = self._attention = True
            return data

    def recv(self, deadline: float | None, idle: bool) -> bytes:
        """`Recv` without output."""
        return self.exchange(Recv(deadline, idle), deadline)

    def send(self, data: bytes, deadline: float | None) -> None:
        """`Send`."""
        if self._attention:
            self._look_before_use(False)
        try:
            sent = self._socket.send(data, MSG_DONTWAIT)
        except OSError as error:
            sent = self._not_sent(error)
        if sent < len(data):
            self._send_rest(memoryview(data)[sent:], deadline)

    def _not_sent(self, error: OSError) -> int:
        if isinstance(error, BlockingIOError):
            return 0
        raise self._lost(error) from error

    def _send_rest(self, rest: memoryview, deadline: float | None) -> None:
        while rest:  # the peer is slower than we are
            left = self._left(deadline)
            if left < self._send_wait:
                self._send_wait = self._set_timeout(SO_SNDTIMEO, left * EARLY)
            self._sending = True
            if self._attention:
                self._look(False)
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                self._send_wait = self._set_timeout(SO_SNDTIMEO, self._left(deadline))
            except OSError as error:
                raise self._lost(error) from error
            finally:
                self._sending = False
                if self._attention:
                    self._look(False)

    def sleep(self, seconds: float, deadline: float | None) -> None:
        """`Sleep`."""
        seconds = max(seconds, 0)
        left = seconds if deadline is None else max(min(seconds, deadline - monotonic()), 0)
        if self._alarm is None:
            self._alarm = _thread.allocate_lock()
            self._alarm.acquire()
        self._look(False)
        if not self._shielded:
            self._alarm.acquire(timeout=left)
        else:
            sleep(left)
        self._look(False)
        if left < seconds:
            raise DeadlineExceeded

    def thread(self, operation: Thread[Any]) -> Any:
        """`Thread`: the session has a thread of its own already, so the function is called in it."""
        self.committing = operation.commit
        try:
            self._look(False)
            return operation.function(*operation.arguments)
        finally:
            self.committing = False

    def wait(self, interests: Sequence[Interest], deadline: float | None) -> None:
        """`Ready`."""
        if self._waker is None:
            self._waker = socket.socketpair()
        poller = select.poll()
        register(poller, interests)
        if not self._shielded:
            poller.register(self._waker[0], select.POLLIN)  # `cancel` writes to it, and nobody else
        while True:
            self._look(False)
            left = LONGEST_WAIT if deadline is None else deadline - monotonic()
            if poller.poll(min(max(left, 0), LONGEST_WAIT) * 1000):
                self._look(False)
                return
            if left <= 0:
                raise DeadlineExceeded

    def own_stream(self) -> Any:
        """`OwnStream`."""
        from mailfront_io.drivers.streams import own_stream

        return own_stream(self._socket.fileno(), self._socket.fileno())

    def close(self) -> None:
        """The session has ended."""
        if self._waker is not None:
            for end in self._waker:
                end.close()

    # For other threads

    def stop(self) -> None:
        """Throw `Stopping` at the idle `Recv` that is waited in, or at the next one."""
        self._stopping = self._attention = True
        if self._receiving:
            self._shutdown(socket.SHUT_RD)

    def cancel(self) -> None:
        """Throw `Cancelled` at the operation that is waited in, or at the next one."""
        self._cancelled = self._attention = True
        if self._sending:
            self._shutdown(socket.SHUT_RDWR)
        elif self._receiving is not None:
            self._shutdown(socket.SHUT_RD)
        if self._alarm is not None:
            try:
                self._alarm.release()
            except RuntimeError:
                pass  # released before
        if self._waker is not None:
            try:
                self._waker[1].send(b".")
            except OSError:
                pass  # closed: the session has ended

    # Details

    def _look(self, idle: bool) -> None:
        """Raise what interrupts an operation; called wherever `_attention` is seen.

        Who interrupts sets the flags first and looks at `_receiving` and `_sending` second; an operation that waits
        sets one of these first and looks at the flag second. So either the flag is seen here, or the interrupter sees
        that we wait and wakes us; and if it wakes us while data arrive, the flag is seen behind the wait and the
        socket, now deaf, is read no more.
        """
        if not self._shielded and (self._cancelled or (idle and self._stopping)):
            self._receiving, self._sending = None, False
            self._interrupt()

    def _look_before_use(self, idle: bool) -> None:
        """The same where the stream is going to be used; raises ConnectionLost if it is broken."""
        self._look(idle)
        if self._broken is not None:
            raise ConnectionLost(self._broken)

    def _interrupt(self) -> None:
        if self._cancelled:
            self._shielded = True
            raise Cancelled
        raise Stopping

    def _left(self, deadline: float | None) -> float:
        """Seconds until `deadline`; raises DeadlineExceeded when there are none."""
        if deadline is None:
            return LONGEST_WAIT
        left = deadline - monotonic()
        if left <= 0:
            raise DeadlineExceeded
        return left

    def _receive_within(self, left: float) -> None:
        """Let a read wait for hardly longer than `left` seconds; raises DeadlineExceeded when there are none."""
        if left <= 0:
            raise DeadlineExceeded
        self._receive_wait = self._set_timeout(SO_RCVTIMEO, left * EARLY)

    def _set_timeout(self, option: int, seconds: float) -> float:
        """Let the kernel wait for `seconds`; return what was set."""
        seconds = min(seconds, LONGEST_WAIT)
        microseconds = max(int(seconds * 1e6), 1)  # 0 would mean for ever
        value = struct.pack("@ll", microseconds // 1_000_000, microseconds % 1_000_000)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, option, value)
        except OSError as error:
            raise self._lost(error) from error
        return seconds

    def _shutdown(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError:
            pass  # broken already: that wakes as well

    def _lost(self, error: OSError) -> ConnectionLost:
        self._broken = error.strerror or str(error)
        self._attention = True
        return ConnectionLost(self._broken)


def serve_connection(connection: socket.socket, session: SessionFactory) -> int:
    """Run one session on an accepted (or otherwise connected) stream socket, and close it.

    Returns the session's result; what the session raises is raised.
    """
    return _drive(connection, session)


def run_client(
    client: Callable[[Connection], Coroutine[Operation[Any], Any, T]],
    host: str,
    port: int,
    *,
    connect_timeout: float = 30.0,
) -> T:
    """Connect to `host`, run the coroutine that `client` makes over the connection, return its result.

    All addresses of the host are tried in their order, within `connect_timeout` seconds in all. Raises
    OSError when none can be reached, and what the coroutine raises.
    """
    end = monotonic() + connect_timeout
    failed: OSError | None = None
    for family, kind, protocol, _, name in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(max(end - monotonic(), 0.001))
            connection.connect(name)
            connection.settimeout(None)
        except OSError as error:
            connection.close()
            failed = error
            continue
        return _drive(connection, client)
    raise failed or OSError(f"{host} has no address")


def _drive(
    connection: socket.socket,
    session: Callable[[Connection], Coroutine[Operation[Any], Any, T]],
) -> T:
    try:
        no_delay(connection)
        try:
            remote = address(connection.getpeername())
        except OSError:
            remote = None  # gone already: the session will see it
        facts = Connection(CLOCK, address(connection.getsockname()), remote)
        world = SocketWorld(connection)
        try:
            return run(session(facts), world)
        finally:
            world.close()
    finally:
        close_gently(connection)


def run_server(
    listeners: Sequence[Listener],
    *,
    fork: bool = False,
    stop_grace: float = 30.0,
    on_started: Started | None = None,
    report: Report = report_to_stderr,
) -> None:
    """`serve` as the whole of a process: SIGTERM or SIGINT stops it, a second one at once.

    Raises the soft limit on open files. With `fork` there is a process for each connection in place of a
    thread; else the process asks for the scheduling of batches (SCHED_BATCH), which programs that it starts inherit.
    Must be called in the main thread.
    """
    raise_descriptor_limit()
    if fork:
        from mailfront_io.drivers.forking import serve_forking

        serve_forking(listeners, stop_grace=stop_grace, on_started=on_started, report=report)
    else:
        _let_who_runs_go_on()
        signals = Signals(stop=(signal.SIGTERM, signal.SIGINT), escalate=True)
        _serve(listeners, signals, stop_grace, on_started, report)


def _let_who_runs_go_on() -> None:
    """Have the system not interrupt a thread for another one that wakes up: it has the interpreter's lock, most of the
    time, so that the other could but wait for it. On a processor that is busy besides, that went on and on, and a
    message of S1 cost up to half as much again. Only where nobody has chosen another policy; Linux's."""
    try:
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except (AttributeError, OSError):
        pass  # the system has no such thing, or forbids it


def serve(
    listeners: Sequence[Listener],
    *,
    stop_grace: float = 30.0,
    on_started: Started | None = None,
    report: Report = report_to_stderr,
) -> None:
    """Serve `listeners`, a thread for each connection, until it is stopped; in any thread.

    `on_started` is called once connections are accepted, with a function that stops the server and may be
    called from any thread (`Stop`). When it is called, nothing more is accepted and sessions get `Stopping` where
    they are idle; after `stop_grace` seconds, or when it is called again, those that are left get
    `Cancelled`. `report` is told of exceptions that sessions let escape and of failures to accept.
    """
    _serve(listeners, Signals(escalate=True), stop_grace, on_started, report)


def _serve(
    listeners: Sequence[Listener],
    signals: Signals,
    stop_grace: float,
    on_started: Started | None,
    report: Report,
) -> None:
    with signals:
        threads = _Threads(signals, report)
        accept_until_stopped(listeners, signals, threads.start, report, on_started)
        signals.wait_until(lambda: not threads.worlds or signals.stopping, inf)
        threads.stop()
        signals.wait_until(lambda: not threads.worlds or signals.cancelled, stop_grace)
        threads.cancel()
        signals.wait_until(lambda: not threads.worlds, CLEANUP_SECONDS + 1)
        while threads.committing():  # to leave now would be to lose track of a message
            signals.wait_until(lambda: not threads.committing(), 1)
        if threads.worlds:
            tell(report, RuntimeError(f"{len(threads.worlds)} sessions hang and were abandoned"))
        threads.end()


def accept_until_stopped(
    listeners: Sequence[Listener],
    signals: Signals,
    start: Callable[[Listener, socket.socket, Address | None], None],
    report: Report,
    on_started: Started | None,
    on_wake: Callable[[], None] | None = None,
) -> None:
    """Accept connections and `start` each, until `signals` says stop; then close the listeners.

    `start` may raise OSError like accept() itself. `on_wake` is called whenever `signals` wakes.
    """
    poller = select.poll()
    poller.register(signals.fd, select.POLLIN)
    by_fd = {listener.socket.fileno(): listener for listener in listeners}
    for listener in listeners:
        listener.socket.setblocking(False)
        poller.register(listener.socket.fileno(), select.POLLIN)
    backoff = Backoff(report)
    if on_started is not None:
        on_started(signals.stop)
    while not signals.closing:
        for fd, _ in poller.poll():
            if fd == signals.fd:
                signals.drain()
                if on_wake is not None:
                    on_wake()
                continue
            if delay := by_fd[fd].rest():
                signals.wait_until(lambda: signals.closing, delay, on_wake)
            try:
                accepted = accept(by_fd[fd], report)  # one: to find that there is no second costs more than poll
                if accepted is not None:
                    start(by_fd[fd], *accepted)
            except OSError as error:
                signals.wait_until(lambda: signals.closing, backoff.failed(error), on_wake)
    for listener in listeners:
        listener.socket.close()


class _Threads:
    """The threads of a server. A thread that has ended its session waits for the next for a while."""

    def __init__(self, signals: Signals, report: Report) -> None:
        self.worlds: set[SocketWorld] = set()
        self._signals = signals
        self._report = report
        self._queue: queue.SimpleQueue[_Accepted | None] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()  # for `worlds` and `_threads`: there are never fewer threads than sessions

    def start(self, listener: Listener, connection: socket.socket, remote: Address | None) -> None:
        """Run the session of `connection` in a thread."""
        accepted = (listener, connection, remote, SocketWorld(connection))
        with self._lock:
            self.worlds.add(accepted[3])
            enough = len(self._threads) >= len(self.worlds)
        if enough:
            self._queue.put(accepted)
            return
        thread = threading.Thread(target=self._work, args=(accepted,), name="mailfront", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            self._threads.discard(thread)
            self.worlds.discard(accepted[3])
            connection.close()
            release(listener, remote, self._report)
            raise OSError(str(error)) from error

    def _work(self, accepted: "_Accepted | None") -> None:
        while accepted is not None:
            self._session(*accepted)
            accepted = None  # keep nothing alive while waiting
            try:
                accepted = self._queue.get(timeout=IDLE_THREAD_SECONDS)
            except queue.Empty:
                with self._lock:
                    if len(self._threads) > len(self.worlds):
                        self._threads.discard(threading.current_thread())
                        return
                accepted = self._queue.get()  # one was counted on us just now
        self._threads.discard(threading.current_thread())

    def _session(
        self, listener: Listener, connection: socket.socket, remote: Address | None, world: SocketWorld
    ) -> None:
        try:
            no_delay(connection)
            facts = Connection(CLOCK, address(connection.getsockname()), remote)
            run(listener.session(facts), world)
        except (Cancelled, Stopping):
            pass
        except BaseException as error:
            tell(self._report, error)
        finally:
            world.close()
            close_gently(connection)
            self.worlds.discard(world)
            release(listener, remote, self._report)
            if self._signals.closing:
                self._signals.wake()

    def stop(self) -> None:
        for world in list(self.worlds):
            world.stop()

    def cancel(self) -> None:
        for world in list(self.worlds):
            world.cancel()

    def committing(self) -> bool:
        return any(world.committing for world in list(self.worlds))

    def end(self) -> None:
        """Send the waiting threads home."""
        threads = list(self._threads)
        for _ in threads:
            self._queue.put(None)
        if not self.worlds:
            for thread in threads:
                thread.join(1)


_Accepted = tuple[Listener, socket.socket, Address | None, SocketWorld]
