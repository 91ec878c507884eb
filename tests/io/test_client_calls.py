"""Each driver's call to send a message, through sockets, against our own server and others."""

import asyncio
import io
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from mailfront_io import client
from mailfront_io.client import (
    AuthenticationRefused,
    ClientDeadlines,
    ConnectionFailed,
    Credentials,
    SendResult,
    TLSPolicy,
    TLSUnavailable,
)
from mailfront_proto.secret import Secret
from mailfront_proto.smtp.client_events import Stage
from tests import certificates
from tests.io.test_client import BODY, FORMS, GREETING, USER
from tests.serving import queue_directory, queued, serving

Call = Callable[..., SendResult]


def with_asyncio(*arguments: Any, **options: Any) -> SendResult:
    return asyncio.run(client.send_message_asyncio(*arguments, **options))


def with_trio(*arguments: Any, **options: Any) -> SendResult:
    async def send() -> SendResult:
        return await client.send_message_trio(*arguments, **options)

    return trio.run(send)


CALLS: dict[str, Call] = {"blocking": client.send_message, "asyncio": with_asyncio, "trio": with_trio}

every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A server with STARTTLS and AUTH: its queue and port."""
    directory = tmp_path_factory.mktemp("server")
    queue = queue_directory(directory)
    users = directory / "users"
    users.write_text("me:correct horse\n")
    settings = {
        "QUEUEDIR": queue,
        "TLS_CERTFILE": certificates.write_pem(directory, "localhost"),
        "AUTH_STORE": f"static:{users}",
    }
    with serving(directory, "smtp", "queuedir", "authenticate", "accept", settings=settings) as [(_, port)]:
        yield queue, port


BIG = b".\r\n" + bytes(range(32, 127)) * 20_000 + b"\r\n..\r\nend without a line end"


@every_call
@pytest.mark.parametrize("form", FORMS)
def test_a_big_message_through_sockets(call: Call, form: str, queue: tuple[Path, int]) -> None:
    directory, port = queue
    result = call("127.0.0.1", port, "", ["you@example.org", "b@x"], FORMS[form](BIG), tls=TLSPolicy.NONE)
    assert result.delivered and len(result.recipients) == 2
    assert result.steps[0].name == "connect" and 0 < result.steps[0].seconds < 10
    assert queued(directory) == [("", ["you@example.org", "b@x"], BIG.replace(b"\r\n", b"\n") + b"\n")]


@every_call
def test_starttls_and_auth_through_sockets(call: Call, queue: tuple[Path, int]) -> None:
    directory, port = queue
    options = {"tls": TLSPolicy.MUST, "tls_context": certificates.client_context(), "credentials": USER}
    result = call("localhost", port, "a@x", ["b@x"], BODY, **options)
    assert result.tls is not None and result.tls.protocol == "TLSv1.3"
    assert queued(directory)[0][0] == "a@x"


@every_call
def test_h85_through_sockets(call: Call, queue: tuple[Path, int]) -> None:
    directory, port = queue
    with pytest.raises(TLSUnavailable, match="certificate was not accepted"):
        call("localhost", port, "a@x", ["b@x"], BODY)  # not trusted
    with pytest.raises(TLSUnavailable, match="IP address mismatch"):
        call("127.0.0.1", port, "a@x", ["b@x"], BODY, tls_context=certificates.client_context())
    with pytest.raises(AuthenticationRefused, match="see that user name and password"):
        wrong = Credentials("me", Secret(b"wrong"))
        context = certificates.client_context()
        call("localhost", port, "a@x", ["b@x"], BODY, tls_context=context, credentials=wrong)
    assert queued(directory) == []


@every_call
def test_nobody_listens(call: Call) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectionFailed, match=f"cannot connect to 127.0.0.1:{port}") as caught:
            call("127.0.0.1", port, "a@x", ["b@x"], BODY, tls=TLSPolicy.NONE)
    assert caught.value.temporary


def test_no_connection_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(*arguments: object, **options: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("mailfront_io.drivers.blocking.run_client", too_late)
    with pytest.raises(ConnectionFailed, match="no connection within 30 seconds"):
        client.send_message("192.0.2.1", 25, "a@x", ["b@x"], BODY, tls=TLSPolicy.NONE)


@every_call
def test_a_message_that_cannot_be_read(call: Call, queue: tuple[Path, int]) -> None:
    directory, port = queue

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        call("127.0.0.1", port, "a@x", ["b@x"], Broken(), tls=TLSPolicy.NONE)
    assert queued(directory) == []


def test_our_name_is_that_of_the_machine_if_it_has_a_dot(
    monkeypatch: pytest.MonkeyPatch, queue: tuple[Path, int]
) -> None:
    for name, said in (("host.example.org", "EHLO host.example.org"), ("host", "EHLO [127.0.0.1]")):
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        lines: list[str] = []
        directory, port = queue
        client.send_message("127.0.0.1", port, "", ["b@x"], BODY, tls=TLSPolicy.NONE, transcript=lines.append)
        assert f"C: {said}" in lines
        queued(directory)


@every_call
@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".invalid"])
def test_no_such_host(call: Call, name: str) -> None:
    with pytest.raises(ConnectionFailed, match="see that its name is right") as caught:
        call(name, 25, "a@x", ["b@x"], BODY, tls=TLSPolicy.NONE)
    assert not caught.value.temporary


@every_call
def test_a_server_that_is_lost_behind_the_final_dot(call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_hang_up_behind_the_dot, args=(listener,))
        thread.start()
        port = listener.getsockname()[1]
        result = call("127.0.0.1", port, "a@x", ["b@x"], BODY, tls=TLSPolicy.NONE)
        thread.join()
    assert [r.stage for r in result.recipients] == [Stage.CONNECTION]
    assert result.temporary


def _hang_up_behind_the_dot(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        for answer, until in (
            (GREETING, b"EHLO"),
            (b"250-x\r\n250 PIPELINING\r\n", b"DATA\r\n"),
            (b"250 ok\r\n250 ok\r\n354 go\r\n", b"\r\n.\r\n"),
        ):
            connection.sendall(answer)
            heard = b""
            while until not in heard:
                heard += connection.recv(65536)


@every_call
def test_a_deadline_in_real_time(call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        deadlines = ClientDeadlines().at_most(0.1)
        with pytest.raises(ConnectionFailed, match=r"within 0\.1 seconds"):
            call("127.0.0.1", port, "a@x", ["b@x"], BODY, tls=TLSPolicy.NONE, deadlines=deadlines)


def endless(going: Callable[[], object]) -> Iterator[bytes]:
    """A message without end, which the server takes as fast as it comes."""
    while True:
        going()
        yield b"x" * 100 + b"\r\n"


def test_cancelling_in_asyncio_before_the_final_dot_sends_none(queue: tuple[Path, int]) -> None:
    directory, port = queue

    async def send() -> None:
        going = asyncio.Event()
        body = endless(going.set)
        sending = asyncio.create_task(
            client.send_message_asyncio("127.0.0.1", port, "a@x", ["b@x"], body, tls=TLSPolicy.NONE)
        )
        await going.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    asyncio.run(send())
    assert queued(directory) == []


def test_cancelling_in_trio_before_the_final_dot_sends_none(queue: tuple[Path, int]) -> None:
    directory, port = queue

    async def send() -> None:
        going = trio.Event()
        body = endless(going.set)
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                await going.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(cancel)
            await client.send_message_trio("127.0.0.1", port, "a@x", ["b@x"], body, tls=TLSPolicy.NONE)
        assert nursery.cancel_scope.cancelled_caught

    trio.run(send)
    assert queued(directory) == []
