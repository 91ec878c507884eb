"""The operations on peers and children, performed: once for all drivers.

Strategy: no operation of `mailfront_io.peers` or `mailfront_io.children` is known to any driver. The first time a
session awaits one, its driver puts `operations_layer` around the coroutine and steps that instead, as it does for TLS.
To the driver the layer is a session that awaits what sessions await and, for the rest, `Ready`: wait until one of
these descriptors is readable or writable. Everything is made of streams that do not block (`drivers.streams`), and of
that wait. So deadlines and cancellation arrive where they always do, at the one place where something waits, and no
driver can do an operation in its own way.

The layer is the innermost one, right around the session, so `OwnStream` and `TakeOver`, which it yields, pass by TLS:
a relayed session stays inside TLS.

What is open when the session ends is closed here, and children are killed and reaped.
"""

import random
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mailfront_io.children import Child, HandOff, Spawn, Wait
from mailfront_io.drivers.doors import Doors, Process, System, receive, transmit
from mailfront_io.drivers.stepper import NO_PARENT_TLS, Interest, OwnStream, Ready, TakeOver, not_an_operation
from mailfront_io.ops import (
    CLEANUP_SECONDS,
    Cancelled,
    Clock,
    DeadlineExceeded,
    Operation,
    Recv,
    RecvLine,
    Send,
    Sleep,
    StartParentTLS,
    StartTLS,
    Thread,
    TLSFacts,
)
from mailfront_io.peers import (
    Connect,
    Datagram,
    Exchange,
    Exchanged,
    Gather,
    Peer,
    PeerRecv,
    PeerSend,
    PeerSendEOF,
    PeerStartTLS,
    Relay,
    Relayed,
    Resolve,
    Scope,
    Unreachable,
    Unresolvable,
)

if TYPE_CHECKING:
    from mailfront_io.drivers.streams import Stream

T = TypeVar("T")
Steps = Generator[Operation[Any], Any, T]

CONNECT_SECONDS = 30.0
"""For all addresses of a `Connect` without a deadline."""

SHORTEST_TRY = 1.0
"""Seconds that each address of a `Connect` has, unless the deadline comes first: the first SYN that is lost is sent
again after one (RFC 6298 section 2)."""

LAST_SECONDS = 3.0
"""What a program has to end by itself once its connection has ended; less than `CLEANUP_SECONDS`."""

BLOCKS_AT_ONCE = 16
"""Reads and writes, each of up to 64 KiB, before other sessions have their turn."""

OF_SESSIONS = frozenset((Recv, RecvLine, Send, StartTLS, Sleep, Thread))
"""The operations that the driver does."""


def operations_layer(
    session: Coroutine[Operation[Any], Any, T] | Steps[T],
    operation: Any,
    clock: Clock,
    doors: Doors | None = None,
) -> Steps[T]:
    """Step `session`, which awaits `operation`, to its end; `doors`: the system, if None."""
    performer = Performer(clock, doors or System(clock))
    try:
        while True:
            answer: Any = None
            error: BaseException | None = None
            perform = PERFORM.get(type(operation))
            try:
                if perform is not None:
                    answer = yield from perform(performer, operation)
                elif type(operation) in OF_SESSIONS:
                    answer = yield operation
                else:
                    error = not_an_operation(operation, session)
            except GeneratorExit:
                session.close()
                raise
            except BaseException as caught:  # the operation's, or thrown in by the driver
                error = caught
            try:
                operation = session.send(answer) if error is None else session.throw(error)
            except StopIteration as end:
                yield from performer.close()
                result: T = end.value
                return result
            except (Exception, Cancelled):
                yield from performer.close()
                raise
            finally:
                error = None  # its traceback holds this frame: leave no cycle
    finally:
        performer.abandon()


