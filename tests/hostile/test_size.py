"""Size, resources and time: H16 to H24."""

import itertools
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.admission import LINES_A_SECOND, Admission, Limits, Prefixes
from mailfront_io.ops import Connection, Recv, Send
from mailfront_io.testing import EOF, RESET, STALL, Action, Advance, VirtualClock, WaitFor
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED
from mailfront_proto.sasl import ServerOptions
from mailfront_proto.smtp import DEFAULT, Body, Refused, SMTPServer
from tests.front import ENVELOPE, Front, codes
from tests.hostile.every import HELLO, MESSAGE, split_outcome
from tests.proto.server_script import play

BLOCK = b"x" * 65536


def test_h16_a_line_of_200_mib_in_a_message_is_held_nowhere() -> None:
    profile = replace(DEFAULT, limits=replace(DEFAULT.limits, message_size=None))
    machine = SMTPServer("mx.example.org", profile)
    play(machine, [MESSAGE], eof=False)
    for _ in range(3200):
        machine.receive_data(BLOCK)
        event = machine.next_event()
        assert isinstance(event, Body) and len(event.data) <= len(BLOCK) + 5
        assert machine.next_event() is NEED_DATA
        assert len(machine._buffer) == 0


def test_h16_nor_is_it_behind_the_front_end() -> None:
    front = Front("accept", "counters", backend="echo")
    script: list[Action] = [ENVELOPE, b"DATA\r\n", WaitFor(b"354 "), *[BLOCK] * 320, b"\r\n.\r\nQUIT\r\n"]
    tracemalloc.start()
    try:
        output = front.play(script).output
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert codes(output)[-2:] == [250, 221]
    assert peak < 1024 * 1024


def long_line(machine: SMTPServer, blocks: int) -> None:
    for _ in range(blocks):
        machine.receive_data(BLOCK)
        assert machine.next_event() is NEED_DATA
        assert len(machine._buffer) == 0


def test_h17_a_command_line_of_64_mib_is_one_error_and_in_sync() -> None:
    machine = SMTPServer("mx.example.org")
    play(machine, [[HELLO]], eof=False)
    long_line(machine, 1024)
    outcome = play(machine, [[b"\r\nNOOP\r\n"]], eof=False)
    assert outcome.output == b"500 5.5.2 Line too long\r\n250 2.3.0 OK\r\n"


def test_h17_in_an_auth_exchange_it_is_556() -> None:
    machine = SMTPServer("mx.example.org")
    machine.sasl = ServerOptions(("LOGIN",))
    play(machine, [[HELLO + b"AUTH LOGIN\r\n"]], eof=False)
    long_line(machine, 1024)
    outcome = play(machine, [[b"\r\nNOOP\r\n"]], eof=False)
    assert outcome.output.startswith(b"500 5.5.6 ")
    assert outcome.codes() == [500, 250]


def test_h17_too_many_of_them_end_it() -> None:
    outcome = split_outcome([HELLO + (b"x" * 13_000 + b"\r\n") * 12], few=True)
    assert outcome.codes() == [220, 250, *[500] * 10, 421]
    short = replace(DEFAULT, limits=replace(DEFAULT.limits, command_line=20, auth_line=30))
    outcome = split_outcome([HELLO + b"NOOP " + b"x" * 50 + b"\r\nNOOP\r\n" + (b"y" * 40 + b"\r\n") * 11], short)
    assert outcome.codes() == [220, 250, 500, 250, *[500] * 10, 421]


def test_h18_too_big_by_its_own_word_or_in_fact() -> None:
    profile = replace(DEFAULT, limits=replace(DEFAULT.limits, message_size=30))
    too_big = b"MAIL FROM:<a@example.net> SIZE=31\r\n"
    wire = HELLO + too_big + ENVELOPE + b"DATA\r\n"
    outcome = split_outcome([wire, b"x" * 29 + b"\r\n.\r\nNOOP\r\n"], profile)
    assert outcome.codes() == [220, 250, 552, 250, 250, 250, 354, 552, 250]
    assert DEFAULT.limits.message_size == 50 * 1024 * 1024  # finite by default
    front = Front("counters", "accept", env={"DATABYTES": "30"})
    output = front.say(ENVELOPE, too_big, ENVELOPE, b"DATA\r\n", b"x" * 29, b"\r\n.\r\n")
    assert 552 in codes(output)[4:5] and codes(output)[-1] == 552
    assert front.messages == []


