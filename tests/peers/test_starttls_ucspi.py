"""STARTTLS by a UCSPI-TLS parent: our program, and the original's, behind one that does real TLS."""

import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certificates import client_context, write_pem
from tests.peers.original import THEIRS, needs_original
from tests.serving import MAILFRONT, SECONDS, environment

PARENT = Path(__file__).with_name("ucspi_tls_parent.py")
SETTINGS = {"TCPLOCALHOST": "mx.example.org", "AUTH_FAILURE_DELAY": "0"}
COMPAT = {"MAILFRONT_PROFILE": "compat"}


class Started:
    """A program behind the parent, and the connection of its client."""

    def __init__(self, process: "subprocess.Popen[bytes]", connection: socket.socket, log: Path) -> None:
        self._process = process
        self._connection = connection
        self._log = log

    def say(self, data: bytes, ends: bytes = b"\r\n") -> bytes:
        """What comes back, up to a line that begins with a code and a blank and ends with `ends`."""
        self._connection.sendall(data)
        return self.read(ends)

    def read(self, ends: bytes = b"\r\n") -> bytes:
        got = b""
        while not got.endswith(ends) or got.split(b"\r\n")[-2][3:4] != b" ":
            data = self._connection.recv(4096)
            if not data:
                break
            got += data
        return got

    def handshake(self) -> None:
        self._connection = client_context().wrap_socket(self._connection, server_hostname="mx.example.org")

    def end(self) -> tuple[int, list[str]]:
        """The exit code and the log."""
        self._connection.close()
        code = self._process.wait(SECONDS)
        return code, [line.partition("]: ")[2] for line in self._log.read_text("latin-1").splitlines()]


@contextmanager
def started(directory: Path, program: Path, *words: str, settings: Mapping[str, str]) -> Iterator[Started]:
    log = directory / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, PARENT, write_pem(directory), program, "smtp", *words],
            stdout=subprocess.PIPE,
            stderr=sink,
            env=environment(**SETTINGS, **settings),
            cwd=directory,
        )
    with process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
                session = Started(process, connection, log)
                assert session.read().startswith(b"220 mx.example.org ")
                yield session
        finally:
            process.kill()


