"""The log of a server in a program that uses the standard library's `logging`.

`StandardLog` stands where `mailfront serve` has its own log: lines of sessions go to the logger ``mailfront.session``,
events of the server to ``mailfront.server``. Level, handlers and format are the program's.
"""

import logging
from typing import Final

from mailfront_io.log import described, printable
from mailfront_io.server_log import Ids, SessionLog

SESSION: Final = "mailfront.session"
"""The logger of what happens in sessions. Its records have the attributes ``session`` (the id), ``listener``,
``protocol`` and ``remote`` (the client's address; None: a unix socket)."""

SERVER: Final = "mailfront.server"
"""The logger of what happens outside them. A record about an exception has it as its attribute ``error``."""

logging.getLogger("mailfront").addHandler(logging.NullHandler())  # a program that wants nothing gets nothing


class StandardLog:
    """Give it wherever a function of a line is wanted, to `mailfront_io.server.session_factory` as its `log`, and
    `report` to a driver.

    A line is of level DEBUG if it begins with ``Debug:``, ERROR if with ``Error``, else INFO. It is printable and no
    longer than in a log of our own, and a session writes no more of them.
    """

    def __init__(self) -> None:
        self._server = logging.getLogger(SERVER)
        self._session = logging.getLogger(SESSION)
        self._ids = Ids()

    def __call__(self, text: str) -> None:
        """Take a line of the server."""
        self._server.log(_level(text), printable(text))

    def report(self, error: BaseException) -> None:
        """Take an exception that a session let escape, or a failure to accept: a driver's `report`."""
        self._server.error(printable(f"Error: {described(error)}"), extra={"error": error})

    def session(self, listener: str, protocol: str, remote: str | None) -> SessionLog:
        """See `mailfront_io.server_log.Log`."""
        logger, name = self._session, self._ids.next()
        facts = {"session": name, "listener": listener, "protocol": protocol, "remote": remote}

        def write(text: str) -> None:
            level = _level(text)
            if logger.isEnabledFor(level):
                logger.log(level, printable(text), extra=facts)

        log = SessionLog(name, write)
        log(f"{listener} from {remote or 'this host'}")
        return log


def _level(text: str) -> int:
    if text.startswith("Error"):
        return logging.ERROR
    return logging.DEBUG if text.startswith("Debug:") else logging.INFO
