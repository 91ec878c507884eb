"""The clamd and spamd codecs, and the plugins, against the daemons themselves, on loopback, with our own rules and
signatures."""

import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from mailfront_proto import clamd, spamd
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.pull import NEED_DATA, PAUSED
from tests.golden.recorded import PATH
from tests.peers.one_shot import OneShot
from tests.peers.programs import program
from tests.ports import unused_port

pytestmark = pytest.mark.peer

SECONDS = 60
MARK = b"MAILFRONT-TEST-MARK"
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
MESSAGE = b"Subject: hello\n\nOne line.\n.dot\n"
STREAM_MAX = 40_000

Client = clamd.ClamdClient | spamd.SpamdClient


def started(prepare: Callable[[int], list[str]], log: Path) -> Iterator[int]:
    """Run the daemon whose command `prepare` returns for a port, until the tests of this file are done; the port, once
    it listens there."""
    port = unused_port()
    command = prepare(port)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)
    try:
        if not listens(process, port):
            pytest.fail(log.read_text())
        yield port
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listens(process: "subprocess.Popen[bytes]", port: int) -> bool:
    """Wait until `process` listens, or has ended, or its time is over."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=SECONDS).close()
            return process.poll() is None
        except ConnectionRefusedError:
            time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory that every user can read: both daemons give up being root first."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def clamd_port(home: Path) -> Iterator[int]:
    path = program("clamd")
    signatures = {"Mailfront.Test-1": MARK, "Eicar-Local-1": EICAR}
    (home / "test.ndb").write_text("".join(f"{name}:0:*:{data.hex()}\n" for name, data in signatures.items()))

    def prepare(port: int) -> list[str]:
        (home / "clamd.conf").write_text(
            f"TCPSocket {port}\nTCPAddr 127.0.0.1\nTCPAddr ::1\nLocalSocket {home}/clamd.sock\n"
            f"DatabaseDirectory {home}\nForeground yes\nStreamMaxLength {STREAM_MAX}\n"
        )
        return [path, "-c", str(home / "clamd.conf")]

    yield from started(prepare, home / "clamd.log")


@pytest.fixture(scope="module")
def spamd_port(home: Path) -> Iterator[int]:
    path = program("spamd")
    (home / "init.pre").write_text("loadplugin Mail::SpamAssassin::Plugin::Check\n")
    (home / "test.cf").write_text(
        f"body TEST_MARK /{MARK.decode()}/\nscore TEST_MARK 12.5\nrequired_score 5\nreport_safe 0\n"
        f"body GTUBE /{re.escape(GTUBE.decode())}/\nscore GTUBE 1000\n"
        "clear_headers\nadd_header all Status _YESNO_, score=_SCORE_\n"
    )

    def prepare(port: int) -> list[str]:
        addresses = (f"127.0.0.1:{port}", f"[::1]:{port}", str(home / "spamd.sock"))
        return [
            path, "--local", *(word for address in addresses for word in ("--listen", address)),
            "--max-children", "1", "--nouser-config", "--username", "nobody", "--syslog", "stderr",
            "--configpath", str(home), "--siteconfigpath", str(home),
        ]  # fmt: skip

    yield from started(prepare, home / "spamd.log")


def pull(client: Client, port: int, cut: int = 65536) -> list[object]:
    """Events up to the end, or to where the client may go on; everything read in pieces of `cut` bytes."""
    events: list[object] = []
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        while True:
            event = client.next_event()
            if output := client.data_to_send():
                connection.sendall(output)
                if isinstance(client, spamd.SpamdClient) and client.request_complete:
                    connection.shutdown(socket.SHUT_WR)
            if event is NEED_DATA:
                data = connection.recv(cut)
                if data:
                    client.receive_data(data)
                else:
                    client.receive_eof()
            elif event is PAUSED:
                return events
            else:
                events.append(event)
                if isinstance(event, clamd.ConnectionClosed | spamd.ConnectionClosed):
                    return events


# -- clamd ---------------------------------------------------------------------------------------------------


def scan(port: int, *pieces: bytes, newline: bool = False, cut: int = 65536) -> clamd.Scanned:
    client = clamd.ClamdClient(newline=newline)
    client.scan()
    for piece in pieces:
        client.send_body(piece)
    client.end_of_body()
    scanned, closed = pull(client, port, cut)
    assert closed == clamd.ConnectionClosed("done") and isinstance(scanned, clamd.Scanned)
    return scanned


@pytest.mark.parametrize("newline", [False, True])
@pytest.mark.parametrize("cut", [1, 65536])
def test_clamd_scans(clamd_port: int, newline: bool, cut: int) -> None:
    clean = scan(clamd_port, MESSAGE, newline=newline, cut=cut)
    assert clean == clamd.Scanned(clamd.Verdict.CLEAN, "stream: OK")
    found = scan(clamd_port, MESSAGE, MARK[:5], MARK[5:], newline=newline, cut=cut)
    assert found.verdict is clamd.Verdict.FOUND
    assert found.signature.startswith("Mailfront.Test-1")
    assert scan(clamd_port).verdict is clamd.Verdict.CLEAN


def test_clamd_gives_up_where_a_stream_is_too_long(clamd_port: int) -> None:
    client = clamd.ClamdClient()
    client.scan()
    client.send_body(b"x" * (STREAM_MAX + 1))
    with socket.create_connection(("127.0.0.1", clamd_port), timeout=SECONDS) as connection:
        connection.sendall(client.data_to_send()[:100])  # it says so at the length of the chunk
        while (event := client.next_event()) is PAUSED:
            client.receive_data(connection.recv(1000))
    assert event == clamd.Scanned(clamd.Verdict.ERROR, "INSTREAM size limit exceeded. ERROR")


def test_clamd_in_a_session(clamd_port: int) -> None:
    client = clamd.ClamdClient(session=True)
    with socket.create_connection(("127.0.0.1", clamd_port), timeout=SECONDS) as connection:

        def answer() -> object:
            connection.sendall(client.data_to_send())
            while (event := client.next_event()) is NEED_DATA:
                client.receive_data(connection.recv(3))
            return event

        client.ping()
        assert answer() == clamd.Pong()
        for message, verdict in ((MESSAGE, clamd.Verdict.CLEAN), (MARK, clamd.Verdict.FOUND)) * 2:
            client.scan()
            client.send_body(message)
            client.end_of_body()
            scanned = answer()
            assert isinstance(scanned, clamd.Scanned) and scanned.verdict is verdict
        client.end_session()
        connection.sendall(client.data_to_send())
        assert connection.recv(10) == b""


# -- spamd ---------------------------------------------------------------------------------------------------


def ask(port: int, method: spamd.Method, message: bytes = b"", version: str = "1.5", user: str = "") -> list[object]:
    client = spamd.SpamdClient(version)
    if method == "PING":
        client.ping()
    else:
        client.request(method, len(message), user=user)
        client.send_body(message)
        client.end_of_body()
    events = pull(client, port)
    assert events[-2:] == [spamd.ResponseEnd(), spamd.ConnectionClosed("done")]
    return events[:-2]


def body(events: list[object]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, spamd.Body))


def test_spamd_is_there(spamd_port: int) -> None:
    assert ask(spamd_port, "PING") == [spamd.Response(0, "PONG")]


@pytest.mark.parametrize("version", ["1.2", "1.5"])
@pytest.mark.parametrize("user", ["", "nobody"])
def test_spamd_answers_every_method(spamd_port: int, version: str, user: str) -> None:
    for text, is_spam in ((b"", False), (MARK + b"\n", True)):
        for method in spamd.METHODS[:-1]:
            response, *slices = ask(spamd_port, method, MESSAGE + text, version, user)
            assert isinstance(response, spamd.Response) and (response.code, response.text) == (0, "EX_OK")
            if version != "1.2" or method not in ("HEADERS", "PROCESS"):  # there the message alone tells
                assert response.spam == spamd.Spam(is_spam, 12.5 if is_spam else 0.0, 5.0)
            told = body(slices)
            if method == "SYMBOLS":
                assert spamd.read_symbols(told) == (["TEST_MARK"] if is_spam else [])
            elif method == "PROCESS":
                assert told.endswith(b"\n\nOne line.\n.dot\n" + text)
                assert b"X-Spam-Status: " + (b"Yes, score=12.5" if is_spam else b"No, score=0.0") in told
            elif method == "HEADERS":
                assert b"X-Spam-Status: " in told and b"One line" not in told


def test_h65_spamd_judges_half_a_message_but_that_is_no_verdict(spamd_port: int) -> None:
    client = spamd.SpamdClient()
    client.request("CHECK", 500)
    client.send_body(MESSAGE)
    with socket.create_connection(("127.0.0.1", spamd_port), timeout=SECONDS) as connection:
        connection.sendall(client.data_to_send())
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(1000):
            client.receive_data(data)
    with pytest.raises(RemoteProtocolError, match="before it had the message"):
        client.next_event()


# -- the plugins ---------------------------------------------------------------------------------------------


def played(one_shot: OneShot, place: Path, plugin: str, env: Mapping[str, str], text: bytes) -> tuple[str, bytes, str]:
    """A message with `text` in it through `plugin`, as a program of its own: the answer, what is stored, the log."""
    for box in ("tmp", "new"):
        (place / box).mkdir(exist_ok=True)
    settings = {"PATH": PATH, "QUEUEDIR": str(place), "TCPLOCALHOST": "mx.example.org", **env}
    body = (MESSAGE + text).replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
    said = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" + body + b".\r\nQUIT\r\n"
    run = one_shot.run(["mailfront", "smtp", "queuedir", plugin, "accept"], settings, place, said)
    stored = b""
    for path in (place / "new").iterdir():
        stored = path.read_bytes().partition(b"\0\0")[2]
        path.unlink()
    return run.stdout.split(b"\r\n")[-3].decode(), stored, run.stderr.decode()


@pytest.mark.parametrize("profile", ["default", "compat"])
@pytest.mark.parametrize("where", ["ip", "ip6", "names", "unix"])
def test_clamav(
    one_shot: OneShot, tmp_path: Path, home: Path, clamd_port: int, profile: str, where: str
) -> None:
    env = {"MAILFRONT_PROFILE": profile} | {
        "ip": {"CLAMAV_HOST": "127.0.0.1", "CLAMAV_PORT": str(clamd_port)},
        "ip6": {"CLAMD_HOST": "::1", "CLAMD_PORT": str(clamd_port)},
        "names": {"CLAMAV_HOST": "127.0.0.77, localhost", "CLAMAV_PORT": str(clamd_port)},  # nobody is at the first
        "unix": {"CLAMAV_PATH": str(home / "clamd.sock")},
    }[where]
    reply, stored, _ = played(one_shot, tmp_path, "clamav", env, b"")
    assert (reply[:4], stored) == ("250 ", MESSAGE)
    reply, stored, _ = played(one_shot, tmp_path, "clamav", env, EICAR + b"\n")
    assert reply == "554 5.7.0 Virus scan failed: Eicar-Local-1.UNOFFICIAL FOUND"
    assert stored == b""


def test_clamav_with_a_message_that_is_too_long_for_clamd(one_shot: OneShot, tmp_path: Path, clamd_port: int) -> None:
    env = {"CLAMAV_HOST": "127.0.0.1", "CLAMAV_PORT": str(clamd_port)}
    line = b"x" * 60 + b"\n"
    fits, too_long = line * (STREAM_MAX // len(line) - 2), line * (STREAM_MAX // len(line) + 1)
    assert played(one_shot, tmp_path, "clamav", env, fits)[0][:4] == "250 "
    reply, stored, log = played(one_shot, tmp_path, "clamav", env, too_long)
    assert (reply, stored) == ("451 4.3.0 Could not virus scan message", b"")
    assert ": plugin clamav: 127.0.0.1 port " in log
    reply, stored, log = played(one_shot, tmp_path, "clamav,failure=pass", env, too_long)
    assert reply[:4] == "250 " and stored == MESSAGE + too_long


@pytest.mark.parametrize("profile", ["default", "compat"])
@pytest.mark.parametrize("where", ["ip", "ip6", "unix"])
def test_spamassassin(
    one_shot: OneShot, tmp_path: Path, home: Path, spamd_port: int, profile: str, where: str
) -> None:
    env = {"MAILFRONT_PROFILE": profile, "SPAMD_USER": "nobody"} | {
        "ip": {"SPAMD_HOST": "127.0.0.1", "SPAMD_PORT": str(spamd_port)},
        "ip6": {"SPAMD_HOST": "::1", "SPAMD_PORT": str(spamd_port)},
        "unix": {"SPAMD_PATH": str(home / "spamd.sock"), "SPAMD_HOST": "127.0.0.77"},
    }[where]
    reply, stored, _ = played(one_shot, tmp_path, "spamassassin", env, b"")
    assert reply[:4] == "250 "
    assert b"X-Spam-Status: No, score=0.0\n" in stored and stored.endswith(b"\n\nOne line.\n.dot\n")
    for text, score in ((GTUBE, b"1000.0"), (MARK, b"12.5")):
        reply, stored, _ = played(one_shot, tmp_path, "spamassassin", env, text + b"\n")
        assert reply[:4] == "250 "
        assert b"X-Spam-Status: Yes, score=" + score + b"\n" in stored and text in stored
        refused = played(one_shot, tmp_path, "spamassassin", env | {"SPAMD_REJECT": ""}, text + b"\n")
        assert refused[:2] == ("554 5.3.0 Spam detected, message refused", b"")


def test_both_one_after_the_other(one_shot: OneShot, tmp_path: Path, clamd_port: int, spamd_port: int) -> None:
    env = {"CLAMAV_HOST": "127.0.0.1", "CLAMAV_PORT": str(clamd_port)}
    env |= {"SPAMD_HOST": "127.0.0.1", "SPAMD_PORT": str(spamd_port)}
    reply, stored, _ = played(one_shot, tmp_path, "spamassassin:clamav", env, MARK[:5] + b"\n")
    assert reply[:4] == "250 " and b"X-Spam-Status: No" in stored
    reply, stored, _ = played(one_shot, tmp_path, "spamassassin:clamav", env, EICAR + b"\n")
    assert reply[:4] == "554 " and stored == b""
