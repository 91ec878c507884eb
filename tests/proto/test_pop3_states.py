"""The order of POP3's commands: for every pair of a state and a command, in every mode, the machine does what the table
says, and the table says what the RFCs say."""

import pytest

from mailfront_proto.pop3 import (
    COMPAT,
    DEFAULT,
    PAUSED,
    Answered,
    Event,
    Mode,
    OpenMailbox,
    POP3Server,
    Profile,
    Refused,
    Reply,
    Retrieve,
    State,
    answers,
)
from mailfront_proto.pop3.states import COMMANDS, command_states, command_table
from mailfront_proto.sasl import ServerOptions
from tests.proto.pop3_script import Application, player

ARGUMENTS = {
    "USER": "joe",
    "PASS": "secret",
    "AUTH": "PLAIN AGpvZQBzZWNyZXQ=",
    "RETR": "1",
    "TOP": "1 0",
    "DELE": "1",
    "LANG": "en",
}
MESSAGES = [b"a: b\n\nc\n", b"d\n"]
TABLES = [
    pytest.param(profile, mode, id=f"{profile.name}-{mode.value}") for profile in (DEFAULT, COMPAT) for mode in Mode
]
PAIRS = [
    pytest.param(profile, mode, state, verb, id=f"{profile.name}-{mode.value}-{state.value}-{verb}")
    for profile in (DEFAULT, COMPAT)
    for mode in Mode
    for state in command_states(mode)
    for verb in COMMANDS
]


def line_of(verb: str) -> bytes:
    """A good line with `verb`."""
    return f"{verb} {ARGUMENTS[verb]}\r\n".encode() if verb in ARGUMENTS else f"{verb}\r\n".encode()


def machine_in(state: State, profile: Profile, mode: Mode) -> POP3Server:
    machine = POP3Server(profile, mode=mode)
    machine.offers_user = machine.offers_stls = machine.offers_utf8 = True
    machine.sasl = ServerOptions(["PLAIN"])
    playing = player(machine, Application(MESSAGES))
    playing.step()
    if state is State.USER:
        playing.receive(b"USER joe\r\n")
    elif state is State.TRANSACTION and mode is Mode.WHOLE:
        playing.receive(b"USER joe\r\nPASS secret\r\n")
    assert machine.state is state
    machine.data_to_send()
    return machine


def seen(machine: POP3Server) -> dict[str, object]:
    return {
        "state": machine.state,
        "username": machine.username,
        "utf8": machine.in_utf8,
        "tls": machine.in_tls,
        "marks": (machine._maildrop.deleted(), machine._maildrop.last),
    }


@pytest.mark.parametrize(("profile", "mode", "state", "verb"), PAIRS)
def test_every_pair_of_the_table(profile: Profile, mode: Mode, state: State, verb: str) -> None:
    row = command_table(profile, mode)[state, verb]
    machine = machine_in(state, profile, mode)
    before = seen(machine)
    machine.receive_data(line_of(verb))
    event = machine.next_event()
    if isinstance(row, Reply):
        assert isinstance(event, Refused)
        assert event.reply == row
        assert machine.data_to_send() == f"{row}\r\n".encode()
        assert seen(machine) == before
    elif isinstance(event, Answered):
        assert machine.data_to_send().startswith(b"+OK ")
        if machine.state is State.LISTING:
            machine.next_event()
        assert machine.state is row
    else:
        assert isinstance(event, Event)
        accepted(machine, event, row)


def accepted(machine: POP3Server, event: Event, row: State) -> None:
    """An event that the application accepts."""
    assert machine.answer_owed
    assert machine.next_event() is PAUSED
    assert machine.data_to_send() == b""
    if isinstance(event, OpenMailbox):  # RSET in compat
        assert machine.state is row
        machine.open_mailbox([1], [b"x"])
        assert seen(machine)["state"] is State.TRANSACTION
        return
    machine.accept()
    said = machine.data_to_send()
    assert said.startswith(b"+OK ") or (said == b"" and row in (State.OPENING, State.HANDED_OVER))
    assert machine.state is row
    if row is State.OPENING:
        assert isinstance(machine.next_event(), OpenMailbox)
        machine.open_mailbox([1], [b"x"])
        assert seen(machine)["state"] is State.TRANSACTION
    elif isinstance(event, Retrieve):
        machine.end_of_message()
        assert seen(machine)["state"] is State.TRANSACTION


