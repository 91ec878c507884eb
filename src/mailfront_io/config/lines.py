"""On which line of a TOML text a key stands. `tomllib` does not tell."""

import re
import tomllib
from typing import Any

Path = tuple[str | int, ...]
"""The names from the root to a key; the places in lists of tables are numbers, from 0."""

_NAME = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
_NAMES = rf"({_NAME}(?:[ \t]*\.[ \t]*{_NAME})*)"
_HEADER = re.compile(rf"[ \t]*\[(\[?)[ \t]*{_NAMES}[ \t]*\]")
_KEY = re.compile(rf"[ \t]*{_NAMES}[ \t]*=")
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""|"(?:\\.|[^"\\\n])*"'  # strings, basic
    r"|'''.*?'''|'[^'\n]*'"  # and literal ones
    r"|#[^\n]*|[\[\]{}\n]",
    re.DOTALL,
)


def key_lines(text: str) -> dict[Path, int]:
    """The line, from 1, of each key and table header. `text` must be a valid TOML document."""
    found: dict[Path, int] = {}
    lists: dict[Path, int] = {}
    table: Path = ()
    for start, number in _statements(text):
        if header := _HEADER.match(text, start):
            table = _resolved(_names(header[2]), lists)
            if header[1]:
                lists[table] = lists.get(table, -1) + 1
                table = (*table, lists[table])
            found.setdefault(table, number)
        elif key := _KEY.match(text, start):
            found.setdefault((*table, *_names(key[1])), number)
    return found


def _statements(text: str) -> list[tuple[int, int]]:
    """Where statements may begin, and on which line: at line starts that are in no string, list or inline table."""
    starts = [(0, 1)]
    depth = 0
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word in "[{":
            depth += 1
        elif word in "]}":
            depth -= 1
        elif word == "\n" and depth == 0:
            starts.append((token.end(), text.count("\n", 0, token.end()) + 1))
    return starts


def _names(text: str) -> Path:
    """The names in a dotted key."""
    names: list[str] = []
    value: Any = tomllib.loads(f"{text} = 0")
    while isinstance(value, dict):
        [(name, value)] = value.items()
        names.append(name)
    return tuple(names)


def _resolved(names: Path, lists: dict[Path, int]) -> Path:
    """`names` with the places of the lists of tables on the way: ``listener.settings`` is that of the last one."""
    resolved: Path = ()
    for name in names[:-1]:
        resolved = (*resolved, name)
        if resolved in lists:
            resolved = (*resolved, lists[resolved])
    return (*resolved, names[-1])
