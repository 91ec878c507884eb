"""The load generator against a small responder: it has to count honestly, above all when something is wrong.

Nothing is timed here, and no server of the benchmark is started.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.benchmarks import opcodes, packages, scripts, workers
from tests.benchmarks.loadgen import (
    Address,
    Outcome,
    Refused,
    Script,
    Step,
    answered,
    rehearse,
    run,
    split_replies,
)
from tests.benchmarks.measure import Failed, ScriptedLoad, check
from tests.benchmarks.report import CoreResult, Report, Result
from tests.benchmarks.targets import CASES, DRIVERS, MEMORY_TARGETS, RATIO_TARGETS, Unit, case

# Given the usual reply and its number on the responder, the bytes to send instead; None closes.
Fault = Callable[[bytes, int], bytes | None]


def faultless(reply: bytes, number: int) -> bytes | None:
    return reply


@contextmanager
def responder(fault: Fault = faultless) -> Iterator[Address]:
    """An SMTP server that knows just enough; one thread for each connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        threads: list[threading.Thread] = []
        count = iter(range(1_000_000))

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=converse, args=(connection,), daemon=True))
                threads[-1].start()

        def converse(connection: socket.socket) -> None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection, connection.makefile("rb") as lines:
                try:
                    for reply in replies(lines):
                        said = fault(reply, next(count))
                        if said is None:
                            return
                        connection.sendall(said)
                except OSError:
                    return  # the generator gave this connection up

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield listener.getsockname()[:2]
        finally:
            # shutdown wakes the accept; close alone would not.
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(5)
            for thread in threads:
                thread.join(5)


def replies(lines: Iterator[bytes]) -> Iterator[bytes]:
    """What a server says to these lines."""
    yield b"220 server.example ESMTP\r\n"
    for line in lines:
        verb = line[:4].upper()
        if verb == b"EHLO":
            yield b"250-server.example\r\n250 PIPELINING\r\n"
        elif verb == b"DATA":
            yield b"354 Go on.\r\n"
            size = 0
            for text in lines:
                if text == b".\r\n":
                    break
                size += len(text) - 1 - text.startswith(b".")
            yield b"250 Received %d bytes.\r\n" % size
        elif verb == b"QUIT":
            yield b"221 Bye.\r\n"
            return
        else:
            yield b"250 OK.\r\n"


def play(script: Script, fault: Fault = faultless, connections: int = 6) -> Outcome:
    """Rehearse against a faultless responder, then run against one with the fault."""
    with responder() as address:
        answers = rehearse(address, script)
    with responder(fault) as address:
        return run(address, script, connections, 3, answers)


@pytest.mark.parametrize(
    ("script", "messages"),
    [
        (scripts.one_message(scripts.SMALL), 1),
        (scripts.many_lock_step(5), 5),
        (scripts.many_envelope_pipelined(5), 5),
        (scripts.many_all_pipelined(5), 5),
    ],
)
def test_counts_what_was_accepted(script: Script, messages: int) -> None:
    outcome = play(script)
    assert outcome.errors == []
    assert (outcome.connections, outcome.messages) == (6, 6 * messages)
    check(outcome, script, 6)


def test_a_message_larger_than_all_buffers_arrives_whole() -> None:
    message = b"..0123456789\r\n" * 600_000
    script = scripts.one_message(message)
    with responder() as address:
        load = ScriptedLoad(script, at_once=1, units=1)
        load.rehearse(address)  # the responder's count of bytes is compared with ours
        load.run(address, 1)


def test_an_unusual_but_right_answer_is_no_error() -> None:
    def queue_id(reply: bytes, number: int) -> bytes:
        return b"250-OK, queued\r\n250 as %d\r\n" % number if b"OK" in reply else reply

    outcome = play(scripts.many_all_pipelined(5), queue_id)
    assert outcome.errors == []
    assert outcome.messages == 30


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (lambda reply, n: b"451 Later.\r\n" if n == 20 else reply, "expected "),
        (lambda reply, n: None if n == 20 else reply, "ended at step"),
        (lambda reply, n: reply + b"250 And more.\r\n" if n == 20 else reply, "the expected replies"),
        (lambda reply, n: b"250 Received 7 bytes.\r\n" if b"Rec" in reply else reply, "Received 7 bytes"),
        (lambda reply, n: reply + b"250 And more.\r\n" if b"221" in reply else reply, "250 And more"),
        (lambda reply, n: b"250-OK\r\n550 No.\r\n" if b"OK" in reply else reply, "expected 250"),
    ],
    ids=["code", "end", "one too many", "size", "after QUIT", "lines of two codes"],
)
def test_one_wrong_answer_fails_the_run(fault: Fault, text: str) -> None:
    script = scripts.one_message(scripts.SMALL)
    outcome = play(script, fault)
    assert outcome.errors
    assert text in outcome.errors[0]
    with pytest.raises(Failed, match="connections failed, first: "):
        check(outcome, script, 6)


def test_a_run_that_lost_messages_fails_without_an_error() -> None:
    script = scripts.many_lock_step(5)
    with pytest.raises(Failed, match="29 of 30 messages"):
        check(Outcome(connections=6, messages=29), script, 6)


def test_rehearsal_refuses_a_wrong_answer_and_a_missing_server() -> None:
    load = ScriptedLoad(scripts.one_message(scripts.SMALL), at_once=1, units=1)
    with (
        responder(lambda reply, n: b"550 No.\r\n" if b"OK" in reply else reply) as address,
        pytest.raises(Failed, match=r"expected 250, got '550 No\.'"),
    ):
        load.rehearse(address)
    with pytest.raises(Failed, match="refused"):
        load.rehearse(address)


