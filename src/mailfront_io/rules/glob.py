"""Globs: ``*`` any bytes, even none; ``?`` one byte; ``[seq]`` one of these; ``[!seq]`` or ``[^seq]`` one byte that is
none of these.

There are no ranges (``-`` is itself) and no escapes (``[*]`` is a star). A set ends at the first ``]``; a ``[`` without
one is itself. What is matched is one line: no wildcard matches LF. Upper and lower case differ; to match without case
give pattern and text in lower case.

A pattern becomes a regular expression whose stars never give back what they have taken, except for the last one. So
the time is at most that of trying the pattern's pieces once at each byte: linear in the text, whatever the pattern.
"""

import re
from functools import cached_property

from mailfront_proto.lazy_patterns import compile_later

_PIECE = compile_later(rb"\[([!^]?)([^\]]*)\]|([?])|([^?\[]+|\[)", re.DOTALL)


class Glob:
    """A pattern. `matches` says whether it fits the whole of a text."""

    def __init__(self, pattern: bytes) -> None:
        self.pattern = pattern
        self._first, star, self._last = pattern.partition(b"*")
        self._simple = not set(pattern) & set(b"?[") and b"*" not in self._last
        self._has_star = bool(star)

    def matches(self, text: bytes) -> bool:
        """Whether `text`, which has no line end in it, fits."""
        if not self._simple:
            return self._regex.fullmatch(text) is not None
        if not self._has_star:
            return text == self._first
        fits = len(text) >= len(self._first) + len(self._last)
        return fits and text.startswith(self._first) and text.endswith(self._last)

    def __eq__(self, other: object) -> bool:
        return self.pattern == other.pattern if isinstance(other, Glob) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.pattern)

    def __repr__(self) -> str:
        return f"Glob({self.pattern!r})"

    @cached_property
    def _regex(self) -> "re.Pattern[bytes]":
        return re.compile(to_regex(self.pattern))


def to_regex(pattern: bytes) -> bytes:
    """A regular expression, without capturing groups, for what `pattern` matches from a line's start to its end.
    It does not say where those are: use ``fullmatch``, or put ``$`` behind it."""
    first, *rest = [_segment(part) for part in _split(pattern)]
    if not rest:
        return first
    *middle, last = rest
    return first + b"".join(b"(?>.*?%s)" % part for part in middle if part) + b".*" + last


def _split(pattern: bytes) -> list[bytes]:
    """`pattern` at its stars; a star in a set is none."""
    parts = [b""]
    for piece in re.findall(rb"\[[^\]]*\]|.", pattern, re.DOTALL):
        if piece == b"*":
            parts.append(b"")
        else:
            parts[-1] += piece
    return parts


def _segment(part: bytes) -> bytes:
    """A part without stars: as many bytes as it has pieces."""
    regex = b""
    for negated, members, anything, literal in _PIECE.findall(part):
        if literal:
            regex += re.escape(literal)
        elif anything:
            regex += b"."
        elif members:
            regex += b"[%s%s]" % (b"^\\n" if negated else b"", re.escape(members))
        else:
            regex += b"." if negated else b"(?!)"  # none but these: any; one of none: nothing
    return regex
