"""The original mailfront against ours in the compat profile: the same input, environment and directory.

The peer is Debian's package, which is version 2.12; the profile follows 2.22. Replies, exit code, log lines
and files must be equal, but for the differences that are explained here: `EXPLAINED_SESSIONS` for the
recorded sessions, `EXPLAINED_INPUTS` for the rest, which the generated sessions leave out.
"""

import itertools
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailfront_proto.smtp.addresses import ORIGINAL, AddressError, parse_path, split_parameters
from mailfront_proto.smtp.body import DotDecoder
from mailfront_proto.smtp.profile import LineEnds
from tests.golden.recorded import PATH, Session, load
from tests.golden.recorded import run as replay
from tests.golden.test_replay import is_selected
from tests.peers.one_shot import OneShot, run_program
from tests.peers.original import CONNECTION, THEIRS, Explained, check_explained, compare, needs_original

OURS = Path(sys.executable).with_name("mailfront")

pytestmark = needs_original


# -- the recorded sessions --------------------------------------------------------------------------------

# name -> (the fields that differ, what 2.12 does otherwise than 2.22)
EXPLAINED_SESSIONS = {
    "smtp-verbs": ({"stderr"}, "2.12 has no STARTTLS of its own and logs it as an unknown command"),
    "smtp-address-forms": ({"stdout", "stderr"}, "2.12 refuses a bare address that ends its line"),
    "add-received-7": ({"files"}, "2.12 has no $AUTH_ADD_RECEIVED"),
    "debug": ({"stderr"}, "2.12 has no $MSG_DEBUG"),
    "rules-sender": ({"stdout", "stderr"}, "2.12 has no K and no &, and answers 250 OK to a rule without text"),
    "rules-recipient": ({"stdout", "stderr"}, "2.12 answers 250 OK to an accepting rule without text"),
    "rules-databytes-per-message": ({"stdout", "stderr"}, "2.12 answers 250 OK to an accepting rule without text"),
}

# The sessions of POP3 and IMAP are of other programs: test_pop3_maildir_original.py and test_imap_frontend_programs.py.
RECORDED = [
    pytest.param(session, id=session.name)
    for session in load()
    if is_selected(session) and not session.name.startswith(("pop3-", "imap-"))
]


@pytest.mark.parametrize("session", RECORDED)
def test_recorded_session(session: Session) -> None:
    outcomes = []
    for program in (THEIRS, OURS):
        with TemporaryDirectory() as directory:  # its name is short: Lua cuts long names of files in errors
            outcomes.append(replay(session, [str(program)], Path(directory), {"MAILFRONT_PROFILE": "compat"}))
    theirs, ours = outcomes
    fields, _reason = EXPLAINED_SESSIONS.get(session.name, (set(), ""))
    if fields:
        assert theirs.differing(ours) == fields
    else:
        assert theirs == ours


# -- generated addresses: many lines through one process, against the parser alone ------------------------

_PIECES = [
    *(b"FROM", b":", b" ", b"  ", b"<", b">", b"@", b"a", b"b.example", b'"', b"\\", b","),
    *(b"\t", b"X=1", b"SIZE=3", b"\xe9", b"="),
]


def _argument(chance: random.Random) -> bytes:
    """Something after MAIL that has much of an address in it."""
    if chance.random() < 0.6:
        inside = chance.choices(_PIECES, k=chance.randrange(8))
        behind = chance.choices(_PIECES, k=chance.randrange(4))
        return b"FROM:<" + b"".join(inside) + b">" + b"".join(behind)
    argument = b"".join(chance.choices(_PIECES, k=chance.randrange(1, 12)))
    return argument.lstrip(b" \t") or b"me"


def _echo_of(argument: bytes) -> bytes:
    """What the echo backend says to MAIL with `argument`, by our parser."""
    try:
        address, rest = parse_path(argument, b"FROM", ORIGINAL)
    except AddressError as error:
        return str(error.reply).encode()
    parameters = split_parameters(rest, ORIGINAL)
    return b"250 Sender='%s'." % address.raw + b"".join(b" [%s]" % parameter for parameter in parameters)


