"""H82 under every driver, on a disk that is really full and one that is really read-only.

Each single call that can fail is in tests/hostile/test_files.py, with the scripted driver.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.driver import DRIVERS, Driver
from tests.conformance.session_file import FACTS, Act, Expect, Outcome, Send, Session

ENVELOPE = b"EHLO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
BIG = b"x" * 998 + b"\r\n"
BACKENDS = {"queuedir": "QUEUEDIR", "maildir": "MAILDIR_PATH"}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 128 KiB."""
    place = tmp_path_factory.mktemp("disk")
    if mount("-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)) != 0:
        pytest.skip("a disk of our own cannot be mounted here: that takes root")
    for name in ("tmp", "new", "cur"):
        (place / name).mkdir()
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def read_only_disk(disk: Path) -> Iterator[Path]:
    assert mount("-o", "remount,ro", str(disk)) == 0
    yield disk
    assert mount("-o", "remount,rw,size=128k", str(disk)) == 0


def mount(*arguments: str) -> int:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode
    except FileNotFoundError:
        return 1


@pytest.fixture(scope="module", params=DRIVERS)
def driver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: Path
) -> Iterator[Driver]:
    found = DRIVERS[request.param](tmp_path_factory.mktemp(request.param), certificate)
    found.start()
    yield found
    found.close()


def deliver(driver: Driver, backend: str, disk: Path, *messages: bytes) -> Outcome:
    """The outcome of a session that sends `messages`; they are spooled elsewhere."""
    sent = b"".join(ENVELOPE + message + b".\r\n" for message in messages)
    settings = {**FACTS, BACKENDS[backend]: str(disk), "TMPDIR": str(driver.scratch)}
    steps = (Expect(b"220 mx.example.org mailfront ESMTP\r\n"), Send(sent + b"QUIT\r\n"), Act.FIN)
    return driver.run(Session("disk", ("smtp", backend, "accept"), settings, {}, steps, Outcome(b"", (), "", {})))


def files(disk: Path) -> list[Path]:
    return [path for path in disk.rglob("*") if path.is_file()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_h82_a_full_disk(driver: Driver, disk: Path, backend: str) -> None:
    found = deliver(driver, backend, disk, BIG * 300, b"small\r\n")
    assert b"451 4.3.0 " in found.output
    assert found.output.count(b"250 2.6.0 ") == 1
    assert [line for line in found.log if line.endswith(": No space left on device")] != []
    (stored,) = files(disk)
    assert stored.parent.name == "new" and stored.read_bytes().endswith(b"small\n")
    stored.unlink()
    assert found.result == "0"


@pytest.mark.parametrize("backend", BACKENDS)
def test_h82_a_read_only_disk(driver: Driver, read_only_disk: Path, backend: str) -> None:
    found = deliver(driver, backend, read_only_disk, b"small\r\n")
    assert b"451 4.3.0 " in found.output and b"250 2.6.0 " not in found.output
    assert [line for line in found.log if line.endswith(": Read-only file system")] != []
    assert files(read_only_disk) == []
