"""H71: Authentication-Results that claim to be ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.spool import MAX_HEADER, MEMORY_LIMIT
from mailfront_io.testing import EOF
from tests.front import ENVELOPE, Front, codes
from tests.hostile.test_rules import check_linear

FORGED = b"Authentication-Results: mx.example.org; spf=pass\n"


def stored(text: bytes, **settings: str) -> bytes:
    """What becomes of the message `text`, with LF line ends."""
    front = Front("strip-auth-results", "accept", env=settings)
    wire = text.replace(b"\n", b"\r\n").replace(b"\r\n.", b"\r\n..")
    output = front.play([ENVELOPE + b"DATA\r\n" + wire + b".\r\nQUIT\r\n", EOF]).output
    assert codes(output)[-2:] == [250, 221]
    [(_, _, message)] = front.messages
    return message


OURS = [
    b"mx.example.org; none", b"MX.Example.ORG; none", b"mx.example.org. 1; none", b"mx.example.org;none",
    b"mx.example.org", b"(x) mx.example.org; none", b"(a(b\\)c)d)\n mx.example.org (e); none",
    b"\n mx.example.org; none", b"\n\tmx.example.org\n ; none", b'"mx.example.org"; none', b'"m\\x.example.org"; none',
    b"mx.example.org(x); none", b"mx.example.org 1; none", b"mx.example.org/1; none",
]  # fmt: skip
NOBODYS = [
    b"", b";", b"(mx.example.org", b'""; none', b"(x); none", b"(" * 1000 + b")" * 1000 + b"other.example; none",
    b"x" * 1000,
]  # fmt: skip
OTHERS = [b"mx.example.net; none", b"x.mx.example.org; none", b"(mx.example.org) other.example; none"]


@pytest.mark.parametrize("name", [b"Authentication-Results", b"authentication-RESULTS", b"Authentication-Results \t"])
@pytest.mark.parametrize("value", OURS + NOBODYS)
def test_h71_what_claims_to_be_ours_goes(name: bytes, value: bytes) -> None:
    field = name + b": " + value + b"\n"
    assert stored(field + b"Subject: x\n\nbody\n") == b"Subject: x\n\nbody\n"
    assert stored(b"Subject: x\n y\n" + field + field + b"\n\nbody\n") == b"Subject: x\n y\n\n\nbody\n"
    assert stored(b"Subject: x\n" + field) == b"Subject: x\n"


@pytest.mark.parametrize("value", OTHERS)
def test_h71_what_does_not_stays(value: bytes) -> None:
    text = b"Authentication-Results: " + value + b"\nX-Authentication-Results: mx.example.org; none\n\n" + FORGED
    assert stored(text) == text
    assert stored(b"no header\n\n" + FORGED) == b"no header\n\n" + FORGED


def test_h71_names_can_be_listed() -> None:
    other = FORGED.replace(b"mx.example.org", b"a.example")
    assert stored(FORGED + other + b"\nx\n", AUTHSERV_IDS="a.example:b.example") == FORGED + b"\nx\n"


def test_h71_of_a_message_in_a_file_too() -> None:
    body = b"x" * 70 + b"\n"
    long = body * (MEMORY_LIMIT // len(body) + 10)
    assert stored(FORGED + b"Subject: x\n\n" + long) == b"Subject: x\n\n" + long
    folded = b"Subject: x\n" + b" y\n" * 40_000
    assert stored(folded + FORGED + b"\n" + long) == folded + b"\n" + long


def test_h71_a_header_too_long_to_look_at_is_refused() -> None:
    front = Front("strip-auth-results", "accept")
    wire = b"X: y\r\n" * (MAX_HEADER // 5 + 20_000) + FORGED.replace(b"\n", b"\r\n")
    output = front.say(ENVELOPE + b"DATA\r\n", wire, b".\r\n")
    assert codes(output)[-1] == 554 and front.messages == []


@pytest.mark.parametrize("lines", [b" \n", b"a\n", b"Authentication-Results: (\n"])
def test_h71_h93_a_header_of_many_lines_takes_linear_time(lines: bytes) -> None:
    header = b"X: y\n" + lines * (MAX_HEADER // len(lines) - 20)
    check_linear(lambda: stored(header + FORGED + b"\n"))


OTHER = b"Authentication-Results: other.example; none\n"
FIELDS = st.lists(st.sampled_from([FORGED, OTHER, b"Subject: x\n", b"X: y\n z\n", b"odd\n"]))


@given(fields=FIELDS, body=st.binary(max_size=50).map(lambda b: b.replace(b"\r", b"")))
def test_h71_nothing_else_changes(fields: list[bytes], body: bytes) -> None:
    rest = b"\n" + body + b"\n"
    kept = b"".join(field for field in fields if field != FORGED)
    assert stored(b"".join(fields) + rest) == kept + rest
