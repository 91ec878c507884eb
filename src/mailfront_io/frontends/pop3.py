"""The POP3 front end: a login against a credential store, and a maildir. Written once for all drivers.

One session's way: `Connected` → greeting; USER and PASS → `VerifyPassword` → store → `OpenMailbox` → the maildir is
scanned in a thread; `Retrieve` → pieces of a file, each read in a thread; QUIT → `Update`, the one moment in which
messages are deleted, moved and marked. Every other end changes nothing.
"""

from collections.abc import Awaitable, Callable
from errno import EACCES, ELOOP, ENOENT, ENOTDIR
from math import inf

from mailfront_io.frontends.authentication import (
    Verdict,
    answer,
    exchange_failed,
    is_command,
    may_expose_passwords,
    offer,
)
from mailfront_io.frontends.conversation import Conversation
from mailfront_io.frontends.handshake import handshake, read_ahead
from mailfront_io.mailboxes.location import Location, user_location
from mailfront_io.mailboxes.maildir import CannotOpen, MaildirMailbox
from mailfront_io.ops import DeadlineExceeded, Recv, RecvLine, Thread
from mailfront_io.session import Session
from mailfront_proto.pop3 import answers, events
from mailfront_proto.pop3.replies import Reply
from mailfront_proto.pop3.server import POP3Server
from mailfront_proto.pop3.states import LOGIN_STATES, Mode, State
from mailfront_proto.record import record
from mailfront_proto.sasl.requests import Authorize, FindKeys, Request, VerifyPassword, VerifyResponse, VerifyToken

SHUTTING_DOWN = Reply("-ERR", "The server is shutting down", "SYS/TEMP")
SASL_UNAVAILABLE = Reply("-ERR", "Internal error.", "SYS/TEMP")
NO_MAILBOX = Reply("-ERR", "Mailbox not specified", "SYS/PERM")

_LASTING = (EACCES, ELOOP, ENOENT, ENOTDIR)
"""Errors that only an administrator can mend (RFC 3206 section 4: SYS/PERM)."""

_LISTS = frozenset(("CAPA", "AUTH", "LANG", "LIST", "UIDL"))
"""Commands whose answer has many lines, when they have no argument."""

HandOff = Callable[[Session, bytes], Awaitable[int]]
"""What follows a login in `Mode.LOGIN`: gets the session, whose `identity` says who has logged in, and what came behind
the login; takes the connection, and gives the exit code. What it says to the client itself it sends and logs."""


@record(frozen=True)
class Deadlines:
    """Seconds (RFC 1939 section 3 wants 600 at least between two commands).

    `idle`: between commands; `login_idle`: the same before the login; `session`, `login`: in all, None: no limit.
    `restarts`: the time between commands starts again with every byte (the original); otherwise it counts from the
    last answer, so that a client that drips bytes gains nothing.
    """

    idle: float = 600.0
    session: float | None = 86400.0
    login_idle: float = 600.0
    login: float | None = 600.0
    restarts: bool = False

    @classmethod
    def from_session(cls, session: Session, compat: bool) -> "Deadlines":
        """From ``$TIMEOUT`` and ``$SESSION_TIMEOUT``, for the login ``$AUTH_TIMEOUT`` and ``$AUTH_SESSION_TIMEOUT``
        first."""
        seconds = session.number
        idle = seconds("TIMEOUT") or (1200 if compat else 600)
        whole = seconds("SESSION_TIMEOUT") or (None if compat else 86400)
        login = seconds("AUTH_SESSION_TIMEOUT") or (whole if compat else 600)
        return cls(idle, whole, seconds("AUTH_TIMEOUT") or idle, login, restarts=compat)


