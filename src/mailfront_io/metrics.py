"""What a server counts, and how that is printed for Prometheus (text format 0.0.4).

A process that serves has a `Page` of shared memory; each of its listeners has a `Meter`, which adds to cells of that
page and is all that sessions see. Whoever answers, the supervisor or the process itself, adds up the pages that there
are and what is kept of those that were (`Totals`), so counters never go back. Labels come from the configuration and
from this file, never from a peer.
"""

import fcntl
import mmap
import os
import platform
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol

from mailfront_proto.record import record

if TYPE_CHECKING:
    from mailfront_io.session import Session

PREFIX: Final = "mailfront_"

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

MECHANISMS: Final = (
    "PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "EXTERNAL",
    "OAUTHBEARER", "XOAUTH2", "ANONYMOUS", "USER", "other",
)  # fmt: skip
"""Values of the label ``mechanism``. ``USER`` is POP3's USER and PASS, ``LOGIN`` also IMAP's command; what else a
client names is ``other``."""

SECONDS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
"""The upper bounds of the histogram's buckets."""


@record(frozen=True)
class Family:
    """A metric. `name`: without the prefix. `labels`: those that it has beside ``listener`` and ``protocol``; `values`:
    what each may be. `mail`: only protocols that carry mail have it."""

    name: str
    kind: str
    doc: str
    labels: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ()
    mail: bool = False


OF_LISTENERS: Final = (
    Family("connections", "gauge", "connections that are open"),
    Family("connections_total", "counter", "connections that were admitted"),
    Family("connections_refused_total", "counter", "connections that were turned away, by the limit that they met",
           ("reason",), (("max_connections", "max_per_client", "max_per_network"),)),
    Family("sessions_ended_total", "counter",
           "sessions that have ended: by the client's QUIT or LOGOUT; because the client closed, or was lost; late; "
           "refused by us; in a failed TLS handshake; as the server stops; handed to a program; aborted, because the "
           "server would not wait or by a fault of ours",
           ("reason",), (("quit", "closed", "timeout", "refused", "tls", "stopped", "handed_over", "aborted"),)),
    Family("received_bytes_total", "counter", "bytes from clients, inside TLS, of sessions that have ended"),
    Family("sent_bytes_total", "counter", "bytes to clients, likewise"),
    Family("messages_total", "counter", "messages that came to their end, by our answer: 250, 5xx or 4xx",
           ("result",), (("accepted", "refused", "deferred"),), mail=True),
    Family("recipients_refused_total", "counter", "recipients that were refused, for good or for now", mail=True),
    Family("authentications_total", "counter", "logins, those among them whose store could not say",
           ("mechanism", "result"), (MECHANISMS, ("ok", "failed", "unavailable"))),
    Family("tls_handshakes_total", "counter", "TLS handshakes", ("result",), (("ok", "failed"),)),
    Family("backend_seconds", "histogram",
           "how long a backend that waits for a disk, a program or another server took to answer for a message",
           mail=True),
)  # fmt: skip

OF_SERVER: Final = (
    Family("workers", "gauge", "processes that serve"),
    Family("workers_restarted_total", "counter", "workers that ended without being told to, and were replaced"),
    Family("reloads_total", "counter",
           "reloads of the configuration: in force; failed; dropped, because the next began before",
           ("result",), (("ok", "failed", "dropped"),)),
    Family("build_info", "gauge", "always 1", ("version", "python")),
)
"""Those that have neither ``listener`` nor ``protocol``."""

def _own_version() -> str:
    try:
        return version("mailfront")
    except PackageNotFoundError:  # a source tree that is not installed
        return "unknown"


_BUILD: Final = (_own_version(), platform.python_version())  # now: later the files may be those of another version

_MAIL: Final = frozenset(("smtp", "lmtp", "qmtp", "qmqp"))

Series = tuple[str, tuple[str, ...]]
"""A family's name, and the values of its labels. Of a histogram: a bucket's bound, or ``sum`` in microseconds."""


