"""The hook chain: every plugin in order, then the backend.

The rules: an error response stops the chain and is the result; a final acceptance stops it too; otherwise
the first response given is kept and the chain goes on. Without any response a sender or recipient is
refused, so that a chain nobody configured relays for nobody.

A hook that raises, awaits something that is no operation, or answers nonsense costs 451 and a log line,
never the session; one that hangs in an operation costs the same when its deadline passes.
"""

import os
from collections.abc import Awaitable, Generator, Iterable
from types import CoroutineType
from typing import Any

from mailfront_io.ops import DeadlineExceeded, Operation
from mailfront_io.plugin import Backend, Command, Hook, Hooks, Plugin, Response
from mailfront_io.session import Envelope, Path, Session
from mailfront_io.spool import Spool
from mailfront_proto.smtp.events import VerifyPassword

NO_SENDER = Response(550, "5.1.0 Mail system is not configured to accept that sender")
NO_RECIPIENT = Response(550, "5.1.0 Mail system is not configured to accept that recipient")
SENDER_ACCEPTED = "2.1.0 Sender accepted."
RECIPIENT_ACCEPTED = "2.1.5 Recipient accepted."
MESSAGE_ACCEPTED = Response(250, "2.6.0 Message accepted.")
INTERNAL_ERROR = Response(451, "4.3.0 Internal error.")

HOOK_SECONDS = 120.0
"""Seconds that one plugin's hook may take in all its operations before it counts as hung. RFC 5321 section
4.5.3.2 gives the server 5 minutes for MAIL and RCPT; a chain of two that hang stays below."""

_HOOKS = ("connect", "helo", "auth", "sender", "recipient", "data_start", "data_block", "message_end", "reset")
_ORIGINAL_NAMES = {"connect": "init"}

Chain = list[tuple[Hooks, Hook]]


