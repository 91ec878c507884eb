"""BDAT: H08 to H12, and the earlier rows again where a message comes in chunks; XCLIENT: H70; parameters of the newer
extensions: H52, H55, H56, H93."""

import contextlib
import time
import tracemalloc
from dataclasses import replace

import pytest

from mailfront_io.testing import EOF, RESET, STALL, Action, WaitFor
from mailfront_proto.pull import MAX_PENDING_OUTPUT
from mailfront_proto.smtp import (
    NEED_DATA,
    PAUSED,
    Body,
    ConnectionClosed,
    LineEnds,
    Mail,
    MessageEnd,
    Recipient,
    Refused,
    SMTPServer,
    State,
)
from mailfront_proto.smtp.parameters import MailOptions, ParameterError, RecipientOptions
from tests.front import Front, codes
from tests.hostile.every import COMPAT, DEFAULT, ENVELOPE, HELLO, codes_of, split_outcome
from tests.proto.server_script import play

UNLIMITED = replace(DEFAULT, limits=replace(DEFAULT.limits, message_size=None))
BLOCK = b"x" * 65536


def chunk(content: bytes, last: bool = False) -> bytes:
    return b"BDAT %d%s\r\n" % (len(content), b" LAST" if last else b"") + content


# -- H08 to H12 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", LineEnds)
def test_h08_no_dot_is_unstuffed_in_a_chunk(policy: LineEnds) -> None:
    content = b"..\r\n.\r\n..a\r\n\r\n.\r\nQUIT\r\n"
    for cut in range(len(content) + 1):
        wire = ENVELOPE + chunk(content[:cut]) + chunk(content[cut:], last=True)
        outcome = split_outcome([wire], replace(DEFAULT, line_ends=policy), few=True)
        assert b"".join(outcome.bodies()) == content
        assert outcome.codes()[4:] == [250, 250]
    front = Front("accept")
    front.say(ENVELOPE + chunk(content, last=True))
    assert front.messages[0][2] == content.replace(b"\r\n", b"\n")


COMMANDS = b"RSET\r\nMAIL FROM:<evil@example.net>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nsmuggled\r\n.\r\nQUIT\r\n"


@pytest.mark.parametrize(
    "before", [b"", HELLO, HELLO + b"MAIL FROM:<a@example.net>\r\n", ENVELOPE + chunk(b"a", last=True)], ids=range(4)
)
@pytest.mark.parametrize("last", [b"", b" LAST", b" FIRST", b" LAST LAST"])
def test_h09_a_refused_chunk_is_no_command(before: bytes, last: bytes) -> None:
    wire = before + b"BDAT %d%s\r\n" % (len(COMMANDS), last) + COMMANDS
    outcome = split_outcome([wire + b"NOOP\r\n"])
    assert outcome.codes()[-2:] == [501 if last not in (b"", b" LAST") else 503, 250]
    assert not any(isinstance(e, Mail) and "evil" in e.argument for e in outcome.events)
    assert "Quit" not in outcome.kinds()
    front = Front("accept")
    front.say(wire)
    assert all(b"smuggled" not in body for _, _, body in front.messages)


def test_h09_nor_is_one_that_is_too_big_or_that_nobody_wants() -> None:
    small = replace(DEFAULT, limits=replace(DEFAULT.limits, message_size=10))
    outcome = split_outcome([ENVELOPE + chunk(COMMANDS) + chunk(COMMANDS, last=True) + b"NOOP\r\n"], small)
    assert outcome.codes()[4:] == [552, 503, 250]

    def refuse(machine: SMTPServer, event: object) -> None:
        if type(event).__name__ == "Data":
            machine.reply(554, "5.7.1 No")
        else:
            machine.accept()

    wire = ENVELOPE + chunk(COMMANDS) + chunk(COMMANDS, last=True) + b"NOOP\r\n"
    outcome = split_outcome([wire], answer=lambda: refuse)
    assert outcome.codes()[4:] == [554, 503, 250]


