"""Debian's mailfront 2.12 beside ours: where it is, and how one input goes through both."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import NamedTuple

import pytest

from tests.golden.recorded import PATH, Outcome, files_in, with_log_stand_ins, with_stand_ins
from tests.peers.one_shot import OneShot, Run, run_program

THEIRS = Path("/usr/sbin/mailfront")


def _version_of_theirs() -> str:
    query = ["dpkg-query", "-W", "-f", "${Version}", "mailfront"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=30).stdout
    except OSError:
        return ""


needs_original = [
    pytest.mark.peer,
    pytest.mark.skipif(
        not THEIRS.exists() or not _version_of_theirs().startswith("2.12"),
        reason="Debian's mailfront 2.12 is not installed (make peers installs it).",
    ),
]
"""For ``pytestmark``."""

CONNECTION = {
    "PROTO": "TCP",
    "TCPLOCALHOST": "mx.example.org",
    "TCPLOCALIP": "192.0.2.1",
    "TCPREMOTEIP": "198.51.100.7",
    "TCPREMOTEHOST": "client.example.net",
}


def outcome_of(run: Run, directory: Path) -> Outcome:
    place = str(directory)
    return Outcome(
        stdout=with_stand_ins(run.stdout, place),
        stderr=with_log_stand_ins(run.stderr, place, run.pid),
        exit=run.exit,
        files=files_in(directory),
    )


def _escaped(log: bytes) -> bytes:
    """A log as we write it: the original's goes out raw (a fault that is not copied)."""
    return re.sub(rb"[\x00-\x08\x0b-\x1f\x7f]", b"?", log)


def compare(
    one_shot: OneShot,
    arguments: list[str],
    env: Mapping[str, str],
    said: bytes,
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Run both, each in a directory with `files`, and assert that all that comes out is equal. In `env` and `files`
    ``$DIR`` is that directory."""
    theirs = _run(None, arguments, env, said, files)
    ours = _run(one_shot, arguments, env, said, files)
    if arguments[0] in ("qmtp", "qmqp"):
        theirs = replace(theirs, files=_ended(theirs.files))
    if "echo" in arguments and (arguments[0] == "qmtp" or theirs.stdout.count(b"\r\n354 ") > 1):
        theirs = replace(theirs, stderr=_without_leftovers(theirs.stderr, ours.stderr))
    assert ours == theirs


def _run(
    one_shot: OneShot | None, arguments: list[str], env: Mapping[str, str], said: bytes, files: Mapping[str, bytes]
) -> Outcome:
    """Our run, or the original's without `one_shot`, with stand-ins for what differs from run to run."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        whole_env = set_up(directory, env, files)
        if one_shot is not None:
            return outcome_of(one_shot.run(["mailfront", *arguments], whole_env, directory, said), directory)
        run = _run_theirs(arguments, whole_env, directory, said)
        return outcome_of(run._replace(stderr=_escaped(run.stderr)), directory)


def set_up(directory: Path, env: Mapping[str, str], files: Mapping[str, bytes]) -> dict[str, str]:
    """Make a queue directory and `files`; the whole environment of a run there."""
    place = str(directory)
    for box in ("tmp", "new"):
        (directory / "q" / box).mkdir(parents=True)
    for file, content in files.items():
        path = directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.replace(b"$DIR", place.encode()))
    filled = {key: value.replace("$DIR", place) for key, value in env.items()}
    fixed = {"PATH": PATH, "QUEUEDIR": f"{place}/q", "QUEUEDIR_NOSYNC": "", "MAILFRONT_PROFILE": "compat"}
    return {**fixed, **CONNECTION, **filled}


def _ended(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those of the original's queuedir with the NUL that ends the recipients: it is not there when the message came
    before them (a fault that is not copied)."""
    return {
        name: b"\0\0".join(content.rsplit(b"\0", 1)) if name.startswith("q/new/") else content
        for name, content in files.items()
    }


def _without_leftovers(theirs: tuple[bytes, ...], ours: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The original's log without the ends that its echo backend puts behind the only line of a message: what
    an earlier message left in the buffer there (a fault that is not copied)."""
    logged_by_protocol = re.compile(rb"mailfront\[PID\]: (MAIL |RCPT |sender |recipient |[245]\d\d )")
    return tuple(
        our_line if line.startswith(our_line) and not logged_by_protocol.match(line) else line
        for line, our_line in zip_longest(theirs, ours, fillvalue=b"no such line")
        if line != b"no such line"
    )


def _run_theirs(arguments: list[str], env: dict[str, str], directory: Path, said: bytes) -> Run:
    """The original's run, without its last command when that has no line end: it would take such a line
    short of its last byte for a command (a fault that is not copied). In a message such an end stays."""
    program = [str(THEIRS), *arguments]
    if arguments[0] in ("qmtp", "qmqp"):
        return run_program(program, env, directory, said)
    ended = said[: said.rfind(b"\n") + 1]
    run = run_program(program, env, directory, ended)
    if ended == said:
        return run
    if run.stdout.split(b"\r\n")[-2].startswith(b"354 "):
        for stored in (directory / "q" / "new").iterdir():
            stored.unlink()
        return run_program(program, env, directory, said)  # stopped in a message: all of it counts
    count = b": bytes in: %d bytes out: "
    assert run.stderr.count(count % len(ended)) == 1
    return run._replace(stderr=run.stderr.replace(count % len(ended), count % len(said)))


class Explained(NamedTuple):
    """An input at which we differ, and why. `theirs` and `ours` are found in what each writes (bytes out,
    log and stored files one after the other); the whole differs."""

    reason: str
    said: bytes
    theirs: bytes
    ours: bytes
    arguments: str = "smtp echo accept"
    env: Mapping[str, str] = MappingProxyType({})
    files: Mapping[str, bytes] = MappingProxyType({})


def check_explained(one_shot: OneShot, explained: Explained) -> None:
    """Both sides do what `explained` says."""
    written = []
    for ours in (False, True):
        with TemporaryDirectory() as name:
            directory = Path(name)
            env = set_up(directory, explained.env, explained.files)
            arguments = explained.arguments.split()
            if ours:
                run = one_shot.run(["mailfront", *arguments], env, directory, explained.said)
            else:
                run = run_program([str(THEIRS), *arguments], env, directory, explained.said)
            outcome = outcome_of(run, directory)
            written.append(b"\n".join([outcome.stdout, *outcome.stderr, *outcome.files.values()]))
    theirs, ours_ = written
    assert explained.theirs in theirs
    assert explained.ours in ours_
    assert theirs != ours_
