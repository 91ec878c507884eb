"""The SMTP and LMTP front end: the machine's events into the pipeline, its verdicts back. Written once for
all drivers.

One message's way: `Recv` → ``machine.receive_data`` → `Mail`, `Recipient` → pipeline → ``machine.reply`` →
`Send`; `Data` → 354; `Body` slices → pipeline → backend; `MessageEnd` → backend's answer → `Send`.
"""

from collections.abc import Coroutine
from math import inf
from typing import Any

from mailfront_io.auth.store import Identity
from mailfront_io.calling import Answer
from mailfront_io.frontends.authentication import Verdict, answer, count, exchange_failed, failure_delay, log_in
from mailfront_io.frontends.conversation import Conversation, Waits
from mailfront_io.frontends.handshake import handshake, parent_handshake
from mailfront_io.ops import ConnectionLost, DeadlineExceeded, Recv, Stopping, TLSFailed
from mailfront_io.pipeline import Pipeline, fold
from mailfront_io.plugin import Command, Hooks, Lines, Parameter, Response
from mailfront_io.session import ForwardPath, ReversePath, Session, parse_number
from mailfront_proto.record import record
from mailfront_proto.sasl.requests import Authorize, FindKeys, Request, VerifyPassword, VerifyResponse, VerifyToken
from mailfront_proto.smtp import events
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.server import SMTPServer
from mailfront_proto.smtp.states import TRANSACTION_STATES, State

IDLE_TIMEOUT = Reply(421, "4.4.2 Timed out, closing connection")
SHUTTING_DOWN = Reply(421, "4.3.2 The server is shutting down, closing connection")

AUTH_UNAVAILABLE = Response(454, "4.7.0 Temporary authentication failure")
COMPAT_AUTH_UNAVAILABLE = Response(451, "Internal error.")

_BEFORE_SECRETS = frozenset(("AUTH", "PASS", "PLAIN", "LOGIN", "CRAM-MD5"))
"""Words behind which a mistyped or misplaced command has a password."""


@record(frozen=True)
class Deadlines:
    """Seconds, by RFC 5321 section 4.5.3.2 (minimum 300 for a command, 180 for a block of data).

    `restarts`: the command's time starts again with every byte (the original); otherwise it counts from
    the last reply, so that a client that drips bytes gains nothing.
    """

    command: float = 300.0
    block: float = 180.0
    session: float | None = 86400.0
    restarts: bool = False
    message: float = 600.0
    """For the whole of a message, and a second more for each 2,000 bytes of it."""

    @classmethod
    def from_session(cls, session: Session) -> "Deadlines":
        """From ``$TIMEOUT`` and ``$SESSION_TIMEOUT``."""
        idle, whole = session.number("TIMEOUT"), session.number("SESSION_TIMEOUT")
        if session.profile.name == "compat":
            # In the original a session limit that is not set is none, despite its manual.
            return cls(idle or 1200.0, idle or 1200.0, whole or None, restarts=True, message=inf)
        return cls(idle or 300.0, min(idle or 180.0, 180.0), whole or 86400.0)


