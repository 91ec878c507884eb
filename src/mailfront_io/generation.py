"""What one reading of the configuration file makes: open sockets, a log, and the workers that serve with them."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

from mailfront_io.config.checks import dangers, load
from mailfront_io.config.reading import Config, ListenerConfig, Problem, WrongConfiguration, read_config
from mailfront_io.listening import (
    BadAddress,
    ListeningAddress,
    named,
    open_listener,
    parse_listening_address,
    parse_monitor_address,
)
from mailfront_io.metrics import Page
from mailfront_io.privileges import BadUser, User, find_user
from mailfront_io.server_log import ServerLog, open_log
from mailfront_io.sharing import shares

RESTART_SECONDS = 1.0
"""How long after its start a worker that has crashed is started anew at the earliest."""

MAX_RESTART_SECONDS = 60.0
"""The same of one that crashes again and again: twice as long each time, up to this. A worker that has lived longer
begins anew."""

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
        self._pauses: dict[int, float] = {}

    @property
    def ready(self) -> bool:
        """Whether all of its workers serve."""
        return not self.missing and all(worker.ready is None for worker in self.workers)

    def close(self, kept: "Generation | None" = None) -> None:
        """Close what it has, and `kept` has not."""
        self.log.close()
        _close_sockets(self.sockets, kept.sockets if kept is not None else {})

    def restart_after(self, worker: Worker) -> float:
        """When, on the monotonic clock, another is to be started in the place of `worker`, which has ended."""
        now = time.monotonic()
        pause = RESTART_SECONDS
        if now - worker.started < MAX_RESTART_SECONDS:
            pause = self._pauses.get(worker.place, RESTART_SECONDS)
            self._pauses[worker.place] = min(2 * pause, MAX_RESTART_SECONDS)
        else:
            self._pauses.pop(worker.place, None)
        return max(worker.started + pause, now)

    def set_modes(self) -> None:
        """Give unix sockets that were open before the mode that the file has for them now."""
        for listener in self.config.listeners:
            for address in map(parse_listening_address, listener.options["listen"]):
                if address.kind == "unix":
                    try:
                        os.chmod(address.host, _mode(listener))
                    except OSError as error:
                        self.log(f"Cannot set the mode of {address.host}: {error.strerror}: it is as it was")


def prepare(
    file: str,
    environment: Mapping[str, str],
    overrides: Mapping[str, object],
    inherited: Mapping[str, socket.socket],
    open_sockets: Mapping[SocketKey, socket.socket],
) -> Generation:
    """Read the configuration, check it, open what of its addresses is not open yet. Raises `WrongConfiguration`."""

    def wrong(key: str, text: str) -> WrongConfiguration:
        return WrongConfiguration(file, [Problem(0, key, text)])

    config = read_config(file, environment)
    config.server.update(overrides)
    try:
        user = find_user(config.server["user"], config.server["group"])
        log = open_log(config.log["format"], config.log["file"])
    except OSError as error:
        text = f"{error.filename}: {error.strerror}: name a file that can be written"
        raise wrong("log.file", text) from None
    except BadUser as error:
        raise wrong("server.user", str(error)) from None
    _, problems = load(config.listeners, log)
    if problems:
        log.close()
        raise WrongConfiguration(file, problems)
    for warning in dangers(config):
        log(f"{file}: {warning}")
    sockets: dict[SocketKey, socket.socket] = {}
    try:
        for listener in config.listeners:
            for text in listener.options["listen"]:
                address = parse_listening_address(text)
                key = socket_key(listener, address)
                if key in sockets:
                    raise BadAddress(f"{text} is there twice")
                sockets[key] = open_sockets.get(key) or open_listener(
                    address, mode=_mode(listener), inherited=inherited
                )
        if config.metrics["listen"] is not None:
            key = monitor_key(config)
            address = parse_monitor_address(config.metrics["listen"])
            sockets[key] = open_sockets.get(key) or open_listener(address, inherited=inherited)
    except BadAddress as error:
        _close_sockets(sockets, open_sockets)
        log.close()
        raise wrong("listen", f"{error}: name another address, or stop who has it") from None
    generation = Generation(config, sockets, log, user)
    generation.missing = [(0.0, place) for place in range(len(generation.shares))]
    return generation


def _mode(listener: ListenerConfig) -> int:
    return int(listener.options["socket_mode"], 8)


def _close_sockets(sockets: Mapping[SocketKey, socket.socket], kept: Mapping[SocketKey, socket.socket]) -> None:
    """Close those of `sockets` that are not `kept`; the files of unix sockets go with them."""
    for key, opened in sockets.items():
        if kept.get(key) is not opened:
            opened.close()
            path = key[0].removeprefix("unix:")
            if path != key[0]:
                with suppress(FileNotFoundError):
                    os.unlink(path)


def socket_key(listener: ListenerConfig, address: ListeningAddress) -> SocketKey:
    """Where an address of `listener` is among the sockets."""
    return named(address), listener.name if address.kind == "tcp" and address.port == 0 else ""


def monitor_key(config: Config) -> SocketKey:
    """Where the address of the monitor is among the sockets, if there is one."""
    text = config.metrics["listen"]
    return (named(parse_monitor_address(text)) if text is not None else "", "/metrics")


def bound_name(bound: socket.socket, address: ListeningAddress) -> str:
    """Where the socket listens: a port that the system has chosen is told."""
    if address.kind != "tcp":
        return named(address)
    host, port = bound.getsockname()[:2]
    return named(ListeningAddress("tcp", host, port))
