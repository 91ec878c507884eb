"""rbl: turns away clients whose address is on a DNS list (RFC 5782)."""

import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from mailfront_io.backends.queuedir import QueueDir
from mailfront_io.ops import DeadlineExceeded, Operation
from mailfront_io.peers import Gather, Resolve
from mailfront_io.plugin import CheckFailed, Kind, Plugin, Response, Setting
from mailfront_io.session import Path, Session
from mailfront_io.spool import Spool
from mailfront_proto.record import record

DNS_ERROR = Response(451, "4.3.0 DNS error doing RBL lookup")

LOOKUP_SECONDS = 30.0
"""What all lookups of a client, which are made at once, may take. A client waits 300 seconds for the greeting."""

_UNPRINTABLE = re.compile(r"[^ -~]")


@record(frozen=True)
class Listing:
    """What one list says of an address: its texts, if it lists it, or why it cannot be told."""

    zone: str
    texts: tuple[str, ...] | None
    failure: str = ""


class RBL(Plugin):
    """Refuses every sender of a client that a DNS blacklist has, unless a whitelist has it too. All lists are asked at
    once when the client connects, and the text comes from the list.

    IPv6 addresses are asked for by nibbles. A list has an address if it has a TXT record for it; outside the compat
    profile, an A record in 127.0.0.0/8 will do. 127.255.255.0/24, and addresses elsewhere, are no listing there but a
    list that is out of order.

    With ``RBL_QUEUEDIR`` such a client's mail is taken, written there as by the backend queuedir, and then refused.
    """

    name = "rbl"
    settings = (
        Setting("RBL_BLACKLISTS", Kind.TEXT, "the domains of lists whose clients are turned away, with commas"),
        Setting("RBL_WHITELISTS", Kind.TEXT, "those of lists whose clients are welcome all the same"),
        Setting("RBL_DEBUG", Kind.FLAG, "log every list that has a client, and why no list was asked"),
        Setting("RBL_QUEUEDIR", Kind.DIRECTORY, "where mail is kept before it is refused; unset: it is not taken"),
        Setting("RBL_QUEUEDIR_TMP", Kind.TEXT, "as of the backend queuedir", "tmp"),
        Setting("RBL_QUEUEDIR_DEST", Kind.TEXT, "as of the backend queuedir", "new"),
        Setting("RBL_QUEUEDIR_NOSYNC", Kind.FLAG, "as of the backend queuedir"),
    )

    @classmethod
    def configure(cls, environment: Mapping[str, str], log: Callable[[str], None]) -> None:
        """Without blacklists nothing is asked."""
        if environment.get("RBL_BLACKLISTS") and find_spec("dns") is None:
            raise ValueError("the plugin rbl needs the package dnspython: run pip install 'mailfront[dns]'")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._is_compat = session.profile.name == "compat"
        self._blocked: Response | None = None
        self._captured = _Captured(session)
        self._captures = False
        self._message: Spool | None = None

    # -- the client ------------------------------------------------------------------------------------------

    def connect(self) -> Coroutine[Any, Any, None] | None:
        """Asks the lists."""
        self._blocked = None
        blacklists = self._lists("RBL_BLACKLISTS")
        if not blacklists:
            self._debug("{rbl: No blacklists, skipping}")
            return None
        name = self._reversed_address()
        return self._ask(name, self._lists("RBL_WHITELISTS"), blacklists) if name is not None else None

    def _lists(self, variable: str) -> list[str]:
        zones = (self.session.getenv(variable) or "").split(",")
        return [zone for zone in zones if zone] if self._is_compat else [z.strip() for z in zones if z.strip()]

    def _reversed_address(self) -> str | None:
        """The client's address as lists have it (RFC 5782 section 2.1, 2.4)."""
        address = self.session.getenv("TCPREMOTEIP") if self._is_compat else self.session.remote_ip
        if address is None:
            self._debug("{rbl: $TCPREMOTEIP is unset, skipping RBL tests}")
            return None
        from ipaddress import IPv4Address, ip_address

        try:
            parsed = IPv4Address(address) if self._is_compat else ip_address(address.partition("%")[0])
        except ValueError:
            self.session.log(f"rbl: Cannot parse IP '{address}'")
            return None
        mapped = getattr(parsed, "ipv4_mapped", None)  # ::ffff:192.0.2.1 is 192.0.2.1
        name: str = (mapped or parsed).reverse_pointer
        return name.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")

    async def _ask(self, name: str, whitelists: Sequence[str], blacklists: Sequence[str]) -> None:
        kinds = ("TXT",) if self._is_compat else ("TXT", "A")
        deadline = self.session.clock.monotonic() + LOOKUP_SECONDS
        zones = (*whitelists, *blacklists)
        answers = iter(await Gather([_question(f"{name}.{zone}", kind, deadline) for zone in zones for kind in kinds]))
        listings = [read_listing(zone, [next(answers) for _ in kinds]) for zone in zones]
        welcome, doubts = self._look_through(listings[: len(whitelists)], "whitelisted")
        if welcome is not None:
            return
        listed = None
        if not (doubts and self._is_compat):
            listed, failures = self._look_through(listings[len(whitelists) :], "blacklisted")
            if listed is None or self._is_compat:
                doubts = failures  # on a client that no blacklist has, a whitelist has no say
        if doubts:
            raise CheckFailed(DNS_ERROR, "; ".join(doubts) if not self._is_compat else "")
        if listed is not None and listed.texts is not None:
            text = listed.texts[0] if listed.texts else f"listed by {listed.zone}"
            self._blocked = Response(451, f"Blocked: {text}")

    def _look_through(self, listings: Sequence[Listing], how: str) -> tuple[Listing | None, list[str]]:
        """The list that counts, the first whitelist or the last blacklist that has the client; and what went wrong.
        The original asks no further where a list has failed."""
        found: Listing | None = None
        failures: list[str] = []
        for listing in listings:
            if listing.failure:
                failures.append(listing.failure)
                if self._is_compat:
                    break
            elif listing.texts is not None:
                self._debug(f"rbl: {how} by {listing.zone}: {' // '.join(listing.texts) or 'no text'}")
                found = listing
                if how == "whitelisted":
                    break
        return found, failures

    def _debug(self, line: str) -> None:
        if self.session.getenv("RBL_DEBUG") is not None:
            self.session.log(line)

    # -- its mail --------------------------------------------------------------------------------------------

    def sender(self, path: Path) -> Response | Coroutine[Any, Any, Response | None] | None:
        """Refuses a client that is blacklisted, or begins to take its mail."""
        self._captures = self._is_to_be_captured
        return self._captured.sender(path) if self._captures else self._blocked

    @property
    def _is_to_be_captured(self) -> bool:
        return self._blocked is not None and bool(self.session.getenv("RBL_QUEUEDIR"))

    def data_start(self, spool: Spool | None) -> None:
        """Makes room for the message as it comes from the client: what plugins put in front is not kept."""
        self._close()
        if self._is_to_be_captured:
            self._message = Spool(self.session.getenv("TMPDIR") or "/tmp")

    def data_block(self, data: bytes) -> None:
        """Keeps a slice of it."""
        if self._message is not None:
            self._message.write(data)

    def message_end(self, spool: Spool | None) -> Coroutine[Any, Any, Response | None] | None:
        """Refuses the message once it is written."""
        return self._capture(self._message) if self._captures and self._message is not None else None

    async def _capture(self, message: Spool) -> Response | None:
        try:
            return await self._captured.message_end(message) or self._blocked
        finally:
            self._close()

    def reset(self) -> None:
        """Drops the message."""
        self._captures = False
        self._close()

    def _close(self) -> None:
        if self._message is not None:
            self._message.close()
            self._message = None


class _Captured(QueueDir):
    prefix = "RBL_"


def _question(name: str, kind: str, deadline: float) -> Operation[Any]:
    return Resolve(name, "A", deadline) if kind == "A" else Resolve(name, "TXT", deadline)


def read_listing(zone: str, answers: Sequence[Any]) -> Listing:
    """What `zone` says, from its TXT records and, where they were asked for, its A records; each as `Gather` has it."""
    texts, *rest = answers
    addresses = rest[0] if rest else ()
    if isinstance(addresses, tuple):
        for address in addresses:
            if not address.startswith("127.") or address.startswith("127.255.255."):
                return Listing(zone, None, f"{zone} answers {address}, which is no listing")
    if isinstance(texts, tuple) and texts:
        return Listing(zone, tuple(_UNPRINTABLE.sub("?", text.decode("latin-1")) for text in texts))
    if isinstance(addresses, tuple) and addresses:
        return Listing(zone, ())
    for answer in answers:
        if isinstance(answer, Exception):
            return Listing(zone, None, f"{zone}: {_words(answer)}")
    return Listing(zone, None)


def _words(error: Exception) -> str:
    return "no answer in time" if isinstance(error, DeadlineExceeded) else str(error)
