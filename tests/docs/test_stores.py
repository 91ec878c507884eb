"""The guide to credential stores: its commands print what it says."""

import re
import subprocess
from pathlib import Path

import pytest

from mailfront_io.auth.passwd import PasswdStore
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


@pytest.mark.parametrize("which", [0, 1])
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


def test_the_store_of_the_page_is_one() -> None:
    names: dict[str, type] = {}
    exec(blocks(PAGE, "python")[1], names)
    store = names["Directory"]()
    assert store.mechanisms == ("PLAIN", "LOGIN")
    assert store._bind("ann", Secret(b"pencil")) and not store._bind("ann", Secret(b"x"))
