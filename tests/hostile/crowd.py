"""A crowd at a server: connections that are idle after EHLO, hostile ones of many kinds, honest clients among them."""

import selectors
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from mailfront_io.drivers.listener import raise_descriptor_limit
from tests.benchmarks.accounting import memory_kb
from tests.certificates import write_pem
from tests.io.test_supervisor import Peer, Running, carried, until
from tests.serving import SECONDS, queue_directory, queued

Address = tuple[str, int]

EHLO = b"EHLO crowd.example\r\n"
ENVELOPE = EHLO + b"MAIL FROM:<a@crowd.example>\r\nRCPT TO:<b@mx.example.org>\r\n"
BLOCK = 8192
"""What a hostile connection sends at a time."""

PAUSE = 0.05
"""Seconds between two of its blocks."""

LATENCY = 60.0
"""Seconds that an honest client may need for its message, on any machine."""

IDLE_KB = {"asyncio": 20, "trio": 30, "blocking": 60, "fork": 6000}
HOSTILE_KB = {"asyncio": 400, "trio": 400, "blocking": 400, "fork": 6000}
ONCE_KB = 10_000
"""Bounds of memory (PSS) that docs/security.md states: of a connection, of hostile ones on an average, and of what is
loaded once."""

CONFIGURATION = """
    [server]
    hostname = "mx.example.org"
    [log]
    file = "mail.log"
    [[listener]]
    protocol = "smtp"
    listen = ["127.0.0.1:0"]
    plugins = ["counters", "accept"]
    backend = "queuedir"
    certificate = "{certificate}"
    max_connections = {most}
    [[listener]]
    name = "proxied"
    protocol = "smtp"
    listen = ["127.0.0.1:0"]
    proxies = ["127.0.0.1"]
    plugins = ["counters", "accept"]
    backend = "queuedir"
    [settings]
    queuedir = "{queue}"
    databytes = 1000000
    """


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="mx.example.org")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def _for_ever(*blocks: bytes) -> Iterator[bytes]:
    while True:
        yield from blocks


def _drip(data: bytes) -> Iterator[bytes]:
    for place in range(len(data)):
        yield data[place : place + 1]


def drips_a_command() -> Iterator[bytes]:
    """A byte at a time, and never a line."""
    yield EHLO
    yield from _drip(b"MAIL FROM:<" + 4000 * b"x")


def drips_a_message() -> Iterator[bytes]:
    """The same, in a message."""
    yield ENVELOPE + b"DATA\r\n"
    while True:
        yield from _drip(b"Subject: slow\r\n\r\nslow\r\n")


def sends_an_endless_line() -> Iterator[bytes]:
    """A command without an end."""
    yield EHLO
    yield from _for_ever(BLOCK * b"x")


def sends_an_endless_message() -> Iterator[bytes]:
    """A message of one line without an end."""
    yield ENVELOPE + b"DATA\r\n"
    yield from _for_ever(BLOCK * b"x")


def pipelines_without_end() -> Iterator[bytes]:
    """More and more recipients in large writes."""
    yield ENVELOPE
    yield from _for_ever(250 * b"RCPT TO:<b@mx.example.org>\r\n")


def floods_with_commands() -> Iterator[bytes]:
    """Commands that do nothing."""
    yield EHLO
    yield from _for_ever(1000 * b"NOOP\r\n")


def sends_oversized_lines() -> Iterator[bytes]:
    """Lines that are too long, one behind the other."""
    yield EHLO
    yield from _for_ever(2 * (4500 * b"x" + b"\r\n"))


