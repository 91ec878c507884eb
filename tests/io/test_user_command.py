"""``mailfront user``: what it does, says, and never shows."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from mailfront_io import user_command
from mailfront_io.auth.sqlite import UserDatabase
from mailfront_proto.secret import Secret
from tests.serving import MAILFRONT, environment


class Shell:
    """Runs the command in this process, with a password on standard input."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str, password: bytes = b"") -> tuple[int, str]:
        """The exit code, and all that was said."""
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(password)))
        code = user_command.main(list(words))
        said = self._capsys.readouterr()
        return code, said.out + said.err


@pytest.fixture
def user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTH_STORE", raising=False)
    return Shell(monkeypatch, capsys)


def test_a_life_of_a_user(user: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user("add", "ann", "--mailbox", "x/ann", "--uid", "5", "--gid", "6", password=b"pencil\n")[0] == 0
    assert Path("mailfront-data/users.sqlite").exists()
    assert user("add", "bob@example.org", password=b"x\r\nrest")[0] == 0
    assert user("list") == (0, "ann mailbox=x/ann uid=5 gid=6\nbob@example.org\n")
    assert user("verify", "ann", password=b"pencil") == (0, "the password is right\n")
    assert user("verify", "ann", password=b"pen")[0] == user("verify", "eve", password=b"x")[0] == 1
    assert user("passwd", "ann", password=b"pen\n") == (0, "ann has another password\n")
    assert user("verify", "ann", password=b"pen")[0] == 0
    monkeypatch.setenv("AUTH_STORE", "sqlite:other.sqlite")
    assert user("--database", "mailfront-data/users.sqlite", "remove", "ann")[0] == 0
    assert user("list", "--database", "mailfront-data/users.sqlite") == (0, "bob@example.org\n")
    code, said = user("list")
    assert code == 78 and "other.sqlite does not exist: make it with mailfront user --database " in said
    assert user("add", "ann", password=b"y")[0] == 0 and Path("other.sqlite").exists()


def test_mistakes_are_told_with_a_remedy(user: Shell) -> None:
    assert user("add", "ann", password=b"pencil")[0] == 0
    for words, password, code, why in (
        (["add", "ann"], b"x", 1, "there is a user ann already: mailfront user passwd"),
        (["passwd", "eve"], b"x", 1, "there is no user eve: mailfront user list"),
        (["remove", "eve"], b"", 1, "there is no user eve"),
        (["add", "eve"], b"", 64, "the first line of standard input is the password"),
        (["add", "eve"], b"x" * 1025, 64, "1 to 1024 octets"),
        (["add", "eve"], b"\xff", 64, "a password is not empty, is UTF-8"),
        (["add", "e/ve"], b"x", 64, "a user name has no slash"),
        (["add", "eve", "--uid", "0"], b"x", 64, "no id of a user who may log in"),
        (["add"], b"", 64, "see mailfront user --help"),
        ([], b"", 64, "see mailfront user --help"),
        (["add", "eve", "password"], b"", 64, "unrecognized arguments"),
        (["list", "--database", "/dev/null/x"], b"", 78, "does not exist"),
    ):
        said = user(*words, password=password)
        assert said[0] == code and said[1].startswith("mailfront user: ") and why in said[1], (words, said)
    assert user("list") == (0, "ann\n")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        user_command.main(["--help"])
    said = capsys.readouterr().out
    assert caught.value.code == 0
    for word in ("add", "passwd", "list", "remove", "verify", "--database", "AUTH_STORE=sqlite:", "For instance"):
        assert word in said


@pytest.mark.parametrize("again, code", [(b"pencil\n", 0), (b"pen\n", 64)])
def test_the_password_is_asked_twice_without_echo(tmp_path: Path, again: bytes, code: int) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [MAILFRONT, "user", "--database", "u.sqlite", "add", "ann"],
        cwd=tmp_path, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    with process:
        for question, typed in ((b"Password of ann: ", b"pencil\n"), (b"Again: ", again)):
            while question not in said:
                said += os.read(ours, 1024)
            os.write(ours, typed)
        assert process.wait(30) == code
        try:
            while data := os.read(ours, 1024):
                said += data
        except OSError:  # the terminal is closed
            pass
    os.close(ours)
    assert b"pencil" not in said and b"pen\r" not in said
    found = UserDatabase(str(tmp_path / "u.sqlite")).verify("ann", Secret(b"pencil"))
    assert (found is not None) is (code == 0)
