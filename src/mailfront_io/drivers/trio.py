"""The trio driver: servers and clients, in the caller's nursery or as a whole process.

Strategy: a session is a task, and its operations are awaited one by one inside a cancel scope that lives for
many of them (a `fail_after` around each read would cost 10 µs). Its deadline is moved lazily: nearer at once, further
off only when it has passed. The scope is left when it was cancelled, by its deadline, by `stop` or by `cancel`; then
the reason, if there still is one, is thrown into the session at the operation that was interrupted, and a new scope
is entered. What cancels from outside is thrown in as `Cancelled`, the clean-up that follows is shielded, and trio's
own exception goes on its way. Sockets that we accepted are read and written without trio's streams, which cost as
much again.

Any `trio.abc.HalfCloseableStream` carries a session. Waiting for time or for a call in a thread is a few lines, so
there is nothing that anyio would make shorter. The rules that all drivers share are in the head of
`drivers.stepper`.
"""

import math
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

import trio

from mailfront_io.drivers.listener import (
    LINGER_BYTES,
    LINGER_SECONDS,
    SMALL_READ,
    Address,
    Backoff,
    Listener,
    Report,
    Started,
    Stop,
    accept,
    address,
    no_delay,
    raise_descriptor_limit,
    release,
    report_to_stderr,
    tell,
)
from mailfront_io.drivers.stepper import READ, WRITE, OwnStream, Ready, TakeOver, not_an_operation
from mailfront_io.drivers.threads import POOL, Call
from mailfront_io.ops import (
    CLEANUP_SECONDS,
    RECEIVE_SIZE,
    Cancelled,
    Connection,
    ConnectionLost,
    DeadlineExceeded,
    Operation,
    Recv,
    RecvLine,
    Send,
    SessionFactory,
    Sleep,
    StartTLS,
    Stopping,
    Thread,
)

T = TypeVar("T")

AT_ONCE = 0.01
"""Seconds that a `Send` has in any case, one whose deadline has passed too: the last words of a session."""


