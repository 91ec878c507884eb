"""One suite over all drivers: the same sessions, the same scripts, the same bytes and outcomes.

The scripted driver plays the scripts in virtual time. The others are real servers in processes of their own,
and a real peer plays; what must wait there waits for a fraction of a second.
"""

import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from mailfront_io.testing import (
    CANCEL,
    EOF,
    READ,
    RESET,
    STALL,
    STOP,
    Action,
    Advance,
    PeerTLS,
    WaitFor,
    run_script,
)
from tests.certificates import client_context, write_pem
from tests.io.peer import Server, play
from tests.io.sessions import PIECE, recorded

SERVERS = ["threads", "fork", "asyncio", "uvloop", "trio"]
DRIVERS = ["scripted", "oneshot", *SERVERS]

HI = WaitFor(b"220 hi\r\n")
INPUT = bytes(range(251)) * 9_000  # 2.2 MB
CLIENT_TLS = PeerTLS(client_context(), "mx.example.org")


@dataclass
class Case:
    """`script` gives `output` and `notes`. `output` None: the peer does not read to the end."""

    name: str
    script: Sequence[Action]
    output: bytes | None
    notes: Sequence[str]


def said(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in ["220 hi", *lines]).encode()


CASES = [
    Case("lines", [HI, b"echo a\r\n", WaitFor(b"a"), b"echo b\r\nquit\r\n"], said("a", "b", "221 bye"), ["returned 0"]),
    Case("talk first", [b"echo a\r\necho ", b"b\r\n", b"quit\r\n"], said("a", "b", "221 bye"), ["returned 0"]),
    Case("deadline", [HI, b"late\r\nquit\r\n"], said("late", "late", "221 bye"), ["returned 0"]),
    Case("sleep", [HI, b"sleep\r\n", b"quit\r\n"], said("slept", "221 bye"), ["returned 0"]),
    Case(
        "thread",
        [HI, b"thread\r\n", b"quit\r\n"],
        said("1", "ValueError", "late", "7", "221 bye"),
        ["returned 0"],
    ),
    Case("no operation", [HI, b"wrong\r\nquit\r\n"], said("TypeError", "221 bye"), ["returned 0"]),
    Case("crash", [HI, b"crash\r\n"], said(), ["raised LookupError"]),
    Case("much output", [HI, b"give 48\r\nquit\r\n"], said() + PIECE * 48 + b"221 bye\r\n", ["returned 0"]),
    Case(
        "much output, read late",
        [HI, b"give 128\r\nquit\r\n", STALL, Advance(0.2), READ],
        said() + PIECE * 128 + b"221 bye\r\n",
        ["returned 0"],
    ),
    Case(
        "much input",
        [HI, b"take %d\r\n" % len(INPUT), WaitFor(b"go"), INPUT, b"quit\r\n"],
        said("go", str(zlib.crc32(INPUT)), "221 bye"),
        ["returned 0"],
    ),
    Case(
        "input while the session is busy",
        [HI, b"nap 0.1\r\n", WaitFor(b"nap"), b"echo ", Advance(0.02), b"a\r\n", b"quit\r\n", EOF],
        said("napping", "awake", "a", "221 bye"),
        ["returned 0"],
    ),
    Case(
        "h15 talk behind the end",
        [HI, b"quit\r\n" + b"echo x\r\n" * 9_000],
        said("221 bye"),
        ["returned 0"],
    ),
    Case(
        "h21 peer never reads",
        [HI, b"flood 0.3\r\n", STALL, Advance(0.6), RESET],
        None,
        ["bounded", "late", "returned 6"],
    ),
    Case(
        "output and answer",
        [HI, b"ask 9 0\r\n", WaitFor(b"who?"), b"echo me\r\n", WaitFor(b"me"), b"quit\r\n"],
        said("who?", "me", "221 bye"),
        ["returned 0"],
    ),
    Case(
        "deadline that has moved on",
        [HI, b"ask 0.2 0\r\n", WaitFor(b"who?"), b"echo me\r\n", WaitFor(b"me"), Advance(0.4), b"quit\r\n"],
        said("who?", "me", "221 bye"),
        ["returned 0"],
    ),
    Case(
        "output and no answer",
        [HI, b"ask 0.1 0\r\n", WaitFor(b"who?"), Advance(0.2), b"quit\r\n"],
        said("who?", "221 bye"),
        ["peer says nothing", "returned 0"],
    ),
    Case(
        "much output and answer, read late",
        [HI, b"ask 9 128\r\n", STALL, Advance(0.2), READ, WaitFor(b"who?"), b"echo me\r\nquit\r\n"],
        said() + PIECE * 128 + b"who?\r\nme\r\n221 bye\r\n",
        ["returned 0"],
    ),
    Case(
        "much output and answer, peer never reads",
        [HI, b"ask 0.3 256\r\n", STALL, Advance(0.6), RESET],
        None,
        ["peer does not read", "lost", "returned 3"],
    ),
    Case(
        "output and answer inside TLS",
        [
            *(HI, b"starttls\r\n", WaitFor(b"go"), CLIENT_TLS, b"ask 9 1\r\n", WaitFor(b"who?"), b"echo me\r\n"),
            *(WaitFor(b"me"), b"ask 0.1 0\r\n", WaitFor(b"who?"), Advance(0.2), b"quit\r\n"),
        ],
        said("220 go") + PIECE + b"who?\r\nme\r\nwho?\r\n221 bye\r\n",
        ["TLSv1.3 mx.example.org 256", "peer says nothing", "returned 0"],
    ),
    Case("FIN at once", [EOF], said(), ["eof", "returned 4"]),
    Case("FIN behind commands", [b"echo a\r\n", b"echo b", EOF], said("a"), ["eof", "returned 4"]),
    Case("FIN while it sleeps", [HI, b"nap 0.1\r\n", EOF], said("napping", "awake"), ["eof", "returned 4"]),
    Case("FIN before much output", [HI, b"give 20\r\n", EOF], said() + PIECE * 20, ["eof", "returned 4"]),
    Case("RST while it waits", [HI, RESET], None, ["lost", "returned 3"]),
    Case("RST while it sleeps", [HI, b"nap 0.2\r\n", WaitFor(b"nap"), RESET], None, ["lost", "returned 3"]),
    Case("RST behind input", [HI, b"take 999\r\n", WaitFor(b"go"), b"x" * 9, RESET], None, ["lost", "returned 3"]),
    Case("RST while it sends", [HI, b"flood 9\r\n", STALL, Advance(0.1), RESET], None, ["lost", "returned 3"]),
    Case(
        "TLS",
        [HI, b"starttls\r\n", WaitFor(b"go"), CLIENT_TLS, b"echo a\r\n", WaitFor(b"a"), b"echo b\r\nquit\r\n"],
        said("220 go", "a", "b", "221 bye"),
        ["TLSv1.3 mx.example.org 256", "returned 0"],
    ),
    Case(
        "much inside TLS",
        [
            *(HI, b"starttls\r\n", WaitFor(b"go"), CLIENT_TLS, b"take %d\r\n" % len(INPUT), WaitFor(b"go"), INPUT),
            *(WaitFor(b"\r\n"), WaitFor(b"\r\n"), b"give 40\r\n", b"quit\r\n"),
        ],
        said("220 go", "go", str(zlib.crc32(INPUT))) + PIECE * 40 + b"221 bye\r\n",
        ["TLSv1.3 mx.example.org 256", "returned 0"],
    ),
    Case(
        "h34 stalled handshake", [HI, b"starttls\r\n", WaitFor(b"go"), b"\x16"], said("220 go"), ["late", "returned 6"]
    ),
    Case("FIN in the handshake", [HI, b"starttls\r\n", EOF], said("220 go"), ["tls failed", "returned 5"]),
    Case("RST in the handshake", [HI, b"starttls\r\n", WaitFor(b"go"), b"\x16", RESET], None, ["lost", "returned 3"]),
]


