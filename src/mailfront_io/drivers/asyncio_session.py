"""How asyncio steps a session: straight from the event loop's callbacks.

Strategy: one object per connection owns the socket and steps the session. When the loop says that there is something
to read, the callback reads it, sends it into the coroutine and steps that until it waits again: no task, no future,
no transport and no stream object lies between a read and the reply to it.

* What is not waited for stays in the kernel. While the session does not wait in a `Recv`, the first call of the
  reader takes it out of the loop; so nothing is held here, and a peer that talks too early is slowed down by TCP.
* A `Send` goes to the kernel at once, most of the time whole. Otherwise the loop calls when there is room for more,
  and the `Send` waits until all of it is gone. So nothing is left to be flushed when the session ends.
* Where bytes were read and nothing was said to them, in a large message above all, the next read follows at once.
* The loop watches one descriptor for all connections (`drivers.readiness`).
* All connections of a loop share one timer (`drivers.deadlines`), where a connection is moved lazily: it keeps its
  place when its deadline moves on, and takes a new one when its time comes too early. (A timer per connection
  made a short session a quarter dearer with uvloop.)
* The waits of the cold operations are callbacks too: `Sleep` is a deadline, `Thread` a call in
  `drivers.threads`, and all operations on peers and programs are one wait for descriptors (`drivers.operations`).
  So no operation needs a task, and with anyio nothing here would be shorter.
* Everything unusual (no reader, end of stream, stop, cancellation) raises `_attention`, the one flag that the hot
  path looks at.

The rules that all drivers share are in the head of `drivers.stepper`.
"""

import asyncio
import socket
import time
import weakref
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from mailfront_io.drivers.deadlines import NEVER, Deadlines
from mailfront_io.drivers.listener import LINGER_BYTES, LINGER_SECONDS, SMALL_READ, no_delay
from mailfront_io.drivers.readiness import Readiness, readiness
from mailfront_io.drivers.stepper import CLOCK, READ, WRITE, OwnStream, Ready, TakeOver, not_an_operation
from mailfront_io.drivers.threads import POOL, Call
from mailfront_io.ops import (
    CLEANUP_SECONDS,
    RECEIVE_SIZE,
    Cancelled,
    ConnectionLost,
    DeadlineExceeded,
    Operation,
    Recv,
    RecvLine,
    Send,
    Sleep,
    StartTLS,
    Stopping,
    Thread,
)

if TYPE_CHECKING:
    from mailfront_io.drivers.stepper import Steps

_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Deadlines, Readiness]] = (
    weakref.WeakKeyDictionary()
)
"""What the connections of each loop have in common."""


READS_AT_ONCE = 4
"""Reads of one connection, each of up to 64 KiB, before others have their turn."""


class _Wait(Enum):
    """What a session waits in."""

    NOTHING = 0  # it is being stepped, or has not begun
    RECV = 1
    SEND = 2
    SLEEP = 3
    THREAD = 4
    READY = 5  # descriptors
    CLOSE = 6  # it has ended; its connection has not


_NOTHING, _RECV, _SEND, _SLEEP, _THREAD, _READY, _CLOSE = _Wait

_EMPTY = memoryview(b"")


