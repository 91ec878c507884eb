"""Filtering by what a client says: H93 (the time it takes), and H57, H59 for rules and lists."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailfront_io.ops import Connection
from mailfront_io.plugins.patterns import Patterns, parse_patterns
from mailfront_io.rules.decision import Address, decide
from mailfront_io.rules.glob import Glob
from mailfront_io.rules.language import parse
from mailfront_io.session import Session
from mailfront_io.testing import VirtualClock
from mailfront_proto.smtp.addresses import ORIGINAL, AddressError, parse_path
from mailfront_proto.smtp.profile import DEFAULT
from tests.front import Front, codes
from tests.io.test_mailrules import cdb

CPU_SECONDS = 5.0
"""What linear work on `MEBIBYTE` takes a tenth of; quadratic work takes hours."""

MEBIBYTE = 1 << 20


def check_linear(call: Callable[[], object]) -> None:
    began = time.process_time()
    call()
    assert time.process_time() - began < CPU_SECONDS


# -- H93: time -----------------------------------------------------------------------------------------------

PATTERNS = [
    b"*a*a*a*a*a*a*a*a*b", b"*?*?*?*?*?*b", b"?*?*?*?*b", b"*[ab]*[ab]*[ab]*[!a]", b"a*a*a*a*ab", b"*aa*aa*aa*b",
    b"*b*", b"*" * 50 + b"b", b"[!b]*[!b]*[!b]*b", b"*" + b"a" * 60 + b"b*", b"*[a-z]*?[!a]", b"a" * 60 + b"*b",
    b"*@*@*@*@",
]  # fmt: skip
TEXTS = [b"a" * MEBIBYTE, b"ab" * (MEBIBYTE // 2), b"@" * MEBIBYTE, b"a" * (MEBIBYTE - 1) + b"b"]


@pytest.mark.parametrize("pattern", PATTERNS, ids=range(len(PATTERNS)))
def test_h93_globs_are_linear_in_the_text(pattern: bytes) -> None:
    for text in TEXTS:
        check_linear(lambda: Glob(pattern).matches(text))  # noqa: B023 - called at once


def test_h93_rules_are_linear_in_the_address() -> None:
    rules = parse(b":s\n" + b"".join(b"n%s:*\n" % pattern for pattern in PATTERNS) + b"n[[l]]:*\nn[[@l]]:*\n").senders
    for text in TEXTS:
        address = text.decode()
        check_linear(lambda: decide(rules[:4] + rules[-2:], Address(address), None, {b"l": frozenset()}))  # noqa: B023


@pytest.mark.parametrize("piece", [64 * 1024, 1000, 7, 1])
@pytest.mark.parametrize("line", [b"a", b"a\n", b"\n", b"ab: "])
def test_h93_patterns_are_linear_in_the_message(line: bytes, piece: int) -> None:
    """However the message is cut; and what is kept of it is no more than a line's worth."""
    text = line * ((MEBIBYTE if piece >= 1000 else MEBIBYTE // 8) // len(line))
    fitting = (pattern for pattern in PATTERNS if b"[!" not in pattern and pattern != b"*b*")
    patterns = parse_patterns(b"".join(b"/%s\n:%s\n\\%s\n" % (pattern, pattern, pattern) for pattern in fitting))
    plugin = Patterns(Session(Connection(VirtualClock()), {"PATTERNS": "/nonexistent"}, lambda line: None))
    reading = plugin.data_start(None)
    assert reading is not None
    reading.close()
    plugin._patterns = patterns

    def search() -> None:
        for start in range(0, len(text), piece):
            plugin.data_block(text[start : start + piece])
            assert len(plugin._rest) <= 256

    check_linear(search)


ADDRESSES = [
    b'"', b"\\", b"<", b">", b"@", b"@a,", b"@a:", b"a.", b"(", b'"\\', b"[", b"[1.", b"\xff", b" ", b"a", b"a@",
    b'"a"', b"..",
]  # fmt: skip
FORMS = [b"FROM:<%s>", b"FROM:<%s", b"FROM:%s", b"%s", b'FROM:<"%s"@x>', b"FROM:<@a:%s>", b"FROM:<a@%s>"]


@pytest.mark.parametrize("piece", ADDRESSES)
@pytest.mark.parametrize("form", FORMS)
def test_h93_address_parsing_is_linear(piece: bytes, form: bytes) -> None:
    argument = form % (piece * (MEBIBYTE // 8 // len(piece)))

    def read() -> None:
        for syntax in (DEFAULT.addresses, ORIGINAL):
            try:
                parse_path(argument, b"FROM", syntax)
            except AddressError:
                pass

    check_linear(read)


# -- H57, H59: what is looked up is data ---------------------------------------------------------------------

TRICKY = [
    "../control/secret@x", "a@../secret", "/etc/passwd", "a@/etc/passwd", "[[secret]]", "[[@secret]]@x", "*",
    "*@one.example", "a@*", "?@one.example", "[a]@one.example", "!b@x", "$(id)@x", "`id`@x", "a|b@x", "%s%n@x",
    "${IFS}@x", "a;b@x", "#@x", "a@secret.cdb", "secret", "k*:*", ":sender", "\\052@x", "\u00e9@x",
]  # fmt: skip


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all files that are opened or looked at."""
    paths: list[str] = []
    for name in ("open", "stat"):
        real = getattr(os, name)

        def watched(path: Any, *arguments: Any, real: Any = real, **keywords: Any) -> Any:
            paths.append(os.fsdecode(path) if isinstance(path, str | bytes) else repr(path))
            return real(path, *arguments, **keywords)

        monkeypatch.setattr(os, name, watched)
    return paths


@pytest.mark.parametrize("address", TRICKY)
def test_h59_no_lookup_of_rules_leaves_its_files(address: str, tmp_path: Path, opened: list[str]) -> None:
    (tmp_path / "list").write_text("a@one.example\n@two.example\n*@x\n")
    (tmp_path / "l.cdb").write_bytes(cdb(b"a@one.example"))
    lists = [f"[[{at}{tmp_path}/{name}]]" for at in ("", "@") for name in ("list", "l.cdb")]
    senders, recipients = "".join(f"d{name}:*\n" for name in lists), "".join(f"d*:{name}\n" for name in lists)
    (tmp_path / "rules").write_text(f":s\n{senders}:r\n{recipients}")
    front = Front("mailrules", "accept", env={"MAILRULES": str(tmp_path / "rules"), "MAILFRONT_PROFILE": "compat"})
    quoted = address.replace("\\", "\\\\")
    output = front.say(f"MAIL FROM:<{quoted}>\r\nRCPT TO:<{quoted}>\r\n".encode())
    assert codes(output)[1:] == [250, 250]
    assert {os.path.basename(path) for path in opened if path.startswith(str(tmp_path))} == {"rules", "list", "l.cdb"}
    assert not any("secret" in path or "passwd" in path for path in opened)


@pytest.mark.parametrize("address", TRICKY)
def test_h59_no_lookup_of_qmail_validate_leaves_its_files(address: str, tmp_path: Path, opened: list[str]) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "secret").write_text(address)
    (tmp_path / "control" / "rcpthosts").write_text("one.example\n*\n")
    (tmp_path / "control" / "morercpthosts.cdb").write_bytes(cdb(b"two.example"))
    front = Front("qmail-validate", env={"QMAILHOME": str(tmp_path), "MAILFRONT_PROFILE": "compat"})
    quoted = address.replace("\\", "\\\\")
    output = front.say(f"MAIL FROM:<s@x>\r\nRCPT TO:<{quoted}>\r\n".encode())
    accepted = address.endswith("@one.example") or address.endswith("@*")  # an entry as it is, and no pattern
    assert codes(output)[1:] == [250, 250 if accepted else 550]
    assert not any("secret" in path or "passwd" in path for path in opened)


@pytest.mark.parametrize("address", TRICKY)
def test_h57_an_address_is_no_pattern(address: str) -> None:
    rules = parse(b":s\nka@one.example:*\nkb@x:*\nka@x:*\n").senders
    assert decide(rules, Address(address), None, {}) == []
