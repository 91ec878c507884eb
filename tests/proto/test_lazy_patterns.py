"""Patterns that are compiled later: what `re.compile` gives, once they are used."""

import re
import subprocess
import sys

import pytest

from mailfront_proto.lazy_patterns import compile_later

WITHOUT = """
import re._compiler, sys
compile = re._compiler.compile
def counted(pattern, flags=0):
    sys.stdout.write(repr(pattern) + "\\n")
    return compile(pattern, flags)
re._compiler.compile = counted
from mailfront_proto.smtp.server import SMTPServer
from mailfront_proto.qmtp.server import QMTPServer
from mailfront_proto.pop3.server import POP3Server
from mailfront_proto.imap.server import IMAPServer
"""


def test_it_is_the_pattern() -> None:
    later = compile_later(rb"([a-z]+)=", re.IGNORECASE)
    match = later.match(b"Name=")
    assert match is not None and match[1] == b"Name"
    assert later.match is later.match
    assert later.sub(b"x", b"A=b=") == b"xx"
    assert (later.pattern, later.groups) == (rb"([a-z]+)=", 1)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        later.nothing_of_the_kind  # type: ignore[attr-defined]  # noqa: B018


def test_a_pattern_that_is_none_is_told_when_it_is_used() -> None:
    later = compile_later("(")
    with pytest.raises(re.error):
        later.match("x")


def test_no_pattern_is_compiled_by_importing_the_machines() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
