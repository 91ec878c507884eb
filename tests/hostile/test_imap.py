"""IMAP up to the login: H73, H74; and the rows on STARTTLS (both roles), logins, logs and long lines as it has them."""

from dataclasses import replace

import pytest

from mailfront_proto.imap import (
    COMPAT,
    DEFAULT,
    Answered,
    ConnectionClosed,
    HandOver,
    IMAPClient,
    IMAPServer,
    LocalProtocolError,
    Profile,
    RemoteProtocolError,
    Secret,
    State,
    VerifyPassword,
)
from mailfront_proto.sasl import PlainClient
from mailfront_proto.testing import Outcome, assert_chunk_invariant, assert_memory_bounded
from tests.proto.imap_script import player, said, server

PROFILES = pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])


def outcome_of(*segments: bytes, profile: Profile = DEFAULT) -> Outcome:
    return assert_chunk_invariant(lambda: player(server(profile)), segments)


def answers_to(*segments: bytes, profile: Profile = DEFAULT) -> list[bytes]:
    """The lines behind the greeting."""
    return outcome_of(*segments, profile=profile).output.split(b"\r\n")[1:-1]


# -- literals and words ------------------------------------------------------------------------------------


LITERALS = [b"{4294967295}", b"{4294967296}", b"{-1}", b"{}", b"{99999999999}", b"{+}", b"{1_0}", b"{ 3}", b"{3"]
LITERALS += [b"{\xb2}"]


@PROFILES
@pytest.mark.parametrize("literal", LITERALS)
def test_h73_literals_that_are_refused_before_any_plus(literal: bytes, profile: Profile) -> None:
    for command in (b"LOGIN", b"AUTHENTICATE", b"FOO"):
        lines = answers_to(b"a " + command + b" " + literal + b"\r\nb NOOP\r\n", profile=profile)
        assert [line[:6] for line in lines] == [b"a BAD ", b"b OK N"]


COMMANDS = [b"LOGIN", b"LOGIN joe x", b"FOO", b"NOOP", b'FOO "', b"LOGIN )", b"", b"LOGIN (\x01"]


@PROFILES
@pytest.mark.parametrize("command", COMMANDS)
def test_h73_the_payload_of_a_literal_that_does_not_wait_is_never_run(command: bytes, profile: Profile) -> None:
    payload = b"x LOGIN joe secret\r\n"
    wire = b"a %b {%d+}\r\n%b\r\nb NOOP\r\n" % (command, len(payload), payload)
    outcome = outcome_of(wire, profile=profile)
    assert not [event for event in outcome.events if isinstance(event, VerifyPassword) and event.username == "joe"]
    lines = outcome.output.split(b"\r\n")[1:-1]
    assert lines[-1] == b"b OK NOOP completed" and lines[0][:6] in (b"a BAD ", b"* BAD ", b"a NO [") and len(lines) == 2


@PROFILES
@pytest.mark.parametrize("size", [b"99999999999", b"9" * 40])
def test_h73_or_the_connection_ends(size: bytes, profile: Profile) -> None:
    outcome = outcome_of(b"a LOGIN {" + size + b"+}\r\nx LOGIN joe secret\r\n", profile=profile)
    assert isinstance(outcome.events[-1], ConnectionClosed)
    assert outcome.events[-1].reply is not None
    assert "VerifyPassword" not in outcome.kinds()


def test_h73_a_line_that_is_too_long_may_end_in_a_literal_so_that_it_ends_the_connection() -> None:
    wire = b"a FOO " + b"x" * 20_000 + b" {20+}\r\nx LOGIN joe secret\r\n\r\n"
    outcome = assert_chunk_invariant(lambda: player(server()), [wire], [[[wire]], [[wire[:9000], wire[9000:]]]])
    assert outcome.output.endswith(b"* BYE Command too long, closing connection\r\n")
    assert "VerifyPassword" not in outcome.kinds()


@PROFILES
def test_h73_literals_cost_constant_memory(profile: Profile) -> None:
    assert_memory_bounded(lambda: player(server(profile)), b"a FOO {4294967295+}\r\n" + b"x" * 5_000_000, 400_000)


TAGS = [b"*", b"+", b'"a"', b"a*", b"a{3}", b"(a)", b"a%", b"a\\b", b"\xc3\xbc", b"a\0b", b"a\x1b", b"x" * 257]


@pytest.mark.parametrize("tag", TAGS)
def test_h74_tags_that_are_none(tag: bytes) -> None:
    assert answers_to(tag + b" NOOP\r\nb NOOP\r\n") == [b"* BAD Syntax error", b"b OK NOOP completed"]


