"""Postfix's qmqp-source into every driver, by QMQP; and our own client by QMTP and QMQP."""

import socket
import subprocess
from pathlib import Path

import pytest

from mailfront_proto.qmqp import QMQPClient
from mailfront_proto.qmtp import NEED_DATA, MessageDone, QMTPClient
from tests.peers.programs import program
from tests.serving import DRIVERS, SECONDS, environment, queue_directory, queued, serving

MESSAGE = b"Subject: x\n\n.\n..\nGr\xc3\xbc\xc3\x9fe\n" + b"long " * 5000 + b"\nthe end"


@pytest.mark.peer
@pytest.mark.parametrize("driver", DRIVERS)
def test_qmqp_source(tmp_path: Path, driver: str) -> None:
    source = program("qmqp-source")
    queue = queue_directory(tmp_path)
    settings = {"QUEUEDIR": queue, "QUEUEDIR_NOSYNC": ""}
    with serving(tmp_path, "--driver", driver, "qmqp", "queuedir", "counters", "accept", settings=settings) as [where]:
        command = [source, "-m", "40", "-s", "4", "-r", "3", "-l", "3000", "-f", "me@a.example", "-t", "you@b.example"]
        ran = subprocess.run(
            [*command, f"inet:{where[0]}:{where[1]}"], capture_output=True, env=environment(), timeout=SECONDS
        )
        assert (ran.returncode, ran.stderr) == (0, b"")
    messages = queued(queue)
    assert len(messages) == 40
    for sender, recipients, message in messages:
        assert sender == "me@a.example"
        assert len(recipients) == 3
        assert all(recipient.endswith("you@b.example") for recipient in recipients)
        assert message.startswith(b"From: <me@a.example>\n")
        assert len(message) >= 3000


@pytest.mark.parametrize("protocol", ["qmtp", "qmqp"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_our_client(tmp_path: Path, driver: str, protocol: str) -> None:
    queue = queue_directory(tmp_path)
    settings = {"QUEUEDIR": queue, "QUEUEDIR_NOSYNC": ""}
    line = (protocol, "queuedir", "check-fqdn", "counters", "accept")
    with serving(tmp_path, "--driver", driver, *line, settings=settings) as [where]:
        client: QMTPClient | QMQPClient = QMTPClient() if protocol == "qmtp" else QMQPClient()
        count = 30 if protocol == "qmtp" else 1
        with socket.create_connection(where, SECONDS) as connection:
            for _ in range(count):
                client.send_message("", ["you@b.example", "them@b.example"], len(MESSAGE))
                client.send_body(MESSAGE)
                client.end_of_body()
                connection.sendall(client.data_to_send())
            done: list[MessageDone] = []
            while len(done) < count:
                event = client.next_event()
                if isinstance(event, MessageDone):
                    done.append(event)
                elif event is NEED_DATA:
                    client.receive_data(connection.recv(65536))
    assert all(result.delivered for event in done for result in event.results)
    assert queued(queue) == [("", ["you@b.example", "them@b.example"], MESSAGE)] * count
