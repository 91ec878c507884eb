"""What must hold for every machine, asserted for yours.

Each assertion takes a function that makes a `Player`: a machine and its application, fresh each time, played as far
as the test wants it (``Player(…).play([…], eof=False)``). It raises `AssertionError` that says what differs.
"""

import gc
import sys
from collections.abc import Callable, Iterable, Sequence
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED
from mailfront_proto.testing.cutting import Pieces, byte_by_byte, every_split, random_cuttings, whole
from mailfront_proto.testing.player import Outcome, Player

NewPlayer = Callable[[], Player[Any]]
"""Makes a machine and its application, both fresh."""

BLOCK = 65536
"""Bytes that a driver reads at once."""

_MEASURED = 4096  # a measurement costs as much as hundreds of small reads: one every so many bytes
_NO_VALUES = (type, ModuleType, BuiltinFunctionType, CodeType, FrameType)


def assert_chunk_invariant(
    new: NewPlayer, segments: Sequence[bytes], splits: Iterable[Pieces] | None = None, *, eof: bool = True
) -> Outcome:
    """Events and output are the same however `segments` arrive; returns them.

    `segments`: what the peer sends, cut where it must wait for an answer. `splits`: the ways to cut it; None: every
    split, as `every_split` has them. `eof`: the peer closes at the end.
    """
    expected = new().play(whole(segments), eof=eof).outcome
    for pieces in every_split(segments) if splits is None else splits:
        outcome = new().play(pieces, eof=eof).outcome
        assert outcome == expected, _difference(pieces, outcome, expected)
    return expected


def assert_total(new: NewPlayer, data: bytes) -> Outcome:
    """No exception leaves the machine for `data`, and the end of input ends it: whole, byte by byte, in three random
    cuttings, and where it breaks off half-way. Returns what came of it whole.

    Exceptions that the machine may raise (a client's `RemoteProtocolError`) are the player's ``raises``. Whether
    the cuttings agree is `assert_chunk_invariant`'s question: bytes that do not wait at a mark may run into a TLS
    handshake or not, as they are cut.
    """
    first = None
    ways = [whole([data]), byte_by_byte([data]), *random_cuttings([data], 3), whole([data[: len(data) // 2]])]
    for pieces in ways:
        player = new()
        try:
            outcome = player.play(pieces).outcome
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} for {pieces}: {error}") from error
        assert outcome.ended, f"the end of input did not end it, for {pieces}: {outcome.events}"
        first = first or outcome
    assert first is not None
    return first


def assert_memory_bounded(
    new: NewPlayer, pattern: bytes, limit: int, *, size: int = 4 * 1024 * 1024, block: int = BLOCK
) -> None:
    """The machine never holds more than `limit` bytes beyond what it holds to begin with, while a peer sends
    `pattern` without end: `size` bytes of it, in blocks of `block`, each read by the machine as far as it can.

    `limit` is what your machine is allowed: its longest line or literal, times two for the store behind it. The last
    block may be kept besides, until the next one comes.
    """
    player = new()
    player.step()
    before = held_bytes(player.machine)
    stream = pattern * (block // len(pattern) + 2)
    for at in range(0, size, block):
        start = at % len(pattern)
        player.receive(stream[start : start + block])
        if at % _MEASURED >= block:
            continue
        held = held_bytes(player.machine) - before
        assert held <= limit + block, f"{held} bytes held after {at + block} bytes of {pattern!r} (limit {limit})"
        player.forget()


def assert_output_bounded(new: NewPlayer, pattern: bytes, answer: int, *, size: int = 4 * 1024 * 1024) -> None:
    """A peer that sends `pattern` without end and never reads is not served any more (`PAUSED`) once
    `MAX_PENDING_OUTPUT` bytes wait for it; one `answer`, the longest in bytes, may stand above that.

    `size`: bytes of `pattern` after which that must have come.
    """
    player = new()
    player.step()
    machine = player.machine
    stream = pattern * (1 + 1000 // len(pattern))
    for _ in range(0, size, len(stream)):
        machine.receive_data(stream)
        last = None
        while (event := machine.next_event()) is not NEED_DATA:
            if event is PAUSED:
                pending = len(machine.data_to_send())
                assert 0 < pending <= MAX_PENDING_OUTPUT + answer, f"{pending} bytes of output pending"
                return
            assert event is not last, f"it has ended with {event!r}: choose a pattern with which it goes on"
            player.react(machine, event)
            last = event
    raise AssertionError(f"not PAUSED after {size} bytes of {pattern!r}, {len(machine.data_to_send())} bytes pending")


def assert_linear(new: NewPlayer, pattern: bytes, *, size: int = 1000) -> None:
    """Work grows as the input does, fed byte by byte: four times `size` bytes of `pattern` cost at most five times as
    many steps of the interpreter (`count_steps`) as `size` bytes do.

    What happens inside one call of a built-in function is one step: a `bytes` that grows by ``+=`` is not seen here.
    """
    steps = []
    for length in (size, size, 4 * size):  # the first one only shows the interpreter what to count
        player = new()
        player.step()
        stream = (pattern * (length // len(pattern) + 1))[:length]
        steps.append(count_steps(lambda: player.play(byte_by_byte([stream]), eof=False)))  # noqa: B023  # called at once
        assert not player.ended, f"it has ended ({player.outcome.events[-1]!r}): choose a pattern with which it goes on"
    _, few, many = steps
    assert many <= 5 * few, f"{few} steps for {size} bytes, but {many} for {4 * size}"


def count_steps(call: Callable[[], object]) -> int:
    """The bytecode instructions that Python executes in ``call()``. Counted by tracing: a thousand times slower than
    running, the same on every machine, and blind to what built-in functions do inside. CPython 3.12 and 3.13 leave out
    what runs under it for the first time: count twice, and take the second."""
    steps = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        if event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            steps += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return steps


def held_bytes(machine: object) -> int:
    """The memory in bytes of all values that `machine` leads to, itself among them; no classes, modules and code."""
    seen: set[int] = set()
    found: list[object] = [machine]
    size = 0
    while found:
        value = found.pop()
        if id(value) in seen or isinstance(value, _NO_VALUES):
            continue
        seen.add(id(value))
        size += sys.getsizeof(value)
        # A function leads to its module; what it alone holds are its closed-over variables.
        found += value.__closure__ or () if isinstance(value, FunctionType) else gc.get_referents(value)
    return size


def _difference(pieces: Pieces, outcome: Outcome, expected: Outcome) -> str:
    for number, (event, other) in enumerate(zip(outcome.events, expected.events, strict=False)):
        if event != other:
            return f"cut as {pieces}: event {number} is {event!r}; whole it is {other!r}"
    if len(outcome.events) != len(expected.events):
        return f"cut as {pieces}: {len(outcome.events)} events {outcome.kinds()}; whole {expected.kinds()}"
    if outcome.output != expected.output:
        return f"cut as {pieces}: sent {outcome.output!r}; whole {expected.output!r}"
    return f"cut as {pieces}: {'it has ended' if outcome.ended else 'it goes on'}; whole it is the other way round"
