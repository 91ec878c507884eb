"""The cases of two workers: what a message costs, beside the same server with one, and how they share connections.

Who took a connection is read from the log, in which each line has the number of its process.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from tests.benchmarks import scripts
from tests.benchmarks.loadgen import Address, Script
from tests.benchmarks.measure import ScriptedLoad
from tests.benchmarks.servers import OURS, Kind, Place
from tests.benchmarks.targets import ALONE

CASES: dict[str, tuple[Callable[[], Script], float]] = {
    "W1": (lambda: scripts.one_message(scripts.SMALL), 1),
    "W2": (scripts.many_lock_step, scripts.PER_CONNECTION),
}
"""What a connection says, and how many messages that is."""

AT_ONCE = 20

_CONFIGURATION = """\
[log]
file = "log"
[[listener]]
protocol = "smtp"
listen = ["127.0.0.1:0"]
plugins = ["accept"]
backend = "echo"
"""

_BEGINNING = re.compile(rb"^mailfront\[(\d+)\]: \S+ smtp-1 from ", re.MULTILINE)
"""The first line of a session."""


class SharedLoad(ScriptedLoad):
    """Keeps the smallest part of the connections that a worker had in a run. `log`: of the server."""

    def __init__(self, case: str, log: Path, workers: int) -> None:
        script, units = CASES[case]
        super().__init__(script(), AT_ONCE, units)
        self._log = log
        self._workers = workers
        self.parts: list[float] = []

    def run(self, address: Address, connections: int) -> None:
        self._log.write_bytes(b"")  # the server appends
        super().run(address, connections)
        self.parts.append(smallest_part(self._log.read_bytes(), self._workers))


def smallest_part(log: bytes, workers: int) -> float:
    """What the one of so many workers that has fewest sessions in `log` has, as a part of all."""
    counts = Counter(_BEGINNING.findall(log))
    return min(counts.values()) / counts.total() if len(counts) == workers else 0.0


class Servers:
    """Our drivers that are in `wanted`, each with two workers and with one; and where they log."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self._logs: dict[str, Path] = {}
        found = [kind for kind in OURS if kind.name in wanted]
        self.kinds = [self._kind(kind, kind.name + ALONE, 1) for kind in found]
        self.kinds += [self._kind(kind, kind.name, 2) for kind in found]

    def _kind(self, kind: Kind, name: str, workers: int) -> Kind:
        def command(place: Place) -> list[str]:
            directory = place.port_file.parent
            (directory / "mailfront.toml").write_text(_CONFIGURATION)
            self._logs[name] = directory / "log"
            usual = kind.command(place)
            options = usual[: usual.index("--listen")]
            return [*options, "-c", "mailfront.toml", "--port-file", str(place.port_file), "--workers", str(workers)]

        return replace(kind, name=name, command=command)

    def load(self, case: str, kind: Kind) -> SharedLoad:
        """What a server of `kind`, which is started, is measured with."""
        return SharedLoad(case, self._logs[kind.name], 1 if kind.name.endswith(ALONE) else 2)
