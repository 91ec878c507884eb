"""Logins that end in a program: ``imapfront-auth`` and ``pop3front-auth`` as one-shot programs, ``mailfront serve
imap`` under every driver; users from cvm-pwfile. What the client sends behind its login, in the same segment, is the
program's."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.certificates import client_context, write_pem
from tests.peers.programs import program
from tests.serving import DRIVERS, SECONDS, environment, serving

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(os.geteuid() != 0, reason="Only root can run a program as another user."),
]

IMAPFRONT = str(Path(sys.executable).with_name("imapfront-auth"))
POP3FRONT = str(Path(sys.executable).with_name("pop3front-auth"))

# Says who it is, and answers the line that came behind the login; then echoes to the end.
PROGRAM = (
    'read -r line; echo "$IMAPLOGINTAG $AUTHENTICATED $USER $UID $GID $HOME $MAILBOX"; id -u; id -g; id -G; pwd; '
    'echo "got $line"; cat; echo "$IMAPLOGINTAG bye"'
)


@pytest.fixture
def users() -> Iterator[Path]:
    """A directory that the user of a program may enter, with cvm-pwfile's file in it."""
    program("cvm-pwfile")
    with TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "pw").write_text(f"joe:secret:65534:65533:Joe:{place}:/bin/sh\nroot:secret:0:0:Root:/:/bin/sh\n")
        yield place


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pem(tmp_path_factory.mktemp("tls"))


def settings(users: Path, **more: object) -> dict[str, str]:
    found = environment(
        CVM_SASL_PLAIN="cvm-pwfile", CVM_PWFILE_PATH=users / "pw", AUTH_REQUIRES_TLS=0, AUTH_FAILURE_DELAY=0, **more
    )
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", **found, "HOME": "/nonexistent"}


def converse(connection: socket.socket, login: bytes) -> bytes:
    """All that comes when `login` is sent with two lines behind it, and then the end."""
    connection.settimeout(SECONDS)
    connection.sendall(login + b"b SELECT INBOX\r\nmore\r\n")
    if not isinstance(connection, ssl.SSLSocket):
        connection.shutdown(socket.SHUT_WR)
    received = b""
    while not received.endswith(b"a bye\n") and (data := connection.recv(65536)):
        received += data
        if isinstance(connection, ssl.SSLSocket) and b"more\r\n" in received:
            break
    return received


def start(command: list[str], connection: socket.socket, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """A one-shot program on `connection`."""
    end = connection.fileno()
    return subprocess.Popen(command, stdin=end, stdout=end, stderr=subprocess.PIPE, env=env)


def expected(users: Path) -> bytes:
    return (
        f"a joe joe 65534 65533 {users} \n65534\n65533\n65533\n{users}\ngot b SELECT INBOX\r\nmore\r\na bye\n".encode()
    )


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_one_shot(users: Path, profile: str) -> None:
    ours, theirs = socket.socketpair()
    command = [IMAPFRONT, "sh", "-c", PROGRAM]
    with ours, theirs:
        process = start(command, theirs, settings(users, MAILFRONT_PROFILE=profile))
        theirs.close()
        received = converse(ours, b"a LOGIN joe secret\r\n")
    _, log = process.communicate(timeout=SECONDS)
    greeting, _, rest = received.partition(b"\r\n")
    assert b"imapfront ready." in greeting
    assert rest == expected(users), log
    assert process.returncode == 0
    assert b"secret" not in log


@pytest.mark.parametrize("driver", DRIVERS)
def test_server(users: Path, tmp_path: Path, driver: str) -> None:
    with serving(
        tmp_path, "--driver", driver, "imap", "sh", "-c", PROGRAM, settings=settings(users)
    ) as [(host, port)], socket.create_connection((host, port)) as connection:
        received = converse(connection, b"a LOGIN joe secret\r\n")
    assert received.partition(b"\r\n")[2] == expected(users), (tmp_path / "server.log").read_text()


@pytest.mark.parametrize("driver", DRIVERS)
def test_server_in_tls(users: Path, tmp_path: Path, certificate: Path, driver: str) -> None:
    env = settings(users, TLS_CERTFILE=certificate, TLS_IMMEDIATE="")
    del env["AUTH_REQUIRES_TLS"]
    with serving(tmp_path, "--driver", driver, "imap", "sh", "-c", PROGRAM, settings=env) as [(host, port)]:
        plain = socket.create_connection((host, port))
        with client_context().wrap_socket(plain, server_hostname="mx.example.org") as connection:
            received = converse(connection, b"a AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=\r\n")
    whole = expected(users).removesuffix(b"a bye\n")
    assert received.partition(b"\r\n")[2] == whole, (tmp_path / "server.log").read_text()


def test_one_shot_in_tls(users: Path, certificate: Path) -> None:
    ours, theirs = socket.socketpair()
    command = [IMAPFRONT, "sh", "-c", PROGRAM]
    env = settings(users, TLS_CERTFILE=certificate)
    with ours, theirs:
        process = start(command, theirs, env)
        theirs.close()
        assert b"STARTTLS" in ours.recv(65536)
        ours.sendall(b"x STARTTLS\r\n")
        assert ours.recv(65536).startswith(b"x OK ")
        with client_context().wrap_socket(ours, server_hostname="mx.example.org") as connection:
            received = converse(connection, b"a LOGIN joe secret\r\n")
    _, log = process.communicate(timeout=SECONDS)
    assert received == expected(users).removesuffix(b"a bye\n"), log


@pytest.mark.parametrize(
    ("login", "words", "answer"),
    [
        (b"a LOGIN root secret\r\n", ["true"], b"a NO "),  # H51: nobody becomes the superuser
        (b"a LOGIN joe secret\r\n", ["/nonexistent/imapd"], b"a NO Could not execute second stage\r\n"),
    ],
)
def test_no_program(users: Path, login: bytes, words: list[str], answer: bytes) -> None:
    command = [IMAPFRONT, *words]
    ran = subprocess.run(
        command, input=login, capture_output=True, env=settings(users), timeout=SECONDS, check=False
    )
    assert answer in ran.stdout, ran.stderr
    assert ran.returncode == (0 if words == ["true"] else 1)


def test_a_user_directory_that_is_not_there(users: Path) -> None:
    (users / "pw").write_text("joe:secret:65534:65533:Joe:/nonexistent:/bin/sh\n")
    command = [IMAPFRONT, "true"]
    login = b"a LOGIN joe secret\r\n"
    ran = subprocess.run(
        command, input=login, capture_output=True, env=settings(users), timeout=SECONDS, check=False
    )
    assert ran.stdout.endswith(b"\r\na NO Internal error: could not set UID/GID\r\n")
    assert b"/nonexistent" in ran.stderr
    assert ran.returncode == 1


def test_pop3(users: Path) -> None:
    ours, theirs = socket.socketpair()
    script = 'read -r line; echo "$USER $UID"; pwd; echo "got $line"'
    command = [POP3FRONT, "cvm-pwfile", "sh", "-c", script]
    with ours, theirs:
        process = start(command, theirs, settings(users))
        theirs.close()
        ours.settimeout(SECONDS)
        ours.sendall(b"USER joe\r\nPASS secret\r\nSTAT\r\n")
        received = b""
        while data := ours.recv(65536):
            received += data
    _, log = process.communicate(timeout=SECONDS)
    assert received == f"+OK \r\n+OK \r\njoe 65534\n{users}\ngot STAT\r\n".encode(), log
    assert b"secret" not in log