class Performer:
    """Performs the operations of one session; its methods are generators of waits."""

    def __init__(self, clock: Clock, doors: Doors) -> None:
        self.clock = clock
        self._doors = doors
        self._scope = Scope()
        self._children: list[Child] = []
        self._at_once = 0  # reads and writes since others had their turn

    # Connections

    def connect(self, operation: Connect) -> Steps[Peer]:
        """`Connect`."""
        deadline = operation.deadline
        places: list[Any] = []
        failures: list[str] = []
        for address in operation.addresses:
            try:
                places += yield from self._doors.look_up(address, deadline)
            except OSError as error:
                failures.append(f"{_shown(address)}: {_words(error)}")
        if not places:
            raise Unresolvable("; ".join(failures) or "there is no address to connect to")
        places = [place for place in places if self._doors.address_of(place) not in operation.tried]
        if operation.random_start and places:
            start = random.randrange(len(places))
            places = places[start:] + places[:start]
        end = self.clock.monotonic() + CONNECT_SECONDS if deadline is None else deadline
        for number, place in enumerate(places):
            now = self.clock.monotonic()
            until = min(end, now + max((end - now) / (len(places) - number), SHORTEST_TRY))
            try:
                stream = yield from self._doors.open(place, until)
            except OSError as error:
                failures.append(f"{place}: {_words(error)}")
            except DeadlineExceeded:
                if self._over(until, deadline):
                    raise
                failures.append(f"{place}: no answer")
            else:
                return (yield from self._connected(operation, Peer(self._doors.address_of(place), stream)))
        raise Unreachable("; ".join(failures) or "there is no other address")

    def _connected(self, operation: Connect, peer: Peer) -> Steps[Peer]:
        try:
            if operation.tls is not None:
                yield from self.start_tls(
                    PeerStartTLS(peer, operation.tls, operation.server_hostname, operation.deadline)
                )
        except BaseException:
            peer.close()
            raise
        if not operation.lasting:
            self._scope.add(peer)
        if operation.scope is not None:
            operation.scope.add(peer)
        return peer

    def recv(self, operation: PeerRecv) -> Steps[bytes]:
        """`Peer.recv`."""
        stream = stream_of(operation.peer)
        self.not_late(operation.deadline)  # else a peer that never pauses would never be late
        yield from self._take_turns()
        return (yield from receive(stream, operation.deadline))

    def send(self, operation: PeerSend) -> Steps[None]:
        """`Peer.send`."""
        yield from self._take_turns()
        yield from transmit(stream_of(operation.peer), operation.data, operation.deadline)

    def send_eof(self, operation: PeerSendEOF) -> Steps[None]:
        """`Peer.send_eof`."""
        stream = stream_of(operation.peer)
        stream.finish()
        yield from transmit(stream, b"", operation.deadline)

    def start_tls(self, operation: PeerStartTLS) -> Steps[TLSFacts]:
        """`Peer.start_tls`."""
        from mailfront_io.drivers.tls import start_tls  # ssl costs 25 ms to import

        peer = operation.peer
        facts, peer.stream = yield from start_tls(
            stream_of(peer), operation.context, operation.server_hostname, operation.deadline
        )
        return facts

    def exchange(self, operation: Exchange) -> Steps[Exchanged]:
        """`Exchange`."""
        from mailfront_io.drivers.exchanging import exchange

        return (yield from exchange(self, operation))

    # Datagrams and names

    def datagram(self, operation: Datagram[T]) -> Steps[T]:
        """`Datagram`."""
        deadline = operation.deadline
        try:
            place, *_ = yield from self._doors.look_up(operation.address, deadline, datagrams=True)
            datagrams = self._doors.datagram_socket(place)
        except OSError as error:
            raise Unreachable(f"{_shown(operation.address)}: {_words(error)}") from error
        waits = list(operation.waits)
        try:
            while True:
                until = deadline
                if waits:
                    until = self.clock.monotonic() + waits.pop(0)
                    until = until if deadline is None else min(until, deadline)
                last = not waits
                try:
                    return (yield from self._ask(datagrams, operation, until, last))
                except DeadlineExceeded:
                    if last or self._over(until, deadline):
                        raise
        finally:
            datagrams.close()

    def _ask(self, datagrams: Any, operation: Datagram[T], until: float | None, last: bool) -> Steps[T]:
        """One try."""
        asked = False
        while True:
            try:
                if not asked:
                    asked = True
                    datagrams.send(operation.data)
                data = datagrams.receive()
            except OSError as error:  # an ICMP message, most likely
                if last:
                    raise Unreachable(f"{_shown(operation.address)}: {_words(error)}") from error
                data = None
            if data is not None:
                answer = operation.take(data)
                if answer is not None:
                    return answer
                self.not_late(until)
            yield Ready(datagrams.receiving(), until)

    def resolve(self, operation: Resolve[Any]) -> Steps[tuple[Any, ...]]:
        """`Resolve`."""
        answers: tuple[Any, ...] = yield from self._doors.resolve(operation.name, operation.kind, operation.deadline)
        return answers

    # Programs

    def spawn(self, operation: Spawn) -> Steps[Child]:
        """`Spawn`."""
        self._children = [child for child in self._children if not child.closed or child.process.poll() is None]
        process, pipes, stream = yield from self._doors.spawn(operation)
        peers = {fd: Peer(f"fd {fd}", pipe) for fd, pipe in pipes.items()}
        socket = None if stream is None else Peer(f"child {process.pid}", stream)
        child = Child(process.pid, peers, socket, process)
        self._children.append(child)
        self._scope.add(child)
        if operation.scope is not None:
            operation.scope.add(child)
        return child

    def wait_for(self, operation: Wait) -> Steps[int]:
        """`Child.wait`."""
        return (yield from self._wait_for(operation.child.process, operation.deadline))

    def _wait_for(self, process: Process, deadline: float | None) -> Steps[int]:
        while (code := process.poll()) is None:
            self.not_late(deadline)
            interests, look_again = process.ending()
            until = self.clock.monotonic() + look_again
            try:
                yield Ready(interests, until if deadline is None else min(until, deadline))
            except DeadlineExceeded:
                if self.clock.monotonic() < until:
                    raise
        return code

    # The session's own stream

    def relay(self, operation: Relay) -> Steps[Relayed]:
        """`Relay`."""
        from mailfront_io.drivers.relaying import relay

        stream = yield OwnStream()
        try:
            return (yield from relay(self, stream, stream_of(operation.peer), operation))
        finally:
            stream.close()

    def hand_off(self, operation: HandOff) -> Steps[int]:
        """`HandOff`."""
        descriptors = (yield TakeOver()) if not operation.first else None
        if descriptors is not None:
            from mailfront_io.drivers.processes import replace_this_process

            replace_this_process(operation, *descriptors)
        spawn = Spawn(
            operation.arguments,
            operation.environment,
            directory=operation.directory,
            ids=operation.ids,
            socket=(0, 1),
            deadline=operation.deadline,
        )
        with (yield from self.spawn(spawn)) as child:
            assert child.socket is not None
            relay = Relay(child.socket, operation.first, idle=operation.idle, deadline=operation.deadline)
            try:
                yield from self.relay(relay)
            except (Exception, Cancelled):
                yield from self._let_end(child)
                raise
            return (yield from self._let_end(child))

    def _let_end(self, child: Child) -> Steps[int]:
        """Close the connection of a program, which is its cue, and wait for its end; kill it if that takes long."""
        assert child.socket is not None
        child.socket.close()
        try:
            return (yield from self._wait_for(child.process, self.clock.monotonic() + LAST_SECONDS))
        except DeadlineExceeded:
            child.kill()
            return (yield from self._wait_for(child.process, None))

    # Several at once

    def gather(self, operation: Gather[Any]) -> Steps[list[Any]]:
        """`Gather`."""
        from mailfront_io.drivers.gathering import gather

        return (yield from gather(self, operation))

    def sleep(self, operation: Sleep) -> Steps[None]:
        """`Sleep`, as part of a `Gather`."""
        end = self.clock.monotonic() + max(operation.seconds, 0)
        if operation.deadline is not None and operation.deadline < end:
            yield from self.pause(operation.deadline)
            raise DeadlineExceeded
        yield from self.pause(end)

    def thread(self, operation: Thread[T]) -> Steps[T]:
        """`Thread`, as part of a `Gather`."""
        deadline = None if operation.commit else operation.deadline
        result: T = yield from self._doors.call(operation.function, operation.arguments, deadline)
        return result

    # Waiting

    def wait(self, interests: Sequence[Interest], deadline: float | None, busy: bool) -> Steps[None]:
        """Wait for one of `interests`; `busy`: only let other sessions have their turn."""
        if busy:
            yield from self.pause(self.clock.monotonic())
        else:
            yield Ready(interests, deadline)

    def pause(self, until: float) -> Steps[None]:
        """Wait for a time."""
        try:
            yield Ready((), until)
        except DeadlineExceeded:
            if self.clock.monotonic() < until:
                raise

    def _over(self, until: float | None, deadline: float | None) -> bool:
        """Whether a try that had time to `until` was ended for good: by `deadline`, or before (a clean-up's time)."""
        now = self.clock.monotonic()
        return until is None or now < until or (deadline is not None and deadline <= now)

    def _take_turns(self) -> Steps[None]:
        self._at_once += 1
        if self._at_once >= BLOCKS_AT_ONCE:
            self._at_once = 0
            yield from self.pause(self.clock.monotonic())

    def not_late(self, deadline: float | None) -> None:
        """Raise DeadlineExceeded if it is."""
        if deadline is not None and deadline <= self.clock.monotonic():
            raise DeadlineExceeded

    def parent_tls(self, operation: StartParentTLS) -> Steps[None]:
        """`StartParentTLS`: the driver does it, if it serves nothing else."""
        if (yield TakeOver()) is None:
            raise NO_PARENT_TLS
        yield operation

    # The end

    def close(self) -> Steps[None]:
        """Close what is open and reap what was killed; the session is over, and its result stands."""
        self._scope.close()
        end = self.clock.monotonic() + CLEANUP_SECONDS
        try:
            for child in self._children:
                yield from self._wait_for(child.process, end)
        except (Cancelled, DeadlineExceeded):
            pass  # `abandon` follows

    def abandon(self) -> None:
        """Close what is open and wait for nothing."""
        self._scope.close()
        for child in self._children:
            child.process.abandon()


