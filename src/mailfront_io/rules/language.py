r"""The language of mail rules: read, checked and printed. Nothing here touches a file.

A file has one rule a line. Blank lines and lines that begin with ``#`` are skipped, blanks around a line are dropped.

::

    rule     = code field *5(":" field)
    code     = "k" / "K" / "d" / "z" / "p" / "n" / "&"
    field    = sender pattern, recipient pattern, text, databytes, relayclient, environment; the last of these is
               the rest of the line, colons included, and those at the end may be missing
    selector = ":s" *any / ":r" *any
    pattern  = *"!" ( glob / "[[" file "]]" / "[[@" file "]]" )
    escape   = "\n" (line feed) / "\" 3 octal digits / "\" any byte, which then has no other meaning here

A selector says for what the rules behind it are. In front of the first one a rule with the recipient pattern ``*`` is
for senders, any other for recipients.

`parse` never raises: what is wrong with a file are `Problem`\ s, each with its place and its remedy.
"""

import re
from collections.abc import Iterable, Iterator
from enum import Enum

from mailfront_io.rules.glob import Glob
from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.record import record


class Code(Enum):
    """What a rule does when it matches."""

    ACCEPT = "k"
    FINISH = "K"
    """Accept, and ask no further plugin."""
    REFUSE = "d"
    DEFER = "z"
    PASS = "p"
    """No response: what is behind the rules decides."""
    NEXT = "n"
    """Apply the settings and go on."""
    AND = "&"
    """The next rule counts only if this one matches, too."""


@record(frozen=True)
class ListReference:
    """``[[name]]``: the whole address, or ``@`` and its domain, is in a list; ``[[@name]]`` (`domains`): its domain
    is. A `name` that ends in ``.cdb``, and has more than that, is a CDB file, any other a text with an entry a line."""

    name: bytes
    domains: bool = False

    @property
    def is_cdb(self) -> bool:
        """Whether the list is a CDB file."""
        return self.name.endswith(b".cdb") and len(self.name) > 4


@record(frozen=True)
class Pattern:
    """What an address is compared with, without case. `negated`: the pattern fits where `target` does not."""

    target: Glob | ListReference
    negated: bool = False


@record(frozen=True)
class Rule:
    """One rule. `text`: of the response, lines separated by LF; empty: the usual text. `databytes`: an upper limit for
    the message, 0: none. `relayclient` is appended to the recipient. `environment`: assignments, in order. `line`:
    where it stands."""

    code: Code
    sender: Pattern
    recipient: Pattern
    text: str = ""
    databytes: int = 0
    relayclient: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    line: int = 0


class Severity(Enum):
    """What follows from a problem."""

    WARNING = "warning"
    """The file works, perhaps not as it was meant."""
    SYNTAX = "error"
    """The file cannot be used."""
    REFERENCE = "unreadable list"
    """Nor can this one, because of a list that it refers to."""


@record(frozen=True)
class Problem:
    """What is wrong at a place of the file: `line` and `column` (in bytes) count from 1."""

    line: int
    column: int
    found: str
    remedy: str
    severity: Severity = Severity.SYNTAX

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.found}: {self.remedy}"


@record(frozen=True)
class Reference:
    """Where a list is referred to."""

    target: ListReference
    line: int
    column: int


@record(frozen=True)
class Ruleset:
    """A file's rules, and what is wrong with it, in the order of the file."""

    senders: tuple[Rule, ...]
    recipients: tuple[Rule, ...]
    problems: tuple[Problem, ...]
    references: tuple[Reference, ...]


def parse(data: bytes) -> Ruleset:
    """Read a file."""
    reader = _Reader()
    for number, line in enumerate(data.split(b"\n"), 1):
        reader.line(number, line)
    return reader.ruleset()


_FIELD = compile_later(rb"(?:[^\\:]|\\.)*+\\?+", re.DOTALL)
_ASSIGNMENT = compile_later(rb"(?:[^\\,]|\\.)*+\\?+", re.DOTALL)
_ESCAPE = compile_later(rb"\\(?:(n)|([0-3][0-7]{2})|(.?))", re.DOTALL)
_LIST = compile_later(rb"\[\[(@?+)(.+)\]\]", re.DOTALL)
_SET = compile_later(rb"\[[^\]]*\]", re.DOTALL)
_CONTROL = compile_later(r"[\x00-\x1f\x7f]")
_NAME = compile_later(r"[A-Za-z_][A-Za-z0-9_]*")

