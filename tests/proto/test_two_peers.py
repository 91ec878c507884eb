"""Our client against our server, in memory: random commands, verdicts, chunking and pipelining.

The wire between them hands on random pieces, now in one direction, now in the other. Whatever is drawn, the
two agree: on the state when nothing is on its way, on what was accepted, and on every byte of a message.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl import LoginClient, PlainClient, ServerOptions
from mailfront_proto.secret import Secret
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.client import CHUNK_SIZE, SMTPClient
from mailfront_proto.smtp.client_events import (
    ClientEvent,
    Greeting,
    HelloDone,
    MessageDone,
    ReadyForBody,
    ReadyForTLS,
    ReplyReceived,
    Stage,
)
from mailfront_proto.smtp.client_order import ALLOWED
from mailfront_proto.smtp.events import (
    Body,
    Data,
    Event,
    Mail,
    MessageEnd,
    Recipient,
    Refused,
    VerifyPassword,
    Xclient,
)
from mailfront_proto.smtp.parameters import (
    NO_RECIPIENT_OPTIONS,
    BodyType,
    MailOptions,
    Notify,
    RecipientOptions,
    Return,
)
from mailfront_proto.smtp.profile import DEFAULT, Limits
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.server import SMTPServer
from mailfront_proto.smtp.states import State
from mailfront_proto.testing import Pair, Player, random_sizes, strategies

Verdict = int
"""The code of an answer: 250, 450 or 550."""


PATIENT = replace(
    DEFAULT.limits, errors_in_row=None, errors=None, refused_recipients=None, idle_commands=None, auth_failures=None
)
"""Nobody is turned away for too many of anything: those budgets have tests of their own."""


@dataclass
class Received:
    """A message as the server's application saw it."""

    sender: Address
    options: MailOptions
    recipients: list[tuple[Address, RecipientOptions]] = field(default_factory=list)
    body: bytes = b""


class Peers:
    """A client and a server, and the wire between them.

    `verdicts` decides MAIL, RCPT, DATA and messages as they come, and accepts when it is used up; the answers
    of LMTP to each recipient are dice's. `chunk_size`: of the client's; `limits`: the server's.
    """

    def __init__(
        self,
        react: Callable[[ClientEvent], None],
        lmtp: bool,
        verdicts: list[Verdict],
        seed: int,
        chunk_size: int = CHUNK_SIZE,
        limits: Limits = PATIENT,
    ) -> None:
        self.client = SMTPClient("client.example", lmtp=lmtp, chunk_size=chunk_size)
        self.server = SMTPServer("mx.example", replace(DEFAULT, limits=limits), lmtp=lmtp)
        self.server.offers_starttls = True
        self.server.offers_xclient = True
        self.server.sasl = ServerOptions(["PLAIN", "LOGIN"])
        self.pair = Pair(Player(self.client, self.use), Player(self.server, self.answer), random_sizes(seed))
        self.react = react
        self.dice = random.Random(seed)
        self.verdicts: Iterator[Verdict] = iter(verdicts)
        self.handshake = False
        self.received: list[Received] = []
        self.current: Received | None = None

    @property
    def server_events(self) -> list[Event]:
        return self.pair.server.outcome.events

    def settle(self) -> None:
        """Go on until nothing is on its way."""
        self.pair.settle()
        while self.handshake:
            self.handshake = False
            self.server.tls_established()
            self.client.tls_established()
            self.client.hello()
            self.pair.settle()

    def use(self, client: SMTPClient, event: ClientEvent) -> None:
        if isinstance(event, ReadyForTLS):
            self.handshake = True
        self.react(event)

    def answer(self, server: SMTPServer, event: Event) -> None:
        """What a server's application does."""
        match event:
            case Body(data):
                assert self.current is not None
                self.current.body += data
            case Mail(address, options=options):
                if self.decide():
                    self.current = Received(address, options)
            case Recipient(address, options=wishes):
                if self.decide():
                    assert self.current is not None
                    self.current.recipients.append((address, wishes))
            case Data():
                self.decide()
            case MessageEnd():
                message = self.current
                assert message is not None
                self.current = None
                if server.lmtp:
                    fates = [(to, self.dice.choice([250, 250, 450, 550])) for to in message.recipients]
                    server.reply_each([Reply(code) for _, code in fates])
                    message.recipients = [to for to, code in fates if code == 250]
                    if message.recipients:
                        self.received.append(message)
                elif self.decide():
                    self.received.append(message)
            case VerifyPassword(username=username, password=password):
                if (username, password) == ("me", Secret(b"right")):
                    server.accept()
                else:
                    server.reply(535, "no")
            case _ if server.answer_owed:
                server.accept()

    def decide(self) -> bool:
        """Answer by the next verdict."""
        code = next(self.verdicts, 250)
        if code == 250:
            self.server.accept()
        else:
            self.server.reply(code, "as drawn")
        return code == 250


