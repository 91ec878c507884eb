"""What a delivery asks of the system, call by call (strace): the promise holds whenever the machine stops, and
whichever call fails.

The model of a disk: what was written to a file is safe once the file was synced, and a name once its directory was.
Of the rest, the changes of any file or directory may be missing after a power failure from some point on. So for every
moment of the trace, and for every point of each, the disk is built from what is left.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pytest

from tests.peers.programs import program
from tests.serving import MAILFRONT, SECONDS, environment

pytestmark = pytest.mark.peer

CALLS = ("openat", "write", "fsync", "linkat", "unlinkat")
NAMED = Path(__file__).parents[1] / "named_files"
BODY = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 4000
SAID = b"EHLO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" + BODY + b".\r\nQUIT\r\n"
STORED = {
    "queuedir": b"a@example.net\0b@example.org\0\0" + BODY.replace(b"\r", b""),
    "maildir": b"Return-Path: <a@example.net>\n" + BODY.replace(b"\r", b""),
}

_LINE = re.compile(r"(?:\d+ +)?(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)(?:<(?P<of>.*)>)?(?P<rest>.*)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"(?:\d+|AT_FDCWD)<(.*?)>")


@dataclass(frozen=True)
class Call:
    """A call of the trace: its number among those of its name, the files of its descriptors, and its strings."""

    name: str
    number: int
    files: tuple[str, ...]
    strings: tuple[bytes, ...]
    result: int
    of: str
    flags: str

    def concerns(self, place: Path) -> bool:
        return any(str(place) in path for path in (*self.files, self.of, *(os.fsdecode(s) for s in self.strings)))


@dataclass(frozen=True)
class Run:
    output: bytes
    calls: list[Call]
    injected: list[str]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Python finds what it has compiled, and nobody else changes it: each run makes the same calls."""
    return tmp_path_factory.mktemp("compiled")


def deliver(place: Path, backend: str, named: bool, compiled: Path, inject: str | None = None) -> Run:
    """One session under strace."""
    trace = place / "trace"
    box = place / "box"
    settings: dict[str, object] = {"QUEUEDIR": box, "MAILDIR_PATH": box, "PYTHONPYCACHEPREFIX": compiled}
    if named:
        settings["PYTHONPATH"] = NAMED
    options = ["-f", "-y", "-xx", "-s", "1000000", "--seccomp-bpf", "-e", f"trace={','.join(CALLS)}", "-o", str(trace)]
    options += ["-e", f"inject={inject}"] if inject else []
    (place / "said").write_bytes(SAID)
    with (place / "said").open("rb") as said:  # a file, and no pipe: it is read in the same pieces each time
        done = subprocess.run(
            [program("strace"), *options, MAILFRONT, "smtp", backend, "accept"],
            stdin=said,
            env=environment(**settings),
            capture_output=True,
            timeout=SECONDS,
        )
    if b"ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace here.")
    lines = trace.read_text().splitlines()
    return Run(done.stdout, list(parsed(lines)), [line for line in lines if "INJECTED" in line])


def parsed(lines: list[str]) -> Iterator[Call]:
    counts = dict.fromkeys(CALLS, 0)
    for line in lines:
        match = _LINE.match(line)
        if match is None or match["name"] not in counts:
            assert "+++" in line or "---" in line, line
            continue
        counts[match["name"]] += 1
        arguments = match["arguments"]
        yield Call(
            match["name"],
            counts[match["name"]],
            tuple(_path(found) for found in _DESCRIPTOR.findall(_STRING.sub("", arguments))),
            tuple(bytes.fromhex(found.replace("\\x", "")) for found in _STRING.findall(arguments)),
            int(match["result"]),
            _path(match["of"] or ""),
            _STRING.sub("", arguments),
        )


def _path(text: str) -> str:
    """What -y says of a descriptor; -xx makes it hexadecimal, too."""
    return re.sub(r"(?:\\x[0-9a-f]{2})+", lambda m: os.fsdecode(bytes.fromhex(m[0].replace("\\x", ""))), text)


@dataclass
class Change:
    """What a call changed on the disk. `at`: its place in the trace; `safe`: from where on it is safe."""

    at: int
    file: str
    data: bytes = b""
    directory: str = ""
    name: str = ""
    safe: float = field(default=float("inf"))

    @property
    def place(self) -> str:
        """What must be synced: the file for data, the directory for a name."""
        return self.directory or self.file


