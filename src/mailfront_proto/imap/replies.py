"""IMAP's status responses (RFC 9051 section 7.1): one value for both roles, written and read.

Text is `str`; bytes that are not UTF-8 travel in it as surrogate escapes. Every control character becomes ``?`` on the
wire, so no text, wherever it is from, can add a response or reach a terminal.
"""

import re
from typing import Final, Literal

from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.record import record

Status = Literal["OK", "NO", "BAD", "BYE", "PREAUTH"]
"""How a status response begins, behind its tag or ``*``."""

MAX_TEXT: Final = 7900
"""Octets of text in a line that we send: with a tag and CRLF that is below 8,192, which our own client takes."""

_WORDS: Final[dict[bytes, Status]] = {b"OK": "OK", b"NO": "NO", b"BAD": "BAD", b"BYE": "BYE", b"PREAUTH": "PREAUTH"}

# Control characters, and surrogates that stand for no byte
_UNSENDABLE: Final = compile_later("[\x00-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]")
# "[" resp-text-code "]" SP (RFC 9051 section 9); a code that is quoted into may hold no "]"
_STATUS: Final = compile_later(
    rb"(OK|NO|BAD|BYE|PREAUTH)(?: (?:\[([^\]\r\n]*)\](?: |\Z))?([^\r\n]*))?\Z", re.IGNORECASE
)


@record(frozen=True)
class Reply:
    """A status response: `status`, `text`, and a response code (RFC 9051 section 7.1, RFC 5530) such as
    ``AUTHENTICATIONFAILED`` or ``CAPABILITY IMAP4rev1 …``, without its brackets; empty when there is none."""

    status: Status
    text: str = ""
    code: str = ""

    @property
    def is_positive(self) -> bool:
        """``OK``, or ``PREAUTH``."""
        return self.status in ("OK", "PREAUTH")

    @property
    def is_temporary(self) -> bool:
        """A failure that may pass (RFC 5530 section 3): ``UNAVAILABLE``, ``INUSE``, ``SERVERBUG``, ``LIMIT``. Without a
        code nobody knows."""
        return not self.is_positive and self.code.upper() in ("UNAVAILABLE", "INUSE", "SERVERBUG", "LIMIT")

    def encode(self, tag: bytes = b"*") -> bytes:
        """The wire form, with its tag; ``*`` for an untagged one."""
        return encode_line(tag, str(self))

    def __str__(self) -> str:
        return f"{self.status} [{self.code}] {self.text}" if self.code else f"{self.status} {self.text}"


def encode_line(tag: bytes, text: str) -> bytes:
    """A line of ours, without control characters; the text is cut at `MAX_TEXT` octets."""
    if not (text.isascii() and text.isprintable()):
        text = _UNSENDABLE.sub("?", text)
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) > MAX_TEXT:
        end = MAX_TEXT
        while end > MAX_TEXT - 3 and raw[end] & 0xC0 == 0x80:  # not inside a character
            end -= 1
        raw = raw[:end]
    return b"%b %b\r\n" % (tag, raw)


def parse_status(text: bytes) -> Reply | None:
    """A status response behind its tag, without a line end; None for what is none."""
    match = _STATUS.match(text)
    if match is None:
        return None
    status, code, rest = match.groups()
    return Reply(_WORDS[status.upper()], _as_text(rest or b""), _as_text(code or b""))


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
