"""Our client into servers that are not ours; what arrives is compared byte for byte."""

import asyncio
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from mailfront_io import client
from mailfront_io.client import SendResult, Stage, TLSPolicy
from tests.peers.programs import program
from tests.ports import unused_port
from tests.serving import SECONDS, environment, queue_directory, queued

pytestmark = pytest.mark.peer


def with_asyncio(*arguments: Any, **options: Any) -> SendResult:
    return asyncio.run(client.send_message_asyncio(*arguments, **options))


def with_trio(*arguments: Any, **options: Any) -> SendResult:
    async def send() -> SendResult:
        return await client.send_message_trio(*arguments, **options)

    return trio.run(send)


CALLS: dict[str, Callable[..., SendResult]] = {
    "blocking": client.send_message,
    "asyncio": with_asyncio,
    "trio": with_trio,
}

MESSAGES = {
    "plain": b"Subject: x\r\n\r\nHello.\r\n",
    "dots": b"Subject: x\r\n\r\n.\r\n..\r\n.end\r\n\r\n.\r\n",
    "LF": b"Subject: x\n\nHello.\n.\n",
    "long lines": b"Subject: x\r\n\r\n" + b"x" * 20_000 + b"\r\n" + b"." * 20_000 + b"\r\n",
    "no final line end": b"Subject: x\r\n\r\n.Hello",
    "8-bit": b"Subject: x\r\n\r\nGr\xc3\xbc\xc3\x9fe \xff\xfe\x80\r\n",
    "many blocks": b"Subject: x\r\n\r\n" + b".0123456789\r\n" * 50_000,
}


def as_lines(message: bytes) -> bytes:
    """`message` with LF line ends, the last one too."""
    message = message.replace(b"\r\n", b"\n")
    return message if message.endswith(b"\n") else message + b"\n"


@contextmanager
def running(*command: str, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL, **options) as process:
        try:
            yield process
        finally:
            process.kill()


every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
every_message = pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)


# -- Postfix's smtp-sink ----------------------------------------------------------------------------------


class Sink:
    """A running smtp-sink: its `port`, and what it has `received`."""

    def __init__(self, port: int, directory: Path) -> None:
        self.port = port
        self._directory = directory

    def received(self) -> tuple[dict[str, list[str]], bytes]:
        """The one message: its envelope, and what was sent; away with it."""
        [path] = self._directory.iterdir()
        head, _, rest = path.read_bytes().partition(b"Received: ")
        path.unlink()
        envelope: dict[str, list[str]] = {}
        for line in head.decode().splitlines():
            name, _, value = line.partition(": ")
            envelope.setdefault(name, []).append(value)
        trace, _, message = rest.partition(b"(UTC)\n")
        assert trace.count(b"\n") == 2 and message.endswith(b"\n\n")
        return envelope, message[:-1]  # it ends each dump with an empty line


@contextmanager
def sink(*options: str) -> Iterator[Sink]:
    """smtp-sink, which knows no port 0 and does not like to be root."""
    path = program("smtp-sink")
    port = unused_port()
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        dump = ["-d", f"{directory}/message."]
        with running(path, *user, *dump, *options, f"127.0.0.1:{port}", "10", stderr=subprocess.DEVNULL) as process:
            _wait_for(port, process)
            yield Sink(port, Path(directory))


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.recv(100)
                return
        except OSError:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)  # it has no other way to say that it listens


@pytest.fixture(scope="module")
def a_sink() -> Iterator[Sink]:
    with sink() as running_sink:
        yield running_sink


@every_call
@every_message
def test_into_smtp_sink(call: Callable[..., SendResult], message: bytes, a_sink: Sink) -> None:
    to = ["you@example.org", "them@example.org"]
    result = call("127.0.0.1", a_sink.port, "me@example.net", to, message, local_name="client.example.net")
    assert result.delivered, result
    envelope, arrived = a_sink.received()
    assert arrived == as_lines(message)
    eight_bit = "" if message.isascii() else " BODY=8BITMIME"
    assert envelope == {
        "X-Client-Addr": ["127.0.0.1"],
        "X-Client-Proto": ["ESMTP"],
        "X-Helo-Args": ["client.example.net"],
        "X-Mail-Args": [f"<me@example.net>{eight_bit}"],
        "X-Rcpt-Args": ["<you@example.org>", "<them@example.org>"],
    }


