"""The hook chain: every plugin in order, then the backend.

The rules: an error response stops the chain and is the result; a final acceptance stops it too; otherwise
the first response given is kept and the chain goes on. Without any response a sender or recipient is
refused, so that a chain nobody configured relays for nobody. How hooks are called, and what one costs that
fails, is in `mailfront_io.calling`.
"""

from collections.abc import Coroutine, Iterable
from types import CoroutineType
from typing import Any

from mailfront_io.auth.offer import server_options
from mailfront_io.calling import FAULTS, INTERNAL_ERROR, Answer, Caller, make_plan
from mailfront_io.plugin import Backend, Command, Hooks, Lines, Parameter, Response
from mailfront_io.session import Envelope, ForwardPath, ReversePath, Session
from mailfront_io.spool import Spool
from mailfront_proto.sasl.options import NOTHING_OFFERED, ServerOptions
from mailfront_proto.sasl.requests import Request

NO_SENDER = Response(550, "5.1.0 Mail system is not configured to accept that sender")
NO_RECIPIENT = Response(550, "5.1.0 Mail system is not configured to accept that recipient")
SENDER_ACCEPTED = "2.1.0 Sender accepted."
RECIPIENT_ACCEPTED = "2.1.5 Recipient accepted."
MESSAGE_ACCEPTED = Response(250, "2.6.0 Message accepted.")

STORE_SECONDS = 600.0
"""Seconds that the backend has from the end of a message to its answer: as long as a client waits for it (RFC
5321 section 4.5.3.2.6). A commit that has begun is waited for all the same (`mailfront_io.ops.Thread`)."""

Verdict = Response | Coroutine[Any, Any, Response]
"""A response, or what must be awaited for it."""

Waits = Coroutine[Any, Any, Any] | None
"""What is returned where nothing need be awaited, most of the time: None, or what must be."""


