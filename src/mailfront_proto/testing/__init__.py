r"""The test kit: play any machine of this package, or your extension of one, in memory, and assert what must hold.

::

    def new() -> Player[SMTPServer]:
        return Player(SMTPServer("mx.example.org"), accept)

    outcome = assert_chunk_invariant(new, [b"EHLO client.example\r\nQUIT\r\n"])
    assert outcome.kinds() == ["Connected", "Helo", "Quit", "ConnectionClosed"]

- `player`: `Player` plays a machine and its application; what comes of it is an `Outcome`.
- `pair`: `Pair` lets a client machine and a server machine talk to each other.
- `cutting`: every way in which the bytes may arrive.
- `assertions`: chunk invariance, totality, bounds of memory and output, linear work.
- `mailfront_proto.testing.strategies`: Hypothesis strategies for protocol values; the one part that needs
  Hypothesis, and is imported by its own name.
"""

from mailfront_proto.testing.assertions import (
    NewPlayer,
    assert_chunk_invariant,
    assert_linear,
    assert_memory_bounded,
    assert_output_bounded,
    assert_total,
    count_steps,
    held_bytes,
)
from mailfront_proto.testing.cutting import (
    Chunker,
    Pieces,
    byte_by_byte,
    every_split,
    few_splits,
    one_byte,
    random_cuttings,
    random_sizes,
    two_way_splits,
    whole,
)
from mailfront_proto.testing.pair import Pair
from mailfront_proto.testing.player import Machine, Outcome, Player, Raised, accept, ignore, is_slice

__all__ = [
    "Chunker",
    "Machine",
    "NewPlayer",
    "Outcome",
    "Pair",
    "Pieces",
    "Player",
    "Raised",
    "accept",
    "assert_chunk_invariant",
    "assert_linear",
    "assert_memory_bounded",
    "assert_output_bounded",
    "assert_total",
    "byte_by_byte",
    "count_steps",
    "every_split",
    "few_splits",
    "held_bytes",
    "ignore",
    "is_slice",
    "one_byte",
    "random_cuttings",
    "random_sizes",
    "two_way_splits",
    "whole",
]
