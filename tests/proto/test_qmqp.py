"""The QMQP server machine: packages under every split, the original's recorded sessions, bounds, and misuse."""

from dataclasses import replace
from typing import Any

import pytest

from mailfront_proto.netstring import encode_netstring
from mailfront_proto.pull import NEED_DATA
from mailfront_proto.qmqp import QMQPServer
from mailfront_proto.qmtp import (
    COMPAT,
    DEFAULT,
    Address,
    Body,
    ConnectionClosed,
    MessageEnd,
    MessageRefused,
    MessageStart,
    Profile,
    Recipient,
    Reply,
    Sender,
)
from mailfront_proto.testing import Outcome, Player, accept, assert_linear, assert_memory_bounded
from tests.golden.recorded import Session
from tests.proto.package_script import check_recorded, play, recorded, responses

A, B, C = b"a@b.example", b"c@d.example", b"e@f.example"
BOTH = pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])


def package(message: bytes, sender: bytes, *recipients: bytes) -> bytes:
    return encode_netstring(b"".join(map(encode_netstring, (message, sender, *recipients))))


def wrapped(inner: bytes, length: int | None = None) -> bytes:
    """`inner` in a netstring that says `length`."""
    return b"%d:%b," % (len(inner) if length is None else length, inner)


def played(wire: bytes, profile: Profile = DEFAULT, *, lf: bool = True) -> Outcome:
    return play(lambda: QMQPServer(profile, lf_bodies=lf), wire)


@BOTH
def test_one_package(profile: Profile) -> None:
    outcome = played(package(b"Subject: q\n\nhi\n", A, B, C), profile)
    assert outcome.events == [
        MessageStart(15),
        Body(b"Subject: q\n\nhi\n"),
        Sender(Address(A)),
        Recipient(Address(B)),
        Recipient(Address(C)),
        MessageEnd(2),
        ConnectionClosed("done"),
    ]
    assert outcome.output == b"19:KReceived 15 bytes.,"


@BOTH
def test_what_follows_a_package_is_not_read(profile: Profile) -> None:
    wire = package(b"x\n", A, B)
    for more in (b"trailing", wire, b"x"):
        assert played(wire + more, profile) == played(wire, profile)


@BOTH
def test_a_refused_recipient_refuses_the_package_and_the_others_are_told(profile: Profile) -> None:
    outcome = played(package(b"x\n", A, B, b"x550@a", b"x450@a", C), profile)
    refusal = Reply(550, "5.1.0 Refused by name")
    assert outcome.events[3:] == [
        Recipient(Address(B)),
        Recipient(Address(b"x550@a")),
        Recipient(Address(b"x450@a"), refusal),
        Recipient(Address(C), refusal),
        MessageRefused(refusal),
        ConnectionClosed("done"),
    ]
    assert outcome.output == b"22:D5.1.0 Refused by name,"


@BOTH
def test_a_refused_sender(profile: Profile) -> None:
    outcome = played(package(b"x\n", b"s450@a", B), profile)
    assert outcome.events[3] == Recipient(Address(B), Reply(450, "4.1.0 Refused by name"))
    assert outcome.output == b"22:Z4.1.0 Refused by name,"


def test_a_message_that_is_refused_at_its_end() -> None:
    assert responses(played(package(b"x\n", b"noend@a", B)).output) == [b"D5.6.0 Not this"]


def test_no_recipients() -> None:
    assert responses(played(package(b"x\n", A)).output) == [b"D5.5.1 No recipients"]
    assert responses(played(package(b"x\n", A), COMPAT).output) == [b"KReceived 2 bytes."]


def test_line_ends() -> None:
    wire = package(b"a\nb\r\nc\rd\n", A, B)
    assert played(wire).bodies() == [b"a\nb\nc d\n"]
    assert played(wire, lf=False).bodies() == [b"a\r\nb\r\nc d\r\n"]
    assert played(wire, COMPAT).bodies() == [b"a\nb\r\nc\rd\n"]


INNER = b"2:x\n,3:a@b,3:c@d,"
OF_COMPAT, OF_DEFAULT = b"KReceived 2 bytes.", b"ZInvalid recipient netstring"

