"""The reference pages of the plugins are what their classes declare now."""

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = DOCS / "generate_plugin_pages.py"


def test_the_committed_pages_are_current() -> None:
    run = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, timeout=90)
    assert (run.returncode, run.stdout) == (0, ""), f"run python docs/{SCRIPT.name}"


def test_every_plugin_has_a_page() -> None:
    from mailfront_io.registry import plugin_names

    assert sorted(path.stem for path in (DOCS / "plugin").glob("*.md")) == plugin_names()
