"""The forking server of `driver.Fork`: every connection's child reads which session it is to play."""

import socket
import sys
from pathlib import Path

from mailfront_io.drivers.blocking import run_server
from mailfront_io.drivers.listener import Listener
from mailfront_io.ops import Connection
from mailfront_io.ops import Session as SessionCoroutine
from tests.conformance.stage import Stage


def main(stage: Path, done: int) -> None:
    def session(connection: Connection) -> SessionCoroutine:
        return Stage.from_json(stage.read_text()).session(connection, done)

    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    run_server([Listener(listener, session)], fork=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
