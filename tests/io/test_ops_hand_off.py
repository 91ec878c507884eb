"""Relaying the session's stream, and handing it over to a program, under every driver."""

import os
import select
import socket
import ssl
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mailfront_io.drivers import oneshot
from mailfront_io.ops import Connection, Recv, RecvLine, Send
from mailfront_io.testing import (
    CANCEL,
    EOF,
    RESET,
    STOP,
    UNTIL_EOF,
    Action,
    Advance,
    Outside,
    PeerTLS,
    Program,
    WaitFor,
    run_script,
)
from tests.certificates import client_context, write_pem
from tests.io.helpers import Helpers
from tests.io.peer import ROOT, Server, play
from tests.io.sessions import recorded

SERVERS = ["threads", "fork", "asyncio", "uvloop", "trio"]
REAL = ["oneshot", *SERVERS]

HI = WaitFor(b"220 hi\r\n")
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
PIECE = bytes(range(256)) * 256
CLIENT_TLS = PeerTLS(client_context(), "mx.example.org")
TLS: list[Action] = [b"starttls\r\n", WaitFor(b"go"), CLIENT_TLS]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pem(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def helpers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helpers]:
    with Helpers(tmp_path_factory.mktemp("helpers")) as helpers:
        yield helpers


@pytest.fixture(scope="module")
def servers(certificate: Path) -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:

        class Servers(dict[str, Server]):
            def __missing__(self, driver: str) -> Server:
                server = self[driver] = stack.enter_context(Server(driver, certificate))
                return server

        yield Servers()


def relay_to(helpers: Helpers, name: str, idle: str = "9") -> bytes:
    host, port = helpers.addresses[name]
    return f"relay {host} {port} {idle}\r\n".encode()


@pytest.mark.parametrize("inside", ["plain", "tls"])
@pytest.mark.parametrize("driver", REAL)
def test_much_is_relayed_both_ways_past_a_slow_reader(
    driver: str, inside: str, servers: dict[str, Server], helpers: Helpers
) -> None:
    """50 MB there and back at once (12 inside TLS), while the reader stops now and then; the end is passed on."""
    pieces = 800 if inside == "plain" else 200
    server = servers[driver]
    connection: socket.socket = server.connect()
    port = connection.getsockname()[1]
    connection.settimeout(30)
    assert connection.recv(100) == b"220 hi\r\n"
    if inside == "tls":
        connection.sendall(b"starttls\r\n")
        assert connection.recv(100) == b"220 go\r\n"
        connection = client_context().wrap_socket(
            connection, server_hostname="mx.example.org", suppress_ragged_eofs=False
        )

    expected = zlib.crc32(b"first")
    for _ in range(pieces):
        expected = zlib.crc32(PIECE, expected)
    size = pieces * len(PIECE) + 5
    pending = [relay_to(helpers, "echo") + b"first", *[PIECE] * pieces]
    received = crc = reads = 0
    connection.setblocking(False)  # in one thread: OpenSSL does not read and write in two
    with connection:
        while received < size:
            try:
                while pending:
                    pending[0] = pending[0][connection.send(pending[0]) :]
                    if not pending[0]:
                        del pending[0]
                        if not pending and inside == "plain":
                            connection.shutdown(socket.SHUT_WR)
            except NOT_NOW:
                pass
            reads += 1
            if reads % 200 == 0:
                time.sleep(0.01)
            try:
                data = connection.recv(1 << 16)
                assert data
                received += len(data)
                crc = zlib.crc32(data, crc)
            except NOT_NOW:
                select.select([connection], [connection] if pending else [], [], 10)
        connection.settimeout(10)
        if inside == "plain":
            assert connection.recv(1) == b""
        else:
            assert isinstance(connection, ssl.SSLSocket)
            connection.unwrap().close()  # close_notify both ways
    assert (received, crc) == (size, expected)
    outcome = server.outcome(port)
    if inside == "tls":
        assert outcome.pop(0).startswith("TLSv1.3")
    assert outcome == [f"relayed {size} {size}", "eof", "returned 4"]


