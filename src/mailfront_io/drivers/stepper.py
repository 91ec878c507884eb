"""Stepping a session coroutine where every operation may block: scripted, one-shot, thread and fork drivers.

A driver is two things: a *world*, which has one method for each operation, and a stepper, which sends the
answer of one operation into the coroutine and gets the next operation out. The stepper is `run`, here, once
for all drivers that may block; asyncio and trio step in their own way but keep the same rules:

* A `Recv` whose deadline has passed when it begins is exceeded, even if bytes are there: else a peer that
  never pauses would never be late. Any other operation that can be done at once is done.
* `StartTLS` replaces the coroutine that is stepped by a layer around it (`drivers.tls`); no world knows TLS.
* `Cancelled` is thrown once. Whatever the coroutine awaits from then on is clean-up: nothing else
  interrupts it, and all of it ends `CLEANUP_SECONDS` later. The operation in hand then gets
  `DeadlineExceeded`; a coroutine that still asks for more is closed. So to swallow `Cancelled` gains nothing.
* What is no operation gets a TypeError that names it and who awaited it.
* The operations of `mailfront_io.peers` and `mailfront_io.children` are done by a layer around the coroutine as well
  (`drivers.operations`), the first time one is awaited. All that it asks of a driver are `Ready`, `OwnStream` and
  `TakeOver`, below. It stands inside of TLS: `tls_layer` puts it there if TLS came first.

This module is on the start-up path of the one-shot programs: it imports nothing but the operations.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from mailfront_io.ops import (
    CLEANUP_SECONDS,
    Cancelled,
    DeadlineExceeded,
    Operation,
    Recv,
    RecvLine,
    Send,
    Sleep,
    StartParentTLS,
    StartTLS,
    Thread,
    TLSFailed,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Sequence
    from typing import TypeVar

    from mailfront_io.drivers.doors import Doors
    from mailfront_io.ops import Clock

    T = TypeVar("T")
    Steps = Coroutine[Operation[Any], Any, T] | Generator[Operation[Any], Any, T]
    """What a driver steps: a session's or a client's coroutine, or a layer around one."""


class SystemClock:
    """The system's clocks."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


CLOCK = SystemClock()


READ, WRITE = 1, 4  # POLLIN, POLLOUT

Interest = tuple[Any, int]
"""A descriptor (the scripted driver has objects) and what to wait for: `READ`, `WRITE` or both."""


NO_PARENT_TLS = TLSFailed("only a program that serves one connection can leave TLS to its parent")


class Ready(Operation[None]):
    """Wait until one of `interests` is ready, at least as far as `poll` can tell. For drivers' layers only."""

    __slots__ = ("interests",)

    def __init__(self, interests: Sequence[Interest], deadline: float | None) -> None:
        self.interests = interests
        self.deadline = deadline


class OwnStream(Operation["Any"]):
    """The session's stream as a `streams.Stream`, for as long as the session itself neither receives nor sends.
    For drivers' layers only."""

    __slots__ = ()

    def __init__(self) -> None:
        self.deadline = None


class TakeOver(Operation["tuple[int, int] | None"]):
    """The session's descriptors, if this process serves nothing else and a program may take its place; else None.
    For drivers' layers only."""

    __slots__ = ()

    def __init__(self) -> None:
        self.deadline = None


