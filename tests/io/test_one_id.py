"""One message, followed by the ids of its sessions: from the connection over a relay into the queue of the next server.

And what stands in a log, whichever form it has: no secret, nothing unescaped.
"""

import json
import re
import smtplib
from pathlib import Path

import pytest

from tests.io.test_supervisor import Running
from tests.serving import DRIVERS, SECONDS, queue_directory, serving

MESSAGE = b"Subject: x\r\n\r\nhello\r\n"


def by_session(log: Path) -> dict[str, list[str]]:
    """The lines of each session; every line must be one's."""
    found: dict[str, list[str]] = {}
    for line in log.read_text().splitlines():
        if re.fullmatch(r"mailfront\[\d+\]: Serving 127\.0\.0\.1:\d+", line):
            continue  # the process speaks for itself
        match = re.fullmatch(r"mailfront\[\d+\]: ([0-9a-f]+-[0-9a-f]+) (.*)", line)
        assert match is not None, line
        found.setdefault(match[1], []).append(match[2])
    return found


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_message_from_connection_to_queue(driver: str, tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    places = [tmp_path / "first", tmp_path / "second"]
    for place in places:
        place.mkdir()
    line = ("--driver", driver, "smtp")
    with (
        serving(places[1], *line, "queuedir", "add-received", "accept", settings={"QUEUEDIR": queue}) as [(_, port)],
        serving(places[0], *line, "smtp", "add-received", "accept", settings={"UPSTREAM": f"127.0.0.1:{port}"}) as [
            (host, relay)
        ],
        smtplib.SMTP(host, relay, timeout=SECONDS) as client,
    ):
        client.ehlo("client.example")
        client.mail("a@a.example")
        client.rcpt("b@b.example")
        code, answer = client.data(MESSAGE)
    assert code == 250

    [(first, lines_of_first)] = by_session(places[0] / "server.log").items()
    [(second, lines_of_second)] = by_session(places[1] / "server.log").items()
    assert first != second
    # The client is told the id at the end of the way, and so is the relay's log under its own.
    assert answer.decode() == f"2.6.0 Message accepted, id {second}."
    assert lines_of_first[0] == "smtp-1 from 127.0.0.1"
    assert f"smtp: 127.0.0.1:{port}: 250 2.6.0 Message accepted, id {second}." in lines_of_first
    # The message has both in its trace lines, and the log of the second server names its file.
    [file] = (queue / "new").iterdir()
    assert f"queuedir: {file}" in lines_of_second
    trace = re.findall(rb"^Received: .*\n(?:[ \t].*\n)*", file.read_bytes().partition(b"\0\0")[2], re.MULTILINE)
    assert [re.findall(rb" id (\S+);", line) for line in trace] == [[second.encode()], [first.encode()]]


def test_the_id_of_a_message_that_qmail_takes(tmp_path: Path) -> None:
    program = tmp_path / "qmail-queue"
    program.write_text("#!/bin/sh\ncat >/dev/null\ncat <&1 >/dev/null\n")
    program.chmod(0o755)
    settings = {"QMAILHOME": tmp_path, "QMAILQUEUE": program}
    with (
        serving(tmp_path, "smtp", "qmail", "accept", settings=settings) as [(host, port)],
        smtplib.SMTP(host, port, timeout=SECONDS) as client,
    ):
        client.sendmail("a@a.example", ["b@b.example"], MESSAGE)
    [(_, lines)] = by_session(tmp_path / "server.log").items()
    assert any(re.fullmatch(r"2\.6\.0 Accepted message qp \d+ bytes \d+", line) for line in lines)


FORMS = ("lines", "json", "original")


@pytest.mark.parametrize("form", FORMS)
def test_what_a_client_says_is_one_line_in_every_form_and_no_secret(form: str, tmp_path: Path) -> None:
    text = f"""
        [log]
        format = "{form}"
        file = "{tmp_path / "mail.log"}"
        [[listener]]
        name = "mx"
        protocol = "smtp"
        listen = ["127.0.0.1:0"]
        plugins = ["authenticate", "accept"]
        backend = "discard"
        store = "users"
        [listener.settings]
        auth_requires_tls = 0
        auth_failure_delay = 0
        [store.users]
        kind = "static"
        name = "{tmp_path / "users"}"
        """
    (tmp_path / "users").write_text("joe:secret-of-joe\n")
    (tmp_path / "users").chmod(0o600)
    with Running(tmp_path, text) as running:
        with smtplib.SMTP(*running.addresses[0], timeout=SECONDS) as client:
            client.ehlo("x")
            client.user, client.password = "joe", "secret-of-joe"
            client.auth("PLAIN", client.auth_plain)
            for line in (b"MAIL FROM:<a@\x1b[2Jb>", b"PASS secret-of-joe", b"\x07\xff\x9b\\n"):
                client.send(line + b"\r\n")
                client.getreply()
        log = tmp_path / "mail.log"
    written = log.read_bytes()
    assert not set(written) & {*range(10), *range(11, 32), 127}
    assert b"secret-of-joe" not in written
    lines = written.decode("utf-8", "surrogateescape").splitlines()
    if form == "json":
        objects = [json.loads(line) for line in lines]
        [session] = {each["session"] for each in objects if "session" in each}
        for each in objects:
            assert each.get("session") in (None, session)
            assert "session" not in each or (each["listener"], each["protocol"]) == ("mx", "smtp")
        texts = [each["text"] for each in objects if "session" in each]
    else:
        texts = [line.partition("]: ")[2] for line in lines]
    assert any("SASL AUTH PLAIN username=joe" in text for text in texts)
    assert any("MAIL FROM:<a@" in text for text in texts)
