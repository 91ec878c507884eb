"""The SMTP server machine: transcripts and the original's recorded sessions under every split, the order of
commands over every pair, random sessions against a small model, bounds, and misuse."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mailfront_proto.pull import MAX_HELD_INPUT, MAX_PENDING_OUTPUT
from mailfront_proto.sasl import ServerOptions
from mailfront_proto.smtp import (
    COMPAT,
    DEFAULT,
    NEED_DATA,
    PAUSED,
    Body,
    Connected,
    ConnectionClosed,
    Data,
    Event,
    Helo,
    Limits,
    LineEnds,
    LocalProtocolError,
    Mail,
    MessageEnd,
    Profile,
    Quit,
    Recipient,
    Reply,
    SMTPServer,
    StartTLS,
    State,
    VendorCommand,
    VerifyPassword,
)
from mailfront_proto.testing import every_split
from tests.golden.recorded import Session, load
from tests.proto.server_script import Outcome, Transcript, accept_all, machine_state, play

# -- transcripts -----------------------------------------------------------------------------------------

TRANSCRIPTS = Transcript.load(Path(__file__).parents[1] / "transcripts")


def check_transcript(transcript: Transcript, outcome: Outcome, lf: bool) -> None:
    closed = outcome.events[-1]
    assert isinstance(closed, ConnectionClosed)
    assert outcome.output == transcript.output
    ending = f"{closed.reason}{' in_message' if closed.in_message else ''}"
    assert [" ".join(outcome.kinds()), ending] == transcript.events
    if lf and "BINARYMIME" not in transcript.settings.get("extensions", ""):  # whose octets stay what they are
        assert outcome.bodies() == [body.replace(b"\r\n", b"\n") for body in transcript.bodies]
    else:
        assert outcome.bodies() == transcript.bodies


BOTH_FORMS = [pytest.param(t, False, id=t.name) for t in TRANSCRIPTS]
BOTH_FORMS += [pytest.param(t, True, id=f"{t.name}-lf") for t in TRANSCRIPTS if t.bodies]


@pytest.mark.parametrize(("transcript", "lf"), BOTH_FORMS)
def test_transcript_under_every_split(transcript: Transcript, lf: bool) -> None:
    whole: Outcome | None = None
    # Byte by byte and the random cuttings reach everywhere in the long ones, too.
    many = sum(map(len, transcript.segments)) > 2000
    splits = every_split(transcript.segments, two_way=100 if many else None, random_ones=40 if many else 200)
    for pieces in splits:
        machine = transcript.machine()
        machine.lf_bodies = lf
        outcome = play(machine, pieces, transcript.answer())
        if whole is None:
            check_transcript(transcript, outcome, lf)
            whole = outcome
            if "whole" in transcript.settings:
                break
        assert outcome == whole, pieces


def test_there_are_transcripts_of_everything() -> None:
    assert len(TRANSCRIPTS) >= 150
    assert len({t.name for t in TRANSCRIPTS}) == len(TRANSCRIPTS)
    said = {bytes(line[:3]) for t in TRANSCRIPTS for line in t.output.split(b"\r\n") if line}
    assert said >= {b"%d" % code for code in (214, 220, 221, 235, 250, 252, 334, 354, 421, 450, 451, 452, 454)}
    assert said >= {b"%d" % code for code in (500, 501, 503, 504, 535, 550, 552, 553, 554, 555)}


# -- the original's sessions -----------------------------------------------------------------------------

RECORDED = [s for s in load() if s.argv[1:2] == ("smtp",)]
PLAIN_ECHO = {s.name for s in RECORDED if s.argv[2:] == ("echo", "accept") and set(s.env) <= {
    "PROTO", "TCPLOCALHOST", "TCPLOCALIP", "TCPREMOTEIP", "TCPREMOTEHOST"
}}  # fmt: skip


class EchoApplication:
    """What ``smtp echo accept`` answers."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self.size = 0

    def __call__(self, machine: SMTPServer, event: Event) -> None:
        """Answer `event`."""
        if isinstance(event, Mail | Recipient):
            kind = "Sender" if isinstance(event, Mail) else "Recipient"
            shown = "".join(f" [{parameter}]" for parameter in event.parameters)
            machine.reply(250, f"{kind}='{event.address}'.{shown}")
        elif isinstance(event, MessageEnd):
            machine.reply(250, "Received")
        else:
            machine.accept()


