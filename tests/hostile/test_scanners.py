"""H65: the answers of clamd and spamd, and what the plugins make of them; H66: scanners that die in the middle."""

import errno
import operator
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.plugin import Backend
from mailfront_io.spool import Spool
from mailfront_io.testing import EOF, RESET, UNTIL_EOF, Action, Outside, WaitFor
from mailfront_proto.clamd import ClamdClient, Scanned
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.spamd import Response, ResponseEnd, SpamdClient
from mailfront_proto.testing import Player, assert_chunk_invariant, ignore
from tests.front import ENVELOPE, Front

# Each would let mail pass, or put a line into it, if it were believed.
FORGED_BY_CLAMD = (
    b"stream: OK",  # cut off: it may go on as OK.Dropper FOUND
    b"stream: OK\nstream: Worm FOUND\0",
    b"stream: Worm\r\nX-Virus: none FOUND\0",
    b"stream: Worm\x1b]0;x\x07 FOUND\0",
    b"OK\0",
    b"stream: ok\0",
    b"\0stream: OK\0",
)
HEAD = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 4\r\nSpam: False ; 1 / 5\r\n"
FORGED_BY_SPAMD = (
    HEAD + b"Spam: True ; 9 / 5\r\n\r\nabc\n",
    HEAD + b"X: y\rSpam: True ; 9 / 5\r\n\r\nabc\n",
    HEAD + b" folded\r\n\r\nabc\n",
    HEAD + b"\r\nabc",
    HEAD + b"\r\nabc\nX-Injected: yes\n",
    HEAD.replace(b"1 / 5", b"nan / 5") + b"\r\nabc\n",
    HEAD.replace(b"EX_OK", b"EX_OK\0") + b"\r\nabc\n",
)


@pytest.mark.parametrize("answer", FORGED_BY_CLAMD)
def test_h65_clamd_cannot_forge_a_verdict(answer: bytes) -> None:
    def new() -> Player[ClamdClient]:
        client = ClamdClient()
        client.scan()
        client.end_of_body()
        return Player(client, ignore, raises=RemoteProtocolError)

    events = assert_chunk_invariant(new, [answer]).events
    assert not any(isinstance(event, Scanned) for event in events)
    assert not events[-1].answered


@pytest.mark.parametrize("answer", FORGED_BY_SPAMD)
def test_h65_spamd_cannot_forge_headers_or_a_verdict(answer: bytes) -> None:
    def new() -> Player[SpamdClient]:
        client = SpamdClient()
        client.request("PROCESS", 0)
        client.end_of_body()
        return Player(client, ignore, raises=RemoteProtocolError)

    events = assert_chunk_invariant(new, [answer]).events
    assert not any(isinstance(event, ResponseEnd) for event in events)
    assert not events[-1].answered
    for event in events:
        assert not isinstance(event, Response) or event.text.isprintable()

# -- the plugins ---------------------------------------------------------------------------------------------

CLAMD = ("192.0.2.10", 3310)
SPAMD = ("192.0.2.11", 783)
MESSAGE = b"Subject: x\n\nbody\n"
NO_SCAN = b"451 4.3.0 Could not virus scan message"
NO_SPAMD = b"451 4.3.0 Could not SpamAssassin scan message"


class Stored(Backend):
    """Keeps what it is given in `messages`."""

    name = "stored"
    spools = True
    messages: list[bytes]

    def message_end(self, spool: Spool) -> None:
        self.messages.append(b"".join(spool.blocks()))


def scanned(plugin: str, script: Sequence[Action], **env: str) -> tuple[list[bytes], list[bytes], list[str]]:
    """The reply to a message, what is stored, and the log as it is written."""
    stored: list[bytes] = []
    lines: list[str] = []
    where = {"CLAMAV_HOST": CLAMD[0], "SPAMD_HOST": SPAMD[0]}
    backend = type("Stored", (Stored,), {"messages": stored})
    front = Front(plugin, "accept", backend=backend, env={**where, **env}, log=lines.append)
    said: list[Action] = [ENVELOPE + b"DATA\r\n", WaitFor(b"354 "), MESSAGE.replace(b"\n", b"\r\n") + b".\r\n", EOF]
    played = front.play(said, outside=Outside(peers={CLAMD: script, SPAMD: script}), all_read=False)
    _, _, reply = played.output.partition(b"354 End your message with a period on a line by itself.\r\n")
    return reply.split(b"\r\n")[:-1], stored, lines


