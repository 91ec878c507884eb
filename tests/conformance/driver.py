"""The drivers, each behind one small adapter: started once, it plays one session after another.

An adapter of a server has one method, `serve`; it runs in a thread of its own with the listener that all
sessions come through.
"""

import asyncio
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import trio
import trio.testing

from mailfront_io.drivers import blocking
from mailfront_io.drivers.listener import Listener, Started
from mailfront_io.drivers.oneshot import run_descriptors
from mailfront_io.ops import Connection
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.testing import EOF, RESET, Action, Advance, PeerTLS, WaitFor, run_script
from tests.conformance.outside import Helpers, scripted, scripted_ports
from tests.conformance.peer import Channel, Peer, PipeChannel, SocketChannel, client_context
from tests.conformance.session_file import Act, Expect, Outcome, Send, Session, Wait
from tests.conformance.stage import Stage, outcome, set_up

SECONDS = 60
ROOT = Path(__file__).parents[2]


class Driver(ABC):
    """Plays sessions. `start` and `close` are called once each."""

    def __init__(self, scratch: Path, certificate: Path) -> None:
        self.scratch = scratch
        self._certificate = certificate
        self._played = 0
        self._done, self.done = os.pipe()
        self._rest = b""

    def start(self) -> None:  # noqa: B027 - not every driver has something to start
        """Be ready."""

    def close(self) -> None:
        """Stop, and let go of everything."""
        os.close(self._done)
        os.close(self.done)

    def cannot(self, session: Session) -> str | None:
        """Why this driver cannot play `session`."""
        if session.starts_cvm and not shutil.which("cvm-pwfile"):
            return "cvm-pwfile is not installed (make peers)"
        return None

    def run(self, session: Session) -> Outcome:
        """Play `session` and return what came of it."""
        self._played += 1
        place = self.scratch / str(self._played)
        place.mkdir()
        with Helpers(session.helpers) as helpers:
            output = self.play(set_up(session, place, self._certificate, self.ports(session, helpers)), session)
            return outcome(session, place, output, self._result())

    def ports(self, session: Session, helpers: Helpers) -> Mapping[str, int]:
        """Where the helpers of `session` are."""
        return helpers.ports

    @abstractmethod
    def play(self, stage: Stage, session: Session) -> bytes:
        """Play `session` with the service of `stage`; returns the output."""

    def _result(self) -> str:
        while b"\n" not in self._rest:
            if not select.select([self._done], [], [], SECONDS)[0]:
                return "the session did not end"
            self._rest += os.read(self._done, 4096)
        result, _, self._rest = self._rest.partition(b"\n")
        return result.decode()


class Scripted(Driver):
    """No sockets, no waiting."""

    def cannot(self, session: Session) -> str | None:
        return "nothing real is started by a script" if session.starts_programs else None

    def play(self, stage: Stage, session: Session) -> bytes:
        script: list[Action] = []
        for step in session.steps:
            if isinstance(step, Send):
                script += step.pieces()
            elif isinstance(step, Expect):
                script.append(WaitFor(step.data))
            elif isinstance(step, Wait):
                script.append(Advance(step.seconds))
            elif step is Act.TLS:
                script.append(PeerTLS(client_context(session)))
            else:
                script.append(EOF if step is Act.FIN else RESET)
        outside = scripted(session)
        return run_script(lambda c: stage.session(c, self.done), script, outside=outside, all_read=False).output

    def ports(self, session: Session, helpers: Helpers) -> Mapping[str, int]:
        return scripted_ports(session)


class OneShotPipes(Driver):
    """A program on two pipes."""

    def cannot(self, session: Session) -> str | None:
        return "a pipe cannot be reset" if Act.RST in session.steps else super().cannot(session)

    def play(self, stage: Stage, session: Session) -> bytes:
        input_fd, to_server = os.pipe()
        from_server, output_fd = os.pipe()
        return self._play(stage, session, PipeChannel(from_server, to_server), input_fd, output_fd)

    def _play(self, stage: Stage, session: Session, channel: Channel, input_fd: int, output_fd: int) -> bytes:
        """The session in this thread, as signals want it, and its client in another. Closes the descriptors,
        as the end of a program does."""
        outputs: list[bytes] = []
        client = threading.Thread(target=lambda: outputs.append(Peer(channel).play(session)))
        client.start()
        try:
            run_descriptors(lambda c: stage.session(c, self.done), input_fd, output_fd)
        finally:
            for fd in {input_fd, output_fd}:
                os.close(fd)
            client.join()
        return outputs[0]


