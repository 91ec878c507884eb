"""S5 starts every program that is started for one connection, and each ends well."""

import os
import tomllib
from pathlib import Path

import pytest

from tests.benchmarks import starts, targets
from tests.benchmarks.measure import Failed
from tests.benchmarks.servers import ROOT


def test_every_program_starts_and_ends_well(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    times = starts.programs(tmp_path, ours=True, original=False)
    for name, start in times.items():
        start.once(core)
        assert len(start.seconds) == 1 and start.median > 0, name


def test_none_is_left_out() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {program.words[0] for program in starts.OURS} == set(scripts)


def test_one_that_fails_is_not_fast(tmp_path: Path) -> None:
    start = starts.programs(tmp_path, ours=True, original=False)["smtpfront-echo"]
    start.command = ["/bin/false"]
    with pytest.raises(Failed, match="exit code 1"):
        start.once(min(os.sched_getaffinity(0)))
    assert start.seconds == [] and targets.START_TARGET == 4.0
