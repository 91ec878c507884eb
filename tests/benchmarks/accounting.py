"""What a server has cost: CPU and memory of a process and everything below it, read from the kernel.

A server may be one process (an event loop), one process with many threads, or
a parent that forks for every connection, so the sum runs over the tree:

- a living process: its CPU clock, which covers all its threads, ended ones
  too, in nanoseconds;
- children that ended and were waited for: the parent's cutime and cstime, in
  clock ticks of 10 ms. That is the coarsest number here, so a run has to cost
  the server about a second before its last digit means something.

A child that ends between two readings moves from the first kind to the second
and is counted once in each reading. Only a child that has ended and is not yet
waited for is counted by its clock, which stays readable until then.
"""

import os
import time
from collections.abc import Collection
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")

# CPUCLOCK_SCHED of the kernel's ABI: how clock_getcpuclockid(3) builds the id of a process's clock.
_CPUCLOCK_SCHED = 2


class Vanished(Exception):
    """A process ended while it was being read."""


def cpu_clock_ns(pid: int) -> int:
    """CPU that this process itself (all its threads, no children) has used."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError as error:
        raise Vanished(pid) from error


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: [0] is the state, [1] the parent's id."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise Vanished(pid) from error
    # The name stands in parentheses and may hold spaces and parentheses itself.
    return text.rpartition(")")[2].split()


def sleeps(pid: int) -> bool:
    """Whether the process waits for something."""
    return _stat(pid)[0] == "S"


def tree(root: int) -> set[int]:
    """The process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                parent = int(_stat(int(entry))[1])
            except Vanished:
                continue
            children.setdefault(parent, []).append(int(entry))
    found: set[int] = set()
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting.extend(children.get(pid, ()))
    return found


def cpu_seconds(root: int) -> float:
    """User and system CPU of the tree until now, children that ended included."""
    nanoseconds = 0
    ticks = 0
    for pid in tree(root):
        try:
            fields = _stat(pid)
            nanoseconds += cpu_clock_ns(pid)
        except Vanished:
            continue
        ticks += int(fields[13]) + int(fields[14])  # cutime, cstime
    return nanoseconds / 1e9 + ticks / _TICK


def settle(root: int, before: Collection[int], patience: float = 5.0) -> bool:
    """Wait until the processes that serve connections have ended and been waited for.

    `before` is what `tree` gave while the server was idle. False if some are
    still there when patience ends; their CPU is in `cpu_seconds` all the same,
    only the last of it may be missing.
    """
    until = time.monotonic() + patience
    while not tree(root) <= set(before):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def memory_kb(root: int) -> int:
    """PSS of the tree in kB: every page counted once, shared ones in proportion."""
    total = 0
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in text.splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
                break
    return total
