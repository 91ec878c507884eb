r"""The POP3 server machine played against scripted bytes, with a small application of its own.

Transcripts (``tests/transcripts/pop3/``, see the README there) say as text what the client sends, what it gets and
which events follow.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from mailfront_proto.pop3 import (
    COMPAT,
    DEFAULT,
    Connected,
    Event,
    Mode,
    OpenMailbox,
    POP3Server,
    Profile,
    Retrieve,
    State,
    Update,
    VerifyPassword,
)
from mailfront_proto.sasl import ServerOptions
from mailfront_proto.testing import Player
from tests.proto.server_script import unescape


@dataclass
class Application:
    """A server's application: one user, one mailbox.

    joe's password is ``secret`` (or ``sécret``); temp cannot be looked up now; the mailbox of late is locked. A message
    that holds ``(none)`` cannot be opened, and one with ``(utf8)`` needs UTF8. `slices`: pieces in which a message is
    handed to the machine.
    """

    messages: list[bytes] = field(default_factory=list)
    uids: list[bytes] | None = None
    read: list[int] = field(default_factory=list)
    refuse: str = ""
    slices: int = 1000
    kept: list[str] = field(default_factory=list)
    updated: tuple[list[int], list[int]] | None = None

    def __call__(self, machine: POP3Server, event: Event) -> None:
        """Answer `event`."""
        match event:
            case Connected() if self.refuse:
                machine.reply("-ERR", self.refuse)
            case VerifyPassword(username=username, password=password):
                if username == "temp":
                    machine.reply("-ERR", code="SYS/TEMP")
                elif username in ("joe", "late", "jöe") and password.reveal() in (b"secret", "sécret".encode()):
                    machine.accept()
                else:
                    machine.reply("-ERR")
            case OpenMailbox(username=username):
                if username == "late":
                    machine.reply("-ERR", "The mailbox is in use", "IN-USE")
                else:
                    uids = self.uids if self.uids is not None else [b"uid-%d" % n for n in range(len(self.messages))]
                    machine.open_mailbox([len(m) for m in self.messages], uids, read=self.read)
            case Retrieve(number=number, utf8=utf8):
                self.retrieve(machine, self.messages[number - 1], utf8)
            case Update(deleted, read):
                self.updated = deleted, read
                if any(b"(kept)" in self.messages[number - 1] for number in deleted):
                    machine.reply("-ERR")
                else:
                    machine.accept()
            case _ if machine.answer_owed:
                machine.accept()

    def retrieve(self, machine: POP3Server, message: bytes, utf8: bool) -> None:
        """Send one message, in slices."""
        if b"(none)" in message:
            machine.reply("-ERR")
        elif b"(utf8)" in message and not utf8:
            machine.reply_utf8_only()
        else:
            machine.accept()
            for start in range(0, len(message), self.slices):
                if not machine.send_message_data(message[start : start + self.slices]):
                    break
            machine.end_of_message()


def player(machine: POP3Server, application: Application | None = None) -> Player[POP3Server]:
    """`machine` with its application. TLS, where it was accepted, is there at the next segment."""

    def at_mark(machine: POP3Server) -> None:
        if machine.state is State.TLS:
            machine.tls_established()

    return Player(machine, application or Application(), at_mark=at_mark)


# -- transcripts -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Transcript:
    """One session of a transcript file."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    messages: list[bytes] = field(default_factory=list)
    segments: list[bytes] = field(default_factory=lambda: [b""])
    output: bytes = b""
    events: list[str] = field(default_factory=list)

    def machine(self) -> POP3Server:
        """A machine with the session's settings."""
        machine = POP3Server(self.profile(), mode=Mode(self.settings.get("mode", "whole")))
        machine.greeting = self.settings.get("greeting", "")
        machine.offers_user = "no-user" not in self.settings
        machine.offers_stls = "stls" in self.settings
        machine.offers_utf8 = "utf8" in self.settings
        machine.sasl = ServerOptions(self.settings.get("mechanisms", "").split())
        machine.expire = self.settings.get("expire", machine.expire)
        machine.login_delay = self.settings.get("login-delay", "")
        return machine

    def profile(self) -> Profile:
        """The profile, with the limits that are set."""
        profile = COMPAT if self.settings.get("profile") == "compat" else DEFAULT
        limits = {n.removeprefix("limit."): int(v) for n, v in self.settings.items() if n.startswith("limit.")}
        return replace(profile, limits=replace(profile.limits, **limits))

    def application(self) -> Application:
        """The application of the transcripts; see their README."""
        uids = [unescape(word) for word in self.settings["uids"].split()] if "uids" in self.settings else None
        read = [int(number) for number in self.settings.get("read", "").split()]
        return Application(self.messages, uids, read, self.settings.get("refuse", ""))

    def player(self) -> Player[POP3Server]:
        """Both together."""
        return player(self.machine(), self.application())


def load_transcripts(directory: Path) -> list[Transcript]:
    """All transcripts in the ``.txt`` files of `directory`."""
    return [t for path in sorted(directory.glob("*.txt")) for t in _read(path)]


_WAITS = re.compile(rb"\+ |\+OK Begin TLS")


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
        if _WAITS.match(reply):
            transcript.segments.append(b"")
    elif mark == "M:":
        transcript.messages.append(unescape(text))
    elif mark == "E:":
        transcript.events.append(text)
    elif mark.endswith(":") and not transcript.segments[0]:
        transcript.settings[mark[:-1]] = text
    else:
        raise ValueError(f"{where}: {line!r} is no line of a transcript")
