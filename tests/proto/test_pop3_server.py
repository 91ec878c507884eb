"""The POP3 server machine: transcripts and the original's recorded sessions under every split, random sessions against
a small model, bounds, and misuse."""

import random
import re
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mailfront_proto.pop3 import (
    COMPAT,
    DEFAULT,
    NEED_DATA,
    PAUSED,
    Answered,
    Connected,
    ConnectionClosed,
    Event,
    HandOver,
    LocalProtocolError,
    Mode,
    OpenMailbox,
    POP3Server,
    Profile,
    Refused,
    Reply,
    Retrieve,
    Secret,
    StartTLS,
    State,
    Update,
    VerifyPassword,
    answers,
    maildrop,
    server_mailbox,
)
from mailfront_proto.pull import MAX_HELD_INPUT, MAX_PENDING_OUTPUT
from mailfront_proto.sasl import ServerOptions
from mailfront_proto.testing import (
    Outcome,
    Player,
    assert_chunk_invariant,
    assert_linear,
    assert_memory_bounded,
    assert_output_bounded,
    assert_total,
    every_split,
    held_bytes,
    whole,
)
from tests.golden.recorded import Session, load
from tests.proto.pop3_script import Application, Transcript, player

PLAIN = ServerOptions(["PLAIN", "LOGIN"])
LOGIN = b"USER joe\r\nPASS secret\r\n"


def new_machine(profile: Profile = DEFAULT, mode: Mode = Mode.WHOLE) -> POP3Server:
    machine = POP3Server(profile, mode=mode)
    machine.offers_user = True
    machine.offers_stls = True
    machine.offers_utf8 = True
    machine.sasl = PLAIN
    return machine


def opened(messages: list[bytes], profile: Profile = DEFAULT) -> POP3Server:
    """A machine whose mailbox is open."""
    machine = new_machine(profile, Mode.MAILBOX)
    player(machine, Application(messages)).step()
    assert machine.state is State.TRANSACTION
    return machine


def said(machine: POP3Server, line: bytes, messages: list[bytes] | None = None) -> bytes:
    """What `line` is answered with."""
    playing = player(machine, Application(messages or []))
    playing.receive(line)
    return playing.outcome.output


# -- transcripts -----------------------------------------------------------------------------------------

TRANSCRIPTS = Transcript.load(Path(__file__).parents[1] / "transcripts" / "pop3")


def ending(event: Event) -> str:
    if isinstance(event, HandOver):
        return f"handed over {event.username}"
    assert isinstance(event, ConnectionClosed)
    return event.reason + (" unfinished" if event.unfinished else "")


@pytest.mark.parametrize("transcript", [pytest.param(t, id=t.name) for t in TRANSCRIPTS])
def test_transcript_under_every_split(transcript: Transcript) -> None:
    many = sum(map(len, transcript.segments)) > 1500
    splits = every_split(transcript.segments, two_way=60 if many else None, random_ones=20 if many else 200)
    if "whole" in transcript.settings:
        splits = iter([whole(transcript.segments)])
    elif transcript.settings.get("mode") == "login":
        return check(transcript, play_up_to_the_end(transcript))
    check(transcript, assert_chunk_invariant(transcript.player, transcript.segments, splits))


def check(transcript: Transcript, outcome: Outcome) -> None:
    assert outcome.output == transcript.output
    assert [" ".join(outcome.kinds()), ending(outcome.events[-1])] == transcript.events


def play_up_to_the_end(transcript: Transcript) -> Outcome:
    """After a hand-over the bytes are another's: nothing is fed any more, and all of it is found there."""
    first: Outcome | None = None
    for pieces in every_split(transcript.segments):
        playing = transcript.player()
        playing.step()
        left = b""
        for piece in [piece for segment in pieces for piece in segment]:
            if playing.machine.state is State.HANDED_OVER:
                left += piece
            else:
                playing.receive(piece)
        assert playing.machine.trailing_data + left == b""
        first = first or playing.outcome
        assert playing.outcome == first, pieces
    assert first is not None
    return first


def test_there_are_transcripts_of_everything() -> None:
    assert len(TRANSCRIPTS) >= 55
    assert len({t.name for t in TRANSCRIPTS}) == len(TRANSCRIPTS)
    output = b"".join(t.output for t in TRANSCRIPTS)
    never_said = {reply.text for reply in vars(answers).values() if isinstance(reply, Reply)}
    never_said = {text for text in never_said if text.encode() not in output}
    assert never_said == {answers.TIMED_OUT.text}


# -- the original's sessions -----------------------------------------------------------------------------

RECORDED = [s for s in load() if s.name.startswith("pop3-") and s.name != "pop3-noarg"]
"""(noarg ends before anything is said.)"""


def sorted_maildir(files: Mapping[str, str], limits: Mapping[str, int]) -> list[tuple[str, str]]:
    """The messages as the original orders them: name and content."""

    def order(name: str) -> tuple[int, str]:
        number = re.match(r"\d+", name)
        return (int(number[0]) if number else 2**63, name)

    found = []
    for part in ("cur", "new"):
        names = [n.removeprefix(f"md/{part}/") for n in files if re.match(f"md/{part}/[^.]", n)]
        names = names[: limits.get(f"MAX_{part.upper()}_MESSAGES", None)]
        found += [(name, files[f"md/{part}/{name}"]) for name in names]
    found = found[: limits.get("MAX_MESSAGES", None)]
    return sorted(found, key=lambda item: order(item[0]))


