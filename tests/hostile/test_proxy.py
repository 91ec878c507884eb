"""PROXY headers: only from listed peers, only as the first bytes, once; however long, broken or cut they are."""

import socket
import ssl
from pathlib import Path

import pytest

from mailfront_io.admission import Admission, Limits
from mailfront_io.ops import Connection, Session
from mailfront_io.plugin import Plugin
from mailfront_io.proxied import HEADER_SECONDS, Proxies, proxied
from mailfront_io.server import session_factory
from mailfront_io.service import service_from_line
from mailfront_io.spool import Spool
from mailfront_io.testing import EOF, RESET, STALL, STOP, Action, Played, run_script
from mailfront_proto.proxy import Family, ProxyAddress, ProxyHeader
from tests.certificates import client_context, write_pem
from tests.io.test_supervisor import Running
from tests.serving import DRIVERS, SECONDS

PROXY = ("198.51.100.1", 50_000)
CLIENT = ProxyAddress("192.0.2.7", 1234)
HERE = ProxyAddress("192.0.2.25", 25)
V1 = ProxyHeader(1, CLIENT, HERE, Family.INET).encode()
V2 = ProxyHeader(2, CLIENT, HERE, Family.INET, tlvs=((0xE0, b"x"),)).encode()
MAPPED = b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.25 1234 25\r\n"
SESSION = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
MESSAGE = b"Subject: x\r\n\r\n.\r\nQUIT\r\n"


class Recorder(Plugin):
    """Keeps the trace line of the last message."""

    trace = b""

    def data_start(self, spool: Spool | None) -> None:
        type(self).trace = b"".join(self.session.added_lines)


class Server:
    """A service behind proxies, and what it has kept."""

    def __init__(self, *names: str, per_client: int = 20, per_network: int = 100) -> None:
        self.log: list[str] = []
        service = service_from_line(
            ["smtp", "echo", "add-received", "accept", f"{__name__}:Recorder"], {"TCPLOCALHOST": "mx"}, self.log.append
        )
        Recorder.trace = b""
        self.admission = Admission(self.log.append, Limits(client=per_client, network=per_network))
        self.make = proxied(
            Proxies(names or (PROXY[0],)), session_factory(service, "mx.example.org"), self.admission.admit_client,
            self.admission.release_client, self.log.append,
        )  # fmt: skip

    def play(self, *script: Action, remote: tuple[str, int] | None = PROXY) -> Played:
        def session(connection: Connection) -> Session:
            coroutine: Session = self.make(connection)
            return coroutine

        return run_script(session, list(script), remote=remote, all_read=False)


@pytest.mark.parametrize("header", [V1, V2, MAPPED])
def test_h69_the_client_is_whom_the_proxy_names(header: bytes) -> None:
    server = Server()
    played = server.play(header + SESSION, MESSAGE, EOF)
    assert b"354 " in played.output and played.output.endswith(b"221 2.0.0 Good bye.\r\n")
    assert b"[192.0.2.7]" in Recorder.trace and b"[192.0.2.25]" in Recorder.trace
    assert b"198.51.100.1" not in Recorder.trace


@pytest.mark.parametrize("header", [V1, V2])
def test_h69_however_it_is_cut(header: bytes) -> None:
    whole = Server().play(header + b"QUIT\r\n", EOF).output
    for place in range(1, len(header) + 1):
        wire = header + b"QUIT\r\n"
        assert Server().play(wire[:place], wire[place:], EOF).output == whole
    assert Server().play(*(wire[place : place + 1] for place in range(len(wire))), EOF).output == whole


@pytest.mark.parametrize("header", [V1, V2])
def test_h69_from_others_it_is_no_header(header: bytes) -> None:
    output = Server().play(header + b"QUIT\r\n", EOF, remote=("198.51.100.2", 1)).output
    assert output.startswith(b"220 ")
    assert b"500 5.5.1" in output
    assert Recorder.trace == b""


def test_h69_listed_peers_must_say_it() -> None:
    server = Server()
    assert server.play(b"EHLO x\r\n", EOF).output == b""
    assert server.log == ["PROXY header from 198.51.100.1: no PROXY header"]


@pytest.mark.parametrize("header", [V1, V2])
def test_h69_only_once(header: bytes) -> None:
    server = Server()
    output = server.play(header + header + SESSION, MESSAGE, EOF).output
    assert b"500 5.5.1" in output
    assert b"[198.51.100.1]" not in Recorder.trace


