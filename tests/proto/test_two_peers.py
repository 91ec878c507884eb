"""Our client against our server, in memory: random commands, verdicts, chunking and pipelining.

The wire between them hands on random pieces, now in one direction, now in the other. Whatever is drawn, the
two agree: on the state when nothing is on its way, on what was accepted, and on every byte of a message.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl import LoginClient, PlainClient, ServerOptions
from mailfront_proto.secret import Secret
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.client import SMTPClient
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
)
from mailfront_proto.smtp.parameters import MailOptions
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.server import SMTPServer
from mailfront_proto.smtp.states import State
from mailfront_proto.testing import Pair, Player, random_sizes, strategies

Verdict = int
"""The code of an answer: 250, 450 or 550."""


@dataclass
class Received:
    """A message as the server's application saw it."""

    sender: Address
    recipients: list[Address] = field(default_factory=list)
    body: bytes = b""


class Peers:
    """A client and a server, and the wire between them.

    `verdicts` decides MAIL, RCPT, DATA and messages as they come, and accepts when it is used up; the answers
    of LMTP to each recipient are dice's.
    """

    def __init__(self, react: Callable[[ClientEvent], None], lmtp: bool, verdicts: list[Verdict], seed: int) -> None:
        self.client = SMTPClient("client.example", lmtp=lmtp)
        self.server = SMTPServer("mx.example", lmtp=lmtp)
        self.server.offers_starttls = True
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
            case Mail(address):
                if self.decide():
                    self.current = Received(address)
            case Recipient(address):
                if self.decide():
                    assert self.current is not None
                    self.current.recipients.append(address)
            case Data():
                self.decide()
            case MessageEnd():
                message = self.current
                assert message is not None
                self.current = None
                if server.lmtp:
                    fates = [(address, self.dice.choice([250, 250, 450, 550])) for address in message.recipients]
                    server.reply_each([Reply(code) for _, code in fates])
                    message.recipients = [address for address, code in fates if code == 250]
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
    recipients: list[Address]
    pieces: list[bytes]

    @property
    def normal(self) -> bytes:
        """What must arrive."""
        body = b"".join(self.pieces)
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
        return body if not body or body.endswith(b"\r\n") else body + b"\r\n"


outgoing = st.builds(
    Outgoing,
    st.one_of(st.just(Address(b"")), strategies.mailboxes()),
    st.lists(strategies.mailboxes(), min_size=1, max_size=6),
    bodies,
)


@settings(max_examples=150)
@given(
    messages=st.lists(outgoing, min_size=1, max_size=3),
    verdicts=verdict_lists,
    lmtp=st.booleans(),
    extended=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_messages_arrive_as_their_results_say(
    messages: list[Outgoing], verdicts: list[Verdict], lmtp: bool, extended: bool, seed: int
) -> None:
    results: list[MessageDone] = []
    left = list(messages)

    def react(event: ClientEvent) -> None:
        client = peers.client
        match event:
            case Greeting():
                client.hello(extended=extended or lmtp)
            case HelloDone():
                send_next()
            case ReadyForBody():
                for piece in left[0].pieces:
                    client.send_body(piece)
                client.end_of_body()
            case MessageDone():
                results.append(event)
                left.pop(0)
                send_next()

    def send_next() -> None:
        if left:
            peers.client.send_message(left[0].sender, left[0].recipients, MailOptions(size=len(left[0].normal)))
        else:
            peers.client.quit()

    peers = Peers(react, lmtp, verdicts, seed)
    peers.settle()

    assert peers.client.state is peers.server.state is State.CLOSED
    assert [len(message.recipients) for message in messages] == [len(done.results) for done in results]
    expected = []
    for message, done in zip(messages, results, strict=True):
        assert [result.address for result in done.results] == message.recipients
        assert all(result.stage is not Stage.CONNECTION for result in done.results)
        taken = [result.address for result in done.results if result.delivered]
        if taken:
            expected.append((message.sender, taken, message.normal))
    assert [(m.sender, m.recipients, m.body) for m in peers.received] == expected
    # The client sends nothing that our server would refuse by itself, but for what was pipelined in vain.
    for event in peers.server_events:
        if isinstance(event, Refused):
            assert extended or lmtp
            assert event.verb in ("RCPT", "DATA", "BDAT") and event.reply.code == 503
    if extended or lmtp:
        envelopes = [write for write in peers.pair.client.writes if b"MAIL FROM:" in write]
        assert len(envelopes) == len(messages)
        # MAIL and every RCPT in one write (RFC 2920); BDAT waits, until it is known that somebody gets the message
        assert all(write.endswith(b">\r\n") and write.count(b"\r\nRCPT TO:") for write in envelopes)


# -- commands by hand --------------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[SMTPClient], None]] = {
    "hello": SMTPClient.hello,
    "mail": lambda c: c.mail("me@a.example"),
    "recipient": lambda c: c.recipient("you@b.example"),
    "data": SMTPClient.data,
    "body": lambda c: c.send_body(b".a\nb"),
    "end": SMTPClient.end_of_body,
    "reset": SMTPClient.reset,
    "noop": SMTPClient.noop,
    "verify": lambda c: c.verify("root"),
    "starttls": SMTPClient.starttls,
    "plain": lambda c: c.authenticate(PlainClient("me", Secret(b"right")), allow_clear=True),
    "login": lambda c: c.authenticate(LoginClient("me", Secret(b"right")), allow_clear=True),
    "wrong": lambda c: c.authenticate(LoginClient("me", Secret(b"wrong")), allow_clear=True),
    "message": lambda c: c.send_message("me@a.example", ["you@b.example", "they@b.example"]),
}

operations = st.lists(
    st.one_of(st.sampled_from(sorted(OPERATIONS)), st.sampled_from(["mail", "recipient", "data", "end", "settle"])),
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
        elif isinstance(event, ReplyReceived) and event.command == "DATA":
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
        if peers.dice.random() < 0.3:
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
