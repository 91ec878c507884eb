"""``mailfront plugins``: what plugins there are, what each does, and a start for one of your own."""

import argparse
import keyword
import re
import sys
from pathlib import Path
from typing import NoReturn

from mailfront_io.calling import HOOK_SECONDS, PLUGIN_HOOKS
from mailfront_io.plugin import Hooks, Kind, Plugin
from mailfront_io.registry import CannotLoad, installed_plugins, load_plugin, plugin_names

EX_REFUSED = 1
EX_USAGE = 64

DESCRIPTION = "Lists the plugins, tells of one, or writes the start of a new one."

EPILOG = """\
mailfront plugins                  every plugin, and what it does
mailfront plugins NAME             one of them: its hooks and its settings; NAME may be module:Class
mailfront plugins new NAME         writes NAME.py, a plugin that works, and test_NAME.py, its test, into this directory

For instance:

  mailfront plugins counters
  mailfront plugins new greylist
  python -m pytest test_greylist.py
  PYTHONPATH=. mailfront serve smtp discard greylist:Greylist accept

Exit code: 0 done, 1 there is no such plugin, or a file is there already, 64 wrong usage.
"""

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*\Z", re.ASCII)

_IMPORTED = ("Front", "Kind", "Path", "Plugin", "Response", "Setting")
"""Names in the files that are written."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see mailfront plugins --help")


class UsageError(Exception):
    """Arguments that make no sense: one sentence with the remedy."""


class CannotWrite(Exception):
    """A file that is not written: one sentence."""


def main(words: list[str]) -> int:
    """``mailfront plugins``; returns the exit code."""
    parser = _Parser(
        prog="mailfront plugins",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the plugin to tell of; or new")
    parser.add_argument("new_name", nargs="?", metavar="NAME", help="behind new: the name of the new plugin")
    try:
        arguments = parser.parse_args(words)
        if arguments.name is None:
            sys.stdout.write(listing())
        elif arguments.name == "new":
            if arguments.new_name is None:
                raise UsageError("write mailfront plugins new NAME")
            sys.stdout.write(write_new(arguments.new_name, Path()))
        elif arguments.new_name is not None:
            raise UsageError("write mailfront plugins NAME, or mailfront plugins new NAME")
        else:
            sys.stdout.write(description(load_plugin(arguments.name)))
    except UsageError as error:
        sys.stderr.write(f"mailfront plugins: {error}\n")
        return EX_USAGE
    except (CannotLoad, CannotWrite) as error:
        text = error.with_remedy if isinstance(error, CannotLoad) else str(error)
        sys.stderr.write(f"mailfront plugins: {text}\n")
        return EX_REFUSED
    return 0


# -- what there is -------------------------------------------------------------------------------------------


def listing() -> str:
    """Every plugin that is built in, and those that other packages have installed, a line each."""
    lines = [_line(name) for name in plugin_names()]
    installed = installed_plugins()
    if installed:
        lines += ["", "Of other packages:", *map(_line, installed)]
    return "\n".join([*lines, "", "mailfront plugins NAME tells more of one.", ""])


def _line(name: str) -> str:
    try:
        text = first_sentence(load_plugin(name))
    except CannotLoad as error:
        text = f"cannot be loaded: {error.cause}"
    return f"{name:17}  {text}"


def paragraphs(kind: type[Hooks]) -> list[str]:
    """What the class says of itself, each paragraph a line, without Python's marks."""
    text = (kind.__doc__ or "").strip()
    return [" ".join(part.split()).replace("``", "`") for part in text.split("\n\n")] if text else []


def first_sentence(kind: type[Hooks]) -> str:
    """The first sentence of that, for lists."""
    text = (paragraphs(kind) or [""])[0].replace("`", "")
    return re.split(r"(?<=\w\.)\s", text)[0]


def hooks_of(kind: type[Hooks]) -> list[str]:
    """The hooks that a class has, in the order of a session."""
    return [name for name in (*PLUGIN_HOOKS, "disconnect") if hasattr(kind, name)]


