"""Helpers that sessions talk to, real ones on loopback, each a few lines in a thread of the test."""

import contextlib
import os
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset

from tests.certificates import authority, server_context

Serve = Callable[[socket.socket], None]

RST = struct.pack("ii", 1, 0)
"""SO_LINGER that turns the close into a reset."""


def shout(connection: socket.socket) -> None:
    """Answers each line in upper case, until a line ``bye``."""
    with connection.makefile("rb") as lines:
        for line in lines:
            connection.sendall(line.upper())
            if line == b"bye\n":
                return


def echo(connection: socket.socket) -> None:
    """Sends back everything, and then the end."""
    while data := connection.recv(1 << 18):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def checksum(connection: socket.socket) -> None:
    """Reads to the end, then says what it was."""
    size = crc = 0
    while data := connection.recv(1 << 18):
        size += len(data)
        crc = zlib.crc32(data, crc)
    connection.sendall(b"%d %d\n" % (size, crc))


def reset(connection: socket.socket) -> None:
    """Breaks the connection after the first bytes."""
    connection.recv(100)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)


def silence(connection: socket.socket) -> None:
    """Neither reads nor says anything, until it is closed by the other side or the test."""
    connection.settimeout(30)
    with contextlib.suppress(OSError):
        while connection.recv(1, socket.MSG_PEEK):
            threading.Event().wait(0.05)


def chatter(connection: socket.socket) -> None:
    """Never stops talking."""
    while True:
        connection.sendall(b"bla\n" * 1000)


