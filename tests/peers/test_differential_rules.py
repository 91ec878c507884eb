r"""Mail rules, patterns, qmail-validate and the limits that rules set: the original against ours in compat.

Rule files, control files, patterns, addresses and messages are generated. What 2.12 does not have (``K``, ``&``) or
does otherwise than 2.22 (an accepting rule without text), and the faults that no profile copies, are left out of that;
`EXPLAINED` has each of them, with what either side does.
"""

import io
import itertools
from pathlib import Path
from typing import NamedTuple

import pytest
from cdblib import Writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailfront_io.rules.glob import Glob
from tests.golden.recorded import PATH
from tests.peers.one_shot import OneShot, run_program
from tests.peers.original import CONNECTION, THEIRS, Explained, check_explained, compare, needs_original
from tests.peers.test_qmtp_frontend_original import package

pytestmark = needs_original

_SETTINGS = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def cdb(*keys: bytes) -> bytes:
    """A CDB file with these keys."""
    file = io.BytesIO()
    writer = Writer(file)
    for key in keys:
        writer.put(key, b"")
    writer.finalize()
    return file.getvalue()


class Case(NamedTuple):
    """Arguments, environment, input and files of one run."""

    arguments: list[str]
    env: dict[str, str]
    said: bytes
    files: dict[str, bytes]


# -- addresses and what is compared with them --------------------------------------------------------------

_LOCALS = ["a", "b", "Ann", "list-x", "a.b", ""]
_DOMAINS = ["@one.example", "@TWO.example", "@sub.one.example", "@x", "@", "", "@.one.example", "@b@one.example"]
_ADDRESS = st.builds(str.__add__, st.sampled_from(_LOCALS), st.sampled_from(_DOMAINS))

_ENTRIES = st.lists(
    st.sampled_from(
        [
            *("a@one.example", "B@One.Example", "@one.example", "@TWO.EXAMPLE", "one.example", "two.example", "x"),
            *(".one.example", ".example", "  ann@two.example ", "# a@one.example", "", " #x", "@"),
            "\tsub.one.example\r",
        ]
    ),
    max_size=6,
)
_LIST = _ENTRIES.map(lambda entries: "\n".join(entries).encode())
_CDB = _ENTRIES.map(lambda entries: cdb(*(e.strip().lower().encode() for e in entries)))

_PIECES = [
    *("*", "*", "a", "b", "A", "@", "one", ".example", "two", "?", "[ab]", "[!a]", "[^a]", "[]", "[!]", "x", ".", "\\:")
]


def _is_plain(pattern: str) -> bool:
    """Whether the original stays within the address: a `?` behind a star, with no more than such behind it, matches
    the byte behind its end."""
    tail = pattern[len(pattern.rstrip("?*")) :]
    return "?" not in tail.partition("*")[2]


_GLOB = st.one_of(
    st.sampled_from(["*", "*", "a@one.example", "*@one.example", "a@*", "*@*.example", "", "ANN@*", "**"]),
    st.lists(st.sampled_from(_PIECES), max_size=6).map("".join).filter(_is_plain),
)
_REFERENCE = st.sampled_from(["[[$DIR/list]]", "[[@$DIR/list]]", "[[$DIR/l.cdb]]", "[[@$DIR/l.cdb]]", "[[@list]]"])
_PATTERN = st.builds(str.__add__, st.sampled_from(["", "", "", "!", "!!"]), st.one_of(_GLOB, _GLOB, _GLOB, _REFERENCE))


# -- rules, and the limits that they set --------------------------------------------------------------------

_TEXT = st.sampled_from(["Text", "two\\nlines", "a \\: b \\\\ c", "5.7.1 Because", "caf\u00e9", " x"])
_ASSIGNMENT = st.sampled_from(
    [
        *("MAXRCPTS=1", "MAXRCPTS=2", "MAXRCPTS=0", "MAXHOPS=1", "MAXHOPS=2", "MAXMSGS=1", "MAXMSGS=2", "MAXMSGS=x"),
        *("DATABYTES=5", "DATABYTES=20", "DATABYTES=0", "MAXRCPTS_REJECT=", "RELAYCLIENT=@via", "RELAYCLIENT="),
        *("HEADER_ADD=X: 1\\, 2", "HEADER_ADD=X:1\\nY:2", "REJECT=-no", "REJECT=later\\, please", "none", ""),
    ]
)


