"""How the workers of a server share its connections: who has more than the others leaves the next one to them.

Workers wait at the same listening sockets, and the system wakes all of them for a connection: whoever is quick, or has
a processor to itself, would take nearly all. So each writes down how many it has open, in memory that all of them see.
One that is ahead does not accept for some milliseconds; what is still there then it takes, so that nobody waits for a
worker that hangs.
"""

import mmap

REST_SECONDS = 0.005
"""How long a worker that is ahead leaves a connection to the others."""

AHEAD = 2
"""A worker is ahead that has this many connections more than another, and a quarter of the other's."""

_ABSENT = 2**32 - 1
"""In place of a count: this worker accepts nothing."""


class Share:
    """One worker's part. Only that worker calls it, and its supervisor once it is gone."""

    def __init__(self, counts: "memoryview[int]", place: int) -> None:
        self._counts = counts
        self._place = place

    def set(self, count: int) -> None:
        """This worker has `count` connections open."""
        self._counts[self._place] = count

    def gone(self) -> None:
        """This worker accepts nothing, so nobody leaves anything to it."""
        self._counts[self._place] = _ABSENT

    def rest(self) -> float:
        """How many seconds this worker is to leave the next connection to the others."""
        least = min(self._counts)
        return REST_SECONDS if self._counts[self._place] > least + AHEAD + least // 4 else 0.0


def shares(workers: int) -> list[Share]:
    """One for each of so many processes that are forked from this one; none of them is there yet."""
    counts = memoryview(mmap.mmap(-1, 4 * workers)).cast("I")
    found = [Share(counts, place) for place in range(workers)]
    for share in found:
        share.gone()
    return found
