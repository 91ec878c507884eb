r"""rbl, clamav and spamassassin: Debian's mailfront 2.12 and ours in compat, with the same scanners and name servers.

They are scripts on loopback. What either side asks them is compared as well. What 2.12 does otherwise than 2.22 (the
lines of ``$RBL_DEBUG``), and the faults that no profile copies, are in `EXPLAINED`. One of these, that lines which
plugins add do not reach a backend where a message is spooled, is always there beside clamav and spamassassin: nothing
adds any.
"""

import random
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.outside import Helpers, NameServer
from tests.conformance.session_file import Helper, Record
from tests.peers.one_shot import OneShot
from tests.peers.original import Explained, check_explained, compare, needs_original

pytestmark = needs_original

_SETTINGS = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

HERE = "7.100.51.198"
RECORDS = [
    Record(f"{HERE}.one.example", "TXT", "First text"),
    Record(f"{HERE}.two.example", "TXT", "a\\001\\200\\010b"),
    Record(f"{HERE}.empty.example", "TXT", ""),
    Record(f"{HERE}.address.example", "A", "127.0.0.2"),
]
CLEAN = ["none.example", "address.example"]


class Case(NamedTuple):
    """Arguments, settings and input of one run, and what the scanner answers."""

    arguments: list[str]
    env: dict[str, str]
    said: bytes
    answer: bytes = b""


@st.composite
def _said(draw: st.DrawFn, protocol: str) -> bytes:
    """Messages; a first line that is no single one, which the original's echo backend would not survive."""
    lines = draw(st.lists(st.sampled_from(["", "text", "x" * 70, "X-Spam-Status: Yes"]), max_size=5))
    body = b"".join(line.encode() + b"\n" for line in ["Subject: x", "", *lines])
    if protocol == "qmtp":
        message, recipients = b"\n" + body, b"".join(map(_netstring, [b"c@d", b"e@f"]))
        return _netstring(message) + _netstring(b"a@b") + _netstring(recipients)
    end = draw(st.sampled_from([b"QUIT\r\n", b"RSET\r\nQUIT\r\n", b""]))
    return b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" + body.replace(b"\n", b"\r\n") + b".\r\n" + end


def _netstring(data: bytes) -> bytes:
    return b"%d:%s," % (len(data), data)


def scanned(one_shot: OneShot, case: Case, prefix: str, until: bytes) -> list[bytes]:
    """Play `case` on both sides; what each has said to the scanner."""
    with Helpers({"SCANNER": Helper(until, case.answer)}) as helpers:
        port = str(helpers.ports["SCANNER"])
        env = {name: value.replace("$PORT", port) for name, value in case.env.items()}
        compare(one_shot, case.arguments, {f"{prefix}_TIMEOUT": "30000", **env}, case.said)
        return helpers.received


# -- clamav ------------------------------------------------------------------------------------------------------

_CLAMD_ANSWERS = st.sampled_from(
    [
        b"stream: OK\n", b"stream: OK\n", b"stream: Eicar-Test FOUND\n", b"stream: Eicar-Test FOUND\r\n",
        b"stream: \xc3\xa4 FOUND\n", b"stream: x ERROR\n", b"stream: OKx\n", b"stream: ok\n", b"stream: A  FOUND\n",
        b"INSTREAM size limit exceeded. ERROR\n", b"OK\n", b"", b"\n", b"STREAM: OK\n", b"stream:OK\n", b"UNKNOWN\n",
    ]
)  # fmt: skip


@st.composite
def _clamav_case(draw: st.DrawFn) -> Case:
    protocol = draw(st.sampled_from(["smtp", "smtp", "qmtp"]))
    plugins = draw(st.sampled_from([["clamav", "accept"], ["accept", "clamav"], ["counters", "clamav", "accept"]]))
    env = draw(
        st.sampled_from(
            [
                {"CLAMAV_HOST": "127.0.0.1", "CLAMAV_PORT": "$PORT"},
                {"CLAMD_HOST": "127.0.0.1", "CLAMD_PORT": "$PORT"},
                {"CLAMAV_HOST": "127.0.0.1", "CLAMD_PORT": "$PORT"},
                {"CLAMAV_HOST": "127.0.0.1", "CLAMD_HOST": "127.0.0.2", "CLAMAV_PORT": "$PORT", "CLAMD_PORT": "1"},
                {"CLAMAV_HOST": "127.0.0.1", "CLAMAV_PORT": "1"},
                {"CLAMAV_HOST": "127.0.0.1", "CLAMAV_PORT": "x"},
                {"CLAMAV_HOST": "127.0.0.1", "CLAMAV_PORT": ""},
                {"CLAMAV_HOST": ""},
                {},
            ]
        )
    )
    maxsize = draw(st.sampled_from([None, None, "10", "1000", "0", "x"]))
    env = env | ({"CLAMAV_MAXSIZE": maxsize} if maxsize is not None else {})
    return Case([protocol, "echo", *plugins], env, draw(_said(protocol)), draw(_CLAMD_ANSWERS))


