"""SIGKILL of the server at random moments, under a load of real clients: a message that was acknowledged is there,
once and whole; one that was not is there once and whole, or not at all; and what was left is gone after the restart.

(What a power failure does to it: tests/peers/test_delivery_trace.py.)
"""

import itertools
import os
import random
import re
import signal
import smtplib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import pytest

from tests.serving import MAILFRONT, SECONDS, _addresses, environment

pytestmark = pytest.mark.long

ROUNDS = 4
CLIENTS = 12

# qmail-queue in a few lines: whole or not at all, and only with an envelope that has an end.
QUEUE = """#!/bin/sh
set -e
cat >"tmp/$$.m"
cat <&1 >"tmp/$$.e"
[ "$(tail -c 2 "tmp/$$.e" | tr '\\0' x)" = xx ] || { rm "tmp/$$.m" "tmp/$$.e"; exit 91; }
rm "tmp/$$.e"
mv "tmp/$$.m" "new/$$.$(date +%s%N)"
"""

# What each backend puts in front, and the message's number.
HEAD = re.compile(rb"(?:a@example\.net\0b@example\.org\0\0|Return-Path: <a@example\.net>\n)?X-Number: (\d+)\n")

NAMED = Path(__file__).parents[1] / "named_files"


def content(number: int) -> bytes:
    """The message of that number, as it is in a file: from ten octets to a quarter of a megabyte."""
    lines = random.Random(number).choice((1, 10, 100, 4000))
    digest = sha256(b"%d" % number).hexdigest().encode()
    return b"X-Number: %d\n\n" % number + b"".join(b"%d %s\n" % (line, digest) for line in range(lines)) + b".\n"


class Load:
    """Clients that send, each a message after the other, and note what they were told."""

    def __init__(self) -> None:
        self.begun: set[int] = set()
        self.acknowledged: set[int] = set()
        self.refused: list[object] = []
        self._lock = threading.Lock()
        self._last = 0

    def _next(self) -> int:
        with self._lock:
            self._last += 1
            self.begun.add(self._last)
            return self._last

    def client(self, address: tuple[str, int], until: threading.Event) -> None:
        """Send until told to stop, or until there is no server any more."""
        with suppress(OSError, smtplib.SMTPServerDisconnected):
            while not until.is_set():
                with smtplib.SMTP(*address, local_hostname="client.example.net", timeout=SECONDS) as smtp:
                    for _ in range(3):
                        number = self._next()
                        try:
                            smtp.sendmail("a@example.net", ["b@example.org"], content(number).replace(b"\n", b"\r\n"))
                        except smtplib.SMTPResponseException as error:
                            self.refused.append((number, error.smtp_code, error.smtp_error))
                        else:
                            self.acknowledged.add(number)


def check(place: Path, load: Load, what: str) -> int:
    """What must be there is; how many messages there are."""
    found: dict[int, int] = {}
    for path in (place / "new").iterdir():
        data = path.read_bytes()
        match = HEAD.match(data)
        assert match, f"{what}: {path.name} is no message: {data[:80]!r}"
        number = int(match[1])
        assert data.endswith(content(number)) and data.index(b"X-Number") + len(content(number)) == len(data), (
            f"{what}: message {number} is not whole: {len(data)} octets"
        )
        found[number] = found.get(number, 0) + 1
    lost = load.acknowledged - set(found)
    twice = [number for number, count in found.items() if count > 1]
    assert (lost, twice, set(found) - load.begun) == (set(), [], set()), f"{what}: lost, there twice, never sent"
    return len(found)


