"""Logins in the compat profile against Debian's imapfront-auth and pop3front-auth (2.12), users from cvm-pwfile: random
sessions, the same bytes, log lines, exit codes and environment of the program behind the login.

What is left out, because no profile copies it: input behind a login, which the original loses; NUL bytes; lengths of
literals that wrap; literals that do not wait; empty names and passwords in SASL, which are malformed here. Secrets are
in the original's log, so they are masked there. A user id that is none or 0 is refused here.
"""

import base64
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.peers.one_shot import OneShot, Run, run_program
from tests.peers.original import CONNECTION, needs_original
from tests.peers.programs import program

pytestmark = [
    *needs_original,
    pytest.mark.skipif(os.geteuid() != 0, reason="Only root can run a program as another user."),
]

SECOND_STAGE = ["sh", "-c", 'echo "second stage"; env | sort; id; pwd']
IGNORED = re.compile(rb"^(_|PWD|OLDPWD|SHLVL)=.*\n", re.MULTILINE)

USERS = "joe:secret:65534:65533:Joe:/:/bin/sh\nann:a b:65534:65534:Ann:/tmp:/bin/false\n"

# Knows joe by his password, and where the mail is.
MODULE = """#!/bin/sh
grep -qa joe.*secret || exit 100
printf '\\0\\0\\1\\3joe\\2\\00565534\\3\\00565533\\5\\1/\\17\\{1:o}{0}\\0'
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    program("cvm-pwfile")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "pw").write_text(USERS)
        for box, there in (("maildir", True), ("m:box", True), ("mbox", False)):
            if there:
                (Path(name) / box).mkdir()
            (Path(name) / f"module-{box}").write_text(MODULE.format(f"{name}/{box}", len(f"{name}/{box}")))
            (Path(name) / f"module-{box}").chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def one_shot(place: Path) -> Iterator[OneShot]:
    with OneShot(place) as helper:
        yield helper


def compare(one_shot: OneShot, place: Path, name: str, arguments: list[str], env: dict[str, str], said: bytes) -> None:
    whole = {"PATH": "/usr/bin:/bin", "CVM_PWFILE_PATH": f"{place}/pw", "MAILFRONT_PROFILE": "compat"}
    whole |= CONNECTION | env
    theirs = run_program([program(name), *arguments], whole, place, said)
    ours = one_shot.run([name, *arguments], whole, place, said)
    assert outcome(ours) == outcome(theirs)


def outcome(run: Run) -> tuple[bytes, list[bytes], int]:
    log = re.sub(rb"^[a-z0-9-]+\[\d+\]: ", b"", run.stderr, flags=re.MULTILINE)
    log = re.sub(rb"^AUTH .*", b"AUTH XXXXXXXX", log, flags=re.MULTILINE | re.IGNORECASE)
    log = re.sub(rb"^(?!CAPA|AUTH|QUIT|NOOP|STAT|PASS|USER|\.)\S* ?$", b"XXXXXXXX", log, flags=re.MULTILINE)
    log = re.sub(rb"^(SASL AUTH )(?:\S{9,}|\S*=\S*)( failed)", rb"\1XXXXXXXX\2", log, flags=re.MULTILINE)
    log = re.sub(rb"^\S+( BAD .*)$", rb"XXXXXXXX\1", log, flags=re.MULTILINE)  # a secret in a tag's place
    return IGNORED.sub(b"", run.stdout), log.split(b"\n"), run.exit


def encoded(*parts: str) -> str:
    return base64.b64encode("\0".join(parts).encode()).decode()


def has_nul(response: str) -> bool:
    try:
        return b"\0" in base64.b64decode(response.rpartition(" ")[2])
    except ValueError:
        return False


def wire(commands: list[str]) -> bytes:
    """The lines; of responses with a NUL those alone that are no answer to LOGIN's questions."""
    if any("LOGIN" in command.upper() for command in commands):
        commands = [command for command in commands if "PLAIN" in command.upper() or not has_nul(command)]
    return "".join(command + "\r\n" for command in commands).encode()


# -- what clients say -------------------------------------------------------------------------------------

