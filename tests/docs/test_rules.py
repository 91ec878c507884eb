"""The guide to mail rules: its files are what `mailfront rules` says that they are."""

import re
import subprocess
from pathlib import Path

import pytest

from mailfront_io.rules.language import Code
from tests.docs.blocks import ROOT, blocks
from tests.docs.running import SECONDS, environment

PAGE = "docs/rules.md"
FILES = {
    match[1]: text
    for text in blocks(PAGE, "text")
    if (match := re.match(r"# file: (\S+)\n", text)) is not None
}
SERVER = "mailfront serve"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with every file of the page, and the lists that its last examples name."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for name in ("badmailfrom", "rcpthosts"):
        (tmp_path / name).touch()
    return tmp_path


def run(line: str, place: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        line, shell=True, cwd=place, env=environment(), capture_output=True, text=True, timeout=SECONDS
    )


def test_every_command_prints_what_the_page_says(place: Path) -> None:
    commands = 0
    for block in blocks(PAGE, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            if SERVER in line:
                continue
            ran = run(line, place)
            assert (ran.stdout, ran.stderr) == (output, ""), line
            commands += 1
    assert commands >= 6


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_are_as_right_as_they_claim(name: str, place: Path) -> None:
    if ":sender" not in FILES[name] and ":recipient" not in FILES[name]:
        return
    assert run(f"mailfront rules check {name}", place).returncode == (1 if name == "wrong" else 0)


def test_the_first_example_runs(place: Path) -> None:
    (line,) = [line for block in blocks(PAGE, "console") for line in block.splitlines() if SERVER in line]
    (place / "mail").mkdir()
    one_shot = line.removeprefix("$ ").replace("mailfront serve", "mailfront")
    said = r"EHLO me\r\nMAIL FROM:<a@spam.example>\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.org>\r\n"
    said += r"RCPT TO:<eve@example.org>\r\nRCPT TO:<eve@elsewhere.example>\r\n"
    ran = run(f"printf '{said}' | {one_shot}", place)
    assert [reply[:3] for reply in ran.stdout.splitlines()][-5:] == ["553", "250", "553", "250", "550"]


def test_the_tables_have_every_code() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    table = page[page.index("| code | what it does |") : page.index("Rules are tried in their order")]
    assert re.findall(r"^\| `(.)` \|", table, re.MULTILINE) == [code.value for code in Code]

