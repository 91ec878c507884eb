"""The IMAP login front end: a login against a credential store, and then the connection goes to an IMAP server, which
is a program. Written once for all drivers.

One session's way: `Connected` → greeting; LOGIN and AUTHENTICATE → requests → store → `HandOver` → the program, which
sends the tagged answer and is told its tag in ``$IMAPLOGINTAG``.
"""

from collections.abc import Sequence

from mailfront_io.frontends.authentication import Verdict, answer, exchange_failed, may_expose_passwords, offer
from mailfront_io.frontends.conversation import Conversation
from mailfront_io.frontends.handshake import handshake, read_ahead
from mailfront_io.ops import ConnectionLost, DeadlineExceeded, RecvLine, TLSFailed
from mailfront_io.session import Session
from mailfront_proto.imap import events
from mailfront_proto.imap.replies import Reply
from mailfront_proto.imap.server import IMAPServer
from mailfront_proto.imap.states import COMMAND_STATES, State
from mailfront_proto.record import record
from mailfront_proto.sasl.requests import Request

TIMED_OUT = "Connection timed out"
SHUTTING_DOWN = Reply("BYE", "The server is shutting down", "UNAVAILABLE")
NOT_HANDED_OVER = {
    "ids": Reply("NO", "Internal error: could not set UID/GID"),
    "environment": Reply("NO", "Internal error: could not set environment"),
    "execute": Reply("NO", "Could not execute second stage"),
}
"""What is said when the program cannot take over, by the step of `CannotHandOff`."""


@record(frozen=True)
class Deadlines:
    """Seconds. `idle`: between commands; `session`: until the login is done; None: no limit. `restarts`: the time
    between commands starts again with every byte (the original); otherwise it counts from the last answer."""

    idle: float = 600.0
    session: float | None = 600.0
    restarts: bool = False

    @classmethod
    def from_session(cls, session: Session, compat: bool) -> "Deadlines":
        """From ``$AUTH_TIMEOUT`` and ``$AUTH_SESSION_TIMEOUT``, else ``$TIMEOUT`` and ``$SESSION_TIMEOUT``."""

        def seconds(name: str) -> int:
            return session.number(f"AUTH_{name}") or session.number(name)

        idle = seconds("TIMEOUT") or (1200 if compat else 600)
        return cls(idle, seconds("SESSION_TIMEOUT") or (None if compat else 600), compat)


