"""POP3's single-line answers (RFC 1939 section 3, RFC 2449 section 8): one value for both roles, written and read.

Text is `str`; bytes that are not UTF-8 travel in it as surrogate escapes. Every control character becomes ``?`` on
the wire, so no text, wherever it is from, can add a line or reach a terminal.
"""

from typing import Final, Literal

from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.record import record

Status = Literal["+OK", "-ERR"]
"""How an answer begins (RFC 1939 section 3)."""

MAX_REPLY_LINE: Final = 512
"""Octets in a line that we send, CRLF included (RFC 2449 section 4)."""

# Control characters, and surrogates that stand for no byte
_UNSENDABLE = compile_later("[\x00-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]")
# resp-code = "[" resp-level *("/" resp-level) "]", of printable characters but "/" and "]" (RFC 2449 section 3)
_CODE = compile_later(r"\[([!-.0-\\^-~]+(?:/[!-.0-\\^-~]+)*)\](?: |\Z)")


@record(frozen=True)
class Reply:
    """A single-line answer: `status`, `text`, and a response code (RFC 2449 section 8) such as ``IN-USE`` or
    ``SYS/TEMP``, without its brackets; empty when there is none."""

    status: Status
    text: str = ""
    code: str = ""

    @property
    def is_positive(self) -> bool:
        """``+OK``."""
        return self.status == "+OK"

    @property
    def is_temporary(self) -> bool:
        """A failure that may pass: ``SYS/TEMP`` (RFC 3206 section 4), ``IN-USE``, ``LOGIN-DELAY`` (RFC 2449 section
        8.1). Without a code nobody knows."""
        first, _, rest = self.code.upper().partition("/")
        passing = first in ("IN-USE", "LOGIN-DELAY") or (first == "SYS" and rest.partition("/")[0] == "TEMP")
        return passing and not self.is_positive

    def encode(self) -> bytes:
        """The wire form: one line of at most `MAX_REPLY_LINE` octets; what is longer is cut."""
        return encode_line(str(self))

    def __str__(self) -> str:
        return f"{self.status} [{self.code}] {self.text}" if self.code else f"{self.status} {self.text}"


def encode_line(text: str) -> bytes:
    """A line of ours, without control characters, cut at `MAX_REPLY_LINE` octets."""
    if text.isascii() and text.isprintable():
        raw = text.encode("ascii")
    else:
        raw = _UNSENDABLE.sub("?", text).encode("utf-8", "surrogateescape")
    if len(raw) > MAX_REPLY_LINE - 2:
        end = MAX_REPLY_LINE - 2
        while end > MAX_REPLY_LINE - 5 and raw[end] & 0xC0 == 0x80:  # not inside a character
            end -= 1
        raw = raw[:end]
    return raw + b"\r\n"


def is_code(code: str) -> bool:
    """Whether `code` is a response code, without its brackets."""
    return _CODE.fullmatch(f"[{code}]") is not None


def parse_reply(line: bytes) -> Reply | None:
    """One framed line as an answer; None if it is none. The status is read in any case (RFC 1939 section 3 has it in
    upper case, and clients have always borne the other).

    A response code is recognized wherever one may stand: servers without RESP-CODES do not begin a text with ``[``.
    """
    text = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
    word, _, rest = text.partition(" ")
    status: Status
    match word.upper() if word.isascii() else "":
        case "+OK":
            status = "+OK"
        case "-ERR":
            status = "-ERR"
        case _:
            return None
    code = _CODE.match(rest)
    return Reply(status, rest[code.end() :], code[1]) if code else Reply(status, rest)