def test_generated_addresses(tmp_path: Path) -> None:
    chance = random.Random("addresses")
    arguments = [_argument(chance) for _ in range(20_000)]
    commands = b"".join(b"MAIL " + argument + b"\r\n" for argument in arguments)
    run = run_program(
        [str(THEIRS), "smtp", "echo", "accept"], {"PATH": PATH, **CONNECTION}, tmp_path, commands
    )
    replies = run.stdout.split(b"\r\n")[1:-1]
    compared = 0
    for argument, theirs in zip(arguments, replies, strict=True):
        if b"<" not in argument and theirs.startswith(b"501"):
            continue  # explained: a bare address that ends its line
        ours = _echo_of(argument)
        if b"\t" in argument and theirs.startswith(b"250") and ours.startswith(b"501"):
            continue  # explained: a control byte in an address
        assert ours == theirs, argument
        compared += 1
    assert compared > 10_000


# -- every short message: what is stored, and where it ends -------------------------------------------------


def _stored_by_theirs(body: bytes, directory: Path) -> tuple[bytes, int]:
    """The message that the original's queuedir stores, and how many lines it then took for commands."""
    for box in ("tmp", "new"):
        (directory / box).mkdir()
    env = {"PATH": PATH, "QUEUEDIR": str(directory), "QUEUEDIR_NOSYNC": "", **CONNECTION}
    run = run_program(
        [str(THEIRS), "smtp", "queuedir", "accept"], env, directory, b"MAIL <a>\nRCPT <b>\nDATA\n" + body
    )
    (file,) = (directory / "new").iterdir()
    return file.read_bytes().removeprefix(b"a\0b\0\0"), run.stdout.count(b"500 5.5.1")


def test_every_short_message() -> None:
    for length in range(6):
        for bytes_ in itertools.product(b"\r\n.x", repeat=length):
            body = bytes(bytes_) + b"\r\n.\r\n"
            decoded, rest = DotDecoder(LineEnds.ACCEPT).feed(body)
            assert rest is not None, body
            ours = decoded.replace(b"\r\n", b"\n"), rest.count(b"\n")
            with TemporaryDirectory() as name:
                assert ours == _stored_by_theirs(body, Path(name)), body


# -- generated sessions -------------------------------------------------------------------------------------

_LINE_END = st.sampled_from([b"\r\n"] * 6 + [b"\n"])
_BLANKS = st.sampled_from([b" "] * 6 + [b"  ", b"\t", b" \t "])
_GOOD = st.sampled_from(
    [b"a@b.example", b"c@d.example", b"bare", b"x@host", b"", b"postmaster", b"u@two.example", b"@odd@x.y"]
)
_ODD = st.lists(
    st.sampled_from([b"a", b"b.example", b"@", b"@", b'"', b"\\", b">", b"<", b":", b",", b" ", b"\xe9"]),
    max_size=8,
).map(b"".join)
_PARAMETERS = st.lists(
    st.sampled_from([b"", b"SIZE=10", b"size=100", b"SIZE=x", b"SIZE=", b"SIZE", b"BODY=8BITMIME", b"X"]),
    max_size=3,
).map(lambda words: b"".join(b" " + word for word in words))


@st.composite
def _any_case(draw: st.DrawFn, text: bytes) -> bytes:
    if draw(st.booleans()):
        return text
    return bytes(draw(st.sampled_from([byte, byte ^ 0x20])) if chr(byte).isalpha() else byte for byte in text)


@st.composite
def _path_command(draw: st.DrawFn, verb: bytes, keyword: bytes) -> bytes:
    """MAIL or RCPT. A bare address has something behind it, because 2.12 refuses one that ends its line."""
    form = draw(st.integers(0, 9))
    line = draw(_any_case(verb)) + draw(_BLANKS)
    if form < 7:
        line += draw(_any_case(keyword)) + b":<" + draw(_GOOD) + b">" + draw(_PARAMETERS)
    elif form == 7:
        line += keyword + b":<" + draw(_ODD) + b">" + draw(_PARAMETERS)
    elif form == 8:
        bare = draw(_GOOD.filter(bool))
        line += keyword + draw(st.sampled_from([b":", b": ", b" "])) + bare + b" X" + draw(_PARAMETERS)
    else:
        line = draw(st.sampled_from([verb, verb + b" ", verb + b" " + keyword, verb + b" " + keyword + b":"]))
    return line + draw(_LINE_END)


