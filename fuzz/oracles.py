"""What must hold, whatever comes: the oracles that the harnesses share.

* Only documented exceptions escape: what is raised out of `check_machine` is a finding.
* Events and output are the same for the bytes in one piece and cut.
* The end of input ends the session.
* What is held stays below the limits.
* What is printed reads back the same: `check_round_trip`.
"""

import random
from collections.abc import Callable
from typing import TypeVar

from mailfront_proto.testing import (
    NewPlayer,
    Outcome,
    Pieces,
    assert_chunk_invariant,
    assert_memory_bounded,
    byte_by_byte,
)

MAX_WIRE = 4096
"""Bytes of one input; more makes the fuzzer slow and finds nothing else."""

BYTE_BY_BYTE = 0
MEMORY = range(168, 176)
"""Values of the byte that says how an input is cut. Those of `MEMORY` take long, and none is dear to fuzzers."""

MEMORY_STREAM = 64 * 1024
"""Bytes that a peer sends where it does not stop."""

MOST_HELD = MEMORY_STREAM // 3
"""Bytes that a machine may hold, for which that stream says something: make machines with low limits."""

T = TypeVar("T")


def check_machine(new: NewPlayer, wire: bytes, cutting: int, *, held: int | None, invariant: bool = True) -> Outcome:
    """Play `wire` whole and cut; what came of it whole.

    `cutting`, a byte of the input, says how: `BYTE_BY_BYTE`, or in random pieces. Where it is one of `MEMORY`, the
    peer also says the last piece again and again, and the machine may hold `held` bytes, `MOST_HELD` at most; None:
    that is not asked of a machine with high limits. `invariant` False: where TLS begins the cut decides, since what
    comes behind is not the machine's; the outcomes are not compared.
    """
    pieces = cut(wire, cutting)
    assert held is None or held <= MOST_HELD, held
    if cutting in MEMORY and wire and held is not None:
        *before, pattern = pieces[0]
        assert_memory_bounded(lambda: new().play([before], eof=False), pattern, held, size=MEMORY_STREAM, block=1024)
    if invariant:
        outcome = assert_chunk_invariant(new, [wire], [pieces])
    else:
        new().play(pieces)
        outcome = new().play([[wire]]).outcome
    assert outcome.ended, f"the end of input did not end it: {outcome.events}"
    return outcome


def cut(wire: bytes, cutting: int) -> Pieces:
    """`wire` in the pieces that `cutting` says."""
    if cutting == BYTE_BY_BYTE:
        return byte_by_byte([wire])
    dice = random.Random(cutting)
    marks = sorted(dice.randrange(len(wire) + 1) for _ in range(dice.randint(1, 12)))
    return [[wire[a:b] for a, b in zip([0, *marks], [*marks, len(wire)], strict=True) if a < b]]


def check_round_trip(value: T, write: Callable[[T], bytes], read: Callable[[bytes], T]) -> None:
    """What `write` makes of `value`, `read` makes into `value` again."""
    written = write(value)
    again = read(written)
    assert again == value, (value, written, again)