def stops_in_the_handshake() -> Iterator[bytes]:
    """Half of a ClientHello."""
    yield EHLO + b"STARTTLS\r\n"
    hello = _client_hello()
    yield hello[: len(hello) // 2]
    yield from _for_ever(b"")


def drips_the_handshake() -> Iterator[bytes]:
    """A ClientHello, a byte at a time."""
    yield EHLO + b"STARTTLS\r\n"
    yield from _drip(_client_hello())


KINDS = (
    drips_a_command, drips_a_message, sends_an_endless_line, sends_an_endless_message, pipelines_without_end,
    floods_with_commands, sends_oversized_lines, stops_in_the_handshake, drips_the_handshake,
)  # fmt: skip


class _Attacker:
    """One hostile connection, opened anew whenever the server ends it. `reads`: or never does."""

    def __init__(self, address: Address, kind: int) -> None:
        self._address = address
        self._kind = KINDS[kind % len(KINDS)]
        self._reads = kind // len(KINDS) % 2 == 0
        self._socket: socket.socket | None = None
        self._script: Iterator[bytes] = iter(())
        self._left = b""

    def act(self) -> None:
        """Send what can be sent now, but no more than a block."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._address, SECONDS)
                self._socket.setblocking(False)
                self._script, self._left = self._kind(), b""
            with suppress(BlockingIOError):
                if self._reads and not self._socket.recv(BLOCK):
                    raise ConnectionResetError
            self._left = self._left or next(self._script, b"")
            with suppress(BlockingIOError):
                self._left = self._left[self._socket.send(self._left) :]
        except OSError:
            self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Attackers(threading.Thread):
    """So many hostile connections, of each kind alike, until the block ends. They send so many `rounds` of blocks, and
    then they only stay: what a crowd costs the server is finite, however slow the machine."""

    def __init__(self, address: Address, count: int, rounds: int) -> None:
        super().__init__()
        self._rounds = rounds
        self._attackers = [_Attacker(address, number) for number in range(count)]
        self._stop_now = threading.Event()
        self.done = 0

    def run(self) -> None:
        while not self._stop_now.is_set():
            if self.done < self._rounds:
                for attacker in self._attackers:
                    attacker.act()
                self.done += 1
            self._stop_now.wait(PAUSE)
        for attacker in self._attackers:
            attacker.close()

    def __enter__(self) -> "Attackers":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_now.set()
        self.join(SECONDS)
        assert not self.is_alive()


def idle(address: Address, count: int) -> list[socket.socket]:
    """Connections that have said EHLO and got the answer."""
    opened = []
    with selectors.DefaultSelector() as waiting:
        for number in range(count):
            connection = socket.create_connection(address, SECONDS)
            connection.sendall(EHLO)
            opened.append(connection)
            waiting.register(connection, selectors.EVENT_READ, bytearray())
            if number % 50 == 49 or number == count - 1:  # the server's queue is finite
                _wait_for_answers(waiting)
    return opened


def _wait_for_answers(waiting: selectors.BaseSelector) -> None:
    while waiting.get_map():
        ready = waiting.select(SECONDS)
        assert ready, "the server does not answer"
        for key, _ in ready:
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            data = connection.recv(4096)
            assert data, key.data
            key.data.extend(data)
            if b"\n250 " in key.data and key.data.endswith(b"\r\n"):
                waiting.unregister(connection)


def deliver(address: Address, number: int) -> float:
    """Deliver a message as an honest client does; the seconds that it took. Raises what `smtplib` does."""
    begun = time.monotonic()
    with smtplib.SMTP(*address, local_hostname="honest.example", timeout=SECONDS) as session:
        session.sendmail("a@honest.example", ["b@mx.example.org"], f"Subject: honest {number}\r\n\r\nhello\r\n")
    return time.monotonic() - begun


def stand_a_crowd(driver: str, directory: Path, idle_count: int, hostile_count: int, rounds: int) -> None:
    """Honest mail gets through within its time, memory stays within its bounds, and afterwards all is as before."""
    raise_descriptor_limit()
    queue = queue_directory(directory)
    text = CONFIGURATION.format(
        certificate=write_pem(directory), queue=queue, most=idle_count + hostile_count + 100
    ).replace("[server]", f"[server]\nmax_connections = {idle_count + hostile_count + 300}")
    bound = idle_count * IDLE_KB[driver] + hostile_count * HOSTILE_KB[driver] + ONCE_KB
    with Running(directory, text, "--driver", driver) as running:
        address, proxied = running.addresses
        [worker] = running.workers()
        sockets = carried(worker)
        deliver(address, 0)
        before = memory_kb(running.process.pid)
        waiting = idle(address, idle_count)
        with Attackers(address, hostile_count, rounds) as attackers, ThreadPoolExecutor(3) as honest:
            until(lambda: attackers.done >= rounds // 5)
            latencies = list(honest.map(lambda number: deliver(address, number), range(1, 10)))
            grown = [memory_kb(running.process.pid) - before]
            if driver != "fork":  # there a session counts nobody whom a proxy names
                networks_have_their_limits(proxied)
            until(lambda: attackers.done == rounds)
            latencies.append(deliver(address, 10))
            grown.append(memory_kb(running.process.pid) - before)
        for connection in waiting:
            assert connection.send(b"NOOP\r\n") == 6  # it is still there
        for connection in waiting:
            assert connection.recv(100).startswith(b"250 ")
            connection.close()
        until(lambda: carried(worker) == sockets)
        for connection in idle(address, idle_count):  # what was taken is used again
            connection.close()
        grown.append(memory_kb(running.process.pid) - before)
        until(lambda: carried(worker) == sockets)
        assert max(latencies) < LATENCY
        assert max(grown) < bound
        assert "Error:" not in (directory / "mail.log").read_text()
        assert running.workers() == [worker]
    assert len([message for sender, _, message in queued(queue) if b"honest" in message]) == 11


def networks_have_their_limits(address: Address) -> None:
    """Of one network whom a proxy names 100 connections are taken, of one client 20; others do not notice."""
    taken = [_named_by_proxy(address, f"203.0.113.{number}") for number in range(110)]
    assert [peer.greeting[:3] for peer in taken] == [b"220"] * 100 + [b"421"] * 10
    clients = [_named_by_proxy(address, f"2001:db8::{number:x}") for number in range(25)]
    assert [peer.greeting[:3] for peer in clients] == [b"220"] * 20 + [b"421"] * 5
    others = _named_by_proxy(address, "192.0.2.1")
    assert others.greeting[:3] == b"220"
    for peer in (*taken, *clients, others):
        peer.close()


def _named_by_proxy(address: Address, client: str) -> Peer:
    family, here = ("TCP6", "2001:db8::25") if ":" in client else ("TCP4", "192.0.2.25")
    return Peer(address, f"PROXY {family} {client} {here} 1234 25\r\n".encode())
