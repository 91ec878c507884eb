"""Rows that no recorded session can show, for there is chance in them, time, or another process: over POP3, under every
driver."""

import base64
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mailfront_io.auth.sqlite import UserDatabase
from mailfront_proto.cvm import Code, CVMRequest, CVMResponse, Fact
from mailfront_proto.secret import Secret
from tests.conformance.served import Client, Served
from tests.serving import DRIVERS

EVERY_DRIVER = pytest.mark.parametrize("driver", DRIVERS)
OPEN = {"AUTH_REQUIRES_TLS": "0", "AUTH_FAILURE_DELAY": "0", "MAXAUTHFAIL": "50"}


@contextmanager
def pop3(place: Path, driver: str, **settings: str) -> Iterator[Served]:
    """A POP3 server on `place`, where joe has an empty maildir."""
    for part in ("cur", "new", "tmp"):
        (place / "boxes" / "joe" / part).mkdir(parents=True, exist_ok=True)
    env = {**OPEN, "MAILDIR_ROOT": str(place / "boxes"), **settings}
    with Served(place, ["--listen", "127.0.0.1:0", "--driver", driver, "pop3", "maildir"], env) as served:
        yield served


def log_in(served: Served, password: str) -> bool:
    """Whether joe may come in."""
    with served.client() as client:
        assert client.reply() == "+OK "
        said = client.say("USER joe", f"PASS {password}")[1]
        assert said in ("+OK ", "-ERR [AUTH] Authentication failed")
        return said == "+OK "


