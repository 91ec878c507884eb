"""No block of the README or the manual is without a test: it is run, or compared with what is so, or there is a reason
here why not.

``python -m tests.docs.test_every_block`` prints how many there are of each, page by page.
"""

import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from mailfront_io.config.reading import parse_config
from tests.docs.blocks import ROOT, command_lines, fenced, pages
from tests.docs.running import SECONDS, environment
from tests.docs.test_generated import PAGES as GENERATED
from tests.docs.test_pages import ELSEWHERE, WITH_PYTHON, existing_tests

DOCS = ROOT / "docs"
EVERY_PAGE = [*pages(), *(f"docs/plugin/{path.name}" for path in sorted((DOCS / "plugin").glob("*.md")))]
PRINTED = {f"docs/{page}" for page in (*GENERATED.values(), "commands.md")}
"""Pages that a script prints, and a test compares: blocks of any language but Python are part of that."""

PYTHON_ELSEWHERE = {"README.md": 4, "docs/quickstart.md": 1}
"""How many programs ``test_readme.py`` and ``test_quickstart.py`` run, all of their pages."""

README, QUICKSTART, SERVE, REPLACE = "README.md", "docs/quickstart.md", "docs/serve.md", "docs/replace.md"
BACKENDS, RULES, STORES = "docs/backends.md", "docs/rules.md", "docs/stores.md"
ANY: tuple[str, ...] = ()

RUN = {
    "test_a_line_serves": (ANY, r"(.* )?(mailfront serve (?!-).*|mailfront serve --listen .*|tcpserver .*)"),
    "test_commands_of_the_configuration_file": (ANY, r"mailfront config (init|check|show)\b.*"),
    "test_the_path": (
        (README, QUICKSTART, SERVE),
        "mailfront serve -c mailfront.toml|mailfront user add ann|make run|make test|curl .* pop3://.*",
    ),
    "test_the_development_server": ((README, QUICKSTART), "mailfront serve"),
    "test_every_command_prints_what_the_page_says": ((RULES, STORES), ".*(mailfront|python-pure-cdbmake) .*"),
    "test_the_queue_of_the_page_on_backends": ((BACKENDS,), "mailfront queue .*"),
    "test_the_command_of_the_readme_sends": ((README,), "mailfront send .*"),
    "test_a_server_of_your_own": ((QUICKSTART,), r"(printf .*\| )?mailfront send .*|mkdir -p mail.*"),
    "test_there_are_some": ((QUICKSTART,), "export TLS_.*|mkdir -p queue.*"),
    "test_one_shot": ((QUICKSTART,), r"printf 'EHLO me.*\| mailfront smtp echo accept"),
    "test_the_look": ((REPLACE,), r"printf 'QUIT.*\| TCPLOCALHOST=.* smtpfront-echo"),
    "test_it_installs_and_runs": ((README, QUICKSTART, REPLACE), "(.*/bin/)?pip install .*|python3 -m venv .*"),
    "test_the_manual_builds": ((README,), "make docs"),
}
"""By test: the pages, and the lines of their ``console`` and ``sh`` blocks that it runs."""

EXCUSED_LINES = {
    r"make peers": "installs packages, as root",
    r"make bench.*": "takes ten minutes, and the peers; its parts have tests in tests/benchmarks",
    r"(.*/)?python tests/benchmarks/.*": "takes ten minutes, and the peers; its parts have tests in tests/benchmarks",
    r"PATH=/opt/mailfront/bin:\$PATH|MAILFRONT_PROFILE=compat|export PATH MAILFRONT_PROFILE": "part of a script of the "
    "reader's; the variable is in test_a_line_serves",
    "python3 -m timeit .*": "a measurement",
    r"curl -s http://.*/metrics \| grep messages": "needs the server of the page; test_metrics.py reads the same",
}
"""By pattern: why no test runs such lines."""

COMPARED = {
    ("docs/pop3.md", "# file: users"): "test_a_line_serves",
    ("docs/quickstart.md", "220 unknown mailfront ESMTP"): "test_one_shot",
    ("docs/stores.md", "# file: passwd"): "test_lines_of_password_files",
    ("docs/plugins.md", '[project.entry-points."mailfront.plugins"]'): "test_an_entry_point",
}
"""Blocks that are no commands, by page and first line: the test that knows better if they are wrong. The files on the
page on rules have theirs, too, and other ``toml`` is part of a configuration file."""

EXCUSED = {
    ("docs/architecture.md", None): "drawings, and the loops of the code in essence",
    ("docs/logging.md", None): "numbers differ; the form is in test_every_session_has_its_id_in_the_log",
    ("docs/examples.md", "FAILED test_tiny_server.py::test_a_message_arrives_as_it_was_sent"): "in essence what "
    "test_the_fuzzing_session_finds_a_planted_fault sees",
    ("docs/plugins.md", "def test_lists(mailfront):"): "a sketch with an ellipsis; test_test_kit.py uses the fixture",
}
"""Blocks that nothing compares, by page and first line (None: all of the page), and why."""


def verdict(page: str, tag: str, code: str) -> str:
    """``run``, ``compared`` or ``excused``; `LookupError` for a block that nobody cares for."""
    first = code.partition("\n")[0]
    if tag.startswith("{"):
        return _directive(page, tag)
    if tag == "python":
        assert page in WITH_PYTHON or page in PYTHON_ELSEWHERE
        return "run"
    if tag in ("console", "sh"):
        lines = [line for line in command_lines(code) if tag == "sh" or f"$ {line[:10]}" in code]
        found = [_line(page, line) for line in lines]
        return "excused" if set(found) == {"excused"} else "run"
    if page in PRINTED or page.startswith("docs/plugin/") or (page, first) in COMPARED:
        return "compared"
    if tag == "toml":
        return "compared"  # test_tables_of_the_configuration_file reads all of them
    if page == "docs/rules.md" and tag == "text":
        return "compared"  # test_rules.py checks every file, and what is no file is a command's output or a line of one
    if (page, first) in EXCUSED or (page, None) in EXCUSED:
        return "excused"
    raise LookupError(f"{page}: no test knows the {tag} block {first!r}…: run it, compare it, or say why not")


