"""The IMAP server machine: transcripts and the original's recorded sessions under every split, the order of commands
over every pair, any bytes, bounds, and misuse."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfront_proto.imap import (
    COMPAT,
    DEFAULT,
    NEED_DATA,
    PAUSED,
    Answered,
    Connected,
    ConnectionClosed,
    HandOver,
    Identified,
    IMAPServer,
    Limits,
    LocalProtocolError,
    Profile,
    Reply,
    Secret,
    ServerOptions,
    StartTLS,
    State,
    VerifyPassword,
)
from mailfront_proto.imap.states import COMMAND_STATES, COMMANDS, command_table
from mailfront_proto.testing import (
    Outcome,
    Player,
    assert_chunk_invariant,
    assert_linear,
    assert_memory_bounded,
    assert_output_bounded,
    assert_total,
    byte_by_byte,
    random_cuttings,
    whole,
)
from tests.golden.recorded import Session, load
from tests.proto.imap_script import Transcript, application, player, said, server

BOTH = pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
GREETING = b"* OK [CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN] imapfront ready.\r\n"


def answers_to(*segments: bytes, profile: Profile = DEFAULT, few: bool = False) -> bytes:
    """What is said to `segments` behind the greeting, under every split (or a few)."""
    splits = random_cuttings(segments, 5) if few else None
    outcome = assert_chunk_invariant(lambda: player(server(profile)), segments, splits)
    return outcome.output.partition(b"\r\n")[2]


TRANSCRIPTS = Transcript.load(Path(__file__).parents[1] / "transcripts" / "imap")


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_transcript_under_every_split(transcript: Transcript) -> None:
    transcript.check(assert_chunk_invariant(lambda: player(transcript.machine()), transcript.segments))


# -- recorded sessions of the original ---------------------------------------------------------------------


def recorded() -> list[Any]:
    """Those of the protocol: without a CVM nothing of it is spoken."""
    return [pytest.param(s, id=s.name) for s in load() if s.argv[0] == "imapfront-auth" and s.name != "imap-no-cvm"]


def machine_of(session: Session) -> IMAPServer:
    env = session.env
    failures = int(env.get("MAXAUTHFAIL", "0"))
    machine = server(replace(COMPAT, limits=replace(COMPAT.limits, auth_failures=failures or None)))
    machine.sasl = ServerOptions(("LOGIN", "PLAIN"))
    capabilities = env.get("IMAP_CAPABILITY", env.get("CAPABILITY", "")).split()
    if env.get("IMAP_ACL", "0") != "0":
        capabilities += ["ACL", "ACL2=UNION"]
    if env.get("OUTBOX"):
        capabilities.append(f"XCOURIEROUTBOX=INBOX{env['OUTBOX']}")
    if env.get("IMAP_MOVE_EXPUNGE_TO_TRASH", "0") != "0":
        capabilities.append("XMAGICTRASH")
    machine.application_capabilities = capabilities
    return machine


def segments_of(session: Session) -> list[bytes]:
    """What the client sends, cut where it must wait: behind a line that ends in a literal or begins an exchange."""
    cut = re.split(rb"(?<=\}\r\n)|(?<=AUTHENTICATE PLAIN\r\n)|(?<=AUTHENTICATE LOGIN\r\n)|(?<=am9l\r\n)", session.stdin)
    return [piece for piece in cut if piece]


@pytest.mark.parametrize("session", recorded())
def test_recorded_session_under_every_split(session: Session) -> None:
    outcome = assert_chunk_invariant(lambda: player(machine_of(session)), segments_of(session))
    protocol, second_stage, told = session.outcome.stdout.partition(b"second stage: ")
    assert outcome.output == protocol
    last = outcome.events[-1]
    assert isinstance(last, HandOver) is bool(second_stage)
    if isinstance(last, HandOver):
        assert told == last.tag + b" " + last.username.encode() + b"\n"
    log = [line.decode("latin-1").partition(": ")[2] for line in session.outcome.stderr]
    assert said(outcome) == [line for line in log if not line.startswith("SASL AUTH")]


# -- the order of commands ---------------------------------------------------------------------------------

ARGUMENTS = {"LOGIN": " joe secret", "AUTHENTICATE": " PLAIN AGpvZQBzZWNyZXQ=", "ID": " NIL"}


def machine_in(state: State, profile: Profile) -> IMAPServer:
    machine = server(profile)
    machine.offers_starttls = True
    if state is State.PROTECTED:
        machine.tls_established()
    Player(machine, application).step()
    assert machine.state is state
    return machine


@BOTH
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("state", COMMAND_STATES, ids=[state.value for state in COMMAND_STATES])
def test_every_pair_of_the_table(state: State, name: str, profile: Profile) -> None:
    row = command_table(profile)[state, name]
    machine = machine_in(state, profile)
    machine.receive_data(f"a {name}{ARGUMENTS.get(name, '')}\r\n".encode())
    event = machine.next_event()
    if isinstance(row, Reply):
        assert isinstance(event, Answered) and event.reply == row and event.command == name
        assert machine.data_to_send() == f"a {row}\r\n".encode()
        assert machine.state is state
        return
    if machine.answer_owed:
        assert machine.next_event() is PAUSED
        assert machine.data_to_send() == b""
        machine.accept()
    else:
        assert f"a OK {name} completed\r\n".encode() in machine.data_to_send()
    assert machine.state is row


@pytest.mark.parametrize("name", ["STARTTLS", "LOGIN", "AUTHENTICATE"])
@pytest.mark.parametrize("state", COMMAND_STATES, ids=[state.value for state in COMMAND_STATES])
def test_a_command_that_the_application_refuses_changes_nothing(state: State, name: str) -> None:
    if isinstance(command_table(DEFAULT)[state, name], Reply):
        return
    machine = machine_in(state, DEFAULT)
    machine.receive_data(f"a {name}{ARGUMENTS.get(name, '')}\r\n".encode())
    machine.next_event()
    machine.reply("NO", "Not now")
    assert machine.state is state
    assert machine.data_to_send().startswith(b"a NO ")
    assert machine.username == ""


def test_the_table_is_whole() -> None:
    for profile in (DEFAULT, COMPAT):
        assert set(command_table(profile)) == {(state, name) for state in COMMAND_STATES for name in COMMANDS}


# -- the hand-over -----------------------------------------------------------------------------------------


LOGINS = [b"LOGIN joe secret", b"AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=", b'LOGIN "joe" {6+}\r\nsecret']


@pytest.mark.parametrize("login", LOGINS)
def test_what_follows_a_login_is_handed_over(login: bytes) -> None:
    wire = b"t1 " + login + b"\r\nt2 SELECT INBOX\r\nt3 LOGOUT\r\n"
    for at in range(len(wire) + 1):
        machine = server()
        session = player(machine)
        session.play(whole([wire[:at]]), eof=False)
        if machine.state is not State.HANDED_OVER:
            machine.receive_data(wire[at:])
            session.step()
            rest = b""
        else:
            rest = wire[at:]
            with pytest.raises(LocalProtocolError, match="next owner"):
                machine.receive_data(b"x")
        assert session.outcome.events[-1] == HandOver(b"t1", "joe", login.split(b" ")[0].decode())
        assert session.outcome.output == GREETING
        assert machine.trailing_data + rest == b"t2 SELECT INBOX\r\nt3 LOGOUT\r\n"
        assert machine.trailing_data == machine.trailing_data
        assert machine.next_event() == session.outcome.events[-1]


# -- words -------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    st.sampled_from(["a", "A001", "x.y[z]", "-"]),
    st.binary(min_size=1, max_size=30).filter(lambda data: b"\0" not in data),
    st.binary(min_size=1, max_size=30).filter(lambda data: b"\0" not in data),
    st.lists(st.integers(0, 2), min_size=2, max_size=2),
    st.integers(0, 2**16),
)
def test_any_name_and_password_arrive_as_they_were_printed(
    tag: str, name: bytes, password: bytes, forms: list[int], seed: int
) -> None:
    def printed(data: bytes, form: int) -> bytes:
        if form == 0 and re.fullmatch(rb"[^\x00-\x20(){%*\"\\\x7f-\xff]+", data):
            return data
        if form == 1 and not re.search(rb"[\r\n]", data):
            return b'"' + data.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
        return b"{%d+}\r\n%b" % (len(data), data)

    wire = b"%b LOGIN %b %b\r\n" % (tag.encode(), printed(name, forms[0]), printed(password, forms[1]))
    seen = []

    def react(machine: IMAPServer, event: object) -> None:
        if isinstance(event, VerifyPassword):
            seen.append((event.username.encode(), event.password.reveal()))
            machine.reply("NO")
        elif machine.answer_owed:
            machine.accept()

    cut = seed % len(wire)
    Player(server(), react).play([[piece for piece in (wire[:cut], wire[cut:]) if piece]])
    try:
        clean = all(c >= " " and not "\x7f" <= c <= "\x9f" for c in name.decode("utf-8"))
    except UnicodeDecodeError:
        clean = False
    clean = clean and all(byte >= 0x20 and byte != 0x7F for byte in password)
    assert seen == ([(name, password)] if clean else [])


WORDS = [b"a", b" ", b"LOGIN", b"AUTHENTICATE", b"PLAIN", b"ID", b"NOOP", b'"', b"\\", b"{3}", b"{3+}", b"{", b"}"]
WORDS += [b"(", b")", b"\r\n", b"\r", b"\n", b"\0", b"*", b"+", b"NIL", b"{0}", b"{99999+}", b"\xc3\xbc"]
WORDS += [b"AGpvZQBzZWNyZXQ=", b"x" * 40]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(WORDS), max_size=40).map(b"".join), st.booleans())
def test_any_words_are_answered_however_they_are_cut(data: bytes, compat: bool) -> None:
    small = Limits(command_line=100, auth_line=150, literal=20, arguments=4, tag=10)
    profile = replace(COMPAT if compat else DEFAULT, limits=small)
    outcome = assert_total(lambda: player(server(profile)), data)
    assert_chunk_invariant(lambda: player(server(profile)), [data], [whole([data]), byte_by_byte([data])])
    check_output(outcome)


def check_output(outcome: Outcome) -> None:
    assert outcome.output.endswith(b"\r\n")
    for line in outcome.output.split(b"\r\n")[:-1]:
        assert not set(line) & {0, 10, 13, 27, 127}
        assert re.match(rb"\+ |\* Logging out|[^ ]+ (OK|NO|BAD|BYE|CAPABILITY|ID)", line), line


@BOTH
@given(st.binary(max_size=300))
def test_any_bytes_are_answered(profile: Profile, data: bytes) -> None:
    assert_total(lambda: player(server(profile)), data)


def test_id_is_told() -> None:
    outcome = player(server()).play([[b'a ID ("Name" "x" "os" NIL {2+}\r\nab "NIL")\r\nb ID NIL\r\n']]).outcome
    assert [e for e in outcome.events if isinstance(e, Identified)] == [
        Identified({"name": "x", "os": None, "ab": "NIL"}),
        Identified({}),
    ]


def test_our_own_id_is_quoted() -> None:
    machine = server()
    machine.server_id = {"name": 'a"b\\c', "vendor": "x\r\ny\xe9"}
    machine.receive_data(b"a ID NIL\r\n")
    assert b'* ID ("name" "a\\"b\\\\c" "vendor" "x??y?")\r\n' in Player(machine, application).play([]).outcome.output
    machine = server()
    machine.server_id = {}
    machine.receive_data(b"a ID NIL\r\n")
    assert b"* ID NIL\r\n" in Player(machine, application).play([]).outcome.output


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (b'("%b" "x")' % (b"f" * 30), b"a OK"),
        (b'("%b" "x")' % (b"f" * 31), b"a BAD"),
        (b'("f" {1024+}\r\n%b)' % (b"v" * 1024), b"a OK"),
        (b'("f" {1025+}\r\n%b)' % (b"v" * 1025), b"a BAD"),
        (b"(" + b" ".join(b'"%d" NIL' % n for n in range(30)) + b")", b"a OK"),
        (b"(" + b" ".join(b'"%d" NIL' % n for n in range(31)) + b")", b"a BAD Too many"),
        (b"(NIL NIL)", b"a BAD"),
    ],
)
def test_limits_of_id(arguments: bytes, answer: bytes) -> None:
    outcome = player(server()).play([[b"a ID " + arguments + b"\r\n"]]).outcome
    assert b"\r\n" + answer in outcome.output


# -- bounds ------------------------------------------------------------------------------------------------


def test_lines_and_literals_at_their_limits() -> None:
    limits = Limits(command_line=20, auth_line=30, literal=10)
    profile = replace(DEFAULT, limits=limits)
    assert answers_to(b"a FOO %b\r\n" % (b"x" * 12), profile=profile) == b"a BAD Unimplemented command\r\n"
    assert answers_to(b"a FOO %b\r\n" % (b"x" * 13), profile=profile) == b"a BAD Command line too long\r\n"
    lost = b"* BYE Command too long, closing connection\r\n"
    assert answers_to(b"a FOO %b\r\nb NOOP\r\n" % (b"x" * 40), profile=profile) == lost
    assert answers_to(b"a LOGIN {10+}\r\n%b x\r\n" % (b"x" * 10), profile=profile).startswith(b"a NO [AUTH")
    assert answers_to(b"a LOGIN {11}\r\n", profile=profile) == b"a BAD Literal too long\r\n"
    # AUTHENTICATE has its own limit, and so has a response
    response = b"AGpvZQBzZWNyZXQ="
    assert answers_to(b"a AUTHENTICATE PLAIN " + response + b"\r\n", profile=profile) == lost
    roomy = replace(DEFAULT, limits=replace(limits, auth_line=40))
    assert answers_to(b"a AUTHENTICATE PLAIN " + response + b"\r\n", profile=roomy) == b""
    too_long = answers_to(b"a AUTHENTICATE PLAIN\r\n", b"x" * 60 + b"\r\nb NOOP\r\n", profile=roomy)
    refusal = b"a NO AUTHENTICATE failed: Authentication exchange line is too long\r\n"
    assert too_long == b"+ \r\n" + refusal + b"b OK NOOP completed\r\n"


def test_tags_and_arguments_at_their_limits() -> None:
    profile = replace(DEFAULT, limits=replace(DEFAULT.limits, tag=3, arguments=2))
    assert answers_to(b"abc NOOP\r\n", profile=profile) == b"abc OK NOOP completed\r\n"
    assert answers_to(b"abcd NOOP\r\n", profile=profile) == b"* BAD Syntax error\r\n"
    assert answers_to(b"a FOO x x\r\n", profile=profile) == b"a BAD Unimplemented command\r\n"
    assert answers_to(b"a FOO x x x\r\n", profile=profile) == b"a BAD Too many command arguments\r\n"
    assert answers_to(b"a FOO x x {1}\r\n", profile=profile) == b"a BAD Too many command arguments\r\n"
    assert answers_to(b"a FOO x x ()\r\n", profile=profile) == b"a BAD Too many command arguments\r\n"


@pytest.mark.parametrize(
    ("limit", "line", "count", "last"),
    [
        ("errors_in_row", b"a FOO\r\n", 3, b"* BYE Too many errors, closing connection\r\n"),
        ("errors", b"a FOO\r\nb NOOP\r\n", 3, b"* BYE Too many errors, closing connection\r\n"),
        ("idle_commands", b"a NOOP\r\n", 3, b"* BYE Too many commands without a login, closing connection\r\n"),
        ("auth_failures", b"a LOGIN x y\r\n", 2, b"* BYE Too many failed logins, closing connection\r\n"),
    ],
)
def test_budgets(limit: str, line: bytes, count: int, last: bytes) -> None:
    profile = replace(DEFAULT, limits=replace(DEFAULT.limits, **{limit: 2}))
    assert not answers_to(line * (count - 1), profile=profile).endswith(last)
    outcome = player(server(profile)).play([[line * count]]).outcome
    assert outcome.output.endswith(last)
    assert isinstance(outcome.events[-1], ConnectionClosed) and outcome.events[-1].reply is not None


@BOTH
def test_memory_is_bounded(profile: Profile) -> None:
    def endless() -> Player[IMAPServer]:
        unlimited = replace(profile.limits, errors=None, errors_in_row=None, idle_commands=None)
        return player(server(replace(profile, limits=unlimited)))

    kib = 1024 * (200 if profile is DEFAULT else 400)
    assert_memory_bounded(endless, b"x" * 100, kib)
    assert_memory_bounded(endless, b"a FOO {4000+}\r\n" + b"x" * 4000 + b"\r\n", kib, size=1024 * 1024)
    assert_memory_bounded(endless, b"a LOGIN {9999999+}\r\n" + b"x" * 9999999, kib)
    assert_memory_bounded(endless, b'a LOGIN "joe" {9}\r\n' + b"x" * 9, kib, size=1024 * 1024)
    assert_output_bounded(endless, b"a CAPABILITY\r\n", 500)


def test_work_is_linear_byte_by_byte() -> None:
    def endless() -> Player[IMAPServer]:
        unlimited = replace(DEFAULT.limits, errors=None, errors_in_row=None, idle_commands=None, auth_failures=None)
        return player(server(replace(DEFAULT, limits=unlimited)))

    def begun(head: bytes) -> Player[IMAPServer]:
        session = endless()
        session.play([[head]], eof=False)
        return session

    words = (b"a NOOP\r\n", b"a FOO (x x x x)\r\n", b'a LOGIN "x\\\\x" {2+}\r\nxx\r\n', b"a AUTHENTICATE PLAIN x\r\n")
    for pattern in words:
        assert_linear(endless, pattern, size=300)
    assert_linear(lambda: begun(b"a LOGIN {4000}\r\n"), b"x", size=300)
    assert_linear(lambda: begun(b"a LOGIN {400000+}\r\n"), b"x", size=300)
    assert_linear(lambda: begun(b'a FOO "'), b"\\\\", size=300)


# -- the application ---------------------------------------------------------------------------------------


def test_the_connection_can_be_refused() -> None:
    machine = IMAPServer()
    machine.receive_data(b"early")
    assert machine.next_event() == Connected(early_talker=True)
    machine.reply("BYE", "Too many connections")
    assert machine.data_to_send() == b"* BYE Too many connections\r\n"
    reply = Reply("BYE", "Too many connections")
    assert machine.next_event() == Answered("* BYE Too many connections", reply)
    assert machine.next_event() == ConnectionClosed("refused", False, reply)


def test_words_of_the_application() -> None:
    def react(machine: IMAPServer, event: object) -> None:
        if isinstance(event, VerifyPassword):
            machine.reply("NO", "Try\r\n* OK later\x1b", "EXPIRED")
        elif isinstance(event, StartTLS):
            machine.reply("NO")
        else:
            application(machine, event)

    machine = server()
    machine.offers_starttls = True
    outcome = Player(machine, react).play([[b"a LOGIN joe secret\r\nb STARTTLS\r\n"]]).outcome
    assert outcome.output.endswith(b"a NO [EXPIRED] Try??* OK later?\r\nb NO TLS is not available now\r\n")


def test_a_request_does_not_show_its_password() -> None:
    machine = server()
    session = Player(machine, application)
    machine.receive_data(b"a LOGIN joe {6+}\r\nsecret\r\n")
    session.machine.next_event()
    machine.accept()
    machine.next_event()
    event = machine.next_event()
    assert event == VerifyPassword("LOGIN", "", "joe", Secret(b"secret"), "")
    assert "secret" not in repr(event)


def test_misuse() -> None:
    machine = server()
    with pytest.raises(LocalProtocolError, match="no answer is owed"):
        machine.accept()
    with pytest.raises(LocalProtocolError, match="no answer is owed"):
        machine.reply("NO")
    with pytest.raises(LocalProtocolError, match="supply_keys"):
        machine.supply_keys(None)
    machine.next_event()
    with pytest.raises(LocalProtocolError, match="no refusal"):
        machine.reply("OK")
    machine.accept()
    machine.receive_data(b"a LOGIN joe secret\r\n")
    machine.next_event(), machine.next_event()
    with pytest.raises(LocalProtocolError, match="no refusal of VerifyPassword"):
        machine.reply("BYE")
    with pytest.raises(LocalProtocolError, match="tls_established"):
        machine.tls_established()
    machine.accept()
    machine.abort(Reply("BYE", "x"))  # the connection is another's
    assert machine.data_to_send() == GREETING


def test_a_long_tag_comes_back_in_compat() -> None:
    tag = b"x" * 60_000
    assert answers_to(tag + b" NOOP\r\n", profile=COMPAT, few=True) == tag + b" OK NOOP completed\r\n"


def test_tls_begins_before_all_else_or_behind_starttls() -> None:
    machine = server()
    machine.next_event()
    with pytest.raises(LocalProtocolError, match="before all else"):
        machine.tls_established()


def test_starttls_that_is_refused_again_and_again_ends() -> None:
    def react(machine: IMAPServer, event: object) -> None:
        if isinstance(event, StartTLS):
            machine.reply("NO")
        else:
            application(machine, event)

    machine = server()
    machine.offers_starttls = True
    outcome = Player(machine, react).play([[b"a STARTTLS\r\n"] * 200]).outcome
    assert outcome.output.endswith(b"* BYE Too many commands without a login, closing connection\r\n")


def test_abort() -> None:
    machine = server()
    machine.next_event()
    machine.accept()
    machine.data_to_send()
    machine.receive_data(b"a AUTHENTICATE LOGIN\r\n")
    machine.next_event(), machine.next_event()
    machine.abort(Reply("BYE", "Connection timed out"))
    assert machine.data_to_send() == b"+ VXNlcm5hbWU6\r\n* BYE Connection timed out\r\n"
    reply = Reply("BYE", "Connection timed out")
    assert machine.next_event() == Answered("* BYE Connection timed out", reply)
    assert machine.next_event() == ConnectionClosed("aborted", True, reply)
    machine.receive_data(b"more")
    machine.abort()
    assert machine.next_event() == ConnectionClosed("aborted", True, reply)


def test_eof_in_a_handshake_and_in_an_exchange() -> None:
    for begin in (b"a STARTTLS\r\n", b"a AUTHENTICATE LOGIN\r\n"):
        machine = server()
        machine.offers_starttls = True
        outcome = player(machine).play([[begin]]).outcome
        assert outcome.events[-1] == ConnectionClosed("EOF", unfinished=True)
    assert player(server()).play([[b"a NOOP"]]).outcome.events[-1] == ConnectionClosed("EOF")


def test_bytes_of_a_handshake_are_not_the_machines() -> None:
    machine = server()
    machine.offers_starttls = True
    player(machine).play([[b"a STARTTLS\r\n"]], eof=False)
    assert machine.next_event() is PAUSED
    with pytest.raises(LocalProtocolError, match="feed the bytes to TLS"):
        machine.receive_data(b"\x16\x03")
    machine.tls_established()
    assert machine.next_event() is NEED_DATA
