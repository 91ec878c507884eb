"""The deadlines of all sessions of an event loop, with one timer between them.

Nearly every operation has a deadline and nearly none is ever reached, so what counts is that moving one
costs nothing and setting one little. A session has one place in a heap; when its deadline moves on it keeps
its place, and takes a new one when its time comes too early. A place that is given up stays in the heap and
no longer agrees with the session's `timer_at`; when such places are the majority the heap is made anew.
"""

import asyncio
import time
from heapq import heapify, heappop, heappush
from typing import Protocol

NEVER = float("inf")

FEW = 64
"""Places given up that are not worth making the heap anew."""


class Timed(Protocol):
    """What has a deadline. `timer_at` is `Deadlines`' to write; `NEVER` at first."""

    timer_at: float

    def on_time(self) -> None:
        """`timer_at` has come, and is `NEVER` again."""


class Deadlines:
    """Calls `on_time` of many objects. The loop is an argument, so that no loop is kept alive from here."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timed]] = []
        self._number = 0  # decides between equal times
        self._live = 0  # objects whose `timer_at` is set
        self._timer: asyncio.TimerHandle | None = None

    def add(self, when: float, who: Timed, loop: asyncio.AbstractEventLoop) -> None:
        """Call `who.on_time` at `when`, and not at the `timer_at` that was set before."""
        if who.timer_at == NEVER:
            self._live += 1
        who.timer_at = when
        self._number += 1
        heap = self._heap
        heappush(heap, (when, self._number, who))
        if heap[0][1] == self._number:
            self._set_timer(loop)
        elif len(heap) > 2 * self._live + FEW:
            heap[:] = [place for place in heap if place[2].timer_at == place[0]]
            heapify(heap)

    def remove(self, who: Timed) -> None:
        """Do not call `who.on_time` any more."""
        if who.timer_at == NEVER:
            return
        who.timer_at = NEVER
        self._live -= 1
        if self._live == 0:
            self._rest()

    def _rest(self) -> None:
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(self._heap[0][0] - time.monotonic(), 0)
        self._timer = loop.call_later(delay, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        heap = self._heap
        now = time.monotonic()
        try:
            while heap and heap[0][0] <= now:
                when, _, who = heappop(heap)
                if who.timer_at == when:
                    who.timer_at = NEVER
                    self._live -= 1
                    who.on_time()
        finally:
            if self._live:
                self._set_timer(loop)
            else:
                self._rest()