def test_h18_size_counts_octets_with_crlf_without_stuffing_and_final_dot() -> None:
    profile = replace(DEFAULT, limits=replace(DEFAULT.limits, message_size=10))
    for body, code in ((b"..234567\r\n.\r\n", 250), (b"12345678\r\n.\r\n", 250), (b"123456789\r\n.\r\n", 552)):
        assert split_outcome([*MESSAGE, body], profile).codes()[-1] == code


# -- time ------------------------------------------------------------------------------------------------

DRIPS: dict[str, tuple[list[Action], bytes, float]] = {
    # what comes first, the byte that drips, seconds until the end must have come
    "before anything": ([], b"E", 300),
    "in a command": ([b"EHLO x\r\n", WaitFor(b"250 ")], b"x", 300),
    "in an oversized command": ([b"EHLO x\r\n", WaitFor(b"250 "), b"x" * 9999], b"x", 300),
    "in AUTH": ([b"EHLO x\r\nAUTH LOGIN\r\n", WaitFor(b"334 ")], b"A", 300),
    "in a transaction": ([ENVELOPE], b"D", 300),
    "in a message": ([ENVELOPE, b"DATA\r\n", WaitFor(b"354 ")], b"x", 601),
    "in a refused message": ([ENVELOPE, b"DATA\r\n", WaitFor(b"354 "), b"x" * 200], b"x", 601),
}


def test_h19_recipients_are_capped() -> None:
    most = DEFAULT.limits.recipients
    assert most is not None
    wire = b"".join(b"RCPT TO:<b%d@example.org>\r\n" % number for number in range(most + 5))
    output = Front("accept").say(b"EHLO x\r\nMAIL FROM:<a@example.net>\r\n" + wire + b"DATA\r\n")
    replies = codes(output)[3:]
    assert replies == [250] * most + [452] * 5 + [354]


@pytest.mark.parametrize("command", [b"MAIL FROM:<a@example.net>", b"RCPT TO:<b@example.org>"])
def test_h19_parameters_are_capped(command: bytes) -> None:
    many = command + b"".join(b" X%d=1" % number for number in range(DEFAULT.limits.parameters + 1))
    before = [] if command.startswith(b"MAIL") else [b"MAIL FROM:<a@example.net>\r\n"]
    output = play(SMTPServer("mx.example.org"), [[HELLO, *before, many + b"\r\n"]]).output
    assert output.splitlines()[-1].startswith(b"501 5.5.4")


def test_h19_received_lines_are_capped() -> None:
    def after(count: int) -> int:
        message = b"Received: from x\r\n" * count + b"\r\n.\r\n"
        return codes(Front("accept", "counters").say(ENVELOPE + b"DATA\r\n" + message))[-1]

    assert after(99) == 250
    assert after(101) == 554


def test_h19_a_header_without_end_is_held_nowhere() -> None:
    front = Front("accept", "counters", "add-received", "patterns", backend="echo")
    script: list[Action] = [ENVELOPE, b"DATA\r\n", WaitFor(b"354 "), *[b"X: y\r\n" * 10000] * 100, b".\r\nQUIT\r\n"]
    tracemalloc.start()
    try:
        output = front.play(script).output
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert codes(output)[-2:] == [250, 221]
    assert peak < 1024 * 1024


@pytest.mark.parametrize("where", DRIPS)
def test_h20_one_byte_a_minute_ends_at_the_deadline(where: str) -> None:
    before, byte, seconds = DRIPS[where]
    front = Front("accept", "authenticate", env={"AUTH_REQUIRES_TLS": "0", "MAX_MESSAGE_SIZE": "100"})
    from mailfront_io.auth.static import StaticStore

    front.service.credentials = StaticStore({})
    drip: list[Action] = [Advance(60), byte] * 60
    played = front.play([*before, *drip], all_read=False)
    assert played.output.endswith(b"421 4.4.2 Timed out, closing connection\r\n")
    assert seconds - 1 <= played.elapsed <= seconds + 1
    assert front.messages == []


