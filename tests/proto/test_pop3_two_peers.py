"""Our POP3 client against our server, in memory: random mailboxes, commands, chunking and pipelining. Whatever is
drawn, every byte of a message arrives, and the two agree on what is deleted."""

import re
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.pop3 import (
    COMPAT,
    DEFAULT,
    Authenticated,
    CapaDone,
    ClientEvent,
    ConnectionClosed,
    Event,
    Greeting,
    MailboxStatus,
    MessageData,
    Mode,
    POP3Client,
    POP3Server,
    Profile,
    ReadyForTLS,
    Refused,
    ReplyReceived,
    Secret,
    Sizes,
    State,
    UniqueIds,
)
from mailfront_proto.pop3.maildrop import wire_uid
from mailfront_proto.sasl import LoginClient, PlainClient, ServerOptions
from mailfront_proto.testing import Pair, Player, random_sizes
from tests.proto.pop3_script import Application

MESSAGE = st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b".", b"..", b"\r\n.\r\n", b"\n.\n", b"QUIT\r\n", b"Subject: x", b"\r", b"\xff\x00",
        b"a" * 3000, b"\n\n"]
    ),
    max_size=12,
).map(b"".join)
UIDS = st.one_of(
    st.text([chr(c) for c in range(0x21, 0x7F)], min_size=1, max_size=70).map(str.encode),
    st.binary(max_size=90),
)


def wire(message: bytes) -> bytes:
    """What must arrive."""
    message = re.sub(rb"(?<!\r)\n", b"\r\n", message)
    return message if not message or message.endswith(b"\r\n") else message + b"\r\n"


def wire_top(message: bytes, lines: int) -> bytes:
    message = wire(message)
    header, blank, body = message.partition(b"\r\n") if message.startswith(b"\r\n") else message.partition(b"\r\n\r\n")
    return header + blank + b"".join(line + b"\r\n" for line in body.split(b"\r\n")[:-1][:lines])


class Peers:
    """A client that carries out operations in turn, and a server with a mailbox."""

    def __init__(self, messages: list[bytes], uids: list[bytes], slices: int, profile: Profile, seed: int) -> None:
        self.server = POP3Server(profile)
        self.server.offers_user = self.server.offers_stls = self.server.offers_utf8 = True
        self.server.sasl = ServerOptions(["PLAIN", "LOGIN"])
        self.client = POP3Client()
        self.application = Application(messages, uids, slices=slices)
        self.pair = Pair(Player(self.client, self.use), Player(self.server, self.application), random_sizes(seed))
        self.login = 0
        self.tls = False
        self.handshake = False
        self.todo: deque[tuple[str, int]] = deque()
        self.refused: list[tuple[str, int]] = []

    def use(self, client: POP3Client, event: ClientEvent) -> None:
        match event:
            case Greeting():
                client.capa()
            case CapaDone():
                if self.tls and not client.in_tls and "STLS" in client.capabilities:
                    client.stls()
                else:
                    self.log_in()
            case ReadyForTLS():
                self.handshake = True
            case _ if client.state is State.TRANSACTION:
                self.go_on()

    def log_in(self) -> None:
        if self.login == 0:
            self.client.login("joe", Secret(b"secret"), allow_clear=True)
        else:
            kind = PlainClient if self.login == 1 else LoginClient
            self.client.authenticate(kind("joe", Secret(b"secret")), allow_clear=True)

    def go_on(self) -> None:
        """As many operations as the client takes now."""
        while self.todo:
            verb, number = self.todo[0]
            try:
                match verb:
                    case "top":
                        self.client.top(number, 1)
                    case "list" | "uidl":
                        getattr(self.client, verb)(number or None)
                    case "retr" | "dele":
                        getattr(self.client, verb)(number)
                    case _:
                        getattr(self.client, verb)()
            except LocalProtocolError:
                return  # an answer is awaited first
            self.todo.popleft()

    def run(self) -> None:
        self.pair.settle()
        while self.handshake:
            self.handshake = False
            self.server.tls_established()
            self.client.tls_established()
            self.client.capa()
            self.pair.settle()


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_what_the_client_sees_is_what_there_is(data: st.DataObject) -> None:
    mailbox = data.draw(st.lists(st.tuples(MESSAGE, UIDS), max_size=4))
    messages, uids = [message for message, _ in mailbox], [uid for _, uid in mailbox]
    number = st.integers(1, len(messages) + 1)
    operations = data.draw(
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from(["retr", "top", "dele", "list", "uidl"]), number),
                st.tuples(st.sampled_from(["stat", "list", "uidl", "rset", "noop"]), st.just(0)),
            ),
            max_size=15,
        )
    )
    peers = Peers(messages, uids, data.draw(st.integers(1, 50)), DEFAULT, data.draw(st.integers(0, 2**32)))
    peers.login = data.draw(st.integers(0, 2))
    peers.tls = data.draw(st.booleans())
    peers.todo = deque([*operations, ("quit", 0)])
    peers.run()

    assert peers.client.state is peers.server.state is State.CLOSED
    assert peers.client.in_tls == peers.server.in_tls == peers.tls
    assert not peers.todo
    events = deque(peers.pair.client.outcome.events)
    while not isinstance(events.popleft(), Authenticated):
        pass
    deleted: set[int] = set()
    for verb, number_ in operations:
        missing = number_ and (number_ > len(messages) or number_ in deleted)
        if missing:
            reply = events.popleft()
            assert isinstance(reply, ReplyReceived) and not reply.reply.is_positive and reply.number == number_
            continue
        check(events, verb, number_, messages, uids, deleted)
    assert isinstance(events.popleft(), ReplyReceived)
    assert isinstance(events.popleft(), ConnectionClosed)
    assert peers.application.updated is not None
    assert peers.application.updated[0] == sorted(deleted)


