"""The Python on the pages of the manual runs, and what the pages name exists."""

import json
import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks, pages
from tests.docs.running import run_python

ELSEWHERE = ("README.md", "docs/quickstart.md")
"""Pages whose programs have tests of their own."""

WITH_PYTHON = [page for page in pages() if page not in ELSEWHERE and blocks(page, "python")]

HOSTILE_ROWS = (ROOT / "tests" / "hostile" / "rows.py").read_text(encoding="utf-8").split()
"""That each of these ids has a test is checked beside it."""

_FILE = re.compile(r"# file: (\S+)\n")


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_blocks_run_in_their_order(page: str, tmp_path: Path) -> None:
    """A block that begins with ``# file: NAME`` is a file of that name; the others are one program."""
    program = []
    for block in blocks(page, "python"):
        named = _FILE.match(block)
        if named is not None:
            (tmp_path / named[1]).write_text(block, encoding="utf-8")
        else:
            program.append(block)
    run_python("\n".join(program), tmp_path)


def existing_tests() -> set[str]:
    files = (ROOT / "tests").rglob("test_*.py")
    return {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}


@pytest.mark.parametrize("page", pages())
def test_tests_that_are_named_exist(page: str) -> None:
    """``test_name`` in full; ``test_h01_…`` as the beginning of a name; ``test_name[case]`` without the case."""
    existing = existing_tests()
    for name, tail in re.findall(r"`(?:[\w/.]+::)?(test_\w+)(…|`|\[)", (ROOT / page).read_text(encoding="utf-8")):
        if tail == "…":
            row = name.removeprefix("test_").rstrip("_").upper()
            assert row in HOSTILE_ROWS or any(known.startswith(name) for known in existing), name
        else:
            assert name in existing, name


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+?)(?:#[\w-]*)?\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


def _recorded_names() -> set[str]:
    golden = json.loads((ROOT / "tests" / "golden" / "original-2.22.json").read_text(encoding="utf-8"))
    transcripts = "".join(path.read_text("latin-1") for path in (ROOT / "tests" / "transcripts").rglob("*.txt"))
    return {session["name"] for session in golden} | set(re.findall(r"^## (\S+)", transcripts, re.MULTILINE))


def test_recorded_sessions_and_transcripts_that_are_named_exist() -> None:
    """In the last column of the tables of the compat notes; ``name-…`` is the beginning of a name."""
    existing = _recorded_names()
    rows = re.findall(r"^\|.*\| ([^|]+) \|$", (ROOT / "docs" / "compat.md").read_text(encoding="utf-8"), re.MULTILINE)
    for name in re.findall(r"`([a-z0-9][a-z0-9-]+)(…?)`", " ".join(rows)):
        beginning, tail = name
        found = [known for known in existing if known == beginning or (tail and known.startswith(beginning))]
        assert found, beginning
