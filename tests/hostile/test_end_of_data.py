"""End of data and smuggling: H01 to H07, H13 to H15."""

from dataclasses import replace

import pytest

from mailfront_io.testing import EOF, Action, WaitFor
from mailfront_proto.smtp import LineEnds, Recipient
from mailfront_proto.smtp.body_encoder import DotEncoder
from tests.front import Front
from tests.hostile.every import COMPAT, DEFAULT, ENVELOPE, MESSAGE, split_outcome

SECOND = b"MAIL FROM:<evil@example.net>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nsmuggled\r\n.\r\n"
REJECT = replace(DEFAULT, line_ends=LineEnds.REJECT)


def check_one_message(end: bytes) -> None:
    """`end` in the middle of a message does not end it: machine under every split, and front end."""
    body = b"first" + end + SECOND
    outcome = split_outcome([*MESSAGE, body + b"QUIT\r\n"])
    assert outcome.codes() == [220, 250, 250, 250, 354, 250, 221]
    assert b"smuggled" in outcome.bodies()[0]
    refused = split_outcome([*MESSAGE, body + b"QUIT\r\n"], REJECT, few=True)
    assert refused.codes() == [220, 250, 250, 250, 354, 554]
    for pieces in ([body], [bytes([b]) for b in body]):
        front = Front("accept")
        front.say(ENVELOPE, b"DATA\r\n", *pieces, b"QUIT\r\n")
        assert len(front.messages) == 1
        sender, recipients, message = front.messages[0]
        assert (sender, recipients) == ("a@example.net", ["b@example.org"])
        assert b"\r" not in message and b"smuggled" in message


def test_h01_lf_lf_does_not_end_data() -> None:
    check_one_message(b"\n.\n")


def test_h02_lf_crlf_does_not_end_data() -> None:
    check_one_message(b"\n.\r\n")


def test_h03_crlf_lf_does_not_end_data() -> None:
    check_one_message(b"\r\n.\n")


ODD_ENDS = [b"\r.\r", b"\r.\n", b"\r\n.\r", b"\r\n.\0\r\n", b"\r\n.\r\r\n", b"\n\r.\n", b"\r\n .\r\n", b"\r\n.\x0b\r\n"]


@pytest.mark.parametrize("end", ODD_ENDS, ids=repr)
def test_h04_odd_ends_do_not_end_data(end: bytes) -> None:
    outcome = split_outcome([*MESSAGE, b"first" + end + SECOND + b"QUIT\r\n"])
    assert outcome.codes() == [220, 250, 250, 250, 354, 250, 221]


@pytest.mark.parametrize("line", [b"a\rb", b"\ra", b"a\r", b"a\r\r", b"\r", b"a\0b", b".\rx", b"\r.x"], ids=repr)
def test_h04_accept_loses_no_byte(line: bytes) -> None:
    """Dots apart, what a compat client sends is what is stored (one CR in front of each LF is framing)."""
    outcome = split_outcome([*MESSAGE, line + b"\r\nnext\n.\n"], COMPAT, few=True)
    stuffed = line.startswith(b".") or line.startswith(b"\r.")
    stored = line.replace(b".", b"", 1) if stuffed else line
    assert outcome.bodies() == [stored + b"\r\nnext\r\n"]


def test_h05_stuffed_dots_split_anywhere() -> None:
    outcome = split_outcome([*MESSAGE, b"..\r\n...\r\n.x\r\n..x.\r\n\r\n..\r\n.\r\n"])
    assert outcome.bodies() == [b".\r\n..\r\nx\r\n.x.\r\n\r\n.\r\n"]
    wire = b"a\r\n..b\r\n.\r\n"
    for at in range(1, len(wire)):
        front = Front("accept")
        front.say(ENVELOPE, b"DATA\r\n", wire[:at], wire[at:])
        assert [message for _, _, message in front.messages] == [b"a\n.b\n"]