@pytest.mark.parametrize("tag", [b"a\0b", b"a\x1b[2J", b"a\x7f"])
def test_h74_control_bytes_in_tags_come_back_in_no_profile(tag: bytes) -> None:
    assert answers_to(tag + b" NOOP\r\n", profile=COMPAT) == [b"* BAD Syntax error"]


@PROFILES
def test_h74_a_hundred_arguments(profile: Profile) -> None:
    for words in (b" x" * 100, b' ""' * 100, b" {0+}\r\n" * 16 + b" x"):
        lines = answers_to(b"a FOO" + words + b"\r\nb NOOP\r\n", profile=profile)
        assert lines[0].startswith(b"a BAD ") and lines[-1] == b"b OK NOOP completed"


def test_h74_nested_parentheses() -> None:
    for words in (b"(" * 1000, b"(" * 1000 + b")" * 1000, b"((x))", b"(x", b"x)", b")", b"() ()", b"(()"):
        lines = answers_to(b"a ID " + words + b"\r\nb NOOP\r\n")
        assert lines[0].startswith(b"a BAD ") and lines[1:] == [b"b OK NOOP completed"]


def test_h74_nul_and_bare_cr_in_strings() -> None:
    for word in (b'"a\0b"', b'"a\rb"', b"a\0b", b"a\rb"):
        assert answers_to(b"a LOGIN " + word + b" x\r\n")[0].startswith(b"a BAD Syntax error")
    assert answers_to(b"a LOGIN {3+}\r\na\0b x\r\n") == [b"a NO [AUTHENTICATIONFAILED] LOGIN failed"]


# -- STARTTLS ----------------------------------------------------------------------------------------------


def with_tls() -> IMAPServer:
    machine = server()
    machine.offers_starttls = True
    return machine


def test_h31_plain_text_behind_starttls_is_refused_and_never_read() -> None:
    refusal = b"a BAD Commands may not follow STARTTLS before TLS\r\n"
    refusal += b"* BYE Plain text behind STARTTLS, closing connection\r\n"
    wire = b"a STARTTLS\r\nb LOGIN joe secret\r\n"
    for at in range(wire.index(b"b LOGIN") + 1, len(wire) + 1):
        machine = with_tls()
        session = player(machine).play([[wire[:at]]], eof=False)
        assert session.outcome.output.endswith(refusal)
        assert "StartTLS" not in session.outcome.kinds() and "VerifyPassword" not in session.outcome.kinds()
        assert machine.state is State.CLOSED
    # It may also come while the application thinks.
    machine = with_tls()
    player(machine).step()
    machine.receive_data(wire[:12])
    machine.next_event()
    machine.receive_data(wire[12:])
    machine.accept()
    assert machine.data_to_send() == refusal


def test_h31_nor_is_half_a_line() -> None:
    machine = with_tls()
    player(machine).play([[b"a STARTTLS\r\n"]], eof=False)
    with pytest.raises(LocalProtocolError, match="TLS"):
        machine.receive_data(b"b NOOP\r\n")


def test_h32_nothing_is_left_of_what_came_before() -> None:
    machine = with_tls()
    session = player(machine)
    session.play([[b"a LOGIN joe no\r\nb AUTHENTICATE LOGIN\r\n"], [b"*\r\nc STARTTLS\r\n"]], eof=False)
    assert machine.state is State.TLS
    machine.tls_established()
    assert (machine.state, machine.username, machine.in_tls) == (State.PROTECTED, "", True)
    assert "STARTTLS" not in machine.capabilities
    session.receive(b"d CAPABILITY\r\n")
    assert b"* CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN\r\n" in session.writes[-1]


def test_h33_starttls_takes_no_argument_and_comes_once() -> None:
    machine = with_tls()
    session = player(machine).play([[b"a STARTTLS x\r\n"]], eof=False)
    assert session.outcome.output.endswith(b"a BAD Syntax error: command requires no arguments\r\n")
    session.play([[b"b STARTTLS\r\n"], [b"c STARTTLS\r\n"]], eof=False)
    assert session.outcome.output.endswith(b"c BAD TLS is in use already\r\n")
    assert answers_to(b"a STARTTLS\r\n") == [b"a BAD Unimplemented command"]  # where it is not offered


# -- logins and logs ---------------------------------------------------------------------------------------


