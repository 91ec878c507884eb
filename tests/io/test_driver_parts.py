"""What the drivers are made of: accepting, worker threads, deadlines."""

import asyncio
import errno
import os
import queue
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from mailfront_io.drivers import asyncio as asyncio_driver
from mailfront_io.drivers import blocking as blocking_driver
from mailfront_io.drivers import trio as trio_driver
from mailfront_io.drivers.deadlines import NEVER, Deadlines
from mailfront_io.drivers.listener import (
    TAKEN_AT_ONCE,
    Backoff,
    Listener,
    Report,
    Stop,
    accept,
    address,
    report_to_stderr,
)
from mailfront_io.drivers.readiness import Readiness
from mailfront_io.drivers.threads import MAX_ABANDONED, MAX_THREADS, Call, ThreadPool
from mailfront_io.ops import Connection, DeadlineExceeded, Recv, Send, Sleep, Thread


async def greet(connection: Connection) -> int:
    """A session that is never run."""
    return 0


def unexpected(error: BaseException) -> None:
    raise error


class Unlucky:
    """A listening socket whose accept() fails."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)

    def accept(self) -> Any:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        raise BlockingIOError


def test_accept_passes_over_connections_that_are_gone() -> None:
    unlucky: Any = Unlucky(errno.ECONNABORTED, errno.EPROTO, errno.ENETUNREACH)
    assert accept(Listener(unlucky, greet), unexpected) is None
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EBADF):
        broken: Any = Unlucky(number)
        with pytest.raises(OSError, match=os.strerror(number)):
            accept(Listener(broken, greet), unexpected)


async def hello(connection: Connection) -> int:
    await Send(b"hello", connection.clock.monotonic() + 60)
    return 0


@contextmanager
def serving(driver: str, listener: Listener, report: Report = report_to_stderr) -> Iterator[None]:
    """Serve `listener` in a thread."""
    stop: list[Stop] = []
    started = threading.Event()

    def on_started(function: Stop) -> None:
        stop.append(function)
        started.set()

    def serve() -> None:
        if driver == "asyncio":
            asyncio.run(asyncio_driver.serve([listener], on_started=on_started, report=report))
        elif driver == "trio":
            trio.run(partial(trio_driver.serve, [listener], on_started=on_started, report=report))
        else:
            blocking_driver.serve([listener], on_started=on_started, report=report)

    server = threading.Thread(target=serve)
    server.start()
    try:
        assert started.wait(60)
        yield
    finally:
        for function in stop:
            function()
        server.join(60)
    assert not server.is_alive()


@pytest.mark.parametrize("driver", ["asyncio", "trio", "blocking"])
def test_a_connection_may_be_left_to_others(driver: str) -> None:
    """The first is taken by somebody else while this server rests; nobody takes the others, so that it does."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    elsewhere: list[socket.socket] = []
    rests: list[float] = []

    def rest() -> float:
        if not elsewhere:
            elsewhere.append(listening.accept()[0])
        rests.append(0.01)
        return rests[-1]

    with serving(driver, Listener(listening, hello, rest=rest)):
        with socket.create_connection(listening.getsockname(), 60) as first:
            until = time.monotonic() + 60
            while not elsewhere and time.monotonic() < until:
                time.sleep(0.001)
            elsewhere[0].sendall(b"elsewhere")
            elsewhere[0].close()
            assert first.makefile("rb").read() == b"elsewhere"
        for _ in range(2):  # the second may come while it rests because of the first
            with socket.create_connection(listening.getsockname(), 60) as connection:
                assert connection.makefile("rb").read() == b"hello"
        assert len(rests) >= 2


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")
def test_a_connection_that_the_system_does_not_watch_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """epoll has limits of its own: the session has not begun, its place is free again, and the next one is served."""
    listening = socket.create_server(("127.0.0.1", 0))
    add = Readiness.add
    released: list[Any] = []

    def not_the_first(readiness: Readiness, *arguments: Any) -> None:
        if not released:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(readiness, *arguments)

    monkeypatch.setattr(Readiness, "add", not_the_first)
    told: list[BaseException] = []
    with serving("asyncio", Listener(listening, hello, release=released.append), told.append):
        for reply in (b"", b"hello"):
            with socket.create_connection(listening.getsockname(), 60) as connection:
                assert connection.makefile("rb").read() == reply
    assert [error.errno for error in told if isinstance(error, OSError)] == [errno.ENOSPC]
    assert len(told) == 1 and len(released) == 2


