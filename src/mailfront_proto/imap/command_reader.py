r"""Bytes to commands (RFC 9051 section 9): lines and literals are framed first, their words read as they come.

Strategy: a command is a line, or several with literals between them. Each line is scanned once, with possessive
patterns. A command that is broken is read to its end all the same: behind a literal that does not wait (``{4+}``, RFC
7888) the client sends on whatever we think of it, and that must never be taken for commands. Where a command's end
cannot be found, the reader is lost (`LOST`), and the connection must end.
"""

import re
from enum import Enum
from typing import Final

from mailfront_proto.buffer import OVERSIZED, ReceiveBuffer
from mailfront_proto.imap import answers
from mailfront_proto.imap.profile import Profile
from mailfront_proto.imap.replies import Reply
from mailfront_proto.lazy_patterns import compile_later

MAX_LITERAL_DIGITS: Final = 10
"""Digits of a literal's length: a number has 32 bits (RFC 9051 section 4.2)."""

# ATOM-CHAR: any CHAR except atom-specials; ASTRING-CHAR adds "]"; a tag is without "+"
_ATOM: Final = rb"[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]"
_TAG: Final = compile_later(rb"[!#$&',\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]++")
_NAME: Final = compile_later(_ATOM + rb"++")
_ASTRING: Final = compile_later(_ATOM.replace(rb"\[", rb"\[\]") + rb"++")
# quoted: no CR, LF or NUL; a backslash stands before a quote or another one. UTF-8 is rev2's.
_QUOTED: Final = compile_later(rb'"((?:[^"\\\r\n\0]|\\["\\])*+)"')
_WORD: Final = compile_later(rb"[^ \t\r\x0b\x0c]++")
_BLANKS: Final = compile_later(rb"[ \t\r\x0b\x0c]*+")
_FREE_QUOTED: Final = compile_later(rb'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_CONTROL: Final = compile_later(rb"[\x00-\x1f\x7f]")
_ESCAPED: Final = compile_later(rb"\\(.)", re.DOTALL)
_LITERAL: Final = compile_later(rb"\{([0-9]*)(\+?)(\}?)")
_UNASKED_LITERAL_AT_END: Final = compile_later(rb"\{([0-9]++)\+\}\Z")


class Atom(bytes):
    """An argument that was neither quoted nor a literal: it alone may be NIL."""


Argument = bytes | list[bytes]
"""An `Atom`, a string (plain `bytes`), or a list of those."""


class Command:
    """A command that was read to its end.

    `tag`: None where there is none that could be answered. `name` in upper case. `error`: why it is refused, or None.
    It may hold a password: there is no ``repr`` of it.
    """

    __slots__ = ("arguments", "error", "name", "size", "tag")

    def __init__(self) -> None:
        self.tag: bytes | None = None
        self.name = b""
        self.arguments: list[Argument] = []
        self.error: Reply | None = None
        self.size = 0
        """Octets of its lines."""


class Reading(Enum):
    """What `CommandReader.read` returns when there is no command to return."""

    NEED_DATA = "NEED_DATA"
    """The rest is not here yet."""
    CONTINUE = "CONTINUE"
    """A literal waits to be asked for: send ``+`` and read on, or ``abandon()`` the command."""
    LOST = "LOST"
    """There is no telling where this command ends: close the connection."""


class CommandReader:
    """Reads the commands in `buffer`, one after the other, by the grammar and limits of `profile`."""

    __slots__ = (
        *("_buffer", "_limits", "_strict", "_unasked", "_frame"),
        *("_command", "_left", "_keeps", "_open", "_spaced"),
    )

    def __init__(self, buffer: ReceiveBuffer, profile: Profile) -> None:
        self._buffer = buffer
        self._limits = profile.limits
        self._strict = profile.strict_grammar
        self._unasked = profile.extensions  # literals that do not wait are known
        self._frame = max(profile.limits.command_line, profile.limits.auth_line)
        self._begin()

    def _begin(self) -> None:
        self._command = Command()
        self._left: int | None = None  # bytes of a literal still to come; None: a line comes
        self._keeps = False  # that literal is an argument, and not thrown away
        self._open: list[bytes] | None = None  # the list that is open
        self._spaced = True  # a space, or the beginning, is in front of what comes

    def read(self) -> Command | Reading:
        """The next command, once all of it is here."""
        while True:
            if self._left is not None:
                if not self._read_literal(self._left):
                    return Reading.NEED_DATA
                self._left = None
            found = self._read_line()
            if found is not None:
                return found

    @property
    def begun(self) -> Command:
        """The command whose literal waits to be asked for, as far as it is here."""
        return self._command

    def abandon(self) -> None:
        """The literal that waits is not asked for, and its command is over (RFC 9051 section 2.2.1)."""
        self._begin()

    def _read_literal(self, left: int) -> bool:
        if self._keeps:
            literal = self._buffer.read_exactly(left)
            if literal is None:
                return False
            self._add(literal)
            return True
        left -= len(self._buffer.read_some(left))
        self._left = left
        return not left

    def _read_line(self) -> Command | Reading | None:
        """A line, or what follows a literal in one; None where an unasked literal comes next."""
        command = self._command
        line = self._buffer.read_line(max(self._frame - command.size, 2)) if self._buffer.has_unread else None
        if line is None:
            return Reading.NEED_DATA
        if line == OVERSIZED:
            return Reading.LOST  # whether a literal stood at its end nobody knows
        first = not command.size
        command.size += len(line)
        text = line[:-2] if line[-2:] == b"\r\n" else line[:-1]
        asked = False
        if command.error is None:
            asked = self._scan(text, self._scan_head(text) if first else 0)
        if asked and self._left is not None:
            return Reading.CONTINUE
        if self._left is None and not self._skip_unasked(text):
            return Reading.LOST
        if self._left is not None:
            return None
        if command.error is None:
            self._check_end()
        self._begin()
        return command

    def _skip_unasked(self, text: bytes) -> bool:
        """If a literal that does not wait follows `text`, throw it away. False if its length is no number."""
        match = _UNASKED_LITERAL_AT_END.search(text)
        if match is None:
            return True
        if len(match[1]) > MAX_LITERAL_DIGITS:
            return False
        self._left, self._keeps = int(match[1]), False
        return True

    def _check_end(self) -> None:
        """What is wrong with a whole command."""
        command = self._command
        if self._open is not None:
            command.error = answers.SYNTAX_ERROR
        elif command.size > self._limits.command_line and command.name != b"AUTHENTICATE":
            command.error = answers.LINE_TOO_LONG

    # -- words -------------------------------------------------------------------------------------------

    def _scan_head(self, text: bytes) -> int:
        """Tag and name; returns where they end."""
        command = self._command
        if self._strict:
            tag = _TAG.match(text)
            name = None
            if tag is not None and text[tag.end() : tag.end() + 1] in (b"", b" "):
                command.tag = tag[0]
                name = _NAME.match(text, tag.end() + 1)
            self._spaced = False
        else:
            tag = _WORD.match(text, _end_of_blanks(text, 0))
            name = None
            if tag is not None and not _CONTROL.search(tag[0]):
                command.tag = tag[0]
                name = _WORD.match(text, _end_of_blanks(text, tag.end()))
        if command.tag is not None and len(command.tag) > self._limits.tag:
            command.tag = None
        if command.tag is None or name is None:
            command.error = answers.SYNTAX_ERROR
            return 0
        command.name = name[0].upper()
        return name.end()

    def _scan(self, text: bytes, at: int) -> bool:
        """The words of `text` from `at` on; notes what is wrong. Returns whether it ends in a literal that waits (the
        length is in `_left` then)."""
        scan = self._scan_strictly if self._strict else self._scan_freely
        while at < len(text) and self._command.error is None:
            found = scan(text, at)
            if found is None:
                return self._left is not None and not text.endswith(b"+}")
            at = found
        return False

    def _scan_strictly(self, text: bytes, at: int) -> int | None:
        """One step of RFC 9051's grammar; returns where it ends, None where scanning ends."""
        byte = text[at]
        if byte == 0x29 and self._open is not None and not (self._spaced and self._open):  # )
            self._open = None
            self._spaced = False
            return at + 1
        if not self._spaced:
            if byte != 0x20 or at + 1 == len(text):
                return self._broken(answers.SYNTAX_ERROR)
            self._spaced = True
            return at + 1
        if byte == 0x22:  # "
            quoted = _QUOTED.match(text, at)
            if quoted is None:
                return self._broken(answers.UNTERMINATED if text.count(b'"', at) == 1 else answers.SYNTAX_ERROR)
            return quoted.end() if self._add(_unescaped(quoted[1])) else None
        if byte == 0x7B:  # {
            return self._scan_literal(text, at)
        if byte == 0x28 and self._open is None:  # (
            if not self._has_room():
                return None
            self._open = []
            self._command.arguments.append(self._open)
            return at + 1
        atom = _ASTRING.match(text, at)
        if atom is None:
            return self._broken(answers.SYNTAX_ERROR)
        return atom.end() if self._add(Atom(atom[0])) else None

    def _scan_freely(self, text: bytes, at: int) -> int | None:
        """The same for the original's words."""
        at = _end_of_blanks(text, at)
        if at == len(text):
            return at
        if text[at] == 0x22:  # "
            quoted = _FREE_QUOTED.match(text, at)
            if quoted is None:
                return self._broken(answers.UNTERMINATED)
            return quoted.end() if self._add(_unescaped(quoted[1])) else None
        if text[at] == 0x7B:  # {
            return self._scan_literal(text, at)
        word = _WORD.match(text, at)
        assert word is not None
        return word.end() if self._add(Atom(word[0])) else None

    def _scan_literal(self, text: bytes, at: int) -> int | None:
        """The length of a literal, with which a line ends."""
        match = _LITERAL.match(text, at)
        assert match is not None
        digits, plus, brace = match.groups()
        if not digits:
            return self._broken(answers.MISSING_INTEGER)
        if plus and not (self._unasked and brace):
            return self._broken(answers.INVALID_INTEGER)
        if not brace:
            return self._broken(answers.MISSING_LF if match.end() == len(text) else answers.INVALID_INTEGER)
        if match.end() < len(text):
            return self._broken(answers.MISSING_LF)
        if len(digits) > MAX_LITERAL_DIGITS:
            return self._broken(answers.INVALID_INTEGER)
        if int(digits) > self._limits.literal:
            return self._broken(answers.LITERAL_TOO_LONG)
        if self._has_room():
            self._left, self._keeps = int(digits), True
        return None

    # -- what they come to -------------------------------------------------------------------------------

    def _broken(self, error: Reply) -> int | None:
        """Note `error`: scanning ends."""
        self._command.error = error
        return None

    def _has_room(self) -> bool:
        """Whether another argument may come."""
        if self._open is not None:
            if len(self._open) < 2 * self._limits.id_pairs:
                return True
        elif len(self._command.arguments) < self._limits.arguments:
            return True
        self._broken(answers.TOO_MANY_ARGUMENTS)
        return False

    def _add(self, word: bytes) -> bool:
        """Take a word as an argument; False if that is one too many."""
        if not self._has_room():
            return False
        (self._command.arguments if self._open is None else self._open).append(word)
        self._spaced = False
        return True


def _end_of_blanks(text: bytes, at: int) -> int:
    blanks = _BLANKS.match(text, at)
    assert blanks is not None
    return blanks.end()


def _unescaped(text: bytes) -> bytes:
    return _ESCAPED.sub(rb"\1", text) if b"\\" in text else text
