"""What a server says of itself by HTTP: ``/metrics``, ``/healthz`` and ``/readyz``, one request a connection.

`Monitor` does nothing by itself: whoever waits with ``poll`` anyway registers its descriptors, and gives it a turn
afterwards. The supervisor does; where there is none, `in_thread` does. Nothing in it waits, a client has `SECONDS` and
`MAX_REQUEST` bytes, and `MAX_CLIENTS` of them have a place: then the oldest one loses it.
"""

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from mailfront_io.metrics import CONTENT_TYPE

SECONDS: Final = 5.0
"""For a client: its request, and the reading of the answer."""

MAX_REQUEST: Final = 8192
"""Bytes of a request's head."""

MAX_CLIENTS: Final = 16

_REASONS: Final = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}  # fmt: skip


def answer(request: bytes, metrics: Callable[[], str], state: Callable[[], str]) -> bytes:
    """The answer to `request`, the head of one. `state`: ``ready``, or why it is not."""
    words = request.partition(b"\n")[0].split()
    code, kind, extra = 200, "text/plain; charset=utf-8", ""
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        code, text = 400, "write GET /metrics HTTP/1.1"
    elif words[0] not in (b"GET", b"HEAD"):
        code, text, extra = 405, "only GET and HEAD", "Allow: GET, HEAD\r\n"
    else:
        match words[1].partition(b"?")[0]:
            case b"/metrics":
                text, kind = metrics(), CONTENT_TYPE
            case b"/healthz":
                text = "alive"
            case b"/readyz":
                text = state()
                code = 200 if text == "ready" else 503
            case _:
                code, text = 404, "there are /metrics, /healthz and /readyz"
    body = text.encode("utf-8", "backslashreplace") + (b"" if text.endswith("\n") else b"\n")
    head = _head(code, kind, len(body), extra)
    return head if words[:1] == [b"HEAD"] else head + body


def _head(code: int, kind: str, size: int, extra: str = "") -> bytes:
    return (
        f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n{extra}"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode()


class _Client:
    """A connection. `left`: of the answer, None while the request is awaited."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.end = time.monotonic() + SECONDS
        self.request = b""
        self.left: bytes | None = None


class Monitor:
    """Answers on `listening`, a socket that does not block. `metrics`: the text of ``/metrics``; `state`: ``ready``, or
    why it is not."""

    def __init__(self, listening: socket.socket, metrics: Callable[[], str], state: Callable[[], str]) -> None:
        self.listening = listening
        self._metrics = metrics
        self._state = state
        self._clients: dict[int, _Client] = {}
        self._rests_until = 0.0
        """When to accept again, where the system was out of descriptors."""

    def register(self, poller: select.poll) -> None:
        """Register every descriptor that a turn may do something about."""
        if self._rests_until <= time.monotonic():
            poller.register(self.listening, select.POLLIN)
        for descriptor, client in self._clients.items():
            poller.register(descriptor, select.POLLIN if client.left is None else select.POLLOUT)

    def wait(self) -> float | None:
        """Seconds until a turn is due in any case; None: none is."""
        now = time.monotonic()
        ends = [client.end for client in self._clients.values()]
        if self._rests_until > now:
            ends.append(self._rests_until)
        return max(0.0, min(ends) - now) if ends else None

    def turn(self) -> None:
        """Do what can be done without waiting. Raises nothing because of a client."""
        now = time.monotonic()
        for client in list(self._clients.values()):
            try:
                done = self._go_on(client)
            except BlockingIOError:
                done = False
            except OSError:
                done = True
            if done or client.end <= now:
                self._close(client)
        for _ in range(MAX_CLIENTS):  # who gives the turns has other things to do
            try:
                connection, _ = self.listening.accept()
            except BlockingIOError:
                return
            except OSError:  # gone already; or no descriptor is left
                self._rests_until = now + 1.0
                return
            connection.setblocking(False)
            if len(self._clients) >= MAX_CLIENTS:
                self._close(min(self._clients.values(), key=lambda client: client.end))
            self._clients[connection.fileno()] = _Client(connection)

    def _go_on(self, client: _Client) -> bool:
        """Read or write as much as there is; whether that was all."""
        connection = client.connection
        while client.left is None:
            data = connection.recv(MAX_REQUEST)
            client.request += data
            if b"\r\n\r\n" in client.request or b"\n\n" in client.request:
                client.left = answer(client.request, self._metrics, self._state)
            elif len(client.request) > MAX_REQUEST:
                client.left = _head(431, "text/plain", 0)
            elif not data:
                return True
        while client.left:
            client.left = client.left[connection.send(client.left) :]
        connection.shutdown(socket.SHUT_WR)
        with suppress(BlockingIOError):
            connection.recv(MAX_REQUEST)  # unread input would turn the close into a reset
        return True

    def _close(self, client: _Client) -> None:
        del self._clients[client.connection.fileno()]
        client.connection.close()

    def close_clients(self) -> None:
        """Close what is open, but for the listening socket."""
        for client in list(self._clients.values()):
            self._close(client)


@contextmanager
def in_thread(monitor: Monitor) -> Iterator[None]:
    """Give turns to `monitor` in a thread for as long as the block lasts; then close it, and its socket."""
    wake, wake_end = os.pipe()

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the main thread's
        while True:
            poller = select.poll()
            poller.register(wake, select.POLLIN)
            monitor.register(poller)
            wait = monitor.wait()
            if any(descriptor == wake for descriptor, _ in poller.poll(None if wait is None else wait * 1000 + 1)):
                return
            monitor.turn()

    thread = threading.Thread(target=run, name="mailfront monitor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.write(wake_end, b".")
        thread.join()
        for descriptor in (wake, wake_end):
            os.close(descriptor)
        monitor.close_clients()
        monitor.listening.close()
