"""A client that others wrote, Python's smtplib, against our SMTP and LMTP server machine over a pair of sockets."""

import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mailfront_proto.sasl import Request, ServerOptions, VerifyPassword, VerifyResponse
from mailfront_proto.secret import Secret
from mailfront_proto.smtp import (
    COMPAT,
    DEFAULT,
    Body,
    Event,
    Mail,
    MessageEnd,
    Profile,
    Recipient,
    Reply,
    SMTPServer,
)
from tests.certificates import client_context
from tests.proto.socket_server import PATIENCE, SocketServer

MESSAGE = b"Subject: dots\r\n\r\n.\r\n..two\r\n" + b"x" * 990 + b"\r\nend\r\n"
PASSWORD = Secret(b"secret")


class Application:
    """Takes mail for everybody but ``nobody``; joe's password is ``secret``. `envelopes`: what has come."""

    def __init__(self) -> None:
        self.envelopes: list[tuple[str, list[str], bytes]] = []

    def __call__(self, machine: SMTPServer, event: Event) -> None:
        if isinstance(event, Mail):
            self.envelopes.append((str(event.address), [], b""))
        if isinstance(event, Body):
            sender, recipients, message = self.envelopes[-1]
            self.envelopes[-1] = sender, recipients, message + event.data
        if not machine.answer_owed:
            return
        if isinstance(event, Recipient) and event.address.local_part == b"nobody":
            machine.reply(550, "5.1.1 No such user")
            return
        if isinstance(event, Request) and not (
            (isinstance(event, VerifyPassword) and event.password == PASSWORD)
            or (isinstance(event, VerifyResponse) and event.matches(PASSWORD))
        ):
            machine.reply(machine.profile.auth_failed_code, "5.7.8 No")
            return
        if isinstance(event, Recipient):
            self.envelopes[-1][1].append(str(event.address))
        if isinstance(event, MessageEnd) and machine.lmtp:
            machine.reply_each([Reply(250, f"2.6.0 {name}") for name in self.envelopes[-1][1]])
        else:
            machine.accept()


class Client(smtplib.SMTP):
    """Over a socket that is there."""

    def __init__(self, theirs: socket.socket) -> None:
        self._theirs = theirs
        super().__init__("mx.example.org", 25, local_hostname="client.example", timeout=PATIENCE)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        self._theirs.settimeout(timeout)
        return self._theirs


class LocalClient(Client):
    """LMTP."""

    ehlo_msg = "lhlo"


@contextmanager
def connected(
    profile: Profile = DEFAULT, *, lmtp: bool = False
) -> Iterator[tuple[smtplib.SMTP, SMTPServer, Application]]:
    machine, application = SMTPServer("mx.example.org", profile, lmtp=lmtp), Application()
    machine.offers_starttls = True
    machine.sasl = ServerOptions(["PLAIN", "LOGIN", "CRAM-MD5"], challenge_source=lambda: b"<1.2@mx.example.org>")
    ours, theirs = socket.socketpair()
    server = SocketServer(ours, machine, application)
    server.start()
    client = (LocalClient if lmtp else Client)(theirs)
    try:
        yield client, machine, application
    finally:
        client.close()
        server.finish()


@pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
def test_mail(profile: Profile) -> None:
    with connected(profile) as (client, _, application):
        refused = client.sendmail("me@example.net", ["a@example.org", "nobody@example.org", "b@example.org"], MESSAGE)
        assert refused == {"nobody@example.org": (550, b"5.1.1 No such user")}
        assert client.sendmail("", ["a@example.org"], MESSAGE) == {}
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("me@example.net", ["nobody@example.org"], MESSAGE)
        assert client.vrfy("joe")[0] == 252 and client.noop()[0] == 250
        assert client.quit()[0] == 221
    assert application.envelopes[:2] == [
        ("me@example.net", ["a@example.org", "b@example.org"], MESSAGE), ("", ["a@example.org"], MESSAGE)
    ]  # fmt: skip


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM_MD5"])
def test_logins_inside_tls(mechanism: str) -> None:
    with connected() as (client, machine, application):
        client.ehlo()
        assert client.has_extn("starttls") and client.has_extn("pipelining") and client.esmtp_features["size"]
        client.starttls(context=client_context())
        assert isinstance(client.sock, ssl.SSLSocket)
        client.ehlo()
        assert not client.has_extn("starttls")
        login = getattr(client, f"auth_{mechanism.lower()}")
        name = mechanism.replace("_", "-")
        client.user, client.password = "joe", "wrong"
        with pytest.raises(smtplib.SMTPAuthenticationError) as failed:
            client.auth(name, login)
        assert failed.value.smtp_code == 535
        client.password = "secret"
        assert client.auth(name, login)[0] == 235
        assert client.sendmail("joe@example.org", ["a@example.org"], MESSAGE) == {}
        client.quit()
    assert machine.in_tls and machine.authenticated and application.envelopes[0][2] == MESSAGE


def test_lmtp() -> None:
    with connected(lmtp=True) as (client, _, application):
        client.ehlo()
        client.mail("me@example.net")
        assert [client.rcpt(name)[0] for name in ("a@example.org", "nobody@example.org", "b@example.org")] == [
            250, 550, 250,
        ]  # fmt: skip
        assert client.data(MESSAGE) == (250, b"2.6.0 a@example.org")
        assert client.getreply() == (250, b"2.6.0 b@example.org")
        client.quit()
    assert application.envelopes == [("me@example.net", ["a@example.org", "b@example.org"], MESSAGE)]
