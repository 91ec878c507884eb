"""The blocking driver's other model: a process for each connection.

The parent accepts, forks and reaps and does nothing else; it has no threads, so that a child starts from a
known state, and only the thread that forks. A child is a one-shot program on its socket (`drivers.oneshot`)
that ends with `os._exit`: exit handlers and buffered output are the parent's, and run there once.

Signals carry the stop: SIGTERM and SIGINT mean `Stopping` to a child, as often as they come (a terminal and
an init system send them to the whole group, and the parent once more), SIGUSR1 means `Cancelled`. They are
blocked around the fork, so that none is lost between the parent's handlers and the child's.
"""

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from math import inf

from mailfront_io.drivers.blocking import accept_until_stopped
from mailfront_io.drivers.listener import (
    Address,
    Listener,
    Report,
    Started,
    address,
    close_gently,
    no_delay,
    release,
    report_to_stderr,
    tell,
)
from mailfront_io.drivers.oneshot import DescriptorWorld, Signals
from mailfront_io.drivers.stepper import CLOCK, run
from mailfront_io.ops import CLEANUP_SECONDS, Cancelled, Connection, Stopping

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
CANCEL_SIGNAL = signal.SIGUSR1


def serve_forking(
    listeners: Sequence[Listener],
    *,
    stop_grace: float = 30.0,
    on_started: Started | None = None,
    report: Report = report_to_stderr,
) -> None:
    """Serve `listeners`, a process for each connection, until SIGTERM or SIGINT; see `blocking.serve`.

    Must be called in the main thread of a process that has no other threads and no children of its own:
    every child that ends is taken for a session.
    """
    gc.freeze()  # what lives now is not touched by the children's collections, so its pages stay shared
    with Signals(stop=STOP_SIGNALS, wake=(signal.SIGCHLD,), escalate=True) as signals:
        sessions = _Processes(listeners, signals, report)
        accept_until_stopped(listeners, signals, sessions.start, report, on_started, sessions.reap)
        signals.wait_until(lambda: not sessions.running or signals.stopping, inf, sessions.reap)
        sessions.signal(signal.SIGTERM)
        signals.wait_until(lambda: not sessions.running or signals.cancelled, stop_grace, sessions.reap)
        sessions.signal(CANCEL_SIGNAL)
        signals.wait_until(lambda: not sessions.running, CLEANUP_SECONDS + 1, sessions.reap)
        if sessions.running:
            tell(report, RuntimeError(f"{len(sessions.running)} session processes hang and were left behind"))


class _Processes:
    """The children, and what to call when one has ended."""

    def __init__(self, listeners: Sequence[Listener], signals: Signals, report: Report) -> None:
        self.running: dict[int, Callable[[], None]] = {}
        self._listeners = listeners
        self._signals = signals
        self._report = report

    def start(self, listener: Listener, connection: socket.socket, remote: Address | None) -> None:
        """Fork a child that runs the session of `connection`."""
        with connection:
            _flush()  # or the child would write it once more
            signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, CANCEL_SIGNAL})
            try:
                pid = os.fork()
                if pid == 0:
                    self._child(listener, connection, remote)
                self.running[pid] = lambda: release(listener, remote, self._report)
            except OSError:
                release(listener, remote, self._report)
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {*STOP_SIGNALS, CANCEL_SIGNAL})

    def reap(self) -> None:
        """Take note of the children that have ended."""
        while self.running:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = self.running.pop(pid, None)
            if ended is not None:
                ended()
            if os.WIFSIGNALED(status):
                tell(self._report, RuntimeError(f"session process {pid} died of signal {os.WTERMSIG(status)}"))

    def signal(self, number: int) -> None:
        """Send a signal to every child."""
        self.reap()
        for pid in self.running:
            os.kill(pid, number)  # not reaped, so it is still ours

    def _child(self, listener: Listener, connection: socket.socket, remote: Address | None) -> None:
        """Run the session; never returns."""
        code = os.EX_SOFTWARE
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signals = Signals(stop=STOP_SIGNALS, cancel=(CANCEL_SIGNAL,)).open()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {*STOP_SIGNALS, CANCEL_SIGNAL})
            self._signals.close()
            for other in self._listeners:
                other.socket.close()
            no_delay(connection)
            facts = Connection(CLOCK, address(connection.getsockname()), remote)
            fd = connection.fileno()
            world = DescriptorWorld(fd, fd, signals)
            try:
                code = run(listener.session(facts), world) & 0xFF
            finally:
                world.let_go()  # or the descriptor goes with it, before it is closed gently
        except (Cancelled, Stopping):
            code = os.EX_TEMPFAIL
        except BaseException as error:
            tell(self._report, error)
        finally:
            try:
                close_gently(connection)
                _flush()
            finally:
                os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # absent, broken or closed
