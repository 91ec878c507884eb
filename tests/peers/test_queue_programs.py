"""The qmail backend and `mailfront queue` before programs that are real: nullmailer-queue (unpacked, for its package
conflicts with Postfix's), and a chain of filters; and the queuedir of the original, read by ours."""

import os
import re
import smtplib
import subprocess
from pathlib import Path

import pytest

from tests.peers.original import THEIRS, needs_original
from tests.serving import DRIVERS, MAILFRONT, SECONDS, environment, queue_directory, serving

pytestmark = pytest.mark.peer

NULLMAILER_QUEUE = Path("/usr/local/lib/mailfront-peers/usr/sbin/nullmailer-queue")
WRAPPER = Path(__file__).parents[2] / "docs" / "examples" / "queue_for_nullmailer.sh"
BIG = b"Subject: x\r\n\r\n" + b"..\r\n8-bit \xff\xfe\r\n" * 50_000


@pytest.fixture
def nullmailer(tmp_path: Path) -> dict[str, object]:
    """The settings with which mail goes to a nullmailer of its own, below the test's directory."""
    if not NULLMAILER_QUEUE.exists():
        pytest.skip("nullmailer is not unpacked (make peers does it).")
    for name in ("queue/tmp", "queue/queue", "conf"):
        (tmp_path / "null" / name).mkdir(parents=True)
    return {
        "QMAILHOME": tmp_path,
        "QMAILQUEUE": WRAPPER,
        "NULLMAILER_QUEUE": NULLMAILER_QUEUE,
        "NULLMAILER_TEST_PREFIX": tmp_path / "null",
        "CHILD_ENVIRONMENT": "NULLMAILER_QUEUE:NULLMAILER_TEST_PREFIX",
    }


def queued_by_nullmailer(place: Path) -> list[tuple[list[bytes], bytes]]:
    """(sender and recipients, message without the Received line that it adds) of each."""
    found = []
    for path in (place / "null/queue/queue").iterdir():
        envelope, _, message = path.read_bytes().partition(b"\n\n")
        head, _, message = message.partition(b"-0000\n")
        assert head.startswith(b"Received: (nullmailer ")
        found.append((envelope.split(b"\n"), message))
    return found


@pytest.mark.parametrize("driver", DRIVERS)
def test_nullmailer_queue(driver: str, nullmailer: dict[str, object], tmp_path: Path) -> None:
    words = ("--driver", driver, "smtp", "qmail", "accept")
    with serving(tmp_path, *words, settings=nullmailer) as [address], smtplib.SMTP(*address, timeout=SECONDS) as smtp:
        assert smtp.sendmail("a@example.net", ["b@example.org", "c@example.org"], BIG) == {}
        with pytest.raises(smtplib.SMTPDataError) as refused:  # it wants domains in its addresses
            smtp.sendmail("a", ["b"], b"x\r\n")
        assert refused.value.smtp_code == 451
    assert queued_by_nullmailer(tmp_path) == [
        ([b"a@example.net", b"b@example.org", b"c@example.org"], BIG.replace(b"\r", b""))
    ]


def test_a_chain_of_filters(nullmailer: dict[str, object], tmp_path: Path) -> None:
    """As qmail-qfilter makes it: a program that changes the message and starts the next one, with the same envelope."""
    chain = tmp_path / "filter"
    chain.write_text(f'#!/bin/sh\ntmp=$(mktemp)\nsed s/secret/XXXXXX/ >"$tmp"\nexec {WRAPPER} <"$tmp"\n')
    chain.chmod(0o755)
    settings = {**nullmailer, "QMAILQUEUE": chain}
    words = "smtp", "qmail", "accept"
    with serving(tmp_path, *words, settings=settings) as [address], smtplib.SMTP(*address, timeout=SECONDS) as smtp:
        smtp.sendmail("a@example.net", ["b@example.org"], b"Subject: x\r\n\r\nthe secret\r\n")
    assert [message for _, message in queued_by_nullmailer(tmp_path)] == [b"Subject: x\n\nthe XXXXXX\n"]