_TOO_MANY_DIGITS = 19
"""No message is that long, so a number of more digits limits nothing."""


def unescape(field: bytes) -> bytes:
    """A field's bytes. A backslash that ends it is dropped."""
    return _ESCAPE.sub(lambda m: b"\n" if m[1] else bytes([int(m[2], 8)]) if m[2] else m[3], field)


class _Reader:
    """Takes the lines of a file one by one."""

    def __init__(self) -> None:
        self._senders: list[Rule] = []
        self._recipients: list[Rule] = []
        self._problems: list[Problem] = []
        self._references: list[Reference] = []
        self._section: list[Rule] | None = None
        self._line = 0

    def line(self, number: int, raw: bytes) -> None:
        """Line `number`, without its end."""
        self._line = number
        text = raw.strip()
        if not text or text.startswith(b"#"):
            return
        column = len(raw) - len(raw.lstrip()) + 1
        if text.startswith(b":"):
            self._selector(text, column)
        elif text[:1] in _CODES:
            self._rule(text, column)
        else:
            self._problem(
                column,
                f"the line begins with {_shown(text[:1])}, which is no rule's code, and is ignored",
                f"begin it with one of {' '.join(code.value for code in Code)}, with # for a comment, or with : for a "
                "selector",
                Severity.WARNING,
            )

    def ruleset(self) -> Ruleset:
        """All that was read."""
        for rules in (self._senders, self._recipients):
            if rules and rules[-1].code is Code.AND:
                self._line = rules[-1].line
                remedy = "put a rule behind it, for the same kind of address"
                self._problem(1, "a rule with & comes last, and has no effect", remedy, Severity.WARNING)
        problems = sorted(self._problems, key=lambda problem: (problem.line, problem.column))
        return Ruleset(tuple(self._senders), tuple(self._recipients), tuple(problems), tuple(self._references))

    def _problem(self, column: int, found: str, remedy: str, severity: Severity = Severity.SYNTAX) -> None:
        self._problems.append(Problem(self._line, column, found, remedy, severity))

    def _selector(self, text: bytes, column: int) -> None:
        if text[1:2] == b"s":
            self._section = self._senders
        elif text[1:2] == b"r":
            self._section = self._recipients
        else:
            self._problem(column, f"the selector {_shown(text)} is not known", "write :sender or :recipient")

    def _rule(self, text: bytes, column: int) -> None:
        fields: list[tuple[int, bytes]] = []
        at = 1
        while at <= len(text):
            end = len(text) if len(fields) == _ENVIRONMENT else _end(_FIELD, text, at)
            fields.append((column + at, text[at:end]))
            at = end + 1
        fields += [(column + len(text), b"")] * (_ENVIRONMENT + 1 - len(fields))
        sender, recipient, response, databytes, relayclient, environment = fields
        rule = Rule(
            Code(chr(text[0])),
            self._pattern(*sender),
            self._pattern(*recipient),
            _decoded(unescape(response[1])),
            self._number(*databytes),
            self._suffix(*relayclient),
            tuple(self._assignments(*environment)),
            self._line,
        )
        section = self._section
        if section is None:
            anyone = Pattern(Glob(b"*"))
            section = self._senders if rule.recipient.target == anyone.target else self._recipients
        if section is self._senders and rule.relayclient:
            self._problem(
                relayclient[0],
                "a rule for senders has a relayclient field, which does nothing there",
                "move the rule behind :recipient, or leave the field empty",
                Severity.WARNING,
            )
        section.append(rule)

    def _pattern(self, column: int, field: bytes) -> Pattern:
        text = unescape(field)
        stripped = text.lstrip(b"!")
        negated = (len(text) - len(stripped)) % 2 == 1
        match = _LIST.fullmatch(stripped)
        if match is not None:
            reference = ListReference(match[2], bool(match[1]))
            self._references.append(Reference(reference, self._line, column))
            return Pattern(reference, negated)
        if b"[" in _SET.sub(b"", stripped):
            self._problem(
                column,
                f"the pattern {_shown(text)} has a [ without a ], which stands for itself",
                "close the set, or write [[] to say that a bracket is meant",
                Severity.WARNING,
            )
        return Pattern(Glob(stripped.lower()), negated)

    def _number(self, column: int, field: bytes) -> int:
        digits = unescape(field)
        if not digits:
            return 0
        if not digits.isdigit():
            self._problem(
                column, f"databytes is {_shown(digits)}, which is no number", "write decimal digits, or leave it empty"
            )
            return 0
        significant = digits.lstrip(b"0")
        return int(significant or b"0") if len(significant) <= _TOO_MANY_DIGITS else 0

    def _suffix(self, column: int, field: bytes) -> str:
        suffix = _decoded(unescape(field))
        if _CONTROL.search(suffix):
            self._problem(column, "relayclient has a control character in it", "no address has one: take it out")
        return suffix

    def _assignments(self, column: int, field: bytes) -> Iterator[tuple[str, str]]:
        at = 0
        while at < len(field):
            end = _end(_ASSIGNMENT, field, at)
            name, equals, value = _decoded(unescape(field[at:end])).partition("=")
            if "\0" in name + value:
                self._problem(column + at, "an assignment has a NUL in it", "no variable can hold one: take it out")
            elif name and equals:
                if not _NAME.fullmatch(name):
                    self._problem(
                        column + at,
                        f"{name!r} is an odd name for a variable",
                        "write letters, digits and _; mind that there is one colon between two fields",
                        Severity.WARNING,
                    )
                yield name, value
            elif end > at:
                self._problem(
                    column + at,
                    f"{_shown(field[at:end])} is no assignment, and is ignored",
                    "write NAME=VALUE, and \\, for a comma in a value",
                    Severity.WARNING,
                )
            at = end + 1


