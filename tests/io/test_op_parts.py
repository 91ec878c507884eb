"""What the operations on peers, names and programs are made of: what the suite over all drivers does not reach."""

import asyncio
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mailfront_io.children import Child, HandOff, Ids, Spawn, SpawnFailed
from mailfront_io.drivers import asyncio as asyncio_driver
from mailfront_io.drivers import blocking, names, processes, threads
from mailfront_io.drivers import trio as trio_driver
from mailfront_io.ops import (
    Connection,
    ConnectionLost,
    DeadlineExceeded,
    Recv,
    Send,
    SessionFactory,
    Sleep,
    StartTLS,
    Thread,
)
from mailfront_io.peers import (
    Connect,
    Converse,
    Datagram,
    Exchange,
    Gather,
    Peer,
    Relay,
    Resolve,
    ResolveFailed,
    Scope,
    Unreachable,
)
from mailfront_io.testing import EOF, REFUSED, Advance, Late, Outside, PeerTLS, Program, WaitFor, run_script
from tests.certificates import client_context, server_context
from tests.io.helpers import Helpers
from tests.io.op_sessions import ENVIRONMENT, descriptors
from tests.io.peer import ROOT

DRIVERS = ["blocking", "asyncio", "trio"]


@pytest.fixture(scope="module")
def helpers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helpers]:
    with Helpers(tmp_path_factory.mktemp("helpers")) as helpers:
        yield helpers