def test_h22_sessions_have_their_turn_however_many_are_refused() -> None:
    """Connections that come as fast as they are refused must not keep a server in one turn for ever."""
    flood = iter(range(1000))
    many: Any = SimpleNamespace(accept=lambda: (socket.socket(), ("192.0.2.1", next(flood))))
    refused: list[object] = []

    def admit(remote: object) -> bytes | None:
        refused.append(remote)
        return b"421\r\n"

    assert accept(Listener(many, greet, admit), unexpected) is None
    assert len(refused) == TAKEN_AT_ONCE


@pytest.mark.parametrize("driver", ["asyncio", "trio", "blocking"])
def test_behind_many_that_are_refused_one_is_served(driver: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    admitted = iter([b"421\r\n"] * (3 * TAKEN_AT_ONCE) + [None])
    with ExitStack() as stack:
        *refused, last = [
            stack.enter_context(socket.create_connection(listening.getsockname(), 60))
            for _ in range(3 * TAKEN_AT_ONCE + 1)
        ]
        with serving(driver, Listener(listening, hello, lambda remote: next(admitted))):
            assert last.makefile("rb").read() == b"hello"
            assert {connection.makefile("rb").read() for connection in refused} == {b"421\r\n"}


def test_back_off_grows_and_is_said_once() -> None:
    reported: list[BaseException] = []
    backoff = Backoff(reported.append)
    assert [backoff.failed(OSError(errno.EMFILE, "x")) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert len(reported) == 1


def test_h91_the_soft_descriptor_limit_is_raised() -> None:
    program = """
import resource
from mailfront_io.drivers.listener import raise_descriptor_limit
hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 200)
for limits in ((64, hard), (64, 100)):
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": "src"})


_POLICY = """
import os, socket, sys
from mailfront_io.drivers import blocking
from mailfront_io.drivers.listener import Listener

def started(stop):
    print(os.sched_getscheduler(0))
    stop()

os.sched_setscheduler(0, int(sys.argv[1]), os.sched_param(0))
blocking.run_server([Listener(socket.create_server(("127.0.0.1", 0)), None)], on_started=started)
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="the policies are Linux's")
@pytest.mark.parametrize(("before", "after"), [("SCHED_OTHER", "SCHED_BATCH"), ("SCHED_IDLE", "SCHED_IDLE")])
def test_threads_do_not_interrupt_each_other_unless_somebody_has_chosen(before: str, after: str) -> None:
    command = [sys.executable, "-c", _POLICY, str(getattr(os, before))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) == getattr(os, after)


@pytest.mark.parametrize("driver", ["asyncio", "trio", "blocking"])
def test_who_says_much_at_a_time_is_read_in_large_pieces(driver: str) -> None:
    """Also while each piece is answered: a package or a message that is cut is read in parts, for twice the time."""
    sizes: list[int] = []

    async def session(connection: Connection) -> int:
        output = b""
        while data := await Recv(output=output):
            sizes.append(len(data))
            output = b"."
        return 0

    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(bytes(50_000))
        theirs.shutdown(socket.SHUT_WR)
        if driver == "blocking":
            blocking_driver.serve_connection(ours, session)
        elif driver == "asyncio":
            asyncio.run(asyncio_driver.serve_connection(ours, session))
        else:

            async def serve() -> None:
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
                await trio_driver.serve_connection(stream, session)

            trio.run(serve)
    assert sum(sizes) == 50_000
    assert len(sizes) <= 4


def test_admission_that_raises_refuses() -> None:
    def admit(remote: Any) -> bytes | None:
        raise LookupError

    reported: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_connection(listening.getsockname(), 10) as peer:
            listening.settimeout(5)
            listening.accept()[0].close()
            peer.close()
        listening.setblocking(False)
        with socket.create_connection(listening.getsockname(), 10) as peer:
            assert accept(Listener(listening, greet, admit), reported.append) is None
            assert peer.recv(10) == b""
    assert [type(error) for error in reported] == [LookupError]


def test_addresses() -> None:
    assert address(("::ffff:192.0.2.1", 25, 0, 0)) == ("192.0.2.1", 25)
    assert address(("2001:db8::1", 25, 0, 0)) == ("2001:db8::1", 25)
    assert address("/run/socket") is None


@pytest.mark.parametrize("driver", ["asyncio", "trio"])
def test_too_many_hanging_calls_are_refused(driver: str) -> None:
    async def session(connection: Connection) -> int:
        late = 0
        with pytest.raises(DeadlineExceeded, match="hang"):
            while True:
                try:
                    await Thread(release.wait, 10, deadline=connection.clock.monotonic() + 0.01)
                except DeadlineExceeded as error:
                    if "hang" in str(error):
                        raise
                    late += 1  # on a busy machine also without having begun, which does not count
        assert late >= MAX_ABANDONED
        release.set()
        while True:
            try:
                return await Thread(int, 5)
            except DeadlineExceeded:
                await Sleep(0.01)

    async def in_asyncio() -> int:
        return await asyncio_driver.serve_connection(ours, session)

    async def in_trio() -> int:
        return await trio_driver.serve_connection(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), session)

    release = threading.Event()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert (asyncio.run(in_asyncio()) if driver == "asyncio" else trio.run(in_trio)) == 5


