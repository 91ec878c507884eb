"""The POP3 front end where things go wrong around it: stores, clients, disks, the server's end; and who takes over
behind a login."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mailfront_io.auth.store import NOBODY, Asker, CredentialStore, Identity, StoreUnavailable
from mailfront_io.mailboxes.maildir import MaildirMailbox
from mailfront_io.ops import Cancelled, Send
from mailfront_io.pop3_service import POP3Service, pop3_service_from_line
from mailfront_io.session import Session
from mailfront_io.settings import ConfigurationError
from mailfront_io.testing import CANCEL, EOF, RESET, STALL, STOP, Action, Advance, Mark, WaitFor, run_script
from mailfront_proto.pop3 import Mode
from mailfront_proto.secret import Secret

LOGIN = b"USER joe\r\nPASS x\r\n"


class Store(CredentialStore):
    """Knows joe, or nothing at all when it is down."""

    mechanisms = ("LOGIN", "PLAIN")

    def __init__(self, down: bool = False) -> None:
        self._down = down

    async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
        if self._down:
            raise StoreUnavailable("the database is gone")
        return Identity(username, uid=0 if username == "root" else None)


def maildir(place: Path, count: int = 2) -> Path:
    for part in ("cur", "new", "tmp"):
        (place / "joe" / part).mkdir(parents=True)
    for number in range(1, count + 1):
        (place / "joe/new" / f"{number}.m").write_bytes(b"message %d\n" % number)
    return place


def service(root: Path, log: list[str], store: CredentialStore | None = None, **settings: str) -> POP3Service:
    given = {"AUTH_REQUIRES_TLS": "0", "AUTH_FAILURE_DELAY": "0", "MAILDIR_ROOT": str(root), **settings}
    return POP3Service(given, log.append, credentials=store or Store())


def drop(line: str) -> None:
    """A log that nobody reads."""


def untouched(root: Path) -> bool:
    return sorted(os.listdir(root / "joe/new")) == ["1.m", "2.m"] and not os.listdir(root / "joe/cur")


def test_a_store_that_is_down(tmp_path: Path) -> None:
    log: list[str] = []
    script: list[Action] = [LOGIN + b"AUTH PLAIN AGpvZQB4\r\nSTAT\r\nQUIT\r\n", EOF]
    output = run_script(service(maildir(tmp_path), log, Store(down=True)).session, script).output
    assert output.count(b"-ERR [SYS/TEMP] Internal error\r\n") == 1
    assert output.count(b"-ERR [SYS/TEMP] Internal error.\r\n") == 1
    assert output.endswith(b"-ERR Unimplemented\r\n+OK \r\n")
    assert log.count("credential store: the database is gone") == 2
    assert untouched(tmp_path)


def test_the_superuser_does_not_log_in(tmp_path: Path) -> None:
    output = run_script(service(maildir(tmp_path), []).session, [b"USER root\r\nPASS x\r\n", EOF]).output
    assert output.endswith(b"-ERR [AUTH] Authentication failed\r\n")


def test_a_failed_login_waits(tmp_path: Path) -> None:
    class Nobody(Store):
        async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
            return None

    for settings, seconds in (({"AUTH_FAILURE_DELAY": "3"}, 3.0), ({"AUTH_FAILURE_DELAY": ""}, 1.0)):
        played = run_script(service(tmp_path, [], Nobody(), **settings).session, [LOGIN, EOF])
        assert played.elapsed == seconds


@pytest.mark.parametrize("end", [EOF, RESET])
def test_a_client_that_goes_away_deletes_nothing(tmp_path: Path, end: Mark) -> None:
    session = service(maildir(tmp_path), []).session
    run_script(session, [LOGIN + b"RETR 1\r\nDELE 1\r\nDELE 2\r\n", WaitFor(b"message 1"), end], all_read=False)
    assert untouched(tmp_path)


def test_a_client_that_does_not_read_deletes_nothing(tmp_path: Path) -> None:
    """QUIT is here already, but what was asked for before it could not be sent."""
    root = maildir(tmp_path)
    (root / "joe/new/1.m").write_bytes(b"x" * 2_000_000)
    script: list[Action] = [
        LOGIN,
        WaitFor(b"+OK \r\n+OK \r\n+OK \r\n"),
        STALL,
        b"RETR 1\r\nDELE 1\r\nDELE 2\r\nQUIT\r\n",
    ]
    played = run_script(service(root, []).session, [*script, Advance(2000)], all_read=False)
    assert played.result == 0
    assert untouched(tmp_path)


def test_who_has_logged_in_has_more_time(tmp_path: Path) -> None:
    """The limit of the login is not that of the session."""
    limited = service(maildir(tmp_path), [], AUTH_SESSION_TIMEOUT="100", SESSION_TIMEOUT="1000", TIMEOUT="90")
    noop: list[Action] = [Advance(60), b"NOOP\r\n"]
    played = run_script(limited.session, [LOGIN, *noop * 20], all_read=False)
    assert played.output.count(b"+OK") == 3 + 16
    assert played.elapsed == 1000
    played = run_script(limited.session, noop * 4, all_read=False)
    assert played.elapsed == 100


def test_a_server_that_stops(tmp_path: Path) -> None:
    """Before the login at once; behind it the session may go on to its QUIT."""
    log: list[str] = []
    session = service(maildir(tmp_path), log).session
    played = run_script(session, [WaitFor(b"+OK"), STOP], all_read=False)
    assert played.output == b"+OK \r\n-ERR [SYS/TEMP] The server is shutting down\r\n"
    greeted = WaitFor(b"+OK \r\n+OK \r\n+OK \r\n")
    played = run_script(session, [LOGIN, greeted, STOP, b"DELE 1\r\nQUIT\r\n", EOF])
    assert played.output.endswith(b"+OK \r\n+OK \r\n")
    assert os.listdir(tmp_path / "joe/cur") == ["2.m"]


def test_a_server_that_cannot_wait(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    session = service(maildir(tmp_path), []).session
    said: list[Action] = [LOGIN + b"DELE 1\r\n", WaitFor(b"+OK \r\n+OK \r\n+OK \r\n+OK \r\n"), CANCEL]
    played = run_script(session, said, all_read=False, catch=True)
    assert isinstance(played.error, Cancelled)
    assert untouched(tmp_path)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_disk_that_fails_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is not told that the message is complete, and nothing is deleted, whatever follows."""
    root = maildir(tmp_path)
    (root / "joe/new/1.m").write_bytes(b"x\n" * 50_000)

    def fails(self: MaildirMailbox) -> tuple[bytes, bool]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(MaildirMailbox, "next_piece", fails)
    log: list[str] = []
    said: list[Action] = [LOGIN + b"RETR 1\r\nDELE 1\r\nQUIT\r\n", EOF]
    output = run_script(service(root, log).session, said, all_read=False).output
    assert output.endswith(b"x\r\n") and b"\r\n.\r\n" not in output
    assert f"maildir: {root}/joe: message 1: Input/output error" in log
    assert untouched(tmp_path)