NASTY = b"a\rb\nc\r\r\nd\n\re\r\n.\rf\r\n"


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_h06_no_bare_line_end_reaches_who_speaks_a_line_protocol(profile: str) -> None:
    """The default profile normalizes before plugins and backends, so nothing bare is stored. In compat they
    are the message's data; whoever sends it on as lines encodes it (H07)."""
    front = Front("accept", env={"MAILFRONT_PROFILE": profile})
    front.say(ENVELOPE, b"DATA\r\n", NASTY, b".\r\n")
    message = front.messages[0][2]
    if profile == "default":
        assert b"\r" not in message
    encoder = DotEncoder()
    wire = encoder.feed(message) + encoder.finish()
    assert wire.count(b"\r\n") == wire.count(b"\r") == wire.count(b"\n")


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r\n", *ODD_ENDS], ids=repr)
def test_h07_what_is_sent_on_is_written_anew(end: bytes) -> None:
    """A message with any end inside goes out with one end only, whoever reads it and however lenient."""
    stored = b"first" + end + b"MAIL FROM:<evil@example.net>\r\n"
    encoder = DotEncoder()
    for at in range(len(stored)):
        encoder = DotEncoder()
        wire = encoder.feed(stored[:at]) + encoder.feed(stored[at:]) + encoder.finish()
        assert wire.endswith(b"\r\n.\r\n")
        inside = wire[: -len(b".\r\n")]
        for lenient in (b"\r\n.\r\n", b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\n"):
            assert lenient not in inside
    outcome = split_outcome([*MESSAGE, wire + b"NOOP\r\n"], COMPAT, few=True)
    assert outcome.codes()[-2:] == [250, 250]
    assert len(outcome.bodies()) == 1


def test_h13_the_next_command_in_the_segment_of_the_end_is_handled_once() -> None:
    more = b"MAIL FROM:<c@example.net>\r\nRCPT TO:<d@example.org>\r\nDATA\r\ntwo\r\n.\r\nQUIT\r\n"
    outcome = split_outcome([*MESSAGE, b"one\r\n.\r\n" + more])
    assert outcome.codes() == [220, 250, 250, 250, 354, 250, 250, 250, 354, 250, 221]
    assert outcome.bodies() == [b"one\r\n", b"two\r\n"]
    assert [str(e.address) for e in outcome.events if isinstance(e, Recipient)] == ["b@example.org", "d@example.org"]
    front = Front("accept")
    front.say(ENVELOPE + b"DATA\r\none\r\n.\r\n" + SECOND)
    assert front.messages == [
        ("a@example.net", ["b@example.org"], b"one\n"),
        ("evil@example.net", ["victim@example.org"], b"smuggled\n"),
    ]


def test_h14_what_is_sent_behind_a_refused_data_is_commands() -> None:
    body = b"Subject: x\r\n\r\nno\r\ncommand\r\nat all\r\n.\r\n"
    outcome = split_outcome([b"EHLO x\r\nMAIL FROM:<a@example.net>\r\nDATA\r\n" + body + b"NOOP\r\n"])
    assert outcome.codes() == [220, 250, 250, 503, 500, 500, 500, 500, 500, 500, 250]
    assert outcome.bodies() == []
    front = Front("accept-sender")  # nobody accepts the recipient
    script: list[Action] = [ENVELOPE, WaitFor(b"550 "), b"DATA\r\n", b"spam line\r\n" * 60, EOF]
    output = front.play(script, all_read=False).output
    assert output.count(b"\r\n500 ") == 10
    assert output.endswith(b"421 4.7.0 Too many errors, closing connection\r\n")
    assert front.messages == []


@pytest.mark.parametrize(
    ("last", "code"), [(b"QUIT\r\n", b"221"), (b"GET / HTTP/1.1\r\n", b"421")], ids=["QUIT", "421"]
)
def test_h15_input_behind_quit_or_421_is_dropped(last: bytes, code: bytes) -> None:
    outcome = split_outcome([ENVELOPE + last + b"DATA\r\nx\r\n.\r\n" + SECOND])
    assert outcome.output.splitlines()[-1].startswith(code)
    assert outcome.bodies() == []
    front = Front("accept")
    output = front.say(ENVELOPE + last + b"DATA\r\nx\r\n.\r\n", SECOND)
    assert output.split(b"\r\n")[-2].startswith(code)
    assert front.messages == []
