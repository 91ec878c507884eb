"""Prints a page for each plugin from what its class declares: ``python docs/generate_plugin_pages.py`` writes
``docs/plugin/NAME.md`` and ``docs/plugin-reference.md``; with ``--check`` it says which of them are not current.
"""

import sys
from pathlib import Path

from mailfront_io.plugin import Kind, Plugin
from mailfront_io.plugins_command import first_sentence, hooks_of, paragraphs
from mailfront_io.registry import load_plugin, plugin_names

DOCS = Path(__file__).parent

INDEX = """\
# Plugin reference

Every plugin that comes with mailfront has a page. The pages are printed from the code by
`docs/generate_plugin_pages.py`, and a test checks that they are current; `mailfront plugins NAME` tells the same. How
plugins are listed and written: [](plugins.md).

| plugin | what it does |
| --- | --- |
"""

TOCTREE = """
```{toctree}
:hidden:

"""


def page(name: str, kind: type[Plugin]) -> str:
    """The page of one plugin."""
    lines = [f"# {name}", ""]
    for paragraph in paragraphs(kind):
        lines += [paragraph, ""]
    if kind.one_shot:
        lines += ["Only for programs that tcpserver and its like start for each connection; servers refuse it.", ""]
    if kind.spools:
        lines += ["Whole messages are kept in a file until their end, for all plugins and the backend.", ""]
    hooks = hooks_of(kind)
    if hooks:
        lines += ["## Hooks", "", "| hook | what it does |", "| --- | --- |"]
        lines += [f"| `{hook}` | {_summary(kind, hook)} |" for hook in hooks]
        lines.append("")
    lines += ["## Settings", ""]
    if kind.settings:
        lines += ["| variable | kind | default | what it does |", "| --- | --- | --- | --- |"]
        for setting in kind.settings:
            star = " \\*" if setting.required else ""
            usual = setting.default or ("off" if setting.kind is Kind.FLAG else "unset")
            lines.append(f"| `{setting.variable}`{star} | {setting.kind.value} | {usual} | {setting.doc} |")
        if any(setting.required for setting in kind.settings):
            lines += ["", "A setting with a star must be set."]
    else:
        lines.append("None.")
    lines += ["", "## In a plugin list", "", "```text", name, f"{name},deadline=20,failure=pass", "```", ""]
    lines.append("What stands behind the commas: [](../plugins.md#when-a-check-cannot-be-made).")
    return "\n".join(lines) + "\n"


def _summary(kind: type[Plugin], hook: str) -> str:
    text = " ".join((getattr(kind, hook).__doc__ or "").split("\n\n")[0].split())
    return text.replace("``", "`").replace("|", "\\|")


def pages() -> dict[str, str]:
    """All pages, by their names below ``docs``."""
    kinds = {name: load_plugin(name) for name in plugin_names()}
    rows = [f"| [{name}](plugin/{name}.md) | {first_sentence(kind)} |\n" for name, kind in kinds.items()]
    entries = "".join(f"plugin/{name}\n" for name in kinds)
    found = {"plugin-reference.md": INDEX + "".join(rows) + TOCTREE + entries + "```\n"}
    return found | {f"plugin/{name}.md": page(name, kind) for name, kind in kinds.items()}


def main(arguments: list[str]) -> int:
    """Write the pages, or check them."""
    wanted = pages()
    paths = [DOCS / "plugin-reference.md", *(DOCS / "plugin").glob("*.md")]
    there = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in paths if path.exists()}
    stale = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if arguments == ["--check"]:
        sys.stdout.writelines(f"{name} is not current\n" for name in stale)
        return 1 if stale else 0
    (DOCS / "plugin").mkdir(exist_ok=True)
    for name in stale:
        if name in wanted:
            (DOCS / name).write_text(wanted[name], encoding="utf-8")
        else:
            (DOCS / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
