"""What leads out of the process: the few things that the operations on peers and children need of the system.

`Doors` is what the operations are written against, and `System` is the system. The scripted driver has its own.
"""

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mailfront_io.drivers.stepper import Interest, Ready
from mailfront_io.drivers.streams import Stream
from mailfront_io.ops import Clock, Operation

if TYPE_CHECKING:
    from mailfront_io.children import Spawn
    from mailfront_io.peers import Address

Steps = Generator[Operation[Any], Any, Any]
"""Yields `Ready` and nothing else; only `Doors.spawn` yields `Thread` too."""


class DatagramSocket(Protocol):
    """A datagram socket that is connected: it gets datagrams from one address only. Raises OSError."""

    def send(self, data: bytes) -> None:
        """Send one, or lose it."""
        ...

    def receive(self) -> bytes | None:
        """The next one, or None."""
        ...

    def receiving(self) -> Sequence[Interest]:
        """What to wait for before the next `receive`."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Process(Protocol):
    """A program that was started."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, or minus its signal's number, if it has ended; then it is reaped."""
        ...

    def ending(self) -> tuple[Sequence[Interest], float]:
        """What to wait for before the next `poll`, and seconds after which to look in any case."""
        ...

    def kill(self) -> None:
        """Kill it and its process group, if it is not known to have ended."""
        ...

    def abandon(self) -> None:
        """Kill it, and let a thread reap it: nobody waits any more."""
        ...


class Doors(Protocol):
    """Each method is a generator of waits, but `address_of` and `datagram_socket`."""

    def look_up(self, address: "Address", deadline: float | None, *, datagrams: bool = False) -> Steps:
        """All places (opaque; `str` shows one) that `address` stands for. Raises OSError if there are none."""
        ...

    def address_of(self, place: Any) -> "Address":
        """The address of `place`, free of names."""
        ...

    def open(self, place: Any, deadline: float | None) -> Steps:
        """Connect to `place`: the `Stream`. Raises OSError."""
        ...

    def datagram_socket(self, place: Any) -> DatagramSocket:
        """A `DatagramSocket` for `place`. Raises OSError."""
        ...

    def resolve(self, name: str, kind: str, deadline: float | None) -> Steps:
        """The answer of `peers.Resolve`."""
        ...

    def spawn(self, operation: "Spawn") -> Steps:
        """Start a program: a `Process`, the `Stream` of each pipe by the child's descriptor, and that of its socket,
        or None. Raises `SpawnFailed`."""
        ...

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], deadline: float | None) -> Steps:
        """Call a function that may block, where it holds up nobody. To close the generator drops the result."""
        ...


class System:
    """The doors of the system, each in a module that is loaded when it is first used."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def look_up(self, address: "Address", deadline: float | None, *, datagrams: bool = False) -> Steps:
        """See `Doors`."""
        from mailfront_io.drivers import sockets

        return sockets.look_up(address, deadline, datagrams)

    def address_of(self, place: Any) -> "Address":
        """See `Doors`."""
        from mailfront_io.drivers import sockets

        return sockets.address_of(place)

    def open(self, place: Any, deadline: float | None) -> Steps:
        """See `Doors`."""
        from mailfront_io.drivers import sockets

        return sockets.connect(place, deadline, self._clock)

    def datagram_socket(self, place: Any) -> DatagramSocket:
        """See `Doors`."""
        from mailfront_io.drivers import sockets

        return sockets.UDPSocket(place)

    def resolve(self, name: str, kind: str, deadline: float | None) -> Steps:
        """See `Doors`."""
        from mailfront_io.drivers import names

        return names.resolve(name, kind, deadline, self._clock)

    def spawn(self, operation: "Spawn") -> Steps:
        """See `Doors`."""
        from mailfront_io.drivers import processes

        return processes.spawn(operation)

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], deadline: float | None) -> Steps:
        """See `Doors`."""
        from mailfront_io.drivers import threads

        return threads.call(function, arguments, deadline)


def receive(stream: Stream, deadline: float | None) -> Generator[Operation[Any], Any, bytes]:
    """The next bytes of `stream`."""
    while (data := stream.read()) is None:
        yield Ready(stream.reading(), deadline)
    return data


def transmit(stream: Stream, data: bytes, deadline: float | None) -> Generator[Operation[Any], Any, None]:
    """Write all of `data` to `stream`, and what it holds back."""
    rest = memoryview(data)
    while rest or not stream.flush():
        written = stream.write(rest) if rest else 0
        rest = rest[written:]
        if not written:
            yield Ready(stream.writing(), deadline)
