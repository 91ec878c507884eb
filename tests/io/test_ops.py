"""The operations on peers, names and programs: the same coroutines, the same answers under every driver.

`tests.io.op_sessions` has the coroutines. The scripted driver plays them against scripts, the others against real
helpers; there all cases run at once, so none may hold up another.
"""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mailfront_io.children import Spawn
from mailfront_io.peers import ResolveFailed
from mailfront_io.testing import (
    CANCEL,
    EOF,
    REFUSED,
    RESET,
    SILENT,
    STALL,
    STOP,
    UNTIL_EOF,
    Action,
    Advance,
    Late,
    Outside,
    PeerTLS,
    Program,
    WaitFor,
    run_script,
)
from tests.certificates import authority, server_context, write_pem
from tests.io.helpers import Helpers, environment_variable
from tests.io.op_sessions import BIG, BLOCK
from tests.io.peer import Server, play
from tests.io.sessions import recorded

SERVERS = ["threads", "fork", "asyncio", "uvloop", "trio"]
REAL = ["oneshot", *SERVERS]
SIZE = BIG * len(BLOCK)

HI = WaitFor(b"220 hi\r\n")


@dataclass
class Case:
    """`answer` of the coroutine `name`; `outside`: the same helpers as scripts, or the case is for real ones only."""

    name: str
    answer: Any
    outside: Outside | None = None


HELLO: list[Action] = [WaitFor(b"hello\n"), b"HELLO\n"]


def cats_and_shells(spawn: Spawn) -> Program:
    """The programs of the case `programs`, scripted."""
    script = spawn.arguments[-1]
    if spawn.socket:
        return Program(socket=[WaitFor(b"hello\n"), b"hello\n", UNTIL_EOF])
    if script == "cat":
        return Program({1: [b"hello"]})
    if "exit 3" in str(script):
        return Program(code=3)
    if "TERM" in str(script):
        return Program(code=-15)
    if script == "true":
        return Program({0: [RESET]})
    return Program(seconds=60)


