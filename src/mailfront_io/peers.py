r"""Operations on others than the session's own peer: connections, datagrams, names; several at once; relaying.

What is opened belongs to the session, and what is still open when the session ends is closed by the driver. What is
to be closed earlier is closed by ``with`` (in a hook), or by a `Scope` (a transaction's)::

    with await Connect([("clamd.example.net", 3310)], deadline=in_ten_seconds) as clamd:
        await clamd.send(b"zPING\0", deadline)
        answer = await clamd.recv(deadline)
"""

from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, overload

from mailfront_io.ops import ConnectionLost, Operation, Recv, RecvLine, Send, StartTLS, TLSFacts, TLSFailed
from mailfront_proto.record import record

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")

Address = tuple[str, int] | str
"""(IP address or host name, port), or the path of a unix socket."""


class Unreachable(Exception):
    """Nobody could be connected to; the text names each address that was tried, and why it failed."""


class Unresolvable(Unreachable):
    """No name among the addresses stands for an address; the text names each."""


class ResolveFailed(Exception):
    """The name servers gave no usable answer; the text says which. Not for names that do not exist."""


class Handle(Protocol):
    """What is open and can be closed: `Peer`, `mailfront_io.children.Child`."""

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        ...

    def close(self) -> None:
        """Close it; for the second time to no effect."""
        ...


class Scope:
    """Closes together what was opened with ``scope=``: when `close` is called, or at the end of its ``with``.

    Operations take one as an argument. For a transaction: make it in ``sender``, close it in ``reset`` and
    ``message_end``. The session closes what is left in any case.
    """

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: list[Handle] = []

    def add(self, handle: Handle) -> None:
        """Close `handle` with the others; drivers call this."""
        self._open = [other for other in self._open if not other.closed]
        self._open.append(handle)

    def close(self) -> None:
        """Close what is open, the youngest first. Never blocks: children are killed, not waited for."""
        while self._open:
            self._open.pop().close()

    def __enter__(self) -> "Scope":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Peer:
    """A stream of bytes to someone else: a connection, or a pipe or socket that leads to a child.

    `address`: what it is connected to, (IP address, port) or a path; a child's descriptor as ``fd 1``. The methods
    return operations, to be awaited; only `close` does its work at once. A pipe goes one way: reading from one that
    is written, or writing to one that is read, raises RuntimeError.
    """

    __slots__ = ("address", "closed", "stream")

    def __init__(self, address: Address, stream: Any) -> None:
        self.address = address
        self.stream = stream
        """The driver's."""
        self.closed = False

    def recv(self, deadline: float | None = None) -> "PeerRecv":
        """The next bytes, at most `RECEIVE_SIZE`; ``b""`` at the end, then and ever after. Throws
        `DeadlineExceeded`, `ConnectionLost`, `TLSFailed`."""
        return PeerRecv(self, deadline)

    def send(self, data: bytes, deadline: float | None = None) -> "PeerSend":
        """Write all of `data`. Throws `DeadlineExceeded` (some of it may have gone out), `ConnectionLost`,
        `TLSFailed`. Who sends much and is answered meanwhile uses `Exchange`."""
        return PeerSend(self, data, deadline)

    def send_eof(self, deadline: float | None = None) -> "PeerSendEOF":
        """End what we send (FIN; close_notify; a pipe is closed); reading goes on."""
        return PeerSendEOF(self, deadline)

    def start_tls(
        self, context: "ssl.SSLContext", server_hostname: str | None = None, deadline: float | None = None
    ) -> "PeerStartTLS":
        """Do a TLS handshake as a client: all later bytes are inside TLS. `server_hostname`: asked for and verified,
        as `context` says. Throws `TLSFailed`, `DeadlineExceeded`, `ConnectionLost`; close the peer then."""
        return PeerStartTLS(self, context, server_hostname, deadline)

    def is_quiet(self) -> bool:
        """Whether the other side is still there and has said nothing more, as far as is known now. Otherwise what it
        has said is lost: close the peer. For one that was idle for a while."""
        try:
            return not self.closed and self.stream.read() is None
        except (ConnectionLost, TLSFailed):
            return False

    def close(self, last: bytes = b"") -> None:
        """Close it; for the second time to no effect. `last` is sent before, a QUIT for instance, and inside TLS
        close_notify, if there is room for it."""
        if not self.closed:
            self.closed = True
            try:
                if last:
                    self.stream.write(memoryview(last))
            except (ConnectionLost, TLSFailed):
                pass  # nobody hears it
            finally:
                self.stream.close()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Peer {self.address}{' closed' if self.closed else ''}>"