def with_byte_counts(outcome: Outcome) -> bytes:
    """The output with the sizes of the messages, in LF form, in the answers to them."""
    bodies: list[int] = []
    for before, event in zip([None, *outcome.events], outcome.events, strict=False):
        if isinstance(event, MessageEnd):
            bodies.append(len(before.data.replace(b"\r\n", b"\n")) if isinstance(before, Body) else 0)
    head, *tails = outcome.output.split(b"250 Received\r\n")
    return head + b"".join(b"250 Received %d bytes.\r\n" % n + t for n, t in zip(bodies, tails, strict=True))


@pytest.mark.parametrize("session", [pytest.param(s, id=s.name) for s in RECORDED])
def test_recorded_session_under_every_split(session: Session) -> None:
    whole: Outcome | None = None
    unknown = int(session.env.get("MAXNOTIMPL", "0")) or None
    profile = replace(COMPAT, limits=replace(COMPAT.limits, unknown_in_row=unknown))
    for pieces in every_split([session.stdin]):
        machine = SMTPServer(
            session.env.get("TCPLOCALHOST", "unknown"), profile, greeting=session.env.get("SMTPGREETING")
        )
        outcome = play(machine, pieces, EchoApplication())
        if whole is None:
            whole = outcome
            if session.name in PLAIN_ECHO:
                assert with_byte_counts(outcome) == session.outcome.stdout
        assert outcome == whole, pieces


def test_most_recorded_sessions_compare_as_bytes() -> None:
    assert len(PLAIN_ECHO) >= 14
    assert len(RECORDED) >= 100


# -- random sessions against a model ---------------------------------------------------------------------

SMALL = Limits(
    command_line=64,
    auth_line=96,
    message_size=40,
    recipients=2,
    refused_recipients=4,
    errors_in_row=3,
    errors=8,
    idle_commands=9,
    auth_failures=3,
)


