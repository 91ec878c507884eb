"""Responses of QMTP and QMQP: a letter and a text in a netstring. SMTP replies stand for them in both roles."""

from functools import lru_cache
from typing import Final

from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.netstring import encode_netstring
from mailfront_proto.smtp.replies import Reply

# Control bytes but tab and line feed, and surrogates that stand for no byte.
_UNSENDABLE: Final = compile_later("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]")

_KEPT: Final = 64
"""Responses of which the wire form is kept: most are answered with one of a few texts."""

_CODES: Final = {b"K": 250, b"Z": 451, b"D": 554}
"""The reply codes that stand for a response that was received."""


def encode_response(reply: Reply) -> bytes:
    """The wire form of `reply`: see `encode_text`."""
    return encode_text(reply.code, reply.text)


@lru_cache(_KEPT)
def encode_text(code: int, text: str) -> bytes:
    """The response that an SMTP reply of `code` with `text` becomes: ``K`` accepted (200 to 399), ``Z`` a temporary
    (400 to 499, and below 200), ``D`` a permanent failure (500 and above), and the text. LF joins its lines; other
    control bytes become ``?``."""
    letter = b"D" if code >= 500 else b"K" if 200 <= code < 400 else b"Z"
    if not text.isprintable():
        text = _UNSENDABLE.sub("?", text)
    return encode_netstring(letter + text.encode("utf-8", "surrogateescape"))


def parse_response(content: bytes) -> Reply | None:
    """What a server said, as a reply of code 250, 451 or 554; None for what is no response."""
    code = _CODES.get(content[:1])
    return None if code is None else Reply(code, content[1:].decode("utf-8", "surrogateescape"))
