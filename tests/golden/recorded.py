"""The recorded sessions of the original as values, and how one is run and compared.

A session is replayed in a fresh directory with exactly the recorded environment. Whatever differs from run to
run is then put back to the stand-in that the recording has, so that an outcome compares as plain data.
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RECORDINGS = Path(__file__).with_name("original-2.22.json")

PATH = "/usr/local/bin:/usr/bin:/bin"

# No session says anything after its input has ended, and the slowest plugin here is none at all: a run that
# takes this long hangs.
SECONDS_PER_RUN = 30

_DATE = re.compile(rb"\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d -0000")
_QMAIL_QUEUE_PID = re.compile(rb"\bqp \d+")
_BYTES_OUT = re.compile(rb"\bbytes out: (\d+)")
_QUEUE_FILE = re.compile(r"(?<![^/])\d{9,}\.\d{6}\.\d+(?![^/])")


@dataclass(frozen=True, slots=True)
class Session:
    """One recorded run: what went in."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    files: Mapping[str, str]
    stdin: bytes
    outcome: "Outcome"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of a run, with stand-ins. `files` are all regular files of the directory, afterwards."""

    stdout: bytes
    stderr: tuple[bytes, ...]
    exit: int
    files: Mapping[str, bytes]

    def differing(self, other: "Outcome") -> set[str]:
        """The names of the fields in which the two differ."""
        return {name for name in self.__slots__ if getattr(self, name) != getattr(other, name)}


def load() -> list[Session]:
    """All recorded sessions, in the order of the file."""
    sessions = []
    for record in json.loads(RECORDINGS.read_text(encoding="utf-8")):
        before = {name.rstrip("*"): text for name, text in record["files"].items() if name[-1] != "/"}
        outcome = Outcome(
            stdout=record["stdout"].encode("latin-1"),
            stderr=tuple(record["stderr"].encode("latin-1").split(b"\n")[:-1]),
            exit=record["exit"],
            files={
                name: text.encode("latin-1") for name, text in record.get("files_after", before).items()
            },
        )
        sessions.append(
            Session(
                name=record["name"],
                argv=tuple(record["argv"]),
                env=record["env"],
                files=record["files"],
                stdin=record["stdin"].encode("latin-1"),
                outcome=outcome,
            )
        )
    return sessions


def run(
    session: Session,
    program: Sequence[str],
    directory: Path,
    extra_env: Mapping[str, str] | None = None,
) -> Outcome:
    """Run `program` with the session's arguments, environment and input in `directory` (an empty one)."""
    place = str(directory)
    for name, text in session.files.items():
        path = directory / name.rstrip("/*")
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.replace("$DIR", place).encode("latin-1"))
        if name.endswith("*"):
            path.chmod(0o755)
    environment = {name: value.replace("$DIR", place) for name, value in session.env.items()}
    process = subprocess.Popen(
        [*program, *(argument.replace("$DIR", place) for argument in session.argv[1:])],
        env={"PATH": PATH, **environment, **(extra_env or {})},
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            stdout, stderr = process.communicate(
                session.stdin.replace(b"$DIR", place.encode()), timeout=SECONDS_PER_RUN
            )
        except BaseException:
            process.kill()
            raise
    return Outcome(
        stdout=with_stand_ins(stdout, place),
        stderr=with_log_stand_ins(as_counted(stderr, stdout), place, process.pid),
        exit=process.returncode,
        files=files_in(directory),
    )


def with_stand_ins(data: bytes, place: str) -> bytes:
    """`data` with the stand-ins for the directory, the date and the id of a qmail-queue."""
    data = data.replace(place.encode(), b"$DIR")
    return _QMAIL_QUEUE_PID.sub(b"qp PID", _DATE.sub(b"DATE", data))


def as_counted(log: bytes, output: bytes) -> bytes:
    """`log` with the bytes out counted as if the id of each qmail-queue had five digits, as in the recordings."""
    missing = sum(5 - len(id_) + len(b"qp ") for id_ in _QMAIL_QUEUE_PID.findall(output))
    return _BYTES_OUT.sub(lambda found: b"bytes out: %d" % (int(found[1]) + missing), log)


def with_log_stand_ins(log: bytes, place: str, pid: int) -> tuple[bytes, ...]:
    """The lines of a log with stand-ins; only the process's own id becomes `[PID]`.

    A log line ends at LF and at nothing else: the original logs a CR as it came.
    """
    lines = log.split(b"\n")
    assert lines.pop() == b"", "the last line of the log has no end"
    own_id = b"[%d]: " % pid
    return tuple(with_stand_ins(line.replace(own_id, b"[PID]: ", 1), place) for line in lines)


def files_in(directory: Path) -> dict[str, bytes]:
    """Every regular file below `directory`, by its name with stand-ins for queue files."""
    found: dict[str, bytes] = {}
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            continue
        name = _QUEUE_FILE.sub("TIME.USEC.PID", str(path.relative_to(directory)))
        number = 1
        while name in found:
            number += 1
            name = f"{name.partition('#')[0]}#{number}"
        found[name] = with_stand_ins(path.read_bytes(), os.fspath(directory))
    return found
