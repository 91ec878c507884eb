"""Calling hooks: plain functions straight away, coroutines only where there is one to await.

Most hooks are plain functions, and a chain of those costs no coroutine at all. So `Caller.call` and
`Caller.run` return either the response itself or, from the first hook that returned a coroutine on, a
coroutine that finishes the job. The caller writes::

    response = caller.run("sender", chain, path)
    if response is not None and type(response) is not Response:
        response = await response

A hook that raises, awaits something that is no operation, or answers nonsense costs 451 and a log line,
never the session; one that hangs in an operation costs the same when its deadline passes. A plugin's place in the list
may say that the mail passes instead, and after how many seconds a hook counts as hung.
"""

import os
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from itertools import compress
from operator import attrgetter, length_hint
from types import CoroutineType
from typing import Any

from mailfront_io.ops import DeadlineExceeded, Operation
from mailfront_io.plugin import ACCEPT, Backend, CheckFailed, Hook, Hooks, Response
from mailfront_io.session import Session

INTERNAL_ERROR = Response(451, "4.3.0 Internal error.")

HOOK_SECONDS = 120.0
"""Seconds that one plugin's hook may take in all its operations before it counts as hung, unless its place says
otherwise. RFC 5321 section
4.5.3.2 gives the server 5 minutes for MAIL and RCPT; a chain of two that hang stays below."""

Answer = Response | None | Coroutine[Any, Any, Response | None]

PLUGIN_HOOKS = ("connect", "helo", "auth", "sender", "recipient", "data_start", "data_block", "message_end", "reset")
BACKEND_HOOKS = (
    "connect", "helo", "sender", "recipient", "data_start", "data_block", "data_end", "message_end", "reset",
)  # fmt: skip

Chain = Sequence[Hook]
"""One hook of all plugins of a connection that have it, in order."""


class Plan:
    """Which of the classes `kinds`, plugins and then the backend, has what: found out once for all connections of a
    service. Lists are of positions in it. `debug`: log each call, in the original's words (``$MSG_DEBUG``)."""

    def __init__(self, kinds: Sequence[type[Hooks]], debug: bool = False) -> None:
        *plugins, backend = self.kinds = kinds
        self.debug = debug
        has = {name: [hasattr(kind, name) for kind in plugins] for name in PLUGIN_HOOKS}
        self.positions = {name: [at for at, yes in enumerate(found) if yes] for name, found in has.items()}
        """Which plugins have a hook, by its name."""
        self._bound = [(at, attrgetter(name), has[name]) for at, name in enumerate(has) if self.positions[name]]
        self.backend_chain: Callable[[Hooks], Sequence[Hook | None]] = attrgetter(
            *[name if hasattr(backend, name) else "_absent" for name in BACKEND_HOOKS]
        )
        """The `BACKEND_HOOKS` of a backend, None for those that it has not. What its object calls like one,
        ``self.sender``, is its own affair."""
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

    def chains(self, plugins: Sequence[Hooks]) -> list[Chain]:
        """The chains of one connection, one for each of `PLUGIN_HOOKS`."""
        chains: list[Chain] = [()] * len(PLUGIN_HOOKS)
        for at, bind, has in self._bound:
            chains[at] = [*map(bind, compress(plugins, has))]
        return chains


FAULTS = (Exception, SystemExit)
"""What a hook raises by a fault of its own; ``sys.exit()`` in a plugin ends no server."""


