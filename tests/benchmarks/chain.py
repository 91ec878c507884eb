"""The case of a chain of ten plugins: what they add to S2, beside the same server with `accept` alone."""

from collections.abc import Iterable
from dataclasses import replace

from tests.benchmarks.servers import OURS, Kind, serving
from tests.benchmarks.targets import ALONE

CASE = "S2ten"

PLUGINS = (
    "check-fqdn", "reject", "require-auth", "mailrules", "patterns", "relayclient", "accept-domains", "accept-sender",
    "accept-recipient", "accept",
)  # fmt: skip
"""Ten that wait for nothing; none refuses (`RELAYCLIENT` lets the client in). mailrules and patterns have no file here:
they let their hooks rest."""

ENVIRONMENT = {"RELAYCLIENT": "", "ACCEPT_DOMAINS": "other.example"}


def kinds(wanted: Iterable[str]) -> list[Kind]:
    """Our drivers that are in `wanted`, each with the chain and alone."""
    found = [kind for kind in OURS if kind.name in wanted]
    chained = [
        replace(kind, command=serving(kind, ["smtp", "echo", *PLUGINS]), environment=ENVIRONMENT) for kind in found
    ]
    return [*(replace(kind, name=kind.name + ALONE) for kind in found), *chained]