def size_of(name: str, content: str) -> int:
    marked = re.search(r",W=(\d+)", name) or re.search(r",S=(\d+)", name)
    return int(marked[1]) if marked else len(content)


class OriginalApplication:
    """What pop3front-auth and pop3front-maildir do behind the protocol."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.messages = self.scan()
        self.has_maildir = "md/cur/" in session.files
        self.updates: list[Update] = []
        self.log: list[str] = []

    def scan(self) -> list[tuple[str, str]]:
        limits = {name: int(value) for name, value in self.session.env.items() if name.startswith("MAX_")}
        if limits:  # which of them are left out is the directory's order; what was listed tells
            listed = re.findall(rb"(?m)^\d+ (\S+)\r$", self.session.outcome.stdout)
            everything = sorted_maildir(self.session.files, {})
            return [m for m in everything if re.sub("[,:].*", "", m[0]).encode() in listed]
        return sorted_maildir(self.session.files, {})

    def __call__(self, machine: POP3Server, event: Event) -> None:
        reply = "+OK "
        match event:
            case VerifyPassword(username=username, password=password):
                reply = ""
                if self.session.env.get("CVM_PWFILE_PATH") == "$DIR/none":
                    machine.reply("-ERR", code="SYS/TEMP")
                    reply = "-ERR Internal error"
                elif (username, password) == ("joe", Secret(b"secret")):
                    machine.accept()
                else:
                    machine.reply("-ERR")
                    reply = "-ERR Authentication failed" if event.mechanism == "USER" else "Authentication failed."
            case OpenMailbox() if not self.has_maildir:
                machine.reply("-ERR", "Could not chdir to maildir")
                reply = "-ERR Could not chdir to maildir"
            case OpenMailbox():
                names = [name for name, _ in self.messages]
                machine.open_mailbox(
                    [size_of(*message) for message in self.messages],
                    [re.sub("[,:].*", "", name).encode()[:70] for name in names],
                    read=[n for n, name in enumerate(names, 1) if re.search(":2,.*S", name)],
                )
            case Retrieve(number=number):
                machine.accept()
                machine.send_message_data(self.messages[number - 1][1].encode("latin-1"))
                machine.end_of_message()
            case Update():
                self.updates.append(event)
                machine.accept()
            case Connected():
                machine.accept()
                reply = "+OK " if machine.mode is not Mode.MAILBOX else ""
            case Answered() | Refused():
                reply = str(event.reply).removeprefix("-ERR " if getattr(event, "cause", "") else "")
            case _:
                return
        if not isinstance(event, Connected) and event != OpenMailbox(""):
            self.log.append(machine.last_line)
        if reply:
            self.log.append(reply)
        line = machine.last_line.upper()
        if isinstance(event, Retrieve) or (reply == "+OK " and line in ("CAPA", "AUTH", "LIST", "UIDL")):
            self.log.append(".")


def recorded_machine(session: Session) -> POP3Server:
    limits = replace(
        COMPAT.limits,
        user_commands=int(session.env.get("MAXUSERCMD", "0")) or None,
        auth_failures=int(session.env.get("MAXAUTHFAIL", "0")) or None,
    )
    login = session.argv[0] == "pop3front-auth"
    machine = POP3Server(replace(COMPAT, limits=limits), mode=Mode.LOGIN if login else Mode.MAILBOX)
    machine.offers_user = True
    machine.sasl = ServerOptions(["LOGIN", "PLAIN"] if "CVM_SASL_PLAIN" in session.env else [])
    return machine


@pytest.mark.parametrize("session", [pytest.param(s, id=s.name) for s in RECORDED])
def test_recorded_session_under_every_split(session: Session) -> None:
    for (pieces,) in every_split([session.stdin]):
        application = OriginalApplication(session)
        playing = Player(recorded_machine(session), application)
        playing.step()
        for piece in pieces:
            if playing.machine.state is not State.HANDED_OVER:
                playing.receive(piece)
        if playing.machine.state is not State.HANDED_OVER:
            playing.end()
        outcome = playing.outcome
        handed_over = isinstance(outcome.events[-1], HandOver)
        assert outcome.output + (b"second stage: joe\n" if handed_over else b"") == session.outcome.stdout, pieces
        # The events tell all that the original logs (which has secrets in it, and what is not the protocol's).
        recorded = [line.partition(b"]: ")[2].decode() for line in session.outcome.stderr]
        recorded = [re.sub("^(AUTH PLAIN) .*", r"\1 XXXXXXXX", line) for line in recorded]
        recorded = [line for line in recorded if not line.startswith(("SASL AUTH", "bytes in:"))]
        assert application.log == recorded, pieces
        if session.name in ("pop3-list", "pop3-retr", "pop3-dele", "pop3-rset"):
            assert [(u.deleted, u.read) for u in application.updates] == [UPDATES[session.name]]
        elif session.name == "pop3-noquit":
            assert application.updates == []


UPDATES: dict[str, tuple[list[int], list[int]]] = {
    "pop3-list": ([], []),
    "pop3-retr": ([], [2, 3, 4]),
    "pop3-dele": ([1, 3], []),
    "pop3-rset": ([], []),
}


def test_the_recorded_sessions_are_there() -> None:
    assert len(RECORDED) >= 14


# -- random sessions against a model ---------------------------------------------------------------------

MESSAGES = [b"a: 1\n\none\ntwo\n", b"b: 2\n\n.dot\n", b"", b"no header"]


def wire_form(message: bytes, lines: int | None = None) -> bytes:
    """How a message is sent, said again line by line."""
    text = message.replace(b"\r\n", b"\n")
    kept: list[bytes] = []
    in_body = False
    count = 0
    for line in text.removesuffix(b"\n").split(b"\n") if text else []:
        if in_body:
            count += 1
        if lines is not None and count > lines:
            break
        kept.append(line)
        in_body = in_body or not line
    return b"".join(b"." * line.startswith(b".") + line + b"\r\n" for line in kept) + b".\r\n"


class RandomSession(RuleBasedStateMachine):
    """Commands about four messages, against sets of numbers."""

    @initialize(read=st.sets(st.integers(1, 4)))
    def open(self, read: set[int]) -> None:
        limits = replace(DEFAULT.limits, errors=None, errors_in_row=None, idle_commands=None)
        self.machine = new_machine(replace(DEFAULT, limits=limits), Mode.MAILBOX)
        self.application = Application(MESSAGES, read=sorted(read))
        player(self.machine, self.application).step()
        self.deleted: set[int] = set()
        self.read_before = set(read)
        self.read = set(read)

    def says(self, line: str) -> bytes:
        playing = player(self.machine, self.application)
        playing.receive(line.encode() + b"\r\n")
        return playing.outcome.output

    def missing(self, number: int) -> bytes | None:
        if not 1 <= number <= 4:
            return b"-ERR Message number out of range\r\n"
        return b"-ERR Message was deleted\r\n" if number in self.deleted else None

    @rule(number=st.integers(0, 6))
    def dele(self, number: int) -> None:
        assert self.says(f"DELE {number}") == (self.missing(number) or b"+OK \r\n")
        if 1 <= number <= 4:
            self.deleted.add(number)

    @rule(number=st.integers(0, 6))
    def retr(self, number: int) -> None:
        expected = self.missing(number)
        if expected is None:
            expected = b"+OK \r\n" + wire_form(MESSAGES[number - 1])
            self.read.add(number)
        assert self.says(f"RETR {number}") == expected

    @rule(number=st.integers(0, 6), lines=st.integers(0, 3))
    def top(self, number: int, lines: int) -> None:
        expected = self.missing(number) or b"+OK \r\n" + wire_form(MESSAGES[number - 1], lines)
        assert self.says(f"TOP {number} {lines}") == expected

    @rule(number=st.integers(0, 6), verb=st.sampled_from(["LIST", "UIDL"]))
    def one(self, number: int, verb: str) -> None:
        expected = self.missing(number) or b"+OK " + self.entry(number, verb)
        assert self.says(f"{verb} {number}") == expected

    @rule(verb=st.sampled_from(["LIST", "UIDL"]))
    def all(self, verb: str) -> None:
        left = [number for number in range(1, 5) if number not in self.deleted]
        assert self.says(verb) == b"+OK \r\n" + b"".join(self.entry(number, verb) for number in left) + b".\r\n"

    def entry(self, number: int, verb: str) -> bytes:
        what = len(MESSAGES[number - 1]) if verb == "LIST" else f"uid-{number - 1}"
        return f"{number} {what}\r\n".encode()

    @rule()
    def rset(self) -> None:
        assert self.says("RSET") == b"+OK \r\n"
        self.deleted.clear()
        self.read = set(self.read_before)

    @rule(line=st.sampled_from(["", "FOO", "USER joe", "STLS", "QUIT x"]))
    def nonsense(self, line: str) -> None:
        assert self.says(line).startswith(b"-ERR ")

    @invariant()
    def agrees(self) -> None:
        left = [number for number in range(1, 5) if number not in self.deleted]
        octets = sum(len(MESSAGES[number - 1]) for number in left)
        drop = self.machine._maildrop
        assert (drop.count, drop.octets, drop.last) == (len(left), octets, max(self.read, default=0))
        assert self.machine.state in (State.TRANSACTION, State.CLOSED)

    def teardown(self) -> None:
        if self.machine.state is State.TRANSACTION:
            assert self.says("QUIT") == b"+OK \r\n"
            unseen = sorted(self.read - self.read_before - self.deleted)
            assert self.application.updated == (sorted(self.deleted), unseen)


TestRandomSession = RandomSession.TestCase
TestRandomSession.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


# -- bounds ----------------------------------------------------------------------------------------------

HOSTILE = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.sampled_from(
        [
            b"USER joe\r\n", b"PASS secret\r\n", b"PASS", b"AUTH LOGIN\r\n", b"AUTH PLAIN =\r\n", b"*\r\n", b"STLS\r\n",
            b"QUIT", b"\r\n", b"\n", b"\r", b"\0", b"STAT\r\n", b"LIST\r\n", b"UIDL\r\n", b"RETR 1\r\n", b"TOP 2 1\r\n",
            b"DELE 3\r\n", b"RSET\r\n", b"LAST\r\n", b"UTF8\r\n", b"LANG\r\n", b"CAPA\r\n", b"9" * 30,
            b"x" * 5000, b"\xff\xfe",
            b"GET / HTTP/1.1\r\n", b"NOOP\r\n" * 20, b"XX\n" * 10, b"LIST " + b"1" * 400 + b"\r\n",
        ]
    ),
)  # fmt: skip

PROFILES = [DEFAULT, COMPAT, replace(DEFAULT, strict_lines=False, refuses_http=False)]


class Moody(Application):
    """Says yes and no by dice."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__([b"a\n\nb\n", b".\r\n", b"\n" * 2000])
        self.dice = dice

    def __call__(self, machine: POP3Server, event: Event) -> None:
        if machine.answer_owed and self.dice.random() < 0.2:
            text = self.dice.choice([None, "no", "a\r\n+OK \x1b\ud800\udcff"])
            machine.reply("-ERR", text, self.dice.choice(["", "SYS/TEMP"]))
        elif isinstance(event, VerifyPassword):
            machine.accept()
        else:
            super().__call__(machine, event)