class Caller:
    """Calls the hooks of one connection: those of `everyone`, the plugins and then the backend, as `plan` has them."""

    __slots__ = ("_awake", "_debug", "_everyone", "_plan", "_session")

    def __init__(self, session: Session, plan: Plan, everyone: Sequence[Hooks]) -> None:
        self._session = session
        self._plan = plan
        self._debug = plan.debug
        self._everyone = everyone
        self._awake: dict[str, list[Hooks]] | None = None

    def awake(self) -> list[Chain]:
        """The chains as `Plan.chains` has them, without the hooks that rest (`mailfront_io.plugin.Plugin.rest`)."""
        if not self._debug:
            *plugins, _ = self._everyone
            self._awake = {
                name: [plugins[at] for at in positions if name not in plugins[at].resting]  # type: ignore[attr-defined]
                for name, positions in self._plan.positions.items()
            }
        return [[getattr(hooks, name) for hooks in self._owners(name)] for name in PLUGIN_HOOKS]

    def call(self, hooks: Hooks, hook: Hook, *arguments: Any) -> Answer:
        """Call one hook."""
        try:
            response = hook(*arguments)
        except FAULTS as error:
            return self.failed(hooks, error)
        return response if response is None or type(response) is Response else self.settle(hooks, response)

    def run(self, name: str, chain: Chain, argument: Any, own: Hook | None = None) -> Answer:
        """Call the `chain` of the hook `name`, which takes one argument. An error response stops it and is the result;
        a final acceptance stops it too; otherwise the first response given is kept and the chain goes on. Where it has
        accepted, the backend's hook `own` is called behind it: an error of that is the result, and so are its words
        where the plugins have none."""
        if self._debug and name != "data_block":  # the original does not log those
            return self._run_on(name, chain, (argument,), 0, None, None, own)
        kept: Response | None = None
        left = iter(chain)
        while True:  # once, and again behind each hook that has failed and lets the mail pass
            try:
                for hook in left:
                    response = hook(argument)
                    if response is not None:
                        if response is ACCEPT:  # the usual acceptance
                            if kept is None:
                                kept = response
                        elif type(response) is not Response:
                            return self._run_on(name, chain, (argument,), _position(chain, left), response, kept, own)
                        elif response.code >= 400:
                            return response
                        elif response.final:
                            kept = response
                            break
                        elif kept is None:
                            kept = response
                break
            except FAULTS as error:
                refusal = self.failed(self._owners(name)[_position(chain, left)], error)
                if refusal is not None:
                    return refusal
        if kept is None or own is None:
            return kept
        try:
            response = own(argument)
        except FAULTS as error:
            response = self.failed(self._everyone[-1], error)
        if response is None:
            return kept
        if type(response) is not Response:
            return self._run_own(kept, self.settle(self._everyone[-1], response))
        return response if response.code >= 400 or not kept.text else kept

    def run_with(self, name: str, chain: Chain, *arguments: Any) -> Answer:
        """`run` for the hooks of the start of a session, which take another number of arguments."""
        return self._run_on(name, chain, arguments, 0, None, None, None) if chain or self._debug else None

    async def _run_on(
        self,
        name: str,
        chain: Chain,
        arguments: tuple[Any, ...],
        start: int,
        begun: Any,
        kept: Response | None,
        own: Hook | None,
    ) -> Response | None:
        """`run` from the hook at `start` on; `begun`: what that one has returned already, None if it has
        not been called."""
        log = self._session.log
        debug = self._debug and name != "data_block"
        if debug and not start and begun is None:
            log(f"Debug: Calling plugin hook: {'init' if name == 'connect' else name}")
        for hooks, hook in self.owned(name, chain)[start:]:
            if debug:
                log(f"Debug: Calling plugin: {hooks.name}")
            answer = self.settle(hooks, begun) if begun is not None else self.call(hooks, hook, *arguments)
            begun = None
            response = answer if answer is None or type(answer) is Response else await answer
            if response is None:
                continue
            if debug:
                code = response.code + (1024 if response.final else 0)
                log(f"Debug: Plugin {hooks.name} returned {code}:{response.text or '(null)'}")
            if response.refuses:
                return response
            if response.final:
                kept = response
                break
            kept = kept or response
        if kept is None or own is None:
            return kept
        return await self._run_own(kept, self.call(self._everyone[-1], own, *arguments))

    async def _run_own(self, kept: Response, answer: Answer) -> Response:
        """`run` behind the plugins, which have accepted with `kept`; `answer`: what the backend says."""
        response = answer if answer is None or type(answer) is Response else await answer
        return kept if response is None or (response.code < 400 and kept.text) else response

    def run_all(self, chain: Chain) -> Answer:
        """Call the chain of ``reset`` to its end, whatever its hooks answer: it leaves nobody out. The first error, or
        None."""
        if self._debug:
            return self._run_all_on(chain, 0, None, None)
        refusal: Response | None = None
        left = iter(chain)
        for hook in left:
            try:
                response = hook()
            except FAULTS as error:
                response = self.failed(self._owners("reset")[_position(chain, left)], error)
            if response is None:
                continue
            if type(response) is not Response:
                return self._run_all_on(chain, _position(chain, left), response, refusal)
            if response.code >= 400 and refusal is None:
                refusal = response
        return refusal

    async def _run_all_on(self, chain: Chain, start: int, begun: Any, refusal: Response | None) -> Response | None:
        """`run_all` from the hook at `start` on; `begun`: as in `_run_on`."""
        if self._debug:
            self._session.log("Debug: Calling plugin hook: reset")
        for hooks, hook in self.owned("reset", chain)[start:]:
            if self._debug:
                self._session.log(f"Debug: Calling plugin: {hooks.name}")
            answer = self.settle(hooks, begun) if begun is not None else self.call(hooks, hook)
            begun = None
            response = answer if answer is None or type(answer) is Response else await answer
            if response is not None and response.refuses:
                refusal = refusal or response
        return refusal

    def owned(self, name: str, chain: Chain) -> list[tuple[Hooks, Hook]]:
        """The hooks of a chain, each behind whose it is."""
        return [*zip(self._owners(name), chain, strict=True)]

    def _owners(self, name: str) -> list[Hooks]:
        if self._awake is not None:
            return self._awake[name]
        return [self._everyone[at] for at in self._plan.positions[name]]

    async def settle(self, hooks: Hooks, response: Any) -> Response | None:
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


def _position(chain: Chain, left: Iterator[Hook]) -> int:
    """Where the hook stands that `left`, an iterator over `chain`, gave last. (One hook may be there twice: a static
    method of a class that is listed twice.)"""
    return len(chain) - length_hint(left) - 1


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
                    problem = f"{operation!r}, which is no operation of mailfront_io.ops; no event loop runs here"
                    operation = coroutine.throw(TypeError(f"{self._name} awaited {problem}"))  # kept nowhere: no cycle
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
