"""The submission plugin, and the clauses of RFC 6409: `docs/submission.md` names each with its test."""

import re
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.auth.static import StaticStore
from mailfront_io.spool import MEMORY_LIMIT
from mailfront_io.testing import EOF, Front
from mailfront_proto.secret import Secret
from tests.certificates import certificate
from tests.docs.blocks import ROOT
from tests.front import codes

ENVELOPE = b"EHLO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
JOE = StaticStore({"joe": Secret(b"secret")})
LOGIN = b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"
USERS = ("authenticate", "require-auth", "check-fqdn", "submission", "accept")


def submitted(text: bytes, *plugins: str) -> bytes:
    """What becomes of the message `text`, with LF line ends."""
    front = Front("accept", *(plugins or ("submission",)))
    front.play([ENVELOPE + text.replace(b"\n", b"\r\n") + b".\r\nQUIT\r\n", EOF])
    [message] = front.messages
    return message.text


def test_date_and_message_id_are_added() -> None:
    text = submitted(b"Subject: x\n\nhello\n")
    assert re.fullmatch(
        rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d -0000\n"
        rb"Message-ID: <[0-9a-f]{32}@mx\.example\.org>\nSubject: x\n\nhello\n",
        text,
    ), text
    assert parsedate_to_datetime(message_from_bytes(text)["Date"]) is not None


def test_each_message_has_an_id_of_its_own() -> None:
    first, second = submitted(b"Date: x\n\n"), submitted(b"Date: x\n\n")
    assert first != second
    assert first.endswith(b"\nDate: x\n\n")


@pytest.mark.parametrize(
    "text",
    [
        b"Date: x\nMessage-ID: y\n\nhello\n",
        b"MESSAGE-id : y\ndate:\n\nhello\n",
        b"Subject: x\n\ty\nMessage-Id: y\n z\nDATE:x\n\n",
        b"Date: x\nMessage-ID: y\n",
    ],
)
def test_what_is_there_is_left(text: bytes) -> None:
    assert submitted(text) == text


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (b"hello\n", b"\nhello\n"),
        (b"\nhello\n", b"\nhello\n"),
        (b"", b""),
        (b"Subject: x\n\nDate: x\nMessage-ID: y\n", b"Subject: x\n\nDate: x\nMessage-ID: y\n"),
        (b"Subject: x\n Date: x\n Message-ID: y\n\n", b"Subject: x\n Date: x\n Message-ID: y\n\n"),
        (b"Subject: x\nno field\nDate: x\nMessage-ID: y\n\n", b"Subject: x\nno field\nDate: x\nMessage-ID: y\n\n"),
    ],
)
def test_what_is_no_field_of_the_header_does_not_count(text: bytes, rest: bytes) -> None:
    got = submitted(text)
    assert got.startswith(b"Date: ")
    assert got.partition(b"Message-ID: ")[2].partition(b"\n")[2] == rest


