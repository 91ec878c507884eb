"""The forking server of `driver.Fork`: every connection's child reads which session it is to play."""

import socket
import sys
from pathlib import Path

from mailfront_io.auth import static  # noqa: F401
from mailfront_io.drivers import tls  # noqa: F401
from mailfront_io.drivers.blocking import run_server
from mailfront_io.drivers.listener import Listener
from mailfront_io.ops import Connection
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.registry import backend_names, load_backend, load_plugin, plugin_names
from tests.conformance import plugins  # noqa: F401 - loaded once, here, not in every child
from tests.conformance.stage import Stage


def main(stage: Path, done: int) -> None:
    def session(connection: Connection) -> SessionCoroutine:
        return Stage.from_json(stage.read_text()).session(connection, done)

    for name in (*plugin_names(), *backend_names()):
        (load_plugin if name in plugin_names() else load_backend)(name)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    run_server([Listener(listener, session)], fork=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
