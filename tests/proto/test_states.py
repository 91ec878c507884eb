"""The order of commands: for every pair of a state and a command the machine does what the table says, and
the table says what the RFCs say."""

from dataclasses import replace
from typing import Any

import pytest

from mailfront_proto.sasl import ServerOptions
from mailfront_proto.smtp import (
    COMPAT,
    DEFAULT,
    NEED_DATA,
    PAUSED,
    Connected,
    Data,
    MessageEnd,
    Profile,
    Refused,
    Reply,
    SMTPServer,
    State,
)
from mailfront_proto.smtp.states import COMMAND_STATES, COMMANDS, command_table
from tests.proto.server_script import machine_state, play

TABLES = [(DEFAULT, False), (COMPAT, False), (DEFAULT, True), (COMPAT, True)]
NAMES = ["default", "compat", "lmtp", "lmtp-compat"]
ARGUMENTS = {
    "MAIL": "FROM:<a@b.example>",
    "RCPT": "TO:<c@d.example>",
    "AUTH": "PLAIN AGpvZQBzZWNyZXQ=",
    "BDAT": "6",
    "XCLIENT": "ADDR=192.0.2.1",
}
CHUNK = b"QUIT\r\n"
"""The octets of a BDAT: a command to whoever does not count."""
HELLOS = ("HELO", "EHLO", "LHLO")
WAY_TO = {
    State.CONNECTED: "",
    State.READY: "{hello} x\r\n",
    State.MAIL: "{hello} x\r\nMAIL FROM:<a@b.example>\r\n",
    State.RECIPIENTS: "{hello} x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n",
    State.CHUNKS: "{hello} x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 2\r\nab",
}


def line_of(verb: str) -> bytes:
    """A good line with `verb`."""
    return f"{verb} {ARGUMENTS.get(verb, 'x' if verb in HELLOS else '')}\r\n".encode()


def machine_in(state: State, profile: Profile, lmtp: bool) -> SMTPServer:
    machine = SMTPServer("mx.example.org", profile, lmtp=lmtp)
    machine.sasl = ServerOptions(("PLAIN",))
    machine.offers_starttls = machine.offers_xclient = True
    machine.extensions |= {"CHUNKING"}
    way = WAY_TO[state].format(hello="LHLO" if lmtp else "EHLO").encode()
    play(machine, [[way] if way else []], eof=False)
    assert machine.state is state
    return machine


@pytest.mark.parametrize(("profile", "lmtp"), TABLES, ids=NAMES)
@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize("state", COMMAND_STATES, ids=[s.value for s in COMMAND_STATES])
def test_every_pair_of_the_table(state: State, verb: str, profile: Profile, lmtp: bool) -> None:
    row = command_table(profile, lmtp)[state, verb]
    machine = machine_in(state, profile, lmtp)
    machine.receive_data(line_of(verb))
    event = machine.next_event()
    if verb == "BDAT" and isinstance(row, Reply):
        assert event is NEED_DATA
        assert machine.state is State.DRAIN
        assert machine.data_to_send() == b""
        machine.receive_data(CHUNK)
        event = machine.next_event()
    if isinstance(row, Reply):
        assert isinstance(event, Refused)
        assert event.reply == row
        assert machine.data_to_send() == f"{row}\r\n".encode()
        assert machine.state is state
        return
    if verb == "NOOP":
        assert event is NEED_DATA
        assert machine.data_to_send() == b"250 2.3.0 OK\r\n"
    elif verb == "BDAT" and state is State.CHUNKS:
        assert event is NEED_DATA
        assert machine.data_to_send() == b""
    else:
        assert machine.answer_owed
        assert machine.next_event() is PAUSED
        assert machine.data_to_send() == b""
        machine.accept()
        assert machine.data_to_send()[:1] in ((b"",) if verb in ("BDAT", "XCLIENT") else (b"2", b"3"))
    assert machine.state is row


TAKEN = [
    pytest.param(state, verb, profile, lmtp, id=f"{name}-{state.value}-{verb}")
    for (profile, lmtp), name in zip(TABLES, NAMES, strict=True)
    for (state, verb), row in command_table(profile, lmtp).items()
    if not isinstance(row, Reply) and verb not in ("NOOP", "QUIT") and (state, verb) != (State.CHUNKS, "BDAT")
]


