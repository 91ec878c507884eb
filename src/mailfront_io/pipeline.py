"""The hook chain: every plugin in order, then the backend.

The rules: an error response stops the chain and is the result; a final acceptance stops it too; otherwise
the first response given is kept and the chain goes on. Without any response a sender or recipient is
refused, so that a chain nobody configured relays for nobody. How hooks are called, and what one costs that
fails, is in `mailfront_io.calling`.
"""

from collections.abc import Coroutine, Sequence
from types import CoroutineType
from typing import Any

from mailfront_io.auth.offer import server_options
from mailfront_io.calling import FAULTS, INTERNAL_ERROR, Answer, Caller, Chain, Plan
from mailfront_io.plugin import Backend, Command, Hook, Hooks, Lines, Parameter, Response
from mailfront_io.session import Envelope, ForwardPath, ReversePath, Session
from mailfront_io.spool import Spool
from mailfront_proto.sasl.options import NOTHING_OFFERED, ServerOptions
from mailfront_proto.sasl.requests import Request

NO_SENDER = Response(550, "5.1.0 Mail system is not configured to accept that sender")
NO_RECIPIENT = Response(550, "5.1.0 Mail system is not configured to accept that recipient")
SENDER_ACCEPTED = Response(250, "2.1.0 Sender accepted.")
RECIPIENT_ACCEPTED = Response(250, "2.1.5 Recipient accepted.")
MESSAGE_ACCEPTED = Response(250, "2.6.0 Message accepted.")

STORE_SECONDS = 600.0
"""Seconds that the backend has from the end of a message to its answer: as long as a client waits for it (RFC
5321 section 4.5.3.2.6). A commit that has begun is waited for all the same (`mailfront_io.ops.Thread`)."""

Verdict = Response | Coroutine[Any, Any, Response]
"""A response, or what must be awaited for it."""

Results = list[Response] | Coroutine[Any, Any, list[Response]]
"""What became of a message, or what must be awaited for it."""

Waits = Coroutine[Any, Any, Any] | None
"""What is returned where nothing need be awaited, most of the time: None, or what must be."""


