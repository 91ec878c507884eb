"""A worker of ``mailfront serve -c FILE``: a process that serves at the sockets of its supervisor."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from mailfront_io.admission import Admission, Limits, Prefixes, Refused
from mailfront_io.config.checks import load
from mailfront_io.config.reading import WrongConfiguration
from mailfront_io.drivers.listener import Address, Listener, raise_descriptor_limit, rest_never
from mailfront_io.generation import Generation, socket_key
from mailfront_io.listening import parse_listening_address
from mailfront_io.metrics import ProcessLock
from mailfront_io.proxied import Proxies, proxied
from mailfront_io.server import Loop, import_driver, metered, reporter, run_driver, session_factory

RETIRE = signal.SIGUSR2
"""Tells a worker to accept no more and to end with its last session."""


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
                generation.sockets[socket_key(each.config, parse_listening_address(text))],
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


def end_with_parent(parent: int) -> None:
    """Let SIGTERM come when the parent process is gone, where the system can do that."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1
        ctypes.CDLL(None, use_errno=True).prctl(set_death_signal, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before that
        os.kill(os.getpid(), signal.SIGTERM)