@given(
    st.lists(HOSTILE, max_size=40),
    st.sampled_from(PROFILES),
    st.sampled_from(list(Mode)),
    st.randoms(use_true_random=False),
)
def test_nothing_escapes_and_nothing_grows(
    words: list[bytes], profile: Profile, mode: Mode, dice: random.Random
) -> None:
    machine = new_machine(profile, mode)
    playing = player(machine, Moody(dice))
    playing.step()
    limit = max(profile.limits.command_line, profile.limits.auth_line)
    for word in words:
        if machine.state is State.TLS:
            machine.tls_established()
        if machine.state is State.HANDED_OVER:
            break
        playing.receive(word)
        assert len(machine._buffer) < limit
    if machine.state is not State.HANDED_OVER:
        playing.end()
        assert isinstance(playing.outcome.events[-1], ConnectionClosed)
    for line in playing.outcome.output.split(b"\r\n")[:-1]:
        assert b"\n" not in line and len(line) <= 510


@given(st.builds(range, st.integers(-2, 8), st.integers(-2, 8), st.sampled_from([1, 2, -1])))
def test_a_range_of_read_messages_is_what_its_numbers_are(read: range) -> None:
    def marked(numbers: Iterable[int]) -> list[int] | str:
        machine = opening()
        try:
            machine.open_mailbox([1] * 5, [b"x"] * 5, read=numbers)
        except LocalProtocolError as error:
            return str(error)
        drop = machine._maildrop
        before = [number for number in range(1, 6) if drop._read_before[number - 1]]
        assert drop.last == max(before, default=0)
        return before

    assert marked(read) == marked(list(read))
    if all(1 <= number <= 5 for number in read):
        assert marked(read) == sorted(read)
    else:
        assert "messages are 1 to 5" in str(marked(read))


