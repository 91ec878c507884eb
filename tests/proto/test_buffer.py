"""The receive buffer: framing, limits, and what it costs."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.buffer import OVERSIZED, ReceiveBuffer
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.pull import MAX_HELD_INPUT
from mailfront_proto.testing import every_split

LINES = b"NOOP\r\nshort\nx\r\r\n\n" + b"a" * 9 + b"\n" + b"b" * 10 + b"\n" + b"c" * 30 + b"\nQUIT\r\ntail"


def lines_of(pieces: list[bytes], limit: int) -> list[bytes]:
    """What `read_line` makes of `pieces`."""
    buffer, lines = ReceiveBuffer(), []
    for piece in pieces:
        buffer.feed(piece)
        while (line := buffer.read_line(limit)) is not None:
            lines.append(line)
    return lines


def expected_lines(data: bytes, limit: int) -> list[bytes]:
    """The same, said plainly."""
    return [line + b"\n" if len(line) < limit else OVERSIZED for line in data.split(b"\n")[:-1]]


@pytest.mark.parametrize("limit", [1, 2, 9, 10, 11, 12, 100])
def test_every_split_gives_the_same_lines(limit: int) -> None:
    for (pieces,) in every_split([LINES]):
        assert lines_of(pieces, limit) == expected_lines(LINES, limit)


@given(
    st.lists(st.sampled_from([b"\n", b"\r\n", b"x", b"xyz", b"\0"]), max_size=30),
    st.lists(st.integers(1, 7), min_size=1, max_size=9),
    st.integers(1, 12),
)
def test_any_lines_in_any_pieces(words: list[bytes], sizes: list[int], limit: int) -> None:
    data = b"".join(words)
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at += size
        turn += 1
    assert lines_of(pieces, limit) == expected_lines(data, limit)


def test_a_line_of_exactly_the_limit_passes_and_one_more_does_not() -> None:
    assert lines_of([b"x" * 9 + b"\n"], 10) == [b"x" * 9 + b"\n"]
    assert lines_of([b"x" * 10 + b"\n"], 10) == [OVERSIZED]
    assert lines_of([b"x" * 9, b"\n"], 10) == [b"x" * 9 + b"\n"]
    assert lines_of([b"x" * 10, b"\n"], 10) == [OVERSIZED]


def test_an_oversized_line_is_not_held() -> None:
    buffer = ReceiveBuffer()
    for _ in range(1000):
        buffer.feed(b"x" * 65536)
        assert buffer.read_line(4096) is None
        assert len(buffer) == 0
    buffer.feed(b"end\nNOOP\n")
    assert buffer.read_line(4096) == OVERSIZED
    assert buffer.read_line(4096) == b"NOOP\n"


def test_the_limit_is_an_argument_and_may_change_between_lines() -> None:
    buffer = ReceiveBuffer()
    buffer.feed(b"x" * 20 + b"\n" + b"y" * 20 + b"\n")
    assert buffer.read_line(10) == OVERSIZED
    assert buffer.read_line(100) == b"y" * 20 + b"\n"


def test_one_whole_chunk_is_handed_on_without_a_copy() -> None:
    chunk = bytes(70_000)
    buffer = ReceiveBuffer()
    buffer.feed(chunk)
    assert buffer.read_all() is chunk


def test_lines_and_blocks_are_bytes_whatever_is_inside() -> None:
    buffer = ReceiveBuffer()
    buffer.feed(b"ab")
    buffer.feed(b"c\nde")
    buffer.feed(b"f\nrest")
    assert buffer.read_line(10) == b"abc\n"
    for value in (buffer.read_line(10), buffer.read_exactly(2), buffer.read_all()):
        assert type(value) is bytes
    assert len(buffer) == 0


def test_exact_blocks() -> None:
    buffer = ReceiveBuffer()
    buffer.feed(b"abc")
    assert buffer.read_exactly(4) is None
    assert buffer.read_exactly(0) == b""
    buffer.feed(b"def")
    assert buffer.read_exactly(4) == b"abcd"
    assert buffer.read_exactly(2) == b"ef"
    assert buffer.read_exactly(1) is None


@pytest.mark.parametrize("left", [b"", b"later"])
def test_what_is_pushed_back_comes_first(left: bytes) -> None:
    buffer = ReceiveBuffer()
    buffer.feed(b"one\ntwo\n" + left)
    everything = buffer.read_all()
    buffer.push_back(everything[4:])
    buffer.push_back(b"")
    assert buffer.read_line(10) == b"two\n"
    assert buffer.read_all() == left


def test_a_match_is_found_in_front_and_within_its_limit() -> None:
    words = re.compile(rb"[a-z]+ ").match
    buffer = ReceiveBuffer()
    buffer.feed(b"one three ")
    for size, found in ((4, b"one "), (6, b"three ")):
        assert buffer.read_match(words, size - 1) is None
        match = buffer.read_match(words, size)
        assert match is not None and match.group() == found
    assert not buffer.has_unread and buffer.read_match(words, 9) is None
    buffer.feed(b"partial")
    assert buffer.read_match(words, 9) is None and buffer.read_line(20) is None
    buffer.feed(b" line\n")
    assert buffer.read_match(words, 9) is None  # for `read_line`, which has looked at its beginning
    assert buffer.read_line(20) == b"partial line\n"


def test_more_than_the_limit_is_the_drivers_fault() -> None:
    buffer = ReceiveBuffer(max_held=10)
    buffer.feed(b"x" * 10)
    with pytest.raises(LocalProtocolError, match=r"11 bytes fed but not yet used \(limit 10\): call next_event"):
        buffer.feed(b"y")
    assert buffer.read_all() == b"x" * 10  # nothing of what was refused
    assert ReceiveBuffer()._max_held == MAX_HELD_INPUT == 1024 * 1024


def test_what_was_read_counts_no_more() -> None:
    buffer = ReceiveBuffer(max_held=100)
    for _ in range(1000):
        buffer.feed(b"0123456789" * 4 + b"\n0123456789")
        assert buffer.read_line(100) is not None
        assert buffer.read_exactly(10) is not None


def test_the_store_behind_it_is_bounded_by_what_is_held() -> None:
    buffer = ReceiveBuffer(max_held=1000)
    buffer.feed(b"x" * 500)
    for _ in range(10_000):
        buffer.feed(b"y" * 100)
        assert buffer.read_exactly(100) is not None
        assert len(buffer._data) <= 2200


def test_dripping_input_is_looked_at_once() -> None:
    """Linear: the search goes on where it stopped."""

    class Counting(bytearray):
        looked_at = 0

        def find(self, *arguments: object) -> int:
            start = arguments[1]
            assert isinstance(start, int)
            Counting.looked_at += len(self) - start
            return super().find(*arguments)  # type: ignore[arg-type]

    buffer = ReceiveBuffer()
    buffer.feed(b"x")
    buffer.read_line(100_000)
    buffer._data = Counting(buffer._data)
    for _ in range(20_000):
        buffer.feed(b"x")
        assert buffer.read_line(100_000) is None
    assert Counting.looked_at <= 25_000
