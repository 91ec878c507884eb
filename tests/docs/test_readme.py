"""The programs of the README run as pasted."""

import subprocess
from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.docs.running import SECONDS, Listening, environment, run_python

SERVER, CLIENT, EMBEDDED, SEND = blocks("README.md", "python")


@pytest.mark.parametrize("server", [SERVER, EMBEDDED], ids=["sans-io", "embedded"])
def test_the_client_sends_to_the_server(server: str, tmp_path: Path) -> None:
    assert "2525" in CLIENT
    with Listening(server, tmp_path) as listening:
        said = run_python(CLIENT.replace("2525", str(listening.port)), tmp_path)
        seen = listening.ended()
    assert "RecipientResult" in said and "code=250" in said
    if server is SERVER:
        assert "Body(data=b'Subject: hello\\r\\n\\r\\nHello.\\r\\n')" in seen
    else:
        assert "MAIL FROM:<me@example.org>" in seen


def test_sending_is_one_call(tmp_path: Path) -> None:
    with Listening(EMBEDDED, tmp_path) as listening:
        said = run_python(SEND.replace("2525", str(listening.port)), tmp_path)
        seen = listening.ended()
    assert said.startswith("you@example.net 250 2.6.0 Received ")
    assert "RCPT TO:<you@example.net>" in seen


def test_the_command_of_the_readme_sends(tmp_path: Path) -> None:
    (line,) = [line for block in blocks("README.md", "console") for line in block.splitlines() if " send " in line]
    with Listening(EMBEDDED, tmp_path) as listening:
        done = subprocess.run(
            line.removeprefix("$ ").replace("2525", str(listening.port)),
            shell=True,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stderr
        listening.ended()
    assert "EHLO" in done.stderr and "SIZE 10000000" in done.stderr


@pytest.mark.parametrize("program", [SERVER, CLIENT, EMBEDDED, SEND], ids=["server", "client", "embedded", "send"])
def test_the_programs_are_short(program: str) -> None:
    assert len([line for line in program.splitlines() if line.strip()]) <= 12