def test_h39_login_is_disabled_unless_configured() -> None:
    machine = IMAPServer()
    session = player(machine).play([[b"a LOGIN joe secret\r\nb AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=\r\n"]], eof=False)
    assert "LOGINDISABLED" in machine.capabilities
    assert "VerifyPassword" not in session.outcome.kinds()
    assert b"a NO [PRIVACYREQUIRED] LOGIN is disabled\r\nb NO [CANNOT] " in session.outcome.output


def test_h39_a_password_that_would_be_refused_is_not_asked_for() -> None:
    """A client that sends it without waiting shows it in no log."""
    session = player(IMAPServer()).play([[b"a LOGIN joe {6}\r\n"]], eof=False)
    assert session.outcome.output.endswith(b"ready.\r\na NO [PRIVACYREQUIRED] LOGIN is disabled\r\n")
    session.play([[b"secret\r\n"]], eof=False)
    assert not any("secret" in repr(event) for event in session.outcome.events)


@PROFILES
@pytest.mark.parametrize("bad", [b"\0", b"a\nb", b"a\rb", b"\x7f", b"\x1b"])
def test_h41_control_bytes_in_names_and_passwords(bad: bytes, profile: Profile) -> None:
    mark = b"" if profile is COMPAT else b"+"
    for words in ((bad, b"x"), (b"joe", bad)):
        segments = []
        for word in words:
            segments += [b"{%d%b}\r\n" % (len(word), mark), word + b" "]
        segments = [b"a LOGIN " + segments[0], segments[1] + segments[2], segments[3][:-1] + b"\r\nb NOOP\r\n"]
        outcome = outcome_of(*(segments if profile is COMPAT else [b"".join(segments)]), profile=profile)
        assert "VerifyPassword" not in outcome.kinds()
        assert outcome.output.endswith(b"LOGIN failed\r\nb OK NOOP completed\r\n")


def test_h42_odd_responses_fail_and_the_session_goes_on() -> None:
    for response in (b"", b"*", b"=", b"!", b"A", b"AGpvZQBzZWNyZXQ", b"AGpvZQBzZWNyZXQ= ", b"x" * 90, b"\0", b"AAAA"):
        profile = replace(DEFAULT, limits=replace(DEFAULT.limits, command_line=80, auth_line=80))
        lines = answers_to(b"a AUTHENTICATE PLAIN\r\n", response + b"\r\nb NOOP\r\n", profile=profile)
        assert lines[0] == b"+ "
        assert lines[1].startswith((b"a NO ", b"a BAD ")) and lines[2] == b"b OK NOOP completed"


@PROFILES
def test_h43_attempts_are_counted_and_end(profile: Profile) -> None:
    limited = replace(profile, limits=replace(profile.limits, auth_failures=2))
    outcome = outcome_of(b"a LOGIN x y\r\nb AUTHENTICATE PLAIN AHgAeQ==\r\nc NOOP\r\n", profile=limited)
    assert b"c OK" not in outcome.output
    assert outcome.output.endswith(b"b NO AUTHENTICATE failed: Authentication failed.\r\n") is (profile is COMPAT)
    assert outcome.output.endswith(b"* BYE Too many failed logins, closing connection\r\n") is (profile is DEFAULT)


def test_h47_invalid_utf8_in_a_name() -> None:
    assert answers_to(b"a LOGIN {2+}\r\n\xff\xfe x\r\n") == [b"a NO [AUTHENTICATIONFAILED] LOGIN failed"]


SECRETS = [
    [b"a LOGIN joe hunter2\r\n"],
    [b'a LOGIN joe "hunter2"\r\n'],
    [b'a LOGIN joe "hunter2\r\n'],
    [b"a LOGIN joe hunter2 hunter2\r\n"],
    [b"a LOGIN joe {7}\r\n", b"hunter2\r\n"],
    [b"a LOGIN joe {7+}\r\nhunter2\r\n"],
    [b"a LOGIN joe {99999}\r\nhunter2\r\n"],
    [b"a LOGIN joe {99999}\r\nhunter2 and more of it\r\n"],
    [b"a LOGIN joe {}\r\nhunter2\r\nhunter2 x\r\n"],
    [b"a LOGNI joe hunter2\r\n"],
    [b"a LOGIN hunter2"],
    [b"a hunter2\r\n"],
    [b"a AUTHENTICATE PLAIN hunter2\r\n"],
    [b"a AUTHENTICATE hunter2=\r\n"],
    [b"a AUTHENTICATE PLAIN\r\n", b"hunter2\r\n"],
    [b"a AUTHENTICATE NONE\r\nhunter2\r\n"],
    [b"a AUTHENTICATE PLAIN x\r\nhunter2\r\nhunter2\r\n"],
    [b"a AUTHENTICATE LOGIN\r\n", b"am9l\r\n", b"!\r\nhunter2\r\n"],
    # refused before it was under way, while the client did not wait
    [b"a AUTHENTICATE PLAIN {99999}\r\nhunter2\r\nhunter2 x\r\n"],
    [b"a AUTHENTICATE {99999}\r\nhunter2\r\n"],
    [b"a AUTHENTICATE PLAIN (\r\nhunter2\r\n"],
    [b"a AUTHENTICATE\r\nhunter2\r\n"],
    [b"a AUTHENTICATE PLAIN x y\r\nhunter2\r\nhunter2\r\n"],
    [b"a AUTHENTICAT PLAIN\r\nhunter2\r\nhunter2\r\n"],
    [b"a LOGNI joe {99999}\r\nhunter2 and more of it\r\n"],
]