NEXT = {
    "DATA": b"DATA\r\n",
    "RSET": b"RSET\r\n",
    "MAIL": b"MAIL FROM:<b@example.net>\r\n",
    "RCPT": b"RCPT TO:<c@example.org>\r\n",
    "EHLO": HELLO,
    "BDAT": chunk(b"b"),
    "BDAT LAST": chunk(b"b", last=True),
    "BDAT wrong": b"BDAT 1 NOW\r\nb",
    "unknown": b"XYZZY\r\n",
    "AUTH": b"AUTH PLAIN =\r\n",
}


@pytest.mark.parametrize("second", NEXT)
@pytest.mark.parametrize("first", NEXT)
def test_h10_mixed_commands_never_mix_messages(first: str, second: str) -> None:
    """Whatever stands between, a message is the chunks (or the DATA) of one transaction and nothing else."""
    wire = ENVELOPE + chunk(b"a") + NEXT[first] + NEXT[second]
    wire += b"MAIL FROM:<last@example.net>\r\nRCPT TO:<d@example.org>\r\n" + chunk(b"z", last=True)
    front = Front("accept")
    front.say(wire)
    *earlier, last = front.messages
    assert last == ("last@example.net", ["d@example.org"], b"z")
    chunks = [name for name in (first, second) if name in ("BDAT", "BDAT LAST")]
    drops = first in ("RSET", "MAIL", "EHLO") or "BDAT LAST" not in (first, second)
    if drops and first != "BDAT LAST":
        assert earlier == []
    else:
        expected = b"a" + b"b" * (len(chunks) if first != "BDAT LAST" else 1)
        assert earlier == [("a@example.net", ["b@example.org"], expected)]


def test_h11_chunks_of_one_octet_without_end() -> None:
    machine = SMTPServer("mx.example.org", UNLIMITED)
    play(machine, [[ENVELOPE]], eof=False)
    wire = b"BDAT 1\r\nx" * 7281  # what 64 KiB hold
    octets = 0

    def feed() -> None:
        nonlocal octets
        machine.receive_data(wire)
        while (event := machine.next_event()) is not NEED_DATA:
            if isinstance(event, Body):
                octets += len(event.data)
            elif event is not PAUSED:
                machine.accept()
            else:
                assert len(machine.data_to_send()) < MAX_PENDING_OUTPUT + 512
        machine.data_to_send()

    for _ in range(16):
        feed()
    tracemalloc.start()
    try:
        feed()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            feed()
        assert tracemalloc.get_traced_memory()[0] - before < 2048
    finally:
        tracemalloc.stop()
    assert octets == 20 * 7281
    play(machine, [[b"BDAT 0 LAST\r\n"]], eof=False)
    assert machine.state is State.READY


SIZES = [
    "-1", "+5", "1e3", "18446744073709551616", "9999999999999999999", "\u0661", "\u00b2", "0x10", "1_0", "1.0", "",
    "LAST", " ", "5LAST", "5,LAST", "5\x0bLAST", "5\u00a0LAST", "\uff15", "٥ LAST", "1" * 4000,
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=range(len(SIZES)))
def test_h12_sizes_that_are_none(size: str) -> None:
    """501; and nothing that follows is run, for nobody knows where the chunk ends."""
    lines = ["MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", f"BDAT {size}", "QUIT"]
    wire = HELLO + "".join(f"{line}\r\n" for line in lines).encode()
    outcome = split_outcome([wire], few=len(wire) > 300)
    assert outcome.codes()[4:] == [501]
    assert "Quit" not in outcome.kinds()
    assert isinstance(outcome.events[-1], ConnectionClosed) and not outcome.events[-1].reason.startswith("QUIT")


def test_h12_the_largest_size_is_only_a_number() -> None:
    machine = SMTPServer("mx.example.org", UNLIMITED)
    outcome = play(machine, [[ENVELOPE + b"BDAT 999999999999999999 LAST\r\nabc"]], eof=False)
    assert outcome.bodies() == [b"abc"]
    assert machine.state is State.CHUNK


# -- earlier rows, in chunks -----------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r\n", b"\r.\r", b"\n\r.\n"], ids=repr)
def test_h01_nothing_in_a_chunk_ends_it(end: bytes) -> None:
    content = b"first" + end + COMMANDS
    outcome = split_outcome([ENVELOPE + chunk(content, last=True) + b"NOOP\r\n"])
    assert outcome.codes()[4:] == [250, 250]
    assert outcome.bodies()[0].endswith(COMMANDS)


