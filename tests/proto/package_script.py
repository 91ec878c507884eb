"""The QMTP and QMQP server machines played against scripted bytes, with the application of the recorded sessions.

An address that begins with letters and 4yz or 5yz is refused with that code (``x550y@a``), as a message is whose
sender begins with ``noend``.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mailfront_proto.qmtp import (
    Body,
    ConnectionClosed,
    MessageEnd,
    MessageRefused,
    MessageStart,
    QMTPServer,
    Recipient,
    Sender,
)
from mailfront_proto.qmtp.package import PackageServer
from mailfront_proto.testing import Outcome, Player, assert_chunk_invariant, whole
from tests.golden.recorded import Session, load

Verdict = tuple[int, str]
Check = Callable[[Sender | Recipient], Verdict | None]
Make = Callable[[], PackageServer]


def by_name(event: Sender | Recipient) -> Verdict | None:
    """The verdict that an address asks for."""
    code = re.match(r"[a-z]*([245][0-9][0-9])", str(event.address))
    return (int(code[1]), f"{code[1][0]}.1.0 Refused by name") if code and code[1][0] != "2" else None


class Application:
    """Answers as the original does with its echo backend; `log` is what it would write."""

    def __init__(self, check: Check = by_name) -> None:
        self.check = check
        self.log: list[str] = []
        self.body = b""
        self.sender = ""

    def __call__(self, machine: PackageServer, event: Any) -> None:
        """React to one event."""
        match event:
            case MessageStart(refusal=None):
                self.body = b""
                machine.accept()
            case Body(data):
                self.body += data
            case Sender() | Recipient():
                self.log.append(f"{type(event).__name__.lower()} <{event.address}>")
                if isinstance(event, Sender):
                    self.sender = str(event.address)
                verdict = self.check(event)
                if machine.answer_owed:
                    machine.reply(*verdict) if verdict else machine.accept()
            case MessageEnd():
                if self.sender.startswith("noend"):
                    machine.reply(554, "5.6.0 Not this")
                else:
                    machine.reply(250, f"Received {len(self.body)} bytes.")
            case MessageRefused(reply):
                self.log.append(str(reply))
            case ConnectionClosed(reply=reply) if reply is not None:
                self.log.append(str(reply))


def play(make: Make, wire: bytes, check: Check = by_name) -> Outcome:
    """What `wire` leads to; that it is the same under every split is asserted here."""
    return assert_chunk_invariant(lambda: Player(make(), Application(check)), [wire])


def lf_server() -> QMTPServer:
    """A server of the default profile that gives LF lines."""
    return QMTPServer(lf_bodies=True)


def responses(output: bytes) -> list[bytes]:
    """The contents of the netstrings in `output`."""
    found = []
    while output:
        length, _, rest = output.partition(b":")
        found.append(rest[: int(length)])
        assert rest[int(length) : int(length) + 1] == b","
        output = rest[int(length) + 1 :]
    return found


# -- recorded sessions of the original ---------------------------------------------------------------------


def check_fqdn(event: Sender | Recipient) -> tuple[int, str] | None:
    missing = event.address.raw and b"@" not in event.address.raw
    return (554, "5.1.2 Address is missing a domain name") if missing else None


def refuse_sender(event: Sender | Recipient) -> tuple[int, str] | None:
    return (550, "5.1.0 Mail system is not configured to accept that sender")


def accept_any(event: Sender | Recipient) -> None:
    return None


def check_of(plugins: Sequence[str]) -> Check:
    return check_fqdn if "check-fqdn" in plugins else accept_any if "accept" in plugins else refuse_sender


def recorded(protocol: str) -> list[Any]:
    return [pytest.param(s, id=s.name) for s in load() if s.argv[:2] == ("mailfront", protocol)]


def expected_log(session: Session) -> list[str]:
    """The lines of the log that are the protocol's: not the echo backend's, nor the byte counts."""
    lines = [line.decode("latin-1").partition(": ")[2] for line in session.outcome.stderr]
    return [line for line in lines if line.startswith(("sender ", "recipient ", "4", "5"))]


def check_recorded(session: Session, make: Make) -> None:
    """The output, the log and how it ended are as recorded, under every split."""
    check = check_of(session.argv[3:])
    outcome = play(make, session.stdin, check)
    assert outcome.output == session.outcome.stdout
    application = Application(check)
    Player(make(), application).play(whole([session.stdin]))
    assert application.log == expected_log(session)
    assert (session.outcome.exit == 0) is (outcome.events[-1].reply is None)
