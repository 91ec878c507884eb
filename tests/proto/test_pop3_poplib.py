"""A client that others wrote, Python's poplib, against our POP3 server machine over a pair of sockets."""

import poplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mailfront_proto.pop3 import COMPAT, DEFAULT, POP3Server, Profile
from mailfront_proto.sasl import ServerOptions
from tests.certificates import client_context
from tests.proto.pop3_script import Application
from tests.proto.socket_server import PATIENCE, SocketServer

MESSAGES = [
    b"Subject: one\n\nHello.\n.\n..\nend\n",
    b"Subject: two\r\n\r\n" + b"x" * 400 + b"\r\n.\r\nno end",
    b"",
    b"Subject: big\n\n" + b"0123456789\n" * 100_000,
]


def wire(message: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in message.replace(b"\r\n", b"\n").splitlines())


class Client(poplib.POP3):
    """Over a socket that is there."""

    def __init__(self, theirs: socket.socket) -> None:
        self._theirs = theirs
        super().__init__("mx.example.org", timeout=PATIENCE)

    def _create_socket(self, timeout: float) -> socket.socket:
        self._theirs.settimeout(timeout)
        return self._theirs


@contextmanager
def connected(profile: Profile = DEFAULT) -> Iterator[tuple[Client, POP3Server, Application]]:
    machine, application = POP3Server(profile, greeting="ready"), Application(MESSAGES, slices=10**7)
    machine.offers_user = machine.offers_stls = machine.offers_utf8 = True
    machine.sasl = ServerOptions(["PLAIN", "LOGIN"])
    ours, theirs = socket.socketpair()
    server = SocketServer(ours, machine, application)
    server.start()
    client = Client(theirs)
    try:
        yield client, machine, application
    finally:
        client.close()
        server.finish()


def test_a_whole_session() -> None:
    with connected() as (client, _, application):
        assert client.getwelcome() == b"+OK ready"
        assert {"SASL", "TOP", "UIDL", "USER", "PIPELINING", "UTF8", "STLS", "RESP-CODES"} <= set(client.capa())
        assert client.user("joe") == b"+OK "
        assert client.pass_("secret") == b"+OK "
        sizes = [len(message) for message in MESSAGES]
        assert client.stat() == (4, sum(sizes))
        assert client.list()[1] == [b"%d %d" % pair for pair in enumerate(sizes, 1)]
        one: object = client.list(2)
        assert one == b"+OK 2 %d" % sizes[1]
        assert client.uidl()[1] == [b"1 uid-0", b"2 uid-1", b"3 uid-2", b"4 uid-3"]
        for number, message in enumerate(MESSAGES, 1):
            _, lines, _ = client.retr(number)
            assert b"".join(line + b"\r\n" for line in lines) == wire(message)
        assert client.top(1, 2)[1] == [b"Subject: one", b"", b"Hello.", b"."]
        assert client.top(4, 1)[1] == [b"Subject: big", b"", b"0123456789"]
        client.dele(1)
        client.dele(2)
        client.rset()
        client.dele(3)
        with pytest.raises(poplib.error_proto, match="Message was deleted"):
            client.retr(3)
        assert client.noop() == b"+OK "
        assert client.quit() == b"+OK "
    assert application.updated == ([3], [])  # RSET took the marks back


def test_stls_and_utf8() -> None:
    with connected() as (client, machine, application):
        client.stls(client_context())
        assert isinstance(client.sock, ssl.SSLSocket)
        assert "STLS" not in client.capa()
        assert client.utf8() == b"+OK "
        client.user("joe")
        client.pass_("secret")
        assert len(client.retr(4)[1]) == 100_002
        client.quit()
    assert machine.in_tls and application.updated == ([], [4])


def test_a_wrong_password_and_no_quit() -> None:
    with connected() as (client, _, application):
        client.user("joe")
        with pytest.raises(poplib.error_proto, match=r"-ERR \[AUTH\] Authentication failed"):
            client.pass_("wrong")
        client.user("joe")
        client.pass_("secret")
        client.dele(1)
    assert application.updated is None


def test_the_compat_profile() -> None:
    with connected(COMPAT) as (client, _, _):
        assert set(client.capa()) == {"SASL", "PIPELINING", "TOP", "UIDL", "USER"}
        client.user("joe")
        client.pass_("secret")
        assert client.retr(1)[1] == [b"Subject: one", b"", b"Hello.", b".", b"..", b"end", b""]
        client.quit()
