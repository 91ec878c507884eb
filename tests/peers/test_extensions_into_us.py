"""Clients that are not ours, and use SMTP's extensions, into our server: BDAT by Dovecot's submission service, which
relays what it takes; SMTPUTF8, DSN and 8BITMIME by a private Postfix and by curl.

(Postfix's client has no BDAT, and neither have curl, swaks, msmtp and smtplib.)
"""

import os
import pwd
import smtplib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.peers.postfix_server import postfix
from tests.peers.programs import program
from tests.ports import unused_port
from tests.serving import SECONDS, environment, serving

pytestmark = pytest.mark.peer

ROOT = Path(__file__).parents[2]
HEADER = (
    b"From: <a@a.example>\r\nTo: <b@b.example>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n"
    b"Message-ID: <1@a.example>\r\n"
)
DOTS = HEADER + b"\r\n.\r\n..\r\n.x\r\nQUIT\r\nGr\xc3\xbc\xc3\x9fe\r\n"


class Ours:
    """Our server with a backend that keeps the message octet by octet, behind a line with the parameters."""

    def __init__(self, directory: Path, port: int) -> None:
        self.port = port
        self._wire = directory / "wire"
        self._log = directory / "server.log"

    def received(self, part: bytes, size: int = 0) -> bytes:
        """What was kept, once `part` and at least `size` bytes are there; it is forgotten then."""
        end = time.monotonic() + SECONDS
        while True:
            kept = self._wire.read_bytes() if self._wire.exists() else b""
            if part in kept and len(kept) >= size:
                self._wire.unlink()
                return kept
            assert time.monotonic() < end, (kept, self._log.read_text())
            time.sleep(0.01)  # the peer says in no other way that it has delivered

    def commands(self) -> list[str]:
        """The MAIL and RCPT commands in the log, where the session's id is in front."""
        lines = (line.partition(": ")[2].partition(" ")[2] for line in self._log.read_text("utf-8").splitlines())
        return [line for line in lines if line.startswith(("MAIL ", "RCPT "))]


@contextmanager
def ours(directory: Path, *plugins: str) -> Iterator[Ours]:
    backend = "tests.conformance.plugins:Wire"
    settings = {"WIRE": directory / "wire", "PYTHONPATH": ROOT}
    with serving(directory, "smtp", backend, "counters", *plugins, "accept", settings=settings) as ((_, port),):
        yield Ours(directory, port)


# -- BDAT ------------------------------------------------------------------------------------------------

DOVECOT = """\
protocols = submission
listen = 127.0.0.1
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
ssl = no
disable_plaintext_auth = no
mail_location = maildir:{directory}/mail
hostname = relay.example
submission_max_mail_size = 20M
submission_relay_host = 127.0.0.1
submission_relay_port = {relay}
submission_relay_ssl = no
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={directory}/mail
}}
service submission-login {{
  inet_listener submission {{
    port = {port}
  }}
}}
"""


@contextmanager
def dovecot(relay: int) -> Iterator[int]:
    """A Dovecot of our own that takes submissions on loopback and relays them to the port `relay`; its port."""
    command = program("dovecot")
    if os.geteuid() != 0:
        pytest.skip("Dovecot must be started by root.")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)  # its processes are several users
        for part in ("run", "state", "mail"):
            (directory / part).mkdir()
        os.chown(directory / "mail", pwd.getpwnam("nobody").pw_uid, -1)
        port = unused_port()
        configuration = directory / "dovecot.conf"
        configuration.write_text(DOVECOT.format(directory=directory, relay=relay, port=port))
        with subprocess.Popen(
            [command, "-F", "-c", configuration], env=environment(), stdin=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                end = time.monotonic() + SECONDS
                while True:
                    try:
                        socket.create_connection(("127.0.0.1", port), 5).close()
                        break
                    except OSError:
                        said = (directory / "log").read_text() if (directory / "log").exists() else ""
                        assert process.poll() is None and time.monotonic() < end, said
                        time.sleep(0.01)  # it has no other way to say that it listens
                yield port
            finally:
                process.terminate()
                process.wait(SECONDS)


MESSAGES = {
    "dots and a command": DOTS,
    "one octet over a chunk": HEADER + b"\r\n" + b"0123456789abcde\r\n" * 16_384,
    "several chunks": HEADER + b"\r\n" + b".QUIT\r\nMAIL FROM:<evil@a.example>\r\n.\r\n" * 40_000,
}


@pytest.fixture(scope="module")
def relayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ours, int]]:
    """Our server, which takes BDAT alone, and the port of a Dovecot that relays to it."""
    directory = tmp_path_factory.mktemp("server")
    with ours(directory, "tests.conformance.plugins:OnlyChunks") as server, dovecot(server.port) as port:
        yield server, port


