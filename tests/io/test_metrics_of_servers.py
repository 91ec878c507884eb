"""Metrics and health of servers as processes, under each driver, with workers and without."""

import http.client
import os
import signal
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from mailfront_io.admission import Admission, Limits
from mailfront_io.server import main
from tests.certificates import write_pem
from tests.io.test_metrics import samples
from tests.io.test_supervisor import Peer, Running, until
from tests.serving import DRIVERS, MAILFRONT, SECONDS, environment, queue_directory, serving

ALONE = tuple(driver for driver in DRIVERS if driver != "fork")

Address = tuple[str, int]


def get(address: Address, path: str) -> tuple[int, str]:
    """Status and text."""
    connection = http.client.HTTPConnection(*address, timeout=SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def counted(address: Address) -> dict[str, float]:
    """What is not 0, as ``NAME LABEL…``; without the listener's labels, bytes, times and what is said of the build."""
    status, text = get(address, "/metrics")
    assert status == 200
    found = {}
    for (name, labels), number in samples(text).items():
        values = sorted(value for label, value in labels if label not in ("listener", "protocol", "le"))
        if number and not name.endswith(("_bucket", "_sum", "bytes_total", "_info")):
            found[" ".join([name, *values])] = number
    return found


def settings(directory: Path, queue: Path) -> dict[str, object]:
    users = directory / "users"
    users.write_text("joe:secret\n")
    users.chmod(0o600)
    return {
        "QUEUEDIR": queue, "AUTH_STORE": f"static:{users}", "AUTH_FAILURE_DELAY": 0,
        "TLS_CERTFILE": write_pem(directory),
    }  # fmt: skip


def some_sessions(address: Address) -> None:
    """A user with a message, whose first password was wrong; and a client that leaves behind a wrong recipient."""
    with smtplib.SMTP(*address, timeout=SECONDS) as client:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client.starttls(context=context)
        client.ehlo()
        for password in ("wrong", "secret"):
            client.user, client.password = "joe", password
            try:
                client.auth("PLAIN", client.auth_plain)
                assert password == "secret"
            except smtplib.SMTPAuthenticationError:
                assert password == "wrong"
        client.sendmail("me@example.net", ["you@example.org"], b"Subject: x\r\n\r\nhello\r\n")
    peer = Peer(address)
    for line in (b"EHLO x\r\n", b"MAIL FROM:<a@b.example>\r\n"):
        assert peer.say(line)[:3] == b"250"
    assert peer.say(b"RCPT TO:<@>\r\n")[:1] == b"5"
    peer.close()


SOME_SESSIONS = {
    "connections_total": 2.0,
    "sessions_ended_total quit": 1.0,
    "sessions_ended_total closed": 1.0,
    "messages_total accepted": 1.0,
    "recipients_refused_total": 1.0,
    "authentications_total PLAIN failed": 1.0,
    "authentications_total PLAIN ok": 1.0,
    "tls_handshakes_total ok": 1.0,
    "backend_seconds_count": 1.0,
}


def doubled(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: 2 * number for name, number in numbers.items()}


@pytest.mark.parametrize("driver", ALONE)
def test_of_a_server_without_workers(driver: str, tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    words = ("--driver", driver, "--metrics", ":0", "smtp", "queuedir", "authenticate", "accept")
    with serving(tmp_path, *words, settings=settings(tmp_path, queue)) as (address, monitor):
        assert monitor[0] == "127.0.0.1"
        assert get(monitor, "/healthz") == (200, "alive\n")
        assert get(monitor, "/readyz") == (200, "ready\n")
        assert counted(monitor) == {"workers": 1.0}
        some_sessions(address)
        until(lambda: counted(monitor) == {"workers": 1.0, **SOME_SESSIONS})


@pytest.mark.parametrize("driver", DRIVERS)
def test_workers_are_added_up_and_nothing_goes_back(driver: str, tmp_path: Path) -> None:
    text = f"""
        [server]
        workers = 2
        [metrics]
        listen = ":0"
        [[listener]]
        name = "mx"
        protocol = "smtp"
        listen = ["127.0.0.1:0"]
        plugins = ["authenticate", "accept"]
        backend = "queuedir"
        store = "users"
        certificate = "{write_pem(tmp_path)}"
        [listener.settings]
        queuedir = "{queue_directory(tmp_path)}"
        auth_failure_delay = 0
        [store.users]
        kind = "static"
        name = "{tmp_path / "users"}"
        """
    settings(tmp_path, tmp_path)
    with Running(tmp_path, text, "--driver", driver) as running:
        address, monitor = running.addresses
        assert get(monitor, "/readyz") == (200, "ready\n")
        some_sessions(address)
        until(lambda: counted(monitor) == {"workers": 2.0, **SOME_SESSIONS})

        running.reload(text)
        kept = {"reloads_total ok": 1.0, **SOME_SESSIONS}
        until(lambda: counted(monitor) == {"workers": 2.0, **kept})
        until(lambda: len(running.workers()) == 2)
        for worker in running.workers():
            os.kill(worker, signal.SIGKILL)
        kept["workers_restarted_total"] = 2.0
        until(lambda: counted(monitor) == {"workers": 2.0, **kept})

        some_sessions(address)
        until(lambda: counted(monitor) == {"workers": 2.0, **kept, **doubled(SOME_SESSIONS)})


def test_every_reload_is_counted(tmp_path: Path) -> None:
    """Those as well that are dropped, because the next signal came before their workers served."""
    with Running(tmp_path, configuration(tmp_path)) as running:
        [_, monitor] = running.addresses

        def one_is_dropped() -> bool:
            running.process.send_signal(signal.SIGHUP)
            return "is dropped" in running.log()

        until(one_is_dropped)
        until(lambda: "is in force" in running.log())

        def said() -> dict[str, float]:
            words = {"ok": "is in force", "dropped": "is dropped"}
            return {f"reloads_total {result}": float(running.log().count(text)) for result, text in words.items()}

        until(lambda: {"workers": 1.0, **said()} == counted(monitor))


def test_an_open_connection_is_counted_for_as_long_as_its_worker_is_there(tmp_path: Path) -> None:
    with Running(tmp_path, configuration(tmp_path)) as running:
        address, monitor = running.addresses
        peer = Peer(address)
        until(lambda: counted(monitor).get("connections") == 1)
        os.kill(running.workers()[0], signal.SIGKILL)
        until(lambda: counted(monitor).get("workers_restarted_total") == 1)
        assert "connections" not in counted(monitor)
        peer.close()


def test_readiness(tmp_path: Path) -> None:
    with Running(tmp_path, configuration(tmp_path)) as running:
        address, monitor = running.addresses

        def nobody_serves() -> bool:
            for worker in running.workers():
                with suppress(ProcessLookupError):  # it is gone already
                    os.kill(worker, signal.SIGKILL)
            return get(monitor, "/readyz") == (503, "no worker serves\n")

        until(nobody_serves)
        assert get(monitor, "/healthz") == (200, "alive\n")
        until(lambda: get(monitor, "/readyz") == (200, "ready\n"))
        peer = Peer(address)
        peer.begin_message()
        running.process.terminate()
        until(lambda: get(monitor, "/readyz") == (503, "stopping\n"))
        assert get(monitor, "/healthz") == (200, "alive\n")
        assert peer.say(b".\r\n")[:3] == b"250"
        peer.close()
        assert running.process.wait(SECONDS) == 0


@pytest.mark.parametrize("driver", ALONE)
def test_readiness_without_workers(driver: str, tmp_path: Path) -> None:
    ports = tmp_path / "ports"
    words = ("--driver", driver, "--listen", "127.0.0.1:0", "--metrics", ":0", "--port-file", str(ports))
    process = subprocess.Popen(
        [MAILFRONT, "serve", *words, "smtp", "discard", "accept"], env=environment(), stderr=subprocess.DEVNULL
    )
    with process:
        try:
            until(lambda: ports.exists() or process.poll() is not None)
            address, monitor = [("127.0.0.1", int(line.rpartition(":")[2])) for line in ports.read_text().split()]
            peer = Peer(address)
            peer.begin_message()
            process.terminate()
            until(lambda: get(monitor, "/readyz") == (503, "stopping\n"))
            assert get(monitor, "/healthz") == (200, "alive\n")
            assert peer.say(b".\r\n")[:3] == b"250"
            peer.close()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("address", ["unix:/run/metrics", "systemd:metrics"])
def test_without_a_file_the_address_is_a_host_and_a_port(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="78"):
        main(["--metrics", address, "smtp", "echo", "accept"])
    assert "write HOST:PORT; unix: and systemd: need -c FILE" in capsys.readouterr().err


def configuration(directory: Path) -> str:
    return f"""
        [metrics]
        listen = ":0"
        [[listener]]
        protocol = "smtp"
        listen = ["127.0.0.1:0"]
        plugins = ["accept"]
        backend = "queuedir"
        [listener.settings]
        queuedir = "{queue_directory(directory)}"
        """


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list the descriptors of a process")
def test_the_monitor_comes_goes_and_moves_at_a_reload(tmp_path: Path) -> None:
    with_it = configuration(tmp_path)
    path = tmp_path / "monitor"
    without = with_it.replace('[metrics]\n        listen = ":0"', "")
    with Running(tmp_path, with_it) as running:
        def descriptors() -> int:
            return len(list(Path(f"/proc/{running.process.pid}/fd").iterdir()))

        address, monitor = running.addresses
        Peer(address).close()
        before = descriptors()
        waiting = socket.create_connection(monitor, SECONDS)
        running.reload(with_it.replace('":0"', f'"unix:{path}"', 1))
        assert waiting.recv(1) == b""  # it has no place any more
        waiting.close()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(SECONDS)
            client.connect(str(path))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join(iter(lambda: client.recv(65536), b"")).decode()
            assert "\nmailfront_connections_total{" in text and "} 1\n" in text
        running.reload(without)
        assert not path.exists()
        until(lambda: descriptors() == before - 1)
        Peer(address).close()
        running.reload(with_it)
        until(lambda: descriptors() == before)


def test_by_which_limit_a_connection_is_refused() -> None:
    reasons: list[str] = []
    within = Admission(lambda line: None, Limits(total=3))
    admission = Admission(lambda line: None, Limits(client=1, network=2), within=within)
    for host in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1", "198.51.100.2"):
        admission.admit((host, 25), "smtp", reasons.append)
    assert reasons == ["max_per_client", "max_per_network", "max_connections"]