@pytest.mark.parametrize("driver", REAL)
def test_relay_with_one_who_ends_breaks_or_is_silent(
    driver: str, servers: dict[str, Server], helpers: Helpers
) -> None:
    server = servers[driver]

    def one(*script: Action) -> tuple[bytes, list[str]]:
        connection = server.connect()
        port = connection.getsockname()[1]
        output = play(connection, [HI, *script])
        return output.removeprefix(b"220 hi\r\n"), server.outcome(port)

    shout = relay_to(helpers, "shout")
    assert one(shout, b"a\n", WaitFor(b"A\n"), b"bye\n", WaitFor(b"BYE\n"), EOF) == (
        b"A\nBYE\n",
        ["relayed 6 6", "eof", "returned 4"],
    )
    assert one(relay_to(helpers, "checksum"), b"abc", EOF) == (b"3 891568578\n", ["relayed 3 12", "eof", "returned 4"])
    output, outcome = one(relay_to(helpers, "reset"), b"abc", Advance(0.2), EOF)
    assert output == b""
    assert outcome == ["relayed 3 0", "eof", "returned 4"]
    assert one(relay_to(helpers, "silence", "0.2")) == (b"", ["idle", "late", "returned 6"])
    *_, outcome = one(shout, b"a\n", WaitFor(b"A\n"), RESET)
    assert outcome[0] == "relayed 2 2"
    assert outcome[-1] in ("returned 3", "returned 4")


PROGRAM = b"handoff echo hello; head -n1; echo $MARK; pwd; exit 7\r\n"
SAID = b"hello\nsome input\nmailfront-test\n/\n"


@pytest.mark.parametrize("inside", ["plain", "tls"])
@pytest.mark.parametrize("driver", SERVERS)
def test_a_server_hands_off_to_a_child(driver: str, inside: str, servers: dict[str, Server]) -> None:
    """Input in the same segment as the command belongs to the program."""
    server = servers[driver]
    connection = server.connect()
    port = connection.getsockname()[1]
    before = [HI, *(TLS if inside == "tls" else [])]
    output = play(connection, [*before, PROGRAM + b"some input\n", WaitFor(b"/\n")])
    assert output.endswith(b"\r\n" + SAID)
    outcome = server.outcome(port)
    if inside == "tls":
        assert outcome.pop(0).startswith("TLSv1.3")
    assert outcome == ["handing off", "program returned 7", "eof", "returned 4"]


@pytest.mark.parametrize("driver", SERVERS)
def test_a_program_that_exits_ends_the_relay(driver: str, servers: dict[str, Server]) -> None:
    """A client that neither talks nor closes is not waited for."""
    server = servers[driver]
    with server.connect() as connection:
        port = connection.getsockname()[1]
        connection.sendall(b"handoff echo hello; exit 7\r\n")
        connection.settimeout(5)
        with connection.makefile("rb") as file:
            assert file.read() == b"220 hi\r\nhello\n"
        assert server.note(f"{port} ") == "handing off"
        assert server.note(f"{port} ") == "program returned 7"
    server.outcome(port)


@pytest.mark.parametrize("driver", SERVERS)
def test_a_program_that_outlives_its_connection_is_killed(driver: str, servers: dict[str, Server]) -> None:
    server = servers[driver]
    connection = server.connect()
    port = connection.getsockname()[1]
    began = time.monotonic()
    play(connection, [HI, b"handoff echo hello; exec >&- <&-; exec sleep 60\r\n", WaitFor(b"hello\n")])
    assert server.outcome(port) == ["handing off", "program returned -9", "eof", "returned 4"]
    assert time.monotonic() - began < 45


@pytest.mark.parametrize("driver", SERVERS)
def test_cancellation_reaches_a_session_that_was_handed_off(driver: str, certificate: Path) -> None:
    with Server(driver, certificate) as server:
        connection = server.connect()
        port = connection.getsockname()[1]
        script: list[Action] = [HI, b"handoff echo hello; cat\r\n", WaitFor(b"hello\n"), STOP, Advance(0.1), CANCEL]
        play(connection, script, server.stop, server.stop)
        assert server.outcome(port) == ["handing off", "raised Cancelled"]
        server.note("ended")
        assert server.wait() == 0


