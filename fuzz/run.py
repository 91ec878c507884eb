"""Runs the fuzz harnesses: ``make fuzz``, or ``python fuzz/run.py --seconds 60 [HARNESS...]``.

A harness is a module beside this file with a function ``check(data)`` that raises for what it finds, a directory of
seeds ``seeds/NAME`` and a dictionary ``NAME.dict``. Each runs in a process of its own for so many seconds, guided by
the coverage of `mailfront_proto`, from its seeds and what earlier runs have left in ``fuzz/corpus``. An input that
fails is kept in ``fuzz/crashes`` and named with the command that plays it again. Exit code 1 if there was one.
"""

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NO_HARNESSES = ("run", "oracles", "faults")
HARNESSES = tuple(sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NO_HARNESSES))
JOBS = 2
STARTING = 3
"""Seconds that a harness takes before and after: to be instrumented, and to play its seeds."""
NO_ATHERIS = (
    "atheris cannot be imported here (it has wheels for Linux on x86-64 and Python up to 3.13): only the seeds "
    "were played."
)


def has_atheris() -> bool:
    """Whether the fuzzer is installed."""
    try:
        importlib.import_module("atheris")
    except ImportError:
        return False
    return True


def seeds(name: str) -> list[Path]:
    """The seed inputs of a harness."""
    return sorted((HERE / "seeds" / name).iterdir())


def play_seeds(name: str) -> int:
    """Play the seeds without a fuzzer; how many."""
    check = importlib.import_module(f"fuzz.{name}").check
    for seed in seeds(name):
        check(seed.read_bytes())
    return len(seeds(name))


def become_fuzzer(name: str, fault: str, arguments: list[str]) -> None:
    """Fuzz one harness in this process, with `fault` planted if it is not empty; `arguments` are libFuzzer's."""
    import atheris

    # What a harness tests is imported here, so that its coverage guides the fuzzer.
    with atheris.instrument_imports(
        include=["mailfront_proto", "fuzz.faults"], exclude=["mailfront_proto.testing"]
    ):
        check = importlib.import_module(f"fuzz.{name}").check
        if fault:
            importlib.import_module("fuzz.faults").FAULTS[fault][2]()
    atheris.Setup([name, *arguments], check)
    atheris.Fuzz()


def run(name: str, seconds: int, kept: Path, fault: str = "") -> bool:
    """Fuzz one harness for `seconds`; says what came of it. Returns whether nothing failed. `kept`: where corpus and
    crashes are."""
    corpus, crashes = kept / "corpus" / name, kept / "crashes"
    for directory in (corpus, crashes):
        directory.mkdir(parents=True, exist_ok=True)
    play = [sys.executable, str(HERE / "run.py"), "--one", name, fault]
    options = [
        f"-max_total_time={seconds}", f"-dict={HERE / name}.dict", f"-artifact_prefix={crashes}/{name}-",
        "-max_len=2048", "-print_final_stats=1", "-timeout=10", str(corpus), str(HERE / "seeds" / name),
    ]  # fmt: skip
    began = time.monotonic()
    done = subprocess.run([*play, *options], capture_output=True, text=True, errors="replace", check=False)
    took = time.monotonic() - began
    runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    said = f"{name:14} {int(runs[1]) if runs else 0:9,} inputs in {took:5.1f} s: "
    if done.returncode == 0 and runs:
        print(f"{said}nothing found", flush=True)
        return True
    crash = re.search(r"Test unit written to (\S+)", done.stderr)
    again = f"; play it again with: {' '.join([*play[:-1], repr(fault), crash[1]])}" if crash else ""
    print(f"{said}FAILED{again}\n{done.stdout[-100_000:]}\n{done.stderr[-2000:]}", flush=True)
    return False


def main() -> int:
    """The command."""
    # As a script this file is found by its place; the harnesses are modules of the root's.
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    if sys.argv[1:2] == ["--one"]:
        become_fuzzer(sys.argv[2], sys.argv[3], sys.argv[4:])
    from fuzz.faults import FAULTS

    parser = argparse.ArgumentParser(description="Runs the fuzz harnesses.")
    parser.add_argument("--seconds", type=int, default=60, help="for each harness (default %(default)s)")
    parser.add_argument("--total", type=int, help="how long all of them may take together, in place of --seconds")
    parser.add_argument("--jobs", type=int, default=JOBS, help="harnesses at a time (default %(default)s)")
    parser.add_argument("--fault", choices=FAULTS, help="plant this fault, and let its harness find it")
    parser.add_argument("harness", nargs="*", help=f"those to run, of {', '.join(HARNESSES)}; default all")
    arguments = parser.parse_args()
    unknown = set(arguments.harness) - set(HARNESSES)
    if unknown:
        parser.error(f"there is no harness {', '.join(sorted(unknown))}: take of {', '.join(HARNESSES)}")
    names = arguments.harness or HARNESSES
    if not has_atheris():
        for name in names:
            print(f"{name:14} {play_seeds(name):9,} seeds played")
        print(NO_ATHERIS)
        return 0
    if arguments.fault:
        with tempfile.TemporaryDirectory() as kept:
            return 0 if run(FAULTS[arguments.fault][0], arguments.seconds, Path(kept), arguments.fault) else 1
    seconds = arguments.seconds
    if arguments.total:
        seconds = max(1, arguments.total * arguments.jobs // len(names) - STARTING)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        return 0 if all(list(pool.map(lambda name: run(name, seconds, HERE), names))) else 1


if __name__ == "__main__":
    sys.exit(main())
