"""The SMTP and LMTP client machine against scripted servers."""

import base64
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.pull import NEED_DATA, PAUSED
from mailfront_proto.sasl import ClientMechanism, LoginClient, PlainClient
from mailfront_proto.secret import Secret
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.body import DotDecoder
from mailfront_proto.smtp.body_encoder import DotEncoder
from mailfront_proto.smtp.capabilities import Capabilities
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
from mailfront_proto.smtp.client_order import ALLOWED, MAX_PIPELINED
from mailfront_proto.smtp.events import Xclient
from mailfront_proto.smtp.parameters import (
    NO_MAIL_OPTIONS,
    NO_RECIPIENT_OPTIONS,
    BodyType,
    MailOptions,
    Notify,
    RecipientOptions,
    Return,
)
from mailfront_proto.smtp.profile import LineEnds
from mailfront_proto.smtp.states import State
from tests.proto.client_script import EOF, App, Script, play, play_every_way, pull, show

HELLO = (b"", b"220 mx.example ESMTP\r\n")
EHLO = b"EHLO client.example\r\n"
PIPELINING = (EHLO, b"250-mx.example greets you\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250 8BITMIME\r\n")
PLAIN_OLD = (EHLO, b"250 mx.example\r\n")
QUIT = (b"QUIT\r\n", b"221 2.0.0 bye\r\n")
OPENED = ["greeting 220", "hello 250 PIPELINING SIZE 8BITMIME"]
OPENED_OLD = ["greeting 220", "hello 250"]
CLOSED = ["QUIT 221", "closed QUIT"]

MAIL = b"MAIL FROM:<me@a.example>\r\n"
RCPT1, RCPT2, RCPT3 = (b"RCPT TO:<%d@b.example>\r\n" % n for n in (1, 2, 3))
TO = ["1@b.example", "2@b.example", "3@b.example"]
DATA = b"DATA\r\n"
BODY = b"Subject: x\r\n\r\n..\r\n.\r\n"
OK = b"250 2.0.0 OK\r\n"
NO = b"550 5.1.1 no such user\r\n"
GO = b"354 go on\r\n"


def sender(messages: int = 1, options: MailOptions = NO_MAIL_OPTIONS) -> Callable[[], App]:
    """Introduces itself, sends `messages` messages to `TO`, and quits."""

    def new_app() -> App:
        left = iter([True] * (messages - 1) + [False])
        return lambda client, event: react(client, event, left)

    def react(client: SMTPClient, event: ClientEvent, left: Iterator[bool]) -> None:
        match event:
            case Greeting():
                client.hello()
            case HelloDone(reply):
                if reply.is_positive:
                    client.send_message("me@a.example", TO, options)
                else:
                    client.quit()
            case ReadyForBody():
                client.send_body(b"Subject: x\r\n\r")
                client.send_body(b"\n.")
                client.end_of_body()
            case MessageDone():
                if client.state is not State.CLOSED:
                    if next(left):
                        client.send_message("me@a.example", TO)
                    else:
                        client.quit()

    return new_app