class IMAPFrontend(Conversation[IMAPServer]):
    """One connection: `run` is the session coroutine. `machine` is new. `program`: who takes over, its name and
    arguments. `turned_away`: what is said in place of the greeting, if anything."""

    __slots__ = ("_program", "_turned_away", "compat", "deadlines")

    _idle_states = frozenset(COMMAND_STATES)

    def __init__(self, session: Session, machine: IMAPServer, program: Sequence[str], turned_away: str = "") -> None:
        self.compat = machine.profile.name == "compat"
        self.deadlines = Deadlines.from_session(session, self.compat)
        recv = RecvLine()  # what is behind the login is the program's
        super().__init__(
            session, machine, self.deadlines.idle, self.deadlines.session, recv, self.deadlines.restarts
        )
        self._program = program
        self._turned_away = turned_away

    async def run(self) -> int:
        """The session, from its first byte to its last; the exit code of a one-shot program."""
        session = self.session
        try:
            immediate = session.tls_context is not None and session.getenv("TLS_IMMEDIATE") is not None
            if immediate and not await self._handshake():
                return 1
            await self._converse()
        finally:
            self._count_end()
            if not self.compat:
                session.log(f"bytes in: {session.bytes_in} bytes out: {session.bytes_out}")
        return self._exit_code

    # -- bytes -------------------------------------------------------------------------------------------

    async def _stopping(self) -> None:
        await self._say_last(SHUTTING_DOWN)

    def _lose(self) -> None:
        """A write has failed: nothing more is done."""
        self._lost = True
        self.machine.abort()

    async def _timed_out(self) -> None:
        if self._now() < self._session_end or not self.compat:
            await self._say_last(Reply("NO" if self.compat else "BYE", TIMED_OUT))
        else:
            self.machine.abort()  # the original says nothing then

    async def _say_last(self, reply: Reply) -> None:
        self.machine.abort(reply)
        await self._flush()

    # -- the beginning, and what the machine says by itself ----------------------------------------------

    async def _connected(self, event: events.Connected) -> None:
        if self._turned_away:
            self.machine.reply("NO" if self.compat else "BYE", self._turned_away)
            return
        self._offer()
        self.machine.accept()

    def _offer(self) -> None:
        """Tell the machine what can be had now."""
        machine, session = self.machine, self.session
        machine.offers_starttls = session.tls_context is not None
        machine.offers_login = may_expose_passwords(session)
        machine.sasl = offer(session)
        machine.application_capabilities = program_capabilities(session)

    async def _answered(self, event: events.Answered) -> None:
        if event.mechanism:
            await exchange_failed(self.session, event.mechanism, event.cause)
        self.session.log(event.said)

    async def _identified(self, event: events.Identified) -> None:
        known = " ".join(f"{name}={value}" for name, value in event.fields.items() if value is not None)
        self.session.log(f"ID {known}"[:200])

    async def _start_tls(self, event: events.StartTLS) -> None:
        if behind := await read_ahead(self.session):
            self.machine.receive_data(behind)
        self.machine.accept()
        await self._flush()
        if self.machine.state is not State.TLS:  # plain text had come already: refused
            return
        if await self._handshake():
            self._offer()
        else:
            self._exit_code = 1
            self._over = True

    async def _handshake(self) -> bool:
        if not await handshake(self.session, self._session_end, ("imap",)):
            return False
        self.machine.tls_established()
        self._command_end = self._now() + self._idle
        return True

    # -- the login, and who comes after it ---------------------------------------------------------------

    async def _login(self, event: Request) -> None:
        verdict = await answer(self.machine, event, self.session)
        if verdict is Verdict.ACCEPTED:
            self.machine.accept()
        elif verdict is Verdict.REFUSED:
            self.machine.reply("NO")
        elif verdict is Verdict.UNAVAILABLE:
            self.machine.reply("NO", code="UNAVAILABLE")

    async def _handed_over(self, event: events.HandOver) -> None:
        from mailfront_io.frontends.handoff import CannotHandOff, hand_off  # most one-shot programs end before

        session = self.session
        session.ended = "handed_over"
        await self._flush()
        self._over = True
        if self._lost:
            return
        tag = event.tag.decode("utf-8", "surrogateescape")
        assert session.identity is not None
        facts = {"IMAPLOGINTAG": tag, "AUTHENTICATED": session.identity.username}
        try:
            self._exit_code = await hand_off(session, self._program, self.machine.trailing_data, facts)
        except CannotHandOff as error:
            reply = NOT_HANDED_OVER[error.step]
            if not self.compat:
                session.log(f"Error: {error}")
            session.log(f"{tag} {reply}")
            await self._send(reply.encode(event.tag))
            self._exit_code = 1
        except (ConnectionLost, TLSFailed, DeadlineExceeded):
            self._exit_code = 1


def program_capabilities(session: Session) -> list[str]:
    """What the program offers beside ``IMAP4rev1``: ``$IMAP_CAPABILITY``, else ``$CAPABILITY``, and what settings of
    Courier's server stand for."""
    getenv = session.getenv
    words = (getenv("IMAP_CAPABILITY") or getenv("CAPABILITY") or "").split()
    if words and words[0].upper() == "IMAP4REV1":
        del words[0]
    if session.number("IMAP_ACL"):
        words += ["ACL", "ACL2=UNION"]
    if outbox := getenv("OUTBOX"):
        words.append(f"XCOURIEROUTBOX=INBOX{outbox}")
    if session.number("IMAP_MOVE_EXPUNGE_TO_TRASH"):
        words.append("XMAGICTRASH")
    return words


IMAPFrontend._handlers = {
    events.Connected: IMAPFrontend._connected,
    events.Answered: IMAPFrontend._answered,
    events.Identified: IMAPFrontend._identified,
    events.StartTLS: IMAPFrontend._start_tls,
    events.HandOver: IMAPFrontend._handed_over,
    events.ConnectionClosed: IMAPFrontend._closed,
    **dict.fromkeys(Request.__subclasses__(), IMAPFrontend._login),
}
