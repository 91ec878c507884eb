"""Numbers in settings, as C reads them, and limits that scripts set: the original against ours in compat.

What is left out, because no profile copies it: numbers that wrap around.
"""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.golden.recorded import PATH
from tests.peers.one_shot import OneShot, run_program
from tests.peers.original import CONNECTION, THEIRS, compare, needs_original
from tests.peers.programs import program

pytestmark = needs_original

NUMBERS = (
    *("2", "02", "+2", "-1", "-0", " 2", "\t2", "2 ", "2x", "2.5", "0x2", "1e3", "x", "", "+", "- 2", "\u0662"),
    *("4294967295", "9223372036854775808", "18446744073709551616", "99999999999999999999999"),
)

_MESSAGE = (
    b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@d.example>\r\nRCPT TO:<f@d.example>\r\n"
    b"DATA\r\nReceived: x\r\nReceived: y\r\nreceived: z\r\n\r\nhello\r\n.\r\n"
)


@pytest.mark.parametrize("variable", ["DATABYTES", "MAXRCPTS", "MAXMSGS", "MAXHOPS", "MAXNOTIMPL", "PATTERNS_LINEMAX"])
def test_numbers_of_sessions(one_shot: OneShot, variable: str) -> None:
    said = b"EHLO c\r\n" + _MESSAGE + b"RSET\r\n" + _MESSAGE * 2 + b"A\r\nB\r\nC\r\nD\r\n"
    for number in NUMBERS:
        env = {variable: number} | ({"PATTERNS": "$DIR/p"} if variable == "PATTERNS_LINEMAX" else {})
        compare(one_shot, ["smtp", "echo", "patterns", "counters", "accept"], env, said, {"p": b"/h?\n"})


def test_numbers_of_parameters(one_shot: OneShot) -> None:
    mails = b"".join(b"MAIL FROM:<a@b> SIZE=%s X\r\n" % number.encode() for number in NUMBERS if " " not in number)
    compare(one_shot, ["smtp", "echo", "counters", "accept"], {"DATABYTES": "3"}, mails)


@pytest.mark.parametrize(
    ("name", "variable", "said"),
    [
        ("pop3front-auth", "MAXUSERCMD", b"USER a\r\n" * 4),
        ("pop3front-auth", "MAXAUTHFAIL", b"USER a\r\nPASS b\r\n" * 4),
        ("imapfront-auth", "MAXAUTHFAIL", b"1 LOGIN a b\r\n" * 4),
        ("imapfront-auth", "IMAP_ACL", b"1 CAPABILITY\r\n"),
        ("imapfront-auth", "IMAP_MOVE_EXPUNGE_TO_TRASH", b"1 CAPABILITY\r\n"),
    ],
)
def test_numbers_of_logins(one_shot: OneShot, tmp_path: Path, name: str, variable: str, said: bytes) -> None:
    refuses = tmp_path / "refuses"
    refuses.write_text("#!/bin/sh\ncat >/dev/null\nexit 100\n")
    refuses.chmod(0o755)
    arguments = [str(refuses), "true"] if name == "pop3front-auth" else ["true"]
    for number in NUMBERS:
        env = {"PATH": PATH, **CONNECTION, "MAILFRONT_PROFILE": "compat", "CVM_SASL_PLAIN": str(refuses)}
        theirs = run_program([program(name), *arguments], env | {variable: number}, tmp_path, said)
        ours = one_shot.run([name, *arguments], env | {variable: number}, tmp_path, said)
        assert (ours.stdout, ours.exit) == (theirs.stdout, theirs.exit), number


@pytest.mark.parametrize("variable", ["MAX_MESSAGES", "MAX_CUR_MESSAGES", "MAX_NEW_MESSAGES"])
def test_numbers_of_mailboxes(one_shot: OneShot, tmp_path: Path, variable: str) -> None:
    for box in ("cur", "new", "tmp"):
        (tmp_path / box).mkdir()
        for number in range(4):
            (tmp_path / box / f"{number}.{box}").write_text("x\n")
    for text in NUMBERS:
        env = {"PATH": PATH, **CONNECTION, "MAILFRONT_PROFILE": "compat", variable: text}
        theirs = run_program([program("pop3front-maildir"), "."], env, tmp_path, b"STAT\r\n")
        ours = one_shot.run(["pop3front-maildir", "."], env, tmp_path, b"STAT\r\n")
        assert (ours.stdout, ours.exit) == (theirs.stdout, theirs.exit), text