UIDS = st.one_of(
    st.sampled_from([b"%d", b"100%", b"%%s%", b"", b"!", b"~" * 70, b"x" * 71, b"a b", b"\xff", b"1\r\n."]),
    st.from_regex(rb"[a-z0-9%]{1,70}", fullmatch=True),
)


@pytest.mark.parametrize("at_once", [1, 3, 500])
@given(st.lists(st.tuples(UIDS, st.integers(0, 2**64 - 1)), max_size=8), st.sets(st.integers(1, 8)))
def test_a_listing_is_what_each_message_is_by_itself(
    at_once: int, messages: list[tuple[bytes, int]], deleted: set[int]
) -> None:
    machine = opening()
    machine.open_mailbox([size for _, size in messages], [uid for uid, _ in messages])
    deleted = {number for number in deleted if number <= len(messages)}

    def says(*commands: str) -> bytes:
        machine.data_to_send()
        machine.receive_data("".join(f"{command}\r\n" for command in commands).encode())
        while machine.next_event() is not NEED_DATA:
            pass
        return machine.data_to_send()

    says("NOOP", *(f"DELE {number}" for number in deleted))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maildrop, "LINES_AT_ONCE", at_once)
        patch.setattr(server_mailbox, "LINES_AT_ONCE", at_once)
        for command in ("LIST", "UIDL"):
            of_each = [says(f"{command} {n}") for n in range(1, len(messages) + 1) if n not in deleted]
            assert says(command) == b"+OK \r\n" + b"".join(line.removeprefix(b"+OK ") for line in of_each) + b".\r\n"


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    assert_total(lambda: player(new_machine(), Application(MESSAGES)), LOGIN + data)


