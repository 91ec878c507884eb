"""Connections that a proxy hands on: the PROXY header first, then the session of the client that it names."""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from mailfront_io.drivers.listener import Address
from mailfront_io.ops import Connection, ConnectionLost, DeadlineExceeded, Recv, Send, SessionFactory, Stopping
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_proto.proxy import Family, ProxyAddress, ProxyHeader, ProxyReceiver, ProxyRefused
from mailfront_proto.pull import NEED_DATA

HEADER_SECONDS = 30.0
"""How long a proxy may take for its header, which is there with the connection."""

Begin = Callable[[Connection, bytes], SessionCoroutine]
"""Makes the session of a connection, of whose bytes some have been read."""


class Proxies:
    """The peers that must begin with a PROXY header. `names`: addresses, networks, or ``unix`` for whoever connects to
    a unix socket. Raises ValueError for what is none."""

    def __init__(self, names: Iterable[str]) -> None:
        self._unix = False
        self._networks: list[IPv4Network | IPv6Network] = []
        for name in names:
            if name == "unix":
                self._unix = True
            else:
                self._networks.append(ip_network(name))

    def __contains__(self, peer: object) -> bool:
        """Whether `peer`, the address and port of a connection, or None of a unix socket, is one of them."""
        if peer is None:
            return self._unix
        if not self._networks or not isinstance(peer, tuple):
            return False
        address = ip_address(peer[0].partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any((mapped or address) in network for network in self._networks)


def proxied(
    proxies: Proxies,
    begin: Begin,
    admit: Callable[[Address], bytes | None],
    release: Callable[[Address], None],
    log: Callable[[str], None],
) -> SessionFactory:
    """What makes a session of each connection at a listener with `proxies`. `admit` and `release`: as of a `Listener`,
    for the clients that proxies name."""

    def make(connection: Connection) -> SessionCoroutine:
        if connection.remote not in proxies:
            return begin(connection, b"")
        return _behind_proxy(connection, begin, admit, release, log)

    return make


async def _behind_proxy(
    connection: Connection,
    begin: Begin,
    admit: Callable[[Address], bytes | None],
    release: Callable[[Address], None],
    log: Callable[[str], None],
) -> int:
    receiver = ProxyReceiver()
    proxy = connection.remote[0] if connection.remote else "this host"
    deadline = connection.clock.monotonic() + HEADER_SECONDS
    while (event := receiver.next_event()) is NEED_DATA:
        try:
            data = await Recv(deadline, idle=True)
        except Stopping:
            return 0  # nobody is here yet
        except (ConnectionLost, DeadlineExceeded):
            log(f"PROXY header from {proxy}: it did not come")
            return 1
        if data:
            receiver.receive_data(data)
        else:
            receiver.receive_eof()
    if isinstance(event, ProxyRefused):
        log(f"PROXY header from {proxy}: {event.reason}")
        return 1
    received = receiver.trailing_data()
    client = _client(event)
    if client is None:
        return await begin(connection, received)
    refusal = admit(client)
    if refusal is not None:
        try:
            await Send(refusal, connection.clock.monotonic() + 1.0)
        except (ConnectionLost, DeadlineExceeded):
            pass  # it is gone, or does not listen
        return 1
    try:
        return await begin(Connection(connection.clock, _pair(event.destination), client), received)
    finally:
        release(client)


def _client(header: ProxyHeader) -> Address | None:
    """Whom the proxy speaks for; None: itself, or it cannot say."""
    return _pair(header.source) if header.family in (Family.INET, Family.INET6) else None


def _pair(address: ProxyAddress | None) -> Address | None:
    """An IPv4 address is written as such, also where the proxy says it as a mapped one: it is the same client."""
    if address is None:
        return None
    ip = ip_address(address.host)
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return str(mapped or ip), address.port