def test_replies_are_split_wherever_they_were_cut() -> None:
    data = b"250-a\r\n250-b\r\n250 c\r\n354 d\r\n"
    step = Step(b"", (b"250", b"354"))
    for end in range(len(data)):
        whole, rest = split_replies(data[:end])
        assert b"".join(whole) + rest == data[:end]
        assert not answered(step, data[:end])
    assert answered(step, data)
    with pytest.raises(Refused):
        answered(step, data + b"2")


@pytest.mark.parametrize("case", list(packages.PROTOCOLS))
def test_responses_to_packages_are_split_wherever_they_were_cut(case: str) -> None:
    step = packages.script(case).steps[0]
    data = packages.netstring(b"KReceived %d bytes." % (step.size or 0)) * step.messages
    assert step.messages == (50 if case == "Q1W" else 1)
    for end in range(len(data)):
        assert not packages.answered(step, data[:end])
    assert packages.answered(step, data)
    for wrong, text in (
        (data + b"1", "more than"),
        (packages.netstring(b"ZLater.") + data, "expected K, got 'ZLater.'"),
        (packages.netstring(b"KReceived 7 bytes."), "Received 7 bytes"),
        (b"250 Received 1 bytes.\r\n220 a: b", "expected a response"),
        (data.replace(b",", b";"), "expected K"),
    ):
        with pytest.raises(Refused, match=text):
            packages.answered(step, wrong)


def test_packages_are_sent_and_counted() -> None:
    assert {case: packages.script(case).messages for case in packages.PROTOCOLS} == {"Q1": 100, "Q1W": 1000, "Q2": 1}
    assert sum(opcodes.count("blocking", "Q2").values()) > 0


def test_a_client_that_speaks_first_is_answered() -> None:
    response = packages.netstring(b"KReceived 1 bytes.")

    def converse(listener: socket.socket) -> None:
        for _ in range(4):
            connection, _ = listener.accept()
            with connection:
                for _ in range(2):
                    connection.recv(65536)
                    connection.sendall(response)
                connection.recv(1)

    script = Script((Step(b"a", (b"K",), 1), Step(b"b", (b"K",), 1)), closes=False, answered=packages.answered)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=converse, args=(listener,))
        thread.start()
        answers = rehearse(listener.getsockname(), script)
        outcome = run(listener.getsockname(), script, 3, 1, answers)
        thread.join(30)
    assert (outcome.errors, outcome.connections, outcome.messages) == ([], 3, 6)


def test_the_report_judges_by_the_ratio_within_a_round() -> None:
    report = Report("make bench")
    # C's second round was disturbed; ours was too.
    report.results["S1"] = {"C mailfront": Result([1e-3, 3e-3, 1e-3]), "uvloop": Result([1e-4, 3e-4, 2e-4])}
    report.results["S4"] = {"trio": Result([26.0])}
    report.results["S2"] = {"uvloop": Result(failure="1 of 6 connections failed")}
    report.core = [CoreResult("body", 0.5, 0.6, upper=False)]
    assert report.verdict(case("S1"), "uvloop") == (0.1, 0.15, True)
    assert report.missed == ["S4, trio: 26.0, target 25.0", "core, body: 0.50, target 0.60"]
    assert report.failures == ["S2, uvloop: 1 of 6 connections failed"]
    table = report.markdown()
    assert "| 200; 0.10 × C, ≤ 0.15 met |" in table
    assert "**≤ 25.0 not met**" in table
    assert "| failed |" in table


def test_the_report_judges_how_workers_share() -> None:
    report = Report("make bench")
    report.results["W1"] = {"trio alone": Result([1e-4, 1e-4, 1e-4]), "trio": Result([1.1e-4, 1.2e-4, 1e-4])}
    report.parts = {"W1": {"trio": [0.5, 0.4, 0.1]}, "W2": {"trio": [0.2, 0.2, 0.5]}}
    assert report.missed == ["W2, trio: a worker has 0.20 of the connections, target 0.30"]
    assert "| 110; 1.10 × alone, ≤ 1.15 met |" in report.markdown()
    assert "one of two workers had: trio 0.20; **≥ 0.30 not met**." in report.markdown()


def test_who_took_a_connection_is_read_from_the_log() -> None:
    sessions = [b"mailfront[7]: 7-1 smtp-1 from 127.0.0.1\nmailfront[7]: 7-1 bytes in: 9 bytes out: 9\n"] * 3
    log = b"".join([b"mailfront[6]: Serving 127.0.0.1:25\n", *sessions, sessions[0].replace(b"7", b"8")])
    assert workers.smallest_part(log, 2) == 0.25
    assert workers.smallest_part(b"".join(sessions), 2) == 0


def test_instructions_are_counted_by_room() -> None:
    rooms = {opcodes.room(path) for path, _ in opcodes.count("blocking", "S1")}
    assert {"machine", "front end", "driver", "pipeline, plugins, backend", "session set-up"} <= rooms


def test_every_case_has_a_target_for_every_driver() -> None:
    for known in CASES:
        if known.unit is not Unit.START:
            row = (MEMORY_TARGETS if known.unit is Unit.CONNECTION else RATIO_TARGETS)[known.name]
            assert tuple(row) == DRIVERS
