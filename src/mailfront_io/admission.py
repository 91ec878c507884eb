"""How many connections a server takes: in all, of one client, of one network; and how it turns away the others.

A client is an IPv4 address or what one customer has of IPv6, a /64; a network is what one operator hands out, an IPv4
/24 or IPv6 /48. So who has 2^64 addresses has one budget, and who has 2^16 of these nets has one, too.
"""

import math
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from mailfront_io.service import encoded
from mailfront_proto.record import record
from mailfront_proto.smtp.replies import Reply

Address = tuple[str, int]


@record(frozen=True)
class Limits:
    """How many connections may be open at a time; None: any number. `client` and `network` do not count loopback."""

    total: int | None = None
    client: int | None = None
    network: int | None = None


DEFAULT = Limits(1000, 20, 100)


@record(frozen=True)
class Prefixes:
    """How many bits of an address say whose it is. An IPv4 client is always one address."""

    client_ipv6: int = 64
    network_ipv4: int = 24
    network_ipv6: int = 48


PREFIXES = Prefixes()

LINES_A_SECOND = 10
"""Lines of the log about connections that are turned away; how many more there were is a line of the next second."""

Refused = Callable[[str], None]
"""Is told by which limit a connection is refused: the name of its key in the configuration."""

Network = tuple[int, int, int]
"""The IP version, how many bits count, and their value."""


class Admission:
    """Counts connections, and turns away those over `limits`. Its methods may be called in any thread.

    `log`: is told of those that are turned away, in `LINES_A_SECOND`. `within`: what else must admit them: the limits
    of the process, where these are those of a listener, whose `name` the log gets then. `tell`: is called with the
    number of open connections whenever that has changed. `clock`: in seconds.
    """

    def __init__(
        self,
        log: Callable[[str], None],
        limits: Limits = DEFAULT,
        prefixes: Prefixes = PREFIXES,
        *,
        within: "Admission | None" = None,
        name: str = "",
        tell: Callable[[int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._refusals = _Refusals(log, clock)
        self._limits = limits
        self._prefixes = prefixes
        self._within = within
        self._where = f" at {name}" if name else ""
        self._tell = tell
        self._count = 0
        self._open: dict[Network, int] = {}  # of clients and of networks; whoever has none is not in it
        self._lock = threading.Lock()

    def admit(self, remote: Address | None, protocol: str = "smtp", refused: Refused | None = None) -> bytes | None:
        """Count a connection of `remote`, None on a unix socket; or the refusal, in the words of `protocol`."""
        return self._enter(remote, 1, protocol, refused)

    def release(self, remote: Address | None) -> None:
        """An admitted connection has ended."""
        self._leave(remote, 1)

    def admit_client(
        self, remote: Address | None, protocol: str = "smtp", refused: Refused | None = None
    ) -> bytes | None:
        """`admit` for the client alone: the connection is one that a proxy hands on, and is counted already."""
        return self._enter(remote, 0, protocol, refused)

    def release_client(self, remote: Address | None) -> None:
        """The session of a client has ended that `admit_client` has admitted."""
        self._leave(remote, 0)

    def _enter(self, remote: Address | None, connections: int, protocol: str, told: Refused | None) -> bytes | None:
        limits, refusal, reason = self._limits, "", "max_connections"
        networks = self._networks(remote)
        with self._lock:
            if connections and limits.total is not None and self._count >= limits.total:
                why, refusal = f"{limits.total} connections are open", "Too many connections"
            else:
                for network, limit, key in networks:
                    if self._open.get(network, 0) >= limit:
                        why, reason = f"{_written(network)} has {limit} open", key
                        refusal = "Too many connections from your network"
                        break
                else:
                    within = self._within
                    if within is None or (refused := within._enter(remote, connections, protocol, told)) is None:
                        self._add(networks, connections, 1)
                        return None
                    return refused
        who = remote[0] if remote is not None else "this host"
        self._refusals.say(f"Refused a connection from {who}: {why}{self._where}")
        if told is not None:
            told(reason)
        return _refusal(protocol, f"{refusal}, try again later")

    def _leave(self, remote: Address | None, connections: int) -> None:
        with self._lock:
            self._add(self._networks(remote), connections, -1)
        if self._within is not None:
            self._within._leave(remote, connections)

    def _add(self, networks: Iterable[tuple[Network, int, str]], connections: int, change: int) -> None:
        for network, _, _ in networks:
            if count := self._open.get(network, 0) + change:
                self._open[network] = count
            else:
                del self._open[network]
        if connections:
            self._count += change
            if self._tell is not None:
                self._tell(self._count)

    def _networks(self, remote: Address | None) -> Sequence[tuple[Network, int, str]]:
        """What `remote` is counted by, each with its limit and whose that is: nothing on unix sockets and loopback."""
        if remote is None or remote[0].startswith("127.") or remote[0] == "::1":
            return ()
        host, limits, prefixes = remote[0], self._limits, self._prefixes
        if ":" in host:
            version, size, client, network = 6, 128, prefixes.client_ipv6, prefixes.network_ipv6
            value = int.from_bytes(socket.inet_pton(socket.AF_INET6, host.partition("%")[0]), "big")
        else:
            version, size, client, network = 4, 32, 32, prefixes.network_ipv4
            value = int.from_bytes(socket.inet_pton(socket.AF_INET, host), "big")
        found = []
        if limits.client is not None:
            found.append(((version, client, value >> (size - client)), limits.client, "max_per_client"))
        if limits.network is not None and network < client:
            found.append(((version, network, value >> (size - network)), limits.network, "max_per_network"))
        return found


class _Refusals:
    """Passes so many lines a second on to `log`, and says how many more there were. In any thread."""

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._until = -math.inf  # the end of this second
        self._left = 0  # lines that it may still have
        self._unsaid = 0

    def say(self, line: str) -> None:
        """Log `line`, if this second may have another."""
        with self._lock:
            now = self._clock()
            if now >= self._until:
                if self._unsaid:
                    self._log(f"Refused {self._unsaid} more connections")
                self._until, self._left, self._unsaid = now + 1.0, LINES_A_SECOND, 0
            if self._left:
                self._left -= 1
                self._log(line)
            else:
                self._unsaid += 1


def _written(network: Network) -> str:
    version, bits, value = network
    family, size = (socket.AF_INET6, 128) if version == 6 else (socket.AF_INET, 32)
    host = socket.inet_ntop(family, (value << (size - bits)).to_bytes(size // 8, "big"))
    return host if bits == size else f"{host}/{bits}"


def _refusal(protocol: str, text: str) -> bytes:
    if protocol == "pop3":
        return f"-ERR [SYS/TEMP] {text}\r\n".encode()
    if protocol == "imap":
        return f"* BYE [UNAVAILABLE] {text}\r\n".encode()
    return encoded(protocol, Reply(421, f"4.7.0 {text}"))
