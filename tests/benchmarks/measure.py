"""One measurement: put a load on a started server and read what it has cost.

Every case is a `Load`. How often it runs is not fixed but found out: a first
run, which also warms the server up, tells what one connection costs, and the
measured runs are then as long as it takes to cost the server `seconds` of CPU.
A fast server so does more work than a slow one, and both are read with the
same precision.
"""

import contextlib
import math
import resource
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from tests.benchmarks import accounting, scripts
from tests.benchmarks.loadgen import SILENCE, Address, Outcome, Refused, Script, rehearse, run, split_replies
from tests.benchmarks.servers import Kind, NotThere, Server, c_program, start

# One run never makes more connections than this, however cheap they are: the
# machine has some 28,000 local ports, and they rest for a minute after use.
_MOST_CONNECTIONS = 8000


class Failed(Exception):
    """A run that cannot be counted, because not everything in it was as expected."""


class Load(Protocol):
    """Something that uses a server: `rehearse` once, then `run` any number of times."""

    # Units of the result (messages, megabytes) in one connection.
    units: float
    # Connections are made in multiples of this: so many are open at a time.
    at_once: int

    def rehearse(self, address: Address) -> None:
        """Try one connection with care; raises Failed."""

    def run(self, address: Address, connections: int) -> None:
        """Make that many connections; raises Failed if anything went wrong in any of them."""


class ScriptedLoad:
    """A script of ours over many connections."""

    def __init__(self, script: Script, at_once: int, units: float) -> None:
        self.script = script
        self.at_once = at_once
        self.units = units
        self._answers: list[bytes] = []

    def rehearse(self, address: Address) -> None:
        try:
            self._answers = rehearse(address, self.script)
        except (Refused, OSError) as error:
            raise Failed(str(error)) from error

    def run(self, address: Address, connections: int) -> None:
        check(run(address, self.script, connections, self.at_once, self._answers), self.script, connections)


def check(outcome: Outcome, script: Script, connections: int) -> None:
    """Raise Failed unless every connection ended well and every message was accepted."""
    if outcome.errors:
        raise Failed(f"{len(outcome.errors)} of {connections} connections failed, first: {outcome.errors[0]}")
    if outcome.connections != connections or outcome.messages != connections * script.messages:
        raise Failed(
            f"{outcome.connections} of {connections} connections ended well and {outcome.messages} of "
            f"{connections * script.messages} messages were accepted"
        )


class SmtpSourceLoad:
    """Postfix's smtp-source: somebody else's idea of a client. It ends with an error at the first bad reply.

    Its option -d keeps a connection for further messages, but how many each
    gets is its own affair; so in that mode a "connection" is one of
    `per_connection` messages on average.
    """

    def __init__(self, at_once: int, per_connection: int) -> None:
        self.at_once = at_once
        self.units = float(per_connection)
        self._per_connection = per_connection

    def rehearse(self, address: Address) -> None:
        self.run(address, 1)

    def run(self, address: Address, connections: int) -> None:
        command = [c_program("smtp-source"), "-s", str(min(self.at_once, connections))]
        command += ["-m", str(connections * self._per_connection), "-l", "1024", "-M", "client.example"]
        command += ["-f", scripts.SENDER.decode(), "-t", scripts.RECIPIENT.decode()]
        if self._per_connection > 1:
            command.append("-d")
        # It is started from the generator's core and stays there.
        done = subprocess.run([*command, "{}:{}".format(*address)], capture_output=True, timeout=600)
        if done.returncode:
            raise Failed(f"smtp-source: {done.stderr.decode(errors='replace').strip()}")


def _settled_cpu(server: Server, idle: set[int]) -> float:
    if not accounting.settle(server.pid, idle):
        raise Failed("processes of its connections were still there 5 s after the last one ended")
    return accounting.cpu_seconds(server.pid)


