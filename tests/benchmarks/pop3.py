"""The POP3 cases: mailboxes, servers of them, and a client that says all its commands at once.

C mailfront's part is pop3front-maildir under tcpserver, which knows no login; ours are ``mailfront serve pop3
maildir``, where every session logs in: what that costs is on our account. Names of messages tell no sizes, so that
both look at every file; all are in cur and read, so that QUIT has nothing to do and every session meets the same.
"""

import os
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.loadgen import SILENCE, Address
from tests.benchmarks.measure import Failed
from tests.benchmarks.servers import OURS, PEERS, Kind, Place, c_program, find_program, serving, tcpserver
from tests.benchmarks.targets import C_MAILFRONT

# How many links a file may have is the file system's affair; 65,000 in ext4.
_LINKS = 30_000

SIZES = {"P1": 1000, "P2": 100, "P3": 100_000}
"""Messages in the mailbox of each case."""

RETRIEVED = 1000
"""RETR commands of a P2 session: ten for each message."""

_LISTINGS = b"STAT\r\nLIST\r\nUIDL\r\nQUIT\r\n"
_RETRIEVALS = b"".join(b"RETR %d\r\n" % (n % SIZES["P2"] + 1) for n in range(RETRIEVED)) + b"QUIT\r\n"


class MailboxLoad:
    """Sessions one behind the other. `logs_in`: the server wants to know who is there."""

    def __init__(self, case: str, logs_in: bool) -> None:
        self.at_once = 1
        self.units = float(RETRIEVED if case == "P2" else 1)
        self._said = (b"USER joe\r\nPASS x\r\n" if logs_in else b"") + (_RETRIEVALS if case == "P2" else _LISTINGS)
        self._replies = self._said.count(b"\r\n") + 1
        self._messages = SIZES[case]
        self._answer = b""

    def rehearse(self, address: Address) -> None:
        self._answer = answer = self._session(address)
        good = answer.startswith(b"+OK ") + answer.count(b"\r\n+OK ")
        if b"-ERR" in answer or good != self._replies or not answer.endswith(b"\r\n+OK \r\n"):
            raise Failed(f"{good} of {self._replies} replies were +OK: {answer[:200]!r}")
        if self.units == 1 and b"\r\n+OK %d " % self._messages not in answer:
            raise Failed(f"it does not see {self._messages} messages: {answer[:200]!r}")

    def run(self, address: Address, connections: int) -> None:
        for _ in range(connections):
            if self._session(address) != self._answer:
                raise Failed("a session was not answered as the first one")

    def _session(self, address: Address) -> bytes:
        received = []
        try:
            with socket.create_connection(address, timeout=SILENCE) as sock:
                sock.sendall(self._said)
                while data := sock.recv(256 * 1024):
                    received.append(data)
        except OSError as error:
            raise Failed(str(error)) from error
        return b"".join(received)


def make_mailbox(scratch: Path, case: str) -> Path:
    """The place of a case: the maildir ``boxes/joe`` and the file ``users``, made when they are not there yet."""
    place = scratch / case
    if place.exists():
        return place
    cur = place / "boxes" / "joe" / "cur"
    for part in ("cur", "new", "tmp"):
        (cur.parent / part).mkdir(parents=True)
    (place / "users").write_text("joe:x\n")
    line = b"x" * 63 + b"\n"
    content = b"Subject: x\n\n" + line * (4096 // len(line))
    for number in range(SIZES[case]):
        name = cur / f"{1_700_000_000 + number}.M{number:06}P12345Q1.host.example.org:2,S"
        if number % _LINKS == 0:
            name.write_bytes(content)
            first = name
        else:
            os.link(first, name)
    return place


def kinds(scratch: Path, case: str, wanted: Iterable[str]) -> list[Kind]:
    """The servers of `case` that are in `wanted`, by their names."""
    place = make_mailbox(scratch, case)
    maildir = str(place / "boxes" / "joe")

    def c_mailfront(at: Place) -> list[str]:
        return [*tcpserver(at), c_program("pop3front-maildir"), maildir]

    def missing() -> str | None:
        found = PEERS[0].missing()
        if found is None and find_program("pop3front-maildir") is None:
            return f"{C_MAILFRONT} is left out: pop3front-maildir is not installed (make peers)."
        return found

    environment = {
        "AUTH_STORE": f"static:{place / 'users'}",
        "AUTH_REQUIRES_TLS": "0",
        "MAILDIR_ROOT": str(place / "boxes"),
    }
    found = [replace(PEERS[0], command=c_mailfront, missing=missing)]
    found += [replace(kind, command=serving(kind, ["pop3", "maildir"]), environment=environment) for kind in OURS]
    return [kind for kind in found if kind.name in wanted]
