"""What a session takes of a message by itself, in µs: its coroutine is stepped here, without socket, loop or client.

    .venv/bin/python tests/benchmarks/stepping.py

Machine, front end, pipeline, plugins, backend and the log (to /dev/null): all but the driver and the kernel. The best
of many short runs, so that a busy machine disturbs it little; S1 makes a session for its one message.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mailfront_io.drivers.stepper import CLOCK
from mailfront_io.log import line_log
from mailfront_io.ops import Connection, Recv, Send
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.server import session_factory
from mailfront_io.service import service_from_line
from tests.benchmarks import chain, scripts
from tests.benchmarks.loadgen import Script

_RUNS = 40

_CASES = {
    "S1": (scripts.one_message(scripts.SMALL), 60),
    "S2": (scripts.many_lock_step(), 2),
    "S2Q": (scripts.many_envelope_pipelined(), 2),
    "S2P": (scripts.many_all_pipelined(), 2),
}
"""The script, and how many sessions are one run."""

_CONNECTION = Connection(CLOCK, ("127.0.0.1", 25), ("127.0.0.1", 4000))


def play(session: SessionCoroutine, script: Script) -> None:
    """Step `session` through `script` to its end."""
    steps = iter([step.send for step in script.steps if step.send])
    answer: bytes | None = None
    try:
        while True:
            operation = session.send(answer)
            if type(operation) is Recv:
                operation.output = b""
                answer = next(steps, b"")
            else:
                assert type(operation) is Send
                answer = None
    except StopIteration:
        return


def best(make: Callable[[Connection], SessionCoroutine], script: Script, sessions: int) -> float:
    """Seconds of CPU for a message."""
    found = []
    for _ in range(_RUNS):
        begun = time.thread_time()
        for _ in range(sessions):
            play(make(_CONNECTION), script)
        found.append(time.thread_time() - begun)
    return min(found) / sessions / script.messages


def main() -> None:
    log = line_log("mailfront", False, os.open(os.devnull, os.O_WRONLY))
    for name, plugins, environment in (("accept", ("accept",), {}), ("ten plugins", chain.PLUGINS, chain.ENVIRONMENT)):
        service = service_from_line(["smtp", "echo", *plugins], environment, log)
        make = session_factory(service, "localhost")
        shown = [f"{case} {best(make, *script) * 1e6:.1f}" for case, script in _CASES.items()]
        print(f"{name}: {', '.join(shown)} µs a message")


if __name__ == "__main__":
    main()
