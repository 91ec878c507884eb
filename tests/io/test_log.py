"""The line log: one write a line, nothing unescaped."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.log import MAX_LINE, line_log


def written(text: str, compat: bool, program: str = "mailfront") -> bytes:
    """What a log has after `text`, without program and process."""
    reading, writing = os.pipe()
    try:
        line_log(program, compat, writing)(text)
        line = os.read(reading, 65536)
    finally:
        os.close(reading)
        os.close(writing)
    head = f"{program}[{os.getpid()}]: ".encode()
    assert line.startswith(head) and line.endswith(b"\n")
    return line.removeprefix(head).removesuffix(b"\n")


@pytest.mark.parametrize(
    ("text", "default", "compat"),
    [
        ("MAIL FROM:<a@b>", "MAIL FROM:<a@b>", "MAIL FROM:<a@b>"),
        ("", "", ""),
        ("a\nb\rc\0d\x1b[2Je\x7ff", r"a\nb\rc\x00d\x1b[2Je\x7ff", "a?b?c?d?[2Je?f"),
        ("tab\there", r"tab\there", "tab\there"),
        ("a\\nb", r"a\\nb", "a\\nb"),
        ("jörg", "jörg", "jörg"),
        ("\x85\x9b", r"\x85\x9b", "??"),
        ("\u202e\u2028", r"\u202e\u2028", "\u202e\u2028"),
        ("\ud800\udfff", r"\ud800\udfff", "??"),
        ("\udc9b", r"\udc9b", "?"),
    ],
)
def test_escapes(text: str, default: str, compat: str) -> None:
    assert written(text, False).decode() == default
    assert written(text, True).decode() == compat


def test_bytes_that_are_no_utf8_stay_bytes_in_compat_only() -> None:
    assert written("\udcff\udce4", True) == b"\xff\xe4"
    assert written("\udcff\udce4", False) == rb"\udcff\udce4"


@given(st.text(max_size=200), st.booleans())
def test_any_text_is_one_line_without_control_bytes(text: str, compat: bool) -> None:
    line = written(text, compat)
    assert not set(line) & {*range(9), *range(10, 32), 127}
    if not compat:
        assert line.decode().isprintable()


def test_a_line_is_cut_in_the_default_profile() -> None:
    assert written("x" * 5000, False).decode() == "x" * MAX_LINE + "…"
    assert len(written("\x01" * 5000, False).decode()) == MAX_LINE + 1
    assert written("x" * 5000, True) == b"x" * 5000


def test_a_log_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    line_log("mailfront", False, writing)("lost")
    os.close(writing)
    line_log("mailfront", False, writing)("lost too")