@st.composite
def _plain_command(draw: st.DrawFn) -> bytes:
    known = [b"NOOP", b"RSET", b"VRFY", b"HELP", b"DATA"]
    unknown = [b"", b"EXPN", b"FOO", b"NOO", b"NOOPS", b".", b"x\ry", b"Subject:", b"\xff"]
    verb = draw(st.sampled_from(known * 2 + unknown))
    rest = draw(st.sampled_from([b""] * 4 + [b" ", b" x", b"\tx y", b"  x ", b":", b" <a> b"]))
    return draw(_any_case(verb)) + rest + draw(_LINE_END)


_BODY = st.lists(
    st.sampled_from(
        [
            *(b"\r", b"\n", b"\r\n", b"\r\n", b".", b"x", b"..", b"\r\n.", b"\xff", b"line of text\r\n" * 5),
            *(b"Received: a\r\n", b"delivered-to: b\n", b"Subject: t\r\n"),
        ]
    ),
    max_size=14,
).map(b"".join)


@st.composite
def _message(draw: st.DrawFn) -> bytes:
    data = b"DATA" + draw(_LINE_END) + draw(_BODY)
    return data + draw(st.sampled_from([b"\r\n.\r\n"] * 5 + [b"\n.\n", b"\n\r.\n", b".\r\n"]))


_TRANSACTION = st.tuples(
    _path_command(b"MAIL", b"FROM"),
    st.lists(_path_command(b"RCPT", b"TO"), min_size=1, max_size=3).map(b"".join),
    _message(),
).map(b"".join)

# HELO in a transaction is an explained difference, so a RSET goes before it.
_HELLO = st.sampled_from([b"HELO c\r\n", b"EHLO c\r\n", b"ehlo\n", b"HELO\r\n", b"EHLO [192.0.2.9] x\r\n"])
_SMALL_STEP = st.one_of(
    _TRANSACTION,
    _path_command(b"MAIL", b"FROM"),
    _path_command(b"RCPT", b"TO"),
    _message(),
    _plain_command(),
)
_STEP = st.one_of(_TRANSACTION, _SMALL_STEP)
_STEP_OR_HELLO = st.one_of(_STEP, _SMALL_STEP, _HELLO.map(lambda line: b"RSET\r\n" + line))


@st.composite
def _dialogue(draw: st.DrawFn, queued: bool, one_hello: bool) -> bytes:
    """All that a client says, perhaps cut short."""
    said = draw(st.one_of(st.just(b""), _HELLO))
    for step in draw(st.lists(_STEP if one_hello else _STEP_OR_HELLO, min_size=2, max_size=9)):
        # The original's queuedir loses its footing when a transaction goes on after its message.
        said += step + (b"RSET\r\n" if queued else b"")
    said += draw(st.sampled_from([b"QUIT\r\n", b"quit\n", b"QUIT now\r\nNOOP\r\n", b""]))
    if draw(st.integers(0, 4)) == 0:
        said = said[: draw(st.integers(0, len(said)))]
    return said


# What is tried together: plugin lists, and the settings that matter to them with their values.
_SCENARIOS: list[tuple[list[tuple[str, ...]], dict[str, list[str]]]] = [
    (
        [("accept",), ("accept",), ("accept-sender", "accept-recipient"), ("force-file", "accept")],
        {
            "MAXNOTIMPL": ["0", "1", "2", "3", ""],
            "SMTPGREETING": ["hello there", ""],
            "TCPLOCALHOST": ["", "other.example"],
        },
    ),
    (
        [("counters", "accept"), ("accept", "counters"), ("check-fqdn:counters:accept",)],
        {
            "DATABYTES": ["0", "5", "11", "40", "", "3x"],
            "MAXRCPTS": ["0", "1", "2", ""],
            "MAXRCPTS_REJECT": ["", "1"],
            "MAXMSGS": ["0", "1", "2"],
            "MAXHOPS": ["1", "2", "3", "0"],
        },
    ),
    (
        [("check-fqdn", "accept"), ("accept", "check-fqdn")],
        {
            "DEFAULTHOST": ["host.example", "short", ""],
            "DEFAULTDOMAIN": ["example.com", ""],
            "SENDER_DOMAINS": ["b.example", ":B.EXAMPLE::two.example", "", "example"],
        },
    ),
    (
        [("reject", "accept"), ("require-auth", "accept"), ("accept-sender", "relayclient")],
        {
            "REJECT": ["later", "-never", "-", ""],
            "SMTPREJECT": ["smtp later", "-smtp never"],
            "RELAYCLIENT": ["", "@relay.example"],
        },
    ),
    (
        [("add-received", "accept"), ("accept", "counters", "add-received")],
        {
            "HEADER_ADD": ["X-Site: one", "X-One: 1\nX-Two: 2", ""],
            "FIXUP_RECEIVED_HOST": ["out.example.org", "mx.example.org", ""],
            "FIXUP_RECEIVED_IP": ["192.0.2.9", "192.0.2.1", ""],
            "TCPLOCALIP": [""],
            "TCPLOCALHOST": [""],
            "TCPREMOTEIP": ["", "2001:db8::2"],
            "TCPREMOTEHOST": ["", "198.51.100.7"],
            "TCPREMOTEINFO": ["ident"],
            "DATABYTES": ["40"],
            "MAXHOPS": ["1"],
        },
    ),
    (
        [("accept:reject", "-reject"), ("reject", "-*", "accept"), (":accept::", "+reject", "accept:"), ()],
        {
            "PLUGINS": ["", "accept", "+check-fqdn", "-counters", ":+counters:-accept:accept", "reject"],
            "REJECT": ["no"],
        },
    ),
]