class Model:
    """The default profile's dialogue, said again in few words: replies only, one command at a time."""

    def __init__(self) -> None:
        self.greeted = self.mail = self.closed = self.authenticated = False
        self.recipients = self.row = self.errors = self.idle = self.refused = self.failures = 0
        self.chunks: int | None = None  # octets of a message that comes in chunks

    def _error(self, code: int) -> list[int]:
        self.errors += 1
        self.row += 1
        if self.errors > 8 or self.row > 3:
            self.closed = True
            return [421]
        return [code]

    def _refuse_recipient(self, codes: list[int]) -> list[int]:
        if not self.closed:
            self.refused += 1
            if self.refused >= 4:
                self.closed = True
                codes = [*codes, 421]
        return codes

    def command(self, verb: str, good: bool, answer: int) -> list[int]:
        """The codes of the replies to `verb`, with an argument that is `good` or not, when the application
        answers with `answer` if it is asked."""
        if verb in ("XYZZY", "LONG", "EXPN", "LHLO"):
            return self._error(500)
        if verb in ("NOOP", "RSET", "VRFY", "HELP", "HELO", "EHLO"):
            self.idle += 1
            if self.idle > 9:
                self.closed = True
                return [421]
        codes = self._known(verb, good, answer)
        if answer == 421 and codes[-1:] == [421]:
            self.closed = True
        return codes

    def _known(self, verb: str, good: bool, answer: int) -> list[int]:
        needs_helo = verb in ("MAIL", "AUTH") and not self.greeted
        whole = self.chunks is None
        in_order = {
            "RCPT": self.mail and whole,
            "DATA": self.mail and whole and self.recipients > 0,
            "AUTH": not self.mail,
        }
        if needs_helo or not in_order.get(verb, True):
            self.row = 0
            return [503]
        if verb == "MAIL":
            self.idle += self.mail
            self._drop()
            if self.idle > 9:
                self.closed = True
                return [421]
        if verb == "RCPT" and self.recipients >= 2:
            self.row = 0
            return [452]
        if verb == "AUTH" and self.authenticated:
            self.row = 0
            return [503]
        if not good and verb in ("MAIL", "RCPT", "HELO", "EHLO", "DATA"):
            codes = self._error(501)
            return self._refuse_recipient(codes) if verb == "RCPT" else codes
        self.row = 0
        if verb == "NOOP":
            return [250]
        accepted = answer < 400
        if verb in ("HELO", "EHLO", "RSET"):
            self._drop()
            self.greeted = self.greeted or (accepted and verb != "RSET")
            return [250 if accepted else answer]
        if verb == "MAIL":
            self.mail = accepted
        elif verb == "RCPT":
            self.recipients += accepted
            if answer >= 500:
                return self._refuse_recipient([answer])
        elif verb == "DATA" and not accepted:
            self._drop()  # who refuses the message has dropped its envelope
        elif verb == "AUTH":
            self.authenticated = accepted
            if not accepted:
                self.failures += 1
                if self.failures >= 3:
                    self.closed = True
                    return [answer, 421]
        usual = {"VRFY": 252, "HELP": 214, "DATA": 354, "AUTH": 235}
        return [usual.get(verb, 250) if accepted else answer]

    def _drop(self) -> None:
        self.mail, self.recipients, self.chunks = False, 0, None

    def chunk(self, size: int, last: bool, answer: int, end: int) -> list[int]:
        """The codes of the replies to a chunk; `answer`: to the first one of a message, `end`: to the last."""
        if not size and not last:
            self.idle += 1
            if self.idle > 9:
                self.closed = True
                return [421]
        self.row = 0
        if not self.mail or not self.recipients:
            return [503]
        if self.chunks is None:
            self.chunks = 0
            if answer >= 400:
                self._drop()
                self.closed = answer == 421
                return [answer]
        self.chunks += size
        if last:
            return self.message(self.chunks, end)
        if self.chunks > 40:
            self._drop()
            return [552]
        return [250]

    def message(self, size: int, answer: int) -> list[int]:
        """The codes of the replies to a message of `size` octets."""
        self._drop()
        if size > 40:
            return [552]
        if answer < 400:
            self.idle = 0
        self.closed = answer == 421
        return [answer]


