"""Maildirs that want to harm: H76 to H80 through the POP3 front end, on real files."""

import os
import socket
from pathlib import Path

import pytest

from mailfront_io.auth.static import StaticStore
from mailfront_io.auth.store import NOBODY, Asker, CredentialStore, Identity
from mailfront_io.mailboxes.maildir import MaildirMailbox
from mailfront_io.pop3_service import POP3Service
from mailfront_io.testing import EOF, run_script
from mailfront_proto.pop3 import Mode
from mailfront_proto.secret import Secret

PROFILES = ("default", "compat")
OUTSIDE = b"Subject: of somebody else\n\nsecret\n"


def maildir(place: Path) -> Path:
    for part in ("cur", "new", "tmp"):
        (place / part).mkdir(parents=True)
    return place


def say(place: Path, said: bytes, profile: str = "default", log: list[str] | None = None) -> bytes:
    """What a session from behind the login on answers to these commands."""
    lines: list[str] = [] if log is None else log
    service = POP3Service({"MAILFRONT_PROFILE": profile}, lines.append, mode=Mode.MAILBOX, mailbox=str(place))
    played = run_script(service.session, [said, EOF], all_read=False)
    assert played.result == 0
    return played.output


class KnowsAll(CredentialStore):
    """A store that lets everybody in, with a mailbox of the test's choice."""

    mechanisms = ("LOGIN", "PLAIN")

    def __init__(self, mailbox: str = "") -> None:
        self._mailbox = mailbox

    async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
        return Identity(username, mailbox=self._mailbox)


def log_in(root: Path, username: str, mailbox: str = "", log: list[str] | None = None) -> bytes:
    lines: list[str] = [] if log is None else log
    settings = {"AUTH_REQUIRES_TLS": "0", "MAILDIR_ROOT": str(root)}
    service = POP3Service(settings, lines.append, credentials=KnowsAll(mailbox))
    said = f"USER {username}\r\nPASS x\r\nSTAT\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n".encode()
    return run_script(service.session, [said, EOF], all_read=False).output


NAMES = (
    "1\r\n.\r\n+OK forged",
    "2 spaced name",
    "3\nx",
    "4\x7f",
    "5gr\xfc\xdfe",
    "6" + "x" * 200,
    "7\t",
)


@pytest.mark.parametrize("profile", PROFILES)
def test_h76_names_forge_no_lines(tmp_path: Path, profile: str) -> None:
    place = maildir(tmp_path / "md")
    for name in NAMES:
        with open(os.fsencode(place / "cur") + b"/" + name.encode("latin-1"), "wb") as file:
            file.write(b"x\n")
    log: list[str] = []
    output = say(place, b"UIDL\r\nUIDL 1\r\nRETR 1\r\nQUIT\r\n", profile, log)
    lines = output.split(b"\r\n")
    listing = lines[2 : lines.index(b".")]
    assert len(listing) == len(NAMES)
    uids = []
    for number, line in enumerate(listing, 1):
        told, _, uid = line.partition(b" ")
        assert int(told) == number
        assert 1 <= len(uid) <= 70 and all(0x21 <= byte <= 0x7E for byte in uid)
        uids.append(uid)
    assert len(set(uids)) == len(uids)
    assert b"forged" not in output
    assert not any("\n" in line or "\r" in line for line in log)
    # And the files are still found by their names: read, marked, kept.
    assert len(list((place / "cur").iterdir())) == len(NAMES)


@pytest.mark.parametrize("profile", PROFILES)
def test_h77_only_regular_files_are_opened(tmp_path: Path, profile: str) -> None:
    place = maildir(tmp_path / "md")
    outside = tmp_path / "outside"
    outside.write_bytes(OUTSIDE)
    cur = place / "cur"
    (cur / "1.link").symlink_to(outside)
    (cur / "2.link,S=9:2,S").symlink_to("../../outside")
    (cur / "3.hanging").symlink_to("nowhere")
    os.mkfifo(cur / "4.fifo")
    (cur / "5.directory").mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(cur / "6.socket"))
        (cur / "7.mail").write_bytes(b"mail\n")
        before = sorted(os.listdir(cur))
        output = say(place, b"UIDL\r\nRETR 1\r\nRETR 2\r\nDELE 2\r\nQUIT\r\n", profile)
    assert b"\r\n1 7.mail\r\n.\r\n" in output
    assert b"secret" not in output
    assert output.count(b"-ERR Message number out of range\r\n") == 2
    assert [name.replace(":2,S", "") for name in sorted(os.listdir(cur))] == [n.replace(":2,S", "") for n in before]
    assert outside.read_bytes() == OUTSIDE


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_h77_nor_what_has_taken_the_place_of_one(tmp_path: Path, kind: str) -> None:
    """The mailbox is open already when the file is replaced."""
    place = maildir(tmp_path / "md")
    outside = tmp_path / "outside"
    outside.write_bytes(OUTSIDE)
    for name in ("1", "2"):
        (place / "cur" / name).write_bytes(b"mail\n")
    log: list[str] = []
    service = POP3Service({}, log.append, mode=Mode.MAILBOX, mailbox=str(place))

    def replace() -> None:
        path = place / "cur" / "1"
        path.unlink()
        if kind == "link":
            path.symlink_to(outside)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()

    real = MaildirMailbox.begin_message

    def begin(self: MaildirMailbox, number: int) -> tuple[bytes, bool]:
        if number == 1:
            replace()
        return real(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaildirMailbox, "begin_message", begin)
        output = run_script(service.session, [b"RETR 1\r\nRETR 2\r\nQUIT\r\n", EOF], all_read=False).output
    assert output == b"+OK \r\n-ERR Could not open that message\r\n+OK \r\nmail\r\n.\r\n+OK \r\n"
    assert outside.read_bytes() == OUTSIDE
    assert len([line for line in log if line.startswith(f"maildir: {place}: message 1: ")]) == 1