@PROFILES
@pytest.mark.parametrize("segments", SECRETS)
def test_h48_no_password_is_told_for_a_log(segments: list[bytes], profile: Profile) -> None:
    outcome = outcome_of(*segments, profile=profile)
    assert not [line for line in said(outcome) if "hunter2" in line]
    assert "hunter2" not in repr(outcome.events)


def test_h48_tags_are_shown_where_they_are_none() -> None:
    outcome = outcome_of(b"a1 NOOP\r\nb2 FOO\r\nc3 AUTHENTICATE NONE\r\nd4 NOOP\r\ne5\r\n")
    assert [line[:2] for line in said(outcome)] == ["* ", "a1", "b2", "c3", "d4", "e5"]


# -- a hostile server --------------------------------------------------------------------------------------


def at_starttls() -> IMAPClient:
    """A client that has asked for TLS, and awaits the answer."""
    client = IMAPClient()
    client.receive_data(b"* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN] ready\r\n")
    client.next_event()
    client.starttls()
    client.data_to_send()
    return client


def test_h37_preauth_keeps_nobody_from_tls() -> None:
    client = IMAPClient()
    client.receive_data(b"* PREAUTH welcome\r\n")
    with pytest.raises(RemoteProtocolError, match="greets with PREAUTH"):
        client.next_event()
    assert isinstance(client.next_event(), ConnectionClosed)


@pytest.mark.parametrize("behind", [b"* CAPABILITY AUTH=PLAIN\r\n", b"A0002 OK in\r\n", b"x"])
def test_h37_bytes_behind_the_answer_to_starttls_are_fatal(behind: bytes) -> None:
    client = at_starttls()
    client.receive_data(b"A0001 OK go\r\n" + behind)
    with pytest.raises(RemoteProtocolError, match="bytes behind its answer to STARTTLS"):
        client.next_event()
    assert isinstance(client.next_event(), ConnectionClosed)


def test_h37_capabilities_from_before_tls_are_forgotten() -> None:
    client = at_starttls()
    client.receive_data(b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nA0001 OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] go\r\n")
    client.next_event()
    client.tls_established()
    assert not client.capabilities
    with pytest.raises(LocalProtocolError, match="the server offers no mechanism"):
        client.authenticate(PlainClient("joe", Secret(b"x")))


# -- lines -------------------------------------------------------------------------------------------------


def test_h15_input_behind_logout_is_dropped() -> None:
    lines = answers_to(b"a LOGOUT\r\nb LOGIN joe secret\r\n")
    assert lines == [b"* BYE Logging out", b"a OK LOGOUT completed"]


@PROFILES
def test_h17_a_line_of_64_mib_costs_constant_memory(profile: Profile) -> None:
    assert_memory_bounded(lambda: player(server(profile)), b"x", 400_000, size=64 * 1024 * 1024)


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"POST /x HTTP/1.0", b"CONNECT a:1 HTTP/1.1", b"OPTIONS * HTTP/1"])
def test_h86_an_http_request_closes_the_connection(line: bytes) -> None:
    outcome = outcome_of(line + b"\r\nHost: x\r\n\r\na LOGIN joe secret\r\n")
    assert outcome.output.endswith(b"* BYE This is an IMAP server, closing connection\r\n")
    assert [type(event) for event in outcome.events if not isinstance(event, Answered)][1:] == [ConnectionClosed]


def test_h38_input_pipelined_behind_a_login_is_not_lost() -> None:
    wire = b"a LOGIN joe secret\r\nb SELECT INBOX\r\n"
    for at in range(20, len(wire) + 1):
        machine = server()
        session = player(machine).play([[wire[:at]]], eof=False)
        assert isinstance(session.outcome.events[-1], HandOver)
        assert machine.trailing_data == wire[20:at]
