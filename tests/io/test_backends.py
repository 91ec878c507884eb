"""The backends that come with mailfront, and the spool."""

import os
import re
from pathlib import Path

import pytest

from mailfront_io.backends.maildir import unique_name
from mailfront_io.spool import BLOCK, MEMORY_LIMIT, Spool
from mailfront_io.testing import CANCEL, EOF, RESET, Advance, VirtualClock
from tests.front import ENVELOPE, Front, codes

DATA = ENVELOPE + b"DATA\r\n"
BODY = b"Subject: x\r\n\r\nbody\r\n.\r\n"
SECOND = b"MAIL FROM:<c@example.net>\r\nRCPT TO:<d@example.org>\r\nRCPT TO:<e@example.org>\r\nDATA\r\n"
CLOCK = 1_000_000_000.25


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# -- echo and discard ------------------------------------------------------------------------------------


def test_echo_repeats_and_counts() -> None:
    front = Front("accept", backend="echo", env={"MAILFRONT_PROFILE": "compat"})
    output = front.say(b"MAIL FROM:<a@b> SIZE=1  X\r\nRCPT TO:<c@d> Y=Z\r\nDATA\r\n", b"one\r\n..two\r\n.\r\n")
    assert output.split(b"\r\n")[1:] == [
        b"250 Sender='a@b'. [SIZE=1] [] [X]", b"250 Recipient='c@d'. [Y=Z]",
        b"354 End your message with a period on a line by itself.", b"250 Received 9 bytes.", b"",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "logged"),
    [
        (b"one\r\ntwo\r\nthree\r\n.\r\n", ["onetwo"]), (b"one\r\n.\r\n", ["one"]), (b".\r\n", []),
        (b"\r\ntwo\r\n.\r\n", ["two"]), (b"one\r\n\r\nthree\r\n.\r\n", ["one"]),
        (b"\xff\r\n\xc3\xa9\r\n.\r\n", ["\udcff\u00e9"]),
    ],
)  # fmt: skip
def test_echo_logs_the_first_two_lines(message: bytes, logged: list[str]) -> None:
    for pieces in ([message], [message[i : i + 1] for i in range(len(message))]):
        front = Front("accept", backend="echo")
        front.say(DATA, *pieces)
        assert front.log[2:-1] == logged


def test_echo_logs_added_lines_apart_and_a_spool_again() -> None:
    front = Front("accept", "add-received", backend="echo")
    front.play([DATA, BODY, EOF], clock=VirtualClock(CLOCK))
    assert front.log[2].startswith("Received: from x ") and len(front.log) == 4
    front = Front("accept", "force-file", backend="echo")
    front.say(DATA, BODY)
    assert front.log[2:4] == ["Subject: x", "Subject: x"]


def test_echo_counts_each_message_anew() -> None:
    output = Front("accept", backend="echo").say(DATA, BODY, DATA, b"x\r\n.\r\n", DATA, b".\r\n")
    assert re.findall(rb"Received (\d+) bytes", output) == [b"17", b"2", b"0"]


def test_discard_takes_everything() -> None:
    output = Front("accept", backend="discard").say(DATA, BODY)
    assert output.endswith(b"250 2.6.0 Message accepted.\r\n")


# -- queuedir --------------------------------------------------------------------------------------------


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    for name in ("tmp", "new"):
        (tmp_path / name).mkdir()
    return tmp_path


def queuedir(queue: Path, **env: str) -> Front:
    return Front("accept", backend="queuedir", env={"QUEUEDIR": str(queue), **env})


def test_queuedir_writes_envelope_and_message(queue: Path) -> None:
    front = queuedir(queue)
    front.play([DATA, BODY, SECOND, b"two\r\n.\r\n", EOF], clock=VirtualClock(CLOCK), all_read=False)
    found = sorted((queue / "new").iterdir())
    assert [path.read_bytes() for path in found] == [
        b"a@example.net\0b@example.org\0\0Subject: x\n\nbody\n",
        b"c@example.net\0d@example.org\0e@example.org\0\0two\n",
    ]
    # two in one microsecond have two names; a name is never used again, also where the clock stands still
    assert all(re.fullmatch(rf"\d+\.\d{{6}}\.{os.getpid()}", path.name) for path in found)
    assert names(queue / "tmp") == []


def test_queuedir_names_of_its_directories(queue: Path) -> None:
    (queue / "tmp").rename(queue / "work")
    (queue / "new").rename(queue / "in")
    queuedir(queue, QUEUEDIR_TMP="work", QUEUEDIR_DEST="in", QUEUEDIR_NOSYNC="").say(DATA, BODY)
    assert len(names(queue / "in")) == 1 and names(queue / "work") == []