class SMTPFrontend(Conversation[SMTPServer]):
    """One connection: `run` is the session coroutine. `machine` is new; it is told to give messages with the line ends
    that the backend wants, and to offer what the backend keeps."""

    __slots__ = (
        "_commands",
        "_last_logged",
        "_message_bytes",
        "_message_start",
        "_parameters",
        "deadlines",
        "pipeline",
    )

    _idle_states = frozenset(State) - TRANSACTION_STATES
    _message_states = frozenset((State.BODY, State.CHUNK, State.CHUNKS))

    def __init__(self, session: Session, pipeline: Pipeline, machine: SMTPServer) -> None:
        self.deadlines = Deadlines.from_session(session)
        super().__init__(
            session, machine, self.deadlines.command, self.deadlines.session, restarts=self.deadlines.restarts
        )
        self.pipeline = pipeline
        backend = pipeline.backend
        machine.lf_bodies = backend.lines is Lines.LF
        promises = backend.extensions & session.profile.extensions
        machine.extensions |= promises - {"BINARYMIME"} if machine.lf_bodies else promises
        self._commands: dict[str, tuple[Hooks, Command]] = {}
        self._parameters: list[Parameter] = []
        self._message_start = 0.0
        self._message_bytes = 0
        self._last_logged: Reply | None = None

    async def run(self) -> int:
        """The session, from its first byte to its last; the exit code of a one-shot program."""
        try:
            immediate = self.session.tls_context is not None and self.session.getenv("TLS_IMMEDIATE") is not None
            if immediate and not await self._handshake():
                return 1
            await self._greeting_delay()
            await self._converse()
        finally:
            self._count_end()
            await self.pipeline.disconnect()
            self.session.log(f"bytes in: {self.session.bytes_in} bytes out: {self.session.bytes_out}")
        return self._exit_code

    # -- bytes -------------------------------------------------------------------------------------------

    def _message_deadline(self, now: float) -> float:
        block = self._command_end if self.machine.state is State.CHUNKS else now + self.deadlines.block
        whole = self._message_start + self.deadlines.message + self._message_bytes / 2000
        return block if block < whole else whole

    async def _stopping(self) -> None:
        await self._say_last(SHUTTING_DOWN)

    def _lose(self) -> None:
        """A write has failed. What is here already is still done; nothing more is read, nor written."""
        self._lost = True
        self.machine.receive_eof()

    async def _timed_out(self) -> None:
        if self.machine.state in self._message_states or self.machine.state is State.TLS:
            self.session.log("Timed out")
            self._exit_code = 1
        if self.session.profile.name != "compat":
            await self._say_last(IDLE_TIMEOUT)
        else:
            self.machine.abort()

    async def _say_last(self, reply: Reply) -> None:
        self._log_reply(reply)
        self.machine.abort(reply)
        await self._flush()

    async def _closed(self, event: events.ConnectionClosed) -> None:
        if event.in_message and event.reason == "EOF":
            self.session.log("Connection dropped")
            self._exit_code = 1
        elif event.reply is not None and event.reason != "aborted":
            if event.reply != self._last_logged:
                self._log_reply(event.reply)
            self._exit_code = 1
        await super()._closed(event)

    # -- the beginning -----------------------------------------------------------------------------------

    async def _greeting_delay(self) -> None:
        """``$GREETING_DELAY``: wait so many seconds for a client that talks before it is greeted."""
        delay = parse_number(self.session.getenv("GREETING_DELAY"))
        if delay:
            try:
                data = await Recv(min(self._now() + delay, self._session_end), idle=True)
            except DeadlineExceeded:
                return
            except (ConnectionLost, TLSFailed, Stopping):
                data = b""
            if data:
                self.session.bytes_in += len(data)
                self.machine.receive_data(data)
            else:
                self.machine.receive_eof()

    async def _connected(self, event: events.Connected) -> None:
        if event.early_talker:
            self.session.numbers["early_talker"] = 1
        refusal = await self.pipeline.connect()
        if refusal is not None:
            self._reply(refusal)
        else:
            self._offer()
            self.machine.accept()

    def _offer(self) -> None:
        """Tell the machine what plugins and TLS offer now."""
        for verb in self._commands:
            self.machine.unregister_command(verb)
        self._commands = self.pipeline.commands()
        for verb, (_, command) in self._commands.items():
            self.machine.register_command(verb, command.parameter)
        for old in self._parameters:
            self.machine.unregister_parameter(old.verb, old.keyword)
        self._parameters = self.pipeline.parameters()
        for new in self._parameters:
            self.machine.register_parameter(new.verb, new.keyword, new.check, new.capability)
        self.machine.sasl = self.pipeline.mechanisms()
        session = self.session
        can_start_tls = session.tls_context is not None or session.parent_tls is not None
        self.machine.offers_starttls = can_start_tls and session.tls is None
        self.machine.refuses_inside_tls = session.parent_tls is not None and self._compat

    # -- answers -----------------------------------------------------------------------------------------

    def _log_reply(self, reply: Reply) -> None:
        self._last_logged = reply
        for line in reply.lines:
            self.session.log(f"{reply.code} {line}")

    def _log_refusal(self, response: Response) -> None:
        self._log_reply(self.machine.completed(Reply(response.code, response.text)))

    def _reply(self, response: Response) -> None:
        if response.code >= 400:
            self._log_refusal(response)
        self.machine.reply(response.code, response.text)

    # Every command of a message is answered without a coroutine where no hook waits.

    def _mail(self, event: events.Mail) -> Waits:
        self.session.log(f"MAIL {event.argument}")
        refusal = self.pipeline.ask_reset()
        return self._ask_sender(event) if refusal is None else self._mail_behind_reset(event, refusal)

    async def _mail_behind_reset(self, event: events.Mail, answer: Answer) -> None:
        response = answer if answer is None or type(answer) is Response else await answer
        if response is None:
            waits = self._ask_sender(event)
            if waits is not None:
                await waits
        else:
            await self._end_by_reset(response)

    def _ask_sender(self, event: events.Mail) -> Waits:
        response = self.pipeline.ask_sender(ReversePath(str(event.address), event.parameters, event.options))
        if type(response) is not Response:
            return self._reply_behind(response)
        self._reply(response)
        return None

    def _recipient(self, event: events.Recipient) -> Waits:
        self.session.log(f"RCPT {event.argument}")
        response = self.pipeline.ask_recipient(ForwardPath(str(event.address), event.parameters, event.options))
        if type(response) is not Response:
            return self._reply_to_recipient_behind(response)
        self._reply_to_recipient(response)
        return None

    def _reply_to_recipient(self, response: Response) -> None:
        if response.code >= 400:
            self._count_refused_recipient()
            self._log_refusal(response)
        self.machine.reply(response.code, response.text)

    async def _reply_to_recipient_behind(self, waits: Coroutine[Any, Any, Response]) -> None:
        self._reply_to_recipient(await waits)

    async def _reply_behind(self, waits: Coroutine[Any, Any, Response]) -> None:
        self._reply(await waits)

    async def _reset(self, event: events.Reset) -> None:
        response = await self.pipeline.reset()
        if response is None:
            self.machine.accept()
        else:
            await self._end_by_reset(response)

    async def _end_by_reset(self, response: Response) -> None:
        """An error from reset, at MAIL and RSET, ends the session."""
        self._reply(response)
        await self._flush()
        self._exit_code = 0 if self._compat else 1
        self._over = True

    def _usual(self, event: events.Event) -> None:
        """Verify, Help, Quit: the machine's own answer will do."""
        self.machine.accept()

    async def _vendor_command(self, event: events.VendorCommand) -> None:
        hooks, command = self._commands[event.verb]
        self._reply(await self.pipeline.command(hooks, command, event.argument))

    async def _helo(self, event: events.Helo) -> None:
        response = await self.pipeline.reset()
        capabilities: list[str] = []
        if response is None:
            response = await self.pipeline.helo(event.host, capabilities)
        if response is not None:
            self._reply(response)
            return
        strings = self.session.strings
        # A name that a plugin has set stays; one from an earlier HELO does not.
        if "helo_domain" not in strings or strings["helo_domain"] == self.machine.helo_host:
            strings["helo_domain"] = event.host
        self._offer()
        self.machine.accept(capabilities=capabilities)
        if self.machine.esmtp:
            self.session.protocol_name = "LMTP" if self.machine.lmtp else "ESMTP"

    def _data(self, event: events.Data) -> Waits:
        answer = self.pipeline.ask_data_start()
        if answer is not None:
            return self._data_behind_hooks(answer)
        self._begin_message()
        return None

    async def _data_behind_hooks(self, answer: Answer) -> None:
        response = answer if answer is None or type(answer) is Response else await answer
        if response is None:
            self._begin_message()
        else:
            self._reply(response)

    def _begin_message(self) -> None:
        self._message_start = self._now()
        self._message_bytes = 0
        self.machine.accept()

    def _body(self, event: events.Body) -> Waits:
        data = event.data
        self._message_bytes += len(data)
        return self.pipeline.data_block(data)

    async def _message_refused(self, event: events.MessageRefused) -> None:
        await self.pipeline.reset()
        self._log_reply(event.reply)
        self._count_message(event.reply.code)

    def _message_end(self, event: events.MessageEnd) -> Waits:
        results = self.pipeline.ask_message_end()
        if not isinstance(results, list):
            return self._message_end_behind(results)
        self._answer_message(results)
        return None

    async def _message_end_behind(self, waits: Coroutine[Any, Any, list[Response]]) -> None:
        self._answer_message(await waits)

    def _answer_message(self, responses: list[Response]) -> None:
        folded = fold(responses)
        meter = self.session.meter
        if meter is not None:
            meter.message(folded.code)
        if self.machine.lmtp:
            # In compat the machine remembers the recipients of the message before, as the original does.
            recipients = self.machine.recipients
            if len(responses) != recipients:
                responses = [folded] * recipients
            for response in responses:
                if response.refuses:
                    self._log_refusal(response)
            self.machine.reply_each([Reply(response.code, response.text) for response in responses])
        else:
            self._reply(folded)

    # -- what the machine refused by itself --------------------------------------------------------------

    async def _refused(self, event: events.Refused) -> None:
        log = self.session.log
        if event.verb in ("MAIL", "RCPT") and not event.unknown:
            log(f"{event.verb} {event.argument}")
        elif event.unknown:
            log(f"{self._masked_verb(event.verb)} {self._masked(event)}")
        elif event.mechanism:
            await exchange_failed(self.session, event.mechanism, event.cause)
        if event.transaction_dropped:
            await self.pipeline.reset()
        if event.verb == "RCPT":
            self._count_refused_recipient()
        self._log_reply(event.reply)

    def _masked_verb(self, verb: str) -> str:
        """A command that nobody knows may be a secret, too; only in the compat profile is it shown whatever it
        looks like."""
        shown = self.session.profile.name == "compat" or (verb.isascii() and verb.isalpha() and len(verb) <= 8)
        if shown and verb.upper().startswith("PASS:"):
            return "PASS:XXXXXXXX"
        return verb if shown or not verb else "XXXXXXXX"

    def _masked(self, event: events.Refused) -> str:
        """The argument of an unknown command: shown as it came only in the compat profile, and there
        without what may be a mistyped password."""
        argument = event.argument
        if not argument or event.verb.upper() == "AUTH":
            return argument
        verb = event.verb.upper()
        words = {verb, verb[:4], argument.split(" ")[0].upper()}
        if self.session.profile.name != "compat" or not words.isdisjoint(_BEFORE_SECRETS):
            return "XXXXXXXX"
        return argument

    # -- AUTH and TLS ------------------------------------------------------------------------------------

    async def _authenticate(self, event: Request) -> None:
        """Plugins are asked first; where none has an answer, the session's store."""
        session = self.session
        # The keys of SCRAM come from the store; who has proven to have them is asked for behind that.
        response = None if isinstance(event, FindKeys) else await self.pipeline.auth(event)
        if response is None:
            verdict = await answer(self.machine, event, session)
        elif response.refuses or session.numbers.get("auth_uid") == 0:  # the superuser logs in nowhere
            session.log_out()
            session.log(f"SASL AUTH {event.sent_mechanism} failed")
            verdict = Verdict.REFUSED if response.code >= 500 or not response.refuses else Verdict.UNAVAILABLE
            count(session, event.mechanism, "failed" if verdict is Verdict.REFUSED else "unavailable")
            await failure_delay(session)
        else:
            log_in(event, session, _told_by_plugins(event, session))
            verdict = Verdict.ACCEPTED
        if verdict is Verdict.ACCEPTED:
            if session.anonymous:  # nothing comes of it here: who asks for an identity is to find none
                session.log_in_anonymously(None)
            session.strings.pop("helo_domain", None)
            self.machine.accept()
            self._offer()
        elif verdict is Verdict.REFUSED:
            text = "Authentication failed." if self._compat else "5.7.8 Authentication failed."
            self._reply(Response(self.machine.profile.auth_failed_code, text))
        elif verdict is Verdict.UNAVAILABLE:
            self._reply(response or (COMPAT_AUTH_UNAVAILABLE if self._compat else AUTH_UNAVAILABLE))

    @property
    def _compat(self) -> bool:
        return self.session.profile.name == "compat"

    async def _start_tls(self, event: events.StartTLS) -> None:
        self.machine.accept()
        await self._flush()
        if self.machine.state is not State.TLS:  # plain text had come already: refused
            return
        if not await self._handshake():
            self.machine.receive_eof()
            self._exit_code = 1
            self._over = True
            return
        await self._forget_client()
        self._offer()

    async def _forget_client(self) -> None:
        """What was known of the client holds no more."""
        await self.pipeline.reset()
        session = self.session
        session.strings.pop("helo_domain", None)
        session.log_out()
        session.protocol_name = "SMTP"

    async def _xclient(self, event: events.Xclient) -> None:
        """A proxy speaks for another client: the machine begins anew, and the plugins meet that client."""
        await self._forget_client()
        session = self.session
        given = {
            "REMOTEHOST": event.name,
            "REMOTEIP": event.addr,
            "REMOTEPORT": event.port,
            "LOCALIP": event.destaddr,
            "LOCALPORT": event.destport,
        }
        facts = {name: str(v) if isinstance(v, str | int) else "" for name, v in given.items() if v is not None}
        if event.addr is not None:
            facts = {"REMOTEHOST": "", "REMOTEINFO": "", **facts}  # those of the proxy, else
        session.assume(facts)
        session.log(f"XCLIENT {session.remote_host or 'unknown'} [{session.remote_ip or 'unknown'}]")
        if isinstance(event.helo, str):
            session.strings["helo_domain"] = event.helo
        if isinstance(event.login, str):
            session.numbers["authenticated"] = 1
            session.strings["auth_user"] = event.login
        self.machine.accept()

    async def _handshake(self) -> bool:
        session = self.session
        if session.parent_tls is not None:
            begun = await parent_handshake(session)
        else:
            begun = await handshake(session, self._session_end, ("smtp",))
        if not begun:
            return False
        refusal = self.machine.tls_established()
        if refusal is not None:
            self._log_reply(refusal)
        self._command_end = self._now() + self._idle
        return True


