"""Envelope addresses: every form in every syntax, round trips, totality, linear work."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailfront_proto.smtp import addresses
from mailfront_proto.smtp.addresses import (
    ORIGINAL,
    STRICT,
    TOLERANT,
    Address,
    AddressError,
    AddressSyntax,
    parse_path,
    quote_local_part,
    split_parameters,
)
from mailfront_proto.testing import strategies

Outcome = bytes | str

SYNTAXES = {"strict": STRICT, "tolerant": TOLERANT, "original": ORIGINAL}

S = "501 5.5.2 Syntax error in address parameter."
N = "553 5.6.7 Non-ASCII addresses need SMTPUTF8."
L64 = "501 5.1.7 Local part too long (limit 64 octets)."
L255 = "501 5.1.7 Domain too long (limit 255 octets)."
L256 = "501 5.1.7 Address too long (limit 256 octets)."

LABEL = b"d" * 63
LONG = b"a" * 64 + b"@" + b".".join([LABEL, LABEL, b"d" * 61])  # 64 + 1 + 189, 256 with its brackets

# argument of MAIL; outcome in STRICT, TOLERANT, ORIGINAL: the address and the parameters, or the reply
FORMS: list[tuple[bytes, Sequence[Outcome]]] = [
    # the plain ones
    (b"FROM:<bob@example.org>", [b"bob@example.org", b"bob@example.org", b"bob@example.org"]),
    (b"from:<bob@example.org>", [b"bob@example.org", b"bob@example.org", b"bob@example.org"]),
    (b"FROM:<>", [b"", b"", b""]),
    (b"FROM:<bob@xn--bcher-kva.example>", [b"bob@xn--bcher-kva.example"] * 3),
    (b"FROM:<a.b+c@1.2.3.4>", [b"a.b+c@1.2.3.4"] * 3),
    # leniencies
    (b"FROM: <bob@example.org>", [S, b"bob@example.org", b"bob@example.org"]),
    (b"FROM:bob@example.org", [S, b"bob@example.org", b"bob@example.org"]),
    (b"FROM:  bob@example.org", [S, b"bob@example.org", b"bob@example.org"]),
    (b"FROM:<bob>", [S, b"bob", b"bob"]),
    (b"FROM:bob", [S, b"bob", b"bob"]),
    (b"FROM:<postmaster>", [S, b"postmaster", b"postmaster"]),
    (b"FROM:<a..b.@example.org>", [S, b"a..b.@example.org", b"a..b.@example.org"]),
    (b"FROM:<.a@example.org>", [S, b".a@example.org", b".a@example.org"]),
    (b"FROM:<a@my_host.example>", [S, b"a@my_host.example", b"a@my_host.example"]),
    (b"FROM:<a@-h-.example>", [S, b"a@-h-.example", b"a@-h-.example"]),
    (b"FROM:<a@example.org.>", [S, b"a@example.org", b"a@example.org."]),
    (b"FROM:<a@example.org..>", [S, S, b"a@example.org.."]),
    (b"FROM:<bob@example.org> ", [b"bob@example.org"] * 3),
    (b"FROM:<bob@example.org> \t", [b"bob@example.org", b"bob@example.org", b"bob@example.org|\t"]),
    # what the free scanner takes besides
    (b"FROM bob@example.org", [S, S, b"bob@example.org"]),
    (b"FROM <bob@example.org>", [S, S, b"bob@example.org"]),
    (b"FROM<bob@example.org>", [S, S, b"bob@example.org"]),
    (b"TO:<bob@example.org>", [S, S, b"bob@example.org"]),
    (b"<bob@example.org>", [S, S, b"bob@example.org"]),
    (b":bob", [S, S, b"bob"]),
    (b"FROM a b:c", [S, S, b"c"]),
    (b"FROM:Bob <bob@example.org>", [S, S, b"bob@example.org"]),
    (b"FROM:< bob@example.org >", [S, S, b" bob@example.org "]),
    (b"FROM:<a b>", [S, S, b"a b"]),
    (b"FROM:bob>", [S, S, b"bob>"]),
    (b"FROM:<back\\>slash@example.net>", [S, S, b"back>slash@example.net"]),
    (b"FROM:<a,b@example.org>", [S, S, b"a,b@example.org"]),
    (b"FROM:<a@b@c>", [S, S, b"a@b@c"]),
    (b"FROM:<@example.org>", [S, S, b"@example.org"]),
    (b"FROM:<a@>", [S, S, b"a@"]),
    # quotes (H53, H54)
    (b'FROM:<"a b"@example.org>', [b'"a b"@example.org', b'"a b"@example.org', b"a b@example.org"]),
    (b'FROM:"a b"@example.org', [S, b'"a b"@example.org', b"a b@example.org"]),
    (b'FROM:<"a\\"b"@c>', [b'"a\\"b"@c', b'"a\\"b"@c', b'a"b@c']),
    (b'FROM:<"a>b@c"@d>', [b'"a>b@c"@d', b'"a>b@c"@d', b"a>b@c@d"]),
    (b'FROM:<""@x>', [b'""@x', b'""@x', b"@x"]),
    (b'FROM:<"">', [S, S, b""]),
    (b'FROM:<"a"b@x>', [S, S, b"ab@x"]),
    (b'FROM:<a"b"@x>', [S, S, b"ab@x"]),
    (b'FROM:<"a@x>', [S, S, S]),
    (b'FROM:<">', [S, S, S]),
    (b'FROM:"', [S, S, b""]),
    (b'FROM:"a b', [S, S, b"a b"]),
    (b"FROM:a\\", [S, S, S]),
    (b"FROM:\\", [S, S, S]),
    (b"FROM:<a\\", [S, S, S]),
    (b"FROM:<a\\>", [S, S, S]),
    (b'FROM:<"a\\"@x>', [S, S, S]),
    # source routes (H54)
    (b"FROM:<@a,@b:c@d>", [b"c@d", b"c@d", b"c@d"]),
    (b"FROM:<@a:c@d>", [b"c@d", b"c@d", b"c@d"]),
    (b'FROM:<@a:"c d"@e>', [b'"c d"@e', b'"c d"@e', b"c d@e"]),
    (b"FROM:<@a,b:c@d>", [S, S, b"c@d"]),
    (b"FROM:<@a:@b:c@d>", [S, S, b"@b:c@d"]),
    (b"FROM:<@:c@d>", [S, S, b"c@d"]),
    (b"FROM:<@a:>", [S, S, b""]),
    (b"FROM:<@a:b>", [S, S, b"b"]),
    (b"FROM:@a,@b:c@d", [S, b"c@d", b"@a,@b:c@d"]),
    (b"FROM:@a,@b:c@d X=1", [S, b"c@d|X=1", b"c@d|X=1"]),
    # nested and unclosed brackets (H54)
    (b"FROM:<<a@b>>", [S, S, b"<a@b|>"]),
    (b"FROM:<<a@b>", [S, S, b"<a@b"]),
    (b"FROM:<a@b", [S, S, S]),
    (b"FROM:a@b>", [S, S, b"a@b>"]),
    (b"FROM:>a@b<", [S, S, S]),
    (b"FROM:<", [S, S, S]),
    (b"FROM:", [S, S, S]),
    (b"FROM:   ", [S, S, S]),
    (b"FROM", [S, S, S]),
    (b"", [S, S, S]),
    (b"plain3@example.net", [S, S, S]),
    # literals
    (b"FROM:<a@[192.0.2.1]>", [b"a@[192.0.2.1]"] * 3),
    (b"FROM:<a@[192.0.2.256]>", [S, S, b"a@[192.0.2.256]"]),
    (b"FROM:<a@[192.0.2]>", [S, S, b"a@[192.0.2]"]),
    (b"FROM:<a@[192.0.2.0001]>", [S, S, b"a@[192.0.2.0001]"]),
    (b"FROM:<a@[IPv6:2001:db8::1]>", [b"a@[IPv6:2001:db8::1]"] * 3),
    (b"FROM:<a@[ipv6:::]>", [b"a@[ipv6:::]"] * 3),
    (b"FROM:<a@[IPv6:::ffff:192.0.2.1]>", [b"a@[IPv6:::ffff:192.0.2.1]"] * 3),
    (b"FROM:<a@[IPv6:1:2:3:4:5:6:7:8]>", [b"a@[IPv6:1:2:3:4:5:6:7:8]"] * 3),
    (b"FROM:<a@[IPv6:1:2:3:4:5:6:192.0.2.1]>", [b"a@[IPv6:1:2:3:4:5:6:192.0.2.1]"] * 3),
    (b"FROM:<a@[IPv6:1:2:3:4:5:6:7]>", [S, S, b"a@[IPv6:1:2:3:4:5:6:7]"]),
    (b"FROM:<a@[IPv6:1:2:3:4:5:6:7::]>", [S, S, b"a@[IPv6:1:2:3:4:5:6:7::]"]),
    (b"FROM:<a@[IPv6:1::2::3]>", [S, S, b"a@[IPv6:1::2::3]"]),
    (b"FROM:<a@[IPv6:1:::2]>", [S, S, b"a@[IPv6:1:::2]"]),
    (b"FROM:<a@[IPv6:12345::]>", [S, S, b"a@[IPv6:12345::]"]),
    (b"FROM:<a@[IPv6:192.0.2.1]>", [S, S, b"a@[IPv6:192.0.2.1]"]),
    (b"FROM:<a@[IPv6:192.0.2.1::]>", [S, S, b"a@[IPv6:192.0.2.1::]"]),
    (b"FROM:<a@[IPv6:]>", [S, S, b"a@[IPv6:]"]),
    (b"FROM:<a@[2001:db8::1]>", [S, S, b"a@[2001:db8::1]"]),
    (b"FROM:<a@[X-tag:foo]>", [S, S, b"a@[X-tag:foo]"]),
    (b"FROM:<a@[]>", [S, S, b"a@[]"]),
    (b"FROM:<a@[192.0.2.1>", [S, S, b"a@[192.0.2.1"]),
    (b"FROM:<a@[192.0.2.1].example>", [S, S, b"a@[192.0.2.1].example"]),
    # control bytes (H52), 8-bit bytes (H55)
    (b"FROM:<a\0@b>", [S, S, S]),
    (b"FROM:<a@b\0>", [S, S, S]),
    (b"FROM:<a@b>\0", [S, S, S]),
    (b"FROM:<a@b>\0 X=1", [S, S, S]),
    (b"FROM:<a@b> X=\0", [S, S, S]),
    (b"FROM:<a\tb@c>", [S, S, S]),
    (b'FROM:<"a\tb"@c>', [S, S, S]),
    (b"FROM:<a\\\tb@c>", [S, S, S]),
    (b"FROM:<a\rb@c>", [S, S, S]),
    (b"FROM:<a\nb@c>", [S, S, S]),
    (b"FROM:<a\x1bb@c>", [S, S, S]),
    (b"FROM:<a\x7fb@c>", [S, S, S]),
    (b"FROM:\t<a@b>\tX=1", [S, S, b"a@b|\tX=1"]),
    (b"FROM:\ta@b", [S, S, S]),
    ("FROM:<é@x>".encode(), [N, N, "é@x".encode()]),
    ("FROM:<a@é.example>".encode(), [N, N, "a@é.example".encode()]),
    (b'FROM:<"\xe9"@x>', [N, N, b"\xe9@x"]),
    (b"FROM:<\xe9@x>", [N, N, b"\xe9@x"]),
    # parameters
    (b"FROM:<a@b> SIZE=10 BODY=8BITMIME", [b"a@b|SIZE=10|BODY=8BITMIME"] * 3),
    (b"FROM:<a@b> KEY  OTHER=1", [b"a@b|KEY|OTHER=1", b"a@b|KEY|OTHER=1", b"a@b|KEY||OTHER=1"]),
    (b"FROM:<a@b>   X=1   Y  ", [b"a@b|X=1|Y", b"a@b|X=1|Y", b"a@b|X=1|||Y|"]),
    (b'FROM:<"a"@b>   X=1   Y  ', [b'"a"@b|X=1|Y', b'"a"@b|X=1|Y', b"a@b|X=1|||Y|"]),
    (b"FROM:a@b  X=1 Y", [S, b"a@b|X=1|Y", b"a@b|X=1|Y"]),
    (b"FROM:<a@b>X=1", [S, S, b"a@b|X=1"]),
    (b'FROM:<"a"@b>X=1', [S, S, b"a@b|X=1"]),
    (b"FROM:<>X=1", [S, S, b"|X=1"]),
    (b"FROM:<> X=1", [b"|X=1", b"|X=1", b"|X=1"]),
    # lengths
    (b"FROM:<" + LONG + b">", [LONG, LONG, LONG]),
    (b"FROM:<a" + LONG + b">", [L64, L64, b"a" + LONG]),
    (b"FROM:<" + LONG + b"d>", [L256, L256, LONG + b"d"]),
    (b'FROM:<"' + b"a" * 62 + b'"@b>', [*[b'"' + b"a" * 62 + b'"@b'] * 2, b"a" * 62 + b"@b"]),
    (b'FROM:<"' + b"a" * 63 + b'"@b>', [L64, L64, b"a" * 63 + b"@b"]),
    (b"FROM:<a@" + b"d" * 256 + b">", [L255, L255, b"a@" + b"d" * 256]),
    (b"FROM:<@" + b"r" * 300 + b":a@b>", [b"a@b", b"a@b", b"a@b"]),
]


def outcome(argument: bytes, syntax: AddressSyntax, keyword: bytes = b"FROM", utf8: bool = False) -> Outcome:
    try:
        address, rest = parse_path(argument, keyword, syntax, utf8)
    except AddressError as error:
        return str(error.reply)
    return b"|".join([address.raw, *split_parameters(rest, syntax)])


@pytest.mark.parametrize("form", FORMS, ids=lambda form: repr(form[0][:40]))
def test_h52_h53_h54_h55_forms(form: tuple[bytes, Sequence[Outcome]]) -> None:
    argument, expected = form
    assert [outcome(argument, syntax) for syntax in SYNTAXES.values()] == list(expected)


# argument of RCPT; outcome in STRICT, TOLERANT, ORIGINAL
RCPT_FORMS: list[tuple[bytes, Sequence[Outcome]]] = [
    (b"TO:<Postmaster>", [b"Postmaster", b"Postmaster", b"Postmaster"]),
    (b"TO:<postmaster2>", [S, b"postmaster2", b"postmaster2"]),
    (b"TO:<>", [S, S, b""]),
    (b"TO: <a@b>", [S, b"a@b", b"a@b"]),
    (b"FROM:<a@b>", [S, S, b"a@b"]),
    (b"TO:<a" + LONG + b">", [*[L64.replace("5.1.7", "5.1.3")] * 2, b"a" + LONG]),
]


@pytest.mark.parametrize("form", RCPT_FORMS, ids=lambda form: repr(form[0][:40]))
def test_recipient_forms(form: tuple[bytes, Sequence[Outcome]]) -> None:
    argument, expected = form
    assert [outcome(argument, syntax, b"TO") for syntax in SYNTAXES.values()] == list(expected)


# one leniency each: an argument that STRICT refuses and STRICT with that flag takes
LENIENCIES = {
    "blanks_after_colon": b"FROM: <a@b>",
    "missing_brackets": b"FROM:a@b",
    "missing_domain": b"FROM:<a>",
    "loose_dots": b"FROM:<a..b@c>",
    "domain_underscores": b"FROM:<a@b_c>",
    "domain_hyphens": b"FROM:<a@b->",
    "domain_trailing_dot": b"FROM:<a@b.>",
    "eight_bit": b"FROM:<\xff@b>",
    "free_form": b"<a@b>",
}


@pytest.mark.parametrize("flag", LENIENCIES)
def test_each_leniency_is_a_flag_of_its_own(flag: str) -> None:
    assert isinstance(outcome(LENIENCIES[flag], STRICT), str)
    assert isinstance(outcome(LENIENCIES[flag], AddressSyntax(**{flag: True})), bytes)
    for other in LENIENCIES.keys() - {flag, "free_form"}:
        assert isinstance(outcome(LENIENCIES[flag], AddressSyntax(**{other: True})), str)


def test_every_flag_is_in_the_table_of_leniencies() -> None:
    assert {f.name for f in fields(AddressSyntax)} - LENIENCIES.keys() == {
        "max_local_part",
        "max_domain",
        "max_path",
    }


def test_limits_are_flags_too() -> None:
    free = replace(STRICT, max_local_part=None, max_domain=None, max_path=None)
    huge = b"a" * 1000 + b"@" + b"d" * 1000
    assert outcome(b"FROM:<" + huge + b">", free) == huge
    assert outcome(b"FROM:<" + huge + b">", replace(free, max_path=512)) == (
        "501 5.1.7 Address too long (limit 512 octets)."
    )
    AddressSyntax(max_local_part=64, max_domain=255, max_path=256)
    for floor, low in (
        (64, {"max_local_part": 63}),
        (255, {"max_domain": 254}),
        (256, {"max_path": 255}),
    ):
        with pytest.raises(ValueError, match=f"below RFC 5321's minimum, {floor}"):
            AddressSyntax(**low)  # type: ignore[arg-type]


@pytest.mark.parametrize("syntax", [STRICT, TOLERANT])
def test_h55_smtputf8_lets_valid_utf8_pass(syntax: AddressSyntax) -> None:
    good = "жю.é@bücher.example".encode()
    assert outcome(b"FROM:<" + good + b">", syntax, utf8=True) == good
    assert outcome('FROM:<"é 日"@x>'.encode(), syntax, utf8=True) == '"é 日"@x'.encode()
    for bad in (b"\xe9@x", b"a@\xff", b"\xc2\x85@x", b"\xed\xa0\x80@x", b'"\\\xc3\xa9"@x'):
        assert outcome(b"FROM:<" + bad + b">", syntax, utf8=True) == S


def test_golden_forms() -> None:
    sessions = json.loads((Path(__file__).parents[1] / "golden/original-2.22.json").read_text())
    session = next(s for s in sessions if s["name"] == "smtp-address-forms")
    commands = [line for line in session["stdin"].split("\r\n") if line.upper().startswith("MAIL")]
    answers = session["stdout"].split("\r\n")[1:]
    for command, answer in zip(commands, answers, strict=False):
        got = outcome(command[4:].lstrip(" ").encode("latin-1"), ORIGINAL)
        if isinstance(got, bytes):
            address, *parameters = got.decode("latin-1").split("|")
            got = f"250 Sender='{address}'." + "".join(f" [{parameter}]" for parameter in parameters)
        assert (command, got) == (command, answer)


@given(strategies.strict_addresses(), st.sampled_from([STRICT, TOLERANT]))
def test_print_parse_equal(address: Address, syntax: AddressSyntax) -> None:
    assert parse_path(b"FROM:" + address.path(syntax), b"FROM", syntax) == (address, b"")
    assert Address.from_str(str(address), syntax) == address
    assert hash(Address.from_str(str(address), syntax)) == hash(address)


@given(strategies.strict_addresses(utf8=True))
def test_print_parse_equal_utf8(address: Address) -> None:
    for syntax in (STRICT, TOLERANT):
        assert parse_path(b"FROM:" + address.path(syntax), b"FROM", syntax, utf8=True) == (address, b"")
        assert Address.from_str(str(address), syntax) == address


@given(strategies.tolerant_addresses())
def test_print_parse_equal_tolerant(address: Address) -> None:
    assert parse_path(b"FROM:" + address.path(), b"FROM", TOLERANT) == (address, b"")


@given(strategies.free_addresses())
@example(Address(b"@a:b"))
@example(Address(b'@"a:b'))
@example(Address(b"a@b>c"))
@example(Address(b"<>"))
def test_print_parse_equal_original(address: Address) -> None:
    printed = address.path(ORIGINAL)
    assert parse_path(b"FROM:" + printed, b"FROM", ORIGINAL) == (address, b"")


noise = st.lists(
    st.one_of(
        st.sampled_from(
            [b"FROM:", b"TO:", b"<", b">", b'"', b"\\", b"@", b",", b":", b" ", b".", b"[", b"]", b"IPv6:"]
        ),
        st.binary(max_size=3),
    ),
    max_size=30,
).map(b"".join)


@given(
    st.one_of(st.binary(), noise, noise.map(lambda tail: b"FROM:<" + tail)),
    st.sampled_from([STRICT, TOLERANT, ORIGINAL]),
    st.sampled_from([b"FROM", b"TO"]),
    st.booleans(),
)
def test_total_and_what_it_reads_it_reads_again(
    argument: bytes, syntax: AddressSyntax, keyword: bytes, utf8: bool
) -> None:
    try:
        address, rest = parse_path(argument, keyword, syntax, utf8)
    except AddressError as error:
        assert 500 <= error.reply.code < 600
        return
    assert not re.search(rb"[\x00-\x1f\x7f]", address.raw)  # H52
    assert b"\0" not in rest and b"\r" not in rest and b"\n" not in rest
    assert argument.endswith(rest) or syntax is not ORIGINAL
    split_parameters(rest, syntax)
    assert parse_path(keyword + b":" + address.path(syntax), keyword, syntax, utf8) == (address, b"")
    if syntax is STRICT:
        assert parse_path(argument, keyword, TOLERANT, utf8) == (address, rest)


@given(strategies.strict_addresses(), st.sampled_from([b"", b" ", b" SIZE=1", b" A  B=c "]))
def test_the_fast_path_reads_what_the_grammar_reads(address: Address, tail: bytes) -> None:
    """The common pattern is a short cut, not another syntax."""
    argument = b"FROM:" + address.path() + tail
    for syntax in (STRICT, TOLERANT):
        raw, rest = addresses._parse(argument, b"FROM", syntax)
        fast, fast_rest = parse_path(argument, b"FROM", syntax)
        assert (fast.raw, split_parameters(fast_rest, syntax)) == (raw, split_parameters(rest, syntax))
    if b'"' not in address.raw:
        raw, rest = addresses._scan_freely(argument)
        fast, fast_rest = parse_path(argument, b"FROM", ORIGINAL)
        assert (fast.raw, split_parameters(fast_rest, ORIGINAL)) == (raw, split_parameters(rest, ORIGINAL))


# pairs of (start, unit, end): growing the unit must grow the work in proportion
HOSTILE = [
    (b"FROM:<", b"a", b""),
    (b"FROM:<", b"a.", b"@b>"),
    (b"FROM:<a@", b"b-", b">"),
    (b"FROM:<a@", b"b.", b"!>"),
    (b'FROM:<"', b"\\a", b""),
    (b'FROM:<"', b'a"', b""),
    (b"FROM:<", b'""', b""),
    (b"FROM:<", b"@a,", b":"),
    (b"FROM:<", b"@a:", b""),
    (b"FROM:<a@[IPv6:", b"1:", b"]>"),
    (b"FROM:<a@[", b"1.", b"]>"),
    (b"FROM:", b"<", b""),
    (b"FROM:", b" ", b""),
    (b"FROM:<a@b>", b" ", b"\x01"),
    (b"FROM:<a@b>", b" x", b"\x01"),
    (b"", b":", b""),
    (b"FROM:", b'"\\', b""),
]


@pytest.mark.parametrize("name", SYNTAXES)
@pytest.mark.parametrize("start, unit, end", HOSTILE)
def test_h93_work_is_linear(name: str, start: bytes, unit: bytes, end: bytes) -> None:
    """Eight times the input may take eight times the time; sixty-four times would be quadratic."""

    def cost(size: int) -> float:
        argument = start + unit * size + end
        best = 1e9
        for _ in range(3):
            begin = time.thread_time()
            outcome(argument, SYNTAXES[name])
            best = min(best, time.thread_time() - begin)
        return best

    assert cost(16_000) < 32 * cost(2_000) + 0.005


@pytest.mark.parametrize(
    "raw, local, domain",
    [
        (b"", b"", b""),
        (b"postmaster", b"postmaster", b""),
        (b"a@b", b"a", b"b"),
        (b'"a@b"@c', b'"a@b"', b"c"),
        (b'"a@b"', b'"a@b"', b""),
        (b'"', b'"', b""),
        (b"a@b@c", b"a@b", b"c"),
        (b"a@[IPv6:::1]", b"a", b"[IPv6:::1]"),
    ],
)
def test_parts(raw: bytes, local: bytes, domain: bytes) -> None:
    address = Address(raw)
    assert (address.local_part, address.domain, address.is_null) == (local, domain, not raw)


@pytest.mark.parametrize(
    "raw, printed",
    [
        (b"", b"<>"),
        (b"a b@c", b'<"a b"@c>'),
        (b'a"b\\c@d', b'<"a\\"b\\\\c"@d>'),
        (b"a@b@c", b'<"a@b"@c>'),
        (b"@c", b'<""@c>'),
        (b'"a b"@c', b'<"a b"@c>'),
        (b"a b", b'<"a b">'),
    ],
)
def test_a_local_part_is_quoted_where_it_must_be(raw: bytes, printed: bytes) -> None:
    assert Address(raw).path() == printed


@given(st.binary().filter(lambda raw: re.search(rb"[\x00-\x1f\x7f-\xff]", raw) is None))
def test_any_printable_local_part_can_be_quoted(local: bytes) -> None:
    quoted = quote_local_part(local)
    argument = b"FROM:<" + quoted + b"@x>"
    address, _ = parse_path(argument, b"FROM", replace(STRICT, max_local_part=None, max_path=None))
    assert address.local_part == quoted
    unquoted, _ = parse_path(argument, b"FROM", ORIGINAL)
    assert unquoted.raw == local + b"@x" or local.startswith(b"@")


@pytest.mark.parametrize(
    "text", ["<a@b>", "a@b SIZE=1", "a@b> X=<", "a b@c", "a\r\n@b", "a@b>\r\nRSET", "><", "@a:"]
)
def test_from_str_takes_an_address_and_nothing_else(text: str) -> None:
    with pytest.raises(AddressError):
        Address.from_str(text)


def test_text_of_an_address() -> None:
    assert str(Address("é@x".encode())) == "é@x"
    assert str(Address(b"\xe9@x")) == "\udce9@x"
    assert Address.from_str("é@x").raw == "é@x".encode()
    assert not Address.from_str("é@x").is_ascii
    assert Address.from_str("a@x").is_ascii