def _columns() -> list[Series]:
    """What is counted for each listener, in the order of its cells."""
    found: list[Series] = []
    for family in OF_LISTENERS:
        if family.kind == "histogram":
            found += [(family.name, (f"{bound:g}",)) for bound in SECONDS] + [
                (family.name, ("+Inf",)), (family.name, ("sum",))
            ]  # fmt: skip
        else:
            found += [(family.name, values) for values in product(*family.values)]
    return found


COLUMNS: Final = _columns()
_AT: Final = {series: at for at, series in enumerate(COLUMNS)}
_GAUGES: Final = frozenset(family.name for family in (*OF_LISTENERS, *OF_SERVER) if family.kind == "gauge")


class Lock(Protocol):
    """What a page needs of a lock."""

    def __enter__(self) -> object:
        """Take it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object:
        """Give it back."""


class ProcessLock:
    """A lock for a process and its forked children, where each session is a process. Who dies gives it back."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):  # in memory: a server may have no directory that it can write to
            self._file = open(os.memfd_create("lock"), "r+b")  # noqa: SIM115  # for as long as the process lives
        else:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115

    def __enter__(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """It is needed no more."""
        self._file.close()


class Page:
    """The cells of one process that serves `listeners`, pairs of a name and a protocol. Children share them with their
    parent. `lock`: for who adds to them; a process whose sessions are processes has a `ProcessLock`."""

    def __init__(self, listeners: Iterable[tuple[str, str]]) -> None:
        self._places = {listener: place * len(COLUMNS) for place, listener in enumerate(dict.fromkeys(listeners))}
        self._memory = mmap.mmap(-1, max(1, len(self._places)) * len(COLUMNS) * 8)
        self.cells = memoryview(self._memory).cast("Q")
        self.lock: Lock = threading.Lock()

    def meter(self, name: str, protocol: str) -> "Meter":
        """That of one of the listeners. Listeners of one name and protocol share theirs."""
        return Meter(self, self._places[name, protocol])

    def samples(self) -> Iterator[tuple[Series, int]]:
        """What has been counted: each series with the listener's labels in front."""
        for listener, place in self._places.items():
            for at, (name, values) in enumerate(COLUMNS):
                yield (name, listener + values), self.cells[place + at]

    def gone(self) -> None:
        """The process is gone, and with it what it had open. Another may take its place."""
        for place in self._places.values():
            self.cells[place + _OPEN] = 0

    def close(self) -> None:
        """Give the memory back."""
        self.cells.release()
        self._memory.close()


class Meter:
    """Counts what happens at one listener. Its methods may be called in any thread."""

    __slots__ = ("_accepted", "_cells", "_deferred", "_lock", "_place", "_refused")

    def __init__(self, page: Page, place: int) -> None:
        self._cells = page.cells
        self._lock = page.lock
        self._place = place
        self._accepted = place + _AT["messages_total", ("accepted",)]
        self._refused = place + _AT["messages_total", ("refused",)]
        self._deferred = place + _AT["messages_total", ("deferred",)]

    def _add(self, at: int, number: int = 1) -> None:
        with self._lock:
            self._cells[self._place + at] += number

    def connected(self) -> None:
        """A connection is admitted."""
        self._add(_CONNECTED)
        self._add(_OPEN)

    def disconnected(self) -> None:
        """It has ended."""
        self._add(_OPEN, -1)

    def refused(self, reason: str) -> None:
        """A connection is turned away, by that limit."""
        self._add(_AT["connections_refused_total", (reason,)])

    def session_ended(self, session: "Session") -> None:
        """A session is over."""
        self._add(_AT["sessions_ended_total", (session.ended or "aborted",)])
        self.moved(session)

    def moved(self, session: "Session") -> None:
        """So many bytes have come and gone in `session` since they were counted last."""
        self._add(_RECEIVED, session.bytes_in)
        self._add(_SENT, session.bytes_out)

    def message(self, code: int) -> None:
        """A message has come to its end, and is answered with `code`."""
        with self._lock:  # what each message costs, so it is written out
            self._cells[self._accepted if code < 400 else self._refused if code >= 500 else self._deferred] += 1

    def recipient_refused(self) -> None:
        """A recipient is refused."""
        self._add(_RECIPIENTS)

    def authentication(self, mechanism: str, result: str) -> None:
        """Somebody has tried to log in. `mechanism`: as the client wrote it; `result`: ``ok``, ``failed`` or
        ``unavailable``."""
        mechanism = mechanism.upper()
        if mechanism not in MECHANISMS:
            mechanism = "other"
        self._add(_AT["authentications_total", (mechanism, result)])

    def handshake(self, result: str) -> None:
        """A TLS handshake has ended, ``ok`` or ``failed``."""
        self._add(_AT["tls_handshakes_total", (result,)])

    def backend(self, seconds: float) -> None:
        """A backend has taken so long to answer for a message."""
        bucket = next((f"{bound:g}" for bound in SECONDS if seconds <= bound), "+Inf")
        self._add(_AT["backend_seconds", (bucket,)])
        self._add(_AT["backend_seconds", ("sum",)], max(0, int(seconds * 1e6)))


_OPEN, _CONNECTED = _AT["connections", ()], _AT["connections_total", ()]
_RECEIVED, _SENT = _AT["received_bytes_total", ()], _AT["sent_bytes_total", ()]
_RECIPIENTS = _AT["recipients_refused_total", ()]


class Totals:
    """What is kept of pages whose process is gone, and what the server counts itself."""

    def __init__(self) -> None:
        self._kept: dict[Series, int] = {
            ("workers_restarted_total", ()): 0,
            **{("reloads_total", (result,)): 0 for result in ("ok", "failed", "dropped")},
        }

    def count(self, name: str, *values: str) -> None:
        """One more of a counter of the server."""
        self._kept[name, values] += 1

    def keep(self, page: Page) -> None:
        """The process of `page` is gone: keep its counters; what it had open is no more."""
        for (name, values), number in page.samples():
            if name not in _GAUGES:
                self._kept[name, values] = self._kept.get((name, values), 0) + number

    def text(self, pages: Iterable[Page], workers: int) -> str:
        """All of it, with the `pages` of the processes that there are, `workers` of which serve."""
        numbers = dict(self._kept)
        for page in pages:
            for series, number in page.samples():
                numbers[series] = numbers.get(series, 0) + number
        numbers["workers", ()] = workers
        numbers["build_info", _BUILD] = 1
        return "".join(_lines(numbers))


def _lines(numbers: Mapping[Series, int]) -> Iterator[str]:
    by_family: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for (name, values), number in numbers.items():
        by_family.setdefault(name, []).append((values, number))
    for family in (*OF_SERVER, *OF_LISTENERS):
        yield f"# HELP {PREFIX}{family.name} {family.doc}\n# TYPE {PREFIX}{family.name} {family.kind}\n"
        found = by_family.get(family.name, [])
        if family.mail:
            found = [each for each in found if each[0][1] in _MAIL]
        if family.kind == "histogram":
            yield from _histograms(family, found)
            continue
        names = family.labels if family in OF_SERVER else ("listener", "protocol", *family.labels)
        for values, number in found:
            if number or family.name != "authentications_total":  # most of these never occur
                yield f"{PREFIX}{family.name}{_labels(names, values)} {number}\n"


def _histograms(family: Family, found: list[tuple[tuple[str, ...], int]]) -> Iterator[str]:
    names, count = ("listener", "protocol"), 0
    for (*listener, what), number in found:  # in the order of the columns: the buckets, then the sum
        if what == "sum":
            yield f"{PREFIX}{family.name}_sum{_labels(names, listener)} {number / 1e6:.6f}\n"
            yield f"{PREFIX}{family.name}_count{_labels(names, listener)} {count}\n"
            count = 0
        else:
            count += number
            yield f"{PREFIX}{family.name}_bucket{_labels((*names, 'le'), (*listener, what))} {count}\n"


def _labels(names: Iterable[str], values: Iterable[str]) -> str:
    pairs = [f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
