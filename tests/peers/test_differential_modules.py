r"""CVM modules, and logins against them: the original against ours in compat, with modules that are scripts.

Lists of modules, odd answers, secrets that are set and empty, names without an account, and the very request that a
module reads. What is left out, because no profile copies it: NUL and control bytes and bytes that are no UTF-8 in names
and passwords (refused here), values of more than 255 octets, answers that tell a fact twice, ids that are no plain
numbers. A module that cannot be started is left out, too: the original's child then ends as a second server.
"""

import base64
import itertools
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.golden.recorded import PATH
from tests.peers.one_shot import OneShot, run_program
from tests.peers.original import Explained, check_explained, compare, needs_original
from tests.peers.programs import program

pytestmark = needs_original


def tagged(tag: int, value: bytes) -> bytes:
    return bytes([tag, len(value)]) + value


USER = tagged(1, b"joe") + tagged(2, b"65534") + tagged(3, b"65533") + tagged(5, b"/")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory of modules."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        answers = {
            "ok": (b"\0\0" + USER + b"\0", 0),
            "no": (b"d\0\0", 100),
            "none-of-mine": (b"d\0" + tagged(16, b"1") + b"\0", 100),
            "mine": (b"d\0" + tagged(16, b"0") + b"\0", 100),
            "later": (b"\1\0\0", 1),
            "silent": (b"", 0),
        }
        for module, (answer, status) in answers.items():
            write_module(directory / module, answer, status)
        # Shows what it was asked, and with which secrets around it.
        shows = "od -An -c -v -w600 >&2\nenv | sort | grep LOOKUP_SECRET >&2\n"
        (directory / "shows").write_text(f"#!/bin/sh\n{shows}printf 'd\\0\\0'\nexit 100\n")
        (directory / "shows").chmod(0o755)
        yield directory


def write_module(path: Path, answer: bytes, status: int) -> None:
    path.with_suffix(".answer").write_bytes(answer)
    path.write_text(f"#!/bin/sh\ncat >/dev/null\ncat {path.with_suffix('.answer')}\nexit {status}\n")
    path.chmod(0o755)


def encoded(*parts: str) -> bytes:
    return base64.b64encode("\0".join(parts).encode())


PLUGINS = ["smtp", "echo", "cvm-authenticate", "cvm-validate", "accept"]
LOGIN = b"EHLO c\r\nAUTH PLAIN " + encoded("", "joe", "secret") + b"\r\n"
RECIPIENTS = b"MAIL FROM:<a@b>\r\nRCPT TO:<joe@x>\r\nRCPT TO:<@x>\r\nRCPT TO:<joe@>\r\nRCPT TO:<joe>\r\n"


def ask(one_shot: OneShot, modules: str, env: dict[str, str] | None = None) -> None:
    """Modules for passwords, and for recipients: not both at once, for where there is a `$CVM_LOOKUP` and no secret any
    password is right in the original (a fault that is not copied)."""
    compare(one_shot, PLUGINS, {"CVM_SASL_PLAIN": modules, **(env or {})}, LOGIN)
    compare(one_shot, PLUGINS, {"CVM_LOOKUP": modules, **(env or {})}, RECIPIENTS)


LISTS = [
    *("", "ok", "ok,", "ok,,", "mine", "no", "none-of-mine", "none-of-mine,", "later", "silent", "cvm-command:ok"),
    *("none-of-mine,ok", "none-of-mine,none-of-mine", "none-of-mine,mine", "mine,ok", "no,ok", "later,ok", "silent,ok"),
    *("cvm-local:", "cvm-local:,ok", "cvm-local:/nowhere,ok", "cvm-udp:", "cvm-udp:127.0.0.1", "cvm-udp:127.0.0.1:"),
    *("cvm-udp:127.0.0.1:x,ok", "cvm-udp::1", "no,none-of-mine", "none-of-mine,no", "no,mine,ok", "no,later"),
]


@pytest.mark.parametrize("modules", LISTS)
def test_lists_of_modules(one_shot: OneShot, place: Path, modules: str) -> None:
    ask(one_shot, ",".join(with_its_path(name, place) for name in modules.split(",")))


def with_its_path(name: str, place: Path) -> str:
    path = place / name.removeprefix("cvm-command:")
    return name.replace(path.name, str(path)) if path.is_file() else name


_RESTS = {
    **{"alone": b"", "without an end": b"\0", "and no more": b"\0\0", "and more": b"\0\0x", "and chance": b"\1x\0"},
    **{"cut off": b"\0" + USER[:-1], "a user": b"\0" + USER + b"\0", "more than a user": b"\0" + USER + b"\0x"},
}
ANSWERS = {
    **{f"{head!r} {name}": head + rest for head in (b"\0", b"d") for name, rest in _RESTS.items()},
    "no gid": b"\0\0" + USER.replace(b"65533", b"x5533") + b"\0",
    **{f"scope {value!r}": b"d\0" + tagged(16, value) + b"\0" for value in (b"", b"x", b"2", b"1x", b"-1", b" 1")},
    "512 octets": b"\0\0" + USER + tagged(4, b"x" * 240) + tagged(6, b"y" * (265 - len(USER))) + b"\0",
    "513 octets": b"\0\0" + USER + tagged(4, b"x" * 240) + tagged(6, b"y" * (266 - len(USER))) + b"\0",
    "a fact of their own": b"\0\0" + USER + tagged(200, b"x") + b"\0",
    "all facts": b"\0\0" + USER + tagged(9, b"sys") + tagged(14, b"dom") + tagged(15, b"/mb") + b"\0",
}


