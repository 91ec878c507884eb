"""How the workers of a server share its connections: who has more than the others leaves the next ones to them.

Workers wait at the same listening sockets, and the system wakes all of them for a connection: whoever is quick, or has
a processor to itself, would take nearly all. So each writes down, in memory that all of them see, how many it has open
and how many it has taken. One that is ahead of another does not accept for a moment; what is still there then it takes.

It rests only for who waits for connections. Not for one that rests itself: else all of them would rest, and who
connects would wait. Not for one that has taken none since it was rested for the last time: that one hangs, or has no
time.
"""

import mmap
import time
from collections.abc import Callable

REST_SECONDS = 0.002
"""How long a worker that is ahead leaves connections to the others."""

AHEAD = 2
"""A worker is ahead of another that has this many connections more, and a quarter of the other's."""

_ABSENT = 2**64 - 1
"""In place of a count: this worker accepts nothing."""


class Share:
    """One worker's part. Only that worker calls it, and its supervisor once it is gone."""

    def __init__(self, page: "memoryview[int]", place: int, clock: Callable[[], int]) -> None:
        workers = len(page) // 3
        self._open = page[:workers]
        self._taken = page[workers : 2 * workers]
        self._rests_until = page[2 * workers :]  # nanoseconds of the clock that all processes have
        self._place = place
        self._clock = clock
        self._taken_before: dict[int, int] = {}
        """Of those that this one has rested for: how many they had taken when it began to."""

    def set(self, count: int) -> None:
        """This worker has `count` connections open."""
        if count > self._open[self._place]:
            self._taken[self._place] += 1
        self._open[self._place] = count

    def gone(self) -> None:
        """This worker accepts nothing, so nobody leaves anything to it."""
        self._open[self._place] = _ABSENT

    def rest(self) -> float:
        """How many seconds this worker is to leave connections to the others, now that there is one."""
        mine = self._open[self._place]
        if not _ahead(mine, min(self._open)):
            return 0.0
        now = self._clock()
        left = self._rests_until[self._place] - now
        if left > 0:
            return left / 1e9  # of the rest that began with a connection at another socket
        rested_for = {
            other: self._taken[other]
            for other, count in enumerate(self._open)
            if _ahead(mine, count)
            and self._rests_until[other] <= now
            and self._taken_before.get(other) != self._taken[other]
        }
        if not rested_for:
            return 0.0
        self._taken_before |= rested_for
        self._rests_until[self._place] = now + int(REST_SECONDS * 1e9)
        return REST_SECONDS


def _ahead(mine: int, others: int) -> bool:
    return mine > others + AHEAD + others // 4


def shares(workers: int, clock: Callable[[], int] = time.monotonic_ns) -> list[Share]:
    """One for each of so many processes that are forked from this one; none of them is there yet."""
    page = memoryview(mmap.mmap(-1, 3 * 8 * workers)).cast("Q")
    found = [Share(page, place, clock) for place in range(workers)]
    for share in found:
        share.gone()
    return found
