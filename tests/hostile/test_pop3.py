"""POP3: its own rows H75, H76, H80, and what rows of all protocols mean here. Under every split, through the pure
machine."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mailfront_io.auth.static import StaticStore
from mailfront_io.pop3_service import POP3Service
from mailfront_io.session import Session
from mailfront_io.testing import EOF, run_script
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.pop3 import (
    COMPAT,
    DEFAULT,
    ConnectionClosed,
    MessageData,
    Mode,
    POP3Client,
    POP3Server,
    Profile,
    Refused,
    Secret,
    StartTLS,
    State,
    VerifyPassword,
)
from mailfront_proto.sasl import PlainClient, ServerOptions
from mailfront_proto.testing import Outcome, Player, assert_chunk_invariant, few_splits
from tests.certificates import write_pem
from tests.proto.pop3_script import Application, player

BOTH = pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
LOGIN = b"USER joe\r\nPASS secret\r\n"


def split_outcome(
    wire: bytes | Sequence[bytes],
    profile: Profile = DEFAULT,
    *,
    mode: Mode = Mode.MAILBOX,
    messages: Sequence[bytes] = (b"one\n", b"two\n"),
    uids: Sequence[bytes] | None = None,
    few: bool = False,
) -> Outcome:
    """What `wire` leads to, the same under every split (or a few)."""

    def new() -> Player[POP3Server]:
        machine = POP3Server(profile, mode=mode)
        machine.offers_user = machine.offers_stls = True
        machine.sasl = ServerOptions(["PLAIN", "LOGIN"])
        return player(machine, Application(list(messages), None if uids is None else list(uids)))

    segments = [wire] if isinstance(wire, bytes) else wire
    return assert_chunk_invariant(new, segments, few_splits(segments) if few else None)


def lines_of(outcome: Outcome) -> list[bytes]:
    """What was said behind the greeting."""
    return outcome.output.split(b"\r\n")[1:-1]


OUT_OF_RANGE = b"-ERR Message number out of range"
SYNTAX = b"-ERR Syntax error"
NUMBERS = [
    (b"18446744073709551617", OUT_OF_RANGE, OUT_OF_RANGE),  # 2^64+1, which is 1 where it wraps
    (b"4294967297", OUT_OF_RANGE, OUT_OF_RANGE),
    (b"9" * 400, OUT_OF_RANGE, OUT_OF_RANGE),
    (b"0", OUT_OF_RANGE, OUT_OF_RANGE),
    (b"3", OUT_OF_RANGE, OUT_OF_RANGE),
    (b"-1", SYNTAX, SYNTAX),
    (b"1x", SYNTAX, SYNTAX),
    (b"1_0", SYNTAX, SYNTAX),
    (b"+1", SYNTAX, OUT_OF_RANGE),
    (b"x", SYNTAX, OUT_OF_RANGE),
    ("١".encode(), SYNTAX, OUT_OF_RANGE),
    (b"0x1", SYNTAX, OUT_OF_RANGE),
]


@BOTH
@pytest.mark.parametrize(("number", "answer", "of_the_original_retr"), NUMBERS)
def test_h75_numbers(number: bytes, answer: bytes, of_the_original_retr: bytes, profile: Profile) -> None:
    """The original's RETR, which is its TOP, too, looks at other bytes only behind the range."""
    commands = [b"LIST", b"UIDL", b"DELE", b"RETR", b"TOP"]
    wire = b"".join(verb + b" " + number + (b" 1\r\n" if verb == b"TOP" else b"\r\n") for verb in commands)
    outcome = split_outcome(wire, profile, few=len(number) > 30)
    assert lines_of(outcome) == [answer] * 3 + [of_the_original_retr if profile is COMPAT else answer] * 2


@pytest.mark.parametrize(
    "command", ["RETR 1 0", "RETR 1 ", "TOP 1", "TOP 1 ", "TOP 1 0 0", "LIST 1 2", "UIDL 1 2", "DELE 1 2"]
)
def test_each_command_has_the_arguments_of_its_own(command: str) -> None:
    assert lines_of(split_outcome(command.encode() + b"\r\n", DEFAULT)) == [SYNTAX]