class Helpers:
    """All of them; `addresses` by name, as JSON takes them. A context manager."""

    def __init__(self, directory: Path) -> None:
        self.addresses: dict[str, Any] = {}
        self._directory = directory
        self._stack = ExitStack()

    def __enter__(self) -> "Helpers":
        for serve in (shout, echo, checksum, reset, silence, chatter):
            self._listen(serve.__name__, socket.create_server(("127.0.0.1", 0), backlog=64), serve)
        six = socket.create_server(("::1", 0), family=socket.AF_INET6)
        self._listen("shout6", six, shout)
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(self._directory / "socket"))
        unix.listen()
        self._listen("unix", unix, shout)
        self._listen("tls", socket.create_server(("127.0.0.1", 0)), shout, server_context())
        self._listen("starttls", socket.create_server(("127.0.0.1", 0)), self._starttls)
        # Nobody answers at an address that is bound and not listened to, nor can anybody else take it meanwhile.
        refused = self._stack.enter_context(socket.socket())
        refused.bind(("127.0.0.1", 0))
        self.addresses["refused"] = refused.getsockname()
        self._full()
        self._datagrams("udp", self._answer_late)
        self._datagrams("stranger", self._answer_from_elsewhere)
        nobody = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        nobody.bind(("127.0.0.1", 0))
        nobody.connect(nobody.getsockname())  # takes datagrams from itself alone
        self.addresses["udp_refused"] = nobody.getsockname()
        self._names()
        authority().cert_pem.write_to_path(str(self._directory / "ca.pem"))
        self.addresses["ca"] = str(self._directory / "ca.pem")
        self.addresses["missing"] = str(self._directory / "nothing")
        self.addresses["directory"] = str(self._directory)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _listen(
        self, name: str, listening: socket.socket, serve: Serve, context: ssl.SSLContext | None = None
    ) -> None:
        def one(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                if context is not None:
                    connection = context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
                stack.enter_context(connection)
                serve(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        self._stack.callback(listening.close)
        with contextlib.suppress(OSError):
            self._stack.callback(_shut, listening)
        threading.Thread(target=accept, daemon=True).start()
        self.addresses[name] = listening.getsockname()[:2] if name != "unix" else listening.getsockname()

    def _starttls(self, connection: socket.socket) -> None:
        connection.sendall(b"ready\n")
        with server_context().wrap_socket(connection, server_side=True) as inside:
            shout(inside)

    def _full(self) -> None:
        """An address that does not answer: its queue is full."""
        listening = self._stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = self._stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        self.addresses["silent"] = listening.getsockname()

    def _datagrams(self, name: str, answer: Callable[[socket.socket, bytes, Any], None], port: int = 0) -> None:
        bound = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        bound.bind(("127.0.0.1", port))
        bound.settimeout(60)
        self._stack.callback(_shut, bound)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    answer(bound, *bound.recvfrom(65536))

        threading.Thread(target=serve, daemon=True).start()
        self.addresses[name] = bound.getsockname()

    _asked: frozenset[Any] = frozenset()

    def _answer_late(self, bound: socket.socket, data: bytes, sender: Any) -> None:
        """Loses the first datagram of each sender, and answers the second twice, once wrongly."""
        if sender in self._asked:
            bound.sendto(b"wrong", sender)
            bound.sendto(b"right " + data, sender)
        self._asked |= {sender}

    def _answer_from_elsewhere(self, _bound: socket.socket, data: bytes, sender: Any) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            other.sendto(b"right " + data, sender)

    def _names(self) -> None:
        """A name server, by UDP and TCP on the same port."""
        while "name_server" not in self.addresses:
            listening = socket.create_server(("127.0.0.1", 0))
            self._listen("name_server_tcp", listening, self._answer_questions)
            with contextlib.suppress(OSError):  # somebody else has the port by UDP
                self._datagrams("name_server", self._answer_question, listening.getsockname()[1])

    def _answer_question(self, bound: socket.socket, data: bytes, sender: Any) -> None:
        query = dns.message.from_wire(data)
        seconds = 1.0 if query.question[0].name.labels[0].startswith(b"slow") else 0.0
        if query.question[0].name.labels[0] == b"lost":
            return
        if query.question[0].name.labels[0] == b"forged":
            forged = answers(query)
            forged.id ^= 1
            bound.sendto(forged.to_wire(), sender)
            bound.sendto(b"\0" * 5, sender)
        wire = answers(query).to_wire(max_size=65535)
        if len(wire) > 1232:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC
            wire = short.to_wire()
        threading.Timer(seconds, lambda: _send(bound, wire, sender)).start() if seconds else _send(bound, wire, sender)

    def _answer_questions(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            size = int.from_bytes(file.read(2), "big")
            wire = answers(dns.message.from_wire(file.read(size))).to_wire(max_size=65535)
        connection.sendall(len(wire).to_bytes(2, "big") + wire)


def _send(bound: socket.socket, wire: bytes, to: Any) -> None:
    with contextlib.suppress(OSError):
        bound.sendto(wire, to)


def _shut(listening: socket.socket) -> None:
    """Wake whoever waits in it."""
    with contextlib.suppress(OSError):
        listening.shutdown(socket.SHUT_RDWR)


ZONE = {
    ("mail.example", "A"): ["192.0.2.1", "192.0.2.2"],
    ("mail.example", "AAAA"): ["2001:db8::1"],
    ("mail.example", "MX"): ["20 Backup.mail.example.", "10 mx.mail.example."],
    ("mail.example", "TXT"): ['"v=spf1 " "-all"', '"other"'],
    ("alias.example", "CNAME"): ["mail.example."],
    ("null.example", "MX"): ["0 ."],
    ("odd.example", "MX"): ['10 a\\032b.example.', "10 ok.example.", '10 x\\010y.example.', "10 *.example."],
    ("many.example", "A"): [f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(900)],
    ("huge.example", "TXT"): [f'"{i:05}{"x" * 200}"' for i in range(250)],
    ("long.example", "TXT"): [f'"{i:05}{"x" * 200}"' for i in range(40)],
    **{(f"slow{i}.example", "A"): [f"127.0.0.{i}"] for i in range(8)},
    ("forged.example", "A"): ["192.0.2.9"],
}


def answers(query: dns.message.Message) -> dns.message.Message:
    """What the zone above has to say."""
    response = dns.message.make_response(query)
    question = query.question[0]
    name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
    if name.startswith("broken."):
        response.set_rcode(dns.rcode.SERVFAIL)
    elif not any(known == name for known, _ in ZONE):
        response.set_rcode(dns.rcode.NXDOMAIN)
    if (name, "CNAME") in ZONE:
        target = ZONE[name, "CNAME"][0]
        response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "CNAME", target))
        name = target.rstrip(".")
    if (name, kind) in ZONE:
        owner = dns.name.from_text(name)
        response.answer.append(dns.rrset.from_text_list(owner, 60, "IN", kind, ZONE[name, kind]))
    return response


@contextlib.contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Set it for the processes that are started meanwhile, and for this one."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
