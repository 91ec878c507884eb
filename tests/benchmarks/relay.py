"""The case R1: mail that is handed on. Ours relays to Postfix's smtp-sink, which is not counted; the C original, which
has no relay, writes it to a queue for another program, synced (its queuedir)."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.servers import OURS, PEERS, Kind, Place, c_program, serving, start, tcpserver

CASE = "R1"


def kinds(stack: ExitStack, scratch: Path, core: int, wanted: Iterable[str]) -> list[Kind]:
    """The servers that are in `wanted`, by their names; the next server, on `core`, goes with `stack`. Raises
    `NotThere` and `DidNotStart`, of that server."""
    queue = scratch / "queue"
    for part in ("tmp", "new"):
        (queue / part).mkdir(parents=True, exist_ok=True)

    def c_mailfront(at: Place) -> list[str]:
        return [*tcpserver(at), c_program("mailfront"), "smtp", "queuedir", "accept"]

    [sink] = (kind for kind in PEERS if kind.name == "smtp-sink")
    address = stack.enter_context(start(sink, core, scratch)).address
    upstream = {"UPSTREAM": "{}:{}".format(*address)}
    found = [replace(PEERS[0], command=c_mailfront, environment={"QUEUEDIR": str(queue)})]
    found += [replace(kind, command=serving(kind, ["smtp", "smtp", "accept"]), environment=upstream) for kind in OURS]
    return [kind for kind in found if kind.name in wanted]
