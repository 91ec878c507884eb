"""Results, and the Markdown and JSON that are made of them."""

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.benchmarks import targets
from tests.benchmarks.targets import (
    ALONE,
    C_MAILFRONT,
    DRIVERS,
    MEMORY_TARGETS,
    POSTFIX,
    RATIO_TARGETS,
    SHARE_TARGET,
    Case,
    Unit,
)

# From the unit of a measurement (CPU seconds of a message, a megabyte, a start; kB) to the one shown.
SCALE = {
    Unit.MESSAGE: 1e6,
    Unit.MEGABYTE: 1e3,
    Unit.CONNECTION: 1.0,
    Unit.START: 1e3,
    Unit.SESSION: 1e3,
    Unit.RETRIEVAL: 1e6,
}


@dataclass(slots=True)
class Result:
    """What one server did in one case: a value for each round, or the reason why there is none."""

    values: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def ratio(self, base: "Result | None") -> float | None:
        """Median of the ratios to the other server, round by round; None if either has nothing.

        Round by round, because the two runs of one round stand close together
        in time and suffer the same neighbours.
        """
        if base is None or not self.values or len(self.values) != len(base.values):
            return None
        return statistics.median(ours / theirs for ours, theirs in zip(self.values, base.values, strict=True))


@dataclass(slots=True)
class CoreResult:
    """One ratio of the pure core and its limit, which is an upper one or a lower one."""

    title: str
    value: float
    limit: float
    upper: bool

    @property
    def met(self) -> bool:
        return self.value <= self.limit if self.upper else self.value >= self.limit


