"""Code blocks of Markdown pages."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """The blocks in `language` on `page` (a path from the root of the project)."""
    found = []
    for indent, tag, code in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if tag == language:
            found.append(re.sub(f"^{indent}", "", code, flags=re.MULTILINE))
    return found


def pages() -> list[str]:
    """The README and every page of the manual."""
    return ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