@pytest.mark.parametrize(
    "wire",
    [
        b"PROXY TCP4 " + b"1" * 97 + b"\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 1234 25\n" + b"x" * 200,
        V2[:14] + b"\xff\xff" + bytes(65535),
        V2[:16],
        b"\r\n\r\n",
        b"",
    ],
)
def test_h69_what_is_too_long_broken_or_cut_off_is_closed_without_a_word(wire: bytes) -> None:
    server = Server()
    played = server.play(*([wire] if wire else []), EOF)
    assert played.output == b""
    assert played.result == 1
    assert len(server.log) == 1


def test_h69_a_proxy_that_says_nothing_or_resets() -> None:
    for action in (STALL, RESET):
        server = Server()
        played = server.play(V1[:10], action)
        assert played.output == b"" and played.elapsed <= HEADER_SECONDS
        assert server.log == ["PROXY header from 198.51.100.1: it did not come"]


def test_h69_a_server_that_stops_does_not_wait_for_a_header() -> None:
    server = Server()
    played = server.play(V1[:10], STOP)
    assert (played.output, played.result, played.elapsed, server.log) == (b"", 0, 0, [])


@pytest.mark.parametrize(
    "header",
    [
        ProxyHeader(2, local=True),
        ProxyHeader(1),
        ProxyHeader(2, ProxyAddress("/run/a"), ProxyAddress("/run/b"), Family.UNIX),
    ],
)
def test_h69_where_it_names_nobody_the_connection_counts(header: ProxyHeader) -> None:
    Server().play(header.encode() + SESSION, MESSAGE, EOF)
    assert b"[198.51.100.1]" in Recorder.trace


def test_h23_limits_count_whom_the_proxy_names() -> None:
    server = Server(per_client=1)
    assert server.admission.admit_client((CLIENT.host, 1)) is None
    played = server.play(V1 + b"QUIT\r\n", EOF)
    assert played.output == b"421 4.7.0 Too many connections from your network, try again later\r\n"
    server.admission.release_client((CLIENT.host, 1))
    for _ in range(3):
        assert server.play(V1 + b"QUIT\r\n", EOF).output.startswith(b"220 ")


def test_h23_so_do_those_of_networks() -> None:
    server = Server(per_network=2)
    for host in ("192.0.2.200", "192.0.2.201"):
        assert server.admission.admit_client((host, 1)) is None
    output = server.play(V1 + b"QUIT\r\n", EOF).output
    assert output == b"421 4.7.0 Too many connections from your network, try again later\r\n"
    assert server.log == ["Refused a connection from 192.0.2.7: 192.0.2.0/24 has 2 open"]
    server.admission.release_client(("192.0.2.200", 1))
    assert server.play(V1 + b"QUIT\r\n", EOF).output.startswith(b"220 ")


@pytest.mark.parametrize(
    ("names", "peer", "listed"),
    [
        (["192.0.2.0/24"], ("192.0.2.9", 1), True), (["192.0.2.0/24"], ("::ffff:192.0.2.9", 1), True),
        (["192.0.2.0/24"], ("192.0.3.9", 1), False), (["2001:db8::/32"], ("2001:db8::1%eth0", 1), True),
        (["unix"], None, True), (["192.0.2.1"], None, False), (["unix"], ("127.0.0.1", 1), False), ([], None, False),
    ],
)  # fmt: skip
def test_who_is_listed(names: list[str], peer: tuple[str, int] | None, listed: bool) -> None:
    assert (peer in Proxies(names)) is listed


@pytest.mark.parametrize("driver", DRIVERS)
def test_h69_header_and_client_hello_in_one_segment(driver: str, tmp_path: Path) -> None:
    """Under every driver; a unix socket beside it."""
    pem = write_pem(tmp_path)
    text = f"""
        [[listener]]
        protocol = "smtp"
        listen = ["127.0.0.1:0", "unix:{tmp_path}/smtp"]
        backend = "discard"
        plugins = ["accept"]
        certificate = "{pem}"
        tls = "implicit"
        proxies = ["127.0.0.0/8", "unix"]
        [listener.settings]
        greeting_delay = 0
        """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing, server_hostname="mx.example.org")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with Running(tmp_path, text, "--driver", driver) as running:
        with socket.create_connection(running.addresses[0], SECONDS) as connection:
            connection.sendall(V2 + outgoing.read())
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    data = connection.recv(65536)
                    assert data, (tmp_path / "log").read_text()
                    incoming.write(data)
            connection.sendall(outgoing.read())
            greeting = b""
            while not greeting.endswith(b"\r\n"):
                try:
                    greeting += tls.read(1000)
                except ssl.SSLWantReadError:
                    data = connection.recv(65536)
                    assert data, (tmp_path / "log").read_text()
                    incoming.write(data)
            assert greeting.startswith(b"220 ")
        assert "smtp-1 from 192.0.2.7" in running.log()
