"""Every program of the original's names, and `mailfront`, under every kind of server that starts a program for each
connection: tcpserver, tcpsvd, one like sslserver, inetd. What is said, the exit code, and what was delivered."""

import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailfront_proto.netstring import encode_netstring
from tests.certificates import client_context, write_pem
from tests.peers.programs import program
from tests.ports import unused_port
from tests.serving import MAILFRONT, SECONDS, environment
from tests.ucspi import UCSPI_SERVERS, ucspi

pytestmark = pytest.mark.peer

ROOT = Path(__file__).parents[2]
SMTP = (
    b"EHLO me\r\nMAIL FROM:<a@b.net>\r\nRCPT TO:<you@c.example>\r\nDATA\r\nSubject: x\r\n\r\nhi\r\n.\r\nQUIT\r\n"
)
MESSAGE, SENDER, RECIPIENT = b"Subject: x\n\nhi", encode_netstring(b"a@b.net"), encode_netstring(b"you@c.example")
QMTP = encode_netstring(b"\n" + MESSAGE) + SENDER + encode_netstring(RECIPIENT)
QMQP = encode_netstring(encode_netstring(MESSAGE) + SENDER + RECIPIENT)
POP3 = b"USER joe\r\nPASS secret\r\n"


@dataclass(frozen=True)
class Case:
    """What is started, what its client says, the pattern of all that comes back, and the file that it makes."""

    words: Sequence[str]
    said: bytes
    answer: bytes
    delivered: bool = False


def smtp(tail: bytes) -> bytes:
    return rb"220 \S+ \S+ ESMTP\r\n.*\r\n" + tail + rb".*\r\n221 2\.0\.0 Good bye\.\r\n"


CASES = {
    "mailfront smtp": Case(["mailfront", "smtp", "echo", "accept"], SMTP, smtp(b"250 2.6.0 Received")),
    "mailfront lmtp": Case(
        ["mailfront", "lmtp", "echo", "accept"], SMTP.replace(b"EHLO", b"LHLO"),
        smtp(b"250 2.6.0 Received").replace(b"ESMTP", b"LMTP"),
    ),
    "smtpfront-echo": Case(["smtpfront-echo", "accept"], SMTP, smtp(b"250 2.6.0 Received")),
    "smtpfront-qmail": Case(["smtpfront-qmail", "accept"], SMTP, smtp(b"250 2.6.0 Accepted message qp"), True),
    "qmtpfront-echo": Case(["qmtpfront-echo", "accept"], QMTP, rb"\d+:KReceived 14 bytes\.,"),
    "qmtpfront-qmail": Case(["qmtpfront-qmail", "accept"], QMTP, rb"\d+:K.*qp \d+ bytes \d+,", True),
    "qmqpfront-echo": Case(["qmqpfront-echo", "accept"], QMQP, rb"\d+:KReceived 14 bytes\.,"),
    "qmqpfront-qmail": Case(["qmqpfront-qmail", "accept"], QMQP, rb"\d+:K.*qp \d+ bytes \d+,", True),
    "pop3front-maildir": Case(
        ["pop3front-maildir", "$DIR/box"], b"STAT\r\nRETR 1\r\nQUIT\r\n",
        rb"\+OK \r\n\+OK 1 15\r\n\+OK \r\nSubject: x\r\n\r\nhi\r\n\.\r\n\+OK \r\n",
    ),
    "pop3front-auth": Case(
        ["pop3front-auth", "cvm-pwfile", "sh", "-c", 'read -r l; echo "+OK $USER; $l"'], POP3 + b"STAT\r\n",
        rb"\+OK \r\n\+OK \r\n\+OK joe; STAT\r?\n",
    ),
    "imapfront-auth": Case(
        ["imapfront-auth", "sh", "-c", 'read -r l; echo "$IMAPLOGINTAG OK $USER; $l"'],
        b"a LOGIN joe wrong\r\nb LOGIN joe secret\r\nc SELECT INBOX\r\n",
        rb"\* OK .*ready\.\r\na NO .*LOGIN failed\r\nb OK joe; c SELECT INBOX\r?\n",
    ),
}  # fmt: skip


