"""What Q1 and Q1W would cost if a server had nothing to do: the floor under each driver, beside C mailfront.

    .venv/bin/python tests/benchmarks/packages_floor.py

A bare server reads the same packages, which it takes for granted and only counts by their length, answers each with
the same fixed bytes, and writes the same three lines of log. No session, no machine, no pipeline: what is left is the
kernel, the loop, and a callback of a few lines. `make bench ARGS='--cases Q1,Q1W'` has our servers.
"""

import os
import socket
import statistics
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import packages
from tests.benchmarks.measure import ScriptedLoad, beside_each_other
from tests.benchmarks.scripts import PER_CONNECTION
from tests.benchmarks.servers import Kind, Place, listen_and_tell
from tests.benchmarks.targets import C_MAILFRONT, RATIO_TARGETS

_AT_ONCE = 10
_ROUNDS = 3
_SECONDS = 0.5

_ANSWER = packages.netstring(b"KReceived 1007 bytes.")
_LINES = (
    b"mailfront[12345]: 1a2b.1 sender <sender@client.example>\n",
    b"mailfront[12345]: 1a2b.1 recipient <recipient@server.example>\n",
    b"mailfront[12345]: 1a2b.1 Subject: a message of one kilobyte\n",
)


class Counting:
    """One connection: bytes in, bytes out."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = 0

    def answer(self, received: int) -> bytes:
        """What so many bytes more are answered with."""
        count, self._held = divmod(self._held + received, self._size)
        for _ in range(count):
            for line in _LINES:
                os.write(2, line)
        return _ANSWER * count


def serve(loop: str, size: int, port_file: Path) -> None:
    """Serve until killed."""
    if loop == "blocking":
        import threading

        def converse(sock: socket.socket) -> None:
            with sock:
                counting = Counting(size)
                while data := sock.recv(65536):
                    sock.sendall(counting.answer(len(data)))

        listening = listen_and_tell(port_file)
        while True:
            threading.Thread(target=converse, args=(listening.accept()[0],), daemon=True).start()

    import asyncio

    buffer = bytearray(65536)

    class Bare(asyncio.BufferedProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._write = transport.write  # type: ignore[attr-defined]
            self._answer = Counting(size).answer

        def get_buffer(self, hint: int) -> bytearray:
            return buffer

        def buffer_updated(self, received: int) -> None:
            if answer := self._answer(received):
                self._write(answer)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Bare, sock=listen_and_tell(port_file))
        await server.serve_forever()

    if loop == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())


def kind(loop: str, size: int) -> Kind:
    """The bare server on `loop`."""

    def command(at: Place) -> list[str]:
        return [sys.executable, __file__, "--serve", loop, str(size), str(at.port_file)]

    return Kind(loop, command, lambda: None, writes_port=True, greets=False)


def main() -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    loops = ("uvloop", "asyncio", "blocking")
    for case, per_connection in (("Q1", PER_CONNECTION), ("Q1W", packages.WINDOW * packages.WINDOWS)):
        script = packages.script(case)
        size = len(script.steps[0].send) // script.steps[0].messages
        kinds = (*packages.kinds(case, {C_MAILFRONT}), *(kind(loop, size) for loop in loops))
        load = partial(ScriptedLoad, script, _AT_ONCE, per_connection)
        rounds = beside_each_other(kinds, cores[-1], load, _SECONDS, _ROUNDS)
        print(f"{case}: C mailfront {statistics.median(one[C_MAILFRONT] for one in rounds) * 1e6:.1f} µs a package")
        for loop in loops:
            cost = statistics.median(one[loop] for one in rounds) * 1e6
            ratio = statistics.median(one[loop] / one[C_MAILFRONT] for one in rounds)
            print(f"  a bare loop, {loop}: {cost:.1f} µs, {ratio:.2f} × C (target {RATIO_TARGETS[case][loop]})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
