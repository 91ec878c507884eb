"""Base64 (RFC 4648) as SASL lines carry it: strict, bounded, on one line."""

import binascii
from typing import Final

from mailfront_proto.lazy_patterns import compile_later

# RFC 4648 section 4, padding required. Spare bits that are not zero pass (section 3.5 allows it).
_BASE64 = compile_later(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\Z")

MAX_DECODED: Final = 9216
"""Octets of a decoded response: 12,288 of base64 with CRLF (RFC 4954 section 4) hold no more."""


def encode_base64(data: bytes) -> bytes:
    """Base64 on one line, without a line end."""
    return binascii.b2a_base64(data, newline=False)


def decode_base64(data: bytes) -> bytes | None:
    """Strict base64; None for anything else (blanks, a lone ``=``, a wrong length, too much)."""
    if _BASE64.match(data) is None:
        return None
    decoded = binascii.a2b_base64(data)
    return decoded if len(decoded) <= MAX_DECODED else None