@pytest.mark.parametrize("cut", range(6))
def test_h06_no_bare_line_end_is_handed_on(cut: int) -> None:
    content = b"a\rb\nc\r"
    front = Front("accept")
    front.say(ENVELOPE + chunk(content[:cut]) + chunk(content[cut:], last=True))
    assert front.messages[0][2] == b"a b\nc "
    front = Front("accept", env={"BARE_LINE_ENDS": "reject"})
    output = front.say(ENVELOPE + chunk(content[:cut]) + chunk(content[cut:], last=True) + b"NOOP\r\n")
    assert front.messages == [] and 554 in codes(output) and codes(output)[-1] != 250


def test_h13_the_command_behind_a_chunk_is_handled_once() -> None:
    outcome = split_outcome([ENVELOPE + chunk(b"abc", last=True) + b"VRFY b\r\nQUIT\r\nNOOP\r\n"])
    assert outcome.codes()[4:] == [250, 252, 221]


def test_h15_a_chunk_behind_the_end_is_dropped() -> None:
    outcome = split_outcome([ENVELOPE + b"QUIT\r\n" + chunk(COMMANDS, last=True)])
    assert outcome.codes()[4:] == [221]


def test_h16_a_chunk_of_200_mib_is_held_nowhere() -> None:
    for refused in (False, True):
        machine = SMTPServer("mx.example.org", UNLIMITED)
        play(machine, [[HELLO if refused else ENVELOPE]], eof=False)
        machine.receive_data(b"BDAT %d LAST\r\n" % (3200 * len(BLOCK)))
        assert play(machine, [], eof=False).codes() == []
        for _ in range(3200):
            machine.receive_data(BLOCK)
            if not refused:
                assert machine.next_event() == Body(BLOCK)
            if machine.state in (State.CHUNK, State.DRAIN):
                event = machine.next_event()
                assert event is NEED_DATA or isinstance(event, MessageEnd | Refused)
            assert len(machine._buffer) == 0
        if not refused:
            machine.accept()
        assert machine.data_to_send()[:3] == (b"503" if refused else b"250")


@pytest.mark.parametrize("size", range(5, 9))
def test_h18_the_limit_holds_over_all_chunks(size: int) -> None:
    small = replace(DEFAULT, limits=replace(DEFAULT.limits, message_size=7))
    content = b"abcdefgh"[:size]
    for cut in range(size + 1):
        outcome = split_outcome([ENVELOPE + chunk(content[:cut]) + chunk(content[cut:], last=True)], small, few=True)
        if size <= 7:
            assert outcome.codes()[4:] == [250, 250]
        else:
            assert outcome.codes()[4:] == ([552, 503] if cut == 8 else [250, 552])
        assert b"".join(outcome.bodies()) == content[:7]


def test_h20_empty_chunks_meet_the_idle_budget() -> None:
    outcome = split_outcome([ENVELOPE + b"BDAT 0\r\n" * 150], few=True)
    assert outcome.codes().count(250) == 3 + 99  # EHLO is one of the hundred, too
    assert outcome.codes()[-1] == 421


def test_h21_a_peer_that_sends_chunks_and_never_reads() -> None:
    machine = SMTPServer("mx.example.org", UNLIMITED)
    play(machine, [[ENVELOPE]], eof=False)
    fed = 0
    while True:
        event = machine.next_event()
        if event is PAUSED:
            break
        if event is NEED_DATA:
            machine.receive_data(b"BDAT 1\r\nx" * 1000)
            fed += 1
        elif machine.answer_owed:
            machine.accept()
    assert fed < 15
    assert machine._output_size < MAX_PENDING_OUTPUT + 1024
    script: list[Action] = [WaitFor(b"220 "), STALL, ENVELOPE, *[b"BDAT 1\r\nx" * 1000] * 50]
    played = Front("accept").play(script, all_read=False)
    assert played.elapsed == 300 and played.unread


SESSION = ENVELOPE + chunk(b"one\r\n") + chunk(b"two\r\n", last=True) + b"QUIT\r\n"