@st.composite
def _rule(draw: st.DrawFn) -> str:
    code = draw(st.sampled_from("kkkkddzznnnpp"))
    fields = [draw(_PATTERN), draw(_PATTERN)]
    # An accepting rule without text is an explained difference.
    fields.append(draw(_TEXT if code == "k" else st.one_of(_TEXT, st.just(""))))
    fields.append(draw(st.sampled_from(["", "", "", "5", "20", "0", "007", "100"])))
    fields.append(draw(st.sampled_from(["", "", "", "@sfx", "\\:x"])))
    fields.append(",".join(draw(st.lists(_ASSIGNMENT, max_size=2))))
    count = draw(st.integers(3 if code == "k" else 1, 6))
    return code + ":".join(fields[:count])


_OTHER_LINE = st.sampled_from(
    [":sender", ":recipient", ":s", ":rx", "# k*:*:x", "", "   ", "xk*:*", "Q", "  k*:*:blanks  ", "\tpa@*\r"]
)


@st.composite
def _rule_file(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(st.one_of(_rule(), _rule(), _rule(), _OTHER_LINE), max_size=12))
    broken = draw(st.integers(0, 19))
    if broken == 0:
        line = draw(st.sampled_from([":x", ":", ":S", "ka:*:x:5x", "da:*:x:-5", "za:b:x: 5", "na:*::0x1", "pa:*::5 :"]))
        lines.insert(draw(st.integers(0, len(lines))), line)
    if broken == 1:
        lines.insert(draw(st.integers(0, len(lines))), "k[[$DIR/none]]:*:x")
    return "\n".join(lines).encode() + draw(st.sampled_from([b"\n", b"\n", b""]))


_BODY = st.sampled_from(
    [
        *("one\r\n", "Received: a\r\nReceived: b\r\n\r\nx\r\n", "0123456789\r\n", "\r\n", "Delivered-To: a\r\n\r\n"),
        "Subject: t\r\n\r\nlonger text\r\n",
    ]
)


@st.composite
def _said(draw: st.DrawFn, queued: bool = False) -> bytes:
    steps = []
    for _ in range(draw(st.integers(1, 4))):
        hello = draw(st.sampled_from(["", "", "RSET\r\nEHLO c\r\n", "RSET\r\n"]))
        size = draw(st.sampled_from(["", "", " SIZE=6", " SIZE=50"]))
        step = f"{hello}MAIL FROM:<{draw(_ADDRESS)}>{size}\r\n"
        for address in draw(st.lists(_ADDRESS, min_size=1, max_size=3)):
            step += f"RCPT TO:<{address}>\r\n"
        if draw(st.booleans()):
            # What was refused before it would be commands; so would they be in both.
            step += "DATA\r\n" + draw(_BODY) + ".\r\n" + ("RSET\r\n" if queued else "")
        steps.append(step)
    return "".join(steps).encode("utf-8")


@st.composite
def _rules_case(draw: st.DrawFn) -> Case:
    plugins = draw(
        st.sampled_from(
            [
                ["mailrules", "counters", "accept"],
                ["counters", "mailrules", "accept"],
                ["mailrules", "accept"],
                ["mailrules"],
                ["check-fqdn", "mailrules", "relayclient", "accept"],
                ["mailrules", "relayclient", "reject", "accept"],
                ["reject", "counters", "mailrules", "add-received", "accept"],
            ]
        )
    )
    backend = draw(st.sampled_from(["echo", "echo", "queuedir"]))
    env = {"MAILRULES": "$DIR/rules", "DEFAULTHOST": "host.example", "DEFAULTDOMAIN": "example"}
    for name, values in {"DATABYTES": ["5", "15"], "MAXRCPTS": ["2"], "MAXMSGS": ["2"], "RELAYCLIENT": [""]}.items():
        value = draw(st.sampled_from([None, None, *values]))
        if value is not None:
            env[name] = value
    files = {"rules": draw(_rule_file()), "list": draw(_LIST), "l.cdb": draw(_CDB)}
    return Case(["smtp", backend, *plugins], env, draw(_said(queued=backend == "queuedir")), files)


@_SETTINGS
@given(case=_rules_case())
def test_rules(one_shot: OneShot, case: Case) -> None:
    compare(one_shot, *case)


