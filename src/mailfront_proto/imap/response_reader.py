"""Bytes to responses (RFC 9051 section 7), bounded: a line, or several with literals between them."""

import re
from typing import Final

from mailfront_proto.buffer import OVERSIZED, ReceiveBuffer

MAX_RESPONSE_LINE: Final = 8192
"""Bytes of a line of a response, line end included; as long as a command line may be."""

MAX_RESPONSE: Final = 65536
"""Bytes of a response with all its lines and literals. Before the login none is longer than a few lines."""

_LITERAL: Final = re.compile(rb"\{([0-9]{1,10})\}\Z")
_WORD: Final = re.compile(rb'"((?:[^"\\\r\n\0]|\\["\\])*+)"|(NIL)(?=[ )])|([()])', re.IGNORECASE)
_ESCAPED: Final = re.compile(rb"\\(.)")


class BadResponse(Exception):
    """What came is no response, or too long; `received` is the end of it."""

    def __init__(self, what: str, received: bytes) -> None:
        super().__init__(what)
        self.received = received


class ResponseReader:
    """Reads responses. `max_line`, `max_response`: bytes past which the server has lost us (`BadResponse`)."""

    def __init__(self, max_line: int, max_response: int) -> None:
        self._buffer = ReceiveBuffer()
        self._max_line = max_line
        self._max_response = max_response
        self._pieces: list[bytes] = []  # lines and literals, in turn
        self._size = 0
        self._literal: int | None = None

    @property
    def has_begun(self) -> bool:
        """Whether anything is here that was not handed out."""
        return bool(self._pieces) or self._buffer.has_unread

    @property
    def held(self) -> int:
        """Octets that are here behind the last response."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Store bytes."""
        self._buffer.feed(data)

    def read_all(self) -> bytes:
        """All that was not handed out, as it came."""
        assert not self._pieces
        return self._buffer.read_all()

    def clear(self) -> None:
        """Forget everything held."""
        self._buffer.clear()
        self._pieces.clear()

    def next_response(self) -> list[bytes] | None:
        """The next response: its lines, without line ends and without the lengths of literals, with the literals
        between them; None when it is not all here yet. Raises `BadResponse`."""
        while True:
            if self._literal is not None:
                literal = self._buffer.read_exactly(self._literal)
                if literal is None:
                    return None
                self._literal = None
                self._pieces.append(literal)
            line = self._buffer.read_line(self._max_line) if self._buffer.has_unread else None
            if line is None:
                return None
            if line == OVERSIZED:
                raise BadResponse(f"a line of more than {self._max_line} bytes", b"")
            text = line[:-2] if line[-2:] == b"\r\n" else line[:-1]
            if b"\0" in text or b"\r" in text:
                raise BadResponse("a line with NUL or a bare CR", line)
            literal_begins = _LITERAL.search(text) if text.startswith(b"*") or self._pieces else None
            self._size += len(line)
            if literal_begins is None:
                pieces, self._pieces, self._size = [*self._pieces, text], [], 0
                return pieces
            self._size += int(literal_begins[1])
            if self._size > self._max_response:
                raise BadResponse(f"a response of more than {self._max_response} bytes", line)
            self._pieces.append(text[: literal_begins.start()])
            self._literal = int(literal_begins[1])


def parse_id(pieces: list[bytes]) -> dict[str, str | None] | None:
    """What the server says in ``* ID …`` (RFC 2971 section 3.2), `pieces` behind that; None for what is no such list. A
    field twice keeps its last value."""
    words: list[bytes | None] = []
    brackets = b""
    for number, piece in enumerate(pieces):
        if number % 2:
            words.append(piece)
            continue
        text, at = piece.strip(b" ") + b" ", 0
        while at < len(text):
            if text[at] == 0x20:
                at += 1
                continue
            match = _WORD.match(text, at)
            if match is None:
                return None
            at = match.end()
            quoted, nil, bracket = match.groups()
            if bracket:
                brackets += bracket
            else:
                words.append(None if nil else _ESCAPED.sub(rb"\1", quoted))
    if not brackets and words == [None]:
        return {}
    whole = brackets == b"()" and pieces[0].lstrip(b" ").startswith(b"(") and pieces[-1].rstrip(b" ").endswith(b")")
    if not whole or len(words) % 2 or None in words[::2]:
        return None
    return {
        (field or b"").decode("utf-8", "replace").lower(): None if value is None else value.decode("utf-8", "replace")
        for field, value in zip(words[::2], words[1::2], strict=True)
    }
