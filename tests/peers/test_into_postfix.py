"""Our client into Postfix, which offers CHUNKING, DSN, SMTPUTF8 and XCLIENT: what arrives, byte for byte.

What Postfix 3.7 changes: it puts a Received field in front, and hands lines on with LF. Nothing else, as far as these
messages go: lines of 20,000 characters, dots, NUL and other control bytes, bytes that are no UTF-8 all stay. Whether
a message has come by DATA or by BDAT cannot be seen in it. The final line end that it gives a message without one was
our client's; given a chunk without one, Postfix adds it, too.
"""

import socket
from collections.abc import Callable, Iterator
from email import message_from_bytes
from typing import Any

import pytest

from mailfront_io.client import BodyType, MailOptions, Notify, RecipientOptions, Return, SendResult, Stage, TLSPolicy
from mailfront_proto.pull import NEED_DATA, PAUSED
from mailfront_proto.smtp.client import SMTPClient
from mailfront_proto.smtp.client_events import ClientEvent, Greeting, HelloDone, ReplyReceived
from mailfront_proto.smtp.events import Unavailable, Xclient
from tests.peers.postfix_server import MESSAGE_LIMIT, Postfix, postfix
from tests.peers.test_into_peers import CALLS, MESSAGES, as_lines

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def server() -> Iterator[Postfix]:
    with postfix() as running:
        yield running


def send(call: Callable[..., SendResult], server: Postfix, *arguments: Any, **options: Any) -> SendResult:
    return call("127.0.0.1", server.port, *arguments, tls=TLSPolicy.NONE, **options)


every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)

HEADER = (
    b"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-Id: <1@a.example>\r\n"
    b"From: <a@a.example>\r\nTo: <b@b.example>\r\n"
)
MORE = {
    **{name: HEADER + message for name, message in MESSAGES.items()},
    "no header": b"\r\nHello.\r\n",
    "empty": b"",
    "control bytes": HEADER + b"\r\n" + bytes(range(10)) + bytes(range(14, 32)) + b"\x7f\r\n",
    "bare CR": HEADER + b"\r\na\rb\r\n",
    "what looks like commands": HEADER + b"\r\nBDAT 5 LAST\r\nRSET\r\n.\r\nQUIT\r\n",
    "long lines of bytes": HEADER + b"\r\n" + bytes(range(128, 256)) * 500 + b"\r\n" + b"." * 10_000,
    "several chunks": HEADER + b"\r\n" + b"." + b"0123456789abcdef\r\n.\r\n" * 40_000,
}


@every_call
@pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])
@pytest.mark.parametrize("name", MORE)
def test_what_arrives(name: str, chunking: bool, call: Callable[..., SendResult], server: Postfix) -> None:
    said: list[str] = []
    to = ["b@b.example", "c@b.example"]
    result = send(call, server, "a@a.example", to, MORE[name], chunking=chunking, transcript=said.append)
    assert result.delivered, result
    assert any(line.startswith("C: BDAT ") for line in said) == chunking
    assert ("C: DATA" in said) != chunking
    expected = MORE[name].replace(b"\r\n", b"\n").replace(b"\r", b" ")
    expected += b"" if not expected or expected.endswith(b"\n") else b"\n"
    for one, recipient in zip(server.delivered(2), to, strict=True):
        assert (one.sender, one.recipient) == ("a@a.example", recipient)
        assert one.message == expected
        assert one.trace.startswith(b"Received: from ") and b"by mx.example.org (Postfix)" in one.trace


@every_call
def test_addresses_and_headers_that_are_not_ascii(call: Callable[..., SendResult], server: Postfix) -> None:
    body = HEADER + "Subject: Grüße\r\n\r\nGrüße\r\n".encode()
    result = send(call, server, "ä@a.example", ["ö@b.example", "ü@bücher.example"], body)
    assert result.delivered, result
    for one, recipient in zip(server.delivered(2), ["ö@b.example", "ü@bücher.example"], strict=True):
        assert (one.sender, one.recipient) == ("ä@a.example", recipient)
        assert one.message == as_lines(body)
        assert b"with UTF8SMTP" in one.trace


@every_call
def test_reports(call: Callable[..., SendResult], server: Postfix) -> None:
    """Postfix reports as it was asked to: a success to one, nothing of the other."""
    wanted = RecipientOptions(frozenset([Notify.SUCCESS]), ("rfc822", "old+1@c.example"))
    never = RecipientOptions(frozenset([Notify.NEVER]))
    options = MailOptions(ret=Return.HEADERS, envid="order 17+4")
    to = [("b@b.example", wanted), ("c@b.example", never)]
    result = send(call, server, "a@a.example", to, MORE["plain"], mail_options=options)
    assert result.delivered and not any(recipient.owes_report for recipient in result.recipients)
    report, *messages = server.delivered(3)
    assert [one.recipient for one in messages] == ["b@b.example", "c@b.example"]
    assert (report.sender, report.recipient) == ("", "a@a.example")
    parts = message_from_bytes(report.message)
    assert parts.get_content_type() == "multipart/report"
    fields = {name: value for part in parts.walk() for name, value in part.items()}
    assert fields["Original-Envelope-Id"] == "order 17+4"
    assert fields["Original-Recipient"] == "rfc822;old+1@c.example"
    assert fields["Action"] in ("delivered", "relayed")
    assert "text/rfc822-headers" in [part.get_content_type() for part in parts.walk()]