def run(driver: str, session: SessionFactory) -> int:
    """Run `session` in this process, over a connection that nobody uses."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if driver == "blocking":
            return blocking.serve_connection(ours, session)
        if driver == "asyncio":
            return asyncio.run(asyncio_driver.serve_connection(ours, session))

        async def in_trio() -> int:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            return await trio_driver.serve_connection(stream, session)

        return trio.run(in_trio)


def settled(before: list[int]) -> bool:
    """Whether descriptors and children are what they were, within a while."""
    end = time.monotonic() + 60
    while descriptors() != before:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


# Scripted


def play(session: Any, **outside: Any) -> Any:
    """What `session` returns that is played alone."""
    answers: list[Any] = []

    async def one(connection: Connection) -> int:
        answers.append(await session(connection))
        return 0

    played = run_script(one, [], outside=Outside(**outside))
    return [answers[0], played]


def test_random_start_begins_anywhere_and_goes_round() -> None:
    async def session(connection: Connection) -> Any:
        return [(await Connect([("helper", 1)], random_start=True)).address for _ in range(40)]

    addresses = ["a", "b", "c"]
    peers = {("a", 1): REFUSED, ("b", 1): [b"x"], ("c", 1): [b"x"]}
    random.seed(1)
    seen, played = play(session, peers=peers, dns={("helper", "A"): addresses})
    assert set(seen) == {("b", 1), ("c", 1)}
    assert seen.count(("b", 1)) > seen.count(("c", 1)) > 5  # who begins at a comes to b
    assert len(played.peers) == 40


def test_the_text_of_unreachable_names_every_address() -> None:
    async def session(connection: Connection) -> Any:
        try:
            await Connect([("helper", 1), "/run/socket"], connection.clock.monotonic() + 9)
        except Unreachable as error:
            return str(error)

    text, _ = play(session, peers={("helper", 1): REFUSED, "/run/socket": REFUSED})
    assert text == "('helper', 1): connection refused; /run/socket: connection refused"


def test_a_peer_that_has_spoken_is_late_all_the_same() -> None:
    """Else one that never pauses would never be late."""

    async def session(connection: Connection) -> Any:
        peer = await Connect([("helper", 1)])
        with pytest.raises(DeadlineExceeded):
            await peer.recv(connection.clock.monotonic())
        return await peer.recv(connection.clock.monotonic() + 1)

    assert play(session, peers={("helper", 1): [b"x"]})[0] == b"x"


def test_four_slow_lists_take_the_time_of_one() -> None:
    async def session(connection: Connection) -> Any:
        began = connection.clock.monotonic()
        found = await Gather([Resolve(f"{i}.list.example", "A", began + 1.2) for i in range(5)])
        return [type(one).__name__ for one in found], connection.clock.monotonic() - began

    dns = {(f"{i}.list.example", "A"): Late(1.0, ["127.0.0.2"]) for i in range(4)}
    (kinds, seconds), _ = play(session, dns={**dns, ("4.list.example", "A"): Late(9.0, [])})
    assert kinds == ["tuple"] * 4 + ["DeadlineExceeded"]
    assert seconds == pytest.approx(1.2)


def test_a_scripted_session_that_asks_for_the_unforeseen_fails_with_a_sentence() -> None:
    async def connects(connection: Connection) -> Any:
        await Connect([("x", 1)])

    async def starts(connection: Connection) -> Any:
        await Spawn(["x"], {})

    async def sends(connection: Connection) -> Any:
        await Datagram(("x", 1), b"", lambda data: data)

    for session, words in ((connects, "not among `peers`"), (starts, "among `programs`"), (sends, "`datagrams`")):
        with pytest.raises(AssertionError, match=words):
            play(session)


def test_a_client_converses_with_a_peer_as_with_its_own() -> None:
    """Recv with output, TLS, sleeping, an exception, the result."""

    async def client(connection: Connection) -> bytes:
        end = connection.clock.monotonic() + 60
        said = await Recv(end, output=b"hello\n")
        await Send(b"tls\n", end)
        facts = await StartTLS(client_context(), False, "mx.example.org", end)
        await Sleep(1)
        said += await Recv(end, output=b"inside\n") + facts.protocol.encode()
        try:
            await Recv(connection.clock.monotonic() + 1)
        except DeadlineExceeded:
            said += b" late"
        return said

    async def session(connection: Connection) -> Any:
        with await Connect([("mx", 25)]) as peer:
            return await Converse(peer, client(connection))

    tls = PeerTLS(server_context(), server_side=True)
    script = [WaitFor(b"hello\n"), b"HELLO\n", WaitFor(b"tls\n"), tls, WaitFor(b"inside\n"), b"INSIDE "]
    said, played = play(session, peers={("mx", 25): script})
    assert said == b"HELLO\nINSIDE TLSv1.3 late"
    assert played.peers[0][1].endswith(b"hello\ntls\ninside\n")


def test_the_longest_scope_of_a_handle_is_the_session() -> None:
    async def session(connection: Connection) -> Any:
        scope = Scope()
        for _ in range(3):
            with await Connect([("helper", 1)], scope=scope):
                pass
        kept = await Connect([("helper", 1)], scope=scope)
        left.append(await Connect([("helper", 1)]))
        left.append(await Spawn(["daemon"], {}))
        with scope:
            assert not kept.closed
        return kept.closed, [handle.closed for handle in left]

    left: list[Peer | Child] = []
    program = Program(seconds=99)
    answer, played = play(session, peers={("helper", 1): [b"x"]}, programs={"daemon": program})
    assert answer == (True, [False, False])
    assert [handle.closed for handle in left] == [True, True]
    assert played.programs[0].killed
    assert played.elapsed == 0


def test_misuse_is_told() -> None:
    with pytest.raises(ValueError, match="A, AAAA, MX or TXT"):
        Resolve("x", "PTR")  # type: ignore[call-overload]
    for options in ({"writes": (0, 0)}, {"writes": (0,), "reads": (0,)}, {"reads": (3,)}):
        with pytest.raises(ValueError, match="0, 1 and 2"):
            Spawn(["x"], {}, **options)
    for kind in (Spawn, HandOff):
        with pytest.raises(ValueError, match="at least its name"):
            kind([], {})


# Real


@pytest.mark.parametrize("driver", DRIVERS)
def test_pipes_go_one_way(driver: str) -> None:
    async def session(connection: Connection) -> int:
        with await Spawn(["cat"], ENVIRONMENT, writes=(0,), reads=(1,)) as cat:
            for operation in (cat.pipes[0].recv(), cat.pipes[1].send(b"x")):
                with pytest.raises(RuntimeError, match="this pipe is"):
                    await operation
            await cat.pipes[0].send(b"x")
            await cat.pipes[0].send_eof()
            with pytest.raises(RuntimeError, match="send_eof"):
                await cat.pipes[0].send(b"x")
            assert await cat.pipes[1].recv() == b"x"
            assert await cat.pipes[1].recv() == b""
            return await cat.wait()

    assert run(driver, session) == 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_program_that_starts_too_late_is_killed(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    has_started = threading.Event()

    def slowly(operation: Spawn, start: Any = processes._start) -> Any:
        time.sleep(0.2)
        result = start(operation)
        has_started.set()
        return result

    async def session(connection: Connection) -> int:
        with pytest.raises(DeadlineExceeded):
            deadline = connection.clock.monotonic() + 0.1
            await Spawn(["sleep", "60"], ENVIRONMENT, writes=(0,), socket=(1,), deadline=deadline)
        return 3

    async def nothing(connection: Connection) -> int:
        return await Thread(int, 3)

    assert run(driver, nothing) == 3
    before = descriptors()
    monkeypatch.setattr(processes, "_start", slowly)
    assert run(driver, session) == 3
    assert has_started.wait(60)
    assert settled(before)


@pytest.mark.parametrize("driver", DRIVERS)
def test_waiting_for_programs_where_the_system_does_not_tell(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def session(connection: Connection) -> int:
        now = connection.clock.monotonic()
        with await Spawn(["sleep", "60"], ENVIRONMENT) as child:
            with pytest.raises(DeadlineExceeded):
                await child.wait(now + 0.1)
            child.kill()
            return await child.wait(now + 9)

    monkeypatch.delattr(os, "pidfd_open")
    before = descriptors()
    assert run(driver, session) == -9
    assert settled(before)


@pytest.mark.parametrize("driver", DRIVERS)
def test_calls_that_hang_cost_no_descriptor(driver: str) -> None:
    """A look-up in a thread whose wait is over; the thread goes on for a while."""

    async def session(connection: Connection) -> int:
        now = connection.clock.monotonic()
        late: list[Any] = await Gather([Thread(gate.wait, 10, deadline=now + 0.1), Thread(int, 5)])
        assert isinstance(late[0], DeadlineExceeded)
        gate.set()
        return int(late[1])

    gate = threading.Event()
    before = descriptors()
    assert run(driver, session) == 5
    assert settled(before)


@pytest.mark.parametrize("driver", ["asyncio", "trio"])
def test_what_can_always_be_done_at_once_holds_up_nobody(driver: str, helpers: Helpers) -> None:
    """A session that never has to wait, and one beside it that wants its turns."""

    async def greedy(connection: Connection) -> int:
        peer = await Connect([helpers.addresses["checksum"]])
        end = connection.clock.monotonic() + 3
        while connection.clock.monotonic() < end:
            await peer.send(b"x", end + 5)
        return 0

    async def modest(connection: Connection) -> int:
        for _ in range(20):
            began = connection.clock.monotonic()
            await Sleep(0.01)
            waits.append(connection.clock.monotonic() - began)
        return 0

    waits: list[float] = []
    (one, _one), (two, _two) = socket.socketpair(), socket.socketpair()

    async def in_asyncio() -> None:
        serve = asyncio_driver.serve_connection
        await asyncio.gather(serve(one, greedy), serve(two, modest))

    async def in_trio() -> None:
        async with trio.open_nursery() as nursery:
            for connection, session in ((one, greedy), (two, modest)):
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
                nursery.start_soon(trio_driver.serve_connection, stream, session)

    with one, two, _one, _two:
        asyncio.run(in_asyncio()) if driver == "asyncio" else trio.run(in_trio)
    assert max(waits) < 2.5  # else one of them waits for the end


def test_trio_keeps_the_deadlines_of_its_own_clock(helpers: Helpers) -> None:
    """An hour passes in no time."""

    async def session(connection: Connection) -> int:
        began = connection.clock.monotonic()
        peer = await Connect([helpers.addresses["silence"]])
        late: list[Any] = await Gather([peer.recv(began + 1800), Sleep(3000)], began + 3600)
        assert [type(one).__name__ for one in late] == ["DeadlineExceeded", "NoneType"]
        with pytest.raises(DeadlineExceeded):
            await Datagram(helpers.addresses["stranger"], b"x", lambda _: None, waits=(100, 500))
        return int(connection.clock.monotonic() - began)

    async def main() -> int:
        ours, _theirs = trio.testing.memory_stream_pair()
        return await trio_driver.serve_connection(ours, session)

    assert 3600 <= trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.05)) < 3700


def test_trio_relays_sockets_only(helpers: Helpers) -> None:
    async def session(connection: Connection) -> int:
        peer = await Connect([helpers.addresses["silence"]])
        with pytest.raises(RuntimeError, match="StapledStream"):
            await Relay(peer)
        return 0

    async def main() -> int:
        ours, _theirs = trio.testing.memory_stream_pair()
        return await trio_driver.serve_connection(ours, session)

    assert trio.run(main) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may run programs as anybody")
def test_ids_that_cannot_be_had() -> None:
    async def session(connection: Connection) -> int:
        with pytest.raises(SpawnFailed) as failed:
            await Spawn(["true"], ENVIRONMENT, ids=Ids(0, 0))
        assert failed.value.step == "ids"
        with await Spawn(["true"], ENVIRONMENT, ids=Ids(os.geteuid(), os.getegid())) as child:
            return await child.wait()

    assert run("blocking", session) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_one_shot_program_takes_on_ids_before_it_is_replaced(tmp_path: Path) -> None:
    """Groups, group, user, then the directory: one that only they may enter."""
    os.chown(tmp_path, 65534, 65533)
    os.chmod(tmp_path, 0o700)
    for parent in tmp_path.parents:
        if parent != Path("/") and parent != Path("/tmp"):
            os.chmod(parent, 0o755)
    program = f"""