_LIMITS = st.lists(
    st.sampled_from(
        [
            *("MAXRCPTS=1", "MAXRCPTS=2", "MAXRCPTS=3", "MAXRCPTS_REJECT=", "MAXHOPS=1", "MAXHOPS=2", "MAXMSGS=1"),
            *("MAXMSGS=2", "MAXMSGS=3", "MAXMSGS=x", "DATABYTES=5", "DATABYTES=30", "DATABYTES=60", "DATABYTES=0"),
        ]
    ),
    max_size=3,
)
_WHO = st.sampled_from(["*", "*", "a@*", "!a@*", "", "b@*"])
_HEADERS = st.lists(
    st.sampled_from(["Received: a", "received:b", "Delivered-To: c", "Received : d", "Subject: e", " received: f"]),
    max_size=4,
)


@st.composite
def _limits_case(draw: st.DrawFn) -> Case:
    """Rules that fit, each with limits, and messages that meet them."""
    rules = []
    for selector in (":sender", ":recipient"):
        rules.append(selector)
        for _ in range(draw(st.integers(0, 3))):
            databytes = draw(st.sampled_from(["", "", "10", "40", "0"]))
            limits = ",".join(draw(_LIMITS))
            rules.append(f"{draw(st.sampled_from('nnp'))}{draw(_WHO)}:{draw(_WHO)}::{databytes}::{limits}")
    said = ""
    for _ in range(draw(st.integers(1, 4))):
        said += f"MAIL FROM:<{draw(st.sampled_from(['a@x', 'b@y', '']))}>\r\n"
        for _ in range(draw(st.integers(0, 3))):
            said += f"RCPT TO:<{draw(st.sampled_from(['a@x', 'b@y', 'c@z']))}>\r\n"
        # What was refused before it would be commands; so would they be in both.
        said += "".join(f"{line}\r\n" for line in ["DATA", "To: x", *draw(_HEADERS), "", "text", "."])
    env = {"MAILRULES": "$DIR/rules"}
    for name, values in {"DATABYTES": ["50"], "MAXRCPTS": ["2"], "MAXMSGS": ["3"], "MAXHOPS": ["2"]}.items():
        value = draw(st.sampled_from([None, None, *values]))
        env |= {name: value} if value is not None else {}
    plugins = draw(st.permutations(["mailrules", "counters", "accept"]))
    return Case(["smtp", "echo", *plugins], env, said.encode(), {"rules": "\n".join(rules).encode()})


@settings(_SETTINGS, max_examples=60)
@given(case=_limits_case())
def test_limits_that_rules_set(one_shot: OneShot, case: Case) -> None:
    compare(one_shot, *case)


def test_every_short_glob(tmp_path: Path) -> None:
    """Every glob of up to three pieces against every short address."""
    addresses = [bytes(letters) for length in range(4) for letters in itertools.product(b"ab]", repeat=length)]
    said = b"".join(b"MAIL FROM:<%s> X\r\n" % address for address in addresses)
    rules = tmp_path / "rules"
    env = {"PATH": PATH, **CONNECTION, "MAILRULES": str(rules)}
    for length in range(4):
        for pieces in itertools.product(["a", "*", "?", "[ab]", "[!a]", "[^a]", "[]", "]"], repeat=length):
            glob = "".join(pieces)
            if not _is_plain(glob):
                continue
            rules.write_text(f":sender\nk{glob}:*:yes\n")
            run = run_program([str(THEIRS), "smtp", "echo", "mailrules"], env, tmp_path, said)
            theirs = [line.startswith(b"250") for line in run.stdout.split(b"\r\n")[1:-1]]
            assert [Glob(glob.encode()).matches(address) for address in addresses] == theirs, glob


# -- qmail-validate -----------------------------------------------------------------------------------------


@st.composite
def _validate_case(draw: st.DrawFn) -> Case:
    lists = ["qmail-validate", "qmail-validate:accept", "relayclient:qmail-validate", "check-fqdn:qmail-validate"]
    plugins = draw(st.sampled_from(lists))
    env = {"QMAILHOME": "$DIR/qm", "DEFAULTHOST": "one.example", "DEFAULTDOMAIN": "example"}
    if draw(st.booleans()):
        env["RELAYCLIENT"] = ""
    files = {"qm/control/me": b""}
    for name in ("badmailfrom", "badrcptto", "rcpthosts"):
        if draw(st.integers(0, 3)):
            files[f"qm/control/{name}"] = draw(_LIST)
    if draw(st.booleans()):
        files["qm/control/morercpthosts.cdb"] = draw(_CDB)
    if draw(st.integers(0, 19)) == 0:
        env["QMAILHOME"] = draw(st.sampled_from(["$DIR/none", "$DIR/qm/control/me", ""]))
    return Case(["smtp", "echo", plugins], env, draw(_said()), files)


