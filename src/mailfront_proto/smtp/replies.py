"""SMTP replies (RFC 5321 section 4.2, RFC 2034): one value for both roles, its wire form and its parser.

Text is `str`; bytes that are not UTF-8 travel in it as surrogate escapes, so that what a peer sent can be
quoted back as it came. A line feed separates the lines of a reply; every other control byte becomes ``?``
on the wire, so no text, wherever it is from, can add a reply line by itself (CR) or reach a terminal.
"""

import re

from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.record import record

MAX_REPLY_LINE = 512
"""Octets in a reply line that we send, CRLF included (RFC 5321 section 4.5.3.1.5)."""

# Control bytes, and surrogates that stand for no byte
_UNSENDABLE = compile_later("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]")
_ENHANCED = compile_later(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?= |$)", re.ASCII)


@record(hashable=True)
class Reply:
    r"""A reply: `code` 200 to 599, and `text`, its lines joined by ``\n``.

    An enhanced status code (RFC 3463) is part of the text, as on the wire: ``Reply(250, "2.1.0 OK")``.
    """

    code: int
    text: str = ""

    @property
    def lines(self) -> list[str]:
        """The text, line by line."""
        return self.text.split("\n")

    @property
    def is_positive(self) -> bool:
        """2yz or 3yz: the command was taken."""
        return self.code < 400

    @property
    def is_temporary(self) -> bool:
        """4yz: the same may succeed later."""
        return 400 <= self.code < 500

    @property
    def enhanced_code(self) -> str:
        """The enhanced status code at the start of the text, such as ``5.1.1``, or an empty string."""
        match = _ENHANCED.match(self.text)
        return match.group() if match else ""

    def with_enhanced_code(self, usual: str = "") -> "Reply":
        """This reply with an enhanced code, see `with_enhanced_code`."""
        return Reply(self.code, with_enhanced_code(self.code, self.text, usual))

    def encode(self, max_line: int | None = MAX_REPLY_LINE) -> bytes:
        """The wire form; see `encode_reply`."""
        return encode_reply(self.code, self.text, max_line)

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


def with_enhanced_code(code: int, text: str, usual: str = "") -> str:
    """`text` with an enhanced code in front, `usual` or else ``x.0.0``, where a 2yz, 4yz or 5yz has none yet (RFC 2034
    section 4: every such reply carries one, and every line of it)."""
    if 300 <= code < 400:
        return text
    if not usual:
        usual = f"{code // 100}.0.0"
    if "\n" not in text:
        return text if _ENHANCED.match(text) else f"{usual} {text}".rstrip(" ")
    begins = _ENHANCED.match(text.partition("\n")[0])
    prefix = begins.group() if begins else usual
    return "\n".join(
        line if _ENHANCED.match(line) else f"{prefix} {line}".rstrip(" ") for line in text.split("\n")
    )


def encode_reply(code: int, text: str, max_line: int | None = MAX_REPLY_LINE, enhanced: str = "") -> bytes:
    """The wire form of a reply: lines over `max_line` octets (CRLF included; None: no limit) are wrapped,
    and control bytes become ``?`` (a tab stays). `enhanced`: the enhanced code to add where there is none; empty:
    none is added."""
    if enhanced:
        text = with_enhanced_code(code, text, enhanced)
    if text.isascii() and (max_line is None or len(text) <= max_line - 6):  # nearly always
        if text.isprintable():
            return f"{code} {text}\r\n".encode("ascii")
        first, _, last = text.rpartition("\n")
        if first and first.replace("\n", "").isprintable() and last.isprintable():
            first = first.replace("\n", f"\r\n{code}-")
            return f"{code}-{first}\r\n{code} {last}\r\n".encode("ascii")
    repeated = _ENHANCED.match(text)
    # each line of a multi-line reply repeats it (RFC 2034 section 4)
    prefix = repeated.group().encode() + b" " if repeated else b""
    room = max_line - 6 if max_line is not None else None
    pieces: list[bytes] = []
    for line in text.split("\n"):
        raw = _UNSENDABLE.sub("?", line).encode("utf-8", "surrogateescape")
        while room is not None and len(raw) > room:
            # not at the blank behind the prefix: what is left must get shorter each time
            start = len(prefix) if raw.startswith(prefix) else 1
            cut = raw.rfind(b" ", max(start, 1), room)
            if cut < 0:
                cut = room
                while cut > room - 3 and raw[cut] & 0xC0 == 0x80:  # nor inside a character
                    cut -= 1
            pieces.append(raw[:cut])
            raw = prefix + raw[cut:].removeprefix(b" ")
        pieces.append(raw)
    head = str(code).encode()
    return b"".join([head + b"-" + piece + b"\r\n" for piece in pieces[:-1]] + [head + b" " + pieces[-1] + b"\r\n"])


_LINE = compile_later(rb"([2-5][0-9][0-9])(?:([ -])([^\r\n]*))?\r?\n\Z")


def parse_reply_line(line: bytes) -> tuple[int, bool, str] | None:
    """One framed line of a reply as (code, more lines follow?, text); None if it is no reply line.

    A line without text may end behind the code (RFC 5321 section 4.2.1 asks clients to bear it). A bare LF
    as line end is borne as well: some servers send it, and nothing can hide behind it.
    """
    match = _LINE.match(line)
    if match is None:
        return None
    code, separator, text = match.groups()
    return int(code), separator == b"-", (text or b"").decode("utf-8", "surrogateescape")
