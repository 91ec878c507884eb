"""The short way of the QMTP and QMQP servers, a package in one event, says what the general way says.

Without ``whole_packages`` all goes the general way, so a session is played twice: in pieces and whole, with it and
without it.
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailfront_proto.netstring import encode_netstring
from mailfront_proto.pull import MAX_PENDING_OUTPUT, PAUSED
from mailfront_proto.qmqp import QMQPServer
from mailfront_proto.qmtp import (
    COMPAT,
    DEFAULT,
    Address,
    Body,
    ConnectionClosed,
    Event,
    Limits,
    LocalProtocolError,
    MessageEnd,
    MessageStart,
    Package,
    Profile,
    QMTPServer,
    Recipient,
    Reply,
    Sender,
    State,
)
from mailfront_proto.qmtp.package import PackageServer
from mailfront_proto.testing import Player, accept, byte_by_byte, random_cuttings
from tests.proto.package_script import Application, by_name

A, B, C = b"a@b.example", b"c@d.example", b"e@f.example"

LOW = Limits(message_size=12, address=12, recipients=2, recipient_list=60)
PROFILES = [
    DEFAULT,
    COMPAT,
    replace(DEFAULT, limits=LOW),
    replace(DEFAULT, limits=replace(LOW, length_digits=2)),
    replace(DEFAULT, limits=replace(LOW, recipients=0)),
    replace(DEFAULT, crlf_messages=False),
    replace(DEFAULT, free_lengths=True, repairs_line_ends=False, recipients_needed=False),
    replace(DEFAULT, response_per_recipient=False),
    replace(DEFAULT, wrapper_enforced=False),
    replace(COMPAT, limits=LOW),
]


class Asks(Application):
    """The same application, for packages that come whole, too; `whole` counts these."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = 0
        self.bodies: list[bytes] = []

    def __call__(self, machine: PackageServer, event: Any) -> None:
        if isinstance(event, Package):
            self.whole += 1
            self._package(machine, event)
        else:
            super().__call__(machine, event)
            if isinstance(event, MessageEnd):
                self.bodies.append(self.body)

    def _package(self, machine: PackageServer, event: Package) -> None:
        sender = Sender(Address(event.sender))
        self.log.append(f"sender <{sender.address}>")
        refusal = by_name(sender)
        refused = 0
        done = (250, f"Received {len(event.data)} bytes.")
        if str(sender.address).startswith("noend"):
            done = (554, "5.6.0 Not this")
        replies = []
        for raw in event.recipients:
            recipient = Recipient(Address(raw))
            self.log.append(f"recipient <{recipient.address}>")
            verdict = by_name(recipient) if refusal is None else refusal
            refused += verdict is not None
            if isinstance(machine, QMQPServer):
                refusal = verdict
            replies.append(Reply(*(verdict or done)))
        nobody = refused == len(event.recipients) and machine.profile.recipients_needed
        if nobody or refusal is not None:
            self.log.append(str(Reply(*refusal) if refusal else replies[0]))
        else:
            self.bodies.append(event.data)
        if refusal is not None or refused == 0:
            machine.reply(*(refusal or done))
        else:
            assert isinstance(machine, QMTPServer)
            machine.reply_each(replies)


def play(kind: type[PackageServer], profile: Profile, lf: bool, whole: bool, pieces: list[list[bytes]]) -> Any:
    """What comes of a session, but for the events that come in another form; and how many packages came whole."""
    machine = kind(profile, lf_bodies=lf)  # type: ignore[call-arg, arg-type]
    machine.whole_packages = whole
    application = Asks()
    outcome = Player(machine, application).play(pieces).outcome
    closed = outcome.events[-1]
    assert isinstance(closed, ConnectionClosed)
    return (outcome.output, application.log, application.bodies, closed, machine.state), application.whole


def check(kind: type[PackageServer], profile: Profile, lf: bool, wire: bytes) -> int:
    """Play `wire` both ways, the short one also in pieces; how many packages came whole."""
    expected, none = play(kind, profile, lf, False, byte_by_byte([wire]))
    assert none == 0
    for pieces in random_cuttings([wire], 3) if wire else ():
        assert play(kind, profile, lf, True, pieces)[0] == expected
    found, count = play(kind, profile, lf, True, [[wire]] if wire else [])
    assert found == expected
    return int(count)


def package(message: bytes, sender: bytes, *recipients: bytes) -> bytes:
    """QMTP's."""
    inner = b"".join(map(encode_netstring, recipients))
    return encode_netstring(message) + encode_netstring(sender) + encode_netstring(inner)


def wrapped(message: bytes, sender: bytes, *recipients: bytes) -> bytes:
    """QMQP's."""
    return encode_netstring(b"".join(map(encode_netstring, (message, sender, *recipients))))


addresses = st.one_of(
    st.sampled_from([A, B, b"", b"x450@a", b"x550@a", b"noend@a", b"a@[IPv6:::1]", b"a" * 12, b"a" * 13]),
    st.sampled_from([b"a,b@c", b"1:x,", b"a\tb@c", b"a\x7f", b"\xff@a", b"a b@c", b"a" * 1001]),
)
messages = st.lists(st.sampled_from([b"a", b"text", b"\n", b"\r\n", b"\r", b",", b"5:", b"\x00"]), max_size=6).map(
    b"".join
)
odd = st.sampled_from([b"", b"0", b"1", b"9", b":", b",", b"x", b"-", b" ", b"\n", b"0:,"])


