"""Differences from the original that no other test shows: rows of the compat notes."""

import subprocess
import sys
from pathlib import Path

import pytest

from mailfront_io.plugin import ACCEPT, Backend, Plugin, Response
from mailfront_io.service import Service, service_from_line
from mailfront_io.session import Path as EnvelopePath
from mailfront_io.settings import ConfigurationError
from mailfront_io.spool import Spool
from mailfront_io.testing import EOF, Action, Advance, PeerTLS, WaitFor, run_script
from tests.certificates import client_context, write_pem


class TellsTLS(Plugin):
    """Says at the start whether TLS is in use."""

    name = "tells-tls"

    def connect(self) -> Response:
        return Response(554, f"tls_state={self.session.numbers.get('tls_state')}")


class FailsAtData(Backend):
    """Takes no data, and nobody who asks at the end would know."""

    name = "fails-at-data"

    def recipient(self, path: EnvelopePath) -> Response:
        return ACCEPT

    def data_block(self, data: bytes) -> Response:
        return Response(451, "4.3.0 No room")

    def message_end(self, spool: Spool | None) -> Response:
        return Response(250, "2.6.0 Taken all the same")


def service(line: str, environment: dict[str, str], log: list[str]) -> Service:
    return service_from_line(line.split(), {"TCPLOCALHOST": "mx.example.org", **environment}, log.append)


def test_a_certificate_that_cannot_be_loaded() -> None:
    log: list[str] = []
    compat = service("smtp echo accept", {"MAILFRONT_PROFILE": "compat", "TLS_CERTFILE": "/nowhere"}, log)
    played = run_script(compat.session, [b"EHLO x\r\nQUIT\r\n", EOF])
    assert b"STARTTLS" not in played.output
    assert log[0] == "TLS init failed: Error while reading file."
    with pytest.raises(ConfigurationError, match=r"\$TLS_CERTFILE: /nowhere does not exist"):
        service("smtp echo accept", {"TLS_CERTFILE": "/nowhere"}, log)


def test_numbers_that_are_none() -> None:
    log: list[str] = []
    compat = service("smtp echo counters accept", {"MAILFRONT_PROFILE": "compat", "DATABYTES": "5x"}, log)
    assert b"250-SIZE 0\r\n" in run_script(compat.session, [b"EHLO x\r\nQUIT\r\n", EOF]).output
    with pytest.raises(ConfigurationError, match=r"\$DATABYTES is '5x'"):
        service("smtp echo counters accept", {"DATABYTES": "5x"}, log)


@pytest.mark.parametrize(
    ("said", "seconds", "output", "exit_code"),
    [
        (b"", 1200, b"", 0),
        (b"1", 1200, b"", 0),
        (b"3:\nx", 1200, b"23:ZEOF while reading body,", 111),
        (b"3:\nx\n,1:a,", 1200, b"33:ZEOF while reading recipient list,", 111),
    ],
)
def test_a_time_out_in_a_package(said: bytes, seconds: int, output: bytes, exit_code: int) -> None:
    compat = service("qmtp echo accept", {"MAILFRONT_PROFILE": "compat"}, [])
    played = run_script(compat.session, [said, Advance(4000)] if said else [Advance(4000)])
    assert (played.output, played.elapsed, played.result) == (output, seconds, exit_code)
    drips = service("qmtp echo accept", {"MAILFRONT_PROFILE": "compat"}, [])
    drip: list[Action] = [Advance(900), b"x\n"]
    played = run_script(drips.session, [b"9999:\n", *drip * 9], all_read=False)
    assert (played.output, played.elapsed, played.result) == (b"", 3600, 0)  # an hour in all


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_an_error_of_a_backends_data_block_refuses_the_message(profile: str) -> None:
    made = service(f"smtp {__name__}:FailsAtData accept", {"MAILFRONT_PROFILE": profile}, [])
    said = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"
    output = run_script(made.session, [said, EOF]).output
    assert b"\r\n451 4.3.0 No room\r\n" in output
    assert b"Taken all the same" not in output


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_an_immediate_handshake_sets_tls_state(profile: str, tmp_path: Path) -> None:
    environment = {
        "MAILFRONT_PROFILE": profile,
        "TLS_CERTFILE": str(write_pem(tmp_path)),
        "TLS_IMMEDIATE": "",
    }
    made = service(f"smtp echo {__name__}:TellsTLS accept", environment, [])
    played = run_script(made.session, [PeerTLS(client_context(), "mx.example.org"), WaitFor(b"554 tls_state=1\r\n")])
    assert played.output.startswith(b"554 tls_state=1\r\n")


FORKING = """
import atexit, os, socket, sys
from mailfront_io.drivers.blocking import run_server
from mailfront_io.drivers.listener import Listener
from mailfront_io.service import service_from_line

atexit.register(lambda: os.write(1, b"exit handler\\n"))
service = service_from_line(["smtp", "echo", "accept"], {}, lambda line: None)
listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]

def talk(stop):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"QUIT\\r\\n")
        while client.recv(4096):
            pass
    stop()

import threading
run_server(
    [Listener(listener, service.session)],
    fork=True,
    on_started=lambda stop: threading.Thread(target=talk, args=(stop,)).start(),
)
"""


def test_exit_handlers_run_in_the_parent_alone() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, timeout=60, check=True)
    assert done.stdout == b"exit handler\n"
