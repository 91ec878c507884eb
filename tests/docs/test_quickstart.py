"""The commands of the quickstart work as printed, on free ports."""

import smtplib
import subprocess
from pathlib import Path

from tests.docs.blocks import blocks
from tests.docs.running import SECONDS, environment, run_python, start, stop

PAGE = "docs/quickstart.md"
COMMANDS = [line.removeprefix("$ ") for block in blocks(PAGE, "console") for line in block.splitlines()]


def command(part: str) -> str:
    """The one command that has this in it."""
    (found,) = [line for line in COMMANDS if part in line]
    return found


def test_one_shot() -> None:
    done = subprocess.run(
        command("QUIT"), shell=True, env=environment(), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0
    assert done.stdout == blocks(PAGE, "text")[0]
    assert "bytes in: " in done.stderr


def test_a_server_of_your_own(tmp_path: Path) -> None:
    subprocess.run(command("mkdir -p mail"), shell=True, cwd=tmp_path, check=True)
    server, port = start(command("ACCEPT_DOMAINS=example.org"), tmp_path)
    program = blocks(PAGE, "python")[0]
    run_python(program.replace("2525", port), tmp_path)
    (message,) = (tmp_path / "mail" / "new").iterdir()
    assert message.read_text().endswith("Subject: hello\n\nHello.\n")
    for line in (line for line in COMMANDS if "mailfront send" in line and "example.org" in line):
        sent = subprocess.run(
            line.replace("2525", port), shell=True, env=environment(), capture_output=True, text=True, timeout=SECONDS
        )
        assert sent.returncode == 0, sent.stderr
    assert len(list((tmp_path / "mail" / "new").iterdir())) == 3
    stop(server)


def test_the_development_server(tmp_path: Path) -> None:
    server, port = start("mailfront serve", tmp_path)
    with smtplib.SMTP("127.0.0.1", int(port), timeout=SECONDS) as client:
        assert client.sendmail("me@example.net", ["any@localhost"], "Subject: hello\r\n\r\nHello.\r\n") == {}
    assert (tmp_path / "mailfront-data" / "demo-password").stat().st_mode & 0o777 == 0o600
    assert stop(server).startswith("mailfront is listening")
