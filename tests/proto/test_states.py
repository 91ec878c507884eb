"""The order of commands: for every pair of a state and a command the machine does what the table says, and
the table says what the RFCs say."""

import pytest

from mailfront_proto.sasl import ServerOptions
from mailfront_proto.smtp import COMPAT, DEFAULT, NEED_DATA, PAUSED, Profile, Refused, Reply, SMTPServer, State
from mailfront_proto.smtp.states import COMMAND_STATES, COMMANDS, command_table
from tests.proto.server_script import machine_state, play

TABLES = [(DEFAULT, False), (COMPAT, False), (DEFAULT, True), (COMPAT, True)]
NAMES = ["default", "compat", "lmtp", "lmtp-compat"]
ARGUMENTS = {"MAIL": "FROM:<a@b.example>", "RCPT": "TO:<c@d.example>", "AUTH": "PLAIN AGpvZQBzZWNyZXQ="}
HELLOS = ("HELO", "EHLO", "LHLO")
WAY_TO = {
    State.CONNECTED: "",
    State.READY: "{hello} x\r\n",
    State.MAIL: "{hello} x\r\nMAIL FROM:<a@b.example>\r\n",
    State.RECIPIENTS: "{hello} x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n",
}


def line_of(verb: str) -> bytes:
    """A good line with `verb`."""
    return f"{verb} {ARGUMENTS.get(verb, 'x' if verb in HELLOS else '')}\r\n".encode()


def machine_in(state: State, profile: Profile, lmtp: bool) -> SMTPServer:
    machine = SMTPServer("mx.example.org", profile, lmtp=lmtp)
    machine.sasl = ServerOptions(("PLAIN",))
    machine.offers_starttls = True
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
    if isinstance(row, Reply):
        assert isinstance(event, Refused)
        assert event.reply == row
        assert machine.data_to_send() == f"{row}\r\n".encode()
        assert machine.state is state
        return
    if verb == "NOOP":
        assert event is NEED_DATA
        assert machine.data_to_send() == b"250 2.3.0 OK\r\n"
    else:
        assert machine.answer_owed
        assert machine.next_event() is PAUSED
        assert machine.data_to_send() == b""
        machine.accept()
        assert machine.data_to_send()[:1] in (b"2", b"3")
    assert machine.state is row


TAKEN = [
    pytest.param(state, verb, profile, lmtp, id=f"{name}-{state.value}-{verb}")
    for (profile, lmtp), name in zip(TABLES, NAMES, strict=True)
    for (state, verb), row in command_table(profile, lmtp).items()
    if not isinstance(row, Reply) and verb not in ("NOOP", "QUIT")
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
    dropping = {"HELO", "EHLO", "LHLO", "MAIL", "RSET"}
    if not profile.envelope_survives_message:
        dropping.add("DATA")  # who refuses the message has dropped its envelope
    dropped = verb in dropping and state is not State.CONNECTED
    assert machine_state(machine) == {**before, "state": State.READY if dropped else state}


def test_the_table_is_whole() -> None:
    for profile, lmtp in TABLES:
        assert set(command_table(profile, lmtp)) == {(s, v) for s in COMMAND_STATES for v in COMMANDS}


def test_what_the_rfcs_fix_in_the_default_table() -> None:
    """Said here independently of `command_table`."""
    order = command_table(DEFAULT)
    codes = {key: row.code if isinstance(row, Reply) else row for key, row in order.items()}
    ready = State.READY
    for state in COMMAND_STATES:
        assert codes[state, "EHLO"] is codes[state, "HELO"] is ready  # RFC 5321 section 4.1.4: like RSET
        assert codes[state, "QUIT"] is State.CLOSED
        for verb in ("NOOP", "VRFY", "HELP"):
            assert codes[state, verb] is state
    assert codes[State.CONNECTED, "MAIL"] == codes[State.CONNECTED, "RCPT"] == 503
    assert codes[ready, "RCPT"] == codes[ready, "DATA"] == codes[State.MAIL, "DATA"] == 503
    assert codes[State.MAIL, "AUTH"] == codes[State.RECIPIENTS, "AUTH"] == 503  # RFC 4954 section 4
    assert codes[State.RECIPIENTS, "DATA"] is State.BODY
    assert codes[State.RECIPIENTS, "MAIL"] is State.MAIL  # as the original; a new transaction
    lmtp = command_table(DEFAULT, lmtp=True)
    for state in COMMAND_STATES:
        for verb in ("HELO", "EHLO"):
            row = lmtp[state, verb]
            assert isinstance(row, Reply) and row.code == 500  # RFC 2033 section 4.1
