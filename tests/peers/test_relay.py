"""Our server between a client and servers that are not ours: what arrives behind both is compared byte for byte.

The client is ours, which the other tests of this directory measure by itself; the relay runs under each driver.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailfront_io.client import Notify, RecipientOptions, SendOptions, SendResult, TLSPolicy, send_message
from tests.peers.dovecot_lmtp import DovecotLMTP, dovecot_lmtp
from tests.peers.postfix_server import Postfix, postfix
from tests.peers.programs import program
from tests.peers.test_into_peers import MESSAGES, Sink, as_lines, sink
from tests.peers.test_into_postfix import HEADER
from tests.serving import DRIVERS, environment, queue_directory, queued, serving

pytestmark = pytest.mark.peer

every_message = pytest.mark.parametrize("name", MESSAGES)
BIG = b"Subject: big\r\n\r\n" + b".0123456789 0123456789 \xe4\xf6\xfc\r\n" * (50_000_000 // 28)


class Relay:
    """A running one: its `port`, and where its log is."""

    def __init__(self, port: int, log: Path) -> None:
        self._port = port
        self._log = log

    def send(self, message: bytes, *to: str | tuple[str, RecipientOptions]) -> SendResult:
        options: SendOptions = {"tls": TLSPolicy.NONE}
        recipients = list(to) or ["b@b.example"]
        return send_message("127.0.0.1", self._port, "a@a.example", recipients, message, **options)

    def sends(self, message: bytes, *to: str | tuple[str, RecipientOptions]) -> None:
        result = self.send(message, *to)
        assert result.delivered, (result, self._log.read_text())


@contextmanager
def relaying(directory: Path, driver: str, words: str, upstream: object, **settings: object) -> Iterator[Relay]:
    everything = {"UPSTREAM": upstream, "UPSTREAM_HELO": "relay.example", "MAX_MESSAGE_SIZE": 60_000_000, **settings}
    with serving(directory, "--driver", driver, *words.split(), "accept", settings=everything) as [(_, port)]:
        yield Relay(port, directory / "server.log")


@pytest.fixture(scope="module", params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# -- Postfix's smtp-sink -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def into_sink(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Sink]]:
    with (
        sink() as peer,
        relaying(tmp_path_factory.mktemp("relay"), driver, "smtp smtp", f"127.0.0.1:{peer.port}") as relay,
    ):
        yield relay, peer


@every_message
def test_into_smtp_sink(into_sink: tuple[Relay, Sink], name: str) -> None:
    relay, peer = into_sink
    relay.sends(MESSAGES[name], "b@b.example", '"c d"@c.example')
    envelope, arrived = peer.received()
    assert arrived == as_lines(MESSAGES[name])
    eight_bit = "" if MESSAGES[name].isascii() else " BODY=8BITMIME"
    assert envelope["X-Helo-Args"] == ["relay.example"]
    assert envelope["X-Mail-Args"] == [f"<a@a.example>{eight_bit}"]
    assert envelope["X-Rcpt-Args"] == ["<b@b.example>", '<"c d"@c.example>']


def test_fifty_megabytes(driver: str, into_sink: tuple[Relay, Sink]) -> None:
    if driver not in ("asyncio", "blocking"):
        pytest.skip("Fifty megabytes go through two of the drivers, which read the spool in their own ways.")
    relay, peer = into_sink
    relay.sends(BIG)
    assert peer.received()[1] == as_lines(BIG)


FAULTS = [
    *(("-q", command) for command in ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".")),
    *((option, command) for option in ("-f", "-r") for command in ("EHLO", "RCPT", ".")),
]


@pytest.mark.parametrize(("option", "command"), FAULTS)
def test_smtp_sink_that_hangs_up_or_refuses(option: str, command: str, tmp_path: Path) -> None:
    """Under one driver: what comes at each step is compared under all of them with scripts (tests/conformance)."""
    with sink(option, command) as peer, relaying(tmp_path, "asyncio", "smtp smtp", f"127.0.0.1:{peer.port}") as relay:
        result = relay.send(MESSAGES["plain"])
    code = result.recipients[0].reply.code
    if option == "-f":
        assert code == (250 if command == "EHLO" else 500)  # HELO comes next
    else:
        assert 400 <= code < 500


def test_into_smtp_sink_by_lmtp(driver: str, tmp_path: Path) -> None:
    with sink("-L") as peer, relaying(tmp_path, driver, "smtp lmtp", f"127.0.0.1:{peer.port}") as relay:
        relay.sends(MESSAGES["dots"], "b@b.example", "c@c.example")
        assert peer.received()[1] == as_lines(MESSAGES["dots"])


# -- Postfix itself ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def a_postfix() -> Iterator[Postfix]:
    with postfix("message_size_limit = 60000000\n") as running:
        yield running


@pytest.fixture(scope="module")
def into_postfix(driver: str, a_postfix: Postfix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    with relaying(tmp_path_factory.mktemp("relay"), driver, "smtp smtp", f"127.0.0.1:{a_postfix.port}") as relay:
        yield relay


@every_message
def test_into_postfix(into_postfix: Relay, a_postfix: Postfix, name: str) -> None:
    into_postfix.sends(HEADER + MESSAGES[name], "b@b.example", "c@b.example")
    for one, to in zip(a_postfix.delivered(2), ("b@b.example", "c@b.example"), strict=True):
        assert (one.sender, one.recipient) == ("a@a.example", to)
        assert one.message == as_lines(HEADER + MESSAGES[name])
        assert one.trace.startswith(b"Received: from relay.example ")


def test_fifty_megabytes_into_postfix(driver: str, into_postfix: Relay, a_postfix: Postfix) -> None:
    if driver != "asyncio":
        pytest.skip("Fifty megabytes go into Postfix by one of the drivers.")
    into_postfix.sends(HEADER + BIG)
    [one] = a_postfix.delivered()
    assert one.message == as_lines(HEADER + BIG)


def test_addresses_and_reports_by_postfix(into_postfix: Relay, a_postfix: Postfix) -> None:
    body = HEADER + "Subject: Grüße\r\n\r\nGrüße\r\n".encode()
    into_postfix.sends(body, "ö@bücher.example")
    [one] = a_postfix.delivered()
    assert one.recipient == "ö@bücher.example" and b"with UTF8SMTP" in one.trace
    into_postfix.sends(HEADER + b"\r\nHello\r\n", ("b@b.example", RecipientOptions(frozenset([Notify.SUCCESS]))))
    report, message = sorted(a_postfix.delivered(2), key=lambda one: one.recipient)
    assert (report.sender, report.recipient, message.recipient) == ("", "a@a.example", "b@b.example")
    assert b"multipart/report" in report.message


def test_what_postfix_refuses(into_postfix: Relay) -> None:
    result = into_postfix.send(HEADER + b"\r\nHello\r\n", "refused@b.example")
    assert (result.recipients[0].reply.code, result.recipients[0].reply.enhanced_code) == (554, "5.7.1")


# -- Dovecot's LMTP ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def a_dovecot() -> Iterator[DovecotLMTP]:
    with dovecot_lmtp() as running:
        yield running


@pytest.fixture(scope="module")
def into_dovecot(driver: str, a_dovecot: DovecotLMTP, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    with relaying(tmp_path_factory.mktemp("relay"), driver, "lmtp lmtp", a_dovecot.socket) as relay:
        yield relay


def by_lmtp(relay: Relay, message: bytes, *to: str) -> SendResult:
    options: SendOptions = {"tls": TLSPolicy.NONE, "lmtp": True}
    return send_message("127.0.0.1", relay._port, "a@a.example", list(to), message, **options)


@every_message
def test_into_dovecot(into_dovecot: Relay, a_dovecot: DovecotLMTP, name: str) -> None:
    result = by_lmtp(into_dovecot, MESSAGES[name], "joe@x.example", "eve@x.example")
    assert result.delivered, (result, into_dovecot._log.read_text())
    for user in ("joe", "eve"):
        trace, message = a_dovecot.delivered(user)
        assert message == as_lines(MESSAGES[name])
        assert b"\nReceived: from relay.example\n\tby " in trace and b"Return-Path: <a@a.example>\n" in trace


def test_each_recipient_has_its_own_answer_by_dovecot(into_dovecot: Relay, a_dovecot: DovecotLMTP) -> None:
    """A user whose maildir cannot be made is refused behind the message, and nobody else."""
    (a_dovecot.socket.parent / "mail" / "broken").write_bytes(b"")
    result = by_lmtp(into_dovecot, MESSAGES["plain"], "joe@x.example", "broken@x.example")
    assert [recipient.delivered for recipient in result.recipients] == [True, False]
    assert result.recipients[1].reply.is_temporary and b"Hello" in a_dovecot.delivered("joe")[1]


# -- the original, as Debian has it, under tcpserver ---------------------------------------------------------


@pytest.fixture(scope="module")
def into_the_original(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Path]]:
    theirs = "/usr/sbin/mailfront"
    if not os.path.exists(theirs):
        pytest.skip("Debian's mailfront is not installed (make peers installs it).")
    place = tmp_path_factory.mktemp("original")
    queue = queue_directory(place)
    tcpserver = [program("tcpserver"), "-1", "-D", "-H", "-R", "-l", "localhost", "127.0.0.1", "0"]
    with subprocess.Popen(
        [*tcpserver, theirs, "smtp", "queuedir", "accept"],
        env=environment(QUEUEDIR=queue),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            with relaying(place, driver, "smtp smtp", f"127.0.0.1:{port}") as relay:
                yield relay, queue
        finally:
            process.kill()


@every_message
def test_into_the_original(into_the_original: tuple[Relay, Path], name: str) -> None:
    relay, queue = into_the_original
    relay.sends(MESSAGES[name], "b@b.example", "c@c.example")
    assert queued(queue) == [("a@a.example", ["b@b.example", "c@c.example"], as_lines(MESSAGES[name]))]
