"""The path of somebody who has never seen the project, in a fresh clone: README's two commands, a first configuration,
and mail that is sent, fetched over POP3 and read over IMAP.

``make run`` gets free ports in place of its own, and ``make test``, which takes minutes, a small part of the tests,
both by ``ARGS``.
"""

import imaplib
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailfront_io.demo import DOVECOT_IMAP
from tests.docs.blocks import ROOT
from tests.ports import unused_port
from tests.serving import environment

pytestmark = pytest.mark.long

MINUTES = 15 * 60
"""For what installs packages; it takes half a minute here."""

NOBODY = 65534
"""Whom Dovecot's imap runs as, where these tests are root: it serves no mail to root."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone of what git has."""
    place: Path = tmp_path_factory.mktemp("newcomer") / "mailfront"
    subprocess.run(["git", "clone", "--quiet", ROOT, place], check=True)
    return place


@contextmanager
def running(command: list[str], place: Path, until: str) -> Iterator[list[str]]:
    """`command`, until Ctrl-C at the end of the block; gives what it has printed up to the line with `until`. All that
    it has started must end then, with success; make itself ends as Ctrl-C ends it."""
    with subprocess.Popen(
        command,
        cwd=place,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C goes to all that the terminal runs
    ) as process:
        timer = threading.Timer(MINUTES, process.kill)
        timer.start()
        reader = None
        try:
            assert process.stdout is not None
            lines: list[str] = []
            while not lines or until not in lines[-1]:
                line = process.stdout.readline()
                assert line, "".join(lines)
                lines.append(line)
            reader = threading.Thread(target=process.stdout.read)  # it may go on to talk
            reader.start()
            yield lines
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(MINUTES) == (-signal.SIGINT if command[0] == "make" else 0)
            reader.join(MINUTES)
            assert not reader.is_alive(), "somebody goes on, who has its standard output"
        finally:
            timer.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            if reader is not None:
                reader.join()


def ran(line: str, place: Path, **more: str) -> str:
    """What the command `line` prints; it must end with success."""
    done = subprocess.run(
        line, shell=True, cwd=place, env=environment(**more), capture_output=True, text=True, timeout=MINUTES
    )
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout


def test_the_path(clone: Path) -> None:
    """In the order of the README."""
    two_commands(clone)
    first_configuration(clone)


def two_commands(clone: Path) -> None:
    """``make run``, and all that it says to try; ``make test``."""
    last = "/INBOX;MAILINDEX=1" if can_imap() else "pop3s://"
    with running(["make", "run", "ARGS=--listen 127.0.0.1:0"], clone, last) as lines:
        text = "".join(lines)
        assert "mailfront is listening; Ctrl-C stops it." in text
        password = re.findall(r"user demo, password (\w+)", text)[0]
        tries = text.partition("Try, in another terminal:\n\n")[2].replace("\\\n", " ").splitlines()
        assert len(tries) >= 4
        for line in tries:
            printed = ran(line.replace("--user demo ", f"--silent --user demo:{password} ", "curl" in line), clone)
            assert "250 2.6.0" in printed if " send " in line else "Subject: A message from mailfront send" in printed
    assert re.search(r"[1-9]\d* passed", ran("make test ARGS='-q tests/docs/test_readme.py'", clone, CI=""))
    assert ran("git status --porcelain", clone) == "", "what it makes is in .gitignore"


def first_configuration(clone: Path) -> None:
    """``config init``, ``user add``, ``config check``, ``serve -c``; on ports that are free here."""
    place = clone.parent / "first"
    place.mkdir()
    mailfront = str(clone / ".venv" / "bin" / "mailfront")
    ids = f"--uid {NOBODY} --gid {NOBODY}" if os.geteuid() == 0 else ""
    ran(f"{mailfront} config init --for dev", place)
    assert "make it with mailfront user" in refused(f"{mailfront} config check", place)
    ran(f"printf 'pencil\\n' | {mailfront} user add ann {ids}", place)
    file = place / "mailfront.toml"
    ports = {port: str(unused_port()) for port in ("2525", "2526", "2110", "2143")}
    file.write_text(re.sub("|".join(ports), lambda found: ports[found[0]], file.read_text()))
    assert "mailfront.toml: good, 4 listeners" in ran(f"{mailfront} config check", place)
    with running([mailfront, "serve", "-c", "mailfront.toml"], place, "Serving "):
        sent = ran(f"{mailfront} send 127.0.0.1:{ports['2525']} --to ann@localhost", place)
        assert sent.startswith("ann@localhost: 250 2.6.0")
        fetched = ran(f"curl --silent --user ann:pencil pop3://127.0.0.1:{ports['2110']}/1", place)
        assert "Subject: A message from mailfront send" in fetched
        if any(os.access(path, os.X_OK) for path in DOVECOT_IMAP[:1]):
            if ids:
                hand_over(place / "mailfront-data", clone.parent)
            with imaplib.IMAP4("127.0.0.1", int(ports["2143"]), timeout=MINUTES) as client:
                client.login("ann", "pencil")
                assert client.select() == ("OK", [b"1"])


def refused(line: str, place: Path) -> str:
    """What a command says on standard error that finds its configuration wrong."""
    done = subprocess.run(line, shell=True, cwd=place, env=environment(), capture_output=True, text=True)
    assert done.returncode == 78
    return done.stderr


def can_imap() -> bool:
    """Whether the development server has IMAP: not for root."""
    return os.geteuid() != 0 and any(os.access(path, os.X_OK) for path in DOVECOT_IMAP)


def hand_over(data: Path, above: Path) -> None:
    """Let the user `NOBODY` read ann's mail."""
    for path in (above, above.parent, above.parent.parent):
        path.chmod(path.stat().st_mode | 0o011)
    for path in (data, data / "localhost", above / "first"):
        path.chmod(0o755)
    for path in (data / "localhost" / "ann", *(data / "localhost" / "ann").rglob("*")):
        os.chown(path, NOBODY, NOBODY)


def test_the_manual_builds(clone: Path) -> None:
    """``make docs``, with warnings as errors."""
    assert "docs/_build/html/index.html" in ran("make docs", clone)
    assert (clone / "docs" / "_build" / "html" / "serve.html").exists()
    shutil.rmtree(clone / "docs" / "_build")
