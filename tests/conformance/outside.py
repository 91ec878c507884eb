"""Whom plugins talk to in the sessions: helpers with one answer each, and a name server. Real ones on loopback, and the
same as scripts."""

import contextlib
import socket
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from mailfront_io.drivers.scripted import Somebody
from mailfront_io.peers import Address, ResolveFailed
from mailfront_io.testing import EOF, UNTIL_EOF, Action, Outside, WaitFor
from tests.conformance.session_file import Helper, Record, Session

FIRST_PORT = 10_001
"""Of the helpers of a script."""

SECONDS = 30.0


def scripted_ports(session: Session) -> dict[str, int]:
    """The ports of the helpers of a script, by name."""
    return {name: FIRST_PORT + number for number, name in enumerate(session.helpers)}


def scripted(session: Session) -> Outside:
    """Everybody whom `session` talks to, as scripts."""
    ports = scripted_ports(session)
    known: dict[tuple[str, str], list[str | bytes] | Exception] = {}
    for record in session.records:
        if record.fails:
            known |= {(record.name, kind): ResolveFailed("no") for kind in ("A", "TXT")}
        else:
            value = record.value.encode("latin-1") if record.kind == "TXT" else record.value
            known[record.name, record.kind] = [value]  # one of each: servers give several in any order
    peers: dict[Address, Somebody] = {
        ("127.0.0.1", ports[name]): _script(helper) for name, helper in session.helpers.items()
    }
    return Outside(peers=peers, dns=known)


def _script(helper: Helper) -> list[Action]:
    return [WaitFor(helper.until) if helper.until else UNTIL_EOF, *filter(None, [helper.answer]), EOF]


class Helpers:
    """The helpers of a session, real ones, for ``with``; `ports` by name; `received`: what each connection has sent."""

    def __init__(self, helpers: Mapping[str, Helper]) -> None:
        self.ports: dict[str, int] = {}
        self.received: list[bytes] = []
        self._listening: list[socket.socket] = []
        for name, helper in helpers.items():
            listening = socket.create_server(("127.0.0.1", 0))
            self._listening.append(listening)
            self.ports[name] = listening.getsockname()[1]
            threading.Thread(target=self._serve, args=(listening, helper), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for listening in self._listening:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def _serve(self, listening: socket.socket, helper: Helper) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connection.settimeout(SECONDS)
                with connection, contextlib.suppress(OSError):
                    received = b""
                    while not helper.until or helper.until not in received:
                        if not (data := connection.recv(65536)):
                            break
                        received += data
                    self.received.append(received)
                    connection.sendall(helper.answer)


class NameServer:
    """A name server with `records`, for ``with``; `address`: as ``$NAMESERVERS`` has it."""

    def __init__(self, records: Iterable[Record], at: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self._records = list(records)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(at)
        self.address = "{}:{}".format(*self._socket.getsockname())
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.sendto(b"", self._socket.getsockname())  # it is waiting
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(4096)
            if not data:
                return
            self._socket.sendto(self._answer(dns.message.from_wire(data)).to_wire(), sender)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        found = [record for record in self._records if record.name == name]
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        texts = [_quoted(record.value) if kind == "TXT" else record.value for record in found if record.kind == kind]
        if not found:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif any(record.fails for record in found):
            response.set_rcode(dns.rcode.SERVFAIL)
        elif texts:
            response.answer.append(dns.rrset.from_text_list(question.name, 300, "IN", kind, texts))
        return response


def _quoted(text: str) -> str:
    """A string of a TXT record, as zone files have it."""
    return '"' + "".join(c if c.isalnum() else f"\\{ord(c):03d}" for c in text) + '"'
