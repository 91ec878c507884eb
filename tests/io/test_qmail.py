"""The qmail backend in virtual time: what the program gets, and what each of its ends says to the client.

Real programs, under every driver: tests/conformance/sessions/qmail.txt and the recorded sessions.
"""

import errno
from collections.abc import Mapping
from typing import Any

import pytest

from mailfront_io.auth.store import Identity
from mailfront_io.backends import qmail
from mailfront_io.backends.qmail import TEXTS, refusal
from mailfront_io.child_environment import LONGEST, child_environment
from mailfront_io.children import HandOff, SpawnFailed
from mailfront_io.frontends.handoff import hand_off
from mailfront_io.ops import Connection
from mailfront_io.session import Session
from mailfront_io.testing import (
    CANCEL,
    EOF,
    READ,
    RESET,
    STALL,
    UNTIL_EOF,
    Advance,
    Outside,
    Played,
    Program,
    VirtualClock,
)
from tests.front import ENVELOPE, Front, codes

DATA = ENVELOPE + b"DATA\r\n"
BODY = b"Subject: x\r\n\r\nbody\r\n.\r\n"
PROGRAM = "/bin/queue"


def handed(
    program: Program, *said: Any, env: Mapping[str, str] | None = None, **options: Any
) -> tuple[Played, Front]:
    """A session that ends in the qmail backend, with `program` for a qmail-queue."""
    settings = {"QMAILHOME": "/", "QMAILQUEUE": PROGRAM, **(env or {})}
    front = Front("accept", backend="qmail", env=settings)
    script = [*(said or (DATA, BODY)), EOF]
    return front.play(script, outside=Outside(programs={PROGRAM: program}), all_read=False, **options), front


def test_the_program_gets_message_and_envelope() -> None:
    two = ENVELOPE + b"RCPT TO:<c@example.org>\r\nDATA\r\n"
    played, front = handed(Program(), two, BODY, DATA.replace(b"a@example.net", b""), b"..\xff\r\n.\r\n")
    assert [{fd: bytes(data) for fd, data in ran.received.items()} for ran in played.programs] == [
        {0: b"Subject: x\n\nbody\n", 1: b"Fa@example.net\0Tb@example.org\0Tc@example.org\0\0"},
        {0: b".\xff\n", 1: b"F\0Tb@example.org\0\0"},
    ]
    assert b"250 2.6.0 Accepted message qp 1001 bytes 17\r\n" in played.output
    assert "2.6.0 Accepted message qp 1001 bytes 17" in front.log
    spawn = played.programs[0].spawn
    assert (spawn.arguments, spawn.directory, spawn.ids, spawn.files) == ([PROGRAM], "/", None, {})


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_every_exit_code(profile: str) -> None:
    for code in range(1, 256):
        played, front = handed(Program(code=code), DATA, b".\r\n", env={"MAILFRONT_PROFILE": profile})
        answer = played.output.split(b"\r\n")[-2].decode()
        kind = "554 5" if 11 <= code <= 40 else "451 4"
        other = "554 5.3.0 Message rejected by qmail-queue." if 11 <= code <= 40 else (
            "451 4.3.0 Temporary qmail-queue failure.")  # fmt: skip
        assert answer == (f"{kind[:4]}{TEXTS[code]}" if code in TEXTS else other)
        assert answer.startswith(kind)
        assert front.log[-2] == answer


def test_the_texts_of_a_setting() -> None:
    env = {"QQERRMSG_31": "5.7.1 not here\r\n250 ok\x1b", "QQERRMSG_52": ""}
    played, _ = handed(Program(code=31), env=env)
    # H60: two lines of one reply
    assert played.output.endswith(b"554-5.7.1 not here?\r\n554 5.7.1 250 ok?\r\n")
    assert refusal(52, "") == refusal(52)
    assert handed(Program(code=52), env=env)[0].output.endswith(b"451 4.3.0 Timeout.\r\n")


