"""Connections to the next servers, kept between messages: a service's pool lends each to one transaction at a time.

A connection that lies idle may be closed by the server at any moment. One on which something has come meanwhile, an
end, a 421, an answer too many, is not used again. None is asked whether it lives (a NOOP would cost a round trip for
each message): where a lent one fails before the end of the message went out, the server cannot have taken it, and it is
sent again over a new one.
"""

import weakref
from _thread import allocate_lock
from typing import Final

from mailfront_io.backends.relay_settings import Server
from mailfront_io.frontends.smtp_client import SMTPClientSession
from mailfront_io.peers import Peer

IDLE_SECONDS: Final = 30.0
"""Idle time after which a connection is closed rather than used: servers bear 300 seconds and less under load (Postfix:
10), and what saves time is the next message of a burst."""

MAX_MESSAGES: Final = 100
"""Messages over one connection, so that servers behind a load balancer are all used."""


class UpstreamConnection:
    """A connection on which a session is open."""

    __slots__ = ("_idle_since", "exhausted", "messages", "peer", "server", "session")

    def __init__(self, server: Server, peer: Peer, session: SMTPClientSession) -> None:
        self.server = server
        self.peer = peer
        self.session = session
        self.messages = 0
        """Sent over it so far."""
        self.exhausted = False
        """The server takes no more in this session."""
        self._idle_since = 0.0

    @property
    def lasts(self) -> bool:
        """Whether it may be used for another message."""
        return self.session.usable and not self.exhausted and self.messages < MAX_MESSAGES

    def rest(self, now: float) -> None:
        """It is idle from `now` on."""
        self._idle_since = now

    def is_stale(self, now: float) -> bool:
        """Whether it was idle for too long."""
        return now - self._idle_since > IDLE_SECONDS

    def close(self) -> None:
        """Say QUIT where that may be said, and close without waiting for the answer: what was sent is settled."""
        self.peer.close(self.session.farewell)


class Pool:
    """At most `size` idle connections, to whatever server. What is left of them is closed when nobody has the pool any
    more, and at the end of the process. Threads may share it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._idle: list[UpstreamConnection] = []  # the youngest last
        self._lock = allocate_lock()
        weakref.finalize(self, _close_all, self._idle)

    def take(self, server: Server, now: float) -> UpstreamConnection | None:
        """The connection to `server` that was used last, if there is one that was silent since; those idle for too
        long are closed."""
        while (found := self._youngest(server, now)) is not None:
            if found.peer.is_quiet():
                return found
            found.close()
        return None

    def _youngest(self, server: Server, now: float) -> UpstreamConnection | None:
        found = None
        with self._lock:
            stale = [connection for connection in self._idle if connection.is_stale(now)]
            kept = [connection for connection in self._idle if connection not in stale]
            for connection in reversed(kept):
                if connection.server is server:
                    kept.remove(connection)
                    found = connection
                    break
            self._idle[:] = kept
        _close_all(stale)
        return found

    def give(self, connection: UpstreamConnection, now: float) -> None:
        """Keep `connection` for others, or close it if it has done its duty; the oldest makes room."""
        surplus = []
        if self._size and connection.lasts:
            connection.rest(now)
            with self._lock:
                self._idle.append(connection)
                if len(self._idle) > self._size:
                    surplus.append(self._idle.pop(0))
        else:
            surplus.append(connection)
        _close_all(surplus)


def _close_all(connections: list[UpstreamConnection]) -> None:
    while connections:
        connections.pop().close()
