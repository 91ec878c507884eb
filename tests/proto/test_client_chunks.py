"""BDAT in the client machine (RFC 3030): by hand and by `send_message`, and what becomes of a refused chunk."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.pull import NEED_DATA, PAUSED
from mailfront_proto.smtp.body_encoder import ChunkEncoder, DotEncoder
from mailfront_proto.smtp.client import CHUNK_SIZE, SMTPClient
from mailfront_proto.smtp.client_events import ClientEvent, Greeting, HelloDone, MessageDone, ReadyForBody
from mailfront_proto.smtp.client_order import MAX_CHUNKS
from mailfront_proto.smtp.parameters import NO_MAIL_OPTIONS, BodyType, MailOptions
from mailfront_proto.smtp.states import State
from tests.proto.client_script import EOF, App, Script, play, play_every_way, pull
from tests.proto.test_client import (
    CLOSED,
    DATA,
    EHLO,
    GO,
    HELLO,
    MAIL,
    NO,
    OK,
    QUIT,
    RCPT1,
    RCPT2,
    RCPT3,
    TO,
    answer,
    at,
    at_ready,
    show_next,
    steps,
)

BINARY = MailOptions(body=BodyType.BINARY_MIME)
CHUNKING = (EHLO, b"250-mx\r\n250-PIPELINING\r\n250-BINARYMIME\r\n250 CHUNKING\r\n")
IN_TURN = (EHLO, b"250-mx\r\n250 CHUNKING\r\n")
LHLO = b"LHLO client.example\r\n"
OPENED = ["greeting 220", "hello 250 PIPELINING BINARYMIME CHUNKING"]
OPENED_IN_TURN = ["greeting 220", "hello 250 CHUNKING"]
ENVELOPE = MAIL + RCPT1 + RCPT2 + RCPT3
FULL = b"552 5.3.4 full\r\n"
LATE = b"503 5.5.1 a chunk was refused\r\n"


def sender(
    pieces: Sequence[bytes],
    messages: int = 1,
    options: MailOptions = NO_MAIL_OPTIONS,
    chunking: bool = True,
) -> Callable[[], App]:
    """Introduces itself, sends `messages` messages to `TO`, all of `pieces` at once, and quits."""

    def new_app() -> App:
        left = [*range(messages)]

        def app(client: SMTPClient, event: ClientEvent) -> None:
            match event:
                case Greeting():
                    client.hello()
                case HelloDone() | MessageDone() if left and client.state is not State.CLOSED:
                    left.pop()
                    client.send_message("me@a.example", TO, options, chunking=chunking)
                case ReadyForBody(reply):
                    assert (reply is None) == chunking
                    for piece in pieces:
                        client.send_body(piece)
                    client.end_of_body()
                case MessageDone() if client.state is not State.CLOSED:
                    client.quit()

        return app

    return new_app


ABC = [b"abc\n.", b"\ndef\r", b"\n"]
"""12 octets on the wire: ``abc``, ``.``, ``def``, a line each, with no dot doubled: 5 + 3 + 5 - 1."""

MESSAGES: dict[str, Script] = {
    "one chunk": Script(
        sender(ABC),
        [HELLO, CHUNKING, (ENVELOPE, OK * 4), (b"BDAT 13 LAST\r\nabc\r\n.\r\ndef\r\n", OK), QUIT],
        [*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", ". 250", "done" + " message:250" * 3, *CLOSED],
    ),
    "an empty message": Script(
        sender([]),
        [HELLO, CHUNKING, (ENVELOPE, OK * 4), (b"BDAT 0 LAST\r\n", OK), QUIT],
        [*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", ". 250", "done" + " message:250" * 3, *CLOSED],
    ),
    "several, pipelined": Script(
        sender(ABC),
        [
            HELLO,
            CHUNKING,
            (ENVELOPE, OK * 4),
            (b"BDAT 5\r\nabc\r\nBDAT 5\r\n.\r\ndeBDAT 3 LAST\r\nf\r\n", OK * 3),
            QUIT,
        ],
        [
            *(*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", "BDAT 250", "BDAT 250", ". 250"),
            *("done" + " message:250" * 3, *CLOSED),
        ],
        chunk_size=5,
    ),
    "the last one is not empty though the size fits": Script(
        sender([b"abcd\n", b"fgh\n"]),
        [HELLO, CHUNKING, (ENVELOPE, OK * 4), (b"BDAT 6\r\nabcd\r\nBDAT 5 LAST\r\nfgh\r\n", OK * 2), QUIT],
        [
            *(*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", "BDAT 250", ". 250"),
            *("done" + " message:250" * 3, *CLOSED),
        ],
        chunk_size=6,
    ),
    "one after the other without PIPELINING": Script(
        sender(ABC),
        [
            HELLO,
            IN_TURN,
            *[(MAIL, OK), (RCPT1, OK), (RCPT2, NO), (RCPT3, OK)],
            (b"BDAT 5\r\nabc\r\n", OK),
            (b"BDAT 5\r\n.\r\nde", OK),
            (b"BDAT 3 LAST\r\nf\r\n", OK),
            QUIT,
        ],
        [
            *(*OPENED_IN_TURN, "MAIL 250", "RCPT 250", "RCPT 550", "RCPT 250", "body"),
            *("BDAT 250", "BDAT 250", ". 250", "done message:250 RCPT:550 message:250", *CLOSED),
        ],
        chunk_size=5,
    ),
    "a binary message stays what it is": Script(
        sender([b"a\rb\nc\0", b"\r"], options=BINARY),
        [
            HELLO,
            CHUNKING,
            (MAIL[:-2] + b" BODY=BINARYMIME\r\n" + RCPT1 + RCPT2 + RCPT3, OK * 4),
            (b"BDAT 7 LAST\r\na\rb\nc\0\r", OK),
            QUIT,
        ],
        [*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", ". 250", "done" + " message:250" * 3, *CLOSED],
    ),
    "a server without BINARYMIME gets no binary message": Script(
        sender(ABC, options=BINARY),
        [HELLO, IN_TURN, QUIT],
        [*OPENED_IN_TURN, "done" + " local:554" * 3, *CLOSED],
    ),
    "DATA where it is asked for": Script(
        sender([b".\n"], chunking=False),
        [HELLO, CHUNKING, (ENVELOPE + DATA, OK * 4 + GO), (b"..\r\n.\r\n", OK), QUIT],
        [*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", ". 250", "done" + " message:250" * 3, *CLOSED],
    ),
    "all refused: no chunk, and the transaction is dropped": Script(
        sender(ABC, messages=2),
        [
            HELLO,
            CHUNKING,
            (ENVELOPE, OK + NO * 3),
            (b"RSET\r\n" + ENVELOPE, OK * 5),
            (b"BDAT 13 LAST\r\nabc\r\n.\r\ndef\r\n", OK),
            QUIT,
        ],
        [
            *(*OPENED, "MAIL 250", *["RCPT 550"] * 3, "done" + " RCPT:550" * 3),
            *("RSET 250", "MAIL 250", *["RCPT 250"] * 3, "body", ". 250", "done" + " message:250" * 3),
            *CLOSED,
        ],
    ),
    "sender refused": Script(
        sender(ABC),
        [HELLO, CHUNKING, (ENVELOPE, NO + LATE * 3), QUIT],
        [*OPENED, "MAIL 550", *["RCPT 503"] * 3, "done" + " MAIL:550" * 3, *CLOSED],
    ),
    "the first chunk refused: no other, and a RSET": Script(
        sender(ABC, messages=2),
        [
            HELLO,
            IN_TURN,
            *[(MAIL, OK), (RCPT1, OK), (RCPT2, OK), (RCPT3, NO)],
            (b"BDAT 5\r\nabc\r\n", FULL),
            (b"RSET\r\n", OK),
            *[(MAIL, OK), (RCPT1, OK), (RCPT2, OK), (RCPT3, NO)],
            (b"BDAT 5\r\nabc\r\n", OK),
            (b"BDAT 5\r\n.\r\nde", OK),
            (b"BDAT 3 LAST\r\nf\r\n", OK),
            QUIT,
        ],
        [
            *(*OPENED_IN_TURN, "MAIL 250", "RCPT 250", "RCPT 250", "RCPT 550", "body", "BDAT 552"),
            *("done message:552 message:552 RCPT:550", "RSET 250", "MAIL 250", "RCPT 250", "RCPT 250", "RCPT 550"),
            *("body", "BDAT 250", "BDAT 250", ". 250", "done message:250 message:250 RCPT:550", *CLOSED),
        ],
        chunk_size=5,
    ),
    "one of several pipelined refused: all are answered before the next message": Script(
        sender(ABC, messages=2),
        [
            HELLO,
            CHUNKING,
            (ENVELOPE, OK * 4),
            (b"BDAT 5\r\nabc\r\nBDAT 5\r\n.\r\ndeBDAT 3 LAST\r\nf\r\n", OK + FULL + LATE),
            (b"RSET\r\n" + ENVELOPE, OK * 5),
            (b"BDAT 5\r\nabc\r\nBDAT 5\r\n.\r\ndeBDAT 3 LAST\r\nf\r\n", OK * 3),
            QUIT,
        ],
        [
            *(*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", "BDAT 250", "BDAT 552", ". 503"),
            *("done" + " message:552" * 3, "RSET 250", "MAIL 250", *["RCPT 250"] * 3, "body"),
            *("BDAT 250", "BDAT 250", ". 250", "done" + " message:250" * 3, *CLOSED),
        ],
        chunk_size=5,
    ),
    "a message is not delivered whose chunk was refused, whatever is said of the last": Script(
        sender(ABC),
        [
            HELLO,
            CHUNKING,
            (ENVELOPE, OK * 4),
            (b"BDAT 5\r\nabc\r\nBDAT 5\r\n.\r\ndeBDAT 3 LAST\r\nf\r\n", FULL + OK + OK),
            QUIT,
        ],
        [
            *(*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", "BDAT 552", "BDAT 250", ". 250"),
            *("done" + " message:552" * 3, *CLOSED),
        ],
        chunk_size=5,
    ),
    "the last chunk refused: the next transaction begins at once": Script(
        sender(ABC, messages=2),
        [
            HELLO,
            CHUNKING,
            (ENVELOPE, OK * 4),
            (b"BDAT 13 LAST\r\nabc\r\n.\r\ndef\r\n", FULL),
            (ENVELOPE, OK * 4),
            (b"BDAT 13 LAST\r\nabc\r\n.\r\ndef\r\n", OK),
            QUIT,
        ],
        [
            *(*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", ". 552", "done" + " message:552" * 3),
            *("MAIL 250", *["RCPT 250"] * 3, "body", ". 250", "done" + " message:250" * 3, *CLOSED),
        ],
    ),
    "421 to a chunk": Script(
        sender(ABC),
        [HELLO, CHUNKING, (ENVELOPE, OK * 4), (b"BDAT 10\r\nabc\r\n.\r\ndeBDAT 3 LAST\r\nf\r\n", b"421 bye\r\n")],
        [
            *(*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", "BDAT 421", "done" + " message:421" * 3),
            "closed 421 bye",
        ],
        chunk_size=10,
    ),
    "lost between two chunks": Script(
        sender(ABC),
        [HELLO, CHUNKING, (ENVELOPE, OK * 4), (b"BDAT 10\r\nabc\r\n.\r\ndeBDAT 3 LAST\r\nf\r\n", OK + EOF)],
        [
            *(*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", "BDAT 250", "done" + " connection:451" * 3),
            "closed EOF in message",
        ],
        chunk_size=10,
    ),
    "an intermediate answer to a chunk": Script(
        sender(ABC),
        [HELLO, CHUNKING, (ENVELOPE, OK * 4), (b"BDAT 13 LAST\r\nabc\r\n.\r\ndef\r\n", GO)],
        [
            *(*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", "error: the server answered . with 354"),
            *("done" + " connection:451" * 3, "closed the server answered . with 354 in message"),
        ],
    ),
    "LMTP: a chunk is answered once, the last one for each recipient": Script(
        sender(ABC),
        [
            (b"", b"220 LMTP\r\n"),
            (LHLO, b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n"),
            (ENVELOPE, OK + OK + NO + OK),
            (b"BDAT 10\r\nabc\r\n.\r\nde", OK),
            (b"BDAT 3 LAST\r\nf\r\n", b"452 4.2.2 full\r\n" + OK),
            QUIT,
        ],
        [
            *("greeting 220", "hello 250 PIPELINING CHUNKING", "MAIL 250", "RCPT 250", "RCPT 550", "RCPT 250", "body"),
            *("BDAT 250", ". 452", ". 250", "done message:452 RCPT:550 message:250", *CLOSED),
        ],
        lmtp=True,
        chunk_size=10,
    ),
    "LMTP: behind a refused chunk the last one is never sent": Script(
        sender(ABC),
        [
            (b"", b"220 LMTP\r\n"),
            (LHLO, b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n"),
            (ENVELOPE, OK * 4),
            (b"BDAT 10\r\nabc\r\n.\r\nde", FULL),
            QUIT,
        ],
        [
            *("greeting 220", "hello 250 PIPELINING CHUNKING", "MAIL 250", *["RCPT 250"] * 3, "body"),
            *("BDAT 552", "done" + " message:552" * 3, *CLOSED),
        ],
        lmtp=True,
        chunk_size=10,
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_in_every_cutting(name: str) -> None:
    play_every_way(MESSAGES[name])


# -- the examples of RFC 3030 ------------------------------------------------------------------------------

BODYLESS = (
    b"To: Susan@random.com\r\nFrom: Sam@random.com\r\nSubject: This is a bodyless test message\r\n"
)
FIRST = bytes(range(256)) * 390 + b"x" * 160  # 100,000 octets, as in the example

def ned(client: SMTPClient) -> None:
    client.mail("ned@ymir.claremont.edu", BINARY)
    client.recipient("gvaudre@cnri.reston.va.us")
    client.recipient("jstewart@cnri.reston.va.us")


def three_chunks(client: SMTPClient) -> None:
    client.bdat(FIRST)
    client.bdat(b"y" * 324)
    client.bdat(b"", last=True)


EXAMPLES: dict[str, Script] = {
    "4.1 simple chunking": Script(
        steps(
            SMTPClient.hello,
            lambda c: c.mail("Sam@Random.com"),
            lambda c: c.recipient("Susan@Random.com"),
            lambda c: c.bdat(BODYLESS, last=True),
            SMTPClient.quit,
        ),
        [
            (b"", b"220 cnri.reston.va.us SMTP service ready\r\n"),
            (b"EHLO ymir.claremont.edu\r\n", b"250-cnri.reston.va.us says hello\r\n250 CHUNKING\r\n"),
            (b"MAIL FROM:<Sam@Random.com>\r\n", b"250 <Sam@Random.com> Sender ok\r\n"),
            (b"RCPT TO:<Susan@Random.com>\r\n", b"250 <Susan@random.com> Recipient ok\r\n"),
            (b"BDAT 86 LAST\r\n" + BODYLESS, b"250 Message OK, 86 octets received\r\n"),
            (b"QUIT\r\n", b"221 Goodbye\r\n"),
        ],
        ["greeting 220", "hello 250 CHUNKING", "MAIL 250", "RCPT 250", ". 250", *CLOSED],
        name="ymir.claremont.edu",
    ),
    "4.2 pipelining BINARYMIME": Script(
        steps(
            SMTPClient.hello,
            ned,
            lambda c: None,
            lambda c: None,
            three_chunks,
            lambda c: None,
            lambda c: None,
            SMTPClient.quit,
        ),
        [
            (b"", b"220 cnri.reston.va.us SMTP service ready\r\n"),
            (
                b"EHLO ymir.claremont.edu\r\n",
                b"250-cnri.reston.va.us says hello\r\n250-PIPELINING\r\n250-BINARYMIME\r\n250 CHUNKING\r\n",
            ),
            (
                b"MAIL FROM:<ned@ymir.claremont.edu> BODY=BINARYMIME\r\n"
                b"RCPT TO:<gvaudre@cnri.reston.va.us>\r\nRCPT TO:<jstewart@cnri.reston.va.us>\r\n",
                b"250 <ned@ymir.claremont.edu>... Sender and BINARYMIME ok\r\n"
                b"250 <gvaudre@cnri.reston.va.us>... Recipient ok\r\n"
                b"250 <jstewart@cnri.reston.va.us>... Recipient ok\r\n",
            ),
            (
                b"BDAT 100000\r\n" + FIRST + b"BDAT 324\r\n" + b"y" * 324 + b"BDAT 0 LAST\r\n",
                b"250 100000 octets received\r\n250 324 octets received\r\n"
                b"250 Message OK, 100324 octets received\r\n",
            ),
            (b"QUIT\r\n", b"221 Goodbye\r\n"),
        ],
        [
            *("greeting 220", "hello 250 PIPELINING BINARYMIME CHUNKING", "MAIL 250", "RCPT 250", "RCPT 250"),
            *("BDAT 250", "BDAT 250", ". 250", *CLOSED),
        ],
        name="ymir.claremont.edu",
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_rfc_3030_in_every_cutting(name: str) -> None:
    play_every_way(EXAMPLES[name])


# -- chunks by hand ----------------------------------------------------------------------------------------

HELLO_ALL = CHUNKING[1]


def at_recipients(hello: bytes = HELLO_ALL, options: MailOptions = NO_MAIL_OPTIONS, lmtp: bool = False) -> SMTPClient:
    client = at_ready(hello, lmtp)
    client.mail("a@b", options)
    answer(client, OK)
    client.recipient("c@d")
    answer(client, OK)
    client.data_to_send()
    return client


def test_a_refused_chunk_by_hand() -> None:
    client = at_recipients()
    client.bdat(b"abc")
    client.bdat(b"def")
    client.receive_data(FULL)
    assert show_next(client) == "BDAT 552"
    with pytest.raises(LocalProtocolError, match=r"the message with it: call reset\(\)"):
        client.bdat(b"ghi", last=True)
    assert answer(client, LATE) == "BDAT 503"
    assert client.state is State.CHUNKS
    with pytest.raises(LocalProtocolError, match=r"half sent: call bdat\(\) to go on with it, or reset\(\)"):
        client.mail("a@b")
    client.noop()
    assert answer(client, OK) == "NOOP 250"
    client.reset()
    assert answer(client, OK) == "RSET 250"
    client.mail("a@b")
    answer(client, OK)
    client.recipient("c@d")
    answer(client, OK)
    client.bdat(b"abc", last=True)
    assert answer(client, OK) == ". 250"
    client.mail("a@b")


def test_a_refused_chunk_before_the_last_keeps_the_transaction() -> None:
    client = at_recipients()
    client.bdat(b"abc")
    client.bdat(b"def", last=True)
    client.receive_data(FULL + LATE)
    assert [show_next(client) for _ in range(2)] == ["BDAT 552", ". 503"]
    assert client.state is State.CHUNKS
    client.send_message("a@b", ["c@d"])
    assert client.data_to_send().endswith(b"RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")


def test_misuse_of_bdat() -> None:
    with pytest.raises(LocalProtocolError, match=r"offers no CHUNKING: call data\(\)"):
        at_recipients(b"250 mx\r\n").bdat(b"x")
    with pytest.raises(LocalProtocolError, match=r"BINARYMIME: call bdat\(\)"):
        at_recipients(options=BINARY).data()
    client = at_ready(HELLO_ALL)
    client.mail("a@b")
    client.recipient("c@d")
    with pytest.raises(LocalProtocolError, match="the answer to RCPT is awaited"):
        client.bdat(b"x")  # nobody may be there to get it
    client = at_recipients(IN_TURN[1])
    client.bdat(b"x")
    with pytest.raises(LocalProtocolError, match="offers no PIPELINING"):
        client.bdat(b"x")
    client = at_recipients()
    client.bdat(b"x", last=True)
    with pytest.raises(LocalProtocolError, match="the answer to the message is awaited"):
        client.bdat(b"x")
    with pytest.raises(LocalProtocolError, match="the answer to the message is awaited"):
        client.reset()
    client = at_recipients(lmtp=True)
    client.bdat(b"x")
    with pytest.raises(LocalProtocolError, match="the answer to BDAT is awaited"):
        client.bdat(b"x", last=True)
    with pytest.raises(LocalProtocolError, match="one octet at least"):
        SMTPClient("x", chunk_size=0)
    with pytest.raises(LocalProtocolError, match="awaits no message"):
        at(State.CHUNKS).send_body(b"x")  # by hand it is bdat()


def test_an_answer_to_no_chunk() -> None:
    client = at_recipients()
    client.bdat(b"x")
    client.receive_data(OK + OK)
    assert show_next(client) == "BDAT 250"
    with pytest.raises(RemoteProtocolError, match="a reply to no command: 250"):
        client.next_event()


# -- a long message, given piece by piece --------------------------------------------------------------------


def at_body(hello: bytes = HELLO_ALL, chunk_size: int = 10) -> SMTPClient:
    client = SMTPClient("client.example", chunk_size=chunk_size)
    pull(client, lambda client, event: None, [])
    client.receive_data(HELLO[1])
    client.next_event()
    client.hello()
    client.receive_data(hello)
    client.next_event()
    client.send_message("a@b", ["c@d"])
    pull(client, lambda client, event: None, [])
    client.receive_data(OK)
    pull(client, lambda client, event: None, [])
    client.receive_data(OK)
    seen: list[str] = []
    pull(client, lambda client, event: None, seen)
    assert seen[-1] == "body"
    client.data_to_send()
    return client


def test_so_many_chunks_go_out_unanswered_and_no_more() -> None:
    client = at_body()
    sent = 0
    while client.next_event() is PAUSED:
        client.send_body(b"x" * 10)
        sent += client.data_to_send().count(b"BDAT 10\r\n")
        assert sent < 100
    assert sent == MAX_CHUNKS
    client.send_body(b"x" * 35)  # more is held, if it is given
    assert client.data_to_send() == b""
    assert answer(client, OK) == "BDAT 250"
    assert client.data_to_send() == b"BDAT 10\r\n" + b"x" * 10
    assert client.next_event() is NEED_DATA


def test_one_chunk_at_a_time_without_pipelining() -> None:
    client = at_body(IN_TURN[1])
    assert client.next_event() is PAUSED
    client.send_body(b"x" * 10)
    assert client.next_event() is PAUSED  # more may be behind it
    client.send_body(b"x")
    assert client.data_to_send() == b"BDAT 10\r\n" + b"x" * 10
    assert client.next_event() is NEED_DATA
    client.end_of_body()
    assert client.data_to_send() == b""
    assert answer(client, OK) == "BDAT 250"
    assert client.data_to_send() == b"BDAT 3 LAST\r\nx\r\n"
    assert client.awaiting == "."


def test_what_is_given_after_a_refusal_is_dropped() -> None:
    client = at_body(IN_TURN[1])
    client.send_body(b"x" * 11)
    client.data_to_send()
    client.receive_data(FULL)
    assert show_next(client) == "BDAT 552"
    for _ in range(100):
        client.send_body(b"x" * 1000)
    client.end_of_body()
    assert client.data_to_send() == b""
    assert show_next(client) == "done message:552"
    with pytest.raises(LocalProtocolError, match="awaits no message"):
        client.send_body(b"x")
    client = at_body(IN_TURN[1])
    client.send_body(b"x" * 11)
    client.receive_data(FULL)
    assert [show_next(client) for _ in range(2)] == ["BDAT 552", "done message:552"]
    with pytest.raises(LocalProtocolError, match="awaits no message"):
        client.end_of_body()


def test_undrained_chunks_pause() -> None:
    client = at_body(chunk_size=CHUNK_SIZE)
    client.send_body(b"x" * (CHUNK_SIZE + 1))
    client.receive_data(OK)
    assert client.next_event() is PAUSED
    assert len(client.data_to_send()) == len(b"BDAT 262144\r\n") + CHUNK_SIZE
    assert show_next(client) == "BDAT 250"


def test_421_between_two_chunks() -> None:
    client = at_body()
    client.receive_data(b"421 4.3.2 going down\r\n")
    assert [show_next(client) for _ in range(2)] == [
        "done connection:421",
        "closed 421 4.3.2 going down in message",
    ]


# -- the encoder (H07) ---------------------------------------------------------------------------------------

pieces = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"a", b"\0", b"\xff", b"xyz" * 5]), max_size=30)


def chunks(pieces: Sequence[bytes], size: int, binary: bool = False) -> list[bytes]:
    encoder = ChunkEncoder(size, binary)
    made = []
    for step in (*pieces, None):
        if step is None:
            encoder.finish()
        else:
            encoder.feed(step)
        while (chunk := encoder.next_chunk()) is not None:
            made.append(chunk)
    assert [last for _, last in made] == [False] * (len(made) - 1) + [True]
    return [data for data, _ in made]


@given(pieces, st.integers(1, 20), st.booleans())
def test_h07_chunks_are_the_message_and_nothing_else(pieces: list[bytes], size: int, binary: bool) -> None:
    message = b"".join(pieces)
    made = chunks(pieces, size, binary)
    assert made == chunks([message], size, binary)
    assert all(len(chunk) in (size, max(size - 1, 1)) for chunk in made[:-1]) and len(made[-1]) <= size
    assert made == [b""] or all(made)
    sent = b"".join(made)
    if binary:
        assert sent == message and all(len(chunk) == size for chunk in made[:-1])
        return
    assert size == 1 or not any(chunk.endswith(b"\r") for chunk in made)
    assert sent.replace(b"\r\n", b"").find(b"\r") == sent.replace(b"\r\n", b"").find(b"\n") == -1
    normal = message.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
    assert sent == (normal if not normal or normal.endswith(b"\n") else normal + b"\r\n")
    encoder = DotEncoder()  # the same message as by DATA, but for its dots
    wire = b"\r\n" + encoder.feed(message) + encoder.finish()
    assert wire.replace(b"\r\n.", b"\r\n") == b"\r\n" + sent + b"\r\n"


def test_a_long_script_whole() -> None:
    """A megabyte in one call: no more chunks than the window are on their way, each as long as it may be."""
    body = b"x" * 1_000_000
    script_steps = [HELLO, CHUNKING, (ENVELOPE, OK * 4)]
    size = 100_000
    chunk = b"BDAT 100000\r\n" + b"x" * size
    script_steps += [(chunk * MAX_CHUNKS, OK), (chunk, OK), (chunk, OK), (b"BDAT 2 LAST\r\n\r\n", OK * 8), QUIT]
    events = [*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", *["BDAT 250"] * 10, ". 250"]
    script = Script(
        sender([body]), script_steps, [*events, "done" + " message:250" * 3, *CLOSED], chunk_size=size
    )
    assert play(script) == script.events
