"""Our own server as a process of its own, on a free loopback port, for as long as a block lasts."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

MAILFRONT = Path(sys.executable).with_name("mailfront")
DRIVERS = ("asyncio", "trio", "blocking", "fork")
SECONDS = 90.0
"""For anything that a test waits for; all of it takes a fraction of a second."""


def environment(**settings: object) -> dict[str, str]:
    """What programs need to run, and `settings`; no setting of who runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, **{name: str(value) for name, value in settings.items()}}


@contextmanager
def serving(
    directory: Path, *words: str, settings: Mapping[str, object] | None = None, prefix: Sequence[str] = ()
) -> Iterator[list[tuple[str, int]]]:
    """``mailfront serve WORDS``; gives the addresses it listens on. It must stop by itself at SIGTERM, with 0.
    `prefix`: a program that starts it, with its arguments."""
    port_file = directory / "ports"
    port_file.unlink(missing_ok=True)
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*prefix, MAILFRONT, "serve", "--listen", "127.0.0.1:0", "--port-file", port_file, *words],
            env=environment(**(settings or {})),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    with process:
        try:
            yield _addresses(process, port_file)
            process.terminate()
            assert process.wait(SECONDS) == 0, (directory / "server.log").read_text()
        finally:
            process.kill()


def _addresses(process: "subprocess.Popen[bytes]", port_file: Path) -> list[tuple[str, int]]:
    end = time.monotonic() + SECONDS
    while not port_file.exists():
        assert process.poll() is None and time.monotonic() < end, port_file.with_name("server.log").read_text()
        time.sleep(0.01)  # the file comes by rename, and whole
    lines = (line.rpartition(":") for line in port_file.read_text().splitlines())
    return [(host, int(port)) for host, _, port in lines]


def queue_directory(directory: Path) -> Path:
    """A directory as the queuedir backend wants it."""
    queue = directory / "queue"
    for name in ("tmp", "new"):
        (queue / name).mkdir(parents=True)
    return queue


def queued(queue: Path) -> list[tuple[str, list[str], bytes]]:
    """What queuedir has written: (sender, recipients, message) of each, and away with it."""
    found = []
    for path in sorted((queue / "new").iterdir()):
        envelope, _, message = path.read_bytes().partition(b"\0\0")
        sender, *recipients = envelope.decode().split("\0")
        found.append((sender, recipients, message))
        path.unlink()
    return found