def _told_by_plugins(event: Request, session: Session) -> Identity:
    """Who has logged in, as the plugin that said so has put it into the session."""
    strings, numbers = session.strings, session.numbers
    return Identity(
        strings.get("auth_user", event.username),
        strings.get("auth_domain", ""),
        strings.get("auth_mailbox", ""),
        numbers.get("auth_uid"),
        numbers.get("auth_gid"),
        real_name=strings.get("auth_realname", ""),
        system_username=strings.get("auth_system_user", ""),
    )


SMTPFrontend._handlers = {
    events.Connected: SMTPFrontend._connected,
    events.Helo: SMTPFrontend._helo,
    events.Mail: SMTPFrontend._mail,
    events.Recipient: SMTPFrontend._recipient,
    events.Data: SMTPFrontend._data,
    events.Body: SMTPFrontend._body,
    events.MessageEnd: SMTPFrontend._message_end,
    events.MessageRefused: SMTPFrontend._message_refused,
    events.Reset: SMTPFrontend._reset,
    events.Verify: SMTPFrontend._usual,
    events.Help: SMTPFrontend._usual,
    events.Quit: SMTPFrontend._usual,
    events.StartTLS: SMTPFrontend._start_tls,
    VerifyPassword: SMTPFrontend._authenticate,
    VerifyResponse: SMTPFrontend._authenticate,
    VerifyToken: SMTPFrontend._authenticate,
    FindKeys: SMTPFrontend._authenticate,
    Authorize: SMTPFrontend._authenticate,
    events.VendorCommand: SMTPFrontend._vendor_command,
    events.Xclient: SMTPFrontend._xclient,
    events.Refused: SMTPFrontend._refused,
    events.ConnectionClosed: SMTPFrontend._closed,
}
