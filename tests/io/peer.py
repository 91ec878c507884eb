"""The same scripts that `mailfront_io.testing` plays, against a real server over a real socket."""

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from mailfront_io.testing import CANCEL, EOF, READ, RESET, STALL, STOP, Action, Advance, PeerTLS, WaitFor

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
"""How long to wait for what must come: reached only when a test fails."""


class Server:
    """A process of `tests.io.server`."""

    def __init__(self, driver: str, certificate: Path, limit: int = 0) -> None:
        self.driver = driver
        self._certificate = certificate
        self._limit = limit
        self._rest = b""
        self._noted: list[str] = []
        self._notes, self._notes_to = os.pipe()
        self._process: subprocess.Popen[bytes] | None = None
        self._local: socket.socket | None = None

    def __enter__(self) -> "Server":
        if self.driver != "oneshot":
            self._start(subprocess.DEVNULL)
            self.port = int(self.note("port "))
        else:
            self._local = socket.create_server(("127.0.0.1", 0))
            self.port = self._local.getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(SECONDS)
        if self._local is not None:
            self._local.close()
        os.close(self._notes)
        os.close(self._notes_to)

    def connect(self) -> socket.socket:
        """A new connection to the server."""
        connection = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._local is not None:
            accepted, _ = self._local.accept()
            if self._process is not None:
                self._process.wait(SECONDS)
                self._noted.clear()
            with accepted:
                self._start(accepted.fileno())
        return connection

    def stop(self) -> None:
        """Send it a SIGTERM."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    @property
    def pid(self) -> int:
        """The process; of a one-shot program, the last."""
        assert self._process is not None
        return self._process.pid

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        assert self._process is not None
        return self._process.wait(SECONDS)

    def note(self, wanted: str = "") -> str:
        """The next note that begins with `wanted`; others are kept."""
        end = time.monotonic() + SECONDS
        while True:
            for index, line in enumerate(self._noted):
                if line.startswith(wanted):
                    return self._noted.pop(index)[len(wanted) :]
            if not select.select([self._notes], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError(f"the server has not noted {wanted!r}, only {self._noted}")
            *lines, self._rest = (self._rest + os.read(self._notes, 4096)).split(b"\n")
            self._noted += [line.decode() for line in lines]

    def pending(self, wanted: str) -> list[str]:
        """The notes that have been read so far and that begin with `wanted`."""
        return [line for line in self._noted if line.startswith(wanted)]

    def outcome(self, port: int) -> list[str]:
        """What the session of our `port` notes, its end included."""
        prefix = f"{port if self._local is None else 0} "
        notes = [self.note(prefix)]
        while not notes[-1].startswith(("returned", "raised")):
            notes.append(self.note(prefix))
        return notes

    def _start(self, stdio: int) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.io.server",
                self.driver,
                str(self._certificate),
                str(self._notes_to),
                str(self._limit),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            pass_fds=[self._notes_to],
            stdin=stdio,
            stdout=stdio,
        )


def play(
    connection: socket.socket,
    script: Sequence[Action],
    stop: Callable[[], object] | None = None,
    cancel: Callable[[], object] | None = None,
    seconds: float = SECONDS,
) -> bytes:
    """Do what `script` says, read to the end, close; returns all that came. `seconds`: for each step."""
    output = bytearray()
    waited_for = 0
    stalled = False
    stream = connection
    stream.settimeout(seconds)
    try:
        for action in script:
            if isinstance(action, bytes):
                stream.sendall(action)
            elif isinstance(action, WaitFor):
                while (found := output.find(action.text, waited_for)) < 0:
                    data = stream.recv(65536)
                    if not data:
                        raise AssertionError(f"the server ended before {action.text!r}: {bytes(output)!r}")
                    output += data
                waited_for = found + len(action.text)
            elif isinstance(action, Advance):
                time.sleep(action.seconds)
            elif isinstance(action, PeerTLS):
                # Without close_notify the end would be an error here.
                stream = action.context.wrap_socket(
                    stream, server_hostname=action.server_hostname, suppress_ragged_eofs=False
                )
            elif action is EOF:
                stream.shutdown(socket.SHUT_WR)
            elif action is RESET:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return bytes(output)
            elif action is STOP and stop is not None:
                stop()
            elif action is CANCEL and cancel is not None:
                cancel()
            else:
                stalled = action is STALL or (stalled and action is not READ)
        try:
            while not stalled and (data := stream.recv(65536)):
                output += data
        except ConnectionResetError:
            pass  # we were still talking when the server closed; what it said last has come
        return bytes(output)
    finally:
        stream.close()