def test_retr_and_top_are_one_command_in_the_original() -> None:
    outcome = split_outcome(b"TOP 1\r\nRETR 1\r\nRETR 1 0\r\nTOP 1 0\r\n", COMPAT, messages=[b"a: b\n\none\n"])
    whole, top = b"+OK \r\na: b\r\n\r\none\r\n\r\n.\r\n", b"+OK \r\na: b\r\n\r\n\r\n.\r\n"
    assert outcome.output.endswith(whole + whole + top + top)


@BOTH
def test_h75_zeros_in_front_are_no_other_number(profile: Profile) -> None:
    assert lines_of(split_outcome(b"LIST 01\r\nDELE 00000000000000000000000001\r\nSTAT\r\n", profile)) == [
        b"+OK 1 4", b"+OK ", b"+OK 1 4"
    ]  # fmt: skip


@BOTH
@pytest.mark.parametrize("count", [b"18446744073709551617", b"9" * 100, b"2147483648", b"1" + b"0" * 300])
def test_h75_top_with_huge_counts_is_the_whole_message(count: bytes, profile: Profile) -> None:
    message = b"a: b\n\none\ntwo\n"
    outcome = split_outcome(b"TOP 1 " + count + b"\r\n", profile, messages=[message], few=True)
    assert lines_of(outcome)[:5] == [b"+OK ", b"a: b", b"", b"one", b"two"]
    assert split_outcome(b"TOP 1 -1\r\n", profile).output.endswith(SYNTAX + b"\r\n")


@BOTH
@pytest.mark.parametrize(
    "uid", [b"x\r\n2 forged", b"x\n.\r\nQUIT", b"two words", b"\xff", b"", b"x" * 71, b"\x00", b"caf\xc3\xa9", b"tab\t"]
)
def test_h76_a_uid_cannot_forge_a_line(uid: bytes, profile: Profile) -> None:
    outcome = split_outcome(b"UIDL\r\nUIDL 1\r\n", profile, uids=[uid, b"fine"])
    first, one, two, dot, single = lines_of(outcome)
    number, _, digest = one.partition(b" ")
    assert (first, number, two, dot) == (b"+OK ", b"1", b"2 fine", b".")
    assert len(digest) == 64 and not digest.strip(b"0123456789abcdef")
    assert single == b"+OK " + one
    other = split_outcome(b"UIDL 1\r\n", profile, uids=[uid + b"\xff", b"fine"])
    assert lines_of(other) != [single]  # what differs stays different


def test_h76_uids_of_one_to_seventy_octets_go_out_as_they_are() -> None:
    uids = [bytes(range(0x21, 0x5D)), b"~" * 70]
    assert lines_of(split_outcome(b"UIDL\r\n", uids=uids))[1:3] == [b"1 " + uids[0], b"2 " + uids[1]]


H80 = {
    "a dot alone": (b"a\n\n.\nb\n", [b"a", b"", b"..", b"b"]),
    "dots": (b".\n..\n.x\n", [b"..", b"...", b"..x"]),
    "no end": (b"a\n\nb", [b"a", b"", b"b"]),
    "a dot without an end": (b"a\n\n.", [b"a", b"", b".."]),
    "CRLF": (b"a\r\n\r\n.\r\nb\r\n", [b"a", b"", b"..", b"b"]),
    "CRLF without an end": (b"a\r\n\r\nb", [b"a", b"", b"b"]),
    "mixed": (b"a\r\n\n.b\r\n", [b"a", b"", b"..b"]),
    "empty": (b"", []),
    "empty lines": (b"\n\r\n\n", [b"", b"", b""]),
}


@pytest.mark.parametrize("name", H80)
def test_h80_retr_and_top_are_exact(name: str) -> None:
    message, lines = H80[name]
    wire = b"RETR 1\r\nTOP 1 1000\r\nTOP 1 1\r\nNOOP\r\n"
    said = lines_of(split_outcome(wire, messages=[message]))
    whole = [b"+OK ", *lines, b"."]
    blank = lines.index(b"") if b"" in lines else len(lines)
    assert said == whole + whole + [b"+OK ", *lines[: blank + 2], b".", b"+OK "]


