"""qmail: hands each message to qmail-queue, or to a program like it (nullmailer-queue, a chain of filters).

The program gets the message on descriptor 0 and the envelope on descriptor 1: ``F`` sender NUL, ``T`` recipient NUL for
each recipient, NUL. Its exit code says what became of it. It is started when the message is complete, so nobody waits
for a slow client but us, and a client that breaks off leaves nothing to clean up.

The envelope is not begun before all of the message is in the pipe: should we be killed in between, the program finds
no envelope, and queues nothing; else it would take half a message for a whole one.
"""

import errno
import os
from collections.abc import Mapping
from typing import Final

from mailfront_io.child_environment import CHILD_ENVIRONMENT, child_environment
from mailfront_io.children import Spawn, SpawnFailed
from mailfront_io.ops import DeadlineExceeded, Thread
from mailfront_io.peers import Exchange
from mailfront_io.plugin import Backend, Kind, Response, Setting
from mailfront_io.session import Envelope, parse_number
from mailfront_io.spool import Spool

NO_DIRECTORY = Response(451, "4.3.0 Could not change to the qmail directory.")
NO_PIPE = Response(451, "4.3.0 Could not open pipe to qmail-queue.")
CANNOT_START = Response(451, "4.3.0 Could not start qmail-queue.")
NOT_READ = Response(451, "4.3.0 Writing data to qmail-queue failed.")
CRASHED = Response(451, "4.3.0 qmail-queue crashed.")
NO_SENDER = Response(451, "4.3.0 Envelope format error.")

NOT_EXECUTED = 120
"""The exit code that a program counts as that cannot be executed."""

TIMED_OUT = 52
"""The exit code that one counts as that was killed because it took too long."""

QUEUE_SECONDS = 540
"""How long the program may take. A client waits for 600 seconds (RFC 5321 section 4.5.3.2.6)."""

TEXTS: Final[Mapping[int, str]] = {
    11: "5.1.3 Address too long.",
    31: "5.3.0 Message refused.",
    51: "4.3.0 Out of memory.",
    52: "4.3.0 Timeout.",
    53: "4.3.0 Write error (queue full?).",
    54: "4.3.0 Unable to read the message or envelope.",
    55: "4.3.0 Unable to read a configuration file.",
    56: "4.3.0 Network problem.",
    61: "4.3.0 Problem with the qmail home directory.",
    62: "4.3.0 Problem with the qmail queue directory.",
    63: "4.3.0 Problem with queue/pid.",
    64: "4.3.0 Problem with queue/mess.",
    65: "4.3.0 Problem with queue/intd.",
    66: "4.3.0 Problem with queue/todo.",
    71: "4.3.0 Message refused by mail server.",
    72: "4.3.0 Connection to mail server timed out.",
    73: "4.3.0 Connection to mail server rejected.",
    74: "4.3.0 Communication with mail server failed.",
    81: "4.3.0 Internal qmail-queue bug.",
    91: "4.3.0 Envelope format error.",
}
"""What the exit codes mean (qmail-queue(8))."""

_checked: set[str] = set()
"""The home directories that were there when this process looked at them last."""


