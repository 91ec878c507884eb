"""``mailfront serve -c FILE``: a process that owns the sockets, and workers that serve them.

The supervisor reads the configuration, opens every address, and forks workers, which inherit the sockets. A worker that
crashes is started anew. SIGHUP reads the configuration again: new workers begin with it, and once they are ready the
old ones accept no more and end with their last session, so no session notices; where the new configuration is wrong
that is said, and the old one stays. SIGTERM and SIGINT end it all, with a grace period for sessions.

It has one thread and opens nothing that a session uses: what a worker needs (certificates, stores) the worker opens,
before it gives up being root.
"""

import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

from mailfront_io.config.reading import WrongConfiguration
from mailfront_io.generation import (
    RESTART_SECONDS,
    Generation,
    SocketKey,
    Worker,
    bound_name,
    monitor_key,
    prepare,
    socket_key,
)
from mailfront_io.listening import inherited_sockets, parse_listening_address, parse_monitor_address
from mailfront_io.metrics import Page, Totals
from mailfront_io.monitor import Monitor
from mailfront_io.server import reporter, write_port_file
from mailfront_io.settings import ConfigurationError
from mailfront_io.worker import RETIRE, end_with_parent, serve_generation

EX_CONFIG = 78

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)
"""In the order in which those that came at the same time are handled; several of one kind are one."""