MESSAGES: dict[str, Script] = {
    "pipelined": Script(
        sender(),
        [
            HELLO,
            PIPELINING,
            (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK + OK + OK + OK + GO),
            (BODY, OK),
            QUIT,
        ],
        [*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", ". 250", "done" + " message:250" * 3, *CLOSED],
    ),
    "lock-step": Script(
        sender(),
        [HELLO, PLAIN_OLD, (MAIL, OK), (RCPT1, OK), (RCPT2, OK), (RCPT3, OK), (DATA, GO), (BODY, OK), QUIT],
        [*OPENED_OLD, "MAIL 250", *["RCPT 250"] * 3, "body", ". 250", "done" + " message:250" * 3, *CLOSED],
    ),
    "parameters are sent where they are offered": Script(
        sender(options=MailOptions(size=23, body=BodyType.EIGHT_BIT_MIME)),
        [
            HELLO,
            PIPELINING,
            (
                MAIL[:-2] + b" SIZE=23 BODY=8BITMIME\r\n" + RCPT1 + RCPT2 + RCPT3 + DATA,
                OK * 4 + GO,
            ),
            (BODY, OK),
            QUIT,
        ],
        [*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", ". 250", "done" + " message:250" * 3, *CLOSED],
    ),
    "a server without 8BITMIME gets no 8-bit message": Script(
        sender(options=MailOptions(size=23, body=BodyType.EIGHT_BIT_MIME)),
        [HELLO, PLAIN_OLD, QUIT],
        [*OPENED_OLD, "done" + " local:554" * 3, *CLOSED],
    ),
    "some recipients refused": Script(
        sender(),
        [HELLO, PIPELINING, (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK + NO + OK + NO + GO), (BODY, OK), QUIT],
        [
            *OPENED,
            *("MAIL 250", "RCPT 550", "RCPT 250", "RCPT 550", "body", ". 250"),
            "done RCPT:550 message:250 RCPT:550",
            *CLOSED,
        ],
    ),
    "all refused, DATA pipelined and refused": Script(
        sender(2),
        [
            HELLO,
            PIPELINING,
            (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK + NO * 3 + b"503 5.5.1 no recipients\r\n"),
            (b"RSET\r\n" + MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK * 5 + GO),
            (BODY, OK),
            QUIT,
        ],
        [
            *OPENED,
            *("MAIL 250", "RCPT 550", "RCPT 550", "RCPT 550", "DATA 503", "done RCPT:550 RCPT:550 RCPT:550"),
            *("RSET 250", "MAIL 250", "RCPT 250", "RCPT 250", "RCPT 250", "body", ". 250"),
            "done message:250 message:250 message:250",
            *CLOSED,
        ],
    ),
    "all refused, DATA pipelined and taken: a single dot": Script(
        sender(2),
        [
            HELLO,
            PIPELINING,
            (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK + NO * 3 + GO),
            (b".\r\n", b"554 5.5.1 no valid recipients\r\n"),
            (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK * 4 + GO),
            (BODY, OK),
            QUIT,
        ],
        [
            *OPENED,
            *("MAIL 250", "RCPT 550", "RCPT 550", "RCPT 550", "DATA 354", ". 554"),
            "done RCPT:550 RCPT:550 RCPT:550",
            *("MAIL 250", "RCPT 250", "RCPT 250", "RCPT 250", "body", ". 250"),
            "done message:250 message:250 message:250",
            *CLOSED,
        ],
    ),
    "all refused, the single dot accepted: still refused": Script(
        sender(),
        [HELLO, PIPELINING, (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK + NO * 3 + GO), (b".\r\n", OK), QUIT],
        [
            *OPENED,
            *("MAIL 250", "RCPT 550", "RCPT 550", "RCPT 550", "DATA 354", ". 250"),
            "done RCPT:550 RCPT:550 RCPT:550",
            *CLOSED,
        ],
    ),
    "all refused in lock-step: no DATA": Script(
        sender(),
        [HELLO, PLAIN_OLD, (MAIL, OK), (RCPT1, NO), (RCPT2, NO), (RCPT3, b"450 4.2.1 later\r\n"), QUIT],
        [
            *OPENED_OLD,
            *("MAIL 250", "RCPT 550", "RCPT 550", "RCPT 450", "done RCPT:550 RCPT:550 RCPT:450"),
            *CLOSED,
        ],
    ),
    "sender refused, pipelined": Script(
        sender(2),
        [
            HELLO,
            PIPELINING,
            (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, b"451 4.1.8 not now\r\n" + b"503 first MAIL\r\n" * 4),
            (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK * 4 + GO),
            (BODY, OK),
            QUIT,
        ],
        [
            *OPENED,
            *("MAIL 451", "RCPT 503", "RCPT 503", "RCPT 503", "DATA 503", "done MAIL:451 MAIL:451 MAIL:451"),
            *("MAIL 250", "RCPT 250", "RCPT 250", "RCPT 250", "body", ". 250"),
            "done message:250 message:250 message:250",
            *CLOSED,
        ],
    ),
    "sender refused, yet the rest taken: a single dot": Script(
        sender(),
        [HELLO, PIPELINING, (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, NO + OK * 3 + GO), (b".\r\n", OK), QUIT],
        [
            *OPENED,
            *("MAIL 550", "RCPT 250", "RCPT 250", "RCPT 250", "DATA 354", ". 250"),
            "done MAIL:550 MAIL:550 MAIL:550",
            *CLOSED,
        ],
    ),
    "sender refused in lock-step": Script(
        sender(),
        [HELLO, PLAIN_OLD, (MAIL, NO), QUIT],
        [*OPENED_OLD, "MAIL 550", "done MAIL:550 MAIL:550 MAIL:550", *CLOSED],
    ),
    "DATA refused": Script(
        sender(),
        [HELLO, PLAIN_OLD, (MAIL, OK), (RCPT1, OK), (RCPT2, NO), (RCPT3, OK), (DATA, b"451 no\r\n"), QUIT],
        [
            *OPENED_OLD,
            *("MAIL 250", "RCPT 250", "RCPT 550", "RCPT 250", "DATA 451", "done DATA:451 RCPT:550 DATA:451"),
            *CLOSED,
        ],
    ),
    "message refused": Script(
        sender(),
        [HELLO, PIPELINING, (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK * 4 + GO), (BODY, b"554 spam\r\n"), QUIT],
        [*OPENED, "MAIL 250", *["RCPT 250"] * 3, "body", ". 554", "done" + " message:554" * 3, *CLOSED],
    ),
    "two messages": Script(
        sender(2),
        [
            HELLO,
            PIPELINING,
            *[(MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK * 4 + GO), (BODY, OK)] * 2,
            QUIT,
        ],
        [
            *OPENED,
            *["MAIL 250", *["RCPT 250"] * 3, "body", ". 250", "done" + " message:250" * 3] * 2,
            *CLOSED,
        ],
    ),
    "LMTP: one answer for each accepted recipient": Script(
        sender(),
        [
            (b"", b"220 LMTP\r\n"),
            (b"LHLO client.example\r\n", b"250-mx.example\r\n250 PIPELINING\r\n"),
            (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK + OK + NO + OK + GO),
            (BODY, b"452 4.2.2 full\r\n" + OK),
            QUIT,
        ],
        [
            *("greeting 220", "hello 250 PIPELINING"),
            *("MAIL 250", "RCPT 250", "RCPT 550", "RCPT 250", "body", ". 452", ". 250"),
            "done message:452 RCPT:550 message:250",
            *CLOSED,
        ],
        lmtp=True,
    ),
    "LMTP: lost between the answers": Script(
        sender(),
        [
            (b"", b"220 LMTP\r\n"),
            (b"LHLO client.example\r\n", b"250-mx.example\r\n250 PIPELINING\r\n"),
            (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK * 4 + GO),
            (BODY, OK + EOF),
        ],
        [
            *("greeting 220", "hello 250 PIPELINING", "MAIL 250", "RCPT 250", "RCPT 250", "RCPT 250", "body"),
            *(". 250", "done message:250 connection:451 connection:451", "closed EOF in message"),
        ],
        lmtp=True,
    ),
    "lost before the final answer": Script(
        sender(),
        [HELLO, PIPELINING, (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK + OK + NO + OK + GO), (BODY, b"250 2.0" + EOF)],
        [
            *OPENED,
            *("MAIL 250", "RCPT 250", "RCPT 550", "RCPT 250", "body"),
            *("done connection:451 RCPT:550 connection:451", "closed EOF in message"),
        ],
    ),
    "lost in the envelope": Script(
        sender(),
        [HELLO, PIPELINING, (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK + NO + EOF)],
        [
            *OPENED,
            *("MAIL 250", "RCPT 550", "done RCPT:550 connection:451 connection:451", "closed EOF in message"),
        ],
    ),
    "421 in the envelope": Script(
        sender(),
        [HELLO, PIPELINING, (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK + NO + b"421 4.3.2 shutting down\r\n")],
        [
            *OPENED,
            *("MAIL 250", "RCPT 550", "RCPT 421", "done RCPT:550 RCPT:421 RCPT:421"),
            "closed 421 4.3.2 shutting down in message",
        ],
    ),
    "421 to the message": Script(
        sender(),
        [HELLO, PIPELINING, (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK * 4 + GO), (BODY, b"421 4.4.2 slow\r\n")],
        [
            *OPENED,
            *("MAIL 250", "RCPT 250", "RCPT 250", "RCPT 250", "body", ". 421", "done" + " message:421" * 3),
            "closed 421 4.4.2 slow",
        ],
    ),
    "421 as greeting": Script(
        lambda: lambda client, event: None,
        [(b"", b"421 4.3.2 too busy\r\n")],
        ["greeting 421", "closed 421 4.3.2 too busy"],
    ),
    "554 as greeting": Script(
        lambda: lambda client, event: client.quit() if isinstance(event, Greeting) else None,
        [(b"", b"554-no\r\n554 mail here\r\n"), (b"QUIT\r\n", EOF)],
        ["greeting 554", "closed QUIT"],
    ),
    "EHLO unknown: HELO": Script(
        sender(),
        [HELLO, (EHLO, b"502 what\r\n"), (b"HELO client.example\r\n", b"250 hello\r\n"), (MAIL, NO), QUIT],
        ["greeting 220", "EHLO 502", "hello 250", "MAIL 550", "done MAIL:550 MAIL:550 MAIL:550", *CLOSED],
    ),
    "EHLO refused for now": Script(
        sender(),
        [HELLO, (EHLO, b"450 wait\r\n"), QUIT],
        ["greeting 220", "hello 450", *CLOSED],
    ),
    "reply without text, bare LF": Script(
        sender(),
        [HELLO, PLAIN_OLD, (MAIL, b"250\r\n"), (RCPT1, b"550\n"), (RCPT2, NO), (RCPT3, NO), QUIT],
        [*OPENED_OLD, "MAIL 250", *["RCPT 550"] * 3, "done RCPT:550 RCPT:550 RCPT:550", *CLOSED],
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_in_every_cutting(name: str) -> None:
    play_every_way(MESSAGES[name])


# -- commands, one by one ----------------------------------------------------------------------------------


def steps(*calls: Callable[[SMTPClient], object]) -> Callable[[], App]:
    """Makes one call after each event that is not a refusal of EHLO."""

    def new_app() -> App:
        left = iter(calls)

        def app(client: SMTPClient, event: ClientEvent) -> None:
            call = next(left, None)
            if call is not None:
                call(client)

        return app

    return new_app


def plain(password: bytes = b"secret") -> PlainClient:
    return PlainClient("me", Secret(password))


TLS = (EHLO, b"250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n")
PLAIN = b"AUTH PLAIN AG1lAHNlY3JldA==\r\n"
START = ["greeting 220", "hello 250 STARTTLS AUTH"]


def whole_body(client: SMTPClient) -> None:
    client.send_body(b"hi\n")
    client.end_of_body()


def tls(client: SMTPClient) -> None:
    client.tls_established()
    client.hello()


def auth(mechanism: Callable[[], ClientMechanism]) -> Callable[[SMTPClient], None]:
    return lambda client: client.authenticate(mechanism(), allow_clear=True)


COMMANDS: dict[str, Script] = {
    "all of them": Script(
        steps(
            SMTPClient.hello,
            lambda c: c.verify("postmaster"),
            SMTPClient.noop,
            lambda c: c.mail("", MailOptions(ret=Return.HEADERS)),
            lambda c: c.recipient(Address(b"a b@c"), RecipientOptions(frozenset([Notify.NEVER]))),
            SMTPClient.reset,
            lambda c: c.mail("x@y"),
            lambda c: c.recipient("u@v"),
            SMTPClient.data,
            whole_body,
            SMTPClient.quit,
        ),
        [
            HELLO,
            PLAIN_OLD,
            (b"VRFY postmaster\r\n", b"252 perhaps\r\n"),
            (b"NOOP\r\n", OK),
            (b"MAIL FROM:<> RET=HDRS\r\n", OK),
            (b'RCPT TO:<"a b"@c> NOTIFY=NEVER\r\n', OK),
            (b"RSET\r\n", OK),
            (b"MAIL FROM:<x@y>\r\n", OK),
            (b"RCPT TO:<u@v>\r\n", OK),
            (DATA, GO),
            (b"hi\r\n.\r\n", OK),
            QUIT,
        ],
        [
            *OPENED_OLD,
            *("VRFY 252", "NOOP 250", "MAIL 250", "RCPT 250", "RSET 250", "MAIL 250", "RCPT 250", "body", ". 250"),
            *CLOSED,
        ],
    ),
    "HELO at once": Script(
        steps(lambda c: c.hello(extended=False), SMTPClient.quit),
        [HELLO, (b"HELO client.example\r\n", b"250-mx\r\n250 PIPELINING\r\n"), QUIT],
        [*OPENED_OLD, *CLOSED],
    ),
    "TLS, then AUTH PLAIN": Script(
        steps(SMTPClient.hello, SMTPClient.starttls, tls, lambda c: c.authenticate(plain()), SMTPClient.quit),
        [
            HELLO,
            TLS,
            (b"STARTTLS\r\n", b"220 go\r\n"),
            (EHLO, b"250-mx\r\n250 AUTH PLAIN\r\n"),
            (PLAIN, b"235 2.7.0 welcome\r\n"),
            QUIT,
        ],
        [*START, "tls", "hello 250 AUTH", "authenticated 235", *CLOSED],
    ),
    "STARTTLS refused": Script(
        steps(SMTPClient.hello, SMTPClient.starttls, SMTPClient.quit),
        [HELLO, TLS, (b"STARTTLS\r\n", b"454 4.7.0 no TLS\r\n"), QUIT],
        [*START, "STARTTLS 454", *CLOSED],
    ),
    "the handshake fails": Script(
        steps(SMTPClient.hello, SMTPClient.starttls, SMTPClient.receive_eof),
        [HELLO, TLS, (b"STARTTLS\r\n", b"220 go\r\n")],
        [*START, "tls", "closed EOF in message"],
    ),
    "AUTH LOGIN": Script(
        steps(SMTPClient.hello, auth(lambda: LoginClient("me", Secret(b"pw"))), SMTPClient.quit),
        [
            HELLO,
            TLS,
            (b"AUTH LOGIN\r\n", b"334 VXNlcm5hbWU6\r\n"),
            (b"bWU=\r\n", b"334 UGFzc3dvcmQ6\r\n"),
            (b"cHc=\r\n", b"235 ok\r\n"),
            QUIT,
        ],
        [*START, "authenticated 235", *CLOSED],
    ),
    "AUTH refused, tried again": Script(
        steps(SMTPClient.hello, auth(plain), auth(plain), SMTPClient.quit),
        [HELLO, TLS, (PLAIN, b"535 5.7.8 no\r\n"), (PLAIN, b"235 yes\r\n"), QUIT],
        [*START, "authentication failed 535", "authenticated 235", *CLOSED],
    ),
    "an initial response that is too long waits for the challenge": Script(
        steps(SMTPClient.hello, auth(lambda: plain(b"p" * 9205)), SMTPClient.quit),
        [
            HELLO,
            TLS,
            (b"AUTH PLAIN\r\n", b"334 \r\n"),
            (base64.b64encode(b"\0me\0" + b"p" * 9205) + b"\r\n", b"235 ok\r\n"),
            QUIT,
        ],
        [*START, "authenticated 235", *CLOSED],
    ),
    "a challenge that makes no sense is cancelled": Script(
        steps(SMTPClient.hello, auth(plain), SMTPClient.quit),
        [HELLO, TLS, (PLAIN, b"334 QUJD\r\n"), (b"*\r\n", b"501 5.7.0 cancelled\r\n"), QUIT],
        [
            *START,
            "authentication failed 501 (the server sent a challenge for PLAIN that is not empty)",
            *CLOSED,
        ],
    ),
    "a challenge that is not base64 is cancelled": Script(
        steps(SMTPClient.hello, auth(plain), SMTPClient.quit),
        [HELLO, TLS, (PLAIN, b"334-a\r\n334 b\r\n"), (b"*\r\n", b"501 5.7.0 cancelled\r\n"), QUIT],
        [*START, "authentication failed 501 (the challenge is not base64)", *CLOSED],
    ),
    "421 in AUTH": Script(
        steps(SMTPClient.hello, auth(plain)),
        [HELLO, TLS, (PLAIN, b"421 4.7.0 too often\r\n")],
        [*START, "authentication failed 421", "closed 421 4.7.0 too often"],
    ),
    "421 while idle": Script(
        steps(SMTPClient.hello),
        [HELLO, PLAIN_OLD, (b"", b"421 4.4.2 idle\r\n")],
        [*OPENED_OLD, "closed 421 4.4.2 idle"],
    ),
    "EOF while idle": Script(
        steps(SMTPClient.hello), [HELLO, PLAIN_OLD, (b"", EOF)], [*OPENED_OLD, "closed EOF"]
    ),
    "421 for an answer to QUIT": Script(
        steps(SMTPClient.hello, SMTPClient.quit),
        [HELLO, PLAIN_OLD, (b"QUIT\r\n", b"421 bye\r\n")],
        [*OPENED_OLD, "QUIT 421", "closed QUIT"],
    ),
    "EOF for an answer to QUIT": Script(
        steps(SMTPClient.hello, SMTPClient.quit),
        [HELLO, PLAIN_OLD, (b"QUIT\r\n", EOF)],
        [*OPENED_OLD, "closed QUIT"],
    ),
    "refused before its end": Script(
        steps(
            SMTPClient.hello,
            lambda c: c.mail("x@y"),
            lambda c: c.recipient("u@v"),
            SMTPClient.data,
            lambda c: c.send_body(b"hi"),
        ),
        [
            HELLO,
            PLAIN_OLD,
            (b"MAIL FROM:<x@y>\r\n", OK),
            (b"RCPT TO:<u@v>\r\n", OK),
            (DATA, GO),
            (b"hi", b"552 5.3.4 too big\r\n"),
        ],
        [*OPENED_OLD, "MAIL 250", "RCPT 250", "body", ". 552", "closed 552 5.3.4 too big in message"],
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_in_every_cutting(name: str) -> None:
    play_every_way(COMMANDS[name])


# -- the server breaks the protocol (H63, H37) -------------------------------------------------------------

BROKEN: dict[str, tuple[bytes, str]] = {
    "blank line": (b"\r\n", "sent a line that is no reply: b'\\r\\n'"),
    "garbage": (b"hello\r\n", "sent a line that is no reply: b'hello\\r\\n'"),
    "code of two digits": (b"25 OK\r\n", "sent a line that is no reply: b'25 OK\\r\\n'"),
    "code of four digits": (b"2500 OK\r\n", "sent a line that is no reply: b'2500 OK\\r\\n'"),
    "code out of range": (b"650 OK\r\n", "sent a line that is no reply: b'650 OK\\r\\n'"),
    "preliminary": (b"150 OK\r\n", "sent a line that is no reply: b'150 OK\\r\\n'"),
    "other digits": ("２50 OK\r\n".encode(), "sent a line that is no reply: b'\\xef\\xbc\\x9250 OK\\r\\n'"),
    "no separator": (b"250OK\r\n", "sent a line that is no reply: b'250OK\\r\\n'"),
    "bare CR": (b"250 a\r250 b\r\n", "sent a line that is no reply: b'250 a\\r250 b\\r\\n'"),
    "code changes": (b"250-a\r\n550 b\r\n", "sent a reply that changes from 250 to 550"),
    "blank line in the middle": (b"250-a\r\n\r\n250 b\r\n", "sent a line that is no reply: b'\\r\\n'"),
    "line of 1 MB": (b"250 " + b"a" * 1_000_000 + b"\r\n", "sent a reply line of more than 4096 bytes"),
    "line one byte too long": (b"250 " + b"a" * 4091 + b"\r\n", "sent a reply line of more than 4096 bytes"),
    "too many lines": (b"250-a\r\n" * 256 + b"250 a\r\n", "sent a reply of more than 256 lines"),
    "intermediate to MAIL": (b"354 go on\r\n", "answered MAIL with 354"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_h63_broken_replies(name: str) -> None:
    answer, text = BROKEN[name]
    script = Script(
        sender(),
        [HELLO, PLAIN_OLD, (MAIL, answer)],
        [
            *OPENED_OLD,
            f"error: the server {text}",
            "done" + " connection:451" * 3,
            f"closed the server {text} in message",
        ],
    )
    if len(answer) < 100:
        play_every_way(script)
    else:
        for size in (len(answer), 65536, 4096, 4095, 100):
            pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
            assert play(script, [[HELLO[1]], [PLAIN_OLD[1]], pieces]) == script.events


def test_h63_limits_hold_exactly() -> None:
    script = Script(
        steps(SMTPClient.hello, SMTPClient.noop, SMTPClient.noop),
        [
            HELLO,
            PLAIN_OLD,
            (b"NOOP\r\n", b"250 " + b"a" * 4090 + b"\r\n"),
            (b"NOOP\r\n", b"250-a\r\n" * 255 + b"250 a\r\n"),
        ],
        [*OPENED_OLD, "NOOP 250", "NOOP 250"],
    )
    assert play(script) == script.events


def test_h63_memory_is_bounded_when_the_line_never_ends() -> None:
    client = SMTPClient("client.example")
    for _ in range(1000):
        client.receive_data(b"2" * 65536)
        assert client.next_event() is NEED_DATA
    assert not client._reader.has_begun


UNASKED = {
    "after the greeting": [(b"", HELLO[1] + OK)],
    "after HELO's answer": [HELLO, (EHLO, b"250 mx\r\n250 mx\r\n")],
    "after the answer to MAIL": [HELLO, PLAIN_OLD, (MAIL, OK + OK)],
    "half of one": [HELLO, PLAIN_OLD, (MAIL, OK + b"2"), (RCPT1, b"50 OK\r\n")],
    "before the message": [HELLO, PIPELINING, (MAIL + RCPT1 + RCPT2 + RCPT3 + DATA, OK * 4 + GO + OK)],
}


def test_h63_an_answer_too_many_among_pipelined_ones() -> None:
    """It came before the third command was sent, so it is no answer to that."""
    client = SMTPClient("client.example")
    client.receive_data(b"220 mx\r\n")
    client.next_event()
    client.hello()
    client.receive_data(b"250-mx\r\n250 PIPELINING\r\n")
    client.next_event()
    client.mail("a@b.example")
    client.recipient("c@d.example")
    client.receive_data(b"250 OK\r\n" * 3)
    assert isinstance(client.next_event(), ReplyReceived)
    client.recipient("e@f.example")
    assert isinstance(client.next_event(), ReplyReceived)
    with pytest.raises(RemoteProtocolError, match="a reply to no command: 250"):
        client.next_event()


@pytest.mark.parametrize("name", UNASKED)
def test_h63_an_answer_before_its_command_is_no_answer(name: str) -> None:
    """Otherwise one injected line would shift all answers that follow."""
    seen = play_loosely(UNASKED[name])
    assert "error: the server sent a reply to no command: 250" in seen
    assert seen[-1].startswith("closed the server sent a reply to no command")
    assert not any("message:250" in event for event in seen)


def play_loosely(script: list[tuple[bytes, bytes]]) -> list[str]:
    """Feed each answer whole, whatever was sent before it."""
    client = SMTPClient("client.example")
    app = sender()()
    seen: list[str] = []
    for _, answer in script:
        client.receive_data(answer)
        pull(client, app, seen)
        client.data_to_send()
    return seen


def test_h37_bytes_behind_the_answer_to_starttls_are_fatal() -> None:
    for behind in (b"250 injected\r\n", b"2", b"\x16\x03\x01"):
        client = at_ready(TLS[1])
        client.starttls()
        client.receive_data(b"220 go\r\n" + behind)
        with pytest.raises(RemoteProtocolError, match="bytes behind its answer to STARTTLS"):
            client.next_event()
        assert show_next(client).startswith("closed the server sent bytes behind")


def test_h37_what_was_known_before_tls_is_forgotten() -> None:
    client = at_ready(b"250-mx\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n")
    client.starttls()
    client.receive_data(b"220 go\r\n")
    assert isinstance(client.next_event(), ReadyForTLS)
    assert client.next_event() is PAUSED
    with pytest.raises(LocalProtocolError, match="for TLS"):
        client.receive_data(b"x")
    client.tls_established()
    assert len(client.capabilities) == 0
    with pytest.raises(LocalProtocolError, match=r"call hello\(\) first"):
        client.send_message("a@b", ["c@d"])
    with pytest.raises(LocalProtocolError, match=r"call hello\(\) first"):
        client.authenticate(plain())


def test_h85_credentials_are_not_sent_in_clear_unless_asked() -> None:
    client = at_ready(TLS[1])
    with pytest.raises(LocalProtocolError, match="credentials in clear"):
        client.authenticate(plain())
    assert client.data_to_send() == b""
    client.authenticate(plain(), allow_clear=True)
    assert client.data_to_send() == PLAIN


def test_h85_implicit_tls_needs_no_starttls() -> None:
    client = SMTPClient("client.example")
    client.tls_established()
    client.receive_data(HELLO[1])
    assert isinstance(client.next_event(), Greeting)
    client.hello()
    client.receive_data(TLS[1])
    assert isinstance(client.next_event(), HelloDone)
    client.data_to_send()
    with pytest.raises(LocalProtocolError, match="TLS is in use"):
        client.starttls()
    client.authenticate(plain())
    assert client.data_to_send() == PLAIN


def test_endless_challenges_end() -> None:
    client = at_ready(TLS[1])
    client.authenticate(plain(), allow_clear=True)
    for _ in range(16):
        client.receive_data(b"334 \r\n")
        assert client.next_event() is NEED_DATA
    client.receive_data(b"334 \r\n")
    with pytest.raises(RemoteProtocolError, match="one AUTH challenge after the other"):
        client.next_event()


def test_a_challenge_behind_a_cancel_is_an_error() -> None:
    client = at_ready(TLS[1])
    client.authenticate(plain(), allow_clear=True)
    client.receive_data(b"334 !\r\n")
    assert client.next_event() is NEED_DATA
    client.receive_data(b"334 \r\n")
    with pytest.raises(RemoteProtocolError, match="one AUTH challenge after the other"):
        client.next_event()


# -- the application breaks the protocol (H64, order) ------------------------------------------------------


def at_ready(hello: bytes = PIPELINING[1], lmtp: bool = False) -> SMTPClient:
    """A client that has said hello to a server with these capabilities."""
    client = SMTPClient("client.example", lmtp=lmtp)
    client.receive_data(HELLO[1])
    assert isinstance(client.next_event(), Greeting)
    client.hello()
    client.data_to_send()
    client.receive_data(hello)
    assert isinstance(client.next_event(), HelloDone)
    return client


def show_next(client: SMTPClient) -> str:
    event = client.next_event()
    return repr(event) if event is NEED_DATA or event is PAUSED else show(event)


def answer(client: SMTPClient, reply: bytes) -> str:
    client.receive_data(reply)
    return show_next(client)


@pytest.mark.parametrize("bad", ["\r\n", "\n", "\r", "\0", "\x1b", "\x7f", "\t"])
def test_h64_no_argument_can_end_its_command(bad: str) -> None:
    evil = f"a{bad}RSET"
    calls: list[Callable[[SMTPClient], object]] = [
        lambda c: c.mail(f"{evil}@b"),
        lambda c: c.mail(Address(f"{evil}@b".encode())),
        lambda c: c.mail(Address(f'"{evil}"@b'.encode())),
        lambda c: c.mail(Address(f"x@{evil}".encode())),
        lambda c: c.mail("a@b", MailOptions(envid=evil)),
        lambda c: c.mail("a@b", MailOptions(auth=evil)),
        lambda c: c.mail("a@b", MailOptions(others=(("X", evil),))),
        lambda c: c.mail("a@b", MailOptions(others=((evil, None),))),
        lambda c: c.verify(evil),
        lambda c: c.send_message(Address(f"{evil}@b".encode()), ["a@b"]),
        lambda c: c.send_message("a@b", [Address(f"{evil}@b".encode())]),
        lambda c: c.send_message("a@b", ["c@d"], MailOptions(others=(("X", evil),))),
        lambda c: c.send_message("a@b", [("c@d", RecipientOptions(others=(("X", evil),)))]),
    ]
    for call in calls:
        client = at_ready()
        with pytest.raises(LocalProtocolError):
            call(client)
        assert client.data_to_send() == b""
    client = at(State.MAIL)
    for recipient, options in (
        (f"{evil}@b", NO_RECIPIENT_OPTIONS),
        ("c@d", RecipientOptions(orcpt=("rfc822", evil))),
        ("c@d", RecipientOptions(orcpt=("utf-8", evil))),
        ("c@d", RecipientOptions(orcpt=(evil, "a@b"))),
    ):
        with pytest.raises(LocalProtocolError):
            client.recipient(Address(recipient.encode()), options)
    assert client.data_to_send() == b""
    with pytest.raises(LocalProtocolError):
        SMTPClient(evil)


@pytest.mark.parametrize(
    "options",
    [
        *[MailOptions(others=((key, None),)) for key in ("", "=", "A B", "-A", "Ａ", "A=1 B=2")],
        *[MailOptions(others=(("A", value),)) for value in ("", "b=c", "b c", "é")],
        MailOptions(others=(("A", "1"), ("a", "2"))),
        *[MailOptions(size=size) for size in (-1, 10**21)],
        *[MailOptions(envid=envid) for envid in ("", "é", "x" * 101)],
        *[MailOptions(auth=auth) for auth in ("", "a@b@", "\udcff@b")],
        *[RecipientOptions(notify=frozenset(kinds)) for kinds in ((), (Notify.NEVER, Notify.DELAY))],
        *[RecipientOptions(orcpt=orcpt) for orcpt in (("rfc822", ""), ("", "a@b"), ("a b", "c"), ("rfc822", "é"))],
    ],
)
def test_h64_parameters_have_a_grammar(options: MailOptions | RecipientOptions) -> None:
    client = at_ready() if isinstance(options, MailOptions) else at(State.MAIL)
    with pytest.raises(LocalProtocolError, match=r"MAIL|RCPT"):
        if isinstance(options, MailOptions):
            client.mail("a@b", options)
        else:
            client.recipient("a@b", options)
    assert client.data_to_send() == b""


def test_non_ascii_needs_smtputf8() -> None:
    with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
        at_ready().mail("é@b")
    client = at_ready()
    client.mail("é@b", MailOptions(smtputf8=True))
    client.recipient("é@c")
    assert client.data_to_send() == "MAIL FROM:<é@b> SMTPUTF8\r\nRCPT TO:<é@c>\r\n".encode()
    with pytest.raises(LocalProtocolError):
        at_ready().verify("é")


def test_smtputf8_in_messages() -> None:
    client = at_ready(b"250-mx\r\n250-PIPELINING\r\n250 SMTPUTF8\r\n")
    client.send_message("a@b", ["c@d", "é@f"])
    expected = "MAIL FROM:<a@b> SMTPUTF8\r\nRCPT TO:<c@d>\r\nRCPT TO:<é@f>\r\nDATA\r\n"
    assert client.data_to_send() == expected.encode()
    client = at_ready()
    client.send_message("a@b", ["é@f", "c@d"])
    assert client.data_to_send() == b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
    client.receive_data(OK + NO + b"503 no\r\n")
    assert [show_next(client) for _ in range(4)] == ["MAIL 250", "RCPT 550", "DATA 503", "done local:553 RCPT:550"]
    client = at_ready()
    client.send_message("é@b", ["c@d"])
    assert show_next(client) == "done local:553"


def test_lines_are_bounded() -> None:
    client = at_ready()
    with pytest.raises(LocalProtocolError, match="over 4096"):
        client.verify("a" * 5000)


@pytest.mark.parametrize("bad", ["", "a b", "é", "a\r\n"])
def test_the_local_name_is_one_word(bad: str) -> None:
    with pytest.raises(LocalProtocolError):
        SMTPClient(bad)


CALLS: dict[str, Callable[[SMTPClient], object]] = {
    "EHLO": SMTPClient.hello,
    "HELO": lambda c: c.hello(extended=False),
    "STARTTLS": SMTPClient.starttls,
    "AUTH": auth(plain),
    "MAIL": lambda c: c.mail("a@b"),
    "RCPT": lambda c: c.recipient("c@d"),
    "DATA": SMTPClient.data,
    "BDAT": lambda c: c.bdat(b"hi\r\n"),
    "XCLIENT": lambda c: c.xclient(Xclient(name="host.example")),
    "RSET": SMTPClient.reset,
    "NOOP": SMTPClient.noop,
    "VRFY": lambda c: c.verify("x"),
    "QUIT": SMTPClient.quit,
}

ALL_OFFERED = (
    b"250-mx\r\n250-STARTTLS\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-XCLIENT NAME LOGIN\r\n250 AUTH PLAIN\r\n"
)


def at(state: State) -> SMTPClient:
    """A client in `state`, with nothing unanswered."""
    if state is State.GREETING:
        return SMTPClient("client.example")
    if state is State.CONNECTED:
        client = SMTPClient("client.example")
        client.receive_data(HELLO[1])
        client.next_event()
        return client
    client = at_ready(ALL_OFFERED)
    if state is State.AUTH:
        client.authenticate(plain(), allow_clear=True)
    elif state is State.TLS:
        client.starttls()
        answer(client, b"220 go\r\n")
    elif state is State.CLOSED:
        client.quit()
        answer(client, b"221 bye\r\n")
    elif state is not State.READY:
        client.mail("a@b")
        answer(client, OK)
        if state is not State.MAIL:
            client.recipient("c@d")
            answer(client, OK)
        if state is State.BODY:
            client.data()
            answer(client, GO)
        if state is State.CHUNKS:
            client.bdat(b"hi\r\n")
            answer(client, OK)
    assert client.state is state
    client.data_to_send()
    return client


@pytest.mark.parametrize("state", [s for s in State if s not in (State.CHUNK, State.DRAIN, State.ENDED)])
@pytest.mark.parametrize("verb", CALLS)
def test_every_command_in_every_state(state: State, verb: str) -> None:
    client = at(state)
    if state in ALLOWED[verb]:
        CALLS[verb](client)
        assert client.data_to_send().startswith(verb.encode())
        assert client.awaiting == verb
    else:
        with pytest.raises(LocalProtocolError, match=r"call |next_event"):
            CALLS[verb](client)
        assert client.data_to_send() == b""


@pytest.mark.parametrize("state", [s for s in State if s not in (State.CHUNK, State.DRAIN, State.ENDED)])
def test_the_body_in_every_state(state: State) -> None:
    client = at(state)
    if state is State.BODY:
        client.send_body(b"x")
        client.end_of_body()
        assert client.data_to_send() == b"x\r\n.\r\n"
    with pytest.raises(LocalProtocolError):
        client.send_body(b"x")
    with pytest.raises(LocalProtocolError):
        client.end_of_body()


@pytest.mark.parametrize("state", [s for s in State if s not in (State.CHUNK, State.DRAIN, State.ENDED)])
def test_send_message_in_every_state(state: State) -> None:
    client = at(state)
    if state in (State.READY, State.MAIL, State.RECIPIENTS, State.CHUNKS):
        client.send_message("a@b", ["c@d"], chunking=False)
        reset = b"" if state is State.READY else b"RSET\r\n"
        assert client.data_to_send() == reset + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
        with pytest.raises(LocalProtocolError, match=r"send_message\(\) is under way"):
            client.reset()
        with pytest.raises(LocalProtocolError, match=r"send_message\(\) is under way"):
            client.send_message("a@b", ["c@d"])
    else:
        with pytest.raises(LocalProtocolError):
            client.send_message("a@b", ["c@d"])


def test_other_misuse() -> None:
    client = at_ready()
    with pytest.raises(LocalProtocolError, match="not offered"):
        client.starttls()
    with pytest.raises(LocalProtocolError, match="offers no mechanism, as far as"):
        client.authenticate(plain(), allow_clear=True)
    with pytest.raises(LocalProtocolError, match="one recipient at least"):
        client.send_message("a@b", [])
    with pytest.raises(LocalProtocolError, match="no size below 0"):
        client.send_message("a@b", ["c@d"], MailOptions(size=-1))
    with pytest.raises(LocalProtocolError, match="is no address"):
        client.send_message("a@b", ["c d"])
    with pytest.raises(LocalProtocolError, match="receive_eof"):
        client.receive_data(b"")
    with pytest.raises(LocalProtocolError, match="follows ReadyForTLS"):
        client.tls_established()
    with pytest.raises(LocalProtocolError, match="LMTP has no HELO"):
        SMTPClient("x", lmtp=True).hello(extended=False)
    client = at_ready(TLS[1])
    client.authenticate(plain(), allow_clear=True)
    assert answer(client, b"235 yes\r\n") == "authenticated 235"
    assert client.authenticated
    with pytest.raises(LocalProtocolError, match="allows it once"):
        client.authenticate(plain(), allow_clear=True)


def test_lmtp_takes_no_message_for_nobody() -> None:
    client = at_ready(b"250-mx\r\n250 PIPELINING\r\n", lmtp=True)
    client.send_message("a@b", ["c@d"])
    client.receive_data(OK + NO + GO)
    assert [show_next(client) for _ in range(2)] == ["MAIL 250", "RCPT 550"]
    with pytest.raises(RemoteProtocolError, match="takes a message for no recipient"):
        client.next_event()
    assert show_next(client) == "done RCPT:550"


# -- pipelining --------------------------------------------------------------------------------------------


def test_the_envelope_goes_out_in_one_write() -> None:
    client = at_ready()
    client.send_message("me@a.example", [f"{n}@b.example" for n in range(MAX_PIPELINED - 2)])
    envelope = client.data_to_send()
    assert envelope.startswith(MAIL) and envelope.endswith(b"RCPT TO:<97@b.example>\r\nDATA\r\n")
    assert client.data_to_send() == b""


def test_a_long_envelope_keeps_a_window() -> None:
    client = at_ready()
    count = 1000
    client.send_message("me@a.example", [f"{n}@b.example" for n in range(count)])
    unanswered: list[bytes] = []
    events: list[str] = []
    writes = 0
    while not events or not events[-1].startswith("body"):
        output = client.data_to_send()
        writes += bool(output)
        unanswered += output.splitlines()
        assert len(unanswered) <= MAX_PIPELINED
        for command in unanswered:
            client.receive_data(GO if command == b"DATA" else OK)
        unanswered = []
        pull(client, lambda client, event: None, events)
    assert len(events) == count + 2
    assert writes <= count // MAX_PIPELINED + 2


def test_commands_are_pipelined_by_hand_too() -> None:
    client = at_ready()
    client.reset()
    client.mail("a@b")
    client.recipient("c@d")
    client.recipient("e@f")
    client.noop()
    with pytest.raises(LocalProtocolError, match="the answer to NOOP is awaited"):
        client.reset()
    assert client.data_to_send().count(b"\r\n") == 5
    client.receive_data(OK + OK + NO + OK + OK)
    assert [show_next(client) for _ in range(6)] == [
        *("RSET 250", "MAIL 250", "RCPT 550", "RCPT 250", "NOOP 250", "PAUSED"),
    ]
    assert client.state is State.RECIPIENTS


def test_without_pipelining_each_answer_is_awaited() -> None:
    client = at_ready(b"250 mx\r\n")
    client.mail("a@b")
    with pytest.raises(LocalProtocolError, match="offers no PIPELINING"):
        client.recipient("c@d")


@pytest.mark.parametrize(
    "answers, state",
    [
        (OK + OK + OK, State.RECIPIENTS),
        (OK + OK + NO, State.RECIPIENTS),
        (OK + NO + NO, State.MAIL),
        (NO + NO + NO, State.READY),
        (NO + OK + OK, State.READY),
    ],
)
def test_the_state_follows_the_answers(answers: bytes, state: State) -> None:
    client = at_ready()
    client.mail("a@b")
    client.recipient("c@d")
    client.recipient("e@f")
    client.receive_data(answers)
    pull(client, lambda client, event: None, [])
    assert client.state is state


def test_send_message_waits_for_answers_that_are_owed() -> None:
    client = at_ready()
    client.reset()
    with pytest.raises(LocalProtocolError, match="the answer to RSET is awaited"):
        client.send_message("a@b", ["c@d"])


def test_undrained_output_pauses() -> None:
    client = at(State.BODY)
    client.send_body(b"a" * 300_000)
    client.end_of_body()
    client.receive_data(OK)
    assert client.next_event() is PAUSED
    assert len(client.data_to_send()) == 300_005
    assert show_next(client) == ". 250"


def test_results_name_their_recipients() -> None:
    client = at_ready()
    client.send_message("a@b", ["c@d", "e@f"])
    client.receive_data(OK + NO + OK + GO)
    while not isinstance(client.next_event(), ReadyForBody):
        pass
    client.end_of_body()
    client.receive_data(b"250 2.0.0 queued as 17\r\n")
    assert isinstance(client.next_event(), ReplyReceived)
    event = client.next_event()
    assert isinstance(event, MessageDone)
    refused, taken = event.results
    assert (refused.address.raw, refused.stage, refused.delivered) == (b"c@d", Stage.RCPT, False)
    assert refused.reply.enhanced_code == "5.1.1"
    assert (taken.address.raw, taken.stage, taken.delivered) == (b"e@f", Stage.MESSAGE, True)
    assert taken.reply.text == "2.0.0 queued as 17"


def test_eof_while_the_body_is_sent() -> None:
    client = at_ready()
    client.send_message("a@b", ["c@d"])
    client.receive_data(OK + OK + GO)
    pull(client, lambda client, event: None, [])
    client.send_body(b"half")
    client.receive_eof()
    assert [show_next(client) for _ in range(2)] == ["done connection:451", "closed EOF in message"]
    with pytest.raises(LocalProtocolError, match="connection has ended"):
        client.send_body(b"other half")


@pytest.mark.parametrize("early, fate", [(b"552 too big\r\n", "message:552"), (b"421 bye\r\n", "message:421")])
def test_a_message_refused_before_its_end(early: bytes, fate: str) -> None:
    """Before the final dot only a refusal counts; sent but not yet read, it counts too."""
    for finish in (False, True):
        client = at_ready()
        client.send_message("a@b", ["c@d"])
        client.receive_data(OK + OK + GO)
        pull(client, lambda client, event: None, [])
        client.send_body(b"half")
        client.receive_data(early)
        if finish:
            client.end_of_body()
        seen: list[str] = []
        pull(client, lambda client, event: None, seen)
        assert seen[0] == f"done {fate}"
        assert seen[1].startswith("closed ")


def test_after_the_end_nothing_is_sent_or_read() -> None:
    client = at(State.CLOSED)
    client.receive_data(b"250 more\r\n")
    assert show_next(client) == show_next(client) == "closed QUIT"
    assert client.data_to_send() == b""


# -- the body (H05, H06, H07) ------------------------------------------------------------------------------


def encode(*pieces: bytes) -> bytes:
    encoder = DotEncoder()
    return b"".join([encoder.feed(piece) for piece in pieces]) + encoder.finish()


@pytest.mark.parametrize(
    "message, wire",
    [
        (b"", b".\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a\nb\n", b"a\r\nb\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".a\r\n..b\n.c", b"..a\r\n...b\r\n..c\r\n.\r\n"),
        (b"\r\n.\r\n", b"\r\n..\r\n.\r\n"),
        (b"\n.\n", b"\r\n..\r\n.\r\n"),
        (b"a\rb\r\n", b"a b\r\n.\r\n"),
        (b"a\r", b"a \r\n.\r\n"),
        (b"a\r\r\n", b"a \r\n.\r\n"),
        (b"a\n\r.\n", b"a\r\n .\r\n.\r\n"),
        (b"a\r.\r\n", b"a .\r\n.\r\n"),
        (b"\r\r.\r", b"  . \r\n.\r\n"),
    ],
)
def test_h06_h07_wire_form(message: bytes, wire: bytes) -> None:
    assert encode(message) == wire
    for at in range(1, len(message)):
        assert encode(message[:at], message[at:]) == wire
    assert encode(*(message[i : i + 1] for i in range(len(message)))) == wire


lines = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"a", b"\0", b"\xff"]), max_size=30)


@given(lines, st.data())
def test_h06_h07_any_message_arrives_once_and_ends_once(pieces: list[bytes], data: st.DataObject) -> None:
    message = b"".join(pieces)
    wire = encode(*pieces)
    assert wire == encode(message)
    assert wire.replace(b"\r\n", b"").find(b"\r") == wire.replace(b"\r\n", b"").find(b"\n") == -1
    decoded, rest = DotDecoder(LineEnds.REJECT).feed(wire)
    assert rest == b""  # one end of data, at the end
    normal = message.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
    assert decoded == (normal if not normal or normal.endswith(b"\n") else normal + b"\r\n")


# -- capabilities ------------------------------------------------------------------------------------------


def test_capabilities() -> None:
    found = Capabilities.parse(
        ["size 1000", "AUTH PLAIN  login", "AUTH=LOGIN CRAM-MD5", "8BITMIME", "STARTTL\u017f", "", "- x", " y"]
    )
    assert dict(found) == {"SIZE": ("1000",), "AUTH": ("PLAIN", "login", "LOGIN", "CRAM-MD5"), "8BITMIME": ()}
    assert "Size" in found and "STARTTLS" not in found and "STARTTL\u017f" not in found
    assert found["auth"] == found["AUTH"]
    assert found.mechanisms == ("PLAIN", "LOGIN", "LOGIN", "CRAM-MD5")
    assert found.size == 1000
    assert Capabilities.parse(found.lines()) == found
    for key in ("DSN", "\u017fize"):
        with pytest.raises(KeyError):
            found[key]


@pytest.mark.parametrize(
    "line, size",
    [
        *[("SIZE", None), ("SIZE 0", None), ("SIZE 00", None), ("SIZE 10", 10), ("SIZE 10 20", 10)],
        *[("SIZE x", None), ("SIZE -1", None), ("SIZE +1", None), ("SIZE 1_0", None), ("SIZE " + "9" * 21, None)],
        *[("SIZE \u0661", None), ("SIZE=5", 5)],
    ],
)
def test_h92_size(line: str, size: int | None) -> None:
    assert Capabilities.parse([line]).size == size


token = st.text("ABC019-", min_size=1, max_size=6).filter(lambda text: text[0] != "-")
parameter = st.text("abcABC019-+/=!.", min_size=1, max_size=8).filter(lambda text: text.strip("=") == text)


@given(st.dictionaries(token, st.lists(parameter, max_size=4, unique=True)))
def test_capabilities_print_parse_equal(offered: dict[str, list[str]]) -> None:
    capabilities = Capabilities(offered)
    assert Capabilities.parse(capabilities.lines()) == capabilities


@given(st.lists(st.text()))
def test_capabilities_of_any_text(lines: list[str]) -> None:
    assert all(keyword.isascii() for keyword in Capabilities.parse(lines))


# -- whatever a server sends -------------------------------------------------------------------------------

server_bytes = st.lists(
    st.one_of(
        st.sampled_from([OK, NO, GO, b"220 x\r\n", b"250-AUTH PLAIN\r\n", b"334 \r\n", b"235 \r\n"]),
        st.binary(max_size=8),
    ),
    max_size=25,
)


@given(server_bytes, st.booleans(), st.integers(0, 2))
def test_only_the_documented_exception_escapes(chunks: list[bytes], lmtp: bool, mode: int) -> None:
    client = SMTPClient("client.example", lmtp=lmtp)
    new_app = [
        sender(2),
        steps(SMTPClient.hello, auth(plain), SMTPClient.quit),
        steps(SMTPClient.hello, SMTPClient.starttls, tls),
    ][mode]
    app = new_app()

    def careful(client: SMTPClient, event: ClientEvent) -> None:
        try:
            app(client, event)
        except LocalProtocolError:
            client.receive_eof()

    seen: list[str] = []
    for chunk in chunks:
        if chunk and client.state is not State.TLS:
            client.receive_data(chunk)
        pull(client, careful, seen)
        client.data_to_send()
    client.receive_eof()
    pull(client, careful, seen)
    assert seen[-1].startswith("closed ")
    assert sum(event.startswith("error") for event in seen) <= 1
