"""Servers that start a program for each connection, as the original wants them: tcpserver and tcpsvd."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.peers.programs import program
from tests.ports import unused_port
from tests.serving import environment

UCSPI_SERVERS = ("tcpserver", "tcpsvd")


@contextmanager
def ucspi(
    server: str, directory: Path, words: Sequence[str | Path], settings: Mapping[str, object] | None = None
) -> Iterator[tuple[str, int]]:
    """`server` around the program `words`, on a free port of 127.0.0.1; gives its address. What programs write to
    descriptor 2 is in `directory`, in ``ucspi.log``."""
    with (directory / "ucspi.log").open("wb") as log:
        process, port = _start(server, directory, [str(word) for word in words], environment(**(settings or {})), log)
        with process:
            try:
                yield "127.0.0.1", port
            finally:
                process.kill()


def _start(
    server: str, directory: Path, words: list[str], env: dict[str, str], log: IO[bytes]
) -> tuple["subprocess.Popen[bytes]", int]:
    if server == "tcpserver":  # it takes any free port, and says which
        command = [program(server), "-1", "-H", "-R", "-l", "mx.example.org", "127.0.0.1", "0", *words]
        process = _popen(command, directory, env, log)
        return process, int(_first_line(process))
    port = unused_port()
    command = [program(server), "-v", "-l", "mx.example.org", "127.0.0.1", str(port), *words]
    process = _popen(command, directory, env, log)
    said = _first_line(process)
    assert b" listening on " in said, said
    return process, port


def _first_line(process: "subprocess.Popen[bytes]") -> bytes:
    """What it prints when it listens; nothing, if it ends before."""
    assert process.stdout is not None
    return process.stdout.readline()


def _popen(command: list[str], directory: Path, env: dict[str, str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
    )