def changes(calls: list[Call], place: Path) -> tuple[list[Change], int]:
    """The changes in the order of the trace, and where the message was acknowledged."""
    made: list[Change] = []
    acknowledged = -1
    for at, call in enumerate(calls):
        if call.result < 0:
            continue  # O_TMPFILE, where there is none
        if call.name == "write" and b"250 2.6.0 " in call.strings[0]:
            acknowledged = at
        elif not call.concerns(place / "box"):
            continue
        elif call.name == "write":
            made.append(Change(at, call.files[0], data=call.strings[0]))
            assert call.result == len(call.strings[0])
        elif call.name == "fsync":
            for change in made:
                if call.files[0] == change.place:
                    change.safe = min(change.safe, at)
        elif call.name == "linkat":
            source = os.fsdecode(call.strings[0])
            file = next(c.file for c in reversed(made) if c.data)  # the one that was written
            assert source.startswith("/proc/self/fd/") or file.endswith(source)
            made.append(Change(at, file, directory=call.files[-1], name=os.fsdecode(call.strings[1])))
        elif call.name == "unlinkat":
            assert call.files[0].endswith("/tmp")  # nothing is ever taken from the readers again
    return made, acknowledged


def disk(made: list[Change]) -> dict[str, bytes]:
    """The files in ``new`` on a disk that knows of these changes."""
    return {
        change.name: b"".join(c.data for c in made if c.file == change.file)
        for change in made
        if change.directory.endswith("/new")
    }


@pytest.fixture(params=["unnamed", "named"])
def named(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "named")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("tmp", "new", "cur"):
        (tmp_path / "box" / name).mkdir(parents=True)
    return tmp_path


def broken_promises(calls: list[Call], place: Path, stored: bytes) -> set[str]:
    """What would be there, or not, that must not, or must, if the machine stopped at some moment."""
    made, acknowledged = changes(calls, place)
    assert acknowledged > 0 and len(made) >= 3
    found = set()
    for moment in range(len(calls) + 1):
        known = [change for change in made if change.at < moment]
        safe = [change for change in known if change.safe < moment]
        unsafe = [change for change in known if change.safe >= moment]
        places = sorted({change.place for change in unsafe})
        of_each = [[change for change in unsafe if change.place == where] for where in places]
        for counts in product(*[range(len(of_one) + 1) for of_one in of_each]):
            written = [change for of_one, count in zip(of_each, counts, strict=True) for change in of_one[:count]]
            left = list(disk(sorted([*safe, *written], key=lambda change: change.at)).values())
            if left not in ([], [stored]):
                found.add("partial")
            if left != [stored] and moment > acknowledged:
                found.add("lost")
    return found


@pytest.mark.parametrize("backend", ["queuedir", "maildir"])
def test_whenever_the_machine_stops(backend: str, named: bool, place: Path, compiled: Path) -> None:
    calls = deliver(place, backend, named, compiled).calls
    assert broken_promises(calls, place, STORED[backend]) == set()

    # It would be seen, were it otherwise: without either fsync, and with the file's behind the link.
    def broken_by(others: list[Call]) -> set[str]:
        return broken_promises(others, place, STORED[backend])

    of_file, of_directory = [call for call in calls if call.name == "fsync"]
    (link,) = [call for call in calls if call.name == "linkat"]
    later = [call for call in calls if call is not of_file]
    later.insert(later.index(link) + 1, of_file)
    assert broken_by([call for call in calls if call is not of_file]) == {"partial", "lost"}
    assert broken_by([call for call in calls if call is not of_directory]) == {"lost"}
    assert broken_by(later) == {"partial"}


@pytest.mark.parametrize("backend", ["queuedir", "maildir"])
def test_whichever_call_fails(backend: str, named: bool, place: Path, compiled: Path) -> None:
    deliver(place, backend, named, compiled)  # all is compiled then
    whole = deliver(place, backend, named, compiled)
    box = place / "box"
    calls = [call for call in whole.calls if call.concerns(box)]
    assert {call.name for call in calls} == {"openat", "write", "fsync", "linkat", *["unlinkat"] * named}
    for path in (box / "new").iterdir():
        path.unlink()
    acknowledged = 0
    for call in calls:
        run = deliver(place, backend, named, compiled, f"{call.name}:error=EIO:when={call.number}")
        assert len(run.injected) == 1 and Path(str(box)).name in _path(run.injected[0]), (call, run.injected)
        found = [path.read_bytes() for path in (box / "new").iterdir()]
        if b"\r\n250 2.6.0 " in run.output:
            assert found == [STORED[backend]], call
            acknowledged += 1
        else:
            assert b"\r\n451 4.3.0 " in run.output and found == [], call
        left = list((box / "tmp").iterdir())
        assert (len(left) == 0) == (call.name != "unlinkat"), call
        for path in [*(box / "new").iterdir(), *left]:
            path.unlink()
    # Where it is a temporary name that cannot be removed.
    assert acknowledged == sum(call.name == "unlinkat" for call in calls)
