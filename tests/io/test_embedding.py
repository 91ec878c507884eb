"""The drivers inside a program of one's own: served listeners, one accepted stream, trio's mocked clock."""

import asyncio
import socket
import threading
from contextlib import ExitStack
from typing import Any

import pytest
import trio
import trio.testing

from mailfront_io.drivers import asyncio as asyncio_driver
from mailfront_io.drivers import blocking
from mailfront_io.drivers import trio as trio_driver
from mailfront_io.drivers.listener import Listener
from mailfront_io.ops import Connection, DeadlineExceeded, Recv, Send, Sleep


async def greet(connection: Connection) -> int:
    """A session: it waits for the peer, or for the server to stop."""
    assert connection.local is not None
    await Send(b"hi\r\n")
    await Recv(connection.clock.monotonic() + 10, idle=True)
    return 0


def unexpected(error: BaseException) -> None:
    raise error


class Peers:
    """In a thread: connects, and stops the server. `released` counts."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        self.released: list[str] = []
        self.output: list[bytes] = []
        self.listener = Listener(self.listening, greet, self._admit, self._release)
        self._thread: threading.Thread | None = None
        self._admitted = 0

    def _admit(self, remote: tuple[str, int] | None) -> bytes | None:
        assert remote is not None
        self._admitted += 1
        return b"421 too many\r\n" if self._admitted > 2 else None

    def _release(self, remote: tuple[str, int] | None) -> None:
        assert remote is not None
        self.released.append(remote[0])

    def start(self, stop: Any) -> None:
        self._thread = threading.Thread(target=self._run, args=(stop,))
        self._thread.start()

    def _run(self, stop: Any) -> None:
        with ExitStack() as stack:
            peers = [stack.enter_context(socket.create_connection(("127.0.0.1", self.port), 10)) for _ in range(3)]
            self.output = [peer.recv(100) for peer in peers]
            if stop is not None:
                stop()
            for number, peer in enumerate(peers):
                self.output[number] += peer.recv(100)

    def check(self) -> None:
        assert self._thread is not None
        self._thread.join(10)
        assert self.output == [b"hi\r\n", b"hi\r\n", b"421 too many\r\n"]
        assert self.released == ["127.0.0.1"] * 2
        assert self.listening.fileno() == -1


def test_embedded_blocking() -> None:
    peers = Peers()
    blocking.serve([peers.listener], on_started=peers.start, report=unexpected)
    peers.check()


def test_embedded_asyncio() -> None:
    peers = Peers()
    asyncio.run(asyncio_driver.serve([peers.listener], on_started=peers.start, report=unexpected))
    peers.check()


def test_embedded_asyncio_is_cancelled() -> None:
    async def main() -> None:
        serving = asyncio.create_task(asyncio_driver.serve([peers.listener], report=unexpected))
        await asyncio.sleep(0)
        await asyncio.to_thread(peers.start, lambda: asyncio.run_coroutine_threadsafe(cancel(serving), loop))
        with pytest.raises(asyncio.CancelledError):
            await serving

    async def cancel(task: "asyncio.Task[None]") -> None:
        task.cancel()

    peers = Peers()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        runner.run(main())
    peers.check()


def test_embedded_trio() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            stop = await nursery.start(serve)
            peers.start(stop)

    async def serve(task_status: Any) -> None:
        await trio_driver.serve([peers.listener], report=unexpected, task_status=task_status)

    peers = Peers()
    trio.run(main)
    peers.check()


def test_embedded_trio_is_cancelled() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            token = trio.lowlevel.current_trio_token()
            peers.start(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))

    async def serve(task_status: Any) -> None:
        await trio_driver.serve([peers.listener], report=unexpected, task_status=task_status)

    peers = Peers()
    trio.run(main)
    peers.check()


def test_one_accepted_stream() -> None:
    async def in_asyncio(connection: socket.socket) -> int:
        return await asyncio_driver.serve_connection(connection, answer)

    async def in_trio(connection: socket.socket) -> int:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
        return await trio_driver.serve_connection(stream, answer)

    async def answer(connection: Connection) -> int:
        await Send(b"<" + await Recv() + b">")
        return 7

    def in_this_thread(connection: socket.socket) -> int:
        return blocking.serve_connection(connection, answer)

    def in_a_loop(connection: socket.socket) -> int:
        return asyncio.run(in_asyncio(connection))

    def in_a_trio(connection: socket.socket) -> int:
        return trio.run(in_trio, connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        for serve in (in_this_thread, in_a_loop, in_a_trio):
            with socket.create_connection(listening.getsockname(), 10) as peer:
                peer.sendall(b"x")
                assert serve(listening.accept()[0]) == 7
                assert peer.recv(100) == b"<x>"
                assert peer.recv(100) == b""


# Virtual time under trio


def in_virtual_time(session: Any, peer: Any) -> float:
    """Run `session` under trio's mocked clock against `peer`, a function of the other end; returns seconds."""

    async def main() -> None:
        ours, theirs = trio.testing.lockstep_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer, theirs, nursery)
            await trio_driver.serve_connection(ours, session)
            nursery.cancel_scope.cancel()

    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(main, clock=clock)
    return clock.current_time()


def test_h20_deadlines_move_with_commands_and_not_with_bytes() -> None:
    began = 0.0

    async def session(connection: Connection) -> int:
        clock = connection.clock
        with pytest.raises(DeadlineExceeded):
            while True:
                deadline = clock.monotonic() + 300
                line = b""
                while not line.endswith(b"\n"):
                    line += await Recv(deadline)
        times.append(clock.monotonic() - began)
        await Sleep(1000)
        with pytest.raises(DeadlineExceeded):
            await Send(bytes(1 << 20), clock.monotonic() + 60)
        times.append(clock.monotonic() - began)
        return 0

    async def peer(stream: Any, _nursery: Any) -> None:
        nonlocal began
        began = trio.current_time()
        for _ in range(3):
            await trio.sleep(200)
            await stream.send_all(b"NOOP\n")
        try:
            while True:  # a byte a minute
                await trio.sleep(60)
                await stream.send_all(b"x")
        except trio.BrokenResourceError:
            pass  # the session has ended

    times: list[float] = []
    in_virtual_time(session, peer)
    assert times == pytest.approx([3 * 200 + 300, 3 * 200 + 300 + 1000 + 60])


def test_trio_clean_up_has_its_seconds_and_no_more() -> None:
    async def session(connection: Connection) -> int:
        try:
            await Sleep(100)
        finally:
            times.append(connection.clock.monotonic())
            await Sleep(3)
            with pytest.raises(DeadlineExceeded):
                await Recv(idle=True)
            times.append(connection.clock.monotonic())
        return 0

    async def peer(stream: Any, nursery: Any) -> None:
        await trio.sleep(10)
        nursery.cancel_scope.cancel()

    times: list[float] = []
    in_virtual_time(session, peer)
    assert times == pytest.approx([10, 15])
