"""Code blocks of Markdown pages."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^( *)```(\S[^\n]*)?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """The blocks in `language` on `page` (a path from the root of the project)."""
    return [code for tag, code in fenced(page) if tag == language]


def fenced(page: str) -> list[tuple[str, str]]:
    """Every block on `page`: what stands behind the fence, and what is in it."""
    found = []
    for indent, tag, code in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        found.append((tag, re.sub(f"^{indent}", "", code, flags=re.MULTILINE)))
    return found


def pages() -> list[str]:
    """The README and every page of the manual."""
    return ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


def command_lines(block: str) -> list[str]:
    """The commands of a console or shell block, each in one line, without prompts, output and comments."""
    joined = re.sub(r" *\\\n *", " ", block)
    lines = [line.removeprefix("$ ").split("  #")[0].strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
