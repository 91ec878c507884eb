"""The one-shot driver on pipes; on sockets it is in `test_drivers`."""

import os
import subprocess
import sys

import pytest

from mailfront_io.drivers import oneshot
from mailfront_io.ops import Connection, ConnectionLost, DeadlineExceeded, Recv, Send
from tests.io.sessions import PIECE


def test_one_shot_on_pipes_meets_the_deadline_of_a_write_that_would_block() -> None:
    sent = 0

    async def session(connection: Connection) -> int:
        nonlocal sent
        line = await Recv(connection.clock.monotonic() + 5)
        await Send(line + PIECE[:1000], connection.clock.monotonic() + 5)
        with pytest.raises(DeadlineExceeded):
            while True:
                await Send(PIECE, connection.clock.monotonic() + 0.2)
                sent += len(PIECE)
        assert await Recv(connection.clock.monotonic() + 5) == b""
        return 3

    input_fd, to_session = os.pipe()
    from_session, output_fd = os.pipe()
    os.write(to_session, b"x\n")
    os.close(to_session)
    assert oneshot.run_descriptors(session, input_fd, output_fd) == 3
    assert os.get_blocking(input_fd)
    assert os.get_blocking(output_fd)
    os.close(output_fd)
    with open(from_session, "rb") as file:
        output = file.read()
    os.close(input_fd)
    assert output.startswith(b"x\n" + PIECE[:1000] + PIECE[:100])
    assert 1002 + sent < len(output) <= 1 << 20


def test_one_shot_with_nobody_to_read() -> None:
    async def session(connection: Connection) -> int:
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                await Send(b"x")
        return 0

    from_session, output_fd = os.pipe()
    os.close(from_session)
    with open(os.devnull, "rb") as file:
        assert oneshot.run_descriptors(session, file.fileno(), output_fd) == 0
    os.close(output_fd)


def test_one_shot_imports_little() -> None:
    program = """
import sys
from mailfront_io.drivers.oneshot import run_descriptors
from mailfront_io.ops import Recv, Send
async def session(connection):
    await Send(await Recv())
    return 0
run_descriptors(session)
heavy = "asyncio trio anyio ssl socket selectors subprocess logging argparse email importlib.metadata threading".split()
heavy += ["mailfront_io." + name for name in ("peers", "children", "drivers.operations", "drivers.streams")]
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], input=b"hi\n", capture_output=True, env={**os.environ, "PYTHONPATH": "src"}
    )
    assert (done.stdout, done.stderr) == (b"hi\n[]\n", b"")
