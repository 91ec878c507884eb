"""Next servers on a unix socket, each connection played from the script that scripted drivers play, too."""

import contextlib
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

from mailfront_io.testing import EOF, Action, WaitFor

SECONDS = 60


class Upstream:
    """Listens at `path`; the first connection gets the first of `scripts`, and so on. A context manager.

    `received`: what came over each connection, complete when the block has ended.
    """

    def __init__(self, path: Path, scripts: Sequence[Sequence[Action]]) -> None:
        self.received: list[bytes] = []
        self._scripts = scripts
        self._ended = False
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.settimeout(SECONDS)
        self._listening.bind(str(path))
        self._listening.listen()
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> "Upstream":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as waking:
            waking.settimeout(SECONDS)
            waking.connect(self._listening.getsockname())
        for thread in (self._thread, *self._threads):
            thread.join(SECONDS)
            assert not thread.is_alive()
        self._listening.close()

    def _accept(self) -> None:
        for number, script in enumerate(self._scripts):
            connection, _ = self._listening.accept()
            if self._ended:
                connection.close()
                return
            self.received.append(b"")
            thread = threading.Thread(target=self._play, args=(connection, number, script))
            self._threads.append(thread)
            thread.start()

    def _play(self, connection: socket.socket, number: int, script: Sequence[Action]) -> None:
        received = bytearray()
        found = 0
        with connection, contextlib.suppress(ConnectionError, TimeoutError):
            connection.settimeout(SECONDS)
            for action in script:
                if isinstance(action, bytes):
                    connection.sendall(action)
                elif isinstance(action, WaitFor):
                    while (at := received.find(action.text, found)) < 0:
                        if not (data := connection.recv(65536)):
                            break
                        received += data
                    found = at + len(action.text)
                else:
                    assert action is EOF
                    connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):  # to the end, so that no close breaks the connection
                received += data
        self.received[number] = bytes(received)
