"""The programs of the original's names under tcpserver and tcpsvd: a session of each, its log and exit code. The facts
of the connection come in the environment, as these servers set them."""

import os
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.peers.original import needs_original
from tests.peers.programs import program
from tests.serving import MAILFRONT, SECONDS, environment, queue_directory, queued
from tests.ucspi import UCSPI_SERVERS, ucspi

pytestmark = pytest.mark.peer

MAIL = (
    b"EHLO me\r\nMAIL FROM:<a@b.net>\r\nRCPT TO:<you@c.example>\r\nDATA\r\nSubject: x\r\n\r\nhi\r\n.\r\nQUIT\r\n"
)


def netstring(data: bytes) -> bytes:
    return b"%d:%s," % (len(data), data)


def path_of(name: str) -> str:
    return str(MAILFRONT.with_name(name))


def telling(*words: str) -> list[str]:
    """The program `words`, and its exit code in the log."""
    return ["sh", "-c", '"$0" "$@"; echo "exit code $?" >&2', *words]



def converse(address: tuple[str, int], said: bytes) -> bytes:
    """All that comes when `said` is sent, and then the end."""
    with socket.create_connection(address, SECONDS) as connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


@pytest.fixture(params=UCSPI_SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    program(name)
    return name


def log_of(directory: Path, *wanted: str, code: int = 0) -> str:
    """The log, once the program has ended with `code`. All of `wanted` must be in it."""
    end = time.monotonic() + SECONDS
    while True:
        text = re.sub(r"\[\d+\]", "[PID]", (directory / "ucspi.log").read_text())
        if f"exit code {code}\n" in text:
            assert [line for line in wanted if line not in text] == [], text
            return text
        assert time.monotonic() < end, text
        time.sleep(0.02)


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_smtpfront_echo(server: str, tmp_path: Path, profile: str) -> None:
    words = telling(path_of("smtpfront-echo"), "accept")
    with ucspi(server, tmp_path, words, {"MAILFRONT_PROFILE": profile}) as address:
        received = converse(address, MAIL)
        log_of(tmp_path, "mailfront[PID]: MAIL FROM:<a@b.net>\n", "mailfront[PID]: bytes in: ")
    assert received.startswith(b"220 mx.example.org mailfront ESMTP\r\n")
    assert received.endswith(b"221 2.0.0 Good bye.\r\n")
    assert (b"\r\n250 Received " if profile == "compat" else b"\r\n250 2.6.0 Received ") in received


def test_mailfront_knows_its_client(server: str, tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    settings = {"QUEUEDIR": queue, "QUEUEDIR_NOSYNC": ""}
    words = telling(str(MAILFRONT), "smtp", "queuedir", "accept", "add-received")
    with ucspi(server, tmp_path, words, settings) as address:
        converse(address, MAIL)
        log_of(tmp_path, "mailfront[PID]: bytes in: ")
    [(sender, recipients, message)] = queued(queue)
    assert (sender, recipients) == ("a@b.net", ["you@c.example"])
    assert b"[127.0.0.1]" in message and b"by mx.example.org ([127.0.0.1])" in message


@pytest.mark.parametrize("protocol", ["qmtp", "qmqp"])
def test_qmtpfront_and_qmqpfront_echo(server: str, tmp_path: Path, protocol: str) -> None:
    message, addresses = b"Subject: x\n\nhi\n", netstring(b"a@b.net")
    if protocol == "qmtp":
        said = netstring(b"\n" + message) + addresses + netstring(netstring(b"you@c.example"))
    else:
        said = netstring(netstring(message) + addresses + netstring(b"you@c.example"))
    with ucspi(server, tmp_path, telling(path_of(f"{protocol}front-echo"), "accept")) as address:
        received = converse(address, said)
        log = log_of(tmp_path, "mailfront[PID]: bytes in: ")
    assert re.fullmatch(rb"\d+:KReceived 15 bytes\.,", received), received
    assert "mailfront[PID]: recipient <you@c.example>\n" in log


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_pop3front_maildir(server: str, tmp_path: Path, profile: str) -> None:
    for part in ("cur", "new", "tmp"):
        (tmp_path / "box" / part).mkdir(parents=True)
    (tmp_path / "box" / "new" / "1700000001.a").write_text("Subject: x\n\nhi\n")
    words = telling(path_of("pop3front-maildir"), str(tmp_path / "box"))
    with ucspi(server, tmp_path, words, {"MAILFRONT_PROFILE": profile}) as address:
        received = converse(address, b"STAT\r\nDELE 1\r\nQUIT\r\n")
        log_of(tmp_path, "pop3front-maildir[PID]: QUIT\n", "pop3front-maildir[PID]: bytes in: ")
    assert received == b"+OK \r\n+OK 1 15\r\n+OK \r\n+OK \r\n"
    assert list((tmp_path / "box").rglob("1*")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can run a program as another user.")
@pytest.mark.parametrize("profile", ["default", "compat"])
def test_pop3front_auth_and_then_pop3front_maildir(server: str, tmp_path: Path, profile: str) -> None:
    """The whole of the original's set-up: a login, and the mailbox as its user."""
    program("cvm-pwfile")
    (tmp_path / "pw").write_text("joe:secret:65534:65534:Joe:/:/bin/sh\n")
    second = 'echo "+OK $USER $UID $PROTO"; read -r l; echo "$l"; exit 5'
    words = telling(path_of("pop3front-auth"), "cvm-pwfile", "sh", "-c", second)
    settings = {"CVM_PWFILE_PATH": tmp_path / "pw", "AUTH_REQUIRES_TLS": 0, "MAILFRONT_PROFILE": profile}
    settings["AUTH_FAILURE_DELAY"] = 0
    with ucspi(server, tmp_path, words, settings) as address, socket.create_connection(address, SECONDS) as connection:
        lines = connection.makefile("rb")
        assert lines.readline() == b"+OK \r\n"
        for said, answer in (
            (b"USER joe", b"+OK \r\n"),
            (b"PASS wrong", b"-ERR Authentication failed\r\n"),
            (b"USER joe", b"+OK \r\n"),
            (b"PASS secret", b"+OK joe 65534 TCP\n"),
            (b"STAT", b"STAT\r\n"),
        ):
            connection.sendall(said + b"\r\n")
            assert lines.readline().replace(b"[AUTH] ", b"") == answer
        assert lines.readline() == b""
        log = log_of(tmp_path, "pop3front-auth[PID]: PASS XXXXXXXX\n", code=5)
    assert "secret" not in log


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_imapfront_auth(server: str, tmp_path: Path, profile: str) -> None:
    program("cvm-pwfile")
    (tmp_path / "pw").write_text("joe:secret:65534:65534:Joe:/:/bin/sh\n")
    settings = {"CVM_SASL_PLAIN": "cvm-pwfile", "CVM_PWFILE_PATH": tmp_path / "pw", "MAILFRONT_PROFILE": profile}
    with ucspi(server, tmp_path, telling(path_of("imapfront-auth"), "false"), settings) as address:
        received = converse(address, b"a NOOP\r\nb LOGOUT\r\n")
        log_of(tmp_path, "imapfront-auth[PID]: a OK NOOP completed\n")
    last = b"* Logging out" if profile == "compat" else b"* BYE Logging out"
    assert received.endswith(b"a OK NOOP completed\r\n%s\r\nb OK LOGOUT completed\r\n" % last)


# -- usage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("mailfront",),
        ("mailfront", "smtp"),
        ("mailfront", "gopher", "echo"),
        ("pop3front-auth",),
        ("pop3front-auth", "cvm-pwfile"),
        ("pop3front-maildir",),
        ("pop3front-maildir", "/nonexistent"),
        ("pop3front-maildir", "/etc"),
        ("imapfront-auth",),
        ("imapfront-auth", "false"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("the_original")
def test_used_wrongly_it_says_what_the_original_says(words: tuple[str, ...], tmp_path: Path) -> None:
    """The same bytes, exit code and log."""
    found = []
    for place in (program(words[0]) if words[0] == "mailfront" else f"/usr/sbin/{words[0]}", path_of(words[0])):
        done = subprocess.run(
            [place, *words[1:]],
            input=b"",
            capture_output=True,
            cwd=tmp_path,
            env=environment(MAILFRONT_PROFILE="compat"),
            timeout=SECONDS,
        )
        log = re.sub(rb"\[\d+\]", b"[PID]", done.stderr)
        log = re.sub(rb"(protocol gopher: ).*", rb"\1CAUSE", log)
        found.append((done.stdout, log, done.returncode))
    assert found[0] == found[1]


@pytest.fixture
def the_original() -> None:
    for mark in needs_original:
        if mark.name == "skipif" and mark.args[0]:
            pytest.skip(mark.kwargs["reason"])