@pytest.mark.parametrize("idle", [0.0, 0.001, 10.0])
def test_threads_come_and_go_and_no_connection_is_left_without(idle: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking_driver, "IDLE_THREAD_SECONDS", idle)
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    name = listening.getsockname()
    before = threading.active_count()
    most = 0

    async def note_threads(connection: Connection) -> int:
        nonlocal most
        most = max(most, threading.active_count() - before - 1)  # the server's own
        return await hello(connection)

    with serving("blocking", Listener(listening, note_threads)):
        batches = (1, 1, 1, 8, 1, 8, 3) * 8
        for at_once in batches:
            with ExitStack() as stack:
                for one in [stack.enter_context(socket.create_connection(name, 60)) for _ in range(at_once)]:
                    assert one.makefile("rb").read() == b"hello"
    assert idle < 10 or most < sum(batches) // 2
    until = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.001)
    assert threading.active_count() == before


def test_thread_pool_reuses_and_queues() -> None:
    pool = ThreadPool()
    done: queue.SimpleQueue[str] = queue.SimpleQueue()
    gate = threading.Event()

    def work() -> str:
        gate.wait(10)
        return threading.current_thread().name + str(threading.get_ident())

    for _ in range(MAX_THREADS + 5):
        pool.start(Call(work, (), lambda result, _error: done.put(result)))
    gate.set()
    names = {done.get(timeout=10) for _ in range(MAX_THREADS + 5)}
    assert 1 <= len(names) <= MAX_THREADS
    for _ in range(5):
        pool.start(Call(work, (), lambda result, _error: done.put(result)))
        names.add(done.get(timeout=10))
    assert len(names) <= MAX_THREADS


def test_deadlines_share_a_timer() -> None:
    class Who:
        timer_at = NEVER

        def __init__(self, name: str) -> None:
            self.name = name

        def on_time(self) -> None:
            fired.append(self.name)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines()
        now = time.monotonic()
        people = [Who("a"), Who("b"), Who("c")]
        for who, seconds in zip(people, (0.03, 0.01, 0.02), strict=True):
            deadlines.add(now + seconds, who, loop)
        deadlines.add(now + 0.04, people[1], loop)
        deadlines.remove(people[2])
        for _ in range(10_000):  # places given up do not pile up
            crowd = Who("d")
            deadlines.add(now + 100, crowd, loop)
            deadlines.remove(crowd)
        assert len(deadlines._heap) < 200
        await asyncio.sleep(0.08)
        assert deadlines._timer is None or not deadlines._heap

    fired: list[str] = []
    asyncio.run(main())
    assert fired == ["a", "b"]