@pytest.mark.parametrize("status", [0, 100])
def test_answers(one_shot: OneShot, place: Path, status: int) -> None:
    module = place / "answers"
    for answer in ANSWERS.values():
        write_module(module, answer, status)
        ask(one_shot, str(module))


@pytest.mark.parametrize("ours", [None, "", "s1"])
@pytest.mark.parametrize("others", [None, "", "s2"])
def test_secrets(one_shot: OneShot, place: Path, ours: str | None, others: str | None) -> None:
    given = {"CVM_LOOKUP_SECRET": ours, "LOOKUP_SECRET": others}
    ask(one_shot, str(place / "shows"), {name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize(
    "env",
    [
        *({}, {"TCPLOCALHOST": ""}, {"PROTO": "SSL", "SSLLOCALHOST": "ssl"}),
        *({"CVM_ACCOUNT_SPLIT_CHARS": "%@"}, {"CVM_ACCOUNT_SPLIT_CHARS": ""}),
    ],
)
def test_names(one_shot: OneShot, place: Path, env: dict[str, str]) -> None:
    """What reaches the module: account and domain, each of which may be empty, and an empty password."""
    names = ["joe", "joe@x", "joe@", "@x", "@", "a@b@c", "a%b", "", "a b", "é@x"]
    attempts = [b"PLAIN " + encoded("", name, password) for name in names for password in ("secret", "")]
    attempts += [b"LOGIN " + encoded(name) + b"\r\n" + encoded("secret") for name in names if name]
    said = b"".join(b"AUTH " + attempt + b"\r\n" for attempt in attempts)
    compare(one_shot, PLUGINS, {"CVM_SASL_PLAIN": str(place / "shows"), **env}, said)
    said = b"".join(b"RCPT TO:<%s>\r\n" % name.encode() for name in names if " " not in name)
    compare(one_shot, PLUGINS, {"CVM_LOOKUP": str(place / "shows"), **env}, b"MAIL FROM:<a@b>\r\n" + said)


SETTINGS = ("CVM_SASL_PLAIN", "CVM_SASL_LOGIN", "CVM_SASL_CRAM_MD5")


def test_modules_that_are_set_and_empty(one_shot: OneShot, place: Path) -> None:
    """But for PLAIN and LOGIN beside CRAM-MD5, of which the original drops one (a fault that is not copied)."""
    by_password = (b"LOGIN " + encoded("joe") + b"\r\n" + encoded("x"), b"PLAIN " + encoded("", "joe", "x"))
    values = (None, "", str(place / "mine"))
    for plain, login, cram in itertools.product(values, repeat=3):
        given = dict(zip(SETTINGS, (plain, login, cram), strict=True))
        env = {name: value for name, value in given.items() if value is not None}
        if not env or (cram is not None and len(env) > 1):
            continue
        said = [b"EHLO c", *(b"AUTH " + each for each in by_password if cram is None), b"AUTH CRAM-MD5 ="]
        compare(one_shot, PLUGINS, env, b"".join(line + b"\r\n" for line in said))


@pytest.mark.parametrize("value", [None, "", "0", "1", "x"])
def test_tls_is_required_where_the_variable_is_set(one_shot: OneShot, place: Path, value: str | None) -> None:
    env = {"CVM_SASL_PLAIN": str(place / "ok")} | ({} if value is None else {"AUTH_REQUIRES_TLS": value})
    compare(one_shot, PLUGINS, env, b"EHLO c\r\nMAIL FROM:<a@b>\r\n")


def test_a_lookup_beside_logins_checks_passwords(one_shot: OneShot, tmp_path: Path) -> None:
    """A fault of the original that lets anybody in."""
    (tmp_path / "pw").write_text("joe:secret:65534:65533:Joe:/:/bin/sh\n")
    env = {"CVM_PWFILE_PATH": str(tmp_path / "pw"), "CVM_SASL_PLAIN": "cvm-pwfile", "CVM_LOOKUP": "cvm-pwfile"}
    wrong = Explained(
        "with $CVM_LOOKUP and without a secret the original's modules look up, and compare no password",
        b"AUTH PLAIN " + encoded("", "joe", "wrong") + b"\r\n",
        b"235 ",
        b"501 ",
        " ".join(PLUGINS),
        env,
    )
    check_explained(one_shot, wrong)


@pytest.mark.parametrize("value", ["", "1"])
def test_tls_is_required_of_logins_too(one_shot: OneShot, place: Path, value: str) -> None:
    env = {"PATH": PATH, "MAILFRONT_PROFILE": "compat", "CVM_SASL_PLAIN": str(place / "ok"), "AUTH_REQUIRES_TLS": value}
    for program_name, arguments, said in (
        ("pop3front-auth", [str(place / "ok"), "true"], b"CAPA\r\n"),
        ("imapfront-auth", ["true"], b"1 LOGIN joe secret\r\n"),
    ):
        theirs = run_program([program(program_name), *arguments], env, place, said)
        ours = one_shot.run([program_name, *arguments], env, place, said)
        assert b"SASL LOGIN PLAIN" in theirs.stdout or theirs.stdout == b"* OK imapfront ready.\r\n"
        assert b"SASL" not in ours.stdout and (b"+OK" in ours.stdout or b"1 NO LOGIN is disabled" in ours.stdout)