def test_a_message_inside_tls(tmp_path: Path) -> None:
    for name in ("q/tmp", "q/new"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "users").write_text("joe:secret\n")
    settings = {"QUEUEDIR": str(tmp_path / "q"), "AUTH_STORE": f"static:{tmp_path}/users"}
    plugins = ("starttls-ucspi", "authenticate", "require-auth", "add-received", "accept")
    with started(tmp_path, MAILFRONT, "queuedir", *plugins, settings=settings) as session:
        plain = session.say(b"EHLO me\r\n")
        assert b"250-STARTTLS\r\n" in plain and b"AUTH" not in plain
        assert session.say(b"STARTTLS\r\n") == b"220 2.0.0 Ready to start TLS\r\n"
        session.handshake()
        assert session.say(b"MAIL FROM:<a@b.example>\r\n").startswith(b"503 ")  # all is forgotten
        inside = session.say(b"EHLO you\r\n")
        assert b"STARTTLS" not in inside and b"250-AUTH LOGIN PLAIN\r\n" in inside
        assert session.say(b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n").startswith(b"235 ")
        envelope = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
        assert session.say(envelope, b"by itself.\r\n").startswith(b"250 2.1.0 ")
        message = b"x" * 900 + b"\r\n" + b"hello\r\n" * 20_000 + b".\r\n"
        assert session.say(message) == b"250 2.6.0 Message accepted.\r\n"
        assert session.say(b"QUIT\r\n").startswith(b"221 ")
        code, log = session.end()
    assert code == 0
    assert log[-1].startswith("bytes in: ")
    (file,) = (tmp_path / "q/new").iterdir()
    envelope, _, text = file.read_bytes().partition(b"\0\0")
    assert envelope == b"a@b.example\0c@d.example"
    assert b"with ESMTPSA via TCP;" in text and text.endswith(b"hello\n" * 20_000)


def test_h31_plain_text_behind_starttls(tmp_path: Path) -> None:
    with started(tmp_path, MAILFRONT, "echo", "starttls-ucspi", "accept", settings={}) as session:
        assert session.say(b"EHLO me\r\nSTARTTLS\r\nRSET\r\n", b"STARTTLS\r\n").endswith(
            b"554 5.5.0 Unexpected pipelined commands following STARTTLS\r\n"
        )
        assert session.read() == b""
        assert session.end()[0] == 1


def test_a_handshake_that_fails_ends_the_session(tmp_path: Path) -> None:
    with started(tmp_path, MAILFRONT, "echo", "starttls-ucspi", "accept", settings={}) as session:
        session.say(b"EHLO me\r\n")
        session.say(b"STARTTLS\r\n")
        with pytest.raises((ssl.SSLError, OSError)):
            ssl.create_default_context().wrap_socket(session._connection, server_hostname="mx.example.org")
        code, log = session.end()
    assert code == 0
    assert log[-1].startswith("bytes in: 0 ")


def test_a_parent_that_is_none(tmp_path: Path) -> None:
    """The descriptors are not there."""
    settings = {"UCSPITLS": "", "SSLCTLFD": "1000", "SSLREADFD": "1001", "SSLWRITEFD": "1002", "TCPLOCALHOST": "mx"}
    run = subprocess.run(
        [MAILFRONT, "smtp", "echo", "starttls-ucspi", "accept"],
        input=b"EHLO me\r\nSTARTTLS\r\n",
        capture_output=True,
        env=environment(**settings),
        timeout=SECONDS,
    )
    assert run.stdout.endswith(b"220 2.0.0 Ready to start TLS\r\n")
    assert b"TLS handshake failed: UCSPI-TLS: Bad file descriptor" in run.stderr
    assert run.returncode == 1


def test_children_do_not_hear_of_it(tmp_path: Path) -> None:
    """What a program that we start finds in its environment."""
    (tmp_path / "bin").mkdir()
    queue = tmp_path / "bin" / "qmail-queue"
    queue.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\ncat > /dev/null\ncat <&1 > /dev/null\n")
    queue.chmod(0o755)
    settings = {"QMAILHOME": str(tmp_path)}
    with started(tmp_path, MAILFRONT, "qmail", "starttls-ucspi", "accept", settings=settings) as session:
        session.say(b"EHLO me\r\n")
        session.say(b"MAIL FROM:<a@b.example>\r\n")
        session.say(b"RCPT TO:<c@d.example>\r\n")
        session.say(b"DATA\r\n")
        assert session.say(b"x\r\n.\r\n").startswith(b"250 ")
        session.end()
    seen = (tmp_path / "seen").read_text()
    assert "TCPREMOTEIP=127.0.0.1" in seen and "UCSPITLS" not in seen and "SSLCTLFD" not in seen


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_servers_refuse_it(tmp_path: Path, profile: str) -> None:
    run = subprocess.run(
        [MAILFRONT, "serve", "--listen", "127.0.0.1:0", "smtp", "echo", "starttls-ucspi", "accept"],
        capture_output=True,
        env=environment(MAILFRONT_PROFILE=profile),
        cwd=tmp_path,
        timeout=SECONDS,
    )
    assert run.returncode == 78
    assert b"starttls-ucspi works only in programs that tcpserver and its like start" in run.stderr
    assert len(run.stderr.splitlines()) == 1


SAID: dict[str, list[bytes | None]] = {
    "all is well": [b"EHLO me\r\n", b"STARTTLS\r\n", None, b"EHLO you\r\n", b"MAIL FROM:<a@b>\r\n", b"QUIT\r\n"],
    "pipelined": [b"EHLO me\r\n", b"STARTTLS\r\nNOOP\r\nHELP\r\n", None, b"", b"EHLO you\r\n", b"QUIT\r\n"],
    "a parameter": [b"EHLO me\r\n", b"STARTTLS x\r\n", b"NOOP\r\n", b"QUIT\r\n"],
    "without HELO": [b"STARTTLS\r\n", None, b"NOOP\r\n", b"QUIT\r\n"],
}


@pytest.mark.peer
@pytest.mark.parametrize("name", SAID)
@needs_original[1]
def test_the_original_says_the_same(tmp_path: Path, name: str) -> None:
    heard = []
    programs: list[tuple[Path, dict[str, str]]] = [(THEIRS, {}), (MAILFRONT, COMPAT)]
    for program, settings in programs:
        with started(tmp_path, program, "echo", "starttls-ucspi", "accept", settings=settings) as session:
            got: list[object] = []
            for data in SAID[name]:
                if data is None:
                    session.handshake()
                else:
                    got.append(session.say(data))
            heard.append((got, *session.end()))
    assert heard[0] == heard[1]
