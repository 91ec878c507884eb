"""The asyncio driver, for the standard event loop and for uvloop: servers and clients.

How a session is stepped is in `drivers.asyncio_session`; here is what surrounds sessions: accepting, stopping,
connecting. `serve`, `serve_connection` and `run_client` run in the caller's event loop and touch nothing else
of it; `run_server` makes a loop of its own and minds the process's signals.

Connections are accepted here and not by the loop, because a server must know when it is out of descriptors:
uvloop would close the connections it cannot take without a word. One is accepted whenever a listener is ready:
to ask for a second that is not there costs more than to be called again.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from mailfront_io.drivers.asyncio_session import SocketSession
from mailfront_io.drivers.listener import (
    Address,
    Backoff,
    Listener,
    Report,
    Started,
    Stop,
    accept,
    address,
    raise_descriptor_limit,
    release,
    report_to_stderr,
    tell,
)
from mailfront_io.drivers.stepper import CLOCK
from mailfront_io.ops import Cancelled, Connection, Operation, SessionFactory, Stopping

T = TypeVar("T")


async def serve(
    listeners: Sequence[Listener],
    *,
    stop_grace: float = 30.0,
    on_started: Started | None = None,
    report: Report = report_to_stderr,
) -> None:
    """Serve `listeners` in the running loop until stopped.

    `on_started` is called once connections are accepted, with a function that stops the server and may be
    called from any thread (`Stop`). When it is called, nothing more is accepted and sessions get `Stopping` where
    they are idle; after `stop_grace` seconds, or when it is called again, those that are left get
    `Cancelled`. To cancel the task that awaits `serve` is to stop without grace. `report` is told of
    exceptions that sessions let escape and of failures to accept.
    """
    server = _Server(listeners, report)
    server.start()
    try:
        if on_started is not None:
            on_started(server.stop)
        await server.closing.wait()
        server.close()
        await server.ended_or_stopping()
        for session in list(server.sessions):
            session.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(stop_grace):
                await server.ended_or_cancelled()
    finally:
        server.close()
        await asyncio.shield(asyncio.ensure_future(server.end()))


def run_server(
    listeners: Sequence[Listener],
    *,
    loop: str = "auto",
    stop_grace: float = 30.0,
    on_started: Started | None = None,
    report: Report = report_to_stderr,
) -> None:
    """`serve` as the whole of a process: SIGTERM or SIGINT stops it, a second one at once.

    `loop`: the event loop, "asyncio" or "uvloop"; "auto" is uvloop if it is installed. Raises the soft limit on
    open files, and ModuleNotFoundError if uvloop is asked for and not there. Must be called in the main thread.
    """

    def started(stop: Stop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        if on_started is not None:
            on_started(stop)

    raise_descriptor_limit()
    with asyncio.Runner(loop_factory=_loop_factory(loop)) as runner:
        runner.run(serve(listeners, stop_grace=stop_grace, on_started=started, report=report))


async def serve_connection(connection: socket.socket, session: SessionFactory) -> int:
    """Run one session on an accepted stream socket and close it; returns the session's result.

    What the session raises is raised.
    """
    return await _drive(connection, session)


async def run_client(
    client: Callable[[Connection], Coroutine[Operation[Any], Any, T]],
    host: str,
    port: int,
    *,
    connect_timeout: float = 30.0,
) -> T:
    """Connect to `host`, run the coroutine that `client` makes over the connection, return its result.

    All addresses of the host are tried in their order, within `connect_timeout` seconds in all. Raises
    OSError when none can be reached, and what the coroutine raises. When the awaiting task is cancelled,
    the coroutine gets `Cancelled` and its clean-up is waited for.
    """
    connection = await _connect(host, port, connect_timeout)
    return await _drive(connection, client)


def _loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if loop == "asyncio":
        return asyncio.new_event_loop
    if loop not in ("auto", "uvloop"):
        raise ValueError(f'loop is "auto", "asyncio" or "uvloop", not {loop!r}')
    try:
        import uvloop
    except ImportError:
        if loop == "auto":
            return asyncio.new_event_loop
        raise ModuleNotFoundError("uvloop is not installed: pip install 'mailfront[fast]'", name="uvloop") from None
    return uvloop.new_event_loop


async def _connect(host: str, port: int, timeout: float) -> socket.socket:
    loop = asyncio.get_running_loop()
    failed: OSError | None = None
    try:
        async with asyncio.timeout(timeout):
            for family, kind, protocol, _, name in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                connection = socket.socket(family, kind, protocol)
                try:
                    connection.setblocking(False)
                    await loop.sock_connect(connection, name)
                    return connection
                except OSError as error:
                    connection.close()
                    failed = error
                except BaseException:
                    connection.close()
                    raise
    except TimeoutError:
        raise TimeoutError(f"{host} port {port} did not answer") from failed
    raise failed or OSError(f"{host} has no address")


async def _drive(
    connection: socket.socket,
    session: Callable[[Connection], Coroutine[Operation[Any], Any, T]],
) -> T:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        remote = address(connection.getpeername())
    except OSError:
        remote = None  # gone already: the session will see it
    facts = Connection(CLOCK, address(connection.getsockname()), remote)
    driven = SocketSession(loop, connection, session(facts), lambda _: ended.set())
    driven.open()
    try:
        await ended.wait()
    except asyncio.CancelledError:
        driven.cancel()
        await asyncio.shield(asyncio.ensure_future(ended.wait()))
        raise
    if driven.error is not None:
        raise driven.error
    result: T = driven.result
    return result


class _Server:
    """The listeners and sessions of one `serve`."""

    def __init__(self, listeners: Sequence[Listener], report: Report) -> None:
        self.sessions: set[SocketSession] = set()
        self.closing = asyncio.Event()
        self.stopping = False
        self._cancelling = False
        self._changed = asyncio.Event()  # a session has ended, or the grace period has
        self._loop = asyncio.get_running_loop()
        self._listeners = listeners
        self._report = report
        self._backoff = Backoff(report)
        self._resting: dict[Listener, asyncio.TimerHandle] = {}
        self._closed = False

    def start(self) -> None:
        for listener in self._listeners:
            listener.socket.setblocking(False)
            self._loop.add_reader(listener.socket.fileno(), self._accept, listener)

    def stop(self, *, gently: bool = False) -> None:
        """See `Stop`."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: stopped long ago
            self._loop.call_soon_threadsafe(self._stop, gently)

    def _stop(self, gently: bool) -> None:
        if not gently:
            self._cancelling = self.stopping
            self.stopping = True
        self.closing.set()
        self._changed.set()

    def close(self) -> None:
        """Accept no more."""
        if self._closed:
            return
        self._closed = True
        for timer in self._resting.values():
            timer.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener.socket.fileno())
            listener.socket.close()

    async def ended_or_stopping(self) -> None:
        """Wait for the last session, or until the rest are to be stopped."""
        while self.sessions and not self.stopping:
            self._changed.clear()
            await self._changed.wait()

    async def ended_or_cancelled(self) -> None:
        """Wait for the last session, or until the grace period is cut short."""
        while self.sessions and not self._cancelling:
            self._changed.clear()
            await self._changed.wait()

    async def end(self) -> None:
        """Cancel the sessions that are left, and wait for their clean-up and for what they commit."""
        self.closing.set()
        for session in list(self.sessions):
            session.cancel()
        while self.sessions:
            self._changed.clear()
            await self._changed.wait()

    def _accept(self, listener: Listener) -> None:
        if delay := listener.rest():
            self._pause(listener, delay)
        else:
            self._take(listener)

    def _take(self, listener: Listener) -> None:
        try:
            accepted = accept(listener, self._report)
        except OSError as error:
            self._pause(listener, self._backoff.failed(error))
            return
        if accepted is not None:
            self._begin(listener, *accepted)

    def _pause(self, listener: Listener, delay: float) -> None:
        self._loop.remove_reader(listener.socket.fileno())
        self._resting[listener] = self._loop.call_later(delay, self._resume, listener)

    def _resume(self, listener: Listener) -> None:
        del self._resting[listener]
        self._loop.add_reader(listener.socket.fileno(), self._accept, listener)
        self._take(listener)

    def _begin(self, listener: Listener, connection: socket.socket, remote: Address | None) -> None:
        def ended(session: SocketSession) -> None:
            self.sessions.discard(session)
            release(listener, remote, self._report)
            if session.error is not None and not isinstance(session.error, Cancelled | Stopping):
                tell(self._report, session.error)
            if self.closing.is_set():
                self._changed.set()

        try:
            facts = Connection(CLOCK, address(connection.getsockname()), remote)
            session = SocketSession(self._loop, connection, listener.session(facts), ended)
        except BaseException as error:
            connection.close()
            release(listener, remote, self._report)
            tell(self._report, error)
            return
        self.sessions.add(session)
        session.open()
