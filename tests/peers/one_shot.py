"""One run of a one-shot program: the original's binary, or ours through a forking helper."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

# A Linux pipe takes this much before a write waits for a reader.
MAX_INPUT = 60_000
SECONDS_PER_RUN = 30
RUNS = 3


class Run(NamedTuple):
    """What came out of a run, as it came."""

    stdout: bytes
    stderr: bytes
    exit: int
    pid: int


def run_program(argv: Sequence[str], env: Mapping[str, str], directory: Path, stdin: bytes) -> Run:
    """Run a program in `directory` with `env` as its whole environment.

    Once in a thousand times the original's CVM client turns in circles for ever: such a run is done again.
    """
    for _ in range(RUNS - 1):
        try:
            return _run(argv, env, directory, stdin)
        except subprocess.TimeoutExpired:
            pass
    return _run(argv, env, directory, stdin)


def _run(argv: Sequence[str], env: Mapping[str, str], directory: Path, stdin: bytes) -> Run:
    process = subprocess.Popen(
        argv,
        env=dict(env),
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            stdout, stderr = process.communicate(stdin, timeout=SECONDS_PER_RUN)
        except BaseException:
            process.kill()
            raise
    return Run(stdout, stderr, process.returncode, process.pid)


class OneShot:
    """Our programs, started by the hundred at the price of a fork each."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._helper = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._helper.kill()
        with self._helper:
            pass

    def run(self, argv: Sequence[str], env: Mapping[str, str], directory: Path, stdin: bytes) -> Run:
        """As `run_program`; `argv[0]` is the program's name only."""
        assert len(stdin) <= MAX_INPUT
        paths = {name: self._scratch / name for name in ("stdin", "stdout", "stderr")}
        paths["stdin"].write_bytes(stdin)
        request = {"argv": list(argv), "env": dict(env), "cwd": str(directory)}
        request |= {name: str(path) for name, path in paths.items()}
        assert self._helper.stdin is not None and self._helper.stdout is not None
        self._helper.stdin.write(json.dumps(request) + "\n")
        self._helper.stdin.flush()
        answer = json.loads(self._helper.stdout.readline())
        return Run(
            paths["stdout"].read_bytes(), paths["stderr"].read_bytes(), answer["exit"], answer["pid"]
        )
