"""The units for systemd and the run scripts for daemontools and runit in docs/examples start what they say."""

import getpass
import os
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.certificates import certificate, client_context
from tests.docs.blocks import ROOT
from tests.docs.running import SECONDS, environment
from tests.peers.programs import program
from tests.ports import unused_port
from tests.serving import queue_directory, queued

UNITS = ROOT / "docs" / "examples" / "systemd"
SERVICES = ROOT / "docs" / "examples" / "service"
GREETINGS = {"smtpd": b"220 ", "qmtpd": b"", "qmqpd": b"", "pop3d": b"+OK ", "imapd": b"* OK "}
"""What a client hears first; of QMTP and QMQP an answer to what is no package."""


@pytest.mark.peer
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for unit in ("mailfront.service", "mailfront.socket"):
        text = (UNITS / unit).read_text().replace("/usr/local/bin/mailfront", str(ours()))
        (tmp_path / unit).write_text(text)
    checked = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", *map(str, tmp_path.glob("mailfront.*"))],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.peer
def test_the_socket_of_systemd_is_served(tmp_path: Path) -> None:
    """By the program that does for one service what a ``.socket`` unit says; credentials as systemd has them."""
    activate, port, queue = program("systemd-socket-activate"), unused_port(), queue_directory(tmp_path)
    leaf = certificate()
    leaf.private_key_pem.write_to_path(str(tmp_path / "mail.key"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "mail.pem"))
    (tmp_path / "mail.key").chmod(0o600)
    text = (UNITS / "mailfront.toml").read_text().replace("/var/lib/mailfront/queue", str(queue))
    (tmp_path / "mailfront.toml").write_text(text)
    context = client_context()
    context.check_hostname = False  # the certificate is not one for 127.0.0.1
    credentials = f"CREDENTIALS_DIRECTORY={tmp_path}"
    listen = [activate, "-l", f"127.0.0.1:{port}", "--fdname=smtp", "-E", credentials, "-E", "PATH"]
    with subprocess.Popen(
        [*listen, str(ours()), "serve", "-c", str(tmp_path / "mailfront.toml")],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            assert f"Listening on 127.0.0.1:{port}" in process.stderr.readline()
            with smtplib.SMTP("127.0.0.1", port, timeout=SECONDS) as client:
                client.starttls(context=context)
                client.sendmail("a@b.example", ["me@example.org"], "Subject: hello\r\n\r\nHello.\r\n")
            process.terminate()
            _, errors = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, errors
        finally:
            process.kill()
    [(sender, recipients, _)] = queued(queue)
    assert (sender, recipients) == ("a@b.example", ["me@example.org"])


@pytest.mark.peer
def test_scripts_are_as_the_shell_wants_them() -> None:
    scripts = [*SERVICES.rglob("run"), *(ROOT / "docs" / "examples").glob("*.sh")]
    assert len(scripts) == 2 * len(GREETINGS) + 1
    assert all(script.stat().st_mode & 0o111 for script in scripts if script.name == "run")
    checked = subprocess.run([program("shellcheck"), *scripts], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.peer
def test_every_service_greets_and_is_logged(tmp_path: Path) -> None:
    """All of them under svscan, as daemontools starts them."""
    for needed in ("svscan", "tcpserver", "multilog"):
        program(needed)
    services = shutil.copytree(SERVICES, tmp_path / "service")
    ports = {name: unused_port() for name in GREETINGS}
    settings = {f"{name.removesuffix('d').upper()}_PORT": str(port) for name, port in ports.items()}
    with subprocess.Popen(
        [program("svscan"), services],
        env=environment() | settings | {"IP": "127.0.0.1", "MAIL_USER": getpass.getuser(), "QUEUEDIR": str(tmp_path)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as scanner:
        try:
            for name, greeting in GREETINGS.items():
                assert said(ports[name], b"" if greeting else b"x").startswith(greeting), name
                until_it_says(services / name / "log" / "main" / "current", "bytes in: ")
        finally:
            os.killpg(scanner.pid, signal.SIGKILL)


def ours() -> Path:
    """The command of this Python."""
    return Path(sys.executable).with_name("mailfront")


def said(port: int, data: bytes) -> bytes:
    """What the server at `port` says, once it is there, to a client that says `data` and closes."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), SECONDS)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < end, f"nobody listens on port {port}"
            time.sleep(0.02)
    with connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while more := connection.recv(1000):
            answer += more
    assert answer
    return answer


def until_it_says(log: Path, text: str) -> None:
    """Wait until `text` is in the file `log`."""
    end = time.monotonic() + SECONDS
    while not log.exists() or text not in log.read_text():
        assert time.monotonic() < end, f"{log} does not come to say {text!r}"
        time.sleep(0.02)
