"""H22: 1,000 idle and 100 hostile connections at once; honest mail gets through, and memory stays within its bounds."""

import sys
from pathlib import Path

import pytest

from tests.hostile.crowd import stand_a_crowd
from tests.serving import DRIVERS

pytestmark = [
    pytest.mark.long, pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
]  # fmt: skip


@pytest.mark.parametrize("driver", DRIVERS)
def test_h22_a_thousand_idle_and_a_hundred_hostile_connections(driver: str, tmp_path: Path) -> None:
    """A process for each would take 4 GB: there it is a tenth."""
    idle, hostile = (100, 18) if driver == "fork" else (1000, 100)
    stand_a_crowd(driver, tmp_path, idle, hostile, rounds=100)
