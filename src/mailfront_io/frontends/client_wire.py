"""The bytes of a client session: what moves between its machine and the connection, and when it is too late.

Strategy: `ClientWire.event` gives the machine's next event and does whatever operations that takes. A connection
that is lost raises nothing: the machine is told, and tells what became of the message; `lost` says why.
"""

from collections.abc import Callable, Mapping
from typing import Final

from mailfront_io.frontends.client_result import Step
from mailfront_io.frontends.client_settings import ClientDeadlines
from mailfront_io.frontends.client_transcript import Transcript
from mailfront_io.ops import ConnectionLost, DeadlineExceeded, Recv, Send, TLSFailed
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.pull import NEED_DATA, PAUSED
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

    async def event(self) -> ClientEvent:
        """The next event; behind the last one, `ConnectionClosed` again and again."""
        machine = self.machine
        while True:
            try:
                event = machine.next_event()
            except RemoteProtocolError as error:
                self.broken = error  # what is still to be told comes next
                continue
            if event is NEED_DATA:
                await self._exchange()
            elif event is PAUSED:
                await self._flush()  # much output: a long envelope, pipelined
            else:
                self._deadline = None
                self.step(_name(event))
                return event

    async def _exchange(self) -> None:
        """Write what is to be written, then read."""
        await self._flush()
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

    async def _flush(self) -> None:
        """Write the commands that are to be written."""
        machine = self.machine
        data = machine.data_to_send()
        if not data:
            return
        if machine.awaiting == "AUTH":
            self.transcript.sent_in_auth(data)
        else:
            self.transcript.sent(data)
        await self._send(data, self.deadlines.answer_to(machine.awaiting))
        if self.lost:
            await self.last_words()

    async def send_block(self) -> None:
        """Write the block of the message that the machine holds."""
        await self._send(self.machine.data_to_send(), self.deadlines.block)

    async def _send(self, data: bytes, seconds: float) -> None:
        """Write `data` within `seconds`, unless the connection is lost."""
        self._deadline = None
        if self.lost:
            return
        try:
            await Send(data, self.now() + seconds)
        except DeadlineExceeded:
            self.lose(f"Nothing taken by the server within {seconds:g} seconds")
        except (ConnectionLost, TLSFailed) as error:
            self.lose(f"Connection lost: {error}")

    async def last_words(self) -> None:
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
