"""Runs the fuzz harnesses: ``make fuzz``, or ``python fuzz/run.py --seconds 60 [HARNESS...]``.

Each runs in a process of its own for so many seconds, guided by the coverage of `mailfront_proto`, from the
seeds in ``fuzz/seeds`` and what earlier runs have left in ``fuzz/corpus``. An input that fails is kept in
``fuzz/crashes`` and named with the command that plays it again. Exit code 1 if there was one.
"""

import argparse
import importlib
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
HARNESSES = ("smtp_server", "addresses", "dot_decoder")
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


def become_fuzzer(name: str, arguments: list[str]) -> None:
    """Fuzz one harness in this process; `arguments` are libFuzzer's."""
    import atheris

    # What a harness tests is imported here, so that its coverage guides the fuzzer.
    with atheris.instrument_imports(include=["mailfront_proto"]):
        check = importlib.import_module(f"fuzz.{name}").check
    atheris.Setup([name, *arguments], check)
    atheris.Fuzz()


def run(name: str, seconds: int) -> bool:
    """Fuzz one harness for `seconds`; says what came of it. Returns whether nothing failed."""
    corpus, crashes = HERE / "corpus" / name, HERE / "crashes"
    for directory in (corpus, crashes):
        directory.mkdir(parents=True, exist_ok=True)
    play = [sys.executable, str(HERE / "run.py"), "--one", name]
    options = [
        f"-max_total_time={seconds}", f"-dict={HERE / name}.dict", f"-artifact_prefix={crashes}/{name}-",
        "-max_len=2048", "-print_final_stats=1", "-timeout=10", str(corpus), str(HERE / "seeds" / name),
    ]  # fmt: skip
    began = time.monotonic()
    done = subprocess.run([*play, *options], capture_output=True, text=True, errors="replace", check=False)
    took = time.monotonic() - began
    runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    print(f"{name:12} {int(runs[1]) if runs else 0:9,} inputs in {took:5.1f} s: ", end="")
    if done.returncode == 0 and runs:
        print("nothing found")
        return True
    crash = re.search(r"Test unit written to (\S+)", done.stderr)
    print("FAILED" + (f"; play it again with: {' '.join([*play, crash[1]])}" if crash else ""))
    print(done.stderr[-4000:])
    return False


def main() -> int:
    """The command."""
    # As a script this file is found by its place; the harnesses are modules of the root's.
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    if sys.argv[1:2] == ["--one"]:
        become_fuzzer(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description="Runs the fuzz harnesses.")
    parser.add_argument("--seconds", type=int, default=60, help="for each harness (default %(default)s)")
    parser.add_argument("harness", nargs="*", help=f"those to run, of {', '.join(HARNESSES)}; default all")
    arguments = parser.parse_args()
    unknown = set(arguments.harness) - set(HARNESSES)
    if unknown:
        parser.error(f"there is no harness {', '.join(sorted(unknown))}: take of {', '.join(HARNESSES)}")
    names = arguments.harness or HARNESSES
    if not has_atheris():
        for name in names:
            print(f"{name:12} {play_seeds(name):9,} seeds played")
        print(NO_ATHERIS)
        return 0
    return 0 if all([run(name, arguments.seconds) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(main())
