"""Every way in which the bytes of a peer may arrive, and chunkers for what is on its way between two machines.

A stream is a list of segments. Between two of them stands a mark: there the peer must wait for an answer (220,
354, 334, a handshake), so no piece ever reaches over it. "Every split" means: whole, every two-way split, byte by
byte, and 200 random cuttings, which are always the same ones.
"""

from collections.abc import Callable, Iterator, Sequence

Pieces = list[list[bytes]]
"""For each segment the pieces in which it arrives."""

RANDOM_CUTTINGS = 200

Chunker = Callable[[bytes], int]
"""How many of the bytes that are on their way arrive next: `len` is the chunker that hands on all there is. 0:
nothing arrives for now."""


def every_split(
    segments: Sequence[bytes], *, two_way: int | None = None, random_ones: int = RANDOM_CUTTINGS
) -> Iterator[Pieces]:
    """All the ways to deliver `segments`: whole, every two-way split, byte by byte, `random_ones` random cuttings.

    `two_way`: at most about so many two-way splits, evenly spread, for streams so long that all of them take
    minutes. Byte by byte and the random cuttings reach everywhere in those, too.
    """
    yield whole(segments)
    yield from two_way_splits(segments, two_way)
    yield byte_by_byte(segments)
    if sum(len(segment) - 1 for segment in segments if segment) > 1:
        yield from random_cuttings(segments, random_ones)


def few_splits(segments: Sequence[bytes]) -> Iterator[Pieces]:
    """Whole, byte by byte and 20 random cuttings: where every split would take minutes."""
    yield whole(segments)
    yield byte_by_byte(segments)
    yield from random_cuttings(segments, 20)


def whole(segments: Sequence[bytes]) -> Pieces:
    """Each segment in one piece."""
    return [[segment] if segment else [] for segment in segments]


def byte_by_byte(segments: Sequence[bytes]) -> Pieces:
    """Each byte alone."""
    return [[segment[i : i + 1] for i in range(len(segment))] for segment in segments]


def two_way_splits(segments: Sequence[bytes], at_most: int | None = None) -> Iterator[Pieces]:
    """Every split in two: one segment is cut at one place, the others are whole. `at_most` about so many, evenly
    spread; None: all."""
    uncut = whole(segments)
    places = [(n, at) for n, segment in enumerate(segments) for at in range(1, len(segment))]
    step = 1 if at_most is None else max(1, len(places) // at_most)
    for n, at in places[::step]:
        yield [
            pieces if number != n else [segments[n][:at], segments[n][at:]] for number, pieces in enumerate(uncut)
        ]


def random_cuttings(segments: Sequence[bytes], count: int, seed: int | None = None) -> Iterator[Pieces]:
    """`count` cuttings, each segment in at most ten pieces. `seed` None: the same ones for streams of one length."""
    dice = _Dice(sum(map(len, segments)) if seed is None else seed)
    for _ in range(count):
        yield [_cut(segment, dice) for segment in segments]


def _cut(data: bytes, dice: "_Dice") -> list[bytes]:
    if len(data) < 2:
        return [data] if data else []
    wanted = 1 + dice.below(min(9, len(data) - 1))
    places: set[int] = set()
    while len(places) < wanted:
        places.add(1 + dice.below(len(data) - 1))
    marks = sorted(places)
    return [data[a:b] for a, b in zip([0, *marks], [*marks, len(data)], strict=True)]


class _Dice:
    """Numbers that look random, and are the same ones each time (a linear congruential generator, Knuth's constants):
    this package draws none that are random."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def below(self, limit: int) -> int:
        """The next number, from 0 up to `limit`, and less."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self._state >> 33) % limit


def one_byte(data: bytes) -> int:
    """The chunker that hands on one byte at a time."""
    return 1


def random_sizes(seed: int) -> Chunker:
    """A chunker of random sizes, now and then nothing: so the order between two directions varies, too."""
    dice = _Dice(seed)
    return lambda data: (0, 1, 2, 3, 10, 100, 1000, len(data))[dice.below(8)]