@pytest.mark.parametrize(
    ("program", "answer", "logged"),
    [
        (Program(code=-9), b"451 4.3.0 qmail-queue crashed.", "qmail: /bin/queue: killed by signal 9"),
        (Program(code=-11), b"451 4.3.0 qmail-queue crashed.", "qmail: /bin/queue: killed by signal 11"),
        (
            Program(failure=SpawnFailed("/bin/queue: no such file", "execute", errno.ENOENT)),
            b"451 4.3.0 Temporary qmail-queue failure.",
            "qmail: /bin/queue: no such file",
        ),
        (
            Program(failure=SpawnFailed("/bin/queue: directory /: gone", "directory", errno.ENOENT)),
            b"451 4.3.0 Could not change to the qmail directory.",
            "qmail: /bin/queue: directory /: gone",
        ),
        (
            Program(failure=SpawnFailed("/bin/queue: no process", "directory", errno.EAGAIN)),
            b"451 4.3.0 Could not start qmail-queue.",
            "qmail: /bin/queue: no process",
        ),
        (
            Program(failure=OSError(errno.EMFILE, "Too many open files")),
            b"451 4.3.0 Could not open pipe to qmail-queue.",
            "qmail: /bin/queue: Too many open files",
        ),
        (
            Program(pipes={0: [RESET]}),
            b"451 4.3.0 Writing data to qmail-queue failed.",
            "qmail: /bin/queue: exit code 0, and did not read to the end",
        ),
        (
            Program(pipes={1: [RESET]}),
            b"451 4.3.0 Writing data to qmail-queue failed.",
            "qmail: /bin/queue: exit code 0, and did not read to the end",
        ),
        (
            Program(pipes={0: [RESET], 1: [Advance(30), RESET]}, code=31),
            b"554 5.3.0 Message refused.",
            "554 5.3.0 Message refused.",
        ),
    ],
)
def test_what_goes_wrong_is_told_and_the_session_goes_on(program: Program, answer: bytes, logged: str) -> None:
    played, front = handed(program, DATA, BODY, b"NOOP\r\n")
    assert played.output.endswith(answer + b"\r\n250 2.3.0 OK\r\n")
    assert logged in front.log
    _, quiet = handed(program, env={"MAILFRONT_PROFILE": "compat"})
    assert not any(line.startswith("qmail: ") for line in quiet.log)


@pytest.mark.parametrize(
    "program",
    [Program(seconds=1e6), Program(pipes={0: [STALL]}, seconds=1e6), Program(pipes={1: [STALL]}, seconds=1e6)],
    ids=["does not end", "does not read the message", "does not read the envelope"],
)
def test_a_program_that_hangs_is_killed_at_its_deadline(program: Program) -> None:
    clock = VirtualClock()
    played, front = handed(program, DATA, BODY, b"NOOP\r\n", clock=clock)
    assert played.output.endswith(b"451 4.3.0 Timeout.\r\n250 2.3.0 OK\r\n")
    assert played.programs[0].killed
    assert 540 <= played.elapsed < 600
    assert "qmail: /bin/queue: killed, it took too long" in front.log
    assert handed(program, env={"QMAILQUEUE_TIMEOUT": "7"})[0].elapsed < 10


def test_a_session_that_is_cancelled_kills_it() -> None:
    played, _ = handed(Program(seconds=100), DATA, BODY, CANCEL, catch=True)
    assert played.programs[0].killed
    assert b"354" in played.output and not played.output.endswith(b"250 2.6.0")


def test_no_envelope_is_begun_before_all_of_the_message_is_read() -> None:
    """A program that finds the end of a message that was cut, and an envelope, would queue half a message."""
    slow = Program(pipes={0: [STALL, Advance(100), READ, UNTIL_EOF]})
    clock = VirtualClock()
    played, _ = handed(slow, clock=clock)
    assert codes(played.output)[-1] == 250
    halted = Program(pipes={0: [STALL]}, seconds=1e6)
    played, _ = handed(halted, env={"QMAILQUEUE_TIMEOUT": "7"})
    assert played.programs[0].received[1] == b""


