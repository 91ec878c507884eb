"""No row is left out, no test is for a row that there is not, and where a connection has a part every driver runs."""

import re
import sys
from pathlib import Path

from tests.hostile.rows import NOT_OF_DRIVERS, ROWS

sys.path.append(str(Path(__file__).parents[2] / "docs"))

from generate_security_rows import PAGE, by_row, without_driver


def test_every_row_has_a_test_named_by_its_id() -> None:
    found = by_row()
    assert list(found) == list(ROWS), "a test or session is named by a row that there is not"
    assert [row for row, tests in found.items() if not tests] == []


def test_where_a_connection_has_a_part_every_driver_is_tested() -> None:
    assert without_driver(by_row()) == []
    assert set(NOT_OF_DRIVERS) <= set(ROWS)


def test_no_result_on_the_page_is_bad() -> None:
    """(What has changed since is "not run" there, but is run here.)"""
    assert re.search("[0-9] failed", PAGE.read_text("utf-8")) is None, (
        "mend what fails, and run python docs/generate_security_rows.py --run"
    )
