"""The servers of the benchmark: how each is started, where it listens, whether it is there at all.

All of them accept every sender and recipient and throw the message away, all
log to /dev/null (C mailfront and ours write some lines for each message), and
all are pinned to one core.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks.loadgen import Address
from tests.benchmarks.targets import C_MAILFRONT, DRIVERS

ROOT = Path(__file__).resolve().parents[2]

# How long a server may take to listen. Python with everything imported takes a tenth of a second.
_START = 15.0

# More than S4 holds open; tcpserver's own default of 40 is less than the cases need.
_CONNECTIONS = "1000"

# In all but this the servers have an environment of their own, so that no
# setting of the caller's ($DATABYTES, $RELAYCLIENT …) weighs on one of them.
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")

# Postfix's test programs live where a user's PATH does not look.
_SBIN = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))


class NotThere(Exception):
    """A server is not installed; the text is one sentence that says so."""


class DidNotStart(Exception):
    """A server is installed but does not come up; the text says what it was told and what it said."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is told to listen: either at `port`, or anywhere and write it to `port_file`."""

    port: int
    port_file: Path
    certificate: Path | None


@dataclass(frozen=True, slots=True)
class Kind:
    """A server that can be started, any number of times.

    `command` gives its argument list; `missing` a sentence if it is not
    installed, else None; `writes_port` says whether it fills the port file,
    `greets` whether it speaks first.
    """

    name: str
    command: Callable[[Place], list[str]]
    missing: Callable[[], str | None]
    writes_port: bool = False
    tls: bool = False
    ours: bool = False
    greets: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


def find_program(name: str) -> str | None:
    """The path of an installed program in C, or None.

    Scripts do not count: where our own package is installed for all users, or
    its environment is active, the first `mailfront` on the path is ours.
    """
    for directory in _SBIN.split(os.pathsep):
        path = shutil.which(name, path=directory)
        if path is None:
            continue
        with open(path, "rb") as program:
            if program.read(4) == b"\x7fELF":
                return path
    return None


def c_program(name: str) -> str:
    """The same for a program that is known to be there; else its bare name, for a message."""
    return find_program(name) or name


