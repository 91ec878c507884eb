"""`Exchange`: several peers written and read at the same time, so that nobody waits for anybody."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from mailfront_io.drivers.stepper import Interest
from mailfront_io.ops import ConnectionLost, Operation
from mailfront_io.peers import Exchange, Exchanged, Peer

if TYPE_CHECKING:
    from mailfront_io.drivers.operations import Performer
    from mailfront_io.drivers.streams import Stream

BLOCKS_AT_ONCE = 16
"""Reads and writes of each peer, each of up to 64 KiB, before other sessions have their turn."""


def exchange(performer: "Performer", operation: Exchange) -> Generator[Operation[Any], Any, Exchanged]:
    """Write and read until all is written, or can no longer be, and all ends have been read."""
    from mailfront_io.drivers.operations import stream_of

    writers = [_Writer(stream_of(peer), blocks, peer) for peer, blocks in operation.send.items()]
    readers = [_Reader(stream_of(peer), limit, peer) for peer, limit in operation.receive.items()]
    parts: list[_Writer | _Reader] = [*writers, *readers]
    while True:
        busy = False
        for part in parts:
            busy |= part.step()
        interests = [interest for part in parts if not part.done for interest in part.interests()]
        if not interests:
            break
        performer.not_late(operation.deadline)
        yield from performer.wait(interests, operation.deadline, busy)
    return Exchanged(
        {reader.peer: b"".join(reader.kept) for reader in readers},
        tuple(writer.peer for writer in writers if writer.stopped),
    )


class _Writer:
    """One direction of an exchange: blocks on their way to a peer."""

    def __init__(self, stream: "Stream", data: Any, peer: Peer) -> None:
        self.peer = peer
        self.done = False
        self.stopped = False
        self._stream = stream
        self._blocks = iter((data,) if isinstance(data, bytes) else data)
        self._rest = memoryview(b"")
        self._finished = False

    def step(self) -> bool:
        """Write what there is room for; whether there may be room for more."""
        if self.done:
            return False
        try:
            for _ in range(BLOCKS_AT_ONCE):
                if not self._rest and not self._finished:
                    block = next(self._blocks, None)
                    if block is None:
                        self._finished = True
                        self._stream.finish()
                    else:
                        self._rest = memoryview(block)
                        continue
                if self._rest:
                    written = self._stream.write(self._rest)
                    self._rest = self._rest[written:]
                    if not written:
                        return False
                elif self._finished:
                    self.done = self._stream.flush()
                    return False
        except ConnectionLost:
            self.done = self.stopped = True
            return False
        return True

    def interests(self) -> Sequence[Interest]:
        """What to wait for."""
        return self._stream.writing()


class _Reader:
    """The other direction: what a peer says, up to its end."""

    def __init__(self, stream: "Stream", limit: int, peer: Peer) -> None:
        self.peer = peer
        self.done = False
        self.kept: list[bytes] = []
        self._stream = stream
        self._left = limit

    def step(self) -> bool:
        """Read what is there; whether there may be more."""
        if self.done:
            return False
        for _ in range(BLOCKS_AT_ONCE):
            data = self._stream.read()
            if data is None:
                return False
            if not data:
                self.done = True
                return False
            data = data[: self._left]
            self._left -= len(data)
            if data:
                self.kept.append(data)
        return True

    def interests(self) -> Sequence[Interest]:
        """What to wait for."""
        return self._stream.reading()