@dataclass(slots=True)
class Report:
    """Everything one run of the benchmark found out."""

    command: str
    results: dict[str, dict[str, Result]] = field(default_factory=dict)
    core: list[CoreResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By case and server: the smallest part of the connections that one of its workers had, run by run."""

    def verdict(self, case: Case, server: str) -> tuple[float, float, bool] | None:
        """Of one of our drivers in one case: what counts (ratio or kB), its limit, whether it is met."""
        row = self.results.get(case.name, {})
        result = row.get(server)
        if result is None or not result.values:
            return None
        if case.unit is Unit.START:
            others = (targets.BARE_PYTHON, C_MAILFRONT)
            value = None if server in others else result.ratio(row.get(targets.BARE_PYTHON))
            limit: float | None = targets.START_TARGET
        elif case.unit is Unit.CONNECTION:
            value, limit = result.median, MEMORY_TARGETS[case.name].get(server)
        else:
            value, limit = result.ratio(_base(row, server)), RATIO_TARGETS[case.name].get(server)
        return None if value is None or limit is None else (value, limit, value <= limit)

    @property
    def failures(self) -> list[str]:
        """A sentence for each measurement that could not be made."""
        return [
            f"{case}, {server}: {result.failure}"
            for case, row in self.results.items()
            for server, result in row.items()
            if result.failure is not None
        ]

    @property
    def missed(self) -> list[str]:
        """A sentence for each target that was not met."""
        found = []
        for name, row in self.results.items():
            for server in row:
                verdict = self.verdict(targets.case(name), server)
                if verdict is not None and not verdict[2]:
                    found.append(f"{name}, {server}: {_figure(verdict[0])}, target {_figure(verdict[1])}")
        found += [
            f"{name}, {server}: a worker has {_figure(part)} of the connections, target {_figure(SHARE_TARGET)}"
            for name, row in self.parts.items()
            for server, parts in row.items()
            if (part := statistics.median(parts)) < SHARE_TARGET
        ]
        return found + [
            f"core, {result.title}: {_figure(result.value)}, target {_figure(result.limit)}"
            for result in self.core
            if not result.met
        ]

    def markdown(self) -> str:
        """The table, with what one needs to know to read it."""
        parts = [f"`{self.command}` on {machine()}.\n"]
        cases = [case for case in targets.CASES if case.name in self.results and case.unit is not Unit.START]
        if cases:
            parts.append(self._table(cases))
        if "S5" in self.results:
            parts.append(self._starts())
        if self.core:
            parts.append(self._core())
        sentences = [*self.notes, *map(self._shares, self.parts), *(f"Failed: {failure}" for failure in self.failures)]
        parts.append("".join(f"- {sentence}\n" for sentence in sentences))
        return "\n".join(part for part in parts if part)

    def _shares(self, name: str) -> str:
        medians = {server: statistics.median(parts) for server, parts in self.parts[name].items()}
        shown = ", ".join(f"{server} {_figure(part)}" for server, part in medians.items())
        mark = _mark(f"≥ {_figure(SHARE_TARGET)}", all(part >= SHARE_TARGET for part in medians.values()))
        return f"{name}, the smaller part of the connections that one of two workers had: {shown}; {mark}."

    def _table(self, cases: Sequence[Case]) -> str:
        present = {server for case in cases for server in self.results[case.name]}
        peers = [server for server in (C_MAILFRONT, "aiosmtpd", "smtp-sink", POSTFIX) if server in present]
        ours = [driver for driver in DRIVERS if driver in present]
        lines = [_line(["case", "unit", *peers, *ours]), _line(["---"] * (2 + len(peers) + len(ours)))]
        for case in cases:
            row = self.results[case.name]
            cells = [self._cell(case, server, row.get(server)) for server in (*peers, *ours)]
            lines.append(_line([f"{case.name}: {case.title}", case.unit.value, *cells]))
        return "".join(lines)

    def _cell(self, case: Case, server: str, result: Result | None) -> str:
        if result is None:
            return "–"
        if result.failure is not None or not result.values:
            return "failed"
        value = _figure(result.median * SCALE[case.unit])
        verdict = self.verdict(case, server)
        if verdict is not None:
            number, limit, met = verdict
            mark = _mark(f"≤ {_figure(limit)}", met)
            base = "alone" if server + ALONE in self.results[case.name] else "C"
            ratio = "" if case.unit is Unit.CONNECTION else f"{_figure(number)} × {base}, "
            return f"{value}; {ratio}{mark}"
        to_c = result.ratio(self.results[case.name].get(C_MAILFRONT))
        return value if to_c is None or server == C_MAILFRONT else f"{value}; {_figure(to_c)} × C"

    def _starts(self) -> str:
        case = targets.case("S5")
        lines = [_line([f"S5: {case.title}", case.unit.value, "ratio to bare Python"]), _line(["---"] * 3)]
        row = self.results["S5"]
        for server, result in row.items():
            if result.failure is not None or not result.values:
                lines.append(_line([server, "failed", "–"]))
                continue
            ratio = result.ratio(row.get(targets.BARE_PYTHON))
            shown = "–" if ratio is None else f"{_figure(ratio)}"
            verdict = self.verdict(case, server)
            if verdict is not None:
                shown += ", " + _mark(f"≤ {_figure(verdict[1])}", verdict[2])
            lines.append(_line([server, _figure(result.median * SCALE[case.unit]), shown]))
        return "".join(lines)

    def _core(self) -> str:
        lines = [_line(["pure core", "ratio", "target"]), _line(["---"] * 3)]
        for result in self.core:
            limit = f"{'≤' if result.upper else '≥'} {_figure(result.limit)}"
            lines.append(_line([result.title, _figure(result.value), _mark(limit, result.met)]))
        return "".join(lines)

    def as_json(self) -> dict[str, object]:
        """Everything, every round, for who wants to compare runs."""
        cases: dict[str, object] = {}
        for name, row in self.results.items():
            cases[name] = {
                server: {
                    "values": result.values,
                    "median": result.median if result.values else None,
                    "ratio_to_c": result.ratio(row.get(C_MAILFRONT)),
                    "failure": result.failure,
                }
                for server, result in row.items()
            }
        core = [{**asdict(result), "met": result.met} for result in self.core]
        return {
            "command": self.command,
            "machine": machine(),
            "cases": cases,
            "core": core,
            "parts": self.parts,
            "missed": self.missed,
            "notes": self.notes,
        }


def _base(row: Mapping[str, Result], server: str) -> Result | None:
    """What `server` is held against."""
    return row.get(server + ALONE) or row.get(C_MAILFRONT)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _mark(limit: str, met: bool) -> str:
    return f"{limit} met" if met else f"**{limit} not met**"


def _figure(value: float) -> str:
    """Three significant figures, which is more than such a measurement is worth."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def machine() -> str:
    """The machine in a few words: processor, how many cores, kernel, Python."""
    model = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    kernel = platform.release().partition("-")[0]
    python = f"Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {kernel}, {python}"
