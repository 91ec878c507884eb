"""The scripted driver's doors: connections, datagrams, names and programs that lead to the parties of a test."""

import errno
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mailfront_io.drivers.doors import Steps
from mailfront_io.drivers.scripted import (
    REFUSED,
    SILENT,
    UNTIL_EOF,
    Absence,
    Advance,
    Late,
    Party,
    Program,
    Ran,
    ScriptedWorld,
)
from mailfront_io.drivers.stepper import READ, WRITE, Interest, Ready
from mailfront_io.ops import RECEIVE_SIZE, ConnectionLost, DeadlineExceeded

if TYPE_CHECKING:
    from mailfront_io.children import Spawn
    from mailfront_io.peers import Address


class ScriptedStream:
    """A `streams.Stream` to a party; `is_ready`: for the world's waits."""

    def __init__(self, world: ScriptedWorld, party: Party) -> None:
        self._world = world
        self.party = party
        self._eof = False

    def is_ready(self, what: int) -> bool:
        """Whether a read or a write would not have to wait."""
        party = self.party
        return bool((what & READ and party.has_arrived()) or (what & WRITE and (party.reset or not party.stalled)))

    def read(self) -> bytes | None:
        """See `Stream`."""
        self._world.play()
        return self.party.arrived()

    def write(self, data: memoryview) -> int:
        """See `Stream`."""
        self._world.play()
        if self.party.reset:
            raise ConnectionLost("Broken pipe")
        if self.party.stalled:
            return 0
        data = data[:RECEIVE_SIZE]
        self.party.take(bytes(data))
        return len(data)

    def finish(self) -> None:
        """See `Stream`."""
        self.party.finished = True

    def flush(self) -> bool:
        """See `Stream`."""
        return True

    def reading(self) -> Sequence[Interest]:
        """See `Stream`."""
        return ((self, READ),)

    def writing(self) -> Sequence[Interest]:
        """See `Stream`."""
        return ((self, WRITE),)

    def gone(self) -> bool:
        """See `Stream`."""
        return self.party.reset

    def close(self) -> None:
        """See `Stream`."""
        if self.party is not self._world.own:
            self.party.finished = True
            self._world.play()


class ScriptedDatagrams:
    """A `doors.DatagramSocket` to a party."""

    def __init__(self, stream: ScriptedStream) -> None:
        self._stream = stream

    def send(self, data: bytes) -> None:
        """See `DatagramSocket`."""
        self._stream.write(memoryview(data))

    def receive(self) -> bytes | None:
        """See `DatagramSocket`."""
        return self._stream.read()

    def receiving(self) -> Sequence[Interest]:
        """See `DatagramSocket`."""
        return self._stream.reading()

    def close(self) -> None:
        """See `DatagramSocket`."""
        self._stream.close()


class ScriptedProcess:
    """A `doors.Process`: it has ended when its scripts have, or when it was killed."""

    def __init__(self, pid: int, program: Program, parties: Sequence[Party], ran: Ran) -> None:
        self.pid = pid
        self._program = program
        self._parties = parties
        self._ran = ran
        self._reaped = False

    def is_ready(self, what: int) -> bool:
        """Whether it has ended."""
        return all(party.done for party in self._parties)

    def poll(self) -> int | None:
        """See `Process`."""
        if not self.is_ready(READ):
            return None
        self._reaped = True
        return -9 if self._ran.killed else self._program.code

    def ending(self) -> tuple[Sequence[Interest], float]:
        """See `Process`."""
        return ((self, READ),), 1e9

    def kill(self) -> None:
        """See `Process`."""
        if not self._reaped and not self.is_ready(READ):
            self._ran.killed = True
            for party in self._parties:
                party.die()

    def abandon(self) -> None:
        """See `Process`."""
        self.kill()


