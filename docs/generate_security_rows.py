"""Prints the table of hostile input from the names of its tests: ``python docs/generate_security_rows.py`` writes
``docs/security-rows.md``; with ``--print`` it goes to standard output.
"""

import ast
import re
import sys
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).with_name("security-rows.md")
TESTS = Path(__file__).parents[1] / "tests" / "hostile"

HEAD = """\
# Hostile input, row by row

Each kind of hostile input has a number, and tests that are named by it; what they are called says what holds. This page
is printed from them by `docs/generate_security_rows.py`, and a test checks that it is current. Another fails when a row
is without a test (`tests/hostile/rows.py` lists them). What the numbers mean together is told in [](security.md).

"Under" says what runs: the *machine* alone, with every split of the bytes; the front end under the *scripted* driver,
in virtual time; *every driver*; or the *part* of mailfront_io that its file is about.

| row | what holds | under | tests |
| --- | --- | --- | --- |
"""


def rows() -> dict[str, list[tuple[str, str, str]]]:
    """Of each row its tests: what holds, what it runs under, and the file."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for path in sorted(TESTS.glob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        imported = {
            alias.asname or alias.name: node.module or ""
            for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
        }  # fmt: skip
        for node in tree.body:
            match = re.match(r"test_(h\d\d)_(.*)", node.name) if isinstance(node, ast.FunctionDef) else None
            if match and isinstance(node, ast.FunctionDef):
                holds = match[2].replace("_", " ")
                found.setdefault(match[1].upper(), []).append((holds, under(node, imported), path.name))
    return dict(sorted(found.items()))


def under(test: ast.FunctionDef, imported: Mapping[str, str]) -> str:
    """What the test runs under, by what it uses; `imported`: the modules of the names in its file."""
    names = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
    if "driver" in {argument.arg for argument in test.args.args}:
        return "every driver"
    if any("front" in name.lower() for name in names) or "run_script" in names:
        return "scripted"
    uses_io = any(imported.get(name, "").startswith("mailfront_io") for name in names)
    return "part" if uses_io else "machine"


def page() -> str:
    """The whole page."""
    lines = []
    for row, tests in rows().items():
        places = sorted({where for _, where, _ in tests})
        files = sorted({file for _, _, file in tests})
        holds = "; ".join(dict.fromkeys(holds for holds, _, _ in tests))
        where = ", ".join(f"`{file}`" for file in files)
        lines.append(f"| {row} | {holds} | {', '.join(places)} | {len(tests)} in {where} |\n")
    return HEAD + "".join(lines)


def main(arguments: list[str]) -> None:
    """Write the page, or print it."""
    if arguments == ["--print"]:
        sys.stdout.write(page())
    else:
        PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
