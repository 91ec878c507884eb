"""What S1, S2 and S2Q would cost if an SMTP server had nothing to do: the floor below each driver, in one run with C
mailfront and with ours.

    .venv/bin/python tests/benchmarks/smtp_floor.py

A bare server looks up what it has read, as a whole, in a dictionary of the bytes that this client sends, and writes the
answer that stands there: no session, no machine, no pipeline, no deadlines, no log. It accepts, reads and writes as our
drivers do. So this is what the kernel, the loop and one callback of a few lines take for the same traffic.
"""

import os
import selectors
import socket
import statistics
import sys
import threading
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import scripts
from tests.benchmarks.loadgen import Script
from tests.benchmarks.measure import ScriptedLoad, beside_each_other
from tests.benchmarks.servers import OURS, PEERS, Kind, Place, listen_and_tell
from tests.benchmarks.targets import C_MAILFRONT, RATIO_TARGETS

_CASES: dict[str, tuple[Script, int, int]] = {
    "S1": (scripts.one_message(scripts.SMALL), 20, 1),
    "S2": (scripts.many_lock_step(), 10, scripts.PER_CONNECTION),
    "S2Q": (scripts.many_envelope_pipelined(), 10, scripts.PER_CONNECTION),
}
"""The script, how many connections at a time, messages of each."""

_LOOPS = ("uvloop", "asyncio", "selector", "blocking")
_ROUNDS = 5
_SECONDS = 0.3

_GREETING = b"220 bare\r\n"


def _answers() -> dict[bytes, bytes]:
    """Every write of the clients, and what it is answered with."""
    found = {}
    for script, _, _ in _CASES.values():
        for step in script.steps:
            size = f" Received {step.size} bytes." if step.size else ""
            found[step.send] = b"".join(code + f"{size or ' ok'}\r\n".encode() for code in step.codes)
    return found


def serve(loop: str, port_file: Path) -> None:
    """Serve until killed."""
    answers = _answers()
    listening = listen_and_tell(port_file)
    if loop == "blocking":
        _serve_in_threads(listening, answers)
    elif loop == "selector":
        _serve_selector(listening, answers)
    else:
        _serve_loop(loop, listening, answers)


def _serve_in_threads(listening: socket.socket, answers: dict[bytes, bytes]) -> None:
    def converse(sock: socket.socket) -> None:
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.send(_GREETING)
            while data := sock.recv(4096):
                sock.send(answers[data])
                if data == b"QUIT\r\n":
                    return

    while True:
        threading.Thread(target=converse, args=(listening.accept()[0],), daemon=True).start()


def _serve_selector(listening: socket.socket, answers: dict[bytes, bytes]) -> None:
    """A loop of ten lines in place of asyncio's."""
    selector = selectors.DefaultSelector()
    listening.setblocking(False)
    selector.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            ready: socket.socket = key.fileobj  # type: ignore[assignment]
            if ready is listening:
                sock = listening.accept()[0]
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(sock, selectors.EVENT_READ)
                sock.send(_GREETING)
                continue
            data = ready.recv(4096)
            if data:
                ready.send(answers[data])
            if not data or data == b"QUIT\r\n":
                selector.unregister(ready)
                ready.close()


def _serve_loop(name: str, listening: socket.socket, answers: dict[bytes, bytes]) -> None:
    import asyncio

    if name == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()

    def accept() -> None:
        sock = listening.accept()[0]
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add_reader(sock.fileno(), read, sock)
        sock.send(_GREETING)

    def read(sock: socket.socket) -> None:
        data = sock.recv(4096)
        if data:
            sock.send(answers[data])
        if not data or data == b"QUIT\r\n":
            loop.remove_reader(sock.fileno())
            sock.close()

    listening.setblocking(False)
    loop.add_reader(listening.fileno(), accept)
    loop.run_forever()


def _bare(loop: str) -> Kind:
    def command(at: Place) -> list[str]:
        return [sys.executable, __file__, "--serve", loop, str(at.port_file)]

    return Kind(f"bare {loop}", command, lambda: None, writes_port=True)


def main() -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    ours = [kind for kind in OURS if kind.name in _LOOPS]
    kinds = [PEERS[0], *map(_bare, _LOOPS), *ours]
    for case, (script, at_once, messages) in _CASES.items():
        load = partial(ScriptedLoad, script, at_once, messages)
        rounds = beside_each_other(kinds, cores[-1], load, _SECONDS, _ROUNDS)
        print(f"{case}: C mailfront {statistics.median(one[C_MAILFRONT] for one in rounds) * 1e6:.1f} µs a message")
        for name in list(rounds[0])[1:]:
            cost = statistics.median(one[name] for one in rounds) * 1e6
            ratio = statistics.median(one[name] / one[C_MAILFRONT] for one in rounds)
            target = RATIO_TARGETS[case].get(name.removeprefix("bare "))
            shown = f" (target {target})" if target is not None else ""
            print(f"  {name}: {cost:.1f} µs, {ratio:.2f} × C{shown}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