# -- whole messages ----------------------------------------------------------------------------------------

verdict_lists = st.lists(st.sampled_from([250, 250, 250, 250, 450, 550]), max_size=30)

bodies = st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b".", b"..", b"\r\n.\r\n", b"QUIT\r\n", b"Subject: x", b"\r", b"\xff", b"a" * 3000]
    ),
    max_size=12,
)


@dataclass
class Outgoing:
    """A message to send."""

    sender: Address
    recipients: list[tuple[Address, RecipientOptions]]
    pieces: list[bytes]
    options: MailOptions

    @property
    def normal(self) -> bytes:
        """What must arrive."""
        body = b"".join(self.pieces)
        if self.options.body is BodyType.BINARY_MIME:
            return body
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
        return body if not body or body.endswith(b"\r\n") else body + b"\r\n"

    def lacks(self, client: SMTPClient) -> bool:
        """Whether the server cannot have it."""
        offered, options = client.capabilities, self.options
        return (
            (options.body is BodyType.EIGHT_BIT_MIME and "8BITMIME" not in offered)
            or (options.body is BodyType.BINARY_MIME and not {"BINARYMIME", "CHUNKING"} <= set(offered))
            or (options.require_tls and "REQUIRETLS" not in offered)
            or (offered.size is not None and len(self.normal) > offered.size)
            or ("SMTPUTF8" not in offered and (options.smtputf8 or not self.sender.is_ascii))
        )


mailboxes = st.one_of(strategies.mailboxes(), strategies.strict_addresses(utf8=True).filter(lambda a: not a.is_null))
wishes = st.builds(
    RecipientOptions,
    notify=st.none() | st.just(frozenset([Notify.NEVER])) | st.sets(
        st.sampled_from([Notify.SUCCESS, Notify.FAILURE, Notify.DELAY]), min_size=1
    ).map(frozenset),
    orcpt=st.none() | st.sampled_from([("rfc822", "a+b=c@d"), ("utf-8", "\xe9@\u65e5\u672c")]),
)
outgoing = st.builds(
    Outgoing,
    st.one_of(st.just(Address(b"")), mailboxes),
    st.lists(st.tuples(mailboxes, st.just(NO_RECIPIENT_OPTIONS) | wishes), min_size=1, max_size=6),
    bodies,
    st.builds(
        MailOptions,
        body=st.none() | st.sampled_from(BodyType),
        smtputf8=st.booleans(),
        ret=st.none() | st.sampled_from(Return),
        envid=st.none() | st.sampled_from(["17", "a b+c=d"]),
        require_tls=st.sampled_from([False, False, False, True]),
    ),
)
extensions = st.sets(st.sampled_from(sorted(DEFAULT.extensions | {"DSN", "REQUIRETLS"}))).map(frozenset)