class RandomSession(RuleBasedStateMachine):
    """Random commands, answers and cuttings."""

    @initialize(seed=st.integers(0, 2**32))
    def connect(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.model = Model()
        self.machine = SMTPServer("mx.example.org", replace(DEFAULT, limits=SMALL))
        self.machine.sasl = ServerOptions(("PLAIN",))
        self.answer = 250
        self.answers: list[int] = []
        self.feed(b"")

    def decide(self, machine: SMTPServer, event: Event) -> None:
        if self.answers:
            self.answer = self.answers.pop(0)
        if isinstance(event, Connected | Quit) or self.answer < 400:
            accept_all(machine, event)
        else:
            machine.reply(self.answer, "as told")

    def feed(self, data: bytes) -> list[int]:
        pieces = []
        while data:
            size = self.dice.randint(1, len(data))
            pieces.append(data[:size])
            data = data[size:]
        return play(self.machine, [pieces], self.decide, eof=False).codes()

    @rule(
        verb=st.sampled_from(
            [
                *("HELO", "EHLO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "VRFY", "HELP", "AUTH"),
                *("XYZZY", "LONG", "EXPN", "LHLO"),
            ]
        ),
        good=st.integers(0, 5).map(bool),
        answer=st.sampled_from([250, 250, 250, 250, 450, 550, 421]),
        body=st.lists(st.sampled_from([b"\r\n", b"x", b"\r\n..", b"0123456789"]), max_size=8),
        end=st.sampled_from([250, 250, 451, 554, 421]),
    )
    def command(self, verb: str, good: bool, answer: int, body: list[bytes], end: int) -> None:
        arguments = {
            "MAIL": "FROM:<a@b.example>" if good else "FROM:<a@",
            "RCPT": "TO:<c@d.example>" if good else "TO:<>",
            "HELO": "x" if good else "",
            "EHLO": "x" if good else "\x01",
            "DATA": "" if good else "now",
            "AUTH": "PLAIN AGpvZQBzZWNyZXQ=",
            "LONG": "x" * 60,
        }
        if verb == "AUTH" and answer == 421:
            answer = 535  # two 421 at once: not worth a model
        if verb == "DATA" and answer < 400:
            answer = 250
        self.answer = answer
        line = f"{verb} {arguments.get(verb, '')}".rstrip(" ")
        closed_before = self.model.closed
        expected = [] if closed_before else self.model.command(verb, good, answer)
        assert self.feed(line.encode() + b"\r\n") == expected
        if expected == [354]:
            data = b"".join(body) + b"\r\n.\r\n"
            self.answer = end
            # the dots behind a line end are stuffed
            size = len(data) - 3 - sum(piece == b"\r\n.." for piece in body)
            assert self.feed(data) == self.model.message(size, end)

    @rule()
    def envelope(self) -> None:
        """What a chunk needs; random commands seldom come to it."""
        self.answer = 250
        for verb, argument in (("EHLO", " x"), ("MAIL", " FROM:<a@b.example>"), ("RCPT", " TO:<c@d.example>")):
            expected = [] if self.model.closed else self.model.command(verb, True, 250)
            assert self.feed(f"{verb}{argument}\r\n".encode()) == expected

    @rule(
        size=st.sampled_from([0, 1, 6, 12, 36, 60]),
        last=st.booleans(),
        answer=st.sampled_from([250, 250, 250, 450, 421]),
        end=st.sampled_from([250, 250, 451, 554, 421]),
    )
    def chunk(self, size: int, last: bool, answer: int, end: int) -> None:
        first = self.model.chunks is None
        expected = [] if self.model.closed else self.model.chunk(size, last, answer, end)
        self.answers = [answer, end] if first else [end]
        line = b"BDAT %d%s\r\n" % (size, b" LAST" if last else b"")
        assert self.feed(line + (b"QUIT\r\n" * 10)[:size]) == expected
        self.answers = []

    @rule()
    def quit(self) -> None:
        expected = [] if self.model.closed else [221]
        self.answer = 250
        assert self.feed(b"QUIT\r\nNOOP\r\n") == expected
        self.model.closed = True

    @invariant()
    def nothing_is_kept(self) -> None:
        if hasattr(self, "machine"):
            assert (self.machine.state is State.CLOSED) == self.model.closed
            assert self.machine.data_to_send() == b""
            assert len(self.machine._buffer) == 0


def play_on(machine: SMTPServer, answer: Callable[[SMTPServer, Event], None]) -> Outcome:
    """Step `machine` until it needs data."""
    return play(machine, [], answer, eof=False)


TestRandomSession = RandomSession.TestCase
TestRandomSession.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)


# -- bounds ----------------------------------------------------------------------------------------------

HOSTILE = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.sampled_from(
        [
            b"EHLO x\r\n", b"HELO", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@d>\r\n", b"DATA\r\n", b"\r\n.\r\n", b".\r\n",
            b"AUTH LOGIN\r\n", b"AUTH PLAIN =\r\n", b"*\r\n", b"STARTTLS\r\n", b"QUIT", b"\r\n", b"\n", b"\r", b"\0",
            b"LHLO x\r\n", b"VRFY ", b" SIZE=", b"9" * 30, b"x" * 5000, b"\xff\xfe", b"GET / HTTP/1.1\r\n", b"<" * 50,
            b"RSET\r\n" * 20, b"NOOP\r\n" * 20, b"XX\n" * 10,
        ]
    ),
)  # fmt: skip