class Connect(Operation[Peer]):
    """Connect to the first of `addresses` that answers.

    A host name stands for all its addresses (the system's resolver, IPv4 and IPv6). With `random_start` the list is
    begun at random and gone round, which spreads load. An address that does not answer gets its share of the time to
    `deadline`, at least a second; without a deadline 30 seconds in all. `tls`: do the handshake as well, on the
    address that was connected to; `server_hostname`: for it, see `Peer.start_tls`. `scope`: closes it. `tried`: each
    `Peer.address` that is left out, because it was connected to already and was of no use.

    `lasting`: the session does not close it at its end, so that other sessions of this process may have it, one at a
    time: whoever has it closes it, or hands it on.

    Throws `Unreachable` when every address has failed, `Unresolvable` when there was none to try, `DeadlineExceeded`,
    and `TLSFailed` or `ConnectionLost` in the handshake.
    """

    __slots__ = ("addresses", "lasting", "random_start", "scope", "server_hostname", "tls", "tried")

    def __init__(
        self,
        addresses: Sequence[Address],
        deadline: float | None = None,
        *,
        random_start: bool = False,
        tls: "ssl.SSLContext | None" = None,
        server_hostname: str | None = None,
        scope: Scope | None = None,
        lasting: bool = False,
        tried: Collection[Address] = (),
    ) -> None:
        self.addresses = addresses
        self.lasting = lasting
        self.deadline = deadline
        self.random_start = random_start
        self.tls = tls
        self.server_hostname = server_hostname
        self.scope = scope
        self.tried = tried


class PeerRecv(Operation[bytes]):
    """See `Peer.recv`."""

    __slots__ = ("peer",)

    def __init__(self, peer: Peer, deadline: float | None = None) -> None:
        self.peer = peer
        self.deadline = deadline


class PeerSend(Operation[None]):
    """See `Peer.send`."""

    __slots__ = ("data", "peer")

    def __init__(self, peer: Peer, data: bytes, deadline: float | None = None) -> None:
        self.peer = peer
        self.data = data
        self.deadline = deadline


class PeerSendEOF(Operation[None]):
    """See `Peer.send_eof`."""

    __slots__ = ("peer",)

    def __init__(self, peer: Peer, deadline: float | None = None) -> None:
        self.peer = peer
        self.deadline = deadline


class PeerStartTLS(Operation[TLSFacts]):
    """See `Peer.start_tls`."""

    __slots__ = ("context", "peer", "server_hostname")

    def __init__(
        self,
        peer: Peer,
        context: "ssl.SSLContext",
        server_hostname: str | None = None,
        deadline: float | None = None,
    ) -> None:
        self.peer = peer
        self.context = context
        self.server_hostname = server_hostname
        self.deadline = deadline


@record(frozen=True)
class Exchanged:
    """What came of an `Exchange`. `received`: by peer, the bytes up to its end, or the first of them up to its limit.
    `unsent`: the peers that stopped reading before they had everything."""

    received: Mapping[Peer, bytes]
    unsent: tuple[Peer, ...] = ()


class Exchange(Operation[Exchanged]):
    """Write to several peers and read from several to their ends, all at once, so that nobody waits for anybody.

    `send`: for each peer its bytes, whole or as an iterable of blocks, which is read as room comes up and must not
    block; the end of what we send follows. `receive`: for each peer the bytes that are kept at most; what comes
    beyond them is read and thrown away. One peer may be in both. Peers stay open (pipes that were written are
    closed). Done when all is written, or can no longer be, and all ends have been read.

    A peer that stops reading is no exception (a program may have its reasons, and its exit code tells them): see
    `Exchanged.unsent`. Throws `DeadlineExceeded`; `ConnectionLost` for a connection that breaks while it is read,
    and what the iterables raise.
    """

    __slots__ = ("receive", "send")

    def __init__(
        self,
        send: Mapping[Peer, bytes | Iterable[bytes]],
        receive: Mapping[Peer, int],
        deadline: float | None = None,
    ) -> None:
        self.send = send
        self.receive = receive
        self.deadline = deadline


class Datagram(Operation[T]):
    """Send `data` to one address (UDP, or a unix datagram socket) and wait for answers from that address only.

    `take` is called with each datagram that comes from there; what it returns is the answer, None means "not this
    one" (a wrong id, another question's). A fresh socket on a random port is used for each operation. `waits`: the
    seconds to wait for an answer to each try; `data` is sent once for each of them, and behind the last
    `DeadlineExceeded` is thrown, as it is at `deadline`.

    Throws `Unreachable` if the system says that nobody is there (only where `waits` is at its last try).
    """

    __slots__ = ("address", "data", "take", "waits")

    def __init__(
        self,
        address: Address,
        data: bytes,
        take: Callable[[bytes], T | None],
        deadline: float | None = None,
        waits: Sequence[float] = (),
    ) -> None:
        self.address = address
        self.data = data
        self.take = take
        self.deadline = deadline
        self.waits = waits


