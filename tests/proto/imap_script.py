"""The IMAP server machine played against scripted bytes, and transcripts (see ``tests/transcripts/imap/README.md``)."""

from dataclasses import dataclass, replace
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
from tests.proto.transcripts import Session


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
class Transcript(Session):
    """One session of a transcript file."""

    def waits_behind(self, reply: bytes) -> bool:
        """A challenge, a literal that is asked for, and where TLS begins."""
        return reply.startswith(b"+ ") or b"Begin TLS" in reply

    def machine(self) -> IMAPServer:
        """A machine with the session's settings."""
        profile = COMPAT if self.settings.get("profile") == "compat" else DEFAULT
        profile = replace(profile, limits=replace(profile.limits, **self.limits()))
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