class POP3Frontend(Conversation[POP3Server]):
    """One connection: `run` is the session coroutine. `machine` is new.

    `mailbox`: where the messages are in `Mode.MAILBOX`. `hand_off`: who takes over in `Mode.LOGIN`. In `Mode.WHOLE`
    the mailbox is that of the user, and the store of the session says who that is.
    """

    __slots__ = ("_hand_off", "_mailbox", "_mailbox_location", "compat", "deadlines")

    _idle_states = frozenset(LOGIN_STATES)

    def __init__(
        self,
        session: Session,
        machine: POP3Server,
        *,
        mailbox: Location | None = None,
        hand_off: HandOff | None = None,
    ) -> None:
        self.compat = machine.profile.name == "compat"
        self.deadlines = Deadlines.from_session(session, self.compat)
        whole = self.deadlines.session if machine.mode is Mode.MAILBOX else self.deadlines.login
        # Where a program is to get what follows the login, nothing may be read that is behind it.
        recv = RecvLine() if machine.mode is Mode.LOGIN else Recv()
        super().__init__(session, machine, self.deadlines.login_idle, whole, recv, self.deadlines.restarts)
        self._mailbox_location = mailbox
        self._mailbox: MaildirMailbox | None = None
        self._hand_off = hand_off

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
            if self._mailbox is not None:
                self._mailbox.close()
            self._log_bytes()
        return self._exit_code

    def _log_bytes(self) -> None:
        """In the original the program that checks the login says nothing of bytes, nor does one without a mailbox."""
        if not self.compat or self._mailbox is not None:
            self.session.log(f"bytes in: {self.session.bytes_in} bytes out: {self.session.bytes_out}")

    # -- bytes -------------------------------------------------------------------------------------------

    @property
    def _disk_deadline(self) -> float:
        """When the disk must have answered."""
        return self._within_session(self._now() + self.deadlines.idle)

    def _within_session(self, deadline: float) -> float:
        return deadline if deadline < self._session_end else self._session_end

    async def _stopping(self) -> None:
        await self._say_last(SHUTTING_DOWN)

    def _lose(self) -> None:
        """A write has failed. Nothing more is done, not even what is here already: a client that did not get its
        messages must not have them deleted."""
        self._lost = True
        self.machine.abort()

    async def _timed_out(self) -> None:
        if self._now() >= self._session_end and self.compat:
            self.machine.abort()  # the original says nothing then
        else:
            await self._say_last(answers.TIMED_OUT)

    async def _say_last(self, reply: Reply) -> None:
        self._log_reply(reply)
        self.machine.abort(reply)
        await self._flush()

    # -- what is logged ----------------------------------------------------------------------------------

    def _log_reply(self, reply: Reply) -> None:
        code = f"[{reply.code}] " if reply.code and self.machine.profile.response_codes else ""
        self.session.log(f"{reply.status} {code}{reply.text}")

    def _accept(self, text: str = "") -> None:
        self._log_reply(Reply("+OK", text))
        self.machine.accept(text)

    def _refuse(self, reply: Reply) -> None:
        self._log_reply(reply)
        self.machine.reply(reply.status, reply.text, reply.code)

    async def _answered(self, event: events.Answered) -> None:
        self.session.log(event.line)
        self._log_reply(event.reply)
        verb, _, argument = event.line.partition(" ")
        if not argument.strip(" ") and verb.upper() in _LISTS:
            self.session.log(".")

    async def _refused(self, event: events.Refused) -> None:
        self.session.log(event.line)
        if event.mechanism:
            await exchange_failed(self.session, event.mechanism, event.cause)
            self.session.log(event.reply.text)
        else:
            self._log_reply(event.reply)

    # -- the beginning -----------------------------------------------------------------------------------

    async def _connected(self, event: events.Connected) -> None:
        self._offer()
        if self.machine.mode is Mode.MAILBOX:
            self.machine.accept()  # what is said comes with the mailbox
        else:
            self._accept()

    def _offer(self) -> None:
        """Tell the machine what can be had now."""
        machine = self.machine
        if machine.mode is not Mode.MAILBOX:
            machine.offers_stls = self.session.tls_context is not None
            machine.offers_user = may_expose_passwords(self.session)
            machine.sasl = offer(self.session)

    async def _start_tls(self, event: events.StartTLS) -> None:
        self.session.log(self.machine.last_line)
        if self.machine.mode is Mode.LOGIN and (behind := await read_ahead(self.session)):
            self.machine.receive_data(behind)
        self.machine.accept()
        await self._flush()
        if self.machine.state is not State.TLS:  # plain text had come already: refused
            self._log_reply(answers.TLS_PIPELINED)
            return
        self._log_reply(answers.BEGIN_TLS)
        if not await self._handshake():
            self._exit_code = 1
            self._over = True
            return
        self._offer()

    async def _handshake(self) -> bool:
        if not await handshake(self.session, self._session_end, ("pop3",)):
            return False
        self.machine.tls_established()
        self._command_end = self._now() + self._idle
        return True

    # -- the login ---------------------------------------------------------------------------------------

    async def _login(self, event: Request) -> None:
        if not (isinstance(event, Authorize) and event.mechanism.startswith("SCRAM-")):  # that is no new command
            self.session.log(self.machine.last_line)
        verdict = await answer(self.machine, event, self.session)
        if verdict is Verdict.ACCEPTED:
            self.machine.accept()
        elif verdict is not Verdict.GOES_ON:
            unavailable = verdict is Verdict.UNAVAILABLE
            if is_command(event):
                self._refuse(answers.INTERNAL_ERROR if unavailable else answers.AUTH_FAILED)
            else:
                reply = SASL_UNAVAILABLE if unavailable else answers.SASL_FAILED
                self.session.log(reply.text)
                self.machine.reply(reply.status, reply.text, reply.code)

    async def _handed_over(self, event: events.HandOver) -> None:
        assert self._hand_off is not None
        self.session.ended = "handed_over"
        await self._flush()
        if not self._lost:
            self._exit_code = await self._hand_off(self.session, self.machine.trailing_data)
        self._over = True

    # -- the mailbox -------------------------------------------------------------------------------------

    async def _open_mailbox(self, event: events.OpenMailbox) -> None:
        session = self.session
        mailbox = self._mailbox
        if event.again:
            session.log(self.machine.last_line)
        try:
            if event.again and mailbox is not None:
                await Thread(mailbox.scan, deadline=self._disk_deadline)
            else:
                mailbox = self._make_mailbox()
                if mailbox is None:
                    self._no_mailbox(event.username)
                    return
                await Thread(mailbox.open, deadline=self._disk_deadline)
        except (CannotOpen, DeadlineExceeded) as error:
            if mailbox is not None and not event.again:
                mailbox.close()
            self._cannot_open(error)
            return
        self._mailbox = mailbox
        self._session_end = self._started + (self.deadlines.session or inf)
        self._log_reply(answers.DONE)
        self.machine.open_mailbox(mailbox.sizes, mailbox.uids, read=mailbox.read)
        self._idle = self.deadlines.idle

    def _make_mailbox(self) -> MaildirMailbox | None:
        session = self.session
        location = self._mailbox_location
        if self.machine.mode is not Mode.MAILBOX:
            identity, root = session.identity, session.getenv("MAILDIR_ROOT")
            location = user_location(root, identity.username, identity.mailbox) if identity else None
        if location is None:
            return None
        return MaildirMailbox(
            location,
            max_messages=session.number("MAX_MESSAGES"),
            max_cur=session.number("MAX_CUR_MESSAGES"),
            max_new=session.number("MAX_NEW_MESSAGES"),
            compat=self.compat,
        )

    def _no_mailbox(self, username: str) -> None:
        if self.machine.mode is not Mode.MAILBOX:
            self.session.log(f"Error: no mailbox is known for {username}: set $MAILDIR_ROOT")
            self._refuse(NO_MAILBOX)
            return
        self.session.log("Error: Mailbox not specified")
        if self.compat:
            self.machine.abort()  # the original says nothing
        else:
            self._refuse(NO_MAILBOX)

    def _cannot_open(self, error: Exception) -> None:
        """Say so to the client, and why to the log."""
        if not isinstance(error, CannotOpen):
            self.session.log(f"maildir: {self._mailbox_location or self.machine.username}: timed out")
            self._refuse(answers.INTERNAL_ERROR)
            return
        if not self.compat:
            self.session.log(str(error))
        code = "SYS/PERM" if error.cause.errno in _LASTING else "SYS/TEMP"
        self._refuse(Reply("-ERR", error.answer, code))

    async def _retrieve(self, event: events.Retrieve) -> None:
        session, machine, mailbox = self.session, self.machine, self._mailbox
        assert mailbox is not None
        session.log(machine.last_line)
        try:
            ahead, more = mailbox.read_already(event.number), False
            if ahead is not None:
                data = ahead
            else:
                data, more = await Thread(mailbox.begin_message, event.number, deadline=self._disk_deadline)
        except (OSError, DeadlineExceeded) as error:
            if not isinstance(error, FileNotFoundError):  # that is no fault: another session has deleted it
                self._log_fault(f"message {event.number}", error)
            self._refuse(answers.CANNOT_OPEN)
            return
        self._accept()
        wanted = machine.send_message_data(data)
        while more and wanted:
            await self._flush()
            if self._lost:
                return
            try:
                data, more = await Thread(mailbox.next_piece, deadline=self._disk_deadline)
            except (OSError, DeadlineExceeded) as error:
                self._log_fault(f"message {event.number}", error)
                machine.abort()  # nothing else tells the client that the message is cut
                return
            wanted = machine.send_message_data(data)
        machine.end_of_message()
        session.log(".")

    async def _update(self, event: events.Update) -> None:
        session, mailbox = self.session, self._mailbox
        assert mailbox is not None
        self._idle = self.deadlines.login_idle
        session.log(self.machine.last_line)
        left = 0
        if event.deleted or event.read or mailbox.has_new:
            left, errors = await Thread(mailbox.update, event.deleted, event.read, commit=True)
            if errors:
                self._log_fault(f"{len(errors)} messages could not be deleted or moved", errors[0])
        if left:
            self._refuse(answers.NOT_ALL_DELETED)
        else:
            self._accept()

    def _log_fault(self, what: str, error: Exception) -> None:
        assert self._mailbox is not None
        why = error.strerror if isinstance(error, OSError) else "timed out"
        self.session.log(f"maildir: {self._mailbox.location}: {what}: {why}")


POP3Frontend._handlers = {
    events.Connected: POP3Frontend._connected,
    events.OpenMailbox: POP3Frontend._open_mailbox,
    events.Retrieve: POP3Frontend._retrieve,
    events.Update: POP3Frontend._update,
    events.StartTLS: POP3Frontend._start_tls,
    events.Answered: POP3Frontend._answered,
    events.Refused: POP3Frontend._refused,
    events.HandOver: POP3Frontend._handed_over,
    events.ConnectionClosed: POP3Frontend._closed,
    **dict.fromkeys((VerifyPassword, VerifyResponse, VerifyToken, FindKeys, Authorize), POP3Frontend._login),
}