# -- variables that are set and empty, one by one --------------------------------------------------------------------

_FOR_ALL = "PLUGINS PROTO TMPDIR TIMEOUT SESSION_TIMEOUT AUTH_TIMEOUT SMTPGREETING MAXNOTIMPL MSG_DEBUG PATH"
_FACTS = "TCPLOCALHOST TCPLOCALIP TCPREMOTEHOST TCPREMOTEIP TCPREMOTEINFO"
_SCANNERS = {"CLAMAV_HOST": "127.0.0.1", "CLAMAV_PORT": "1", "SPAMD_HOST": "127.0.0.1", "SPAMD_PORT": "1"}
_RECEIVED = "FIXUP_RECEIVED_HOST FIXUP_RECEIVED_IP HEADER_ADD RELAYCLIENT"
_LISTED = {"PATTERNS": "$DIR/p", "LUA_SCRIPT": "$DIR/s", "MAILRULES": "$DIR/r", "QMAILHOME": "$DIR"}
EMPTY: dict[str, tuple[str, dict[str, str]]] = {
    f"{_FOR_ALL} {_FACTS}": ("echo force-file accept", {}),
    "SMTPREJECT REJECT": ("echo reject accept", {"REJECT": "one", "SMTPREJECT": "two"}),
    "RELAYCLIENT": ("echo require-auth accept-sender relayclient", {}),
    "QUEUEDIR_TMP QUEUEDIR_DEST QUEUEDIR_NOSYNC": ("queuedir accept", {}),
    f"{_FACTS} {_RECEIVED}": ("queuedir add-received accept", {"FIXUP_RECEIVED_HOST": "x", "FIXUP_RECEIVED_IP": "1"}),
    "DEFAULTHOST DEFAULTDOMAIN SENDER_DOMAINS": ("echo check-fqdn accept", {}),
    "MAXRCPTS MAXRCPTS_REJECT DATABYTES MAXMSGS MAXHOPS": ("echo counters accept", {"MAXRCPTS": "1", "DATABYTES": "9"}),
    "PATTERNS PATTERNS_LINEMAX LUA_SCRIPT MAILRULES": ("echo patterns lua mailrules accept", _LISTED),
    "QMAILHOME": ("echo qmail-validate accept", _LISTED),
    "QMAILHOME QQERRMSG_1": ("qmail accept", {"QMAILHOME": "$DIR/none"}),
    "CLAMAV_HOST CLAMAV_PORT CLAMAV_MAXSIZE CLAMAV_TIMEOUT CLAMAV_CONNECT_TIMEOUT": ("echo clamav accept", _SCANNERS),
    "SPAMD_HOST SPAMD_PORT SPAMD_MAXSIZE SPAMD_TIMEOUT SPAMD_REJECT": ("echo spamassassin accept", _SCANNERS),
    "RBL_BLACKLISTS RBL_QUEUEDIR TCPREMOTEIP": ("echo rbl accept", {}),
}


@pytest.mark.parametrize("variables", EMPTY)
def test_variables_that_are_empty(one_shot: OneShot, variables: str) -> None:
    """Each beside the others as they are. What sets CVM modules is in test_differential_modules.py; left out are
    `$SPAMD_PATH`, with which the original crashes, and `$MODULE_PATH`, which is ignored."""
    words, env = EMPTY[variables]
    files = {"p": b"/h?\n", "s": b"function sender() end\n", "r": b"", "control/me": b""}
    for variable in variables.split():
        for said in (b"EHLO c\r\n" + _MESSAGE + b"A\r\n", b"MAIL FROM:<>\r\nRCPT TO:<>\r\nRCPT TO:<a>\r\n"):
            compare(one_shot, ["smtp", *words.split()], env | {variable: ""}, said, files)


# -- the limits of counters, set and taken away in any hook ---------------------------------------------------------

