"""Listening sockets by address: TCP over IPv4, IPv6 or both, unix sockets, and sockets that systemd hands over."""

import errno
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress

from mailfront_proto.record import record

BACKLOG = 1024
FIRST_INHERITED = 3
"""The descriptor of the first socket that systemd hands over (sd_listen_fds(3))."""


class BadAddress(ValueError):
    """An address cannot be listened on: it, and why."""


@record(frozen=True)
class ListeningAddress:
    """Where to listen. `kind`: ``tcp`` (`host`, empty for all of this machine, and `port`), ``unix`` (`host` is the
    path) or ``systemd`` (`host` is the name of the socket unit, FileDescriptorName=)."""

    kind: str
    host: str
    port: int = 0


def parse_listening_address(text: str, default_port: int | None = None) -> ListeningAddress:
    """``HOST:PORT``, ``[IPV6]:PORT``, ``:PORT`` (every address of this machine), ``unix:PATH`` or ``systemd:NAME``;
    where there is a default port also ``HOST``. Raises `BadAddress`."""
    kind, colon, rest = text.partition(":")
    if colon and kind in ("unix", "systemd"):
        if not rest or (kind == "unix" and not rest.startswith("/")):
            raise BadAddress(f"{_shown(text)}: write unix:/PATH or systemd:NAME")
        return ListeningAddress(kind, rest)
    host, colon, port = text.rpartition(":")
    if (text.endswith("]") or not colon) and default_port is not None:
        host, port = text, str(default_port)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise BadAddress(f"{_shown(text)}: the port is a number up to 65535: write HOST:PORT")
    if host.count(":") and not (host.startswith("[") and host.endswith("]")):
        raise BadAddress(f"{_shown(text)}: an IPv6 address stands in brackets: write [ADDRESS]:PORT")
    return ListeningAddress("tcp", host.strip("[]"), int(port))


def _shown(text: str) -> str:
    """As it is, but in quotes where it would not be seen."""
    return text if text.isprintable() and text == text.strip() else repr(text)


def parse_monitor_address(text: str) -> ListeningAddress:
    """Where ``/metrics`` is: the same, but an address without a host is on 127.0.0.1. Raises `BadAddress`."""
    address = parse_listening_address(text)
    return ListeningAddress("tcp", "127.0.0.1", address.port) if address.host == "" else address


def is_local(text: str) -> bool:
    """Whether only this host can connect to the address (which is a good one)."""
    address = parse_listening_address(text)
    if address.kind != "tcp":
        return address.kind == "unix"
    return address.host in ("::1", "localhost") or address.host.startswith("127.")


def open_listener(
    address: ListeningAddress, *, mode: int = 0o600, inherited: Mapping[str, socket.socket] | None = None
) -> socket.socket:
    """A listening socket that does not block. `mode`: of a unix socket. `inherited`: what systemd has handed over, by
    name. Raises `BadAddress`."""
    if address.kind == "systemd":
        if inherited is None or address.host not in inherited:
            raise BadAddress(
                f"systemd:{address.host}: systemd has handed over no socket of that name: write FileDescriptorName= in "
                "the socket unit"
            )
        listener = inherited[address.host].dup()
        listener.setblocking(False)
        return listener
    try:
        listener = _open_unix(address.host, mode) if address.kind == "unix" else _open_tcp(address.host, address.port)
    except UnicodeError:  # of the encoding of host names
        raise BadAddress(f"cannot listen on {named(address)}: this is no host name") from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise BadAddress(f"cannot listen on {named(address)}: {why}") from None
    listener.setblocking(False)
    return listener


def _open_tcp(host: str, port: int) -> socket.socket:
    if not host:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
        return socket.create_server(("", port), backlog=BACKLOG)
    family, _, _, _, name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server((str(name[0]), port), family=family, backlog=BACKLOG)


def _open_unix(path: str, mode: int) -> socket.socket:
    """Whoever left the socket there is gone, unless somebody answers."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as probe, suppress(ConnectionRefusedError, FileNotFoundError):
                probe.setblocking(False)
                with suppress(BlockingIOError):  # a queue that is full is somebody's, too
                    probe.connect(path)
                raise OSError(errno.EADDRINUSE, "somebody listens there")
            os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def named(address: ListeningAddress) -> str:
    """The address as it is written."""
    if address.kind != "tcp":
        return f"{address.kind}:{address.host}"
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


def inherited_sockets(environment: Mapping[str, str]) -> dict[str, socket.socket]:
    """The sockets that systemd has handed over (``$LISTEN_FDS``, ``$LISTEN_FDNAMES``; sd_listen_fds(3)), by name: of
    several with one name the second is NAME:2, and so on. What is no socket is left out."""
    count = environment.get("LISTEN_FDS", "")
    known = count.isascii() and count.isdigit() and len(count) < 6
    if environment.get("LISTEN_PID") != str(os.getpid()) or not known:
        return {}
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, socket.socket] = {}
    for number in range(int(count)):
        descriptor = FIRST_INHERITED + number
        name = names[number] if number < len(names) and names[number] else f"{number + 1}"
        place = names[:number].count(name) + 1
        with suppress(OSError):
            os.set_inheritable(descriptor, False)
            found[f"{name}:{place}" if place > 1 else name] = socket.socket(fileno=descriptor)
    return found
