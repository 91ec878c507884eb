"""`Resolve`: asking name servers, and a cache for this process. One of the system's doors (`drivers.doors`).

A stub resolver of a few lines over the sockets that all operations use, so that a lookup costs no thread, several are
under way at once under every driver, and a deadline ends one on the spot. Messages are dnspython's business
(`drivers.dns_messages`), which is loaded in a thread when the first name is asked for.

The name servers are those of ``$NAMESERVERS`` (addresses, ``127.0.0.1:5300`` or ``[::1]:53``, separated by spaces) or
of ``/etc/resolv.conf``, three of them at most; its search list is not used, since mail has absolute names. Each is
asked twice, and a fresh socket has a fresh random port each time.
"""

import os
import re
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Generator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mailfront_io.drivers.doors import receive, transmit
from mailfront_io.drivers.sockets import Place, UDPSocket, connect
from mailfront_io.drivers.stepper import Ready
from mailfront_io.drivers.threads import call
from mailfront_io.ops import Clock, ConnectionLost, DeadlineExceeded, Operation
from mailfront_io.peers import ResolveFailed

if TYPE_CHECKING:
    from mailfront_io.drivers.dns_messages import Answer

Steps = Generator[Operation[Any], Any, Any]

TRY_SECONDS = (2.0, 4.0)
"""How long an answer is waited for: at each server in the first round, and in the second."""

CACHE_SIZE = 4096
LONGEST_CACHED = 3600.0
RESOLV_CONF = "/etc/resolv.conf"
MAX_SERVERS = 3

MESSAGES = "mailfront_io.drivers.dns_messages"
_loaded: Any = None


class Cache:
    """Answers by (name, kind), as long as they hold; the oldest go when there are too many. For all threads."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, str], tuple[float, tuple[Any, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str]) -> tuple[Any, ...] | None:
        """The records that still hold, or None."""
        with self._lock:
            until, records = self._answers.get(key, (0.0, ()))
            if until > time.monotonic():
                return records
            self._answers.pop(key, None)
            return None

    def put(self, key: tuple[str, str], records: tuple[Any, ...], ttl: float) -> None:
        """Keep `records` for `ttl` seconds."""
        with self._lock:
            self._answers[key] = time.monotonic() + min(ttl, LONGEST_CACHED), records
            self._answers.move_to_end(key)
            if len(self._answers) > CACHE_SIZE:
                self._answers.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._answers.clear()


CACHE = Cache()


def resolve(name: str, kind: str, deadline: float | None, clock: Clock) -> Steps:
    """The records of `kind` that `name` has; see `mailfront_io.peers.Resolve`."""
    key = (name.lower().rstrip("."), kind)
    records = CACHE.get(key)
    if records is None:
        messages = yield from _messages(deadline)
        question = messages.make_question(name, kind)
        if question is None:
            return ()
        answer = yield from _ask_all(messages, question, f"{name} {kind}", deadline, clock)
        records = answer.records
        CACHE.put(key, records, answer.ttl)
    return records


def _messages(deadline: float | None) -> Steps:
    """The module that knows dnspython. (While it is being loaded it is in `sys.modules` already.)"""
    global _loaded  # noqa: PLW0603
    if _loaded is None:
        try:
            _loaded = yield from call(import_module, (MESSAGES,), deadline)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "dns":
                raise
            raise ModuleNotFoundError(
                "DNS lookups need dnspython, which is not installed: pip install 'mailfront[dns]'", name="dns"
            ) from None
    return _loaded


def _ask_all(messages: Any, question: Any, what: str, deadline: float | None, clock: Clock) -> Steps:
    """Ask the servers in turn, until one gives an answer."""
    problem = "there is no name server"
    for seconds in TRY_SECONDS:
        for server in name_servers():
            until = clock.monotonic() + seconds
            until = until if deadline is None else min(until, deadline)
            try:
                return (yield from _ask(messages, question, server, until, clock))
            except DeadlineExceeded:
                now = clock.monotonic()
                if now < until or (deadline is not None and deadline <= now):  # a clean-up's time, or ours, is over
                    raise
                problem = f"no answer from {server}"
            except (OSError, ConnectionLost, messages.Unusable) as error:
                problem = f"{server}: {error}"
    raise ResolveFailed(f"{what}: {problem}")


def _ask(messages: Any, question: Any, server: Place, until: float, clock: Clock) -> Steps:
    """Ask one server by UDP, and by TCP if its answer is too long for that."""
    datagrams = UDPSocket(server)
    try:
        datagrams.send(question.to_wire())
        while True:
            yield Ready(datagrams.receiving(), until)
            data = datagrams.receive()
            if data is not None and len(data) <= messages.MAX_MESSAGE:
                try:
                    return messages.read_answer(question, data)
                except messages.NotOurs:
                    pass
            if until <= clock.monotonic():  # a flood of them would never let us wait
                raise DeadlineExceeded
    except messages.Truncated:
        pass
    finally:
        datagrams.close()
    return (yield from _ask_by_tcp(messages, question, server, until, clock))


def _ask_by_tcp(
    messages: Any, question: Any, server: Place, until: float, clock: Clock
) -> Generator[Operation[Any], Any, "Answer"]:
    stream = yield from connect(server, until, clock)
    try:
        wire = question.to_wire()
        yield from transmit(stream, len(wire).to_bytes(2, "big") + wire, until)  # RFC 1035 section 4.2.2
        data = b""
        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
            more = yield from receive(stream, until)
            data += more
            if not more or len(data) > messages.MAX_MESSAGE:
                raise messages.Unusable("the answer is cut off" if not more else "the answer is too large")
        try:
            answer: Answer = messages.read_answer(question, data[2:])
            return answer
        except (messages.NotOurs, messages.Truncated):
            raise messages.Unusable("the answer makes no sense") from None
    finally:
        stream.close()


_servers: tuple[object, list[Place]] = (None, [])  # what they were read from, and they


def name_servers() -> list[Place]:
    """The servers to ask. The file is read again when it has changed."""
    global _servers  # noqa: PLW0603
    named = os.environ.get("NAMESERVERS")
    try:
        state: object = named or os.stat(RESOLV_CONF).st_mtime_ns
    except OSError:
        state = ""
    if state != _servers[0]:
        _servers = state, _named(named.split()) if named else _configured()
    return _servers[1]


def _configured() -> list[Place]:
    try:
        with open(RESOLV_CONF, encoding="utf-8", errors="replace") as file:
            found = re.findall(r"^nameserver[ \t]+(\S+)", file.read(), re.MULTILINE)
    except OSError:
        found = []
    return _named(found) or _named(["127.0.0.1"])  # as the system's own resolver has it


def _named(words: list[str]) -> list[Place]:
    servers = []
    for word in words[:MAX_SERVERS]:
        bracketed = re.fullmatch(r"\[([^]]+)\](?::([0-9]{1,5}))?", word) or re.fullmatch(
            r"([^:]+)(?::([0-9]{1,5}))?", word
        )
        host, port = (bracketed[1], int(bracketed[2] or 53)) if bracketed else (word, 53)
        try:
            (family, _, _, _, name), *_ = socket.getaddrinfo(
                host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
            )
        except OSError:
            continue  # no IP address
        servers.append(Place(family, name))
    return servers
