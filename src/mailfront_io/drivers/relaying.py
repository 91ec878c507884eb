"""`Relay`: two streams spliced, full duplex, each direction a pump that holds one block.

A direction ends when its source has ended and what was read has gone out; then its sink is told (FIN, close_notify).
A side that breaks takes both directions with it. A side that has closed both of its directions, as a program does
that exits, is not waited for to read any more.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from mailfront_io.drivers.stepper import Interest
from mailfront_io.ops import ConnectionLost, DeadlineExceeded, Operation, TLSFailed
from mailfront_io.peers import Relay, Relayed

if TYPE_CHECKING:
    from mailfront_io.drivers.operations import Performer
    from mailfront_io.drivers.streams import Stream

BLOCKS_AT_ONCE = 8
"""Blocks moved in each direction, each of up to 64 KiB, before other sessions have their turn."""


class _Side:
    """One of the two streams."""

    def __init__(self, stream: "Stream") -> None:
        self.stream = stream
        self.broken = False


class _Pump:
    """One direction. `moved`: bytes that the sink has taken; `done`: it has ended."""

    def __init__(self, source: _Side, sink: _Side, first: bytes = b"") -> None:
        self._source = source
        self._sink = sink
        self._held = memoryview(first)
        self._ending = False
        self.moved = 0
        self.done = False

    def step(self) -> bool:
        """Move what can be moved; whether there may be more to move at once."""
        for _ in range(BLOCKS_AT_ONCE):
            if self.done:
                return False
            if self._sink.broken:
                self.done = True
            elif self._held:
                if not self._write():
                    return False
            elif self._ending:
                self._flush()
                return False
            elif not self._read():
                return False
        return not self.done

    def _read(self) -> bool:
        data: bytes | None = b""
        if not self._source.broken:
            try:
                data = self._source.stream.read()
            except (ConnectionLost, TLSFailed):
                self._source.broken = True
                data = b""
        if data is None:
            self._flush()
            return False
        self._held = memoryview(data)
        if not data:
            self._ending = True
            self._to_sink(self._sink.stream.finish)
        return True

    def _write(self) -> bool:
        written = self._to_sink(self._sink.stream.write, self._held) or 0
        self.moved += written
        self._held = self._held[written:]
        return written > 0 or self._sink.broken

    def _flush(self) -> None:
        flushed = self._to_sink(self._sink.stream.flush)
        if self._ending:
            self.done = bool(flushed) or self._sink.broken

    def _to_sink(self, action: Any, *arguments: Any) -> Any:
        try:
            return action(*arguments)
        except (ConnectionLost, TLSFailed):
            self._sink.broken = True
            return None

    def interests(self) -> list[Interest]:
        """What to wait for."""
        if self.done:
            return []
        if self._held or self._ending:
            return [*self._sink.stream.writing()]
        interests = [*self._source.stream.reading()]
        if not self._sink.stream.flush():
            interests += self._sink.stream.writing()
        return interests


def relay(
    performer: "Performer", ours: "Stream", theirs: "Stream", operation: Relay
) -> Generator[Operation[Any], Any, Relayed]:
    """Move bytes between the session's stream and the peer's until both have ended."""
    session, peer = _Side(ours), _Side(theirs)
    there, back = _Pump(session, peer, operation.first), _Pump(peer, session)
    clock = performer.clock
    moved, since = -1, 0.0
    while True:
        busy = there.step() | back.step()
        if back.done and not there.done and theirs.gone():
            there.done = True
        if there.done and not back.done and ours.gone():
            back.done = True
        if there.done and back.done:
            return Relayed(there.moved, back.moved)
        now = clock.monotonic()
        if operation.deadline is not None and operation.deadline <= now:
            raise DeadlineExceeded
        if moved != there.moved + back.moved:
            moved, since = there.moved + back.moved, now
        until = operation.deadline
        if operation.idle is not None:
            until = since + operation.idle if until is None else min(until, since + operation.idle)
        yield from performer.wait(there.interests() + back.interests(), until, busy)