def _needs(peer: str, *programs: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        absent = [program for program in programs if find_program(program) is None]
        return f"{peer} is left out: {' and '.join(absent)} not installed (make peers)." if absent else None

    return missing


def tcpserver(place: Place) -> list[str]:
    """tcpserver with its options; the program it runs follows."""
    options = ["-D", "-H", "-R", "-l", "localhost", "-c", _CONNECTIONS, "-b", "1024"]
    return [c_program("tcpserver"), *options, "127.0.0.1", str(place.port)]


def _c_mailfront(place: Place) -> list[str]:
    return [*tcpserver(place), *one_shot_c()]


def one_shot_c() -> list[str]:
    """C mailfront on descriptors 0 and 1."""
    return [c_program("mailfront"), "smtp", "echo", "accept"]


def _smtp_sink(place: Place) -> list[str]:
    # -m is its bound on sessions at a time; the last argument is the backlog. It refuses to stay root.
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    return [c_program("smtp-sink"), *user, "-m", _CONNECTIONS, f"127.0.0.1:{place.port}", "1024"]


def _aiosmtpd(place: Place) -> list[str]:
    script = str(ROOT / "tests" / "benchmarks" / "aiosmtpd_server.py")
    certificate = [str(place.certificate)] if place.certificate else []
    return [sys.executable, script, str(place.port_file), *certificate]


def _aiosmtpd_missing() -> str | None:
    return None if find_spec("aiosmtpd") else "aiosmtpd is left out: it is not installed in this environment."


def _program() -> Path:
    return Path(sys.executable).with_name("mailfront")


def ours_missing() -> str | None:
    """A sentence if our own program is not there."""
    if not _program().exists():
        return f"mailfront is left out: there is no {_program()} (make venv)."
    try:
        found = find_spec("mailfront_io.cli")
    except ModuleNotFoundError:
        found = None
    return None if found else "mailfront is left out: it has no command yet (mailfront_io.cli)."


def _driver_missing(driver: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        if (why := ours_missing()) is not None:
            return why
        module = {"uvloop": "uvloop", "trio": "trio"}.get(driver)
        if module is not None and find_spec(module) is None:
            return f"The {driver} driver is left out: {module} is not installed in this environment."
        return None

    return missing


def _ours(driver: str) -> Callable[[Place], list[str]]:
    options = {
        "uvloop": ["--driver", "asyncio", "--loop", "uvloop"],
        "asyncio": ["--driver", "asyncio", "--loop", "asyncio"],
        "trio": ["--driver", "trio"],
        "blocking": ["--driver", "blocking"],
    }[driver]

    def command(place: Place) -> list[str]:
        listen = ["--listen", "127.0.0.1:0", "--port-file", str(place.port_file)]
        return [str(_program()), "serve", *options, *listen, "smtp", "echo", "accept"]

    return command


PEERS: tuple[Kind, ...] = (
    Kind(C_MAILFRONT, _c_mailfront, _needs(C_MAILFRONT, "tcpserver", "mailfront")),
    Kind("aiosmtpd", _aiosmtpd, _aiosmtpd_missing, writes_port=True, tls=True),
    Kind("smtp-sink", _smtp_sink, _needs("Postfix's smtp-sink", "smtp-sink")),
)

OURS: tuple[Kind, ...] = tuple(
    Kind(driver, _ours(driver), _driver_missing(driver), writes_port=True, tls=True, ours=True)
    for driver in DRIVERS
)


def serving(kind: Kind, line: list[str]) -> Callable[[Place], list[str]]:
    """The command of `kind`, one of ours, for another line than that of SMTP."""

    def command(at: Place) -> list[str]:
        return [*kind.command(at)[:-3], *line]

    return command


def listen_and_tell(port_file: Path) -> socket.socket:
    """A listening socket for a bare server; `port_file` says where, whole as soon as it is there."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    unfinished = port_file.with_suffix(".new")
    unfinished.write_text("{}:{}\n".format(*listening.getsockname()))
    unfinished.rename(port_file)
    return listening


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Run the block on that core; what is started inside stays there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """A started server; a context manager that stops it."""

    def __init__(self, kind: Kind, process: "subprocess.Popen[bytes]", address: Address) -> None:
        self.kind = kind
        self.process = process
        self.address = address

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and what it forked: SIGTERM, and SIGKILL for who is left after 5 s."""
        # It was started as the leader of a group of its own, so nothing else is in it.
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.pid, sent)
            except ProcessLookupError:
                break
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()


def start(kind: Kind, core: int, scratch: Path, certificate: Path | None = None) -> Server:
    """Start a server on `core` and wait until it accepts connections.

    Raises:
        NotThere: it is not installed.
        DidNotStart: it did not come up.
    """
    if (why := kind.missing()) is not None:
        raise NotThere(why)
    directory = Path(tempfile.mkdtemp(dir=scratch))
    place = Place(_free_port(), directory / "port", certificate)
    command = kind.command(place)
    process = _spawn(kind, command, core, place, subprocess.DEVNULL)
    until = time.monotonic() + _START
    while time.monotonic() < until and process.poll() is None:
        address = _listening(kind, place)
        if address is not None:
            return Server(kind, process, address)
        time.sleep(0.02)
    Server(kind, process, ("127.0.0.1", 0)).stop()
    said = _complaint(kind, command, core, place)
    raise DidNotStart(f"{kind.name} did not start: `{' '.join(command)}` {said}")


def _spawn(
    kind: Kind, command: list[str], core: int, place: Place, stderr: int
) -> "subprocess.Popen[bytes]":
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment.update(kind.environment)
    if place.certificate is not None:
        environment["TLS_CERTFILE"] = str(place.certificate)
    with pinned(core):
        return subprocess.Popen(
            command,
            env=environment,
            cwd=place.port_file.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )


def _complaint(kind: Kind, command: list[str], core: int, place: Place) -> str:
    """Start it once more, now listening to what it says: measured servers log to nowhere."""
    process = _spawn(kind, command, core, place, subprocess.PIPE)
    try:
        _, said = process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"does not listen within {_START:g} s."
    lines = said.decode(errors="replace").strip().splitlines()
    return f"ends with exit code {process.returncode}: {lines[-1] if lines else 'no message'}"


def _listening(kind: Kind, place: Place) -> Address | None:
    """The address, as soon as connections to it succeed."""
    address = ("127.0.0.1", place.port)
    if kind.writes_port:
        try:
            host, _, port = place.port_file.read_text().splitlines()[0].rpartition(":")
        except FileNotFoundError:
            return None
        address = (host, int(port))
    try:
        with socket.create_connection(address, timeout=5) as sock:
            # Wait for the greeting: closing before it would leave the server an
            # error to handle while the first run is measured.
            if kind.greets:
                sock.recv(512)
                sock.sendall(b"QUIT\r\n")
            else:
                sock.shutdown(socket.SHUT_WR)
            while sock.recv(512):
                pass
    except OSError:
        return None
    return address


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
