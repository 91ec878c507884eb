"""The guide to credential stores: its commands print what it says."""

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import HTTPError
from urllib.parse import parse_qs

import pytest

from mailfront_io.auth.opening import open_named_store
from mailfront_io.auth.passwd import PasswdStore
from mailfront_io.auth.store import CredentialStore, Identity
from mailfront_io.ops import Connection
from mailfront_io.testing import run_script
from mailfront_proto.secret import Secret
from tests.docs.blocks import blocks
from tests.docs.running import SECONDS, environment, run_python

PAGE = "docs/stores.md"


def run(line: str, place: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        line, shell=True, cwd=place, env=environment(), capture_output=True, text=True, timeout=SECONDS
    )


def test_every_command_prints_what_the_page_says(tmp_path: Path) -> None:
    commands = 0
    for block in blocks(PAGE, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            if "mailfront serve" in line:
                continue
            ran = run(line, tmp_path)
            assert (ran.stdout, ran.stderr) == (output, ""), line
            commands += 1
    assert commands == 5


@pytest.mark.parametrize("which", [0, 3])
def test_what_the_page_serves_is_a_server(which: int, tmp_path: Path) -> None:
    lines = [line[2:] for block in blocks(PAGE, "console") for line in block.splitlines() if "mailfront serve" in line]
    run("printf 'pencil\\n' | mailfront user --database users.sqlite add ann", tmp_path)
    one_shot = re.sub(r"mailfront serve (--listen \S+ )?", "mailfront ", lines[which])
    ran = run(f"export AUTH_REQUIRES_TLS=0; printf 'EHLO me\\r\\nQUIT\\r\\n' | {one_shot}", tmp_path)
    assert "LOGIN PLAIN\n" in ran.stdout.replace("\r", ""), ran.stderr


def test_lines_of_password_files(tmp_path: Path) -> None:
    (line,) = [block for block in blocks(PAGE, "text") if block.startswith("# file: passwd")]
    printed = run_python(blocks(PAGE, "python")[0], tmp_path)
    (tmp_path / "passwd").write_text(line + printed.replace("bob:", "eve:"))
    store = PasswdStore(str(tmp_path / "passwd"))
    passwords = {"ann": b"pencil", "bob": b"paper", "eve": b"paper"}
    assert set(store._users) == set(passwords)
    for name, password in passwords.items():
        assert store._verify(name, Secret(password)) is not None and store._verify(name, Secret(b"x")) is None


def test_the_token_of_the_page_is_one(tmp_path: Path) -> None:
    names: dict[str, str] = {}
    lines: list[str] = []
    exec(blocks(PAGE, "python")[1], {"print": lines.append}, names)
    (tmp_path / "passwd").write_text(lines[0] + "\n")
    store = PasswdStore(str(tmp_path / "passwd"))
    assert ask(store, names["token"]) == Identity("ann") and ask(store, "another") is None


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of the page."""
    monkeypatch.syspath_prepend(tmp_path)
    for module, block in zip(("mysite", "tokens"), blocks(PAGE, "python")[2:], strict=True):
        (tmp_path / f"{module}.py").write_text(block)
        monkeypatch.delitem(sys.modules, module, raising=False)


@pytest.mark.usefixtures("stores")
def test_the_store_of_the_page_is_one() -> None:
    store: Any = open_named_store("class:mysite:Directory")
    assert store.mechanisms == ("PLAIN", "LOGIN")
    assert store._bind("ann", Secret(b"pencil")) and not store._bind("ann", Secret(b"x"))


def ask(store: CredentialStore, token: str) -> Identity | None:
    """Whose token it is, under the scripted driver."""
    found: list[Identity | None] = []

    async def session(connection: Connection) -> int:
        found.append(await store.verify_token("", Secret(token.encode()), {}))
        return 0

    played = run_script(session, [])
    if played.error is not None:
        raise played.error
    return found[0]


class Provider(BaseHTTPRequestHandler):
    """Knows two tokens."""

    KNOWN: ClassVar = {
        "good": {"active": True, "scope": "openid mail", "username": "ann"},
        "for-others": {"active": True, "scope": "calendar", "username": "ann"},
    }

    def do_POST(self) -> None:
        sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        authorized = self.headers["Authorization"] == "Basic eDp5"
        self.send_response(200 if authorized else 401)
        self.end_headers()
        self.wfile.write(json.dumps(self.KNOWN.get(sent["token"][0], {"active": False})).encode())

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.mark.usefixtures("stores")
def test_the_store_of_the_page_asks_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Provider) as provider:
        serving = threading.Thread(target=provider.serve_forever, args=(0.01,))
        serving.start()
        try:
            monkeypatch.setenv("INTROSPECTION_URL", f"http://127.0.0.1:{provider.server_port}/")
            monkeypatch.setenv("INTROSPECTION_AUTHORIZATION", "Basic eDp5")
            monkeypatch.setenv("no_proxy", "*")
            store = open_named_store("class:tokens:Introspection")
            assert ask(store, "good") == Identity("ann")
            assert ask(store, "for-others") is None and ask(store, "nobody's") is None
            monkeypatch.setenv("INTROSPECTION_AUTHORIZATION", "Basic wrong")
            with pytest.raises(HTTPError):  # which is a temporary failure
                ask(store, "good")
        finally:
            provider.shutdown()
            serving.join()
