"""What POP3 costs a server in memory: a large message on its way, a mailbox of many messages."""

import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.serving import serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Memory is read off Linux's /proc.")

MEGABYTE = 1_000_000
RUNNING = {
    "asyncio": ["--driver", "asyncio", "--loop", "asyncio"],
    "uvloop": ["--driver", "asyncio", "--loop", "uvloop"],
    "trio": ["--driver", "trio"],
    "threads": ["--driver", "blocking"],
}


@pytest.fixture(params=RUNNING)
def words(request: pytest.FixtureRequest) -> list[str]:
    return RUNNING[request.param]


class Memory:
    """Of the process that listens on a port."""

    def __init__(self, port: int) -> None:
        self._place = Path("/proc") / _listener(port)

    def _read(self, name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+) kB", (self._place / "status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    @property
    def now(self) -> int:
        return self._read("VmRSS")

    @property
    def peak(self) -> int:
        """Since the last `reset`."""
        return self._read("VmHWM")

    def reset(self) -> None:
        (self._place / "clear_refs").write_text("5")


def _listener(port: int) -> str:
    """The process that has the socket; of those that inherited it, the first."""
    with open("/proc/net/tcp") as table:
        [inode] = [
            line.split()[9] for line in table if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
        ]
    for pid in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if f"socket:[{inode}]" in links:
            return pid
    raise AssertionError(f"nobody listens on {port}")


@contextmanager
def logged_in(port: int, user: str) -> Iterator[tuple[socket.socket, BinaryIO]]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock, sock.makefile("rb") as lines:
        assert lines.readline() == b"+OK \r\n"
        sock.sendall(f"USER {user}\r\nPASS x\r\n".encode())
        assert lines.readline() == b"+OK \r\n"
        assert lines.readline() == b"+OK \r\n"
        yield sock, lines


def fetch(sock: socket.socket, lines: BinaryIO, command: bytes) -> int:
    """Say it, read the answer to its end; how many bytes that is."""
    sock.sendall(command + b"\r\n")
    assert lines.readline() == b"+OK \r\n"
    octets = 0
    while (line := lines.readline()) != b".\r\n":
        assert line
        octets += len(line)
    return octets


def settings(place: Path, *users: str) -> dict[str, object]:
    (place / "users").write_text("".join(f"{user}:x\n" for user in users))
    for user in users:
        for part in ("cur", "new", "tmp"):
            (place / "boxes" / user / part).mkdir(parents=True)
    return {"AUTH_STORE": f"static:{place / 'users'}", "AUTH_REQUIRES_TLS": 0, "MAILDIR_ROOT": place / "boxes"}


def test_a_large_message_is_streamed(tmp_path: Path, words: list[str]) -> None:
    """RETR of 50 MB: at the peak at most 64 kB more than before. It is tried again where the allocator or a new worker
    thread has taken some pages meanwhile; a message that is kept would take them every time."""
    given = settings(tmp_path, "joe")
    line = b"x" * 4094 + b"\r\n"
    (tmp_path / "boxes/joe/cur/1").write_bytes(line * (MEGABYTE // len(line)))
    (tmp_path / "boxes/joe/cur/2").write_bytes(line * (50 * MEGABYTE // len(line)))
    with serving(tmp_path, *words, "pop3", "maildir", settings=given) as [(_, port)]:
        memory = Memory(port)
        with logged_in(port, "joe") as (sock, lines):
            for _ in range(10):
                fetch(sock, lines, b"RETR 1")
            grown: list[int] = []
            while not grown or (grown[-1] > 64 * 1024 and len(grown) < 4):
                memory.reset()
                before = memory.peak
                assert fetch(sock, lines, b"RETR 2") == 50 * MEGABYTE // len(line) * len(line)
                grown.append(memory.peak - before)
            assert min(grown) <= 64 * 1024, grown


def test_a_mailbox_of_many_messages(tmp_path: Path, words: list[str]) -> None:
    """100,000 messages: at most 250 bytes each while the session lasts, LIST and UIDL included."""
    count = 100_000
    given = settings(tmp_path, "joe", "ann")
    cur = tmp_path / "boxes/joe/cur"
    message = tmp_path / "message"
    message.write_bytes(b"x\n")
    links = 0
    for number in range(count):
        if not links:
            shutil.copy(message, tmp_path / f"message{number}")
            original = tmp_path / f"message{number}"
        os.link(original, cur / f"17{number * 7919 % count:08}.M{number:06}P12345Q1.host,S=1520,W=1560:2,S")
        links = (links + 1) % 50_000  # file systems bound the links of a file
    with serving(tmp_path, *words, "pop3", "maildir", settings=given) as [(_, port)]:
        memory = Memory(port)
        with logged_in(port, "ann") as (sock, lines):
            fetch(sock, lines, b"LIST")
        before = memory.now
        with logged_in(port, "joe") as (sock, lines):
            fetch(sock, lines, b"LIST")
            assert fetch(sock, lines, b"UIDL") > count * 30
            assert (memory.now - before) / count <= 250
