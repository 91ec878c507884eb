"""STARTTLS by a UCSPI-TLS parent, as a recorded session: under the one-shot driver, which alone has a parent. Every
other driver refuses the plugin before it listens."""

import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from mailfront_io.drivers.oneshot import run_descriptors
from tests.conformance.driver import SECONDS, OneShotSocket
from tests.conformance.peer import Peer, SocketChannel
from tests.conformance.session_file import Session, parse
from tests.conformance.stage import Stage
from tests.peers.ucspi_tls_parent import relay
from tests.serving import MAILFRONT, environment

SESSIONS = list(parse(Path(__file__).with_name("behind_a_parent.txt").read_text("latin-1")))


class BehindAParent(OneShotSocket):
    """A program on one socket; the program that started it does TLS, in a thread here."""

    def play(self, stage: Stage, session: Session) -> bytes:
        ours, theirs = socket.socketpair()
        control, child_control = os.pipe()
        child_input, to_child = os.pipe()
        from_child, child_output = os.pipe()
        numbers = {"SSLCTLFD": child_control, "SSLREADFD": child_input, "SSLWRITEFD": child_output}
        told = {"UCSPITLS": "", **{name: str(fd) for name, fd in numbers.items()}}
        stage = replace(stage, environment={**stage.environment, **told})
        outputs: list[bytes] = []
        client = threading.Thread(target=lambda: outputs.append(Peer(SocketChannel(ours)).play(session)))
        parent = threading.Thread(target=self._do_tls, args=(theirs, control, to_child, from_child))
        client.start()
        parent.start()
        try:
            run_descriptors(lambda c: stage.session(c, self.done), theirs.fileno(), theirs.fileno())
        finally:
            for fd in numbers.values():
                os.close(fd)
            parent.join()
            client.join()
            for fd in (control, to_child, from_child):
                os.close(fd)
        return outputs[0]

    def _do_tls(self, connection: socket.socket, control: int, to_child: int, from_child: int) -> None:
        with connection:
            if os.read(control, 1) != b"y":
                return
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            connection.settimeout(SECONDS)
            with context.wrap_socket(connection, server_side=True) as inside:
                relay(inside, to_child, from_child)
                with suppress(OSError):  # the client has closed in its turn
                    inside.unwrap()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Iterator[BehindAParent]:
    found = BehindAParent(tmp_path_factory.mktemp("parent"), certificate)
    found.start()
    yield found
    found.close()


@pytest.mark.parametrize("session", [pytest.param(session, id=session.test_id) for session in SESSIONS])
def test_session(driver: BehindAParent, session: Session) -> None:
    assert driver.run(session) == session.outcome


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio", "blocking", "fork"])
@pytest.mark.parametrize("profile", ["default", "compat"])
def test_every_other_driver_refuses_it_at_load(tmp_path: Path, name: str, profile: str) -> None:
    options = ["--driver", name] if name != "uvloop" else ["--driver", "asyncio", "--loop", "uvloop"]
    run = subprocess.run(
        [MAILFRONT, "serve", *options, "--listen", "127.0.0.1:0", "smtp", "echo", "starttls-ucspi", "accept"],
        capture_output=True,
        env=environment(MAILFRONT_PROFILE=profile, UCSPITLS=""),
        cwd=tmp_path,
        timeout=SECONDS,
    )
    sentence = b"starttls-ucspi works only in programs that tcpserver and its like start for each connection: take it"
    assert run.returncode == 78
    assert sentence in run.stderr and len(run.stderr.splitlines()) == 1
