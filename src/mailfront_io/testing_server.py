r"""Mail servers for the tests of applications that send mail.

A real one, on a free port, and one in memory without ports or threads::

    with MailServer() as server:
        my_application.send_report(server.host, server.port)
        [message] = server.messages
        assert b"Subject: Report" in message.text

    with MemoryMailServer() as server:
        with server.smtp() as client:          # an smtplib.SMTP
            client.sendmail("me@example.org", ["you@example.net"], "Subject: hello\n\nHello.\n")

Both do what a test tells them to: `answer`, `delay` and `drop` say what happens at the next ``connect``, ``helo``,
``sender``, ``recipient``, ``data`` (the command) or ``message`` (its end).
"""

import io
import smtplib
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from mailfront_io.auth.static import StaticStore
from mailfront_io.drivers.listener import Listener, Stop
from mailfront_io.drivers.scripted import VirtualClock
from mailfront_io.ops import RECEIVE_SIZE, Connection, Operation, Recv, RecvLine, Send, Sleep, Thread
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.plugin import Backend, Plugin, Response
from mailfront_io.service import Service
from mailfront_io.session import ForwardPath, ReversePath
from mailfront_io.spool import Spool
from mailfront_io.testing import Kept, Message
from mailfront_proto.secret import Secret

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Step = Literal["connect", "helo", "sender", "recipient", "data", "message"]

WAIT_SECONDS = 30.0


class _Dropped(BaseException):
    """The connection is to be closed, now and without a word."""


class _Server:
    """What both servers have in common."""

    def __init__(self, users: Mapping[str, str] | None, settings: Mapping[str, str] | None) -> None:
        self.messages: list[Message] = []
        """Those that were accepted, in order."""
        self.log: list[str] = []
        """The lines of the log."""
        self._script: dict[str, deque[Callable[[], Any]]] = {}
        self._arrived = threading.Condition()
        plugins: list[str | type[Plugin]] = [type("Script", (_Script,), {"script": self._script})]
        if users is not None:
            plugins += ["authenticate", "require-auth"]
        backend: type[Backend] = type("Kept", (_Kept,), {"messages": self.messages, "arrived": self._arrived})
        store = StaticStore({name: Secret(word.encode()) for name, word in users.items()}) if users else None
        environment = {"AUTH_REQUIRES_TLS": "0", "AUTH_FAILURE_DELAY": "0", **(settings or {})}
        self._service = Service("smtp", backend, [*plugins, "accept"], environment, self.log.append, store)

    def answer(self, step: Step, code: int, text: str = "", times: int = 1) -> None:
        """Answer the next `times` such steps so; a `code` of 400 and above refuses."""
        self._add(step, lambda: Response(code, text, final=True), times)

    def delay(self, step: Step, seconds: float, times: int = 1) -> None:
        """Wait before the answer (in virtual time, in memory)."""
        self._add(step, lambda: Sleep(seconds), times)

    def drop(self, step: Step, times: int = 1) -> None:
        """Close the connection in place of an answer."""
        self._add(step, _Dropped, times)

    def _add(self, step: Step, action: Callable[[], Any], times: int) -> None:
        self._script.setdefault(step, deque()).extend([action] * times)


class _Kept(Kept):
    """Takes every message, and says so to those who wait for it."""

    arrived: threading.Condition

    def message_end(self, spool: Spool | None) -> None:
        """It is complete."""
        with self.arrived:
            super().message_end(spool)
            self.arrived.notify_all()


class _Script(Plugin):
    """Does what the test has told the server to."""

    script: dict[str, deque[Callable[[], Any]]]

    async def connect(self) -> Response | None:
        """The connection is there."""
        return await self._next("connect")

    async def helo(self, host: str, capabilities: list[str]) -> Response | None:
        """HELO, EHLO."""
        return await self._next("helo")

    async def sender(self, path: ReversePath) -> Response | None:
        """MAIL."""
        return await self._next("sender")

    async def recipient(self, path: ForwardPath) -> Response | None:
        """RCPT."""
        return await self._next("recipient")

    async def data_start(self, spool: Spool | None) -> Response | None:
        """DATA."""
        return await self._next("data")

    async def message_end(self, spool: Spool | None) -> Response | None:
        """The message is there."""
        return await self._next("message")

    async def _next(self, step: str) -> Response | None:
        actions = self.script.get(step)
        action = actions.popleft()() if actions else None
        if isinstance(action, _Dropped):
            raise action
        if isinstance(action, Sleep):
            await action
            return None
        return action


async def _until_dropped(session: SessionCoroutine) -> int:
    """`session`, whose end may be that the test drops it."""
    try:
        return await session
    except _Dropped:
        return 0


