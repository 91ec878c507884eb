"""What a server needs is not there any more, under every driver: the protocol's own error, one log line that says what
and where, nothing marked, moved or deleted; and when it is back, so is the service. (What was never there:
``sessions/faults.txt``, ``pop3.txt``.)"""

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mailfront_io.auth.sqlite import UserDatabase
from mailfront_proto.secret import Secret
from tests.conformance.served import Served
from tests.serving import DRIVERS

EVERY_DRIVER = pytest.mark.parametrize("driver", DRIVERS)


@pytest.fixture
def database(tmp_path: Path) -> UserDatabase:
    """joe may log in."""
    found = UserDatabase(str(tmp_path / "users.sqlite"))
    found.create()
    found.add("joe", Secret(b"secret"), uid=65534, gid=65534)
    return found


def serve(place: Path, driver: str, database: UserDatabase, *words: str) -> Served:
    settings = {
        "AUTH_STORE": f"sqlite:{database.path}", "AUTH_REQUIRES_TLS": "0", "AUTH_FAILURE_DELAY": "0",
        "MAILDIR_ROOT": str(place / "boxes"),
    }  # fmt: skip
    return Served(place, ["--listen", "127.0.0.1:0", "--driver", driver, *words], settings)


def mailbox(place: Path) -> Path:
    """A maildir of two messages."""
    box = place / "boxes" / "joe"
    for part in ("cur", "new", "tmp"):
        (box / part).mkdir(parents=True)
    (box / "new" / "1.a").write_bytes(b"a\n")
    (box / "cur" / "2.b:2,F").write_bytes(b"b\n")
    return box


def files(box: Path) -> dict[str, bytes]:
    return {str(path.relative_to(box)): path.read_bytes() for path in box.rglob("*") if path.is_file()}


def log_of(served: Served) -> str:
    """What it has logged until its end, which comes now."""
    served.signal()
    code, _, log = served.finish()
    assert code == 0
    assert "Traceback" not in log
    return log


@EVERY_DRIVER
def test_a_store_that_goes_down(driver: str, database: UserDatabase, tmp_path: Path) -> None:
    box = mailbox(tmp_path)
    before = files(box)
    path = Path(database.path)
    good = path.read_bytes()
    with serve(tmp_path, driver, database, "pop3", "maildir") as served:
        for bad in (b"", b"this is no database " * 400):
            path.write_bytes(bad)
            with served.client() as client:
                client.reply()
                assert client.say("USER joe", "PASS secret") == ["+OK ", "-ERR [SYS/TEMP] Internal error"]
                assert client.say("STAT", "QUIT") == ["-ERR Unimplemented", "+OK "]
        path.write_bytes(good)
        with served.client() as client:
            client.reply()
            assert client.say("USER joe", "PASS secret", "STAT", "QUIT")[2] == "+OK 2 4"
        log = log_of(served)
    lines = [line for line in log.splitlines() if "credential store: " in line]
    assert len(lines) == 2 and all("users.sqlite" in line for line in lines), log
    assert "secret" not in log
    assert files(box) == before | {"cur/1.a": before.pop("new/1.a")}  # what QUIT moves, and no more


@EVERY_DRIVER
def test_a_maildir_and_messages_that_go(driver: str, database: UserDatabase, tmp_path: Path) -> None:
    box = mailbox(tmp_path)
    with serve(tmp_path, driver, database, "pop3", "maildir") as served:
        (box / "cur").rename(box / "away")
        with served.client() as client:
            client.reply()
            assert client.say("USER joe", "PASS secret")[1] == "-ERR [SYS/PERM] Could not access maildir"
            (box / "away").rename(box / "cur")
            assert client.say("USER joe", "PASS secret", "STAT")[2] == "+OK 2 4"
            (box / "new" / "1.a").unlink()
            assert client.say("RETR 1", "DELE 2", "RSET") == ["-ERR Could not open that message", "+OK ", "+OK "]
            (box / "cur" / "2.b:2,F").unlink()
            (box / "cur" / "2.b:2,F").mkdir()
            assert client.say("RETR 2", "NOOP", "QUIT")[:2] == ["-ERR Could not open that message", "+OK "]
        log = log_of(served)
    assert [path.name for path in (box / "cur").iterdir()] == ["2.b:2,F"]
    assert len(re.findall(rf"maildir: {box}/cur: No such file or directory", log)) == 1, log
    # Who deletes a message while others read is no fault.
    assert re.findall(rf"maildir: {box}: (message .+)", log) == ["message 2: not a regular file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can run a program as another user.")
@EVERY_DRIVER
def test_a_program_that_cannot_be_executed(driver: str, database: UserDatabase, tmp_path: Path) -> None:
    mailbox(tmp_path)
    with TemporaryDirectory() as name, serve(tmp_path, driver, database, "imap", f"{name}/imapd") as served:
        Path(name).chmod(0o755)  # joe may go there
        program = Path(name) / "imapd"
        for number in range(3):  # it is not there; it is no program; it may not be executed
            if number:
                program.write_text("no program\n")
                program.chmod(0o755 if number == 1 else 0o644)
            with served.client() as client:
                assert "imapfront ready." in client.reply()
                [answer] = client.say("a LOGIN joe secret")
                assert answer == "a NO Could not execute second stage"
                assert client.reply() == ""
        with served.client() as client:
            assert "imapfront ready." in client.reply()
            assert client.say("a NOOP") == ["a OK NOOP completed"]
        log = log_of(served)
    lines = [line for line in log.splitlines() if "Error: " in line]
    assert len(lines) == 3 and all(str(program) in line for line in lines), log


