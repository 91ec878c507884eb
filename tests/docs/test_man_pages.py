"""The man pages, and the page of the manual that says the same, have every program and every option, and no others."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.docs.running import SECONDS, environment
from tests.peers.programs import program

MAN = ROOT / "docs" / "man"
MANUAL = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
PAGES = sorted(MAN.glob("*.1"))
COMMANDS = [path.stem.removeprefix("mailfront-") for path in PAGES if path.stem.startswith("mailfront-")]

_OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


def test_they_are_current() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate_man_pages.py", "--check"], capture_output=True, text=True, check=True
    )
    assert checked.stdout == "", "not current: run python docs/generate_man_pages.py"


def test_every_program_has_one() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {path.stem for path in PAGES if not path.stem.startswith("mailfront-")} == set(scripts)
    named = re.findall(r"^ {7}mailfront ([a-z]+) ", said_by(), re.MULTILINE)
    assert set(COMMANDS) == set(named)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_options_are_those_of_the_help(command: str) -> None:
    """Of the command, and of what stands behind it (``mailfront user add``)."""
    page = MAN / (f"mailfront-{command}.1" if command else "mailfront.1")
    section = page.read_text(encoding="utf-8").partition(".SH OPTIONS\n")[2].partition("\n.SH ")[0]
    in_page = {
        option
        for line in re.findall(r"^\.TP\n\.B (.*)$", section, re.MULTILINE)
        for option in _OPTION.findall(line.replace("\\-", "-"))
    }
    texts = [said_by(*command.split())]
    if found := re.search(r"^  \{?([a-z|,]+)\}?$", texts[0], re.MULTILINE):
        texts += [said_by(command, word) for word in re.split("[|,]", found[1])]
    if command == "config":
        texts += [said_by(command, word) for word in ("init", "check", "show")]
    in_help = {
        option
        for text in texts
        for line in re.findall(r"^  (-.*?)(?: {2,}|$)", text, re.MULTILINE)
        for option in _OPTION.findall(line)
    }
    if not command:
        in_help |= {"-h", "--help", "--version"}  # its help is a text of its own
    assert in_page == in_help
    for option in in_page:
        assert f"`{option}" in MANUAL or f", {option}" in MANUAL


@pytest.mark.peer
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_mandoc_has_nothing_to_say(page: Path) -> None:
    checked = subprocess.run([program("mandoc"), "-T", "lint", "-W", "warning", page], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.peer
def test_man_shows_them() -> None:
    """By groff, with its warnings."""
    for page in PAGES:
        shown = subprocess.run(
            [program("man"), "--warnings", "-l", page],
            env=environment() | {"LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert (shown.returncode, shown.stderr) == (0, "")
        assert f"{page.stem} " in " ".join(shown.stdout.split()) and "SEE ALSO" in shown.stdout


def said_by(*words: str) -> str:
    """What ``mailfront WORDS --help`` prints."""
    done = subprocess.run(
        ["mailfront", *words, "--help"],
        env=environment() | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
