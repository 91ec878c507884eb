"""Order, verdicts and TLS: H25 to H34, H38."""

from dataclasses import replace
from pathlib import Path

import pytest

from mailfront_io.auth.static import StaticStore
from mailfront_io.auth.store import NOBODY, Asker, Identity
from mailfront_io.plugin import Command, Plugin, Response
from mailfront_io.service import service_from_line
from mailfront_io.testing import EOF, Action, Advance, PeerTLS, WaitFor, run_script
from mailfront_proto.secret import Secret
from mailfront_proto.smtp import COMPAT, DEFAULT, Profile, Reply, SMTPServer, StartTLS
from mailfront_proto.smtp.states import COMMAND_STATES, COMMANDS, command_table
from mailfront_proto.testing import every_split, few_splits
from tests.certificates import client_context, server_context
from tests.front import ENVELOPE, Front, codes
from tests.golden.recorded import Session, load, with_stand_ins
from tests.hostile.every import HELLO, MESSAGE, split_outcome
from tests.proto.server_script import Outcome, play
from tests.proto.test_states import test_every_pair_of_the_table as check_pair

MESSAGE_BYTES = b"x\r\n.\r\n"


@pytest.mark.parametrize("verdict", [250, 550])
def test_h25_data_again_after_a_message(verdict: int) -> None:
    class Verdict(Plugin):
        def message_end(self, spool: object) -> Response:
            return Response(verdict, "5.0.0 verdict" if verdict > 299 else "")

    wire = [*MESSAGE, MESSAGE_BYTES + b"DATA\r\nRCPT TO:<c@example.org>\r\n"]
    assert split_outcome(wire).codes()[-3:] == [250, 503, 503]
    front = Front("accept", Verdict)
    output = front.say(ENVELOPE + b"DATA\r\n", MESSAGE_BYTES, b"DATA\r\n", b"RCPT TO:<c@example.org>\r\n")
    assert codes(output)[-3:] == [verdict, 503, 503]


@pytest.mark.parametrize("hello", [b"EHLO y\r\n", b"HELO y\r\n"])
def test_h26_a_helo_in_a_transaction_resets_it(hello: bytes) -> None:
    outcome = split_outcome([ENVELOPE + hello + b"DATA\r\nRCPT TO:<c@example.org>\r\n"])
    assert outcome.codes()[-3:] == [250, 503, 503]
    resets = []

    class Seen(Plugin):
        def reset(self) -> None:
            resets.append(len(self.session.envelope.recipients))

    front = Front("accept", Seen)
    before = front.say(ENVELOPE)
    count = len(resets)
    resets.clear()
    front.say(ENVELOPE + hello)
    assert len(resets) == count + 1 and before
    assert resets[2:] == [0] * (len(resets) - 2)


def test_h27_a_verdict_never_outlives_its_transaction() -> None:
    class Moody(Plugin):
        """Refuses one sender's message, in the block hook."""

        def data_block(self, data: bytes) -> Response | None:
            sender = self.session.envelope.sender
            return Response(554, "5.6.0 not this") if sender and sender.address.startswith("bad") else None

    front = Front("accept", Moody)
    bad = b"EHLO x\r\nMAIL FROM:<bad@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
    good = ENVELOPE + b"DATA\r\n"
    output = front.say(bad, MESSAGE_BYTES, good, MESSAGE_BYTES, bad, MESSAGE_BYTES, good, b"y\r\n.\r\n")
    assert [code for code in codes(output) if code in (354, 554)] == [354, 554, 354, 354, 554, 354]
    assert [message for _, _, message in front.messages] == [b"x\n", b"y\n"]
    limited = replace(DEFAULT, limits=replace(DEFAULT.limits, message_size=5))
    wire = [*MESSAGE, b"too much\r\n.\r\n" + ENVELOPE + b"DATA\r\n", MESSAGE_BYTES]
    assert split_outcome(wire, limited).codes() == [220, 250, 250, 250, 354, 552, 250, 250, 250, 354, 250]


def test_h27_recipients_of_one_message_are_not_those_of_the_next() -> None:
    front = Front("accept")
    second = b"MAIL FROM:<c@example.net>\r\nRCPT TO:<d@example.org>\r\nDATA\r\n"
    front.say(ENVELOPE + b"DATA\r\n", MESSAGE_BYTES, second, MESSAGE_BYTES)
    assert [(s, r) for s, r, _ in front.messages] == [
        ("a@example.net", ["b@example.org"]), ("c@example.net", ["d@example.org"])
    ]  # fmt: skip