class Pipeline:
    """The chain of one connection."""

    __slots__ = (
        "_backend_hooks",
        "_caller",
        "_chains",
        "_crlf",
        "_data_ended",
        "_data_error",
        "_everyone",
        "_plan",
        "_spool",
        "backend",
        "plugins",
        "session",
    )

    def __init__(self, session: Session, plugins: Iterable[Hooks], backend: Backend) -> None:
        self.session = session
        self.plugins = list(plugins)
        self.backend = backend
        self._crlf = backend.lines is Lines.CRLF
        self._caller = Caller(session, session.getenv("MSG_DEBUG") not in (None, "0"))
        self._everyone = (*self.plugins, backend)
        self._plan = plan = make_plan(tuple([type(hooks) for hooks in self._everyone]))
        self._backend_hooks = plan.backend_hooks
        self._chains = plan.chains(self.plugins)
        self._spool: Spool | None = None
        self._data_error: Response | None = None
        self._data_ended = False

    # -- hooks, in the order of a session ----------------------------------------------------------------

    async def connect(self) -> Response | None:
        """The error that takes the greeting's place, or None."""
        response = await self._plugins_then_backend("connect")
        return response if response is not None and response.refuses else None

    def mechanisms(self) -> ServerOptions:
        """All SASL mechanisms that are offered now, in order."""
        found = NOTHING_OFFERED
        for at in self._plan.mechanisms:
            hooks = self._everyone[at]
            try:
                found = server_options(self.session, (*found.mechanisms, *hooks.mechanisms()))
            except FAULTS as error:
                self._caller.failed(hooks, error)
        return found

    def commands(self) -> dict[str, tuple[Hooks, Command]]:
        """All commands that are offered now; the backend's and earlier plugins' win."""
        found: dict[str, tuple[Hooks, Command]] = {}
        for at in self._plan.commands:
            hooks = self._everyone[at]
            try:
                found.update({command.verb.upper(): (hooks, command) for command in hooks.commands()})
            except FAULTS as error:
                self._caller.failed(hooks, error)
        return found

    def parameters(self) -> list[Parameter]:
        """All ESMTP parameters of plugins and backend that are taken now."""
        found: list[Parameter] = []
        for at in self._plan.parameters:
            hooks = self._everyone[at]
            try:
                found += hooks.parameters()
            except FAULTS as error:
                self._caller.failed(hooks, error)
        return found

    async def command(self, hooks: Hooks, command: Command, argument: str) -> Response:
        """Run a command of a plugin's own."""
        response = self._caller.call(hooks, command.handler, argument)
        if response is not None and type(response) is not Response:
            response = await response
        return response or INTERNAL_ERROR

    async def helo(self, host: str, capabilities: list[str]) -> Response | None:
        """The error, or None; hooks have added to `capabilities`."""
        response = await self._plugins_then_backend("helo", host, capabilities)
        return response if response is not None and response.refuses else None

    async def auth(self, request: Request) -> Response | None:
        """The first response; None when nobody has one."""
        for hooks, hook in self._chains["auth"].calls:
            response = self._caller.call(hooks, hook, request)
            if response is not None and type(response) is not Response:
                response = await response
            if response is not None:
                return response
        return None

    async def sender(self, path: ReversePath) -> Response:
        """The answer to MAIL."""
        answer = self.ask_sender(path)
        return answer if type(answer) is Response else await answer

    def ask_sender(self, path: ReversePath) -> Verdict:
        """The same, without a coroutine where no hook waits."""
        return self._verdict("sender", path, NO_SENDER)

    async def recipient(self, path: ForwardPath) -> Response:
        """The answer to RCPT."""
        answer = self.ask_recipient(path)
        return answer if type(answer) is Response else await answer

    def ask_recipient(self, path: ForwardPath) -> Verdict:
        """The same, without a coroutine where no hook waits."""
        return self._verdict("recipient", path, NO_RECIPIENT)

    async def data_start(self) -> Response | None:
        """Before the message: the backend, then the plugins. The error, or None; an error resets."""
        answer = self.ask_data_start()
        return answer if answer is None or type(answer) is Response else await answer

    def ask_data_start(self) -> Answer:
        """The same, without a coroutine where no hook waits and nothing is to be written."""
        if self._spool is not None:
            self._close_spool()
        self._data_error = None
        self._data_ended = False
        self.session.added_lines.clear()
        if self._plan.spools:
            return self._data_start_with_spool()
        own = self._backend("data_start", None)
        if own is not None and (type(own) is not Response or own.code >= 400):
            return self._data_start_behind_backend(own)
        answer = self._caller.run(self._chains["data_start"], None)
        if answer is None and not self.session.added_lines:
            return None
        return self._data_start_behind_plugins(answer)

    async def _data_start_with_spool(self) -> Response | None:
        directory = self._spool_directory()
        try:
            self._spool = Spool(directory, in_file=self._plan.spools_in_file)
        except OSError as error:
            if self.session.profile.name != "compat":
                self.session.log(f"Cannot create a spool file in {directory}: {error.strerror}; set $TMPDIR")
            await self.reset()
            return INTERNAL_ERROR
        return await self._data_start_behind_backend(self._backend("data_start", self._spool))

    async def _data_start_behind_backend(self, own: Answer) -> Response | None:
        response = own if own is None or type(own) is Response else await own
        if response is not None and response.refuses:
            await self.reset()
            return response
        return await self._data_start_behind_plugins(self._caller.run(self._chains["data_start"], self._spool))

    async def _data_start_behind_plugins(self, answer: Answer) -> Response | None:
        """What hooks have added goes in front of the message, unless one refuses it."""
        session = self.session
        response = answer if answer is None or type(answer) is Response else await answer
        if response is not None and response.refuses:
            await self.reset()
            return response
        if session.added_lines:
            for lines in tuple(session.added_lines):  # a hook that adds to them now would go on for ever
                if self._data_error is None:
                    waits = self._to_backend_and_spool(lines.replace(b"\n", b"\r\n") if self._crlf else lines)
                    if waits is not None:
                        await waits
            session.added_lines.clear()
        return None

    def data_block(self, data: bytes) -> Waits:
        """A slice of the message, in the form that the backend wants; what is returned must be awaited. The first error
        is kept for `message_end`; what follows is dropped."""
        if self._data_error is not None:
            return None
        chain = self._chains["data_block"]
        if chain.hooks:
            answer = self._caller.run(chain, data.replace(b"\r\n", b"\n") if self._crlf else data)
            if answer is not None and (type(answer) is not Response or answer.code >= 400):
                return self._block_behind_plugins(data, answer)
        return self._to_backend_and_spool(data)

    def data_end(self) -> Waits:
        """That was the last slice; what is returned must be awaited. Where the envelope follows the message, call this
        in between; else `message_end` does."""
        if self._data_ended or self._data_error is not None:
            return None
        self._data_ended = True
        answer = self._backend("data_end")
        return None if answer is None else self._note(answer)

    async def message_end(self) -> list[Response]:
        """The plugins, then the backend: one response, or the backend's for each recipient."""
        try:
            if (waits := self.data_end()) is not None:
                await waits
            if self._data_error is not None:
                return [self._data_error]
            response = self._caller.run(self._chains["message_end"], self._spool)
            if response is not None and type(response) is not Response:
                response = await response
            if response is not None and response.refuses:
                await self.reset()
                return [response]
            return await self._backend_message_end()
        finally:
            self._data_error = None
            if self._spool is not None:
                self._close_spool()
            self.session.envelope = Envelope()

    async def reset(self) -> Response | None:
        """Drop the transaction: the backend's reset, then every plugin's. The first error, or None."""
        answer = self.ask_reset()
        return answer if answer is None or type(answer) is Response else await answer

    def ask_reset(self) -> Answer:
        """The same, without a coroutine where no hook waits."""
        if self._spool is not None:
            self._close_spool()
        envelope = self.session.envelope
        if envelope.sender is not None or envelope.recipients:
            self.session.envelope = Envelope()
        own = self._backend("reset")
        if own is not None and type(own) is not Response:
            return self._reset_behind_backend(own)
        from_plugins = self._caller.run_all(self._chains["reset"])
        if from_plugins is not None and type(from_plugins) is not Response:
            return self._reset_behind_plugins(own, from_plugins)
        return own if own is not None and own.code >= 400 else from_plugins

    async def _reset_behind_backend(self, waits: Coroutine[Any, Any, Response | None]) -> Response | None:
        own = await waits
        from_plugins = self._caller.run_all(self._chains["reset"])
        if from_plugins is not None and type(from_plugins) is not Response:
            from_plugins = await from_plugins
        return own if own is not None and own.code >= 400 else from_plugins

    async def _reset_behind_plugins(
        self, own: Response | None, waits: Coroutine[Any, Any, Response | None]
    ) -> Response | None:
        from_plugins = await waits
        return own if own is not None and own.code >= 400 else from_plugins

    async def disconnect(self) -> None:
        """The end: a last reset, then every ``disconnect``."""
        await self.reset()
        for at in self._plan.disconnects:
            hooks = self._everyone[at]
            response = self._caller.call_with(hooks, hooks.disconnect)  # type: ignore[attr-defined]
            if response is not None and type(response) is not Response:
                await response

    # -- plugins, then the backend -----------------------------------------------------------------------

    def _verdict(self, name: str, path: ReversePath | ForwardPath, nobody: Response) -> Verdict:
        response = self._caller.run(self._chains[name], path)
        if response is None:
            return nobody
        if type(response) is not Response:
            return self._verdict_behind_plugins(name, path, nobody, response)
        if response.code >= 400:
            return response
        backend = self.backend
        own = self._caller.call(backend, getattr(backend, name), path) if name in self._backend_hooks else None
        if own is None or type(own) is Response:
            return self._take(path, response, own)
        return self._verdict_behind_backend(path, response, own)

    async def _verdict_behind_plugins(
        self,
        name: str,
        path: ReversePath | ForwardPath,
        nobody: Response,
        waits: Coroutine[Any, Any, Response | None],
    ) -> Response:
        response = await waits
        if response is None or response.code >= 400:
            return response or nobody
        own = self._backend(name, path)
        return self._take(path, response, own if own is None or type(own) is Response else await own)

    async def _verdict_behind_backend(
        self, path: ReversePath | ForwardPath, response: Response, waits: Coroutine[Any, Any, Response | None]
    ) -> Response:
        return self._take(path, response, await waits)

    def _take(self, path: ReversePath | ForwardPath, response: Response, own: Response | None) -> Response:
        """The plugins have accepted `path` with `response`; `own`: what the backend says."""
        if own is not None:
            if own.code >= 400:
                return own
            if not response.text:
                response = own
        if type(path) is ReversePath:
            self.session.envelope.sender = path
            return response if response.text else Response(response.code, SENDER_ACCEPTED)
        assert type(path) is ForwardPath
        self.session.envelope.recipients.append(path)
        return response if response.text else Response(response.code, RECIPIENT_ACCEPTED)

    async def _plugins_then_backend(self, name: str, *arguments: Any) -> Response | None:
        response = self._caller.run_with(self._chains[name], *arguments)
        if response is not None and type(response) is not Response:
            response = await response
        if response is not None and response.refuses:
            return response
        response = self._backend(name, *arguments)
        return response if response is None or type(response) is Response else await response

    def _backend(self, name: str, *arguments: Any) -> Answer:
        if name not in self._backend_hooks:
            return None
        return self._caller.call_with(self.backend, getattr(self.backend, name), *arguments)

    # -- the message's way -------------------------------------------------------------------------------

    async def _block_behind_plugins(self, data: bytes, answer: Answer) -> None:
        if await self._note(answer):
            waits = self._to_backend_and_spool(data)
            if waits is not None:
                await waits

    def _to_backend_and_spool(self, data: bytes) -> Waits:
        backend = self.backend
        answer = None
        if "data_block" in self._backend_hooks:
            answer = self._caller.call(backend, backend.data_block, data)  # type: ignore[attr-defined]
        return None if answer is None and self._spool is None else self._to_spool(data, answer)

    async def _to_spool(self, data: bytes, answer: Answer) -> None:
        if await self._note(answer) and self._spool is not None:
            try:
                self._spool.write(data)
            except OSError as error:
                directory = self._spool_directory()
                if self.session.profile.name != "compat":
                    self.session.log(f"Cannot write a spool file in {directory}: {error.strerror}; set $TMPDIR")
                await self._fail_data(INTERNAL_ERROR)

    async def _note(self, answer: Answer) -> bool:
        """Whether `answer`, of a hook to a part of the message, is no error; an error becomes that of the message."""
        response = answer if answer is None or type(answer) is Response else await answer
        if response is None or response.code < 400:
            return True
        await self._fail_data(response)
        return False

    async def _fail_data(self, response: Response) -> None:
        await self.reset()
        self._data_error = response

    async def _backend_message_end(self) -> list[Response]:
        if "message_end" not in self._backend_hooks:
            return [self._accepted]
        try:
            answer = self.backend.message_end(self._spool)  # type: ignore[attr-defined]
            if type(answer) is Response and answer.text and answer.code < 400:
                return [answer]
            if isinstance(answer, CoroutineType):
                begun = self.session.clock.monotonic()
                try:
                    answer = await self._caller.bounded(self.backend, answer, begun + STORE_SECONDS)
                finally:
                    if self.session.meter is not None:
                        self.session.meter.backend(self.session.clock.monotonic() - begun)
            responses = answer if isinstance(answer, list) else [answer]
            for response in responses:
                if response is not None and not isinstance(response, Response):
                    raise TypeError("message_end answers with a Response, None, or a list of them")
            if isinstance(answer, list) and len(answer) != len(self.session.envelope.recipients):
                raise TypeError("message_end answers with a list of one Response for each recipient")
        except FAULTS as error:
            responses = [self._caller.failed(self.backend, error)]
        responses = [
            r if r is not None and r.text else Response(r.code if r else 250, self._accepted.text)
            for r in responses
        ]
        if max([r.code for r in responses]) >= 400:
            await self.reset()
        return responses

    @property
    def _accepted(self) -> Response:
        """What a client is told of its message where the backend has no words: the id is for who asks what became of
        it."""
        session = self.session
        if not session.id or session.profile.name == "compat":
            return MESSAGE_ACCEPTED
        return Response(MESSAGE_ACCEPTED.code, f"2.6.0 Message accepted, id {session.id}.")

    def _spool_directory(self) -> str:
        return self.session.getenv("TMPDIR") or "/tmp"

    def _close_spool(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None


def fold(responses: list[Response]) -> Response:
    """Many recipients' responses as the one answer that SMTP has: 250 only if every recipient is stored,
    a permanent error only if all failed for good, else 451 (a duplicate is better than a loss)."""
    if len(responses) == 1:
        return responses[0]
    refused = [response for response in responses if response.refuses]
    if not refused:
        return responses[0]
    if len(refused) == len(responses):
        temporary = [response for response in refused if response.code < 500]
        return temporary[0] if temporary else refused[0]
    return Response(451, "4.3.0 Not every recipient's copy could be stored, try again")
