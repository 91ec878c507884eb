"""Netstrings: framing, limits, faults, and what reading them costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.buffer import ReceiveBuffer
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.netstring import (
    OVERSIZED,
    Fault,
    NetstringError,
    NetstringReader,
    Oversized,
    encode_netstring,
)
from mailfront_proto.testing import every_split

Read = bytes | Oversized | Fault

MANY = b"0:,1:a,11:a@b.example,3:xyz,20:01234567890123456789,2:,,,"
CONTENTS = [b"", b"a", b"a@b.example", b"xyz", b"01234567890123456789", b",,"]


def read_all(pieces: list[bytes], limit: int = 1000, *, free: bool = False, room: int | None = None) -> list[Read]:
    """What `read_whole` makes of `pieces`, as far as the first fault."""
    buffer = ReceiveBuffer()
    reader = NetstringReader(buffer, free_lengths=free)
    reader.room = room
    found: list[Read] = []
    for piece in pieces:
        buffer.feed(piece)
        try:
            while reader.room != 0 and (whole := reader.read_whole(limit)) is not None:
                found.append(whole)
        except NetstringError as error:
            return [*found, error.fault]
    return found


def test_encoding() -> None:
    assert encode_netstring(b"") == b"0:,"
    assert encode_netstring(b"hello world!") == b"12:hello world!,"


@pytest.mark.parametrize("limit", [0, 1, 3, 19, 20, 1000])
def test_every_split_gives_the_same_netstrings(limit: int) -> None:
    expected = [content if len(content) <= limit else OVERSIZED for content in CONTENTS]
    for (pieces,) in every_split([MANY]):
        assert read_all(pieces, limit) == expected
        assert read_all(pieces, limit, room=len(MANY)) == expected


@given(st.lists(st.binary(max_size=30)), st.integers(0, 30), st.lists(st.integers(1, 9), min_size=1))
def test_what_is_encoded_is_read(contents: list[bytes], limit: int, sizes: list[int]) -> None:
    stream, pieces = b"".join(map(encode_netstring, contents)), []
    while stream:
        sizes.append(sizes.pop(0))
        pieces.append(stream[: sizes[-1]])
        stream = stream[sizes[-1] :]
    assert read_all(pieces, limit) == [c if len(c) <= limit else OVERSIZED for c in contents]


@given(st.binary(max_size=40), st.one_of(st.none(), st.integers(0, 40)), st.booleans())
def test_any_bytes_are_netstrings_or_a_fault_however_they_are_cut(data: bytes, room: int | None, free: bool) -> None:
    whole = read_all([data] if data else [], 8, free=free, room=room)
    assert read_all([data[i : i + 1] for i in range(len(data))], 8, free=free, room=room) == whole


FAULTS = [
    (b":", Fault.LENGTH),
    (b"x", Fault.LENGTH),
    (b"-1:", Fault.LENGTH),
    (b"+1:a,", Fault.LENGTH),
    (b" 1:a,", Fault.LENGTH),
    (b"1 :a,", Fault.LENGTH),
    (b"1_0:", Fault.LENGTH),
    (b"1;", Fault.LENGTH),
    (b"00", Fault.LENGTH),
    (b"01:a,", Fault.LENGTH),
    (b"\xb2:", Fault.LENGTH),  # superscript two, in Latin-1
    (b"\xd9\xa1:", Fault.LENGTH),  # ARABIC-INDIC DIGIT ONE
    (b"12345678901", Fault.LENGTH),
    (b"9" * 30 + b":", Fault.LENGTH),
    (b"0:;", Fault.COMMA),
    (b"3:abc;", Fault.COMMA),
    (b"3:abc3:", Fault.COMMA),
]


@pytest.mark.parametrize(("data", "fault"), FAULTS)
def test_faults(data: bytes, fault: Fault) -> None:
    for (pieces,) in every_split([b"1:a," + data]):
        assert read_all(pieces) == [b"a", fault]
        assert read_all(pieces, 0) == [OVERSIZED, fault]


@pytest.mark.parametrize(
    ("data", "room", "fault"),
    [
        (b"3:abc,", 5, Fault.COMMA),
        (b"3:abc,", 4, Fault.ROOM),
        (b"3:abc,", 2, Fault.ROOM),
        (b"3:abc,", 1, Fault.ROOM),
        (b"12:", 2, Fault.ROOM),
        (b"x", 1, Fault.LENGTH),
        (b"9999999999:", 100, Fault.ROOM),
    ],
)
def test_what_is_longer_than_its_room(data: bytes, room: int, fault: Fault) -> None:
    for (pieces,) in every_split([data]):
        assert read_all(pieces, room=room) == [fault]
        assert read_all(pieces, 0, room=room) == [fault]


def test_free_lengths() -> None:
    for (pieces,) in every_split([b"003:abc,:,00:,0000000001:a,"]):
        assert read_all(pieces, free=True) == [b"abc", b"", b"", b"a"]
    assert read_all([b"00000000001:a,"], free=True) == [Fault.LENGTH]


def test_large_ones_come_in_slices() -> None:
    buffer = ReceiveBuffer()
    reader = NetstringReader(buffer)
    buffer.feed(b"10:abc")
    assert reader.read_length() == 10
    assert reader.read_slice(2) == b"ab"
    assert reader.read_slice() == b"c"
    assert reader.read_slice() is None
    buffer.feed(b"defghij")
    assert reader.read_slice() == b"defghij"
    assert reader.read_slice() is None
    assert (reader.left, len(buffer)) == (0, 0)
    buffer.feed(b",1:a,")
    assert reader.read_slice() == b""
    assert reader.read_whole(1) == b"a"


def test_a_chunk_that_is_all_content_is_handed_on_as_it_came() -> None:
    buffer = ReceiveBuffer()
    reader = NetstringReader(buffer)
    buffer.feed(b"100000:")
    reader.read_length()
    chunk = b"x" * 65536
    buffer.feed(chunk)
    assert reader.read_slice() is chunk


def test_an_oversized_one_is_not_held() -> None:
    buffer = ReceiveBuffer()
    reader = NetstringReader(buffer)
    buffer.feed(b"5000000000:")
    for _ in range(50):
        assert reader.read_whole(1000) is None
        buffer.feed(b"x" * 65536)
    assert reader.read_whole(1000) is None
    assert len(buffer) == 0


def test_a_slice_of_no_netstring() -> None:
    with pytest.raises(LocalProtocolError, match="follows a read_length"):
        NetstringReader(ReceiveBuffer()).read_slice()


def test_reading_some_and_looking_ahead() -> None:
    buffer = ReceiveBuffer()
    assert buffer.peek(3) == buffer.read_some(3) == b""
    buffer.feed(b"abcdef")
    assert buffer.peek(3) == b"abc"
    assert buffer.read_some(2) == b"ab"
    buffer.feed(b"gh")
    assert buffer.peek(99) == b"cdefgh"
    assert buffer.read_some(3) == b"cde"
    assert type(buffer.peek(1)) is bytes
    assert buffer.read_some(9) == b"fgh"
    assert not buffer.has_unread
