"""The conversation of a server session, as every front end has it: events from the machine to their handlers, bytes
between the machine and the peer, and what comes of a peer that is late, gone or does not read.

A front end adds its handlers, the states in which it may be stopped, and what else than a command it waits for
(`_message_deadline`); and it decides what is done about a server that stops, a peer that is late, a write that fails
(`_stopping`, `_timed_out`, `_lose`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator, Mapping
from math import inf
from types import coroutine
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from mailfront_io.ops import ConnectionLost, DeadlineExceeded, Operation, Recv, RecvLine, Send, Stopping, TLSFailed
from mailfront_io.session import Session
from mailfront_proto.pull import NEED_DATA, PAUSED


class Machine(Protocol):
    """What a conversation needs of a server machine (`mailfront_proto.pull`)."""

    @property
    def state(self) -> Any:
        """Where the session stands: a member of the protocol's ``State``."""

    def next_event(self) -> Any:
        """The next event, `NEED_DATA` or `PAUSED`."""

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer."""

    def receive_eof(self) -> None:
        """The peer will send nothing more."""

    def data_to_send(self) -> bytes:
        """What is to be written."""
        ...


M = TypeVar("M", bound=Machine)

Waits = Coroutine[Operation[Any], Any, Any] | None
"""What a handler that need not be a coroutine returns: None, or what is to be awaited."""

Handlers = Mapping[type, Callable[[Any, Any], Waits]]


_ENDS = {"QUIT": "quit", "LOGOUT": "quit", "EOF": "closed"}
"""How a session has ended, for who counts, by the reason of ``ConnectionClosed``."""


class Conversation(ABC, Generic[M]):
    """`idle`: seconds that the peer has for its next command, counted from the last answer; with `restarts` from the
    last byte (the original). `seconds`: that the whole session has, None: no limit. `recv`: how it reads."""

    __slots__ = (
        "_command_end",
        "_exit_code",
        "_idle",
        "_lost",
        "_now",
        "_over",
        "_recv",
        "_restarts",
        "_session_end",
        "_started",
        "machine",
        "session",
    )

    _handlers: ClassVar[Handlers]

    _idle_states: ClassVar[frozenset[Any]]
    """The machine's states in which the session may be stopped."""

    _message_states: ClassVar[frozenset[Any]] = frozenset()
    """Those in which `_message_deadline` says when the next bytes must be here."""

    def __init__(
        self,
        session: Session,
        machine: M,
        idle: float,
        seconds: float | None,
        recv: Recv | RecvLine | None = None,
        restarts: bool = False,
    ) -> None:
        self.session = session
        self.machine = machine
        self._now = session.clock.monotonic
        self._started = self._now()
        self._session_end = self._started + (seconds or inf)
        self._idle = idle
        self._restarts = restarts
        self._command_end = self._started + idle
        """When the next command must be here."""
        self._recv = recv or Recv()
        self._exit_code = 0
        self._over = False
        self._lost = False
        """A write has failed: the peer is gone, or does not read."""

    @coroutine
    def _converse(self) -> Generator[Operation[Any], Any, None]:
        # Not ``async def``: to yield an operation makes no object for each, as its ``__await__`` does, and is one level
        # less on the way of each answer: 0.15 µs a read.
        machine, session, recv, now = self.machine, self.session, self._recv, self._now
        next_event, data_to_send, receive_data = machine.next_event, machine.data_to_send, machine.receive_data
        handlers, idle_states, message_states = self._handlers, self._idle_states, self._message_states
        if session.received:
            session.bytes_in += len(session.received)
            receive_data(session.received)
            session.received = b""
        while True:
            event = next_event()
            if event is NEED_DATA:
                # What is to be written and the next read are one operation.
                recv.output = output = data_to_send()
                time = now()
                if output:
                    session.bytes_out += len(output)
                if output or self._restarts:
                    self._command_end = time + self._idle
                state = machine.state
                recv.idle = state in idle_states
                deadline = self._message_deadline(time) if state in message_states else self._command_end
                recv.deadline = deadline if deadline < self._session_end else self._session_end
                try:
                    data = yield recv
                except (Stopping, ConnectionLost, TLSFailed, DeadlineExceeded) as error:
                    yield from self._interrupted(error)
                else:
                    if data:
                        session.bytes_in += len(data)
                        receive_data(data)
                    else:
                        machine.receive_eof()
            elif event is PAUSED:
                yield from self._flush()
            else:
                waits = handlers[type(event)](self, event)
                if waits is not None:
                    yield from waits
                    if self._over:  # only a handler that has said something ends a session
                        return

    async def _interrupted(self, error: Exception) -> None:
        """`error` came in place of the next bytes."""
        if isinstance(error, Stopping):
            self.session.ended = "stopped"
            await self._stopping()
        elif self._recv.output:
            self.session.ended = "closed"
            self._lose()
        elif isinstance(error, DeadlineExceeded):
            self.session.ended = "timeout"
            await self._timed_out()
        else:
            self.machine.receive_eof()

    async def _flush(self) -> None:
        """Write what is to be written."""
        data = self.machine.data_to_send()
        if data:
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        if self._lost:
            return
        self.session.bytes_out += len(data)
        self._command_end = deadline = self._now() + self._idle
        try:
            await Send(data, deadline if deadline < self._session_end else self._session_end)
        except (ConnectionLost, TLSFailed, DeadlineExceeded):
            self.session.ended = self.session.ended or "closed"
            self._lose()

    async def _closed(self, event: Any) -> None:
        """Handles ``ConnectionClosed``: the last words go out."""
        self.session.ended = self.session.ended or _ENDS.get(event.reason, "refused")
        await self._flush()
        self._over = True

    # Who counts, if anybody does, is told:

    def _count_end(self) -> None:
        """The session is over."""
        if (meter := self.session.meter) is not None:
            meter.session_ended(self.session)

    def _count_message(self, code: int) -> None:
        """A message has come to its end, and is answered with `code`."""
        if (meter := self.session.meter) is not None:
            meter.message(code)

    def _count_refused_recipient(self) -> None:
        """A recipient is refused."""
        if (meter := self.session.meter) is not None:
            meter.recipient_refused()

    def _message_deadline(self, now: float) -> float:
        """When the next bytes must be here, in one of `_message_states`; a front end that names some has its own."""
        return self._command_end

    @abstractmethod
    async def _stopping(self) -> None:
        """The server stops, and the session waits between transactions."""

    @abstractmethod
    async def _timed_out(self) -> None:
        """The bytes were not here in time. The machine is as it was when they were asked for."""

    @abstractmethod
    def _lose(self) -> None:
        """A write has failed: set `_lost`, and say to the machine what that means."""
