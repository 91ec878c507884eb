"""Sockets of our own: names to places, connecting, datagrams. One of the system's doors (`drivers.doors`)."""

import errno
import os
import socket
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from mailfront_io.drivers.listener import address, no_delay
from mailfront_io.drivers.stepper import READ, WRITE, Interest, Ready
from mailfront_io.drivers.streams import SocketStream
from mailfront_io.drivers.threads import call
from mailfront_io.ops import RECEIVE_SIZE, Clock, DeadlineExceeded, Operation
from mailfront_io.peers import Address

Steps = Generator[Operation[Any], Any, Any]

FULL_QUEUE_SECONDS = 0.02
"""When to try again a unix socket whose queue is full: the system does not tell when it no longer is."""


class Place(NamedTuple):
    """A socket address with its family."""

    family: int
    name: Any

    def __str__(self) -> str:
        if isinstance(self.name, tuple):
            return f"{self.name[0]} port {self.name[1]}"
        return os.fsdecode(self.name)


def look_up(address: Address, deadline: float | None, datagrams: bool) -> Steps:
    """All places that `address` stands for; a host name goes to the system's resolver, in a thread."""
    if isinstance(address, str):
        return [Place(socket.AF_UNIX, address)]
    host, port = address
    kind = socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_NUMERICHOST)
    except UnicodeError:
        raise OSError(errno.EINVAL, "this is no host name") from None
    except socket.gaierror:  # no IP address
        found = yield from call(socket.getaddrinfo, (host, port, 0, kind), deadline)
    return [Place(family, name) for family, _, _, _, name in found]


def address_of(place: Place) -> Address:
    """The address of `place`: (IP address, port), or a path."""
    return address(place.name) or str(place)


def connect(place: Place, deadline: float | None, clock: Clock) -> Steps:
    """Connect to `place`: the stream. Raises OSError, DeadlineExceeded."""
    connection = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        while (number := connection.connect_ex(place.name)) not in (0, errno.EISCONN):
            if number in (errno.EINPROGRESS, errno.EALREADY):
                yield Ready(((connection.fileno(), WRITE),), deadline)
            elif number == errno.EAGAIN and place.family == socket.AF_UNIX:
                try:
                    yield Ready((), clock.monotonic() + FULL_QUEUE_SECONDS)
                except DeadlineExceeded:
                    if deadline is not None and deadline <= clock.monotonic():
                        raise
            else:
                raise OSError(number, os.strerror(number))
        no_delay(connection)
        return SocketStream(connection)
    except BaseException:
        connection.close()
        raise


class UDPSocket:
    """A `doors.DatagramSocket`. Connected, so that the system lets nothing in from elsewhere."""

    def __init__(self, place: Place) -> None:
        self._socket = socket.socket(place.family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(place.name)
        except BaseException:
            self._socket.close()
            raise
        self._receiving = ((self._socket.fileno(), READ),)

    def send(self, data: bytes) -> None:
        """See `DatagramSocket`."""
        try:
            self._socket.send(data)
        except BlockingIOError:
            pass  # lost, as datagrams may be

    def receive(self) -> bytes | None:
        """See `DatagramSocket`."""
        try:
            return self._socket.recv(RECEIVE_SIZE)
        except BlockingIOError:
            return None

    def receiving(self) -> Sequence[Interest]:
        """See `DatagramSocket`."""
        return self._receiving

    def close(self) -> None:
        """See `DatagramSocket`."""
        self._socket.close()
