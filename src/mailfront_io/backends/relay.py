"""smtp and lmtp: mail goes on to the next server, and is acknowledged when that has taken it.

Strategy: the next server is spoken to when the message is complete, from the spool. So a client that is slow holds no
connection of that server, plugins have had their say about the whole message, QMTP (where the envelope comes last) is
no exception, and a connection that fails before the end of the message went out can be replaced by another one, to
the same server or the next. After the end only the server's own answer counts: a connection that is lost then is a
temporary failure, never a success.

What is sent was parsed and is printed anew by the client machine: envelope, parameters, line ends, dots. Nothing is
passed through, so that nothing can be smuggled through. What a message needs and the next server lacks (8BITMIME,
BINARYMIME, SMTPUTF8, DSN, REQUIRETLS, room) refuses it in the session; nothing is converted.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from mailfront_io.backends.relay_pool import Pool, UpstreamConnection
from mailfront_io.backends.relay_settings import SETTINGS, Server, Upstream, upstream_from
from mailfront_io.frontends.client_result import SendError
from mailfront_io.frontends.client_settings import Credentials
from mailfront_io.frontends.outgoing import OutgoingMessage
from mailfront_io.frontends.smtp_client import SMTPClientSession
from mailfront_io.ops import Connection, DeadlineExceeded, Thread
from mailfront_io.peers import Connect, Converse, Unreachable
from mailfront_io.plugin import Backend, Lines, Response
from mailfront_io.session import ForwardPath, Path, ReversePath, Session
from mailfront_io.spool import Spool
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.secret import Secret
from mailfront_proto.smtp.addresses import Address, quote_local_part
from mailfront_proto.smtp.client_events import RecipientResult, Stage
from mailfront_proto.smtp.client_lines import envelope_line, to_address
from mailfront_proto.smtp.parameters import MailOptions, RecipientOptions
from mailfront_proto.smtp.replies import Reply

MISSING: Final = Response(451, "4.3.0 Missing backend configuration parameter")
NO_SERVER: Final = Response(451, "4.4.1 The next mail server cannot be reached, try again later")
LOST: Final = Response(451, "4.4.2 The connection to the next mail server was lost, try again later")
NOT_LET_IN: Final = Response(451, "4.7.0 The next mail server does not let us in, try again later")
BAD_SENDER: Final = Response(553, "5.1.7 No mail server can be told this sender")
BAD_RECIPIENT: Final = Response(553, "5.1.3 No mail server can be told this recipient")

LOCKED_OUT: Final = frozenset((530, 534, 535, 538))
"""What a server answers to a client that must log in, or use TLS, first (RFC 4954 section 6, RFC 3207 section 4): our
settings are wrong then, and not the message."""

MAX_TEXT: Final = 300
"""Characters of the next server's words that a client is told: some lines."""

MAX_LOGGED: Final = 20
"""Answers to one message that are logged, if they differ."""


