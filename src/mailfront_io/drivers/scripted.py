"""The scripted driver: a session, and everybody that it talks to, played in virtual time. See `mailfront_io.testing`.

A *party* is whoever is at the other end of a stream: the session's peer, a helper that a plugin connects to, a
program at the end of its pipes. Each has a script and plays it as far as it can whenever the session waits. When
nobody can go on the clock jumps to the next thing that will happen. The operations on peers and programs are those
that all drivers share (`drivers.operations`); only their doors to the system lead here (`drivers.scripted_doors`).
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from mailfront_io.drivers.stepper import Interest, World
from mailfront_io.ops import RECEIVE_SIZE, Cancelled, ConnectionLost, DeadlineExceeded, Stopping, Thread

if TYPE_CHECKING:
    import ssl

    from mailfront_io.children import Spawn
    from mailfront_io.drivers.doors import Doors
    from mailfront_io.peers import Address


class VirtualClock:
    """A clock that only moves when it is told to. It starts at `start` on both scales."""

    def __init__(self, start: float = 1_000_000_000.0) -> None:
        self._now = start

    def monotonic(self) -> float:
        """Virtual seconds: what deadlines are measured on."""
        return self._now

    def time(self) -> float:
        """The same seconds, as seconds since 1970."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`."""
        self._now += seconds


@dataclass(slots=True, frozen=True)
class WaitFor:
    """The peer waits for `text` in the output behind what it last waited for."""

    text: bytes


@dataclass(slots=True, frozen=True)
class Advance:
    """The peer does nothing for `seconds`."""

    seconds: float


@dataclass(slots=True, frozen=True)
class PeerTLS:
    """The peer does a TLS handshake: as a client, asking for `server_hostname`, or with `server_side` as a
    server, for sessions that are clients."""

    context: "ssl.SSLContext"
    server_hostname: str | None = None
    server_side: bool = False


class Mark(Enum):
    """Actions of a script that need no argument; import them by their own names."""

    EOF = "EOF"
    RESET = "RESET"
    STALL = "STALL"
    READ = "READ"
    STOP = "STOP"
    CANCEL = "CANCEL"
    UNTIL_EOF = "UNTIL_EOF"

    def __repr__(self) -> str:
        return self.value


EOF = Mark.EOF
RESET = Mark.RESET
STALL = Mark.STALL
STOP = Mark.STOP
CANCEL = Mark.CANCEL
UNTIL_EOF = Mark.UNTIL_EOF

Action = bytes | WaitFor | Advance | PeerTLS | Mark
Script = Sequence[Action]


class Absence(Enum):
    """What an address does at which nobody is; import them by their own names."""

    REFUSED = "REFUSED"
    SILENT = "SILENT"

    def __repr__(self) -> str:
        return self.value


REFUSED = Absence.REFUSED
SILENT = Absence.SILENT

Somebody = Script | Callable[[], Script] | Absence
"""Who is at an address: the script that is played to each connection, or a function that returns the script for the
next; or nobody."""


@dataclass(slots=True, frozen=True)
class Late:
    """An answer of the DNS that takes `seconds`; `answer`: the records, or an exception."""

    seconds: float
    answer: Sequence[Any] | Exception


@dataclass(slots=True, frozen=True)
class Program:
    """A program: what it does at each of its descriptors that are pipes, at its `socket`, and its exit `code` (minus
    the signal's number) once it has done all of that and `seconds` have passed. Descriptors that the session writes
    are read to their ends unless there is a script. `failure`: it cannot be started."""

    pipes: Mapping[int, Script] = field(default_factory=dict)
    socket: Script = (UNTIL_EOF,)
    code: int = 0
    seconds: float = 0.0
    failure: Exception | None = None


@dataclass(slots=True, frozen=True)
class Outside:
    """Whom the session can reach.

    `peers`: by address, as the session names it; where it connects to a host name that is in `dns`, the addresses of
    that are tried (if the records are none, it cannot be resolved). `datagrams`: the same for `Datagram`; each bytes
    is one. `dns`: by (name, kind), the records as `Resolve` gives them, an exception, or a `Late`; what is not there
    does not exist. `programs`: by ``argv[0]``, a `Program` or a function that makes one of the `Spawn`.
    """

    peers: "Mapping[Address, Somebody]" = field(default_factory=dict)
    datagrams: "Mapping[Address, Somebody]" = field(default_factory=dict)
    dns: Mapping[tuple[str, str], Sequence[Any] | Exception | Late] = field(default_factory=dict)
    programs: "Mapping[str, Program | Callable[[Spawn], Program]]" = field(default_factory=dict)


