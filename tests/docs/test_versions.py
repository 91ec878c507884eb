"""What the page on versions says is public is there; the Pythons that it names are those of the package."""

import re
import tomllib
from importlib import import_module

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")


def test_public_modules_are_there() -> None:
    """A row names a module in full, and then others beside it."""
    table = PAGE.partition("Public is:\n")[2].partition("\nEverything else")[0]
    count = 0
    for row in table.splitlines():
        package = ""
        for name in re.findall(r"`([a-z_.0-9]+)`", row):
            if name.startswith("mailfront_"):
                package = name.partition(".")[0]
            elif name.startswith("__") or not package:
                continue
            import_module(name if name.startswith("mailfront_") else f"{package}.{name}")
            count += 1
    assert count >= 30


def test_pythons() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = set(re.findall(r"\b3\.1\d\b", PAGE.partition("## What a version")[0]))
    assert named == {entry.rpartition(" ")[2] for entry in project["classifiers"] if ":: 3.1" in entry}
    assert project["requires-python"] == f">={min(named)}"
