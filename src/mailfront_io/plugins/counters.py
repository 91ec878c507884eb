"""counters: how big, how many, how often."""

import re

from mailfront_io.plugin import Kind, Plugin, Response, Setting
from mailfront_io.session import Path, fold, parse_number_as_in_c
from mailfront_io.spool import Spool

SIZE_TOO_BIG = Response(552, "5.2.3 The message would exceed the maximum message size.")
DATA_TOO_BIG = Response(552, "5.2.3 Sorry, that message exceeds the maximum message length.")
TOO_MANY_RECIPIENTS = Response(550, "5.5.3 Too many recipients")
TOO_MANY_MESSAGES = Response(550, "5.5.0 Too many messages")
LOOPING = Response(554, "5.6.0 This message is looping, too many hops.")

DEFAULT_HOPS = 100

_RECEIVED = re.compile(rb"^received:", re.IGNORECASE | re.MULTILINE)
_DELIVERED_TO = re.compile(rb"^delivered-to:", re.IGNORECASE | re.MULTILINE)


class Counters(Plugin):
    """Bounds the size of a message, its recipients, the messages of a session and the hops of a message.

    The limits are shared numbers (``maxdatabytes``, ``maxrcpts``, ``maxmsgs``, ``maxhops``): the smallest of all
    assignments of their variables that is not zero, or less where another plugin has set the number.
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

    def connect(self) -> None:
        """Reads the limits."""
        self.reset()

    def reset(self) -> None:
        """Begins a transaction. (What mail rules made of ``maxdatabytes`` they take back themselves.)"""
        if self.session.profile.name != "compat":
            # In the original the limit of one message lowers those of later ones, where they have any.
            self.session.numbers.pop("maxrcpts", None)
        self._lower("maxdatabytes", "DATABYTES")
        self._recipients = 0
        self._begin_message()

    def _begin_message(self) -> None:
        self._bytes = 0
        self._header = b"\n"
        self._in_header = True
        self._received = self._delivered_to = 0

    def _lower(self, name: str, variable: str) -> int:
        """Lower the shared number `name` to its variable's; nothing where that is not set. Other plugins assign
        settings, and set the numbers, at any time. Returns the limit; 0 where the variable is not set."""
        session = self.session
        if self._read_at != session.settings_changed:
            self._read_at, smallest = session.settings_changed, session.smallest_number
            self._limits = {v: smallest(v) for v in ("DATABYTES", "MAXRCPTS", "MAXMSGS", "MAXHOPS")}
        limit = self._limits[variable]
        if not limit:
            return 0
        number = session.numbers.get(name)
        if number is None or limit < number:
            session.numbers[name] = limit
            return limit
        return number

    def helo(self, host: str, capabilities: list[str]) -> None:
        """SIZE (RFC 1870) and LIMITS (RFC 9422). Where the machine has a limit of its own, the smaller one is told."""
        if self.session.profile.name != "compat":
            # The original tells 0 once mailrules, behind it in the list, has had its reset.
            self._lower("maxdatabytes", "DATABYTES")
        limit = self._limit_in_octets()
        if limit or self.session.profile.limits.message_size is None:
            capabilities.append(f"SIZE {limit}")
        if "LIMITS" in self.session.profile.extensions:
            self._add_limits(capabilities)

    def _add_limits(self, capabilities: list[str]) -> None:
        recipients, own = self._lower("maxrcpts", "MAXRCPTS"), self.session.profile.limits.recipients
        self._lower("maxmsgs", "MAXMSGS")
        messages = self.session.numbers.get("maxmsgs", 0)
        told = {"RCPTMAX": min(filter(None, (recipients, own)), default=0), "MAILMAX": messages}
        words = [f"{name}={limit}" for name, limit in told.items() if 0 < limit < 1_000_000]  # at most 6 digits
        if words:
            capabilities.append(" ".join(["LIMITS", *words]))

    def _limit_in_octets(self) -> int:
        limit = self.session.numbers.get("maxdatabytes", 0)
        own = self.session.profile.limits.message_size
        return min(limit, own) if limit and own is not None else limit

    def sender(self, path: Path) -> Response | None:
        """MAXMSGS, and SIZE= against DATABYTES."""
        self._lower("maxdatabytes", "DATABYTES")
        self._lower("maxrcpts", "MAXRCPTS")
        if self._has_all_messages():
            return TOO_MANY_MESSAGES
        size_limit = self.session.numbers.get("maxdatabytes")
        # One that another plugin has set to 0 is none; but here, in the original.
        if size_limit or (size_limit == 0 and self.session.profile.name == "compat"):
            for parameter in path.parameters:
                keyword, equals, value = parameter.partition("=")
                if equals and fold(keyword) == "size":
                    if (parse_number_as_in_c(value, whole=True) or 0) > size_limit:
                        return SIZE_TOO_BIG
                    break
        return None

    def _has_all_messages(self) -> bool:
        self._lower("maxmsgs", "MAXMSGS")
        limit = self.session.numbers.get("maxmsgs")
        return limit is not None and self._messages >= limit

    def recipient(self, path: Path) -> Response | None:
        """MAXRCPTS; refused ones count too."""
        self._recipients += 1
        self._lower("maxdatabytes", "DATABYTES")
        return TOO_MANY_RECIPIENTS if self._has_too_many_recipients() else None

    def _has_too_many_recipients(self) -> bool:
        return 0 < self._lower("maxrcpts", "MAXRCPTS") < self._recipients

    def _has_too_many_for_a_message(self) -> bool:
        return self.session.getenv("MAXRCPTS_REJECT") is not None and self._has_too_many_recipients()

    def data_start(self, spool: Spool | None) -> Response | None:
        """MAXRCPTS_REJECT, and MAXMSGS for messages without a MAIL of their own."""
        self._lower("maxdatabytes", "DATABYTES")
        self._begin_message()
        if self._has_all_messages():
            return TOO_MANY_MESSAGES
        if self._has_too_many_for_a_message():
            return TOO_MANY_RECIPIENTS
        self.session.numbers["maxhops"] = self._limits["MAXHOPS"] or DEFAULT_HOPS
        return None

    def data_block(self, data: bytes) -> Response | None:
        """DATABYTES (octets with CRLF in the default profile, as RFC 1870 counts; with LF in compat) and
        MAXHOPS; that of the two which the message passes first."""
        limit = self.session.numbers.get("maxdatabytes")
        if self.session.profile.name == "compat":
            return self._block_of_original(data, limit)
        if limit:
            room = limit - self._bytes
            size = _size(data, len(data))
            if size > room:
                looping = self._in_header and self._is_looping(data[: _fitting(data, room)])
                return LOOPING if looping else DATA_TOO_BIG
            self._bytes += size
        return LOOPING if self._in_header and self._is_looping(data) else None

    def _block_of_original(self, data: bytes, limit: int | None) -> Response | None:
        """The original looks at the size of a whole block first, and then at its hops; here, of what has come of it."""
        block = 8192 if self.session.protocol_name in ("QMTP", "QMQP") else 4096
        while data:
            size = block - self._bytes % block if self._in_header else len(data)
            piece, data = data[:size], data[size:]
            self._bytes += len(piece)
            if limit and self._bytes > limit:
                return DATA_TOO_BIG
            if self._in_header and self._is_looping(piece):
                return LOOPING
        return None

    def _is_looping(self, data: bytes) -> bool:
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
        hops = self.session.numbers.get("maxhops")
        return hops is not None and max(self._received, self._delivered_to) > hops

    def message_end(self, spool: Spool | None) -> Response | None:
        """The message counts, unless MAXRCPTS_REJECT has been set since."""
        if self._has_too_many_for_a_message():
            return TOO_MANY_RECIPIENTS
        self._messages += 1
        return None


def _size(data: bytes, end: int) -> int:
    """What `data` counts up to `end`, by RFC 1870."""
    return end + data.count(b"\n", 0, end)


def _fitting(data: bytes, room: int) -> int:
    """How much of `data` there is room for."""
    low, high = 0, len(data)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _size(data, middle) <= room else (low, middle - 1)
    return low
