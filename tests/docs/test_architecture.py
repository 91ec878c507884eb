"""The map of the rooms is whole: every module has its line, and no line names a module that is gone."""

import re

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ONE_FILE_EACH = ("plugins", "backends")


def rooms(package: str) -> set[str]:
    """The modules that the table of `package` names; ``a/b``, ``c`` in one cell is ``a/b`` and ``a/c``."""
    section = PAGE.partition(f"### {package}\n")[2].partition("\n#")[0]
    named: set[str] = set()
    for cell in re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE):
        names = re.findall(r"`([\w/]+)`", cell)
        room = names[0].rpartition("/")[0] if not names[0].endswith("/") else ""
        named.update(name if "/" in name or not room else f"{room}/{name}" for name in names)
    return named


def modules(package: str) -> set[str]:
    source = ROOT / "src" / package
    paths = (path.relative_to(source).with_suffix("").as_posix() for path in source.rglob("*.py"))
    return {path for path in paths if not path.endswith("__init__") and path.partition("/")[0] not in ONE_FILE_EACH}


def test_every_module_of_the_pure_package_has_its_line() -> None:
    assert rooms("mailfront_proto") == modules("mailfront_proto")


def test_every_other_module_has_its_line() -> None:
    assert rooms("mailfront_io") - {f"{room}/" for room in ONE_FILE_EACH} == modules("mailfront_io")
