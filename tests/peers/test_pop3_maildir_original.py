"""POP3 over maildir in the compat profile against Debian's pop3front-maildir (2.12): random sessions over random
maildirs, the same bytes and log lines, and the same directory afterwards.

What is left out, because no profile copies it: sizes that wrap, with signs or blanks in front; times past 32 bits;
UIDs that cannot be sent (ours are digests); what is no regular file (ours is not listed); TOP of a message whose header
is longer than 4,096 bytes (there a line end at the edge of a block is an empty line).
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailfront_io.pop3_service import POP3Service
from mailfront_io.testing import EOF, run_script
from mailfront_proto.pop3 import Mode
from tests.peers.programs import program

NAME = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["1", "2", "3", "007", "1700000001", "1700000002", "2147483647", "a", "b", "-5", "zz", ".h"]),
    st.sampled_from(["", ".a", ".b", ".c.host", "x" * 69, "x" * 70, "y,z", "=", ";"]),
    st.sampled_from(
        [
            *("", "", "", ",S=5", ",W=7", ",S=5,W=7", ",W=7,S=5", ",S=5,S=6", ",W=5,W=6,S=9", ",s=3", ",S=", ",W=0"),
            *(",X=3,S=7", ",S=5,b,W=9", ",S=5b", ",1=1", ",=1", ",b,c=1", ",SW=3", ",,S=3", ",S=3,", ","),
        ]
    ),
    st.sampled_from(["", "", "", ":2,", ":2,S", ":2,F", ":2,FS", ":2,T", ":1,x", ":2", ":", ":2,s", ":2,S:1,"]),
)
CONTENT = st.lists(
    st.sampled_from(["\n", "\n\n", ".", "a", "b: c", "\r\n", "x" * 300, "\xe9", "LONG"]), max_size=6
).map("".join)
NUMBER = st.sampled_from(["1", "2", "3", "4", "5", "9", "0", "-1", "x"])
COMMAND = st.one_of(
    st.builds("{} {}".format, st.sampled_from(["RETR", "RETR", "DELE", "DELE", "LIST", "UIDL", "TOP"]), NUMBER),
    st.builds("TOP {} {}".format, NUMBER, st.sampled_from(["0", "1", "5"])),
    st.sampled_from(["STAT", "LIST", "UIDL", "LAST", "NOOP", "RSET", "CAPA", "FOO"]),
)
LIMITS = st.dictionaries(
    st.sampled_from(["MAX_MESSAGES", "MAX_CUR_MESSAGES", "MAX_NEW_MESSAGES"]), st.sampled_from(["0", "1", "2", "3"])
)


def fill(maildir: Path, files: Mapping[tuple[str, str], str]) -> None:
    for part in ("cur", "new", "tmp"):
        (maildir / part).mkdir(parents=True)
    for (part, name), content in files.items():
        (maildir / part / name).write_bytes(content.replace("LONG", "\n\n" + "y\n" * 20000).encode("latin-1"))


def content_of(maildir: Path) -> dict[str, bytes]:
    return {str(p.relative_to(maildir)): p.read_bytes() for p in maildir.rglob("*") if p.is_file()}


@pytest.mark.peer
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.tuples(st.sampled_from(["cur", "new"]), NAME), CONTENT, max_size=7),
    st.lists(COMMAND, max_size=12),
    LIMITS,
    st.booleans(),
)
def test_the_same_replies_and_the_same_directory(
    files: dict[tuple[str, str], str], commands: list[str], limits: dict[str, str], quits: bool
) -> None:
    # A rename onto another message loses it, in the original.
    proper = [name.partition(":")[0] for _, name in files]
    if len(set(proper)) < len(proper):
        files = {key: content for key, content in files.items() if proper.count(key[1].partition(":")[0]) == 1}
    wire = "".join(command + "\r\n" for command in [*commands, *["QUIT"] * quits]).encode("latin-1")
    with tempfile.TemporaryDirectory() as place:
        theirs, ours = Path(place) / "theirs", Path(place) / "ours"
        fill(theirs, files)
        fill(ours, files)
        done = subprocess.run(
            [program("pop3front-maildir"), str(theirs)], input=wire, capture_output=True, timeout=20, env=limits
        )
        log: list[str] = []
        service = POP3Service(
            {"MAILFRONT_PROFILE": "compat", **limits}, log.append, mode=Mode.MAILBOX, mailbox=str(ours)
        )
        played = run_script(service.session, [wire, EOF] if wire else [EOF], all_read=False)
        assert played.output == done.stdout
        assert played.result == done.returncode
        lines = [re.sub(rb"^pop3front-maildir\[\d+\]: ", b"", line) for line in done.stderr.split(b"\n")[:-1]]
        assert [line.encode("utf-8", "surrogateescape") for line in log] == lines
        assert content_of(ours) == content_of(theirs)
