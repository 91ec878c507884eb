"""H22: idle and hostile connections beside honest ones, under every driver; with ten times as many in tests/long."""

import sys
from pathlib import Path

import pytest

from tests.hostile.crowd import stand_a_crowd
from tests.serving import DRIVERS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")


@pytest.mark.parametrize("driver", DRIVERS)
def test_h22_a_crowd_delays_nobody_and_costs_what_is_said(driver: str, tmp_path: Path) -> None:
    idle, hostile = (10, 9) if driver == "fork" else (100, 18)
    stand_a_crowd(driver, tmp_path, idle, hostile, rounds=20)
