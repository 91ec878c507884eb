"""Our CVM codec and Debian's cvm: our client to cvm-pwfile as a command, on a local socket and by UDP; its clients to
our module in the same three forms."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from mailfront_proto.cvm import MAX_PACKET, Code, CVMRequest, CVMResponse, Fact, Verdict
from mailfront_proto.secret import Secret
from tests.peers.programs import program
from tests.ports import unused_port

pytestmark = pytest.mark.peer

SECONDS = 60
EIGHT = b"\x00\xff randm"


Ask = Callable[[CVMRequest], CVMResponse]


@contextmanager
def asking_a_command(directory: Path, environment: dict[str, str]) -> Iterator[Ask]:
    """cvm-pwfile as a program."""

    def ask(request: CVMRequest) -> CVMResponse:
        done = subprocess.run(
            [program("cvm-pwfile")], input=request.encode(), capture_output=True, env=environment, timeout=SECONDS
        )
        return CVMResponse.of_command(done.stdout, done.returncode, request)

    yield ask


@contextmanager
def asking_a_socket(directory: Path, environment: dict[str, str]) -> Iterator[Ask]:
    """cvm-pwfile on a local socket."""
    path = str(directory / "socket")

    def ask(request: CVMRequest) -> CVMResponse:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(SECONDS)
            s.connect(path)
            s.sendall(request.encode())
            s.shutdown(socket.SHUT_WR)
            packet = b""
            while len(packet) <= MAX_PACKET and (data := s.recv(MAX_PACKET + 1)):
                packet += data
        return CVMResponse.parse(packet, request)

    with daemon(f"cvm-local:{path}", environment):
        yield patient(ask)


@contextmanager
def asking_by_udp(directory: Path, environment: dict[str, str]) -> Iterator[Ask]:
    """cvm-pwfile on a UDP port."""
    port = unused_port()

    def ask(request: CVMRequest) -> CVMResponse:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(SECONDS)
            s.connect(("127.0.0.1", port))
            s.send(request.encode())
            return CVMResponse.parse(s.recv(MAX_PACKET + 1), request)

    with daemon(f"cvm-udp:127.0.0.1:{port}", environment):
        yield patient(ask)


def patient(ask: Ask) -> Ask:
    """`ask`, again and again while nobody listens yet."""

    def again(request: CVMRequest) -> CVMResponse:
        watch = threading.Event()
        for _ in range(SECONDS * 50):
            with suppress(ConnectionRefusedError, FileNotFoundError):
                return ask(request)
            watch.wait(0.02)
        raise AssertionError("cvm-pwfile does not listen")

    return again


@contextmanager
def daemon(form: str, environment: dict[str, str]) -> Iterator[None]:
    """cvm-pwfile in one of its server forms."""
    process = subprocess.Popen([program("cvm-pwfile"), form], env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(SECONDS)


ASKING = {"command": asking_a_command, "local": asking_a_socket, "udp": asking_by_udp}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("form", ASKING)
def test_our_client_and_cvm_pwfile(form: str, version: int, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("joe:secret:500:501:Joe User:/home/joe:/bin/sh\nroot:secret:0:0::/root:/bin/sh\n")
    chance = EIGHT if version == 2 else b""

    with ASKING[form](tmp_path, {"CVM_PWFILE_PATH": str(passwords)}) as ask:

        def login(account: bytes, password: bytes) -> CVMResponse:
            return ask(CVMRequest(account, b"", Secret(password), random_bytes=chance, version=version))

        joe = login(b"joe", b"secret")
        assert joe.verdict is Verdict.ACCEPTED
        assert joe.text(Fact.USERNAME) == "joe" and joe.text(Fact.REAL_NAME) == "Joe User"
        assert (joe.number(Fact.USER_ID), joe.number(Fact.GROUP_ID)) == (500, 501)
        assert (joe.text(Fact.DIRECTORY), joe.text(Fact.SHELL)) == ("/home/joe", "/bin/sh")
        assert login(b"joe", b"wrong").verdict is login(b"ann", b"secret").verdict is Verdict.REFUSED
        assert login(b"root", b"secret").verdict is Verdict.REFUSED


def test_cvm_pwfile_wants_a_password(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("joe:secret:500:501:Joe User:/home/joe:/bin/sh\n")
    environment = {"CVM_PWFILE_PATH": str(tmp_path / "passwords")}
    with asking_a_command(tmp_path, environment) as ask:
        response = ask(CVMRequest(b"joe", b""))
        assert response.code == Code.NO_CREDENTIAL and response.verdict is Verdict.UNAVAILABLE
        assert ask(CVMRequest(b"joe", b"", Secret(b""))).verdict is not Verdict.ACCEPTED


# -- their clients, our module ---------------------------------------------------------------------------

MODULE = """\
import sys
from mailfront_proto.cvm import MAX_PACKET, Code, CVMRequest, CVMResponse, Fact
from tests.peers.test_cvm import answer
packet = answer(sys.stdin.buffer.read(MAX_PACKET + 1))
sys.stdout.buffer.write(packet)
sys.stdout.buffer.flush()
sys.exit(packet[0])
"""


def answer(packet: bytes) -> bytes:
    """Our module: it knows joe at example.org."""
    request = CVMRequest.parse(packet)
    if request is None:
        return CVMResponse(Code.BAD_CLIENT_DATA).encode(None)
    if (request.account, request.domain) != (b"joe", b"example.org"):
        return CVMResponse(Code.REFUSED, ((Fact.OUT_OF_SCOPE, b"1"),)).encode(request)
    if request.password != Secret(b"secret"):
        return CVMResponse(Code.REFUSED).encode(request)
    facts = (
        (Fact.USERNAME, b"joe"), (Fact.USER_ID, b"500"), (Fact.GROUP_ID, b"501"), (Fact.DIRECTORY, b"/home/joe"),
        (Fact.SHELL, b"/bin/sh"), (Fact.REAL_NAME, b"Joe User"), (Fact.DOMAIN, b"example.org"),
        (Fact.MAILBOX, b"./Maildir"),
    )  # fmt: skip
    # No supplementary group: cvm-testclient shows the same ones for ever.
    return CVMResponse(Code.SUCCESS, facts).encode(request)


@contextmanager
def module(form: str, directory: Path) -> Iterator[str]:
    """Our module in one of the three forms; what their clients call it."""
    if form == "command":
        path = directory / "module"
        path.write_text(f"#!{sys.executable}\nimport sys\nsys.path[:0] = {sys.path!r}\n{MODULE}")
        path.chmod(0o755)
        yield str(path)
        return
    local = form == "local"
    with ExitStack() as stack:
        family, kind = (socket.AF_UNIX, socket.SOCK_STREAM) if local else (socket.AF_INET, socket.SOCK_DGRAM)
        s = stack.enter_context(socket.socket(family, kind))
        s.settimeout(0.05)
        s.bind(str(directory / "module") if local else ("127.0.0.1", 0))
        if local:
            s.listen()
        stop = threading.Event()
        server = threading.Thread(target=serve_local if local else serve_udp, args=(s, stop))
        server.start()
        stack.callback(server.join)
        stack.callback(stop.set)
        yield f"cvm-local:{directory / 'module'}" if local else f"cvm-udp:127.0.0.1:{s.getsockname()[1]}"


def serve_local(s: socket.socket, stop: threading.Event) -> None:
    while not stop.is_set():
        with suppress(TimeoutError):
            connection, _ = s.accept()
            with connection:
                connection.settimeout(SECONDS)
                packet = b""
                while len(packet) <= MAX_PACKET and (data := connection.recv(MAX_PACKET + 1)):
                    packet += data
                connection.sendall(answer(packet))


def serve_udp(s: socket.socket, stop: threading.Event) -> None:
    while not stop.is_set():
        with suppress(TimeoutError):
            packet, peer = s.recvfrom(MAX_PACKET + 1)
            s.sendto(answer(packet), peer)


@pytest.mark.parametrize("form", ["command", "local", "udp"])
@pytest.mark.parametrize("client", ["cvm-testclient", "cvm-v1testclient"])
def test_their_clients_and_our_module(client: str, form: str, tmp_path: Path) -> None:
    path = program(client)
    with module(form, tmp_path) as name:

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([path, name, *arguments], capture_output=True, text=True, timeout=SECONDS, env={})

        good = run("joe", "example.org", "secret")
        assert good.returncode == 0, good.stdout + good.stderr
        for shown in ("joe", "500", "501", "/home/joe", "/bin/sh", "Joe User", "example.org"):
            assert shown in good.stdout
        assert run("joe", "example.org", "wrong").returncode == 100
        assert run("ann", "example.org", "secret").returncode == 100
        assert run("joe", "", "secret").returncode == 100
