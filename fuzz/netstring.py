"""Harness: reading netstrings.

The first byte chooses limits (bit 0: free lengths; bit 1: room; bits 2-4: the largest content), the second how the
rest is cut, the third the room. What is read is compared with a reader that has all of it at once and says plainly what
a netstring is; and what was read is printed and read again.
"""

import re

from fuzz.oracles import MAX_WIRE, check_round_trip, cut
from mailfront_proto.buffer import ReceiveBuffer
from mailfront_proto.netstring import (
    OVERSIZED,
    Fault,
    NetstringError,
    NetstringReader,
    Oversized,
    encode_netstring,
)

Read = list[bytes | Oversized | Fault]


def read(pieces: list[bytes], limit: int, free: bool, room: int | None) -> Read:
    """All netstrings of `pieces`, as far as the first fault."""
    buffer = ReceiveBuffer()
    reader = NetstringReader(buffer, free_lengths=free)
    reader.room = room
    found: Read = []
    for piece in pieces:
        buffer.feed(piece)
        try:
            while reader.room != 0 and (whole := reader.read_whole(limit)) is not None:
                found.append(whole)
        except NetstringError as error:
            return [*found, error.fault]
        assert reader.room == 0 or len(buffer) <= limit + 12
    return found


def expected(wire: bytes, limit: int, free: bool, room: int | None) -> Read:
    """The same, said plainly."""
    at = 0
    end = len(wire) if room is None else room
    found: Read = []
    while at < end:
        head = re.compile(rb"[0-9]*").match(wire, at, min(end, at + 11))
        assert head is not None
        digits = head[0]
        behind = wire[head.end() : head.end() + 1] if head.end() < end else b""
        if not free and (digits[:1] == b"0" and len(digits) > 1):
            return [*found, Fault.LENGTH]
        if len(digits) > 10 or (behind and behind != b":") or (behind and not digits and not free):
            return [*found, Fault.LENGTH]
        if not behind:
            cut_by_room = room is not None and head.end() == end and len(wire) >= end
            return [*found, Fault.ROOM] if cut_by_room else found
        start, length = head.end() + 1, int(digits or b"0")
        if room is not None and start + length > end:
            return [*found, Fault.ROOM]
        if room is not None and start + length == end:
            # The comma has no room. It is seen at once, or at the end of a content that is thrown away.
            return [*found, Fault.COMMA] if length <= limit or len(wire) >= end else found
        at = start + length + 1
        if len(wire) < at:
            return found
        if wire[at - 1 : at] != b",":
            return [*found, Fault.COMMA]
        found.append(OVERSIZED if length > limit else wire[start : start + length])
    return found


def check(data: bytes) -> None:
    """Read `data` in pieces, and compare."""
    if len(data) < 3 or len(data) > MAX_WIRE:
        return
    choice, wire = data[0], data[3:]
    free, limit = bool(choice & 1), 2 ** (choice >> 2 & 7)
    room = data[2] if choice & 2 else None
    wanted = expected(wire, limit, free, room)
    (pieces,) = cut(wire, data[1])
    for way in (pieces, [wire] if wire else []):
        found = read(way, limit, free, room)
        assert found == wanted, (way, found, wanted)
    contents = [content for content in wanted if isinstance(content, bytes)]
    check_round_trip(
        contents, lambda values: b"".join(map(encode_netstring, values)), lambda printed: parse(printed, limit)
    )


def parse(wire: bytes, limit: int) -> list[bytes]:
    """The contents of good netstrings."""
    return [content for content in read([wire] if wire else [], limit, False, None) if isinstance(content, bytes)]
