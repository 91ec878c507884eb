"""What the TCP drivers share about sockets: listeners, accepting, refusing, and closing without loss.

The accept path is where a server meets the limits of its system. A connection that broke before it was
accepted is passed over; a system that is out of descriptors or memory is waited for, a tenth of a second at
first and a second at most, and that is said once per burst, not once per attempt.
"""

import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mailfront_io.ops import RECEIVE_SIZE, SessionFactory

Address = tuple[str, int]
"""IP address and port. IPv4 addresses are written as such, also where an IPv6 socket maps them."""

Report = Callable[[BaseException], None]
"""Told of what went wrong outside any session, and of exceptions that a session let escape."""


class Stop(Protocol):
    """Stops a server; may be called from any thread. Nothing more is accepted, and sessions get `Stopping` where they
    are idle; called again it gives those that are left `Cancelled`."""

    def __call__(self, *, gently: bool = False) -> None:
        """`gently`: sessions are told nothing and take their time; the server ends with the last of them, or as above
        when this is called again without it."""


Started = Callable[[Stop], None]
"""Called once a server accepts connections, with the function that stops it."""

SMALL_READ = 4096
"""Bytes asked for while the peer sends less than that at a time; else `RECEIVE_SIZE`. A buffer of 64 KiB for each
command costs a microsecond, and a thread that waits in a read keeps its buffer."""

LINGER_SECONDS = 2.0
"""How long the input of a peer that still talks after our end is thrown away before the socket is closed."""

LINGER_BYTES = 1024 * 1024
"""And how much of it."""

TAKEN_AT_ONCE = 16
"""Connections that are refused, or gone already, before sessions have their turn again."""

BURST_SECONDS = 10.0
"""Failures to accept less than this apart are one burst."""

# What accept() reports of a connection that is gone already (accept(2), "Error handling").
_PASSING = frozenset(
    (
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
        errno.ETIMEDOUT,
    )
)


def admit_all(remote: Address | None) -> bytes | None:
    """Admit every connection: the default of `Listener.admit`."""
    return None


def release_nothing(remote: Address | None) -> None:
    """Do nothing: the default of `Listener.release`."""


def rest_never() -> float:
    """Accept at once: the default of `Listener.rest`."""
    return 0.0


@dataclass(slots=True, frozen=True, eq=False)
class Listener:
    """A listening socket and what is done with its connections.

    `socket`: bound and listening; the driver owns it from `serve` on and closes it when it stops.
    `session`: makes the session of a connection.
    `admit`: called with the peer's address for each connection; None admits it, bytes refuse it: they are
    sent, all of them or none, and the connection is closed. `release`: called with the same address when an
    admitted connection has ended. Both are called in the accepting thread or in that of the session, must
    not block, and get None where the peer has no IP address (unix sockets).
    `rest`: called when a connection waits, before it is accepted; for so many seconds it is left to others who wait at
    the same socket, and is accepted then if it is still there.
    """

    socket: socket.socket
    session: SessionFactory
    admit: Callable[[Address | None], bytes | None] = admit_all
    release: Callable[[Address | None], None] = release_nothing
    rest: Callable[[], float] = rest_never


def accept(listener: Listener, report: Report) -> tuple[socket.socket, Address | None] | None:
    """Return the next admitted connection and its peer's address; None when there is none among the first
    `TAKEN_AT_ONCE`: then ask again once the socket is readable.

    Raises OSError when the system is at its limits: see `Backoff`. The listening socket must not block.
    """
    for _ in range(TAKEN_AT_ONCE):
        try:
            connection, name = listener.socket.accept()
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _PASSING:
                continue
            raise
        remote = address(name)
        try:
            refusal = listener.admit(remote)
        except Exception as error:
            tell(report, error)
            refusal = b""
        if refusal is None:
            return connection, remote
        _refuse(connection, refusal)
    return None


def release(listener: Listener, remote: Address | None, report: Report) -> None:
    """Call `listener.release`."""
    try:
        listener.release(remote)
    except Exception as error:
        tell(report, error)


def tell(report: Report, error: BaseException) -> None:
    """Call `report`, which is not ours either: what it raises must not end the server."""
    try:
        report(error)
    except Exception as further:
        report_to_stderr(further)


def _refuse(connection: socket.socket, refusal: bytes) -> None:
    """Send `refusal` if the empty send buffer takes it, which it does, and close."""
    with connection:
        try:
            connection.setblocking(False)
            connection.send(refusal)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(RECEIVE_SIZE)  # unread input would turn the close into a reset
        except OSError:
            pass


class Backoff:
    """How long to leave accept() alone after it failed, and whether that is to be said."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._delay = 0.0
        self._last = 0.0

    def failed(self, error: OSError) -> float:
        """Note the failure; return the seconds to wait: 0.1 at first, doubled up to 1 while it lasts."""
        now = time.monotonic()
        if self._delay and now - self._last < BURST_SECONDS:
            self._delay = min(self._delay * 2, 1.0)
        else:
            self._delay = 0.1
            tell(self._report, error)
        self._last = now
        return self._delay


def close_gently(connection: socket.socket) -> None:
    """Close a blocking socket so that our last reply arrives.

    Closing over unread input sends a reset, which can overtake what we sent last, so that the peer sees an
    error in place of the reply. So input is thrown away first, and if there was some, until the peer
    closes too, within `LINGER_SECONDS` and `LINGER_BYTES`.
    """
    with connection:
        try:
            if not connection.recv(RECEIVE_SIZE, socket.MSG_DONTWAIT):
                return
            connection.shutdown(socket.SHUT_WR)
            end = time.monotonic() + LINGER_SECONDS
            left = LINGER_BYTES
            while left > 0 and (seconds := end - time.monotonic()) > 0:
                connection.settimeout(seconds)
                data = connection.recv(RECEIVE_SIZE)
                if not data:
                    return
                left -= len(data)
        except OSError:  # nothing there (the usual case), too late, or reset by the peer
            pass


def address(name: object) -> Address | None:
    """Return a socket's name, as accept() or getsockname() give it, as an `Address`."""
    if not isinstance(name, tuple):
        return None  # a unix socket's path
    if len(name) == 2:
        return name  # IPv4
    host: str = name[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]  # RFC 4291 2.5.5.2
    return host, name[1]


def no_delay(connection: socket.socket) -> None:
    """Send small writes at once: with Nagle's algorithm, replies wait for the peer's delayed ACK."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        pass  # not TCP


def raise_descriptor_limit(wanted: int = 65_536) -> None:
    """Raise the soft limit on open files towards `wanted`, as far as the hard limit lets it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            pass  # some systems allow less than they say


def report_to_stderr(error: BaseException) -> None:
    """Print `error` with its traceback: the default of every `report`."""
    import sys
    import traceback

    print("".join(traceback.format_exception(error)), file=sys.stderr, end="", flush=True)