def description(kind: type[Plugin]) -> str:
    """All that a class declares of itself."""
    lines = [f"{kind.name or kind.__name__}", ""]
    for paragraph in paragraphs(kind):
        lines += [*_wrapped(paragraph.replace("`", "")), ""]
    lines.append(f"Hooks: {', '.join(hooks_of(kind)) or 'none'}")
    if kind.spools:
        lines.append("Keeps the whole message until its end.")
    if kind.one_shot:
        lines.append("Only for programs that tcpserver and its like start for each connection.")
    lines += ["", "Settings:" if kind.settings else "No settings."]
    for setting in kind.settings:
        usual = setting.default or ("off" if setting.kind is Kind.FLAG else "unset")
        needed = ", must be set" if setting.required else ""
        lines.append(f"  ${setting.variable} ({setting.kind.value}{needed}; default: {usual})")
        lines += _wrapped(setting.doc, "      ")
    lines += [
        "",
        f"Where it is listed: {kind.name or 'NAME'},deadline=SECONDS for what a hook may take ({HOOK_SECONDS:.0f}),",
        "failure=pass to let mail through where a hook fails, failure=defer (the default) to answer 451.",
        "",
    ]
    return "\n".join(lines)


def _wrapped(text: str, indent: str = "") -> list[str]:
    import textwrap

    return textwrap.wrap(text, 78, initial_indent=indent, subsequent_indent=indent)


# -- a new one -----------------------------------------------------------------------------------------------


def write_new(name: str, directory: Path) -> str:
    """Write the start of the plugin `name` and its test; what to do next. Raises `UsageError` and `CannotWrite`."""
    if not _NAME.match(name) or len(name) > 40:
        raise UsageError(f"{name!r} is no name for a plugin: write small letters, digits and hyphens, greylist for one")
    module = name.replace("-", "_")
    if module in sys.stdlib_module_names or module in ("mailfront_io", "mailfront_proto", "new"):
        raise UsageError(f"{name!r} is the name of a module already: choose another")
    class_name = "".join(part.capitalize() for part in module.split("_"))
    if keyword.iskeyword(module) or class_name in _IMPORTED:
        raise UsageError(f"{name!r} is a word of Python, or a name that the plugin imports: choose another")
    words = {
        "NAME": name.replace("_", "-"),
        "MODULE": module,
        "CLASS": class_name,
        "SETTING": f"{module.upper()}_DOMAINS",
    }
    texts = {f"{module}.py": _PLUGIN, f"test_{module}.py": _TEST}
    for file_name in texts:
        if (directory / file_name).exists():
            raise CannotWrite(f"{file_name} is there already: choose another name, or take it away")
    for file_name, text in texts.items():
        for word, value in words.items():
            text = text.replace(f"<{word}>", value)
        try:
            with (directory / file_name).open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise CannotWrite(f"{file_name}: {error.strerror}") from None
    return (
        f"Written: {', '.join(texts)}\n\n"
        f"  python -m pytest test_{module}.py\n"
        f"  PYTHONPATH=. mailfront serve smtp discard {module}:{words['CLASS']} accept\n"
    )


_PLUGIN = '''"""<NAME>: refuses senders of some domains."""

from mailfront_io.plugin import Kind, Plugin, Response, Setting
from mailfront_io.session import Path, fold


class <CLASS>(Plugin):
    """Refuses senders of the domains in `$<SETTING>`; says nothing of others."""

    name = "<NAME>"
    settings = (Setting("<SETTING>", Kind.LIST, "the domains that no sender may have", "none"),)

    def sender(self, path: Path) -> Response | None:
        """A refusal, or None for no opinion. A hook that has to wait is an ``async def`` and awaits operations."""
        domains = fold(self.session.getenv("<SETTING>") or "").split(":")
        if path.domain and fold(path.domain) in domains:
            return Response(550, f"5.7.1 {path.domain} is not welcome here")
        return None
'''

_TEST = '''"""<NAME>, tested: a whole session against a script, without a socket and without waiting."""

from <MODULE> import <CLASS>

from mailfront_io.testing import Front

SETTINGS = {"<SETTING>": "spam.example:junk.example"}


def answer(sender: str) -> bytes:
    """What a client hears that sends from `sender`."""
    front = Front(<CLASS>, "accept", settings=SETTINGS)
    output = front.say(b"EHLO me\\r\\n", f"MAIL FROM:<{sender}>\\r\\n".encode())
    assert front.faults == []
    return output.splitlines()[-1]


def test_senders_of_the_domains_are_refused() -> None:
    assert answer("a@spam.example") == b"550 5.7.1 spam.example is not welcome here"
    assert answer("a@JUNK.example") == b"550 5.7.1 JUNK.example is not welcome here"


def test_others_are_not() -> None:
    assert answer("a@good.example") == b"250 2.1.0 Sender accepted."
    assert answer("") == b"250 2.1.0 Sender accepted."
'''
