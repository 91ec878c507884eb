"""xtext (RFC 3461 section 4): how parameters and XCLIENT carry text that may hold blanks, ``+``, ``=`` or more.

``+`` and two upper-case hexadecimal digits stand for a byte; every other printable ASCII character but ``=`` for
itself. What was decoded may hold any byte, so whoever decodes looks at the result: `decode_text` does.
"""

import re

_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")
_ENCODED = re.compile(rb"\+([0-9A-F]{2})")
_TO_ENCODE = re.compile(rb"[^!-*,-<>-~]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def encode(data: bytes) -> str:
    """`data` as xtext, in as few characters as it takes."""
    return _TO_ENCODE.sub(lambda match: b"+%02X" % match.group()[0], data).decode("ascii")


def decode(text: str) -> bytes:
    """The bytes that `text` stands for. Raises `ValueError` for what is no xtext."""
    data = text.encode("utf-8", "surrogateescape")
    if not _XTEXT.match(data):
        raise ValueError("this is no xtext (RFC 3461 section 4)")
    return _ENCODED.sub(lambda match: bytes([int(match[1], 16)]), data)


def decode_text(text: str) -> str:
    """The text that `text` stands for: UTF-8 without control characters, be they written out or encoded.

    Raises `ValueError` (of which `UnicodeDecodeError` is one) for anything else.
    """
    decoded = decode(text).decode("utf-8")
    if _CONTROL.search(decoded):
        raise ValueError("there are control characters in this xtext")
    return decoded