Perform = Callable[[Performer, Any], Steps[Any]]

PERFORM: dict[type, Perform] = {
    Connect: Performer.connect,
    Datagram: Performer.datagram,
    Exchange: Performer.exchange,
    Gather: Performer.gather,
    HandOff: Performer.hand_off,
    PeerRecv: Performer.recv,
    PeerSend: Performer.send,
    PeerSendEOF: Performer.send_eof,
    PeerStartTLS: Performer.start_tls,
    Relay: Performer.relay,
    Resolve: Performer.resolve,
    Spawn: Performer.spawn,
    StartParentTLS: Performer.parent_tls,
    Wait: Performer.wait_for,
}

LEAVES: dict[type, Perform] = {
    **{kind: PERFORM[kind] for kind in (Connect, Datagram, Exchange, Resolve, Wait)},
    **{kind: PERFORM[kind] for kind in (PeerRecv, PeerSend, PeerSendEOF, PeerStartTLS)},
    Sleep: Performer.sleep,
    Thread: Performer.thread,
}
"""What may be part of a `Gather`."""


def stream_of(peer: Peer) -> "Stream":
    """The stream of a peer that is open."""
    if peer.closed:
        raise RuntimeError(f"{peer!r} was closed by us")
    stream: Stream = peer.stream
    return stream


def _shown(address: Any) -> str:
    return address if isinstance(address, str) else f"{address[0]} port {address[1]}"


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
