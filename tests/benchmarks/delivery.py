"""The cases D1 to D3: mail that is made durable before it is acknowledged, all syncing, in the form of S1.

Beside our queuedir and maildir stands C mailfront's queuedir (it has no maildir), beside our qmail its own; both start
the same little program in the place of qmail-queue, which reads all and keeps nothing. Besides server CPU, these cases
tell the rate: how many messages a second are durable.
"""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median

from tests.benchmarks import scripts
from tests.benchmarks.loadgen import Address
from tests.benchmarks.measure import ScriptedLoad
from tests.benchmarks.servers import OURS, PEERS, Kind, Place, c_program, serving, tcpserver

BACKENDS = {"D1": "queuedir", "D2": "maildir", "D3": "qmail"}
"""What each case stores with."""

_QUEUE = "#!/bin/sh\ncat >/dev/null\ncat <&1 >/dev/null\n"


class DurableLoad(ScriptedLoad):
    """S1's load, which keeps its rates, too."""

    def __init__(self) -> None:
        super().__init__(scripts.one_message(scripts.SMALL), at_once=20, units=1)
        self._rates: list[float] = []

    def run(self, address: Address, connections: int) -> None:
        """As every load does."""
        begun = time.monotonic()
        super().run(address, connections)
        self._rates.append(connections / (time.monotonic() - begun))

    def rate(self, rounds: int) -> float:
        """Messages a second, the median of the last `rounds` runs: those before were rehearsals."""
        return median(self._rates[-rounds:])


def kinds(case: str, scratch: Path, wanted: Iterable[str]) -> list[Kind]:
    """The servers that are in `wanted`, by their names, each with a place of its own."""
    backend = BACKENDS[case]
    peers = "qmail" if backend == "qmail" else "queuedir"

    def c_mailfront(at: Place) -> list[str]:
        return [*tcpserver(at), c_program("mailfront"), "smtp", peers, "accept"]

    found = [replace(PEERS[0], command=c_mailfront)]
    found += [replace(kind, command=serving(kind, ["smtp", backend, "accept"])) for kind in OURS]
    return [
        replace(kind, environment=_place(scratch / case / kind.name.replace(" ", "-")))
        for kind in found
        if kind.name in wanted
    ]


def _place(directory: Path) -> dict[str, str]:
    for name in ("tmp", "new", "cur"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "queue").write_text(_QUEUE)
    (directory / "queue").chmod(0o755)
    place = str(directory)
    return {"QUEUEDIR": place, "MAILDIR_PATH": place, "QMAILHOME": place, "QMAILQUEUE": f"{place}/queue"}