class ScriptedDoors:
    """The doors that lead to the parties of a test."""

    def __init__(self, world: ScriptedWorld) -> None:
        self._world = world
        self._outside = world.outside

    def look_up(self, address: "Address", deadline: float | None, *, datagrams: bool = False) -> Steps:
        """See `Doors`."""
        yield from ()
        if isinstance(address, str):
            return [address]
        host, port = address
        known = [self._outside.dns[host, kind] for kind in ("A", "AAAA") if (host, kind) in self._outside.dns]
        found = [ip for records in known if not isinstance(records, Exception | Late) for ip in records]
        if known and not found:
            raise OSError(errno.ENOENT, "Name or service not known")
        return [(ip, port) for ip in found] or [address]

    def address_of(self, place: Any) -> "Address":
        """See `Doors`."""
        address: Address = place
        return address

    def open(self, place: Any, deadline: float | None) -> Steps:
        """See `Doors`."""
        somebody = self._outside.peers.get(place)
        if somebody is None:
            self._world.nobody(f"the session connects to {place!r}, which is not among `peers`")
        if somebody is SILENT:
            yield Ready((), deadline)
        if isinstance(somebody, Absence):
            raise ConnectionRefusedError(111, "Connection refused")
        party = self._world.add(Party(self._world, somebody() if callable(somebody) else somebody or ()))
        self._world.peers.append((place, party))
        return ScriptedStream(self._world, party)

    def datagram_socket(self, place: Any) -> ScriptedDatagrams:
        """See `Doors`."""
        somebody = self._outside.datagrams.get(place)
        if somebody is None:
            self._world.nobody(f"the session sends a datagram to {place!r}, which is not among `datagrams`")
        if somebody is REFUSED:
            raise ConnectionRefusedError(111, "Connection refused")
        script = () if isinstance(somebody, Absence) else somebody() if callable(somebody) else somebody or ()
        party = self._world.add(Party(self._world, script))
        self._world.peers.append((place, party))
        return ScriptedDatagrams(ScriptedStream(self._world, party))

    def resolve(self, name: str, kind: str, deadline: float | None) -> Steps:
        """See `Doors`."""
        answer = self._outside.dns.get((name, kind), ())
        if isinstance(answer, Late):
            until = self._world.clock.monotonic() + answer.seconds
            try:
                yield Ready((), until if deadline is None else min(until, deadline))
            except DeadlineExceeded:
                if self._world.clock.monotonic() < until:
                    raise
            answer = answer.answer
        if isinstance(answer, Exception):
            raise answer
        return tuple(answer)

    def spawn(self, operation: "Spawn") -> Steps:
        """See `Doors`."""
        yield from ()
        name = operation.arguments[0]
        program = self._outside.programs.get(name if isinstance(name, str) else name.decode())
        if callable(program):
            program = program(operation)
        if program is None:
            self._world.nobody(f"the session starts {name!r}, which is not among `programs`")
        assert program is not None
        if program.failure is not None:
            raise program.failure
        parties: dict[int, Party] = {}
        for fd in (*operation.writes, *operation.reads):
            script = program.pipes.get(fd, (UNTIL_EOF,) if fd in operation.writes else ())
            parties[fd] = self._world.add(Party(self._world, script, ends=True))
        stream = None
        if operation.socket:
            party = self._world.add(Party(self._world, program.socket, ends=True))
            stream = ScriptedStream(self._world, party)
        streams = {fd: ScriptedStream(self._world, party) for fd, party in parties.items()}
        everybody = parties if stream is None else {**parties, 0: stream.party}
        ran = Ran(operation, {fd: party.received for fd, party in everybody.items()})
        self._world.programs.append(ran)
        life = self._world.add(Party(self._world, [Advance(program.seconds)]))
        pid = 1000 + len(self._world.programs)
        return ScriptedProcess(pid, program, [*everybody.values(), life], ran), streams, stream

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], deadline: float | None) -> Steps:
        """See `Doors`."""
        yield from ()
        return function(*arguments)