@pytest.mark.parametrize(
    "pattern", [b"x", b"NOOP\r\n", b"\r", b"RETR 2\r\n", b"AUTH LOGIN\r\n", b"AUTH PLAIN " + b"A" * 5000]
)
def test_memory_is_bounded_and_work_linear(pattern: bytes) -> None:
    profile = replace(DEFAULT, limits=replace(COMPAT.limits, command_line=512, auth_line=12288))

    def new() -> Player[POP3Server]:
        return player(opened(MESSAGES, profile), Application(MESSAGES))

    assert_memory_bounded(new, pattern, 3 * 12288, size=512 * 1024)
    assert_linear(new, pattern, size=600)


@pytest.mark.parametrize("line", [b"NOOP\r\n", b"RETR 1\r\n", b"LIST\r\n", b"FOO\r\n"])
def test_h21_output_that_nobody_drains_pauses_the_machine(line: bytes) -> None:
    messages = [b"x" * 1000 + b"\n"] * 100
    assert_output_bounded(lambda: player(opened(messages, COMPAT), Application(messages)), line * 100, 60_000)


def test_a_message_that_nobody_drains_is_the_applications_fault() -> None:
    machine = opened([b"x"])
    machine.receive_data(b"RETR 1\r\n")
    assert isinstance(machine.next_event(), Retrieve)
    machine.accept()
    assert machine.next_event() is PAUSED
    piece = b"x" * 65536
    for _ in range(5):
        assert machine.send_message_data(piece)
    with pytest.raises(LocalProtocolError, match="drain data_to_send"):
        machine.send_message_data(piece)
    assert len(machine.data_to_send()) == 5 * 65536 + len(b"+OK \r\n")
    assert machine.send_message_data(piece)


COUNT = 100_000


def big_mailbox() -> tuple[POP3Server, list[bytes]]:
    uids = [b"1700000000.M%06dP1.host.example.org" % n for n in range(COUNT)]
    machine = new_machine(replace(DEFAULT, limits=COMPAT.limits), Mode.MAILBOX)
    assert isinstance(machine.next_event(), Connected)
    machine.accept()
    assert isinstance(machine.next_event(), OpenMailbox)
    machine.open_mailbox(range(COUNT), uids)
    machine.data_to_send()
    return machine, uids


def test_a_hundred_thousand_messages_cost_eleven_bytes_each() -> None:
    machine, uids = big_mailbox()
    held = held_bytes(machine) - held_bytes(uids)
    assert held <= 12 * COUNT + 20_000


def test_listings_of_a_hundred_thousand_messages_go_out_in_slices() -> None:
    machine, uids = big_mailbox()
    machine.receive_data(b"DELE 2\r\nLIST\r\nUIDL\r\nSTAT\r\n")
    output = []
    tracemalloc.start()
    while (event := machine.next_event()) is not NEED_DATA:
        if event is PAUSED:
            data = machine.data_to_send()
            assert 0 < len(data) <= MAX_PENDING_OUTPUT + 50_000
            output.append(bytes([len(data) & 255]))
            if not output[1:]:
                first = data
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * (MAX_PENDING_OUTPUT + 50_000)  # what waits, joined, and the first part kept here
    assert len(output) > 10
    assert first.startswith(b"+OK \r\n+OK \r\n1 0\r\n3 2\r\n")
    assert machine.data_to_send().endswith(b"100000 %s\r\n.\r\n+OK 99999 4999949999\r\n" % uids[-1])


def test_an_update_of_a_hundred_thousand_messages() -> None:
    machine, _ = big_mailbox()
    for start in range(1, COUNT + 1, 1000):
        machine.receive_data(b"".join(b"DELE %d\r\n" % n for n in range(start, start + 1000)))
        while machine.next_event() is not NEED_DATA:
            pass
        machine.data_to_send()
    machine.receive_data(b"STAT\r\nQUIT\r\n")
    assert machine.next_event() == Answered("STAT", Reply("+OK", "0 0"))
    update = machine.next_event()
    assert isinstance(update, Update)
    assert update.deleted == list(range(1, COUNT + 1))


# -- the application's part ------------------------------------------------------------------------------


def owing(line: str = "RETR 1") -> POP3Server:
    """A machine that waits for the answer to `line`."""
    machine = opened([b"x"])
    machine.receive_data(line.encode() + b"\r\n")
    machine.next_event()
    return machine


def sending() -> POP3Server:
    machine = owing()
    machine.accept()
    return machine


def connected() -> POP3Server:
    machine = new_machine()
    machine.next_event()
    return machine


def opening() -> POP3Server:
    machine = new_machine(mode=Mode.MAILBOX)
    machine.next_event()
    machine.accept()
    machine.next_event()
    return machine


def in_tls_handshake() -> POP3Server:
    machine = connected()
    machine.accept()
    machine.receive_data(b"STLS\r\n")
    assert isinstance(machine.next_event(), StartTLS)
    machine.accept()
    return machine


def verifying() -> POP3Server:
    machine = connected()
    machine.accept()
    machine.receive_data(LOGIN)
    assert isinstance(machine.next_event(), Answered)
    assert isinstance(machine.next_event(), VerifyPassword)
    return machine


def handed_over() -> POP3Server:
    machine = new_machine(mode=Mode.LOGIN)
    machine.next_event()
    machine.accept()
    machine.receive_data(LOGIN + b"STAT\r\nLI")
    machine.next_event()
    assert isinstance(machine.next_event(), VerifyPassword)
    machine.accept()
    return machine