@_SETTINGS
@given(case=_clamav_case())
def test_clamav(one_shot: OneShot, case: Case) -> None:
    received = scanned(one_shot, case, "CLAMAV", bytes(4))
    assert len(received) in (0, 2)
    assert len(set(received)) <= 1


# -- spamassassin ------------------------------------------------------------------------------------------------

_HEADERS = st.lists(
    st.sampled_from(
        [
            "X-Spam-Status: No, s=1", "X-Spam-Status: Yes, s=9", "x-spam-status: yes", "X-Spam-Status:Yes",
            "X-Spam-Status",
            "X-Spam-Status:  Y", "X-Spam-Status: \tYes", "X-Spam-Flag: YES", "NotX-Spam-Status: Yes", "Subject: y",
        ]
    ),
    min_size=2,
    max_size=4,
)  # fmt: skip


@st.composite
def _spamd_answer(draw: st.DrawFn) -> bytes:
    message = "\n".join([*draw(_HEADERS), "", "X-Spam-Status: Yes", ""]).encode()
    head = draw(
        st.sampled_from(
            [
                "SPAMD/1.1 0 EX_OK\r\n\r\n", "SPAMD/1.1 0 EX_OK\r\n\r\n", "SPAMD/1.1 0 EX_OK\r\n\r\n",
                "SPAMD/1.1 0 EX_OK\r\nContent-length: $SIZE\r\nSpam: True ; 9.0 / 5.0\r\n\r\n",
                "SPAMD/1.1 76 Bad header line\r\n\r\n", "SPAMD/1.1 0 EX_OK\r\n", "", "HTTP/1.1 200 OK\r\n\r\n",
            ]
        )
    )  # fmt: skip
    return head.replace("$SIZE", str(len(message))).encode() + (message if head.endswith("\r\n\r\n") else b"")


@st.composite
def _spamassassin_case(draw: st.DrawFn) -> Case:
    protocol = draw(st.sampled_from(["smtp", "smtp", "qmtp"]))
    plugins = draw(st.sampled_from([["spamassassin", "accept"], ["accept", "spamassassin", "clamav"]]))
    env = draw(
        st.sampled_from(
            [
                *[{"SPAMD_HOST": "127.0.0.1", "SPAMD_PORT": "$PORT"}] * 5,
                {"SPAMD_HOST": "127.0.0.1", "SPAMD_PORT": "$PORT", "SPAMD_USER": "joe"},
                {"SPAMD_HOST": "127.0.0.1", "SPAMD_PORT": "1"},
                {"SPAMD_HOST": ""},
                {},
            ]
        )
    )
    for name, values in {"SPAMD_MAXSIZE": ["10", "1000", "0"], "SPAMD_REJECT": ["", "no spam", "two\nlines"]}.items():
        value = draw(st.sampled_from([None, None, *values]))
        env = env | ({name: value} if value is not None else {})
    return Case([protocol, "echo", *plugins], env, draw(_said(protocol)), draw(_spamd_answer()))


@_SETTINGS
@given(case=_spamassassin_case())
def test_spamassassin(one_shot: OneShot, case: Case) -> None:
    received = scanned(one_shot, case, "SPAMD", b"")
    assert len(received) in (0, 2)
    # The original's length is some number that happens to be there, unless there is a MAXSIZE.
    alike = {re.sub(rb"(?<=Content-Length: )\d+", b"N", data) for data in received}
    assert len(alike) <= 1


# -- rbl ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def name_server() -> Iterator[dict[str, str]]:
    """The settings with which both ask the same one: at port 53 of a loopback address that nobody else has, since the
    original knows no other port."""
    for _ in range(20):
        address = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        try:
            server = NameServer(RECORDS, (address, 53))
        except PermissionError:
            pytest.skip("Port 53 is for root.")
        except OSError:
            continue
        with server:
            yield {"NAMESERVERS": server.address, "DNSCACHEIP": address}
            return
    pytest.fail("somebody has port 53 everywhere")


@st.composite
def _rbl_case(draw: st.DrawFn) -> Case:
    protocol = draw(st.sampled_from(["smtp", "smtp", "qmtp"]))
    lists = draw(st.lists(st.sampled_from(["one.example", "two.example", "empty.example", *CLEAN]), max_size=3))
    several = ["rbl", "add-received", "counters", "accept"]
    plugins = draw(st.sampled_from([["rbl", "accept"], ["accept", "rbl"], several, ["rbl"]]))
    env = {"RBL_BLACKLISTS": ",".join(lists)}
    if draw(st.integers(0, 3)) == 0:
        env["TCPREMOTEIP"] = draw(st.sampled_from(["192.0.2.1", "2001:db8::1", ""]))
    if draw(st.booleans()):
        env["RBL_QUEUEDIR"] = draw(st.sampled_from(["$DIR/q", "$DIR/q", "$DIR/none"]))
    if draw(st.integers(0, 2)) == 0 and not {"one.example", "two.example", "empty.example"} & set(lists):
        env["RBL_DEBUG"] = ""
    backend = draw(st.sampled_from(["echo", "queuedir"]))
    return Case([protocol, backend, *plugins], env, draw(_said(protocol)))


