"""Two of our servers, one relaying to the other, under each driver: real connections, shared by many clients."""

import contextlib
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mailfront_io.client import (
    BodyType,
    MailOptions,
    Notify,
    RecipientOptions,
    SendOptions,
    SendResult,
    TLSPolicy,
    send_message,
)
from mailfront_io.demo import make_certificate
from mailfront_io.drivers.oneshot import run_descriptors
from mailfront_io.service import service_from_line
from mailfront_proto.smtp.parameters import NO_MAIL_OPTIONS
from tests.serving import DRIVERS, queue_directory, queued, serving

MESSAGES = {
    "plain": b"Subject: x\r\n\r\nHello.\r\n",
    "dots": b"Subject: x\r\n\r\n.\r\n..\r\n.end\r\n\r\n.\r\n",
    "8-bit and controls": b"Subject: x\r\n\r\n" + bytes(set(range(256)) - {10, 13}) + b"\r\n",
    "long lines": b"Subject: x\r\n\r\n" + b"x" * 100_000 + b"\r\n" + b"." * 100_000 + b"\r\n",
    "no header": b"\r\n",
    "much": b"Subject: x\r\n\r\n" + b".0123456789 abcdefghij\r\n" * 100_000,
}


def send(port: int, message: bytes, *to: str, asked: MailOptions = NO_MAIL_OPTIONS) -> SendResult:
    recipients = list(to) or ["b@b.example"]
    options: SendOptions = {"tls": TLSPolicy.NONE, "mail_options": asked}
    return send_message("127.0.0.1", port, "a@a.example", recipients, message, **options)


class Chain:
    """`port`: of the relay; `queue`: where the second server puts what it takes; `log`: the relay's."""

    def __init__(self, port: int, queue: Path, log: Path) -> None:
        self.port = port
        self.queue = queue
        self.log = log

    def messages(self) -> list[tuple[str, list[str], bytes]]:
        return queued(self.queue)


