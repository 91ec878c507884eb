"""The operations: all that a session, a plugin or a backend can ask of the world.

A front end, plugin or backend is an ``async def`` that awaits operations and nothing else. An operation
is a small value whose ``__await__`` yields the value itself once and returns the driver's answer, so
``async def`` here is a typed generator and no event loop is implied. A driver steps the coroutine::

    operation = coroutine.send(answer)      # or coroutine.throw(error)
    answer = perform(operation)             # the one thing in which drivers differ

Deadlines are absolute readings of ``clock.monotonic()`` (seconds); None means no deadline of its own.
When one passes, the driver throws `DeadlineExceeded` into the coroutine at the operation.

Here are the operations on the session's own stream, on time and on threads, which every session needs. Those on other
peers (connections, datagrams, names, several at once) are in `mailfront_io.peers`, those on programs in
`mailfront_io.children`, so that only sessions that use them load them.
"""

from collections.abc import Callable, Coroutine, Generator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from mailfront_proto.record import record

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")


class DeadlineExceeded(Exception):
    """The operation's deadline passed before it was done."""


class ConnectionLost(Exception):
    """The peer reset the connection, or it broke. (A peer that closes in order is an empty `Recv`.)"""


class TLSFailed(Exception):
    """A TLS handshake or a TLS record went wrong; the text says how. The connection is of no more use."""


class Stopping(Exception):
    """The server is stopping and the session waits between transactions: say so and return."""


class Cancelled(BaseException):
    """The session must end now (the grace period is over). It may not be swallowed; operations awaited
    while it unwinds are clean-up and have `CLEANUP_SECONDS` together."""


CLEANUP_SECONDS = 5.0
"""Seconds that the clean-up of a cancelled session may take, all its operations together."""

RECEIVE_SIZE = 64 * 1024
"""Bytes read at once. 64 KiB beat 256 KiB (4.4 against 5.4 ms per MB of message): it stays in the cache
and below the allocator's threshold for mapping memory anew."""


class Operation(Generic[T]):
    """Base class. `deadline`: see the module's head."""

    __slots__ = ("deadline",)

    deadline: float | None

    def __await__(self) -> Generator["Operation[Any]", Any, T]:
        return (yield self)  # type: ignore[no-any-return]


class Recv(Operation[bytes]):
    """The next bytes from the session's peer: one immutable `bytes` of at most `RECEIVE_SIZE`; ``b""`` at
    the end of its stream, then and ever after.

    `idle`: the session is between transactions and may be stopped here: when the server is stopping the
    driver throws `Stopping`. `output`: written first, as by a `Send` with the same deadline; the driver empties
    it when that is done, so whoever catches an exception can tell a peer that does not read (something is left)
    from one that says nothing. Throws `DeadlineExceeded`, `ConnectionLost`, `TLSFailed`.
    """

    __slots__ = ("idle", "output")

    def __init__(self, deadline: float | None = None, idle: bool = False, output: bytes = b"") -> None:
        self.deadline = deadline
        self.idle = idle
        self.output = output


class RecvLine(Recv):
    """A `Recv` that takes no byte behind the first line end, where that would be lost to somebody else.

    For the sessions of one-shot programs that may end in `HandOff`: what is not received stays in the descriptor, for
    the program. It costs a system call more a line (on pipes one for each byte). A server keeps what it has read and
    hands it on, so there it is a `Recv`.
    """

    __slots__ = ()


class Send(Operation[None]):
    """Write `data`, all of it, to the session's peer; done once it is handed to the system or a bounded
    buffer. Throws `DeadlineExceeded` for a peer that does not read, `ConnectionLost`, `TLSFailed`."""

    __slots__ = ("data",)

    def __init__(self, data: bytes, deadline: float | None = None) -> None:
        self.data = data
        self.deadline = deadline


@record(frozen=True)
class TLSFacts:
    """What was agreed: `protocol` as ``TLSv1.3``, `cipher` in OpenSSL's name, `secret_bits`, the `sni` the
    client asked for and the `alpn` protocol agreed on (None: none), and the peer's certificate (DER).

    `verified_client`: server role, what is in the certificate that a client has shown and that verifies, as
    `ssl.SSLSocket.getpeercert` has it; None: it has shown none.
    """

    protocol: str
    cipher: str
    secret_bits: int
    sni: str | None = None
    alpn: str | None = None
    peer_certificate: bytes | None = None
    verified_client: Mapping[str, Any] | None = None


class StartTLS(Operation[TLSFacts]):
    """Do the TLS handshake on the session's stream; all later `Recv` and `Send` are inside TLS.

    `server_side`: our role. `server_hostname`: client role, the name to ask for and to verify. `alpn`: server
    role, the application protocols that are spoken here; a client that asks for others only is turned away
    (RFC 7301 section 3.2), one that asks for none is welcome. `received`: server role, what the client has said of the
    handshake so far, if something has been read already. Throws `TLSFailed`, `DeadlineExceeded`, `ConnectionLost`.
    """

    __slots__ = ("alpn", "context", "received", "server_hostname", "server_side")

    def __init__(
        self,
        context: "ssl.SSLContext",
        server_side: bool,
        server_hostname: str | None = None,
        deadline: float | None = None,
        alpn: tuple[str, ...] = (),
        received: bytes = b"",
    ) -> None:
        self.alpn = alpn
        self.received = received
        self.context = context
        self.server_side = server_side
        self.server_hostname = server_hostname
        self.deadline = deadline


class StartParentTLS(Operation[None]):
    """Have the program that started this one do the TLS handshake with the client, and go on inside TLS (UCSPI-TLS).

    It is told by a ``y`` on the descriptor `control`; what the client says is then read from `read`, what it is to hear
    is written to `write`, and the session's own descriptors are not touched again. Only in a program that serves one
    connection. A handshake that fails is the end of the stream for the next `Recv`. Throws `TLSFailed`.
    """

    __slots__ = ("control", "read", "write")

    def __init__(self, control: int, read: int, write: int) -> None:
        self.control = control
        self.read = read
        self.write = write
        self.deadline = None


class Sleep(Operation[None]):
    """Wait `seconds`, while other sessions go on."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = None


class Thread(Operation[T]):
    """``function(*arguments)`` where it may block (disk, above all fsync) without holding up others.

    Its result is the answer and its exception is thrown. `commit`: the call makes something final (a
    link, a rename): it is always waited for, whatever deadline or cancellation comes, since to drop its
    result would be to lose track of a message. Otherwise, when the deadline passes, the wait ends and the
    result is dropped.
    """

    __slots__ = ("arguments", "commit", "function")

    def __init__(
        self,
        function: Callable[..., T],
        *arguments: Any,
        deadline: float | None = None,
        commit: bool = False,
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.deadline = deadline
        self.commit = commit


class Clock(Protocol):
    """The driver's clock; a virtual one in tests."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back: what deadlines are measured on."""
        ...

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC: for trace lines and file names."""
        ...


@record(frozen=True)
class Connection:
    """The facts of one connection, as a driver hands them to the session.

    `local` and `remote` are (IP address, port), or None where the stream has none (pipes, unix sockets).
    `clock` is the driver's.
    """

    clock: Clock
    local: tuple[str, int] | None = None
    remote: tuple[str, int] | None = None


Session = Coroutine[Operation[Any], Any, int]
"""A session coroutine; its result is the exit code of a one-shot program."""

SessionFactory = Callable[[Connection], Session]
"""Makes the session for an accepted connection."""
