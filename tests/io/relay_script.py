"""A service that relays, a client that says what it is told to, and next servers that are scripts."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from mailfront_io.peers import Address
from mailfront_io.service import service_from_line
from mailfront_io.testing import EOF, Action, Outside, Played, VirtualClock, WaitFor, run_script
from tests.front import codes

UP = ("up.example", 25)
SECOND = ("second.example", 2525)
LMTP = "/run/lmtp"

SETTINGS = {
    "smtp": {"UPSTREAM": "up.example", "UPSTREAM_TLS": "none", "UPSTREAM_HELO": "relay.example"},
    "lmtp": {"UPSTREAM": LMTP, "UPSTREAM_HELO": "relay.example"},
}
BODY = b"Subject: x\r\n\r\nHello.\r\n"
OFFERS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 60000000", "ENHANCEDSTATUSCODES")


def hello(*offers: str, verb: str = "EHLO") -> list[Action]:
    """The beginning of a next server's script."""
    return [b"220 up\r\n", *offering(*offers, verb=verb)]


def offering(*offers: str, verb: str = "EHLO") -> list[Action]:
    """Its answer to EHLO."""
    lines = ["up", *(offers or OFFERS)]
    text = "".join(f"250{' ' if at == len(lines) - 1 else '-'}{line}\r\n" for at, line in enumerate(lines))
    return [WaitFor(f"{verb} relay.example\r\n".encode()), text.encode()]


def takes(recipients: int = 1, answer: bytes = b"250 2.0.0 Ok: queued as 17\r\n", after: bytes = b"") -> list[Action]:
    """It takes a message by DATA, PIPELINING offered. `after`: what comes before MAIL."""
    envelope = b"250 2.1.0 Ok\r\n" * (1 + bool(after)) + b"250 2.1.5 Ok\r\n" * recipients + b"354 go\r\n"
    return [WaitFor(after + b"MAIL FROM:"), WaitFor(b"\r\nDATA"), envelope, WaitFor(b"\r\n.\r\n"), answer]


def sends(*recipients: str, body: bytes = BODY, sender: str = "a@a.example", mail: str = "") -> list[Action]:
    """A client's message; it waits for the answer."""
    lines = [f"MAIL FROM:<{sender}>{mail}", *[f"RCPT TO:{to}" for to in recipients or ("<b@b.example>",)], "DATA"]
    envelope = "".join(f"{line}\r\n" for line in lines).encode("utf-8")
    return [envelope, WaitFor(b"\r\n354 "), body + b".\r\n", WaitFor(b"\r\n")]


class Relay:
    """The service; `log` has its lines."""

    def __init__(self, backend: str = "smtp", protocol: str = "smtp", **settings: str) -> None:
        self.log: list[str] = []
        self.protocol = protocol
        environment = {**SETTINGS[backend], **settings}
        self.service = service_from_line([protocol, backend, "accept"], environment, self.log.append)

    def play(
        self, script: Sequence[Action], peers: Mapping[Address, Any], clock: VirtualClock | None = None, **options: Any
    ) -> Played:
        """The client says EHLO, what is in `script`, and QUIT."""
        verb = b"LHLO" if self.protocol == "lmtp" else b"EHLO"
        whole = [verb + b" client.example\r\n", WaitFor(b"250 SMTPUTF8\r\n"), *script, b"QUIT\r\n", EOF]
        return run_script(self.service.session, whole, outside=Outside(peers=dict(peers)), clock=clock, **options)

    def answers(self, script: Sequence[Action], peers: Mapping[Address, Any], **options: Any) -> list[str]:
        """What the client was told of its messages: the replies between 354 and the next command's."""
        output = self.play(script, peers, **options).output.decode()
        lines = output.split("\r\n")
        assert codes(output.encode())[-1] == 221
        return [line for before, line in pairwise(lines) if before.startswith("354 ")]


def served(played: Played) -> list[Address]:
    """Whom the relay connected to."""
    return [address for address, _ in played.peers]
