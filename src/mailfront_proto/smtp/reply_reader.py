"""Reading replies (RFC 5321 section 4.2), as a client does: framed first, bounded, nothing guessed."""

from typing import Final

from mailfront_proto.buffer import OVERSIZED, ReceiveBuffer
from mailfront_proto.smtp.replies import Reply, parse_reply_line

MAX_REPLY_LINE: Final = 4096
"""Bytes of a reply line, CRLF included. RFC 5321 section 4.5.3.1.5 lets servers send 512; some send more."""

MAX_REPLY_LINES: Final = 256
"""Lines of one reply. No RFC sets a limit; EHLO answers have some twenty, and HELP texts a hundred."""

MAX_KEPT: Final = 1000
"""Bytes of a bad reply that are kept for who wants to know: its last ones."""


class BadReply(Exception):
    """What came is no reply; the text says what is wrong, to go behind "the server sent". `received`: the reply as
    far as it is known, at most `MAX_KEPT` bytes of it."""

    def __init__(self, text: str, received: bytes) -> None:
        super().__init__(text)
        self.received = received[-MAX_KEPT:]


class ReplyReader:
    """Makes replies of bytes: `feed` them, then call `next_reply` until it returns None."""

    __slots__ = ("_buffer", "_code", "_lines", "_max_line", "_max_lines")

    def __init__(self, max_line: int = MAX_REPLY_LINE, max_lines: int = MAX_REPLY_LINES) -> None:
        self._max_line = max_line
        self._max_lines = max_lines
        self._buffer = ReceiveBuffer()
        self._lines: list[str] = []
        self._code = 0

    @property
    def has_begun(self) -> bool:
        """Whether some bytes of a reply, or more, are here and not yet returned."""
        return bool(self._lines) or len(self._buffer) > 0

    @property
    def held(self) -> int:
        """Octets that are here behind the last reply."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Store `data`, without looking at it."""
        self._buffer.feed(data)

    def clear(self) -> None:
        """Forget everything held."""
        self._buffer.clear()
        self._lines.clear()

    def next_reply(self) -> Reply | None:
        """The next complete reply, or None. Raises `BadReply`."""
        while (line := self._buffer.read_line(self._max_line)) is not None:
            if line == OVERSIZED:
                raise self._bad(f"a reply line of more than {self._max_line} bytes", line)
            parsed = parse_reply_line(line)
            if parsed is None:
                raise self._bad(f"a line that is no reply: {line[:60]!r}", line)
            code, more_follow, text = parsed
            if self._lines and code != self._code:
                # RFC 5321 section 4.2.1: the code is the same on every line
                raise self._bad(f"a reply that changes from {self._code} to {code}", line)
            if len(self._lines) == self._max_lines:
                raise self._bad(f"a reply of more than {self._max_lines} lines", line)
            self._code = code
            self._lines.append(text)
            if not more_follow:
                reply = Reply(code, "\n".join(self._lines))
                self._lines.clear()
                return reply
        return None

    def _bad(self, what: str, line: bytes) -> BadReply:
        """`line` makes a bad reply of what came before it."""
        before = "".join([f"{self._code}-{text}\r\n" for text in self._lines])
        return BadReply(what, before.encode("utf-8", "surrogateescape") + line)
