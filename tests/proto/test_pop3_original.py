"""The POP3 server machine in its compat profile against Debian's pop3front-maildir (2.12), with random commands over a
random mailbox: the same bytes."""

import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailfront_proto.pop3 import COMPAT, Mode, POP3Server
from mailfront_proto.testing import Player
from tests.peers.programs import program
from tests.proto.pop3_script import Application

NUMBER = st.sampled_from(
    ["0", "1", "2", "3", "9", "-1", "x", "1x", "01", "1 ", " 2", "18446744073709551617", "99999999999", ""]
)
LINES = st.sampled_from(["", " ", " 0", " 1", "  2", " 100", " x", " -1", " 1x", " 1 ", " 99999999999999999999999"])
VERB = st.sampled_from(["LIST", "UIDL", "DELE", "RETR", "TOP", "list", "Retr"])
COMMAND = st.one_of(
    st.builds("{} {}{}".format, VERB, NUMBER, LINES),
    st.sampled_from(
        [
            *("STAT", "LIST", "UIDL", "LAST", "NOOP", "RSET", "CAPA", "stat", "STAT x", "NOOP ", "QUIT x", "FOO", ""),
            *(" NOOP", "\tNOOP", "USER a"),
        ]
    ),
    st.text("LISTRETR 12\t", max_size=8),
)
CONTENT = st.lists(st.sampled_from(["\n", "\n\n", ".", "a", "b: c", "\r\n", "\r", "x" * 300, "\xe9"]),
max_size=9).map("".join)


@pytest.mark.peer
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(CONTENT, max_size=3), st.lists(COMMAND, max_size=15), st.sampled_from(["\r\n", "\n"]), st.booleans())
def test_the_same_bytes(contents: list[str], commands: list[str], line_end: str, quits: bool) -> None:
    wire = "".join(command + line_end for command in [*commands, *["QUIT"] * quits]).encode("latin-1")
    messages = [content.encode("latin-1") for content in contents]
    with tempfile.TemporaryDirectory() as name:
        maildir = Path(name) / "maildir"
        for part in ("cur", "new", "tmp"):
            (maildir / part).mkdir(parents=True)
        for number, message in enumerate(messages, 1):
            (maildir / ("cur" if number % 2 else "new") / f"{number}.uid").write_bytes(message)
        done = subprocess.run(
            [program("pop3front-maildir"), str(maildir)], input=wire, capture_output=True, timeout=90, env={}
        )
    machine = POP3Server(COMPAT, mode=Mode.MAILBOX)
    application = Application(messages, [b"%d.uid" % number for number in range(1, len(messages) + 1)])
    playing = Player(machine, application).play([[wire]] if wire else [])
    assert playing.outcome.output == done.stdout