MISUSE: dict[str, tuple[Callable[[], POP3Server], Callable[[POP3Server], Any], str]] = {
    "no data": (connected, lambda m: m.receive_data(b""), r"receive_eof\(\)"),
    "too much data": (connected, lambda m: m.receive_data(b"x" * (MAX_HELD_INPUT + 1)), "until it returns NEED_DATA"),
    "data in a handshake": (in_tls_handshake, lambda m: m.receive_data(b"x"), "tls_established"),
    "tls_established anywhere": (owing, lambda m: m.tls_established(), "accepted StartTLS"),
    "accept without an event": (lambda: opened([]), lambda m: m.accept(), "no answer is owed"),
    "reply without an event": (lambda: opened([]), lambda m: m.reply("-ERR"), "no answer is owed"),
    "accept a mailbox": (opening, lambda m: m.accept(), r"open_mailbox\(sizes, uids\)"),
    "open a message": (owing, lambda m: m.open_mailbox([], []), "answers OpenMailbox"),
    "a size too few": (opening, lambda m: m.open_mailbox([1], [b"a", b"b"]), "1 sizes, but 2 UIDs"),
    "a negative size": (opening, lambda m: m.open_mailbox([-1], [b"a"]), "integers from 0"),
    "a huge size": (opening, lambda m: m.open_mailbox([2**64], [b"a"]), "integers from 0"),
    "a size that is none": (opening, lambda m: m.open_mailbox(no_bytes("1"), [b"a"]), "integers from 0"),
    "UIDs as text": (opening, lambda m: m.open_mailbox([1], no_bytes("a")), "bytes"),
    "read, but not there": (opening, lambda m: m.open_mailbox([1], [b"a"], read=[2]), "messages are 1 to 1"),
    "no code": (owing, lambda m: m.reply("-ERR", "x", "SYS TEMP"), "no response code"),
    "a code with a line": (owing, lambda m: m.reply("-ERR", "x", "A]\r\n+OK"), "no response code"),
    "UTF8 only, of what": (opening, lambda m: m.reply_utf8_only(), "a Retrieve whose utf8 is False"),
    "data without a message": (owing, lambda m: m.send_message_data(b"x"), r"the accept\(\) of a Retrieve"),
    "end without a message": (owing, lambda m: m.end_of_message(), r"the accept\(\) of a Retrieve"),
    "data behind the end": (lambda: ended(sending()), lambda m: m.send_message_data(b"x"), r"the accept\(\) of"),
    "accept while sending": (sending, lambda m: m.accept(), "no answer is owed"),
    "keys for a password": (verifying, lambda m: m.supply_keys(None), "answers FindKeys"),
    "data behind a hand-over": (handed_over, lambda m: m.receive_data(b"x"), "its next owner"),
}


def no_bytes(text: str) -> Any:
    """What the types forbid."""
    return [text]


def ended(machine: POP3Server) -> POP3Server:
    machine.end_of_message()
    return machine


def seen(machine: POP3Server) -> tuple[object, ...]:
    return machine.state, machine.answer_owed, machine.username, machine.in_tls, machine.data_to_send()


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_raises_teaches_and_changes_nothing(name: str) -> None:
    make, misuse, text = MISUSE[name]
    machine = make()
    machine.data_to_send()
    before = seen(machine)
    with pytest.raises(LocalProtocolError, match=text):
        misuse(machine)
    assert seen(machine) == before


def test_the_hand_over_keeps_what_the_client_sent_behind_its_login() -> None:
    machine = handed_over()
    event = machine.next_event()
    assert event == HandOver("joe")
    assert machine.next_event() is event
    assert machine.trailing_data == b"STAT\r\nLI"
    second = new_machine(mode=Mode.MAILBOX)
    playing = player(second, Application(MESSAGES))
    playing.step()
    playing.receive(machine.trailing_data)
    playing.receive(b"ST 1\r\n")
    assert playing.outcome.output == b"+OK \r\n+OK 4 %d\r\n+OK 1 14\r\n" % sum(map(len, MESSAGES))


def test_the_usual_answers_and_others() -> None:
    for kind, reply, expected in [
        ("RETR 1", ("-ERR",), b"-ERR Could not open that message\r\n"),
        ("RETR 1", ("-ERR", "gone"), b"-ERR gone\r\n"),
        ("RETR 1", ("-ERR", None, "SYS/TEMP"), b"-ERR [SYS/TEMP] Internal error\r\n"),
        ("RETR 1", ("-ERR", "Not now", "SYS/TEMP"), b"-ERR [SYS/TEMP] Not now\r\n"),
        ("RETR 1", ("+OK", "1 octet"), b"+OK 1 octet\r\n"),
        ("QUIT", ("-ERR",), b"-ERR Some deleted messages were not removed\r\n"),
        ("QUIT", ("+OK", "bye"), b"+OK bye\r\n"),
    ]:
        machine = owing(kind)
        machine.reply(*reply)  # type: ignore[arg-type]
        assert machine.data_to_send() == expected
    machine = opened([b"x"], COMPAT)
    machine.receive_data(b"RETR 1\r\n")
    machine.next_event()
    machine.reply("-ERR", "Not now", "SYS/TEMP")
    assert machine.data_to_send() == b"-ERR Not now\r\n"


