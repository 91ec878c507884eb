"""Calling hooks: plain functions straight away, coroutines only where there is one to await.

Most hooks are plain functions, and a chain of those costs no coroutine at all. So `Caller.call` and
`Caller.run` return either the response itself or, from the first hook that returned a coroutine on, a
coroutine that finishes the job. The caller writes::

    response = caller.run(chain, path)
    if response is not None and type(response) is not Response:
        response = await response

A hook that raises, awaits something that is no operation, or answers nonsense costs 451 and a log line,
never the session; one that hangs in an operation costs the same when its deadline passes. A plugin's place in the list
may say that the mail passes instead, and after how many seconds a hook counts as hung.
"""

import os
from collections.abc import Awaitable, Coroutine, Generator, Iterator, Sequence
from functools import lru_cache
from operator import length_hint
from types import CoroutineType
from typing import Any

from mailfront_io.ops import DeadlineExceeded, Operation
from mailfront_io.plugin import Backend, CheckFailed, Hook, Hooks, Response
from mailfront_io.session import Session

INTERNAL_ERROR = Response(451, "4.3.0 Internal error.")

HOOK_SECONDS = 120.0
"""Seconds that one plugin's hook may take in all its operations before it counts as hung, unless its place says
otherwise. RFC 5321 section
4.5.3.2 gives the server 5 minutes for MAIL and RCPT; a chain of two that hang stays below."""

Answer = Response | None | Coroutine[Any, Any, Response | None]


PLUGIN_HOOKS = ("connect", "helo", "auth", "sender", "recipient", "data_start", "data_block", "message_end", "reset")
BACKEND_HOOKS = (*PLUGIN_HOOKS, "data_end")


class Chain:
    """One hook of all plugins that have it, in order: `calls` with whose it is, `hooks` without."""

    __slots__ = ("calls", "hooks", "name")

    def __init__(self, name: str, calls: Sequence[tuple[Hooks, Hook]]) -> None:
        self.name = name
        self.calls = calls
        self.hooks = [hook for _, hook in calls]

    def position(self, hooks: Iterator[Hook]) -> int:
        """Where the hook stands that an iterator over `hooks` gave last. (One hook may be there twice: a static method
        of a class that is listed twice.)"""
        return len(self.hooks) - length_hint(hooks) - 1

    def owner(self, hooks: Iterator[Hook]) -> Hooks:
        """Whose hook that is."""
        return self.calls[self.position(hooks)][0]


class Plan:
    """Which of the classes `kinds`, plugins and then the backend, has what: found out once (`make_plan`) for all
    connections. Lists are of positions in it."""

    def __init__(self, kinds: tuple[type[Hooks], ...]) -> None:
        *plugins, backend = kinds
        found = {name: [at for at, kind in enumerate(plugins) if hasattr(kind, name)] for name in PLUGIN_HOOKS}
        self._absent = {name: Chain(name, ()) for name, positions in found.items() if not positions}
        self._present = [(name, positions) for name, positions in found.items() if positions]
        self.backend_hooks = frozenset([name for name in BACKEND_HOOKS if hasattr(backend, name)])
        """Hooks that the backend has. What its object calls like one, ``self.sender``, is its own affair."""
        last = len(plugins)
        self.commands = [at for at in (*reversed(range(last)), last) if kinds[at].commands is not Hooks.commands]
        """Who may have commands; whose win is last."""
        self.parameters = [at for at, kind in enumerate(kinds) if kind.parameters is not Hooks.parameters]
        """Who may have ESMTP parameters."""
        self.mechanisms = [at for at, kind in enumerate(kinds) if kind.mechanisms is not Hooks.mechanisms]
        """Who may have SASL mechanisms."""
        self.disconnects = [at for at, kind in enumerate(kinds) if hasattr(kind, "disconnect")]
        """Who is told of the end."""
        self.spools_in_file = any(kind.spools for kind in plugins)
        self.spools = self.spools_in_file or backend.spools

    def chains(self, plugins: Sequence[Hooks]) -> dict[str, Chain]:
        """The chains of one connection, one for each of `PLUGIN_HOOKS`."""
        chains = self._absent.copy()
        for name, positions in self._present:
            chains[name] = Chain(name, [(plugins[at], getattr(plugins[at], name)) for at in positions])
        return chains


_plan = lru_cache(maxsize=256)(Plan)


def make_plan(kinds: tuple[type[Hooks], ...]) -> Plan:
    """The plan of `kinds`. It is kept for the classes as they are written: those that a service derives of them have
    what its connections share, and go with it."""
    return _plan(tuple([vars(kind).get("written", kind) for kind in kinds]))


FAULTS = (Exception, SystemExit)
"""What a hook raises by a fault of its own; ``sys.exit()`` in a plugin ends no server."""


