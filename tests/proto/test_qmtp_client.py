"""The client machines of QMTP and QMQP: what they send, what they make of responses, and misuse; and both against
our servers, in memory."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfront_proto.netstring import encode_netstring
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED
from mailfront_proto.qmqp import QMQPClient, QMQPServer
from mailfront_proto.qmtp import (
    COMPAT,
    DEFAULT,
    Address,
    Body,
    ConnectionClosed,
    LocalProtocolError,
    MessageDone,
    MessageEnd,
    MessageRefused,
    MessageStart,
    QMTPClient,
    QMTPServer,
    Recipient,
    RecipientResult,
    RemoteProtocolError,
    Reply,
    Sender,
    Stage,
)
from mailfront_proto.qmtp.client import MAX_RESPONSE, PackageClient
from mailfront_proto.qmtp.package import PackageServer
from mailfront_proto.qmtp.responses import encode_response, parse_response
from mailfront_proto.testing import (
    Pair,
    Player,
    assert_chunk_invariant,
    assert_linear,
    assert_memory_bounded,
    ignore,
    random_sizes,
)

A, B, C = "a@b.example", "c@d.example", "e@f.example"


def send(client: QMTPClient | QMQPClient, sender: str, recipients: list[str], body: bytes) -> None:
    client.send_message(sender, recipients, len(body))
    client.send_body(body)
    client.end_of_body()


def results(event: object) -> list[tuple[str, Reply, Stage]]:
    assert isinstance(event, MessageDone)
    return [(str(result.address), result.reply, result.stage) for result in event.results]


def test_a_qmtp_package() -> None:
    client = QMTPClient()
    assert client.next_event() is PAUSED
    client.send_message(A, [B, C], 15)
    assert client.next_event() is PAUSED
    client.send_body(b"Subject: q")
    client.send_body(b"\n\nhi\n")
    client.end_of_body()
    assert client.data_to_send() == b"16:\nSubject: q\n\nhi\n,11:a@b.example,30:11:c@d.example,11:e@f.example,,"
    assert client.next_event() is NEED_DATA
    client.receive_data(b"5:Kdone,5:Zwait")
    assert client.next_event() is NEED_DATA
    assert client.awaiting == 1
    client.receive_data(b",")
    done = client.next_event()
    assert results(done) == [
        (B, Reply(250, "done"), Stage.MESSAGE),
        (C, Reply(451, "wait"), Stage.MESSAGE),
    ]
    assert isinstance(done, MessageDone) and [r.delivered for r in done.results] == [True, False]
    assert client.next_event() is PAUSED
    client.receive_eof()
    assert client.next_event() == ConnectionClosed("EOF")


def test_crlf_form() -> None:
    client = QMTPClient()
    client.send_message("", [B], 3, crlf=True)
    client.send_body(b"x\r\n")
    client.end_of_body()
    assert client.data_to_send() == b"4:\rx\r\n,0:,15:11:c@d.example,,"


def test_a_qmqp_package() -> None:
    client = QMQPClient()
    send(client, A, [B, C], b"Subject: q\n\nhi\n")
    assert client.data_to_send() == b"64:15:Subject: q\n\nhi\n,11:a@b.example,11:c@d.example,11:e@f.example,,"
    client.receive_data(b"3:Dno,")
    assert results(client.next_event()) == [
        (B, Reply(554, "no"), Stage.MESSAGE),
        (C, Reply(554, "no"), Stage.MESSAGE),
    ]
    assert client.next_event() == ConnectionClosed("done")
    client.receive_data(b"more")
    with pytest.raises(LocalProtocolError, match="has ended"):
        client.send_message(A, [B], 1)


def test_one_response_for_a_package() -> None:
    client = QMTPClient(one_response=True)
    for _ in range(2):
        send(client, A, [B, C], b"x\n")
    client.receive_data(b"5:Kdone,3:Dno,")
    assert [reply.code for _, reply, _ in results(client.next_event())] == [250, 250]
    assert [reply.code for _, reply, _ in results(client.next_event())] == [554, 554]


def test_the_window() -> None:
    client = QMTPClient(window=2)
    send(client, A, [B], b"1")
    send(client, A, [B], b"2")
    with pytest.raises(LocalProtocolError, match="2 messages are not answered yet"):
        client.send_message(A, [B], 1)
    client.receive_data(b"1:K,")
    client.next_event()
    send(client, A, [B], b"3")
    assert client.awaiting == 2
    assert client.data_to_send().count(A.encode()) == 3


def test_a_lost_connection_is_temporary_for_what_is_not_answered() -> None:
    client = QMTPClient()
    send(client, A, [B, C], b"1")
    send(client, A, [B], b"2")
    player = Player(client, ignore)
    player.receive(b"1:K,")
    player.end()
    lost = Reply(451, "4.4.2 Connection lost before the message was answered")
    first, second, closed = player.outcome.events
    assert results(first) == [(B, Reply(250, ""), Stage.MESSAGE), (C, lost, Stage.CONNECTION)]
    assert results(second) == [(B, lost, Stage.CONNECTION)]
    assert closed == ConnectionClosed("EOF", in_message=True)


def test_a_server_that_gives_up_in_the_middle() -> None:
    client = QMTPClient()
    client.send_message(A, [B, C], 100)
    client.send_body(b"x" * 50)
    client.receive_data(b"12:Z4.3.1 Full!,")
    assert [(a, r.code) for a, r, _ in results(client.next_event())] == [(B, 451), (C, 451)]
    assert client.next_event() == ConnectionClosed("refused", in_message=True)
    assert client.data_to_send() == b""
    with pytest.raises(LocalProtocolError, match="next_event\\(\\) tells"):
        client.send_body(b"x")
    with pytest.raises(LocalProtocolError, match="next_event\\(\\) tells"):
        client.end_of_body()


BROKEN = [
    (b"x", "no netstring"),
    (b"01:K,", "no netstring"),
    (b"1:K;", "no netstring"),
    (b"0:,", "none of K, Z and D"),
    (b"3:Xno,", "none of K, Z and D"),
    (b"4097:", "too long"),
    (b"9999999999:K", "too long"),
    (b"1:K,1:K,", "to no message"),
]


@pytest.mark.parametrize(("wire", "text"), BROKEN)
@pytest.mark.parametrize("kind", [QMTPClient, QMQPClient])
def test_what_no_server_may_say(kind: type[QMTPClient | QMQPClient], wire: bytes, text: str) -> None:
    def new() -> Player[Any]:
        client = kind()
        send(client, A, [B], b"x\n")
        client.data_to_send()
        return Player(client, ignore, raises=RemoteProtocolError)

    outcome = assert_chunk_invariant(new, [wire])
    if kind is QMQPClient and text == "to no message":
        assert outcome.kinds() == ["MessageDone", "ConnectionClosed"]  # all behind the first one is not read
        return
    assert sorted(outcome.kinds()[:-1]) == ["MessageDone", "Raised"]
    assert outcome.events[-1].in_message is (outcome.kinds()[0] == "Raised")
    (raised,) = [event for event in outcome.events if type(event).__name__ == "Raised"]
    assert raised.text.startswith("the server sent a response") and text in raised.text


def test_what_was_received_is_attached_to_the_exception() -> None:
    client = QMTPClient()
    send(client, A, [B], b"x")
    client.receive_data(b"250 ok\r\n")
    with pytest.raises(RemoteProtocolError) as raised:
        client.next_event()
    assert raised.value.received == b"250 ok\r\n"


def test_a_message_accepted_before_its_end() -> None:
    client = QMTPClient()
    client.send_message(A, [B], 10)
    client.receive_data(b"1:K,")
    with pytest.raises(RemoteProtocolError, match="before its end"):
        client.next_event()
    assert results(client.next_event())[0][2] is Stage.CONNECTION


@pytest.mark.parametrize(("early", "rest"), [(b"4:Kyes,", b""), (b"4:K", b"yes,"), (b"4", b":Kyes,")])
def test_a_response_before_its_package_is_none(early: bytes, rest: bytes) -> None:
    """It came before the end of the package did, though nobody has looked at it until now."""
    for kind in (QMTPClient, QMQPClient):
        client = kind()
        client.receive_data(early)
        send(client, A, [B], b"x\n")
        if rest:
            assert client.next_event() is NEED_DATA
            client.receive_data(rest)
        with pytest.raises(RemoteProtocolError, match="before its end"):
            client.next_event()
        assert results(client.next_event())[0][2] is Stage.CONNECTION


def test_a_response_of_one_package_is_none_to_the_next() -> None:
    client = QMTPClient()
    send(client, A, [B], b"x\n")
    client.receive_data(b"1:K,1:K,")
    send(client, A, [C], b"y\n")
    assert results(client.next_event()) == [(B, Reply(250, ""), Stage.MESSAGE)]
    with pytest.raises(RemoteProtocolError, match="before its end"):
        client.next_event()


def test_a_refusal_before_the_end_is_one_for_all_recipients() -> None:
    client = QMTPClient()
    client.receive_data(b"3:Dno,")
    send(client, A, [B, C], b"x\n")
    assert [reply for _, reply, _ in results(client.next_event())] == [Reply(554, "no")] * 2
    assert client.next_event() == ConnectionClosed("refused", in_message=True)


def test_the_longest_response() -> None:
    client = QMTPClient()
    send(client, A, [B], b"x")
    client.receive_data(encode_netstring(b"K" + b"x" * (MAX_RESPONSE - 1)))
    assert len(results(client.next_event())[0][1].text) == MAX_RESPONSE - 1


def test_h64_addresses_that_hold_control_characters() -> None:
    for kind in (QMTPClient, QMQPClient):
        for bad in ("a\0@b", "a\n@b", "\r", "\x7f", "\x1b"):
            for sender, recipients in ((bad, [B]), (A, [B, bad])):
                client = kind()
                with pytest.raises(LocalProtocolError, match="control character"):
                    client.send_message(sender, recipients, 1)
                assert client.data_to_send() == b""
                assert client.awaiting == 0


def test_misuse() -> None:
    client = QMTPClient()
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: client.send_body(b"x"), "send_message\\(\\) first"),
        (client.end_of_body, "send_message\\(\\) first"),
        (lambda: client.send_message(A, [], 1), "one recipient at least"),
        (lambda: client.send_message(A, "joe@example.org", 1), "a list of addresses, not one"),
        (lambda: client.send_message(A, [B], -1), "a size"),
        (lambda: client.send_message(A, [B], 10**10), "a size"),
        (lambda: client.receive_data(b""), "receive_eof"),
    ]
    for call, text in calls:
        with pytest.raises(LocalProtocolError, match=text):
            call()
    client.send_message(A, [B], 3)
    with pytest.raises(LocalProtocolError, match="end_of_body"):
        client.send_message(A, [B], 3)
    with pytest.raises(LocalProtocolError, match="3 bytes are missing"):
        client.end_of_body()
    with pytest.raises(LocalProtocolError, match="only 3 are left"):
        client.send_body(b"four")
    client.send_body(b"abc")
    client.end_of_body()
    with pytest.raises(LocalProtocolError, match="over 10 digits"):
        QMQPClient().send_message(A, [B], 9_999_999_999)


def test_undrained_output_pauses() -> None:
    client = QMTPClient()
    send(client, A, [B], b"x" * (MAX_PENDING_OUTPUT + 1))
    client.receive_data(b"1:K,")
    assert client.next_event() is PAUSED
    client.data_to_send()
    assert isinstance(client.next_event(), MessageDone)


def test_bounds() -> None:
    def awaiting() -> Player[QMTPClient]:
        client = QMTPClient()
        send(client, A, [B] * 5000, b"x")
        return Player(client, ignore, raises=RemoteProtocolError)

    assert_linear(awaiting, b"1:K,", size=300)
    assert_linear(awaiting, b"2:Zx,", size=300)
    assert_memory_bounded(awaiting, b"x" * 9, 100_000)
    assert_memory_bounded(awaiting, b"4096:" + b"K" * 4096, 100_000)


@given(st.integers(200, 599), st.text("Kö 5.1.1\n\t,:", max_size=40))
def test_what_is_encoded_is_parsed(code: int, text: str) -> None:
    wire = encode_response(Reply(code, text))
    content = wire.partition(b":")[2][:-1]
    expected = 250 if code < 400 else 451 if code < 500 else 554
    assert parse_response(content) == Reply(expected, text)


@given(st.binary(max_size=60))
def test_any_content_is_a_response_or_none(content: bytes) -> None:
    reply = parse_response(content)
    assert (reply is not None) is (content[:1] in (b"K", b"Z", b"D"))


# -- two peers ---------------------------------------------------------------------------------------------

address_lists = st.lists(
    st.sampled_from(["ok1@a.example", "ok2@a.example", "no@a.example", "later@a.example", "grün@a.example", "a b@c"]),
    min_size=1,
    max_size=5,
)
message_bodies = st.lists(st.sampled_from([b"\n", b"\r\n", b"text", b"x" * 3000, b",", b"\xff"]), max_size=8)


class Server:
    """An application that refuses by name and keeps what it accepts."""

    def __init__(self) -> None:
        self.received: list[tuple[str, list[str], bytes]] = []
        self.body = b""
        self.sender = ""
        self.to: list[str] = []

    def __call__(self, machine: PackageServer, event: Any) -> None:
        match event:
            case MessageStart():
                self.body, self.to = b"", []
                machine.accept()
            case Body(data):
                self.body += data
            case Sender(address, refusal) | Recipient(address, refusal):
                assert refusal is None or not machine.answer_owed
                self.envelope(machine, event, str(address))
            case MessageEnd(recipients):
                assert recipients == len(self.to)
                machine.accept()
                self.received.append((self.sender, self.to, self.body))
            case MessageRefused():
                pass

    def envelope(self, machine: PackageServer, event: Sender | Recipient, address: str) -> None:
        if not machine.answer_owed:
            return
        if address.startswith(("no", "later")):
            machine.reply(550 if address.startswith("no") else 450, "as its name says")
            return
        machine.accept()
        if isinstance(event, Sender):
            self.sender = address
        else:
            self.to.append(address)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(["", A, "no@x"]), address_lists, message_bodies), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_qmtp_peers_agree(
    messages: list[tuple[str, list[str], list[bytes]]], compat: bool, crlf: bool, seed: int
) -> None:
    application = Server()
    client = QMTPClient(one_response=compat)
    machine = QMTPServer(COMPAT if compat else DEFAULT, lf_bodies=True)
    pair = Pair(Player(client, ignore), Player(machine, application), random_sizes(seed))
    expected = []
    for sender, recipients, pieces in messages:
        body = b"".join(pieces)
        client.send_message(sender, recipients, len(body), crlf=crlf and not compat)
        for piece in pieces:
            client.send_body(piece)
        client.end_of_body()
        good = [to for to in recipients if not to.startswith(("no", "later"))]
        if sender != "no@x" and good and (not compat or good == recipients):
            expected.append((sender, good, body if compat else body.replace(b"\r\n", b"\n")))
    pair.settle()
    assert application.received == expected
    done = pair.client.outcome.events
    assert len(done) == len(messages) and client.awaiting == 0
    delivered = [[str(result.address) for result in event.results if result.delivered] for event in done]
    assert [each for each in delivered if each] == [to for _, to, _ in expected]


@settings(max_examples=60)
@given(st.sampled_from(["", A, "no@x"]), address_lists, message_bodies, st.booleans(), st.integers(0, 2**32))
def test_qmqp_peers_agree(sender: str, to: list[str], pieces: list[bytes], compat: bool, seed: int) -> None:
    application = Server()
    client = QMQPClient()
    body = b"".join(pieces) or b"x"
    send(client, sender, to, body)
    server = Player(QMQPServer(COMPAT if compat else DEFAULT, lf_bodies=True), application)
    pair = Pair(Player(client, ignore), server, random_sizes(seed))
    pair.settle()
    done, closed = pair.client.outcome.events
    refused = [name for name in (sender, *to) if name.startswith(("no", "later"))]
    assert closed == ConnectionClosed("done")
    assert [result.delivered for result in done.results] == [not refused] * len(to)
    assert (application.received == []) is bool(refused)
    if not refused:
        assert application.received == [(sender, to, body if compat else body.replace(b"\r\n", b"\n"))]


def test_types_are_shared() -> None:
    assert issubclass(QMTPClient, PackageClient) and issubclass(QMQPClient, PackageClient)
    assert RecipientResult(Address(b"x"), Reply(250), Stage.MESSAGE).delivered