async def serve(
    listeners: Sequence[Listener],
    *,
    stop_grace: float = 30.0,
    on_started: Started | None = None,
    report: Report = report_to_stderr,
    task_status: trio.TaskStatus[Stop] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `listeners` until stopped; for ``await nursery.start(serve, listeners)`` too.

    `on_started` is called once connections are accepted, with a function that stops the server and may be
    called from any thread (`Stop`); `nursery.start` returns the same function. When it is called, nothing more is
    accepted and sessions get `Stopping` where they are idle; after `stop_grace` seconds, or when it is called
    again, those that are left get `Cancelled`. To cancel `serve` is to stop without grace. `report` is told
    of exceptions that sessions let escape and of failures to accept.
    """
    server = _Server(report)
    try:
        async with trio.open_nursery() as sessions:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    listener.socket.setblocking(False)
                    accepting.start_soon(server.accept, listener, sessions)
                if on_started is not None:
                    on_started(server.stop)
                task_status.started(server.stop)
                await server.closing.wait()
                accepting.cancel_scope.cancel()
            for listener in listeners:
                listener.socket.close()
            await server.ended_or_stopping()
            for session in list(server.sessions):
                session.stop()
            with trio.move_on_after(stop_grace) as server.grace:
                if not server.stopped_twice:
                    await server.all_ended()
            for session in list(server.sessions):
                session.cancel()
    finally:
        for listener in listeners:
            listener.socket.close()


def run_server(
    listeners: Sequence[Listener],
    *,
    stop_grace: float = 30.0,
    on_started: Started | None = None,
    report: Report = report_to_stderr,
) -> None:
    """`serve` as the whole of a process: SIGTERM or SIGINT stops it, a second one at once.

    Raises the soft limit on open files. Must be called in the main thread.
    """

    async def stop_on_signals() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                stop = await nursery.start(serve_here)
                async for _ in signals:
                    stop()

    async def serve_here(task_status: trio.TaskStatus[Stop]) -> None:
        await serve(listeners, stop_grace=stop_grace, on_started=on_started, report=report, task_status=task_status)
        raise _Ended

    raise_descriptor_limit()
    try:
        trio.run(stop_on_signals)
    except* _Ended:
        pass


class _Ended(Exception):
    """The server has ended, so that waiting for signals must."""


async def serve_connection(stream: trio.abc.HalfCloseableStream, session: SessionFactory) -> int:
    """Run one session on an accepted stream and close it; returns the session's result.

    What the session raises is raised.
    """
    return await _SessionTask(stream, session, _peer(stream)).run()


async def run_client(
    client: Callable[[Connection], Coroutine[Operation[Any], Any, T]],
    host: str,
    port: int,
    *,
    connect_timeout: float = 30.0,
) -> T:
    """Connect to `host`, run the coroutine that `client` makes over the connection, return its result.

    The addresses of the host are tried within `connect_timeout` seconds in all. Raises OSError when none can
    be reached, and what the coroutine raises. When it is cancelled, the coroutine gets `Cancelled` and its
    clean-up is waited for.
    """
    try:
        with trio.fail_after(connect_timeout):
            stream = await trio.open_tcp_stream(host, port)
    except trio.TooSlowError:
        raise TimeoutError(f"{host} port {port} did not answer") from None
    return await _SessionTask(stream, client, _peer(stream)).run()


def _peer(stream: trio.abc.HalfCloseableStream) -> Address | None:
    if isinstance(stream, trio.SocketStream):
        try:
            return address(stream.socket.getpeername())
        except OSError:
            pass  # gone already: the session will see it
    return None


class _SocketStream(trio.abc.HalfCloseableStream):
    """A socket of ours, which belongs to one task, as a stream that gives way to other tasks only where it waits.

    `receive_some` always waits until there is something to read, so a peer that never pauses holds up nobody; what
    a send can hand to the system at once is sent at once. (Streams that may be shared pay for locks, and for a
    turn of the scheduler in each operation: twice the time of a short one.)
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        no_delay(connection)
        self.socket = connection
        self._fd = connection.fileno()
        self._size = SMALL_READ

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes, as a stream has it. (`max_bytes` is never less than `RECEIVE_SIZE` here.)"""
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                data = self.socket.recv(self._size)
                self._size = SMALL_READ if len(data) < SMALL_READ else RECEIVE_SIZE
                return data
            except BlockingIOError:
                pass
            except OSError as error:
                raise trio.BrokenResourceError from error

    def send_at_once(self, data: bytes) -> bytes:
        """Send what the system takes now; return the rest."""
        try:
            return data[self.socket.send(data) :]
        except BlockingIOError:
            return data
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`, as a stream has it."""
        rest = memoryview(data)
        while True:
            try:
                rest = rest[self.socket.send(rest) :]
            except BlockingIOError:
                pass
            except OSError as error:
                raise trio.BrokenResourceError from error
            if not rest:
                return
            await trio.lowlevel.wait_writable(self._fd)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the system takes more."""
        await trio.lowlevel.wait_writable(self._fd)

    async def send_eof(self) -> None:
        """End what we send; reading goes on."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise trio.BrokenResourceError from error

    def has_input(self) -> bool:
        """Whether there is something to read now."""
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing there, most of the time
            return False

    async def aclose(self) -> None:
        """Close the socket."""
        self.socket.close()


class _TrioClock:
    """The clock of the running loop, a mocked one too; usable in worker threads."""

    def __init__(self) -> None:
        self.monotonic = trio.lowlevel.current_clock().current_time
        self.time = time.time


def _nothing_at_once(data: bytes) -> bytes:
    return data


class _SessionTask(Generic[T]):
    """One session, stepped by the task that awaits `run`. `stop` and `cancel` are for other tasks."""

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        session: Callable[[Connection], Coroutine[Operation[Any], Any, T]],
        remote: Address | None,
    ) -> None:
        clock = _TrioClock()
        sockets = (_SocketStream, trio.SocketStream)
        local = address(stream.socket.getsockname()) if isinstance(stream, sockets) else None
        self._clock = clock
        self._now = clock.monotonic
        self._stream = stream
        self._receive = stream.receive_some
        self._send_at_once = stream.send_at_once if isinstance(stream, _SocketStream) else _nothing_at_once
        self._session: Any = session(Connection(clock, local, remote))
        self._scope = trio.CancelScope()
        self._idle = False  # waits in a Recv that may be stopped
        self._attention = False  # one of the following is set
        self._stopping = False
        self._cancelled = False
        self._limit: float | None = None  # the end of the clean-up, once Cancelled was thrown
        self._result: T

    def stop(self) -> None:
        """Throw `Stopping` at the idle `Recv` that is waited in, or at the next one."""
        self._stopping = self._attention = True
        if self._idle:
            self._scope.cancel()

    def cancel(self) -> None:
        """Throw `Cancelled` at the operation that is waited in (a commit: behind it), or at the next one."""
        self._cancelled = self._attention = True
        if self._limit is None:
            self._scope.cancel()

    async def run(self) -> T:
        """Step the session to its end and close the stream; return or raise what came of it."""
        try:
            operation = self._step(None, None)
            try:
                await self._run(operation)
            except trio.Cancelled:
                self._cancelled = self._attention = True
                if self._limit is None:
                    try:
                        await self._run(self._step(None, self._begin_cleanup()))
                    except Cancelled:
                        pass
                raise
            return self._result
        finally:
            await self._close()

    async def _run(self, operation: Any) -> None:
        while operation is not None:
            with trio.CancelScope(shield=self._limit is not None) as scope:
                self._scope = scope
                while operation is not None:
                    operation = self._step(*await self._perform(operation, scope))
            if scope.cancelled_caught:
                reason = self._reason(operation)
                if reason is not None:  # else its deadline has moved on since: begin anew
                    operation = self._step(None, reason)

    def _step(self, answer: Any, error: BaseException | None) -> Any:
        """Send `answer`, or throw `error`, into the session; return its next operation, None at its end."""
        try:
            return self._session.send(answer) if error is None else self._session.throw(error)
        except StopIteration as end:
            self._result = end.value
            return None
        finally:
            error = None  # its traceback holds this frame: leave no cycle

    async def _perform(self, operation: Any, scope: trio.CancelScope) -> tuple[Any, BaseException | None]:
        """Do `operation`; return its answer, or the exception to be thrown."""
        kind = type(operation)
        deadline = getattr(operation, "deadline", None)
        if self._attention:
            if self._cancelled and self._limit is None:
                scope.shield = True
                return None, self._begin_cleanup()
            if self._limit is not None:
                if self._limit <= self._now():
                    self._session.close()
                    raise Cancelled
                deadline = self._limit if deadline is None else min(deadline, self._limit)
        try:
            if kind is Recv or kind is RecvLine:
                if operation.output:
                    operation.output = self._send_at_once(operation.output)
                    if operation.output:
                        await self._send_all(operation.output, deadline, scope)
                        operation.output = b""
                if self._stopping and operation.idle and self._limit is None:
                    raise Stopping
                if deadline is not None:
                    if deadline <= self._now():
                        raise DeadlineExceeded
                    if deadline < scope.deadline:
                        scope.deadline = deadline
                self._idle = operation.idle
                try:
                    return await self._receive(RECEIVE_SIZE), None
                finally:
                    self._idle = False
            if kind is Send:
                operation.data = self._send_at_once(operation.data)
                if operation.data:
                    await self._send_all(operation.data, deadline, scope)
                return None, None
            await trio.lowlevel.checkpoint_if_cancelled()  # in vain before
            scope.deadline = math.inf if deadline is None else deadline
            if kind is StartTLS:
                from mailfront_io.drivers.tls import tls_layer

                self._session = tls_layer(self._session, operation, self._clock)
                return None, None
            if kind is Sleep:
                await trio.sleep(max(operation.seconds, 0))
                return None, None
            if kind is Thread:
                return await self._thread(operation), None
            if kind is Ready:
                await self._ready(operation)
                return None, None
            if kind is OwnStream:
                return self._own_stream(), None
            if kind is TakeOver:
                return None, None
            if isinstance(operation, Operation):
                from mailfront_io.drivers.operations import operations_layer

                self._session = operations_layer(self._session, operation, self._clock)
                return None, None
            return None, not_an_operation(operation, self._session)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            cause = error.__cause__
            return None, ConnectionLost(getattr(cause, "strerror", None) or str(cause or "the connection was closed"))
        except trio.Cancelled:
            raise
        except BaseException as error:
            return None, error

    async def _send_all(self, data: bytes, deadline: float | None, scope: trio.CancelScope) -> None:
        # What was begun cannot be begun anew, so the scope must be in order.
        await trio.lowlevel.checkpoint_if_cancelled()
        # Streams other than sockets look for cancellation first; what can be sent at once is sent.
        scope.deadline = math.inf if deadline is None else max(deadline, self._now() + AT_ONCE)
        await self._stream.send_all(data)

    async def _thread(self, operation: Thread[Any]) -> Any:
        token = trio.lowlevel.current_trio_token()
        ended = trio.Event()
        outcomes: list[tuple[Any, BaseException | None]] = []

        def done(result: Any, error: BaseException | None) -> None:  # in the worker thread
            outcomes.append((result, error))
            try:
                token.run_sync_soon(ended.set)
            except trio.RunFinishedError:
                pass  # the loop ended meanwhile, which it does not over a commit

        call = Call(operation.function, operation.arguments, done)
        POOL.start(call)
        try:
            with trio.CancelScope(shield=operation.commit):
                await ended.wait()
        except trio.Cancelled:
            call.abandon()
            raise
        result, error = outcomes[0]
        if error is not None:
            raise error
        return result

    async def _ready(self, operation: Ready) -> None:
        waits = [
            (wait, fd)
            for what, wait in ((READ, trio.lowlevel.wait_readable), (WRITE, trio.lowlevel.wait_writable))
            for fd in {fd for fd, both in operation.interests if both & what}
        ]
        if not waits:
            await trio.sleep_forever()
        if len(waits) == 1:
            await waits[0][0](waits[0][1])
            return

        async def first(wait: Any, fd: int) -> None:
            await wait(fd)
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                for wait, fd in waits:
                    nursery.start_soon(first, wait, fd)
        except BaseExceptionGroup:
            await trio.lowlevel.checkpoint_if_cancelled()  # one Cancelled in place of a group of them
            raise

    def _own_stream(self) -> Any:
        from mailfront_io.drivers.streams import own_stream

        if not isinstance(self._stream, _SocketStream | trio.SocketStream):
            raise RuntimeError(f"{type(self._stream).__name__} is no socket: it cannot be relayed")
        fd = self._stream.socket.fileno()
        return own_stream(fd, fd)

    def _reason(self, operation: Any) -> BaseException | None:
        """Why `operation` was interrupted; None when that was meant for an earlier one."""
        if self._limit is None:
            if self._cancelled:
                return self._begin_cleanup()
            if self._stopping and isinstance(operation, Recv) and operation.idle:
                return Stopping()
        limits = [at for at in (operation.deadline, self._limit) if at is not None]
        return DeadlineExceeded() if limits and min(limits) <= self._now() else None

    def _begin_cleanup(self) -> Cancelled:
        self._limit = self._now() + CLEANUP_SECONDS
        return Cancelled()

    async def _close(self) -> None:
        """Close the stream so that our last reply arrives: see `listener.close_gently`."""
        stream = self._stream
        if isinstance(stream, _SocketStream) and not stream.has_input():
            stream.socket.close()
            return
        seconds = LINGER_SECONDS
        if self._limit is not None:
            seconds = max(min(seconds, self._limit - self._now()), 0)
        with trio.move_on_after(seconds, shield=True):
            if isinstance(stream, _SocketStream) or (
                isinstance(stream, trio.SocketStream) and stream.socket.is_readable()
            ):
                try:
                    await stream.send_eof()
                    left = LINGER_BYTES
                    while left > 0 and (data := await stream.receive_some(RECEIVE_SIZE)):
                        left -= len(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
        await trio.aclose_forcefully(stream)


class _Server:
    """The sessions of one `serve`."""

    def __init__(self, report: Report) -> None:
        self.sessions: set[_SessionTask[int]] = set()
        self.closing = trio.Event()
        self.stopping = False
        self.stopped_twice = False
        self.grace = trio.CancelScope()
        self._ended = trio.Event()
        self._report = report
        self._backoff = Backoff(report)
        self._token = trio.lowlevel.current_trio_token()

    def stop(self, *, gently: bool = False) -> None:
        """See `Stop`."""
        try:
            self._token.run_sync_soon(self._stop, gently)
        except trio.RunFinishedError:
            pass

    def _stop(self, gently: bool) -> None:
        if not gently:
            if self.stopping:
                self.stopped_twice = True
                self.grace.cancel()
            self.stopping = True
        self.closing.set()
        self._ended.set()

    async def accept(self, listener: Listener, sessions: trio.Nursery) -> None:
        """Accept connections, one whenever the listener is ready, and start their sessions."""
        while True:
            await trio.lowlevel.wait_readable(listener.socket)
            if delay := listener.rest():
                await trio.sleep(delay)
            try:
                accepted = accept(listener, self._report)
            except OSError as error:
                await trio.sleep(self._backoff.failed(error))
                continue
            if accepted is not None:
                sessions.start_soon(self._session, listener, *accepted)

    async def _session(self, listener: Listener, connection: socket.socket, remote: Address | None) -> None:
        session: _SessionTask[int] | None = None
        try:
            session = _SessionTask(_SocketStream(connection), listener.session, remote)
            self.sessions.add(session)
            if self.stopping:
                session.stop()
            await session.run()
        except (trio.Cancelled, KeyboardInterrupt):
            raise
        except (Cancelled, Stopping):
            pass
        except BaseException as error:
            tell(self._report, error)
        finally:
            connection.close()
            if session is not None:
                self.sessions.discard(session)
            release(listener, remote, self._report)
            self._ended.set()

    async def ended_or_stopping(self) -> None:
        """Wait for the last session, or until the rest are to be stopped."""
        while self.sessions and not self.stopping:
            self._ended = trio.Event()
            await self._ended.wait()

    async def all_ended(self) -> None:
        """Wait for the last session."""
        while self.sessions:
            self._ended = trio.Event()
            await self._ended.wait()
