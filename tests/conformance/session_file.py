r"""Sessions as text: what goes in, what is said, and what must come out under every driver.

A file holds sessions one behind the other. Each begins with ``## name``; ``#`` begins a comment. Then::

    rows: H31 H48                           what hostile input this is about (tests/hostile/rows.py)
    line: smtp queuedir counters accept     PROTOCOL BACKEND [PLUGINS...]; or pop3front-maildir [MAILDIR]
    profile: compat                         default, unless said
    set QUEUEDIR=$DIR/q                     a setting; $DIR is the session's directory, $CERT a certificate,
                                            $CA the authority that certifies users
    make q/tmp/                             a directory, made beforehand
    make users joe:secret\n                 a file, made beforehand; in it, too, $DIR is the directory
    make bin/queue* #!/bin/sh\nexit 31\n    a program
    link md/cur/1 ../../users               a symbolic link | a FIFO, made beforehand
    fifo md/cur/2
    helper CLAMD \x00 stream: OK\n          somebody on loopback, at port $CLAMD in settings: reads up to these
                                            bytes (EOF: to the end), says that, and closes
    dns 7.2.0.192.bl.example TXT Because    a record that name servers have; SERVFAIL in place of the kind: they fail
    unread: yes                             it ends before all is read: how much was is the driver's affair
    hook-seconds: 0.1                       what one hook may take, in place of two minutes
    S: 220 mx.example.org mailfront ESMTP   the server says this line (waited for)
    C: EHLO x                               the client says this line
    C! EHLO                                 the client says these bytes, without a line end
    C*1000: some line                       the client says this line a thousand times
    C*1000! some bytes                      the client says these bytes a thousand times
    cut 1                                   from here on in pieces of one byte (0: whole again)
    certificate: ann@example.org            whom the client's certificate names, in TLS
    forged: ann@example.org                 the same, but certified by another authority than $CA
    TLS                                     the client does a handshake; plain text is inside it from here
    FIN | RST                               it closes its sending side | breaks the connection
    wait 301                                it does nothing for so many seconds (virtual time only)
    result: 0                               what the session returns
    L: MAIL FROM:<a@b>                      a line of the log
    F: q/new/TIME.USEC.PID a@b\0...         a file that is there afterwards, and was not, or not so
    F: md/cur/1 (gone)                      a file that is not there any more

Client lines that follow each other are one segment. Lines end in CRLF on the wire. Text is Latin-1 with the
escapes of Python's bytes (``\\``, ``\r``, ``\n``, ``\xNN``); only log lines have none, but for a blank at
their end, which is ``\x20`` everywhere. A file over 4,000 bytes is written as its size and digest.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from tests.golden import recorded

SESSIONS = Path(__file__).with_name("sessions")


@dataclass(frozen=True, slots=True)
class Send:
    """The client sends `data`, in pieces of `cut` bytes (0: at once)."""

    data: bytes
    cut: int = 0

    def pieces(self) -> Iterator[bytes]:
        size = self.cut or len(self.data)
        for start in range(0, len(self.data), size):
            yield self.data[start : start + size]


@dataclass(frozen=True, slots=True)
class Expect:
    """The client reads `data`, before it does anything else."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """The client does nothing for `seconds`."""

    seconds: float


class Act(Enum):
    """What the client does beside talking."""

    TLS = "TLS"
    FIN = "FIN"
    RST = "RST"


Step = Send | Expect | Wait | Act


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a session, with stand-ins for what differs from run to run."""

    output: bytes
    log: tuple[str, ...]
    result: str
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Helper:
    """Whom a plugin connects to: reads until `until`, or to the end, and gives its `answer`."""

    until: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """A record in the DNS; its `kind` may be SERVFAIL."""

    name: str
    kind: str
    value: str

    @property
    def fails(self) -> bool:
        """Whether name servers fail where they are asked for this name."""
        return self.kind == "SERVFAIL"


