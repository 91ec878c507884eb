"""counters: however a message is cut, the verdict is the one that a naive model gives; and limits that rules set."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfront_io.ops import Connection
from mailfront_io.plugins.counters import DATA_TOO_BIG, LOOPING, Counters
from mailfront_io.session import Path, Session
from mailfront_io.testing import VirtualClock
from mailfront_proto.smtp.profile import COMPAT, DEFAULT

_LINES = st.sampled_from(
    [
        b"Received: a", b"received:", b"RECEIVED:b", b"Received:", b"Received : c", b" Received: d", b"XReceived: e",
        b"Received", b"Delivered-To: f", b"delivered-to:", b"Delivered-To", b"Delivered-Too: g", b"Subject: h", b"",
        b"x" * 30,
    ]
)  # fmt: skip
_MESSAGES = st.lists(_LINES, max_size=12).map(lambda lines: b"".join(line + b"\n" for line in lines))


def naive_original(message: bytes, databytes: int, hops: int) -> Any:
    """The original's verdict, block by block: on the size of a whole block first."""
    for end in range(4096, len(message) + 4096, 4096):
        if databytes and min(end, len(message)) > databytes:
            return DATA_TOO_BIG
        if naive(message[:end], 0, hops, crlf=False) is not None:
            return LOOPING
    return None


def naive(message: bytes, databytes: int, hops: int, crlf: bool) -> Any:
    """The first verdict, byte by byte; a line counts as a hop once it has ended."""
    size = received = delivered = 0
    line, in_header = b"", True
    for byte in message:
        size += 2 if crlf and byte == 10 else 1
        if databytes and size > databytes:
            return DATA_TOO_BIG
        line += bytes([byte])
        if byte == 10:
            in_header = in_header and line != b"\n"
            if in_header:
                received += line.lower().startswith(b"received:")
                delivered += line.lower().startswith(b"delivered-to:")
                if max(received, delivered) > hops:
                    return LOOPING
            line = b""
    return None


def cut(message: bytes, places: list[int]) -> Iterator[bytes]:
    """The message, cut at these places."""
    ends = [0, *sorted(min(place, len(message)) for place in places), len(message)]
    yield from (message[begin:end] for begin, end in pairwise(ends) if end > begin)


def verdict(counters: Counters, blocks: Iterator[bytes]) -> Any:
    """The first response."""
    counters.reset()
    counters.data_start(None)
    return next((response for block in blocks if (response := counters.data_block(block)) is not None), None)


@settings(max_examples=300, deadline=None)
@given(
    message=_MESSAGES,
    places=st.lists(st.integers(0, 200), max_size=6),
    filling=st.sampled_from([0, 0, 3900, 4000, 4090, 8100]),
    databytes=st.one_of(st.sampled_from([0, 1, 4095, 4096, 4100, 10_000]), st.integers(10, 80), st.integers(10, 80)),
    hops=st.integers(1, 3),
    profile=st.sampled_from([DEFAULT, COMPAT]),
)
def test_any_cutting_gives_what_a_naive_model_says(
    message: bytes, places: list[int], filling: int, databytes: int, hops: int, profile: Any
) -> None:
    message = b"x" * filling + b"\n" * bool(filling) + message
    env = {"DATABYTES": str(databytes), "MAXHOPS": str(hops)}
    session = Session(Connection(VirtualClock(), None, None), env, print, profile)
    counters = Counters(session)
    whole = verdict(counters, iter([message] if message else []))
    cuttings = cut(message, places), (message[i : i + 1] for i in range(len(message)))
    found = [verdict(counters, blocks) for blocks in cuttings]
    if profile is DEFAULT:
        assert [whole, *found] == [naive(message, databytes, hops, crlf=True)] * 3
    else:
        # Which of the two reasons it is depends on what has come of a block.
        expected = naive_original(message, databytes, hops)
        assert whole == expected
        assert all(verdict in (expected, expected and LOOPING) for verdict in found)


@pytest.mark.parametrize(("profile", "accepted"), [(DEFAULT, [1, 2, 3]), (COMPAT, [1, 1, 3])])
def test_recipients_of_a_message_by_rules(profile: Any, accepted: list[int]) -> None:
    """What one message may have; in compat it lowers what later ones may have, where they have a limit at all."""
    session = Session(Connection(VirtualClock(), None, None), {}, print, profile)
    counters = Counters(session)
    found = []
    for limit in ("1", "2", "0"):
        session.reset_env()
        counters.reset()
        session.putenv("MAXRCPTS", limit)
        path = Path("a@b", [])
        counters.sender(path)
        found.append([counters.recipient(path) for _ in range(3)].count(None))
    assert found == accepted