@pytest.mark.parametrize(("state", "verb", "profile", "lmtp"), TAKEN)
def test_a_command_that_the_application_refuses_changes_nothing_but_what_it_drops(
    state: State, verb: str, profile: Profile, lmtp: bool
) -> None:
    machine = machine_in(state, profile, lmtp)
    before = machine_state(machine)
    machine.receive_data(line_of(verb))
    machine.next_event()
    machine.reply(451, "4.0.0 Not now")
    if verb == "BDAT":
        assert machine.data_to_send() == b""
        machine.receive_data(CHUNK)
        assert machine.next_event() is NEED_DATA
        assert machine.data_to_send() == b"451 4.0.0 Not now\r\n"
    dropping = {"HELO", "EHLO", "LHLO", "MAIL", "RSET", "BDAT"}
    if not profile.envelope_survives_message:
        dropping.add("DATA")  # who refuses the message has dropped its envelope
    dropped = verb in dropping and state is not State.CONNECTED
    assert machine_state(machine) == {**before, "state": State.READY if dropped else state}


def test_the_table_is_whole() -> None:
    for profile, lmtp in TABLES:
        assert set(command_table(profile, lmtp)) == {(s, v) for s in COMMAND_STATES for v in COMMANDS}


def test_few_choices_of_a_profile_make_its_table() -> None:
    """The server keeps a table for each combination of these."""
    choices = ("knows_expn", "auth_in_transaction", "helo_required")
    for name in Profile.__match_args__:
        value = getattr(COMPAT, name)
        change: dict[str, Any] = {name: not value if value == getattr(DEFAULT, name) else value}
        changed = replace(DEFAULT, **change)
        assert (command_table(changed) == command_table(DEFAULT)) == (name not in choices)


def test_what_the_rfcs_fix_in_the_default_table() -> None:
    """Said here independently of `command_table`."""
    order = command_table(DEFAULT)
    codes = {key: row.code if isinstance(row, Reply) else row for key, row in order.items()}
    ready = State.READY
    for state in COMMAND_STATES:
        assert codes[state, "EHLO"] is codes[state, "HELO"] is ready  # RFC 5321 section 4.1.4: like RSET
        assert codes[state, "QUIT"] is State.CLOSED
        assert (codes[state, "XCLIENT"] == 503) == (state not in (State.CONNECTED, ready))
        for verb in ("NOOP", "VRFY", "HELP"):
            assert codes[state, verb] is state
    assert codes[State.CONNECTED, "MAIL"] == codes[State.CONNECTED, "RCPT"] == 503
    assert codes[ready, "RCPT"] == codes[ready, "DATA"] == codes[State.MAIL, "DATA"] == 503
    assert codes[State.MAIL, "AUTH"] == codes[State.RECIPIENTS, "AUTH"] == 503  # RFC 4954 section 4
    assert codes[State.RECIPIENTS, "DATA"] is State.BODY
    # RFC 3030 section 2: "DATA and BDAT commands cannot be used in the same transaction"
    chunks = State.CHUNKS
    assert codes[State.RECIPIENTS, "BDAT"] is codes[chunks, "BDAT"] is State.CHUNK
    assert codes[chunks, "DATA"] == codes[chunks, "RCPT"] == codes[chunks, "AUTH"] == 503
    for state in (State.CONNECTED, ready, State.MAIL):
        assert codes[state, "BDAT"] == 503
    assert codes[State.RECIPIENTS, "MAIL"] is State.MAIL  # as the original; a new transaction
    lmtp = command_table(DEFAULT, lmtp=True)
    for state in COMMAND_STATES:
        for verb in ("HELO", "EHLO"):
            row = lmtp[state, verb]
            assert isinstance(row, Reply) and row.code == 500  # RFC 2033 section 4.1


# -- BDAT, and what may come before it -------------------------------------------------------------------

HELLO = "EHLO x\r\n"
SENDER = HELLO + "MAIL FROM:<a@b.example>\r\n"
ENVELOPE = SENDER + "RCPT TO:<c@d.example>\r\n"
SMALL = replace(DEFAULT, limits=replace(DEFAULT.limits, message_size=4))

