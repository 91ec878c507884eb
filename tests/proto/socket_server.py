"""A server machine on one end of a pair of sockets, in a thread, for clients that others wrote."""

import socket
import threading
from collections.abc import Callable
from typing import Any

from mailfront_proto.pull import NEED_DATA, PAUSED
from tests.certificates import server_context

PATIENCE = 60
"""Seconds until a peer is taken to hang."""


class SocketServer(threading.Thread):
    """One session of `machine`; `react` gets each event. `failure`: what was raised, if anything."""

    def __init__(self, ours: socket.socket, machine: Any, react: Callable[[Any, Any], None]) -> None:
        super().__init__(daemon=True)
        self.machine = machine
        self.failure: Exception | None = None
        self._socket = ours
        self._react = react

    def run(self) -> None:
        """Until the session has ended."""
        try:
            self._serve()
        except Exception as error:
            self.failure = error
        finally:
            self._socket.close()

    def finish(self) -> None:
        """The client has done what it wanted: see that the session ends, and that nothing was wrong."""
        self.join(PATIENCE)
        assert not self.is_alive()
        assert self.failure is None

    def _serve(self) -> None:
        machine, last = self.machine, None
        while (event := machine.next_event()) is not last:
            if event is NEED_DATA or event is PAUSED:
                self._drain()
                if machine.state.name == "TLS":
                    self._socket = server_context().wrap_socket(self._socket, server_side=True)
                    machine.tls_established()
                elif event is NEED_DATA:
                    data = self._socket.recv(65536)
                    machine.receive_data(data) if data else machine.receive_eof()
            else:
                last = event
                self._react(machine, event)
        self._drain()

    def _drain(self) -> None:
        output = self.machine.data_to_send()
        if output:  # even nothing cannot be sent to a client that has closed
            self._socket.sendall(output)
