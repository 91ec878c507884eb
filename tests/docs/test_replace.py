"""Replacing the original: each tcpserver line of the manual starts a program of ours, and greets."""

import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import blocks, command_lines, pages
from tests.docs.running import SECONDS, environment
from tests.peers.programs import program
from tests.ucspi import ucspi

PAGE = "docs/replace.md"
LINES = [
    line[line.index("tcpserver ") :]
    for page in pages()
    for block in blocks(page, "sh") + blocks(page, "console")
    for line in command_lines(block)
    if "tcpserver " in line
]
GREETINGS = {"25": b"220 ", "587": b"220 ", "110": b"+OK ", "1110": b"+OK ", "143": b"* OK ", "209": b"", "628": b""}
_LINE = re.compile(r"tcpserver .*?\b(?:0|127\.0\.0\.1) (\d{2,}) ([a-z].*)")


def test_there_are_lines_for_every_protocol() -> None:
    assert {found[1] for line in LINES for found in [_LINE.fullmatch(line)] if found} == {*GREETINGS}
    assert all(map(_LINE.fullmatch, LINES))


@pytest.mark.peer
@pytest.mark.parametrize("line", LINES)
def test_a_line_serves(line: str, tmp_path: Path) -> None:
    found = _LINE.fullmatch(line)
    assert found is not None
    port, words = found[1], shlex.split(found[2].replace("/var/", f"{tmp_path}/"))
    program("tcpserver")
    ours = Path(sys.executable).with_name(words[0])
    assert ours.exists()
    (tmp_path / "qmail" / "control").mkdir(parents=True)
    for part in ("tmp", "new", "cur"):
        (tmp_path / "maildirs" / "joe" / part).mkdir(parents=True)
    (tmp_path / "qmail" / "control" / "rcpthosts").write_text("example.org\n")
    settings = {
        "MAILFRONT_PROFILE": "compat",
        "CVM_SASL_PLAIN": "cvm-pwfile",
        "QUEUEDIR": tmp_path,
        "QMAILHOME": tmp_path / "qmail",
    }
    with (
        ucspi("tcpserver", tmp_path, [str(ours), *words[1:]], settings) as address,
        socket.create_connection(address, SECONDS) as connection,
    ):
        if not GREETINGS[port]:  # who is greeted by nobody: a package that is none is answered
            connection.sendall(b"x")
            assert connection.recv(100).endswith(b",")
        else:
            assert connection.recv(100).startswith(GREETINGS[port])
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(100):
                pass


def test_the_look(tmp_path: Path) -> None:
    (line,) = (block for block in blocks(PAGE, "sh") if "smtpfront-echo" in block)
    ran = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=SECONDS
    )
    assert re.fullmatch(r"220 \S+ mailfront ESMTP\n221 2\.0\.0 Good bye\.\n", ran.stdout.replace("\r", ""))
    assert "bytes in: 6 bytes out: " in ran.stderr
