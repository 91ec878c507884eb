r"""The POP3 server machine played against scripted bytes, with a small application of its own.

Transcripts (``tests/transcripts/pop3/``, see the README there) say as text what the client sends, what it gets and
which events follow.
"""

from dataclasses import dataclass, field, replace

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
from tests.proto.transcripts import Session, unescape


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
class Transcript(Session):
    """One session of a transcript file."""

    messages: list[bytes] = field(default_factory=list)

    def waits_behind(self, reply: bytes) -> bool:
        """A challenge, and where TLS begins."""
        return reply.startswith((b"+ ", b"+OK Begin TLS"))

    def take(self, mark: str, text: bytes) -> bool:
        """``M:``, a message."""
        if mark == "M:":
            self.messages.append(text)
        return mark == "M:"

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
        return replace(profile, limits=replace(profile.limits, **self.limits()))

    def application(self) -> Application:
        """The application of the transcripts; see their README."""
        uids = [unescape(word) for word in self.settings["uids"].split()] if "uids" in self.settings else None
        read = [int(number) for number in self.settings.get("read", "").split()]
        return Application(self.messages, uids, read, self.settings.get("refuse", ""))

    def player(self) -> Player[POP3Server]:
        """Both together."""
        return player(self.machine(), self.application())
