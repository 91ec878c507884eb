"""counters: how big, how many, how often."""

import re

from mailfront_io.plugin import Kind, Plugin, Response, Setting
from mailfront_io.session import Path, fold
from mailfront_io.spool import Spool

SIZE_TOO_BIG = Response(552, "5.2.3 The message would exceed the maximum message size.")
DATA_TOO_BIG = Response(552, "5.2.3 Sorry, that message exceeds the maximum message length.")
TOO_MANY_RECIPIENTS = Response(550, "5.5.3 Too many recipients")
TOO_MANY_MESSAGES = Response(550, "5.5.0 Too many messages")
LOOPING = Response(554, "5.6.0 This message is looping, too many hops.")

DEFAULT_HOPS = 100

_SIZE = re.compile(r"\+?([0-9]+)\Z", re.ASCII)
_RECEIVED = re.compile(rb"^received:", re.IGNORECASE | re.MULTILINE)
_DELIVERED_TO = re.compile(rb"^delivered-to:", re.IGNORECASE | re.MULTILINE)


class Counters(Plugin):
    """Bounds the size of a message, its recipients, the messages of a session and the hops of a message.

    The limits are shared numbers (``maxdatabytes``, ``maxrcpts``, ``maxmsgs``, ``maxhops``): the smallest
    of all assignments of their variables that is not zero.
    """

    name = "counters"
    settings = (
        Setting("DATABYTES", Kind.NUMBER, "bytes in a message", "0 (no limit)"),
        Setting("MAXRCPTS", Kind.NUMBER, "recipients of a message", "0 (no limit)"),
        Setting("MAXRCPTS_REJECT", Kind.FLAG, "refuse the whole message when there were too many recipients"),
        Setting("MAXMSGS", Kind.NUMBER, "messages of a session", "0 (no limit)"),
        Setting("MAXHOPS", Kind.NUMBER, "Received or Delivered-To lines of a message", str(DEFAULT_HOPS)),
    )

    _messages = 0
    _read_at = -1
    _fewest_recipients = 0

    def connect(self) -> None:
        """Reads the limits."""
        self.reset()

    def reset(self) -> None:
        """Begins a transaction. What was assigned for the last one counts no more, except for MAXMSGS: of the limits
        of a session the smallest holds."""
        self.session.numbers["maxdatabytes"] = 0
        if self._read_at == self.session.settings_changed:
            self._set_limits()
        else:
            self._read_limits()
        self._recipients = 0
        self._bytes = 0
        self._header = b"\n"
        self._in_header = True
        self._received = self._delivered_to = 0

    def _read_limits(self) -> None:
        """Reads the limits again, since other plugins assign settings, and lower ``maxdatabytes``, for one message."""
        session = self.session
        if self._read_at != session.settings_changed:
            self._read_at, smallest = session.settings_changed, session.smallest_number
            self._data_bytes, self._max_messages = smallest("DATABYTES"), smallest("MAXMSGS")
            self._max_recipients, self._max_hops = smallest("MAXRCPTS"), smallest("MAXHOPS") or DEFAULT_HOPS
            self._set_limits()
        elif session.numbers.get("maxdatabytes") != self._limit:  # another plugin has lowered, raised or removed it
            self._set_limits()

    def _set_limits(self) -> None:
        numbers = self.session.numbers
        self._limit = numbers["maxdatabytes"] = _smaller(numbers.get("maxdatabytes", 0), self._data_bytes)
        numbers["maxrcpts"] = self._max_recipients
        numbers["maxmsgs"] = _smaller(numbers.get("maxmsgs", 0), self._max_messages)
        numbers["maxhops"] = self._max_hops

    def helo(self, host: str, capabilities: list[str]) -> None:
        """SIZE (RFC 1870) and LIMITS (RFC 9422). Where the machine has a limit of its own, the smaller one is told."""
        if self.session.profile.name != "compat":
            self._read_limits()  # the original tells 0 once mailrules, behind it in the list, has had its reset
        limit = self._limit_in_octets()
        if limit or self.session.profile.limits.message_size is None:
            capabilities.append(f"SIZE {limit}")
        if "LIMITS" in self.session.profile.extensions:
            self._add_limits(capabilities)

    def _add_limits(self, capabilities: list[str]) -> None:
        numbers, own = self.session.numbers, self.session.profile.limits.recipients
        told = {"RCPTMAX": min(filter(None, (numbers["maxrcpts"], own)), default=0), "MAILMAX": numbers["maxmsgs"]}
        words = [f"{name}={limit}" for name, limit in told.items() if 0 < limit < 1_000_000]  # at most 6 digits
        if words:
            capabilities.append(" ".join(["LIMITS", *words]))

    def _limit_in_octets(self) -> int:
        limit = self.session.numbers.get("maxdatabytes", 0)
        own = self.session.profile.limits.message_size
        return min(limit, own) if limit and own is not None else limit

    def sender(self, path: Path) -> Response | None:
        """MAXMSGS, and SIZE= against DATABYTES."""
        self._read_limits()
        limit = self.session.numbers["maxmsgs"]
        if limit and self._messages >= limit:
            return TOO_MANY_MESSAGES
        size_limit = self.session.numbers["maxdatabytes"]
        if size_limit:
            for parameter in path.parameters:
                keyword, equals, value = parameter.partition("=")
                if equals and fold(keyword) == "size":
                    match = _SIZE.match(value)
                    digits = match[1].lstrip("0") if match is not None else ""
                    # A number that is longer than any limit's is over it, however long.
                    if len(digits) > 19 or int(digits or "0") > size_limit:
                        return SIZE_TOO_BIG
                    break
        return None

    def recipient(self, path: Path) -> Response | None:
        """MAXRCPTS; refused ones count too."""
        self._recipients += 1
        limit = self._recipient_limit()
        return TOO_MANY_RECIPIENTS if limit and self._recipients > limit else None

    def _recipient_limit(self) -> int:
        self._read_limits()
        numbers = self.session.numbers
        if self.session.profile.name == "compat" and numbers["maxrcpts"]:
            # In the original the limit of one message lowers those of later ones, where they have any.
            self._fewest_recipients = _smaller(self._fewest_recipients, numbers["maxrcpts"])
            numbers["maxrcpts"] = self._fewest_recipients
        return numbers["maxrcpts"]

    def data_start(self, spool: Spool | None) -> Response | None:
        """MAXRCPTS_REJECT, and MAXMSGS for messages without a MAIL of their own."""
        recipient_limit = self._recipient_limit()
        self._bytes = 0
        self._header = b"\n"
        self._in_header = True
        self._received = self._delivered_to = 0
        limit = self.session.numbers["maxmsgs"]
        if limit and self._messages >= limit:
            return TOO_MANY_MESSAGES
        is_over = recipient_limit and self._recipients > recipient_limit
        return TOO_MANY_RECIPIENTS if is_over and self.session.getenv("MAXRCPTS_REJECT") is not None else None

    def data_block(self, data: bytes) -> Response | None:
        """DATABYTES (octets with CRLF in the default profile, as RFC 1870 counts; with LF in compat) and
        MAXHOPS; that of the two which the message passes first."""
        limit = self.session.numbers["maxdatabytes"]
        if limit:
            room = limit - self._bytes
            size = self._size(data, len(data))
            if size > room:
                looping = self._count_hops(data[: self._fitting(data, room)]) if self._in_header else None
                return looping or DATA_TOO_BIG
            self._bytes += size
        return self._count_hops(data) if self._in_header else None

    def _size(self, data: bytes, end: int) -> int:
        """What `data` counts up to `end`."""
        return end if self.session.profile.name == "compat" else end + data.count(b"\n", 0, end)

    def _fitting(self, data: bytes, room: int) -> int:
        """How much of `data` there is room for."""
        low, high = 0, len(data)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._size(data, middle) <= room else (low, middle - 1)
        return low

    def _count_hops(self, data: bytes) -> Response | None:
        # `_header` is the last line end seen and the beginning of the line behind it: only how a line
        # begins matters. At first it is the line end that would stand in front of the message.
        text = self._header + data
        end = text.find(b"\n\n")
        if end >= 0:
            self._in_header = False
        else:
            end = text.rfind(b"\n")
            self._header = text[end : end + 17]
        complete = text[: end + 1]
        self._received += len(_RECEIVED.findall(complete))
        self._delivered_to += len(_DELIVERED_TO.findall(complete))
        hops = self.session.numbers["maxhops"]
        return LOOPING if max(self._received, self._delivered_to) > hops else None

    def message_end(self, spool: Spool | None) -> None:
        """The message counts."""
        self._messages += 1


def _smaller(one: int, other: int) -> int:
    """The smaller of two limits; 0 is none."""
    return min(one, other) if one and other else one or other