# what goes before, and the codes of the answers to "BDAT 6" and "BDAT 6 LAST" behind it
BEFORE: dict[str, tuple[str, int, int]] = {
    "nothing": ("", 503, 503),
    "EHLO": (HELLO, 503, 503),
    "MAIL": (SENDER, 503, 503),
    "a refused MAIL": (HELLO + "MAIL FROM:<a@\r\n", 503, 503),
    "a refused RCPT": (SENDER + "RCPT TO:<>\r\n", 503, 503),
    "a refused RCPT and a good one": (SENDER + "RCPT TO:<>\r\nRCPT TO:<c@d.example>\r\n", 250, 250),
    "the envelope": (ENVELOPE, 250, 250),
    "an unknown command": (ENVELOPE + "XYZZY\r\n", 250, 250),
    "a DATA that was wrong": (ENVELOPE + "DATA now\r\n", 250, 250),
    "a chunk": (ENVELOPE + "BDAT 1\r\na", 250, 250),
    "a chunk and DATA": (ENVELOPE + "BDAT 1\r\naDATA\r\n", 250, 250),
    "a chunk and RCPT": (ENVELOPE + "BDAT 1\r\naRCPT TO:<e@f.example>\r\n", 250, 250),
    "a chunk with a wrong word": (ENVELOPE + "BDAT 1 FIRST\r\na", 250, 250),
    "a chunk and RSET": (ENVELOPE + "BDAT 1\r\naRSET\r\n", 503, 503),
    "a chunk and EHLO": (ENVELOPE + "BDAT 1\r\naEHLO x\r\n", 503, 503),
    "a chunk and MAIL": (ENVELOPE + "BDAT 1\r\naMAIL FROM:<a@b.example>\r\n", 503, 503),
    "the last chunk": (ENVELOPE + "BDAT 1 LAST\r\na", 503, 503),
    "the last chunk, empty": (ENVELOPE + "BDAT 0 LAST\r\n", 503, 503),
    "a message with DATA": (ENVELOPE + "DATA\r\n.\r\n", 503, 503),
    "a refused chunk": ("BDAT 3\r\nabc" + ENVELOPE, 250, 250),
    "a refused last chunk": (SENDER + "BDAT 3 LAST\r\nabcRCPT TO:<c@d.example>\r\n", 250, 250),
    "another message": (ENVELOPE + "BDAT 1 LAST\r\na" + ENVELOPE.partition("\r\n")[2], 250, 250),
}


@pytest.mark.parametrize("last", [False, True], ids=["BDAT", "BDAT-LAST"])
@pytest.mark.parametrize("name", BEFORE)
def test_bdat_after_each_thing_that_may_come_before(name: str, last: bool) -> None:
    before, *expected = BEFORE[name]
    machine = SMTPServer("mx.example.org")
    played = play(machine, [[before.encode() + (b"BDAT 6 LAST\r\n" if last else b"BDAT 6\r\n"), CHUNK]], eof=False)
    code = expected[last]
    assert played.codes()[-1] == code
    assert "Quit" not in played.kinds(), "octets of a chunk were run as a command"
    ended = isinstance(played.events[-1], MessageEnd)
    assert ended == (last and code == 250)
    assert machine.state is not State.DRAIN and not machine.answer_owed
    if code == 250:
        assert machine.state is (State.READY if last else State.CHUNKS)
        assert played.bodies()[-1].endswith(CHUNK)


@pytest.mark.parametrize("last", [False, True], ids=["BDAT", "BDAT-LAST"])
@pytest.mark.parametrize("fault", ["too big", "refused by the application", "wrong word", "idle"])
def test_chunks_behind_one_that_failed(fault: str, last: bool) -> None:
    """RFC 3030 section 2: those that were on their way are read and thrown away."""
    profile = SMALL if fault == "too big" else DEFAULT
    machine = SMTPServer("mx.example.org", profile)

    def answer(machine: SMTPServer, event: object) -> None:
        if isinstance(event, Data) and fault == "refused by the application":
            machine.reply(451, "4.3.0 Not now")
        else:
            machine.accept()

    first = {"wrong word": b"BDAT 6 NOW\r\n", "idle": b"BDAT 0\r\nBDAT 6\r\n"}.get(fault, b"BDAT 6\r\n") + CHUNK
    more = b"BDAT 6%s\r\n%s" % (b" LAST" if last else b"", CHUNK)
    played = play(machine, [[ENVELOPE.encode() + first + more + b"NOOP\r\n"]], answer, eof=False)
    expected = {
        "too big": [552, 503, 250],
        "refused by the application": [451, 503, 250],
        "wrong word": [501, 250, 250],
        "idle": [250, 250, 250, 250],
    }[fault]
    assert played.codes()[4:] == expected
    assert "Quit" not in played.kinds()


def test_xclient_brings_the_greeting_back() -> None:
    machine = machine_in(State.READY, DEFAULT, False)
    machine.receive_data(b"XCLIENT LOGIN=joe\r\nMAIL FROM:<a@b.example>\r\n")
    machine.next_event()
    machine.accept()
    assert machine.data_to_send() == b""
    assert machine.state is State.GREETING
    assert machine.next_event() == Connected(early_talker=False)
    machine.accept()
    assert machine.data_to_send().startswith(b"220 ")
    assert machine.authenticated and machine.helo_host is None and not machine.esmtp
    event = machine.next_event()
    assert isinstance(event, Refused) and event.reply.code == 503