def test_the_end_of_a_session_that_has_changed_nothing_asks_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = maildir(tmp_path)
    calls: list[tuple[Sequence[int], Sequence[int]]] = []
    real = MaildirMailbox.update

    def update(self: MaildirMailbox, deleted: Sequence[int], read: Sequence[int]) -> tuple[int, list[OSError]]:
        calls.append((deleted, read))
        return real(self, deleted, read)

    monkeypatch.setattr(MaildirMailbox, "update", update)

    def updates(said: bytes) -> int:
        calls.clear()
        output = run_script(service(root, []).session, [LOGIN + said + b"QUIT\r\n", EOF], all_read=False).output
        assert output.endswith(b"+OK \r\n") and b"-ERR" not in output
        return len(calls)

    assert updates(b"STAT\r\n") == 1  # two messages go from new to cur
    assert updates(b"STAT\r\nLIST\r\nUIDL\r\nDELE 1\r\nRSET\r\n") == 0
    assert updates(b"RETR 1\r\n") == 1
    assert updates(b"RETR 1\r\n") == 0
    assert updates(b"DELE 1\r\n") == 1
    assert os.listdir(root / "joe/cur") == ["2.m"]


def test_messages_that_cannot_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str, *, dir_fd: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", fails)
    log: list[str] = []
    output = run_script(service(maildir(tmp_path), log).session, [LOGIN + b"DELE 1\r\nQUIT\r\n", EOF]).output
    assert output.endswith(b"-ERR Some deleted messages were not removed\r\n")
    assert log.count(f"maildir: {tmp_path}/joe: 1 messages could not be deleted or moved: Permission denied") == 1


def test_a_message_that_another_session_has_deleted(tmp_path: Path) -> None:
    root = maildir(tmp_path)
    log: list[str] = []
    first = service(root, log)

    real = MaildirMailbox.begin_message

    def begin(self: MaildirMailbox, number: int) -> tuple[bytes, bool]:
        (root / "joe/new/2.m").unlink(missing_ok=True)
        return real(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaildirMailbox, "begin_message", begin)
        output = run_script(first.session, [LOGIN + b"RETR 2\r\nRETR 1\r\nDELE 2\r\nQUIT\r\n", EOF]).output
    end = b"-ERR Could not open that message\r\n+OK \r\nmessage 1\r\n.\r\n+OK \r\n+OK \r\n"
    assert output.endswith(end)
    assert os.listdir(root / "joe/cur") == ["1.m:2,S"]


def test_who_takes_over_behind_a_login(tmp_path: Path) -> None:
    taken: list[tuple[str, bytes]] = []

    async def take(session: Session, first: bytes) -> int:
        assert session.identity is not None
        taken.append((session.identity.username, first))
        await Send(b"+OK second stage\r\n")
        return 7

    given = {"AUTH_REQUIRES_TLS": "0"}
    login = POP3Service(given, drop, mode=Mode.LOGIN, hand_off=take, credentials=Store())
    played = run_script(login.session, [LOGIN + b"STAT\r\nQUIT\r\n", EOF], all_read=False)
    assert played.output == b"+OK \r\n+OK \r\n+OK second stage\r\n"
    assert played.result == 7
    [(username, first)] = taken
    assert username == "joe"
    assert (b"STAT\r\nQUIT\r\n").startswith(first)  # the rest is still in the connection


def test_lines_of_serve(tmp_path: Path) -> None:
    log: list[str] = []
    with pytest.raises(ConfigurationError, match="write pop3 maildir"):
        pop3_service_from_line(["pop3", "mbox"], {}, log.append)
    with pytest.raises(ConfigurationError, match=r"\$AUTH_STORE is not set"):
        pop3_service_from_line(["pop3", "maildir"], {}, log.append).check_required()
    with pytest.raises(ConfigurationError, match=r"\$TLS_CERTFILE is not set"):
        pop3_service_from_line(["pop3", "maildir"], {}, log.append, Store()).check_required()
    with pytest.raises(ConfigurationError, match=r"\$MAX_MESSAGES is 'x'"):
        pop3_service_from_line(["pop3", "maildir"], {"MAX_MESSAGES": "x"}, log.append)