@_SETTINGS
@given(case=_validate_case())
def test_qmail_validate(one_shot: OneShot, case: Case) -> None:
    compare(one_shot, *case)


# -- patterns -----------------------------------------------------------------------------------------------

_PATTERN_LINE = st.one_of(
    st.builds(
        lambda kind, glob, blanks: kind + glob + blanks,
        st.sampled_from([":", "\\", "/", " ", "x", ":"]),
        st.lists(st.sampled_from(["a", "b", "*", "[ab]", "[!a]", "[^a]", "Subject", ": ", "?", "."]), max_size=5)
        .map("".join)
        .filter(_is_plain),
        st.sampled_from(["", "", " ", "\t\r"]),
    ),
    st.sampled_from(["=Text", "=5.7.1 Other", "= blank ", "# a", "", "#", "=a\\nb", "/a*", "\\b*", ":Subject*"]),
)
_LINES = st.lists(
    st.sampled_from(
        ["a", "b", "ab", "aab", "", "", "Subject: a", "Subject: b", "x" * 300, "a" * 255, "b" * 256, "..", "ba", "xa"]
    ),
    max_size=12,
)


@st.composite
def _patterns_case(draw: st.DrawFn) -> Case:
    patterns = "\n".join(draw(st.lists(_PATTERN_LINE, max_size=6))) + draw(st.sampled_from(["\n", ""]))
    env = {"PATTERNS": "$DIR/p"}
    linemax = draw(st.sampled_from([None, None, "1", "2", "3", "256", "300", "0", "x", ""]))
    if linemax is not None:
        env["PATTERNS_LINEMAX"] = linemax
    if draw(st.integers(0, 15)) == 0:
        env["PATTERNS"] = draw(st.sampled_from(["$DIR/none", ""]))
    said = b""
    for _ in range(draw(st.integers(1, 3))):
        lines = draw(_LINES)
        # The original's echo backend crashes on a first block without a line end.
        body = "".join(f".{line}\r\n" if line.startswith(".") else f"{line}\r\n" for line in ["to: c", "c", *lines])
        said += b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n" + body.encode() + b".\r\n"
    plugins = draw(st.sampled_from([["patterns", "accept"], ["counters", "patterns", "add-received", "accept"]]))
    backend = draw(st.sampled_from(["echo", "queuedir"]))
    return Case(["smtp", backend, *plugins], env, said, {"p": patterns.encode()})


@_SETTINGS
@given(case=_patterns_case())
def test_patterns(one_shot: OneShot, case: Case) -> None:
    compare(one_shot, *case)


# -- the same over QMTP and QMQP, where the envelope follows the message ------------------------------------


# Lines in front of an empty one: without a line end in its first block the original's echo backend crashes.
_PACKAGE_BODY = st.builds(
    lambda header, rest: "".join(f"{line}\n" for line in [*header, "", *rest]),
    st.lists(st.sampled_from(["Received: a", "received:b", "Delivered-To: c", "Subject: a", "x" * 300]), max_size=4),
    st.lists(st.sampled_from(["a", "b", "ab", "", "x" * 256]), max_size=4),
)


@st.composite
def _package_case(draw: st.DrawFn) -> Case:
    """Rules, or control files, or patterns, and packages in place of what is said by SMTP."""
    case = draw(st.one_of(_rules_case(), _rules_case(), _limits_case(), _validate_case(), _patterns_case()))
    protocol = draw(st.sampled_from(["qmtp", "qmqp"]))
    body = _PACKAGE_BODY.map(str.encode)
    address = st.one_of(_ADDRESS, st.sampled_from(["a@x", "b@y", "c@z"])).map(str.encode)
    packages = st.builds(package, st.just(protocol), body, address, st.lists(address, min_size=1, max_size=4))
    said = b"".join(draw(st.lists(packages, min_size=1, max_size=3 if protocol == "qmtp" else 1)))
    return case._replace(arguments=[protocol, *case.arguments[1:]], said=said)


@_SETTINGS
@given(case=_package_case())
def test_packages(one_shot: OneShot, case: Case) -> None:
    compare(one_shot, *case)