@pytest.mark.parametrize("line", [b"NOOP", b"RSET", b"VRFY x", b"HELP", b"EHLO x", b"HELO x", b"STARTTLS", b"XX", b""])
def test_h20_a_loop_of_idle_commands_ends_at_the_budget(line: bytes) -> None:
    played = Front("accept").play([HELLO, *[line + b"\r\n"] * 300], all_read=False)
    assert codes(played.output)[-1] == 421
    assert len(codes(played.output)) <= 103


def test_h20_nobody_stays_longer_than_a_session() -> None:
    front = Front("accept", env={"SESSION_TIMEOUT": "1000"})
    busy: list[Action] = [Advance(100), ENVELOPE] * 20
    played = front.play(busy, all_read=False)
    assert played.elapsed == 1000


def test_h21_a_peer_that_never_reads_costs_256_kib() -> None:
    machine = SMTPServer("mx.example.org", replace(DEFAULT, limits=replace(DEFAULT.limits, idle_commands=None)))
    play(machine, [[HELLO]], eof=False)
    fed = 0
    while True:
        event = machine.next_event()
        if event is PAUSED:
            break
        machine.receive_data(b"NOOP\r\n" * 1000)
        fed += 1
    assert fed < 25
    assert MAX_PENDING_OUTPUT < machine._output_size < MAX_PENDING_OUTPUT + 1024
    assert machine.next_event() is PAUSED  # and stays so


def test_h21_and_is_left_at_the_write_deadline() -> None:
    script: list[Action] = [WaitFor(b"220 "), STALL, *[ENVELOPE] * 50]
    played = Front("accept").play(script, all_read=False)
    assert played.elapsed == 300
    assert len(played.unread) == 49  # it was not read on


def test_h22_idle_and_hostile_connections_cost_little() -> None:
    """1,000 sessions that wait for a command and 100 that have sent most of a line; without a driver, whose
    sockets and buffers are measured by the benchmark."""
    front = Front("accept", "counters", "check-fqdn", backend="echo")
    clock = VirtualClock()

    def waiting(data: list[bytes]) -> Any:
        session = front.session(Connection(clock))
        operation = session.send(None)
        while True:
            if isinstance(operation, Send):
                operation = session.send(None)
            elif data:
                assert isinstance(operation, Recv)
                operation = session.send(data.pop(0))
            else:
                return session

    tracemalloc.start()
    try:
        sessions = [waiting([b"EHLO x\r\n"]) for _ in range(1000)]
        idle, _ = tracemalloc.get_traced_memory()
        sessions += [waiting([b"EHLO x\r\n", b"x" * 4000]) for _ in range(100)]
        both, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for session in sessions:
        session.close()
    assert idle / 1000 < 20_000
    assert (both - idle) / 100 < 30_000


def test_h23_clients_are_counted_by_address_or_64() -> None:
    admission = Admission(lambda line: None, Limits(100, 2))
    for peer in ("192.0.2.1", "2001:db8:1:2::1"):
        assert admission.admit((peer, 1)) is None
    assert admission.admit(("2001:db8:1:2:ffff:ffff:ffff:ffff", 2)) is None
    refusal = admission.admit(("2001:db8:1:2:3::", 3))
    assert refusal is not None and refusal.startswith(b"421 4.7.0 ") and refusal.endswith(b"\r\n")
    assert admission.admit(("2001:db8:1:3::1", 4)) is None
    assert admission.admit(("2001:db8:1:2::1%eth0", 4)) is not None
    assert admission.admit(("192.0.2.1", 5)) is None
    assert admission.admit(("192.0.2.1", 6)) is not None
    assert admission.admit(("192.0.2.2", 6)) is None
    admission.release(("192.0.2.1", 1))
    assert admission.admit(("192.0.2.1", 7)) is None
    for port in range(50):
        assert admission.admit(("127.0.0.1", port)) is None  # loopback counts only in all


