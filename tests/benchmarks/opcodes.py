"""What a message costs in bytecode: instructions of the interpreter for each message, by room of the architecture.

    .venv/bin/python tests/benchmarks/opcodes.py
    .venv/bin/python tests/benchmarks/opcodes.py trio S1

A deterministic measure: it is the same on a busy machine. It does not see what happens below the interpreter (the
kernel, uvloop, regular expressions), so it guides and does not prove; `make bench` does. The server runs in this
process under a trace function, the client in a thread beside it.
"""

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mailfront_io.admission import Admission
from mailfront_io.drivers.listener import Listener
from mailfront_io.server import listen, session_factory
from mailfront_io.server_log import ServerLog
from mailfront_io.service import service_from_line
from tests.benchmarks import chain, packages, scripts
from tests.benchmarks.loadgen import Address, Script, rehearse

# Repeated until the count of one more is known: the first have caches to fill, and values of which the fourth of its
# class compiles how they are made.
_WARM_UP, _COUNTED = 6, 5

CASES: dict[str, Callable[[], Script]] = {
    "S1": lambda: scripts.one_message(scripts.SMALL),
    "S2": scripts.many_lock_step,
    chain.CASE: scripts.many_lock_step,
    "S2Q": scripts.many_envelope_pipelined,
    "S2P": scripts.many_all_pipelined,
    **{case: partial(packages.script, case) for case in packages.PROTOCOLS},
}

# The first part of a file's path that is found here says whose the instruction is.
_ROOMS = (
    ("mailfront_proto", "machine"),
    ("mailfront_io/frontends", "front end"),
    ("mailfront_io/drivers", "driver"),
    ("mailfront_io/log", "log"),
    ("mailfront_io/server_log", "log"),
    ("mailfront_io/service", "session set-up"),
    ("mailfront_io/server", "session set-up"),
    ("mailfront_io/session", "session set-up"),
    ("mailfront_io", "pipeline, plugins, backend"),
    ("", "library (trio, asyncio, …)"),
)


class OpcodeCounter:
    """Counts the instructions that the traced threads execute, by file and function."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        key = (frame.f_code.co_filename, frame.f_code.co_qualname)
        counts = self.counts

        def count(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "opcode":
                counts[key] += 1
            return count

        return count


def room(path: str) -> str:
    """The room that a source file belongs to."""
    return next(name for part, name in _ROOMS if part in path)


def _serve(driver: str, listener: Listener, on_started: Callable[[Callable[[], None]], None]) -> None:
    if driver == "trio":
        import trio

        from mailfront_io.drivers import trio as trio_driver

        async def serve() -> None:
            await trio_driver.serve([listener], on_started=on_started)

        trio.run(serve)
    elif driver == "asyncio":
        import asyncio

        from mailfront_io.drivers import asyncio as asyncio_driver

        asyncio.run(asyncio_driver.serve([listener], on_started=on_started))
    else:
        from mailfront_io.drivers import blocking

        blocking.serve([listener], on_started=on_started)


def count(driver: str, case: str) -> Counter[tuple[str, str]]:
    """Instructions of `_COUNTED` connections of `case` under `driver`."""
    protocol = packages.PROTOCOLS.get(case, "smtp")
    plugins, environment = (chain.PLUGINS, chain.ENVIRONMENT) if case == chain.CASE else (("accept",), {})
    log = ServerLog("lines", os.open(os.devnull, os.O_WRONLY))
    service = service_from_line([protocol, "echo", *plugins], environment, log)
    admission = Admission(service.log)
    socket = listen("127.0.0.1", 0)
    address: Address = socket.getsockname()
    listener = Listener(socket, session_factory(service, "localhost"), admission.admit, admission.release)
    script = CASES[case]()
    counter = OpcodeCounter()
    results: list[Counter[tuple[str, str]]] = []

    def client(stop: Callable[[], None]) -> None:
        try:
            for _ in range(_WARM_UP):
                rehearse(address, script)
            before = counter.counts.copy()
            for _ in range(_COUNTED):
                rehearse(address, script)
            results.append(counter.counts - before)
        finally:
            stop()

    def started(stop: Callable[[], None]) -> None:
        threading.settrace(None)  # the client's own thread is not counted
        thread = threading.Thread(target=client, args=(stop,))
        thread.start()
        threading.settrace(counter)

    sys.settrace(counter)
    threading.settrace(counter)
    try:
        _serve(driver, listener, started)
    finally:
        sys.settrace(None)
        threading.settrace(None)
    return results[0]


def main(words: list[str]) -> int:
    drivers = words[:1] or ["asyncio", "trio", "blocking"]
    for case in words[1:2] or list(CASES):
        for driver in drivers:
            counts = count(driver, case)
            messages = CASES[case]().messages * _COUNTED
            rooms: Counter[str] = Counter()
            for (path, _), number in counts.items():
                rooms[room(path)] += number
            shown = ", ".join(f"{name} {number / messages:,.0f}" for name, number in rooms.most_common())
            print(f"{case} {driver}: {rooms.total() / messages:,.0f} instructions a message: {shown}")
            if len(words) > 1:
                for (path, name), number in counts.most_common(110):
                    print(f"  {number / messages:8.1f}  {room(path)}: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