@contextmanager
def server(place: Path, driver: str, backend: str, named: bool) -> Iterator[tuple[str, int]]:
    settings: dict[str, object] = {"PYTHONPATH": NAMED} if named else {}
    settings |= {"QUEUEDIR": place, "MAILDIR_PATH": place, "QMAILHOME": place, "QMAILQUEUE": "queue"}
    port_file = place / "ports"
    port_file.unlink(missing_ok=True)
    line = ["smtp", backend, "accept"]
    options = ["--driver", "asyncio", "--loop", driver] if driver in ("asyncio", "uvloop") else ["--driver", driver]
    with (place / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [MAILFRONT, "serve", *options, "--listen", "127.0.0.1:0", "--port-file", port_file, *line],
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    with process:
        try:
            [address] = _addresses(process, port_file)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # sessions of the driver fork, too


def one_round(place: Path, driver: str, backend: str, named: bool, load: Load, chance: random.Random) -> None:
    """Load until so many messages were acknowledged, a moment more, and then SIGKILL."""
    enough = len(load.acknowledged) + chance.randrange(10, 150)
    until = threading.Event()
    with server(place, driver, backend, named) as address:
        clients = [threading.Thread(target=load.client, args=(address, until)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        end = time.monotonic() + SECONDS
        while len(load.acknowledged) < enough and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
    until.set()
    for client in clients:
        client.join(SECONDS)
        assert not client.is_alive()


def settle(place: Path) -> None:
    """Wait until no qmail-queue runs any more that has lost its server."""
    end = time.monotonic() + SECONDS
    while any((place / "tmp").glob("*.m")) and time.monotonic() < end:
        time.sleep(0.01)


@pytest.mark.parametrize("backend", ["queuedir", "maildir", "qmail"])
@pytest.mark.parametrize("driver", ["asyncio", "uvloop", "trio", "blocking", "fork"])
def test_a_server(driver: str, backend: str, tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    chance = random.Random(seed)
    for name in ("tmp", "new", "cur"):
        (tmp_path / name).mkdir()
    (tmp_path / "queue").write_text(QUEUE)
    (tmp_path / "queue").chmod(0o755)
    load = Load()
    left = 0
    for turn in range(ROUNDS):
        named = bool(turn % 2)
        one_round(tmp_path, driver, backend, named, load, chance)
        settle(tmp_path)
        left += len(os.listdir(tmp_path / "tmp"))
        count = check(tmp_path, load, f"seed {seed}, turn {turn}")
    with server(tmp_path, driver, backend, named=True) as address, smtplib.SMTP(*address, timeout=SECONDS) as smtp:
        smtp.sendmail("a@example.net", ["b@example.org"], b"X-Number: 1000000\r\n\r\n")
        assert os.listdir(tmp_path / "tmp") == []
    assert load.refused == []
    # Or nothing was tested: some were killed while they were on their way.
    assert len(load.acknowledged) > 20
    assert len(load.begun) > len(load.acknowledged)
    figures = f"{len(load.begun)} begun, {len(load.acknowledged)} acknowledged, {count} there, {left} left in tmp"
    print(f"{driver} {backend}: {figures}")


class OneShots:
    """A program for each connection, as tcpserver starts them; `kill` kills all that run."""

    def __init__(self, place: Path, backend: str) -> None:
        self._words = [str(MAILFRONT), "smtp", backend, "accept"]
        self._environment = environment(QUEUEDIR=place, MAILDIR_PATH=place, QMAILHOME=place, QMAILQUEUE="queue")
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = self._listening.getsockname()
        self._running: list[subprocess.Popen[bytes]] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                with connection:
                    process = subprocess.Popen(
                        self._words,
                        env=self._environment,
                        stdin=connection.fileno(),
                        stdout=connection.fileno(),
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                self._running.append(process)

    def kill(self) -> None:
        for process in list(self._running):
            process.kill()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        self.kill()
        for process in self._running:
            process.wait()


@pytest.mark.parametrize("backend", ["queuedir", "maildir", "qmail"])
def test_the_one_shot_program(backend: str, tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    chance = random.Random(seed)
    for name in ("tmp", "new", "cur"):
        (tmp_path / name).mkdir()
    (tmp_path / "queue").write_text(QUEUE)
    (tmp_path / "queue").chmod(0o755)
    load, until, programs = Load(), threading.Event(), OneShots(tmp_path, backend)

    def keep_on() -> None:
        while not until.is_set():  # whose program was killed connects anew
            load.client(programs.address, until)

    clients = [threading.Thread(target=keep_on) for _ in range(4)]
    try:
        for client in clients:
            client.start()
        end = time.monotonic() + SECONDS
        for kills in itertools.count(1):
            time.sleep(chance.uniform(0.1, 0.6) * (1 + kills % 3))  # a slow machine needs longer to get to an answer
            programs.kill()
            if (kills >= 12 and len(load.acknowledged) > 20) or time.monotonic() > end:
                break
    finally:
        until.set()
        for client in clients:
            client.join(SECONDS)
        programs.close()
    settle(tmp_path)
    count = check(tmp_path, load, f"seed {seed}")
    assert os.listdir(tmp_path / "tmp") == []
    assert load.refused == [] and len(load.acknowledged) > 5 and len(load.begun) > len(load.acknowledged)
    print(f"one-shot {backend}: {len(load.begun)} begun, {len(load.acknowledged)} acknowledged, {count} there")