class MailServer(_Server):
    """A real SMTP server on a free port of loopback, in a thread of this process.

    `users`: names and passwords; with them AUTH is required, else everybody may send. `certificate`: a PEM file with
    chain and key: STARTTLS is offered, or with `implicit_tls` TLS comes first. `driver`: ``blocking`` (a thread for
    each connection), ``asyncio`` or ``trio``. `settings`: of the configuration reference. `host` and `port` are where
    it listens.
    """

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        certificate: str | None = None,
        implicit_tls: bool = False,
        driver: Literal["blocking", "asyncio", "trio"] = "blocking",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        tls = {"TLS_CERTFILE": certificate} if certificate is not None else {}
        first = {"TLS_IMMEDIATE": ""} if implicit_tls else {}
        super().__init__(users, {**tls, **first, **(settings or {})})
        self._driver = driver
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._socket.getsockname()
        self._started = threading.Event()
        self._stop: Stop | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="MailServer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        if self._stop is not None:
            self._stop()
            self._stop()  # and at once: what a test has left open is not waited for
        self._thread.join()

    def wait(self, count: int = 1, seconds: float = WAIT_SECONDS) -> list[Message]:
        """The messages, once there are `count` of them. Raises TimeoutError after so many seconds."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.messages) >= count, seconds):
                raise TimeoutError(f"{len(self.messages)} of {count} messages after {seconds} seconds")
            return list(self.messages)

    def _serve(self) -> None:
        def started(stop: Stop) -> None:
            self._stop = stop
            self._started.set()

        def session(connection: Connection) -> SessionCoroutine:
            return _until_dropped(self._service.session(connection))

        listener = Listener(self._socket, session)
        try:
            if self._driver == "blocking":
                from mailfront_io.drivers import blocking

                blocking.serve([listener], on_started=started, report=self._report)
            elif self._driver == "asyncio":
                import asyncio

                from mailfront_io.drivers import asyncio as driver

                asyncio.run(driver.serve([listener], on_started=started, report=self._report))
            else:
                from functools import partial

                import trio

                from mailfront_io.drivers import trio as trio_driver

                trio.run(partial(trio_driver.serve, [listener], on_started=started, report=self._report))
        except BaseException as error:
            self._error = error
        finally:
            self._socket.close()
            self._started.set()

    def _report(self, error: BaseException) -> None:
        self.log.append(f"Error: {type(error).__name__}: {error}")


class MemoryMailServer(_Server):
    """An SMTP server without ports or threads: every byte that a client sends is answered before its call returns.

    `users`, `settings`: as of `MailServer`. There is no TLS. Time is virtual: `clock`.
    """

    def __init__(self, *, users: Mapping[str, str] | None = None, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(users, settings)
        self.clock = VirtualClock()
        self._connections: list[MemoryConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    def connect(self) -> "MemoryConnection":
        """A connection, for clients that take a socket."""
        facts = Connection(self.clock, ("127.0.0.1", 25), ("127.0.0.1", 50_000))
        connection = MemoryConnection(_until_dropped(self._service.session(facts)), self.clock)
        self._connections.append(connection)
        return connection

    def smtp(self) -> smtplib.SMTP:
        """An `smtplib.SMTP` that is connected."""
        return _MemorySMTP(self)


class MemoryConnection:
    """The client's end: as much of a socket as `smtplib` and its like use."""

    def __init__(self, session: SessionCoroutine, clock: VirtualClock) -> None:
        self._session = session
        self._clock = clock
        self._input = bytearray()
        self._output = bytearray()
        self._eof = False
        self._ended = False
        self._step(None)

    def sendall(self, data: "ReadableBuffer") -> None:
        """Let the server have `data`. Raises BrokenPipeError when it has closed."""
        if self._ended:
            raise BrokenPipeError("the server has closed the connection")
        self._input += bytes(data)
        self._step(self._take())

    def recv(self, size: int) -> bytes:
        """What the server has said, at most `size` bytes; ``b""`` when it has closed. Raises TimeoutError when it says
        nothing: it never will."""
        if not self._output and not self._ended:
            raise TimeoutError("the server waits for its client")
        data = bytes(self._output[:size])
        del self._output[:size]
        return data

    def makefile(self, mode: str = "rb", buffering: int = -1) -> io.BufferedReader:
        """A file that reads what the server says."""
        return io.BufferedReader(_Reader(self))

    def settimeout(self, seconds: float | None) -> None:
        """Nothing: nothing here takes time."""

    def close(self) -> None:
        """Close the connection."""
        if not self._ended:
            self._eof = True
            self._step(b"")

    def _take(self) -> bytes:
        data = bytes(self._input[:RECEIVE_SIZE])
        del self._input[:RECEIVE_SIZE]
        return data

    def _step(self, answer: Any) -> None:
        """Run the session until it wants to read what is not there."""
        error: BaseException | None = None
        while True:
            try:
                operation: Operation[Any] = (
                    self._session.throw(error) if error is not None else self._session.send(answer)
                )
            except StopIteration:
                self._ended = True
                return
            answer = error = None
            match operation:
                case Recv() | RecvLine():
                    self._output += operation.output
                    operation.output = b""
                    if not self._input and not self._eof:
                        return
                    answer = self._take()
                case Send():
                    self._output += operation.data
                case Sleep():
                    self._clock.advance(operation.seconds)
                case Thread():
                    try:
                        answer = operation.function(*operation.arguments)
                    except Exception as raised:
                        error = raised
                case _:
                    error = RuntimeError(f"{type(operation).__name__} cannot be done in memory: use MailServer")


class _Reader(io.RawIOBase):
    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._connection.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _MemorySMTP(smtplib.SMTP):
    """Connects to a `MemoryMailServer` as soon as it is made."""

    def __init__(self, server: MemoryMailServer) -> None:
        self._server = server
        super().__init__("memory", 25, local_hostname="client.example")

    def _get_socket(self, host: str, port: int, timeout: float | None) -> Any:
        return self._server.connect()
