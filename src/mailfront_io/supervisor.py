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
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, cast

from mailfront_io.admission import Admission, Limits, Prefixes, Refused
from mailfront_io.config.checks import dangers, load
from mailfront_io.config.reading import Config, ListenerConfig, Problem, WrongConfiguration, read_config
from mailfront_io.drivers.listener import Address, Listener, raise_descriptor_limit, rest_never
from mailfront_io.listening import (
    BadAddress,
    ListeningAddress,
    inherited_sockets,
    named,
    open_listener,
    parse_listening_address,
    parse_monitor_address,
)
from mailfront_io.metrics import Page, ProcessLock, Totals
from mailfront_io.monitor import Monitor
from mailfront_io.privileges import BadUser, User, find_user
from mailfront_io.proxied import Proxies, proxied
from mailfront_io.server import (
    Loop,
    import_driver,
    metered,
    reporter,
    run_driver,
    session_factory,
    write_port_file,
)
from mailfront_io.server_log import ServerLog, open_log
from mailfront_io.settings import ConfigurationError
from mailfront_io.sharing import shares

EX_CONFIG = 78

RESTART_SECONDS = 1.0
"""How long after its start a worker that has crashed is started anew at the earliest."""

RETIRE = signal.SIGUSR2
"""Tells a worker to accept no more and to end with its last session."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)
"""In the order in which those that came at the same time are handled; several of one kind are one."""

SocketKey = tuple[str, str]
"""The address of a socket; and, where the system chooses the port, the name of its listener."""


class Worker:
    """A child process. `ready`: the pipe on which it says that it serves; None once it has. `page`: what it counts in,
    if anybody asks."""

    def __init__(self, pid: int, ready: int, place: int, page: Page | None) -> None:
        self.pid = pid
        self.page = page
        self.ready: int | None = ready
        self.place = place
        self.started = time.monotonic()


class Generation:
    """The workers of one reading of the configuration, and what they have."""

    def __init__(
        self, config: Config, sockets: dict[SocketKey, socket.socket], log: ServerLog, user: User | None
    ) -> None:
        self.config = config
        self.sockets = sockets
        self.log = log
        self.user = user
        self.workers: list[Worker] = []
        self.shares = shares(config.server["workers"])
        self.pages: list[Page] = []
        """What each worker counts in, if anybody asks."""
        if config.metrics["listen"] is not None:
            names = [(listener.name, listener.words[0]) for listener in config.listeners]
            self.pages = [Page(names) for _ in self.shares]
        self.missing: list[tuple[float, int]] = []
        """When to start which worker anew."""

    @property
    def ready(self) -> bool:
        """Whether all of its workers serve."""
        return not self.missing and all(worker.ready is None for worker in self.workers)


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
            return 1
        self._say_ready()
        while not self._stopping:
            self._wait()
        return self._stop()

    # -- the configuration -------------------------------------------------------------------------------

    def _prepare(self, open_sockets: Mapping[SocketKey, socket.socket]) -> Generation:
        """Read the configuration, check it, open what of its addresses is not open yet."""
        config = read_config(self._file, self._environment)
        config.server.update(self._overrides)
        problems: list[Problem] = []
        try:
            user = find_user(config.server["user"], config.server["group"])
            log = open_log(config.log["format"], config.log["file"])
        except OSError as error:
            text = f"{error.filename}: {error.strerror}: name a file that can be written"
            raise self._wrong("log.file", text) from None
        except BadUser as error:
            raise self._wrong("server.user", str(error)) from None
        _, problems = load(config.listeners, log)
        if problems:
            log.close()
            raise WrongConfiguration(self._file, problems)
        for warning in dangers(config):
            log(f"{self._file}: {warning}")
        sockets: dict[SocketKey, socket.socket] = {}
        try:
            for listener in config.listeners:
                mode = int(listener.options["socket_mode"], 8)
                for text in listener.options["listen"]:
                    address = parse_listening_address(text)
                    key = _socket_key(listener, address)
                    if key in sockets:
                        raise BadAddress(f"{text} is there twice")
                    sockets[key] = open_sockets.get(key) or open_listener(
                        address, mode=mode, inherited=self._inherited
                    )
            if config.metrics["listen"] is not None:
                key = _monitor_key(config)
                address = parse_monitor_address(config.metrics["listen"])
                sockets[key] = open_sockets.get(key) or open_listener(address, inherited=self._inherited)
        except BadAddress as error:
            _close_sockets(sockets, open_sockets)
            log.close()
            raise self._wrong("listen", f"{error}: name another address, or stop who has it") from None
        generation = Generation(config, sockets, log, user)
        generation.missing = [(0.0, place) for place in range(len(generation.shares))]
        return generation

    def _wrong(self, key: str, text: str) -> WrongConfiguration:
        return WrongConfiguration(self._file, [Problem(0, key, text)])

    def _reload(self) -> None:
        if self._next is not None:
            self._current.log("Reload: the last one is still under way, and is dropped")
            self._drop_next()
        notify(self._environment, "RELOADING=1\nMONOTONIC_USEC=" + str(time.monotonic_ns() // 1000))
        try:
            self._next = self._prepare(self._current.sockets)
        except Exception as error:  # whatever it is, sessions go on
            if isinstance(error, WrongConfiguration):
                for problem in error.problems:
                    self._current.log(f"Reload: {error.file}:{problem.line}: {problem}")
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
        self._close(self._next, self._current)
        self._next = None

    def _take_next(self) -> None:
        """The new workers serve; the old ones end with their last sessions."""
        assert self._next is not None
        old, self._current, self._next = self._current, self._next, None
        self._retire_all(old, RETIRE)
        self._watch()
        self._close(old, self._current)
        self._totals.count("reloads_total", "ok")
        self._current.log(f"Reload: {self._file} is in force, {len(self._current.config.listeners)} listeners")
        notify(self._environment, "READY=1")

    @staticmethod
    def _close(old: Generation, kept: Generation | None = None) -> None:
        """Close what `old` has, and `kept` has not."""
        old.log.close()
        _close_sockets(old.sockets, kept.sockets if kept is not None else {})

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
            generation.sockets[_monitor_key(generation.config)].close()
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
        generation.log(f"Worker {worker.pid} {how}: another is started")
        generation.missing.append((max(worker.started + RESTART_SECONDS, time.monotonic()), worker.place))

    # -- what it tells of itself -------------------------------------------------------------------------

    def _watch(self) -> None:
        """Answer at the address of the configuration that is in force."""
        listening = self._current.sockets.get(_monitor_key(self._current.config))
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
        """At the start: a worker that cannot serve ends it all."""
        while not self._current.ready:
            if self._stopping or self._current.missing:
                self._stop()
                return False
            self._wait()
        return True

    def _say_ready(self) -> None:
        names = [
            bound_name(self._current.sockets[_socket_key(listener, address)], address)
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
                        self._close(generation, self._current if generation is self._next else None)
                    return 0
                poller = select.poll()
                poller.register(self._wake, select.POLLIN)
                self._poll(poller, left)
                with suppress(BlockingIOError):
                    again = any(number in (signal.SIGTERM, signal.SIGINT) for number in os.read(self._wake, 512))
        return 1


def serve_generation(generation: Generation, place: int, ready: Callable[[], object], parent: int) -> None:
    """What the worker at `place` does: serve until it is told to stop, or until the process `parent` is gone. `ready`
    is called once connections are accepted."""
    server = generation.config.server
    loaded, problems = load(generation.config.listeners, generation.log)
    if problems:
        raise WrongConfiguration(generation.config.file, problems)
    import_driver(server["driver"])  # while its files can be read for certain, and limits raised
    raise_descriptor_limit()
    if generation.user is not None:
        generation.user.become()
        end_with_parent(parent)  # once more: with another user the system forgets it
    local_host = server["hostname"] or socket.gethostname()
    prefixes = Prefixes(server["client_prefix_ipv6"], server["network_prefix_ipv4"], server["network_prefix_ipv6"])
    share = generation.shares[place]
    page = generation.pages[place] if generation.pages else None
    if page is not None and server["driver"] == "fork":
        page.lock = ProcessLock()
    everything = Admission(generation.log, _limits(server), prefixes, tell=share.set)
    listeners = []
    for each in loaded:
        protocol, proxies = each.service.protocol, Proxies(each.config.options["proxies"])
        meter = page.meter(each.config.name, protocol) if page is not None else None
        refused = meter.refused if meter is not None else None
        begin = session_factory(each.service, local_host, each.config.name, generation.log, meter)
        limits, admission = _limits(each.config.options), everything
        if limits != Limits():
            admission = Admission(generation.log, limits, prefixes, within=everything, name=each.config.name)
        admit_client = partial(admission.admit_client, protocol=protocol, refused=refused)
        session = proxied(proxies, begin, admit_client, admission.release_client, generation.log)
        for text in each.config.options["listen"]:
            listener = Listener(
                generation.sockets[_socket_key(each.config, parse_listening_address(text))],
                session if each.config.options["proxies"] else begin,
                partial(_admit, admission, proxies, protocol, refused),
                partial(_release, admission, proxies),
                share.rest if len(generation.shares) > 1 else rest_never,
            )
            listeners.append(metered(listener, meter))

    def started(stop: Callable[..., None]) -> None:
        signal.signal(RETIRE, lambda number, frame: stop(gently=True))
        share.set(0)
        ready()

    run_driver(
        server["driver"],
        cast("Loop", server["loop"]),
        listeners,
        float(server["grace"]),
        started,
        reporter(generation.log),
    )


def _limits(table: Mapping[str, Any]) -> Limits:
    return Limits(table["max_connections"], table["max_per_client"], table["max_per_network"])


def _admit(
    admission: Admission, proxies: Proxies, protocol: str, refused: Refused | None, remote: Address | None
) -> bytes | None:
    """A proxy is no client: it is counted among all, and then those that it speaks for."""
    return admission.admit(None if remote in proxies else remote, protocol, refused)


def _release(admission: Admission, proxies: Proxies, remote: Address | None) -> None:
    admission.release(None if remote in proxies else remote)


def _close_sockets(sockets: Mapping[SocketKey, socket.socket], kept: Mapping[SocketKey, socket.socket]) -> None:
    """Close those of `sockets` that are not `kept`; the files of unix sockets go with them."""
    for key, opened in sockets.items():
        if kept.get(key) is not opened:
            opened.close()
            path = key[0].removeprefix("unix:")
            if path != key[0]:
                with suppress(FileNotFoundError):
                    os.unlink(path)


def _socket_key(listener: ListenerConfig, address: ListeningAddress) -> SocketKey:
    return named(address), listener.name if address.kind == "tcp" and address.port == 0 else ""


def _monitor_key(config: Config) -> SocketKey:
    """Where the address of the monitor is among the sockets, if there is one."""
    text = config.metrics["listen"]
    return (named(parse_monitor_address(text)) if text is not None else "", "/metrics")


def bound_name(bound: socket.socket, address: ListeningAddress) -> str:
    """Where the socket listens: a port that the system has chosen is told."""
    if address.kind != "tcp":
        return named(address)
    host, port = bound.getsockname()[:2]
    return named(ListeningAddress("tcp", host, port))


def _noted(number: int, frame: object) -> None:
    """The handler of our signals: the wake-up descriptor has them."""


def _kill(worker: Worker, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(worker.pid, number)


def end_with_parent(parent: int) -> None:
    """Let SIGTERM come when the parent process is gone, where the system can do that."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1
        ctypes.CDLL(None, use_errno=True).prctl(set_death_signal, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before that
        os.kill(os.getpid(), signal.SIGTERM)


def notify(environment: Mapping[str, str], state: str) -> None:
    """Tell systemd (sd_notify(3)); nothing where it does not listen."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
        sender.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)

