r"""The server machine played against scripted bytes, with a small application of its own.

`play` feeds the machine piece by piece and answers its events; what it returns may not depend on how the bytes were
cut. Transcripts (see ``tests/transcripts/README.md``) say the same as text.
"""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
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
class Transcript:
    """One session of a transcript file."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    segments: list[bytes] = field(default_factory=lambda: [b""])
    output: bytes = b""
    events: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

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
        limits = {
            name.removeprefix("limit."): int(value)
            for name, value in self.settings.items()
            if name.startswith("limit.")
        }
        profile = replace(profile, limits=replace(profile.limits, **limits))
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


def load_transcripts(directory: Path) -> list[Transcript]:
    """All transcripts in the ``.txt`` files of `directory`."""
    return [t for path in sorted(directory.glob("*.txt")) for t in _read(path)]


def _read(path: Path) -> list[Transcript]:
    found: list[Transcript] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("# "):
            continue
        if line.startswith("## "):
            found.append(Transcript(f"{path.stem}-{line[3:].strip()}"))
            continue
        if not found:
            raise ValueError(f"{path}, line {number}: a transcript begins with '## NAME'")
        _read_line(found[-1], line, f"{path}, line {number}")
    for transcript in found:
        if len(transcript.segments) > 1 and not transcript.segments[-1]:
            transcript.segments.pop()  # nothing more is said
    return found


def _read_line(transcript: Transcript, line: str, where: str) -> None:
    mark, _, text = line.partition(" ")
    if mark in ("C:", "C>"):
        transcript.segments[-1] += unescape(text) + (b"\r\n" if mark == "C:" else b"")
    elif mark == "S:":
        reply = unescape(text)
        transcript.output += reply + b"\r\n"
        if reply.startswith(_WAITS) and (transcript.segments[-1] or len(transcript.segments) > 1):
            transcript.segments.append(b"")
    elif mark == "E:":
        transcript.events.append(text)
    elif mark == "B:":
        transcript.bodies.append(unescape(text))
    elif mark.endswith(":") and not transcript.segments[0]:
        transcript.settings[mark[:-1]] = text
    else:
        raise ValueError(f"{where}: {line!r} is no line of a transcript")


def unescape(text: str) -> bytes:
    r"""A line as bytes: Python's escapes, and ``{10*x}`` for ten times x."""
    data: bytes = ast.literal_eval('b"' + text.replace('"', r"\x22") + '"')
    return re.sub(rb"\{(\d+)\*([^}]*)\}", lambda m: int(m[1]) * m[2], data)


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
    "load_transcripts",
    "machine_state",
    "play",
    "player",
    "unescape",
]
