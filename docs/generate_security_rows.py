"""Prints the table of hostile input: ``python docs/generate_security_rows.py`` writes ``docs/security-rows.md``; with
``--print`` it goes to standard output.

What the tests of a row came to stands there, too. It is kept while the tests of the row stay the same; ``--run`` runs
those of rows that have no result, and without the page all of them, which takes some minutes.
"""

import ast
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("security-rows.md")
TESTS = ROOT / "tests"
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.conformance.session_file import SESSIONS, parse  # noqa: E402
from tests.hostile.rows import NOT_OF_DRIVERS, ROWS  # noqa: E402

HEAD = """\
# Hostile input, row by row

Each kind of hostile input has a number, and tests that are named by it. This page is printed from them by
`docs/generate_security_rows.py`, and a test checks that it is current; another fails when a row is without a test, or
without one under every driver although a connection has a part in it. What the numbers mean together is told in
[](security.md).

"Under" says what runs: the *machine* alone, with every split of the bytes; the front end under the *scripted* driver,
in virtual time; *every driver*, which with a protocol behind it means sessions of the conformance suite
(`tests/conformance/sessions`): their bytes, logs and files are the same under the scripted driver, the one-shot program
on pipes and on a socket, threads, fork, asyncio, uvloop and trio; *virtual time*: such a session that takes minutes,
under the scripted driver and trio's mock clock; or the *part* of mailfront_io that its file is about. "Result": what
came of all cases of these tests when they were last run for this page.

| row | what holds | tests | under | result |
| --- | --- | --- | --- | --- |
"""
NOT_RUN = "not run"


@dataclass(frozen=True)
class Test:
    """A test of `row`: what it is called, its file, and what it runs under."""

    row: str
    name: str
    file: str
    under: str


def tests() -> Iterator[Test]:
    """All that are named by rows."""
    for path in sorted(TESTS.rglob("test_*.py")):
        yield from _functions(path)
    for path in sorted(SESSIONS.glob("*.txt")):
        for session in parse(path.read_text("latin-1")):
            protocol = session.words[0].partition("front-")[0]
            where = f"virtual time ({protocol})" if session.waits else f"every driver ({protocol})"
            for row in session.rows:
                yield Test(row, session.name.replace("-", " "), path.name, where)
    yield Test("H38", "recorded sessions of the original", "test_sessions.py", "every driver")


def _functions(path: Path) -> Iterator[Test]:
    tree = ast.parse(path.read_text("utf-8"))
    imported = {
        alias.asname or alias.name: node.module or ""
        for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }  # fmt: skip
    for node in tree.body:
        match = re.match(r"test_((?:h\d\d_)+)(.*)", node.name) if isinstance(node, ast.FunctionDef) else None
        if match and isinstance(node, ast.FunctionDef):
            for row in match[1].upper().split("_")[:-1]:
                yield Test(row, match[2].replace("_", " "), path.name, under(node, imported, path))


def under(test: ast.FunctionDef, imported: Mapping[str, str], path: Path) -> str:
    """What the test runs under, by what it uses; `imported`: the modules of the names in its file."""
    names = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
    if {"driver", "call"} & {argument.arg for argument in test.args.args}:
        return "every driver"
    if path.parent.name == "proto":
        return "machine"
    if any("front" in name.lower() for name in names) or {"run_script", "Talk", "Relay", "POP3Service"} & names:
        return "scripted"
    uses_io = any(imported.get(name, "").startswith("mailfront_io") for name in names)
    return "part" if uses_io or path.parent.name != "hostile" else "machine"


def without_driver(found: Mapping[str, list[Test]]) -> list[str]:
    """Rows that have no test under every driver, nor a reason."""
    return [
        row
        for row, listed in found.items()
        if row not in NOT_OF_DRIVERS and not any(t.under.startswith(("every driver", "virtual")) for t in listed)
    ]


def by_row() -> dict[str, list[Test]]:
    """The tests of each row, in the order of rows; empty for one that has none."""
    found: dict[str, list[Test]] = {row: [] for row in ROWS}
    for test in tests():
        found.setdefault(test.row, []).append(test)
    return found


def page(results: Mapping[str, str]) -> str:
    """The whole page. `results`: of each row, by the rest of its line."""
    lines = []
    for row, listed in by_row().items():
        files: dict[str, list[str]] = {}
        for test in listed:
            files.setdefault(test.file, []).append(test.name)
        cell = ". ".join(f"`{file}`: {'; '.join(dict.fromkeys(names))}" for file, names in files.items())
        head = f"| {row} | {ROWS.get(row, '')} | {cell} | {_where(listed)} |"
        lines.append(f"{head} {results.get(head, NOT_RUN)} |\n")
    return HEAD + "".join(lines)


def _where(listed: list[Test]) -> str:
    places: dict[str, set[str]] = {}
    for test in listed:
        place, _, protocol = test.under.partition(" (")
        places.setdefault(place, set()).update({protocol.rstrip(")")} - {""})
    return ", ".join(f"{place} ({' '.join(sorted(of))})" if of else place for place, of in sorted(places.items()))


def kept() -> dict[str, str]:
    """The results on the page, by what is in front of them."""
    lines = PAGE.read_text("utf-8").splitlines() if PAGE.exists() else []
    return {
        head + "|": result.strip()
        for line in lines
        if line.startswith("| H")
        for head, _, result in [line.removesuffix(" |").rpartition("|")]
        if result.strip() != NOT_RUN
    }


def run(rows: list[str]) -> dict[str, str]:
    """The results of running the tests of `rows`, by row."""
    files = {str(path) for path in TESTS.rglob("test_*.py") if any(test.row in rows for test in _functions(path))}
    files.add(str(TESTS / "conformance" / "test_sessions.py"))
    expression = " or ".join(f"{sign}{row.lower()}" for sign in "_-" for row in rows)
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", f"--junitxml={report}"]
        subprocess.run([*command, "-k", expression, *sorted(files)], cwd=ROOT, check=False)
        for case in ET.parse(report).iter("testcase"):
            what = {child.tag for child in case}
            outcome = "failed" if what & {"failure", "error"} else "skipped" if "skipped" in what else "passed"
            for number in set(re.findall(r"(?<![a-z0-9])h(\d\d)(?![a-z0-9])", case.get("name", ""))):
                counts.setdefault(f"H{number}", Counter())[outcome] += 1
    return {
        row: ", ".join(f"{of[outcome]:,} {outcome}" for outcome in ("failed", "passed", "skipped") if of[outcome])
        for row, of in counts.items()
    }


def run_missing(results: dict[str, str]) -> None:
    """Put into `results` those of the rows that have none, or a bad one."""
    heads = [line.removesuffix(f" {NOT_RUN} |") for line in page({}).splitlines() if line.startswith("| H")]
    missing = {head[2:5]: head for head in heads if "failed" in results.get(head, "failed")}
    if missing:
        new = run(list(missing))
        results.update({head: new.get(row, NOT_RUN) for row, head in missing.items()})


def main(arguments: list[str]) -> None:
    """Write the page, or print it."""
    results = kept()
    if arguments == ["--run"]:
        run_missing(results)
    text = page(results)
    if arguments == ["--print"]:
        sys.stdout.write(text)
    else:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
