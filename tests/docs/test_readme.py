"""The programs of the README run as pasted."""

from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.docs.running import Listening, run_python

SERVER, CLIENT, EMBEDDED = blocks("README.md", "python")


@pytest.mark.parametrize("server", [SERVER, EMBEDDED], ids=["sans-io", "embedded"])
def test_the_client_sends_to_the_server(server: str, tmp_path: Path) -> None:
    listening = Listening(server, tmp_path)
    assert "2525" in CLIENT
    said = run_python(CLIENT.replace("2525", str(listening.port)), tmp_path)
    assert "RecipientResult" in said and "code=250" in said
    seen = listening.ended()
    if server is SERVER:
        assert "Body(data=b'Subject: hello\\r\\n\\r\\nHello.\\r\\n')" in seen
    else:
        assert "MAIL FROM:<me@example.org>" in seen


@pytest.mark.parametrize("program", [SERVER, CLIENT, EMBEDDED], ids=["server", "client", "embedded"])
def test_the_programs_are_short(program: str) -> None:
    assert len([line for line in program.splitlines() if line.strip()]) <= 15