@st.composite
def wires(draw: st.DrawFn, one: Any, first: tuple[bytes, ...]) -> bytes:
    """Some packages; every second wire has a byte or two put in somewhere, in place of others."""
    parts = st.tuples(st.sampled_from(first), messages, addresses, st.lists(addresses, min_size=0, max_size=3))
    said = b"".join(one(head + text, sender, *to) for head, text, sender, to in draw(st.lists(parts, max_size=4)))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(said)))
        said = said[:at] + draw(odd) + said[at + draw(st.integers(0, 2)) :]
    return said


@given(st.sampled_from(PROFILES), st.booleans(), wires(package, (b"\n", b"\n", b"\r", b"x")))
@example(DEFAULT, True, b"3:\nx\n,0:,4:1:a,,,")
@example(DEFAULT, True, package(b"\n", A, B) + package(b"\nx", A, *[b"x"] * 150) + package(b"\nx", A, b"x450@a", B))
@example(DEFAULT, True, b"1:\n,0:,3:0:,,")
@example(DEFAULT, True, b"1:\n,0:,4:0:,,,")
@example(DEFAULT, True, b"1:\n,0:,3:1:,,")
@example(DEFAULT, True, b"1:\n,0:,4:00:,,")
def test_qmtp(profile: Profile, lf: bool, wire: bytes) -> None:
    check(QMTPServer, profile, lf, wire)


@given(st.sampled_from(PROFILES), st.booleans(), wires(wrapped, (b"", b"\n", b"x")))
@example(DEFAULT, True, wrapped(b"x", A, B, b"x450@a", B) + b"more")
@example(DEFAULT, True, b"15:1:x,0:,3:a@b,,,")
@example(DEFAULT, True, b"16:1:x,0:,3:a@b,,,")
@example(DEFAULT, True, b"14:1:x,0:,3:a@b,,,")
@example(replace(DEFAULT, wrapper_enforced=False), True, b"15:1:x,0:,3:a@b,,3:")
def test_qmqp(profile: Profile, lf: bool, wire: bytes) -> None:
    check(QMQPServer, profile, lf, wire)


def test_usual_packages_do_come_whole() -> None:
    wire = package(b"\nSubject: q\n\nhi\n", A, B) + package(b"\rx\r\n", b"", B, C) + package(b"\n", A, b"x450@a", B)
    assert check(QMTPServer, DEFAULT, True, wire) == 3
    assert check(QMTPServer, DEFAULT, False, wire) == 3
    assert check(QMQPServer, DEFAULT, True, wrapped(b"Subject: q\n\nhi\n", A, B, C)) == 1


@pytest.mark.parametrize(
    "wire",
    [
        package(b"\nx", A, b"a,b@c"),
        package(b"\nx", b"a,b@c", B),
        package(b"\nx", A, b"a\nb@c"),
        package(b"\nx", A),
        package(b"\nx", A, b"a" * 1001),
        package(b"\nx", b"a" * 1001, B),
        package(b"\nx", A, *[b"x"] * 1001),
        package(b"xx", A, B),
        package(b"\nx", A, B)[:-1],
        b"0" + package(b"\nx", A, B),
    ],
)
def test_what_is_odd_comes_in_parts(wire: bytes) -> None:
    assert check(QMTPServer, DEFAULT, True, wire) == 0


def events(machine: PackageServer, wire: bytes) -> list[Event]:
    """All events, of an application that accepts."""
    return Player(machine, accept).play([[wire]]).outcome.events


def test_a_package_has_what_its_parts_would_have() -> None:
    wire = package(b"\nSubject: q\n\nhi\r\n", A, B, C)
    whole = QMTPServer()
    whole.whole_packages = True
    assert events(whole, wire) == [Package(16, b"Subject: q\r\n\r\nhi\r\n", A, [B, C]), ConnectionClosed("EOF")]
    assert events(QMTPServer(), wire) == [
        MessageStart(16),
        Body(b"Subject: q\r\n\r\nhi\r\n"),
        Sender(Address(A)),
        Recipient(Address(B)),
        Recipient(Address(C)),
        MessageEnd(2),
        ConnectionClosed("EOF"),
    ]


def test_misuse_and_the_end_while_an_answer_is_owed() -> None:
    machine = QMTPServer()
    machine.whole_packages = True
    machine.receive_data(package(b"\nx", A, B, C) * 2)
    assert isinstance(machine.next_event(), Package)
    assert machine.answer_owed and machine.next_event() is PAUSED and machine.state is State.END
    with pytest.raises(LocalProtocolError, match="reply_each"):
        machine.reply_each([Reply(250)])
    with pytest.raises(LocalProtocolError, match="no reply code"):
        machine.reply(99)
    machine.reply_each([Reply(250, "a"), Reply(450, "b")])
    with pytest.raises(LocalProtocolError, match="no answer is owed"):
        machine.accept()
    assert isinstance(machine.next_event(), Package)
    assert machine.data_to_send() == b"2:Ka,2:Zb,"
    machine.abort(Reply(451, "later"))
    assert machine.next_event() == ConnectionClosed("aborted", in_message=True, reply=Reply(451, "later"))
    assert machine.data_to_send() == b"6:Zlater,"


def test_output_is_bounded() -> None:
    machine = QMTPServer()
    machine.whole_packages = True
    text = "x" * 1000
    one = package(b"\nx", A, B)
    for _ in range(300):
        machine.receive_data(one)
        if machine.next_event() is PAUSED:
            break
        machine.reply(250, text)
    assert MAX_PENDING_OUTPUT < len(machine.data_to_send()) <= MAX_PENDING_OUTPUT + 1100
    assert isinstance(machine.next_event(), Package)
