"""A machine and its application, played against bytes: what every test of a machine begins with.

`Player` feeds, pulls, lets the application react, and drains, in the order that `mailfront_proto.pull` prescribes.
What comes of it is an `Outcome`: the events, adjacent slices of a stream joined, and the output. It may not depend
on how the bytes were cut.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from mailfront_proto.pull import NEED_DATA, PAUSED

_SPARE_EVENTS = 1000
_EVENTS_A_BYTE = 2


class Machine(Protocol):
    """The pull shape, in either role; see `mailfront_proto.pull`."""

    def receive_data(self, data: bytes) -> None:
        """Store bytes from the peer."""

    def receive_eof(self) -> None:
        """The peer will send nothing more."""

    def next_event(self) -> object:
        """The next event, `NEED_DATA` or `PAUSED`."""

    def data_to_send(self) -> bytes:
        """Drain what is to be written."""


class AnsweringMachine(Machine, Protocol):
    """A machine in the server role, whose events may owe the peer an answer."""

    @property
    def answer_owed(self) -> bool:
        """Whether the last event waits for its answer."""

    def accept(self) -> None:
        """Give the usual answer."""


M = TypeVar("M", bound=Machine)
A = TypeVar("A", bound=AnsweringMachine)


@dataclass(slots=True)
class Raised:
    """In place of an event: ``next_event`` raised one of the exceptions that it may raise."""

    kind: type[Exception]
    text: str


@dataclass(slots=True)
class Outcome:
    """What came of one playing."""

    events: list[Any]
    """In their order, adjacent slices of a stream (events whose one field is ``data``) joined. `Raised` stands
    for an exception. The closing event is here once, though machines return it ever after."""

    output: bytes
    """All that was sent."""

    ended: bool = False
    """The closing event came."""

    def kinds(self) -> list[str]:
        """The names of the events' classes."""
        return [type(event).__name__ for event in self.events]

    def bodies(self) -> list[bytes]:
        """The streams, or what was handed on of them."""
        return [event.data for event in self.events if is_slice(event)]


def accept(machine: AnsweringMachine, event: object) -> None:
    """The application that says yes: gives the usual answer to every event that is owed one."""
    if machine.answer_owed:
        machine.accept()


def ignore(machine: Machine, event: object) -> None:
    """The application that does nothing."""


def is_slice(event: object) -> bool:
    """Whether `event` is a slice of a stream: its one field is ``data``."""
    return getattr(event, "__match_args__", None) == ("data",) and isinstance(getattr(event, "data", None), bytes)


class Player(Generic[M]):
    """One playing of `machine`.

    `react`: the application; called with the machine and each event, it answers or gives the next command
    (`accept` and `ignore` are the two simplest). `raises`: what ``next_event`` may raise, recorded as an event:
    `RemoteProtocolError` for a client. Everything else that is raised is the test's failure. `at_mark`: called
    in front of each segment, for what the application must do there (a TLS handshake: ``tls_established()``).
    """

    def __init__(
        self,
        machine: M,
        react: Callable[[M, Any], None],
        *,
        raises: type[Exception] | tuple[type[Exception], ...] = (),
        at_mark: Callable[[M], None] | None = None,
    ) -> None:
        self.machine = machine
        self.react = react
        self.writes: list[bytes] = []
        """What was sent, as it was drained."""
        self.ended = False
        """The machine returned one event twice: the closing one, which it returns ever after."""
        self._raises = raises
        self._at_mark = at_mark
        self._events: list[Any] = []
        self._slices: list[bytes] = []  # those of the last event, if it is one
        self._last: object = None
        self._received = 0
        self._seen = 0

    @property
    def outcome(self) -> Outcome:
        """What came of it so far."""
        self._join()
        return Outcome(list(self._events), b"".join(self.writes), self.ended)

    def play(self, pieces: Sequence[Sequence[bytes]], *, eof: bool = True) -> Self:
        """Begin, or go on, with segments in pieces; then the end of input, unless `eof` is False. What arrives
        once the machine has closed is fed all the same, as a driver might."""
        self.step()
        for segment in pieces:
            if self._at_mark is not None:
                self._at_mark(self.machine)
                self.step()
            for piece in segment:
                self.receive(piece)
        if eof:
            self.end()
        return self

    def receive(self, data: bytes) -> None:
        """One piece arrives."""
        self._received += len(data)
        self.machine.receive_data(data)
        self.step()

    def end(self) -> None:
        """The peer closes."""
        self.machine.receive_eof()
        self.step()

    def step(self) -> None:
        """Pull, react and drain until the machine waits for its peer, or for something from outside."""
        machine = self.machine
        while True:
            try:
                event = machine.next_event()
            except self._raises as error:
                event = Raised(type(error), str(error))
            if event is NEED_DATA:
                break
            if event is PAUSED:
                if self._drain():
                    continue
                assert not getattr(machine, "answer_owed", False), f"the application did not answer {self._last!r}"
                return  # it waits for what only the test can do
            if event is self._last:
                self.ended = True
                break
            self._note(event)
            self.react(machine, event)
        self._drain()

    def forget(self) -> None:
        """Drop what was recorded so far, so that it takes no memory."""
        self._events.clear()
        self._slices.clear()
        self.writes.clear()

    def _drain(self) -> bool:
        data = self.machine.data_to_send()
        if data:
            self.writes.append(data)
        return bool(data)

    def _note(self, event: object) -> None:
        self._seen += 1
        assert self._seen <= _SPARE_EVENTS + _EVENTS_A_BYTE * self._received, (
            f"{self._seen} events from {self._received} bytes, the last one {event!r}: there is no end to them"
        )
        if self._slices and is_slice(event) and type(event) is type(self._events[-1]):
            self._slices.append(event.data)  # type: ignore[attr-defined]  # is_slice() says so
        else:
            self._join()
            self._events.append(event)
            self._slices = [event.data] if is_slice(event) else []  # type: ignore[attr-defined]
        self._last = event

    def _join(self) -> None:
        """Make the slices of the last event one."""
        if len(self._slices) > 1:
            self._slices = [b"".join(self._slices)]
            self._events[-1] = type(self._events[-1])(self._slices[0])
