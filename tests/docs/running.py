"""Running programs as a reader of the documentation does: pasted, on loopback, with free ports."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

SECONDS = 90
"""After this a program is taken to hang."""

# Listens on a free port in place of the one that is written, and says which.
_LISTEN = """
import socket, sys
create_server = socket.create_server
def listening(address, **more):
    listener = create_server((address[0], 0), **more)
    print(listener.getsockname()[1], flush=True)
    return listener
socket.create_server = listening
exec(compile(open(sys.argv[1], encoding="utf-8").read(), sys.argv[1], "exec"))
"""


def environment() -> dict[str, str]:
    """Ours, with the programs of this Python first on the path and no settings of mailfront."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8", "PYTHONWARNINGS": "default"}


def run_python(code: str, directory: Path, *arguments: str) -> str:
    """Run `code` as a program of its own in `directory`; what it prints."""
    program = directory / "pasted.py"
    program.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Listening:
    """A pasted server that listens for one connection; for ``with``. `port`: where."""

    def __init__(self, code: str, directory: Path) -> None:
        program = directory / "server.py"
        program.write_text(code, encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LISTEN, str(program)],
            cwd=directory,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._timer = threading.Timer(SECONDS, self._process.kill)

    def __enter__(self) -> "Listening":
        assert self._process.stdout is not None
        self._timer.start()
        first = self._process.stdout.readline()
        if not first:
            raise AssertionError(self._process.communicate()[1])
        self.port = int(first)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def ended(self) -> str:
        """What it has printed, once it has ended by itself with success."""
        output, errors = self._process.communicate()
        assert self._process.returncode == 0, errors
        return output


def start(line: str, directory: Path) -> "tuple[subprocess.Popen[str], str]":
    """The server of a ``SETTINGS mailfront serve …`` line, listening on free ports, and the first of them."""
    settings, _, rest = line.partition("mailfront serve")
    rest = re.sub(r"--listen \S+", "", rest)
    command_line = f"mailfront serve --listen 127.0.0.1:0 --port-file ports {rest}"
    server = subprocess.Popen(
        f"exec env {settings}{command_line}",
        shell=True,
        cwd=directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ports = directory / "ports"
    for _ in range(SECONDS * 50):
        if ports.exists():
            return server, ports.read_text().splitlines()[0].rpartition(":")[2]
        try:
            server.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(server.communicate()[1])


def stop(server: "subprocess.Popen[str]") -> str:
    """End it as an administrator does; what it has printed."""
    server.send_signal(signal.SIGTERM)
    timer = threading.Timer(SECONDS, server.kill)
    timer.start()
    output, errors = server.communicate()
    timer.cancel()
    assert server.returncode == 0, errors
    return output