@pytest.mark.parametrize("profile", ["default", "compat"])
@pytest.mark.parametrize("answer", [answer for answer in FORGED_BY_CLAMD if b"OK\n" not in answer])  # that is a line
def test_h65_what_clamd_forges_lets_no_mail_pass_and_adds_no_line(profile: str, answer: bytes) -> None:
    script: list[Action] = [WaitFor(bytes(4)), answer.replace(b"\0", b"\n"), EOF]
    reply, stored, _ = scanned("clamav", script, MAILFRONT_PROFILE=profile)
    assert stored == []
    assert len(reply) == 1 and reply[0][:3] in (b"451", b"554")
    assert not re.search(rb"[\x00-\x1f]", reply[0])


@pytest.mark.parametrize("answer", FORGED_BY_SPAMD)
def test_h65_what_spamd_forges_changes_no_message(answer: bytes) -> None:
    reply, stored, _ = scanned("spamassassin", [UNTIL_EOF, answer, EOF])
    assert (reply, stored) == ([NO_SPAMD], [])


@given(answer=st.one_of(st.binary(max_size=80), st.builds(operator.add, st.just(b"stream: "), st.binary(max_size=40))))
def test_h60_no_answer_of_clamd_adds_a_reply_line(answer: bytes) -> None:
    for profile in ("default", "compat"):
        reply, _, log = scanned("clamav", [WaitFor(bytes(4)), answer, EOF], MAILFRONT_PROFILE=profile)
        assert len(reply) == 1 and reply[0][:4] in (b"250 ", b"451 ", b"554 ")
        assert not any("Traceback" in line or "\n" in line for line in log)


ANSWER = HEAD.replace(b"4", b"24") + b"\r\nX-Spam-Status: No\n\nnew\n\n"


@pytest.mark.parametrize("end", [EOF, RESET], ids=repr)
@pytest.mark.parametrize("cut", range(len(ANSWER)))
def test_h66_a_scanner_that_dies_in_the_middle_changes_nothing(cut: int, end: Action) -> None:
    """Wherever its answer ends: 451, and neither the old message nor half of the new one. Whoever lists it so that mail
    passes gets the old one in whole."""
    script: list[Action] = [UNTIL_EOF, *([ANSWER[:cut]] if cut else []), end]
    assert scanned("spamassassin", script)[:2] == ([NO_SPAMD], [])
    _, stored, log = scanned("spamassassin,failure=pass", script)
    assert stored == [MESSAGE]
    assert any("plugin spamassassin: " in line and line.endswith(", passed") for line in log)


def test_h66_the_whole_answer_is_the_message() -> None:
    _, stored, _ = scanned("spamassassin", [UNTIL_EOF, ANSWER, EOF])
    assert stored == [b"X-Spam-Status: No\n\nnew\n\n"]


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_h66_an_answer_without_a_message(profile: str) -> None:
    script: list[Action] = [UNTIL_EOF, b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\n\r\n", EOF]
    assert scanned("spamassassin", script, MAILFRONT_PROFILE=profile)[:2] == ([NO_SPAMD], [])


def test_h66_a_disk_that_is_full_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    def another(self: Spool) -> Spool:
        def no_room(data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        new = Spool("/tmp")
        monkeypatch.setattr(new, "write", no_room)
        return new

    monkeypatch.setattr(Spool, "another", another)
    reply, stored, log = scanned("spamassassin", [UNTIL_EOF, ANSWER, EOF])
    assert (reply, stored) == ([b"451 4.3.0 Internal error."], [])
    assert any(re.match(r"Error [0-9a-f]{8}: .*No space left", line) for line in log)


def test_h65_a_message_cannot_be_longer_than_it_may() -> None:
    head = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 99999999\r\n\r\n"
    reply, stored, log = scanned("spamassassin", [UNTIL_EOF, head, b"x" * 65536, EOF])
    assert (reply, stored) == ([NO_SPAMD], [])
    assert any("wants to answer" in line for line in log)