from mailfront_io.children import HandOff, Ids
from mailfront_io.drivers.oneshot import run_descriptors
async def session(connection):
    script = "id -u; id -g; id -G; pwd; grep SigIgn /proc/self/status; cat"
    return await HandOff(
        ["sh", "-c", script], {{"PATH": "/usr/bin:/bin"}}, ids=Ids(65534, 65533, (65532,)), directory={str(tmp_path)!r}
    )
run_descriptors(session)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=b"rest",
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    lines = done.stdout.decode().split("\n")
    assert lines[:4] == ["65534", "65533", "65533 65532", str(tmp_path)]
    assert int(lines[4].split()[1], 16) & (1 << 12 | 1 << 24) == 0  # SIGPIPE, SIGXFSZ
    assert (lines[5:], done.stderr) == (["rest"], b"")


def test_a_peer_that_closes_early_is_told_by_writes() -> None:
    async def session(connection: Connection) -> int:
        with await Spawn(["true"], ENVIRONMENT, writes=(0,)) as child:
            await child.wait()
            with pytest.raises(ConnectionLost):
                await child.pipes[0].send(b"x")
        return 0

    assert run("blocking", session) == 0


# Names


def test_without_dnspython_one_sentence_says_what_to_install() -> None:
    program = """
import socket, sys
sys.modules["dns"] = None
from mailfront_io.drivers import blocking
from mailfront_io.peers import Resolve
async def session(connection):
    try:
        await Resolve("mail.example", "A")
    except ModuleNotFoundError as error:
        print(error)
    return 0
ours, theirs = socket.socketpair()
blocking.serve_connection(ours, session)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}
    )
    sentence = "DNS lookups need dnspython, which is not installed: pip install 'mailfront[dns]'\n"
    assert (done.stdout.decode(), done.stderr) == (sentence, b"")


def test_answers_are_kept_as_long_as_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("mailfront_io.drivers.names.time.monotonic", lambda: now)
    cache = names.Cache()
    cache.put(("a", "A"), ("192.0.2.1",), 60)
    cache.put(("b", "A"), (), 1e9)
    assert cache.get(("a", "A")) == ("192.0.2.1",)
    assert cache.get(("a", "MX")) is None
    now += 60
    assert cache.get(("a", "A")) is None
    assert cache.get(("b", "A")) == ()
    now += 3600
    assert cache.get(("b", "A")) is None
    for number in range(names.CACHE_SIZE + 10):
        cache.put((str(number), "A"), (), 60)
    assert cache.get(("9", "A")) is None
    assert cache.get(("10", "A")) == ()
    cache.clear()
    assert cache.get(("10", "A")) is None


def test_name_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def found() -> list[str]:
        return [str(place) for place in names.name_servers()]

    monkeypatch.setenv("NAMESERVERS", "192.0.2.1 192.0.2.2:5300 [2001:db8::1]:54 192.0.2.4")
    assert found() == ["192.0.2.1 port 53", "192.0.2.2 port 5300", "2001:db8::1 port 54"]
    monkeypatch.setenv("NAMESERVERS", "2001:db8::1 localhost")
    assert found() == ["2001:db8::1 port 53"]
    monkeypatch.delenv("NAMESERVERS")
    configuration = tmp_path / "resolv.conf"
    monkeypatch.setattr(names, "RESOLV_CONF", str(configuration))
    assert found() == ["127.0.0.1 port 53"]
    configuration.write_text("# nameserver 192.0.2.9\nsearch x\nnameserver 192.0.2.1\nnameserver\t::1 \n")
    assert found() == ["192.0.2.1 port 53", "::1 port 53"]
    configuration.write_text("nameserver 192.0.2.3\n")
    os.utime(configuration, (5, 5))
    assert found() == ["192.0.2.3 port 53"]


def test_a_server_that_does_not_answer_is_passed_over(helpers: Helpers, monkeypatch: pytest.MonkeyPatch) -> None:
    async def session(connection: Connection) -> int:
        now = connection.clock.monotonic
        assert await Resolve("alias.example", "MX", now() + 9) == (
            (10, "mx.mail.example"),
            (20, "backup.mail.example"),
        )
        with pytest.raises(ResolveFailed, match=r"broken\.example A: .* port \d+: the name server said SERVFAIL"):
            await Resolve("broken.example", "A", now() + 9)
        return 0

    dead, live = helpers.addresses["udp_refused"], helpers.addresses["name_server"]
    monkeypatch.setenv("NAMESERVERS", f"127.0.0.1:{dead[1]} 127.0.0.1:{live[1]}")
    names.CACHE.clear()
    assert run("blocking", session) == 0


def test_abandoned_calls_are_told_from_ended_ones() -> None:
    ended = threads.Call(int, (), lambda _result, _error: None)
    ended.run()
    assert not ended.abandon()
    abandoned = threads.Call(int, (), lambda _result, _error: None)
    assert abandoned.abandon()
    abandoned.run()


def test_scripted_end_of_a_program_is_an_end_of_its_output() -> None:
    async def session(connection: Connection) -> Any:
        with await Spawn(["p"], {}, reads=(1,), writes=(0,)) as child:
            done = await Exchange({child.pipes[0]: [b"a", b"b"]}, {child.pipes[1]: 9})
            return done.received[child.pipes[1]], await child.wait()

    program = Program({0: [WaitFor(b"ab")], 1: [b"out", Advance(2), b"put", EOF]}, code=5)
    answer, played = play(session, programs={"p": program})
    assert answer == (b"output", 5)
    assert played.programs[0].received == {0: bytearray(b"ab"), 1: bytearray()}
    assert played.elapsed == 2
