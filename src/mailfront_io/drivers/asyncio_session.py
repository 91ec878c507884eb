"""How asyncio steps a session: straight from the transport's callbacks.

Strategy: one object per connection is both the transport's protocol and the stepper of its session. When
bytes arrive the callback sends them into the coroutine and steps it until it waits again: no task, no future
and no stream object lies between a read and the reply to it.

* Reads go through one buffer per loop, 64 KiB, that is never looked at after the callback; the session gets
  `bytes`. (A plain `Protocol` would let asyncio allocate, map and unmap 256 KiB for each read.)
* While the session does not wait in a `Recv`, the first bytes that arrive are held and reading is paused, so
  a connection holds one buffer at most. A `Send` beyond the transport's high-water mark waits until the
  transport calls `resume_writing`.
* All connections of a loop share one timer (`drivers.deadlines`), where a connection is moved lazily: it keeps its
  place when its deadline moves on, and takes a new one when its time comes too early. (A timer per connection
  made a short session a quarter dearer with uvloop.)
* The waits of the cold operations are callbacks too: `Sleep` is a deadline, `Thread` a call in
  `drivers.threads`. So no operation needs a task, and with anyio nothing here would be shorter.
* Everything unusual (held bytes, end of stream, stop, cancellation) raises `_attention`, the one flag that
  the hot path looks at.

The rules that all drivers share are in the head of `drivers.stepper`.
"""

import asyncio
import socket
import time
import weakref
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from mailfront_io.drivers.deadlines import NEVER, Deadlines
from mailfront_io.drivers.listener import LINGER_SECONDS, no_delay
from mailfront_io.drivers.stepper import CLOCK, not_an_operation
from mailfront_io.drivers.threads import POOL, Call
from mailfront_io.ops import (
    CLEANUP_SECONDS,
    RECEIVE_SIZE,
    Cancelled,
    ConnectionLost,
    DeadlineExceeded,
    Recv,
    Send,
    Sleep,
    StartTLS,
    Stopping,
    Thread,
)

if TYPE_CHECKING:
    from mailfront_io.drivers.stepper import Steps

FLUSH_SECONDS = 30.0
"""How long the transport may take to send what a session has sent last."""