def _directive(page: str, tag: str) -> str:
    name, _, argument = tag.partition(" ")
    if name in ("{toctree}", "{include}"):
        return "compared"  # make docs fails where they lead nowhere
    assert name == "{literalinclude}", f"{page}: {tag}"
    tests = "".join((ROOT / "tests" / "docs" / file).read_text() for file in ("test_examples.py", "test_deployment.py"))
    tests += (ROOT / "tests" / "peers" / "test_queue_programs.py").read_text()
    path = Path(argument)
    known = path.name in tests or any(f'"{part}"' in tests for part in path.parts[1:-1])
    if not known or not (DOCS / path).exists():
        raise LookupError(f"{page}: no test knows {argument}")
    return "run"


def _line(page: str, line: str) -> str:
    for where, pattern in RUN.values():
        if (page in where or where == ANY) and re.fullmatch(pattern, line):
            return "run"
    for pattern in EXCUSED_LINES:
        if re.fullmatch(pattern, line):
            return "excused"
    raise LookupError(f"{page}: no test runs {line!r}: run it, or say why not")


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_every_block_is_run_compared_or_excused(page: str) -> None:
    assert [verdict(page, tag, code) for tag, code in fenced(page)].count("") == 0
    if page in PYTHON_ELSEWHERE:
        assert [tag for tag, _ in fenced(page)].count("python") == PYTHON_ELSEWHERE[page]
    assert set(ELSEWHERE) == set(PYTHON_ELSEWHERE)


def test_a_block_that_nobody_runs_is_found() -> None:
    unknown = [("console", "$ mailfront dance\n"), ("sh", "reboot\n"), ("text", "x\n"), ("{literalinclude} x/y", "")]
    for tag, code in unknown:
        with pytest.raises(LookupError):
            verdict("docs/serve.md", tag, code)


def test_tests_that_are_named_here_exist() -> None:
    existing = existing_tests()
    reasons = " ".join((*EXCUSED_LINES.values(), *EXCUSED.values()))
    named = {*RUN, *COMPARED.values(), *re.findall(r"test_\w+", re.sub(r"test_\w+\.py", "", reasons))}
    assert named - existing == set()
    for file in re.findall(r"test_\w+\.py", reasons):
        assert list((ROOT / "tests").rglob(file)), file


def test_nothing_is_listed_that_is_gone() -> None:
    there: set[tuple[str, str | None]] = set()
    for page in EVERY_PAGE:
        for _, code in fenced(page):
            there |= {(page, code.partition("\n")[0]), (page, None)}
    assert {*COMPARED, *EXCUSED} - there == set()


def test_commands_of_the_configuration_file(tmp_path: Path) -> None:
    """The lines of every page, each page in a directory of its own. A check finds what is missing on this host."""
    seen = 0
    for page in pages():
        place = tmp_path / page.replace("/", "-")
        place.mkdir()
        for tag, code in fenced(page):
            for line in command_lines(code) if tag == "console" else []:
                if not re.match(r"mailfront config ", line) or f"$ {line}" not in code:
                    continue
                done = subprocess.run(
                    line, shell=True, cwd=place, env=environment(), capture_output=True, text=True, timeout=SECONDS
                )
                assert done.returncode == 0 or (" check" in line and done.returncode == 78), (page, line, done.stderr)
                if " check" in line:
                    assert re.search(r"\.toml:\d+: listener \w+: (certificate|store): .* does not exist", done.stderr)
                seen += 1
    assert seen >= 7


TABLES = [
    (page, code)
    for page in pages()
    for tag, code in fenced(page)
    if tag == "toml" and (page, code.partition("\n")[0]) not in COMPARED
]


@pytest.mark.parametrize(("page", "block"), TABLES)
def test_tables_of_the_configuration_file(page: str, block: str) -> None:
    """A block is a whole file, or what stands behind a listener."""
    if "[[listener]]" in block:
        assert parse_config(block, page, {}).listeners
        return
    listener = '[[listener]]\nprotocol = "smtp"\nlisten = ["127.0.0.1:0"]\nbackend = "discard"\n'
    listener += 'plugins = ["counters", "accept-domains"]\n'
    config = parse_config(listener + block, "page", {})
    assert len(config.listeners) == 1


def test_an_entry_point() -> None:
    [block] = [code for tag, code in fenced("docs/plugins.md") if tag == "toml"]
    [(name, value)] = tomllib.loads(block)["project"]["entry-points"]["mailfront.plugins"].items()
    assert re.fullmatch(r"[a-z-]+", name) and re.fullmatch(r"[\w.]+:[A-Z]\w+", value)


if __name__ == "__main__":
    total: Counter[str] = Counter()
    for page in EVERY_PAGE:
        counts = Counter(verdict(page, tag, code) for tag, code in fenced(page))
        total += counts
        print(f"{page:40}", *(f"{counts[kind]:3} {kind}" for kind in ("run", "compared", "excused")))
    print(f"{'all':40}", *(f"{total[kind]:3} {kind}" for kind in ("run", "compared", "excused")))
