"""``mailfront queue``: reads what queuedir wrote, hands it on, once, whoever else does it at the same time."""

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io import queue_command
from mailfront_io.queue_files import NotQueued, Queued, read_envelope
from tests.front import ENVELOPE, Front
from tests.serving import MAILFRONT, SECONDS, environment

MESSAGE = b"Subject: \xff\x1b[2J\n\n.dot\n\0\rno end"
COPY = """#!/bin/sh
# what qmail-queue is given: in files named by the process, which are there whole or not at all
cat >"$1/$$.part" && cat <&1 >"$1/$$.envelope" && mv "$1/$$.part" "$1/$$.message"
"""


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    for name in ("queue/tmp", "queue/new", "taken"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "copy").write_text(COPY)
    (tmp_path / "copy").chmod(0o755)
    return tmp_path


def put(queue: Path, name: str, content: bytes) -> Path:
    path = queue / "queue/new" / name
    path.write_bytes(content)
    return path


def run(*words: object) -> tuple[int, str, str]:
    """The command as a program of its own, in a locale that is not ours."""
    done = subprocess.run(
        [MAILFRONT, "queue", *map(str, words)], env=environment(LANG="C"), capture_output=True, timeout=SECONDS
    )
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode()


def test_what_queuedir_wrote_goes_on(queue: Path) -> None:
    front = Front("accept", backend="queuedir", env={"QUEUEDIR": str(queue / "queue")})
    front.say(ENVELOPE + b"RCPT TO:<c@example.org>\r\nDATA\r\n", b"Hi\r\n.\r\n")
    code, said, _ = run("list", queue / "queue")
    assert code == 0 and said.endswith(" 3 <a@example.net> <b@example.org> and 1 more\n")
    code, said, _ = run("deliver", queue / "queue", queue / "copy", queue / "taken")
    assert code == 0 and said.endswith(": handed on\n1 handed on, 0 left, 0 taken by others\n") and said[:4] == "1/1 "
    (message,) = (queue / "taken").glob("*.message")
    assert message.read_bytes() == b"Hi\n"
    assert message.with_suffix(".envelope").read_bytes() == b"Fa@example.net\0Tb@example.org\0Tc@example.org\0\0"
    assert run("list", queue / "queue/new") == (0, "", "")
    assert run("deliver", "--quiet", queue / "queue", "/nothing") == (0, "", "")


def test_show_escapes_what_a_terminal_must_not_see_and_message_does_not(queue: Path) -> None:
    path = put(queue, "1", b"\0b@\x1b\xc3\xa9\0\0" + MESSAGE)
    code, said, _ = run("show", path)
    assert code == 0
    assert said.startswith("sender: <>\nrecipient: <b@\\x1b")
    assert "Subject: \\udcff\\x1b[2J\n\n.dot\n\\x00\\rno end\n" in said
    assert run("show", "--message", path) == (0, MESSAGE.decode("latin-1"), "")


def test_show_and_list_of_what_is_no_queue_file(queue: Path) -> None:
    path = put(queue, "1", b"no envelope")
    assert run("show", path) == (
        78, "", f"mailfront queue: {path}: it does not begin with an envelope: name a file of a queuedir\n",
    )  # fmt: skip
    put(queue, "2", b"a@b\0\0x")
    put(queue, "3", b"a@b\0c@d\0\0")
    os.mkfifo(queue / "queue/new/4")
    code, said, _ = run("list", queue / "queue")
    assert code == 1
    assert said.split("\n")[:2] == ["1: it does not begin with an envelope", "2: it has no recipient"]
    assert said.split("\n")[2].startswith("3 ") and said.count("\n") == 3
    none = queue / "none"
    assert [run("show", none)[0], run("list", none)[0], run("deliver", none, "x")[0]] == [78, 78, 78]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 31", "exit code 31: 5.3.0 Message refused."),
        ("exit 53", "exit code 53: 4.3.0 Write error (queue full?)."),
        ("kill -9 $$", "the program was killed by signal 9"), ("sleep 1000 & wait", "4.3.0 Timeout."),
    ],
)  # fmt: skip
def test_what_is_not_taken_stays(queue: Path, script: str, why: str) -> None:
    path = put(queue, "1", b"a@b\0c@d\0\0x")
    put(queue, "2", b"not one")
    seconds = 1 if "sleep" in script else 60
    code, said, _ = run("deliver", "--timeout", seconds, queue / "queue", "/bin/sh", "-c", script)
    assert code == 1
    assert said == (
        f"1/2 1: {why}\n2/2 2: it does not begin with an envelope\n0 handed on, 2 left, 0 taken by others\n"
    )
    assert path.read_bytes() == b"a@b\0c@d\0\0x"


def test_a_program_that_cannot_be_started_is_told_at_once(queue: Path) -> None:
    put(queue, "1", b"a@b\0c@d\0\0x")
    assert run("deliver", queue / "queue", queue / "none") == (
        78, "", f"mailfront queue: {queue}/none: No such file or directory\n",
    )  # fmt: skip