def test_h23_networks_are_counted_too() -> None:
    """Who has a /48, or all of a /24, has one budget, whatever addresses are taken out of it."""
    logged: list[str] = []
    seconds = itertools.count()
    admission = Admission(logged.append, Limits(10_000, client=2, network=50), clock=lambda: next(seconds))
    admitted = [
        sum(admission.admit((peer % number, number)) is None for number in range(200))
        for peer in ("192.0.2.%d", "2001:db8:7:%x::1", "2001:db8:8::%x")
    ]
    assert admitted == [50, 50, 2]
    assert logged[0] == "Refused a connection from 192.0.2.50: 192.0.2.0/24 has 50 open"
    assert logged[150] == "Refused a connection from 2001:db8:7:32::1: 2001:db8:7::/48 has 50 open"
    assert admission.admit(("192.0.3.1", 1)) is None and admission.admit(("2001:db8:9::1", 1)) is None
    admission.release(("192.0.2.7", 7))
    assert admission.admit(("192.0.2.200", 1)) is None
    assert admission.admit(("192.0.2.201", 1)) is not None


def test_h23_what_a_network_is_can_be_said() -> None:
    admission = Admission(lambda line: None, Limits(client=1, network=2), Prefixes(56, 16, 32))
    admits = [admission.admit((peer, 1)) is None for peer in (
        "2001:db8:0:1::1", "2001:db8:0:ff::1", "2001:db8:0:100::1", "2001:db8:1::1", "2001:db9::1",
        "192.0.2.1", "192.0.3.1", "192.0.4.1", "192.1.0.1",
    )]  # fmt: skip
    assert admits == [True, False, True, False, True, True, True, False, True]


def test_h23_limits_of_a_listener_are_within_those_of_the_server() -> None:
    logged: list[str] = []
    server = Admission(logged.append, Limits(4, client=3))
    mx = Admission(logged.append, Limits(3, client=2), within=server, name="mx")
    peers = [("192.0.2.1", 1), ("192.0.2.2", 1), ("192.0.2.3", 1)]
    assert [mx.admit(peers[0]) is None for _ in range(3)] == [True, True, False]
    assert logged == ["Refused a connection from 192.0.2.1: 192.0.2.1 has 2 open at mx"]
    assert [server.admit(peers[0]) is None for _ in range(2)] == [True, False]
    assert mx.admit(peers[1]) is None
    assert mx.admit(peers[2]) is not None and server.admit(peers[2]) is not None  # 3 at mx, 4 in all
    for _ in range(2):
        mx.release(peers[0])
    server.release(peers[0])
    mx.release(peers[1])
    assert [mx.admit(peer) is None for peer in peers] == [True, True, True]
    assert server.admit(peers[0]) is None


