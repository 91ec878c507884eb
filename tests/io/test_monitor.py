"""The HTTP of a monitor: what it answers, and what its clients cannot do."""

import select
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io import monitor as module
from mailfront_io.monitor import MAX_CLIENTS, MAX_REQUEST, SECONDS, Monitor, answer, in_thread

TEXT = "mailfront_workers 1\n"


def asked(request: bytes, state: str = "ready") -> tuple[int, dict[str, str], bytes]:
    """Status, header and body of an answer."""
    head, _, body = answer(request, lambda: TEXT, lambda: state).partition(b"\r\n\r\n")
    status, *fields = head.decode("ascii").split("\r\n")
    header = dict(field.split(": ", 1) for field in fields)
    assert header["Connection"] == "close"
    return int(status.split()[1]), header, body


@pytest.mark.parametrize(
    ("request_line", "state", "code", "body"),
    [
        (b"GET /metrics HTTP/1.1", "ready", 200, TEXT.encode()),
        (b"GET /metrics?x=1 HTTP/1.0", "stopping", 200, TEXT.encode()),
        (b"HEAD /metrics HTTP/1.1", "ready", 200, b""),
        (b"GET /healthz HTTP/1.1", "stopping", 200, b"alive\n"),
        (b"GET /readyz HTTP/1.1", "ready", 200, b"ready\n"),
        (b"GET /readyz HTTP/1.1", "starting", 503, b"starting\n"),
        (b"GET / HTTP/1.1", "ready", 404, b"there are /metrics, /healthz and /readyz\n"),
        (b"GET /metrics/ HTTP/1.1", "ready", 404, b"there are /metrics, /healthz and /readyz\n"),
        (b"POST /metrics HTTP/1.1", "ready", 405, b"only GET and HEAD\n"),
        (b"GET /metrics", "ready", 400, b"write GET /metrics HTTP/1.1\n"),
        (b"GET /metrics HTTP/2.0", "ready", 400, b"write GET /metrics HTTP/1.1\n"),
        (b"", "ready", 400, b"write GET /metrics HTTP/1.1\n"),
    ],
)
def test_answers(request_line: bytes, state: str, code: int, body: bytes) -> None:
    status, header, said = asked(request_line + b"\r\nHost: x\r\n\r\n", state)
    assert (status, said) == (code, body)
    if not request_line.startswith(b"HEAD"):
        assert int(header["Content-Length"]) == len(body)
    if body == TEXT.encode():
        assert header["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert (header.get("Allow") == "GET, HEAD") == (code == 405)


@given(st.binary(max_size=300))
def test_no_request_is_repeated_or_raises(request: bytes) -> None:
    status, _, body = asked(request)
    assert status in (200, 400, 404, 405)
    assert body in (b"", b"alive\n", b"ready\n", TEXT.encode()) or status != 200


class Served:
    """A monitor on a free port, and clients; `turns` gives it turns until nothing is left to do."""

    def __init__(self, text: str = TEXT) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.listening.setblocking(False)
        self.monitor = Monitor(self.listening, lambda: text, lambda: "ready")
        self.clients: list[socket.socket] = []

    def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.listening.getsockname(), 60)
        self.clients.append(client)
        client.sendall(data)
        return client

    def turns(self) -> None:
        while True:
            poller = select.poll()
            self.monitor.register(poller)
            if not poller.poll(10):
                return
            self.monitor.turn()

    def places(self) -> int:
        return len(self.monitor._clients)


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.monitor.close_clients()
    for each in (*served.clients, served.listening):
        each.close()


def whole(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def test_one_request_a_connection_in_any_cutting(served: Served) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for cut in range(1, len(request)):
        client = served.connect(request[:cut])
        served.turns()
        assert served.places() == 1
        client.sendall(request[cut:])
        served.turns()
        assert whole(client).endswith(b"\r\n\r\nalive\n")
    client = served.connect(2 * request)
    served.turns()
    assert whole(client).count(b"alive") == 1
    assert served.places() == 0


def test_a_request_has_a_size(served: Served) -> None:
    client = served.connect(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * MAX_REQUEST)
    served.turns()
    assert client.recv(65536).startswith(b"HTTP/1.1 431 ")
    assert served.places() == 0


def test_who_is_slow_loses_the_place(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(module, "time", clock)
    client = served.connect(b"GET /healthz HTTP/1.1\r\n")
    served.turns()
    now += SECONDS - 1
    client.sendall(b"X: y\r\n")  # bytes gain nothing
    served.turns()
    assert served.places() == 1 and served.monitor.wait() == pytest.approx(1.0)
    now += 1
    assert served.monitor.wait() == 0
    served.monitor.turn()
    assert served.places() == 0 and served.monitor.wait() is None
    assert whole(client) == b""


def test_who_does_not_read_loses_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    served = Served("x" * 50_000_000)
    try:
        served.connect(b"GET /metrics HTTP/1.1\r\n\r\n")
        served.turns()
        assert served.places() == 1
        now += SECONDS
        served.monitor.turn()
        assert served.places() == 0
    finally:
        for each in (*served.clients, served.listening):
            each.close()


def test_many_who_say_nothing_keep_nobody_out(served: Served) -> None:
    for _ in range(3 * MAX_CLIENTS):
        served.connect()
        served.turns()
        assert served.places() <= MAX_CLIENTS
    client = served.connect(b"GET /readyz HTTP/1.1\r\n\r\n")
    served.turns()
    assert whole(client).endswith(b"ready\n")


def test_a_turn_takes_so_many_and_no_more(served: Served) -> None:
    requests = [served.connect(b"GET /readyz HTTP/1.1\r\n\r\n") for _ in range(MAX_CLIENTS + 1)]
    served.monitor.turn()
    assert served.places() == MAX_CLIENTS
    served.turns()
    assert all(whole(client).endswith(b"ready\n") for client in requests)


def test_who_is_gone_is_no_fault(served: Served) -> None:
    for request in (b"", b"GET /metrics HTTP/1.1\r\n\r\n"):
        client = served.connect(request)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()  # by a reset
        served.turns()
        assert served.places() == 0


def test_without_descriptors_it_rests_for_a_second(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __getattr__(self, name: str) -> object:
            return getattr(served.listening, name)

        def accept(self) -> object:
            raise OSError(24, "Too many open files")

    served.monitor.listening = Full()  # type: ignore[assignment]
    served.monitor.turn()
    assert 0 < (served.monitor.wait() or 0) <= 1
    poller = select.poll()
    served.monitor.register(poller)
    served.connect()
    assert poller.poll(0) == []


def test_in_a_thread() -> None:
    served = Served()
    before = threading.active_count()
    with in_thread(served.monitor):
        client = served.connect(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert whole(client).endswith(TEXT.encode())
        client.close()
    assert threading.active_count() == before
    assert served.listening.fileno() == -1
