"""The log of a server: lines for people, JSON objects, or the original's lines; each session's with an id of its own.

Sinks for one process or one session are functions of a line of text, as everywhere; this is where they come from.
"""

import itertools
import json
import os
import time
from collections.abc import Callable

from mailfront_io.log import MAX_LINE, line_log

MAX_SESSION_LINES = 1000
"""Lines that one session may write; one line more says so. A client cannot fill a disk with a session."""

Sink = Callable[[str], None]


class ServerLog:
    """A log in `form`, ``lines``, ``json`` or ``original``, on `descriptor`."""

    def __init__(self, form: str, descriptor: int = 2) -> None:
        self._form = form
        self._descriptor = descriptor
        self._numbers = itertools.count(1)
        self._line = line_log("mailfront", form == "original", descriptor)

    def __call__(self, text: str) -> None:
        """Write a line of the process."""
        if self._form == "json":
            self._object({"text": text})
        else:
            self._line(text)

    def close(self) -> None:
        """Close the file; standard error stays. Sinks of sessions end with it, so this is for processes without any."""
        if self._descriptor > 2:
            os.close(self._descriptor)

    def session(self, listener: str, remote: str | None) -> Sink:
        """The sink of a new session at `listener`, with a client of that address."""
        if self._form == "original":
            return self._line
        name = f"{os.getpid():x}.{next(self._numbers):x}"
        if self._form == "json":
            return _Capped(
                lambda text: self._object({"session": name, "listener": listener, "remote": remote, "text": text})
            ).write
        write = _Capped(lambda text: self._line(f"{name} {text}")).write
        write(f"{listener} from {remote or 'this host'}")
        return write

    def _object(self, fields: dict[str, str | None]) -> None:
        text = fields["text"] or ""
        if len(text) > MAX_LINE:
            fields["text"] = text[:MAX_LINE] + "…"
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        data = json.dumps({"time": stamp, "pid": os.getpid(), **fields}) + "\n"
        try:
            os.write(self._descriptor, data.encode("ascii"))
        except OSError:
            return  # as in `line_log`: mail goes on


class _Capped:
    """Lets so many lines through."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._left = MAX_SESSION_LINES

    def write(self, text: str) -> None:
        self._left -= 1
        if self._left > 0:
            self._sink(text)
        elif self._left == 0:
            self._sink("… this session has written too much; what follows is left out")


def open_log(form: str, file: str | None) -> ServerLog:
    """The log of these keys of the configuration; a file is made with mode 0600. Raises OSError."""
    if file is None:
        return ServerLog(form)
    return ServerLog(form, os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