@pytest.mark.parametrize("mark", [EOF, RESET], ids=["FIN", "RST"])
def test_h24_the_end_at_any_byte_of_a_session_with_chunks(mark: Action) -> None:
    end = SESSION.index(b"two\r\n") + 5
    for at in range(1, len(SESSION) + 1):
        front = Front("accept", "counters", "add-received")
        script: list[Action] = [SESSION[:at], mark]
        played = front.play(script, all_read=False, catch=True)
        assert played.error is None
        assert (len(front.messages) == 1) == (at >= end), at
        assert played.result == (1 if SESSION.index(b"BDAT 5\r\n") + 8 <= at < end else 0), at


def test_h25_a_chunk_behind_a_finished_message_has_no_envelope() -> None:
    outcome = split_outcome([ENVELOPE + chunk(b"a", last=True) + chunk(b"b") + chunk(b"c", last=True) + b"DATA\r\n"])
    assert outcome.codes()[4:] == [250, 503, 503, 503]


def test_h27_a_verdict_on_chunks_is_of_one_transaction() -> None:
    small = replace(DEFAULT, limits=replace(DEFAULT.limits, message_size=2))
    again = ENVELOPE.removeprefix(HELLO)
    outcome = split_outcome([ENVELOPE + chunk(b"abc") + again + chunk(b"ab", last=True)], small)
    assert outcome.codes()[4:] == [552, 250, 250, 250]
    binary = b"MAIL FROM:<a@example.net> BODY=BINARYMIME\r\n"
    machine = SMTPServer("mx.example.org")
    machine.extensions |= {"BINARYMIME"}
    played = play(machine, [[HELLO + binary + b"RSET\r\n" + again + chunk(b"a\nb", last=True) + again + b"DATA\r\n"]])
    assert played.codes()[-1] == 354 and played.bodies() == [b"a\r\nb"]


def test_h29_nothing_between_chunks_changes_the_message() -> None:
    for between in (
        b"NOOP\r\n", b"VRFY b\r\n", b"HELP\r\n", b"EXPN b\r\n", b"XCLIENT ADDR=192.0.2.1\r\n",
        b"AUTH PLAIN =\r\n", b"DATA\r\n", b"BDAT 1 NO\r\nx",
    ):  # fmt: skip
        front = Front("accept")
        front.say(ENVELOPE + chunk(b"a") + between + chunk(b"b", last=True))
        assert front.messages == [("a@example.net", ["b@example.org"], b"ab")]


def test_h32_starttls_between_chunks_drops_the_message() -> None:
    machine = SMTPServer("mx.example.org")
    machine.offers_starttls = True
    played = play(machine, [[ENVELOPE + chunk(b"a") + b"STARTTLS\r\n"], [chunk(b"b", last=True)]])
    assert played.codes()[4:] == [250, 220, 503]


def test_h38_compat_is_what_it_was() -> None:
    outcome = split_outcome([ENVELOPE + chunk(b"NOOP\r\n", last=True) + b"XCLIENT ADDR=192.0.2.1\r\nQUIT\r\n"], COMPAT)
    assert outcome.codes()[4:] == [500, 250, 500, 221]


# -- parameters and addresses ----------------------------------------------------------------------------

CONTROLS = [0, 1, 9, 10, 13, 0x1B, 0x1F, 0x7F]


@pytest.mark.parametrize("control", CONTROLS)
def test_h52_control_bytes_behind_xtext(control: int) -> None:
    machine = SMTPServer("mx.example.org", replace(DEFAULT, limits=replace(DEFAULT.limits, errors_in_row=None)))
    machine.extensions |= {"DSN"}
    machine.offers_xclient = True
    play(machine, [[HELLO]], eof=False)
    machine._advertised |= {"AUTH"}
    bad = f"a+{control:02X}b"
    lines = [
        f"XCLIENT NAME={bad}", f"XCLIENT LOGIN={bad}", f"XCLIENT HELO={bad}", f"MAIL FROM:<a@b> ENVID={bad}",
        f"MAIL FROM:<a@b> AUTH={bad}@c", "MAIL FROM:<a@b>", f"RCPT TO:<c@d> ORCPT=rfc822;{bad}",
        f"RCPT TO:<c@d> ORCPT=utf-8;a\\x{{{control:02X}}}b",
    ]  # fmt: skip
    played = play(machine, [["".join(f"{line}\r\n" for line in lines).encode()]], eof=False)
    assert played.codes() == [501, 501, 501, 501, 501, 250, 501, 501]