def test_h23_the_tables_are_no_larger_than_what_is_open() -> None:
    """However many addresses come and go; those of refused connections leave nothing behind."""
    admission = Admission(lambda line: None, Limits(100, 20, 50))
    peers = [(f"2001:db8:{number:x}::1", 1) for number in range(20_000)]
    for peer in peers:
        if admission.admit(peer) is None and peer != peers[0]:
            admission.release(peer)
    assert len(admission._open) == 2
    for peer in peers:
        admission.admit(peer)
    assert len(admission._open) <= 2 * 100


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=60))
def test_h23_no_network_ever_has_more_than_it_may(steps: list[tuple[int, bool]]) -> None:
    """`admit` against counting, for any order of connections that begin and end."""
    admission = Admission(lambda line: None, Limits(6, client=2, network=3))
    hosts = ["192.0.2.1", "192.0.2.2", "192.0.3.1", "127.0.0.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "::1"]
    networks = [(0, 0), (1, 0), (2, 1), None, (3, 2), (3, 2), (4, 2), None]
    opened: list[int] = []
    for which, begins in steps:
        if not begins:
            if which in opened:
                opened.remove(which)
                admission.release((hosts[which], 1))
            continue
        own = networks[which]
        others = [network for each in opened if (network := networks[each]) is not None]
        room = len(opened) < 6 and (
            own is None
            or (sum(o[0] == own[0] for o in others) < 2 and sum(o[1] == own[1] for o in others) < 3)
        )
        assert (admission.admit((hosts[which], 1)) is None) == room
        if room:
            opened.append(which)
    for which in opened:
        admission.release((hosts[which], 1))
    assert admission._open == {} and admission._count == 0


def test_h23_refusals_do_not_fill_the_log() -> None:
    logged: list[str] = []
    now = [0.0]
    admission = Admission(logged.append, Limits(1), name="mx", clock=lambda: now[0])
    assert admission.admit(("192.0.2.1", 1)) is None
    for _ in range(1000):
        assert admission.admit(("192.0.2.2", 1)) is not None
    refused = "Refused a connection from 192.0.2.2: 1 connections are open at mx"
    assert logged == [refused] * LINES_A_SECOND
    now[0] = 1.5
    for _ in range(2):
        admission.admit(("192.0.2.2", 1))
    assert logged[LINES_A_SECOND:] == ["Refused 990 more connections", refused, refused]
    now[0] = 9.0
    admission.admit(("192.0.2.2", 1))
    assert logged[LINES_A_SECOND + 3 :] == [refused]


def test_h23_connections_in_all() -> None:
    logged: list[str] = []
    admission = Admission(logged.append, Limits(2, 20))
    assert admission.admit(("192.0.2.1", 1)) is None
    assert admission.admit(None) is None
    for peer in (("192.0.2.9", 1), ("127.0.0.1", 1), None):
        refusal = admission.admit(peer)
        assert refusal is not None and refusal.startswith(b"421 4.7.0 ")
    assert len(logged) == 3
    admission.release(None)
    assert admission.admit(("192.0.2.9", 1)) is None
    assert sorted(admission._open.values()) == [1, 1]


SESSION = ENVELOPE + b"DATA\r\nSubject: x\r\n\r\nbody\r\n.\r\nRSET\r\nQUIT\r\n"


@pytest.mark.parametrize("mark", [RESET, EOF], ids=["reset", "EOF"])
def test_h24_the_end_at_any_byte_is_an_event(mark: Action) -> None:
    end = SESSION.index(b"\r\n.\r\n") + 5
    for at in range(len(SESSION) + 1):
        front = Front("accept", "counters", "add-received")
        script: list[Action] = [SESSION[:at], mark] if at else [mark]
        played = front.play(script, all_read=False, catch=True)
        assert played.error is None
        assert (len(front.messages) == 1) == (at >= end), at
        assert played.result == (1 if SESSION.index(b"DATA\r\n") + 6 <= at < end else 0), at
        assert front.log[-1].startswith("bytes in: ")


@pytest.mark.parametrize("text", [b"220 ", b"250 ", b"354 ", b"250 2.6.0", b"221 "])
def test_h24_a_reset_while_we_write_is_one_too(text: bytes) -> None:
    front = Front("accept")
    steps: list[Action] = [b"EHLO x\r\n", b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<b@example.org>\r\n", b"DATA\r\n"]
    played = front.play([WaitFor(text), RESET] if text == b"220 " else [*steps, b"x\r\n.\r\n", RESET], all_read=False)
    assert played.error is None
    assert len(front.messages) <= 1


def test_h24_nothing_is_done_behind_a_failed_write_but_what_is_here() -> None:
    front = Front("accept")
    played = front.play([WaitFor(b"220 "), STALL, b"EHLO x\r\n", Advance(1000), ENVELOPE], all_read=False)
    assert played.unread == [ENVELOPE]
    assert front.messages == []


def test_h24_every_kind_of_refusal_is_an_event_of_the_machine() -> None:
    outcome = split_outcome([b"\xff\xfe\0\r\n\n\r\nMAIL\r\nEHLO\r\nDATA\r\n" + b"x" * 5000 + b"\r\n"], few=True)
    assert all(isinstance(event, Refused) for event in outcome.events[1:-1])