@pytest.mark.parametrize("part", ["cur", "new"])
def test_h77_cur_and_new_are_no_links(tmp_path: Path, part: str) -> None:
    other = maildir(tmp_path / "other")
    (other / part / "1").write_bytes(OUTSIDE)
    place = maildir(tmp_path / "md")
    (place / part).rmdir()
    (place / part).symlink_to(other / part)
    output = say(place, b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
    assert output == b"-ERR [SYS/PERM] Could not access maildir\r\n"
    assert (other / part / "1").exists()


LEADING_OUT = ("..", ".", "../other", "/", "a/../../other", ".hidden", "joe/../../other", "a/b", "link")


# An absolute path as the mailbox comes from the store alone, and is taken at its word.
@pytest.mark.parametrize(
    ("how", "name"),
    [(how, name) for how in ("username", "mailbox") for name in LEADING_OUT if (how, name) != ("mailbox", "/")],
)
def test_h78_no_name_leaves_its_root(tmp_path: Path, how: str, name: str) -> None:
    root = tmp_path / "root"
    maildir(root / "joe")
    other = maildir(tmp_path / "other")
    (other / "new/1").write_bytes(OUTSIDE)
    for hidden in (root, root / ".hidden", tmp_path):
        for part in ("cur", "new", "tmp"):
            (hidden / part).mkdir(parents=True, exist_ok=True)
        (hidden / "new/1").write_bytes(OUTSIDE)
    (root / "link").symlink_to(other)
    log: list[str] = []
    output = log_in(root, name if how == "username" else "joe", name if how == "mailbox" else "", log)
    assert b"secret" not in output
    assert b"-ERR [SYS/PERM] " in output
    assert (other / "new/1").read_bytes() == OUTSIDE
    assert sum(line.startswith(("maildir: ", "Error: ")) for line in log) == 1


def test_h78_names_with_zero_bytes(tmp_path: Path) -> None:
    maildir(tmp_path / "joe")
    assert b"-ERR [SYS/PERM] Could not chdir to maildir\r\n" in log_in(tmp_path, "joe", "joe\0/../..")


def test_h79_names_of_files_are_not_taken_from_messages(tmp_path: Path) -> None:
    """Whatever a message says, the session only makes names out of the names that are there."""
    place = maildir(tmp_path / "md")
    (place / "new/1.a").write_bytes(b"Message-ID: <../../../evil>\nSubject: ../x\n\n../../y\n")
    say(place, b"RETR 1\r\nQUIT\r\n")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == ["md/cur/1.a:2,S"]


CONTENTS = {
    b"": b"",
    b"a\n\n.\n": b"a\r\n\r\n..\r\n",
    b".": b"..\r\n",
    b"a\n\nno end": b"a\r\n\r\nno end\r\n",
    b"a\r\n\r\n.crlf\r\n": b"a\r\n\r\n..crlf\r\n",
    b"a\n\nend with cr\r": b"a\r\n\r\nend with cr\r\r\n",
    b"a\n\n" + b".\n" * 40_000: b"a\r\n\r\n" + b"..\r\n" * 40_000,
    b"a\n\n" + b"x" * 32765 + b"\n.\n": b"a\r\n\r\n" + b"x" * 32765 + b"\r\n..\r\n",  # the dot begins a piece
    b"a\r\n\r\n" + b"x" * 32762 + b"\r\n.\r\n": b"a\r\n\r\n" + b"x" * 32762 + b"\r\n..\r\n",
}


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: repr(content[:20]))
def test_h80_messages_are_sent_exactly(tmp_path: Path, content: bytes) -> None:
    place = maildir(tmp_path / "md")
    (place / "cur/1").write_bytes(content)
    expected = b"+OK \r\n" + CONTENTS[content] + b".\r\n"
    output = say(place, b"RETR 1\r\nTOP 1 99999999\r\nTOP 1 0\r\nQUIT\r\n")
    header = CONTENTS[content].partition(b"\r\n\r\n")[0]
    assert output.startswith(b"+OK \r\n" + expected * 2)
    if b"\r\n\r\n" in CONTENTS[content]:
        assert output.endswith(b"+OK \r\n" + header + b"\r\n\r\n.\r\n+OK \r\n")


def test_a_store_without_such_users_opens_nothing(tmp_path: Path) -> None:
    maildir(tmp_path / "joe")
    log: list[str] = []
    service = POP3Service(
        {"AUTH_REQUIRES_TLS": "0", "MAILDIR_ROOT": str(tmp_path), "AUTH_FAILURE_DELAY": "0"},
        log.append,
        credentials=StaticStore({"joe": Secret(b"right")}),
    )
    said = b"USER joe\r\nPASS wrong\r\nUSER ann\r\nPASS right\r\nSTAT\r\nQUIT\r\n"
    output = run_script(service.session, [said, EOF]).output
    assert output.count(b"-ERR [AUTH] Authentication failed\r\n") == 2
    assert b"-ERR Unimplemented\r\n" in output