@pytest.mark.parametrize("end", [EOF, RESET], ids=["EOF", "reset"])
def test_nothing_is_started_for_half_a_message(end: Any) -> None:
    played, _ = handed(Program(), DATA, b"half", end)
    assert played.programs == []


def test_a_home_that_is_not_there_is_told_before_the_message() -> None:
    played, front = handed(Program(), ENVELOPE + b"DATA\r\nNOOP\r\n", env={"QMAILHOME": "/nowhere"})
    assert played.output.endswith(b"451 4.3.0 Could not change to the qmail directory.\r\n250 2.3.0 OK\r\n")
    assert "qmail: /nowhere: No such file or directory" in front.log


def test_a_home_is_looked_at_again_once_it_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmail, "_checked", {"/nowhere"})
    failure = SpawnFailed("directory", "directory", errno.ENOENT)
    settings = {"QMAILHOME": "/nowhere", "QMAILQUEUE": PROGRAM}
    front = Front("accept", backend="qmail", env=settings)
    outside = Outside(programs={PROGRAM: Program(failure=failure)})
    output = front.play([DATA, BODY, DATA, EOF], outside=outside).output
    assert [code for code in codes(output) if code > 250] == [354, 451, 451]
    assert output.count(b"451 4.3.0 Could not change to the qmail directory.") == 2


def test_a_program_below_the_home() -> None:
    settings = {"QMAILHOME": "/usr"}
    front = Front("accept", backend="qmail", env=settings)
    played = front.play([DATA, BODY, EOF], outside=Outside(programs={"/usr/bin/qmail-queue": Program()}))
    assert codes(played.output)[-1] == 250


# -- the environment of programs ---------------------------------------------------------------------------


def session(environment: Mapping[str, str], facts: Mapping[str, str] | None = None) -> Session:
    return Session(Connection(VirtualClock()), environment, lambda line: None, facts=facts)


def test_a_one_shot_program_passes_on_what_it_has_but_secrets() -> None:
    known = session({"PATH": "/bin", "ANY": "1", "CVM_LOOKUP_SECRET": "s", "RELAY_PASSWORD": "p", "TCPREMOTEIP": "::1"})
    known.putenv("RELAYCLIENT", "")
    assert child_environment(known) == {"PATH": "/bin", "ANY": "1", "TCPREMOTEIP": "::1", "RELAYCLIENT": ""}


def test_a_server_passes_on_what_is_usual_named_or_the_sessions() -> None:
    settings = {"PATH": "/bin", "LC_ALL": "C", "LD_PRELOAD": "x", "AUTH_STORE": "x", "API_TOKEN": "t", "MINE": "m"}
    known = session({**settings, "QMAILHOME": "/q", "CHILD_ENVIRONMENT": "MINE:API_TOKEN"}, {"TCPREMOTEIP": "::1"})
    known.putenv("RELAYCLIENT", "@x")
    known.putenv("MY_SECRET", "s")
    assert child_environment(known) == {
        "PATH": "/bin", "LC_ALL": "C", "QMAILHOME": "/q", "TCPREMOTEIP": "::1", "RELAYCLIENT": "@x",
        "MINE": "m", "API_TOKEN": "t",
    }  # fmt: skip


def test_values_that_no_honest_setting_has_stay_behind() -> None:
    bad = {"A": "1\nB=2", "C": "\x1b[2J", "D": "x" * (LONGEST + 1), "": "e", "F=": "f", "G\n": "g", "OK": "é"}
    assert child_environment(session(bad)) == {"OK": "é"}


def test_programs_behind_a_login_get_the_same() -> None:
    known = session({"PATH": "/bin", "AUTH_STORE": "x", "API_TOKEN": "t"}, {"TCPREMOTEIP": "::1"})
    known.log_in(Identity("joe", uid=1000, gid=1000))
    coroutine = hand_off(known, ["imapd"], b"")
    operation = coroutine.send(None)
    coroutine.close()
    assert isinstance(operation, HandOff)
    assert operation.environment == {"PATH": "/bin", "TCPREMOTEIP": "::1", "USER": "joe", "UID": "1000", "GID": "1000"}
