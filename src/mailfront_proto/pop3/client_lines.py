"""Command lines as a client sends them. Here, and only here, arguments become bytes of the connection.

Strategy: what is no argument is refused before anything is sent, with `LocalProtocolError`: no control character, so
that an argument can neither end its command nor start another; no number below 1; no line that is too long.
"""

import re
from typing import Final

from mailfront_proto.errors import LocalProtocolError

MAX_COMMAND_LINE: Final = 255
"""Octets of a command line, CRLF included (RFC 2449 section 4)."""

_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


def command_line(verb: str, argument: bytes = b"", limit: int = MAX_COMMAND_LINE) -> bytes:
    """`verb` and `argument` with CRLF, if they are one line."""
    if _CONTROL.search(argument):
        raise LocalProtocolError(
            f"{verb}: the argument holds CR, LF, NUL or another control character, which could end the command and "
            "start another; take it out"
        )
    line = verb.encode("ascii") + (b" " + argument if argument else b"") + b"\r\n"
    if len(line) > limit:
        raise LocalProtocolError(f"{verb}: a line of {len(line)} bytes is over {limit}: shorten it")
    return line


def message_line(verb: str, number: int, lines: int | None = None) -> bytes:
    """A command about a message."""
    if number < 1 or (lines is not None and lines < 0):
        raise LocalProtocolError(f"{verb}: messages have numbers from 1, and there are no fewer than 0 lines")
    return command_line(verb, b"%d" % number if lines is None else b"%d %d" % (number, lines))