@dataclass(frozen=True, slots=True)
class Session:
    """One session: what goes in, and what must come out."""

    name: str
    words: tuple[str, ...]
    settings: Mapping[str, str]
    make: Mapping[str, bytes | None]
    steps: tuple[Step, ...]
    outcome: Outcome
    hook_seconds: float | None = None
    unread: bool = False
    helpers: Mapping[str, Helper] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    rows: tuple[str, ...] = ()
    links: Mapping[str, str | None] = field(default_factory=dict)
    """Symbolic links and where they lead; None: a FIFO."""
    certificate: str = ""
    """The user that the client's certificate names; empty: it has none."""
    certified: bool = True
    """Whether our authority has signed that."""

    @property
    def test_id(self) -> str:
        """The name of its test: the rows, and its own name."""
        return "-".join((*(row.lower() for row in self.rows), self.name))

    @property
    def waits(self) -> bool:
        """Whether it takes minutes, which only a virtual clock makes short."""
        return any(isinstance(step, Wait) for step in self.steps)

    @property
    def starts_programs(self) -> bool:
        """Whether it starts others: CVM modules, qmail-queue, or who takes over behind a login; or connects to them."""
        second_stage = self.words[0] == "imap" and "/" in self.words[1]
        connects = "cvm-local:" in self.settings.get("AUTH_STORE", "")
        return self.starts_cvm or self.words[1:2] == ("qmail",) or second_stage or connects

    @property
    def starts_cvm(self) -> bool:
        """Whether it starts cvm-pwfile, as recorded sessions do."""
        return "cvm-pwfile" in self.settings.values()

    def up_to(self, count: int) -> "Session":
        """The session whose client closes behind its first `count` bytes. Its outcome is not known."""
        steps: list[Step] = []
        for step in self.steps:
            if isinstance(step, Send):
                if count <= len(step.data):
                    steps.append(replace(step, data=step.data[:count]))
                    break
                count -= len(step.data)
            steps.append(step)
        return replace(self, steps=(*steps, Act.FIN))

    @property
    def bytes_sent(self) -> int:
        return sum(len(step.data) for step in self.steps if isinstance(step, Send))

    def bytewise(self) -> "Session":
        """The same, byte by byte."""
        steps = tuple(replace(s, cut=1) if isinstance(s, Send) else s for s in self.steps)
        return replace(self, steps=steps, unread=True)


# What the connection is, where a session does not say otherwise: as the recordings of the original have it.
FACTS = {
    "PROTO": "TCP",
    "TCPLOCALHOST": "mx.example.org",
    "TCPLOCALIP": "192.0.2.1",
    "TCPREMOTEIP": "198.51.100.7",
    "TCPREMOTEHOST": "client.example.net",
}


def unescape(text: str) -> bytes:
    r"""The bytes of a text with ``\xNN`` and the like."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")


def escape(data: bytes) -> str:
    """The text of bytes: what `unescape` takes."""
    return repr(data)[2:-1].replace("\\'", "'") if data.count(b"'") and data.count(b'"') else repr(data)[2:-1]


def file_name(text: str) -> str:
    r"""The name of a file, from its text, in which a blank is ``\x20``."""
    return os.fsdecode(unescape(text))


def escape_name(name: str) -> str:
    """The text of a file's name: what `file_name` takes."""
    return escape(os.fsencode(name)).replace(" ", "\\x20")