class Pipeline:
    """The chain of one connection: `hooks` are its plugins in order, then its backend, as `plan` has their classes.

    What a message needs is bound here: the chain of each hook, and the backend's own, None where it has none."""

    __slots__ = (
        "_again", "_auths", "_caller", "_connects", "_crlf", "_data_blocks", "_data_end", "_data_error", "_data_starts",
        "_debug", "_everyone", "_helos", "_message_ends", "_own_connect", "_own_data_block", "_own_data_end",
        "_own_data_start", "_own_helo", "_own_message_end", "_own_recipient", "_own_reset", "_own_sender", "_plan",
        "_recipients", "_resets", "_senders", "_spool", "backend", "session",
    )  # fmt: skip

    def __init__(self, session: Session, plan: Plan, hooks: Sequence[Hooks]) -> None:
        self.session = session
        self._plan = plan
        self._debug = plan.debug
        self._everyone = hooks
        backend = hooks[-1]
        assert isinstance(backend, Backend)
        self.backend: Backend = backend
        self._crlf = backend.lines is Lines.CRLF
        self._caller = Caller(session, plan, hooks)
        self._bind(plan.chains(hooks))
        (  # in the order of `calling.BACKEND_HOOKS`
            self._own_connect,
            self._own_helo,
            self._own_sender,
            self._own_recipient,
            self._own_data_start,
            self._own_data_block,
            self._own_data_end,
            self._own_message_end,
            self._own_reset,
        ) = plan.backend_chain(backend)
        self._again = False
        """A message has come to its end. Before that, to leave out hooks that rest costs more than to call them."""
        self._spool: Spool | None = None
        self._data_error: Response | None = None
        self._data_end: Hook | None = None  # the backend's, until it has been called for this message

    def _bind(self, chains: Sequence[Chain]) -> None:
        (  # in the order of `calling.PLUGIN_HOOKS`
            self._connects,
            self._helos,
            self._auths,
            self._senders,
            self._recipients,
            self._data_starts,
            self._data_blocks,
            self._message_ends,
            self._resets,
        ) = chains
        self.session.hooks_rest = False

    # -- hooks, in the order of a session ----------------------------------------------------------------

    async def connect(self) -> Response | None:
        """The error that takes the greeting's place, or None."""
        if not self._connects and self._own_connect is None and not self._debug:
            return None
        response = await self._begin("connect", self._connects, self._own_connect)
        if self.session.hooks_rest and self._again:
            self._bind(self._caller.awake())
        return response

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
        if not self._helos and self._own_helo is None and not self._debug:
            return None
        return await self._begin("helo", self._helos, self._own_helo, host, capabilities)

    async def _begin(self, name: str, chain: Chain, own: Hook | None, *arguments: Any) -> Response | None:
        answer = self._caller.run_with(name, chain, *arguments)
        response = answer if answer is None or type(answer) is Response else await answer
        if own is not None and (response is None or response.code < 400):
            answer = self._caller.call(self.backend, own, *arguments)
            response = answer if answer is None or type(answer) is Response else await answer
        return response if response is not None and response.code >= 400 else None

    async def auth(self, request: Request) -> Response | None:
        """The first response; None when nobody has one."""
        for hooks, hook in self._caller.owned("auth", self._auths):
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
        answer = self._caller.run("sender", self._senders, path, self._own_sender)
        if type(answer) is Response and answer.code < 400 and answer.text:  # the usual case
            self.session.envelope.sender = path
            return answer
        if answer is None or type(answer) is Response:
            return self._judge_sender(path, answer or NO_SENDER)
        return self._sender_behind(path, answer)

    async def _sender_behind(self, path: ReversePath, waits: Coroutine[Any, Any, Response | None]) -> Response:
        return self._judge_sender(path, await waits or NO_SENDER)

    def _judge_sender(self, path: ReversePath, response: Response) -> Response:
        if response.code >= 400:
            return response
        self.session.envelope.sender = path
        return response if response.text else _worded(response.code, SENDER_ACCEPTED)

    async def recipient(self, path: ForwardPath) -> Response:
        """The answer to RCPT."""
        answer = self.ask_recipient(path)
        return answer if type(answer) is Response else await answer

    def ask_recipient(self, path: ForwardPath) -> Verdict:
        """The same, without a coroutine where no hook waits."""
        answer = self._caller.run("recipient", self._recipients, path, self._own_recipient)
        if type(answer) is Response and answer.code < 400 and answer.text:  # the usual case
            self.session.envelope.recipients.append(path)
            return answer
        if answer is None or type(answer) is Response:
            return self._judge_recipient(path, answer or NO_RECIPIENT)
        return self._recipient_behind(path, answer)

    async def _recipient_behind(self, path: ForwardPath, waits: Coroutine[Any, Any, Response | None]) -> Response:
        return self._judge_recipient(path, await waits or NO_RECIPIENT)

    def _judge_recipient(self, path: ForwardPath, response: Response) -> Response:
        if response.code >= 400:
            return response
        self.session.envelope.recipients.append(path)
        return response if response.text else _worded(response.code, RECIPIENT_ACCEPTED)

    async def data_start(self) -> Response | None:
        """Before the message: the backend, then the plugins. The error, or None; an error resets."""
        answer = self.ask_data_start()
        return answer if answer is None or type(answer) is Response else await answer

    def ask_data_start(self) -> Answer:
        """The same, without a coroutine where no hook waits and nothing is to be written."""
        if self._spool is not None:
            self._close_spool()
        self._data_error = None
        self._data_end = self._own_data_end
        session = self.session
        added = session.added_lines
        if added:
            added.clear()
        if self._plan.spools:
            return self._data_start_with_spool()
        own = self._own_data_start
        if own is not None:
            try:
                answer = own(None)
            except FAULTS as error:
                answer = self._caller.failed(self.backend, error)
            if answer is not None:
                return self._data_start_behind_backend(self._caller.settle(self.backend, answer))
        if self._data_starts or self._debug:
            answer = self._caller.run("data_start", self._data_starts, None)
            if answer is not None:
                return self._data_start_behind_plugins(answer)
        if session.hooks_rest and self._again:
            self._bind(self._caller.awake())
        return self._data_start_behind_plugins(None) if added else None

    async def _data_start_with_spool(self) -> Response | None:
        directory = self._spool_directory()
        try:
            self._spool = Spool(directory, in_file=self._plan.spools_in_file)
        except OSError as error:
            if self.session.profile.name != "compat":
                self.session.log(f"Cannot create a spool file in {directory}: {error.strerror}; set $TMPDIR")
            await self.reset()
            return INTERNAL_ERROR
        own = self._own_data_start
        answer = self._caller.call(self.backend, own, self._spool) if own is not None else None
        return await self._data_start_behind_backend(answer)

    async def _data_start_behind_backend(self, own: Answer) -> Response | None:
        response = own if own is None or type(own) is Response else await own
        if response is not None and response.refuses:
            await self.reset()
            return response
        return await self._data_start_behind_plugins(self._caller.run("data_start", self._data_starts, self._spool))

    async def _data_start_behind_plugins(self, answer: Answer) -> Response | None:
        """What hooks have added goes in front of the message, unless one refuses it."""
        session = self.session
        response = answer if answer is None or type(answer) is Response else await answer
        if session.hooks_rest and self._again:
            self._bind(self._caller.awake())
        if response is not None and response.refuses:
            await self.reset()
            return response
        if session.added_lines:
            for lines in tuple(session.added_lines):  # a hook that adds to them now would go on for ever
                if self._data_error is None:
                    wanted = lines.replace(b"\n", b"\r\n") if self._crlf else lines
                    waits = self.data_block(wanted, past_plugins=True)
                    if waits is not None:
                        await waits
            session.added_lines.clear()
        return None

    def data_block(self, data: bytes, *, past_plugins: bool = False) -> Waits:
        """A slice of the message, in the form that the backend wants; what is returned must be awaited. The first error
        is kept for `message_end`; what follows is dropped. `past_plugins`: it is only for the backend and the spool."""
        if self._data_error is not None:
            return None
        if self._data_blocks and not past_plugins:
            lines = data.replace(b"\r\n", b"\n") if self._crlf else data
            answer = self._caller.run("data_block", self._data_blocks, lines)
            if answer is not None and (type(answer) is not Response or answer.code >= 400):
                return self._block_behind_plugins(data, answer)
        own, waits = self._own_data_block, None
        if own is not None:
            try:
                answer = own(data)
            except FAULTS as error:
                answer = self._caller.failed(self.backend, error)
            if answer is not None:
                waits = self._caller.settle(self.backend, answer)
        return None if waits is None and self._spool is None else self._to_spool(data, waits)

    def data_end(self) -> Waits:
        """That was the last slice; what is returned must be awaited. Where the envelope follows the message, call this
        in between; else `message_end` does."""
        own = self._data_end
        if own is None:
            return None
        self._data_end = None
        try:
            answer = own()
        except FAULTS as error:
            answer = self._caller.failed(self.backend, error)
        return None if answer is None else self._note(self._caller.settle(self.backend, answer))

    async def message_end(self) -> list[Response]:
        """The plugins, then the backend: one response, or the backend's for each recipient."""
        answer = self.ask_message_end()
        return answer if isinstance(answer, list) else await answer

    def ask_message_end(self, *, past_plugins: bool = False) -> Results:
        """The same, without a coroutine where no hook waits and the message is stored. `past_plugins`: they have been
        asked."""
        waits = self.data_end()
        if waits is not None or self._data_error is not None:
            return self._message_end_behind_data(waits)
        if (self._message_ends or self._debug) and not past_plugins:
            answer = self._caller.run("message_end", self._message_ends, self._spool)
            if answer is not None and (type(answer) is not Response or answer.code >= 400):
                return self._message_end_behind_plugins(answer)
        own = self._own_message_end
        if own is None:
            self._message_done()
            return [self._accepted]
        try:
            answer = own(self._spool)
        except FAULTS as error:
            answer = self._caller.failed(self.backend, error)
        if type(answer) is Response and answer.text and answer.code < 400:
            self._message_done()
            return [answer]
        return self._message_end_behind_backend(answer)

    async def _message_end_behind_data(self, waits: Waits) -> list[Response]:
        if waits is not None:
            await waits
        error = self._data_error
        if error is None:
            return await self.message_end()  # all but the end of the data is still to be done
        self._data_error = None
        self._message_done()
        return [error]

    async def _message_end_behind_plugins(self, answer: Answer) -> list[Response]:
        response = answer if answer is None or type(answer) is Response else await answer
        if response is not None and response.code >= 400:
            await self.reset()
            self._message_done()
            return [response]
        results = self.ask_message_end(past_plugins=True)
        return results if isinstance(results, list) else await results

    def _message_done(self) -> None:
        self._again = True
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
        session = self.session
        envelope = session.envelope
        if envelope.sender is not None or envelope.recipients:
            session.envelope = Envelope()
        own = self._own_reset
        if own is not None:
            try:
                answer = own()
            except FAULTS as error:
                answer = self._caller.failed(self.backend, error)
            if answer is not None:
                return self._reset_behind_backend(answer)
        return self._caller.run_all(self._resets) if self._resets or self._debug else None

    async def _reset_behind_backend(self, answer: Any) -> Response | None:
        own = await self._caller.settle(self.backend, answer)
        from_plugins = self._caller.run_all(self._resets)
        if from_plugins is not None and type(from_plugins) is not Response:
            from_plugins = await from_plugins
        return own if own is not None and own.code >= 400 else from_plugins

    async def disconnect(self) -> None:
        """The end: a last reset, then every ``disconnect``."""
        answer = self.ask_reset()
        if answer is not None and type(answer) is not Response:
            await answer
        for at in self._plan.disconnects:
            hooks = self._everyone[at]
            response = self._caller.call(hooks, hooks.disconnect)  # type: ignore[attr-defined]
            if response is not None and type(response) is not Response:
                await response

    # -- the message's way -------------------------------------------------------------------------------

    async def _block_behind_plugins(self, data: bytes, answer: Answer) -> None:
        if await self._note(answer):
            waits = self.data_block(data, past_plugins=True)
            if waits is not None:
                await waits

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
        self._data_end = None
        await self.reset()
        self._data_error = response

    async def _message_end_behind_backend(self, answer: Any) -> list[Response]:
        """Where the backend waits, has no words, answers for each recipient, or does not store the message."""
        try:
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
            responses = responses or [None]  # in the compat profile a message may be for nobody
        except FAULTS as error:
            responses = [self._caller.failed(self.backend, error)]
        responses = [
            r if r is not None and r.text else Response(r.code if r else 250, self._accepted.text)
            for r in responses
        ]
        if max([r.code for r in responses]) >= 400:
            await self.reset()
        self._message_done()
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


def _worded(code: int, usual: Response) -> Response:
    """An acceptance that nobody had words for."""
    return usual if code == usual.code else Response(code, usual.text)


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
