"""What the next server receives is what the client sent, whatever line ends, dots and commands are in it."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailfront_io.spool import MEMORY_LIMIT
from mailfront_io.testing import Action, WaitFor
from mailfront_proto.smtp.profile import LineEnds
from tests.io.relay_script import UP, Relay, hello, takes
from tests.proto.dot_reference import decode

PIECES = [b"\r\n", b"\n", b"\r", b".", b"a", b"\r\n.", b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\r", b"QUIT\r\n", b"\0"]
MESSAGES = st.one_of(
    st.lists(st.sampled_from([*PIECES, b"\xe4", b"BDAT 1 LAST\r\n", b"x" * 2000]), max_size=12).map(b"".join),
    st.binary(max_size=80),
)
ENVELOPE = b"MAIL FROM:<a@a.example> BODY=8BITMIME\r\nRCPT TO:<b@b.example>\r\n"
OFFERS = ("PIPELINING", "8BITMIME")


def stuffed(message: bytes) -> bytes:
    """As a client sends it by DATA; a bare line end is its own affair."""
    message = re.sub(rb"(\A|\r\n)\.", rb"\1..", message)
    return message + (b"" if not message or message.endswith(b"\r\n") else b"\r\n") + b".\r\n"


def as_lines(message: bytes) -> bytes:
    """What of a message leaves here: every line end is CRLF, a CR alone a space."""
    lines = message.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
    return lines if not lines or lines.endswith(b"\n") else lines + b"\r\n"


def relayed(client: list[Action], upstream: list[Action], policy: LineEnds = LineEnds.NORMALIZE) -> bytes:
    """What the next server got behind the line of its last RCPT."""
    played = Relay(BARE_LINE_ENDS=policy.value).play([*client, WaitFor(b"queued")], {UP: upstream})
    return played.peers[0][1].partition(b"RCPT TO:<b@b.example>\r\n")[2]


@pytest.mark.parametrize("policy", [LineEnds.NORMALIZE, LineEnds.ACCEPT])
@settings(max_examples=150, deadline=None)
@given(message=MESSAGES)
@example(message=b"\n.\r\nMAIL FROM:<evil@x>\r\n")
@example(message=b"\r\n.\nMAIL FROM:<evil@x>\r\n")
@example(message=b"a\r\n\0.\r\nRSET\r\n")
def test_h06_h07_data_to_data(policy: LineEnds, message: bytes) -> None:
    sent = stuffed(message)
    expected = decode(sent, policy)
    if expected.consumed != len(sent):
        return  # it ends earlier for this reader, and the rest are commands
    client: list[Action] = [ENVELOPE + b"DATA\r\n", WaitFor(b"354"), sent]
    got = relayed(client, [*hello(*OFFERS), *takes()], policy)
    assert got.startswith(b"DATA\r\n")
    got = got.removeprefix(b"DATA\r\n")
    for reader in (LineEnds.NORMALIZE, LineEnds.REJECT, LineEnds.ACCEPT):  # strict or lax, all read the same
        found = decode(got, reader)
        assert (found.content, found.consumed, found.bare) == (as_lines(expected.content), len(got), False)


@settings(max_examples=150, deadline=None)
@given(message=MESSAGES, cut=st.integers(0, 80))
def test_chunks_to_chunks_and_to_data(message: bytes, cut: int) -> None:
    first, last = message[:cut], message[cut:]
    chunks = b"BDAT %d\r\n%sBDAT %d LAST\r\n%s" % (len(first), first, len(last), last)
    client: list[Action] = [ENVELOPE + chunks]
    expected = as_lines(message)
    got = relayed(client, [*hello(*OFFERS, "CHUNKING"), *takes_chunk(len(expected))])
    assert got == (b"BDAT %d LAST\r\n" % len(expected)) + expected
    got = relayed(client, [*hello(*OFFERS), *takes()]).removeprefix(b"DATA\r\n")
    found = decode(got, LineEnds.REJECT)
    assert (found.content, found.consumed) == (expected, len(got))


def takes_chunk(size: int) -> list[Action]:
    """A next server that takes one chunk."""
    answers = b"250 ok\r\n250 ok\r\n"
    return [WaitFor(b"RCPT"), answers, WaitFor(b"BDAT %d LAST\r\n" % size), b"250 2.0.0 Ok: queued as 17\r\n"]


@settings(max_examples=150, deadline=None)
@given(message=st.one_of(MESSAGES, st.binary(max_size=300)))
def test_binary_messages_are_the_same_octets(message: bytes) -> None:
    chunk = b"BDAT %d LAST\r\n%s" % (len(message), message)
    client: list[Action] = [ENVELOPE.replace(b"8BITMIME", b"BINARYMIME") + chunk]
    upstream = [*hello(*OFFERS, "CHUNKING", "BINARYMIME"), *takes_chunk(len(message))]
    assert relayed(client, upstream) == chunk


@pytest.mark.parametrize("size", [MEMORY_LIMIT, MEMORY_LIMIT + 1, 3_000_000])
def test_messages_that_are_spooled_to_a_file(size: int) -> None:
    line = b".line of a message that is long\r\n"
    message = (line * (size // len(line) + 1))[: size - 2] + b"\r\n"
    client: list[Action] = [ENVELOPE + b"DATA\r\n", WaitFor(b"354"), stuffed(message)]
    got = relayed(client, [*hello(*OFFERS), *takes()]).removeprefix(b"DATA\r\n")
    assert got == stuffed(message)