class _Builder:
    def __init__(self, name: str) -> None:
        self.name = name
        self.words: tuple[str, ...] = ()
        self.settings = dict(FACTS)
        self.make: dict[str, bytes | None] = {}
        self.steps: list[Step] = []
        self.log: list[str] = []
        self.files: dict[str, bytes] = {}
        self.result = ""
        self.hook_seconds: float | None = None
        self.unread = False
        self.helpers: dict[str, Helper] = {}
        self.records: list[Record] = []
        self.rows: tuple[str, ...] = ()
        self.links: dict[str, str | None] = {}
        self.certificate = ""
        self.certified = True
        self._cut = 0

    def line(self, text: str) -> None:
        key, _, rest = text.partition(" ")
        if key == "line:":
            self.words = tuple(rest.split())
        elif key == "rows:":
            self.rows = tuple(rest.split())
        elif key == "profile:":
            self.settings["MAILFRONT_PROFILE"] = rest
        elif key == "set":
            name, _, value = rest.partition("=")
            self.settings[name] = unescape(value).decode("utf-8", "surrogateescape")
        elif key == "unset":
            del self.settings[rest]
        elif key == "make":
            name, _, content = rest.partition(" ")
            self.make[file_name(name)] = None if name.endswith("/") else unescape(content)
        elif key in ("link", "fifo"):
            name, _, target = rest.partition(" ")
            self.links[name] = target if key == "link" else None
        elif key == "helper":
            name, until, answer = rest.split(" ", 2)
            self.helpers[name] = Helper(b"" if until == "EOF" else unescape(until), unescape(answer))
        elif key == "dns":
            owner, kind, *values = rest.split(" ", 2)
            self.records.append(Record(owner, kind, unescape("".join(values)).decode("latin-1")))
        elif key == "hook-seconds:":
            self.hook_seconds = float(rest)
        elif key in ("certificate:", "forged:"):
            self.certificate, self.certified = rest, key == "certificate:"
        elif key == "unread:":
            self.unread = True
        elif key == "cut":
            self._cut = int(rest)
        elif key == "wait":
            self.steps.append(Wait(float(rest)))
        elif key == "result:":
            self.result = rest
        elif key == "L:":
            self.log.append(rest[:-4] + " " if rest.endswith("\\x20") else rest)
        elif key == "F:":
            name, _, content = rest.partition(" ")
            self.files[file_name(name)] = unescape(content)
        elif text in Act.__members__:
            self.steps.append(Act[text])
        else:
            self._said(key, rest)

    def _said(self, key: str, rest: str) -> None:
        match = re.fullmatch(r"([SC])(?:\*(\d+))?([:!])", key)
        if match is None:
            raise ValueError(f"{self.name}: what is {key!r}?")
        data = unescape(rest)
        data = (data if match[3] == "!" else data + b"\r\n") * int(match[2] or 1)
        last = self.steps[-1] if self.steps else None
        if match[1] == "S":
            if isinstance(last, Expect):
                self.steps[-1] = Expect(last.data + data)
            else:
                self.steps.append(Expect(data))
        elif isinstance(last, Send) and last.cut == self._cut:
            self.steps[-1] = Send(last.data + data, self._cut)
        else:
            self.steps.append(Send(data, self._cut))

    def session(self) -> Session:
        output = b"".join(step.data for step in self.steps if isinstance(step, Expect))
        return Session(
            self.name,
            self.words,
            self.settings,
            self.make,
            tuple(self.steps),
            Outcome(output, tuple(self.log), self.result, self.files),
            self.hook_seconds,
            self.unread,
            self.helpers,
            tuple(self.records),
            self.rows,
            self.links,
            self.certificate,
            self.certified,
        )


def parse(text: str) -> Iterator[Session]:
    """The sessions of a file."""
    builder: _Builder | None = None
    for line in text.split("\n"):
        if line.startswith("## "):
            if builder is not None:
                yield builder.session()
            builder = _Builder(line[3:])
        elif line and not line.startswith("#"):
            assert builder is not None
            builder.line(line)
    if builder is not None:
        yield builder.session()


def load() -> list[Session]:
    """All sessions of our own files."""
    return [s for path in sorted(SESSIONS.glob("*.txt")) for s in parse(path.read_text(encoding="latin-1"))]


def load_golden(names: set[str]) -> list[Session]:
    """Recorded sessions of the original, all their input in one segment, to be replayed in compat."""
    return [_from_golden(session) for session in recorded.load() if session.name in names]


def _from_golden(session: recorded.Session) -> Session:
    outcome = session.outcome
    made = {name.rstrip("*"): text for name, text in session.files.items()}
    files = {name: text for name, text in outcome.files.items() if text.decode("latin-1") != made.get(name)}
    files |= {name: b"(gone)" for name in made if name[-1] != "/" and name not in outcome.files}
    steps: tuple[Step, ...] = (Send(session.stdin), Act.FIN) if session.stdin else (Act.FIN,)
    greeted = outcome.stdout.startswith((b"220 ", b"+OK "))
    if not greeted and session.argv[1:2] not in (("qmtp",), ("qmqp",)):
        steps = ()  # who is turned away says nothing: it would meet a closed connection
    return Session(
        session.name,
        session.argv[1:] if session.argv[0] == "mailfront" else session.argv,
        {**session.env, "MAILFRONT_PROFILE": "compat"},
        {name: None if name.endswith("/") else text.encode("latin-1") for name, text in session.files.items()},
        steps,
        Outcome(
            outcome.stdout,
            tuple(line.decode("latin-1").removeprefix(f"{session.argv[0]}[PID]: ") for line in outcome.stderr),
            str(outcome.exit),
            files,
        ),
        rows=("H38",),
    )
