"""The pages that are printed by a script are what the script prints now."""

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

PAGES = {
    "draw_pop3_states.py": "pop3-states.md",
    "draw_states.py": "smtp-states.md",
    "generate_configuration_file.py": "configuration-file.md",
    "generate_imap_reference.py": "imap-reference.md",
    "generate_metrics.py": "metrics.md",
    "generate_pop3_reference.py": "pop3-reference.md",
    "generate_qmtp_qmqp_reference.py": "qmtp-qmqp-reference.md",
    "generate_security_rows.py": "security-rows.md",
    "generate_settings.py": "configuration.md",
    "generate_smtp_reference.py": "smtp-reference.md",
}


@pytest.mark.parametrize("script", PAGES)
def test_the_committed_page_is_current(script: str) -> None:
    printed = subprocess.run(
        [sys.executable, str(DOCS / script), "--print"], capture_output=True, text=True, encoding="utf-8", check=True
    )
    page = (DOCS / PAGES[script]).read_text(encoding="utf-8")
    assert printed.stdout == page, f"docs/{PAGES[script]} is not current: run python docs/{script}"