class Pipeline:
    """The chain of one connection."""

    def __init__(self, session: Session, plugins: Iterable[Plugin], backend: Backend) -> None:
        self.session = session
        self.plugins = list(plugins)
        self.backend = backend
        self._debug = session.getenv("MSG_DEBUG") is not None and session.getenv("MSG_DEBUG") != "0"
        self._chains: dict[str, Chain] = {
            hook: [(plugin, getattr(plugin, hook)) for plugin in self.plugins if hasattr(plugin, hook)]
            for hook in _HOOKS
        }
        self._backend_hooks: dict[str, Hook | None] = {
            hook: getattr(backend, hook, None) for hook in _HOOKS
        }
        self._data_block_hooks = self._chains["data_block"]
        self._backend_data_block = self._backend_hooks["data_block"]
        self._spools = backend.spools or any(plugin.spools for plugin in self.plugins)
        self._spools_in_file = any(plugin.spools for plugin in self.plugins)
        self._spool: Spool | None = None
        self._data_error: Response | None = None

    # -- hooks, in the order of a session ----------------------------------------------------------------

    async def connect(self) -> Response | None:
        """The error that takes the greeting's place, or None."""
        response = await self._plugins_then_backend("connect")
        return response if response is not None and response.refuses else None

    def mechanisms(self) -> list[str]:
        """All SASL mechanisms that are offered now, in order."""
        found: list[str] = []
        for hooks in (*self.plugins, self.backend):
            try:
                found += hooks.mechanisms()
            except Exception as error:
                self._failed(hooks, error)
        return found

    def commands(self) -> dict[str, tuple[Hooks, Command]]:
        """All commands that are offered now; the backend's and earlier plugins' win."""
        found: dict[str, tuple[Hooks, Command]] = {}
        for hooks in (*reversed(self.plugins), self.backend):
            try:
                found.update({command.verb.upper(): (hooks, command) for command in hooks.commands()})
            except Exception as error:
                self._failed(hooks, error)
        return found

    async def command(self, hooks: Hooks, command: Command, argument: str) -> Response:
        """Run a command of a plugin's own."""
        return await self._call(hooks, command.handler, argument) or INTERNAL_ERROR

    async def helo(self, host: str, capabilities: list[str]) -> Response | None:
        """The error, or None; hooks have added to `capabilities`."""
        response = await self._plugins_then_backend("helo", host, capabilities)
        return response if response is not None and response.refuses else None

    async def auth(self, request: VerifyPassword) -> Response | None:
        """The first response; None when nobody has one."""
        for hooks, hook in self._chains["auth"]:
            response = await self._call(hooks, hook, request)
            if response is not None:
                return response
        return None

    async def sender(self, path: Path) -> Response:
        """The answer to MAIL."""
        response = await self._verdict("sender", path, NO_SENDER)
        if not response.refuses:
            self.session.envelope.sender = path
            return response if response.text else Response(response.code, SENDER_ACCEPTED)
        return response

    async def recipient(self, path: Path) -> Response:
        """The answer to RCPT."""
        response = await self._verdict("recipient", path, NO_RECIPIENT)
        if not response.refuses:
            self.session.envelope.recipients.append(path)
            return response if response.text else Response(response.code, RECIPIENT_ACCEPTED)
        return response

    async def data_start(self) -> Response | None:
        """Before the message: the backend, then the plugins. The error, or None; an error resets."""
        self._close_spool()
        self._data_error = None
        self.session.added_lines.clear()
        if self._spools:
            directory = self.session.getenv("TMPDIR") or "/tmp"
            try:
                self._spool = Spool(directory, in_file=self._spools_in_file)
            except OSError as error:
                self.session.log(f"Cannot create a spool file in {directory}: {error.strerror}; set $TMPDIR")
                await self.reset()
                return INTERNAL_ERROR
        response = await self._backend("data_start", self._spool)
        if response is None or not response.refuses:
            response = await self._run("data_start", self._spool)
        if response is not None and response.refuses:
            await self.reset()
            return response
        for lines in self.session.added_lines:
            await self._to_backend_and_spool(lines)
        self.session.added_lines.clear()
        return None

    async def data_block(self, data: bytes) -> None:
        """A slice of the message. The first error is kept for `message_end`; what follows is dropped."""
        if self._data_error is not None:
            return
        for hooks, hook in self._data_block_hooks:
            try:
                response = hook(data)
                if response is not None:
                    response = await self._result(hooks, response)
            except Exception as error:
                response = self._failed(hooks, error)
            if response is not None and response.refuses:
                await self._fail_data(response)
                return
        await self._to_backend_and_spool(data)

    async def message_end(self) -> list[Response]:
        """The plugins, then the backend: one response, or the backend's for each recipient."""
        try:
            if self._data_error is not None:
                return [self._data_error]
            response = await self._run("message_end", self._spool)
            if response is not None and response.refuses:
                await self.reset()
                return [response]
            return await self._backend_message_end()
        finally:
            self._data_error = None
            self._close_spool()
            self.session.envelope = Envelope()

    async def reset(self) -> Response | None:
        """Drop the transaction: the backend's reset, then every plugin's. The first error, or None."""
        self._close_spool()
        self.session.envelope = Envelope()
        response = await self._backend("reset")
        from_plugins = await self._run("reset", stop_at_error=False)
        for candidate in (response, from_plugins):
            if candidate is not None and candidate.refuses:
                return candidate
        return None

    async def disconnect(self) -> None:
        """The end: a last reset, then every ``disconnect``."""
        await self.reset()
        for hooks in (*self.plugins, self.backend):
            hook = getattr(hooks, "disconnect", None)
            if hook is not None:
                await self._call(hooks, hook)

    # -- how hooks are called ----------------------------------------------------------------------------

    async def _verdict(self, name: str, path: Path, nobody: Response) -> Response:
        response = await self._run(name, path)
        if response is None:
            return nobody
        if response.refuses:
            return response
        backend = await self._backend(name, path)
        if backend is not None and (backend.refuses or not response.text):
            return backend
        return response

    async def _plugins_then_backend(self, name: str, *arguments: Any) -> Response | None:
        response = await self._run(name, *arguments)
        if response is not None and response.refuses:
            return response
        return await self._backend(name, *arguments)

    async def _run(self, name: str, *arguments: Any, stop_at_error: bool = True) -> Response | None:
        """The plugins' part of a hook, by the rules of this module's head."""
        if self._debug:
            self.session.log(f"Debug: Calling plugin hook: {_ORIGINAL_NAMES.get(name, name)}")
        kept: Response | None = None
        for hooks, hook in self._chains[name]:
            if self._debug:
                self.session.log(f"Debug: Calling plugin: {hooks.name}")
            try:
                response = hook(*arguments)
                if response is not None and type(response) is not Response:
                    response = await self._result(hooks, response)
            except Exception as error:
                response = self._failed(hooks, error)
            if response is None:
                continue
            if self._debug:
                code = response.code + (1024 if response.final else 0)
                self.session.log(f"Debug: Plugin {hooks.name} returned {code}:{response.text or '(null)'}")
            if response.refuses and (stop_at_error or kept is None):
                kept = response
                if stop_at_error:
                    break
            elif response.final:
                kept = response
                break
            elif kept is None:
                kept = response
        return kept

    async def _backend(self, name: str, *arguments: Any) -> Response | None:
        hook = self._backend_hooks[name]
        return None if hook is None else await self._call(self.backend, hook, *arguments)

    async def _call(self, hooks: Hooks, hook: Hook, *arguments: Any) -> Response | None:
        try:
            response = hook(*arguments)
            return response if response is None else await self._result(hooks, response)
        except Exception as error:
            return self._failed(hooks, error)

    async def _result(self, hooks: Hooks, response: Any) -> Response | None:
        """What a hook returned, awaited where it is a coroutine."""
        if isinstance(response, CoroutineType):
            response = await _Bounded(hooks, response, self.session.clock.monotonic() + HOOK_SECONDS)
        if response is not None and not isinstance(response, Response):
            raise TypeError(f"a hook answers with a Response or None, not {type(response).__name__}")
        return response

    def _failed(self, hooks: Hooks, error: Exception) -> Response:
        """A hook that raised: the client learns nothing, the log all, under an id."""
        kind = "backend" if isinstance(hooks, Backend) else "plugin"
        what = "its deadline passed" if isinstance(error, DeadlineExceeded) else f"{type(error).__name__}: {error}"
        self.session.log(f"Error {os.urandom(4).hex()}: {kind} {hooks.name or type(hooks).__name__}: {what}")
        return INTERNAL_ERROR

    # -- the message's way -------------------------------------------------------------------------------

    async def _to_backend_and_spool(self, data: bytes) -> None:
        if self._backend_data_block is not None:
            response = await self._call(self.backend, self._backend_data_block, data)
            if response is not None and response.refuses:
                await self._fail_data(response)
                return
        if self._spool is not None:
            try:
                self._spool.write(data)
            except OSError as error:
                self.session.log(f"Cannot write the spool file: {error.strerror}")
                await self._fail_data(INTERNAL_ERROR)

    async def _fail_data(self, response: Response) -> None:
        await self.reset()
        self._data_error = response

    async def _backend_message_end(self) -> list[Response]:
        hook = self._backend_hooks["message_end"]
        if hook is None:
            return [MESSAGE_ACCEPTED]
        try:
            answer = hook(self._spool)
            if isinstance(answer, CoroutineType):
                answer = await _Bounded(self.backend, answer, None)
            responses = answer if isinstance(answer, list) else [answer]
            if not responses or not all(r is None or isinstance(r, Response) for r in responses):
                raise TypeError("message_end answers with a Response, None, or a list of them")
        except Exception as error:
            responses = [self._failed(self.backend, error)]
        responses = [
            r if r is not None and r.text else Response(r.code if r else 250, MESSAGE_ACCEPTED.text)
            for r in responses
        ]
        if any(r.refuses for r in responses):
            await self.reset()
        return responses

    def _close_spool(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None


class _Bounded(Awaitable[Any]):
    """Awaits a hook's coroutine, and holds each of its operations to the hook's deadline."""

    def __init__(self, hooks: Hooks, coroutine: "CoroutineType[Any, Any, Any]", deadline: float | None) -> None:
        self._hooks = hooks
        self._coroutine = coroutine
        self._deadline = deadline

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, deadline = self._coroutine, self._deadline
        try:
            operation = coroutine.send(None)
            while True:
                if not isinstance(operation, Operation):
                    problem = TypeError(
                        f"{self._hooks.name or type(self._hooks).__name__} awaited {operation!r}, which is no "
                        "operation of mailfront_io.ops; no event loop runs here"
                    )
                    operation = coroutine.throw(problem)
                    continue
                if deadline is not None and (operation.deadline is None or operation.deadline > deadline):
                    operation.deadline = deadline
                try:
                    answer = yield operation
                except BaseException as error:
                    operation = coroutine.throw(error)
                else:
                    operation = coroutine.send(answer)
        except StopIteration as stop:
            return stop.value


def fold(responses: list[Response]) -> Response:
    """Many recipients' responses as the one answer that SMTP has: 250 only if every recipient is stored,
    a permanent error only if all failed for good, else 451 (a duplicate is better than a loss)."""
    refused = [response for response in responses if response.refuses]
    if not refused:
        return responses[0]
    if len(refused) == len(responses):
        temporary = [response for response in refused if response.code < 500]
        return temporary[0] if temporary else refused[0]
    return Response(451, "4.3.0 Not every recipient's copy could be stored, try again")