@every_call
def test_into_smtp_sink_by_lmtp(call: Callable[..., SendResult]) -> None:
    with sink("-L") as peer:
        result = call("127.0.0.1", peer.port, "", ["a@x", "b@x"], MESSAGES["dots"], lmtp=True)
        assert result.delivered and len(result.recipients) == 2
        assert peer.received()[1] == as_lines(MESSAGES["dots"])


@every_call
@pytest.mark.parametrize("options", [["-e"], ["-p"]], ids=["no EHLO", "no pipelining"])
def test_into_smtp_sink_without_extensions(options: list[str], call: Callable[..., SendResult]) -> None:
    with sink(*options) as peer:
        assert call("127.0.0.1", peer.port, "a@x", ["b@x"], MESSAGES["dots"]).delivered
        assert peer.received()[1] == as_lines(MESSAGES["dots"])


@every_call
@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize(("option", "code"), [("-f", 500), ("-r", 450)])
def test_refusals_of_smtp_sink(command: str, option: str, code: int, call: Callable[..., SendResult]) -> None:
    with sink(option, command) as peer:
        result = call("127.0.0.1", peer.port, "a@x", ["b@x"], MESSAGES["plain"])
    [recipient] = result.recipients
    assert recipient.reply.code == code and not recipient.delivered
    assert recipient.stage is {"MAIL": Stage.MAIL, "RCPT": Stage.RCPT, "DATA": Stage.DATA, ".": Stage.MESSAGE}[command]


@every_call
@pytest.mark.parametrize("size", [100, 20_000_000])
def test_smtp_sink_that_ends_in_the_midst_of_the_message(size: int, call: Callable[..., SendResult]) -> None:
    with sink("-A", "0") as peer:
        result = call("127.0.0.1", peer.port, "a@x", ["b@x"], b"x" * size)
    [recipient] = result.recipients
    assert not recipient.delivered
    # its 550, unless the reset that follows has overtaken it
    assert (recipient.reply.code, recipient.stage) in ((550, Stage.MESSAGE), (451, Stage.CONNECTION))


@every_call
@pytest.mark.parametrize("command", ["CONNECT", "MAIL", "RCPT", "DATA", "."])
def test_smtp_sink_that_hangs_up(command: str, call: Callable[..., SendResult]) -> None:
    with sink("-q", command) as peer:
        if command == "CONNECT":
            with pytest.raises(client.ConnectionFailed) as caught:
                call("127.0.0.1", peer.port, "a@x", ["b@x"], MESSAGES["plain"])
            assert caught.value.temporary
            return
        result = call("127.0.0.1", peer.port, "a@x", ["b@x"], MESSAGES["plain"])
    assert result.temporary and not result.delivered


# -- the original, as Debian has it, under tcpserver ------------------------------------------------------


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """Its queue and port."""
    theirs = "/usr/sbin/mailfront"
    if not os.path.exists(theirs):
        pytest.skip("Debian's mailfront is not installed (make peers installs it).")
    queue = queue_directory(tmp_path_factory.mktemp("original"))
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
            yield queue, int(process.stdout.readline())
        finally:
            process.kill()


@every_call
@every_message
def test_into_the_original(
    call: Callable[..., SendResult], message: bytes, original: tuple[Path, int]
) -> None:
    queue, port = original
    result = call("127.0.0.1", port, "me@example.net", ["you@example.org", "b@x"], message, tls=TLSPolicy.NONE)
    assert result.delivered, result
    assert queued(queue) == [("me@example.net", ["you@example.org", "b@x"], as_lines(message))]