class Caller:
    """Calls the hooks of one connection. `debug`: log each call, in the original's words (``$MSG_DEBUG``)."""

    __slots__ = ("_debug", "_session")

    def __init__(self, session: Session, debug: bool) -> None:
        self._session = session
        self._debug = debug

    def call(self, hooks: Hooks, hook: Hook, argument: Any) -> Answer:
        """Call one hook, that takes one argument."""
        try:
            response = hook(argument)
        except FAULTS as error:
            return self.failed(hooks, error)
        return response if response is None or type(response) is Response else self._settle(hooks, response)

    def call_with(self, hooks: Hooks, hook: Hook, *arguments: Any) -> Answer:
        """Call one hook, that takes these `arguments`."""
        try:
            response = hook(*arguments)
        except FAULTS as error:
            return self.failed(hooks, error)
        return response if response is None or type(response) is Response else self._settle(hooks, response)

    def run(self, chain: Chain, argument: Any) -> Answer:
        """Call a chain of hooks that take one argument. An error response stops it and is the result; a final
        acceptance stops it too; otherwise the first response given is kept and the chain goes on."""
        if self._debug and chain.name != "data_block":
            return self._run_on(chain, (argument,), 0, None, None)
        if not chain.hooks:
            return None
        kept: Response | None = None
        hooks = iter(chain.hooks)
        for hook in hooks:  # nothing but the call, for each plugin that has no opinion
            try:
                response = hook(argument)
            except FAULTS as error:
                response = self.failed(chain.owner(hooks), error)
            if response is None:
                continue
            if type(response) is not Response:
                return self._run_on(chain, (argument,), chain.position(hooks), response, kept)
            if response.code >= 400 or response.final:
                return response
            if kept is None:
                kept = response
        return kept

    def run_with(self, chain: Chain, *arguments: Any) -> Answer:
        """`run` for the hooks of the start of a session, which take another number of arguments."""
        return self._run_on(chain, arguments, 0, None, None) if chain.calls or self._debug else None

    async def _run_on(
        self, chain: Chain, arguments: tuple[Any, ...], start: int, begun: Any, kept: Response | None
    ) -> Response | None:
        """`run` from the hook at `start` on; `begun`: what that one has returned already, None if it has
        not been called."""
        log = self._session.log
        debug = self._debug and chain.name != "data_block"  # the original does not log those
        if debug and not start and begun is None:
            log(f"Debug: Calling plugin hook: {'init' if chain.name == 'connect' else chain.name}")
        for hooks, hook in chain.calls[start:]:
            if debug:
                log(f"Debug: Calling plugin: {hooks.name}")
            answer = self._settle(hooks, begun) if begun is not None else self.call_with(hooks, hook, *arguments)
            begun = None
            response = answer if answer is None or type(answer) is Response else await answer
            if response is None:
                continue
            if debug:
                code = response.code + (1024 if response.final else 0)
                log(f"Debug: Plugin {hooks.name} returned {code}:{response.text or '(null)'}")
            if response.refuses or response.final:
                return response
            kept = kept or response
        return kept

    def run_all(self, chain: Chain) -> Answer:
        """Call a chain to its end, whatever its hooks answer; the first error, or None. For ``reset``,
        which leaves nobody out."""
        if self._debug:
            return self._run_all_on(chain, 0, None, None)
        refusal: Response | None = None
        hooks = iter(chain.hooks)
        for hook in hooks:
            try:
                response = hook()
            except FAULTS as error:
                response = self.failed(chain.owner(hooks), error)
            if response is None:
                continue
            if type(response) is not Response:
                return self._run_all_on(chain, chain.position(hooks), response, refusal)
            if response.code >= 400 and refusal is None:
                refusal = response
        return refusal

    async def _run_all_on(
        self, chain: Chain, start: int, begun: Any, refusal: Response | None
    ) -> Response | None:
        """`run_all` from the hook at `start` on; `begun`: as in `_run_on`."""
        if self._debug:
            self._session.log(f"Debug: Calling plugin hook: {chain.name}")
        for hooks, hook in chain.calls[start:]:
            if self._debug:
                self._session.log(f"Debug: Calling plugin: {hooks.name}")
            answer = self._settle(hooks, begun) if begun is not None else self.call_with(hooks, hook)
            begun = None
            response = answer if answer is None or type(answer) is Response else await answer
            if response is not None and response.refuses:
                refusal = refusal or response
        return refusal

    async def _settle(self, hooks: Hooks, response: Any) -> Response | None:
        """The response of a hook that returned no `Response`: a coroutine's is awaited."""
        try:
            seconds = hooks.place.deadline or HOOK_SECONDS
            response = await self.bounded(hooks, response, self._session.clock.monotonic() + seconds)
            if response is not None and not isinstance(response, Response):
                raise TypeError(f"a hook answers with a Response or None, not {type(response).__name__}")
        except FAULTS as error:
            return self.failed(hooks, error)
        return response

    async def bounded(self, hooks: Hooks, answer: Any, deadline: float | None) -> Any:
        """`answer`, awaited where it is a coroutine, each of its operations held to `deadline`."""
        name = hooks.name or type(hooks).__name__
        return await Bounded(name, answer, deadline) if isinstance(answer, CoroutineType) else answer

    def failed(self, hooks: Hooks, error: BaseException) -> Response | None:
        """A hook that raised: the client learns nothing, the log all, under an id. None: the mail passes."""
        response, what = INTERNAL_ERROR, f"{type(error).__name__}: {error}"
        passes = hooks.place.passes
        if isinstance(error, CheckFailed):
            response, what = error.response, str(error)
            if not error.why and not passes:
                return response  # its text says it all
        elif isinstance(error, DeadlineExceeded):
            what = "its deadline passed"
        who = f"{'backend' if isinstance(hooks, Backend) else 'plugin'} {hooks.name or type(hooks).__name__}"
        self._session.log(f"Error {os.urandom(4).hex()}: {who}: {what}{', passed' if passes else ''}")
        return None if passes else response


class Bounded(Awaitable[Any]):
    """Awaits a coroutine that somebody else has written (a hook, a store), and holds each of its operations to a
    deadline. `name`: whose it is, for errors."""

    __slots__ = ("_coroutine", "_deadline", "_name")

    def __init__(self, name: str, coroutine: Coroutine[Any, Any, Any], deadline: float | None) -> None:
        self._name = name
        self._coroutine = coroutine
        self._deadline = deadline

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, deadline = self._coroutine, self._deadline
        try:
            operation = coroutine.send(None)
            while True:
                if not isinstance(operation, Operation):
                    problem = TypeError(
                        f"{self._name} awaited {operation!r}, which is no operation of mailfront_io.ops; no event loop "
                        "runs here"
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
