"""The test kit itself: it passes what is right, and sees each fault that it is for."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto import imap, pop3
from mailfront_proto.buffer import ReceiveBuffer
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED
from mailfront_proto.record import record
from mailfront_proto.sasl import Request, ServerExchange, ServerOptions
from mailfront_proto.sasl.base64_line import encode_base64
from mailfront_proto.sasl.options import NEEDED
from mailfront_proto.secret import Secret
from mailfront_proto.smtp import COMPAT, DEFAULT, HelloDone, SMTPClient, SMTPServer
from mailfront_proto.testing import (
    Pair,
    Pieces,
    Player,
    Raised,
    accept,
    assert_chunk_invariant,
    assert_linear,
    assert_memory_bounded,
    assert_output_bounded,
    assert_total,
    byte_by_byte,
    count_steps,
    every_split,
    few_splits,
    held_bytes,
    ignore,
    one_byte,
    random_cuttings,
    random_sizes,
    strategies,
    two_way_splits,
)

# -- cutting -----------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=4))
def test_no_cutting_loses_a_byte_or_crosses_a_mark(segments: list[bytes]) -> None:
    ways = [*every_split(segments, random_ones=5), *few_splits(segments), *random_cuttings(segments, 5, seed=1)]
    for pieces in ways:
        assert [b"".join(parts) for parts in pieces] == segments
        assert all(part for parts in pieces for part in parts)


def test_every_split_is_every_split() -> None:
    ways = list(every_split([b"abc", b"", b"de"]))
    assert ways[0] == [[b"abc"], [], [b"de"]]
    two_way: list[Pieces] = [
        [[b"a", b"bc"], [], [b"de"]],
        [[b"ab", b"c"], [], [b"de"]],
        [[b"abc"], [], [b"d", b"e"]],
    ]
    assert ways[1:4] == list(two_way_splits([b"abc", b"", b"de"])) == two_way
    assert ways[4] == byte_by_byte([b"abc", b"", b"de"]) == [[b"a", b"b", b"c"], [], [b"d", b"e"]]
    assert len(ways) == 5 + 200
    assert ways == list(every_split([b"abc", b"", b"de"]))  # the same ones each time
    assert len(list(two_way_splits([b"x" * 1001], at_most=100))) == 100


# -- a machine with faults ----------------------------------------------------------------------------------


@record
class Line:
    """A line came."""

    data: str


@record
class Body:
    """A slice of a stream."""

    data: bytes


@record
class Closed:
    """The end."""


class Lines:
    """A machine that answers each line with ``ok``; its subclasses each have one fault."""

    def __init__(self) -> None:
        self.buffer = ReceiveBuffer()
        self.output: list[bytes] = []
        self.eof = False
        self.closed = Closed()

    def receive_data(self, data: bytes) -> None:
        self.buffer.feed(data)

    def receive_eof(self) -> None:
        self.eof = True

    def next_event(self) -> object:
        if 3 * len(self.output) > MAX_PENDING_OUTPUT:
            return PAUSED
        line = self.buffer.read_line(100)
        if line is None:
            return self.closed if self.eof else NEED_DATA
        self.output.append(b"ok\n")
        return self.event(line)

    def event(self, line: bytes) -> object:
        return Line(line.decode("latin-1"))

    def data_to_send(self) -> bytes:
        data = b"".join(self.output)
        self.output.clear()
        return data


def new(kind: Callable[[], Lines]) -> Callable[[], Player[Lines]]:
    return lambda: Player(kind(), ignore)


def test_a_machine_without_fault_passes_everything() -> None:
    outcome = assert_chunk_invariant(new(Lines), [b"one\ntw", b"o\nthr"])
    assert outcome.events == [Line("one\n"), Line("two\n"), Closed()]
    assert outcome.output == b"ok\nok\n"
    assert assert_total(new(Lines), b"\0\n\xff").kinds() == ["Line", "Closed"]
    assert_memory_bounded(new(Lines), b"x", 1000)
    assert_memory_bounded(new(Lines), b"x", 1000, size=2000, block=1)
    assert_output_bounded(new(Lines), b"\n", 3)
    assert_linear(new(Lines), b"abc\n")


def test_an_event_that_depends_on_the_cut_is_seen() -> None:
    class Moody(Lines):
        def receive_data(self, data: bytes) -> None:
            super().receive_data(data.upper() if len(data) == 1 else data)

    with pytest.raises(AssertionError, match=r"cut as \[\[b'a', b'b\\n'\]\]: event 0 is Line\(data='Ab\\n'\); "):
        assert_chunk_invariant(new(Moody), [b"ab\n"])


def test_output_that_depends_on_the_cut_is_seen() -> None:
    class Chatty(Lines):
        def receive_data(self, data: bytes) -> None:
            super().receive_data(data)
            self.output.append(b"!")

    with pytest.raises(AssertionError, match="sent b'!!ok"):
        assert_chunk_invariant(new(Chatty), [b"ab\n"])


def test_an_event_that_is_missing_is_seen() -> None:
    class Impatient(Lines):
        def next_event(self) -> object:
            event = super().next_event()
            return self.event(self.buffer.read_all()) if event is NEED_DATA and len(self.buffer) > 2 else event

    with pytest.raises(AssertionError, match="event 0 is"):
        assert_chunk_invariant(new(Impatient), [b"abcd\n"])


def test_slices_of_a_stream_are_one() -> None:
    class Streaming(Lines):
        def next_event(self) -> object:
            data = self.buffer.read_all()
            return Body(data) if data else self.closed if self.eof else NEED_DATA

    outcome = assert_chunk_invariant(new(Streaming), [b"abc", b"de"])
    assert outcome.events == [Body(b"abcde"), Closed()]
    assert outcome.bodies() == [b"abcde"]
    player = new(Streaming)().play([[b"ab"]], eof=False)
    assert player.outcome.events == [Body(b"ab")]
    player.receive(b"c")
    assert player.outcome.events == [Body(b"abc")]
    player.forget()
    player.receive(b"d")
    assert player.outcome.events == [Body(b"d")]


def test_an_exception_is_seen_and_its_bytes_are_named() -> None:
    class Fragile(Lines):
        def event(self, line: bytes) -> object:
            return Line(line.decode("ascii"))

    with pytest.raises(AssertionError, match=r"UnicodeDecodeError for \[\[b'a\\xff\\n'\]\]"):
        assert_total(new(Fragile), b"a\xff\n")
    # Only where it breaks off: the other half is needed to make it whole.
    with pytest.raises(AssertionError, match=r"UnicodeDecodeError for \[\[b'\\xff\\n'\]\]"):
        assert_total(lambda: Player(Fragile(), ignore) if fresh() else Player(Lines(), ignore), b"\xff\n\xff\n")


def fresh(made: list[int] = []) -> bool:  # noqa: B006  # counts its calls
    made.append(1)
    return len(made) == 6  # the sixth way: the first half alone


def test_a_session_that_does_not_end_is_seen() -> None:
    class Deaf(Lines):
        def receive_eof(self) -> None:
            pass

    with pytest.raises(AssertionError, match="the end of input did not end it"):
        assert_total(new(Deaf), b"a\n")


def test_events_without_end_are_seen() -> None:
    class Endless(Lines):
        def next_event(self) -> object:
            return Line("")

    with pytest.raises(AssertionError, match="there is no end to them"):
        assert_total(new(Endless), b"a\n")


@pytest.mark.parametrize("block", [1, 65536])
def test_memory_that_grows_is_seen(block: int) -> None:
    class Hoarding(Lines):
        def __init__(self) -> None:
            super().__init__()
            self.log: dict[str, list[bytes]] = {"all": []}

        def receive_data(self, data: bytes) -> None:
            super().receive_data(data)
            self.log["all"].append(data)

    with pytest.raises(AssertionError, match=r"bytes held after .* of b'x' "):
        assert_memory_bounded(new(Hoarding), b"x", 100_000, size=65536 * 4, block=block)


def test_memory_behind_a_closure_counts() -> None:
    class Sly(Lines):
        def __init__(self) -> None:
            super().__init__()
            kept: list[bytes] = []

            def keep(data: bytes) -> None:
                kept.append(data)

            self.keep = keep

    machine = Sly()
    before = held_bytes(machine)
    machine.keep(bytes(5000))
    assert 5000 < held_bytes(machine) - before < 5500


def test_output_without_bound_is_seen() -> None:
    class Generous(Lines):
        def next_event(self) -> object:
            line = self.buffer.read_line(100)
            self.output.append(b"ok\n")
            return NEED_DATA if line is None else Line("")

    with pytest.raises(AssertionError, match="not PAUSED after 1000000 bytes of b'NOOP"):
        assert_output_bounded(new(Generous), b"NOOP\n", 3, size=1_000_000)


def test_quadratic_work_is_seen() -> None:
    class Slow(Lines):
        def next_event(self) -> object:
            for _ in range(len(self.buffer)):
                pass
            return super().next_event()

    assert_linear(new(Slow), b"abc\n")
    with pytest.raises(AssertionError, match="steps for 20 bytes, but"):
        assert_linear(new(Slow), b"x", size=20)


def test_counting_leaves_a_tracer_as_it_was() -> None:
    before = sys.gettrace()
    assert count_steps(lambda: sum(range(3))) == count_steps(lambda: sum(range(10_000)))
    assert sys.gettrace() is before


# -- playing ------------------------------------------------------------------------------------------------


def test_an_application_that_does_not_answer_is_named() -> None:
    with pytest.raises(AssertionError, match=r"the application did not answer Connected\(early_talker=False\)"):
        Player(SMTPServer("mx.example"), ignore).play([])


def test_what_a_client_may_raise_is_an_event() -> None:
    def new_client() -> Player[SMTPClient]:
        return Player(SMTPClient("me.example"), ignore, raises=RemoteProtocolError)

    outcome = assert_chunk_invariant(new_client, [b"nonsense\r\n220 hello\r\n"])
    assert outcome.kinds() == ["Raised", "ConnectionClosed"]
    raised = outcome.events[0]
    assert isinstance(raised, Raised) and raised.kind is RemoteProtocolError and "nonsense" in raised.text
    with pytest.raises(RemoteProtocolError):
        Player(SMTPClient("me.example"), ignore).play([[b"nonsense\r\n"]])


@pytest.mark.parametrize("chunker", [len, one_byte, random_sizes(7)])
def test_two_machines_talk(chunker: Callable[[bytes], int]) -> None:
    def use(client: SMTPClient, event: object) -> None:
        if type(event).__name__ == "Greeting":
            client.hello()
        elif isinstance(event, HelloDone):
            client.quit()

    pair = Pair(Player(SMTPClient("me.example"), use), Player(SMTPServer("mx.example"), accept), chunker)
    pair.settle()
    assert pair.client.ended and pair.server.ended
    assert pair.client.outcome.kinds() == ["Greeting", "HelloDone", "ReplyReceived", "ConnectionClosed"]
    assert pair.server.outcome.kinds() == ["Connected", "Helo", "Quit", "ConnectionClosed"]


def test_a_side_that_has_ended_is_the_end_of_input_of_the_other() -> None:
    def refuse(server: SMTPServer, event: object) -> None:
        if server.answer_owed:
            server.reply(421, "not now")

    pair = Pair(Player(SMTPClient("me.example"), ignore), Player(SMTPServer("mx.example"), refuse))
    pair.settle()
    assert pair.client.ended and pair.server.ended


# -- the machines of this package ---------------------------------------------------------------------------

WORDS = (b"EHLO x\r\n", b"MAIL FROM:", b"<a@b.example>\r\n", b"RCPT TO:", b"DATA\r\n", b"AUTH PLAIN ", b"QUIT\r\n")


def new_server() -> Player[SMTPServer]:
    machine = SMTPServer("mx.example")
    machine.sasl = ServerOptions(["PLAIN", "LOGIN"])
    return Player(machine, accept)


@given(strategies.hostile_bytes(WORDS))
def test_the_smtp_server_is_total(data: bytes) -> None:
    assert_total(new_server, b"EHLO x\r\n" + data)


@given(st.lists(strategies.commands(), max_size=8))
def test_smtp_commands_under_a_few_splits(commands: list[bytes]) -> None:
    segments = [b"".join(commands)]
    assert_chunk_invariant(new_server, segments, few_splits(segments))


@pytest.mark.parametrize("pattern", [b"x", b"\r", b"\0", b"NOOP ", b"\r\n", b"MAIL FROM:<a@b>\r\n"])
def test_the_memory_of_the_smtp_server_is_bounded(pattern: bytes) -> None:
    assert_memory_bounded(new_server, pattern, 3 * DEFAULT.limits.auth_line)
    assert_memory_bounded(new_server, pattern, 3 * DEFAULT.limits.auth_line, size=30_000, block=1)


def test_the_output_and_the_work_of_the_smtp_server_are_bounded() -> None:
    def new_compat() -> Player[SMTPServer]:
        return Player(SMTPServer("mx.example", COMPAT), accept)

    assert_output_bounded(new_compat, b"NOOP\r\n", 512)
    assert_linear(new_compat, b"NOOP\r\n")
    patient = replace(DEFAULT, limits=replace(DEFAULT.limits, errors_in_row=10_000, errors=10_000))
    assert_linear(lambda: Player(SMTPServer("mx.example", patient), accept), b"x")
    message = [[b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"]]
    assert_linear(lambda: new_server().play(message, eof=False), b"a line\r\n.\rb\n", size=300)
    chunks = [[b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 99999\r\n"]]
    assert_linear(lambda: new_server().play(chunks, eof=False), b"a line\r\n.\rb\n", size=300)


@pytest.mark.parametrize(
    ("machine", "command"),
    [
        (lambda: SMTPServer("mx.example"), b"EHLO x\r\nAUTH PLAIN\r\n"),
        (pop3.POP3Server, b"AUTH PLAIN\r\n"),
        (imap.IMAPServer, b"a AUTHENTICATE PLAIN\r\n"),
    ],
    ids=["SMTP", "POP3", "IMAP"],
)
def test_the_work_of_an_exchange_is_linear_in_every_protocol(machine: Callable[[], Any], command: bytes) -> None:
    def waiting() -> Player[Any]:
        new = machine()
        new.sasl = ServerOptions(["PLAIN"])
        return Player(new, accept).play([[command]], eof=False)

    assert waiting().machine.state.name == "AUTH"
    assert_linear(waiting, b"A", size=300)


# -- strategies ---------------------------------------------------------------------------------------------


@given(strategies.netstrings())
def test_netstrings_are_netstrings(data: bytes) -> None:
    size, _, rest = data.partition(b":")
    assert rest[-1:] == b"," and len(rest) == int(size) + 1


OPTIONS = ServerOptions(
    tuple(name for name in NEEDED if name not in ("LOGIN", "CRAM-MD5")),
    nonce_source=bytes,
    salt_secret=Secret(bytes(16)),
    channel_bindings={"tls-exporter": b"x"},
    external_identity="joe",
    allows_authorization_identity=True,
)


@pytest.mark.parametrize("mechanism", OPTIONS.mechanisms)
@given(st.data())
def test_sasl_messages_are_understood(mechanism: str, data: st.DataObject) -> None:
    message = data.draw(strategies.sasl_messages(mechanism))
    step = ServerExchange(OPTIONS).start(mechanism.encode(), encode_base64(message) or b"=")
    assert isinstance(step, Request) and step.mechanism == mechanism


@given(strategies.plain_messages(), strategies.base64_lines())
def test_sasl_messages_are_sasl_messages(plain: bytes, line: bytes) -> None:
    _, name, password = plain.split(b"\0")
    assert name and password and line.endswith(b"\r\n")


NOT_UNDERSTOOD = (b"Syntax error", b"Unimplemented")


def use_mailbox(machine: pop3.POP3Server, event: object) -> None:
    if isinstance(event, pop3.OpenMailbox):
        machine.open_mailbox([5], [b"one"])
    elif isinstance(event, pop3.Retrieve):
        machine.accept()
        machine.end_of_message()
    elif machine.answer_owed:
        machine.accept()


def in_mailbox() -> Player[pop3.POP3Server]:
    limits = replace(pop3.DEFAULT.limits, errors_in_row=None, errors=None)
    machine = pop3.POP3Server(replace(pop3.DEFAULT, limits=limits))
    machine.offers_user = True
    return Player(machine, use_mailbox).play([[b"USER a\r\nPASS b\r\n"]], eof=False)


@given(st.lists(strategies.pop3_commands(), max_size=6))
def test_pop3_commands_are_none_that_a_server_does_not_understand(commands: list[bytes]) -> None:
    elsewhere = (b"USER", b"PASS", b"UTF8")  # they belong before the login
    segments = [b"".join(command for command in commands if command[:4].upper() not in elsewhere)]
    output = assert_chunk_invariant(in_mailbox, segments, few_splits(segments)).output
    assert output.count(b"+OK") >= 3 and not any(said in output for said in NOT_UNDERSTOOD), output


def test_what_a_pop3_server_does_not_understand() -> None:
    for command in (b"XYZZY", b"RETR", b"LIST 1x", b"DELE -1"):
        output = in_mailbox().play([[command + b"\r\n"]]).outcome.output
        assert any(said in output for said in NOT_UNDERSTOOD), output


@given(st.lists(strategies.imap_commands(), max_size=6))
def test_imap_commands_are_none_that_a_server_does_not_understand(commands: list[bytes]) -> None:
    segments = [b"".join(commands)]

    def new() -> Player[imap.IMAPServer]:
        return Player(imap.IMAPServer(), refuse_logins)

    outcome = assert_chunk_invariant(new, segments, few_splits(segments))
    assert b" BAD " not in outcome.output, (segments, outcome.output)


def refuse_logins(machine: imap.IMAPServer, event: object) -> None:
    if isinstance(event, imap.VerifyPassword):
        machine.reply("NO")
    elif machine.answer_owed:
        machine.accept()


def test_without_hypothesis_one_sentence_says_what_to_do() -> None:
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import mailfront_proto.testing\n"
        "try:\n    import mailfront_proto.testing.strategies\n"
        "except ModuleNotFoundError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "mailfront_proto.testing.strategies needs Hypothesis, which is not installed: pip install hypothesis\n"
    )


def test_the_strategies_are_no_part_of_the_kit_until_they_are_asked_for() -> None:
    code = "import sys, mailfront_proto.testing; print('hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