class World(ABC):
    """The actions of one connection, one method per operation.

    A method returns the operation's answer or raises what is to be thrown into the coroutine. `deadline` is
    the operation's, or earlier when the session is being cleaned up. After it has raised `Cancelled` a
    world never raises it, or `Stopping`, again.
    """

    clock: Clock

    @abstractmethod
    def recv(self, deadline: float | None, idle: bool) -> bytes:
        """`Recv` without output: the next bytes, ``b""`` at the end."""

    @abstractmethod
    def send(self, data: bytes, deadline: float | None) -> None:
        """`Send`: all of `data`."""

    def exchange(self, operation: Recv, deadline: float | None) -> bytes:
        """`Recv` as a whole: its output first."""
        if operation.output:
            self.send(operation.output, deadline)
            operation.output = b""
        return self.recv(deadline, operation.idle)

    @abstractmethod
    def sleep(self, seconds: float, deadline: float | None) -> None:
        """`Sleep`; raises DeadlineExceeded if `deadline` comes first."""

    @abstractmethod
    def thread(self, operation: Thread[Any]) -> Any:
        """`Thread`: the call's result."""

    @abstractmethod
    def wait(self, interests: Sequence[Interest], deadline: float | None) -> None:
        """`Ready`; raises DeadlineExceeded when nothing is ready by `deadline`."""

    @abstractmethod
    def own_stream(self) -> Any:
        """`OwnStream`."""

    def take_over(self) -> tuple[int, int] | None:
        """`TakeOver`."""
        return None

    def start_parent_tls(self, operation: StartParentTLS) -> None:
        """`StartParentTLS`."""
        raise NO_PARENT_TLS

    def recv_line(self, deadline: float | None, idle: bool) -> bytes:
        """`RecvLine`; a `Recv` where nothing read is ever lost."""
        return self.recv(deadline, idle)

    def doors(self) -> Doors | None:
        """What takes the place of the system in a test; None: the system."""
        return None


def run(session: Steps[T], world: World) -> T:
    """Step `session` in `world` to its end and return its result; what it raises is raised."""
    answer: Any = None
    error: BaseException | None = None
    limit: float | None = None  # the end of the clean-up, once Cancelled was thrown
    exchange = world.exchange
    while True:
        try:
            operation: Any = session.send(answer) if error is None else session.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            error = None  # its traceback holds this frame: leave no cycle
        answer = None
        kind = type(operation)
        try:
            deadline = operation.deadline
        except AttributeError:
            deadline = None  # it is no operation
        if limit is not None:
            if limit <= world.clock.monotonic():
                session.close()
                raise Cancelled
            deadline = limit if deadline is None else min(deadline, limit)
        try:
            if kind is Recv:
                answer = exchange(operation, deadline)
            elif kind is Send:
                world.send(operation.data, deadline)
            elif kind is StartTLS:
                from mailfront_io.drivers.tls import tls_layer  # ssl costs 25 ms to import

                session = tls_layer(session, operation, world.clock, world.doors())
            elif kind is Sleep:
                world.sleep(operation.seconds, deadline)
            elif kind is Thread:
                answer = world.thread(operation)
                if deadline is not None and not operation.commit and deadline <= world.clock.monotonic():
                    raise DeadlineExceeded  # it was called here, so the wait was not cut short
            elif kind is Ready:
                world.wait(operation.interests, deadline)
            elif kind is RecvLine:
                if operation.output:
                    world.send(operation.output, deadline)
                    operation.output = b""
                answer = world.recv_line(deadline, operation.idle)
            elif kind is StartParentTLS:
                world.start_parent_tls(operation)
            elif kind is OwnStream:
                answer = world.own_stream()
            elif kind is TakeOver:
                answer = world.take_over()
            elif isinstance(operation, Operation):
                from mailfront_io.drivers.operations import operations_layer

                session = operations_layer(session, operation, world.clock, world.doors())
            else:
                error = not_an_operation(operation, session)
        except Exception as caught:
            error = caught
        except BaseException as caught:  # Cancelled, or Ctrl-C in a client
            limit = world.clock.monotonic() + CLEANUP_SECONDS
            error = caught


def not_an_operation(thing: object, session: object) -> TypeError:
    """Return the TypeError for a session that awaited `thing`, which is no operation."""
    where = "the session"
    layer: Any = session
    while layer is not None:
        frame = getattr(layer, "cr_frame", None)
        if frame is not None:
            where = f"{frame.f_globals.get('__name__')}.{layer.__qualname__}"
        layer = getattr(layer, "cr_await", None) or getattr(layer, "gi_yieldfrom", None)
    return TypeError(
        f"{where} awaited {thing!r}, which is no operation: sessions, plugins and backends await the "
        "operations of mailfront_io.ops and nothing else"
    )
