"""The page that embeds every machine in fifteen lines does; that it runs is checked by ``test_pages.py``."""

import importlib
import re

import pytest

from tests.docs.blocks import blocks

PAGE = "docs/embedding.md"
*EMBEDDED, TWO_BY_TWO = blocks(PAGE, "python")
PACKAGES = ("smtp", "pop3", "imap", "qmtp", "qmqp", "clamd", "spamd")


@pytest.mark.parametrize("block", EMBEDDED, ids=lambda block: re.findall(r"def (\w+)", block)[0])
def test_fifteen_lines_that_need_nothing_else(block: str) -> None:
    lines = [line for line in block.splitlines() if line.strip()]
    assert len(lines) <= 15 and max(map(len, lines)) <= 121
    assert all(line.startswith("from mailfront_proto") for line in lines if "import " in line)


def test_every_machine_is_there() -> None:
    machines = {
        name
        for package in PACKAGES
        for module in [importlib.import_module(f"mailfront_proto.{package}")]
        for name in getattr(module, "__all__", vars(module))
        if re.fullmatch(r"[A-Z]\w+(Server|Client)", name)
    }
    assert len(machines) == 14
    assert {name for name in machines if not re.search(rf"\b{name}\b", "".join(EMBEDDED) + TWO_BY_TWO)} == set()


def test_every_function_is_run() -> None:
    functions = re.findall(r"^def (\w+)", "".join(EMBEDDED), re.MULTILINE)
    assert len(functions) == 13
    assert [name for name in functions if name not in TWO_BY_TWO] == []
