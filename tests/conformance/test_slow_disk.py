"""A disk, or a qmail-queue, that takes its time holds up its own session and no other."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailfront_io.ops import Thread
from tests.conformance.driver import DRIVERS, SECONDS, Server
from tests.conformance.served import Client
from tests.conformance.session_file import FACTS, Outcome, Session
from tests.conformance.stage import set_up
from tests.front import ENVELOPE, Front, codes

ENVELOPE_LINES = ("EHLO x", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA")
WAITING = b"#!/bin/sh\ncat >message\ntouch waiting\nwhile [ ! -e go ]; do sleep 0.01; done\n"


@pytest.fixture(params=["threads", "asyncio", "uvloop", "trio"])
def server(request: pytest.FixtureRequest, tmp_path: Path, certificate: Path) -> Iterator[Server]:
    found = DRIVERS[request.param](tmp_path, certificate)
    assert isinstance(found, Server)
    found.start()
    yield found
    found.close()


def serve(server: Server, place: Path, backend: str) -> Path:
    """Serve that backend; where it stores."""
    settings = {"QUEUEDIR": "$DIR", "MAILDIR_PATH": "$DIR", "QMAILHOME": "$DIR", "QMAILQUEUE": "./queue"}
    make = {"tmp/": None, "new/": None, "cur/": None, "queue*": WAITING}
    session = Session("slow", ("smtp", backend, "accept"), {**FACTS, **settings}, make, (), Outcome(b"", (), "", {}))
    place.mkdir()
    server._stage = set_up(session, place, place, {})
    return place / "work"


def check_others_go_on(server: Server, waits: Callable[[], bool], go: Callable[[], None]) -> None:
    """One client's message waits; another's session goes through; and then the first one's does."""
    with Client(server._address) as slow:
        slow.reply()
        assert slow.say(*ENVELOPE_LINES)[-1].startswith("354")
        slow.socket.sendall(b"x\r\n.\r\n")
        assert waits()
        for _ in range(3):
            with Client(server._address) as other:
                other.reply()
                assert other.say("EHLO x", "NOOP", "QUIT")[1:] == ["250 2.3.0 OK", "221 2.0.0 Good bye."]
        slow.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            slow.socket.recv(1)
        slow.socket.settimeout(SECONDS)
        go()
        answer = slow.socket.recv(100)
        assert answer.startswith(b"250 2.6.0 ")


@pytest.mark.parametrize("backend", ["queuedir", "maildir"])
def test_an_fsync_that_takes_its_time(
    server: Server, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(server, tmp_path / "slow", backend)
    waiting, go, fsync = threading.Event(), threading.Event(), os.fsync

    def slow_fsync(descriptor: int) -> None:
        waiting.set()
        assert go.wait(SECONDS)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow_fsync)
    check_others_go_on(server, lambda: waiting.wait(SECONDS), go.set)


def test_a_queue_that_takes_its_time(server: Server, tmp_path: Path) -> None:
    place = serve(server, tmp_path / "slow", "qmail")

    def waits() -> bool:
        for _ in range(1000):
            if (place / "waiting").exists():
                return True
            threading.Event().wait(SECONDS / 1000)
        return False

    check_others_go_on(server, waits, (place / "go").touch)


@pytest.mark.parametrize("backend", ["queuedir", "maildir"])
def test_one_hop_through_a_thread_for_each_message(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the first one of a process, whose directory is looked at before."""
    hops: list[object] = []
    monkeypatch.setattr(Thread, "__await__", _counting(Thread.__await__, hops))
    for name in ("tmp", "new", "cur"):
        (tmp_path / name).mkdir()
    front = Front("accept", backend=backend, env={"QUEUEDIR": str(tmp_path), "MAILDIR_PATH": str(tmp_path)})
    message = ENVELOPE + b"DATA\r\n", b"x\r\n.\r\n"
    front.say(*message)
    hops.clear()
    assert codes(front.say(*message * 5)).count(354) == 5
    assert len(hops) == 5


def _counting(method: Callable[..., object], hops: list[object]) -> Callable[..., object]:
    def counted(thread: object) -> object:
        hops.append(thread)
        return method(thread)

    return counted
