"""S5: what every program that is started for one connection costs, from exec until it waits for its first command.

Each is started as a superserver starts it, and read when it has said its greeting (QMTP and QMQP have none) and sleeps
in its first read. It then gets a word of goodbye and must end well: one that failed early is not counted as fast.
"""

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks import accounting, targets
from tests.benchmarks.loadgen import SILENCE
from tests.benchmarks.measure import Failed
from tests.benchmarks.servers import NotThere, c_program, pinned

_ASLEEP = 0.01
"""Seconds in which a program that waits for its client uses no CPU."""


@dataclass(frozen=True, slots=True)
class Program:
    """One of them: its words, the beginning of what it says first, what ends it, and the beginning of its answer."""

    words: tuple[str, ...]
    greeting: bytes = b""
    goodbye: bytes = b""
    farewell: bytes = b""


_SMTP = (b"220 ", b"QUIT\r\n", b"221 ")
_POP3 = (b"+OK", b"QUIT\r\n", b"+OK")
_BARE = (sys.executable, "-c", "pass")

# By the original's names, with the programs behind a login that are never reached here; and lines of `mailfront`.
OURS = (
    Program(("mailfront", "smtp", "echo", "accept"), *_SMTP),
    Program(("mailfront", "lmtp", "echo", "accept"), *_SMTP),
    Program(("mailfront", "qmtp", "echo", "accept")),
    Program(("mailfront", "qmqp", "echo", "accept")),
    Program(("smtpfront-echo",), *_SMTP),
    Program(("smtpfront-qmail",), *_SMTP),
    Program(("qmtpfront-echo",)),
    Program(("qmtpfront-qmail",)),
    Program(("qmqpfront-echo",)),
    Program(("qmqpfront-qmail",)),
    Program(("pop3front-auth", "cvm-pwfile", "true"), *_POP3),
    Program(("pop3front-maildir", "maildir"), *_POP3),
    Program(("imapfront-auth", "true"), b"* OK ", b"a LOGOUT\r\n", b"* BYE "),
)


@dataclass(slots=True)
class StartTimes:
    """CPU seconds of several starts of one program; None: of a Python that does nothing."""

    program: Program | None
    command: list[str]
    place: Path
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def once(self, core: int) -> None:
        """Start it once more; raises Failed."""
        with pinned(core):
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(self.place),
                cwd=self.place,
            )
        try:
            self._read(process)
        finally:
            process.kill()
            process.wait()

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        program = self.program
        assert process.stdin is not None and process.stdout is not None
        with process.stdin, process.stdout:
            if program is None:
                _, _, usage = os.wait4(process.pid, 0)
                process.returncode = 0
                self.seconds.append(usage.ru_utime + usage.ru_stime)
                return
            greeting = process.stdout.readline() if program.greeting else b""
            used = _when_asleep(process)
            if not greeting.startswith(program.greeting):
                raise Failed(f"greeted with {greeting!r}")
            process.stdin.write(program.goodbye)
            process.stdin.close()
            rest = process.stdout.read()
        code = process.wait(SILENCE)
        if not rest.startswith(program.farewell) or code:
            raise Failed(f"answered {program.goodbye!r} with {rest!r} and exit code {code}")
        self.seconds.append(used)


def _when_asleep(process: "subprocess.Popen[bytes]") -> float:
    """The CPU seconds that the process has used, once it waits for something and uses no more."""
    until = time.monotonic() + SILENCE
    before = -1
    while time.monotonic() < until:
        if process.poll() is not None:
            raise Failed(f"it ended with exit code {process.returncode}")
        try:
            used = accounting.cpu_clock_ns(process.pid)
        except accounting.Vanished:
            continue
        if used == before and accounting.sleeps(process.pid):
            return used / 1e9
        before = used
        time.sleep(_ASLEEP)
    raise Failed(f"it still works {SILENCE:g} s after its start")


def _environment(place: Path) -> dict[str, str]:
    """What a superserver gives it, and where qmail and the modules of a login are."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PROTO": "TCP",
        "TCPREMOTEIP": "127.0.0.1",
        "QMAILHOME": str(place),
        "CVM_SASL_PLAIN": "cvm-pwfile",
    }


def programs(scratch: Path, *, ours: bool, original: bool) -> dict[str, StartTimes]:
    """What is to be started, by what it is called in the table. Raises NotThere when ours are not installed."""
    place = scratch / "starts"
    for directory in ("control", "maildir/cur", "maildir/new", "maildir/tmp"):
        (place / directory).mkdir(parents=True, exist_ok=True)
    found = {targets.BARE_PYTHON: StartTimes(None, list(_BARE), place)}
    for program in OURS if ours else ():
        path = Path(sys.executable).with_name(program.words[0])
        if not path.exists():
            raise NotThere(f"S5 is left out: there is no {path} (make venv).")
        found[" ".join(program.words)] = StartTimes(program, [str(path), *program.words[1:]], place)
    if original:
        command = [c_program("mailfront"), "smtp", "echo", "accept"]
        found[targets.C_MAILFRONT] = StartTimes(Program(tuple(command), *_SMTP), command, place)
    return found