@pytest.mark.parametrize("name", H80)
@pytest.mark.parametrize("slices", [1, 2, 3])
def test_h80_what_is_sent_comes_back(name: str, slices: int) -> None:
    """Through the server, in slices, and through the client."""
    message, lines = H80[name]
    machine = POP3Server(mode=Mode.MAILBOX)
    serving = player(machine, Application([message], slices=slices)).play([[b"RETR 1\r\n"]])
    client = POP3Client()
    reading = Player(client, lambda client, event: None)
    reading.receive(b"+OK\r\n")
    client.login("joe", Secret(b"x"), allow_clear=True)
    reading.receive(b"+OK\r\n")
    reading.receive(b"+OK\r\n")
    client.retr(1)
    for byte in serving.outcome.output.partition(b"\r\n")[2]:
        reading.receive(bytes([byte]))
    got = b"".join(event.data for event in reading.outcome.events if isinstance(event, MessageData))
    assert got == b"".join(line.removeprefix(b".") + b"\r\n" for line in lines)


# -- rows of all protocols ---------------------------------------------------------------------------------


@BOTH
def test_h15_input_behind_quit_is_dropped(profile: Profile) -> None:
    outcome = split_outcome(b"DELE 1\r\nQUIT\r\nNOOP\r\nQUIT\r\n", profile)
    assert lines_of(outcome) == [b"+OK ", b"+OK "]
    assert outcome.kinds().count("Update") == 1


def test_h17_a_line_that_is_too_long_is_thrown_away_to_its_end() -> None:
    outcome = split_outcome(b"DELE " + b"1" * 70_000 + b"\r\nSTAT\r\n", few=True)
    assert lines_of(outcome) == [b"-ERR Line too long", b"+OK 2 8"]


def test_h20_loops_end() -> None:
    for line in (b"NOOP\r\n", b"STAT\r\n", b"LIST\r\n", b"UIDL\r\n", b"CAPA\r\n", b"RSET\r\n", b"LIST 9\r\n",
    b"FOO\r\n", b"RETR\r\n"):
        outcome = split_outcome(line * 120, few=True)
        assert isinstance(outcome.events[-1], ConnectionClosed)
        assert lines_of(outcome)[-1] in (
            b"-ERR Too many commands that do nothing, closing connection", b"-ERR Too many errors, closing connection"
        )  # fmt: skip
    for line in (b"USER joe\r\n", b"AUTH\r\n", b"AUTH NONE\r\n", b"AUTH PLAIN\r\n*\r\n", LOGIN.replace(b"joe",
    b"late")):
        outcome = split_outcome(line * 120, mode=Mode.WHOLE, few=True)
        assert isinstance(outcome.events[-1], ConnectionClosed)
        assert outcome.events[-1].reason.startswith("Too many")


def test_h24_nothing_is_deleted_without_quit() -> None:
    for end in (b"", b"QUI", b"QUIT", b"QUIT x\r\n", b"RETR 1\r\nQUI"):
        outcome = split_outcome(b"DELE 1\r\n" + end)
        assert "Update" not in outcome.kinds()
        assert isinstance(outcome.events[-1], ConnectionClosed) and outcome.events[-1].reason == "EOF"


def new_server() -> POP3Server:
    machine = POP3Server()
    machine.offers_user = machine.offers_stls = machine.offers_utf8 = True
    machine.sasl = ServerOptions(["PLAIN"])
    return machine


@pytest.mark.parametrize("behind", [b"USER evil\r\n", b"x", b"\r\n", b"\x16\x03\x01"])
def test_h31_plain_text_behind_stls_is_refused(behind: bytes) -> None:
    playing = player(new_server()).play([[b"STLS\r\n" + behind]])
    assert playing.outcome.output == b"+OK \r\n-ERR Unexpected pipelined commands following STLS\r\n"
    assert not any(isinstance(event, StartTLS) for event in playing.outcome.events)


