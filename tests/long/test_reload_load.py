"""Reloads, killed workers and new certificates under load: what was acknowledged is there, no reload ends a session."""

import os
import signal
import smtplib
import ssl
import threading
import time
from pathlib import Path

import pytest

from tests.certificates import authority
from tests.io.test_supervisor import Running, configuration, until
from tests.serving import DRIVERS, SECONDS, queue_directory, queued

pytestmark = pytest.mark.long

CLIENTS = 8
RELOADS = 8
KILLS = 3


class Client(threading.Thread):
    """Sends one message after another, several in each session. `acknowledged`: those that got their 250; `dropped`:
    what ended a session that this client had not ended."""

    def __init__(self, name: str, address: tuple[str, int], stop: threading.Event) -> None:
        super().__init__()
        self._client = name
        self._address = address
        self._stop_sending = stop
        self._context = ssl.create_default_context()
        authority().configure_trust(self._context)
        self.acknowledged: list[bytes] = []
        self.dropped: list[Exception] = []

    def run(self) -> None:
        number = 0
        while not self._stop_sending.is_set():
            try:
                with smtplib.SMTP(*self._address, timeout=SECONDS) as session:
                    session._host = "mx.example.org"  # type: ignore[attr-defined]  # the name in the certificate
                    session.starttls(context=self._context)
                    for _ in range(10):
                        number += 1
                        subject = f"Subject: {self._client}.{number}".encode()
                        session.sendmail("a@b.example", ["c@localhost"], subject + b"\r\n\r\nhello\r\n")
                        self.acknowledged.append(subject)
            except (OSError, smtplib.SMTPException) as error:
                self.dropped.append(error)


@pytest.mark.parametrize("driver", DRIVERS)
def test_load(driver: str, tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    certificate = tmp_path / "mail.pem"

    def issue() -> None:
        issued = authority().issue_cert("mx.example.org")
        issued.private_key_and_cert_chain_pem.write_to_path(f"{certificate}.new")
        os.rename(f"{certificate}.new", certificate)

    issue()
    text = configuration(queue, more=f'certificate = "{certificate}"')
    with Running(tmp_path, text, "--driver", driver, "--workers", "2") as running:
        stop = threading.Event()
        clients = [Client(f"{driver}-{number}", running.addresses[0], stop) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            for number in range(RELOADS):
                issue()
                running.reload(configuration(queue, f"no{number}", f'certificate = "{certificate}"'))
                time.sleep(1)
            assert [error for client in clients for error in client.dropped] == [], running.log()
            for _ in range(KILLS):  # what these have in hand is lost to its sender, who is not told 250
                killed = running.workers()[-1]
                os.kill(killed, signal.SIGKILL)
                until(lambda killed=killed: killed not in running.workers())  # type: ignore[misc]
                running.reload(text)
                time.sleep(1)
        finally:
            stop.set()
            for client in clients:
                client.join(SECONDS)
        assert not any(client.is_alive() for client in clients)
    kept = {message.partition(b"\n")[0] for _, _, message in queued(queue)}
    acknowledged = [subject for client in clients for subject in client.acknowledged]
    assert len(acknowledged) > 10 * CLIENTS
    assert [subject for subject in acknowledged if subject not in kept] == []