class Supervisor:
    """`file`: the configuration. `overrides`: keys of its table ``server`` that the command line has. `port_file` gets
    one ``HOST:PORT`` line for each listener's each address once all are served."""

    def __init__(
        self, file: str, environment: Mapping[str, str], overrides: Mapping[str, object], port_file: str | None = None
    ) -> None:
        self._file = file
        self._environment = environment
        self._overrides = overrides
        self._port_file = port_file
        self._inherited = inherited_sockets(environment)
        self._current: Generation
        self._next: Generation | None = None
        self._retired: list[Worker] = []
        self._totals = Totals()
        self._monitor: Monitor | None = None
        self._said_ready = False
        self._wake, self._wake_end = os.pipe()
        for descriptor in (self._wake, self._wake_end):
            os.set_blocking(descriptor, False)
        self._stopping = False

    def run(self) -> int:
        """Serve until stopped; the exit code. Raises `WrongConfiguration` if the configuration cannot be used."""
        gc.freeze()  # workers share the pages of what lives now
        self._current = self._prepare({})
        self._watch()
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _noted)
        self._start_missing(self._current)
        if not self._until_ready():
            self._stop()
            return 1
        if not self._stopping:
            self._say_ready()
        while not self._stopping:
            self._wait()
        return self._stop()

    # -- the configuration -------------------------------------------------------------------------------

    def _prepare(self, open_sockets: Mapping[SocketKey, socket.socket]) -> Generation:
        return prepare(self._file, self._environment, self._overrides, self._inherited, open_sockets)

    def _reload(self) -> None:
        if self._next is not None:
            self._current.log("Reload: the last one is still under way, and is dropped")
            self._drop_next()
            self._totals.count("reloads_total", "dropped")
        notify(self._environment, "RELOADING=1\nMONOTONIC_USEC=" + str(time.monotonic_ns() // 1000))
        try:
            self._next = self._prepare(self._current.sockets)
        except Exception as error:  # whatever it is, sessions go on
            if isinstance(error, WrongConfiguration):
                for problem in error.problems:
                    self._current.log(f"Reload: {problem.of(error.file)}")
            else:
                reporter(self._current.log)(error)
            self._current.log("Reload: the old configuration stays")
            self._totals.count("reloads_total", "failed")
            notify(self._environment, "READY=1")
            return
        self._start_missing(self._next)

    def _drop_next(self) -> None:
        assert self._next is not None
        self._retire_all(self._next, signal.SIGTERM)
        self._next.close(self._current)
        self._next = None

    def _take_next(self) -> None:
        """The new workers serve; the old ones end with their last sessions."""
        assert self._next is not None
        old, self._current, self._next = self._current, self._next, None
        self._retire_all(old, RETIRE)
        self._watch()
        old.close(self._current)
        self._current.set_modes()
        self._totals.count("reloads_total", "ok")
        count = len(self._current.config.listeners)
        self._current.log(f"Reload: {self._file} is in force, {count} listener{'s' if count > 1 else ''}")
        notify(self._environment, "READY=1")

    # -- workers -----------------------------------------------------------------------------------------

    def _start_missing(self, generation: Generation) -> None:
        now = time.monotonic()
        due = [entry for entry in generation.missing if entry[0] <= now]
        for entry in due:
            generation.missing.remove(entry)
            try:
                generation.workers.append(self._fork(generation, entry[1]))
            except OSError as error:  # no more processes, or descriptors
                generation.log(f"Cannot start a worker: {error.strerror}: it is tried again")
                generation.missing.append((now + RESTART_SECONDS, entry[1]))

    def _fork(self, generation: Generation, place: int) -> Worker:
        ready, ready_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        # Until the child has handlers of its own a signal for it would be noted in the pipe that both have, as ours.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._be_worker(generation, place, ready_end, parent)
        except OSError:
            os.close(ready)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(ready_end)
        return Worker(pid, ready, place, generation.pages[place] if generation.pages else None)

    def _be_worker(self, generation: Generation, place: int, ready: int, parent: int) -> NoReturn:
        """In the child; never returns."""
        code = os.EX_SOFTWARE
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor's to handle
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            end_with_parent(parent)
            self._close_what_is_of_others(generation)
            serve_generation(generation, place, lambda: os.write(ready, b"."), parent)
            code = 0
        except (WrongConfiguration, ConfigurationError) as error:
            generation.log(f"Fatal: {error}")
            code = EX_CONFIG
        except BaseException as error:
            reporter(generation.log)(error)
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(code)

    def _close_what_is_of_others(self, generation: Generation) -> None:
        """In the child: an address that is listened on no more must not live on in workers that do not serve it."""
        for descriptor in (self._wake, self._wake_end):
            os.close(descriptor)
        if self._monitor is not None:
            self._monitor.close_clients()
        if generation.pages:
            generation.sockets[monitor_key(generation.config)].close()
        for other in filter(None, (self._current, self._next)):
            for worker in other.workers:
                if worker.ready is not None:
                    os.close(worker.ready)
            for key, opened in other.sockets.items():
                if generation.sockets.get(key) is not opened:
                    opened.close()

    def _retire_all(self, generation: Generation, number: int) -> None:
        """Send the signal `number` to the workers of `generation`, which is none of ours any more."""
        for worker in generation.workers:
            _kill(worker, number)
            self._retire(worker)
        with_worker = [worker.page for worker in generation.workers]
        for page in generation.pages:
            if page not in with_worker:
                self._keep(page)

    def _keep(self, page: Page) -> None:
        """Nobody counts in `page` any more."""
        self._totals.keep(page)
        page.close()

    def _retire(self, worker: Worker) -> None:
        if worker.ready is not None:
            os.close(worker.ready)
            worker.ready = None
        self._retired.append(worker)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, os.waitstatus_to_exitcode(status))

    def _ended(self, pid: int, code: int) -> None:
        how = f"died of signal {-code}" if code < 0 else f"ended with code {code}"
        for worker in self._retired:
            if worker.pid == pid:
                self._retired.remove(worker)
                if worker.page is not None:
                    self._keep(worker.page)
                return
        for generation in filter(None, (self._current, self._next)):
            for worker in generation.workers:
                if worker.pid == pid:
                    generation.workers.remove(worker)
                    generation.shares[worker.place].gone()
                    if worker.page is not None:
                        worker.page.gone()
                    if worker.ready is not None:
                        os.close(worker.ready)
                    self._lost(generation, worker, how)
                    return

    def _lost(self, generation: Generation, worker: Worker, how: str) -> None:
        if self._stopping:
            return
        if generation is self._next:
            self._current.log(f"Reload: a new worker {how} before it served: the old configuration stays")
            self._drop_next()
            self._totals.count("reloads_total", "failed")
            notify(self._environment, "READY=1")
            return
        self._totals.count("workers_restarted_total")
        when = generation.restart_after(worker)
        pause = when - time.monotonic()
        soon = f" in {pause:.0f} s" if pause > RESTART_SECONDS else ""
        generation.log(f"Worker {worker.pid} {how}: another is started{soon}")
        generation.missing.append((when, worker.place))

    # -- what it tells of itself -------------------------------------------------------------------------

    def _watch(self) -> None:
        """Answer at the address of the configuration that is in force."""
        listening = self._current.sockets.get(monitor_key(self._current.config))
        if self._monitor is not None and self._monitor.listening is not listening:
            self._monitor.close_clients()
            self._monitor = None
        if self._monitor is None and listening is not None:
            self._monitor = Monitor(listening, self._metrics, self._state)

    def _metrics(self) -> str:
        pages = [worker.page for worker in self._retired if worker.page is not None]
        for generation in filter(None, (self._current, self._next)):
            pages += generation.pages
        return self._totals.text(pages, self._serving)

    def _state(self) -> str:
        if self._stopping:
            return "stopping"
        if not self._said_ready:
            return "starting"
        return "ready" if self._serving else "no worker serves"

    @property
    def _serving(self) -> int:
        """How many workers take connections."""
        return sum(worker.ready is None for worker in self._current.workers)

    # -- waiting -----------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """For the next signal, the next worker that is ready, or the next that is to be started."""
        pipes = {worker.ready: worker for generation in (self._current, self._next) if generation
                 for worker in generation.workers if worker.ready is not None}  # fmt: skip
        poller = select.poll()
        for descriptor in (self._wake, *pipes):
            poller.register(descriptor, select.POLLIN)
        starts = [when for generation in (self._current, self._next) if generation for when, _ in generation.missing]
        wait = max(0.0, min(starts) - time.monotonic()) if starts else None
        for descriptor, _ in self._poll(poller, wait):
            if descriptor in pipes and os.read(descriptor, 1):
                os.close(descriptor)
                pipes[descriptor].ready = None
        with suppress(BlockingIOError):
            for number in sorted(set(os.read(self._wake, 65536)), key=_SIGNALS.index):
                self._handle(number)
                if self._stopping:
                    return
        for generation in (self._current, self._next):
            if generation is not None:
                self._start_missing(generation)
        if self._next is not None and self._next.ready:
            self._take_next()

    def _poll(self, poller: select.poll, seconds: float | None) -> list[tuple[int, int]]:
        """What `poller` has within so many seconds; whoever asks how we are is answered, too."""
        monitor = self._monitor
        if monitor is not None:
            monitor.register(poller)
            seconds = min((each for each in (seconds, monitor.wait()) if each is not None), default=None)
        found = poller.poll(None if seconds is None else seconds * 1000 + 1)
        if monitor is not None:
            monitor.turn()
        return found

    def _handle(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP:
            self._reload()
        else:
            self._stopping = True

    def _until_ready(self) -> bool:
        """At the start: until all workers serve or we are told to stop. A worker that cannot serve ends it all."""
        while not self._current.ready and not self._stopping:
            if self._current.missing:
                return False
            self._wait()
        return True

    def _say_ready(self) -> None:
        names = [
            bound_name(self._current.sockets[socket_key(listener, address)], address)
            for listener in self._current.config.listeners
            for address in map(parse_listening_address, listener.options["listen"])
        ]
        self._current.log(f"Serving {', '.join(names)}")
        self._said_ready = True
        if self._port_file is not None:
            if self._monitor is not None:
                address = parse_monitor_address(self._current.config.metrics["listen"])
                names.append(bound_name(self._monitor.listening, address))
            write_port_file(self._port_file, names)
        notify(self._environment, "READY=1")

    def _stop(self) -> int:
        """End every worker: at once where no session runs, after the grace period at the latest."""
        self._stopping = True
        notify(self._environment, "STOPPING=1")
        generations = [generation for generation in (self._current, self._next) if generation is not None]
        grace = float(self._current.config.server["grace"])
        for number, seconds in ((signal.SIGTERM, grace + 10.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            workers = [*self._retired, *(worker for generation in generations for worker in generation.workers)]
            for worker in workers:
                _kill(worker, number)
            end = time.monotonic() + seconds
            again = False
            while (left := end - time.monotonic()) > 0 and not again:
                self._reap()
                if not self._retired and not any(generation.workers for generation in generations):
                    for generation in reversed(generations):
                        generation.close(self._current if generation is self._next else None)
                    return 0
                poller = select.poll()
                poller.register(self._wake, select.POLLIN)
                self._poll(poller, left)
                with suppress(BlockingIOError):
                    again = any(number in (signal.SIGTERM, signal.SIGINT) for number in os.read(self._wake, 512))
        return 1


def _noted(number: int, frame: object) -> None:
    """The handler of our signals: the wake-up descriptor has them."""


def _kill(worker: Worker, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(worker.pid, number)


def notify(environment: Mapping[str, str], state: str) -> None:
    """Tell systemd (sd_notify(3)); nothing where it does not listen."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
        sender.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)