def test_h60_what_an_application_says_cannot_add_a_line() -> None:
    machine = owing()
    machine.reply("-ERR", "no\r\n+OK yes\n.\x1b[2J\x85\u2028\ud800\udcff")
    assert machine.data_to_send() == b"-ERR no??+OK yes?.?[2J?\xe2\x80\xa8?\xff\r\n"
    machine = new_machine()
    machine.implementation = "x\r\n.\r\n+OK"
    machine.next_event()
    machine.accept()
    assert b"IMPLEMENTATION x??.??+OK\r\n.\r\n" in said(machine, b"CAPA\r\n")


@pytest.mark.parametrize("text", ["x" * 3000, "é" * 2000, "xé" * 2000])
def test_long_answers_are_cut_at_512_octets(text: str) -> None:
    machine = owing()
    machine.reply("-ERR", text)
    output = machine.data_to_send()
    assert 509 <= len(output) <= 512 and output.endswith(b"\r\n")
    assert output.decode("utf-8")


def test_a_refused_rescan_leaves_the_mailbox_as_it_was() -> None:
    machine = opened([b"x", b"yy"], COMPAT)
    machine.receive_data(b"DELE 1\r\nRSET\r\n")
    assert isinstance(machine.next_event(), Answered)
    assert machine.next_event() == OpenMailbox("", again=True)
    machine.reply("-ERR", "Could not access maildir")
    assert said(machine, b"STAT\r\n").endswith(b"-ERR Could not access maildir\r\n+OK 2 3\r\n")


def test_a_rescan_may_find_other_messages() -> None:
    application = Application([b"x"])
    machine = new_machine(COMPAT, Mode.MAILBOX)
    playing = player(machine, application)
    playing.step()
    application.messages.append(b"yy")
    playing.receive(b"STAT\r\nRSET\r\nSTAT\r\n")
    assert playing.outcome.output == b"+OK \r\n+OK 1 1\r\n+OK \r\n+OK 2 3\r\n"


def test_early_talkers_are_told() -> None:
    machine = new_machine()
    machine.receive_data(b"CAPA\r\n")
    assert machine.next_event() == Connected(early_talker=True)
    assert connected().state is State.GREETING


def test_implicit_tls_is_there_before_the_greeting() -> None:
    machine = new_machine()
    machine.tls_established()
    assert machine.next_event() == Connected(early_talker=False)
    machine.accept()
    assert b"STLS" not in said(machine, b"CAPA\r\n")


def test_h31_plain_text_while_stls_waits_for_its_answer() -> None:
    machine = connected()
    machine.accept()
    machine.receive_data(b"STLS\r\n")
    assert isinstance(machine.next_event(), StartTLS)
    machine.receive_data(b"USER evil\r\n")
    machine.accept()
    assert isinstance(machine.next_event(), ConnectionClosed)
    assert machine.data_to_send() == b"+OK \r\n-ERR Unexpected pipelined commands following STLS\r\n"


def test_a_refused_stls_changes_nothing() -> None:
    machine = connected()
    machine.accept()
    machine.receive_data(b"STLS\r\n")
    machine.next_event()
    machine.reply("-ERR")
    assert machine.state is State.AUTHORIZATION and not machine.in_tls
    assert machine.data_to_send().endswith(b"-ERR [SYS/TEMP] Internal error\r\n")


def test_eof_in_a_handshake() -> None:
    machine = in_tls_handshake()
    assert machine.next_event() is PAUSED
    machine.receive_eof()
    assert machine.next_event() == ConnectionClosed("EOF", unfinished=True)


def test_abort_says_a_last_word_where_it_can_be_heard() -> None:
    machine = opened([])
    machine.receive_data(b"NOOP\r\n")
    machine.abort(answers.TIMED_OUT)
    assert machine.data_to_send() == b"-ERR Connection timed out\r\n"
    closed = machine.next_event()
    assert closed == ConnectionClosed("aborted", unfinished=False, reply=answers.TIMED_OUT)
    machine.abort()
    assert machine.next_event() is closed
    machine.receive_data(b"QUIT\r\n")
    assert machine.next_event() is closed


@pytest.mark.parametrize("make", [sending, owing, verifying, opening, in_tls_handshake])
def test_abort_in_the_middle(make: Callable[[], POP3Server]) -> None:
    machine = make()
    machine.data_to_send()
    machine.abort(answers.TIMED_OUT)
    closed = machine.next_event()
    assert isinstance(closed, ConnectionClosed) and closed.unfinished and not machine.answer_owed
    # in the middle of a message it would be a part of that
    assert machine.data_to_send() == (b"" if make is sending else b"-ERR Connection timed out\r\n")


def test_the_client_may_close_its_side_while_a_message_is_sent() -> None:
    machine = sending()
    machine.data_to_send()
    machine.receive_data(b"DELE 1\r\n")
    machine.receive_eof()
    assert machine.next_event() is PAUSED
    machine.send_message_data(b"x")
    machine.end_of_message()
    assert machine.next_event() == Answered("DELE 1", Reply("+OK"))
    assert machine.next_event() == ConnectionClosed("EOF")
    assert machine.data_to_send() == b"x\r\n.\r\n+OK \r\n"