async def nobody(session: Session, trailing: bytes) -> int:
    raise AssertionError("somebody has logged in")


@pytest.mark.parametrize("behind", [b"USER joe\r\nPASS x\r\n", b"x", b"\x16\x03\x01"])
def test_h31_by_a_login_program_which_reads_line_by_line(behind: bytes, tmp_path: Path) -> None:
    """What is behind the line is still in the socket when STLS is answered: it is looked for there."""
    log: list[str] = []
    settings = {"TLS_CERTFILE": str(write_pem(tmp_path)), "AUTH_REQUIRES_TLS": "0"}
    store = StaticStore({"joe": Secret(b"x")})
    service = POP3Service(settings, log.append, mode=Mode.LOGIN, hand_off=nobody, credentials=store)
    played = run_script(service.session, [b"STLS\r\n" + behind, EOF], all_read=False)
    assert played.output == b"+OK \r\n-ERR Unexpected pipelined commands following STLS\r\n"
    assert "Starting TLS handshake" not in log


def test_h32_all_state_is_forgotten_at_tls_start() -> None:
    machine = new_server()
    playing = player(machine)
    playing.play([[b"USER joe\r\nUTF8\r\nSTLS\r\n"]], eof=False)
    assert machine.state is State.TLS and machine.in_utf8
    machine.tls_established()
    assert (machine.state, machine.username, machine.in_utf8) == (State.AUTHORIZATION, "", False)
    playing.receive(b"PASS secret\r\n")
    assert playing.outcome.output.endswith(b"-ERR Send USER first\r\n")


def test_h32_the_budgets_are_not() -> None:
    limits = replace(DEFAULT.limits, auth_failures=2)
    machine = POP3Server(replace(DEFAULT, limits=limits))
    machine.offers_user = machine.offers_stls = True
    playing = player(machine)
    playing.play([[b"USER joe\r\nPASS no\r\nSTLS\r\n"], [b"USER joe\r\nPASS no\r\nUSER joe\r\n"]])
    assert playing.outcome.kinds()[-2:] == ["VerifyPassword", "ConnectionClosed"]


def test_h33_stls_with_an_argument_and_inside_tls() -> None:
    outcome = split_outcome([b"STLS x\r\nSTLS =\r\nSTLS\r\n", b"CAPA\r\nSTLS\r\n"], mode=Mode.WHOLE)
    said = lines_of(outcome)
    assert said[:3] == [SYNTAX, SYNTAX, b"+OK Begin TLS negotiation"]
    assert b"STLS" not in said
    assert said[-1] == b"-ERR TLS is already in use"


@pytest.mark.parametrize("behind", [b"+OK injected\r\n", b"+", b"\x16\x03\x01"])
def test_h37_bytes_behind_the_answer_to_stls_are_fatal(behind: bytes) -> None:
    client = POP3Client()
    playing = Player(client, lambda client, event: None)
    playing.receive(b"+OK\r\n")
    client.capa()
    playing.receive(b"+OK\r\nSTLS\r\nSASL PLAIN\r\n.\r\n")
    client.stls()
    client.receive_data(b"+OK go\r\n" + behind)
    with pytest.raises(RemoteProtocolError, match="bytes behind its answer to STLS"):
        client.next_event()
    assert isinstance(client.next_event(), ConnectionClosed)


def test_h37_capabilities_from_before_tls_are_forgotten() -> None:
    client = POP3Client()
    playing = Player(client, lambda client, event: None)
    playing.receive(b"+OK\r\n")
    client.capa()
    playing.receive(b"+OK\r\nSTLS\r\nSASL PLAIN\r\n.\r\n")
    client.stls()
    playing.receive(b"+OK go\r\n")
    client.tls_established()
    assert not client.capabilities
    with pytest.raises(LocalProtocolError, match="the server offers no mechanism"):
        client.authenticate(PlainClient("joe", Secret(b"x")))


