"""``mailfront serve`` as a program of its own, and clients that talk to it line by line."""

import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

SECONDS = 60.0
PROGRAM = str(Path(sys.executable).with_name("mailfront"))


class Served:
    """The running program; for ``with``, which kills it if it still runs. `addresses`: of its listeners."""

    def __init__(self, directory: Path, words: Iterable[str], env: Mapping[str, str] | None = None) -> None:
        self.port_file = directory / "ports"
        self.port_file.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--port-file", str(self.port_file), *words],
            cwd=directory,
            env={"PATH": os.environ["PATH"], "TCPLOCALHOST": "mx.example.org", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        assert self.process.stderr is not None
        end = time.monotonic() + SECONDS
        while not self.port_file.exists():
            assert time.monotonic() < end and self.process.poll() is None, self.finish()
            select.select([], [], [], 0.01)
        lines = self.port_file.read_text().splitlines()
        self.addresses = [(h.strip("[]"), int(p)) for h, _, p in (line.rpartition(":") for line in lines)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end; the exit code, and what was printed."""
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out.decode(), err.decode()

    def client(self, number: int = 0) -> "Client":
        """A client of a listener, connected."""
        return Client(self.addresses[number])

    def is_deaf(self) -> bool:
        """Wait until nobody listens any more."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            try:
                socket.create_connection(self.addresses[0]).close()
            except ConnectionRefusedError:
                return True
            except ConnectionResetError:  # it was in the queue of the listener that closed just now
                continue
            select.select([], [], [], 0.01)
        return False


class Client:
    """A client that reads whole replies."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket: socket.socket = socket.create_connection(address, SECONDS)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.socket.close()

    def reply(self) -> str:
        """The last line of the next reply; empty at the end."""
        line = self._file.readline()
        while line[3:4] == b"-":
            line = self._file.readline()
        return line.decode().rstrip("\r\n")

    def say(self, *lines: str) -> list[str]:
        """Send each line and return the reply to it."""
        replies = []
        for line in lines:
            self.socket.sendall(line.encode() + b"\r\n")
            replies.append(self.reply())
        return replies

    def read(self, size: int) -> bytes:
        """So many bytes."""
        data: bytes = self._file.read(size)
        return data

    def start_tls(self) -> None:
        """Shake hands; the certificate is not looked at."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._file.close()
        self.socket = context.wrap_socket(self.socket)
        self._file = self.socket.makefile("rb")