def test_top_says_when_it_has_enough() -> None:
    machine = owing("TOP 1 1")
    machine.accept()
    assert machine.send_message_data(b"a: b\n\n")
    assert machine.send_message_data(b"one")
    assert not machine.send_message_data(b"\ntwo\nthree\n")
    assert not machine.send_message_data(b"four\n")
    machine.end_of_message()
    assert machine.data_to_send() == b"+OK \r\na: b\r\n\r\none\r\n.\r\n"


# -- messages, in any pieces (H80) -------------------------------------------------------------------------

WORDS = st.lists(
    st.sampled_from([b"\n", b"\r\n", b".", b"..", b"a", b"b: c", b"\n\n", b"\r\n\r\n", b"\n.\n", b"\r\n.\r\n"]),
    max_size=12,
)


@given(WORDS.map(b"".join), st.one_of(st.none(), st.integers(0, 5)), st.integers(1, 7))
def test_any_message_in_any_slices(message: bytes, lines: int | None, slices: int) -> None:
    machine = opened([message])
    playing = player(machine, Application([message], slices=slices))
    playing.receive(b"TOP 1 %d\r\n" % lines if lines is not None else b"RETR 1\r\n")
    assert playing.outcome.output == b"+OK \r\n" + wire_form(message, lines)


@given(st.lists(st.sampled_from([b"\n", b"\r", b".", b"a", b"\r\n"]), max_size=9).map(b"".join), st.integers(1, 4))
def test_a_bare_cr_stays(message: bytes, slices: int) -> None:
    machine = opened([message])
    playing = player(machine, Application([message], slices=slices))
    playing.receive(b"RETR 1\r\n")
    expected = re.sub(rb"(?<!\r)\n", b"\r\n", message)
    expected += b"" if not expected or expected.endswith(b"\r\n") else b"\r\n"
    assert playing.outcome.output == b"+OK \r\n" + re.sub(rb"(?:\A|(?<=\r\n))\.", b"..", expected) + b".\r\n"


# -- secrets (H48) -----------------------------------------------------------------------------------------

MISTYPED = [
    "PASS {}", "pass {}", "PASS  {}", "PASSW {}", "PAS {}", "PASS\t{}", "PASS{}", "{}", "PASS {} x", "AUTH PLAIN {}",
    "AUTH PLAIN\t{}", "AUTH NONE {}", "AUTHENTICATE PLAIN {}", "AUTH LOGIN\r\n{}\r\n{}", "AUTH PLAIN\r\n{}",
    "AUTH NONE\r\n{}", "USER joe\r\n{}", "AUTH PLAIN !\r\nabcd\r\n{}", "APOP joe {}", "LOGIN joe {}",
]  # fmt: skip


@pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
@pytest.mark.parametrize("mode", [Mode.WHOLE, Mode.MAILBOX], ids=["whole", "mailbox"])
@pytest.mark.parametrize("text", MISTYPED)
def test_h48_no_event_shows_a_password(text: str, mode: Mode, profile: Profile) -> None:
    for secret in ("AGpvZQBzZWNyZXQ=", "hidden-word"):
        machine = new_machine(profile, mode)
        playing = player(machine)
        playing.play([[text.replace("{}", secret).encode() + b"\r\n"]])
        assert secret not in repr(playing.outcome.events) + machine.last_line
        assert secret.encode() not in playing.outcome.output


def test_h48_what_cannot_be_a_mechanism_may_be_a_password() -> None:
    machine = new_machine()
    playing = player(machine)
    playing.play([[b"AUTH AGpvZQBzZWNyZXQ=\r\nAUTH " + b"x" * 21 + b"\r\n"]])
    assert "AGpv" not in repr(playing.outcome.events) and "xxxx" not in repr(playing.outcome.events)


def test_h48_four_letters_behind_user_or_auth_may_be_a_password() -> None:
    for before in (b"USER joe\r\n", b"AUTH NONE\r\n", b"AUTH PLAIN !\r\n"):
        machine = new_machine()
        playing = player(machine)
        playing.play([[before + b"abcd\r\n"]])
        assert "abcd" not in repr(playing.outcome.events)


def test_a_known_command_is_shown_as_it_came() -> None:
    machine = new_machine()
    playing = player(machine)
    playing.play([[b"user joe\r\nFOO\r\nCAPA x\r\nXTND x\r\n\r\n"]])
    lines = [event.line for event in playing.outcome.events if isinstance(event, Answered | Refused)]
    assert lines == ["user joe", "XXXXXXXX", "CAPA x", "XXXXXXXX XXXXXXXX", ""]
    machine = new_machine()
    playing = player(machine)
    playing.play([[b"XTND x\r\nFOO\r\n\xff\r\n"]])
    lines = [event.line for event in playing.outcome.events if isinstance(event, Answered | Refused)]
    assert lines == ["XTND XXXXXXXX", "FOO", "XXXXXXXX"]
