"""The SMTP and LMTP client session: messages to one server. Written once for all drivers, for the calls in
`mailfront_io.client` and for the backends that relay.

One message's way: greeting → EHLO → STARTTLS, handshake, EHLO → AUTH → ``machine.send_message`` → body in
blocks → one result per recipient → QUIT. A server that takes fewer recipients at once gets the message in several
transactions, and if it takes fewer in a session, several sessions (RFC 9422). The machine knows the protocol,
`ClientWire` the operations and deadlines; here is what is done in which order, and what it means.

Two things can come of a session. Where a message was begun it is a `SendResult`, with what became of each
recipient, a lost connection included: that one is temporary, never a success. Where none could be begun it is
a `SendError`, whose `temporary` says the same for all recipients.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

from mailfront_io.frontends.client_result import (
    AuthenticationRefused,
    ConnectionFailed,
    SendError,
    SendResult,
    ServerRefused,
    Step,
    TLSUnavailable,
)
from mailfront_io.frontends.client_settings import MECHANISMS, ClientSettings, Credentials, TLSPolicy
from mailfront_io.frontends.client_transcript import Transcript
from mailfront_io.frontends.client_wire import ClientWire
from mailfront_io.frontends.outgoing import Measure, OutgoingMessage
from mailfront_io.ops import (
    Connection,
    ConnectionLost,
    DeadlineExceeded,
    Sleep,
    StartTLS,
    TLSFacts,
    TLSFailed,
)
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl import ClientMechanism
from mailfront_proto.smtp.client import SMTPClient
from mailfront_proto.smtp.client_events import (
    Authenticated,
    AuthenticationFailed,
    ClientEvent,
    Greeting,
    HelloDone,
    MessageDone,
    ReadyForBody,
    ReadyForTLS,
    RecipientResult,
    ReplyReceived,
    Stage,
)
from mailfront_proto.smtp.client_order import ALLOWED
from mailfront_proto.smtp.events import ConnectionClosed
from mailfront_proto.smtp.parameters import BodyType, MailOptions, Notify, RecipientOptions
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.states import State
from mailfront_proto.smtp.transaction import NO_EIGHT_BIT

E = TypeVar("E", Greeting, HelloDone)

NO_REPORTS: Final = Reply(554, "5.3.3 The next server reports no successful deliveries")
"""RFC 3461 section 5.2.2 has us send the report then, which is for a mail system with a queue."""

TURN: Final = 1024 * 1024
"""Bytes of a message after which other sessions have their turn, even if the server keeps up with us."""


class SMTPClientSession:
    """One connection: `open` it, `send` one message after the other while it is `usable`, and `quit`. `run` does that
    for one message: the coroutine for a driver's ``run_client``.

    `host`: the server's name, for messages and for its certificate. `connect_seconds`: how long it took to
    connect, for the first `Step`.
    """

    def __init__(
        self,
        connection: Connection,
        host: str,
        settings: ClientSettings,
        connect_seconds: float | None = None,
    ) -> None:
        self._host = host
        self._settings = settings
        self._machine = SMTPClient(settings.local_name or address_literal(connection), lmtp=settings.lmtp)
        self._transcript = Transcript(settings.transcript)
        now = connection.clock.monotonic
        self._wire = ClientWire(self._machine, self._transcript, settings.deadlines, now, settings.on_step)
        self._tls: TLSFacts | None = None
        self._message: OutgoingMessage
        self._wanted = settings.mail_options
        self._measured = Measure()
        self._given_up: Reply | None = None
        """Why we broke the message off."""
        self._goodbye: Reply | None = None
        """The 421 that has ended the session."""
        self._end_sent = False
        """Whether the end of the message went out: only then may the server have it."""
        self.untaken: list[int] = []
        """The recipients of the last message, by index, for whom the server has certainly not taken it because the
        connection ended too early: for them it may be sent over another one without making duplicates."""
        if connect_seconds is not None:
            self._wire.add_step(Step("connect", connect_seconds))

    async def run(self, message: OutgoingMessage) -> SendResult:
        """The session for one message. Recipients that it leaves undecided (``message.left``) are for another one: the
        server takes no more in this. Raises `SendError`; what the message's file or iterable raises, the message being
        broken off; and OSError for a file that cannot be measured."""
        try:
            await message.source.measure()
            greeting = await self.open()
            await self.send(message, self._settings.mail_options)
        except (SendError, LocalProtocolError):
            await self.quit()
            raise
        await self.quit()
        return SendResult(message.results, greeting, self._machine.capabilities, self._tls, tuple(self._wire.steps))

    @property
    def usable(self) -> bool:
        """Whether another message can be sent."""
        return not self._wire.lost and self._machine.state is not State.CLOSED

    @property
    def problem(self) -> str:
        """Why it is not: for a log, without secrets."""
        return self._transcript.mask(str(self._wire.broken or self._wire.lost or self._goodbye or ""))

    # -- before the message ------------------------------------------------------------------------------

    async def open(self) -> Reply:
        """Everything up to the first MAIL; returns the greeting. Raises `SendError`."""
        policy = self._settings.tls
        if policy is TLSPolicy.IMPLICIT:
            await self._handshake()
        greeting = await self._expect(Greeting)
        if not greeting.reply.is_positive:
            raise self._refused("greets us with", greeting.reply)
        await self._hello()
        if policy in (TLSPolicy.MAY, TLSPolicy.MUST):
            await self._starttls(required=policy is TLSPolicy.MUST)
        if self._settings.credentials is not None:
            await self._authenticate(self._settings.credentials)
        return greeting.reply

    async def _hello(self) -> None:
        self._machine.hello()
        event = await self._expect(HelloDone)
        if not event.reply.is_positive:
            raise self._refused(f"refused our {'LHLO' if self._settings.lmtp else 'EHLO'} with", event.reply)

    async def _starttls(self, required: bool) -> None:
        if "STARTTLS" not in self._machine.capabilities:
            if required:
                raise TLSUnavailable(
                    f"{self._host} offers no STARTTLS and TLS is required: use the port for implicit TLS, or allow "
                    "mail in clear if the network is trusted"
                )
            return
        self._machine.starttls()
        event = await self._event()
        if isinstance(event, ReadyForTLS):
            await self._handshake()
            await self._hello()
        elif isinstance(event, ReplyReceived) and required:
            reply = self._masked(event.reply)
            raise TLSUnavailable(
                f"{self._host} refused STARTTLS and TLS is required ({_on_one_line(reply)}): try again later",
                reply=reply,
            )

    async def _handshake(self) -> None:
        context = self._settings.tls_context
        if context is None:
            raise LocalProtocolError("TLS without a context: give tls_context, or the policy TLSPolicy.NONE")
        wire = self._wire
        name = self._settings.tls_name or self._host
        seconds = self._settings.deadlines.handshake
        try:
            self._tls = await StartTLS(context, False, name, wire.now() + seconds)
        except DeadlineExceeded:
            problem = f"no end of the handshake within {seconds:g} seconds"
        except (TLSFailed, ConnectionLost) as error:
            problem = str(error)
        else:
            wire.step("TLS")
            self._transcript.note(f"{self._tls.protocol}, {self._tls.cipher}")
            self._machine.tls_established()
            return
        wire.lose(f"TLS failed: {problem}")
        raise TLSUnavailable(
            f"TLS with {self._host} (for the name {name}) failed: {problem}: see that its certificate has that name "
            "and that its authority is trusted here"
        )

    async def _authenticate(self, credentials: Credentials) -> None:
        mechanism = self._choose_mechanism(credentials)
        self._transcript.keep_secret(credentials.password)
        self._machine.authenticate(mechanism, allow_clear=credentials.allow_clear)
        event = await self._event()
        if isinstance(event, Authenticated):
            return
        if isinstance(event, AuthenticationFailed):
            reply = self._masked(event.reply)
            why = event.cancelled or _on_one_line(reply)
            raise AuthenticationRefused(
                f"{self._host} refused AUTH {mechanism.name} ({why}): "
                + ("try again later" if reply.is_temporary else "see that user name and password are right"),
                temporary=reply.is_temporary,
                reply=reply,
            )
        raise self._unexpected(event)

    def _choose_mechanism(self, credentials: Credentials) -> ClientMechanism:
        offered = self._machine.capabilities.mechanisms
        if not self._machine.in_tls and not credentials.allow_clear:
            raise AuthenticationRefused(
                f"the password would go to {self._host} in clear: require TLS (STARTTLS or implicit), or allow it in "
                "clear if something else protects the connection",
                temporary=False,
            )
        wanted = [credentials.mechanism.upper()] if credentials.mechanism is not None else list(MECHANISMS)
        name = next((name for name in wanted if name in offered), None)
        if name is None:
            raise AuthenticationRefused(
                f"{self._host} offers {' '.join(offered) or 'no AUTH'}, none of {' '.join(wanted)}: choose another "
                "mechanism or port, or send without a user",
                temporary=False,
            )
        return MECHANISMS[name](credentials.username, credentials.password)

    # -- the message -------------------------------------------------------------------------------------

    async def send(self, message: OutgoingMessage, wanted: MailOptions) -> None:
        """Send `message`: as many transactions as the server wants for it, and takes in this session. `wanted`: what
        is asked for it, see ``ClientSettings.mail_options``. Then look at ``message.results``, ``message.left`` (for
        another session), `untaken`, and whether this session is still `usable`.

        Raises LocalProtocolError for REQUIRETLS without TLS, and what the message's file or iterable raises: the
        connection must be closed then.
        """
        machine = self._machine
        self._message, self._wanted = message, wanted
        self._measured = await message.source.measure()
        self.untaken = []
        if self._settings.relays and "DSN" not in machine.capabilities:
            self._refuse_reports()
        options = self._mail_options()
        while left := message.left:
            batch = [left[index] for index in machine.batch([message.recipients[index][0] for index in left])]
            if not batch:
                return
            if len(batch) < len(left):
                message.source.keep()
            await message.source.rewind()
            machine.send_message(
                message.sender,
                [message.recipients[index] for index in batch],
                options,
                chunking=self._settings.chunking,
            )
            self._end_sent = False
            done = await self._until_done(options)
            results = self._explained(done.results)
            message.decide(batch, results)
            if not self.usable:
                self._goodbye = next((result.reply for result in results if result.reply.code == 421), None)
                if self._given_up is None:
                    lost = [] if self._end_sent else zip(batch, results, strict=True)
                    self.untaken = [index for index, result in lost if _by_loss(result)] + message.left
                self._give_up_rest()

    def _refuse_reports(self) -> None:
        """Somebody else was promised a report of success, and nobody would send it."""
        message = self._message
        promised = [index for index in message.left if _wants_success(message.recipients[index][1])]
        message.decide(
            promised, [RecipientResult(message.recipients[index][0], NO_REPORTS, Stage.LOCAL) for index in promised]
        )

    def _mail_options(self) -> MailOptions:
        """What the machine is to know of the message, and to ask for."""
        measured, offered, wanted = self._measured, self._machine.capabilities, self._wanted
        eight_bit = measured.eight_bit
        if eight_bit is None:  # a stream: to announce 8-bit where that can be done costs nothing
            eight_bit = "8BITMIME" in offered
        is_binary = wanted.body is BodyType.BINARY_MIME
        size = measured.raw_size if is_binary else measured.size
        smtputf8 = bool(measured.eight_bit_header) and not self._settings.relays
        if self._settings.eight_bit_headers and "SMTPUTF8" not in offered:
            smtputf8 = False
        return MailOptions(
            size=wanted.size if size is None else size,
            body=wanted.body if is_binary else BodyType.EIGHT_BIT_MIME if eight_bit else None,
            smtputf8=smtputf8 or wanted.smtputf8,
            auth=wanted.auth,
            ret=wanted.ret,
            envid=wanted.envid,
            require_tls=wanted.require_tls,
            others=wanted.others,
        )

    async def _until_done(self, options: MailOptions) -> MessageDone:
        while True:
            event = await self._event()
            if isinstance(event, MessageDone):
                return event
            if isinstance(event, ReadyForBody):
                await self._body(ascii_only=options.body is None)

    async def _body(self, ascii_only: bool) -> None:
        machine, wire, read = self._machine, self._wire, self._message.source.read
        octets = 0
        next_turn = TURN
        block = await read()
        while block:
            if ascii_only and not block.isascii():
                self._given_up = NO_EIGHT_BIT
                wire.lose(str(NO_EIGHT_BIT))  # without its end it is no message
                return
            octets += len(block)
            machine.send_body(block)
            block = await read()  # one ahead, so that a short message and its final dot are one write
            if block:
                if not await wire.wants_body():
                    return
                if octets >= next_turn:
                    next_turn = octets + TURN
                    await Sleep(0)
        end = "its final dot" if machine.state is State.BODY else "its last chunk"
        machine.end_of_body()
        self._end_sent = True
        await wire.flush()
        self._transcript.note(f"the message, {octets} bytes, and {end}")
        wire.step("message")

    def _explained(self, results: Sequence[RecipientResult]) -> Sequence[RecipientResult]:
        """The results, with our reason where we lost the connection, or broke it off, ourselves."""
        if self._given_up is not None:
            reply, stage = self._given_up, Stage.LOCAL
        elif self._wire.lost and self._wire.broken is None:
            reply, stage = Reply(451, f"4.4.2 {self._wire.lost}"), Stage.CONNECTION
        else:
            return results
        return [
            RecipientResult(result.address, reply, stage) if result.stage is Stage.CONNECTION else result
            for result in results
        ]

    def _give_up_rest(self) -> None:
        """The connection is over before the turn of some recipients."""
        if self._given_up is not None:
            self._message.decide_left(self._given_up, Stage.LOCAL)
        else:
            self._message.decide_left(Reply(451, "4.4.2 The connection was over before this recipient's turn"))

    @property
    def farewell(self) -> bytes:
        """What to write before closing, for who does not want to wait for the answer, as `quit` does."""
        return b"QUIT\r\n" if self._may_quit() else b""

    def _may_quit(self) -> bool:
        return not self._wire.lost and not self._machine.awaiting and self._machine.state in ALLOWED["QUIT"]

    async def quit(self) -> None:
        """Take leave. What was sent is settled: nothing that happens here matters."""
        if self._may_quit():
            self._machine.quit()
            try:
                while not isinstance(await self._event(), ConnectionClosed):
                    pass
            except SendError:
                pass
        self._transcript.finish()

    # -- events ------------------------------------------------------------------------------------------

    async def _event(self) -> ClientEvent:
        """The next event. Raises `SendError` when the connection is over and nobody has said QUIT."""
        event = await self._wire.event()
        if isinstance(event, ConnectionClosed) and event.reason != "QUIT":
            raise self._closed(event)
        return event

    async def _expect(self, kind: type[E]) -> E:
        """The next event, which is of that `kind` if the server is there still. (An EHLO that is refused and
        followed by HELO is passed over.)"""
        while True:
            event = await self._event()
            if isinstance(event, kind):
                return event
            if not isinstance(event, ReplyReceived):
                raise self._unexpected(event)

    # -- errors ------------------------------------------------------------------------------------------

    def _masked(self, reply: Reply) -> Reply:
        """`reply` without the secrets that it may repeat."""
        return Reply(reply.code, self._transcript.mask(reply.text))

    def _refused(self, did: str, reply: Reply) -> ServerRefused:
        reply = self._masked(reply)
        remedy = "try again later" if reply.is_temporary else "its operator can say why"
        return ServerRefused(
            f"{self._host} {did} {_on_one_line(reply)}: {remedy}", temporary=reply.is_temporary, reply=reply
        )

    def _unexpected(self, event: ClientEvent) -> ConnectionFailed:
        name = type(event).__name__
        return ConnectionFailed(f"{self._host} is out of step, {name} came unexpectedly: try again later")

    def _closed(self, event: ConnectionClosed) -> SendError:
        if event.reply is not None:
            return self._refused("ended the session with", event.reply)
        reason = self._transcript.mask(str(self._wire.broken or self._wire.lost or event.reason))
        return ConnectionFailed(f"{self._host}: {reason}: try again later")


def address_literal(connection: Connection) -> str:
    """Our end of the connection as ``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` (RFC 5321 section 4.1.3)."""
    if connection.local is None:
        return "localhost"
    host = connection.local[0].partition("%")[0]
    return f"[IPv6:{host}]" if ":" in host else f"[{host}]"


def _by_loss(result: RecipientResult) -> bool:
    """Whether a recipient's fate is the end of the connection, and no answer to it or its message."""
    return result.stage is Stage.CONNECTION or result.reply.code == 421


def _wants_success(options: RecipientOptions) -> bool:
    return options.notify is not None and Notify.SUCCESS in options.notify


def _on_one_line(reply: Reply) -> str:
    return str(reply).replace("\n", " / ")