@dataclass(slots=True)
class Ran:
    """A program that was started: with what, what it got on each descriptor (its socket is under 0 alone), and
    whether it was killed."""

    spawn: "Spawn"
    received: dict[int, bytearray]
    killed: bool = False


class Party:
    """Whoever is at the other end of a stream: its script, and what it has received."""

    def __init__(self, world: "ScriptedWorld", script: Script, *, ends: bool = False) -> None:
        self.script = deque(script)
        self.received = bytearray()
        self.writes: list[tuple[float, bytes]] = []
        self.eof = self.reset = self.stalled = False
        self.finished = False  # we have ended what we send
        self._world = world
        self._ends = ends  # the end of the script is an end of what it sends
        self._when = world.clock.monotonic()  # of its last action, or in the future during an Advance
        self._waited_for = 0  # length of what was received that WaitFor has matched
        self._tls: _PartysTLS | None = None

    def next_time(self) -> float | None:
        """When it will act by itself, if it waits for time."""
        return self._when if self._when > self._world.clock.monotonic() else None

    @property
    def done(self) -> bool:
        """Whether it will do nothing more."""
        return not self.script and self._when <= self._world.clock.monotonic()

    def die(self) -> None:
        """Do nothing more, and be gone."""
        self.script.clear()
        self._when = self._world.clock.monotonic()
        self.reset = True

    def play(self) -> None:
        """Act until it must wait: for time, for output, or for the session to receive."""
        clock = self._world.clock
        while self.script and self._when <= clock.monotonic():
            action = self.script[0]
            if isinstance(action, bytes):
                return
            if isinstance(action, WaitFor):
                found = self.received.find(action.text, self._waited_for)
                if found < 0:
                    return
                self._waited_for = found + len(action.text)
                self._when = clock.monotonic()
            elif action is UNTIL_EOF:
                if not self.finished:
                    return
                self._when = clock.monotonic()
            elif isinstance(action, Advance):
                self._when += action.seconds
            elif isinstance(action, PeerTLS):
                self._tls = _PartysTLS(action)
            else:
                self._do(action)
            self.script.popleft()
        if self._ends and self.done:
            self.eof = True

    def _do(self, mark: Mark) -> None:
        if mark is Mark.EOF:
            self.eof = True
        elif mark is Mark.RESET:
            self.reset = True
        elif mark is Mark.STOP:
            self._world.stopping = True
        elif mark is Mark.CANCEL:
            self._world.cancelling = True
        else:
            self.stalled = mark is Mark.STALL

    def has_arrived(self) -> bool:
        """Whether a read would be answered at once."""
        return self.reset or self.eof or self._sends_now() or (self._tls is not None and self._tls.has_to_send())

    def _sends_now(self) -> bool:
        return (
            bool(self.script)
            and isinstance(self.script[0], bytes)
            and self._when <= self._world.clock.monotonic()
            and (self._tls is None or not self._tls.handshaking)
        )

    def arrived(self, line: bool = False) -> bytes | None:
        """The bytes that it has sent next, or None; ``b""`` at the end. `line`: at most one."""
        if self._tls is not None and (ciphertext := self._tls.to_send()):
            return ciphertext
        if self._sends_now():
            data = self.script.popleft()
            assert isinstance(data, bytes)
            self._when = self._world.clock.monotonic()
            size = data.find(b"\n") + 1 if line else 0
            size = min(size or RECEIVE_SIZE, RECEIVE_SIZE)
            if len(data) > size:
                self.script.appendleft(data[size:])
                data = data[:size]
            return data if self._tls is None else self._tls.encrypt(data)
        if self.reset:
            raise ConnectionLost("Connection reset by peer")
        return b"" if self.eof else None

    def take(self, data: bytes) -> None:
        """Receive what the session has sent."""
        if self._tls is not None:
            data = self._tls.received(data)
        if data:
            self.received += data
            self.writes.append((self._world.clock.monotonic(), data))


