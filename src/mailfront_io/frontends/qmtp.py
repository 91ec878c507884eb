"""The QMTP and QMQP front end: packages into the pipeline, its verdicts back. Written once for all drivers.

One package's way: `MessageStart` → reset and ``data_start``; `Body` slices → pipeline → backend; then the envelope:
`Sender`, `Recipient`; `MessageEnd` → the backend's answer → `Send`. So backends and plugins meet the message before
its sender here. Nearly every package is one event, `Package`, and goes all of this way in one handler.
"""

from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

from mailfront_io.frontends.conversation import Conversation
from mailfront_io.frontends.handshake import handshake
from mailfront_io.ops import Operation
from mailfront_io.pipeline import Pipeline, fold
from mailfront_io.plugin import Lines, Response
from mailfront_io.session import ForwardPath, ReversePath, Session
from mailfront_proto.qmqp.server import QMQPServer
from mailfront_proto.qmtp import events
from mailfront_proto.qmtp.package import PackageServer, State
from mailfront_proto.qmtp.profile import COMPAT, DEFAULT, Profile
from mailfront_proto.qmtp.server import QMTPServer
from mailfront_proto.record import record, replace
from mailfront_proto.smtp import profile as smtp
from mailfront_proto.smtp.replies import Reply

PROTOCOL_ERROR = 111
"""The exit code behind a package that was not understood, or not complete: the original's."""

TIMED_OUT = Reply(451, "4.4.2 Timed out, closing connection")

_BETWEEN = frozenset((State.WRAPPER, State.MESSAGE))
"""States in which nothing of a package is here."""


@record(frozen=True)
class Deadlines:
    """Seconds. `idle`: between two packages; `block`: between two reads in one; `message`: for the whole of a package,
    and a second more for each 2,000 bytes of it; `session`: in all."""

    idle: float = 300.0
    block: float = 180.0
    message: float = 600.0
    session: float = 3600.0

    @classmethod
    def from_session(cls, session: Session) -> "Deadlines":
        """From ``$TIMEOUT`` and ``$SESSION_TIMEOUT``. In the original the time starts again with every byte, and a
        session has an hour, whatever is set."""
        idle = session.number("TIMEOUT")
        if session.profile.name == "compat":
            return cls(idle or 1200.0, idle or 1200.0, inf)
        seconds = session.number("SESSION_TIMEOUT")
        if not idle and not seconds:
            return _USUAL
        return cls(idle or 300.0, min(idle or 180.0, 180.0), session=seconds or 3600.0)


_USUAL = Deadlines()


