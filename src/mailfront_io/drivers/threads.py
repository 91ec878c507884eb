"""Worker threads for `Thread` under the drivers that must not block.

Differs from `concurrent.futures` in what matters here: the threads are daemons, so a function that hangs
(a dead NFS server) cannot keep the process from ending, and calls whose wait has ended are counted, so that
hanging functions cannot take every thread unnoticed. A commit is waited for by the session that asked for it,
and sessions by the server, so being a daemon loses none.
"""

import os
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any

from mailfront_io.drivers.stepper import READ, Ready
from mailfront_io.ops import DeadlineExceeded, Operation

MAX_THREADS = 40
"""Threads at once (trio's number): enough that fsyncs on one disk share its flushes. More calls queue."""

MAX_ABANDONED = 16
"""Calls that may still run after their wait has ended; with so many hanging, no more are begun."""

IDLE_SECONDS = 10.0
"""How long a thread without work lives on."""


class Abandoned:
    """Counts the calls that nobody waits for any more but that still run."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    def change(self, by: int) -> None:
        """Count `by` more, or fewer."""
        with self._lock:
            self._count += by

    def check(self) -> None:
        """Raise DeadlineExceeded when there are too many: a new call would most likely hang too."""
        if self._count >= MAX_ABANDONED:
            raise DeadlineExceeded(f"{self._count} calls in threads hang past their deadlines")


ABANDONED = Abandoned()
"""Those of this process, in whichever driver."""


class Call:
    """One call on its way through a thread. `done(result, error)` is called in that thread."""

    __slots__ = ("_abandoned", "_arguments", "_done", "_finished", "_function", "_lock")

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        done: Callable[[Any, BaseException | None], None],
    ) -> None:
        self._function = function
        self._arguments = arguments
        self._done = done
        self._lock = threading.Lock()
        self._finished = False
        self._abandoned = False

    def run(self) -> None:
        """Make the call and hand on what came of it, unless it was abandoned."""
        result: Any = None
        error: BaseException | None = None
        if not self._abandoned:  # it may have been, while it waited for a thread
            try:
                result = self._function(*self._arguments)
            except BaseException as caught:
                error = caught
        with self._lock:
            self._finished = True
            if self._abandoned:
                ABANDONED.change(-1)
                return
        self._done(result, error)

    def abandon(self) -> bool:
        """Stop waiting. Returns whether `done` will never be called; else it was called, or is just now."""
        with self._lock:
            if not self._finished and not self._abandoned:
                self._abandoned = True
                ABANDONED.change(1)
            return self._abandoned


class ThreadPool:
    """Runs calls in at most `MAX_THREADS` threads, started when needed and ended when not."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0  # threads waiting for work, less the calls that wait in the queue for them

    def start(self, call: Call) -> None:
        """Run `call` soon. Raises DeadlineExceeded when too many calls hang."""
        ABANDONED.check()
        with self._lock:
            if self._free > 0 or self._threads >= MAX_THREADS:
                self._free -= 1
                self._queue.put(call)
                return
            self._threads += 1
        try:
            threading.Thread(target=self._work, args=(call,), name="mailfront-io", daemon=True).start()
        except BaseException:
            with self._lock:
                self._threads -= 1
            raise

    def _work(self, call: Call) -> None:
        while True:
            call.run()
            del call
            with self._lock:
                self._free += 1
            try:
                call = self._queue.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._free > 0:  # nothing was put on our account in the meantime
                        self._free -= 1
                        self._threads -= 1
                        return
                call = self._queue.get()


POOL = ThreadPool()
"""The threads of this process."""


def call(
    function: Callable[..., Any], arguments: tuple[Any, ...], deadline: float | None
) -> Generator[Operation[Any], Any, Any]:
    """Call a function in a thread, under any driver: what is waited for is a pipe that the thread closes."""

    def done(result: Any, error: BaseException | None) -> None:  # in the worker thread
        outcomes.append((result, error))
        os.close(closed_when_done)

    outcomes: list[tuple[Any, BaseException | None]] = []
    end, closed_when_done = os.pipe()
    call = Call(function, arguments, done)
    try:
        try:
            POOL.start(call)
            while not outcomes:
                yield Ready(((end, READ),), deadline)
        finally:
            if call.abandon():
                os.close(closed_when_done)
    finally:
        os.close(end)
    result, error = outcomes[0]
    if error is not None:
        raise error
    return result
