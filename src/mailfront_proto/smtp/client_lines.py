"""Command lines as a client sends them. Here, and only here, arguments become bytes of the connection.

Strategy: what is no argument is refused before anything is sent, with `LocalProtocolError`: no control
character (RFC 5321 section 4.1.2 has none in any argument), so that an argument can neither end its command
nor start another; no byte of 128 or above unless SMTPUTF8 was asked for; no line that is too long.
"""

import re
from collections.abc import Sequence
from typing import Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.smtp.addresses import Address, AddressError

MAX_COMMAND_LINE: Final = 4096
"""Bytes of a command line, CRLF included: what our own server takes. RFC 5321 section 4.5.3.1.4 sets 512,
and every extension adds to it; servers refuse what is too long for them."""

MAX_AUTH_LINE: Final = 12288
"""Bytes of a line in an AUTH exchange, CRLF included (RFC 4954 section 4)."""

_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
# esmtp-keyword [ "=" esmtp-value ], RFC 5321 section 4.1.2
_PARAMETER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(?:=[!-<>-~]+)?\Z", re.ASCII)


def command_line(verb: str, line: bytes, *, utf8: bool = False, limit: int = MAX_COMMAND_LINE) -> bytes:
    """`line` with its CRLF, if it is one line."""
    if _CONTROL.search(line):
        raise LocalProtocolError(
            f"{verb}: an argument holds CR, LF, NUL or another control character, which could end the "
            "command and start another; take it out, or refuse the message"
        )
    if not utf8 and not line.isascii():
        raise LocalProtocolError(
            f"{verb}: an argument is not ASCII; a server that offers SMTPUTF8 takes it "
            "behind mail(…, [\"SMTPUTF8\"])"
        )
    if len(line) + 2 > limit:
        raise LocalProtocolError(f"{verb}: a line of {len(line) + 2} bytes is over {limit}: shorten it")
    return line + b"\r\n"


def envelope_line(verb: str, address: Address, parameters: Sequence[str], utf8: bool) -> bytes:
    """``MAIL FROM:<…>`` or ``RCPT TO:<…>`` and its parameters, with CRLF."""
    words = [b"MAIL FROM:" if verb == "MAIL" else b"RCPT TO:"]
    words[0] += address.path()
    for parameter in parameters:
        if not _PARAMETER.match(parameter):
            raise LocalProtocolError(
                f"{verb}: {parameter!r} is no parameter: it is KEY or KEY=VALUE, in printable ASCII without "
                "spaces (xtext, RFC 3461 section 4, encodes the rest)"
            )
        words.append(parameter.encode("ascii"))
    return command_line(verb, b" ".join(words), utf8=utf8)


def to_address(address: Address | str) -> Address:
    """An address that may have been written as text; empty text is the null path."""
    if isinstance(address, Address):
        return address
    try:
        return Address.from_str(address)
    except AddressError as error:
        raise LocalProtocolError(f"{address!r} is no address ({error.reply.text})") from None
