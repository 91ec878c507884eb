"""Sessions made of operations alone, for the tests of drivers. `note` takes a line for the test to read."""

import json
import ssl
import time
import zlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from mailfront_io.children import HandOff
from mailfront_io.ops import (
    Cancelled,
    Connection,
    ConnectionLost,
    DeadlineExceeded,
    Recv,
    RecvLine,
    Send,
    Sleep,
    StartTLS,
    Stopping,
    Thread,
    TLSFailed,
)
from mailfront_io.peers import Connect, Relay

Note = Callable[[str], None]

PIECE = bytes(range(256)) * 256  # 64 KiB
PATIENCE = 60.0


class Foreign:
    """Something that is no operation."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield self

    def __repr__(self) -> str:
        return "<Foreign>"


class Commands:
    """Does what the lines that it receives say."""

    def __init__(self, connection: Connection, note: Note, certificate: Path | None) -> None:
        self._clock = connection.clock
        self._note = note
        self._certificate = certificate
        self._buffer = b""
        self._recv = Recv

    async def run(self) -> int:
        """The session."""
        try:
            await self._send(b"220 hi\r\n")
            while True:
                line = await self._line(idle=True)
                if not line:
                    self._note("eof")
                    return 4
                if line == b"quit\r\n":
                    await self._send(b"221 bye\r\n")
                    return 0
                name, *arguments = line.decode("latin-1").split() or [""]
                await getattr(self, f"do_{name}", self.do_nothing)(*arguments)
        except Stopping:
            await self._send(b"421 stopping\r\n")
            return 2
        except ConnectionLost:
            self._note("lost")
            return 3
        except TLSFailed:
            self._note("tls failed")
            return 5
        except DeadlineExceeded:
            self._note("late")
            return 6

    async def do_nothing(self, *words: str) -> None:
        """For lines that make no sense."""

    async def do_echo(self, *words: str) -> None:
        await self._send(" ".join(words).encode() + b"\r\n")

    async def do_late(self) -> None:
        """A Recv that nothing comes for, and one whose deadline has passed."""
        for seconds in (0.1, -1.0):
            try:
                self._buffer += await Recv(self._in(seconds))
            except DeadlineExceeded:
                await self._send(b"late\r\n")

    async def do_sleep(self) -> None:
        began = self._clock.monotonic()
        await Sleep(0.05)
        slept = self._clock.monotonic() - began
        await self._send(b"slept\r\n" if 0.045 <= slept < 30 else b"slept %f\r\n" % slept)

    async def do_nap(self, seconds: str) -> None:
        await self._send(b"napping\r\n")
        await Sleep(float(seconds))
        await self._send(b"awake\r\n")

    async def do_thread(self) -> None:
        await self._send(b"%d\r\n" % await Thread(divmod(17, 5).index, 2))
        try:
            await Thread(int, "x")
        except ValueError:
            await self._send(b"ValueError\r\n")
        try:
            await Thread(self._pause, 0.3, deadline=self._in(0.1))
        except DeadlineExceeded:
            await self._send(b"late\r\n")
        await self._send(b"%d\r\n" % await Thread(self._pause, 0.2, deadline=self._in(0.1), commit=True))

    async def do_wrong(self) -> None:
        try:
            await Foreign()
        except TypeError as error:
            await self._send(b"TypeError\r\n" if "<Foreign>" in str(error) else b"?\r\n")

    async def do_crash(self) -> None:
        raise LookupError("on purpose")

    async def do_give(self, pieces: str) -> None:
        """Much output."""
        for _ in range(int(pieces)):
            await self._send(PIECE)

    async def do_take(self, size: str) -> None:
        """Much input."""
        await self._send(b"go\r\n")
        left, checksum = int(size), 0
        while left > 0:
            data = self._buffer or await Recv(self._in(PATIENCE))
            assert data
            assert type(data) is bytes
            data, self._buffer = data[:left], data[left:]
            checksum = zlib.crc32(data, checksum)
            left -= len(data)
        await self._send(b"%d\r\n" % checksum)

    async def do_flood(self, seconds: str) -> None:
        """Output for a peer that does not read."""
        deadline = self._in(float(seconds))
        pieces = 0
        try:
            while True:
                await Send(PIECE, deadline)
                pieces += 1
        except DeadlineExceeded:
            self._note("bounded" if pieces < 512 else f"{pieces} pieces went out")
            raise

    async def do_ask(self, seconds: str, pieces: str) -> None:
        """Output and the answer to it, in one operation."""
        recv = Recv(self._in(float(seconds)), output=PIECE * int(pieces) + b"who?\r\n")
        try:
            self._buffer += await recv
        except DeadlineExceeded:
            self._note("peer does not read" if recv.output else "peer says nothing")
        else:
            assert not recv.output

    async def do_hold(self) -> None:
        """As a session in the middle of a transaction."""
        await self._send(b"354 go on\r\n")
        try:
            await self._line(idle=False)
        except Cancelled:
            await self._send(b"421 cancelled\r\n")  # clean-up
            raise
        await self._send(b"250 held\r\n")

    async def do_commit(self) -> None:
        await self._send(b"committing\r\n")
        try:
            await Thread(self._pause, 2, commit=True)
            self._note("committed")
            await self._send(b"never\r\n")
        except Cancelled:
            self._note("cancelled")
            raise

    async def do_deaf(self) -> None:
        """Swallows what is thrown."""
        await self._send(b"deaf\r\n")
        while True:
            try:
                await Sleep(0.05)
            except (Cancelled, DeadlineExceeded) as error:
                self._note(type(error).__name__)

    async def do_dawdle(self) -> None:
        """Wants much time for its clean-up."""
        await self._send(b"dawdling\r\n")
        try:
            await Sleep(PATIENCE)
        finally:
            try:
                await Sleep(PATIENCE)
            except DeadlineExceeded:
                self._note("no time for clean-up")

    async def do_abandon(self) -> None:
        await self._send(b"waiting\r\n")
        await Thread(self._pause, 2)

    async def do_op(self, name: str, helpers: str, *words: str) -> None:
        """One of `tests.io.op_sessions`."""
        from tests.io.op_sessions import Case

        self._case = Case(self._clock, json.loads(helpers), self._note)
        result = await getattr(self._case, name)(*words)
        await self._send(json.dumps(result).encode() + b"\r\n")

    async def do_count(self) -> None:
        from tests.io.op_sessions import descriptors

        await self._send(json.dumps(descriptors()).encode() + b"\r\n")

    async def do_lines(self) -> None:
        """Read no further than a line from now on."""
        self._recv = RecvLine

    async def do_relay(self, host: str, port: str, idle: str = "9") -> None:
        """Be spliced with somebody."""
        peer = await Connect([(host, int(port))], self._in(PATIENCE))
        first, self._buffer = self._buffer, b""
        try:
            relayed = await Relay(peer, first, idle=float(idle))
            self._note(f"relayed {relayed.sent} {relayed.received}")
        except DeadlineExceeded:
            self._note("idle")
            raise

    async def do_handoff(self, *script: str) -> None:
        from mailfront_io.drivers import operations

        operations.LAST_SECONDS = 0.3
        first, self._buffer = self._buffer, b""
        environment = {"PATH": "/usr/bin:/bin", "MARK": "mailfront-test"}
        self._note("handing off")
        code = await HandOff(["sh", "-c", " ".join(script)], environment, first=first, idle=9.0, directory="/")
        self._note(f"program returned {code}")

    async def do_starttls(self) -> None:
        await self._send(b"220 go\r\n")
        self._buffer = b""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        assert self._certificate is not None
        context.load_cert_chain(self._certificate)
        facts = await StartTLS(context, True, deadline=self._in(0.3))
        self._note(f"{facts.protocol} {facts.sni} {facts.secret_bits}")

    async def _line(self, idle: bool) -> bytes:
        while b"\n" not in self._buffer:
            data = await self._recv(self._in(PATIENCE), idle=idle)
            if not data:
                return b""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"

    async def _send(self, data: bytes) -> None:
        await Send(data, self._in(PATIENCE))

    def _in(self, seconds: float) -> float:
        return self._clock.monotonic() + seconds

    def _pause(self, seconds: float) -> int:
        advance = getattr(self._clock, "advance", time.sleep)
        advance(seconds)
        return 7


def recorded(connection: Connection, note: Note, certificate: Path | None = None) -> Any:
    """A `Commands` session that notes how it ended, each line behind its peer's port."""
    port = connection.remote[1] if connection.remote is not None else 0

    def note_port(line: str) -> None:
        note(f"{port} {line}")

    async def session() -> int:
        try:
            result = await Commands(connection, note_port, certificate).run()
        except BaseException as error:
            note_port(f"raised {type(error).__name__}")
            raise
        note_port(f"returned {result}")
        return result

    return session()
