"""Files that survive a crash, the names of deliveries, and what is left behind."""

import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailfront_io import durable
from mailfront_io.backends import maildir, queuedir
from mailfront_io.durable import SUFFIX, NewFile, UniqueTimes, open_directory, remove_leftovers
from mailfront_io.spool import Spool
from tests.front import ENVELOPE, Front, codes
from tests.serving import SECONDS

DATA = ENVELOPE + b"DATA\r\n"


@pytest.fixture(params=["unnamed", "named"])
def named(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Also on a file system without files that have no name."""
    if request.param == "named":
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)
    return bool(request.param == "named")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    with open_directory(str(tmp_path)) as descriptor:
        yield descriptor


def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that make a file durable, in their order."""
    made: list[str] = []

    def watched(name: str) -> None:
        function = getattr(os, name)

        def call(*arguments: object, **keywords: object) -> object:
            what = ""
            if name == "fsync":
                what = " directory" if os.path.isdir(f"/proc/self/fd/{arguments[0]}") else " file"
            made.append(name + what)
            return function(*arguments, **keywords)

        monkeypatch.setattr(os, name, call)

    for name in ("write", "fsync", "link", "unlink"):
        watched(name)
    return made


def test_the_order_of_what_is_done(
    named: bool, directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = calls(monkeypatch)
    with NewFile(directory, 0o600) as file:
        assert bool(os.listdir(tmp_path)) == named
        file.write([b"one", b"two"])
        file.publish(directory, lambda: "name")
    assert made == ["write", "write", "fsync file", "link", "fsync directory", *["unlink"] * named]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"name": b"onetwo"}


def test_what_is_not_published_is_gone(named: bool, directory: int, tmp_path: Path) -> None:
    with pytest.raises(KeyError), NewFile(directory, 0o600) as file:
        file.write([b"x"])
        raise KeyError
    file.discard()
    assert os.listdir(tmp_path) == []


def test_a_name_that_is_taken_is_left_alone(named: bool, directory: int, tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(b"first")
    names = iter("12")
    with NewFile(directory, 0o600) as file:
        file.publish(directory, lambda: next(names))
    assert (tmp_path / "1").read_bytes() == b"first" and (tmp_path / "2").read_bytes() == b""


def test_leftovers_go_and_what_is_being_written_stays(directory: int, tmp_path: Path) -> None:
    for name in ("dead" + SUFFIX, "1700000000.123456.7", "other.tmp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ("d" + SUFFIX)).mkdir()
    (tmp_path / ("l" + SUFFIX)).symlink_to(tmp_path / "other.tmp")
    os.mkfifo(tmp_path / ("f" + SUFFIX))
    with (tmp_path / ("alive" + SUFFIX)).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_leftovers(directory)
        left = sorted(os.listdir(tmp_path))
    assert left == sorted(
        ["1700000000.123456.7", "other.tmp", "d" + SUFFIX, "l" + SUFFIX, "f" + SUFFIX, "alive" + SUFFIX]
    )


def test_leftovers_where_there_are_no_locks(directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for name, age in (("old", 37), ("young", 35)):
        path = tmp_path / (name + SUFFIX)
        path.write_bytes(b"")
        os.utime(path, (0, time.time() - age * 3600))
    remove_leftovers(directory)
    assert os.listdir(tmp_path) == ["young" + SUFFIX]


def test_a_file_that_is_taken_for_a_leftover_while_it_is_made_is_made_again(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)
    flock = fcntl.flock
    removed: list[str] = []

    def late(descriptor: int, how: int) -> None:
        if not removed:
            removed.extend(os.listdir(tmp_path))
            monkeypatch.setattr(fcntl, "flock", flock)
            remove_leftovers(directory)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with NewFile(directory, 0o600) as file:
        assert len(removed) == 1 and os.listdir(tmp_path) != removed
        file.publish(directory, lambda: "name")
    assert os.listdir(tmp_path) == ["name"]


@pytest.mark.parametrize("backend", ["queuedir", "maildir"])
def test_leftovers_of_a_process_that_was_killed_go_with_the_first_delivery(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tmp", "new", "cur"):
        (tmp_path / name).mkdir()
    (tmp_path / "tmp" / ("0" * 24 + SUFFIX)).write_bytes(b"half")
    monkeypatch.setattr(queuedir, "_checked", set())
    monkeypatch.setattr(maildir, "_swept", set())
    settings = {"QUEUEDIR": str(tmp_path), "MAILDIR_PATH": str(tmp_path)}
    assert codes(Front("accept", backend=backend, env=settings).say(DATA, b".\r\n"))[-1] == 250
    assert os.listdir(tmp_path / "tmp") == []


def test_times_are_never_the_same_and_never_go_back() -> None:
    times = UniqueTimes()
    assert [times.next(now) for now in (5.0, 5.0, 4.0, 6.25)] == [(5, 0), (5, 1), (5, 2), (6, 250_000)]


DELIVER = """
import os, sys
from mailfront_io.backends import maildir, queuedir
from mailfront_io.spool import Spool
place, host = sys.argv[1:]
if host:
    os.uname = lambda: type("Uname", (), {"nodename": host})
spool = Spool(place)
spool.write(b"message" + bytes([10]))
for _ in range(50):
    queuedir._store(f"{place}/tmp", f"{place}/new", 1e9, 0o600, b"envelope", spool, False)
    maildir._deliver([maildir.fill(place, "")], 1e9, b"", spool)
"""


@pytest.mark.parametrize("host", ["", "a/b:c,d"])
def test_names_are_unique_in_many_processes(tmp_path: Path, host: str) -> None:
    """All at the same time of a clock that stands still."""
    for name in ("tmp", "new", "cur"):
        (tmp_path / name).mkdir()
    processes = [subprocess.Popen([sys.executable, "-c", DELIVER, tmp_path, host]) for _ in range(6)]
    assert [process.wait(SECONDS) for process in processes] == [0] * 6
    names = os.listdir(tmp_path / "new")
    assert len(names) == 6 * 50 * 2
    escaped = r"a\\057b\\072c\\054d" if host else r"[^/,:]+"
    assert all(re.fullmatch(rf"\d+\.\d{{6}}\.\d+|\d+\.M\d{{6}}P\d+Q\d+\.{escaped},S=8,W=9", name) for name in names)


def test_names_are_unique_among_processes_of_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers that share a directory, each with a process of our number, and clocks that agree."""
    for name in ("tmp", "new"):
        (tmp_path / name).mkdir()
    for _ in range(5):
        monkeypatch.setattr(durable, "TIMES", UniqueTimes())
        _deliver_one(tmp_path)
    assert sorted(os.listdir(tmp_path / "new")) == [f"1000000000.{n:06}.{os.getpid()}" for n in range(5)]


def _deliver_one(place: Path) -> None:
    queuedir._store(f"{place}/tmp", f"{place}/new", 1e9, 0o600, b"", Spool(str(place)), True)