class PackageFrontend(Conversation[PackageServer]):
    """One connection: `run` is the session coroutine. `machine` is new; it is told to give messages with the line ends
    that the backend wants."""

    __slots__ = (
        "_one_response",
        "_package_bytes",
        "_package_start",
        "_recipients",
        "_refusals",
        "_refused",
        "_size",
        "deadlines",
        "pipeline",
    )

    _idle_states = _BETWEEN
    _message_states = frozenset(State) - _BETWEEN

    def __init__(self, session: Session, pipeline: Pipeline, machine: PackageServer) -> None:
        self.deadlines = Deadlines.from_session(session)
        super().__init__(session, machine, self.deadlines.idle, self.deadlines.session)
        self.pipeline = pipeline
        machine.lf_bodies = pipeline.backend.lines is Lines.LF
        machine.whole_packages = session.profile.name != "compat"
        self._one_response = not (isinstance(machine, QMTPServer) and machine.profile.response_per_recipient)
        # Of a package that comes in parts, from its `MessageStart` on
        self._package_start = inf
        self._package_bytes: int
        self._size: int
        self._recipients: int
        self._refused = False
        """The package as a whole is refused."""
        self._refusals: int
        """Recipients whose refusals are logged."""

    async def run(self) -> int:
        """The session, from its first byte to its last; the exit code of a one-shot program."""
        session = self.session
        try:
            immediate = session.tls_context is not None and session.getenv("TLS_IMMEDIATE") is not None
            if immediate and not await handshake(session, self._session_end):
                return 1
            refusal = await self.pipeline.connect()
            if refusal is not None:
                self._exit_code = 1
                self._say_last(Reply(refusal.code, refusal.text))
            await self._converse()
        finally:
            self._count_end()
            await self.pipeline.disconnect()
            session.log(f"bytes in: {session.bytes_in} bytes out: {session.bytes_out}")
        return self._exit_code

    # -- bytes -------------------------------------------------------------------------------------------

    def _message_deadline(self, now: float) -> float:
        if self._package_start == inf:  # a package's time begins with its first byte
            self._package_start = now
            self._package_bytes = 0
        whole = self._package_start + self.deadlines.message + self._package_bytes / 2000
        return min(now + self.deadlines.block, whole)

    async def _stopping(self) -> None:
        self.machine.abort()  # nothing is owed, so that nothing can be said

    def _lose(self) -> None:
        """A write has failed. What is here already is still done; nothing more is read, nor written."""
        self._lost = True
        self.machine.receive_eof()

    async def _timed_out(self) -> None:
        compat = self.session.profile.name == "compat"
        if self.machine.state in _BETWEEN or (compat and self._now() >= self._session_end):
            self.machine.abort()
        elif compat:
            self.machine.receive_eof()  # the original does not tell the one from the other
        else:
            self._exit_code = PROTOCOL_ERROR
            self._say_last(TIMED_OUT)

    def _say_last(self, reply: Reply) -> None:
        self._log_reply(reply)
        self.machine.abort(reply)

    async def _closed(self, event: events.ConnectionClosed) -> None:
        if event.in_message and not self._refused and self.session.profile.name == "compat":
            await self._end_data()  # what has come of a block is handled before the end is noticed
        if event.reply is not None and event.reason != "aborted":
            self._log_reply(event.reply)
            self._exit_code = PROTOCOL_ERROR
        await super()._closed(event)

    # -- answers -----------------------------------------------------------------------------------------

    def _log_reply(self, reply: Reply) -> None:
        for line in reply.lines:
            self.session.log(f"{reply.code} {line}")

    async def _package(self, event: events.Package) -> None:
        """What the handlers of its parts, below, do one behind the other: without an event, a coroutine and an answer
        for each, which takes half the time."""
        pipeline, machine, session = self.pipeline, self.machine, self.session
        log = session.log
        # What refuses the package as a whole
        answer = pipeline.ask_reset()
        refusal = answer if answer is None or type(answer) is Response else await answer
        if refusal is None:
            answer = pipeline.ask_data_start()
            refusal = answer if answer is None or type(answer) is Response else await answer
        if refusal is None and event.data:
            waits = pipeline.data_block(event.data)
            if waits is not None:
                await waits
            waits = pipeline.data_end()
            if waits is not None:
                await waits
        address = event.sender.decode("utf-8", "surrogateescape")
        log(f"sender <{address}>")
        if refusal is None:
            verdict = pipeline.ask_sender(ReversePath(address, []))
            response = verdict if type(verdict) is Response else await verdict
            if response.code >= 400:
                refusal = response
        accepted = 0
        refused: dict[int, Response] = {}  # single recipients, by their positions
        for raw in event.recipients:
            address = raw.decode("utf-8", "surrogateescape")
            log(f"recipient <{address}>")
            if refusal is None:
                verdict = pipeline.ask_recipient(ForwardPath(address, []))
                response = verdict if type(verdict) is Response else await verdict
                if response.code < 400:
                    accepted += 1
                    continue
                self._count_refused_recipient()
                if self._one_response:
                    refusal = response
                else:
                    refused[accepted + len(refused)] = response
                    self._log_reply(Reply(response.code, response.text))
        if refused or refusal is not None:
            await self._refuse(event, refusal, refused)
            return
        stored = pipeline.ask_message_end()
        results = stored if isinstance(stored, list) else await stored
        if len(results) == 1 and results[0].code < 400:
            response = results[0]
            if session.meter is not None:
                session.meter.message(response.code)
            machine.reply(response.code, response.text)
        else:
            self._answer_end(await self._stored(results))

    async def _refuse(self, event: events.Package, refusal: Response | None, refused: dict[int, Response]) -> None:
        """The end of a package that is refused: all of it, with `refusal`, or recipients of it, by their positions."""
        if refusal is not None:
            self._log_reply(Reply(refusal.code, refusal.text))
            self._count_message(refusal.code)
            await self._drop()
            self.machine.reply(refusal.code, refusal.text)
            return
        accepted = len(event.recipients) - len(refused)
        if not accepted:
            self._count_message(refused[0].code)
        responses = await self._store() if accepted else await self._drop()
        each = iter(responses if len(responses) == accepted else responses * accepted)
        self._answer_end([refused.get(position) or next(each) for position in range(len(event.recipients))])

    async def _message_start(self, event: events.MessageStart) -> None:
        self._package_start = self._now()
        self._package_bytes = self._recipients = self._refusals = 0
        self._size = event.size
        self._refused = event.refusal is not None
        response = await self.pipeline.reset()
        if event.refusal is None:
            if response is None:
                response = await self.pipeline.data_start()
            self._answer_whole(response)

    def _answer_whole(self, response: Response | None) -> None:
        """Answer for the whole package."""
        if response is not None and response.code >= 400:
            self._refused = True
            self.machine.reply(response.code, response.text)
        else:
            self.machine.accept()

    async def _body(self, event: events.Body) -> None:
        data = event.data
        self._package_bytes += len(data)
        waits = self.pipeline.data_block(data)
        if waits is not None:
            await waits
        # Otherwise line ends were repaired, or made longer, and the sender tells the end.
        if self._package_bytes == self._size and self.machine.lf_bodies:
            await self._end_data()

    async def _end_data(self) -> None:
        waits = self.pipeline.data_end()
        if waits is not None:
            await waits

    async def _sender(self, event: events.Sender) -> None:
        if not self._refused and self._package_bytes:
            await self._end_data()
        address = str(event.address)
        self.session.log(f"sender <{address}>")
        if event.refusal is None:
            self._answer_whole(await self.pipeline.sender(ReversePath(address, [])))
        else:
            self._refused = True

    async def _recipient(self, event: events.Recipient) -> None:
        limit = self.machine.profile.limits.recipients
        self._recipients += 1
        if limit is None or self._recipients <= limit + 1:  # those behind are refused alike, and would fill the log
            address = str(event.address)
            self.session.log(f"recipient <{address}>")
            refusal = event.refusal
            if refusal is None:
                response = await self.pipeline.recipient(ForwardPath(address, []))
                self.machine.reply(response.code, response.text)
                if response.code < 400:
                    return
                self._count_refused_recipient()
                refusal = Reply(response.code, response.text)
            if not self._refused and not self._one_response:
                self._refusals += 1
                self._log_reply(refusal)

    async def _message_refused(self, event: events.MessageRefused) -> None:
        self._package_start = inf
        if not self._refusals:
            self._log_reply(event.reply)
        self._count_message(event.reply.code)
        await self._drop()

    async def _message_end(self, event: events.MessageEnd) -> None:
        self._package_start = inf
        self._answer_end(await self._store())

    async def _store(self) -> list[Response]:
        """What becomes of the message: one answer for all accepted recipients, or one for each. Refusals are logged."""
        return await self._stored(await self.pipeline.message_end())

    async def _stored(self, responses: list[Response]) -> list[Response]:
        """The same; `responses`: the pipeline's."""
        folded = fold(responses)
        self._count_message(folded.code)
        if self._one_response:
            responses = [folded]
        for response in responses:
            if response.code >= 400:
                self._log_reply(Reply(response.code, response.text))
        if len(responses) == 1 and responses[0].code >= 400:
            await self._drop()
        return responses

    def _answer_end(self, responses: list[Response]) -> None:
        """One answer for all recipients that are asked about, or one for each."""
        machine = self.machine
        if len(responses) == 1:
            machine.reply(responses[0].code, responses[0].text)
        else:
            assert isinstance(machine, QMTPServer)
            machine.reply_each([Reply(response.code, response.text) for response in responses])

    async def _drop(self) -> list[Response]:
        """Leave nothing behind of a message that nobody takes: it came before its envelope did. The original does not
        before the next package, or the end. There are no responses to it then."""
        if self.session.profile.name != "compat":
            await self.pipeline.reset()
        return []


