"""The mail servers for tests of applications: real, under every driver, and in memory."""

import smtplib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from mailfront_io.testing_server import MailServer, MemoryMailServer, Step
from tests.certificates import client_context, write_pem
from tests.serving import SECONDS

DRIVERS: list[Literal["blocking", "asyncio", "trio"]] = ["blocking", "asyncio", "trio"]
TEXT = "Subject: hello\r\n\r\n.Hello.\r\n"
Server = MailServer | MemoryMailServer


@pytest.fixture(params=[*DRIVERS, "memory"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    made = MemoryMailServer() if request.param == "memory" else MailServer(driver=request.param)
    with made:
        yield made


def client(server: Server) -> smtplib.SMTP:
    if isinstance(server, MemoryMailServer):
        return server.smtp()
    return smtplib.SMTP(server.host, server.port, timeout=SECONDS)


def send(smtp: smtplib.SMTP) -> None:
    smtp.sendmail("me@example.org", ["you@example.net", "they@example.net"], TEXT)


def test_messages_are_collected(server: Server) -> None:
    with client(server) as smtp:
        send(smtp)
        send(smtp)
    assert server.messages == [
        ("me@example.org", ["you@example.net", "they@example.net"], b"Subject: hello\n\n.Hello.\n")
    ] * 2


def test_answers_are_scripted(server: Server) -> None:
    server.answer("sender", 451, "4.3.0 Not now")
    server.answer("recipient", 550, "5.1.1 Who?")
    server.answer("message", 554, "5.7.1 No", times=2)
    with client(server) as smtp:
        with pytest.raises(smtplib.SMTPSenderRefused) as sender:
            send(smtp)
        assert (sender.value.smtp_code, sender.value.smtp_error) == (451, b"4.3.0 Not now")
        for _ in range(2):
            with pytest.raises(smtplib.SMTPDataError) as data:
                send(smtp)
            assert data.value.smtp_code == 554
        assert smtp.sendmail("a@b.example", ["c@d.example"], TEXT) == {}
    assert [message.recipients for message in server.messages] == [["c@d.example"]]


def test_some_recipients_are_refused(server: Server) -> None:
    server.answer("recipient", 550, "5.1.1 Who?")
    with client(server) as smtp:
        assert smtp.sendmail("a@b.example", ["c@d.example", "e@f.example"], TEXT) == {
            "c@d.example": (550, b"5.1.1 Who?")
        }


@pytest.mark.parametrize("step", ["helo", "sender", "recipient", "data", "message"])
def test_the_connection_is_dropped(step: Step, server: Server) -> None:
    server.drop(step)
    with pytest.raises((smtplib.SMTPServerDisconnected, OSError)), client(server) as smtp:
        send(smtp)
    assert server.messages == []
    with client(server) as smtp:
        send(smtp)
    assert len(server.messages) == 1


def test_it_may_be_dropped_and_refused_at_once(server: Server) -> None:
    server.drop("connect")
    with pytest.raises((smtplib.SMTPServerDisconnected, OSError)):
        client(server)
    server.answer("connect", 554, "5.3.2 Not in service")
    with pytest.raises(smtplib.SMTPConnectError):
        client(server)


def test_delays_are_virtual_in_memory() -> None:
    with MemoryMailServer() as server:
        server.delay("message", 1000)
        before = server.clock.monotonic()
        with server.smtp() as smtp:
            send(smtp)
        assert server.clock.monotonic() - before == 1000
        assert len(server.messages) == 1


def test_delays_are_real_otherwise() -> None:
    with MailServer() as server:
        server.delay("sender", 0.2)
        before = time.monotonic()
        with client(server) as smtp:
            send(smtp)
        assert time.monotonic() - before >= 0.2


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("driver", DRIVERS)
def test_tls(driver: Literal["blocking", "asyncio", "trio"], implicit: bool, tmp_path: Path) -> None:
    pem = str(write_pem(tmp_path))
    context: ssl.SSLContext = client_context()
    context.check_hostname = False
    with MailServer(certificate=pem, implicit_tls=implicit, driver=driver) as server:
        smtp: smtplib.SMTP
        if implicit:
            smtp = smtplib.SMTP_SSL(server.host, server.port, timeout=SECONDS, context=context)
        else:
            smtp = smtplib.SMTP(server.host, server.port, timeout=SECONDS)
            smtp.starttls(context=context)
        with smtp:
            send(smtp)
        assert len(server.wait()) == 1


@pytest.mark.parametrize("memory", [False, True])
def test_users(memory: bool) -> None:
    users = {"me": "secret"}
    made: Server = MemoryMailServer(users=users) if memory else MailServer(users=users)
    with made as server:
        with client(server) as smtp:
            with pytest.raises(smtplib.SMTPSenderRefused):
                send(smtp)
            with pytest.raises(smtplib.SMTPAuthenticationError):
                smtp.login("me", "wrong")
            smtp.login("me", "secret")
            send(smtp)
        assert len(server.messages) == 1


def test_waiting_for_messages() -> None:
    with MailServer() as server:
        with pytest.raises(TimeoutError, match="0 of 1 messages"):
            server.wait(seconds=0.01)
        with client(server) as smtp:
            send(smtp)
            assert len(server.wait()) == 1


def test_what_a_test_leaves_open_is_not_waited_for() -> None:
    with MailServer() as server:
        smtp = client(server)
        smtp.ehlo()
    with pytest.raises((smtplib.SMTPServerDisconnected, OSError)):
        for _ in range(2):
            smtp.noop()
    smtp.close()


def test_fixtures(mail_server: MailServer, memory_mail_server: MemoryMailServer) -> None:
    for server in (mail_server, memory_mail_server):
        with client(server) as smtp:
            send(smtp)
        assert len(server.messages) == 1