_LIMITS = {"maxdatabytes": "DATABYTES", "maxrcpts": "MAXRCPTS", "maxmsgs": "MAXMSGS", "maxhops": "MAXHOPS"}
_TOLD = 'msg("%s", ' + ", ".join(f'getnum("{name}", 7777)' for name in _LIMITS) + ")"
_HOOKS = ("", "reset", "helo", "sender", "recipient", "data_start", "data_block", "message_end")
_RULES = st.sampled_from(
    [
        "n*:*::30:",
        "nx*:*",
        "n*:*::::DATABYTES=20,MAXRCPTS=2",
        "n*:*::50::MAXHOPS=1",
        "nc@*:*::15:",
        "n*:e@*::::MAXRCPTS=1",
    ]
)
_STEPS = [_MESSAGE, _MESSAGE, b"RSET\r\n", b"RSET\r\nEHLO c\r\n", b"MAIL FROM:<x@y> SIZE=30\r\n", b"RCPT TO:<q@q>\r\n"]


@st.composite
def _script(draw: st.DrawFn) -> str:
    def change() -> str:
        name, number = draw(st.sampled_from(sorted(_LIMITS))), draw(st.sampled_from([0, 1, 2, 3, 25, 40, 500]))
        kinds = [
            *(f'setnum("{name}", {number})', f'setenv("{_LIMITS[name]}", "{number}", {number % 2})'),
            # 2.12 skips the last argument of these two.
            *(f'delnum("{name}", "")', 'putenv("MAXRCPTS_REJECT=", "")'),
        ]
        return draw(st.sampled_from(kinds))

    script = ""
    for hook in draw(st.lists(st.sampled_from(_HOOKS), unique=True)):
        body = "\n".join([_TOLD % hook, *(change() for _ in range(draw(st.integers(0, 2))))])
        script += f"function {hook}() {body} end\n" if hook else f"{body}\n"
    return script


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    script=_script(),
    rules=st.tuples(st.lists(_RULES, max_size=2), st.lists(_RULES, max_size=2)),
    plugins=st.permutations(["lua", "counters", "accept", "mailrules"]),
    env=st.dictionaries(st.sampled_from(sorted(_LIMITS.values())), st.sampled_from(["1", "2", "25", "40", "0", "x"])),
    has_rules=st.booleans(),
    steps=st.lists(st.sampled_from(_STEPS), min_size=1, max_size=5),
)
def test_limits_that_scripts_set(
    one_shot: OneShot,
    script: str,
    rules: tuple[list[str], list[str]],
    plugins: list[str],
    env: dict[str, str],
    has_rules: bool,
    steps: list[bytes],
) -> None:
    files = {"s": script.encode(), "rules": "\n".join([":s", *rules[0], ":r", *rules[1]]).encode()}
    whole = {"LUA_SCRIPT": "$DIR/s"} | env | ({"MAILRULES": "$DIR/rules"} if has_rules else {})
    compare(one_shot, ["smtp", "echo", *plugins], whole, b"EHLO c\r\n" + b"".join(steps), files)


# -- what programs find in their environment ---------------------------------------------------------------------------


@pytest.mark.parametrize("locale", [{}, {"LC_CTYPE": "C"}, {"LC_CTYPE": "C.UTF-8"}, {"LC_ALL": "C"}, {"LANG": "C"}])
def test_programs_find_the_environment_that_was_given(tmp_path: Path, locale: dict[str, str]) -> None:
    """Under a C locale Python sets LC_CTYPE in its own environment."""
    queue = tmp_path / "queue"
    queue.write_text("#!/bin/sh\ncat >/dev/null\nexec env -0 >&2\n")
    queue.chmod(0o755)
    env = {"PATH": PATH, **CONNECTION, **locale, "MAILFRONT_PROFILE": "compat", "QMAILQUEUE": str(queue), "EMPTY": ""}
    env["QMAILHOME"] = str(tmp_path)
    found = []
    for name in (THEIRS, Path(sys.executable).with_name("mailfront")):
        run = run_program([str(name), "smtp", "qmail", "accept"], env, tmp_path, _MESSAGE)
        variables = dict(line.split(b"=", 1) for line in run.stderr.split(b"\0")[1:-1] if b"=" in line)
        found.append({name: value for name, value in variables.items() if name not in (b"_", b"PWD", b"SHLVL")})
    assert found[0] == found[1]
    assert found[0][b"EMPTY"] == b""