NAMES = ["joe", "joe", "ann", "nobody", "root", "joe@x", ""]
PASSWORDS = ["secret", "secret", "a b", "wrong", ""]
RESPONSE = st.one_of(
    st.builds(encoded, st.sampled_from(["", "boss"]), st.sampled_from(NAMES[:-1]), st.sampled_from(PASSWORDS[:-1])),
    st.builds(encoded, st.sampled_from(NAMES + PASSWORDS)),
    st.sampled_from(["", "*", "*x", "=", "!!!", "am9", "am9l ", "AGpv=", "am9lZ===", "AGpvZQBzZWNyZXR="]),
)
MECHANISM = st.sampled_from(["PLAIN", "PLAIN", "LOGIN", "plain", "Login", "CRAM-MD5", "NONE", ""])
LIMITS = st.dictionaries(st.sampled_from(["MAXAUTHFAIL", "MAXUSERCMD"]), st.sampled_from(["0", "1", "2", "3", "x"]))

POP3_COMMAND = st.one_of(
    st.builds("USER {}".format, st.sampled_from(NAMES)),
    st.builds("PASS {}".format, st.sampled_from(PASSWORDS)),
    st.builds("AUTH {}".format, MECHANISM),
    st.builds("AUTH {} {}".format, MECHANISM, RESPONSE),
    RESPONSE,
    st.sampled_from(["CAPA", "AUTH", "QUIT", "NOOP", "STAT", "capa x", "QUIT now", "user  joe", "PASS", "USER"]),
)


def quoted(text: str) -> str:
    return '"' + text.replace(" ", "\\ ") + '"'


def literal(text: str) -> str:
    return f"{{{len(text)}}}\r\n{text}"


WORD = st.builds(
    lambda text, form: form(text),
    st.sampled_from([*NAMES, *PASSWORDS, "x", "a\\b", "(", "é"]),
    st.sampled_from([str, str, quoted, literal]),
)
ARGUMENTS = st.lists(
    st.one_of(WORD, WORD, st.sampled_from(['"open', "{x}", "{3x}", "{}", '""', '"a""b"', '"a"b', "{0}\r\n"])),
    max_size=4,
).map(" ".join)
TAG = st.sampled_from(["a", "b1", "*", "+", "A.1", '"t"'])
IMAP_COMMAND = st.one_of(
    st.builds("{} LOGIN {} {}".format, TAG, WORD, WORD),
    st.builds("{} {} {}".format, TAG, st.sampled_from(["LOGIN", "login", "NOOP", "CAPABILITY", "FOO"]), ARGUMENTS),
    st.builds("{} AUTHENTICATE {}".format, TAG, MECHANISM),
    st.builds("{} AUTHENTICATE {} {}".format, TAG, MECHANISM, RESPONSE),
    RESPONSE,
    st.sampled_from(["a NOOP", "  b  NOOP  ", "c CAPABILITY", "d LOGOUT", "", "e", "f" + " x" * 20]),
)
CAPABILITIES = st.dictionaries(
    st.sampled_from(["CAPABILITY", "IMAP_CAPABILITY", "IMAP_ACL", "OUTBOX", "IMAP_MOVE_EXPUNGE_TO_TRASH"]),
    st.sampled_from(["", "0", "1", "IMAP4rev1 IDLE", "imap4REV1", "IDLE", ".Out"]),
)

