"""Where a session is played: its directory, its service, its log; and how what came of it is compared.

A driver gets `Stage.session` as its session factory. The service writes its log through the real sink into a
file, and the result of the session goes into a pipe: so it makes no difference in which thread or process the
driver runs the session.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

from mailfront_io import calling
from mailfront_io.imap_service import imap_service_from_line
from mailfront_io.log import line_log
from mailfront_io.ops import Connection
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.pop3_service import POP3Service, pop3_service_from_line
from mailfront_io.service import service_from_line
from mailfront_proto.pop3.states import Mode
from tests.certificates import write_authority
from tests.conformance.session_file import Outcome, Session
from tests.golden.recorded import as_counted

SHOWN_BYTES = 4000
GONE = b"(gone)"

_HOOK_SECONDS = calling.HOOK_SECONDS

_STAND_INS = (
    (re.compile(rb"\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d -0000"), b"DATE"),
    (re.compile(rb"\bError [0-9a-f]{8}:"), b"Error ID:"),
    (re.compile(rb"\bqp \d+"), b"qp PID"),
    (re.compile(rb"\b(127\.0\.0\.1 port )\d+"), rb"\1PORT"),
    # OpenSSL's words differ from version to version, and so does the alert.
    (re.compile(rb"(TLS handshake failed: )TLS error: .*"), rb"\1TLS error"),
    (re.compile(rb"\x15\x03[\x00-\x04]\x00\x02[\x01\x02].", re.DOTALL), b"<alert>"),
    (re.compile(rb"(?<=/)\d{9,}\.\d{6}\.\d+(?=:)"), b"TIME.USEC.PID"),
    (re.compile(rb"TLS handshake: TLS1\.3 .*"), b"TLS handshake: TLS1.3"),
)
_BYTES_IN = re.compile(rb"\bbytes in: \d+")
_QUEUE_FILE = re.compile(r"(?<![^/])\d{9,}\.\d{6}\.\d+(?![^/])")
_MAIL_FILE = re.compile(r"(?<![^/])\d{9,}\.M\d{6}P\d+Q\d+\.[^/,]+")
_PROGRAM = re.compile(rb"^mailfront\[\d+\]: ")


@dataclass(frozen=True, slots=True)
class Stage:
    """A session's service, as plain values that go from process to process."""

    words: list[str]
    environment: Mapping[str, str]
    log: str
    hook_seconds: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Stage":
        return cls(**json.loads(text))

    def session(self, connection: Connection, done: int) -> SessionCoroutine:
        """The session; when it has ended its result is a line in the pipe `done`."""
        return self._session(connection, done)

    async def _session(self, connection: Connection, done: int) -> int:
        calling.HOOK_SECONDS = self.hook_seconds
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        outcome = "it ended with no result"
        try:
            sink = line_log("mailfront", self.environment.get("MAILFRONT_PROFILE") == "compat", log)
            settings = {"AUTH_FAILURE_DELAY": "0", **self.environment}
            if self.words[0] == "pop3front-maildir":
                mailbox = POP3Service(settings, sink, mode=Mode.MAILBOX, mailbox="".join(self.words[1:]))
                result = await mailbox.session(connection)
            elif self.words[0] == "imap":
                result = await imap_service_from_line(self.words, settings, sink).session(connection)
            elif self.words[0] == "pop3":
                result = await pop3_service_from_line(self.words, settings, sink).session(connection)
            else:
                result = await service_from_line(self.words, settings, sink).session(connection)
            outcome = str(result)
            return result
        except BaseException as error:
            outcome = repr(error)
            raise
        finally:
            os.close(log)
            os.write(done, outcome.encode() + b"\n")


def set_up(session: Session, place: Path, certificate: Path, ports: Mapping[str, int]) -> Stage:
    """Make what the session finds in `place`, an empty directory. `ports`: of its helpers."""
    work = place / "work"
    work.mkdir()
    if any("$CA" in value for value in session.settings.values()):
        write_authority(place)
    known = {"$DIR": str(work), "$CERT": str(certificate), "$CA": str(place / "authority.pem")}
    known |= {f"${name}": str(port) for name, port in ports.items()}

    def fill(text: str) -> str:
        for name, value in known.items():
            text = text.replace(name, value)
        return text

    for name, content in session.make.items():
        path = work / name.rstrip("*")
        if content is None:
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.replace(b"$DIR", str(work).encode()))
            if name.endswith("*"):
                path.chmod(0o755)
    for name, target in session.links.items():
        path = work / name
        if target is None:
            os.mkfifo(path)
        else:
            path.symlink_to(target)
    return Stage(
        [*map(fill, session.words)],
        {name: fill(value) for name, value in session.settings.items()},
        str(place / "log"),
        session.hook_seconds or _HOOK_SECONDS,
    )


def outcome(session: Session, place: Path, output: bytes, result: str) -> Outcome:
    """What came of the session in `place`, with stand-ins."""
    work = place / "work"
    log = place / "log"
    lines = as_counted(log.read_bytes(), output).split(b"\n")[:-1] if log.exists() else []

    def stand_in(data: bytes) -> bytes:
        data = data.replace(str(work).encode(), b"$DIR")
        for pattern, instead in _STAND_INS:
            data = pattern.sub(instead, data)
        if session.unread:
            data = _BYTES_IN.sub(b"bytes in: SOME", data)
        return data

    return Outcome(
        stand_in(output),
        tuple(stand_in(_PROGRAM.sub(b"", line)).decode("latin-1") for line in lines),
        result,
        _files(work, stand_in, session),
    )


def without_bytes_in(expected: Outcome) -> Outcome:
    """The outcome of a session of which some may stay unread."""
    log = tuple(re.sub(r"\bbytes in: \d+", "bytes in: SOME", line) for line in expected.log)
    return replace(expected, log=log)


def _files(work: Path, stand_in: Callable[[bytes], bytes], session: Session) -> dict[str, bytes]:
    """Every file that is new, has changed or is gone, by its name with stand-ins. Links that stayed are none."""
    made = {name.rstrip("*"): content for name, content in session.make.items()}
    found = {name: GONE for name, content in made.items() if content is not None and not (work / name).exists()}
    found |= {name: GONE for name in session.links if not os.path.lexists(work / name)}
    for path in sorted(work.rglob("*")):
        name = str(path.relative_to(work))
        if name in session.links or not path.is_file() or stand_in(path.read_bytes()) == made.get(name):
            continue
        name = first = _MAIL_FILE.sub("UNIQUE", _QUEUE_FILE.sub("TIME.USEC.PID", name))
        number = 1
        while name in found:
            number += 1
            name = f"{first}#{number}"
        content = stand_in(path.read_bytes())
        if len(content) > SHOWN_BYTES:
            content = b"%d bytes, sha256 %s" % (len(content), sha256(content).hexdigest().encode())
        found[name] = content
    return found