def test_h53_quoted_local_parts_stay_quoted_with_smtputf8() -> None:
    outcome = split_outcome([HELLO + 'MAIL FROM:<"\u00e9 x"@example.net> SMTPUTF8\r\nRCPT TO:<"a b"@c>\r\n'.encode()])
    paths = [str(e.address) for e in outcome.events if isinstance(e, Mail | Recipient)]
    assert paths == ['"\u00e9 x"@example.net', '"a b"@c']


def test_h55_every_way_to_leave_smtputf8_out() -> None:
    lines = [
        "MAIL FROM:<\u00e9@b>", "MAIL FROM:<\u00e9@b> SMTPUTF8X", "MAIL FROM:<\u00e9@b> XSMTPUTF8",
        "MAIL FROM:<\u00e9@b> SIZE=1", "VRFY \u00e9", "MAIL FROM:<a@b>", "RCPT TO:<\u00e9@b>",
        "RCPT TO:<c@d> SMTPUTF8",
    ]  # fmt: skip
    assert codes_of(lines) == [553, 555, 553, 553, 553, 250, 553, 555]


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("RET=FULL\u017f", 501), ("RET=\uff26ULL", 501), ("\u017fMTPUTF8", 501), ("BODY=BINARYM\u0131ME", 501),
        ("NOT\u0131FY=NEVER", 501),
    ],
)  # fmt: skip
def test_h55_keywords_of_extensions_fold_in_ascii_only(word: str, code: int) -> None:
    machine = SMTPServer("mx.example.org")
    machine.extensions |= {"DSN", "BINARYMIME"}
    wire = f"EHLO x\r\nMAIL FROM:<a@b> {word}\r\n".encode()
    assert play(machine, [[wire]], eof=False).codes()[2:] == [code]


@pytest.mark.parametrize("unit", ["+41", "a", "\\x{41}", "+4", "\\x{", ";", "SUCCESS,"])
@pytest.mark.parametrize("start", ["ENVID=", "ORCPT=rfc822;", "ORCPT=utf-8;", "AUTH=", "NOTIFY=", "SIZE="])
def test_h93_parameters_are_read_in_linear_time(start: str, unit: str) -> None:
    """Eight times the input may take eight times the time; sixty-four times would be quadratic."""
    kind = RecipientOptions if start.startswith(("NOTIFY", "ORCPT")) else MailOptions

    def cost(size: int) -> float:
        words = [start + unit * size]
        best = 1e9
        for _ in range(3):
            begin = time.thread_time()
            with contextlib.suppress(ParameterError):
                kind.parse(words)
            best = min(best, time.thread_time() - begin)
        return best

    assert cost(16_000) < 32 * cost(2_000) + 0.02


# -- XCLIENT ---------------------------------------------------------------------------------------------


def test_h70_xclient_is_unknown_to_others() -> None:
    assert codes_of(["XCLIENT ADDR=192.0.2.1", "XCLIENT LOGIN=root", "MAIL FROM:<a@b.example>"]) == [500, 500, 250]
    for address in ("198.51.100.7", "198.51.100.8"):
        front = Front("require-auth", "accept", env={"XCLIENT_HOSTS": "198.51.100.8", "TCPREMOTEIP": address})
        output = front.say(HELLO + b"XCLIENT LOGIN=root\r\n" + ENVELOPE)
        assert codes(output)[2] == (220 if address.endswith("8") else 500)
        assert (530 in codes(output)) != address.endswith("8")


def test_h70_xclient_resets_the_session_under_every_split() -> None:
    """What was said before it counts no more; what follows in the same segment is the new session's."""

    class Listed:
        def __call__(self, machine: SMTPServer, event: object) -> None:
            machine.offers_xclient = True
            machine.accept()

    wire = ENVELOPE.partition(b"MAIL")[0] + b"XCLIENT ADDR=192.0.2.1\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d>\r\n"
    outcome = split_outcome([wire + chunk(COMMANDS, last=True) + ENVELOPE + chunk(b"x", last=True)], answer=Listed)
    assert outcome.codes() == [220, 250, 220, 503, 503, 503, 250, 250, 250, 250]