class Meter:
    """Measures one server under one load, again and again."""

    def __init__(self, server: Server, load: Load, seconds: float) -> None:
        """Rehearse, warm up, and find out how long a run has to be; raises Failed."""
        self._server = server
        self._load = load
        load.rehearse(server.address)
        # What is there now stays: a server may keep workers. What comes later has to go again.
        time.sleep(0.05)
        self._idle = accounting.tree(server.pid)
        self._connections = load.at_once
        cost = self._cost()
        if cost < 0.05:
            # Too short to be read (the clock of ended children ticks every 10 ms).
            self._connections *= 10
            cost = self._cost()
        wanted = self._connections * seconds / max(cost, 0.001)
        runs = math.ceil(wanted / load.at_once)
        self._connections = min(runs * load.at_once, max(_MOST_CONNECTIONS, load.at_once))

    def _cost(self) -> float:
        before = _settled_cpu(self._server, self._idle)
        self._load.run(self._server.address, self._connections)
        return _settled_cpu(self._server, self._idle) - before

    def measure(self) -> float:
        """CPU seconds of one unit; raises Failed."""
        return self._cost() / (self._connections * self._load.units)


def beside_each_other(
    kinds: Iterable[Kind], core: int, load: Callable[[], Load], seconds: float, rounds: int
) -> list[dict[str, float]]:
    """The CPU seconds of one unit by name, round after round, of all `kinds` at once on `core`; each under a `load` of
    its own. Exits with a sentence if one is not installed."""
    with tempfile.TemporaryDirectory(prefix="mailfront-bench-") as scratch, contextlib.ExitStack() as stack:
        meters: dict[str, Meter] = {}
        for kind in kinds:
            try:
                server = stack.enter_context(start(kind, core, Path(scratch)))
            except NotThere as missing:
                raise SystemExit(str(missing)) from missing
            meters[kind.name] = Meter(server, load(), seconds)
        return [{name: meter.measure() for name, meter in meters.items()} for _ in range(rounds)]


def idle_memory_kb(server: Server, connections: int, under_tls: bool) -> float:
    """PSS of one idle connection after EHLO, in kB: the mean over `connections`; raises Failed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < connections + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, connections + 100), hard))
    with contextlib.ExitStack() as stack:
        # A few first: what the server loads or allocates once is none of a connection's.
        warm = _open_idle(server.address, 5, under_tls, stack)
        before = accounting.memory_kb(server.pid)
        more = _open_idle(server.address, connections, under_tls, stack)
        time.sleep(0.2)
        after = accounting.memory_kb(server.pid)
        for sock in (*warm, *more):
            # All have to be still there, or it was not they who were measured.
            sock.setblocking(False)
            try:
                if not sock.recv(1):
                    raise Failed("the server closed an idle connection")
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            raise Failed("the server spoke on an idle connection")
    return (after - before) / connections


def _open_idle(
    address: Address, count: int, under_tls: bool, stack: contextlib.ExitStack
) -> Iterable[socket.socket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opened = []
    try:
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(address, timeout=SILENCE))
            _expect(sock, b"", b"220")
            _expect(sock, b"EHLO client.example\r\n", b"250")
            if under_tls:
                _expect(sock, b"STARTTLS\r\n", b"220")
                sock = stack.enter_context(context.wrap_socket(sock))
                _expect(sock, b"EHLO client.example\r\n", b"250")
            opened.append(sock)
    except OSError as error:
        raise Failed(f"connection {len(opened) + 1} of {count}: {error}") from error
    return opened


def _expect(sock: socket.socket, send: bytes, code: bytes) -> None:
    sock.sendall(send)
    data = b""
    while not split_replies(data)[0]:
        piece = sock.recv(4096)
        if not piece:
            raise Failed(f"the connection ended after {send!r}")
        data += piece
    if data[:3] != code:
        raise Failed(f"{send!r} was answered {data!r}")


def certificate(directory: Path) -> Path:
    """A self-signed certificate and its key in one PEM file; raises Failed if openssl is missing."""
    path = directory / "server.pem"
    key = directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError as error:
        raise Failed("openssl is not installed (make peers)") from error
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path