@pytest.mark.parametrize("lmtp", [False, True], ids=["smtp", "lmtp"])
@pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
def test_h28_all_pairs_of_state_and_command(profile: Profile, lmtp: bool) -> None:
    for state in COMMAND_STATES:
        for verb in COMMANDS:
            check_pair(state, verb, profile, lmtp)


def test_h28_auth_where_it_has_no_place() -> None:
    table = command_table(DEFAULT)
    assert all(isinstance(table[state, "AUTH"], Reply) for state in (COMMAND_STATES[0], *COMMAND_STATES[2:]))
    good = b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"
    wire = good + HELLO + b"AUTH\r\nAUTH \r\n" + good + good + b"MAIL FROM:<a@example.net>\r\n" + good
    assert split_outcome([wire], mechanisms=("PLAIN",)).codes() == [220, 503, 250, 501, 501, 235, 503, 250, 503]


@pytest.mark.parametrize("line", [b"VRFY root", b"EXPN list", b"NOOP", b"HELP", b"NOOP x y", b"HELP DATA", b"VRFY"])
def test_h29_commands_that_change_nothing(line: bytes) -> None:
    between = line + b"\r\n"
    wire = between.join([b"EHLO x\r\n", b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<b@example.org>\r\n", b"DATA\r\n"])
    assert split_outcome([wire, MESSAGE_BYTES + between]).codes()[-3:-1] == [354, 250]
    front = Front("accept")
    front.say(wire, MESSAGE_BYTES)
    assert front.messages == [("a@example.net", ["b@example.org"], b"x\n")]


def test_h30_talk_before_the_greeting_is_told_and_can_be_refused() -> None:
    class Impatient(Plugin):
        def connect(self) -> Response | None:
            return Response(554, "5.5.1 Wait for the greeting") if self.session.numbers.get("early_talker") else None

    front = Front(Impatient, "accept", env={"GREETING_DELAY": "5"})
    early = front.play([b"EHLO x\r\n", EOF], all_read=False)
    assert early.output == b"554 5.5.1 Wait for the greeting\r\n"
    patient = front.play([Advance(2), WaitFor(b"220 "), b"QUIT\r\n", EOF], all_read=False)
    assert codes(patient.output) == [220, 221]
    assert patient.writes[0][0] == 5.0
    assert front.play([EOF]).output.startswith(b"220 ")
    assert [line for line in front.log if line.startswith("554")] == ["554 5.5.1 Wait for the greeting"]


# -- TLS -------------------------------------------------------------------------------------------------


def test_h31_plain_text_behind_starttls_is_refused() -> None:
    outcome = split_outcome([HELLO + b"NOOP\r\n"], starttls=True)
    assert b"STARTTLS" in outcome.output
    for behind in (b"EHLO evil\r\n", b"x", b"\r\n", b"\x16\x03\x01"):
        whole = split_whole(HELLO + b"STARTTLS\r\n" + behind)
        assert whole.output.endswith(b"554 5.5.0 Unexpected pipelined commands following STARTTLS\r\n")
        assert not any(isinstance(event, StartTLS) for event in whole.events)
        front = Front("accept", tls=server_context())
        played = front.play([HELLO + b"STARTTLS\r\n" + behind], all_read=False)
        assert codes(played.output)[-1] == 554
        assert "Starting TLS handshake" not in front.log


def split_whole(wire: bytes) -> Outcome:
    """Only whole: what comes later is the handshake's."""
    machine = SMTPServer("mx.example.org")
    machine.offers_starttls = True
    return play(machine, [[wire]])


def test_h31_plain_text_a_moment_later_breaks_the_handshake() -> None:
    front = Front("accept", tls=server_context())
    script: list[Action] = [HELLO + b"STARTTLS\r\n", WaitFor(b"220 2.0.0"), b"MAIL FROM:<evil@example.net>\r\n"]
    played = front.play(script, all_read=False)
    assert played.result == 1
    assert any(line.startswith("TLS handshake failed: ") for line in front.log)
    assert not any("evil" in line for line in front.log)
    assert codes(played.output)[:3] == [220, 250, 220]



class Facts(StaticStore):
    """Knows more than the name of its user."""

    async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
        found = await super().verify_password(username, password, asker)
        return Identity(found.username, mailbox="/m", uid=1000) if found else None


JOE = Facts({"joe": Secret(b"secret")})
LOGIN = b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"


class State(Plugin):
    """Shows what the session knows."""

    def commands(self) -> list[Command]:
        return [Command("XSTATE", self.show)]

    def show(self, argument: str) -> Response:
        strings, numbers = self.session.strings, self.session.numbers
        auth = sorted(name for name in (*strings, *numbers) if name.startswith(("auth", "helo")))
        envelope = self.session.envelope
        return Response(250, f"2.0.0 {auth} {envelope.sender} {len(envelope.recipients)} {self.session.protocol_name}")


def test_h32_all_state_is_forgotten_at_tls_start() -> None:
    front = Front(
        State, "authenticate", "accept", tls=server_context(), credentials=JOE, env={"AUTH_REQUIRES_TLS": "0"}
    )
    script: list[Action] = [
        HELLO + LOGIN + HELLO + ENVELOPE + b"XSTATE\r\nSTARTTLS\r\n", WaitFor(b"220 2.0.0 Ready to start TLS\r\n"),
        PeerTLS(client_context(), "mx.example.org"),
        b"XSTATE\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n", WaitFor(b"503 "),
        HELLO + LOGIN + b"XSTATE\r\nQUIT\r\n",
    ]  # fmt: skip
    output = front.play(script, all_read=False).output
    plain, _, inside = output.partition(b"220 2.0.0 Ready to start TLS\r\n")
    assert b"['auth_mailbox', 'auth_uid', 'auth_user', 'authenticated', 'helo_domain']" in plain
    assert b"Path('a@example.net', []) 1 ESMTP" in plain
    assert inside.startswith(b"250 2.0.0 [] None 0 SMTP\r\n503 5.5.1 Send HELO or EHLO first\r\n503 ")
    assert codes(inside)[-4:] == [250, 235, 250, 221]


def test_h33_starttls_with_a_parameter_and_inside_tls() -> None:
    assert split_outcome([HELLO + b"STARTTLS x\r\nSTARTTLS =\r\n"], starttls=True).codes() == [220, 250, 501, 501]
    front = Front("accept", tls=server_context())
    script: list[Action] = [
        HELLO + b"STARTTLS\r\n", WaitFor(b"220 2.0.0"), PeerTLS(client_context(), "mx.example.org"),
        HELLO + b"STARTTLS\r\nQUIT\r\n",
    ]  # fmt: skip
    output = front.play(script, all_read=False).output
    plain, _, inside = output.partition(b"220 2.0.0 Ready to start TLS\r\n")
    assert b"STARTTLS" in plain and b"STARTTLS" not in inside
    assert codes(inside) == [250, 503, 221]


@pytest.mark.parametrize("immediate", [False, True], ids=["STARTTLS", "immediate"])
@pytest.mark.parametrize("drip", [[], [Advance(5), b"\x16"] * 20], ids=["silent", "dripping"])
def test_h34_a_stalled_handshake_meets_its_deadline(immediate: bool, drip: list[Action]) -> None:
    front = Front("accept", tls=server_context(), env={"TLS_IMMEDIATE": "1"} if immediate else {})
    start: list[Action] = [] if immediate else [HELLO + b"STARTTLS\r\n", WaitFor(b"220 2.0.0")]
    played = front.play([*start, *drip, Advance(10_000), EOF], all_read=False)
    assert played.result == 1
    assert 5 <= played.elapsed <= 30 or played.elapsed == 30
    assert any(line.startswith("TLS handshake failed: ") for line in front.log)
    if not drip:
        assert "TLS handshake failed: timed out" in front.log


# -- whole sessions --------------------------------------------------------------------------------------

ECHO = [s for s in load() if s.argv[1:4] == ("smtp", "echo", "accept") and s.name.startswith("smtp-")]


@pytest.mark.parametrize("session", [pytest.param(s, id=s.name) for s in ECHO])
def test_h38_a_recorded_session_is_the_same_for_every_segmentation(session: Session, tmp_path: Path) -> None:
    """Through the front end: output and log. (The pure machine plays all of them in tests/proto/test_server.py,
    with the other transcripts.)"""
    for (pieces,) in few_splits([session.stdin]) if len(session.stdin) > 200 else every_split([session.stdin]):
        log: list[str] = []
        environment = {**session.env, "MAILFRONT_PROFILE": "compat"}
        service = service_from_line(list(session.argv[1:]), environment, log.append)
        played = run_script(service.session, [*pieces, EOF], all_read=False)
        assert with_stand_ins(played.output, str(tmp_path)) == session.outcome.stdout
        assert played.result == session.outcome.exit
        logged = tuple(f"mailfront[PID]: {line}".encode("utf-8", "surrogateescape") for line in log)
        # The count at the end is of what was read; a session that closes leaves the rest.
        read = -1 if any(isinstance(action, bytes) for action in played.unread) else None
        assert logged[:read] == session.outcome.stderr[:read]
