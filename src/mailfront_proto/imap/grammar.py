"""Strings as they are printed (RFC 9051 section 4.3), for both roles."""

import re
from typing import Final

from mailfront_proto.lazy_patterns import compile_later

_QUOTABLE: Final = compile_later(rb"[ -~]*\Z")
_SPECIAL: Final = compile_later(rb'(["\\])')


def is_quotable(data: bytes) -> bool:
    """Whether `data` can stand between quotes: printable ASCII. Everything else is a literal."""
    return _QUOTABLE.match(data) is not None


def encode_quoted(text: str | bytes) -> bytes:
    """`text` as a quoted string. What cannot be quoted becomes ``?``: see `is_quotable`."""
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    data = re.sub(rb"[^ -~]", b"?", data)
    return b'"' + _SPECIAL.sub(rb"\\\1", data) + b'"'