@contextmanager
def inetd(directory: Path, words: Sequence[str], settings: dict[str, object]) -> Iterator[tuple[str, int]]:
    """Debian's inetd, with one service on a port of 127.0.0.1."""
    port = unused_port()
    script = directory / "service"
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    script.write_text(f"#!/bin/sh\nexec 2>>{directory}/ucspi.log\nexec {quoted}\n")
    script.chmod(0o755)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    (directory / "inetd.conf").write_text(f"127.0.0.1:{port} stream tcp nowait {user} {script} {script}\n")
    process = subprocess.Popen(
        [program("inetd"), "-i", "-E", str(directory / "inetd.conf")], env=environment(**settings), cwd=directory,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with process:
        try:
            yield "127.0.0.1", port
        finally:
            process.kill()


@contextmanager
def sslserver(directory: Path, words: Sequence[str], settings: dict[str, object]) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "tests.peers.sslserver_parent", str(write_pem(directory)), *words]
    with (directory / "ucspi.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(**settings), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        )
    with process:
        try:
            assert process.stdout is not None
            yield "127.0.0.1", int(process.stdout.readline())
        finally:
            process.kill()


def converse(address: tuple[str, int], said: bytes, tls: bool) -> bytes:
    """All that comes when `said` is sent. Closing one side of TLS would close both: so the client waits for the end."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            connection = socket.create_connection(address, SECONDS)
            break
        except ConnectionRefusedError:  # inetd does not say when it listens
            assert time.monotonic() < end
            time.sleep(0.02)
    if tls:
        connection = client_context().wrap_socket(connection, server_hostname="mx.example.org")
    with connection:
        connection.sendall(said)
        if not isinstance(connection, ssl.SSLSocket):
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(65536):
            received += data
            if tls and received.startswith(tuple(b"%d:" % n for n in range(100))) and received.endswith(b","):
                break  # a QMTP client says when it is done
        return received


@pytest.mark.parametrize("parent", [*UCSPI_SERVERS, "sslserver", "inetd"])
@pytest.mark.parametrize("name", CASES)
def test_a_session_of_each(name: str, parent: str, tmp_path: Path) -> None:
    case = CASES[name]
    program("cvm-pwfile")
    if os.geteuid() != 0 and name.endswith("-auth"):
        pytest.skip("Only root can run a program as another user.")
    settings = set_up(tmp_path)
    words = [word.replace("$DIR", str(tmp_path)) for word in case.words]
    words = [str(MAILFRONT.with_name(word)) if "front" in word and "/" not in word else word for word in words]
    words = ["sh", "-c", f'"$0" "$@"; echo "exit code $?" >>{tmp_path}/code', *words]
    if parent == "inetd":
        context = inetd(tmp_path, words, settings)
    elif parent == "sslserver":
        context = sslserver(tmp_path, words, settings)
    else:
        program(parent)
        context = ucspi(parent, tmp_path, words, settings)
    with context as address:
        received = converse(address, case.said, parent == "sslserver")
        log = (tmp_path / "ucspi.log").read_text()
        assert re.fullmatch(case.answer, received, re.DOTALL), (received, log)
        end = time.monotonic() + SECONDS
        while not (tmp_path / "code").exists() or not (tmp_path / "code").read_text():
            assert time.monotonic() < end, log
            time.sleep(0.02)
    assert (tmp_path / "code").read_text() == "exit code 0\n", log
    if case.delivered:
        trace, _, text = (tmp_path / "message").read_bytes().partition(b"Subject")
        assert b"Subject" + text == MESSAGE + b"\n" * name.startswith("smtp")
        assert (b"[127.0.0.1]" in trace) is (parent != "inetd")  # whose programs are told nothing
        assert (b" via SSL" in trace) is (parent == "sslserver")
        assert (tmp_path / "envelope").read_bytes() == b"Fa@b.net\0Tyou@c.example\0\0"
    assert "secret" not in log


def set_up(place: Path) -> dict[str, object]:
    """The settings, and what they name: a queue program, a maildir, users."""
    (place / "queue").write_text(f"#!/bin/sh\ncd {place} && cat >message && cat <&1 >envelope\n")
    (place / "queue").chmod(0o755)
    for part in ("cur", "new", "tmp"):
        (place / "box" / part).mkdir(parents=True)
    (place / "box" / "new" / "1700000001.a").write_text("Subject: x\n\nhi\n")
    (place / "users").write_text("joe:secret:65534:65534:Joe:/:/bin/sh\n")
    return {
        "PATH": f"{MAILFRONT.parent}:{os.environ['PATH']}", "QMAILHOME": place, "QMAILQUEUE": place / "queue",
        "CVM_SASL_PLAIN": "cvm-pwfile", "CVM_PWFILE_PATH": place / "users", "AUTH_REQUIRES_TLS": 0,
        "AUTH_FAILURE_DELAY": 0,
    }  # fmt: skip