@pytest.mark.parametrize("name", MESSAGES)
def test_chunks_of_dovecot(name: str, relayed: tuple[Ours, int]) -> None:
    """DATA is refused by the server: what arrives has come by BDAT."""
    server, port = relayed
    with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=SECONDS) as connection:
        connection.login("joe", "anything")
        assert connection.sendmail("a@a.example", ["b@b.example"], MESSAGES[name], ["BODY=8BITMIME"]) == {}
        # It answers when we have answered. That the session goes on behind it shows that nobody is out of step.
        assert connection.sendmail("a@a.example", ["b@b.example"], DOTS) == {}
    kept = server.received(DOTS)
    first, _, rest = kept.partition(HEADER)
    assert rest.startswith(MESSAGES[name].removeprefix(HEADER))
    assert first.endswith(b"\r\n") and b"\n" not in first.partition(b"\n")[2].replace(b"\r\n", b"")
    assert not any("evil" in line for line in server.commands())


# -- SMTPUTF8, DSN, 8BITMIME -----------------------------------------------------------------------------


def test_extensions_of_postfix(tmp_path: Path) -> None:
    """Postfix takes a message from smtplib and relays it to us with all that was asked."""
    message = HEADER + "Subject: Grüße\r\n\r\n.Grüße\r\n".encode()
    to_us = "default_transport = smtp:[127.0.0.1]:{}\nsmtp_dns_support_level = disabled\n"
    with ours(tmp_path) as server, postfix(to_us.format(server.port)) as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, "client.example", timeout=SECONDS) as connection:
            refused = connection.sendmail(
                "ä@a.example", ["ö@b.example"], message,
                ["SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=order+2017+2B4"],
                ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;old+2B1@c.example"],
            )  # fmt: skip
            assert refused == {}
        kept = server.received(b".Gr\xc3\xbc\xc3\x9fe\r\n")
        words, _, arrived = kept.partition(b"\n")
        options = sorted(words.decode().split())
        assert options.pop(-2).startswith("SIZE=")
        assert options == [
            "BODY=8BITMIME", "ENVID=order+2017+2B4", "NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;old+2B1@c.example",
            "RET=HDRS", "SMTPUTF8",
        ]  # fmt: skip
        assert arrived.startswith(b"Received: from ") and arrived.endswith(message)
        mail, recipient = server.commands()
        assert mail.startswith("MAIL FROM:<ä@a.example> ") and recipient.startswith("RCPT TO:<ö@b.example> ")


def test_smtputf8_of_curl(tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_bytes(DOTS)
    with ours(tmp_path) as server:
        ran = subprocess.run(
            [
                *(program("curl"), "--silent", "--show-error", "--disable", "--noproxy", "*"),
                *("--mail-from", "ä@a.example", "--mail-rcpt", "ö@b.example", "--upload-file", letter),
                f"smtp://127.0.0.1:{server.port}",
            ],
            capture_output=True, env=environment(LC_ALL="C.UTF-8"), timeout=SECONDS,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        words, _, arrived = server.received(DOTS).partition(b"\n")
        assert b"SMTPUTF8" in words.split() and arrived == DOTS
        mail, recipient = server.commands()
        assert mail.startswith("MAIL FROM:<ä@a.example> ") and recipient == "RCPT TO:<ö@b.example>"