@every_call
def test_refusals(call: Callable[..., SendResult], server: Postfix) -> None:
    result = send(call, server, "a@a.example", ["refused@b.example", "b@b.example"], MORE["plain"])
    assert [recipient.delivered for recipient in result.recipients] == [False, True]
    assert result.recipients[0].stage is Stage.RCPT
    server.delivered()
    result = send(call, server, "a@a.example", ["refused@b.example"], MORE["plain"])
    assert result.refused and not result.delivered
    too_big = b"x" * 998 + b"\r\n"
    result = send(call, server, "a@a.example", ["b@b.example"], too_big * 3001)
    assert result.recipients[0].reply.enhanced_code == "5.3.4" and result.recipients[0].stage is Stage.LOCAL
    # its size is not known: Postfix finds out, in the midst of a chunk or of DATA
    for chunking in (True, False):
        pieces = iter([HEADER + b"\r\n", *[too_big] * (MESSAGE_LIMIT // 1000 + 1000)])
        result = send(call, server, "a@a.example", ["b@b.example"], pieces, chunking=chunking)
        [recipient] = result.recipients
        assert recipient.reply.enhanced_code == "5.3.4" and recipient.stage is Stage.MESSAGE, recipient
    binary = MailOptions(body=BodyType.BINARY_MIME)  # which Postfix does not offer
    result = send(call, server, "a@a.example", ["b@b.example"], b"\0\n\r", mail_options=binary)
    assert result.recipients[0].reply.enhanced_code == "5.6.3"


# -- the machine on a socket -----------------------------------------------------------------------------------


class Session:
    """The client machine, and a socket."""

    def __init__(self, server: Postfix) -> None:
        self.client = SMTPClient("client.example.net")
        self._socket = socket.create_connection(("127.0.0.1", server.port), 10)

    def __enter__(self) -> "Session":
        assert isinstance(self.event(), Greeting)
        self.client.hello()
        assert isinstance(self.event(), HelloDone)
        return self

    def __exit__(self, *unused: object) -> None:
        self._socket.close()

    def event(self) -> ClientEvent:
        while True:
            event = self.client.next_event()
            if event is not NEED_DATA and event is not PAUSED:
                return event
            self._socket.sendall(self.client.data_to_send())
            if event is NEED_DATA:
                data = self._socket.recv(65536)
                self.client.receive_data(data) if data else self.client.receive_eof()

    def replies(self, count: int = 1) -> list[int]:
        events = [self.event() for _ in range(count)]
        return [event.reply.code for event in events if isinstance(event, ReplyReceived)]


def test_chunks_by_hand(server: Postfix) -> None:
    """Cut anywhere; without a line end at the end, which Postfix adds. (An empty chunk that is not the last it
    refuses; `send_message` makes none.)"""
    with Session(server) as session:
        client = session.client
        client.mail("a@a.example")
        client.recipient("b@b.example")
        assert session.replies(2) == [250, 250]
        for chunk in (HEADER + b"\r", b"\n.", b"\r\n.", b".end"):
            client.bdat(chunk)
        client.bdat(b"", last=True)
        assert session.replies(5) == [250] * 5
        client.quit()
        assert session.replies() == [221]
    [one] = server.delivered()
    assert one.message == as_lines(HEADER) + b"\n.\n..end\n"


def test_a_chunk_that_is_refused_by_hand(server: Postfix) -> None:
    with Session(server) as session:
        client = session.client
        client.mail("a@a.example")
        client.recipient("b@b.example")
        assert session.replies(2) == [250, 250]
        client.bdat(b"x" * (MESSAGE_LIMIT + 1000))
        client.bdat(b"RSET\r\nRSET\r\n", last=True)  # read as what it is
        first, second = session.replies(2)
        assert first >= 500 and second >= 500
        client.reset()
        assert session.replies() == [250]
        client.mail("a@a.example")
        client.recipient("b@b.example")
        assert session.replies(2) == [250, 250]
        client.bdat(MORE["plain"], last=True)
        assert session.replies() == [250]
    [one] = server.delivered()
    assert one.message == as_lines(MORE["plain"])


def test_xclient(server: Postfix) -> None:
    with Session(server) as session:
        client = session.client
        assert "XCLIENT" in client.capabilities
        client.xclient(
            Xclient(name="spike.example.org", addr="2001:db8::1", helo="spike", login=Unavailable.UNAVAILABLE)
        )
        assert isinstance(session.event(), Greeting)
        client.hello()
        assert isinstance(session.event(), HelloDone)
        client.mail("a@a.example")
        client.recipient("b@b.example")
        assert session.replies(2) == [250, 250]
        client.bdat(MORE["plain"], last=True)
        assert session.replies() == [250]
    [one] = server.delivered()
    assert b"(spike.example.org [IPv6:2001:db8::1])" in one.trace