@settings(max_examples=150)
@given(
    messages=st.lists(outgoing, min_size=1, max_size=3),
    verdicts=verdict_lists,
    lmtp=st.booleans(),
    extended=st.sampled_from([True, True, False]),
    offered=st.just(DEFAULT.extensions | {"DSN", "REQUIRETLS"}) | extensions,
    in_tls=st.booleans(),
    chunking=st.booleans(),
    chunk_size=st.sampled_from([1, 2, 3, 7, 100, CHUNK_SIZE]),
    most=st.sampled_from([1, 2, 3, 1000]),
    message_size=st.sampled_from([None, 10, 1000]),
    seed=st.integers(0, 2**32),
)
def test_messages_arrive_as_their_results_say(
    messages: list[Outgoing],
    verdicts: list[Verdict],
    lmtp: bool,
    extended: bool,
    offered: frozenset[str],
    in_tls: bool,
    chunking: bool,
    chunk_size: int,
    most: int,
    message_size: int | None,
    seed: int,
) -> None:
    results: list[tuple[Outgoing, list[int], MessageDone]] = []
    left = [(message, list(range(len(message.recipients)))) for message in messages]
    under_way: list[int] = []

    def react(event: ClientEvent) -> None:
        client = peers.client
        match event:
            case Greeting():
                client.hello(extended=extended or lmtp)
            case HelloDone():
                send_next()
            case ReadyForBody():
                for piece in left[0][0].pieces:
                    client.send_body(piece)
                client.end_of_body()
            case MessageDone():
                message, to = left[0]
                results.append((message, under_way[:], event))
                to[:] = [index for index in to if index not in under_way]
                if not to:
                    left.pop(0)
                send_next()

    def send_next() -> None:
        client = peers.client
        if not left or client.state is State.CLOSED:
            client.quit()
            return
        message, to = left[0]
        under_way[:] = [to[index] for index in client.batch([message.recipients[index][0] for index in to])]
        options = replace(message.options, size=len(message.normal))
        client.send_message(
            message.sender, [message.recipients[index] for index in under_way], options, chunking=chunking
        )

    longest = max(len(message.normal) for message in messages)
    peers = Peers(react, lmtp, verdicts, seed, max(chunk_size, longest // 40), replace(PATIENT, recipients=most))
    peers.server.extensions = offered
    peers.server.message_size = message_size
    if in_tls:
        peers.server.tls_established()
        peers.client.tls_established()
    peers.settle()

    client = peers.client
    assert client.state is peers.server.state is State.CLOSED
    assert not left
    expected = []
    asked = 0
    for message, batch, done in results:
        recipients = [message.recipients[index] for index in batch]
        assert [result.address for result in done.results] == [address for address, _ in recipients]
        lacks = message.lacks(client)
        asked += not lacks
        for result in done.results:
            assert result.stage is not Stage.CONNECTION
            alone = "SMTPUTF8" not in client.capabilities and not result.address.is_ascii
            assert (result.stage is Stage.LOCAL) == (lacks or alone)
        taken = [to for to, result in zip(recipients, done.results, strict=True) if result.delivered]
        if taken:
            expected.append((message, taken))
    reports = "DSN" in client.capabilities
    assert len(peers.received) == len(expected)
    for received, (message, taken) in zip(peers.received, expected, strict=True):
        assert received.sender == message.sender
        assert received.body == message.normal
        assert [address for address, _ in received.recipients] == [address for address, _ in taken]
        assert [wish for _, wish in received.recipients] == [
            wish if reports else NO_RECIPIENT_OPTIONS for _, wish in taken
        ]
        said, meant = received.options, message.options
        assert said.body is (None if meant.body is BodyType.SEVEN_BIT else meant.body)
        assert said.require_tls == meant.require_tls
        assert (said.ret, said.envid) == ((meant.ret, meant.envid) if reports else (None, None))
        assert said.size == (len(message.normal) if "SIZE" in client.capabilities else None)
        assert said.smtputf8 or not meant.smtputf8
    # The client sends nothing that our server would refuse by itself, but for what was pipelined in vain, and what
    # is too big for a server that has not said so.
    for event in peers.server_events:
        if isinstance(event, Refused):
            too_many = event.reply.code == 452 and "LIMITS" not in client.capabilities
            in_vain = event.reply.code == 503 and "PIPELINING" in client.capabilities
            assert (event.verb == "RCPT" and too_many) or (event.verb in ("RCPT", "DATA", "BDAT") and in_vain)
    if "PIPELINING" in client.capabilities:
        envelopes = [write for write in peers.pair.client.writes if b"MAIL FROM:" in write]
        assert len(envelopes) <= asked
        # MAIL and every RCPT in one write (RFC 2920); BDAT waits, until it is known that somebody gets the message
        assert all(write.endswith(b"\r\n") and write.count(b"\r\nRCPT TO:") for write in envelopes)


# -- commands by hand --------------------------------------------------------------------------------------


def envelope(client: SMTPClient) -> None:
    client.mail("me@a.example")
    client.recipient("you@b.example")


OPERATIONS: dict[str, Callable[[SMTPClient], None]] = {
    "hello": SMTPClient.hello,
    "mail": lambda c: c.mail("me@a.example"),
    "recipient": lambda c: c.recipient("you@b.example"),
    "envelope": envelope,
    "data": SMTPClient.data,
    "body": lambda c: c.send_body(b".a\nb"),
    "end": SMTPClient.end_of_body,
    "chunk": lambda c: c.bdat(b"a\r\n"),
    "last": lambda c: c.bdat(b"", last=True),
    "reset": SMTPClient.reset,
    "noop": SMTPClient.noop,
    "verify": lambda c: c.verify("root"),
    "starttls": SMTPClient.starttls,
    "plain": lambda c: c.authenticate(PlainClient("me", Secret(b"right")), allow_clear=True),
    "login": lambda c: c.authenticate(LoginClient("me", Secret(b"right")), allow_clear=True),
    "wrong": lambda c: c.authenticate(LoginClient("me", Secret(b"wrong")), allow_clear=True),
    "xclient": lambda c: c.xclient(Xclient(name="host.example")),
    "message": lambda c: c.send_message("me@a.example", ["you@b.example", "they@b.example"]),
}

operations = st.lists(
    st.one_of(
        st.sampled_from(sorted(OPERATIONS)),
        st.sampled_from(["envelope", "envelope", "data", "end", "chunk", "chunk", "last", "settle"]),
    ),
    min_size=4,
    max_size=40,
)


@settings(max_examples=200)
@given(operations, verdict_lists, st.booleans(), st.integers(0, 2**32))
def test_the_two_agree_on_the_state(
    operations: list[str], verdicts: list[Verdict], lmtp: bool, seed: int
) -> None:
    in_message = data_refused = False

    def react(event: ClientEvent) -> None:
        nonlocal in_message, data_refused
        if isinstance(event, Greeting):
            peers.client.hello()
        elif isinstance(event, ReplyReceived) and event.command in ("DATA", "BDAT") and not event.reply.is_positive:
            data_refused = True
        elif isinstance(event, ReadyForBody) and in_message:
            peers.client.end_of_body()
        elif isinstance(event, MessageDone):
            in_message = False

    def check() -> None:
        nonlocal data_refused
        peers.settle()
        if data_refused and peers.client.state in ALLOWED["RSET"]:  # not all servers drop the transaction then
            peers.client.reset()
            peers.settle()
        data_refused = False
        assert peers.client.awaiting == ""
        assert peers.client.state is peers.server.state
        assert peers.client.in_tls == peers.server.in_tls
        assert peers.client.authenticated == peers.server.authenticated

    peers = Peers(react, lmtp, verdicts, seed)
    check()
    for operation in operations:
        if operation == "settle":
            check()
            continue
        try:
            OPERATIONS[operation](peers.client)
        except LocalProtocolError:
            continue  # out of order, and nothing was sent: the server must not notice
        in_message = in_message or operation == "message"
        if operation == "envelope" or peers.dice.random() < 0.3:
            check()
    check()
    if peers.client.state is State.BODY:
        peers.client.end_of_body()
        check()
    peers.client.quit()
    peers.settle()
    assert peers.client.state is peers.server.state is State.CLOSED
    refused = [e for e in peers.server_events if isinstance(e, Refused) and e.mechanism == ""]
    assert all(event.reply.code == 503 and event.verb in ("RCPT", "DATA", "BDAT") for event in refused)
