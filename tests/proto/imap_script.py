"""The IMAP server machine played against scripted bytes, and transcripts (see ``tests/transcripts/imap/README.md``)."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mailfront_proto.imap import (
    COMPAT,
    DEFAULT,
    Answered,
    ConnectionClosed,
    HandOver,
    IMAPServer,
    Profile,
    ServerOptions,
    State,
    VerifyPassword,
)
from mailfront_proto.testing import Outcome, Player
from tests.proto.server_script import unescape


def application(machine: IMAPServer, event: Any) -> None:
    r"""The password of joe is secret, that of "jo e" is ``se"cr\et``, and temp cannot be looked up now."""
    if isinstance(event, VerifyPassword):
        if event.username == "temp":
            machine.reply("NO", code="UNAVAILABLE")
        elif (event.username, event.password.reveal()) in (("joe", b"secret"), ("jo e", b'se"cr\\et')):
            machine.accept()
        else:
            machine.reply("NO")
    elif machine.answer_owed:
        machine.accept()


def handshake(machine: IMAPServer) -> None:
    """TLS, where it was accepted, is there at the next segment."""
    if machine.state is State.TLS:
        machine.tls_established()


def server(
    profile: Profile = DEFAULT, *, login: bool = True, mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN")
) -> IMAPServer:
    """A machine that offers LOGIN and mechanisms."""
    machine = IMAPServer(profile)
    machine.offers_login = login
    machine.sasl = ServerOptions(mechanisms, challenge_source=lambda: b"<1.2@mx.example.org>")
    return machine


def player(machine: IMAPServer) -> Player[IMAPServer]:
    return Player(machine, application, at_mark=handshake)


def said(outcome: Outcome) -> list[str]:
    """The lines that were told for the log."""
    return [event.said for event in outcome.events if isinstance(event, Answered)]


@dataclass(slots=True)
class Transcript:
    """One session of a transcript file."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    segments: list[bytes] = field(default_factory=lambda: [b""])
    output: bytes = b""
    events: list[str] = field(default_factory=list)

    def machine(self) -> IMAPServer:
        """A machine with the session's settings."""
        profile = COMPAT if self.settings.get("profile") == "compat" else DEFAULT
        limits = {k.removeprefix("limit."): int(v) for k, v in self.settings.items() if k.startswith("limit.")}
        profile = replace(profile, limits=replace(profile.limits, **limits))
        machine = server(
            profile, login="login" in self.settings, mechanisms=tuple(self.settings.get("mechanisms", "").split())
        )
        machine.offers_starttls = "starttls" in self.settings
        machine.application_capabilities = self.settings.get("capabilities", "").split()
        return machine

    def check(self, outcome: Outcome) -> None:
        """Whether `outcome` is what the transcript says."""
        assert outcome.output == self.output
        last = outcome.events[-1]
        if isinstance(last, HandOver):
            ending = f"{last.tag.decode('latin-1')} {last.username} {last.command}"
        else:
            assert isinstance(last, ConnectionClosed)
            ending = last.reason
        kinds = [kind for kind in outcome.kinds() if kind not in ("Answered", "Connected")]
        assert [" ".join(kinds), ending] == self.events


def load_transcripts() -> list[Transcript]:
    """All of them."""
    directory = Path(__file__).parents[1] / "transcripts" / "imap"
    return [transcript for path in sorted(directory.glob("*.txt")) for transcript in _read(path)]


def _read(path: Path) -> list[Transcript]:
    found: list[Transcript] = []
    for line in path.read_text("latin-1").splitlines():
        if not line.strip() or line.startswith("# "):
            continue
        mark, _, text = line.partition(" ")
        if mark == "##":
            found.append(Transcript(f"{path.stem}-{text}"))
            continue
        transcript = found[-1]
        if mark in ("C:", "C>"):
            transcript.segments[-1] += unescape(text) + (b"\r\n" if mark == "C:" else b"")
        elif mark == "S:":
            answer = unescape(text)
            transcript.output += answer + b"\r\n"
            if answer.startswith(b"+ ") or b"Begin TLS" in answer:
                transcript.segments.append(b"")
        elif mark == "E:":
            transcript.events.append(text)
        else:
            assert mark.endswith(":") and not transcript.segments[0], f"{path}: {line!r}"
            transcript.settings[mark[:-1]] = text
    for transcript in found:
        if len(transcript.segments) > 1 and not transcript.segments[-1]:
            transcript.segments.pop()  # nothing more is said
    return found
