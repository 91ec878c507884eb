"""Sessions as text files: what the transcripts of all protocols share (see ``tests/transcripts/README.md``)."""

import ast
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self


@dataclass(slots=True)
class Session(ABC):
    """One session: `settings` by name; `segments`: what the client says, cut where it waits for an answer; `output`:
    what it gets; `events`: what the machine tells."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    segments: list[bytes] = field(default_factory=lambda: [b""])
    output: bytes = b""
    events: list[str] = field(default_factory=list)

    @abstractmethod
    def waits_behind(self, reply: bytes) -> bool:
        """Whether the client says nothing more before it has `reply`."""

    def take(self, mark: str, text: bytes) -> bool:
        """A line with a mark of the protocol's own; False if there is no such."""
        return False

    def limits(self) -> dict[str, int]:
        """The settings ``limit.NAME``."""
        return {k.removeprefix("limit."): int(v) for k, v in self.settings.items() if k.startswith("limit.")}

    @classmethod
    def load(cls, directory: Path) -> list[Self]:
        """All sessions in the ``.txt`` files of `directory`."""
        return [session for path in sorted(directory.glob("*.txt")) for session in cls._read(path)]

    @classmethod
    def _read(cls, path: Path) -> list[Self]:
        found: list[Self] = []
        for number, line in enumerate(path.read_text("latin-1").splitlines(), 1):
            if not line.strip() or line.startswith("# "):
                continue
            if line.startswith("## "):
                found.append(cls(f"{path.stem}-{line[3:].strip()}"))
                continue
            if not found:
                raise ValueError(f"{path}, line {number}: a transcript begins with '## NAME'")
            found[-1]._read_line(line, f"{path}, line {number}")
        for session in found:
            if len(session.segments) > 1 and not session.segments[-1]:
                session.segments.pop()  # nothing more is said
        return found

    def _read_line(self, line: str, where: str) -> None:
        mark, _, text = line.partition(" ")
        if mark in ("C:", "C>"):
            self.segments[-1] += unescape(text) + (b"\r\n" if mark == "C:" else b"")
        elif mark == "S:":
            reply = unescape(text)
            self.output += reply + b"\r\n"
            if self.waits_behind(reply):
                self.segments.append(b"")
        elif mark == "E:":
            self.events.append(text)
        elif len(mark) == 2 and self.take(mark, unescape(text)):
            pass
        elif mark.endswith(":") and not self.segments[0]:
            self.settings[mark[:-1]] = text
        else:
            raise ValueError(f"{where}: {line!r} is no line of a transcript")


def unescape(text: str) -> bytes:
    r"""A line as bytes: Python's escapes, and ``{10*x}`` for ten times x."""
    data: bytes = ast.literal_eval('b"' + text.replace('"', r"\x22") + '"')
    return re.sub(rb"\{(\d+)\*([^}]*)\}", lambda m: int(m[1]) * m[2], data)
