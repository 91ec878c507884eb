"""Who is called about what can be read, by both ways, under both loops."""

import asyncio
import os
import select
import socket
from collections.abc import Callable

import pytest
import uvloop

from mailfront_io.drivers.asyncio import serve_connection
from mailfront_io.drivers.readiness import LoopsOwn, Readiness, readiness
from mailfront_io.ops import Connection, Recv, Send

LOOPS = (asyncio.new_event_loop, uvloop.new_event_loop)

Ways = Callable[[], Readiness]


@pytest.fixture(params=LOOPS, ids=("asyncio", "uvloop"))
def runner(request: pytest.FixtureRequest) -> "asyncio.Runner":
    return asyncio.Runner(loop_factory=request.param)


@pytest.mark.parametrize("way", [Readiness, LoopsOwn])
def test_who_can_read_is_called_until_removed(runner: asyncio.Runner, way: Ways) -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        ready = way()
        called: list[str] = []
        ours, theirs = socket.socketpair()
        with ours, theirs:
            before = sorted(os.listdir("/proc/self/fd"))
            ready.add(ours.fileno(), lambda: called.append(ours.recv(1).decode()), loop)
            theirs.send(b"ab")
            while len(called) < 2:
                await asyncio.sleep(0)
            ready.remove(ours.fileno(), loop)
            theirs.send(b"c")
            for _ in range(5):
                await asyncio.sleep(0)
            assert sorted(os.listdir("/proc/self/fd")) == before
        assert called == ["a", "b"]

    with runner:
        runner.run(check())


def test_one_that_is_removed_by_another_is_not_called(runner: asyncio.Runner) -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        ready = Readiness()
        pairs = [socket.socketpair() for _ in range(2)]
        called: list[int] = []

        def call(at: int) -> None:
            called.append(at)
            for ours, _ in pairs:
                ready.remove(ours.fileno(), loop)

        for at, (ours, theirs) in enumerate(pairs):
            theirs.send(b"x")
            ready.add(ours.fileno(), lambda at=at: call(at), loop)  # type: ignore[misc]
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(called) == 1
        for pair in pairs:
            for end in pair:
                end.close()

    with runner:
        runner.run(check())


def test_a_session_where_there_is_no_epoll(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "epoll")

    async def echo(connection: Connection) -> int:
        while data := await Recv():
            await Send(data)
        return 7

    assert type(readiness()) is LoopsOwn

    async def check() -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        with listening, socket.create_connection(listening.getsockname()) as client:
            ours, _ = listening.accept()
            served = asyncio.ensure_future(serve_connection(ours, echo))
            client.setblocking(False)
            for word in (b"one", b"two"):
                await asyncio.get_running_loop().sock_sendall(client, word)
                assert await asyncio.get_running_loop().sock_recv(client, 10) == word
            client.shutdown(socket.SHUT_WR)
            return await served

    with runner:
        assert runner.run(check()) == 7
