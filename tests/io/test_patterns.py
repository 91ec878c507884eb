"""The plugin patterns: a naive model line by line, any cutting of the message, and the file."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailfront_io.ops import Connection
from mailfront_io.plugins.patterns import LARGEST_LINE_MAX, Patterns
from mailfront_io.rules.glob import Glob
from mailfront_io.session import Session
from mailfront_io.testing import VirtualClock
from tests.front import ENVELOPE, Front

DATA = ENVELOPE + b"DATA\r\n"
USUAL = "This message contains prohibited content"


def plugin(patterns: bytes, directory: Path, **env: str) -> Patterns:
    """The plugin with a file of patterns, at the start of a message."""
    (directory / "patterns").write_bytes(patterns)
    environment = {"PATTERNS": str(directory / "patterns"), **env}
    made = Patterns(Session(Connection(VirtualClock()), environment, lambda line: None))
    start(made)
    return made


def start(made: Patterns) -> None:
    """DATA: what is awaited is done here."""
    coroutine: Any = made.data_start(None)
    if coroutine is not None:
        operation = coroutine.send(None)
        with pytest.raises(StopIteration):
            coroutine.send(operation.function(*operation.arguments))


def verdict(made: Patterns, blocks: Iterable[bytes]) -> str | None:
    """The text of the refusal of a message in these slices, or None."""
    for block in blocks:
        response = made.data_block(block)
        if response is not None:
            return response.text
    response = made.message_end(None)
    return response.text if response is not None else None


def naive(patterns: bytes, message: bytes, line_max: int) -> str | None:
    """What the file says of the message, line by line."""
    rules = []
    text = USUAL
    for line in patterns.split(b"\n"):
        line = line.rstrip()
        if line.startswith(b"="):
            text = line[1:].decode()
        elif line and not line.startswith(b"#"):
            rules.append((line[:1], Glob(line[1:]), text))
    in_header, behind_blank = True, False
    for line in message.removesuffix(b"\n").split(b"\n"):
        if not line:
            in_header, behind_blank = False, True
            continue
        for kind, glob, text in rules:
            if (kind == b":" and not in_header) or (kind == b"\\" and not behind_blank):
                continue
            if glob.matches(line[:line_max]):
                return text
        behind_blank = False
    return None


_GLOBS = st.lists(st.sampled_from([b"a", b"b", b"*", b"*", b"?", b"[ab]", b"[!a]", b"c"]), max_size=5).map(b"".join)
_FILES = st.lists(
    st.one_of(
        st.builds(bytes.__add__, st.sampled_from([b":", b"\\", b"/", b" "]), _GLOBS),
        st.sampled_from([b"=One", b"=Two", b"# a", b"", b"=two words"]),
    ),
    max_size=7,
).map(b"\n".join)
_LINES = st.sampled_from([b"a", b"b", b"ab", b"", b"", b"cab", b"aaaaaaaa", b"c" * 9, b"bca"])
_MESSAGES = st.lists(_LINES, max_size=9).map(lambda lines: b"".join(line + b"\n" for line in lines))
_SETTINGS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def cut(message: bytes, places: list[int]) -> Iterator[bytes]:
    """The message, cut at these places."""
    ends = sorted({min(place, len(message)) for place in places} | {len(message)})
    begin = 0
    for end in ends:
        if end > begin:
            yield message[begin:end]
        begin = end


@_SETTINGS
@given(_FILES, _MESSAGES, st.lists(st.integers(0, 60), max_size=6), st.sampled_from([1, 2, 3, 8, 256]))
def test_any_cutting_gives_what_a_naive_model_says(
    tmp_path: Path, patterns: bytes, message: bytes, places: list[int], line_max: int
) -> None:
    made = plugin(patterns, tmp_path, PATTERNS_LINEMAX=str(line_max))
    expected = naive(patterns, message, line_max)
    assert verdict(made, cut(message, places)) == expected
    start(made)
    assert verdict(made, (message[i : i + 1] for i in range(len(message)))) == expected


@pytest.mark.parametrize("length", [255, 256, 257, 258, 1000])
@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 600, 5000])
def test_a_line_is_cut_where_the_setting_says(tmp_path: Path, length: int, size: int) -> None:
    for patterns, line, refused in (
        (b"/" + b"a" * 256, b"a" * length, length >= 256),
        (b"/*b", b"a" * (length - 1) + b"b", length <= 256),
        (b"/b*", b"a" * length + b"b", False),
    ):
        made = plugin(patterns, tmp_path)
        message = b"x\n" + line + b"\ny\n"
        blocks = (message[i : i + size] for i in range(0, len(message), size))
        assert (verdict(made, blocks) is not None) == refused, patterns


@pytest.mark.parametrize(
    ("value", "line_max"),
    [("400", 400), ("0", 256), ("", 256), ("x", 256), ("-1", 256), ("1", 1), ("9" * 19, LARGEST_LINE_MAX)],
)
def test_line_max(tmp_path: Path, value: str, line_max: int) -> None:
    for length in (line_max, line_max + 1):
        made = plugin(b"/*b", tmp_path, PATTERNS_LINEMAX=value)
        assert (verdict(made, [b"a" * (length - 1) + b"b\n"]) is not None) == (length == line_max)


def test_state_ends_with_the_message(tmp_path: Path) -> None:
    """Neither the blank line at its end nor its header lasts."""
    made = plugin(b"=blank\n\\x*\n=header\n:h*\n", tmp_path)
    expected = [(b"a\n\nb\n\n", None), (b"x\n", None), (b"h\n", "header"), (b"a\n\nx", "blank"), (b"h\n", "header")]
    for message, text in expected:
        start(made)
        assert verdict(made, [message]) == text


def test_a_last_line_without_an_end(tmp_path: Path) -> None:
    assert verdict(plugin(b"/x*", tmp_path), [b"a\nxy"]) == USUAL
    assert verdict(plugin(b"/x*", tmp_path), [b"a\n", b"x", b"y"]) == USUAL
    compat = plugin(b"/x*", tmp_path)
    compat.session.profile = Front(env={"MAILFRONT_PROFILE": "compat"}).service.profile
    assert verdict(compat, [b"a\nxy"]) is None  # as in the original


@_SETTINGS
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_file_and_any_message_will_do(tmp_path: Path, patterns: bytes, message: bytes) -> None:
    verdict(plugin(patterns, tmp_path), [message])


# -- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "env", "text"),
    [
        (b"/x", {}, USUAL), (b"=Text\n/x", {}, "Text"), (b"/x\n=Text\n", {}, USUAL),
        (b"=One\n=Two \t\r\n/x\r\n", {}, "Two"),
        (b"/x", {"PATTERNS_RESP": "Mine"}, "Mine"), (b"/x", {"PATTERNS_RESP": ""}, USUAL),
        (b"=Text\n/x", {"PATTERNS_RESP": "Mine"}, "Text"), (b"=\n/x", {}, ""), (b"= blank\n/x", {}, " blank"),
        (b"=a\\nb\n/x", {}, "a\\nb"), (b"=\xc3\xa9\xff\n/x", {}, "\u00e9\udcff"), (b"  /x", {}, None),
        (b" x", {}, USUAL),
        (b"#x\n", {}, None), (b"", {}, None), (b"/X", {}, None), (b"/y\n/x", {}, USUAL), (b"=a\x01\n/x", {}, "a?"),
    ],
)  # fmt: skip
def test_files(tmp_path: Path, patterns: bytes, env: dict[str, str], text: str | None) -> None:
    assert verdict(plugin(patterns, tmp_path, **env), [b"x\n"]) == text


def test_a_refusal_without_a_text(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"=\n/x\n")
    front = Front("patterns", "accept", env={"PATTERNS": str(tmp_path / "p"), "MAILFRONT_PROFILE": "compat"})
    assert front.say(DATA, b"x\r\n.\r\n").endswith(b"\r\n554 \r\n")


@pytest.mark.parametrize(("name", "cause"), [("none", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_a_warning(tmp_path: Path, name: str, cause: str) -> None:
    path = str(tmp_path / name)
    front = Front("patterns", "accept", env={"PATTERNS": path})
    assert b"\r\n250 2.6.0" in front.say(DATA, b"x\r\n.\r\n")
    assert f"Warning: Could not read patterns file '{path}': {cause}" in front.log


def test_the_file_is_read_at_data(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"/x\n")
    front = Front("patterns", "accept", env={"PATTERNS": str(tmp_path / "p")})
    assert USUAL.encode() in front.say(DATA, b"x\r\n.\r\n")
    (tmp_path / "p").write_bytes(b"/y\n")
    assert b"\r\n250 2.6.0" in front.say(DATA, b"x\r\n.\r\n")


def test_without_a_file_nothing_is_searched() -> None:
    assert b"\r\n250 2.6.0" in Front("patterns", "accept").say(DATA, b"x\r\n.\r\n")


def test_lines_that_plugins_add_are_not_searched(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"/Received*\n\\a\n")
    front = Front("patterns", "add-received", "accept", env={"PATTERNS": str(tmp_path / "p")})
    assert b"\r\n250 2.6.0" in front.say(DATA, b"a\r\n.\r\n")


def test_rules_choose_the_patterns_for_a_message(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"/x\n")
    (tmp_path / "rules").write_text(f":s\nna@*:*::::PATTERNS={tmp_path}/p\n")
    front = Front("mailrules", "patterns", "accept", env={"MAILRULES": str(tmp_path / "rules")})
    first, second = DATA + b"x\r\n.\r\n", DATA.replace(b"<a@", b"<b@") + b"x\r\n.\r\n"
    refused, taken = front.say(first + second).split(b"\r\n354 ")[1:]
    assert b"\r\n554 " in refused and b"\r\n250 2.6.0" in taken
