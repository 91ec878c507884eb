"""The drivers as clients: connecting, the result, errors, cancellation."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import trio

from mailfront_io.drivers import asyncio as asyncio_driver
from mailfront_io.drivers import blocking
from mailfront_io.drivers import trio as trio_driver
from mailfront_io.ops import Cancelled, Connection, Recv, Send
from tests.certificates import write_pem
from tests.io.peer import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server("asyncio", write_pem(tmp_path_factory.mktemp("tls"))) as server:
        yield server


async def three_lines(connection: Connection) -> bytes:
    """A client: its result is what it was sent."""
    clock = connection.clock
    output = await Recv(clock.monotonic() + 5)
    try:
        for line in (b"echo 1\r\n", b"echo 2\r\n", b"quit\r\n"):
            await Send(line, clock.monotonic() + 5)
            output += await Recv(clock.monotonic() + 5)
        return output
    except Cancelled:
        await Send(b"quit\r\n")
        raise


CLIENTS = ["blocking", "asyncio", "trio"]


def run_client(driver: str, client: Any, port: int, **options: Any) -> Any:
    if driver == "blocking":
        return blocking.run_client(client, "localhost", port, **options)
    if driver == "asyncio":
        return asyncio.run(asyncio_driver.run_client(client, "localhost", port, **options))

    async def main() -> Any:
        return await trio_driver.run_client(client, "localhost", port, **options)

    return trio.run(main)


@pytest.mark.parametrize("driver", CLIENTS)
def test_client(driver: str, server: Server) -> None:
    port = 0

    async def client(connection: Connection) -> bytes:
        nonlocal port
        assert connection.local is not None
        port = connection.local[1]
        assert connection.remote is not None
        assert connection.remote[0] in ("127.0.0.1", "::1")
        return await three_lines(connection)

    assert run_client(driver, client, server.port) == b"220 hi\r\n1\r\n2\r\n221 bye\r\n"
    assert server.outcome(port) == ["returned 0"]


@pytest.mark.parametrize("driver", CLIENTS)
def test_client_that_fails_raises_and_closes(driver: str, server: Server) -> None:
    port = 0

    async def client(connection: Connection) -> None:
        nonlocal port
        assert connection.local is not None
        port = connection.local[1]
        await Recv()
        raise LookupError

    port = 0
    with pytest.raises(LookupError):
        run_client(driver, client, server.port)
    assert server.outcome(port)[-1].startswith("returned")


@pytest.mark.parametrize("driver", CLIENTS)
def test_client_that_is_refused(driver: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(OSError):
            run_client(driver, three_lines, bound.getsockname()[1])


@pytest.mark.parametrize("driver", CLIENTS)
def test_client_that_gets_no_answer_to_its_connect(driver: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, ExitStack() as stack:
        for _ in range(4):  # fill the queue: what comes then is not answered
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        began = time.monotonic()
        with pytest.raises(OSError):
            run_client(driver, three_lines, listening.getsockname()[1], connect_timeout=0.2)
        assert time.monotonic() - began < 30


def test_asyncio_client_that_is_cancelled_cleans_up(server: Server) -> None:
    port = 0

    async def client(connection: Connection) -> None:
        nonlocal port
        assert connection.local is not None
        port = connection.local[1]
        await Recv()
        try:
            started.set()
            await Recv()
        except Cancelled:
            await Send(b"quit\r\n")
            await Recv()
            raise

    async def main() -> None:
        task = asyncio.create_task(asyncio_driver.run_client(client, "localhost", server.port))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = asyncio.Event()
    asyncio.run(main())
    assert server.outcome(port) == ["returned 0"]


def test_trio_client_that_is_cancelled_cleans_up(server: Server) -> None:
    port = 0

    async def client(connection: Connection) -> None:
        nonlocal port
        assert connection.local is not None
        port = connection.local[1]
        await Recv()
        try:
            scope.cancel()
            await Recv()
        except Cancelled:
            await Send(b"quit\r\n")
            await Recv()
            raise

    async def main() -> None:
        with scope:
            await trio_driver.run_client(client, "localhost", server.port)
        assert scope.cancelled_caught

    scope = trio.CancelScope()
    trio.run(main)
    assert server.outcome(port) == ["returned 0"]