def test_a_message_on_disk() -> None:
    body = b"x" * 70 + b"\n"
    text = b"Subject: x\n\n" + body * (MEMORY_LIMIT // len(body) + 2)
    got = submitted(text)
    assert got.startswith(b"Date: ") and got.endswith(text)


def test_a_header_without_end_is_left_alone() -> None:
    text = b"X: " + b"y" * 900 + b"\n"
    assert submitted(text * 1300) == text * 1300


fields = st.sampled_from(
    [b"Date: x\n", b"Message-ID: <y>\n", b"Subject: z\n", b"Subject: Date: x\n more\n", b"X-Date:\n"]
)
bodies = st.sampled_from([b"", b"\n", b"\nDate: x\n", b"\nMessage-ID: y\n\nz\n"])


@given(st.lists(fields, min_size=1, max_size=6), bodies)
def test_as_the_email_package_sees_it(header: list[bytes], body: bytes) -> None:
    """Both fields are there afterwards; those that were are as they were, and so is the body."""
    text = b"".join(header) + body
    before, after = message_from_bytes(text), message_from_bytes(submitted(text))
    for name in ("Date", "Message-ID"):
        there = before.get_all(name)
        assert after.get_all(name) == there if there else len(after.get_all(name, [])) == 1
    assert after.get_payload() == before.get_payload()


# -- the clauses of RFC 6409 -----------------------------------------------------------------------------


def say(*lines: bytes, plugins: tuple[str, ...] = USERS) -> list[int]:
    front = Front(*plugins, settings={"AUTH_REQUIRES_TLS": "0"}, credentials=JOE)
    return codes(front.say(b"".join(line + b"\r\n" for line in (b"EHLO x", *lines))))[2:]


def test_section_4_3_authorization_is_required() -> None:
    assert say(b"MAIL FROM:<a@example.net>")[0] // 100 == 5
    assert say(LOGIN.strip(), b"MAIL FROM:<a@example.net>") == [235, 250]


def test_section_3_2_the_null_return_path_is_accepted() -> None:
    assert say(LOGIN.strip(), b"MAIL FROM:<>", b"RCPT TO:<b@example.org>") == [235, 250, 250]


def test_section_4_2_domains_are_fully_qualified() -> None:
    assert say(LOGIN.strip(), b"MAIL FROM:<a@localhost>")[1] // 100 == 5
    assert say(LOGIN.strip(), b"MAIL FROM:<a@example.net>", b"RCPT TO:<b@host>")[2] // 100 == 5


def test_section_4_1_improper_content_is_554(tmp_path: Path) -> None:
    (tmp_path / "patterns").write_text("/Subject: virus\n")
    front = Front("patterns", "accept", settings={"PATTERNS": str(tmp_path / "patterns")})
    assert codes(front.say(ENVELOPE + b"Subject: virus\r\n\r\n.\r\n"))[-1] == 554
    assert codes(front.say(ENVELOPE + b"Subject: other\r\n\r\n.\r\n"))[-1] == 250


def test_section_7_starttls_is_offered(tmp_path: Path) -> None:
    certificate().private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "mail.pem"))
    front = Front(*USERS, settings={"TLS_CERTFILE": str(tmp_path / "mail.pem")}, credentials=JOE)
    assert b"STARTTLS\r\n" in front.say(b"EHLO x\r\n")


def test_section_7_dsn_where_the_backend_keeps_it() -> None:
    assert b"DSN" not in Front("accept").say(b"EHLO x\r\n")
    assert b"DSN" in Front("accept", backend="smtp", settings={"UPSTREAM": "127.0.0.1"}).say(b"EHLO x\r\n")


def test_section_5_syntax_is_501() -> None:
    assert say(LOGIN.strip(), b"MAIL FROM:<a@>", b"MAIL <a@b.example>") == [235, 501, 501]


def test_section_7_no_etrn_and_no_521() -> None:
    assert say(b"ETRN example.org") == [500]


def test_section_7_extensions_are_offered() -> None:
    front = Front(*USERS, settings={"AUTH_REQUIRES_TLS": "0"}, credentials=JOE)
    offered = {line[4:].split()[0] for line in front.say(b"EHLO x\r\n").split(b"\r\n")[1:] if line}
    assert {b"PIPELINING", b"ENHANCEDSTATUSCODES", b"8BITMIME", b"AUTH", b"SIZE", b"CHUNKING", b"SMTPUTF8"} <= offered


def test_every_clause_names_a_test_that_is_there() -> None:
    page = (ROOT / "docs" / "submission.md").read_text()
    rows = re.findall(r"^\| \d[^|]*\|[^|]*\|[^|]*\| (.*) \|$", page, re.MULTILINE)
    assert len(rows) >= 15
    for row in rows:
        names = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
        assert names or row == "–", row
        for file, test in names:
            assert re.search(rf"^def {test}\b", (ROOT / "tests" / file).read_text(), re.MULTILINE), (file, test)