@pytest.fixture(scope="module", params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def chain(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The second one speaks SMTP, with STARTTLS and a certificate that is verified."""
    place = tmp_path_factory.mktemp("chain")
    for name in ("first", "second"):
        (place / name).mkdir()
    certificate = place / "certificate.pem"
    make_certificate(str(certificate))
    queue = queue_directory(place)
    second = {"QUEUEDIR": queue, "TLS_CERTFILE": certificate}
    with serving(place / "second", "--driver", driver, "smtp", "queuedir", "accept", settings=second) as [(_, port)]:
        first = {"UPSTREAM": f"localhost:{port}", "UPSTREAM_TLS": "verify", "UPSTREAM_TLS_CA": certificate}
        with serving(place / "first", "--driver", driver, "smtp", "smtp", "accept", settings=first) as [(_, port)]:
            yield Chain(port, queue, place / "first" / "server.log")


@pytest.mark.parametrize("name", MESSAGES)
def test_what_arrives(chain: Chain, name: str) -> None:
    result = send(chain.port, MESSAGES[name], "b@b.example", '"c d"@c.example')
    assert result.delivered, (result, chain.log.read_text())
    expected = MESSAGES[name].replace(b"\r\n", b"\n")
    assert chain.messages() == [("a@a.example", ["b@b.example", '"c d"@c.example'], expected)]


def test_what_the_second_server_cannot_keep_is_refused_by_the_first(chain: Chain) -> None:
    """queuedir has neither BINARYMIME nor DSN."""
    result = send(chain.port, b"\0\r\n", asked=MailOptions(body=BodyType.BINARY_MIME))
    assert result.recipients[0].reply.enhanced_code == "5.6.3"
    wanted = RecipientOptions(frozenset([Notify.SUCCESS]))
    result = send_message("127.0.0.1", chain.port, "a@x", [("b@x", wanted)], b"Hello\r\n", tls=TLSPolicy.NONE)
    assert result.recipients[0].reply.enhanced_code == "5.3.3"
    assert chain.messages() == []


def test_binary_messages_are_the_same_octets_behind_two_servers(driver: str, tmp_path: Path) -> None:
    """NUL, bare CR and LF, dots, and no line end at the end: through a relay to a server that keeps BINARYMIME."""
    message = b"Subject: x\r\n\r\n\0 \r \n \r\r\n\n.\r\n.\r\n" + bytes(range(256)) * 4000 + b"no end\r"
    (tmp_path / "second").mkdir()
    kept = tmp_path / "kept"
    words = ("--driver", driver, "smtp", "tests.conformance.plugins:Wire", "accept")
    second = {"WIRE": kept, "PYTHONPATH": Path(__file__).parents[2]}
    with serving(tmp_path / "second", *words, settings=second) as [(_, port)]:
        words = ("--driver", driver, "smtp", "smtp", "accept")
        with serving(tmp_path, *words, settings={"UPSTREAM": f"127.0.0.1:{port}"}) as [(_, front)]:
            result = send(front, message, asked=MailOptions(body=BodyType.BINARY_MIME))
            assert result.delivered, (result, (tmp_path / "server.log").read_text())
    words_kept, _, arrived = kept.read_bytes().partition(b"\n")
    assert b"BODY=BINARYMIME" in words_kept
    assert arrived == message


def test_many_clients_at_once(chain: Chain) -> None:
    """Each message arrives once and whole, over connections that are shared."""
    count = 60

    def one(number: int) -> bool:
        return send(chain.port, b"Subject: %d\r\n\r\n" % number + b"%d\r\n" % number * 3000).delivered

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(one, range(count)))
    found = sorted(int(message.split()[1]) for _, _, message in chain.messages())
    assert found == list(range(count))


def test_lmtp_through_a_unix_socket(driver: str, tmp_path: Path) -> None:
    """By way of a plain splice: our servers listen on TCP alone."""
    (tmp_path / "second").mkdir()
    queue = queue_directory(tmp_path)
    words = ("--driver", driver, "lmtp", "queuedir", "accept")
    with (
        serving(tmp_path / "second", *words, settings={"QUEUEDIR": queue}) as [(_, port)],
        ThreadPoolExecutor(8) as pool,
        socket.socket(socket.AF_UNIX) as listening,
    ):
        path = tmp_path / "lmtp"
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(60)

        def splice() -> None:
            ours, _ = listening.accept()
            theirs = socket.create_connection(("127.0.0.1", port), 60)
            back = pool.submit(pump, theirs, ours)
            pump(ours, theirs)
            back.result(60)
            ours.close()
            theirs.close()

        splicing = pool.submit(splice)
        words = ("--driver", driver, "smtp", "lmtp", "accept")
        with serving(tmp_path, *words, settings={"UPSTREAM": path}) as [(_, front)]:
            result = send(front, MESSAGES["dots"], "b@b.example", "c@c.example")
            assert result.delivered, (result, (tmp_path / "server.log").read_text())
        splicing.result(60)
    [(sender, recipients, message)] = queued(queue)
    assert (sender, recipients) == ("a@a.example", ["b@b.example", "c@c.example"])
    assert message == MESSAGES["dots"].replace(b"\r\n", b"\n")


def pump(source: socket.socket, sink: socket.socket) -> None:
    source.settimeout(60)
    with contextlib.suppress(OSError):  # the relay does not wait for the answer to its QUIT
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_a_one_shot_program_relays(tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    with serving(tmp_path, "smtp", "queuedir", "accept", settings={"QUEUEDIR": queue}) as [(_, port)]:
        log: list[str] = []
        service = service_from_line(["smtp", "smtp", "accept"], {"UPSTREAM": f"127.0.0.1:{port}"}, log.append)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            envelope = b"EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n"
            ours.sendall(envelope + b"Subject: x\r\n\r\nHello\r\n.\r\nQUIT\r\n")
            ours.shutdown(socket.SHUT_WR)
            assert run_descriptors(service.session, theirs.fileno(), theirs.fileno()) == 0
            theirs.shutdown(socket.SHUT_RDWR)
            with ours.makefile("rb") as file:
                assert re.search(rb"\r\n250 2\.6\.0 Message accepted, id [0-9a-f-]+\.\r\n221 ", file.read()), log
        assert queued(queue) == [("a@x", ["b@x"], b"Subject: x\n\nHello\n")]