class _Shared:
    """What the sessions of one loop have in common."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(RECEIVE_SIZE))
        self.deadlines = Deadlines()


_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = weakref.WeakKeyDictionary()


class _Wait(Enum):
    """What a session waits in."""

    NOTHING = 0  # it is being stepped, or not yet connected
    RECV = 1
    SEND = 2
    SLEEP = 3
    THREAD = 4
    CLOSE = 5  # it has ended; its connection has not


_NOTHING, _RECV, _SEND, _SLEEP, _THREAD, _CLOSE = _Wait


class SessionProtocol(asyncio.BufferedProtocol):
    """One session and its connection. `ended` is called with this object when both are over; `result` or
    `error` then say what came of the session."""

    __slots__ = (
        "_attention",
        "_buffer",
        "_call",
        "_cancelled",
        "_committing",
        "_cut_short",
        "_deadline",
        "_deadlines",
        "_ended",
        "_eof",
        "_held",
        "_idle",
        "_limit",
        "_loop",
        "_lost",
        "_opening",
        "_paused",
        "_sending",
        "_session",
        "_socket",
        "_step_in",
        "_stopping",
        "_stuck",
        "_transport",
        "_waiting",
        "error",
        "result",
        "timer_at",
    )

    _transport: asyncio.Transport

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        session: "Steps[Any]",
        ended: Callable[["SessionProtocol"], None],
    ) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._loop = loop
        self._socket = connection
        self._session = session
        self._step_in = session.send
        self._ended = ended
        shared = _shared.get(loop)
        if shared is None:
            shared = _shared[loop] = _Shared()
        self._buffer = shared.buffer
        self._deadlines = shared.deadlines
        self._waiting = _NOTHING
        self._idle = False  # the Recv that is waited in may be stopped
        self._deadline: float | None = None  # of what is waited in
        self.timer_at = NEVER  # when `on_time` will be called, at or before the deadline
        self._call: Call | None = None  # the Thread that is waited in
        self._committing = False  # and it is one that commits
        self._cut_short = False  # the Sleep that is waited in ends with its deadline, or the clean-up's time
        self._stuck = False  # the peer did not read what we sent in time
        self._paused = False  # the transport's buffer is above its high-water mark
        self._sending: Send | Recv  # the operation that is waited in while that is so
        self._attention = False  # something of the following is set
        self._held = b""  # arrived while nobody was waiting; reading is paused
        self._eof = False
        self._lost: str | None = None
        self._stopping = False
        self._cancelled = False
        self._limit: float | None = None  # the end of the clean-up, once Cancelled was thrown

    def open(self) -> None:
        """Make the transport, which will begin the session.

        The loop's coroutine for that is stepped by hand: all that it would wait for is `connection_made`,
        and a task costs a fifth of a short session.
        """
        self._socket.setblocking(False)
        if self._socket.proto != socket.IPPROTO_TCP:  # else asyncio does it, which goes by this number alone
            no_delay(self._socket)
        self._opening = self._loop.connect_accepted_socket(lambda: self, self._socket)
        self._opening.send(None)

    # The transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the session."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by descent
        self._step(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the loop's buffer until `buffer_updated`, which follows at once."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand the bytes to the session, or hold them."""
        if self._waiting is _RECV:
            self._step(self._buffer[:nbytes].tobytes())
        elif self._waiting is not _CLOSE:
            self._held += self._buffer[:nbytes].tobytes()
            self._attention = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Tell the session at its next Recv; the other direction stays open."""
        self._eof = self._attention = True
        if self._waiting is _RECV:
            self._step(b"")
        return self._waiting is not _CLOSE

    def pause_writing(self) -> None:
        """Let the next Send wait."""
        self._paused = True

    def resume_writing(self) -> None:
        """Let the Send that waits be done, or the Recv go on to read."""
        self._paused = False
        if self._waiting is _SEND:
            operation = self._sending
            if isinstance(operation, Send):
                self._step(None)
                return
            operation.output = b""
            outcome = self._recv(operation)
            if outcome is not None:
                self._step(*outcome)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the session at its next Recv or Send; or both are over."""
        self._lost = getattr(exc, "strerror", None) or str(exc or "the connection was closed")
        self._attention = True
        if self._waiting is _CLOSE:
            self._over()
        elif self._waiting is _RECV or self._waiting is _SEND:
            self._step(None, ConnectionLost(self._lost))

    # For the server

    def stop(self) -> None:
        """Throw `Stopping` at the idle `Recv` that is waited in, or at the next one."""
        self._stopping = self._attention = True
        if self._waiting is _RECV and self._idle and self._limit is None:
            self._step(None, Stopping())

    def cancel(self) -> None:
        """Throw `Cancelled` at the operation that is waited in (a commit: behind it), or at the next one."""
        if self._waiting is _CLOSE:
            self._transport.abort()
            return
        if self._cancelled:
            return
        self._cancelled = self._attention = True
        if self._waiting is not _NOTHING and not (self._waiting is _THREAD and self._committing):
            self._abandon()
            self._step(None, self._begin_cleanup())

    # Stepping

    def _step(self, answer: Any, error: BaseException | None = None) -> None:
        """Send `answer`, or throw `error`, into the session and do what it asks for until it must wait."""
        self._waiting = _NOTHING
        while True:
            try:
                operation: Any = self._step_in(answer) if error is None else self._session.throw(error)
            except StopIteration as end:
                self.result = end.value
                self._close()
                return
            except BaseException as escaped:
                self.error = escaped
                self._close()
                if isinstance(escaped, KeyboardInterrupt):
                    raise
                return
            finally:
                error = None  # its traceback holds this frame: leave no cycle
            kind = type(operation)
            if not self._attention:
                if kind is Recv:
                    if operation.output:
                        self._transport.write(operation.output)
                        if self._paused:
                            self._wait_to_send(operation)
                            return
                        operation.output = b""
                    self._deadline = deadline = operation.deadline
                    if deadline is not None and deadline < self.timer_at:
                        self._deadlines.add(deadline, self, self._loop)
                    self._idle = operation.idle
                    self._waiting = _RECV
                    return
                if kind is Send:
                    self._transport.write(operation.data)
                    if self._paused:
                        self._wait_to_send(operation)
                        return
                    answer = None
                    continue
            elif self._limit is not None and self._limit <= time.monotonic():
                self._give_up()
                return
            outcome = self._perform(kind, operation)
            if outcome is None:
                return
            answer, error = outcome

    def _perform(self, kind: type, operation: Any) -> "_Outcome | None":
        """Do what is cold or needs attention: its answer or error, or None when that must be waited for."""
        if kind is StartTLS:
            from mailfront_io.drivers.tls import tls_layer

            self._session = tls_layer(self._session, operation, CLOCK)
            self._step_in = self._session.send
            return None, None
        if self._cancelled and self._limit is None:
            return None, self._begin_cleanup()
        if kind is Recv:
            return self._recv(operation)
        if kind is Send:
            return self._send(operation)
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
        return None, not_an_operation(operation, self._session)

    def _recv(self, operation: Recv) -> "_Outcome | None":
        if operation.output:
            if self._lost is not None:
                return None, ConnectionLost(self._lost)
            self._transport.write(operation.output)
            if self._paused:
                self._wait_to_send(operation)
                return None
            operation.output = b""
        if self._stopping and operation.idle and self._limit is None:
            return None, Stopping()
        if operation.deadline is not None and operation.deadline <= time.monotonic():
            return None, DeadlineExceeded()
        if self._held:
            data, self._held = self._held, b""
            if self._lost is None:
                self._transport.resume_reading()
            self._attention = self._eof or self._stopping or self._cancelled or self._lost is not None
            return data, None
        if self._lost is not None:
            return None, ConnectionLost(self._lost)
        if self._eof:
            return b"", None
        self._wait(_RECV, operation.deadline, operation.idle)
        return None

    def _send(self, operation: Send) -> "_Outcome | None":
        if self._lost is not None:
            return None, ConnectionLost(self._lost)
        self._transport.write(operation.data)
        if self._paused:
            self._wait_to_send(operation)
            return None
        return None, None

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

    def _wait_to_send(self, operation: Send | Recv) -> None:
        self._sending = operation
        self._wait(_SEND, operation.deadline)

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
            self._transport.abort()
        elif self._waiting is _SLEEP and not self._cut_short:
            self._step(None)
        else:
            self._stuck = self._waiting is _SEND
            self._abandon()
            self._step(None, DeadlineExceeded())

    # The end

    def _abandon(self) -> None:
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
        """The session has ended: let the transport send what is left, then close it.

        Closing over unread input sends a reset, which can overtake our last reply. So when the peer still
        talks its input is thrown away for a while first.
        """
        self._waiting = _CLOSE
        self._deadline = None
        if self._lost is not None:
            self._over()
        elif self._stuck:
            self._transport.abort()  # it did not read in time
        elif not self._eof and self._unread():
            self._held = b""
            self._transport.write_eof()
            self._transport.resume_reading()
            self._wait(_CLOSE, time.monotonic() + LINGER_SECONDS)
        else:
            self._transport.close()
            if self._transport.get_write_buffer_size():  # with uvloop always: it writes a little later
                self._wait(_CLOSE, time.monotonic() + FLUSH_SECONDS)

    def _unread(self) -> bool:
        if self._held:
            return True
        try:
            return bool(self._socket.recv(1, socket.MSG_DONTWAIT))
        except OSError:  # nothing there, most of the time
            return False

    def _over(self) -> None:
        self._deadlines.remove(self)
        self._opening.close()
        self._ended(self)


_Outcome = tuple[Any, BaseException | None]
"""What is sent into the session, or thrown."""
