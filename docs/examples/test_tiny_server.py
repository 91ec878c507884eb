"""A fuzzing session for a server of one's own, with the test kit of mailfront and Hypothesis.

    python -m pytest test_tiny_server.py

Nothing here opens a socket. `Machine` is all that ties the kit to the server: replace it by one for yours. A failure
shows the shortest input that Hypothesis can make of it.
"""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_server import MAX_LINE, TinySMTP

from mailfront_proto.pull import NEED_DATA
from mailfront_proto.smtp import Greeting, HelloDone, MessageDone, ReadyForBody, SMTPClient
from mailfront_proto.testing import (
    Pair,
    Player,
    assert_chunk_invariant,
    assert_memory_bounded,
    assert_total,
    few_splits,
    ignore,
    one_byte,
    strategies,
)

settings.register_profile("fuzzing", max_examples=100, deadline=None)
settings.load_profile("fuzzing")

WORDS = [b"EHLO me", b"MAIL ", b"FROM:", b"RCPT ", b"TO:", b"<a@b.example>", b"DATA", b".", b"..", b"\r\n"]
CLOSED = "closed"
"""The event that ends a playing."""

ENVELOPE = b"EHLO me\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"


@dataclass
class Delivered:
    """What the server has taken: an event like those of a machine."""

    message: bytes


class Machine:
    """The server in the shape that the kit plays: it is its own transport, and what it delivers are its events."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.delivered: list[bytes] = []
        self.closing = False
        self.server = TinySMTP(self.delivered.append)
        self.server.transport = self  # type: ignore[assignment]
        self.server.say("220 tiny ESMTP")

    def write(self, data: bytes) -> None:
        self.output += data

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def receive_data(self, data: bytes) -> None:
        if not self.closing:
            self.server.data_received(data)

    def receive_eof(self) -> None:
        self.server.eof_received()
        self.closing = True  # asyncio closes the transport then

    def next_event(self) -> object:
        if self.delivered:
            return Delivered(self.delivered.pop(0))
        return CLOSED if self.closing else NEED_DATA

    def data_to_send(self) -> bytes:
        data = bytes(self.output)
        self.output.clear()
        return data


def new() -> Player[Machine]:
    """A fresh server."""
    return Player(Machine(), ignore)


@given(strategies.hostile_bytes(WORDS))
def test_no_bytes_bring_it_down(data: bytes) -> None:
    assert_total(new, data)


@given(st.lists(strategies.commands(), max_size=10).map(b"".join) | strategies.hostile_bytes(WORDS))
def test_how_the_network_cuts_it_changes_nothing(data: bytes) -> None:
    assert_chunk_invariant(new, [data], few_splits([data]))


@given(st.lists(st.text(".ab", max_size=5) | st.from_regex(r"[ -~]{,80}", fullmatch=True)))
def test_a_message_arrives_as_it_was_sent(lines: list[str]) -> None:
    """By the client of mailfront, with the network as slow as can be."""
    message = "".join(f"{line}\r\n" for line in lines).encode("ascii")

    def send(client: SMTPClient, event: object) -> None:
        match event:
            case Greeting():
                client.hello()
            case HelloDone():
                client.send_message("a@b.example", ["c@d.example"])
            case ReadyForBody():
                client.send_body(message)
                client.end_of_body()
            case MessageDone():
                client.quit()

    pair = Pair(Player(SMTPClient("client.example"), send), new(), one_byte)
    pair.settle()
    delivered = [event.message for event in pair.server.outcome.events if isinstance(event, Delivered)]
    assert delivered == [message]


def test_nobody_fills_its_memory() -> None:
    for pattern in (b"x", b"EHLO me\r\n", b"MAIL FROM:<>\r\n"):
        assert_memory_bounded(new, pattern, 4 * MAX_LINE)


@pytest.mark.parametrize(("length", "reply"), [(MAX_LINE, b"250 2.6.0 OK"), (MAX_LINE + 1, b"500 5.5.2 Line too long")])
def test_the_longest_line_is_as_long_however_it_arrives(length: int, reply: bytes) -> None:
    outcome = assert_chunk_invariant(new, [ENVELOPE, b"x" * length + b"\r\n.\r\n"])
    assert outcome.output.endswith(reply + b"\r\n")