def check(
    events: deque[ClientEvent], verb: str, number: int, messages: list[bytes], uids: list[bytes], deleted: set[int]
) -> None:
    """One operation that is answered positively."""
    left = [n for n in range(1, len(messages) + 1) if n not in deleted]
    numbers = [number] if number else left
    match verb:
        case "retr" | "top":
            expected = wire(messages[number - 1]) if verb == "retr" else wire_top(messages[number - 1], 1)
            got = b""
            while isinstance(events[0], MessageData):
                got += events.popleft().data  # type: ignore[union-attr]  # it was looked at
            assert got == expected
        case "list" if numbers:
            assert events.popleft() == Sizes([(n, len(messages[n - 1])) for n in numbers])
        case "uidl" if numbers:
            assert events.popleft() == UniqueIds([(n, wire_uid(uids[n - 1])) for n in numbers])
        case "dele":
            deleted.add(number)
        case "rset":
            deleted.clear()
        case "stat":
            assert events.popleft() == MailboxStatus(len(left), sum(len(messages[n - 1]) for n in left))
            return
    reply = events.popleft()
    assert isinstance(reply, ReplyReceived)
    assert reply.command == verb.upper() and reply.reply.is_positive and reply.number == number


@settings(max_examples=60, deadline=None)
@given(MESSAGE.filter(lambda m: b"\r" not in m), st.integers(1, 9), st.integers(0, 2**32))
def test_compat_adds_an_empty_line_and_nothing_else(message: bytes, slices: int, seed: int) -> None:
    peers = Peers([message], [b"x"], slices, COMPAT, seed)
    peers.todo = deque([("retr", 1), ("quit", 0)])
    peers.run()
    data = [event.data for event in peers.pair.client.outcome.events if isinstance(event, MessageData)]
    assert b"".join(data) == message.replace(b"\n", b"\r\n") + b"\r\n"


def test_a_login_is_handed_over_with_what_follows_it() -> None:
    """Two machines on one connection, one after the other, and a client that does not notice."""
    first = POP3Server(mode=Mode.LOGIN)
    first.offers_user = True
    second = POP3Server(mode=Mode.MAILBOX)
    application = Application([b"one\n", b"two\n"])
    login = Player(first, application)
    login.step()
    login.receive(b"USER joe\r\nPASS secret\r\nSTAT\r\nRETR 2\r\nDEL")
    mailbox = Player(second, application)
    mailbox.step()
    mailbox.receive(first.trailing_data)
    mailbox.receive(b"E 1\r\nQUIT\r\n")
    assert login.outcome.output == b"+OK \r\n+OK \r\n"
    assert mailbox.outcome.output == b"+OK \r\n+OK 2 8\r\n+OK \r\ntwo\r\n.\r\n+OK \r\n+OK \r\n"
    assert application.updated == ([1], [2])
    refused: list[Event] = [event for event in mailbox.outcome.events if isinstance(event, Refused)]
    assert refused == []