class Resolve(Operation[tuple[T, ...]]):
    """Ask the DNS for the records of one kind of a name, aliases followed.

    The answers: ``A`` and ``AAAA`` addresses as text; ``MX`` pairs (preference, host name), the lowest preference
    first, and (0, ``.``) for "takes no mail" (RFC 7505); ``TXT`` bytes, the strings of one record joined.
    An empty tuple: there are none, or there is no such name, or it is no name that could exist. At most 64 records,
    of 16 KiB in all; host names in answers are letters, digits, hyphens and underscores, in lower case and without
    the last dot; others are left out.

    Answers are kept in a cache of this process as long as they say, an hour at most. Throws `ResolveFailed`,
    `DeadlineExceeded`, and ModuleNotFoundError with one sentence if dnspython is not installed.
    """

    __slots__ = ("kind", "name")

    @overload
    def __init__(
        self: "Resolve[str]", name: str, kind: Literal["A", "AAAA"], deadline: float | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: "Resolve[tuple[int, str]]", name: str, kind: Literal["MX"], deadline: float | None = None
    ) -> None: ...
    @overload
    def __init__(self: "Resolve[bytes]", name: str, kind: Literal["TXT"], deadline: float | None = None) -> None: ...
    def __init__(self, name: str, kind: str, deadline: float | None = None) -> None:
        if kind not in ("A", "AAAA", "MX", "TXT"):
            raise ValueError(f"Resolve asks for A, AAAA, MX or TXT, not {kind!r}")
        self.name = name
        self.kind = kind
        self.deadline = deadline


class Gather(Operation[list[T | Exception]], Generic[T]):
    """Do several operations at once; the answer is their answers in their order, or the exception that each threw.

    Each keeps its own deadline; `deadline` holds for all. Leaf operations only: `Connect`, `Datagram`, `Resolve`,
    `Exchange`, `Thread`, `Sleep`, what a `Peer` does, and a child's `wait`. Another is a TypeError: steps that follow
    each other are written as several gatherings.
    """

    __slots__ = ("operations",)

    def __init__(self, operations: Iterable[Operation[T]], deadline: float | None = None) -> None:
        self.operations = list(operations)
        self.deadline = deadline


@record(frozen=True)
class Relayed:
    """What a `Relay` has moved, in bytes: `sent` to the peer, `received` from it."""

    sent: int
    received: int


class Relay(Operation[Relayed]):
    """Splice the session's stream, inside TLS if it is, with `peer`, in both directions, until both have ended.

    `first`: bytes that go to the peer before all others, those that the session had read beyond a login. A side that
    is read slowly slows down the other; 64 KiB are held in each direction at most. An end is passed on as an end
    (FIN, close_notify) while the other direction goes on; a side that breaks is an end of both its directions. `idle`:
    seconds without a byte in either direction, after which `DeadlineExceeded` is thrown, as it is at `deadline`.

    A server that stops lets relays go on for the grace period. Afterwards the session has nothing more to read or to
    say: return.
    """

    __slots__ = ("first", "idle", "peer")

    def __init__(
        self, peer: Peer, first: bytes = b"", *, idle: float | None = None, deadline: float | None = None
    ) -> None:
        self.peer = peer
        self.first = first
        self.idle = idle
        self.deadline = deadline


class Converse(Awaitable[T]):
    """Runs a client's coroutine on `peer`: one that is written for a stream of its own, as the drivers' `run_client`
    takes it. Its `Recv`, `Send` and `StartTLS` go to the peer, all else that it awaits to the driver; its result is
    the answer, and what it raises is raised. Each of its operations keeps its own deadline. The peer stays open.

    So a session that is served can be a client elsewhere meanwhile::

        with await Connect([("mx.example.net", 25)], deadline) as peer:
            result = await Converse(peer, client)
    """

    __slots__ = ("_client", "_peer")

    def __init__(self, peer: Peer, client: Coroutine[Operation[Any], Any, T]) -> None:
        self._peer = peer
        self._client = client

    def __await__(self) -> Generator[Any, Any, T]:
        client = self._client
        step: Callable[[Any], Any] = client.send
        answer: Any = None
        while True:
            try:
                operation = step(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                step, answer = client.send, (yield from self._perform(operation))
            except GeneratorExit:
                client.close()
                raise
            except BaseException as error:
                step, answer = client.throw, error

    def _perform(self, operation: Any) -> Generator[Any, Any, Any]:
        peer, kind = self._peer, type(operation)
        if kind is Recv or kind is RecvLine:
            if operation.output:
                yield from peer.send(operation.output, operation.deadline).__await__()
                operation.output = b""
            return (yield from peer.recv(operation.deadline).__await__())
        if kind is Send:
            return (yield from peer.send(operation.data, operation.deadline).__await__())
        if kind is StartTLS:
            if operation.server_side:
                raise RuntimeError("StartTLS as a server on a connection that was made from here")
            facts = peer.start_tls(operation.context, operation.server_hostname, operation.deadline)
            return (yield from facts.__await__())
        return (yield operation)