# -- lists that rules refer to, one by one ------------------------------------------------------------------

_KEYS = cdb(b"a@one.example", b"@two.example", b"one.example", b"")
_LISTS = {
    **{"entries": b"a@one.example\n@two.example\none.example\n", "empty": b"", "no end": b"@two.example", "@": b"@\n"},
    **{"CRLF": b"a@one.example\r\n@two.example\r\n", "NUL": b"a@one.example\0\n@two.example", "blanks": b" \n\n\t\n"},
    **{"a long line": b"a" * 100_000 + b"\n@two.example\n", "comments": b" # x\n#@two.example\na@one.example # x\n"},
    **{"capitals": b"A@ONE.EXAMPLE\n@TWO.EXAMPLE", "8 bits": b"\xff\xfe\n", "blanks around": b" a@one.example\t\n"},
}
_CDBS = {"keys": _KEYS, "no key": cdb(), "empty key": cdb(b""), "zeros": b"\0" * 2048, "more zeros": b"\0" * 4097}
_SENDERS = b"".join(
    b"MAIL FROM:<%s> X\r\n" % sender
    for sender in (b"a@one.example", b"", b"B@TWO.example", b"c", b"@x", b"x@", b"a@b@one.example")
)


@pytest.mark.parametrize("reference", ["[[%s]]", "[[@%s]]", "![[%s]]", "\\[[%s]]"])
def test_lists(one_shot: OneShot, reference: str) -> None:
    files = [("list", content) for content in _LISTS.values()] + [("l.cdb", content) for content in _CDBS.values()]
    for name, content in [*files, *((short, _LISTS["entries"]) for short in (".cdb", "ll"))]:
        rules = f":s\nd{reference % name}:*:listed\nk*:*:ok\n".encode()
        env = {"MAILRULES": "$DIR/rules"}
        compare(one_shot, ["smtp", "echo", "mailrules", "accept"], env, _SENDERS, {"rules": rules, name: content})


# -- what the generated cases leave out ---------------------------------------------------------------------

_MAIL = b"MAIL FROM:<a@one.example>\r\n"
_ENVELOPE = _MAIL + b"RCPT TO:<b@two.example>\r\n"
_BOTH = _ENVELOPE + b"DATA\r\nx\r\n\r\n.\r\n"