class Qmail(Backend):
    """Hands each message to `qmail-queue`, or to a program like it."""

    name = "qmail"
    spools = True
    settings = (
        Setting("QMAILQUEUE", Kind.TEXT, "the program, by its path, or below the directory", "bin/qmail-queue"),
        Setting("QMAILHOME", Kind.DIRECTORY, "the directory that it is started in", "/var/qmail"),
        Setting("QMAILQUEUE_TIMEOUT", Kind.NUMBER, "seconds until it is killed", str(QUEUE_SECONDS)),
        CHILD_ENVIRONMENT,
        *(
            Setting(f"QQERRMSG_{code}", Kind.TEXT, f"what is said when it exits with {code}", text)
            for code, text in TEXTS.items()
        ),
    )

    async def data_start(self, spool: Spool | None) -> Response | None:
        """A directory that is not there is known now, where this process has not started a program in it yet.

        In the compat profile a process that serves one connection goes there, as the original does: relative names of
        files that plugins open from now on start there.
        """
        home = self._home
        if home in _checked:
            return None
        try:
            if self._compat and self.session.alone:
                os.chdir(home)
                return None
            await Thread(_check, home, deadline=self._deadline())
        except OSError as error:
            return self._failed(NO_DIRECTORY, f"{home}: {error.strerror}")
        _checked.add(home)
        return None

    async def message_end(self, spool: Spool | None) -> Response:
        """The answer is the program's."""
        assert spool is not None
        session = self.session
        if session.envelope.sender is None:
            return NO_SENDER
        home, deadline = self._home, self._deadline()
        program = self._setting("QMAILQUEUE", "bin/qmail-queue")
        if "/" in program or not self._compat:  # the original looks others up in PATH
            program = os.path.join(home, program)
        try:
            with await Spawn(
                [program], child_environment(session), directory=home, writes=[0, 1], deadline=deadline
            ) as child:
                message, envelope = child.pipes[0], child.pipes[1]
                done = await Exchange({message: spool.blocks()}, {}, deadline)
                if not done.unsent:
                    done = await Exchange({envelope: _envelope(session.envelope)}, {}, deadline)
                envelope.close()
                code = await child.wait(deadline)
        except SpawnFailed as error:
            _checked.discard(home)
            if error.step == "directory":
                return self._failed(NO_DIRECTORY if _is_about_files(error) else CANNOT_START, str(error))
            return self._failed(self._refusal(NOT_EXECUTED), str(error))
        except DeadlineExceeded:
            return self._failed(self._refusal(TIMED_OUT), f"{program}: killed, it took too long")
        except OSError as error:
            return self._failed(NO_PIPE, f"{program}: {error.strerror}")
        if code < 0:
            return self._failed(CRASHED, f"{program}: killed by signal {-code}")
        if code:
            return self._refusal(code)
        if done.unsent:  # whatever it has taken, it is not this message
            return self._failed(NOT_READ, f"{program}: exit code 0, and did not read to the end")
        text = f"2.6.0 Accepted message qp {child.pid} bytes {spool.size}"
        session.log(text)
        return Response(250, text)

    @property
    def _compat(self) -> bool:
        return self.session.profile.name == "compat"

    @property
    def _home(self) -> str:
        return self._setting("QMAILHOME", "/var/qmail")

    def _setting(self, name: str, default: str) -> str:
        value = self.session.getenv(name)
        return default if value is None or not (value or self._compat) else value

    def _deadline(self) -> float:
        seconds = parse_number(self.session.getenv("QMAILQUEUE_TIMEOUT")) or QUEUE_SECONDS
        return self.session.clock.monotonic() + seconds

    def _refusal(self, code: int) -> Response:
        return refusal(code, self.session.getenv(f"QQERRMSG_{code}"))

    def _failed(self, response: Response, why: str) -> Response:
        if not self._compat:
            self.session.log(f"qmail: {why}")
        return response


def refusal(code: int, text: str | None = None) -> Response:
    """What the exit code of a qmail-queue, which is not 0, says to a client; `text`: in place of the usual one."""
    if 11 <= code <= 40:
        return Response(554, text or TEXTS.get(code, "5.3.0 Message rejected by qmail-queue."))
    return Response(451, text or TEXTS.get(code, "4.3.0 Temporary qmail-queue failure."))


def _check(home: str) -> None:
    os.close(os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _is_about_files(error: SpawnFailed) -> bool:
    """Whether it is the directory, and not that no process can be made, which is told by the same step."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)


def _envelope(envelope: Envelope) -> bytes:
    assert envelope.sender is not None
    recipients = "".join(f"T{path.address}\0" for path in envelope.recipients)
    return f"F{envelope.sender.address}\0{recipients}\0".encode("utf-8", "surrogateescape")
