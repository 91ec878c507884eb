"""Programs: starting them, waiting for them, becoming one. One of the system's doors (`drivers.doors`).

`subprocess.Popen` starts them, called as a `Thread`: where that is a worker thread, a slow exec holds up nobody, and
uvloop's own refuses users and groups. Waiting is a pidfd that is polled (Linux); elsewhere a look 50 times a second.
"""

import errno
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Generator, Sequence
from typing import Any, NoReturn

from mailfront_io.children import HandOff, Ids, Spawn, SpawnFailed
from mailfront_io.drivers.stepper import READ, Interest
from mailfront_io.drivers.streams import PipeStream, SocketStream, Stream
from mailfront_io.drivers.threads import POOL, Call
from mailfront_io.ops import DeadlineExceeded, Operation, Thread

LOOK_AGAIN = 0.02
"""Seconds between two looks at a child, on systems that cannot tell of its end."""

HOUR = 3600.0

IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)

Started = tuple["SystemProcess", dict[int, Stream], Stream | None]


class SystemProcess:
    """A `doors.Process`."""

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        self.pid = popen.pid
        self._popen = popen
        self._code: int | None = None
        self._pidfd = -1
        if hasattr(os, "pidfd_open"):
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except OSError:
                pass  # an old kernel, or no descriptor left

    def poll(self) -> int | None:
        """See `Process`."""
        if self._code is None:
            self._code = self._popen.poll()
            if self._code is not None:
                self._close()
        return self._code

    def ending(self) -> tuple[Sequence[Interest], float]:
        """See `Process`."""
        return (((self._pidfd, READ),), HOUR) if self._pidfd >= 0 else ((), LOOK_AGAIN)

    def kill(self) -> None:
        """See `Process`."""
        if self._code is None:  # not reaped, so the group is still its own, whether it lives or not
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (PermissionError, ProcessLookupError):
                pass  # it runs as someone else now, and we are not root

    def abandon(self) -> None:
        """See `Process`."""
        self.kill()
        if self.poll() is None:
            self._close()
            try:
                POOL.start(Call(self._popen.wait, (), lambda _result, _error: None))
            except DeadlineExceeded:
                pass  # too many threads hang; subprocess reaps it when it next starts a program

    def _close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def spawn(operation: Spawn) -> Generator[Operation[Any], Any, Started]:
    """Start a program: its process, the streams of its pipes by its descriptor, and that of its socket."""
    start = _Start(operation)
    try:
        started: Started = yield Thread(start, deadline=operation.deadline)
        return started
    except BaseException:
        start.abandon()
        raise


class _Start:
    """The start of a program, called in a thread. Who no longer waits for it abandons it, before or after."""

    def __init__(self, operation: Spawn) -> None:
        self._operation = operation
        self._lock = threading.Lock()
        self._abandoned = False
        self._started: Started | None = None

    def __call__(self) -> Started:
        started = _start(self._operation)
        with self._lock:
            self._started = started
        if self._abandoned:
            self._drop()
        return started

    def abandon(self) -> None:
        """Kill it, now or when it has started."""
        self._abandoned = True
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            started, self._started = self._started, None
        if started is not None:
            process, pipes, stream = started
            process.abandon()
            for other in (*pipes.values(), stream):
                if other is not None:
                    other.close()


def _start(operation: Spawn) -> Started:
    ours: dict[int, int] = {}
    theirs: dict[int, int] = dict(operation.files)
    to_close: list[int] = []
    ends: tuple[socket.socket, socket.socket] | None = None
    try:
        for fd in (*operation.writes, *operation.reads):
            end, other = os.pipe()
            writes = fd in operation.writes
            ours[fd], theirs[fd] = (other, end) if writes else (end, other)
            to_close.append(theirs[fd])
        if operation.socket:
            ends = socket.socketpair()
            theirs.update(dict.fromkeys(operation.socket, ends[1].fileno()))
        popen = _popen(operation, theirs)
    except BaseException:
        to_close += ours.values()
        if ends is not None:
            ends[0].close()
        raise
    finally:
        for fd in to_close:
            os.close(fd)
        if ends is not None:
            ends[1].close()
    pipes: dict[int, Stream] = {fd: PipeStream(end, fd in operation.writes) for fd, end in ours.items()}
    return SystemProcess(popen), pipes, None if ends is None else SocketStream(ends[0])


def _popen(operation: Spawn, descriptors: dict[int, int]) -> "subprocess.Popen[bytes]":
    ids = _needed(operation.ids)
    try:
        return subprocess.Popen(
            operation.arguments,
            env=operation.environment,
            cwd=operation.directory,
            stdin=descriptors.get(0, subprocess.DEVNULL),
            stdout=descriptors.get(1, subprocess.DEVNULL),
            stderr=descriptors.get(2),
            user=None if ids is None else ids.user,
            group=None if ids is None else ids.group,
            extra_groups=None if ids is None else ids.groups,
            start_new_session=True,
        )
    except OSError as error:
        # Popen tells a failure before the execution by the directory's name, or none; 3.11 those of ids, too.
        step = "execute"
        if error.filename != operation.arguments[0]:
            ids_failed = ids is not None and error.errno in (errno.EPERM, errno.EINVAL, errno.EAGAIN)
            step = "ids" if ids_failed or operation.directory is None else "directory"
        raise _failed(operation, step, error) from error


def replace_this_process(operation: HandOff, input_fd: int, output_fd: int) -> NoReturn:
    """Become the program of `operation`, these descriptors its 0 and 1. Only fails to return: raises SpawnFailed."""
    step = "ids"
    try:
        ids = _needed(operation.ids)
        if ids is not None:
            os.setgroups(ids.groups)
            os.setregid(ids.group, ids.group)
            os.setreuid(ids.user, ids.user)
        step = "directory"
        if operation.directory is not None:
            os.chdir(operation.directory)
        step = "execute"
        _execute(operation, input_fd, output_fd)
    except OSError as error:
        raise _failed(operation, step, error) from error


def _execute(operation: HandOff, input_fd: int, output_fd: int) -> NoReturn:
    if (input_fd, output_fd) != (0, 1):
        kept = os.dup(input_fd), os.dup(output_fd)
        for fd, copy in enumerate(kept):
            os.dup2(copy, fd)
            os.close(copy)
    for name in os.listdir("/dev/fd"):
        try:
            if int(name) > 2:
                os.set_inheritable(int(name), False)
        except OSError:
            pass  # that of the listing
    handlers = [(number, signal.signal(number, signal.SIG_DFL)) for number in IGNORED_BY_PYTHON]
    try:
        os.execvpe(operation.arguments[0], [*operation.arguments], operation.environment)
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)


def _needed(ids: Ids | None) -> Ids | None:
    """`ids`, unless they are what this process has and cannot change."""
    if ids is not None and os.geteuid() != 0 and (ids.user, ids.group) == (os.geteuid(), os.getegid()):
        return None
    return ids


def _failed(operation: Spawn | HandOff, step: str, error: OSError) -> SpawnFailed:
    name = os.fsdecode(operation.arguments[0])
    why = (error.strerror or str(error)).lower()
    where = {"ids": ": user and group", "directory": f": directory {operation.directory}", "execute": ""}[step]
    return SpawnFailed(f"{name}{where}: {why}", step, error.errno or 0)
