"""SIGKILL of the relay, or of the server behind it, at random moments under load: each message that was acknowledged is
in the second server's queue, at least once and whole, and no file there is anything but a whole message."""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailfront_io.client import SendError, TLSPolicy, send_message
from tests.serving import DRIVERS, MAILFRONT, SECONDS, _addresses, environment, queue_directory

pytestmark = pytest.mark.long

CLIENTS = 8
ROUNDS = 25


def body(number: int) -> bytes:
    """A message that says which it is, from one line to some hundred kilobytes."""
    return b"Subject: %d\r\n\r\n" % number + b".%d\r\n" % number * (1 + number * 7919 % 40_000)


@contextmanager
def server(
    directory: Path, words: Sequence[str], settings: Mapping[str, object]
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """One that may be killed, with all processes that it has forked."""
    directory.mkdir(exist_ok=True)
    ports = directory / "ports"
    ports.unlink(missing_ok=True)
    with (directory / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [MAILFRONT, "serve", "--listen", "127.0.0.1:0", "--port-file", ports, *words],
            env=environment(**settings),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    with process:
        try:
            [(_, port)] = _addresses(process, ports)
            yield process, port
        finally:
            kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(SECONDS)


class Load:
    """Clients that send one message after the other until they are stopped; `acknowledged`: what was taken."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self._port = port
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._next = chance.randrange(1_000_000) * 1000
        self.acknowledged: set[int] = set()
        self._threads = [threading.Thread(target=self._send) for _ in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()

    def _send(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                self._next += 1
                number = self._next
            try:
                to = [f"b{number}@b.example"]
                result = send_message("127.0.0.1", self._port, "a@x", to, body(number), tls=TLSPolicy.NONE)
            except SendError:
                continue  # it is dead, for now or for good
            if result.delivered:
                with self._lock:
                    self.acknowledged.add(number)


@pytest.mark.parametrize("victim", ["relay", "second"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_was_acknowledged_is_there(driver: str, victim: str, tmp_path: Path) -> None:
    chance = random.Random(f"{driver} {victim}")
    queue = queue_directory(tmp_path)
    acknowledged: set[int] = set()
    start = ("--driver", driver, "smtp")
    for _ in range(ROUNDS):
        with server(tmp_path / "second", [*start, "queuedir", "accept"], {"QUEUEDIR": queue}) as (second, port):
            settings = {"UPSTREAM": f"127.0.0.1:{port}"}
            with server(tmp_path / "relay", [*start, "smtp", "accept"], settings) as (relay, front):
                with Load(front, chance) as load:
                    time.sleep(chance.uniform(0.1, 1.0))
                    kill(relay if victim == "relay" else second)
                    time.sleep(0.2 if victim == "second" else 0)  # answers without a second server, too
                acknowledged |= load.acknowledged
    found: dict[int, int] = {}
    for path in (queue / "new").iterdir():
        envelope, _, message = path.read_bytes().partition(b"\0\0")
        number = int(message.split()[1])
        assert envelope == b"a@x\0b%d@b.example" % number
        assert message == body(number).replace(b"\r\n", b"\n"), f"message {number} is not whole"
        found[number] = found.get(number, 0) + 1
    assert acknowledged - set(found) == set()
    assert len(acknowledged) > ROUNDS, "the load was no load"
    twice = sum(count > 1 for count in found.values())
    print(f"{driver}, {victim}: {len(acknowledged)} acknowledged, {len(found)} there, {twice} more than once")
