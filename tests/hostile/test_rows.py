"""No row is left out, and no test stands for a row that there is not."""

import ast
import re
from pathlib import Path

from tests.hostile.rows import TESTED


def test_every_row_has_a_test_named_by_its_id() -> None:
    named: set[str] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match = re.match(r"test_(h\d\d)_", node.name) if isinstance(node, ast.FunctionDef) else None
            if match:
                named.add(match[1].upper())
    assert named == TESTED
