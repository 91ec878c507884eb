"""The clamd and spamd codecs against the daemons themselves, on loopback, with rules and signatures of our own."""

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailfront_proto import clamd, spamd
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.pull import NEED_DATA, PAUSED
from tests.peers.programs import program

pytestmark = pytest.mark.peer

SECONDS = 20
MARK = b"MAILFRONT-TEST-MARK"
MESSAGE = b"Subject: hello\n\nOne line.\n.dot\n"
STREAM_MAX = 100_000

Client = clamd.ClamdClient | spamd.SpamdClient


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def started(command: list[str], port: int, log: Path) -> Iterator[int]:
    """Run a daemon until the tests of this file are done; the port, once it listens there."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent) as process:
        try:
            deadline = time.monotonic() + SECONDS
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=SECONDS).close()
                    break
                except ConnectionRefusedError:
                    assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                    time.sleep(0.05)
            yield port
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory that every user can read: both daemons give up being root first."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def clamd_port(home: Path) -> Iterator[int]:
    path = program("clamd")
    (home / "test.ndb").write_text(f"Mailfront.Test-1:0:*:{MARK.hex()}\n")
    port = free_port()
    (home / "clamd.conf").write_text(
        f"TCPSocket {port}\nTCPAddr 127.0.0.1\nDatabaseDirectory {home}\nForeground yes\nStreamMaxLength {STREAM_MAX}\n"
    )
    yield from started([path, "-c", str(home / "clamd.conf")], port, home / "clamd.log")


@pytest.fixture(scope="module")
def spamd_port(home: Path) -> Iterator[int]:
    path = program("spamd")
    (home / "init.pre").write_text("loadplugin Mail::SpamAssassin::Plugin::Check\n")
    (home / "test.cf").write_text(
        f"body TEST_MARK /{MARK.decode()}/\nscore TEST_MARK 12.5\nrequired_score 5\nreport_safe 0\n"
        "clear_headers\nadd_header all Status _YESNO_, score=_SCORE_\n"
    )
    port = free_port()
    command = [
        path, "--local", "--listen", f"127.0.0.1:{port}", "--max-children", "1", "--nouser-config",
        "--username", "nobody", "--syslog", "stderr", "--configpath", str(home), "--siteconfigpath", str(home),
    ]  # fmt: skip
    yield from started(command, port, home / "spamd.log")


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