CASES = [
    Case(
        "connect",
        ["HELLO\n", "BYE\n", True, False],
        Outside(
            {
                ("refused", 1): REFUSED,
                "missing": REFUSED,
                ("shout", 1): [*HELLO, WaitFor(b"bye\n"), b"BYE\n", EOF],
            }
        ),
    ),
    Case(
        "connect_anywhere",
        ["HELLO\n"] * 4,
        Outside(
            {("shout6", 1): HELLO, "unix": HELLO, ("shout", 1): HELLO},
            dns={("localhost", "A"): ["shout"]},
        ),
    ),
    Case(
        "connect_to_nobody",
        ["Unreachable", "Unresolvable", "DeadlineExceeded", "DeadlineExceeded", "Unresolvable"],
        Outside({("refused", 1): REFUSED, ("silent", 1): SILENT}, dns={("no such host", "A"): []}),
    ),
    Case(
        "connect_to_others", [True, True, "Unreachable"], Outside({("shout", 1): HELLO, ("echo", 1): HELLO})
    ),
    Case("connect_past_silence", ["HELLO\n", True], Outside({("silent", 1): SILENT, ("shout", 1): HELLO})),
    Case("breaks", ["ConnectionLost", True], Outside({("reset", 1): [WaitFor(b"x"), RESET]})),
    Case(
        "deadlines",
        ["DeadlineExceeded"] * 3,
        Outside({("silence", 1): [STALL], ("chatter", 1): [b"bla\n", Advance(0.1)] * 9}),
    ),
    Case("much", [SIZE // 4, True, 0]),
    Case(
        "exchange",
        ["a" * 10, "B\nBYE\n", "DeadlineExceeded", "ConnectionLost"],
        Outside(
            {
                ("echo", 1): [UNTIL_EOF, b"a" * 1000, EOF],
                ("shout", 1): [WaitFor(b"b\nbye\n"), b"B\n", b"BYE\n", EOF],
                ("silence", 1): [STALL],
                ("reset", 1): [WaitFor(b"x"), RESET],
            }
        ),
    ),
    Case(
        "tls",
        ["HELLO\n", "BYE\n", "", "TLSFailed", "ready\n", "TLSv1.3", True, "DeadlineExceeded"],
        Outside(
            {
                ("tls", 1): [
                    PeerTLS(server_context(), server_side=True),
                    *(*HELLO, WaitFor(b"bye\n"), b"BYE\n", EOF),
                ],
                ("starttls", 1): [
                    *(b"ready\n", PeerTLS(server_context(), server_side=True), WaitFor(b"x\n")),
                    b"X" * 100_000 + b"\n",
                ],
                ("silence", 1): [],
            }
        ),
    ),
    Case(
        "datagrams",
        ["right me", "Unreachable", "DeadlineExceeded", "DeadlineExceeded"],
        Outside(
            datagrams={
                ("udp", 1): [WaitFor(b"me"), WaitFor(b"me"), b"wrong", b"right me"],
                ("udp_refused", 1): REFUSED,
                ("stranger", 1): [],
            }
        ),
    ),
    Case(
        "names",
        [
            ["192.0.2.1", "192.0.2.2"],
            ["192.0.2.1", "192.0.2.2"],
            ["2001:db8::1"],
            [[10, "mx.mail.example"], [20, "backup.mail.example"]],
            ["other", "v=spf1 -all"],
            ["192.0.2.1", "192.0.2.2"],
            [[0, "."]],
            *([], [], [], []),
            "ResolveFailed",
            "DeadlineExceeded",
        ],
        Outside(
            dns={
                ("mail.example", "A"): ["192.0.2.1", "192.0.2.2"],
                ("Mail.example.", "A"): ["192.0.2.1", "192.0.2.2"],
                ("mail.example", "AAAA"): ["2001:db8::1"],
                ("mail.example", "MX"): [(10, "mx.mail.example"), (20, "backup.mail.example")],
                ("mail.example", "TXT"): [b"v=spf1 -all", b"other"],
                ("alias.example", "A"): ["192.0.2.1", "192.0.2.2"],
                ("null.example", "MX"): [(0, ".")],
                ("broken.example", "A"): ResolveFailed("broken"),
                ("lost.example", "A"): Late(9, ["192.0.2.3"]),
            }
        ),
    ),
    Case("h68_hostile_names", [[[10, "ok.example"]], 64, 40, "ResolveFailed", ["192.0.2.9"]]),
    Case(
        "lists",
        [[[f"127.0.0.{i}"] for i in range(4)], True],
        Outside(dns={(f"slow{i}.example", "A"): Late(1, [f"127.0.0.{i}"]) for i in range(4)}),
    ),
    Case(
        "gathered",
        [
            *(None, [3, 2], "ValueError", "Unreachable", "DeadlineExceeded", [], 0, None),
            *("TypeError", "DeadlineExceeded", "DeadlineExceeded", "tuple", True, []),
        ],
        Outside({("refused", 1): REFUSED, ("silence", 1): []}, programs={"true": Program()}),
    ),
    Case(
        "programs",
        ["hello", 0, 0, 3, -15, "DeadlineExceeded", -9, -9, "hello\n", 0, 1, 0],
        Outside(programs={"cat": cats_and_shells, "sh": cats_and_shells, "true": cats_and_shells}),
    ),
    Case("surroundings", ["/", ["PATH=/usr/bin:/bin", "PWD=/"], [], [True, True], "; rm -rf * $HOME\n"]),
    Case(
        "cannot_start",
        [
            ["execute", 2, "/no/such/program: no such file or directory"],
            ["execute", 2, "no-such-program: no such file or directory"],
            ["execute", 13, "/etc/passwd: permission denied"],
            ["directory", 2, "true: directory /no/such/directory: no such file or directory"],
        ],
    ),
    Case("as_somebody", ["65534", "65533", "65533 65532"]),
    Case("much_through_pipes", [SIZE, True, 1000, 0]),
    Case("crash", [1, -9]),
    Case("left_open", [True, True, -9]),
]


@pytest.fixture(scope="module")
def helpers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with Helpers(tmp_path_factory.mktemp("helpers")) as helpers:
        host, port = helpers.addresses["name_server"]
        with environment_variable("NAMESERVERS", f"{host}:{port}"):
            yield helpers.addresses


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pem(tmp_path_factory.mktemp("tls"))


def command(name: str, addresses: dict[str, Any], *words: str) -> bytes:
    return " ".join(["op", name, json.dumps(addresses, separators=(",", ":")), *words]).encode() + b"\r\n"


def answer(output: bytes) -> Any:
    lines = output.split(b"\r\n")
    assert lines[0] == b"220 hi" and lines[-2:] == [b"221 bye", b""], output
    return json.loads(lines[1])


@pytest.mark.parametrize("case", [case for case in CASES if case.outside], ids=lambda case: case.name)
def test_scripted(case: Case, tmp_path: Path) -> None:
    addresses: dict[str, Any] = {
        name: [name, 1]
        for name in (
            *("shout", "echo", "checksum", "reset", "silence", "chatter", "shout6", "tls", "starttls", "refused"),
            *("silent", "udp", "udp_refused", "stranger"),
        )
    }
    authority().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    addresses |= {"unix": "unix", "missing": "missing", "ca": str(tmp_path / "ca.pem")}
    notes: list[str] = []
    played = run_script(
        lambda connection: recorded(connection, notes.append),
        [HI, command(case.name, addresses), WaitFor(b"\r\n"), b"quit\r\n"],
        outside=case.outside,
    )
    assert answer(played.output) == case.answer
    assert notes == ["50000 returned 0"]


class Results:
    """What came of all cases under one driver."""

    def __init__(self, driver: str, helpers: dict[str, Any], certificate: Path) -> None:
        self.answers: dict[str, Any] = {}
        self.before = self.after = None
        if driver == "oneshot":
            with ThreadPoolExecutor(4) as pool:
                for case in CASES:
                    pool.submit(self._alone, case, helpers, certificate)
            return
        with Server(driver, certificate) as server:
            self.one(server, command("names", helpers))  # what is loaded once
            self.before = self.one(server, b"count\r\n")
            with ThreadPoolExecutor(len(CASES)) as pool:
                for case in CASES:
                    pool.submit(self._together, server, case, helpers)
            end = time.monotonic() + 60
            while time.monotonic() < end and self.after != self.before:
                self.after = self.one(server, b"count\r\n")
            server.stop()
            server.note("ended")
            self.code = server.wait()

    def _together(self, server: Server, case: Case, helpers: dict[str, Any]) -> None:
        self.answers[case.name] = self.one(server, command(case.name, helpers))

    def _alone(self, case: Case, helpers: dict[str, Any], certificate: Path) -> None:
        with Server("oneshot", certificate) as server:
            self.answers[case.name] = self.one(server, command(case.name, helpers))

    @staticmethod
    def one(server: Server, line: bytes) -> Any:
        connection = server.connect()
        port = connection.getsockname()[1]
        try:
            return answer(play(connection, [HI, line, WaitFor(b"\r\n"), b"quit\r\n"], seconds=90))
        except Exception as error:
            return f"{error}; {server.outcome(port)}"


@pytest.fixture(scope="module")
def results(helpers: dict[str, Any], certificate: Path) -> Any:
    class All(dict[str, Results]):
        def __missing__(self, driver: str) -> Results:
            self[driver] = results = Results(driver, helpers, certificate)
            return results

    return All()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("driver", REAL)
def test_case(driver: str, case: Case, results: dict[str, Results]) -> None:
    assert results[driver].answers.get(case.name) == case.answer


@pytest.mark.parametrize("driver", SERVERS)
def test_nothing_is_left(driver: str, results: dict[str, Results]) -> None:
    """Neither descriptors nor children, when all those sessions have ended."""
    assert results[driver].after == results[driver].before
    assert results[driver].code == 0


def test_no_program_is_left(results: dict[str, Results]) -> None:
    """Nor programs that other programs have started."""
    for driver in REAL:
        assert results[driver].answers
    end = time.monotonic() + 60
    while (left := marked()) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []


def marked() -> list[str]:
    """The programs that run with the environment of the tests."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if b"MARK=mailfront-test" in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_text())
            except OSError:
                pass
    return found


CLEANED_UP = {
    **dict.fromkeys(
        ("connect", "recv", "send", "datagram", "resolve", "gather", "relay", "sleep"), "clean-up 'HELLO\\n' None"
    ),
    "child": "clean-up 'HELLO\\n' -9",
    "clean-up": "DeadlineExceeded",
    "clean-up-together": "['DeadlineExceeded']",
}
HANGS = list(CLEANED_UP)


@pytest.mark.parametrize("driver", REAL)
def test_cancellation_reaches_every_wait(driver: str, helpers: dict[str, Any], certificate: Path) -> None:
    def script(what: str) -> list[Action]:
        return [HI, command("hang", helpers, what), WaitFor(b"waiting"), Advance(0.1), STOP, CANCEL]

    def one(server: Server, what: str, stop: Any, cancel: Any) -> int:
        connection = server.connect()
        port: int = connection.getsockname()[1]
        play(connection, script(what), stop, cancel)
        return port

    outcomes: dict[str, list[str]] = {}
    if driver == "oneshot":
        for what in HANGS:
            with Server(driver, certificate) as server:
                outcomes[what] = server.outcome(one(server, what, lambda: None, server.stop))
    else:
        with Server(driver, certificate) as server:
            stopping = threading.Barrier(len(HANGS), server.stop, 60)

            def cancel() -> None:
                time.sleep(0.5)  # two signals that come as one would stop it once
                server.stop()

            cancelling = threading.Barrier(len(HANGS), cancel, 60)
            with ThreadPoolExecutor(len(HANGS)) as pool:
                ports = {what: pool.submit(one, server, what, stopping.wait, cancelling.wait) for what in HANGS}
            outcomes = {what: server.outcome(port.result()) for what, port in ports.items()}
            server.note("ended")
            assert server.wait() == 0
    assert outcomes == {what: [said, "raised Cancelled"] for what, said in CLEANED_UP.items()}
