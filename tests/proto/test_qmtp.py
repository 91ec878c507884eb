"""The QMTP server machine: packages under every split, the original's recorded sessions, bounds, and misuse."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.netstring import encode_netstring
from mailfront_proto.pull import NEED_DATA, PAUSED
from mailfront_proto.qmqp import QMQPServer
from mailfront_proto.qmtp import (
    COMPAT,
    DEFAULT,
    Address,
    Body,
    ConnectionClosed,
    Limits,
    LocalProtocolError,
    MessageEnd,
    MessageRefused,
    MessageStart,
    Profile,
    QMTPServer,
    Recipient,
    Reply,
    Sender,
    State,
)
from mailfront_proto.qmtp.package import AT_END, AT_FAULT
from mailfront_proto.qmtp.responses import encode_response
from mailfront_proto.testing import (
    Outcome,
    Player,
    accept,
    assert_linear,
    assert_memory_bounded,
    assert_output_bounded,
)
from tests.golden.recorded import Session
from tests.proto.package_script import check_recorded, lf_server, play, recorded, responses

A, B, C = b"a@b.example", b"c@d.example", b"e@f.example"


def package(message: bytes, sender: bytes, *recipients: bytes) -> bytes:
    """`message` with its first byte."""
    inner = b"".join(map(encode_netstring, recipients))
    return encode_netstring(message) + encode_netstring(sender) + encode_netstring(inner)


def played(wire: bytes, profile: Profile = DEFAULT, *, lf: bool = True) -> Outcome:
    return play(lambda: QMTPServer(profile, lf_bodies=lf), wire)


# -- packages ----------------------------------------------------------------------------------------------


def test_one_package() -> None:
    outcome = played(package(b"\nSubject: q\n\nhi\n", A, B, C))
    assert outcome.events == [
        MessageStart(15),
        Body(b"Subject: q\n\nhi\n"),
        Sender(Address(A)),
        Recipient(Address(B)),
        Recipient(Address(C)),
        MessageEnd(2),
        ConnectionClosed("EOF"),
    ]
    assert outcome.output == b"19:KReceived 15 bytes.," * 2


def test_several_packages_on_one_connection() -> None:
    outcome = played(package(b"\n1\n", A, B) + package(b"\n", b"", C) + package(b"\n333\n", A, B, C))
    assert outcome.bodies() == [b"1\n", b"333\n"]
    assert outcome.output == b"18:KReceived 2 bytes.,18:KReceived 0 bytes.,18:KReceived 4 bytes.,18:KReceived 4 bytes.,"


def test_each_recipient_gets_its_own_response() -> None:
    outcome = played(package(b"\nx\n", A, b"x450@a", B, b"x550@a", C))
    assert responses(outcome.output) == [
        b"Z4.1.0 Refused by name",
        b"KReceived 2 bytes.",
        b"D5.1.0 Refused by name",
        b"KReceived 2 bytes.",
    ]
    assert outcome.events[-2] == MessageEnd(2)


def test_a_message_whose_recipients_are_all_refused_is_refused() -> None:
    outcome = played(package(b"\nx\n", A, b"x450@a", b"x550@a"))
    assert outcome.events[-2] == MessageRefused(Reply(450, "4.1.0 Refused by name"))
    assert responses(outcome.output) == [b"Z4.1.0 Refused by name", b"D5.1.0 Refused by name"]


def test_a_refused_sender_refuses_every_recipient() -> None:
    refusal = Reply(550, "5.1.0 Refused by name")
    outcome = played(package(b"\nx\n", b"s550@a", B, b"x450@a") + package(b"\ny\n", A, B))
    assert outcome.events[2:6] == [
        Sender(Address(b"s550@a")),
        Recipient(Address(B), refusal),
        Recipient(Address(b"x450@a"), refusal),
        MessageRefused(refusal),
    ]
    assert responses(outcome.output) == [b"D5.1.0 Refused by name"] * 2 + [b"KReceived 2 bytes."]


def test_a_message_that_is_refused_at_its_end() -> None:
    outcome = played(package(b"\nx\n", b"noend@a", B, b"x450@a"))
    assert responses(outcome.output) == [b"D5.6.0 Not this", b"Z4.1.0 Refused by name"]


def test_a_message_that_is_refused_at_its_start_has_no_body() -> None:
    def react(machine: QMTPServer, event: object) -> None:
        if isinstance(event, MessageStart) and event.size == 3:
            machine.reply(452, "4.3.1 Not now")
        else:
            accept(machine, event)

    outcome = Player(QMTPServer(), react).play([[package(b"\nxy\n", A, B, C) + package(b"\nz\n", A, B)]]).outcome
    refusal = Reply(452, "4.3.1 Not now")
    assert outcome.events[:5] == [
        MessageStart(3),
        Sender(Address(A), refusal),
        Recipient(Address(B), refusal),
        Recipient(Address(C), refusal),
        MessageRefused(refusal),
    ]
    assert responses(outcome.output) == [b"Z4.3.1 Not now"] * 2 + [b"K2.6.0 Message accepted."]
    assert outcome.bodies() == [b"z\r\n"]


def test_no_recipients() -> None:
    outcome = played(package(b"\nx\n", A) + package(b"\ny\n", A, B))
    assert outcome.events[3] == MessageRefused(Reply(554, "5.5.1 No recipients"))
    assert outcome.output == b"18:KReceived 2 bytes.,"
    assert played(package(b"\nx\n", A), COMPAT).output == b"18:KReceived 2 bytes.,"


def test_reply_each() -> None:
    def react(machine: QMTPServer, event: object) -> None:
        if isinstance(event, MessageEnd):
            assert event.recipients == 2
            machine.reply_each([Reply(250, "one"), Reply(452, "two")])
        elif isinstance(event, Recipient) and event.address.raw == B:
            machine.reply(550, "no")
        else:
            accept(machine, event)

    outcome = Player(QMTPServer(), react).play([[package(b"\nx\n", A, A, B, C)]]).outcome
    assert responses(outcome.output) == [b"Kone", b"Dno", b"Ztwo"]


# -- line ends ---------------------------------------------------------------------------------------------

LINE_ENDS = [
    (b"\na\nb\n", b"a\nb\n"),
    (b"\ra\r\nb\r\n", b"a\nb\n"),
    (b"\n", b""),
    (b"\r", b""),
    (b"\nno end", b"no end"),
    (b"\na\r\nb\n", b"a\nb\n"),
    (b"\na\rb\n", b"a b\n"),
    (b"\na\n\r", b"a\n "),
    (b"\ra\r\r\nb\r", b"a \nb "),
    (b"\ra\nb\n\r\n", b"a\nb\n\n"),
]


@pytest.mark.parametrize(("message", "expected"), LINE_ENDS)
def test_both_forms_of_line_ends(message: bytes, expected: bytes) -> None:
    wire = package(message, A, B)
    assert played(wire).bodies() == ([expected] if expected else [])
    assert played(wire, lf=False).bodies() == ([expected.replace(b"\n", b"\r\n")] if expected else [])


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"x", b"yz"]), max_size=12), st.booleans(), st.booleans())
def test_line_ends_do_not_depend_on_the_cut(words: list[bytes], crlf: bool, lf: bool) -> None:
    text = b"".join(words)
    wire = package((b"\r" if crlf else b"\n") + text, A, B)
    expected = text.replace(b"\r\n", b"\n").replace(b"\r", b" ")
    if not lf:
        expected = expected.replace(b"\n", b"\r\n")
    for pieces in ([wire], [wire[i : i + 1] for i in range(len(wire))]):
        outcome = Player(QMTPServer(lf_bodies=lf), accept).play([pieces]).outcome
        assert b"".join(outcome.bodies()) == expected


def test_compat_keeps_every_cr_and_takes_no_crlf_form() -> None:
    assert played(package(b"\na\r\nb\rc\n", A, B), COMPAT).bodies() == [b"a\r\nb\rc\n"]
    assert played(package(b"\ra\r\n", A, B), COMPAT).output == b"37:ZCannot handle non-LF line terminator,"


def test_large_slices_pass_as_they_came() -> None:
    machine = lf_server()
    machine.receive_data(b"100001:\n")
    assert machine.next_event() == MessageStart(100000)
    machine.accept()
    assert machine.next_event() is NEED_DATA
    chunk = b"x" * 65536
    machine.receive_data(chunk)
    event = machine.next_event()
    assert isinstance(event, Body) and event.data is chunk


# -- the compat profile, and what breaks the protocol ------------------------------------------------------


def test_compat_sends_one_response_for_a_package() -> None:
    outcome = played(package(b"\nx\n", A, B, C), COMPAT)
    assert outcome.output == b"18:KReceived 2 bytes.,"
    refused = played(package(b"\nx\n", A, B, b"x550@a", C), COMPAT)
    assert refused.kinds()[2:-1] == ["Sender", "Recipient", "Recipient", "MessageRefused"]
    assert refused.output == b"22:D5.1.0 Refused by name,"
    nobody = played(package(b"\nx\n", b"s450@a", B), COMPAT)
    assert nobody.kinds()[2:-1] == ["Sender", "MessageRefused"]


MESSAGE = b"3:\nx\n,"
SENDER = b"3:a@b,"
WITH_BODY, WITH_SENDER = MESSAGE, MESSAGE + SENDER

# (bytes, what is said in both profiles, does the connection end in the middle of a package?)
BROKEN = [
    (b"x", "Invalid message body netstring", False),
    (b" 3:\nx\n,", "Invalid message body netstring", False),
    (b"3;", "Invalid message body netstring", False),
    (b"99999999999:", "Invalid message body netstring", False),
    (b"9" * 30, "Invalid message body netstring", False),
    (b"0:,", "Zero length message", False),
    (b"1:x,", "Cannot handle non-LF line terminator", True),
    (b"3:", "EOF while reading body NL", True),
    (b"3:\n", "EOF while reading body", True),
    (b"3:\nx", "EOF while reading body", True),
    (b"3:\nx\n", "EOF while reading comma", True),
    (b"3:\nx\n;", "Invalid netstring terminator", True),
    (WITH_BODY, "EOF while reading sender address", True),
    (WITH_BODY + b"3", "EOF while reading sender address", True),
    (WITH_BODY + b"3:a@b", "EOF while reading sender address", True),
    (WITH_BODY + b"3:a@b;", "Invalid sender netstring", True),
    (WITH_BODY + b"x:,", "Invalid sender netstring", True),
    (WITH_SENDER, "EOF while reading recipient list", True),
    (WITH_SENDER + b"6:", "EOF while reading recipient list", True),
    (WITH_SENDER + b"6:3:c@d,", "EOF while reading recipient list", True),
    (WITH_SENDER + b"x", "Invalid recipient netstring", True),
    (WITH_SENDER + b"6:3:c@d,;", "Invalid recipient netstring", True),
    (WITH_SENDER + b"0:;", "Invalid recipient netstring", True),
    (WITH_SENDER + b"6:3:c@d;,", "Netstring missing comma", True),
    (WITH_SENDER + b"5:3:c@d,", "Netstring missing comma", True),
    (WITH_SENDER + b"5:3:c@,,", "Netstring missing comma", True),
    (WITH_SENDER + b"6:9:c@d,,", "Netstring length too long", True),
    (WITH_SENDER + b"1:3,", "Netstring length too long", True),
    (WITH_SENDER + b"2:3:,", "Netstring length too long", True),
    (WITH_SENDER + b"6:x:c@d,,", "Invalid netstring length", True),
    (WITH_SENDER + b"7:3:c@d,,,", "Invalid netstring length", True),
    (WITH_SENDER + b"99999999:", "Recipient list too long", True),
]


@pytest.mark.parametrize(("wire", "text", "in_message"), BROKEN)
@pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
def test_what_is_said_to_a_broken_package(wire: bytes, text: str, in_message: bool, profile: Profile) -> None:
    outcome = played(package(b"\nok\n", A, B) + wire, profile)
    assert outcome.events[-1] == ConnectionClosed(text, in_message, Reply(451, text))
    assert responses(outcome.output) == [b"KReceived 3 bytes.", b"Z" + text.encode()]
    assert outcome.kinds().count("MessageEnd") == 1


FREE_LENGTHS = [
    (b"03:\nx\n," + SENDER + b"6:3:c@d,,", b"KReceived 2 bytes.", b"ZInvalid message body netstring"),
    (MESSAGE + b"003:a@b,6:3:c@d,,", b"KReceived 2 bytes.", b"ZInvalid sender netstring"),
    (MESSAGE + SENDER + b"06:3:c@d,,", b"KReceived 2 bytes.", b"ZInvalid recipient netstring"),
    (MESSAGE + SENDER + b"7:03:c@d,,", b"KReceived 2 bytes.", b"ZInvalid netstring length"),
    (MESSAGE + b":,6:3:c@d,,", b"KReceived 2 bytes.", b"ZInvalid sender netstring"),
    (b":\nx\n,", b"ZZero length message", b"ZInvalid message body netstring"),
]


@pytest.mark.parametrize(("wire", "compat", "default"), FREE_LENGTHS)
def test_compat_reads_lengths_as_the_original_does(wire: bytes, compat: bytes, default: bytes) -> None:
    assert responses(played(wire, COMPAT).output) == [compat]
    assert responses(played(wire).output) == [default]


@pytest.mark.parametrize("wire", [b"", b"3", b"123"])
def test_closing_between_packages_is_no_fault(wire: bytes) -> None:
    for profile in (DEFAULT, COMPAT):
        outcome = played(package(b"\nx\n", A, B) + wire, profile)
        assert outcome.events[-1] == ConnectionClosed("EOF")
        assert responses(outcome.output) == [b"KReceived 2 bytes."]


# -- recorded sessions of the original ---------------------------------------------------------------------


@pytest.mark.parametrize("session", recorded("qmtp"))
def test_recorded_session_under_every_split(session: Session) -> None:
    check_recorded(session, lambda: QMTPServer(COMPAT, lf_bodies=True))


# -- bounds ------------------------------------------------------------------------------------------------


def limited(**limits: Any) -> Profile:
    return replace(DEFAULT, limits=replace(DEFAULT.limits, **limits))


def test_a_message_over_the_limit_is_thrown_away_and_the_reader_stays_in_step() -> None:
    too_big = Reply(552, "5.3.4 Message size exceeds fixed maximum message size")
    wire = package(b"\n" + b"x" * 11, A, B, C) + package(b"\n" + b"y" * 10, A, B)
    outcome = played(wire, limited(message_size=10))
    assert outcome.events[:5] == [
        MessageStart(11, too_big),
        Sender(Address(A), too_big),
        Recipient(Address(B), too_big),
        Recipient(Address(C), too_big),
        MessageRefused(too_big),
    ]
    assert outcome.bodies() == [b"y" * 10]
    assert [response[:1] for response in responses(outcome.output)] == [b"D", b"D", b"K"]


def test_the_size_that_is_taken_can_be_set() -> None:
    machine = QMTPServer()
    machine.message_size = 3
    machine.receive_data(b"5:\nxxxx")
    event = machine.next_event()
    assert isinstance(event, MessageStart) and event.refusal is not None
    assert not machine.answer_owed


def test_addresses_over_the_limit() -> None:
    wire = package(b"\nx\n", b"s" * 11, A) + package(b"\ny\n", b"s" * 10, b"r" * 11, b"r" * 10)
    outcome = played(wire, limited(address=10))
    assert responses(outcome.output) == [
        b"D5.1.7 Address too long",
        b"D5.1.3 Address too long",
        b"KReceived 2 bytes.",
    ]


def test_recipients_over_the_limit() -> None:
    outcome = played(package(b"\nx\n", A, B, C, A, B) + package(b"\ny\n", A, B), limited(recipients=2))
    assert [response[:1] for response in responses(outcome.output)] == [b"K", b"K", b"Z", b"Z", b"K"]
    assert responses(outcome.output)[2] == b"Z4.5.3 Too many recipients"
    assert outcome.kinds().count("MessageEnd") == 2


PROFILES = [pytest.param(DEFAULT, id="default"), pytest.param(COMPAT, id="compat")]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("head", "limit"),
    [
        (b"9999999999:\n", 200_000),
        (b"3:\nx\n,9999999999:", 300_000),
        (b"3:\nx\n,3:a@b,1048576:", 2_500_000),
    ],
)
def test_memory_is_bounded(profile: Profile, head: bytes, limit: int) -> None:
    def new() -> Player[QMTPServer]:
        machine = QMTPServer(profile)
        player = Player(machine, accept)
        player.receive(head)
        return player

    assert_memory_bounded(new, b"x" * 1000, limit)


def test_output_is_bounded() -> None:
    """Many small recipients in a package; each response is long."""

    def refuse(machine: QMTPServer, event: object) -> None:
        if isinstance(event, Recipient):
            machine.reply(550, "n" * 500)
        elif machine.answer_owed:
            machine.accept()

    wire = package(b"\nx\n", A, *[b"r"] * 1000)
    assert_output_bounded(lambda: Player(QMTPServer(), refuse), wire, 510 * 100)


def test_work_is_linear_byte_by_byte() -> None:
    def begun(head: bytes) -> Player[QMTPServer]:
        player = Player(QMTPServer(), accept)
        player.receive(head)
        return player

    assert_linear(lambda: begun(b"9999999:\n"), b"some text\n", size=300)
    assert_linear(lambda: begun(b"3:\nx\n,99999:"), b"a", size=300)
    assert_linear(lambda: begun(b"3:\nx\n,1:a,99999:"), b"1:a,", size=300)
    assert_linear(lambda: Player(QMTPServer(), accept), package(b"\nx\n", A, B), size=300)


# -- answers, and misuse -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "letter"), [(100, b"Z"), (199, b"Z"), (200, b"K"), (399, b"K"), (400, b"Z"), (499, b"Z"), (500, b"D")]
)
def test_letters(code: int, letter: bytes) -> None:
    def react(machine: QMTPServer, event: object) -> None:
        machine.reply(code, "x") if isinstance(event, MessageEnd) else accept(machine, event)

    outcome = Player(QMTPServer(), react).play([[package(b"\nx\n", A, B)]]).outcome
    assert responses(outcome.output) == [letter + b"x"]


@given(st.text(max_size=50))
def test_a_response_is_one_netstring_without_control_bytes(text: str) -> None:
    def react(machine: QMTPServer, event: object) -> None:
        machine.reply(550, text) if isinstance(event, MessageEnd) else accept(machine, event)

    outcome = Player(QMTPServer(), react).play([[package(b"\nx\n", A, B)]]).outcome
    (response,) = responses(outcome.output)
    assert response[:1] == b"D"
    assert not set(response) & ({*range(0x20), 0x7F} - {0x0A, 0x09})
    assert response.count(b"\n") == text.count("\n")


def test_the_usual_answers_and_their_misuse() -> None:
    machine = QMTPServer()
    with pytest.raises(LocalProtocolError, match="no answer is owed"):
        machine.accept()
    with pytest.raises(LocalProtocolError, match="receive_eof"):
        machine.receive_data(b"")
    machine.receive_data(package(b"\nx\n", A, B))
    assert machine.next_event() == MessageStart(2)
    assert machine.next_event() is PAUSED
    with pytest.raises(LocalProtocolError, match="99 is no reply code"):
        machine.reply(99)
    with pytest.raises(LocalProtocolError, match="reply_each"):
        machine.reply_each([])
    machine.accept()
    assert machine.state is State.BODY
    while not isinstance(machine.next_event(), MessageEnd):
        if machine.answer_owed:
            machine.accept()
    with pytest.raises(LocalProtocolError, match="reply_each"):
        machine.reply_each([Reply(250)] * 2)
    machine.accept("done")
    assert machine.next_event() is NEED_DATA
    assert machine.data_to_send() == b"5:Kdone,"


def test_abort() -> None:
    machine = QMTPServer()
    machine.receive_data(b"3:\nx")
    machine.next_event()
    machine.abort(Reply(421, "4.3.2 Going down"))
    assert machine.data_to_send() == b"17:Z4.3.2 Going down,"
    closed = ConnectionClosed("aborted", True, Reply(421, "4.3.2 Going down"))
    assert machine.next_event() == closed
    machine.abort()
    machine.receive_data(b"more")
    assert machine.next_event() == closed
    quiet = QMTPServer()
    quiet.abort()
    assert quiet.next_event() == ConnectionClosed("aborted")
    assert quiet.data_to_send() == b""


def test_limits_are_those_of_the_table() -> None:
    assert Limits() == Limits(10, 50 * 1024 * 1024, 1000, 1000, 1024 * 1024)
    assert COMPAT.limits == Limits(10, None, 65536, None, 16 * 1024 * 1024)


QMTP_STATES = {
    State.MESSAGE: (b"", b"x"),
    State.LINE_ENDS: (b"3:", b"x"),
    State.BODY: (b"3:\n", b"x\n;"),
    State.SENDER: (b"3:\nx\n,", b"x"),
    State.RECIPIENT_LIST: (b"3:\nx\n,1:a,", b"x"),
}
QMQP_STATES = {
    State.WRAPPER: (b"", b"x"),
    State.MESSAGE: (b"99:", b"x"),
    State.BODY: (b"99:3:", b"abc;"),
    State.SENDER: (b"99:3:abc,", b"x"),
    State.RECIPIENTS: (b"99:3:abc,1:a,1", b"x"),
    State.END: (b"14:3:abc,1:a,1:b,", b"x"),
}
"""The states that wait for input: what leads there, and what breaks it."""
WITHOUT_INPUT = {State.RESPONSES, State.CLOSED}


@pytest.mark.parametrize("ended", [True, False], ids=["end of input", "broken"])
@pytest.mark.parametrize(
    ("kind", "state", "profile"),
    [
        (kind, state, profile)
        for kind, states in ((QMTPServer, QMTP_STATES), (QMQPServer, QMQP_STATES))
        for state in states
        for profile in (DEFAULT, COMPAT)
        if state is not State.END or profile.wrapper_enforced  # otherwise a comma ends the package, wherever it is
    ],
)
def test_every_end_in_every_state(
    kind: type[QMTPServer | QMQPServer], state: State, ended: bool, profile: Profile
) -> None:
    """The tables that are drawn in the documentation."""
    prefix, broken = (QMTP_STATES if kind is QMTPServer else QMQP_STATES)[state]
    machine = kind(profile)
    playing = Player(machine, accept)
    if prefix:
        playing.receive(prefix)
    assert machine.state is state
    if ended:
        machine.receive_eof()
        playing.step()
        text = AT_END.get(state)
    else:
        playing.receive(broken)
        text = AT_FAULT.get(state, "Cannot handle non-LF line terminator")
    response = encode_response(Reply(451, text)) if text is not None else b""
    assert playing.outcome.output == response
    assert isinstance(playing.outcome.events[-1], ConnectionClosed) and machine.state is State.CLOSED


def test_every_state_is_waited_in_or_passed() -> None:
    passed = {State.RECIPIENTS, State.END}  # QMTP holds its recipients until they are complete
    assert set(QMTPServer._readers) == {*QMTP_STATES, *passed, *WITHOUT_INPUT}
    assert set(QMQPServer._readers) == {*QMQP_STATES, *WITHOUT_INPUT}