EXPLAINED = {
    "accepting-rule-without-text": Explained(
        "2.12 answers 250 OK to an accepting rule without text, 2.22 what the backend says",
        _MAIL,
        b"250 OK\r\n",
        b"250 Sender='a@one.example'.",
        "smtp echo mailrules accept",
        {"MAILRULES": "$DIR/rules"},
        {"rules": b":s\nk*:*\n"},
    ),
    "final-acceptance": Explained(
        "2.12 has no K: it ignores the line",
        _MAIL,
        b"553 behind",
        b"250 final",
        "smtp echo mailrules reject accept",
        {"MAILRULES": "$DIR/rules", "REJECT": "-behind"},
        {"rules": b":s\nK*:*:final\n"},
    ),
    "and": Explained(
        "2.12 has no &: it ignores the line, and the rule behind it stands alone",
        _MAIL,
        b"553 both",
        b"250 Sender=",
        "smtp echo mailrules accept",
        {"MAILRULES": "$DIR/rules"},
        {"rules": b":s\n&b@*:*\nd*:*:both\n"},
    ),
    "octal-escape": Explained(
        "every octal escape gives NUL in the original",
        _MAIL,
        b"250 T\r\n",
        b"250 TAB\r\n",
        "smtp echo mailrules accept",
        {"MAILRULES": "$DIR/rules"},
        {"rules": b":s\nk*:*:T\\101B\n"},
    ),
    "missing-cdb": Explained(
        "in the original a CDB file that is missing has every address in it",
        _MAIL,
        b"553 listed",
        b"250 Sender=",
        "smtp echo mailrules accept",
        {"MAILRULES": "$DIR/rules"},
        {"rules": b":s\nd[[$DIR/none.cdb]]:*:listed\n"},
    ),
    "damaged-cdb": Explained(
        "one that is damaged, too; we do not guess",
        _MAIL,
        b"553 listed",
        b"421 4.3.0 Error opening file referenced from $MAILRULES",
        "smtp echo mailrules accept",
        {"MAILRULES": "$DIR/rules"},
        {"rules": b":s\nd[[$DIR/l.cdb]]:*:listed\n", "l.cdb": b"a@one.example\n"},
    ),
    "damaged-morercpthosts": Explained(
        "a damaged CDB file is no reason to refuse the recipients in it for good",
        _ENVELOPE,
        b"550 5.1.0 ",
        b"451 4.3.0 Could not read the qmail control files.",
        "smtp echo qmail-validate",
        {"QMAILHOME": "$DIR"},
        {"control/morercpthosts.cdb": b"two.example\n"},
    ),
    "control-bytes-in-texts": Explained(
        "no text of rules, patterns or settings can carry control bytes to a client",
        _MAIL,
        b"553 a\x1b[2Jb\r\n",
        b"553 a?[2Jb\r\n",
        "smtp echo mailrules accept",
        {"MAILRULES": "$DIR/rules"},
        {"rules": b":s\nd*:*:a\x1b[2Jb\n"},
    ),
    "question-mark-behind-star": Explained(
        "the original reads behind the end of the address, and finds a byte for the last ? there",
        _MAIL,
        b"553 fits",
        b"250 Sender=",
        "smtp echo mailrules accept",
        {"MAILRULES": "$DIR/rules"},
        {"rules": b":s\nda@one.example*?:*:fits\n"},
    ),
    "list-of-one-letter": Explained(
        "in the original [[l]] is a set and a ], and no list, though [[@l]] and [[ll]] are",
        _MAIL,
        b"250 Sender=",
        b"553 listed",
        "smtp echo mailrules accept",
        {"MAILRULES": "$DIR/rules"},
        {"rules": b":s\nd[[l]]:*:listed\n", "l": b"a@one.example\n"},
    ),
    "unclosed-set": Explained(
        "in the original a [ without ] fits anything, however long",
        _MAIL,
        b"553 fits",
        b"250 Sender=",
        "smtp echo mailrules accept",
        {"MAILRULES": "$DIR/rules"},
        {"rules": b":s\nd[b:*:fits\n"},
    ),
    "number-that-wraps": Explained(
        "no number wraps: one that is too long for any limit is none",
        b"MAIL FROM:<a> SIZE=2\r\n",
        b"552 5.2.3 ",
        b"250 T",
        "smtp echo mailrules counters accept",
        {"MAILRULES": "$DIR/rules"},
        {"rules": b":s\nk*:*:T:18446744073709551617\n"},
    ),
    "control-byte-in-relayclient": Explained(
        "no profile lets control bytes into an envelope",
        _ENVELOPE,
        b"250-Recipient='b@two.example",
        b"421 4.3.0 Syntax error in $MAILRULES",
        "smtp echo mailrules accept",
        {"MAILRULES": "$DIR/rules"},
        {"rules": b":r\nn*:*:::\nn*:*:x::\\n\n"},
    ),
    "directory-of-rules": Explained(
        "a directory is no file of rules, and not an empty one",
        _MAIL,
        b"250 Sender=",
        b"421 4.3.0 Could not open $MAILRULES file",
        "smtp echo mailrules accept",
        {"MAILRULES": "$DIR"},
    ),
    "patterns-resp": Explained(
        "$PATTERNS_RESP is documented, and has no effect in the original",
        _BOTH,
        b"554 This message contains prohibited content",
        b"554 Not here",
        "smtp echo patterns accept",
        {"PATTERNS": "$DIR/p", "PATTERNS_RESP": "Not here"},
        {"p": b"/x\n"},
    ),
    "patterns-of-an-earlier-message": Explained(
        "what was assigned for a message ends with it; the original keeps the patterns that it has read",
        _BOTH + b"MAIL FROM:<b@one.example>\r\nRCPT TO:<b@two.example>\r\nDATA\r\nx\r\n\r\n.\r\n",
        b"content\r\n250 Sender='b@one.example'.\r\n250 Recipient='b@two.example'.\r\n"
        b"354 End your message with a period on a line by itself.\r\n554 ",
        b"250 Received 3 bytes.",
        "smtp echo mailrules patterns accept",
        {"MAILRULES": "$DIR/rules"},
        {"rules": b":s\nna@*:*::::PATTERNS=$DIR/p\n", "p": b"/x\n"},
    ),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_explained(name: str, one_shot: OneShot) -> None:
    check_explained(one_shot, EXPLAINED[name])
