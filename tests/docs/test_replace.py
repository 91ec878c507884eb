"""Replacing the original: each tcpserver line of the page starts a program of ours, and greets."""

import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.docs.running import SECONDS, environment
from tests.peers.programs import program
from tests.ucspi import ucspi

PAGE = "docs/replace.md"
LINES = [line for block in blocks(PAGE, "sh") for line in block.split("\n") if line.startswith("tcpserver ")]
GREETINGS = {"25": b"220 ", "587": b"220 ", "110": b"+OK ", "143": b"* OK ", "209": b"", "628": b""}


def test_there_are_lines_for_every_protocol() -> None:
    assert {port for line in LINES for port in re.findall(r" 0 (\d+) ", line)} == {*GREETINGS}


@pytest.mark.peer
@pytest.mark.parametrize("line", LINES)
def test_a_line_serves(line: str, tmp_path: Path) -> None:
    _, _, rest = line.partition(" 0 ")
    if line.startswith("tcpserver -l 0 "):
        rest = rest.partition(" 0 ")[2]
    port, *words = shlex.split(rest)
    program("tcpserver")
    ours = Path(sys.executable).with_name(words[0])
    assert ours.exists()
    (tmp_path / "qmail" / "control").mkdir(parents=True)
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
