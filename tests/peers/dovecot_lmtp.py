"""Dovecot's LMTP server on a unix socket of our own: users are made up as they come, each with a maildir."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.peers.programs import program
from tests.serving import SECONDS, environment

CONFIGURATION = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
protocols = lmtp
ssl = no
default_login_user = {user}
default_internal_user = {user}
default_internal_group = {group}
first_valid_uid = 1
mail_location = maildir:{directory}/mail/%n
lmtp_rcpt_check_quota = no
recipient_delimiter =
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={directory}/mail/%n allow_all_users=yes
}}
service lmtp {{
  unix_listener {directory}/lmtp {{
    mode = 0666
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


class DovecotLMTP:
    """A running one: `socket`, and what it has delivered."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "lmtp"
        self._mail = directory / "mail"

    def delivered(self, user: str) -> tuple[bytes, bytes]:
        """The one message of `user`: the fields that Dovecot puts in front, and the rest, with the line ends that it
        stores; away with it."""
        [path] = (self._mail / user / "new").iterdir()
        data = path.read_bytes()
        path.unlink()
        end = data.index(b"\nReceived: ") + 1  # behind Return-Path and Delivered-To
        while True:
            end = data.index(b"\n", end) + 1
            if data[end : end + 1] not in (b"\t", b" "):
                return data[:end], data[end:]


@contextmanager
def dovecot_lmtp() -> Iterator[DovecotLMTP]:
    """Start one, and stop it."""
    command = program("dovecot")
    if not any(os.access(f"{prefix}/dovecot/lmtp", os.X_OK) for prefix in ("/usr/lib", "/usr/libexec")):
        pytest.skip("Dovecot's LMTP server is not installed (make peers installs it).")
    if os.geteuid() != 0:
        pytest.skip("Dovecot must be started by root.")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "mail").mkdir()
        os.chown(directory / "mail", 65534, 65534)
        values = {"directory": directory, "user": "nobody", "group": "nogroup", "uid": 65534, "gid": 65534}
        (directory / "dovecot.conf").write_text(CONFIGURATION.format(**values))
        with (
            (directory / "stderr").open("wb") as stderr,
            subprocess.Popen(
                [command, "-F", "-c", directory / "dovecot.conf"],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            ) as process,
        ):
            try:
                _wait_for(directory, process)
                yield DovecotLMTP(directory)
            finally:
                process.terminate()
                process.wait(SECONDS)


def _wait_for(directory: Path, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + SECONDS
    while not (directory / "lmtp").exists():
        said = (directory / "stderr").read_text()
        assert process.poll() is None and time.monotonic() < end, said
        time.sleep(0.01)  # it has no other sign that it listens
