"""How asyncio steps a session: straight from the transport's callbacks.

Strategy: one object per connection is both the transport's protocol and the stepper of its session. When
bytes arrive the callback sends them into the coroutine and steps it until it waits again: no task, no future
and no stream object lies between a read and the reply to it.

* Reads go through one buffer per loop, 64 KiB, that is never looked at after the callback; the session gets
  `bytes`. (A plain `Protocol` would let asyncio allocate, map and unmap 256 KiB for each read.)
* While the session does not wait in a `Recv`, the first bytes that arrive are held and reading is paused, so
  a connection holds one buffer at most. A `Send` beyond the transport's high-water mark waits until the
  transport calls `resume_writing`.
* One timer per connection is moved lazily: it stays where it is when the deadline moves on, and is set anew
  when it fires early. The waits of the cold operations are callbacks too: `Sleep` is a timer, `Thread` a call
  in `drivers.threads`. So no operation needs a task, and with anyio nothing here would be shorter.
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
from typing import Any

from mailfront_io.drivers.listener import LINGER_SECONDS
from mailfront_io.drivers.stepper import CLOCK, Steps, not_an_operation
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

FLUSH_SECONDS = 30.0
"""How long the transport may take to send what a session has sent last."""

_buffers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = weakref.WeakKeyDictionary()


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
        "_deadline",
        "_ended",
        "_eof",
        "_held",
        "_idle",
        "_limit",
        "_loop",
        "_lost",
        "_paused",
        "_session",
        "_socket",
        "_step_in",
        "_stopping",
        "_timer",
        "_timer_at",
        "_transport",
        "_waiting",
        "_wake_error",
        "error",
        "result",
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
        buffer = _buffers.get(loop)
        if buffer is None:
            buffer = _buffers[loop] = memoryview(bytearray(RECEIVE_SIZE))
        self._buffer = buffer
        self._waiting = _NOTHING
        self._idle = False  # the Recv that is waited in may be stopped
        self._deadline: float | None = None  # of what is waited in
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._call: Call | None = None  # the Thread that is waited in, unless it commits
        self._paused = False  # the transport's buffer is above its high-water mark
        self._attention = False  # something of the following is set
        self._held = b""  # arrived while nobody was waiting; reading is paused
        self._eof = False
        self._lost: str | None = None
        self._stopping = False
        self._cancelled = False
        self._limit: float | None = None  # the end of the clean-up, once Cancelled was thrown

    # The transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the session."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
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
        """Let the Send that waits be done."""
        self._paused = False
        if self._waiting is _SEND:
            self._step(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the session at its next Recv or Send; or both are over."""
        self._lost = str(exc) if exc is not None else "the connection was closed"
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
        if self._waiting is _THREAD and self._call is None:
            return
        if self._waiting is not _NOTHING:
            self._abandon()
            self._step(None, self._begin_cleanup())

    # Stepping

    def _step(self, answer: Any, error: BaseException | None = None) -> None:
        """Send `answer`, or throw `error`, into the session and do what it asks for until it must wait."""
        self._waiting = _NOTHING
        while True:
            try:
                if error is None:
                    operation = self._step_in(answer)
                else:
                    operation = self._session.throw(error)
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
            answer = None
            kind = type(operation)
            if kind is Recv:
                if self._attention:
                    answer, error = self._unusual_recv(operation)
                    if answer is not None or error is not None:
                        continue
                    self._wait(_RECV, operation.deadline, operation.idle)
                    return
                self._deadline = deadline = operation.deadline
                if deadline is not None and (self._timer is None or deadline < self._timer_at):
                    self._set_timer(deadline)
                self._idle = operation.idle
                self._waiting = _RECV
                return
            if kind is Send:
                if self._attention:
                    error = self._unusual_send()
                    if error is not None:
                        continue
                self._transport.write(operation.data)
                if self._paused:
                    self._wait(_SEND, operation.deadline)
                    return
            elif kind is StartTLS:
                from mailfront_io.drivers.tls import tls_layer

                self._session = tls_layer(self._session, operation, CLOCK)
                self._step_in = self._session.send
            else:
                error = self._interruption()
                if error is None:
                    if kind is Sleep:
                        self._sleep(operation)
                        return
                    if kind is Thread:
                        error = self._thread(operation)
                        if error is None:
                            return
                    else:
                        error = not_an_operation(operation, self._session)

    def _wait(self, what: _Wait, deadline: float | None, idle: bool = False) -> None:
        if self._limit is not None:
            deadline = self._limit if deadline is None else min(deadline, self._limit)
        self._deadline = deadline
        if deadline is not None and (self._timer is None or deadline < self._timer_at):
            self._set_timer(deadline)
        self._idle = idle
        self._waiting = what

    def _unusual_recv(self, operation: Recv) -> tuple[bytes | None, BaseException | None]:
        """Answer or error of a Recv when there is something to consider; neither: it must wait."""
        error = self._interruption()
        if error is not None:
            return None, error
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
        return (b"" if self._eof else None), None

    def _unusual_send(self) -> BaseException | None:
        if self._lost is not None:
            return ConnectionLost(self._lost)
        return self._interruption()

    # Cold operations

    def _sleep(self, operation: Sleep) -> None:
        end = time.monotonic() + operation.seconds
        self._wake_error = self._limit is not None and self._limit < end
        self._wait(_SLEEP, end)

    def _thread(self, operation: "Thread[Any]") -> BaseException | None:
        loop = self._loop

        def done(result: Any, error: BaseException | None) -> None:  # in the worker thread
            try:
                loop.call_soon_threadsafe(self._called, call, result, error)
            except RuntimeError:
                pass  # the loop was closed over it

        call = Call(operation.function, operation.arguments, done)
        try:
            POOL.start(call)
        except Exception as error:
            return error
        self._call = None if operation.commit else call
        self._wait(_THREAD, None if operation.commit else operation.deadline)
        if operation.commit:
            self._deadline = None
        return None

    def _called(self, call: Call, result: Any, error: BaseException | None) -> None:
        """A Thread has its answer: it is wanted, unless the wait has ended in between."""
        if self._waiting is _THREAD and (self._call is call or self._call is None):
            self._call = None
            self._step(result, error)

    def _abandon(self) -> None:
        if self._call is not None:
            self._call.abandon()
            self._call = None

    # Time

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_later(max(when - time.monotonic(), 0), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        deadline = self._deadline
        if deadline is None or self._waiting is _NOTHING:
            return
        if time.monotonic() < deadline:
            self._set_timer(deadline)  # it has moved on since
        elif self._waiting is _CLOSE:
            self._transport.abort()
        elif self._waiting is _SLEEP and not self._wake_error:
            self._step(None)
        else:
            self._abandon()
            self._step(None, DeadlineExceeded())

    # The end

    def _interruption(self) -> BaseException | None:
        """What must be thrown before any operation: `Cancelled`, once; an end to endless clean-up."""
        if self._cancelled and self._limit is None:
            return self._begin_cleanup()
        return None

    def _begin_cleanup(self) -> Cancelled:
        self._limit = time.monotonic() + CLEANUP_SECONDS
        return Cancelled()

    def _close(self) -> None:
        """The session has ended: let the transport send what is left, and close."""
        self._waiting = _CLOSE
        self._deadline = None