_CODES = frozenset(code.value.encode() for code in Code)
_ENVIRONMENT = 5  # fields in front of it


def _end(regex: "re.Pattern[bytes]", text: bytes, start: int) -> int:
    match = regex.match(text, start)
    assert match is not None  # it matches nothing, too
    return match.end()


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _shown(data: bytes) -> str:
    return repr(data.decode("utf-8", "backslashreplace"))


# -- printing -------------------------------------------------------------------------------------------------


def print_rules(senders: Iterable[Rule], recipients: Iterable[Rule]) -> bytes:
    """A file with these rules: `parse` gives the same ones, but for their line numbers."""
    lines = [b":sender", *map(print_rule, senders), b":recipient", *map(print_rule, recipients)]
    return b"".join(line + b"\n" for line in lines)


def print_rule(rule: Rule) -> bytes:
    """The line of a rule, without an end."""
    assignments = [_escaped(f"{name}={value}", b"\\,\n") for name, value in rule.environment]
    fields = [
        print_pattern(rule.sender),
        print_pattern(rule.recipient),
        _escaped(rule.text, b"\\:\n"),
        b"%d" % rule.databytes if rule.databytes else b"",
        _escaped(rule.relayclient, b"\\:\n"),
        b",".join(assignments),
    ]
    while len(fields) > 2 and not fields[-1]:
        del fields[-1]
    return rule.code.value.encode() + b":".join(fields)


def print_pattern(pattern: Pattern) -> bytes:
    """A pattern as it stands in a rule."""
    target = pattern.target
    text = target.pattern if isinstance(target, Glob) else b"[[%s%s]]" % (b"@" * target.domains, target.name)
    return b"!" * pattern.negated + _escaped(text, b"\\:\n")


def _escaped(text: str | bytes, special: bytes) -> bytes:
    """`text` with escapes for `special` bytes, and for blanks, which a line may not begin or end with."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    printed = b""
    for number, byte in enumerate(data):
        if byte == 0x0A:
            printed += b"\\n"
        elif byte in special:
            printed += b"\\%c" % byte
        elif byte <= 0x20 and number in (0, len(data) - 1):
            printed += b"\\%03o" % byte
        else:
            printed += b"%c" % byte
    return printed
