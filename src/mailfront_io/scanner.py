"""Asking a scanner: a daemon that gets a whole message and judges it, at one of several addresses.

What clamav and spamassassin have in common: settings that differ in their first word only, addresses that are tried
one after the other until one scans the message, and a deadline for each step, since a large message takes long while
no single step does.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from mailfront_io.ops import ConnectionLost, DeadlineExceeded
from mailfront_io.peers import Address, Connect, Peer, Unreachable, Unresolvable
from mailfront_io.plugin import CheckFailed, Response
from mailfront_io.session import Session, parse_number
from mailfront_io.spool import Spool
from mailfront_proto.errors import ProtocolError

T = TypeVar("T")

MILLISECONDS = 5000
"""For each step, unless a setting says otherwise: the original's."""


class Refused(Exception):
    """The scanner said that it cannot scan this message; the text is what it said."""


class ScannerConnection:
    """One connection to a scanner, each step with its deadline. `answer_seconds`: for every wait for its answer;
    `send_seconds`: for every block that it is to take."""

    def __init__(self, peer: Peer, session: Session, answer_seconds: float, send_seconds: float) -> None:
        self._peer = peer
        self._now = session.clock.monotonic
        self._answer_seconds = answer_seconds
        self._send_seconds = send_seconds

    async def send(self, data: bytes) -> None:
        """Write `data`, at most some 64 KiB."""
        await self._peer.send(data, self._now() + self._send_seconds)

    async def send_eof(self) -> None:
        """End what we send."""
        await self._peer.send_eof(self._now() + self._send_seconds)

    async def recv(self) -> bytes:
        """The next bytes of the answer; ``b""`` at the end."""
        return await self._peer.recv(self._now() + self._answer_seconds)


class Scanner:
    """The scanner that the settings of `session` name, which begin with the first of `names` (``CLAMAV``), some of them
    with another as well (``CLAMD``). `port`: the usual one. `failed` and `unresolved`: the answers where it cannot be
    asked."""

    def __init__(
        self, session: Session, names: tuple[str, ...], port: int, failed: Response, unresolved: Response
    ) -> None:
        self._session = session
        self._names = names
        self._usual_port = port
        self._failed = failed
        self._unresolved = unresolved

    def _setting(self, what: str) -> str | None:
        """``$CLAMAV_HOST`` for ``HOST``, or ``$CLAMD_HOST`` where the first is not set."""
        values = (self._session.getenv(f"{name}_{what}") for name in self._names)
        return next((value for value in values if value is not None), None)

    def _number(self, what: str) -> int:
        return parse_number(self._session.getenv(f"{self._names[0]}_{what}")) or 0

    def is_too_large(self, spool: Spool) -> bool:
        """Whether the message is over ``MAXSIZE``, and not to be scanned. (Where no scanner is named at all, it is
        `ask` that says so.)"""
        return self._is_named and 0 < self._number("MAXSIZE") < spool.size

    @property
    def _path(self) -> str | None:
        return self._session.getenv(f"{self._names[0]}_PATH")

    @property
    def _is_named(self) -> bool:
        return self._path is not None or self._setting("HOST") is not None

    def _addresses(self) -> list[Address]:
        name, path = self._names[0], self._path
        if not self._is_named:
            raise self._cannot(self._failed, f"neither ${name}_HOST nor ${name}_PATH is set")
        if path is not None:
            return [path]
        said = self._setting("PORT")
        port = self._usual_port if said is None else parse_number(said) or 0
        if not 0 < port < 65536:
            raise self._cannot(self._failed, f"${name}_PORT is {said!r}, which is no port: write 1 to 65535")
        return [(host, port) for host in map(str.strip, (self._setting("HOST") or "").split(",")) if host]

    async def ask(self, scan: Callable[[ScannerConnection], Awaitable[T]]) -> T:
        """What `scan` returns at the first address where it does not fail. It fails by raising `ProtocolError`,
        `ConnectionLost`, `DeadlineExceeded` or `Refused`. Raises `CheckFailed`."""
        addresses = self._addresses()
        usual = parse_number(self._setting("TIMEOUT")) or MILLISECONDS
        connecting = (self._number("CONNECT_TIMEOUT") or usual) / 1000
        sending = (self._number("SEND_TIMEOUT") or usual) / 1000
        tried: list[Address] = []
        failures: list[str] = []
        while True:
            deadline = self._session.clock.monotonic() + connecting
            try:
                peer = await Connect(addresses, deadline, random_start=True, tried=tried)
            except Unresolvable as error:
                raise self._cannot(self._unresolved, str(error)) from None
            except (Unreachable, DeadlineExceeded) as error:
                raise self._cannot(self._failed, "; ".join([*failures, _words(error)])) from None
            with peer:
                try:
                    return await scan(ScannerConnection(peer, self._session, usual / 1000, sending))
                except (ProtocolError, ConnectionLost, DeadlineExceeded, Refused) as error:
                    failures.append(f"{_shown(peer.address)}: {_words(error)}")
                    tried.append(peer.address)

    def _cannot(self, response: Response, why: str) -> CheckFailed:
        # The original says nothing but the reply.
        return CheckFailed(response, "" if self._session.profile.name == "compat" else why)


def _shown(address: Address) -> str:
    return address if isinstance(address, str) else f"{address[0]} port {address[1]}"


def _words(error: Exception) -> str:
    return "no answer in time" if isinstance(error, DeadlineExceeded) else str(error)