@st.composite
def _case(draw: st.DrawFn) -> tuple[list[str], dict[str, str], bytes]:
    """Arguments, environment and input of one run."""
    backend = draw(st.sampled_from(["echo", "echo", "queuedir"]))
    lists, settings_of_scenario = draw(st.sampled_from(_SCENARIOS))
    env = dict(CONNECTION)
    for name, values in settings_of_scenario.items():
        value = draw(st.sampled_from([None, *values]))
        if value is not None:
            env[name] = value
    plugins = draw(st.sampled_from(lists))
    # In a trace line the original shows the first HELO name for good (explained below).
    said = draw(_dialogue(queued=backend == "queuedir", one_hello="add-received" in plugins))
    return ["smtp", backend, *plugins], env, said


@settings(
    max_examples=320,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(case=_case())
def test_generated_session(one_shot: OneShot, case: tuple[list[str], dict[str, str], bytes]) -> None:
    compare(one_shot, *case)


_ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"

# What is rare among generated sessions, and has been wrong before.
PINNED = {
    "verb-of-unknown-auth": ("smtp echo accept", {}, b"AUTh x\r\nauth\r\n"),
    "echo-cut-in-message": ("smtp echo accept", {}, _ENVELOPE + b"DATA\r\none\r\ntwo\r\nthree\r\n"),
    "echo-data-twice": ("smtp echo accept", {}, _ENVELOPE + b"DATA\r\none\r\n.\r\n" * 3),
    "echo-empty-then-data": ("smtp echo accept", {}, _ENVELOPE + b"DATA\r\n.\r\nDATA\r\none\r\n.\r\n"),
    "echo-spooled-data-twice": (
        "smtp echo force-file accept",
        {},
        _ENVELOPE + b"DATA\r\none\r\ntwo\r\n.\r\nDATA\r\nthree\r\n.\r\n",
    ),
    "empty-default-host": ("smtp echo check-fqdn accept", {"DEFAULTHOST": ""}, b"MAIL FROM:<a>\r\n"),
    "empty-default-domain": ("smtp echo check-fqdn accept", {"DEFAULTDOMAIN": ""}, b"MAIL FROM:<a@b>\r\n"),
    "size-without-number-first": (
        "smtp echo counters accept",
        {"DATABYTES": "5"},
        b"MAIL FROM:<a@b.example> SIZE SIZE=10\r\nMAIL FROM:<a@b.example> SIZE= SIZE=10\r\n",
    ),
    "added-lines-of-a-spooled-message": (
        "smtp echo force-file add-received accept",
        {"HEADER_ADD": "X: 1"},
        _ENVELOPE + b"DATA\r\none\r\ntwo\r\nthree\r\n.\r\n",
    ),
    "nul-in-message": ("smtp echo accept", {}, _ENVELOPE + b"DATA\r\none\r\ntw\0o\r\n.\r\n"),
    "no-place-for-a-spool": (
        "smtp echo force-file accept",
        {"TMPDIR": "$DIR/none"},
        _ENVELOPE + b"DATA\r\nx\r\n.\r\n" + _ENVELOPE + b"DATA\r\n.\r\n",
    ),
    "queuedir-without-a-directory-for-readers": (
        "smtp queuedir accept",
        {"QUEUEDIR_DEST": ""},
        _ENVELOPE + b"DATA\r\nx\r\n.\r\n",
    ),
    "queuedir-tmp-is-below": ("smtp queuedir accept", {"QUEUEDIR_TMP": "$DIR/q/tmp"}, _ENVELOPE),
    "empty-proto": (
        "smtp queuedir add-received accept",
        {"PROTO": "", "LOCALHOST": "here", "REMOTEIP": "192.0.2.7"},
        b"EHLO c\r\n" + _ENVELOPE + b"DATA\r\nx\r\n.\r\n",
    ),
    "empty-header-to-add": (
        "smtp queuedir add-received accept",
        {"HEADER_ADD": ""},
        _ENVELOPE + b"DATA\r\nx\r\n.\r\n",
    ),
}


@pytest.mark.parametrize("name", PINNED)
def test_pinned_session(one_shot: OneShot, name: str) -> None:
    arguments, env, said = PINNED[name]
    compare(one_shot, arguments.split(), CONNECTION | env, said)


# -- what the generated sessions leave out ------------------------------------------------------------------

EXPLAINED_INPUTS = {
    "bare-address-ends-line": Explained(
        "2.22 reads a bare address that ends its line",
        b"MAIL FROM:a@b.example\r\n",
        b"501 5.5.2 ",
        b"250 Sender='a@b.example'.",
    ),
    "control-byte-in-address": Explained(
        "no profile lets control bytes into an envelope, a log or a header",
        b"MAIL FROM:<a\x01@b.example>\r\n",
        b"250 Sender=",
        b"501 5.5.2 ",
    ),
    "nul-in-address": Explained(
        "no profile lets NUL into an envelope: there it ends the address for whoever reads it next",
        b"MAIL FROM:<a@b.example\0.example>\r\n",
        b"250 Sender=",
        b"501 5.5.2 ",
    ),
    "nul-ends-command": Explained(
        "a NUL is a byte like others here, not the end of a command",
        b"NOOP\0x\r\n",
        b"250 2.3.0 OK",
        b"500 5.5.1 ",
    ),
    "unended-last-line": Explained(
        "a last line without its end is not a command, and its last byte is not cut off",
        b"QUITx",
        b"221 2.0.0 ",
        b"bytes in: 5 ",
    ),
    "helo-in-transaction": Explained(
        "HELO ends a transaction wholly, and does not leave the envelope without its backend",
        _ENVELOPE + b"HELO c\r\nDATA\r\n.\r\n",
        b"354 ",
        b"503 5.5.1 You must send MAIL FROM: first",
    ),
    "second-helo-name": Explained(
        "the last HELO name counts, not the first one for good",
        b"HELO one\r\nHELO two\r\n" + _ENVELOPE + b"DATA\r\n.\r\n",
        b"Received: from one (",
        b"Received: from two (",
        "smtp queuedir add-received accept",
    ),
    "starttls-unknown": Explained(
        "2.22 has a STARTTLS of its own, which is not logged as an unknown command",
        b"STARTTLS\r\n",
        b"[PID]: STARTTLS ",
        b"500 5.5.1 ",
    ),
    "raw-bytes-in-log": Explained(
        "no byte of a client reaches the log unescaped",
        b"FOO \x1b[2J\r\n",
        b"[PID]: FOO \x1b[2J",
        b"[PID]: FOO ",
    ),
    "secrets-in-log": Explained(
        "no secret reaches the log: what follows AUTH, and its mechanism, may be one",
        b"AUTH PLAIN AGEAYg==\r\nAGMAZA==\r\n",
        b"[PID]: AGMAZA== \n",
        b"[PID]: XXXXXXXX \n",
    ),
    "leftovers-in-log": Explained(
        "the original's echo backend reads behind a message of one line: into what the last one left there",
        (_ENVELOPE + b"DATA\r\nabcdef\r\nghi\r\n.\r\n") + (_ENVELOPE + b"DATA\r\nxy\r\n.\r\n"),
        b"[PID]: xydef\n",
        b"[PID]: xy\n",
    ),
    "echo-of-no-line": Explained(
        "the original's echo backend crashes on a first block without a line end",
        _ENVELOPE + b"DATA\r\n" + b"x" * 5000 + b"\r\n.\r\n",
        b"354 End",
        b"250 Received 5001 bytes.",
    ),
}


@pytest.mark.parametrize("name", EXPLAINED_INPUTS)
def test_explained_input(name: str, one_shot: OneShot) -> None:
    check_explained(one_shot, EXPLAINED_INPUTS[name])
