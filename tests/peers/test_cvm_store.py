"""The CVM store and Debian's cvm-pwfile in all three forms, through the SMTP front end, under every driver."""

import base64
import smtplib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailfront_proto.cvm import MAX_PACKET, CVMRequest, CVMResponse
from mailfront_proto.secret import Secret
from tests.peers.programs import program
from tests.peers.test_cvm import daemon, patient
from tests.ports import unused_port
from tests.serving import DRIVERS, SECONDS, serving

pytestmark = pytest.mark.peer


def plain(user: str, password: str) -> str:
    return "PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode()


@contextmanager
def module(form: str, directory: Path, environment: dict[str, str]) -> Iterator[str]:
    """cvm-pwfile in one of its forms, listening; its name."""
    if form == "command":
        yield f"cvm-command:{program('cvm-pwfile')}"
        return
    family, kind = (socket.AF_UNIX, socket.SOCK_STREAM) if form == "local" else (socket.AF_INET, socket.SOCK_DGRAM)
    address = ("127.0.0.1", unused_port()) if form == "udp" else str(directory / "socket")

    def ask(request: CVMRequest) -> CVMResponse:
        with socket.socket(family, kind) as s:
            s.settimeout(SECONDS)
            s.connect(address)
            s.send(request.encode())
            if form == "local":
                s.shutdown(socket.SHUT_WR)
            return CVMResponse.parse(s.recv(MAX_PACKET + 1), request)

    name = f"cvm-local:{address}" if isinstance(address, str) else f"cvm-udp:{address[0]}:{address[1]}"
    with daemon(name, environment):
        patient(ask)(CVMRequest(b"joe", b"", Secret(b"x"), random_bytes=b"12345678"))
        yield name


@pytest.mark.parametrize("form", ["command", "local", "udp"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_logins_through_cvm_pwfile(driver: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("joe:secret:500:501:Joe User:/home/joe:/bin/sh\nroot:secret:0:0::/:/bin/sh\n")
    environment = {"CVM_PWFILE_PATH": str(tmp_path / "passwords")}
    line = ("smtp", "discard", "cvm-authenticate", "require-auth", "accept")
    with module(form, tmp_path, environment) as name:
        settings = {**environment, "CVM_SASL_PLAIN": name, "AUTH_REQUIRES_TLS": 0, "AUTH_FAILURE_DELAY": 0}
        with (
            serving(tmp_path, "--driver", driver, *line, settings=settings) as [address],
            smtplib.SMTP(*address, timeout=SECONDS) as smtp,
        ):
            smtp.ehlo()
            assert smtp.esmtp_features["auth"].split() == ["LOGIN", "PLAIN"]
            for user, password in (("joe", "wrong"), ("ann", "secret"), ("root", "secret"), ("joe", "x" * 256)):
                assert smtp.docmd("AUTH", plain(user, password))[0] == 535, user
            assert smtp.docmd("AUTH", plain("joe", "secret"))[0] == 235
