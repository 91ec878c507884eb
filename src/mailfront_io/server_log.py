"""The log of a server: lines for people, JSON objects, or the original's lines; each session's with an id of its own.

Sinks for one process or one session are functions of a line of text, as everywhere; this is where they come from.
`mailfront_io.loggers` is the same log for programs that have a server in them and use the standard library's.
"""

import itertools
import json
import os
import time
from collections.abc import Callable
from typing import Protocol

from mailfront_io.log import MAX_LINE, line_log

MAX_SESSION_LINES = 1000
"""Lines that one session may write; one line more says so. A client cannot fill a disk with a session."""

Sink = Callable[[str], None]


class SessionLog:
    """Takes the lines of one session, and lets `MAX_SESSION_LINES` through to `write`, which cuts them. `id`: what the
    session is called in them; empty where lines have no ids."""

    __slots__ = ("_left", "_write", "id")

    def __init__(self, id: str, write: Sink) -> None:
        self.id = id
        self._write = write
        self._left = MAX_SESSION_LINES

    def write(self, text: str) -> None:
        """Take a line."""
        self._left = left = self._left - 1
        if left > 0:
            self._write(text)
        elif left == 0:
            self._write("… this session has written too much; what follows is left out")

    __call__ = write


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LINE else text[:MAX_LINE] + "…"


class Log(Protocol):
    """What a server needs of its log."""

    def __call__(self, text: str) -> None:
        """Take a line of the process."""

    def session(self, listener: str, protocol: str, remote: str | None) -> SessionLog:
        """The log of a new session of `protocol` at `listener`, with a client of that address."""
        ...


class Ids:
    """Makes the ids of sessions: the process, and a number in it. Each is an atom, as an ID in a trace line must be
    (RFC 5321 section 4.4)."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def next(self) -> str:
        """The next one; in any thread, and in a forked child."""
        return f"{os.getpid():x}-{next(self._numbers):x}"


class ServerLog:
    """A log in `form`, ``lines``, ``json`` or ``original``, on `descriptor`."""

    def __init__(self, form: str, descriptor: int = 2) -> None:
        self._form = form
        self._descriptor = descriptor
        self._ids = Ids()
        self._line = line_log("mailfront", form == "original", descriptor)

    def __call__(self, text: str) -> None:
        """Write a line of the process."""
        if self._form == "json":
            self._object({"text": _cut(text)})
        else:
            self._line(text)

    def close(self) -> None:
        """Close the file; standard error stays. Sinks of sessions end with it, so this is for processes without any."""
        if self._descriptor > 2:
            os.close(self._descriptor)

    def session(self, listener: str, protocol: str, remote: str | None) -> SessionLog:
        """See `Log`. The original's lines have no id, and no first line that says who it is."""
        if self._form == "original":
            return SessionLog("", lambda text: self._line(_cut(text)))
        name = self._ids.next()
        if self._form == "json":
            facts = {"session": name, "listener": listener, "protocol": protocol, "remote": remote}
            return SessionLog(name, lambda text: self._object({**facts, "text": _cut(text)}))
        log = SessionLog(name, line_log("mailfront", False, self._descriptor, f"{name} "))
        log(f"{listener} from {remote or 'this host'}")
        return log

    def _object(self, fields: dict[str, str | None]) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        data = json.dumps({"time": stamp, "pid": os.getpid(), **fields}) + "\n"
        try:
            os.write(self._descriptor, data.encode("ascii"))
        except OSError:
            return  # as in `line_log`: mail goes on


def open_log(form: str, file: str | None) -> ServerLog:
    """The log of these keys of the configuration; a file is made with mode 0600. Raises OSError."""
    if file is None:
        return ServerLog(form)
    return ServerLog(form, os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
