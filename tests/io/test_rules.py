"""The language of mail rules: globs, reading, printing, and which rules apply."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.rules.decision import Address, Outcome, decide
from mailfront_io.rules.glob import Glob
from mailfront_io.rules.language import (
    Code,
    ListReference,
    Pattern,
    Rule,
    Ruleset,
    Severity,
    parse,
    print_rules,
    unescape,
)

# -- globs ---------------------------------------------------------------------------------------------------


def naive(pattern: bytes, text: bytes) -> bool:
    """What a glob means, without a thought of time."""
    if not pattern:
        return not text
    if pattern[:1] == b"*":
        return naive(pattern[1:], text) or (text != b"" and naive(pattern, text[1:]))
    if not text:
        return False
    closing = pattern.find(b"]", 1)
    if pattern[:1] == b"[" and closing > 0:
        negated = pattern[1:2] in (b"!", b"^")
        members = pattern[1 + negated : closing]
        return (text[0] in members) is not negated and naive(pattern[closing + 1 :], text[1:])
    return pattern[:1] in (b"?", text[:1]) and naive(pattern[1:], text[1:])


_LETTERS = st.sampled_from([b"a", b"b", b"]", b"[", b"!", b"-", b"^", b"\\", b".", b"$", b"\xe9", b"A"])
_GLOBS = st.lists(
    st.one_of(st.sampled_from([b"*", b"?", b"[ab]", b"[!a]", b"[]", b"[!]", b"[a-b]", b"[^a]", b"[*]"]), _LETTERS),
    max_size=8,
).map(b"".join)
_TEXTS = st.lists(st.one_of(_LETTERS, st.just(b"*"), st.just(b"?")), max_size=10).map(b"".join)


@given(_GLOBS, _TEXTS)
def test_globs_match_what_a_naive_model_matches(pattern: bytes, text: bytes) -> None:
    assert Glob(pattern).matches(text) is naive(pattern, text)


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_any_bytes_are_a_glob(pattern: bytes, text: bytes) -> None:
    line = text.replace(b"\n", b"")
    assert Glob(pattern).matches(line) is naive(pattern, line)


def test_every_short_glob() -> None:
    texts = [bytes(letters) for length in range(4) for letters in itertools.product(b"ab]", repeat=length)]
    for length in range(5):
        for letters in itertools.product(b"a*?[]!", repeat=length):
            glob = Glob(bytes(letters))
            assert [glob.matches(text) for text in texts] == [naive(glob.pattern, text) for text in texts], letters


def test_a_wildcard_matches_no_line_end() -> None:
    assert not Glob(b"a?b*[!x]").matches(b"a\nb\nc\n")


def test_globs_are_values() -> None:
    assert Glob(b"a*") == Glob(b"a*") != Glob(b"a")
    assert len({Glob(b"a"), Glob(b"a")}) == 1
    assert Glob(b"a") != b"a"
    assert repr(Glob(b"a")) == "Glob(b'a')"


# -- reading ---------------------------------------------------------------------------------------------------


def only_rule(line: str, section: str = ":recipient") -> Rule:
    rules = parse(f"{section}\n{line}\n".encode())
    assert rules.problems == ()
    (rule,) = rules.recipients if section == ":recipient" else rules.senders
    return rule


def pattern(text: bytes, negated: bool = False) -> Pattern:
    return Pattern(Glob(text), negated)


def test_a_rule_with_every_field() -> None:
    rule = only_rule(r"kA@x:*@Y:Te\:xt\nmore:1000:@via:A=1\, 2,B=c:d")
    environment = (("A", "1, 2"), ("B", "c:d"))
    assert rule == Rule(Code.ACCEPT, pattern(b"a@x"), pattern(b"*@y"), "Te:xt\nmore", 1000, "@via", environment, 2)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("d", Rule(Code.REFUSE, pattern(b""), pattern(b""))),
        ("za", Rule(Code.DEFER, pattern(b"a"), pattern(b""))),
        ("pa:b", Rule(Code.PASS, pattern(b"a"), pattern(b"b"))),
        ("  \tna:b:  \r", Rule(Code.NEXT, pattern(b"a"), pattern(b"b"))),
        ("K!a:!!b", Rule(Code.FINISH, pattern(b"a", True), pattern(b"b"))),
        ("&!!!a:*::0:", Rule(Code.AND, pattern(b"a", True), pattern(b"*"))),
        ("ka:b::007", Rule(Code.ACCEPT, pattern(b"a"), pattern(b"b"), databytes=7)),
        ("ka:b::" + "9" * 5000, Rule(Code.ACCEPT, pattern(b"a"), pattern(b"b"))),
        ("k[[f]]:*", Rule(Code.ACCEPT, Pattern(ListReference(b"f")), pattern(b"*"))),
        ("k![[@g.cdb]]:", Rule(Code.ACCEPT, Pattern(ListReference(b"g.cdb", True), True), pattern(b""))),
        ("k[[]]:[[@]]", Rule(Code.ACCEPT, pattern(b"[[]]"), pattern(b"[[@]]"))),
        ("k[[@@x]]:[[[x]]", Rule(Code.ACCEPT, Pattern(ListReference(b"@x", True)), Pattern(ListReference(b"[x")))),
        (r"k\141\\\:\*:\q\,", Rule(Code.ACCEPT, pattern(b"a\\:*"), pattern(b"q,"))),
        ("k*:a:\u00e9\udcff", Rule(Code.ACCEPT, pattern(b"*"), pattern(b"a"), "\u00e9\udcff")),
    ],
)  # fmt: skip
def test_rules(line: str, rule: Rule) -> None:
    data = f":r\n{line}\n".encode("utf-8", "surrogateescape")
    (found,) = parse(data).recipients
    assert _fields(found) == _fields(rule)


def test_sections() -> None:
    """Before a selector the recipient pattern decides."""
    rules = parse(b"# c\n\nka:*\nkb:!*\nkc:x\nkd\n:recipient\nke:*\n:s and more\nkf:x\n:r\nkg\n")
    assert [rule.sender.target for rule in rules.senders] == [Glob(b"a"), Glob(b"b"), Glob(b"f")]
    assert [rule.sender.target for rule in rules.recipients] == [Glob(b"c"), Glob(b"d"), Glob(b"e"), Glob(b"g")]
    assert [rule.line for rule in rules.recipients] == [5, 6, 8, 12]


@pytest.mark.parametrize(
    ("field", "bytes_"),
    [
        (rb"a\nb", b"a\nb"), (rb"\101\377\000", b"A\xff\0"), (rb"\1012", b"A2"), (rb"\400", b"400"), (rb"\12", b"12"),
        (rb"\8", b"8"), (rb"\\n", rb"\n"), (rb"x\:y\,", b"x:y,"), (b"a\\", b"a"), (b"\\\xff", b"\xff"), (b"", b""),
    ],
)  # fmt: skip
def test_escapes(field: bytes, bytes_: bytes) -> None:
    assert unescape(field) == bytes_


PROBLEMS = [
    (b":x", 1, 1, "the selector ':x' is not known"),
    (b"\n  :", 2, 3, "the selector ':' is not known"),
    (b" ka:b:c:1x", 1, 9, "databytes is '1x', which is no number"),
    (b"da:b:: 1", 1, 7, "databytes is ' 1', which is no number"),
    (b"da:b::-1", 1, 7, "databytes is '-1', which is no number"),
    ("da:b::\u0661".encode(), 1, 7, "databytes is '\u0661', which is no number"),
    (b":r\nda:b:::@\\n", 2, 8, "relayclient has a control character in it"),
    (b":r\nda:b:::x\\000", 2, 8, "relayclient has a control character in it"),
    (b"da:b::::A=1,B=\\000", 1, 13, "an assignment has a NUL in it"),
]


@pytest.mark.parametrize(("data", "line", "column", "found"), PROBLEMS)
def test_errors_name_their_place(data: bytes, line: int, column: int, found: str) -> None:
    (problem,) = parse(data).problems
    assert (problem.line, problem.column, problem.found) == (line, column, found)
    assert problem.severity is Severity.SYNTAX and problem.remedy
    assert str(problem).startswith(f"{line}:{column}: {found}: ")


WARNINGS = [
    (b"Qa:b", 1, "no rule's code"),
    (b"k[a:b", 2, "a [ without a ]"),
    (b"k*:[a][:c", 4, "a [ without a ]"),
    (b":s\nka:b:::@x", 8, "does nothing there"),
    (b"ka:b::::A=1,B,=c", 13, "'B' is no assignment"),
    (b"ka:b::::A=1,=c", 13, "'=c' is no assignment"),
    (b"ka:b::::A=1,:B=2", 13, "':B' is an odd name"),
    (b"ka:*\n&b:*", 1, "comes last"),
]


@pytest.mark.parametrize(("data", "column", "found"), WARNINGS)
def test_warnings(data: bytes, column: int, found: str) -> None:
    problem = parse(data).problems[0]
    assert problem.column == column and found in problem.found
    assert problem.severity is Severity.WARNING


def test_all_problems_are_found_in_order() -> None:
    places = [(p.line, p.column) for p in parse(b"&a:*\n:q\nka:[b:x:5x:\\001\n\nQ\n").problems]
    assert places == [(1, 1), (2, 1), (3, 4), (3, 9), (3, 12), (5, 1)]


@given(st.binary(max_size=60))
def test_reading_never_raises(data: bytes) -> None:
    assert isinstance(parse(data), Ruleset)
    assert isinstance(parse(b":s\nk" + data), Ruleset)


# -- printing --------------------------------------------------------------------------------------------------

_SPECIAL = [b"a", b"@", b":", b",", b"\\", b"\n", b" ", b"\t", b"\xc3\xa9", b"\xff", b"*", b"[a]", b"n", b"1"]
_BYTES = st.lists(st.sampled_from(_SPECIAL), max_size=6).map(b"".join)
_STRINGS = _BYTES.map(lambda data: data.decode("utf-8", "surrogateescape"))
_TARGETS = st.one_of(
    st.builds(Glob, _BYTES.filter(lambda text: not text.startswith(b"!"))),
    st.builds(ListReference, _BYTES.filter(lambda name: name and not name.startswith(b"@")), st.booleans()),
)
_PATTERNS = st.builds(Pattern, _TARGETS, st.booleans())
_NAMES = st.text("AB_: ,\\", min_size=1, max_size=4)
_RULES = st.builds(
    Rule,
    st.sampled_from(Code),
    _PATTERNS,
    _PATTERNS,
    _STRINGS,
    st.integers(0, 10**19 - 1),
    _STRINGS.filter(str.isprintable),
    st.lists(st.tuples(_NAMES, _STRINGS), max_size=3).map(tuple),
)


@given(st.lists(_RULES, max_size=4), st.lists(_RULES, max_size=4))
def test_what_is_printed_is_read_as_it_was(senders: list[Rule], recipients: list[Rule]) -> None:
    rules = parse(print_rules(senders, recipients))
    for found, printed in zip((rules.senders, rules.recipients), (senders, recipients), strict=True):
        assert [_fields(rule) for rule in found] == [_fields(rule) for rule in printed]
    assert all(problem.severity is Severity.WARNING for problem in rules.problems)


def _fields(rule: Rule) -> list[object]:
    return [getattr(rule, name) for name in rule.__match_args__ if name != "line"]


# -- which rules apply -----------------------------------------------------------------------------------------


def texts(rules: str, address: str, **lists: frozenset[bytes]) -> str:
    """The texts of the rules for senders that apply."""
    found = decide(
        parse(f":s\n{rules}".encode()).senders,
        Address(address),
        None,
        {name.encode(): entries for name, entries in lists.items()},
    )
    return " ".join(rule.text for rule in found)


@pytest.mark.parametrize(
    ("rules", "address", "applied"),
    [
        ("ka:*:1\nk*:*:2", "a", "1"), ("ka:*:1\nk*:*:2", "b", "2"), ("ka:*:1", "b", ""), ("kA@B:*:1", "a@b", "1"),
        ("ka@b:*:1", "A@B", "1"), ("k:*:1", "", "1"), ("k:*:1", "a", ""), ("k!:*:1", "a", "1"), ("k!!:*:1", "", "1"),
        ("na:*:1\nnb:*:2\nn*:*:3\nka:*:4\nka:*:5", "a", "1 3 4"), ("na:*:1", "a", "1"), ("pa:*:1\nka:*:2", "a", "1"),
        ("K*:*:1\nk*:*:2", "a", "1"),
        # & binds to the rule behind it, one after the other
        ("&a*:*:1\nk*b:*:2\nk*:*:3", "ab", "1 2"), ("&a*:*:1\nk*b:*:2\nk*:*:3", "a", "3"),
        ("&a*:*:1\nk*b:*:2\nk*:*:3", "b", "3"), ("&a*:*:1\n&*b*:*:2\nk*c:*:3\nk*:*:4", "abc", "1 2 3"),
        ("&a*:*:1\n&*b*:*:2\nk*c:*:3\nk*:*:4", "bc", "4"), ("&a*:*:1\n&*b*:*:2\nk*c:*:3\nk*:*:4", "ac", "4"),
        ("&a*:*:1\n&*b*:*:2\nk*c:*:3\nk*:*:4", "ab", "4"), ("&a:*:1\nna:*:2\nka:*:3", "a", "1 2 3"),
        ("&b:*:1\nna:*:2\nka:*:3", "a", "3"), ("&a:*:1", "a", ""),
    ],
)  # fmt: skip
def test_which_rules_apply(rules: str, address: str, applied: str) -> None:
    assert texts(rules, address) == applied


@pytest.mark.parametrize(
    ("pattern", "entries", "matching", "others"),
    [
        ("[[f]]", [b"a@x"], ["a@x", "A@X"], ["b@x", "a", "x", "@x", ""]),
        ("[[f]]", [b"@x"], ["a@x", "A@X", "@x", "b@c@x"], ["x", "a@y", "a@x@y", ""]),
        ("[[f]]", [b"x"], ["x"], ["a@x", "@x"]),
        ("[[f]]", [b"@"], ["a@", "@"], ["a", ""]),
        ("[[@f]]", [b"x"], ["a@x", "@x", "b@c@X"], ["x", "a@y", "a@sub.x"]),
        ("[[@f]]", [b"@x", b"a@x"], [], ["a@x", "x", "@x"]),
        ("![[@f]]", [b"x"], ["a@y", "x", ""], ["a@x"]),
        ("!![[f]]", [b"a@x"], ["a@x"], ["b@x"]),
    ],
)
def test_lists(pattern: str, entries: list[bytes], matching: list[str], others: list[str]) -> None:
    found = [address for address in matching + others if texts(f"k{pattern}:*:1", address, f=frozenset(entries))]
    assert found == matching


def test_rules_for_recipients_compare_both() -> None:
    rules = parse(b":r\nka@x:b@y:1\nka@x:*:2\n").recipients
    tried: list[tuple[str, Outcome]] = []

    def applied(sender: str, recipient: str) -> list[str]:
        tried.clear()
        found = decide(rules, Address(sender), Address(recipient), {}, lambda r, o: tried.append((r.text, o)))
        return [rule.text for rule in found]

    assert applied("a@x", "b@y") == ["1"] and tried == [("1", Outcome.MATCHED)]
    assert applied("a@x", "c@y") == ["2"] and tried == [("1", Outcome.NOT_RECIPIENT), ("2", Outcome.MATCHED)]
    assert applied("c@x", "b@y") == [] and tried == [("1", Outcome.NOT_SENDER), ("2", Outcome.NOT_SENDER)]


def test_a_trace_tells_of_conditions_that_do_not_hold() -> None:
    tried: list[Outcome] = []
    rules = parse(b":s\n&a:*\n&*:*\nk*:*\nk*:*\n").senders
    decide(rules, Address("b"), None, {}, lambda rule, outcome: tried.append(outcome))
    assert tried == [Outcome.NOT_SENDER, Outcome.NOT_AND, Outcome.NOT_AND, Outcome.MATCHED]


@given(st.lists(_RULES, max_size=6), _STRINGS, _STRINGS)
def test_any_rules_can_be_applied(rules: list[Rule], sender: str, recipient: str) -> None:
    class Nothing(dict[bytes, frozenset[bytes]]):
        def __missing__(self, name: bytes) -> frozenset[bytes]:
            return frozenset()

    found = decide(rules, Address(sender), Address(recipient), Nothing())
    assert all(rule.code in (Code.NEXT, Code.AND) for rule in found[:-1])
    assert not found or found[-1].code is not Code.AND