STOP_CASES = [
    Case("idle", [HI, STOP], said("421 stopping"), ["returned 2"]),
    Case(
        "idle inside TLS",
        [HI, b"starttls\r\n", WaitFor(b"go"), CLIENT_TLS, b"echo a\r\n", WaitFor(b"a"), STOP],
        said("220 go", "a", "421 stopping"),
        ["TLSv1.3 mx.example.org 256", "returned 2"],
    ),
    Case(
        "in a transaction",
        [HI, b"hold\r\n", WaitFor(b"354"), STOP, Advance(0.05), b"x\r\n"],
        said("354 go on", "250 held", "421 stopping"),
        ["returned 2"],
    ),
    Case(
        "asleep", [HI, b"nap 0.2\r\n", WaitFor(b"nap"), STOP], said("napping", "awake", "421 stopping"), ["returned 2"]
    ),
]

CANCEL_CASES = [
    Case(
        "in a transaction",
        [HI, b"hold\r\n", WaitFor(b"354"), STOP, CANCEL],
        said("354 go on", "421 cancelled"),
        ["raised Cancelled"],
    ),
    Case("asleep", [HI, b"nap 9\r\n", WaitFor(b"nap"), STOP, CANCEL], said("napping"), ["raised Cancelled"]),
    Case("stuck", [HI, b"flood 9\r\n", STALL, Advance(0.2), STOP, CANCEL, Advance(0.3)], None, ["raised Cancelled"]),
    Case(
        "stuck before an answer",
        [HI, b"ask 9 256\r\n", STALL, Advance(0.2), STOP, CANCEL, Advance(0.3)],
        None,
        ["raised Cancelled"],
    ),
    Case(
        "in a call",
        [HI, b"abandon\r\n", WaitFor(b"waiting"), Advance(0.1), STOP, CANCEL],
        said("waiting"),
        ["raised Cancelled"],
    ),
    Case(
        "in a commit",
        [HI, b"commit\r\n", WaitFor(b"committing"), Advance(0.1), STOP, CANCEL],
        said("committing"),
        ["committed", "cancelled", "raised Cancelled"],
    ),
    Case(
        "swallowed",
        [HI, b"deaf\r\n", WaitFor(b"deaf"), STOP, CANCEL],
        said("deaf"),
        ["Cancelled", "DeadlineExceeded", "raised GeneratorExit"],
    ),
    Case(
        "long clean-up",
        [HI, b"dawdle\r\n", WaitFor(b"dawdling"), STOP, CANCEL],
        said("dawdling"),
        ["no time for clean-up", "raised Cancelled"],
    ),
]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pem(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def servers(certificate: Path) -> Iterator[dict[str, Server]]:
    """The servers that have been needed so far."""
    with ExitStack() as stack:

        class Servers(dict[str, Server]):
            def __missing__(self, driver: str) -> Server:
                server = self[driver] = stack.enter_context(Server(driver, certificate))
                return server

        yield Servers()


def play_scripted(script: Sequence[Action], certificate: Path) -> tuple[bytes, list[str]]:
    notes: list[str] = []
    played = run_script(
        lambda connection: recorded(connection, notes.append, certificate), script, catch=True, all_read=False
    )
    return played.output, [note.partition(" ")[2] for note in notes]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("driver", DRIVERS)
def test_case(driver: str, case: Case, servers: dict[str, Server], certificate: Path) -> None:
    if driver == "scripted":
        output, notes = play_scripted(case.script, certificate)
    else:
        server = servers[driver]
        connection = server.connect()
        port = connection.getsockname()[1]
        output = play(connection, case.script)
        notes = server.outcome(port)
        if case.name == "crash":
            assert server.note("report ") == "LookupError"
    if case.output is not None:
        assert output == case.output
    assert notes == case.notes


def play_together(server: Server, cases: Sequence[Case]) -> None:
    """Play `cases` at once against a server that is stopped, or cancelled, when all of them have got there."""

    def stop_again() -> None:
        time.sleep(0.5)  # two signals that come as one would stop it once
        server.stop()

    stopping = threading.Barrier(len(cases), server.stop, 60)
    cancelling = threading.Barrier(len(cases), stop_again, 60)
    outputs: dict[str, bytes] = {}
    connections = {case.name: server.connect() for case in cases}
    ports = {name: connection.getsockname()[1] for name, connection in connections.items()}

    def one(case: Case) -> None:
        outputs[case.name] = play(connections[case.name], case.script, stopping.wait, cancelling.wait)

    threads = [threading.Thread(target=one, args=(case,)) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    for case in cases:
        if case.output is not None:
            assert (case.name, outputs.get(case.name)) == (case.name, case.output)
        assert (case.name, server.outcome(ports[case.name])) == (case.name, case.notes)


@pytest.mark.parametrize("driver", SERVERS)
def test_h83_stopping_ends_idle_sessions_and_waits_for_the_others(driver: str, certificate: Path) -> None:
    with Server(driver, certificate) as server:
        play_together(server, STOP_CASES)
        server.note("ended")
        assert server.wait() == 0


@pytest.mark.parametrize("driver", SERVERS)
def test_stopping_twice_cancels_with_time_for_clean_up(driver: str, certificate: Path) -> None:
    with Server(driver, certificate) as server:
        began = time.monotonic()
        play_together(server, CANCEL_CASES)
        server.note("ended")
        assert server.wait() == 0
        assert time.monotonic() - began < 30


@pytest.mark.parametrize("case", STOP_CASES + CANCEL_CASES, ids=lambda case: case.name)
def test_stopping_scripted(case: Case, certificate: Path) -> None:
    output, notes = play_scripted(case.script, certificate)
    assert case.output is None or output == case.output
    assert notes == case.notes


@pytest.mark.parametrize("case", CANCEL_CASES, ids=lambda case: case.name)
def test_one_shot_is_cancelled_by_sigterm(case: Case, certificate: Path) -> None:
    with Server("oneshot", certificate) as server:
        output = play(server.connect(), case.script, lambda: None, server.stop)
        assert case.output is None or output == case.output
        assert server.outcome(0) == case.notes
        assert server.wait() == 128 + 15


@pytest.mark.parametrize("driver", SERVERS)
def test_h24_endings_at_odd_moments_are_events(driver: str, certificate: Path) -> None:
    """FIN and reset whenever: every session ends in order, nothing is reported, the server stops as asked."""
    random = Random(24)
    lines = [
        b"echo a\r\n",
        b"give 3\r\n",
        b"sleep\r\n",
        b"starttls\r\n",
        b"late\r\n",
        b"x" * 9,
        b"\x16\x03",
    ]
    with Server(driver, certificate) as server:
        ports = []
        for _ in range(80):
            connection = server.connect()
            ports.append(connection.getsockname()[1])
            script: list[Action] = [STALL]
            for _ in range(random.randrange(4)):
                script += [random.choice(lines), Advance(random.choice([0, 0, 0.0002, 0.002]))]
            script += random.choice([[EOF], [EOF, RESET], [RESET], [HI, RESET], []])
            try:
                play(connection, script)
            except ConnectionError:
                pass
        for port in ports:
            assert server.outcome(port)[-1] in ("returned 3", "returned 4", "returned 5", "returned 6")
        server.stop()
        server.note("ended")
        assert server.wait() == 0
        assert server.pending("report ") == []


@pytest.mark.parametrize("driver", ["threads", "asyncio", "uvloop", "trio"])
def test_h91_out_of_descriptors(driver: str, certificate: Path) -> None:
    with Server(driver, certificate, limit=40) as server, ExitStack() as stack:
        peers = [stack.enter_context(server.connect()) for _ in range(60)]
        assert server.note("report ") == "OSError"
        time.sleep(0.4)  # it tries again in the meantime
        for peer in peers:
            peer.close()
        connection = server.connect()
        port = connection.getsockname()[1]
        assert play(connection, [HI, b"quit\r\n"]) == said("221 bye")
        assert server.outcome(port) == ["returned 0"]
        assert server.pending("report ") == []
