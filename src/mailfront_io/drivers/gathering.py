"""`Gather`: several operations at once, stepped in turn and waited for together.

Each operation is a generator of waits, as it is by itself. All waits are joined into one, and when that is over every
generator that still runs has a look. (Twenty lookups are many, and a look costs a microsecond or two.)
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from mailfront_io.drivers.stepper import Ready
from mailfront_io.ops import DeadlineExceeded, Operation
from mailfront_io.peers import Gather

if TYPE_CHECKING:
    from mailfront_io.drivers.operations import Performer


class _Part:
    """One of the operations."""

    def __init__(self, steps: Generator[Operation[Any], Any, Any]) -> None:
        self._steps = steps
        self.waits: Ready | None = None
        self.outcome: Any = None
        self.step(None)

    def step(self, error: DeadlineExceeded | None) -> None:
        """Go on to the next wait or to the end."""
        try:
            wait = self._steps.send(None) if error is None else self._steps.throw(error)
            assert isinstance(wait, Ready)
            self.waits = wait
        except StopIteration as end:
            self.waits, self.outcome = None, end.value
        except Exception as failed:
            self.waits, self.outcome = None, failed

    def close(self) -> None:
        """End it where it waits; what it has opened is closed."""
        self._steps.close()


def gather(performer: "Performer", operation: Gather[Any]) -> Generator[Operation[Any], Any, list[Any]]:
    """Perform the operations of `operation`."""
    from mailfront_io.drivers.operations import LEAVES

    for leaf in operation.operations:
        if type(leaf) not in LEAVES:
            raise TypeError(f"{type(leaf).__name__} cannot be part of a Gather: await it by itself")
        if operation.deadline is not None and (leaf.deadline is None or leaf.deadline > operation.deadline):
            leaf.deadline = operation.deadline
    parts: list[_Part] = []
    try:
        for leaf in operation.operations:
            parts.append(_Part(LEAVES[type(leaf)](performer, leaf)))
        while waiting := [(part, part.waits) for part in parts if part.waits is not None]:
            limits = [wait.deadline for _, wait in waiting if wait.deadline is not None]
            interests = [interest for _, wait in waiting for interest in wait.interests]
            late = False
            try:
                yield Ready(interests, min(limits, default=None))
            except DeadlineExceeded:
                late = True
            now = performer.clock.monotonic()
            all_late = late and min(limits, default=now + 1) > now  # the time of a clean-up is over
            for part, wait in waiting:
                if all_late or (wait.deadline is not None and wait.deadline <= now):
                    part.step(DeadlineExceeded())
                elif wait.interests:
                    part.step(None)
    finally:
        for part in parts:
            part.close()
    return [part.outcome for part in parts]