# (bytes, what the original says, what the default profile says)
WRAPPERS = [
    (wrapped(INNER, 3), OF_COMPAT, b"ZInvalid message body netstring"),
    (wrapped(INNER, 0), OF_COMPAT, b"ZInvalid message body netstring"),
    (wrapped(INNER, 10), OF_COMPAT, b"ZInvalid sender netstring"),
    (wrapped(INNER, 14), OF_COMPAT, OF_DEFAULT),
    (wrapped(INNER, 16), OF_COMPAT, OF_DEFAULT),
    (wrapped(INNER, 18), OF_COMPAT, OF_DEFAULT),
    (wrapped(INNER, 99), OF_COMPAT, OF_DEFAULT),
    (wrapped(INNER + b"3:e@f,", 17), OF_COMPAT, b"ZInvalid wrapper netstring"),
    (b"0" + wrapped(INNER), OF_COMPAT, b"ZInvalid wrapper netstring"),
    (wrapped(b"0" + INNER), OF_COMPAT, b"ZInvalid message body netstring"),
    (wrapped(b"2:x\n,03:a@b,3:c@d,"), OF_COMPAT, b"ZInvalid sender netstring"),
    (wrapped(b"2:x\n,3:a@b,03:c@d,"), OF_COMPAT, OF_DEFAULT),
    (b":" + INNER + b",", OF_COMPAT, b"ZInvalid wrapper netstring"),
]


@pytest.mark.parametrize(("wire", "compat", "default"), WRAPPERS)
def test_the_wrapper_is_enforced_but_in_compat(wire: bytes, compat: bytes, default: bytes) -> None:
    assert responses(played(wire, COMPAT).output) == [compat]
    outcome = played(wire)
    assert responses(outcome.output) == [default]
    assert "MessageEnd" not in outcome.kinds()


# (bytes, what is said in both profiles, in the middle of a package?)
BROKEN = [
    (b"x", "Invalid wrapper netstring", False),
    (b"17;", "Invalid wrapper netstring", False),
    (b"12345678901:", "Invalid wrapper netstring", False),
    (b"0:,", "Invalid message body netstring", False),
    (wrapped(b"x"), "Invalid message body netstring", False),
    (wrapped(b"0:,3:a@b,3:c@d,"), "Zero length message", False),
    (wrapped(b"2;xx"), "Invalid message body netstring", False),
    (b"18:2:", "EOF while reading body", True),
    (b"18:2:x", "EOF while reading body", True),
    (b"18:2:x\n", "EOF while reading comma", True),
    (wrapped(b"2:x\n;3:a@b,3:c@d,"), "Invalid netstring terminator", True),
    (b"18:2:x\n,", "EOF while reading sender address", True),
    (b"18:2:x\n,3", "EOF while reading sender address", True),
    (b"18:2:x\n,3:a@b", "EOF while reading sender address", True),
    (wrapped(b"2:x\n,3:a@b;"), "Invalid sender netstring", True),
    (wrapped(b"2:x\n,x:a@b,"), "Invalid sender netstring", True),
    (wrapped(b"2:x\n,"), "Invalid sender netstring", True),
    (b"18:2:x\n,3:a@b,", "EOF before end of recipient list", True),
    (b"23:2:x\n,3:a@b,3:c@d,", "EOF before end of recipient list", True),
    (b"17:2:x\n,3:a@b,3:c@d,", "EOF before end of recipient list", True),
    (b"18:2:x\n,3:a@b,3", "EOF while reading recipient list", True),
    (b"18:2:x\n,3:a@b,3:c@", "EOF while reading recipient list", True),
    (wrapped(b"2:x\n,3:a@b,3:c@d;"), "Invalid recipient netstring", True),
    (wrapped(b"2:x\n,3:a@b,x:c@d,"), "Invalid recipient netstring", True),
]


@BOTH
@pytest.mark.parametrize(("wire", "text", "in_message"), BROKEN)
def test_what_is_said_to_a_broken_package(wire: bytes, text: str, in_message: bool, profile: Profile) -> None:
    outcome = played(wire, profile)
    assert outcome.events[-1] == ConnectionClosed(text, in_message, Reply(451, text))
    assert responses(outcome.output) == [b"Z" + text.encode()]
    assert "MessageEnd" not in outcome.kinds()