def test_as_sendmail_takes_it(queue: Path) -> None:
    put(queue, "1", b"-v@b\0-c@d\0e@f\0\0x\n")
    script = f'printf "%s|" "$@" >{queue}/arguments; cat >{queue}/message'
    code, _, _ = run("deliver", "--sendmail", queue / "queue", "/bin/sh", "-c", script, "name", "-i")
    assert code == 0
    assert (queue / "arguments").read_text() == "-i|-f|-v@b|--|-c@d|e@f|"
    assert (queue / "message").read_bytes() == b"x\n"


def test_a_file_that_somebody_delivers_is_left_to_them(queue: Path) -> None:
    path = put(queue, "1", b"a@b\0c@d\0\0x")
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, said, _ = run("deliver", queue / "queue", "/bin/false")
    assert (code, said) == (0, "0 handed on, 0 left, 1 taken by others\n")


def test_four_at_once_hand_on_each_file_once(queue: Path) -> None:
    for number in range(60):
        put(queue, f"{number:03}", b"a@b\0%d@d\0\0message %d" % (number, number))
    words = "queue", "deliver", "--quiet", queue / "queue", queue / "copy", queue / "taken"
    command = [str(word) for word in (MAILFRONT, *words)]
    running = [subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) for _ in range(4)]
    for process in running:
        out, _ = process.communicate(timeout=SECONDS)
        assert (process.returncode, out) == (0, b"")
    taken = sorted(path.read_bytes() for path in (queue / "taken").glob("*.message"))
    assert taken == sorted(b"message %d" % number for number in range(60))
    assert list((queue / "queue/new").iterdir()) == []


def test_a_file_that_cannot_be_read_or_said_holds_up_no_other(
    queue: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipients = b"".join(b"%d@%s\0" % (number, b"x" * 240) for number in range(12_000))
    put(queue, "1", b"a@b\0" + recipients + b"\0x")  # more than the arguments of a program may be
    secret = put(queue, "2", b"a@b\0c@d\0\0x")
    last = put(queue, "3", b"a@b\0c@d\0\0x")
    real_open = os.open

    def open_(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == str(secret):
            raise PermissionError(13, "Permission denied", path)
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr("mailfront_io.queue_files.os.open", open_)
    assert queue_command.main(["deliver", "--sendmail", str(queue / "queue"), "/bin/true"]) == 1
    assert capsys.readouterr().out == (
        "1/3 1: 12000 recipients are too many for arguments: use a program that reads the envelope\n"
        "2/3 2: Permission denied\n3/3 3: handed on\n1 handed on, 2 left, 0 taken by others\n"
    )
    assert not last.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_behind_the_file_that_it_is_at(queue: Path, number: signal.Signals) -> None:
    for name in ("1", "2"):
        put(queue, name, b"a@b\0c@d\0\0x")
    os.mkfifo(queue / "begun")
    os.mkfifo(queue / "go")
    script = f"echo >{queue}/begun; read line <{queue}/go"
    command = [str(MAILFRONT), "queue", "deliver", "--quiet", str(queue / "queue"), "/bin/sh", "-c", script]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        (queue / "begun").read_bytes()
        process.send_signal(number)
        (queue / "go").write_text("\n")
        said = process.communicate(timeout=SECONDS)
    assert said == (b"1 handed on, 0 left, 0 taken by others, 1 not tried: stopped by a signal\n", b"")
    assert process.returncode == 1
    assert [path.name for path in (queue / "queue/new").iterdir()] == ["2"]


def test_what_is_no_file_is_named(queue: Path) -> None:
    assert run("show", queue / "taken")[2] == (
        f"mailfront queue: {queue}/taken: Is a directory: name a file of a queuedir\n"
    )


def test_help_teaches_and_usage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        queue_command.main(["--help"])
    assert "mailfront queue deliver /var/spool/in /var/qmail/bin/qmail-queue" in capsys.readouterr().out
    for words in ([], ["deliver", "x"], ["show"], ["deliver", "--timeout", "0", "x", "y"], ["eat"]):
        assert queue_command.main(words) == 64
        assert capsys.readouterr().err.endswith(": see mailfront queue --help\n")
    assert queue_command.main(["list"]) == 64


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), min_size=1), st.binary())
def test_an_envelope_is_read_as_it_was_written(recipients: list[str], message: bytes) -> None:
    for sender in ("", "a@b"):
        data = b"".join(text.encode() + b"\0" for text in (sender, *recipients)) + b"\0" + message
        assert _read(data) == Queued(sender, recipients, len(data) - len(message), len(message))


@given(st.binary(max_size=40))
def test_no_file_is_more_than_no_queue_file(data: bytes) -> None:
    try:
        queued = _read(data)
    except NotQueued:
        return
    addresses = "".join(f"{text}\0" for text in (queued.sender, *queued.recipients)) + "\0"
    assert data.startswith(addresses.encode("utf-8", "surrogateescape"))


def test_an_envelope_without_an_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailfront_io.queue_files.MAX_ENVELOPE", 100_000)
    with pytest.raises(NotQueued):
        _read(b"x" * 300_000 + b"\0c@d\0\0")


def _read(data: bytes) -> Queued:
    descriptor = os.memfd_create("queued")
    try:
        os.write(descriptor, data)
        return read_envelope(descriptor)
    finally:
        os.close(descriptor)