@BOTH
def test_h39_nothing_is_offered_unless_configured(profile: Profile) -> None:
    playing = player(POP3Server(profile)).play([[b"CAPA\r\nUSER joe\r\nPASS x\r\nAUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"]])
    assert b"USER\r\n" not in playing.outcome.output and b"SASL" not in playing.outcome.output
    assert playing.outcome.output.count(b"-ERR") == 3


@BOTH
def test_h41_control_bytes_in_names_and_passwords(profile: Profile) -> None:
    for byte in (b"\x00", b"\r", b"\x1b", b"\x7f", b"\t"):
        wire = b"USER j" + byte + b"oe\r\nUSER joe\r\nPASS sec" + byte + b"ret\r\n"
        outcome = split_outcome(wire, profile, mode=Mode.WHOLE)
        assert lines_of(outcome) == [SYNTAX, b"+OK ", SYNTAX]
        assert not any(isinstance(event, VerifyPassword) for event in outcome.events)


def test_h43_failed_logins_are_counted_and_end() -> None:
    wire = (LOGIN.replace(b"secret", b"no") + b"AUTH PLAIN AGpvZQBubw==\r\n") * 5
    outcome = split_outcome(wire, mode=Mode.WHOLE, few=True)
    assert outcome.kinds().count("VerifyPassword") == 5
    assert outcome.events[-1] == ConnectionClosed("Authentication failed", reply=outcome.events[-1].reply)


@BOTH
def test_h47_invalid_utf8_in_a_name_is_a_failure(profile: Profile) -> None:
    outcome = split_outcome(b"USER \xff\xfe\r\nAUTH PLAIN AP/+AHg=\r\nCAPA\r\n", profile, mode=Mode.WHOLE)
    assert lines_of(outcome)[:3] == [SYNTAX, b"-ERR Could not decode the response.", b"+OK "]


@BOTH
@pytest.mark.parametrize(
    "line", ["PASS {}", "PASSW {}", "PSAS {}", "PASS\t{}", "PASS{}", "{}", "AUTH PLAIN {}", "AUTH LOGIN\r\n{}\r\n{}",
    "APOP joe {}"]
)
def test_h48_a_mistyped_password_shows_nowhere(line: str, profile: Profile) -> None:
    secret = "hunter2hunter2=="
    for before in ("", "USER joe\r\n"):
        wire = (before + line.replace("{}", secret) + "\r\n").encode()
        outcome = split_outcome(wire, profile, mode=Mode.WHOLE)
        assert secret not in repr(outcome.events)
        assert secret.encode() not in outcome.output
        assert any(isinstance(event, Refused | VerifyPassword) for event in outcome.events)


def test_h63_a_servers_answers_are_bounded_and_escaped() -> None:
    for answer in (b"+OK" + b"x" * 1_000_000, b"\x1b[2J\r\n", b"\xff" * 400 + b"\r\n", b"\r\n", b"+\r\n"):
        client = POP3Client()
        client.receive_data(answer[:500_000] + b"\r\n")
        with pytest.raises(RemoteProtocolError) as caught:
            client.next_event()
        assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


@pytest.mark.parametrize("bad", ["a\r\nQUIT", "a\nb", "a\rb", "a\0b", "\x1b", "a\x7f"])
def test_h64_no_argument_of_the_client_ends_its_command(bad: str) -> None:
    client = POP3Client()
    client.receive_data(b"+OK\r\n")
    client.next_event()
    for name, password in ((bad, "x"), ("x", bad)):
        with pytest.raises(LocalProtocolError, match="control character"):
            client.login(name, Secret(password.encode()), allow_clear=True)
    with pytest.raises(LocalProtocolError, match="a language tag"):
        client.language(bad)
    assert client.data_to_send() == b""


@pytest.mark.parametrize("verb", [b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS"])
def test_h86_http_closes_at_once(verb: bytes) -> None:
    outcome = split_outcome(verb + b" / HTTP/1.1\r\nUSER joe\r\n", mode=Mode.WHOLE)
    assert lines_of(outcome) == [b"-ERR This is a POP3 server, closing connection"]
