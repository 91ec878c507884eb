"""Every split of what a peer sends, as our tests mean it: whole, every two-way split, byte by byte, and 200
random cuttings (always the same ones).

A stream is a list of segments. Between two of them the peer must wait for an answer (220, 354, 334, TLS),
so no piece ever reaches over such a mark; the mark itself is an event of the pieces, so that a driver knows
where it stands.
"""

import random
from collections.abc import Iterator, Sequence

Pieces = list[list[bytes]]
"""For each segment the pieces in which it arrives."""

RANDOM_CUTTINGS = 200


def every_split(
    segments: Sequence[bytes], *, two_way: int | None = None, random_ones: int = RANDOM_CUTTINGS
) -> Iterator[Pieces]:
    """All the ways to deliver `segments`. `two_way`: at most about so many two-way splits, evenly spread
    (for long streams, with the reason said where it is used)."""
    whole = [[segment] if segment else [] for segment in segments]
    yield whole
    places = [(n, at) for n, segment in enumerate(segments) for at in range(1, len(segment))]
    step = 1 if two_way is None else max(1, len(places) // two_way)
    for n, at in places[::step]:
        yield [
            pieces if number != n else [segments[n][:at], segments[n][at:]]
            for number, pieces in enumerate(whole)
        ]
    yield byte_by_byte(segments)
    dice = random.Random(sum(map(len, segments)))
    for _ in range(random_ones if len(places) > 1 else 0):
        yield [_cut(segment, dice) for segment in segments]


def byte_by_byte(segments: Sequence[bytes]) -> Pieces:
    """Each byte alone."""
    return [[segment[i : i + 1] for i in range(len(segment))] for segment in segments]


def few_splits(segments: Sequence[bytes]) -> Iterator[Pieces]:
    """Whole, byte by byte and 20 random cuttings: where every split would take minutes."""
    yield [[segment] if segment else [] for segment in segments]
    yield byte_by_byte(segments)
    dice = random.Random(sum(map(len, segments)))
    for _ in range(20):
        yield [_cut(segment, dice) for segment in segments]


def _cut(data: bytes, dice: random.Random) -> list[bytes]:
    if len(data) < 2:
        return [data] if data else []
    marks = sorted(dice.sample(range(1, len(data)), dice.randint(1, min(9, len(data) - 1))))
    return [data[a:b] for a, b in zip([0, *marks], [*marks, len(data)], strict=True)]
