"""The bytes of a client session: what moves between its machine and the connection, and when it is too late.

Strategy: `ClientWire.event` gives the machine's next event and does whatever operations that takes; `wants_body` does
the same while the next move is ours, a piece of the message. A connection that is lost raises nothing: the machine is
told, and tells what became of the message; `lost` says why.
"""

from collections.abc import Callable, Mapping
from typing import Final

from mailfront_io.frontends.client_result import Step
from mailfront_io.frontends.client_settings import ClientDeadlines
from mailfront_io.frontends.client_transcript import Transcript
from mailfront_io.frontends.outgoing import BLOCK
from mailfront_io.ops import ConnectionLost, DeadlineExceeded, Recv, Send, TLSFailed
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.pull import NEED_DATA, PAUSED, NeedData, Paused
from mailfront_proto.smtp.body_encoder import END_OF_DATA
from mailfront_proto.smtp.client import SMTPClient
from mailfront_proto.smtp.client_events import (
    Authenticated,
    AuthenticationFailed,
    ClientEvent,
    Greeting,
    HelloDone,
    ReadyForBody,
    ReadyForTLS,
    ReplyReceived,
)
from mailfront_proto.smtp.states import State

LAST_WORDS_SECONDS: Final = 5.0
"""Seconds that a server which takes no more from us has for saying why."""


class ClientWire:
    """`machine` and its connection. `now`: the clock's seconds, which deadlines are measured on; `on_step` is
    called with each `Step` as it ends."""

    def __init__(
        self,
        machine: SMTPClient,
        transcript: Transcript,
        deadlines: ClientDeadlines,
        now: Callable[[], float],
        on_step: Callable[[Step], None] | None,
    ) -> None:
        self.machine = machine
        self.transcript = transcript
        self.deadlines = deadlines
        self.now = now
        self.lost = ""
        """Why nothing more can be read or written; empty while it can."""
        self.broken: RemoteProtocolError | None = None
        """How the server broke the protocol."""
        self.steps: list[Step] = []
        self._on_step = on_step
        self._step_began = now()
        self._deadline: float | None = None
        """When the answer that is awaited must be here; None: not yet set."""
        self._kept: ClientEvent | None = None
        """An event that came while a piece of the message was awaited."""

    async def event(self) -> ClientEvent:
        """The next event; behind the last one, `ConnectionClosed` again and again."""
        while True:
            event = self._kept or self._next()
            self._kept = None
            if event is NEED_DATA:
                await self._exchange()
            elif event is PAUSED:
                await self.flush()  # much output: a long envelope, pipelined, or a message in chunks
            else:
                self._heard(event)
                return event

    async def wants_body(self) -> bool:
        """Write what the machine holds of the message, and hear the answers to its chunks, as far as it must before
        more is given; returns False where nothing more is wanted: `event` says why."""
        while True:
            await self.flush()
            event = self._next()
            if event is NEED_DATA:
                await self._exchange()
            elif event is PAUSED:
                return True
            elif isinstance(event, ReplyReceived) and event.command == "BDAT":
                self._heard(event)
            else:
                self._kept = event
                return False

    def _next(self) -> "ClientEvent | NeedData | Paused":
        while True:
            try:
                return self.machine.next_event()
            except RemoteProtocolError as error:
                self.broken = error  # what is still to be told comes next

    def _heard(self, event: ClientEvent) -> None:
        self._deadline = None
        chunk_answered = isinstance(event, ReplyReceived) and event.command == "BDAT"
        chunks_begin = isinstance(event, ReadyForBody) and event.reply is None
        if not chunk_answered and not chunks_begin:  # those are in the midst of a step
            self.step(_name(event))

    async def _exchange(self) -> None:
        """Write what is to be written, then read."""
        await self.flush()
        waits_for = self.machine.awaiting
        seconds = self.deadlines.answer_to(waits_for)
        if self.lost:
            return
        if self._deadline is None:
            self._deadline = self.now() + seconds
        try:
            data = await Recv(self._deadline)
        except DeadlineExceeded:
            self.lose(f"No answer to {_worded(waits_for)} within {seconds:g} seconds")
        except (ConnectionLost, TLSFailed) as error:
            self.lose(f"Connection lost before the answer to {_worded(waits_for)}: {error}")
        else:
            if data:
                self.transcript.received(data)
                self.machine.receive_data(data)
            else:
                self.lose(f"Connection closed before the answer to {_worded(waits_for)}")

    async def flush(self) -> None:
        """Write what is to be written, a message in blocks."""
        machine = self.machine
        data = machine.data_to_send()
        if not data or self.lost:
            return
        if machine.awaiting == "AUTH":
            self.transcript.sent_in_auth(data)
        elif machine.state is not State.BODY or data == END_OF_DATA:
            self.transcript.sent(data)
        in_message = machine.state in (State.BODY, State.CHUNKS)
        seconds = self.deadlines.block if in_message else self.deadlines.answer_to(machine.awaiting)
        for start in range(0, len(data), 2 * BLOCK):
            if not await self._send(data[start : start + 2 * BLOCK], seconds):
                await self._last_words()
                break

    async def _send(self, data: bytes, seconds: float) -> bool:
        """Write `data` within `seconds`; returns whether that was done."""
        self._deadline = None
        try:
            await Send(data, self.now() + seconds)
        except DeadlineExceeded:
            self.lose(f"Nothing taken by the server within {seconds:g} seconds")
        except (ConnectionLost, TLSFailed) as error:
            self.lose(f"Connection lost: {error}")
        else:
            return True
        return False

    async def _last_words(self) -> None:
        """The server takes no more from us: hear what it has said before it went (552, 421), if that has come
        through."""
        try:
            data = await Recv(self.now() + LAST_WORDS_SECONDS)
        except (DeadlineExceeded, ConnectionLost, TLSFailed):
            return
        if data:
            self.transcript.received(data)
            self.machine.receive_data(data)

    def lose(self, why: str) -> None:
        """Nothing more is read or written: note why, and tell the machine."""
        self.lost = why
        self.transcript.note(why)
        self.machine.receive_eof()

    def step(self, name: str) -> None:
        """The step `name` ends now; an empty one ends without having been a step."""
        now = self.now()
        step = Step(name, now - self._step_began)
        self._step_began = now
        if name:
            self.add_step(step)

    def add_step(self, step: Step) -> None:
        """Keep and tell `step`."""
        self.steps.append(step)
        if self._on_step is not None:
            self._on_step(step)


def _worded(awaited: str) -> str:
    return {"greeting": "our connection (no greeting)", ".": "the message"}.get(awaited, awaited)


def _name(event: ClientEvent) -> str:
    """The `Step` that ends with `event`; empty for what ends none."""
    return event.command if isinstance(event, ReplyReceived) else _NAMES.get(type(event), "")


_NAMES: Final[Mapping[type, str]] = {
    Greeting: "greeting",
    HelloDone: "EHLO",
    ReadyForTLS: "STARTTLS",
    Authenticated: "AUTH",
    AuthenticationFailed: "AUTH",
    ReadyForBody: "DATA",
}
