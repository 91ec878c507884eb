"""The benchmark: server CPU of each of our drivers beside other servers', in one run, as a Markdown table.

    make bench
    make bench ARGS='--cases S1,S2 --drivers uvloop,trio'
    make bench ARGS='--quick'        a smoke test: every part runs once, the numbers mean little

One core serves and one sends. In each case all servers are started, warmed up,
and then measured in turn, round after round; the table shows medians, and
ratios are taken within a round. A run with a single unexpected reply counts as
failed, not as fast. Peers that are not installed are left out with a sentence.

Exit code 0: all was measured; 1: something failed, or (with --check) a target was not met.
"""

import argparse
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import chain, core, delivery, packages, pop3, relay, scripts, servers, starts, targets, workers
from tests.benchmarks.measure import (
    Failed,
    Load,
    Meter,
    ScriptedLoad,
    SmtpSourceLoad,
    certificate,
    idle_memory_kb,
)
from tests.benchmarks.report import SCALE, Report, Result
from tests.benchmarks.servers import DidNotStart, Kind, NotThere
from tests.benchmarks.targets import C_MAILFRONT, CASES, DRIVERS, Case, Unit

# How many connections are open at a time in the S2 cases and in those of QMTP.
_S2_AT_ONCE = 10


def _large(message: bytes) -> ScriptedLoad:
    return ScriptedLoad(scripts.one_message(message), at_once=1, units=len(message) / 1e6)


# One-message connections cost little work each, so 20 of them keep the server busy;
# a large message does so alone.
LOADS: dict[str, Callable[[], Load]] = {
    "S1": lambda: ScriptedLoad(scripts.one_message(scripts.SMALL), at_once=20, units=1),
    "S1src": lambda: SmtpSourceLoad(at_once=20, per_connection=1),
    "R1": delivery.DurableLoad,
    "S2": lambda: ScriptedLoad(scripts.many_lock_step(), _S2_AT_ONCE, scripts.PER_CONNECTION),
    "S2ten": lambda: ScriptedLoad(scripts.many_lock_step(), _S2_AT_ONCE, scripts.PER_CONNECTION),
    "S2src": lambda: SmtpSourceLoad(at_once=_S2_AT_ONCE, per_connection=scripts.PER_CONNECTION),
    "S2Q": lambda: ScriptedLoad(scripts.many_envelope_pipelined(), _S2_AT_ONCE, scripts.PER_CONNECTION),
    "S2P": lambda: ScriptedLoad(scripts.many_all_pipelined(), _S2_AT_ONCE, scripts.PER_CONNECTION),
    "S3": lambda: _large(scripts.large()),
    "S3dot": lambda: _large(scripts.large_dotted()),
    **dict.fromkeys(delivery.BACKENDS, delivery.DurableLoad),
    "Q1": lambda: ScriptedLoad(packages.script("Q1"), _S2_AT_ONCE, scripts.PER_CONNECTION),
    "Q1W": lambda: ScriptedLoad(packages.script("Q1W"), _S2_AT_ONCE, packages.WINDOW * packages.WINDOWS),
    "Q2": lambda: ScriptedLoad(packages.script("Q2"), at_once=20, units=1),
}