RANDOM = settings(
    max_examples=120,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@RANDOM
@given(st.lists(POP3_COMMAND, max_size=10), LIMITS, st.sampled_from(["", "CVM_SASL_PLAIN", "CVM_SASL_LOGIN"]))
@example(["AUTH NONE", "AUTH PLAIN", "*", "AUTH LOGIN", "", "CAPA"], {"MAXAUTHFAIL": "3"}, "CVM_SASL_PLAIN")
def test_pop3(place: Path, one_shot: OneShot, commands: list[str], limits: dict[str, str], sasl: str) -> None:
    env = {**limits, **({sasl: "cvm-pwfile"} if sasl else {})}
    compare(one_shot, place, "pop3front-auth", ["cvm-pwfile", *SECOND_STAGE], env, wire(commands))


@RANDOM
@given(
    st.lists(IMAP_COMMAND, max_size=10),
    LIMITS,
    CAPABILITIES,
    st.sampled_from(["", "dovecot", "courier"]),
    st.sampled_from(["cvm-pwfile", "$/module-maildir", "$/module-m:box", "$/module-mbox"]),
)
@example(["a AUTHENTICATE NONE", "b AUTHENTICATE PLAIN", "*", "c NOOP"], {"MAXAUTHFAIL": "2"}, {}, "", "cvm-pwfile")
@example(["a LOGIN joe secret"], {}, {}, "dovecot", "$/module-m:box")
@example(["a LOGIN joe secret"], {}, {}, "dovecot", "$/module-mbox")
def test_imap(
    place: Path,
    one_shot: OneShot,
    commands: list[str],
    limits: dict[str, str],
    capabilities: dict[str, str],
    setup: str,
    module: str,
) -> None:
    env = {"CVM_SASL_PLAIN": module.replace("$", str(place)), "SETUP_ENV": setup, **limits, **capabilities}
    compare(one_shot, place, "imapfront-auth", SECOND_STAGE, env, wire(commands))


# -- what modules tell ----------------------------------------------------------------------------------------

FACTS = {1: b"usr", 2: b"65534", 3: b"65533", 4: b"Name", 5: b"/", 6: b"/bin/sh", 7: b"grp", 14: b"dom", 15: b"/mb"}


def module(path: Path, facts: dict[int, bytes]) -> Path:
    """A module that tells `facts` of anybody."""
    told = b"".join(bytes([fact, len(value)]) + value for fact, value in facts.items())
    path.with_suffix(".packet").write_bytes(b"\0\0" + told + b"\0")
    path.write_text(f"#!/bin/sh\ncat >/dev/null\ncat {path.with_suffix('.packet')}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("fact", FACTS)
def test_facts_that_are_missing_or_empty(one_shot: OneShot, place: Path, fact: int) -> None:
    missing = {known: value for known, value in FACTS.items() if known != fact}
    for facts in (FACTS, missing, FACTS | {fact: b""}):
        if facts.get(fact) == b"" and fact in (1, 2, 3):
            continue  # no user name, and no ids: refused here
        teller = str(module(place / "teller", facts))
        env = {"CVM_SASL_PLAIN": teller}
        compare(one_shot, place, "pop3front-auth", [teller, *SECOND_STAGE], env, b"USER u\r\nPASS p\r\n")
        compare(one_shot, place, "pop3front-auth", [teller, *SECOND_STAGE], env, b"AUTH PLAIN AHUAcA==\r\n")
        compare(one_shot, place, "imapfront-auth", SECOND_STAGE, env, b"1 LOGIN u p\r\n")


SASL_LINES = (
    *(b"PLAIN ", b"PLAIN   ", b"PLAIN AHUAdw==x", b"PLAIN AHUAdw== ", b"PLAIN  AHUAdw== x", b"PLAIN AHUAdw="),
    *(b"PLAIN =", b"PLAIN AHUAdw", b"PLAIN AHUAdw==\t", b"PLAIN\tAHUAdw==", b"LOGIN ", b"LOGIN  dQ== ", b"LOGIN dQ="),
    *(b"FOO ", b"FOO !"),
)


def test_sasl_lines(one_shot: OneShot, place: Path) -> None:
    """Blanks, padding, and what stands behind it, in the command and in the answer to a challenge."""
    env = {"PATH": "/usr/bin:/bin", "CVM_PWFILE_PATH": f"{place}/pw", "MAILFRONT_PROFILE": "compat", **CONNECTION}
    env |= {"CVM_SASL_PLAIN": "cvm-pwfile"}
    arguments = ["smtp", "echo", "cvm-authenticate", "accept"]
    for line in SASL_LINES:
        mechanism, _, answer = line.partition(b" ")
        said = b"AUTH " + line + b"\r\n*\r\nAUTH " + mechanism + b"\r\n" + answer + b"\r\n*\r\nNOOP\r\n"
        theirs = run_program([program("mailfront"), *arguments], env, place, said)
        ours = one_shot.run(["mailfront", *arguments], env, place, said)
        assert (ours.stdout, ours.exit) == (theirs.stdout, theirs.exit), line
        said = said.replace(b"AUTH", b"1 AUTHENTICATE")
        if b"\t" not in line and b" x" not in line:  # IMAP's own words
            compare(one_shot, place, "imapfront-auth", SECOND_STAGE, {"CVM_SASL_PLAIN": "cvm-pwfile"}, said)
