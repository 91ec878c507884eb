"""Every ``mailfront serve`` line of the README and the manual is a server: it starts, greets, and stops."""

import re
import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from mailfront_io.auth.sqlite import UserDatabase
from mailfront_proto.secret import Secret
from tests.certificates import certificate, write_authority, write_pem
from tests.docs.blocks import blocks, command_lines, pages
from tests.docs.running import SECONDS, environment, start, stop
from tests.serving import queue_directory

GREETINGS = {"smtp": b"220 ", "lmtp": b"220 ", "pop3": b"+OK ", "imap": b"* OK ", "qmtp": b"", "qmqp": b""}


def server_lines() -> list[tuple[str, str]]:
    """Each with its page; settings that a line above it exports are in front of it."""
    found = []
    for page in pages():
        for block in blocks(page, "console") + blocks(page, "sh"):
            exported = ""
            for line in command_lines(block):
                if line.startswith("export ") and "=" in line:
                    exported = line.removeprefix("export ") + " "
                elif "mailfront serve" in line and " -c " not in line and not line.endswith("mailfront serve"):
                    found.append((page, exported + line))
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with all that the lines name; what they name by an absolute path is below it, too."""
    for name in ("var/spool", "etc/ssl", "etc/mailfront", "etc/mail", "var/mail", "run", "mail", "var/qmail/control"):
        (tmp_path / name).mkdir(parents=True)
    queue_directory(tmp_path).rename(tmp_path / "var" / "spool" / "in")
    write_authority(tmp_path).rename(tmp_path / "users-ca.pem")
    pem = write_pem(tmp_path).read_bytes()
    leaf = certificate()
    leaf.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    for name in ("mail.pem", "etc/ssl/mail.pem"):
        (tmp_path / name).write_bytes(pem)
    for name in ("users", "etc/mail/users", "etc/mailfront/password", "passwd"):
        (tmp_path / name).write_text("joe:secret\n")
    for name in ("users.sqlite", "users.db", "etc/mailfront/users.sqlite"):
        database = UserDatabase(str(tmp_path / name))
        database.create()
        database.add("joe", Secret(b"secret"))
    (tmp_path / "var" / "qmail" / "control" / "rcpthosts").write_text("example.org\n")
    (tmp_path / "rules").write_text(":sender\nk*:*\n:recipient\nk*:*\n")
    classes = [block for block in blocks("docs/plugins.md", "python") if "(Plugin):" in block][:3]
    for module in ("members", "scanner"):
        (tmp_path / f"{module}.py").write_text("\n".join(classes))
    return tmp_path


def test_there_are_some() -> None:
    assert len(server_lines()) >= 15


@pytest.mark.parametrize(("page", "line"), server_lines(), ids=lambda text: text.rpartition("mailfront serve ")[2][:60])
def test_a_line_serves(page: str, line: str, place: Path) -> None:
    words = shlex.split(line.partition("mailfront serve ")[2])
    protocol = words[2] if words[0] == "--listen" else words[0]
    line = re.sub(r"(?<=[=: ,])/(?=var/|etc/|run/)", f"{place}/", line)
    server, port = start(f"QMAILHOME={place}/var/qmail {line}", place)
    try:
        with socket.create_connection(("127.0.0.1", int(port)), SECONDS) as connection:
            if greeting := GREETINGS[protocol]:
                assert connection.recv(1000).startswith(greeting)
        stop(server)
    except BaseException:
        server.kill()
        raise


def test_the_queue_of_the_page_on_backends(place: Path) -> None:
    """Listed, shown, and handed on to programs, which are there for the test."""
    queue = place / "var" / "spool" / "in"
    for name in ("var/qmail/bin/qmail-queue", "usr/sbin/sendmail"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("#!/bin/sh\ncat >/dev/null\n")
        (place / name).chmod(0o755)
    every = [line for block in blocks("docs/backends.md", "console") for line in command_lines(block)]
    lines = [line for line in every if line.startswith("mailfront queue ")]
    assert len(lines) == 4
    for line in lines:
        (queue / "new" / "1700000000.123456.789").write_bytes(b"a@b.example\0c@d.example\0\0Subject: x\n\nHello.\n")
        done = subprocess.run(
            re.sub(r"(?<= )/(?=var/|usr/)", f"{place}/", line),
            shell=True,
            cwd=place,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0 and "1700000000.123456.789" in done.stdout + line, (line, done)
        assert list((queue / "new").iterdir()) == [] or " deliver " not in line