class SocketSession:
    """One session and its connection. `ended` is called with this object when both are over; `result` or
    `error` then say what came of the session."""

    __slots__ = (
        "_attention",
        "_call",
        "_cancelled",
        "_committing",
        "_cut_short",
        "_deadline",
        "_deadlines",
        "_ended",
        "_eof",
        "_fd",
        "_idle",
        "_left_to_linger",
        "_limit",
        "_loop",
        "_lost",
        "_readiness",
        "_reading",
        "_rest",
        "_sending",
        "_session",
        "_size",
        "_socket",
        "_step_in",
        "_stopping",
        "_waiting",
        "_watched",
        "error",
        "result",
        "timer_at",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        session: "Steps[Any]",
        ended: Callable[["SocketSession"], None],
    ) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._loop = loop
        self._socket = connection
        self._fd = connection.fileno()
        self._session = session
        self._step_in = session.send
        self._ended = ended
        shared = _shared.get(loop)
        if shared is None:
            shared = _shared[loop] = (Deadlines(), readiness())
        self._deadlines, self._readiness = shared
        self._waiting = _NOTHING
        self._idle = False  # the Recv that is waited in may be stopped
        self._deadline: float | None = None  # of what is waited in
        self.timer_at = NEVER  # when `on_time` will be called, at or before the deadline
        self._call: Call | None = None  # the Thread that is waited in
        self._committing = False  # and it is one that commits
        self._cut_short = False  # the Sleep that is waited in ends with its deadline, or the clean-up's time
        self._sending: Send | Recv | None = None  # the operation whose output waits for room in the kernel
        self._rest = _EMPTY  # what is left of that
        self._watched: dict[int, int] = {}  # descriptors that are waited for, and what for
        self._left_to_linger = LINGER_BYTES
        self._attention = False  # something of the following is set, or `_reading` is not
        self._size = SMALL_READ  # bytes to ask for
        self._reading = False  # the loop calls `_readable`
        self._eof = False
        self._lost: str | None = None
        self._stopping = False
        self._cancelled = False
        self._limit: float | None = None  # the end of the clean-up, once Cancelled was thrown

    def open(self) -> None:
        """Begin the session."""
        self._socket.setblocking(False)
        no_delay(self._socket)
        try:
            self._read(True)
        except OSError as error:  # the system waits for no more descriptors
            self.error, self._reading = error, False
            self._session.close()
            self._over()
            return
        self._step(None)

    # The loop's callbacks

    def _readable(self) -> None:
        """There is something to read: bytes, the end, or an error."""
        if self._waiting is not _RECV:
            if self._waiting is _CLOSE:
                self._drain()
            else:
                self._read(False)
            return
        reads = READS_AT_ONCE
        while reads:
            try:
                data = self._socket.recv(self._size)
            except BlockingIOError:
                return
            except OSError as error:
                self._step(None, self._lose(error))
                return
            self._size = SMALL_READ if len(data) < SMALL_READ else RECEIVE_SIZE
            if not data:
                self._eof = True
                self._read(False)
            if not self._step(data):
                return
            reads -= 1

    def _writable(self) -> None:
        """There is room in the kernel for what is left to send."""
        operation = self._sending
        assert operation is not None
        try:
            self._rest = self._rest[self._socket.send(self._rest) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._stop_sending()
            self._step(None, self._lose(error))
            return
        if self._rest:
            return
        self._stop_sending()
        if isinstance(operation, Send):
            self._step(None)
            return
        operation.output = b""
        outcome = self._recv(operation)
        if outcome is not None:
            self._step(*outcome)

    # For the server

    def stop(self) -> None:
        """Throw `Stopping` at the idle `Recv` that is waited in, or at the next one."""
        self._stopping = self._attention = True
        if self._waiting is _RECV and self._idle and self._limit is None:
            self._step(None, Stopping())

    def cancel(self) -> None:
        """Throw `Cancelled` at the operation that is waited in (a commit: behind it), or at the next one."""
        if self._waiting is _CLOSE:
            self._over()
            return
        if self._cancelled:
            return
        self._cancelled = self._attention = True
        if self._waiting is not _NOTHING and not (self._waiting is _THREAD and self._committing):
            self._abandon()
            self._step(None, self._begin_cleanup())

    # Stepping

    def _step(self, answer: Any, error: BaseException | None = None) -> bool:
        """Send `answer`, or throw `error`, into the session and do what it asks for until it must wait. Returns whether
        it has said nothing and waits for more to read."""
        self._waiting = _NOTHING
        quiet = True
        while True:
            try:
                operation: Any = self._step_in(answer) if error is None else self._session.throw(error)
            except StopIteration as end:
                self.result = end.value
                self._close()
                return False
            except BaseException as escaped:
                self.error = escaped
                self._close()
                if isinstance(escaped, KeyboardInterrupt):
                    raise
                return False
            finally:
                error = None  # its traceback holds this frame: leave no cycle
            if type(operation) is Recv and not self._attention:
                output = operation.output
                if output:
                    quiet = False
                    try:
                        operation.output = output = output[self._socket.send(output) :]
                    except BlockingIOError:
                        pass
                    except OSError as lost:
                        self._lose(lost)
                if not output:
                    self._deadline = deadline = operation.deadline
                    if deadline is not None and deadline < self.timer_at:
                        self._deadlines.add(deadline, self, self._loop)
                    self._idle = operation.idle
                    self._waiting = _RECV
                    return quiet
            if self._limit is not None and self._limit <= time.monotonic():
                self._give_up()
                return False
            outcome = self._perform(type(operation), operation)
            if outcome is None:
                return False
            answer, error = outcome
            quiet = False

    def _perform(self, kind: type, operation: Any) -> "_Outcome | None":
        """Do what is cold or needs attention: its answer or error, or None when that must be waited for."""
        if kind is StartTLS:
            from mailfront_io.drivers.tls import tls_layer

            self._session = tls_layer(self._session, operation, CLOCK)
            self._step_in = self._session.send
            return None, None
        if self._cancelled and self._limit is None:
            return None, self._begin_cleanup()
        if kind is Recv or kind is RecvLine:
            return self._recv(operation)
        if kind is Send:
            return self._send(operation)
        if kind is Ready:
            self._watch(operation)
            return None
        if kind is Sleep:
            end = until = time.monotonic() + operation.seconds
            for limit in (operation.deadline, self._limit):
                if limit is not None:
                    until = min(until, limit)
            self._cut_short = until < end
            self._wait(_SLEEP, until)
            return None
        if kind is Thread:
            return self._thread(operation)
        if kind is OwnStream:
            from mailfront_io.drivers.streams import own_stream

            if self._reading:  # whoever has the stream waits for it by itself
                self._read(False)
            return own_stream(self._fd, self._fd), None
        if kind is TakeOver:
            return None, None
        if isinstance(operation, Operation):
            from mailfront_io.drivers.operations import operations_layer

            self._session = operations_layer(self._session, operation, CLOCK)
            self._step_in = self._session.send
            return None, None
        return None, not_an_operation(operation, self._session)

    def _recv(self, operation: Recv) -> "_Outcome | None":
        if operation.output:
            operation.output = self._send_at_once(operation.output)
            if operation.output:
                return self._wait_to_send(operation, operation.output)
        if self._stopping and operation.idle and self._limit is None:
            return None, Stopping()
        if operation.deadline is not None and operation.deadline <= time.monotonic():
            return None, DeadlineExceeded()
        if self._lost is not None:
            return None, ConnectionLost(self._lost)
        if self._eof:
            return b"", None
        self._wait(_RECV, operation.deadline, operation.idle)
        if not self._reading:
            self._read(True)
        return None

    def _send(self, operation: Send) -> "_Outcome | None":
        rest = self._send_at_once(operation.data)
        return self._wait_to_send(operation, rest) if rest else (None, None)

    def _send_at_once(self, data: bytes) -> bytes:
        """Send what the kernel takes now; return the rest. After an error that is all of it."""
        if self._lost is not None:
            return data
        try:
            return data[self._socket.send(data) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._lose(error)
        return data

    def _wait_to_send(self, operation: Send | Recv, rest: bytes) -> "_Outcome | None":
        if self._lost is not None:
            return None, ConnectionLost(self._lost)
        self._sending = operation
        self._rest = memoryview(rest)
        self._loop.add_writer(self._fd, self._writable)
        self._wait(_SEND, operation.deadline)
        return None

    def _stop_sending(self) -> None:
        self._loop.remove_writer(self._fd)
        self._sending = None
        self._rest = _EMPTY

    def _read(self, reading: bool) -> None:
        """Let the loop call `_readable`, or not."""
        self._reading = reading
        if reading:
            self._readiness.add(self._fd, self._readable, self._loop)
        else:
            self._readiness.remove(self._fd, self._loop)
        self._attention = (
            not reading or self._eof or self._stopping or self._cancelled or self._lost is not None
        )

    def _lose(self, error: OSError) -> ConnectionLost:
        self._lost = error.strerror or str(error)
        if self._reading:
            self._read(False)
        return ConnectionLost(self._lost)

    def _thread(self, operation: "Thread[Any]") -> "_Outcome | None":
        loop = self._loop

        def done(result: Any, error: BaseException | None) -> None:  # in the worker thread
            try:
                loop.call_soon_threadsafe(self._called, call, result, error)
            except RuntimeError:
                pass  # the loop was closed meanwhile, which it is not over a commit

        call = Call(operation.function, operation.arguments, done)
        try:
            POOL.start(call)
        except Exception as error:
            return None, error
        self._call = call
        self._committing = operation.commit
        if self._committing:
            self._deadline = None  # nothing ends this wait but the call itself
            self._waiting = _THREAD
        else:
            self._wait(_THREAD, operation.deadline)
        return None

    def _called(self, call: Call, result: Any, error: BaseException | None) -> None:
        """A call in a thread has ended: tell the session, if it waits for that call still."""
        if self._call is call:
            self._call = None
            self._step(result, error)

    def _watch(self, operation: Ready) -> None:
        watched = self._watched
        for fd, what in operation.interests:
            watched[fd] = watched.get(fd, 0) | what
        for fd, what in watched.items():
            if what & READ:
                self._loop.add_reader(fd, self._watched_is_ready)
            if what & WRITE:
                self._loop.add_writer(fd, self._watched_is_ready)
        self._wait(_READY, operation.deadline)

    def _watched_is_ready(self) -> None:
        self._unwatch()
        self._step(None)

    def _unwatch(self) -> None:
        for fd, what in self._watched.items():
            if what & READ:
                self._loop.remove_reader(fd)
            if what & WRITE:
                self._loop.remove_writer(fd)
        self._watched.clear()

    def _wait(self, what: _Wait, deadline: float | None, idle: bool = False) -> None:
        if self._limit is not None:
            deadline = self._limit if deadline is None else min(deadline, self._limit)
        self._deadline = deadline
        if deadline is not None and deadline < self.timer_at:
            self._deadlines.add(deadline, self, self._loop)
        self._idle = idle
        self._waiting = what

    def on_time(self) -> None:
        """Time is up, unless the deadline has moved on since."""
        deadline = self._deadline
        if deadline is None or self._waiting is _NOTHING:
            return
        if time.monotonic() < deadline:
            self._deadlines.add(deadline, self, self._loop)
        elif self._waiting is _CLOSE:
            self._over()
        elif self._waiting is _SLEEP and not self._cut_short:
            self._step(None)
        else:
            self._abandon()
            self._step(None, DeadlineExceeded())

    # The end

    def _abandon(self) -> None:
        """Do not wait any longer for what is waited for."""
        if self._watched:
            self._unwatch()
        if self._sending is not None:
            self._stop_sending()
        if self._call is not None:
            self._call.abandon()
            self._call = None

    def _begin_cleanup(self) -> Cancelled:
        self._limit = time.monotonic() + CLEANUP_SECONDS
        return Cancelled()

    def _give_up(self) -> None:
        """The clean-up has had its time and wants more."""
        self.error = Cancelled()
        try:
            self._session.close()
        except RuntimeError as error:  # it awaited something once more
            self.error = error
        self._close()

    def _close(self) -> None:
        """The session has ended: close the connection.

        Closing over unread input sends a reset, which can overtake our last reply. So when the peer still
        talks its input is thrown away for a while first.
        """
        self._waiting = _CLOSE
        self._deadline = None
        if self._lost is not None or self._eof or not self._unread():
            self._over()
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._over()
            return
        if not self._reading:
            self._read(True)
        self._wait(_CLOSE, time.monotonic() + LINGER_SECONDS)

    def _unread(self) -> bool:
        try:
            return bool(self._socket.recv(1))
        except OSError:  # nothing there, most of the time
            return False

    def _drain(self) -> None:
        """Throw away what the peer still says."""
        try:
            data = self._socket.recv(RECEIVE_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._left_to_linger -= len(data)
        if not data or self._left_to_linger <= 0:
            self._over()

    def _over(self) -> None:
        if self._reading:
            self._read(False)
        self._deadlines.remove(self)
        self._socket.close()
        self._ended(self)


_Outcome = tuple[Any, BaseException | None]
"""What is sent into the session, or thrown."""
