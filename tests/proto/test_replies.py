"""Replies: print -> parse -> equal, wrapping, control bytes."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailfront_proto.smtp import Data, Mail, MessageEnd, Recipient, SMTPServer, VendorCommand, Verify, answers
from mailfront_proto.smtp.addresses import NON_ASCII, SYNTAX_ERROR
from mailfront_proto.smtp.enhanced_codes import enhanced_code
from mailfront_proto.smtp.replies import Reply, encode_reply, parse_reply_line
from mailfront_proto.smtp.reply_reader import BadReply, ReplyReader
from mailfront_proto.smtp.server import _USUAL_REPLIES
from mailfront_proto.testing import strategies


def read(wire: bytes) -> Reply:
    """The one reply that `wire` holds."""
    reader = ReplyReader(max_line=100_000, max_lines=100_000)
    reader.feed(wire)
    reply = reader.next_reply()
    assert reply is not None
    assert not reader.has_begun
    return reply


@given(strategies.replies(), st.sampled_from([512, None]))
def test_print_parse_equal(reply: Reply, max_line: int | None) -> None:
    assert read(reply.encode(max_line)) == reply


@given(strategies.replies())
def test_print_parse_equal_byte_by_byte(reply: Reply) -> None:
    reader = ReplyReader()
    wire = reply.encode()
    for i in range(len(wire) - 1):
        reader.feed(wire[i : i + 1])
        assert reader.next_reply() is None
    reader.feed(wire[-1:])
    assert reader.next_reply() == reply


@given(st.integers(200, 599), st.text(), st.sampled_from([512, None]), st.booleans())
@example(550, "5.1.1 a\r\n250 b", 512, False)
@example(550, "\ud800\udfff\udc80", 512, False)
@example(550, "\u2028\x85\x0b\x0c", 512, False)
def test_h60_no_text_adds_a_line_of_its_own(code: int, text: str, max_line: int | None, enhanced: bool) -> None:
    reply = Reply(code, text)
    wire = (reply.with_enhanced_code() if enhanced else reply).encode(max_line)
    lines = wire.split(b"\r\n")
    assert lines.pop() == b""
    assert len(lines) >= text.count("\n") + 1
    if max_line is None:
        assert len(lines) == text.count("\n") + 1
    assert all(re.fullmatch(rb"%d-[^\x00-\x08\x0a-\x1f\x7f]*" % code, line) for line in lines[:-1])
    assert re.fullmatch(rb"%d [^\x00-\x08\x0a-\x1f\x7f]*" % code, lines[-1])
    assert read(wire).code == code


words = st.lists(st.one_of(st.text("abé日", max_size=30), st.text("x", min_size=500, max_size=1200)), max_size=30)


@given(words, st.sampled_from(["", "5.7.1 ", "4.12.345 "]))
def test_h61_long_lines_are_wrapped(words: list[str], prefix: str) -> None:
    text = prefix + " ".join(words)
    wire = Reply(550, text).encode()
    assert all(len(line) <= 512 for line in wire.splitlines(keepends=True))
    lines = read(wire).lines
    if len(lines) > 1 and prefix:
        assert all(line.startswith(prefix.rstrip()) for line in lines)
    plain = "".join(line.removeprefix(prefix) for line in lines)
    assert plain.replace(" ", "") == text.removeprefix(prefix).replace(" ", "")
    assert Reply(550, text).encode(None).count(b"\r\n") == 1


@pytest.mark.parametrize(
    "line, parsed",
    [
        (b"250 OK\r\n", (250, False, "OK")),
        (b"250-OK\r\n", (250, True, "OK")),
        (b"250\r\n", (250, False, "")),
        (b"250 \r\n", (250, False, "")),
        (b"250-\r\n", (250, True, "")),
        (b"250 OK\n", (250, False, "OK")),
        (b"250  two\tblanks \r\n", (250, False, " two\tblanks ")),
        (b"250 \xff\r\n", (250, False, "\udcff")),
        ("250 \u2028\x85\r\n".encode(), (250, False, "\u2028\x85")),
        (b"599 x\r\n", (599, False, "x")),
        (b"", None),
        (b"250 OK", None),
        (b"250 OK\r", None),
        (b"250 a\rb\r\n", None),
        (b"250_OK\r\n", None),
        (b" 250 OK\r\n", None),
        (b"199 x\r\n", None),
        (b"600 x\r\n", None),
        (b"2 0 x\r\n", None),
        ("٢٥٠ OK\r\n".encode(), None),
    ],
)
def test_h92_reply_lines(line: bytes, parsed: tuple[int, bool, str] | None) -> None:
    assert parse_reply_line(line) == parsed


@given(st.binary())
def test_h63_any_bytes(data: bytes) -> None:
    reader = ReplyReader()
    if data:
        reader.feed(data)
    try:
        while (reply := reader.next_reply()) is not None:
            assert 200 <= reply.code <= 599
    except BadReply as error:
        assert str(error)


@pytest.mark.parametrize(
    "text, enhanced, completed",
    [
        ("5.1.1 no", "5.1.1", "5.1.1 no"),
        ("5.1.1", "5.1.1", "5.1.1"),
        ("5.1.1no", "", "5.0.0 5.1.1no"),
        ("3.1.1 no", "", "5.0.0 3.1.1 no"),
        ("5.1.1000 no", "", "5.0.0 5.1.1000 no"),
        ("٥.1.1 no", "", "5.0.0 ٥.1.1 no"),
        ("", "", "5.0.0"),
    ],
)
def test_enhanced_codes(text: str, enhanced: str, completed: str) -> None:
    assert Reply(550, text).enhanced_code == enhanced
    assert Reply(550, text).with_enhanced_code().text == completed
    assert Reply(354, text).with_enhanced_code().text == text


ENHANCED = {
    Mail: {250: "2.1.0", 450: "4.1.0", 451: "4.3.0", 452: "4.3.1", 550: "5.1.0", 552: "5.3.4", 553: "5.1.0"},
    Recipient: {250: "2.1.5", 251: "2.0.0", 450: "4.2.0", 452: "4.3.1", 550: "5.1.0", 552: "5.2.2", 556: "5.1.10"},
    MessageEnd: {250: "2.6.0", 451: "4.3.0", 452: "4.3.1", 550: "5.0.0", 552: "5.3.4", 554: "5.6.0"},
    Data: {421: "4.3.2", 451: "4.3.0", 503: "5.5.1", 554: "5.0.0"},
    Verify: {250: "2.0.0", 252: "2.0.0", 502: "5.5.1", 550: "5.0.0"},
    VendorCommand: {211: "2.0.0", 454: "4.7.0", 500: "5.5.2", 501: "5.5.4", 504: "5.5.4", 530: "5.7.0", 555: "5.5.4"},
}


def test_the_table_of_enhanced_codes() -> None:
    for kind, codes in ENHANCED.items():
        for code, expected in codes.items():
            assert enhanced_code(kind, code) == expected
            assert encode_reply(code, "text", enhanced=expected) == f"{code} {expected} text\r\n".encode()
    for kind in (*ENHANCED, type(None)):
        for code in (*range(200, 300), *range(400, 600)):
            assert re.fullmatch(rf"{code // 100}\.[0-9]\.[0-9]{{1,2}}", enhanced_code(kind, code))


def test_every_answer_of_the_machine_has_an_enhanced_code_of_its_class() -> None:
    own = [reply for reply in vars(answers).values() if isinstance(reply, Reply)]
    assert len(own) > 30
    for reply in [*own, SYNTAX_ERROR, NON_ASCII, *_USUAL_REPLIES.values()]:
        assert reply.code == 354 or reply.enhanced_code.startswith(f"{reply.code // 100}.")
        for line in reply.lines:
            assert line.startswith(reply.enhanced_code)


def test_a_plugins_answer_gets_what_its_event_says() -> None:
    machine = SMTPServer("mx.example.org")
    machine.next_event()
    machine.accept()
    machine.receive_data(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nVRFY c\r\n")
    for code, completed in ((250, ""), (250, "250 2.1.0 yes"), (552, "552 5.2.2 yes"), (252, "252 2.0.0 yes")):
        machine.next_event()
        if not completed:
            machine.accept()
            machine.data_to_send()
            continue
        assert str(machine.completed(Reply(code, "yes"))) == completed
        machine.reply(code, "yes")
        assert machine.data_to_send() == completed.encode() + b"\r\n"