_NOTE_ACCEPT = (
    "C mailfront runs as `tcpserver … mailfront smtp echo accept`, ours as `mailfront serve … smtp echo "
    "accept`: in Debian's mailfront 2.12 `accept` is compiled into the program (there is no "
    "plugin-accept.so), so both have the same plugin and backend. aiosmtpd runs its Sink handler on "
    "asyncio's own loop; smtp-sink, which only scans for the end of the data, is the floor."
)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    """One run: which servers, how long, what came out."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.kinds: list[Kind] = [kind for kind in servers.PEERS if _option(kind) in options.peers]
        self.kinds += [kind for kind in servers.OURS if kind.name in options.drivers]
        self.seconds: float = options.seconds
        self.rounds: int = options.rounds
        self.idle: int = options.idle
        self.starts: int = options.starts
        self.scratch = scratch
        cores = sorted(os.sched_getaffinity(0))
        self.load_core, self.server_core = cores[0], cores[-1]
        self.report = Report(options.command, notes=[_NOTE_ACCEPT])
        if self.load_core == self.server_core:
            self._note("Only one core: server and load generator share it, so the rates mean nothing.")
        os.sched_setaffinity(0, {self.load_core})

    def run(self, case: Case) -> None:
        progress(f"{case.name}: {case.title}")
        row = self.report.results.setdefault(case.name, {})
        if case.unit is Unit.START:
            self._starts(row)
        elif case.unit is Unit.CONNECTION:
            self._memory(case, row)
        elif case.name.endswith("src") and servers.find_program("smtp-source") is None:
            self._note("Postfix's smtp-source is not installed (make peers): S1src and S2src are left out.")
            del self.report.results[case.name]
        else:
            self._throughput(case, row)

    def run_core(self) -> None:
        progress("core: the machine without a driver")
        with servers.pinned(self.server_core):
            self.report.core = core.measure(self.seconds)
            speed = core.replace_speed()
        self._note(
            f"`replace` of CRLF by LF runs at {speed:,.0f} MB/s in this interpreter: builds of one Python "
            "version differ by more than a factor of two in it, and the body ratios with it."
        )
        for result in self.report.core:
            progress(f"  {result.title}: {result.value:.2f}")

    def _note(self, sentence: str) -> None:
        if sentence not in self.report.notes:
            self.report.notes.append(sentence)
            progress(f"  {sentence}")

    def _failed(self, row: dict[str, Result], name: str, error: Exception) -> None:
        row[name] = Result(failure=str(error))
        progress(f"  {name}: FAILED: {error}")

    def _throughput(self, case: Case, row: dict[str, Result]) -> None:
        kinds = self.kinds
        if case.name in pop3.SIZES:
            kinds = pop3.kinds(self.scratch, case.name, {kind.name for kind in self.kinds})
        elif case.name in packages.PROTOCOLS:
            kinds = packages.kinds(case.name, {kind.name for kind in self.kinds})
        elif case.name == chain.CASE:
            kinds = chain.kinds({kind.name for kind in self.kinds})
        elif case.name in delivery.BACKENDS:
            kinds = delivery.kinds(case.name, self.scratch, {kind.name for kind in self.kinds})
        elif case.name in workers.CASES:
            shared = workers.Servers({kind.name for kind in self.kinds})
            kinds = shared.kinds
        rates: dict[str, delivery.DurableLoad] = {}
        with ExitStack() as stack:
            if case.name == relay.CASE:
                try:
                    kinds = relay.kinds(stack, self.scratch, self.load_core, {kind.name for kind in self.kinds})
                except (NotThere, DidNotStart) as error:
                    self._note(f"{case.name} is left out: {error}")
                    del self.report.results[case.name]
                    return
            meters: dict[str, Meter] = {}
            for kind in kinds:
                try:
                    server = stack.enter_context(servers.start(kind, self.server_core, self.scratch))
                    load = shared.load(case.name, kind) if case.name in workers.CASES else _load(case, kind)
                    meters[kind.name] = Meter(server, load, self.seconds)
                    if isinstance(load, delivery.DurableLoad):
                        rates[kind.name] = load
                    if isinstance(load, workers.SharedLoad) and not kind.name.endswith(targets.ALONE):
                        self.report.parts.setdefault(case.name, {})[kind.name] = load.parts
                    row[kind.name] = Result()
                except NotThere as missing:
                    self._note(str(missing))
                except (Failed, DidNotStart) as error:
                    self._failed(row, kind.name, error)
            for number in range(self.rounds):
                # Each round begins with another server, so that none always runs behind the same one.
                order = list(meters)
                turn = number % max(len(order), 1)
                for name in order[turn:] + order[:turn]:
                    try:
                        value = meters[name].measure()
                    except Failed as error:
                        self._failed(row, name, error)
                        del meters[name]
                        continue
                    row[name].values.append(value)
                    progress(f"  round {number + 1} of {self.rounds}: {name} {_shown(case, value)}")
        if rates:
            shown = ", ".join(f"{name} {rates[name].rate(self.rounds):,.0f}" for name in meters)
            self._note(f"{case.name}, durable messages a second: {shown}.")

    def _memory(self, case: Case, row: dict[str, Result]) -> None:
        under_tls = case.name == "S4TLS"
        try:
            pem = certificate(self.scratch) if under_tls else None
        except Failed as error:
            self._note(f"{case.name} is left out: {error}.")
            del self.report.results[case.name]
            return
        for number in range(self.rounds):
            for kind in self.kinds:
                if (under_tls and not kind.tls) or (kind.name in row and row[kind.name].failure is not None):
                    continue
                try:
                    # A fresh server each time: memory that one round freed would serve the next.
                    with servers.start(kind, self.server_core, self.scratch, pem) as server:
                        value = idle_memory_kb(server, self.idle, under_tls)
                except NotThere as missing:
                    self._note(str(missing))
                    continue
                except (Failed, DidNotStart) as error:
                    self._failed(row, kind.name, error)
                    continue
                row.setdefault(kind.name, Result()).values.append(value)
                progress(f"  round {number + 1} of {self.rounds}: {kind.name} {_shown(case, value)}")

    def _starts(self, row: dict[str, Result]) -> None:
        try:
            times = starts.programs(
                self.scratch,
                ours=any(kind.ours for kind in self.kinds),
                original=any(kind.name == C_MAILFRONT and kind.missing() is None for kind in self.kinds),
            )
        except NotThere as missing:
            self._note(str(missing))
            return
        for start in list(times):
            try:
                for _ in range(2):
                    # Twice for nothing: the first start writes bytecode, the second finds it.
                    times[start].once(self.server_core)
                times[start].seconds.clear()
            except Failed as error:
                self._failed(row, start, error)
                del times[start]
        for _ in range(self.starts):
            for name in list(times):
                try:
                    times[name].once(self.server_core)
                except Failed as error:
                    self._failed(row, name, error)
                    del times[name]
        for name, measured in times.items():
            row[name] = Result(measured.seconds)
            progress(f"  {name} {measured.median * 1e3:.1f} ms, median of {len(measured.seconds)}")


def _load(case: Case, kind: Kind) -> Load:
    if case.name in pop3.SIZES:
        return pop3.MailboxLoad(case.name, logs_in=kind.ours)
    return LOADS[case.name]()


def _shown(case: Case, value: float) -> str:
    return f"{value * SCALE[case.unit]:,.1f} {case.unit.value}"


def _option(kind: Kind) -> str:
    """What a peer is called on the command line: its name, but without a blank."""
    return kind.name.removeprefix("C ")


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",") if name.strip()]
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"no {name!r}; there are: {', '.join(known)}")
        return chosen

    return names


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    cases = [case.name for case in CASES] + ["core"]
    peers = [_option(kind) for kind in servers.PEERS]
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=…", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    for option, known in (("--cases", cases), ("--drivers", list(DRIVERS)), ("--peers", peers)):
        parser.add_argument(option, type=_names(known), default=known, help=f"of {','.join(known)}")
    parser.add_argument("--rounds", type=int, help="rounds of each case (3)")
    parser.add_argument("--seconds", type=float, help="server CPU of one measured run (1.0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single value there")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is not met")
    options = parser.parse_args(arguments)
    quick: bool = options.quick
    options.rounds = options.rounds or (1 if quick else 3)
    options.seconds = options.seconds or (0.1 if quick else 1.0)
    options.idle = 50 if quick else 500
    options.starts = 3 if quick else 20
    options.command = _command(list(arguments))
    return options


def _command(arguments: list[str]) -> str:
    """How to repeat this run; where somebody put the JSON is nobody else's affair."""
    if "--json" in arguments:
        at = arguments.index("--json")
        del arguments[at : at + 2]
    return f"make bench ARGS={shlex.quote(shlex.join(arguments))}" if arguments else "make bench"


def main(arguments: Sequence[str]) -> int:
    if not sys.platform.startswith("linux"):
        progress("The benchmark reads CPU and memory from Linux's /proc; this is another system.")
        return 1
    options = parse(arguments)
    started = time.monotonic()
    # SIGTERM has to stop the servers as Ctrl-C does, through the exit stacks.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="mailfront-bench-") as scratch:
        bench = Bench(options, Path(scratch))
        for case in CASES:
            if case.name in options.cases:
                bench.run(case)
        if "core" in options.cases:
            bench.run_core()
    report = bench.report
    report.notes.append(
        f"Medians of {options.rounds} rounds of {options.seconds:g} s of server CPU each, "
        f"{time.monotonic() - started:.0f} s in all; ratios are taken within a round."
    )
    print(report.markdown())
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n")
    for sentence in report.missed:
        progress(f"Target not met: {sentence}")
    return 1 if report.failures or (options.check and report.missed) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