@pytest.mark.parametrize(
    "said",
    [
        ENVELOPE, ENVELOPE + b"RSET\r\n", ENVELOPE + b"EHLO y\r\n", ENVELOPE + b"MAIL FROM:<x@y>\r\nRSET\r\n",
        DATA, DATA + b"x\r\n",
        ENVELOPE + b"QUIT\r\n", ENVELOPE + b"MAIL FROM:<bad\r\n", ENVELOPE * 3,
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", [EOF, RESET, Advance(10_000), CANCEL], ids=["EOF", "reset", "timeout", "cancel"])
def test_queuedir_leaves_nothing_behind(queue: Path, said: bytes, end: object) -> None:
    queuedir(queue).play([said, end, EOF], all_read=False, catch=True)  # type: ignore[list-item]
    assert names(queue / "tmp") == names(queue / "new") == []


def test_queuedir_without_its_setting_or_directory(tmp_path: Path) -> None:
    output = Front("accept", backend="queuedir").say(ENVELOPE)
    assert b"451 4.3.0 Missing backend configuration parameter\r\n" in output
    front = queuedir(tmp_path / "none")
    assert b"451 4.3.0 Error creating queue file\r\n" in front.say(ENVELOPE)
    assert any(f"queuedir: {tmp_path}/none/tmp: No such file or directory" in line for line in front.log)
    (tmp_path / "tmp").mkdir()
    front = queuedir(tmp_path)
    assert front.say(DATA, BODY).endswith(b"451 4.3.0 Error writing queue file\r\n")
    assert names(tmp_path / "tmp") == []


def test_queuedir_has_the_lines_that_plugins_add_also_behind_a_spool(queue: Path) -> None:
    for plugins in (["accept", "add-received"], ["accept", "force-file", "add-received"]):
        Front(*plugins, backend="queuedir", env={"QUEUEDIR": str(queue)}).say(DATA, BODY)
    messages = [path.read_bytes().partition(b"\0\0")[2] for path in (queue / "new").iterdir()]
    assert len(messages) == 2
    assert all(m.startswith(b"Received: from x ") and m.endswith(b"\nSubject: x\n\nbody\n") for m in messages)


def test_queuedir_big_and_binary(queue: Path) -> None:
    line = bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"")
    message = (line + b"\r\n") * 5000
    queuedir(queue).say(DATA, message + b".\r\n")
    (found,) = (queue / "new").iterdir()
    assert found.read_bytes().partition(b"\0\0")[2] == (line + b"\n") * 5000


# -- maildir ---------------------------------------------------------------------------------------------


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    for name in ("tmp", "new", "cur"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_maildir_delivers_once_with_sizes_in_the_name(maildir: Path) -> None:
    front = Front("accept", backend="maildir", env={"MAILDIR_PATH": str(maildir)})
    assert codes(front.say(DATA, BODY, SECOND, b"..\r\n.\r\n"))[-1] == 250
    found = {path.read_bytes(): path.name for path in (maildir / "new").iterdir()}
    assert set(found) == {
        b"Return-Path: <a@example.net>\nSubject: x\n\nbody\n", b"Return-Path: <c@example.net>\n.\n"
    }  # fmt: skip
    for content, name in found.items():
        assert name.endswith(f",S={len(content)},W={len(content) + content.count(b'%c' % 10)}")
    assert names(maildir / "tmp") == names(maildir / "cur") == []


def test_maildir_null_sender_and_missing_setting(maildir: Path) -> None:
    front = Front("accept", backend="maildir", env={"MAILDIR_PATH": str(maildir)})
    front.say(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n", b".\r\n")
    (found,) = (maildir / "new").iterdir()
    assert found.read_bytes() == b"Return-Path: <>\n"
    output = Front("accept", backend="maildir").say(ENVELOPE)
    assert output.endswith(b"451 4.3.0 Missing backend configuration parameter\r\n")


def test_maildir_names_are_unique_and_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    class Uname:
        nodename = "a/b:c,d"

    monkeypatch.setattr(os, "uname", Uname)
    made = {unique_name(CLOCK) for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"1000000000\.M250000P\d+Q\d+\.a\\057b\\072c\\054d", name) for name in made)


# -- the spool -------------------------------------------------------------------------------------------


def content(spool: Spool) -> bytes:
    return b"".join(spool.blocks())


def test_the_spool_moves_from_memory_to_a_file(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    block = bytes(100_000)
    written = b""
    while len(written) <= MEMORY_LIMIT:
        assert spool._file is None
        spool.write(block)
        written += block
    assert spool._file is not None
    spool.write(b"more")
    assert content(spool) == content(spool) == written + b"more"
    assert spool.size == len(written) + 4
    assert max(map(len, spool.blocks())) == BLOCK
    spool.write(b"!")  # behind the end, whatever was read
    assert content(spool).endswith(b"more!")
    spool.close()
    assert names(tmp_path) == []


@pytest.mark.parametrize("in_file", [False, True], ids=["memory", "file"])
def test_the_spool_can_be_replaced_by_what_is_read_from_it(tmp_path: Path, in_file: bool) -> None:
    spool = Spool(str(tmp_path), in_file)
    spool.write(b"abc")
    spool.replace(block.upper() for block in spool.blocks())
    assert (content(spool), spool.size) == (b"ABC", 3)

    def dies() -> object:
        yield b"half"
        raise OSError("the filter died")

    with pytest.raises(OSError, match="died"):
        spool.replace(dies())  # type: ignore[arg-type]
    assert content(spool) == b"ABC"
    spool.close()
    spool.close()


def test_the_spool_closes_its_file(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        spool = Spool(str(tmp_path), in_file=True)
        spool.write(b"x")
        spool.replace(iter([b"y"]))
        spool.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("end", [EOF, RESET, Advance(10_000)], ids=["EOF", "reset", "timeout"])
def test_a_session_that_ends_in_a_message_closes_its_spool(tmp_path: Path, end: object) -> None:
    before = len(os.listdir("/proc/self/fd"))
    front = Front("accept", "force-file", env={"TMPDIR": str(tmp_path)})
    front.play([DATA, b"half", end], all_read=False)  # type: ignore[list-item]
    assert len(os.listdir("/proc/self/fd")) == before
