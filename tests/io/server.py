"""A program: `tests.io.sessions` under the driver that its first argument names.

Further arguments: the certificate; the descriptor that notes go to, a line each, first of all the port; the hard
limit on open files, or 0. ``oneshot`` serves descriptors 0 and 1.
"""

import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from mailfront_io import ops

ops.CLEANUP_SECONDS = 0.5  # before any driver has taken it over

from mailfront_io.drivers.listener import Listener  # noqa: E402
from mailfront_io.ops import Connection, Session  # noqa: E402
from tests.io.sessions import recorded  # noqa: E402


def note(line: str) -> None:
    os.write(int(sys.argv[3]), f"{line}\n".encode())


def report(error: BaseException) -> None:
    note(f"report {type(error).__name__}")


def serve(driver: str, listeners: list[Listener], started: Callable[[Callable[[], None]], None]) -> None:
    grace = 5.0
    if driver in ("threads", "fork"):
        from mailfront_io.drivers import blocking

        blocking.run_server(listeners, fork=driver == "fork", stop_grace=grace, on_started=started, report=report)
    elif driver == "trio":
        from mailfront_io.drivers import trio

        trio.run_server(listeners, stop_grace=grace, on_started=started, report=report)
    else:
        from mailfront_io.drivers import asyncio

        asyncio.run_server(
            listeners,
            loop=driver,
            stop_grace=grace,
            on_started=started,
            report=report,
        )


def main(driver: str, certificate: str, _notes: str, limit: str) -> int:
    if int(limit):
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))

    def session(connection: Connection) -> Session:
        coroutine: Session = recorded(connection, note, Path(certificate))
        return coroutine

    if driver == "oneshot":
        from mailfront_io.drivers.oneshot import run_descriptors

        try:
            return run_descriptors(session)
        except Exception as error:
            report(error)
            return 70
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    admitted = 0

    def admit(remote: tuple[str, int] | None) -> bytes | None:
        nonlocal admitted
        admitted += 1
        return b"421 too many\r\n" if admitted > 200 else None

    def release(remote: tuple[str, int] | None) -> None:
        nonlocal admitted
        admitted -= 1

    def started(stop: Callable[[], None]) -> None:
        note(f"port {listening.getsockname()[1]}")

    serve(driver, [Listener(listening, session, admit, release)], started)
    note("ended ")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
