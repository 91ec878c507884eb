"""Replies: print -> parse -> equal, wrapping, control bytes."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailfront_proto.smtp.replies import Reply, parse_reply_line
from mailfront_proto.smtp.reply_reader import BadReply, ReplyReader
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