class OneShotSocket(OneShotPipes):
    """A program on one socket, as inetd and tcpserver start it."""

    def cannot(self, session: Session) -> str | None:
        return Driver.cannot(self, session)

    def play(self, stage: Stage, session: Session) -> bytes:
        ours, theirs = _tcp_pair() if Act.RST in session.steps else socket.socketpair()
        fd = theirs.detach()
        return self._play(stage, session, SocketChannel(ours), fd, fd)


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection that can be reset, as socketpair's cannot."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


class Server(Driver):
    """A server in a thread of this process. A subclass says how to `serve`."""

    def __init__(self, scratch: Path, certificate: Path) -> None:
        super().__init__(scratch, certificate)
        self._stage: Stage | None = None
        self._reports: list[BaseException] = []
        self._started = threading.Event()
        self._stop: Callable[[], None] = lambda: None
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._address = self._socket.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @abstractmethod
    def serve(self, listener: Listener, started: Started) -> None:
        """Serve `listener` with this driver until stopped."""

    def _serve(self) -> None:
        self.serve(Listener(self._socket, self._session), self._on_started)

    def _on_started(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._started.set()

    def report(self, error: BaseException) -> None:
        """What the driver says went wrong outside a session: nothing may."""
        self._reports.append(error)

    def _session(self, connection: Connection) -> SessionCoroutine:
        assert self._stage is not None
        return self._stage.session(connection, self.done)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(SECONDS)

    def close(self) -> None:
        self._stop()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        super().close()

    def play(self, stage: Stage, session: Session) -> bytes:
        self._stage = stage
        output = Peer(SocketChannel(socket.create_connection(self._address))).play(session)
        assert self._reports == []
        return output


class Threads(Server):
    def serve(self, listener: Listener, started: Started) -> None:
        blocking.serve([listener], on_started=started, report=self.report)


class Asyncio(Server):
    def new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def serve(self, listener: Listener, started: Started) -> None:
        from mailfront_io.drivers import asyncio as driver

        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            runner.run(driver.serve([listener], on_started=started, report=self.report))


class Uvloop(Asyncio):
    def new_loop(self) -> asyncio.AbstractEventLoop:
        import uvloop

        return uvloop.new_event_loop()


class Trio(Server):
    def serve(self, listener: Listener, started: Started) -> None:
        from mailfront_io.drivers import trio as driver

        trio.run(partial(driver.serve, [listener], on_started=started, report=self.report))


class TrioMockClock(Driver):
    """trio's virtual clock, and streams in memory, so that nothing but the clock moves while all wait."""

    def play(self, stage: Stage, session: Session) -> bytes:
        # The clock jumps when nothing has happened for this long: a worker thread may be at its work.
        return trio.run(self._play, stage, session, clock=trio.testing.MockClock(autojump_threshold=0.05))

    async def _play(self, stage: Stage, session: Session) -> bytes:
        from mailfront_io.drivers.trio import serve_connection

        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_connection, theirs, lambda c: stage.session(c, self.done))
            return await self._client(ours, session)

    async def _client(self, stream: trio.StapledStream[Any, Any], session: Session) -> bytes:
        output = b""
        expected = 0
        for step in session.steps:
            if isinstance(step, Send):
                for piece in step.pieces():
                    await stream.send_all(piece)
            elif isinstance(step, Wait):
                await trio.sleep(step.seconds)
            elif isinstance(step, Expect):
                expected += len(step.data)
                while len(output) < expected:
                    if not (data := await stream.receive_some()):
                        return output
                    output += data
            else:
                assert step is Act.FIN
                await stream.send_eof()
        while data := await stream.receive_some():
            output += data
        return output


class Fork(Driver):
    """A process for each connection; the server is a process of its own, since its parent has no threads."""

    def start(self) -> None:
        self._stage = self.scratch / "stage"
        self._errors = self.scratch / "errors"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.conformance.forking_server",
                    str(self._stage),
                    str(self.done),
                ],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=[self.done],
                text=True,
            )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        with self._process:
            assert self._process.wait(SECONDS) == 0
        super().close()

    def play(self, stage: Stage, session: Session) -> bytes:
        self._stage.write_text(stage.to_json())
        output = Peer(SocketChannel(socket.create_connection(("127.0.0.1", self._port)))).play(session)
        assert self._errors.read_text() == ""
        return output


DRIVERS: dict[str, type[Driver]] = {
    "scripted": Scripted,
    "pipes": OneShotPipes,
    "socket": OneShotSocket,
    "threads": Threads,
    "fork": Fork,
    "asyncio": Asyncio,
    "uvloop": Uvloop,
    "trio": Trio,
}
VIRTUAL_TIME: dict[str, type[Driver]] = {"scripted": Scripted, "trio": TrioMockClock}