def resident(process: int) -> int:
    """Kilobytes that a process and its children have in memory."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) + sum(resident(int(child)) for child in children)


@EVERY_DRIVER
def test_h21_a_client_that_reads_slower_than_we_send_fills_no_memory(driver: str, tmp_path: Path) -> None:
    """A thousand messages are asked for at once. Without a bound all that could be made by now would wait."""
    (tmp_path / "users").write_text("joe:x\n")
    with pop3(tmp_path, driver, AUTH_STORE=f"static:{tmp_path}/users") as served:
        message = tmp_path / "boxes" / "joe" / "cur" / "1"
        message.write_bytes(b"x" * 63 + b"\n" + (b"y" * 63 + b"\n") * 16383)
        with served.client() as client:
            client.reply()
            assert client.say("USER joe", "PASS x", "RETR 1") == ["+OK "] * 3
            client.socket.sendall(b"RETR 1\r\n" * 1000)
            sizes = []
            for _ in range(40):
                client.read(1 << 20)
                sizes.append(resident(served.process.pid))
            assert max(sizes) - sizes[0] < 8 * 1024, sizes
            assert log_in(served, "x")  # others are served


@EVERY_DRIVER
def test_h46_no_verdict_is_kept(driver: str, tmp_path: Path) -> None:
    database = UserDatabase(str(tmp_path / "users.sqlite"))
    database.create()
    database.add("joe", Secret(b"one"))
    with pop3(tmp_path, driver, AUTH_STORE=f"sqlite:{database.path}") as served:
        assert [log_in(served, password) for password in ("one", "two", "one")] == [True, False, True]
        database.set_password("joe", Secret(b"two"))
        assert [log_in(served, password) for password in ("one", "two")] == [False, True]


def command_module(place: Path, *facts: tuple[Fact, bytes]) -> str:
    """A module that says yes with `facts` to everything, and writes down what it was asked; its path."""
    answer = CVMResponse(Code.SUCCESS, facts).encode(CVMRequest(b"joe"))
    program = place / "module"
    program.write_text(
        f"#!{sys.executable} -S\nimport sys\n"
        f"open({str(place / 'asked')!r}, 'ab').write(sys.stdin.buffer.read() + b'|')\n"
        f"sys.stdout.buffer.write({answer!r})\n"
    )
    program.chmod(0o755)
    return str(program)


@EVERY_DRIVER
def test_h49_a_password_that_no_packet_can_carry(driver: str, tmp_path: Path) -> None:
    module = command_module(tmp_path, (Fact.USERNAME, b"joe"), (Fact.USER_ID, b"1000"))
    with pop3(tmp_path, driver, AUTH_STORE=f"cvm:{module}") as served:
        assert [log_in(served, "x" * size) for size in (256, 300)] == [False, False]
        assert not (tmp_path / "asked").exists()
        assert log_in(served, "x" * 255)
    assert b"\3\xff" + b"x" * 255 + b"\0" in (tmp_path / "asked").read_bytes()


@EVERY_DRIVER
def test_h51_a_module_that_makes_everybody_the_superuser(driver: str, tmp_path: Path) -> None:
    module = command_module(tmp_path, (Fact.USERNAME, b"joe"), (Fact.USER_ID, b"0"))
    with pop3(tmp_path, driver, AUTH_STORE=f"cvm:{module}") as served:
        assert not log_in(served, "x")


@EVERY_DRIVER
def test_h50_forged_datagrams(driver: str, tmp_path: Path) -> None:
    """From the server's address with other random bytes, and with the right ones from another address: both say yes,
    and the answer is no."""
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as stranger:
        server.bind(("127.0.0.1", 0))
        asked = threading.Thread(target=answer_falsely, args=(server, stranger), daemon=True)
        asked.start()
        with pop3(tmp_path, driver, AUTH_STORE=f"cvm:cvm-udp:127.0.0.1:{server.getsockname()[1]}") as served:
            assert not log_in(served, "x")
            assert log_in(served, "right")
        server.sendto(b"", server.getsockname())
        asked.join()


def answer_falsely(server: socket.socket, stranger: socket.socket) -> None:
    yes = CVMResponse(Code.SUCCESS, ((Fact.USERNAME, b"joe"), (Fact.USER_ID, b"1000")))
    while packet := server.recvfrom(600):
        data, client = packet
        request = CVMRequest.parse(data)
        if request is None:
            return
        server.sendto(yes.encode(CVMRequest(b"joe", random_bytes=b"01234567")), client)
        with suppress(OSError):  # a connected socket turns it away
            stranger.sendto(yes.encode(request), client)
        right = request.password == Secret(b"right")
        server.sendto((yes if right else CVMResponse(Code.REFUSED)).encode(request), client)


def challenge(client: Client, line: str) -> bytes:
    """What the server answers to the beginning of an exchange, which is broken off then."""
    [said] = client.say(line)
    assert said.startswith("+ "), said
    client.say("*")
    return base64.b64decode(said[2:])


def first(name: str) -> str:
    return "AUTH SCRAM-SHA-256 " + base64.b64encode(f"n,,n={name},r=abcdefgh".encode()).decode()


@EVERY_DRIVER
def test_h44_h87_salts_stay_and_nonces_do_not(driver: str, tmp_path: Path) -> None:
    database = UserDatabase(str(tmp_path / "users.sqlite"))
    database.create()
    database.add("joe", Secret(b"one"))
    found: list[list[tuple[bytes, bytes]]] = []
    with pop3(tmp_path, driver, AUTH_STORE=f"sqlite:{database.path}") as served:
        for _ in range(2):
            with served.client() as client:
                client.reply()
                said = [challenge(client, first(name)) for name in ("joe", "nobody", "nobody", "ann")]
            matches = [re.fullmatch(rb"r=abcdefgh([^,]{24,}),s=([A-Za-z0-9+/=]+),i=15000", text) for text in said]
            found.append([(match[1], match[2]) for match in matches if match])
    joe, nobody, again, ann = ([salt for _, salt in session] for session in zip(*found, strict=True))
    assert joe[0] == joe[1] and nobody == again and nobody[0] == nobody[1] and ann[0] == ann[1]
    assert len({joe[0], nobody[0], ann[0]}) == 3 and len({len(joe[0]), len(nobody[0]), len(ann[0])}) == 1
    nonces = [nonce for session in found for nonce, _ in session]
    assert len(nonces) == len(set(nonces)) == 8


@EVERY_DRIVER
def test_h88_a_challenge_tells_nothing_of_the_process(driver: str, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("joe:x\n")
    settings = {"AUTH_STORE": f"static:{tmp_path}/users", "AUTH_MECHANISMS": "CRAM-MD5"}
    found = []
    with pop3(tmp_path, driver, **settings) as served:
        for _ in range(3):
            with served.client() as client:
                client.reply()
                found += [challenge(client, "AUTH CRAM-MD5"), challenge(client, "AUTH CRAM-MD5")]
    assert len(set(found)) == 6
    assert all(re.fullmatch(rb"<[0-9a-f]{32}@mx\.example\.org>", text) for text in found)
