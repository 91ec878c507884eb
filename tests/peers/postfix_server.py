"""A Postfix of our own on loopback: configuration, queue and data in a directory that goes away with it.

What it accepts is handed to a script, which writes sender, recipient and message into a file: its `pipe` daemon adds
nothing, so the file shows what Postfix itself makes of a message.
"""

import os
import pwd
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.peers.programs import program
from tests.ports import unused_port
from tests.serving import SECONDS, environment

MESSAGE_LIMIT = 3_000_000

MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/log
maillog_file_prefixes = {directory}
inet_interfaces = 127.0.0.1
inet_protocols = all
myhostname = mx.example.org
mydestination =
mynetworks = 127.0.0.0/8 [2001:db8::]/32
local_header_rewrite_clients =
alias_maps =
smtputf8_enable = yes
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_recipient_restrictions = check_recipient_access inline:{{ refused@b.example=REJECT }}, permit
message_size_limit = {limit}
default_transport = capture
capture_destination_recipient_limit = 1
"""

MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
error unix - - n - - error
retry unix - - n - - error
smtp unix - - n - - smtp
capture unix - n n - 1 pipe flags= user=nobody null_sender= argv={directory}/capture ${{sender}} ${{recipient}}
"""

CAPTURE = """\
#!/bin/sh
name=$(mktemp {directory}/mail/part.XXXXXX) &&
{{ echo "$1"; echo "$2"; cat; }} >"$name" &&
mv "$name" "{directory}/mail/done.${{name##*.}}"
"""


class Delivered(NamedTuple):
    """A message as Postfix hands it on, LF line ends; `trace` is the Received field that it puts in front."""

    sender: str
    recipient: str
    trace: bytes
    message: bytes


class Postfix(NamedTuple):
    """A running one."""

    port: int
    mail: Path

    def delivered(self, count: int = 1) -> list[Delivered]:
        """The next `count` messages, by recipient; away with them."""
        end = time.monotonic() + SECONDS
        while len(paths := list(self.mail.glob("done.*"))) < count:
            assert time.monotonic() < end, f"Postfix has delivered {len(paths)} messages of {count}"
            time.sleep(0.01)  # its delivery has no other sign
        found = []
        for path in paths:
            sender, recipient, rest = path.read_bytes().split(b"\n", 2)
            path.unlink()
            trace, message = _without_trace(rest)
            found.append(Delivered(sender.decode(), recipient.decode(), trace, message))
        return sorted(found, key=lambda one: one.recipient)


def _without_trace(message: bytes) -> tuple[bytes, bytes]:
    """The first field, which is Postfix's, and the rest."""
    assert message.startswith(b"Received: ")
    end = 0
    while True:
        end = message.index(b"\n", end) + 1
        if message[end : end + 1] not in (b"\t", b" "):
            return message[:end], message[end:]


@contextmanager
def postfix(more: str = "") -> Iterator[Postfix]:
    """Start one, and stop it. `more`: lines for main.cf."""
    command = program("postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix must be started by root.")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)  # its daemons are several users
        for part, owner in (("conf", "root"), ("queue", "root"), ("data", "postfix"), ("mail", "nobody")):
            (directory / part).mkdir()
            os.chown(directory / part, pwd.getpwnam(owner).pw_uid, -1)
        port = unused_port()
        values = {"directory": directory, "port": port, "limit": MESSAGE_LIMIT}
        (directory / "conf" / "main.cf").write_text(MAIN.format(**values) + more)
        (directory / "conf" / "master.cf").write_text(MASTER.format(**values))
        (directory / "capture").write_text(CAPTURE.format(**values))
        (directory / "capture").chmod(0o755)
        run = [command, "-c", str(directory / "conf")]
        with subprocess.Popen(
            [*run, "start-fg"], env=environment(), stdin=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                _wait_for(port, process, directory / "log")
                yield Postfix(port, directory / "mail")
            finally:
                subprocess.run([*run, "stop"], env=environment(), stdin=subprocess.DEVNULL, check=False)
                process.wait(SECONDS)


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                assert connection.recv(4) == b"220 "
                connection.sendall(b"QUIT\r\n")
                return
        except OSError:
            said = log.read_text() if log.exists() else ""
            assert process.poll() is None and time.monotonic() < end and "fatal: " not in said, said
            time.sleep(0.01)  # it has no other way to say that it listens
