"""xtext (RFC 3461 section 4): how parameters and XCLIENT carry text that may hold blanks, ``+``, ``=`` or more; and the
like for addresses in UTF-8 (RFC 6533 section 3).

``+`` and two upper-case hexadecimal digits stand for a byte; every other printable ASCII character but ``=`` for
itself. What was decoded may hold any byte, so whoever decodes looks at the result: `decode_text` does.
"""

from mailfront_proto.lazy_patterns import compile_later

_XTEXT = compile_later(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")
_ENCODED = compile_later(rb"\+([0-9A-F]{2})")
_TO_ENCODE = compile_later(rb"[^!-*,-<>-~]")
_CONTROL = compile_later(r"[\x00-\x1f\x7f-\x9f]")


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


# RFC 6533 section 3: printable characters but "\", "+" and "=" stand for themselves, and every other one may be
# written as \x{…}
_UNICODE = compile_later(r"(?:[^\x00-\x20+=\\\x7f-\x9f]|\\x\{[0-9A-Fa-f]{2,6}\})+\Z")
_EMBEDDED = compile_later(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_TO_EMBED = compile_later(r"[^!-*,-<>-\[\]-~]")


def decode_unicode(text: str) -> str:
    """The address that `text` stands for in ``ORCPT=utf-8;…``. Raises `ValueError` for anything else."""
    if not _UNICODE.match(text):
        raise ValueError("this is no address of the type utf-8 (RFC 6533 section 3)")
    decoded = _EMBEDDED.sub(lambda match: chr(int(match[1], 16)), text)  # above U+10FFFF chr() is a ValueError
    decoded.encode()  # a surrogate is a UnicodeEncodeError, and that a ValueError
    if _CONTROL.search(decoded):
        raise ValueError("there are control characters in this address")
    return decoded


def encode_unicode(address: str) -> str:
    """`address` for ``ORCPT=utf-8;…``, in ASCII: any server can be given that."""
    return _TO_EMBED.sub(lambda match: f"\\x{{{ord(match.group()):02X}}}", address)