class ScriptedWorld(World):
    """Plays all scripts whenever the session waits."""

    def __init__(self, clock: VirtualClock, script: Script, outside: Outside) -> None:
        self.virtual = clock
        self.clock = clock
        self.outside = outside
        self.stuck: str | None = None  # why the session can never go on
        self.stopping = self.cancelling = False
        self.peers: list[tuple[Address, Party]] = []
        self.programs: list[Ran] = []
        self.own = Party(self, script)
        self.parties = [self.own]
        self._shielded = False  # Cancelled was thrown: nothing interrupts any more

    # The operations

    def recv(self, deadline: float | None, idle: bool) -> bytes:
        """`Recv`."""
        return self._recv(deadline, idle, line=False)

    def recv_line(self, deadline: float | None, idle: bool) -> bytes:
        """`RecvLine`."""
        return self._recv(deadline, idle, line=True)

    def _recv(self, deadline: float | None, idle: bool, line: bool) -> bytes:
        while True:
            self.play()
            self._interrupt(idle)
            self._not_late(deadline)
            if (data := self.own.arrived(line)) is not None:
                return data
            self._pass_time(deadline, "bytes")

    def send(self, data: bytes, deadline: float | None) -> None:
        """`Send`."""
        while True:
            self.play()
            self._interrupt(False)
            if self.own.reset:
                raise ConnectionLost("Connection reset by peer")
            if not self.own.stalled:
                break
            self._pass_time(deadline, "the peer to read")
        self.own.take(data)

    def sleep(self, seconds: float, deadline: float | None) -> None:
        """`Sleep`."""
        end = self.clock.monotonic() + seconds
        until = end if deadline is None else min(end, deadline)
        while self.clock.monotonic() < until:
            self.play()
            self._interrupt(False)
            try:
                self._pass_time(until, "the time")
            except DeadlineExceeded:
                break
        if until < end:
            raise DeadlineExceeded

    def thread(self, operation: Thread[Any]) -> Any:
        """`Thread`: calls the function here."""
        self.play()
        self._interrupt(False)
        answer = operation.function(*operation.arguments)
        self.play()
        if not operation.commit:
            self._interrupt(False)
        return answer

    def wait(self, interests: Sequence[Interest], deadline: float | None) -> None:
        """`Ready`; what is waited for are objects with a method `is_ready`."""
        while True:
            self.play()
            self._interrupt(False)
            if any(thing.is_ready(what) for thing, what in interests):
                return
            self._pass_time(deadline, "others" if interests else "the time")

    def own_stream(self) -> Any:
        """`OwnStream`."""
        from mailfront_io.drivers.scripted_doors import ScriptedStream

        return ScriptedStream(self, self.own)

    def doors(self) -> "Doors":
        """The scripted ones."""
        from mailfront_io.drivers.scripted_doors import ScriptedDoors

        return ScriptedDoors(self)

    # The scripts

    def play(self) -> None:
        """Let everybody act until they must wait."""
        for party in self.parties:
            party.play()

    def add(self, party: Party) -> Party:
        """Let one more play along."""
        self.parties.append(party)
        return party

    def nobody(self, what: str) -> None:
        """The session asks for something that the test has not thought of."""
        self.stuck = what
        self._shielded = True
        raise Cancelled

    # Waiting

    def _interrupt(self, idle: bool) -> None:
        if self._shielded:
            return
        if self.cancelling:
            self._shielded = True
            raise Cancelled
        if self.stopping and idle:
            raise Stopping

    def _not_late(self, deadline: float | None) -> None:
        if deadline is not None and deadline <= self.clock.monotonic():
            raise DeadlineExceeded

    def _pass_time(self, deadline: float | None, what: str) -> None:
        """Nothing can happen now: move the clock to the next event."""
        if self.stuck is not None:
            raise ConnectionLost("the script is stuck")
        events = [when for party in self.parties if (when := party.next_time()) is not None]
        event = min(events, default=None)
        now = self.clock.monotonic()
        if event is not None and (deadline is None or event < deadline):
            self.virtual.advance(event - now)
        elif deadline is not None:
            self.virtual.advance(max(deadline - now, 0))
            raise DeadlineExceeded
        else:
            self.nobody(f"the session waits for {what} for ever")


class _PartysTLS:
    """A party's end of TLS, in memory. A handshake that fails leaves it silent, but for an alert."""

    def __init__(self, start: PeerTLS) -> None:
        import ssl

        self._ended = ssl.SSLError  # it wants to read, or one side has refused the other with an alert
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = start.context.wrap_bio(self._incoming, self._outgoing, start.server_side, start.server_hostname)
        self.handshaking = True
        self._shake()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
            self.handshaking = False
        except self._ended:
            pass

    def received(self, data: bytes) -> bytes:
        """Take what the session has sent; return the plain text in it."""
        self._incoming.write(data)
        plain = bytearray()
        if self.handshaking:
            self._shake()
        try:
            while not self.handshaking and (data := self._tls.read(RECEIVE_SIZE)):
                plain += data
        except self._ended:
            pass
        return bytes(plain)

    def encrypt(self, data: bytes) -> bytes:
        """Return the ciphertext of `data`."""
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        return self._outgoing.read()

    def has_to_send(self) -> bool:
        """Whether TLS itself has something to say."""
        return bool(self._outgoing.pending)

    def to_send(self) -> bytes:
        """Return what TLS itself has to say, in a handshake above all."""
        return self._outgoing.read()
