"""IMAP up to the login against Debian's imapfront-auth (2.12 of the original): answers are compared byte for byte."""

import subprocess
from pathlib import Path

import pytest

from mailfront_proto.imap import COMPAT, HandOver
from mailfront_proto.testing import whole
from tests.peers.programs import program
from tests.proto.imap_script import player, server

pytestmark = pytest.mark.peer

SECONDS = 30

WORDS = [
    *(b"a NOOP\n", b"a\tNOOP\r\n", b"  a  NOOP  \r\n", b"a  \r\n", b" \r\n", b"\r\n", b"\n", b"* NOOP\r\n"),
    b"+ NOOP\r\n",
    *(b'a"b NOOP\r\n', b'"a" NOOP\r\n', b"(a) NOOP\r\n", b"a {3}\r\nb NOOP\r\n", b'a NOOP ""\r\n', b"a NOOP\r\r\n"),
    *(b"a\x0bNOOP\r\n", b"a\x0cNOOP\r\n", b"a NO\rOP\r\n", b"a NOOP\x0b\r\n", b'h "NOOP"\r\n', b"h {4}\r\nNOOP\r\n"),
    *(b"h " + b"x " * n + b"\r\ni NOOP\r\n" for n in range(14, 20)),
    *(b"h CAPABILITY x\r\n", b"h LOGOUT x\r\n", b"a CAPABILITY \r\nLOGOUT\r\nc LOGOUT\r\nd NOOP\r\n"),
]
STRINGS = [
    *(b'a LOGIN joe "secret"x\r\n', b'a LOGIN joe"secret"\r\n', b'a LOGIN "joe""secret"\r\n'),
    *(b'a LOGIN "joe"secret\r\n', b'a LOGIN joe sec"ret\r\n', b"a LOGIN jo\\e secret\r\n"),
    *(b'a LOGIN "j\\"oe" secret\r\n', b'a LOGIN "joe\\" secret\r\n'),
    *(b"a LOGIN (joe secret)\r\n", b"a LOGIN jo{e sec}ret\r\n", b"a LOGIN %* sec\r\n", b"a LOGIN jo\xe9 x\r\n"),
    *(b'a LOGIN "joe\r\nb NOOP\r\n', b'a LOGIN "" ""\r\ni NOOP\r\n', b"a LOGIN joe\r secret\r\n", b'a LOGIN "j\\\r\n'),
    *(b"a LOGIN joe secret x\r\n", b"a LOGIN joe\r\n", b"a LOGIN\r\n", b"a login joe secret\r\nb NOOP\r\n"),
]
LITERALS = [
    *(b"a LOGIN {3}\r\njoe secret\r\n", b"a LOGIN {3}\r\njoesecret\r\n", b"a LOGIN {3}\njoe secret\n"),
    *(b"a LOGIN {0}\r\n {6}\r\nsecret\r\n", b"a LOGIN {03}\r\njoe secret\r\n", b'a LOGIN {3}\r\njoe"secret"\r\n'),
    *(b"a LOGIN {3}\r\njoe{6}\r\nsecret\r\n", b"a LOGIN {3} \r\nb NOOP\r\n", b"a LOGIN {+3}\r\nb NOOP\r\n"),
    *(b"a LOGIN {-1}\r\nb NOOP\r\n", b"a LOGIN {}\r\nb NOOP\r\n", b"a LOGIN {\r\nb NOOP\r\n"),
    b"a LOGIN {3\r\nb NOOP\r\n",
    *(b"a LOGIN x{3}\r\njoe y\r\nb NOOP\r\n", b"a LOGIN joe {6}x\r\nb NOOP\r\n", b"a LOGIN {3}x}\r\nb NOOP\r\n"),
    *(b"h NOOP {3}\r\nabc\r\ni NOOP\r\n", b"h LOGIN {0}\r\n\r\ni NOOP\r\n", b"h foo {3}\r\nabc\r\ni NOOP\r\n"),
    *(b"h x " + b"{1}\r\nx " * 18 + b"\r\ni NOOP\r\n", b"a LOGIN {3x\r\nb NOOP\r\n"),
]
EXCHANGES = [
    *(b"a AUTHENTICATE plain =\r\nb NOOP\r\n", b'a AUTHENTICATE PLAIN ""\r\nb NOOP\r\n', b"a AUTHENTICATE PLAIN x\r\n"),
    *(b"a AUTHENTICATE PLAIN\r\n\r\nb NOOP\r\n", b"a AUTHENTICATE PLAIN\r\n*x\r\nb NOOP\r\n"),
    *(b"a AUTHENTICATE PLAIN\r\n====\r\nb NOOP\r\n", b"a AUTHENTICATE LOGIN am9l\r\nc2VjcmV0\r\n"),
    *(b'a AUTHENTICATE "PLAIN" "AGpvZQBzZWNyZXQ="\r\n', b"a AUTHENTICATE {5}\r\nPLAIN AGpvZQBzZWNyZXQ=\r\n"),
    *(b"a AUTHENTICATE PLAIN\nAGpvZQBzZWNyZXQ=\n", b"a AUTHENTICATE PLAIN AG pv\r\n"),
    b"a AUTHENTICATE NONE\r\nb NOOP\r\n",
    *(b"a AUTHENTICATE PLAIN AGpvZQBubw==\r\nb NOOP\r\n", b"a AUTHENTICATE PLAIN eABqb2UAc2VjcmV0\r\n"),
]


@pytest.fixture(scope="module")
def logins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("imap") / "logins"
    path.write_text("joe:secret:65534:65534:Joe:/:/bin/sh\n")
    return path


def ours(wire: bytes) -> bytes:
    outcome = player(server(COMPAT)).play(whole([wire])).outcome
    last = outcome.events[-1]
    if not isinstance(last, HandOver):
        return outcome.output
    return outcome.output + b"logged in: %b %b\n" % (last.tag, last.username.encode())


@pytest.mark.parametrize("wire", WORDS + STRINGS + LITERALS + EXCHANGES)
def test_as_the_original(wire: bytes, logins: Path) -> None:
    env = {"PATH": "/usr/bin:/bin:/usr/sbin", "PROTO": "TCP", "TCPLOCALHOST": "mx.example.org"}
    env |= {"CVM_SASL_PLAIN": program("cvm-pwfile"), "CVM_PWFILE_PATH": str(logins)}
    command = [program("imapfront-auth"), "sh", "-c", 'echo "logged in: $IMAPLOGINTAG $AUTHENTICATED"']
    done = subprocess.run(command, input=wire, capture_output=True, env=env, timeout=SECONDS)
    if b"could not set UID/GID" in done.stdout:
        pytest.skip("the original changes to the user who has logged in, which only root can do")
    assert ours(wire) == done.stdout
