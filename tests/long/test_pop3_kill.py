"""SIGKILL at random moments of POP3 sessions that delete and retrieve: no message is lost, none is there twice, none
is deleted without QUIT. (What a power failure does is another matter: that is the file system's.)"""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailfront_io.drivers.oneshot import run_descriptors
from mailfront_io.pop3_service import POP3Service
from mailfront_proto.pop3 import Mode
from tests.serving import MAILFRONT, SECONDS, _addresses, environment

pytestmark = pytest.mark.long

MESSAGES = 200


def fill(maildir: Path) -> None:
    """Messages 1 to `MESSAGES`, half of them new, each with its number in it."""
    for part in ("cur", "new", "tmp"):
        (maildir / part).mkdir(parents=True, exist_ok=True)
        for path in (maildir / part).iterdir():
            path.unlink()
    for number in range(1, MESSAGES + 1):
        name = f"{1_700_000_000 + number}.M{number}.host"
        path = maildir / ("cur" if number % 2 else "new") / (name + (":2,F" if number % 4 == 1 else ""))
        path.write_bytes(content(number))


def content(number: int) -> bytes:
    return b"Subject: %d\n\n" % number + b"%d\n" % number * (number * 20)


def commands(chance: random.Random) -> tuple[bytes, set[int], bool]:
    """What a client says, which messages it marks, and whether it says QUIT."""
    said: list[bytes] = []
    marked: set[int] = set()
    for number in chance.sample(range(1, MESSAGES + 1), chance.randrange(MESSAGES)):
        if chance.random() < 0.1:
            said.append(b"RETR %d\r\n" % number)
        if chance.random() < 0.7:
            said.append(b"DELE %d\r\n" % number)
            marked.add(number)
    if chance.random() < 0.1:
        said.append(b"RSET\r\n")
        marked.clear()
    quits = chance.random() < 0.7
    return b"".join([*said, *[b"QUIT\r\n"] * quits]), marked, quits


def check(maildir: Path, marked: set[int], quits: bool, what: str) -> int:
    """What must be there is there, once, and whole. Returns how many messages were deleted."""
    found: dict[int, int] = {}
    for path in maildir.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            number = int(data.split()[1])
            assert data == content(number), f"{what}: message {number} has changed"
            found[number] = found.get(number, 0) + 1
    twice = sorted(number for number, count in found.items() if count > 1)
    lost = sorted(set(range(1, MESSAGES + 1)) - set(found) - (marked if quits else set()))
    assert (twice, lost) == ([], []), f"{what}: there twice {twice}, lost {lost}"
    return MESSAGES - len(found)


def converse(sock: socket.socket, said: bytes, kill_at: float, kill: "list[int]") -> None:
    """Say it, read what comes, and kill the process at that time, or when the session ends."""
    sock.setblocking(False)
    rest = memoryview(said)
    while (left := kill_at - time.monotonic()) > 0:
        try:
            if rest:
                rest = rest[sock.send(rest) :]
            if not sock.recv(65536):
                break
        except BlockingIOError:
            time.sleep(min(left, 0.0005))
        except OSError:
            break
    for pid in kill:
        os.kill(pid, signal.SIGKILL)


def test_the_one_shot_program(tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    chance = random.Random(seed)
    maildir = tmp_path / "md"
    begun = completed = 0
    for turn in range(400):
        fill(maildir)
        said, marked, quits = commands(chance)
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            try:
                ours.close()
                fd = theirs.detach()
                service = POP3Service({}, lambda _: None, mode=Mode.MAILBOX, mailbox=str(maildir))
                run_descriptors(service.session, fd, fd)
            finally:
                os._exit(0)
        theirs.close()
        with ours:
            converse(ours, said, time.monotonic() + chance.uniform(0, 0.06), [pid])
        os.waitpid(pid, 0)
        deleted = check(maildir, marked, quits, f"seed {seed}, turn {turn}")
        begun += 0 < deleted < len(marked)
        completed += bool(marked) and deleted == len(marked)
    # Or nothing was tested: some were killed in the middle of QUIT, some at its end.
    assert begun > 3
    assert completed > 10


@contextmanager
def server(place: Path, driver: str) -> Iterator[tuple["subprocess.Popen[bytes]", tuple[str, int]]]:
    port_file = place / "ports"
    port_file.unlink(missing_ok=True)
    settings = {"AUTH_STORE": f"static:{place / 'users'}", "AUTH_REQUIRES_TLS": 0, "MAILDIR_ROOT": place / "boxes"}
    with (place / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(MAILFRONT, "serve", "--driver", driver, "--listen", "127.0.0.1:0", "--port-file", port_file),
                *("pop3", "maildir"),
            ],
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    with process:
        try:
            [address] = _addresses(process, port_file)
            yield process, address
        finally:
            process.kill()
            process.wait(SECONDS)


@pytest.mark.parametrize("driver", ["asyncio", "trio", "blocking"])
def test_a_server(driver: str, tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    chance = random.Random(seed)
    (tmp_path / "users").write_text("joe:x\n")
    maildir = tmp_path / "boxes" / "joe"
    deletions = 0
    for turn in range(25):
        fill(maildir)
        said, marked, quits = commands(chance)
        with server(tmp_path, driver) as (process, address), socket.create_connection(address, SECONDS) as sock:
            said = b"USER joe\r\nPASS x\r\n" + said
            converse(sock, said, time.monotonic() + chance.uniform(0, 0.1), [process.pid])
        deletions += check(maildir, marked, quits, f"seed {seed}, turn {turn}") > 0
    assert deletions > 2
