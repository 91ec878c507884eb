r"""The scripted driver: runs a session against a scripted peer in virtual time. For tests, yours too.

The script says what the peer does; nothing waits in real time and nothing touches a socket::

    played = run_script(session, [b"EHLO x\r\n", WaitFor(b"250 "), b"QUIT\r\n", EOF])
    assert played.output.endswith(b"221 bye\r\n")

The actions happen in their order, each once the one before it is done; bytes are done when received.

* ``bytes``: the peer sends them; the session gets each item as one `Recv` (cut at `RECEIVE_SIZE`).
* `WaitFor`: the peer waits until `text` has appeared in the output that follows the last match.
* `Advance`: the peer does nothing for that many virtual seconds.
* `EOF`: it closes its sending side. `RESET`: it breaks the connection.
* `STALL`: it stops reading, so that a `Send` waits for its deadline; `READ`: it reads again.
* `PeerTLS`: it starts TLS, as a client or a server; what it sends and what it sees is plain text again from there.
* `STOP`: the server is stopping (`Stopping` at an idle `Recv`). `CANCEL`: the grace period is over.

The clock stands still while anything can happen and jumps to the next event when nothing can: the peer's next
action, the end of a `Sleep`, a deadline. `Thread` runs its function at once, in this thread; a function may
move the clock with `VirtualClock.advance`. A session that would wait for ever is an AssertionError, and so is
a script that was not used up, unless ``all_read=False`` says that the session may leave some of it.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from mailfront_io.drivers.stepper import World, run
from mailfront_io.ops import (
    RECEIVE_SIZE,
    Cancelled,
    Connection,
    ConnectionLost,
    DeadlineExceeded,
    SessionFactory,
    Stopping,
    Thread,
)

if TYPE_CHECKING:
    import ssl


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

    def __repr__(self) -> str:
        return self.value


EOF = Mark.EOF
RESET = Mark.RESET
STALL = Mark.STALL
READ = Mark.READ
STOP = Mark.STOP
CANCEL = Mark.CANCEL

Action = bytes | WaitFor | Advance | PeerTLS | Mark


@dataclass(slots=True)
class Played:
    """What came of a script.

    `output`: all that the peer got (plain text, where it used TLS); `writes`: the same as (seconds since the
    start, bytes) per `Send`; `result`: what the session returned; `error`: what it raised; `elapsed`:
    virtual seconds in all; `unread`: what was left of the script.
    """

    output: bytes = b""
    writes: list[tuple[float, bytes]] = field(default_factory=list)
    result: int | None = None
    error: BaseException | None = None
    elapsed: float = 0.0
    unread: list[Action] = field(default_factory=list)


def run_script(
    session: SessionFactory,
    script: Sequence[Action],
    *,
    clock: VirtualClock | None = None,
    local: tuple[str, int] | None = ("127.0.0.1", 25),
    remote: tuple[str, int] | None = ("127.0.0.1", 50_000),
    catch: bool = False,
    all_read: bool = True,
) -> Played:
    """Run the session that `session` makes against `script`.

    What the session raises is raised here, or with `catch` is kept in `Played.error`. Raises AssertionError
    as the module's head says.
    """
    clock = clock or VirtualClock()
    started = clock.monotonic()
    world = _ScriptedWorld(clock, script)
    played = Played()
    try:
        played.result = run(session(Connection(clock, local, remote)), world)
    except BaseException as error:
        if not catch and world.stuck is None:
            raise
        played.error = error
    world.play()  # what the peer still does by itself
    played.output = bytes(world.output)
    played.writes = [(when - started, data) for when, data in world.writes]
    played.elapsed = clock.monotonic() - started
    played.unread = list(world.script)
    if world.stuck is not None:
        raise AssertionError(f"{world.stuck}; left of the script: {played.unread}; output: {played.output!r}")
    if all_read and played.unread:
        raise AssertionError(f"the session left {played.unread} unread; output: {played.output!r}")
    return played


class _ScriptedWorld(World):
    """Plays the script whenever the session waits.

    `_peer_time` is when the peer's last action was done, or in the future during an `Advance`.
    """

    def __init__(self, clock: VirtualClock, script: Sequence[Action]) -> None:
        self.virtual = clock
        self.clock = clock
        self.script = deque(script)
        self.output = bytearray()
        self.writes: list[tuple[float, bytes]] = []
        self.stuck: str | None = None  # why the session can never go on
        self._peer_time = clock.monotonic()
        self._waited_for = 0  # length of the output that WaitFor has matched
        self._tls: _PeersTLS | None = None
        self._eof = self._reset = self._stalled = False
        self._stopping = self._cancelling = False
        self._shielded = False  # Cancelled was thrown: nothing interrupts any more

    # The operations

    def recv(self, deadline: float | None, idle: bool) -> bytes:
        while True:
            self.play()
            self._interrupt(idle)
            self._not_late(deadline)
            if (data := self._arrived()) is not None:
                return data
            if self._reset:
                raise ConnectionLost("Connection reset by peer")
            if self._eof:
                return b""
            self._wait(deadline, "bytes")

    def send(self, data: bytes, deadline: float | None) -> None:
        while True:
            self.play()
            self._interrupt(False)
            if self._reset:
                raise ConnectionLost("Connection reset by peer")
            if not self._stalled:
                break
            self._wait(deadline, "the peer to read")
        if self._tls is not None:
            data = self._tls.received(data)
        if data:
            self.output += data
            self.writes.append((self.clock.monotonic(), data))

    def sleep(self, seconds: float, deadline: float | None) -> None:
        end = self.clock.monotonic() + seconds
        until = end if deadline is None else min(end, deadline)
        while self.clock.monotonic() < until:
            self.play()
            self._interrupt(False)
            try:
                self._wait(until, "the time")
            except DeadlineExceeded:
                break
        if until < end:
            raise DeadlineExceeded

    def thread(self, operation: Thread[Any]) -> Any:
        self.play()
        self._interrupt(False)
        answer = operation.function(*operation.arguments)
        self.play()
        if not operation.commit:
            self._interrupt(False)
        return answer

    # The script

    def play(self) -> None:
        """Let the peer act until it must wait: for time, for output, or for the session to receive."""
        while self.script and self._peer_time <= self.clock.monotonic():
            action = self.script[0]
            if isinstance(action, bytes):
                return
            if isinstance(action, WaitFor):
                found = self.output.find(action.text, self._waited_for)
                if found < 0:
                    return
                self._waited_for = found + len(action.text)
                self._peer_time = self.clock.monotonic()
            elif isinstance(action, Advance):
                self._peer_time += action.seconds
            elif isinstance(action, PeerTLS):
                self._tls = _PeersTLS(action)
            else:
                self._do(action)
            self.script.popleft()

    def _do(self, mark: Mark) -> None:
        if mark is Mark.EOF:
            self._eof = True
        elif mark is Mark.RESET:
            self._reset = True
        elif mark is Mark.STOP:
            self._stopping = True
        elif mark is Mark.CANCEL:
            self._cancelling = True
        else:
            self._stalled = mark is Mark.STALL

    def _arrived(self) -> bytes | None:
        """The bytes that the peer has sent next, or None."""
        if self._tls is not None and (ciphertext := self._tls.to_send()):
            return ciphertext
        if not self.script or self._peer_time > self.clock.monotonic():
            return None
        data = self.script[0]
        if not isinstance(data, bytes) or (self._tls is not None and self._tls.handshaking):
            return None
        self._peer_time = self.clock.monotonic()
        self.script.popleft()
        if len(data) > RECEIVE_SIZE:
            self.script.appendleft(data[RECEIVE_SIZE:])
            data = data[:RECEIVE_SIZE]
        return data if self._tls is None else self._tls.encrypt(data)

    # Waiting

    def _interrupt(self, idle: bool) -> None:
        if self._shielded:
            return
        if self._cancelling:
            self._shielded = True
            raise Cancelled
        if self._stopping and idle:
            raise Stopping

    def _not_late(self, deadline: float | None) -> None:
        if deadline is not None and deadline <= self.clock.monotonic():
            raise DeadlineExceeded

    def _wait(self, deadline: float | None, what: str) -> None:
        """Nothing can happen now: move the clock to the next event."""
        if self.stuck is not None:
            raise ConnectionLost("the script is stuck")
        event = self._peer_time if self.script else 0.0
        now = self.clock.monotonic()
        if event > now and (deadline is None or event < deadline):
            self.virtual.advance(event - now)
        elif deadline is not None:
            self.virtual.advance(deadline - now)
            raise DeadlineExceeded
        else:
            self.stuck = f"the session waits for {what} for ever"
            self._shielded = True
            raise Cancelled


class _PeersTLS:
    """The peer's end of TLS, in memory. A handshake that fails leaves it silent, but for an alert."""

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

    def to_send(self) -> bytes:
        """Return what TLS itself has to say, in a handshake above all."""
        return self._outgoing.read()