PackageFrontend._handlers = {
    events.ConnectionClosed: PackageFrontend._closed,
    events.Package: PackageFrontend._package,
    events.MessageStart: PackageFrontend._message_start,
    events.Body: PackageFrontend._body,
    events.Sender: PackageFrontend._sender,
    events.Recipient: PackageFrontend._recipient,
    events.MessageEnd: PackageFrontend._message_end,
    events.MessageRefused: PackageFrontend._message_refused,
}


def package_front_end(
    protocol: str, profile: smtp.Profile
) -> Callable[[Session, Pipeline], Coroutine[Operation[Any], Any, int]]:
    """What makes the session coroutine of `protocol`, ``qmtp`` or ``qmqp``. `profile`: SMTP's."""
    server = QMTPServer if protocol == "qmtp" else QMQPServer
    own_profile = package_profile(profile)

    def run(session: Session, pipeline: Pipeline) -> Coroutine[Operation[Any], Any, int]:
        session.protocol_name = protocol.upper()
        return PackageFrontend(session, pipeline, server(own_profile)).run()

    return run


def package_profile(profile: smtp.Profile) -> Profile:
    """What `profile`, which is SMTP's, means for packages."""
    found = COMPAT if profile.name == "compat" else DEFAULT
    if profile.limits.message_size == found.limits.message_size:
        return found
    return replace(found, limits=replace(found.limits, message_size=profile.limits.message_size))