@given(
    st.lists(HOSTILE, max_size=40),
    st.sampled_from([DEFAULT, COMPAT, replace(DEFAULT, line_ends=LineEnds.REJECT)]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_nothing_escapes_and_nothing_grows(
    words: list[bytes], profile: Profile, lmtp: bool, dice: random.Random
) -> None:
    machine = SMTPServer("mx.example.org", profile, lmtp=lmtp)
    machine.sasl = ServerOptions(("PLAIN", "LOGIN"))
    machine.offers_starttls = True

    def answer(machine: SMTPServer, event: Event) -> None:
        codes = [250, 250, 450, 550, 421]
        code = dice.choice(codes)
        if code >= 400:
            machine.reply(code, "no")
        else:
            accept_all(machine, event)

    limit = max(profile.limits.command_line, profile.limits.auth_line)
    for word in words:
        if machine.state is State.TLS:
            machine.tls_established()
        machine.receive_data(word)
        outcome = play_on(machine, answer)
        assert len(machine._buffer) < limit
        assert len(outcome.output) <= 1024 * (1 + len(word))
        for line in outcome.output.split(b"\r\n")[:-1]:
            assert len(line) >= 4 and b"\n" not in line and b"\r" not in line
    machine.receive_eof()
    assert isinstance(play_on(machine, answer).events[-1], ConnectionClosed)


def test_output_that_nobody_drains_pauses_the_machine() -> None:
    machine = SMTPServer("mx.example.org", COMPAT)
    play_on(machine, accept_all)
    machine.receive_data(b"NOOP\r\n" * 60_000)
    assert machine.next_event() is PAUSED
    assert not machine.answer_owed
    assert machine.next_event() is PAUSED
    first = machine.data_to_send()
    assert MAX_PENDING_OUTPUT < len(first) <= MAX_PENDING_OUTPUT + 512
    rest = b""
    while machine.next_event() is PAUSED:
        rest += machine.data_to_send()
    rest += machine.data_to_send()
    assert first + rest == b"250 2.3.0 OK\r\n" * 60_000


def test_a_body_of_200_mib_without_a_line_end_is_not_held() -> None:
    machine = SMTPServer("mx.example.org", replace(DEFAULT, limits=replace(DEFAULT.limits, message_size=None)))
    play(machine, [[b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"]], eof=False)
    block = b"x" * 65536
    for _ in range(3200):
        machine.receive_data(block)
        event = machine.next_event()
        assert isinstance(event, Body) and len(event.data) <= len(block) + 5
        assert machine.next_event() is NEED_DATA
        assert len(machine._buffer) == 0


def test_a_message_size_may_be_lowered_while_it_comes_in() -> None:
    machine = SMTPServer("mx.example.org")
    play(machine, [[b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n0123456789"]], eof=False)
    machine.message_size = 5
    outcome = play(machine, [[b"x\r\n.\r\n"]], eof=False)
    assert outcome.codes() == [552]
    assert outcome.bodies() == []


# -- misuse ----------------------------------------------------------------------------------------------


def fresh() -> SMTPServer:
    return SMTPServer("mx.example.org")


def greeted(*lines: str) -> SMTPServer:
    machine = fresh()
    machine.offers_starttls = True
    play(machine, [["".join(f"{line}\r\n" for line in ("EHLO x", *lines)).encode()]], eof=False)
    return machine


def owing(line: str, *before: str) -> SMTPServer:
    machine = greeted(*before)
    machine.receive_data(f"{line}\r\n".encode())
    machine.next_event()
    assert machine.answer_owed
    return machine


MISUSES: dict[str, tuple[Callable[[], SMTPServer], Callable[[SMTPServer], object], str]] = {
    "empty data": (fresh, lambda m: m.receive_data(b""), r"call receive_eof\(\)"),
    "data in the handshake": (
        lambda: greeted("STARTTLS"), lambda m: m.receive_data(b"x"), "feed the bytes to TLS, then tls_established"
    ),
    "too much data": (
        fresh, lambda m: m.receive_data(b"x" * (MAX_HELD_INPUT + 1)), r"call next_event\(\) until it returns NEED_DATA"
    ),
    "accept nothing": (greeted, lambda m: m.accept(), r"accept\(\) needs an event"),
    "reply to nothing": (greeted, lambda m: m.reply(250), r"no answer is owed: call next_event\(\)"),
    "no such code": (lambda: owing("RSET"), lambda m: m.reply(199), "199 is no possible answer to Reset"),
    "no such code either": (lambda: owing("RSET"), lambda m: m.reply(600), "600 is no possible answer to Reset"),
    "354 for RSET": (lambda: owing("RSET"), lambda m: m.reply(354), "354 is no possible answer to Reset"),
    "250 for DATA": (
        lambda: owing("DATA", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"),
        lambda m: m.reply(250),
        "250 is no possible answer to Data",
    ),
    "reply_each in SMTP": (
        lambda: owing(".", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"),
        lambda m: m.reply_each([Reply(250)]),
        r"reply_each\(\) answers MessageEnd in LMTP",
    ),
    "TLS without STARTTLS": (greeted, lambda m: m.tls_established(), "follows an accepted StartTLS"),
    "a verb with a blank": (fresh, lambda m: m.register_command("X Y"), "the verb is ASCII letters and digits"),
    "a parameter of no kind": (
        fresh, lambda m: m.register_command("XY", "maybe"), "the parameter 'required', 'forbidden' or 'optional'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_raises_teaches_and_changes_nothing(name: str) -> None:
    make, misuse, text = MISUSES[name]
    machine = make()
    before = machine_state(machine)
    with pytest.raises(LocalProtocolError, match=text):
        misuse(machine)
    assert machine_state(machine) == before
    assert machine.data_to_send() == b""
    machine.abort()
    assert isinstance(machine.next_event(), ConnectionClosed)


def test_reply_each_takes_one_reply_for_each_recipient() -> None:
    machine = SMTPServer("mx.example.org", lmtp=True)
    wire = b"LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n.\r\n"
    machine.receive_data(wire)
    while not isinstance(event := machine.next_event(), MessageEnd):
        if machine.answer_owed:
            assert isinstance(event, Event)
            accept_all(machine, event)
    with pytest.raises(LocalProtocolError, match="one reply for each of the 2 accepted recipients"):
        machine.reply_each([Reply(250)])
    machine.reply_each([Reply(250), Reply(550)])
    assert machine.state is State.READY


def test_a_vendor_command_has_no_usual_answer() -> None:
    machine = greeted()
    machine.register_command("XONE")
    machine.receive_data(b"XONE\r\n")
    assert isinstance(machine.next_event(), VendorCommand)
    with pytest.raises(LocalProtocolError):
        machine.accept()
    machine.reply(250)
    machine.data_to_send()
    machine.unregister_command("xone")
    machine.unregister_command("never there")
    assert play(machine, [[b"XONE\r\n"]], eof=False).codes() == [500]


# -- small things that no transcript shows ---------------------------------------------------------------


def test_early_talkers_are_told() -> None:
    for early in (False, True):
        machine = fresh()
        if early:
            machine.receive_data(b"EHLO x\r\n")
        assert machine.next_event() == Connected(early_talker=early)


def test_implicit_tls_is_there_before_the_greeting() -> None:
    machine = fresh()
    machine.offers_starttls = True
    machine.tls_established()
    outcome = play(machine, [[b"EHLO x\r\nSTARTTLS\r\n"]], eof=False)
    assert b"STARTTLS" not in outcome.output.split(b"503")[0]
    assert outcome.codes()[-1] == 503


def test_tls_start_forgets_what_it_must() -> None:
    machine = greeted("MAIL FROM:<a@b>", "RCPT TO:<c@d>", "STARTTLS")
    machine.tls_established()
    assert machine_state(machine) == {
        "state": State.CONNECTED, "helo": None, "esmtp": False, "authenticated": False, "in_tls": True, "owed": False
    }  # fmt: skip
    assert not machine.in_transaction


def test_plain_text_while_starttls_waits_for_its_answer() -> None:
    """A driver that reads ahead: the peer's bytes can neither raise nor be read inside TLS."""
    machine = owing("STARTTLS")
    machine.receive_data(b"MAIL FROM:<evil@example.net>\r\n")
    machine.accept()
    assert machine.state is State.CLOSED
    assert machine.data_to_send() == b"554 5.5.0 Unexpected pipelined commands following STARTTLS\r\n"


def test_the_end_is_returned_ever_after() -> None:
    machine = greeted()
    play(machine, [[b"QUIT\r\n"]])
    closed = machine.next_event()
    assert isinstance(closed, ConnectionClosed)
    machine.receive_data(b"NOOP\r\n")
    machine.receive_eof()
    machine.abort(Reply(421, "late"))
    assert machine.next_event() is closed
    assert machine.data_to_send() == b""


@pytest.mark.parametrize("before", ["", "MAIL FROM:<a@b>\r\n", "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n"])
def test_abort_says_a_last_word_and_drops_the_rest(before: str) -> None:
    machine = greeted()
    play(machine, [[before.encode()] if before else []], eof=False)
    machine.abort(Reply(421, "4.3.2 Going down"))
    assert machine.data_to_send() == b"421 4.3.2 Going down\r\n"
    closed = machine.next_event()
    assert closed == ConnectionClosed("aborted", "DATA" in before, Reply(421, "4.3.2 Going down"))


def test_abort_while_an_answer_is_owed() -> None:
    machine = owing("MAIL FROM:<a@b>")
    machine.abort()
    assert not machine.answer_owed
    assert isinstance(machine.next_event(), ConnectionClosed)


def test_the_end_of_a_message_is_told_though_nothing_more_comes() -> None:
    for aborts in (False, True):
        machine = greeted("MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA")
        assert machine_state(machine)["state"] is State.BODY and machine.next_event() is NEED_DATA
        machine.receive_data(b"x\r\n.\r\n")
        machine.receive_eof()
        assert machine.next_event() == Body(b"x\r\n") and not machine.answer_owed
        assert machine_state(machine)["state"] is State.ENDED and machine.in_transaction
        assert machine.next_event() == MessageEnd()
        if aborts:
            machine.abort()
        else:
            machine.accept()
            assert machine_state(machine)["state"] is State.READY
        assert machine.next_event() == ConnectionClosed("aborted" if aborts else "EOF", in_message=aborts)


def _all_of(machine: SMTPServer) -> list[object]:
    names = [name for kind in type(machine).__mro__ for name in getattr(kind, "__slots__", ())]
    assert len(names) > 30
    return [getattr(machine, name) for name in names if hasattr(machine, name)]


def test_a_secret_shows_in_no_repr() -> None:
    machine = greeted()
    machine.sasl = ServerOptions(("PLAIN",))
    machine.receive_data(b"AUTH PLAIN AGpvZQBoaWRkZW4=\r\n")
    event = machine.next_event()
    assert isinstance(event, VerifyPassword)
    assert event.password.reveal() == b"hidden"
    assert "hidden" not in repr(event) + str(event) + repr(_all_of(machine))


REFUSED_AUTHS = {
    "not offered": ((), "AUTH PLAIN {}"),
    "tab": (("PLAIN",), "AUTH PLAIN\t{}"),
    "two tabs": ((), "AUTH\tPLAIN\t{}"),
    "in place of the name": (("PLAIN",), "AUTH {}"),
    "no such mechanism": (("PLAIN",), "AUTH CRAM-MD5 {}"),
    "in lower case": ((), "auth plain {}"),
    "bad base64": (("PLAIN",), "AUTH PLAIN {}!"),
    "then as a line": ((), "AUTH LOGIN\r\n{}\r\n{}"),
    "refused mechanism, then as a line": (("PLAIN",), "AUTH LOGIN\r\n{}\r\n{}"),
    "in a transaction": (("PLAIN",), "MAIL FROM:<a@b>\r\nAUTH LOGIN\r\n{}\r\n{}"),
    "without an argument": (("PLAIN",), "AUTH\r\n{}"),
}


@pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
@pytest.mark.parametrize("name", REFUSED_AUTHS)
def test_no_event_shows_a_secret_of_a_refused_auth(name: str, profile: Profile) -> None:
    mechanisms, text = REFUSED_AUTHS[name]
    secret = "AGpvZQBoaWRkZW4="
    machine = SMTPServer("mx.example.org", profile)
    machine.sasl = ServerOptions(mechanisms)

    def refuse_auth(machine: SMTPServer, event: Event) -> None:
        if isinstance(event, VerifyPassword):
            machine.reply(535, "no")
        else:
            accept_all(machine, event)

    outcome = play(machine, [[f"EHLO x\r\n{text.replace('{}', secret)}\r\n".encode()]], refuse_auth)
    assert secret not in repr(outcome.events)
    assert secret.encode() not in outcome.output


def test_what_an_application_says_cannot_add_a_line() -> None:
    machine = owing("MAIL FROM:<a@b>")
    machine.reply(550, "no\r250 yes\x1b[2J\x85\u2028\ud800")
    assert machine.data_to_send() == "550 5.1.0 no?250 yes?[2J?\u2028?\r\n".encode()


def test_long_answers_are_wrapped_and_end() -> None:
    for text in ("5.1.1 " + "x" * 3000, "x" * 3000, "word " * 600, "5.1.1  " + " " * 3000 + "x", "é" * 2000):
        machine = owing("MAIL FROM:<a@b>")
        machine.reply(550, text)
        output = machine.data_to_send()
        lines = output.split(b"\r\n")
        assert all(len(line) + 2 <= 512 for line in lines)
        assert [line[:4] for line in lines] == [b"550-"] * (len(lines) - 2) + [b"550 ", b""]
        assert output.count(b"x") == text.count("x")


def test_esmtp_is_for_the_rest_of_the_session() -> None:
    machine = fresh()
    said = []
    for hello in (b"HELO x\r\n", b"EHLO x\r\n", b"HELO y\r\n"):
        play(machine, [[hello]], eof=False)
        said.append((machine.esmtp, machine.helo_host))
    assert said == [(False, "x"), (True, "x"), (True, "y")]


def test_the_applications_capabilities_come_first_and_win() -> None:
    machine = fresh()

    def answer(machine: SMTPServer, event: Event) -> None:
        machine.accept(capabilities=["SIZE 10", "X-OURS"] if isinstance(event, Helo) else ())

    outcome = play(machine, [[b"EHLO x\r\nMAIL FROM:<a@b> SIZE=11\r\nMAIL FROM:<a@b> X-OURS\r\n"]], answer, eof=False)
    assert outcome.output.split(b"\r\n")[1:6] == [
        b"250-mx.example.org", b"250-SIZE 10", b"250-X-OURS", b"250-8BITMIME", b"250-CHUNKING"
    ]  # fmt: skip


def test_data_without_a_recipient_is_no_event() -> None:
    outcome = play(greeted("MAIL FROM:<a@b>"), [[b"DATA\r\n"]], eof=False)
    assert not any(isinstance(event, Data | StartTLS) for event in outcome.events)