@pytest.mark.parametrize(("profile", "mode", "state", "verb"), PAIRS)
def test_a_command_that_the_application_refuses_changes_nothing(
    profile: Profile, mode: Mode, state: State, verb: str
) -> None:
    machine = machine_in(state, profile, mode)
    before = seen(machine)
    machine.receive_data(line_of(verb))
    event = machine.next_event()
    if not machine.answer_owed:
        return
    machine.reply("-ERR", "Not now")
    assert machine.data_to_send() == b"-ERR Not now\r\n"
    after = seen(machine)
    if verb == "PASS":
        assert after == {**before, "state": State.AUTHORIZATION}  # the user is forgotten
    elif verb == "QUIT":
        assert after == {**before, "state": State.CLOSED}
    else:
        assert after == before
    assert isinstance(event, Event)


@pytest.mark.parametrize(("profile", "mode"), TABLES)
def test_the_table_is_whole(profile: Profile, mode: Mode) -> None:
    assert set(command_table(profile, mode)) == {(s, v) for s in command_states(mode) for v in COMMANDS}


def test_what_the_rfcs_fix_in_the_default_table() -> None:
    """Said here independently of `command_table`."""
    table = command_table(DEFAULT)
    states = command_states(Mode.WHOLE)
    known = {state: {v for v in COMMANDS if table[state, v] is not answers.NOT_IMPLEMENTED} for state in states}
    # RFC 1939 sections 4 and 7, RFC 2449 section 5, RFC 5034 section 4, RFC 2595 section 4, RFC 6856 sections 2 and 3
    login = {"CAPA", "AUTH", "USER", "PASS", "STLS", "UTF8", "LANG", "QUIT"}
    assert known[State.AUTHORIZATION] == known[State.USER] == login
    # RFC 1939 sections 5 and 7; LAST is RFC 1460's
    mailbox = {"CAPA", "LANG", "STAT", "LIST", "UIDL", "RETR", "TOP", "DELE", "RSET", "LAST", "NOOP", "QUIT"}
    assert known[State.TRANSACTION] == mailbox
    assert table[State.AUTHORIZATION, "PASS"] is answers.NEED_USER  # RFC 1939 section 7
    assert table[State.USER, "PASS"] is State.OPENING
    assert table[State.USER, "STLS"] is table[State.AUTHORIZATION, "STLS"] is State.TLS
    for state in command_states(Mode.WHOLE):
        assert table[state, "QUIT"] is State.CLOSED
    handed_over = command_table(DEFAULT, Mode.LOGIN)
    assert handed_over[State.USER, "PASS"] is handed_over[State.AUTHORIZATION, "AUTH"] is State.HANDED_OVER


def test_what_the_original_knows() -> None:
    table = command_table(COMPAT)
    login = {v for v in COMMANDS if table[State.AUTHORIZATION, v] is not answers.NOT_IMPLEMENTED}
    assert login == {"CAPA", "AUTH", "USER", "PASS", "QUIT", "STLS"}  # and STLS, where it is offered
    mailbox = {v for v in COMMANDS if table[State.TRANSACTION, v] is not answers.NOT_IMPLEMENTED}
    assert mailbox == {"CAPA", "DELE", "LAST", "LIST", "NOOP", "QUIT", "RETR", "RSET", "STAT", "TOP", "UIDL"}


@pytest.mark.parametrize("verb", ["STLS", "UTF8", "USER", "PASS"])
def test_what_is_not_offered_is_not_there(verb: str) -> None:
    machine = POP3Server()
    playing = player(machine)
    playing.step()
    playing.receive(line_of(verb))
    assert playing.outcome.output == b"+OK \r\n-ERR Unimplemented\r\n"