@pytest.mark.parametrize("how", ["lines", "tls", "first"])
def test_one_shot(how: str, certificate: Path) -> None:
    """The program takes the process's place where it can: where no input is lost by that, and without TLS."""
    script: list[Action] = [b"handoff echo $$ $PPID; cat; ls /proc/self/fd | wc -l; exit 7\r\nsome input\n", EOF]
    if how == "lines":
        script = [b"lines\r\n", b"echo x\r\n", WaitFor(b"x"), *script]
    elif how == "tls":
        script = [*TLS, b"handoff echo $$ $PPID; head -n1; exit 7\r\nsome input\n", WaitFor(b"put\n")]
    with Server("oneshot", certificate) as server:
        output = play(server.connect(), [HI, *script])
        process = server.pid
        notes = [server.note("0 ")]
        if how == "tls":
            assert notes.pop().startswith("TLSv1.3")
            notes.append(server.note("0 "))
        assert notes == ["handing off"]
        code = server.wait()
    words = output.split(b"\r\n")[-1].split(b"\n")
    pid, parent = map(int, words[0].split())
    assert words[1] == b"some input"
    if how == "lines":
        assert pid == process
        assert words[2] == b"4"  # 0 to 2, and that of the listing
        assert code == 7
    else:
        assert parent == process
        assert code == 4  # of a session that finds the end behind it


def test_one_shot_on_pipes_leaves_what_follows_the_line() -> None:
    program = """
from mailfront_io.children import HandOff
from mailfront_io.drivers.oneshot import run_descriptors
from mailfront_io.ops import RecvLine, Send
async def session(connection):
    line = b""
    while not line.endswith(b"\\n"):
        line += await RecvLine(connection.clock.monotonic() + 5, output=b"")
    await Send(b"got " + line)
    return await HandOff(["cat"], {"PATH": "/usr/bin:/bin"})
run_descriptors(session)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=b"one\ntwo\nthree",
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"got one\ntwo\nthree", b"", 0)


@pytest.mark.parametrize("what", ["socket", "pipe"])
def test_recv_line_takes_no_more_than_a_line(what: str) -> None:
    async def session(connection: Connection) -> int:
        line = b""
        while not line.endswith(b"\n"):
            line += await RecvLine(connection.clock.monotonic() + 5, output=b"> ")
        lines.append(line)
        lines.append(await Recv(connection.clock.monotonic() + 5))
        lines.append(await RecvLine(connection.clock.monotonic() + 5))
        await Send(b"bye")
        return 0

    lines: list[bytes] = []
    if what == "socket":
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(b"one\ntwo\nthree")
            theirs.shutdown(socket.SHUT_WR)
            assert oneshot.run_descriptors(session, ours.fileno(), ours.fileno()) == 0
            assert theirs.recv(100) == b"> bye"
    else:
        (input_fd, to_session), (from_session, output_fd) = os.pipe(), os.pipe()
        os.write(to_session, b"one\ntwo\nthree")
        os.close(to_session)
        assert oneshot.run_descriptors(session, input_fd, output_fd) == 0
        os.close(output_fd)
        os.close(input_fd)
        with open(from_session, "rb") as file:
            assert file.read() == b"> " * 4 + b"bye"
    assert lines == [b"one\n", b"two\nthree", b""]


def test_hand_off_that_fails_can_be_told() -> None:
    program = """
import sys
from mailfront_io.children import HandOff, Ids, SpawnFailed
from mailfront_io.drivers.oneshot import run_descriptors
from mailfront_io.ops import Send
async def session(connection):
    for more in ({}, {"directory": "/no/such"}, {"first": b"x"}):
        try:
            await HandOff(["/no/such/program"], {}, **more)
        except SpawnFailed as error:
            await Send(f"{error.step}: {error}\\n".encode())
    return 3
sys.exit(run_descriptors(session))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.stdout.decode().splitlines() == [
        "execute: /no/such/program: no such file or directory",
        "directory: /no/such/program: directory /no/such: no such file or directory",
        "execute: /no/such/program: no such file or directory",
    ]
    assert (done.stderr, done.returncode) == (b"", 3)


@pytest.mark.parametrize("inside", ["plain", "tls"])
def test_scripted(inside: str, certificate: Path) -> None:
    """The session's output is the program's, and its input what came behind the command."""
    notes: list[str] = []
    sh = Program(socket=[WaitFor(b"some "), WaitFor(b"input"), b"bye", UNTIL_EOF], code=7)
    played = run_script(
        lambda connection: recorded(connection, notes.append, certificate),
        [HI, *(TLS if inside == "tls" else []), b"handoff x\r\nsome ", b"input", WaitFor(b"bye"), EOF],
        outside=Outside(programs={"sh": sh}),
    )
    assert played.output.endswith(b"\r\nbye")
    (ran,) = played.programs
    assert (ran.received, ran.killed) == ({0: bytearray(b"some input")}, False)
    assert notes[-4:] == ["50000 handing off", "50000 program returned 7", "50000 eof", "50000 returned 4"]
