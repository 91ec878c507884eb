r"""The server machine played against scripted bytes, with a small application of its own.

`play` feeds the machine piece by piece and answers its events; what it returns may not depend on how the bytes were
cut. Transcripts (see ``tests/transcripts/README.md``) say the same as text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from mailfront_proto import testing
from mailfront_proto.sasl import ServerOptions
from mailfront_proto.smtp import (
    COMPAT,
    DEFAULT,
    Connected,
    Data,
    Event,
    Helo,
    LineEnds,
    Mail,
    MessageEnd,
    Profile,
    Recipient,
    Reply,
    SMTPServer,
    State,
    VendorCommand,
    VerifyPassword,
)
from mailfront_proto.testing import Pieces, Player
from tests.proto.transcripts import Session

Answer = Callable[[SMTPServer, Event], None]


class Outcome(testing.Outcome):
    """What came of one playing."""

    def codes(self) -> list[int]:
        """The codes of the replies, one for each last line."""
        return [int(line[:3]) for line in self.output.split(b"\r\n") if line[3:4] == b" "]


def accept_all(machine: SMTPServer, event: Event) -> None:
    """Say yes, with words of our own where there are no usual ones."""
    if isinstance(event, VendorCommand):
        machine.reply(250, f"{event.verb} {event.argument}")
    else:
        machine.accept()


def player(machine: SMTPServer, answer: Answer = accept_all) -> Player[SMTPServer]:
    """`machine` with `answer` for the events that are owed one. TLS, where it was accepted, is there at the next
    segment."""

    def react(machine: SMTPServer, event: Event) -> None:
        if machine.answer_owed:
            answer(machine, event)

    def at_mark(machine: SMTPServer) -> None:
        if machine.state is State.TLS:
            machine.tls_established()

    return Player(machine, react, at_mark=at_mark)


def play(machine: SMTPServer, pieces: Pieces, answer: Answer = accept_all, *, eof: bool = True) -> Outcome:
    """Play `pieces`; the first segment follows the greeting."""
    outcome = player(machine, answer).play(pieces, eof=eof).outcome
    return Outcome(outcome.events, outcome.output, outcome.ended)


# -- transcripts -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Transcript(Session):
    """One session of a transcript file."""

    bodies: list[bytes] = field(default_factory=list)

    def waits_behind(self, reply: bytes) -> bool:
        """The client waits for the greeting only where it has spoken before."""
        return reply.startswith(_WAITS) and (self.segments[-1] != b"" or len(self.segments) > 1)

    def take(self, mark: str, text: bytes) -> bool:
        """``B:``, a message's body."""
        if mark == "B:":
            self.bodies.append(text)
        return mark == "B:"

    def machine(self) -> SMTPServer:
        """A machine with the session's settings."""
        machine = SMTPServer("mx.example.org", self.profile(), lmtp="lmtp" in self.settings)
        machine.sasl = ServerOptions(
            self.settings.get("mechanisms", "").split(),
            allows_authorization_identity="authorization-identity" in self.settings,
        )
        machine.offers_starttls = "starttls" in self.settings
        machine.offers_xclient = "xclient" in self.settings
        machine.extensions |= frozenset(self.settings.get("extensions", "").split())
        machine.extensions -= frozenset(self.settings.get("without", "").split())
        for verb in self.settings.get("commands", "").split():
            name, _, parameter = verb.partition("=")
            machine.register_command(name, parameter or "optional")
        for word in self.settings.get("parameters", "").split():
            verb, keyword = word.split(":")
            machine.register_parameter(verb, keyword, lambda value: value != "bad", capability=keyword)
        return machine

    def profile(self) -> Profile:
        """The profile, with the fields and limits that are set."""
        profile = COMPAT if self.settings.get("profile") == "compat" else DEFAULT
        profile = replace(profile, limits=replace(profile.limits, **self.limits()))
        if "line-ends" in self.settings:
            profile = replace(profile, line_ends=LineEnds(self.settings["line-ends"]))
        return profile

    def answer(self) -> Answer:
        """The application of the transcripts; see their README."""
        return Application(self.settings)


class Application:
    """What the README of the transcripts says: addresses tell what becomes of them."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._settings = settings
        self._sender = ""
        self._size = 0
        self._recipients: list[str] = []

    def __call__(self, machine: SMTPServer, event: Event) -> None:
        """Answer `event`."""
        if isinstance(event, Connected) and "refuse" in self._settings:
            machine.reply(int(self._settings["refuse"][:3]), self._settings["refuse"][4:])
        elif isinstance(event, Helo):
            self._helo(machine, event)
        elif isinstance(event, Mail | Recipient):
            self._path(machine, event)
        elif isinstance(event, Data) and self._sender.startswith("nodata"):
            machine.reply(451, "4.3.0 Not now")
        elif isinstance(event, MessageEnd):
            self._message_end(machine)
        elif isinstance(event, VerifyPassword):
            self._verify(machine, event)
        elif isinstance(event, VendorCommand):
            machine.reply(250, f"2.0.0 {event.verb} [{event.argument}]")
        else:
            machine.accept()

    def _helo(self, machine: SMTPServer, event: Helo) -> None:
        if event.host == "refused.example":
            machine.reply(550, "5.7.1 Not you")
        else:
            capabilities = self._settings.get("capabilities")
            machine.accept(capabilities=capabilities.split(",") if capabilities else ())

    def _path(self, machine: SMTPServer, event: Mail | Recipient) -> None:
        address = str(event.address)
        code = re.match(r"[a-z]*([245][0-9][0-9])", address)
        if code is not None and code[1][0] != "2":
            machine.reply(int(code[1]), f"{code[1][0]}.1.0 Refused by name")
            return
        if isinstance(event, Mail):
            self._sender, self._recipients = address, []
        else:
            self._recipients.append(address)
        shown = "".join(f" [{parameter}]" for parameter in event.parameters)
        machine.accept(f"{'2.1.0' if isinstance(event, Mail) else '2.1.5'} <{address}>{shown}")

    def _message_end(self, machine: SMTPServer) -> None:
        if self._sender.startswith("noend"):
            machine.reply(554, "5.6.0 Not this")
        elif machine.lmtp:
            machine.reply_each(
                [
                    Reply(452, "4.2.2 Full") if address.startswith("full") else Reply(250, "2.1.5 Delivered")
                    for address in self._recipients
                ]
            )
        else:
            machine.accept()

    def _verify(self, machine: SMTPServer, event: VerifyPassword) -> None:
        known = event.username == "joe" and event.password.reveal() == b"secret"
        if event.username == "temp":
            machine.reply(454, "4.7.0 Not now")
        elif known:
            machine.accept()
        else:
            machine.reply(machine.profile.auth_failed_code, "5.7.8 No")


_WAITS = (b"220 ", b"354 ", b"334 ")


def machine_state(machine: SMTPServer) -> dict[str, Any]:
    """What can be seen of a machine's state, to compare two."""
    return {
        "state": machine.state,
        "helo": machine.helo_host,
        "esmtp": machine.esmtp,
        "authenticated": machine.authenticated,
        "in_tls": machine.in_tls,
        "owed": machine.answer_owed,
    }


__all__ = [
    "Application",
    "Outcome",
    "Transcript",
    "accept_all",
    "machine_state",
    "play",
    "player",
]
