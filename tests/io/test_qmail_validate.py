"""The plugin qmail-validate."""

import os
from pathlib import Path

import pytest

from tests.front import Front
from tests.io.test_mailrules import cdb

BAD_SENDER = "553 5.1.0 Sorry, your envelope sender is in my badmailfrom list."
BAD_RECIPIENT = "553 5.1.1 Sorry, that address is in my badrcptto list."
NOBODY = "550 5.1.0 Mail system is not configured to accept that recipient"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory of qmail's, without any control file."""
    (tmp_path / "control").mkdir()
    return tmp_path


def replies(home: Path, *lines: str, plugins: str = "qmail-validate", **env: str) -> list[str]:
    """The replies behind the greeting, in the compat profile."""
    environment = {"QMAILHOME": str(home), "MAILFRONT_PROFILE": "compat", **env}
    said = "".join(f"{line}\r\n" for line in lines).encode()
    output = Front(*plugins.split(), backend="echo", env=environment).say(said)
    return output.decode().split("\r\n")[1:-1]


def senders(home: Path, *addresses: str) -> list[str]:
    return replies(home, *(f"MAIL FROM:<{address}>" for address in addresses))


def recipients(home: Path, *addresses: str) -> list[str]:
    """What is said to these recipients, shortened: a, b, or - for nothing said."""
    said = replies(home, "MAIL FROM:<s@x>", *(f"RCPT TO:<{address}>" for address in addresses))[1:]
    return [{BAD_RECIPIENT: "bad", NOBODY: "-"}.get(reply, reply[:3]) for reply in said]


def test_badmailfrom(home: Path) -> None:
    (home / "control" / "badmailfrom").write_text("# c\nSpam@X.example\n @evil.example \nhost\n")
    bad = ["spam@x.example", "SPAM@x.EXAMPLE", "a@EVIL.example", "@evil.example", "a@b@evil.example", "host"]
    good = ["ok@x.example", "a@sub.evil.example", "", "c", "a@host"]
    assert senders(home, *bad) == [BAD_SENDER] * len(bad)
    assert senders(home, *good) == [f"250 Sender='{address}'." for address in good]


def test_badrcptto_comes_before_rcpthosts(home: Path) -> None:
    (home / "control" / "badrcptto").write_text("trap@local.example\n@gone.example\n")
    (home / "control" / "rcpthosts").write_text("local.example\ngone.example\n")
    found = recipients(home, "trap@local.example", "x@GONE.example", "x@local.example", "@gone.example")
    assert found == ["bad", "bad", "250", "bad"]


@pytest.mark.parametrize("file", ["rcpthosts", "morercpthosts.cdb"])
def test_domains(home: Path, file: str) -> None:
    entries = ["local.example", ".wild.example", ".", "x@full.example", "@at.example"]
    content = cdb(*map(str.encode, entries)) if file.endswith("cdb") else "\n".join(entries).encode()
    (home / "control" / file).write_bytes(content)
    expected = {
        "x@local.example": "250", "x@LOCAL.example": "250", "x@sub.local.example": "-", "x@wild.example": "-",
        "x@a.wild.example": "250", "x@a.b.wild.example": "250", "x@.wild.example": "250", "x@other.example": "-",
        "x@full.example": "-", "x@at.example": "-", "local.example": "-", "@local.example": "-", "x@": "-", "": "-",
        "x@y@local.example": "250", "x@other.": "250",
    }  # fmt: skip
    assert dict(zip(expected, recipients(home, *expected), strict=True)) == expected


def test_both_files_count(home: Path) -> None:
    (home / "control" / "rcpthosts").write_text("one.example\n")
    (home / "control" / "morercpthosts.cdb").write_bytes(cdb(b"two.example"))
    assert recipients(home, "a@one.example", "a@two.example", "a@three.example") == ["250", "250", "-"]


def test_missing_files_are_empty(home: Path) -> None:
    assert recipients(home, "a@b") == ["-"]
    (home / "control").rmdir()
    (home / "control").write_text("a file")
    assert recipients(home, "a@b") == ["-"]


@pytest.mark.parametrize("name", ["none", "file", ""])
def test_a_missing_directory(home: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "file").touch()
    front = Front("qmail-validate", env={"QMAILHOME": str(home / name) if name else ""})
    assert front.say() == b"451 4.3.0 Could not change to the qmail directory.\r\n"


def test_the_usual_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: path == "/var/qmail")
    assert b"220 " in Front("qmail-validate").say()
    assert b"451 4.3.0 Could not change" in Front("qmail-validate", env={"QMAILHOME": "/var/mail"}).say()


def test_files_that_cannot_be_used_defer(home: Path) -> None:
    """To take a damaged list for an empty one would be to refuse its recipients for good."""
    (home / "control" / "morercpthosts.cdb").write_bytes(b"no CDB file")
    front = Front("qmail-validate", env={"QMAILHOME": str(home)})
    assert front.say() == b"451 4.3.0 Could not read the qmail control files.\r\n"
    assert front.log[0] == f"qmail-validate: {home}/control/morercpthosts.cdb is no CDB file"
    (home / "control" / "morercpthosts.cdb").unlink()
    (home / "control" / "rcpthosts").mkdir()
    assert front.say() == b"451 4.3.0 Could not read the qmail control files.\r\n"


def test_files_are_read_again_when_they_change(home: Path) -> None:
    assert recipients(home, "a@b.example") == ["-"]
    (home / "control" / "rcpthosts").write_text("b.example\n")
    assert recipients(home, "a@b.example") == ["250"]
    (home / "control" / "rcpthosts").unlink()
    assert recipients(home, "a@b.example") == ["-"]