class _Relay(Backend):
    """What both have in common. ``shared`` is a pair of `Upstream` and `Pool`, or None where ``$UPSTREAM`` is unset."""

    spools = True
    lines = Lines.CRLF
    settings = SETTINGS
    lmtp = False

    @classmethod
    def configure(
        cls, environment: Mapping[str, str], log: Callable[[str], None]
    ) -> tuple[Upstream, Pool] | None:
        """The settings, and the pool of the service."""
        upstream = upstream_from(environment, cls.lmtp)
        return None if upstream is None else (upstream, Pool(upstream.pool_size))

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.extensions = frozenset(("BINARYMIME", "DSN"))
        if self.shared is not None and self.shared[0].verifies:  # RFC 8689 section 4.2.1
            self.extensions |= {"REQUIRETLS"}

    def sender(self, path: ReversePath) -> Response | None:
        """Refuses what cannot be said to a server."""
        if self.shared is None:
            return MISSING
        return None if self._can_be_said(path) else BAD_SENDER

    def recipient(self, path: ForwardPath) -> Response | None:
        """The same. What the next server thinks of the recipient it is asked with the message."""
        return None if self._can_be_said(path) else BAD_RECIPIENT

    async def message_end(self, spool: Spool | None) -> list[Response]:
        """Sends the message on. The answers are the next server's, one for each recipient."""
        envelope = self.session.envelope
        assert spool is not None and envelope.sender is not None
        recipients = [(self._address(path), _without_plugins(path.options)) for path in envelope.recipients]
        message = OutgoingMessage(self._address(envelope.sender), recipients, spool.content())
        await self._send(message, _passed_on(envelope.sender.options))
        unheard = frozenset(message.left)
        message.decide_left(Reply(NO_SERVER.code, NO_SERVER.text))
        return [
            NO_SERVER if index in unheard else _response(result) for index, result in enumerate(message.results)
        ]

    async def _send(self, message: OutgoingMessage, wanted: MailOptions) -> None:
        """To the first server that hears us out, over a pooled connection first and a new one then. Recipients who are
        left in the end have been heard by none."""
        upstream, pool = self.shared
        now = self.session.clock.monotonic
        for server in upstream.servers:
            use_pool = True
            while before := message.left:
                pooled = pool.take(server, now()) if use_pool else None
                connection = pooled or await self._connect(server, upstream)
                if connection is None:
                    break
                try:
                    await Converse(connection.peer, connection.session.send(message, wanted))
                except BaseException:
                    connection.peer.close()
                    raise
                connection.messages += 1
                lost = connection.session.untaken
                message.reopen(lost)
                self._log_answers(server, message, before, connection.session.problem)
                if message.left and not lost:
                    connection.exhausted = True  # the server limits what it takes in a session
                pool.give(connection, now())
                use_pool = use_pool and not lost
                if pooled is None and (lost or message.left == before):
                    break  # to the next server

    async def _connect(self, server: Server, upstream: Upstream) -> UpstreamConnection | None:
        """A new connection with an open session; None, and a line in the log, if there is none to be had."""
        session = self.session
        settings = server.settings
        try:
            if upstream.user:
                password = await Thread(_read_password, upstream.password_file)
                credentials = Credentials(upstream.user, password, allow_clear=upstream.auth_clear)
                settings = replace(settings, credentials=credentials)
            deadline = session.clock.monotonic() + settings.deadlines.connect
            peer = await Connect([server.address], deadline, lasting=True)
        except OSError as error:
            self._log(f"{upstream.password_file}: {error.strerror}")
            return None
        except (Unreachable, DeadlineExceeded, LocalProtocolError) as error:
            problem = str(error) or "no connection in time"
            self._log(problem if problem.startswith(f"{server.name}: ") else f"{server.name}: {problem}")
            return None
        try:
            client = SMTPClientSession(Connection(session.clock), server.name, settings)
            try:
                await Converse(peer, client.open())
            except SendError as error:
                self._log(str(error))
                peer.close(client.farewell)
                return None
        except BaseException:
            peer.close()
            raise
        return UpstreamConnection(server, peer, client)

    def _log_answers(self, server: Server, message: OutgoingMessage, asked: list[int], problem: str) -> None:
        """What `server` said of the recipients `asked`, each thing once, and how the connection ended if it did."""
        results = [result for index in asked if (result := message.result(index)) is not None]
        answers = dict.fromkeys(str(result.reply) for result in results if result.stage is not Stage.CONNECTION)
        for line in [*list(answers)[:MAX_LOGGED], *([problem] if problem else [])]:
            self._log(f"{server.name}: {line}")

    def _can_be_said(self, path: ReversePath | ForwardPath) -> bool:
        options = path.options
        try:
            if isinstance(options, MailOptions):
                envelope_line("MAIL", self._address(path), _passed_on(options), utf8=True)
            else:
                envelope_line("RCPT", self._address(path), _without_plugins(options), utf8=True)
        except LocalProtocolError:
            return False
        return bool(path.address) or isinstance(path, ReversePath)

    def _address(self, path: Path) -> Address:
        """The address as a server is told it. Where the client's protocol has no quotes, or they were removed, the
        local part is what it is literally (RFC 5321 section 4.1.2)."""
        text = path.address
        session = self.session
        if session.profile.name == "compat" or session.protocol_name in ("QMTP", "QMQP"):
            local, at, domain = text.rpartition("@")
            if at:
                quoted = quote_local_part(local.encode("utf-8", "surrogateescape"))
                text = f"{quoted.decode('utf-8', 'surrogateescape')}@{domain}"
        return to_address(text)

    def _log(self, text: str) -> None:
        self.session.log(f"{self.name}: {text}")


class SMTPRelay(_Relay):
    """Hands mail on by SMTP to ``$UPSTREAM``."""

    name = "smtp"


class LMTPRelay(_Relay):
    """Hands mail on by LMTP to ``$UPSTREAM``, which answers for each recipient by itself."""

    name = "lmtp"
    lmtp = True


def _passed_on(options: MailOptions) -> MailOptions:
    """What of a client's wishes goes on: its SIZE is found out anew, and parameters of plugins are theirs."""
    return MailOptions(
        body=options.body,
        smtputf8=options.smtputf8,
        auth=options.auth,
        ret=options.ret,
        envid=options.envid,
        require_tls=options.require_tls,
    )


def _without_plugins(options: RecipientOptions) -> RecipientOptions:
    return RecipientOptions(options.notify, options.orcpt)


def _read_password(path: str) -> Secret:
    with open(path, "rb") as file:
        return Secret(file.readline().rstrip(b"\r\n"))


def _response(result: RecipientResult) -> Response:
    """What the client is told of a recipient: the server's own answer, in printable ASCII and not too much of it; of a
    lost connection, what is not about the message, and how far we are trusted there it learns nothing."""
    reply = result.reply
    if result.stage is Stage.CONNECTION:
        return LOST
    if reply.code in LOCKED_OUT:
        return NOT_LET_IN
    code = 250 if result.delivered else reply.code if reply.code >= 422 else 451
    enhanced = reply.enhanced_code
    text = " ".join(line.removeprefix(enhanced).strip() for line in reply.lines)
    if not enhanced.startswith(f"{code // 100}."):
        enhanced = f"{code // 100}.0.0"
    text = "".join(c if " " <= c <= "~" else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return Response(code, f"{enhanced} {text[:MAX_TEXT]}".rstrip())
