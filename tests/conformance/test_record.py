"""What is recorded is what would be recorded now: the recorder works, and no file was changed by hand."""

from pathlib import Path

import pytest

from tests.conformance.record import rewrite
from tests.conformance.session_file import SESSIONS


@pytest.mark.parametrize("name", sorted(path.name for path in SESSIONS.iterdir()))
def test_recorded_anew_it_is_the_same(name: str, certificate: Path) -> None:
    text = (SESSIONS / name).read_text(encoding="latin-1")
    assert rewrite(text, certificate) == text