def test_mailfront_queue_hands_on_to_nullmailer(nullmailer: dict[str, object], tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    (queue / "new" / "1").write_bytes(b"a@example.net\0b@example.org\0\0" + BIG.replace(b"\r", b""))
    env = environment(**{name: value for name, value in nullmailer.items() if name.startswith("NULLMAILER")})
    command = [str(word) for word in (MAILFRONT, "queue", "deliver", queue, WRAPPER)]
    done = subprocess.run(command, env=env, capture_output=True, timeout=SECONDS)
    assert (done.returncode, done.stderr) == (0, b"")
    assert queued_by_nullmailer(tmp_path) == [([b"a@example.net", b"b@example.org"], BIG.replace(b"\r", b""))]
    assert list((queue / "new").iterdir()) == []


SAID = b"MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>\r\nDATA\r\n"


@needs_original[1]
def test_the_originals_queuedir_and_ours_are_read_alike(tmp_path: Path) -> None:
    """Its files by our command, and ours in compat the same as its."""
    files = []
    for number, command in enumerate((str(THEIRS), str(MAILFRONT))):
        queue = queue_directory(tmp_path / str(number))
        done = subprocess.run(
            [command, "smtp", "queuedir", "accept"],
            env=environment(QUEUEDIR=queue, MAILFRONT_PROFILE="compat"),
            input=SAID + b"Hi\r\n..\xff\r\n.\r\nQUIT\r\n",
            capture_output=True,
            timeout=SECONDS,
        )
        assert b"250 2.6.0 " in done.stdout
        (path,) = (queue / "new").iterdir()
        assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()
        show = [str(MAILFRONT), "queue", "show", str(path)]
        shown = subprocess.run(show, capture_output=True, timeout=SECONDS, env=environment())
        files.append((path.read_bytes(), shown.stdout))
    assert files[0] == files[1]
    assert files[0][1].startswith(b"sender: <a@example.net>\nrecipient: <b@example.org>\nrecipient: <c@example.org>\n")


def current_umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


PROGRAM = "#!/bin/sh\ncat >message\ncat <&1 >envelope\necho $# >arguments\nexit ${QQEXIT:-0}\n"
SAID_TO = {
    "smtpfront-qmail": b"EHLO c.example.net\r\n" + SAID + b"Hi\r\n..\r\n.\r\nQUIT\r\n",
    "qmtpfront-qmail": b"4:\nHi\n,13:a@example.net,17:13:b@example.org,,",
    "qmqpfront-qmail": b"42:3:Hi\n,13:a@example.net,13:b@example.org,,",
}


@needs_original[1]
@pytest.mark.parametrize("code", [0, 31, 53])
@pytest.mark.parametrize("name", SAID_TO)
def test_the_qmail_programs_do_what_the_originals_do(name: str, code: int, tmp_path: Path) -> None:
    """What the client is told, what qmail-queue is given, and what was logged."""
    outcomes = []
    for number, programs in enumerate((THEIRS.parent, MAILFRONT.parent)):
        home = tmp_path / str(number)
        for directory in ("bin", "control"):
            (home / directory).mkdir(parents=True)
        (home / "control" / "rcpthosts").write_text("example.org\n")
        (home / "bin" / "qmail-queue").write_text(PROGRAM)
        (home / "bin" / "qmail-queue").chmod(0o755)
        facts = {"TCPLOCALHOST": "mx.example.org", "TCPREMOTEIP": "192.0.2.1", "TCPREMOTEHOST": "c.example.net"}
        done = subprocess.run(
            [programs / name],
            env=environment(QMAILHOME=home, QQEXIT=code, MAILFRONT_PROFILE="compat", PROTO="TCP", **facts),
            input=SAID_TO[name],
            capture_output=True,
            timeout=SECONDS,
        )
        given = {path.name: _comparable(path.read_bytes()) for path in home.iterdir() if path.is_file()}
        outcomes.append((_comparable(done.stdout), _comparable(done.stderr).split(b"\n"), done.returncode, given))
    theirs, ours = outcomes
    assert ours == theirs
    assert set(ours[3]) == {"message", "envelope", "arguments"}


def _comparable(data: bytes) -> bytes:
    """Without process ids, dates, and the count of bytes that goes with them."""
    data = re.sub(rb"\d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d -0000", b"DATE", data)
    data = re.sub(rb"\bqp \d+|\[\d+\]|bytes out: \d+|bytes \d+$", b"N", data)
    return re.sub(rb"^\d+:(?=K)", b"", data)