def test_what_stands_in_place_of_the_last_comma() -> None:
    wire = b"17:" + INNER + b";"
    assert responses(played(wire).output) == [b"ZInvalid wrapper netstring"]
    assert responses(played(wire, COMPAT).output) == [b"ZInvalid recipient netstring"]


@BOTH
@pytest.mark.parametrize("wire", [b"", b"1", b"12", b"17:", b"17:2"])
def test_closing_before_a_message_is_no_fault(wire: bytes, profile: Profile) -> None:
    outcome = played(wire, profile)
    assert outcome.events == [ConnectionClosed("EOF")]
    assert outcome.output == b""


@pytest.mark.parametrize("session", recorded("qmqp"))
def test_recorded_session_under_every_split(session: Session) -> None:
    check_recorded(session, lambda: QMQPServer(COMPAT, lf_bodies=True))


# -- bounds ------------------------------------------------------------------------------------------------


def limited(**limits: Any) -> Profile:
    return replace(DEFAULT, limits=replace(DEFAULT.limits, **limits))


def test_limits() -> None:
    too_big = played(package(b"x" * 11, A, B), limited(message_size=10))
    assert responses(too_big.output) == [b"D5.3.4 Message size exceeds fixed maximum message size"]
    assert too_big.kinds() == ["MessageStart", "Sender", "Recipient", "MessageRefused", "ConnectionClosed"]
    assert responses(played(package(b"x" * 10, A, B), limited(message_size=10)).output) == [b"KReceived 10 bytes."]
    short = limited(address=4)
    assert responses(played(package(b"x", b"12345", b"1"), short).output) == [b"D5.1.7 Address too long"]
    assert responses(played(package(b"x", b"1", b"1", b"12345", b"1"), short).output) == [b"D5.1.3 Address too long"]
    assert responses(played(package(b"x", b"1234", b"1234"), short).output) == [b"KReceived 1 bytes."]
    two = limited(recipients=2)
    assert responses(played(package(b"x", A, B, C), two).output) == [b"KReceived 1 bytes."]
    assert responses(played(package(b"x", A, B, C, A), two).output) == [b"Z4.5.3 Too many recipients"]


@BOTH
@pytest.mark.parametrize(
    ("head", "pattern"),
    [
        (b"9999999999:999999999:", b"x" * 100),
        (b"9999999999:1:x,999999999:", b"x" * 100),
        (b"9999999999:1:x,0:,", b"1:r,"),
    ],
)
def test_memory_is_bounded(profile: Profile, head: bytes, pattern: bytes) -> None:
    def new() -> Player[QMQPServer]:
        player = Player(QMQPServer(profile), accept)
        player.receive(head)
        return player

    assert_memory_bounded(new, pattern, 200_000, size=256 * 1024 if pattern == b"1:r," else 4 * 1024 * 1024)


def test_work_is_linear_byte_by_byte() -> None:
    def begun(head: bytes) -> Player[QMQPServer]:
        player = Player(QMQPServer(), accept)
        player.receive(head)
        return player

    assert_linear(lambda: begun(b"9999999:999999:"), b"some text\n", size=300)
    assert_linear(lambda: begun(b"9999999:1:x,0:,"), b"1:r,", size=300)
    assert_linear(lambda: begun(b"9999999:1:x,0:,999:"), b"r", size=200)


def test_nothing_is_sent_before_the_answer() -> None:
    machine = QMQPServer()
    machine.receive_data(package(b"x\n", A, B))
    while not isinstance(machine.next_event(), MessageEnd):
        if machine.answer_owed:
            machine.accept()
    assert machine.data_to_send() == b""
    machine.accept()
    assert machine.next_event() == ConnectionClosed("done")
    assert machine.data_to_send() == b"24:K2.6.0 Message accepted.,"
    machine.receive_data(b"more")
    assert machine.next_event() == ConnectionClosed("done")


def test_abort() -> None:
    machine = QMQPServer()
    machine.abort(Reply(421, "4.7.0 Too many connections"))
    assert machine.data_to_send() == b"27:Z4.7.0 Too many connections,"
    assert machine.next_event() == ConnectionClosed("aborted", False, Reply(421, "4.7.0 Too many connections"))
    assert QMQPServer().next_event() is NEED_DATA
