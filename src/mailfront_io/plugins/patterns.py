"""patterns: refuses messages with lines that fit a pattern.

All patterns become one regular expression, and a slice of the message is searched with it as a whole: there is no
object for each line. What a slice leaves of a line waits for the next slice, cut to the longest that is looked at.
"""

import re
from collections.abc import Coroutine
from typing import Any

from mailfront_io.control_files import Cache, Sources, cause
from mailfront_io.ops import Thread
from mailfront_io.plugin import Kind, Plugin, Response, Setting
from mailfront_io.rules.glob import to_regex
from mailfront_io.session import Session
from mailfront_io.spool import Spool
from mailfront_proto.record import record

USUAL_TEXT = "This message contains prohibited content"

LINE_MAX = 256
"""Bytes of a line that are looked at, unless ``$PATTERNS_LINEMAX`` says otherwise."""

LARGEST_LINE_MAX = 65_536
"""No setting makes it more: so much of a line without an end is kept."""


@record(frozen=True)
class PatternFile:
    """A file of patterns: the regular expressions for lines of the header and for others, each with a group for each
    pattern, and the texts by the number of the group (None: the usual one)."""

    header: "re.Pattern[bytes]"
    body: "re.Pattern[bytes]"
    texts: tuple[str | None, ...]


def load_patterns(path: str, sources: Sources) -> PatternFile:
    """Read a file. Raises `OSError`."""
    return parse_patterns(sources.read(path))


def parse_patterns(data: bytes) -> PatternFile:
    """Read the text of a file. The first byte of a line says what the rest is; blanks at its end are dropped."""
    text: str | None = None
    texts: list[str | None] = [None]
    header: list[bytes] = []
    body: list[bytes] = []
    for line in data.split(b"\n"):
        line = line.rstrip()
        kind, rest = line[:1], line[1:]
        if not line or kind == b"#":
            continue
        if kind == b"=":
            text = rest.decode("utf-8", "surrogateescape")
            continue
        texts.append(text)
        behind_blank = b"(?<=\n\n)" if kind == b"\\" else b""
        regex = b"(%s%s)" % (behind_blank, to_regex(rest))
        header.append(regex)
        body.append(b"((?!))" if kind == b":" else regex)  # a group that fits nothing: the numbers stay
    return PatternFile(_any_of(header), _any_of(body), tuple(texts))


def _any_of(patterns: list[bytes]) -> "re.Pattern[bytes]":
    """A line that is not empty, with the end of the one before it, that fits one of `patterns`, tried in order."""
    return re.compile(rb"\n(?!\n)(?:%s)(?=\n)" % (b"|".join(patterns) or b"(?!)"))


PATTERNS = Cache(load_patterns)
"""The files of this process."""


class Patterns(Plugin):
    """Refuses a message with a line that fits a pattern in the file that `$PATTERNS` names."""

    name = "patterns"
    settings = (
        Setting("PATTERNS", Kind.TEXT, "the file of patterns; unset: none"),
        Setting("PATTERNS_LINEMAX", Kind.NUMBER, "bytes of a line that are looked at, up to 65536", str(LINE_MAX)),
        Setting("PATTERNS_RESP", Kind.TEXT, "the text for patterns that no = line stands before", USUAL_TEXT),
    )

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._patterns: PatternFile | None = None

    def data_start(self, spool: Spool | None) -> Coroutine[Any, Any, None] | None:
        """Takes the patterns as they are now. A file that has changed is read in a thread."""
        self._patterns = None
        path = self.session.getenv("PATTERNS")
        if path is None:
            if not self.resting:
                self.rest("data_block", "message_end")
            return None
        self.rest()
        self._rest = b""
        self._in_header = True
        self._behind_blank = False
        limit = self.session.first_number("PATTERNS_LINEMAX") or LINE_MAX
        self._line_max = min(limit, LARGEST_LINE_MAX)
        self._too_long = re.compile(rb"(\n[^\n]{%d})[^\n]+" % self._line_max)
        self._patterns = PATTERNS.current(path)
        return self._load(path) if self._patterns is None else None

    async def _load(self, path: str) -> None:
        try:
            self._patterns = await Thread(PATTERNS.load, path)
        except (OSError, ValueError) as error:
            self.session.log(f"Warning: Could not read patterns file '{path}': {cause(error)}")

    def data_block(self, data: bytes) -> Response | None:
        """Searches the lines that are complete now."""
        if self._patterns is None:
            return None
        end = data.rfind(b"\n") + 1
        if not end:
            self._rest = (self._rest + data)[: self._line_max]
            return None
        lines = self._rest + data[:end]
        self._rest = data[end : end + self._line_max]
        return self._search(self._patterns, lines)

    def message_end(self, spool: Spool | None) -> Response | None:
        """A last line without an end counts, too; not in the compat profile."""
        if self._patterns is None or not self._rest or self.session.profile.name == "compat":
            return None
        return self._search(self._patterns, self._rest + b"\n")

    def _search(self, patterns: PatternFile, lines: bytes) -> Response | None:
        """The refusal for the first of `lines` (with their ends) that fits, by the first pattern that it fits."""
        before = b"\n\n" if self._behind_blank else b"\n"
        text = self._too_long.sub(rb"\1", before + lines)
        self._behind_blank = text.endswith(b"\n\n")
        start = len(before) - 1
        found = None
        if self._in_header:
            end = text.find(b"\n\n", start)
            self._in_header = end < 0
            found = patterns.header.search(text, start, end + 1 if end >= 0 else len(text))
            start = end if end >= 0 else len(text)
        found = found or patterns.body.search(text, start)
        if found is None or found.lastindex is None:
            return None
        reply = patterns.texts[found.lastindex]
        if reply is None:
            reply = self.session.getenv("PATTERNS_RESP") or USUAL_TEXT
        return Response(554, reply)