@_SETTINGS
@given(case=_rbl_case())
def test_rbl(one_shot: OneShot, name_server: Mapping[str, str], case: Case) -> None:
    compare(one_shot, case.arguments, {**name_server, **case.env}, case.said)


# -- what the generated cases leave out --------------------------------------------------------------------------

_MAIL = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\ntext\r\n.\r\n"
_CLAMAV = {"CLAMAV_HOST": "127.0.0.1", "CLAMAV_PORT": "$PORT"}
_SPAMD = {"SPAMD_HOST": "127.0.0.1", "SPAMD_PORT": "$PORT"}
_NO_SCAN = b"451 4.3.0 Could not virus scan message"
_NO_SPAMD = b"451 4.3.0 Could not SpamAssassin scan message"
_HEAD = b"SPAMD/1.1 0 EX_OK\r\n"

EXPLAINED: dict[str, tuple[bytes, Explained]] = {
    "rbl-debug": (
        b"",
        Explained(
            "2.22 says which kind of list it is, and has all texts in one line",
            b"MAIL FROM:<a@b>\r\n",
            b"rbl: one.example:",
            b"rbl: blacklisted by one.example: First text",
            "smtp echo rbl accept",
            {"RBL_BLACKLISTS": "one.example", "RBL_DEBUG": ""},
        ),
    ),
    "rbl-whitelists": (
        b"",
        Explained(
            "2.12 has no whitelists",
            b"MAIL FROM:<a@b>\r\n",
            b"451 Blocked: First text",
            b"250 Sender=",
            "smtp echo rbl accept",
            {"RBL_BLACKLISTS": "one.example", "RBL_WHITELISTS": "two.example"},
        ),
    ),
    "rbl-junk-behind-the-address": (
        b"",
        Explained(
            "the original takes an address with anything behind it",
            b"MAIL FROM:<a@b>\r\n",
            b"451 Blocked: First text",
            b"rbl: Cannot parse IP '198.51.100.7x'",
            "smtp echo rbl accept",
            {"RBL_BLACKLISTS": "one.example", "TCPREMOTEIP": "198.51.100.7x"},
        ),
    ),
    "clamav-cut-off": (
        b"stream: OK",
        Explained(
            "an answer without its line end may be the beginning of another",
            _MAIL, b"250 Received", _NO_SCAN, "smtp echo clamav accept", _CLAMAV,
        ),
    ),
    "clamav-almost-ok": (
        b"stream: OK \n",
        Explained(
            "OK is OK and nothing else",
            _MAIL, b"250 Received", b"554 5.7.0 Virus scan failed: OK ", "smtp echo clamav accept", _CLAMAV,
        ),
    ),
    "clamav-control-bytes": (
        b"stream: A\x1b[2J FOUND\n",
        Explained(
            "nothing that a scanner says reaches a client or a log unescaped",
            _MAIL, b"A\x1b[2J FOUND", b"A?[2J FOUND", "smtp echo clamav accept", _CLAMAV,
        ),
    ),
    "spamassassin-queued": (
        _HEAD + b"\r\nSubject: y\n\nnew\n",
        Explained(
            "the original's queuedir writes the message as it came, not what spamd has made of it",
            _MAIL, b"Subject: x\n\ntext\n", b"Subject: y\n\nnew\n", "smtp queuedir spamassassin accept", _SPAMD,
        ),
    ),
    "spamassassin-empty": (
        _HEAD + b"\r\n",
        Explained(
            "an empty answer is no message",
            _MAIL, b"250 2.6.0", _NO_SPAMD, "smtp queuedir spamassassin accept", _SPAMD,
        ),
    ),
    "spamassassin-cut-off": (
        _HEAD + b"Content-length: 1000\r\n\r\nSubject: y\n\nnew\n",
        Explained(
            "where spamd says how long its answer is, half of it is no answer",
            _MAIL, b"250 Received", _NO_SPAMD, "smtp echo spamassassin accept", _SPAMD,
        ),
    ),
    "spamassassin-path": (
        b"",
        Explained(
            "with a path the original crashes",
            _MAIL, b"354 ", _NO_SPAMD, "smtp echo spamassassin accept", {"SPAMD_PATH": "$DIR/none"},
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPLAINED)
def test_explained(one_shot: OneShot, name_server: Mapping[str, str], name: str) -> None:
    answer, explained = EXPLAINED[name]
    until = bytes(4) if name.startswith("clamav") else b""
    with Helpers({"SCANNER": Helper(until, answer)}) as helpers:
        env = {key: value.replace("$PORT", str(helpers.ports["SCANNER"])) for key, value in explained.env.items()}
        check_explained(one_shot, explained._replace(env={**name_server, **env}))
