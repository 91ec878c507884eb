"""``mailfront config init|check|show``."""

import argparse
import os
import socket
import sys
from typing import Any, NoReturn

from mailfront_io.config.checks import dangers, load, quiet
from mailfront_io.config.keys import LOG, METRICS, SERVER, Key
from mailfront_io.config.reading import Config, Problem, WrongConfiguration, read_config
from mailfront_io.config.templates import TEMPLATES, template
from mailfront_io.plugin import Kind

EX_CONFIG = 78
DEFAULT_FILE = "mailfront.toml"

EPILOG = """\
for instance:

  mailfront config init --for mx            writes mailfront.toml, with comments
  mailfront config check                    says what is wrong with it, by line
  mailfront serve -c mailfront.toml
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence, and the exit code of a wrong configuration."""
        self.exit(EX_CONFIG, f"{self.prog}: {message}: see {self.prog} --help\n")


def main(words: list[str]) -> int:
    """``mailfront config``; returns the exit code."""
    parser = _Parser(
        prog="mailfront config",
        description="The configuration file of mailfront serve -c.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    init = commands.add_parser("init", help="write a first file, with comments")
    init.add_argument("--for", dest="purpose", choices=sorted(TEMPLATES), required=True, help="what it is to do")
    check = commands.add_parser("check", help="say what is wrong with a file, and what is dangerous")
    show = commands.add_parser("show", help="print every setting that is in force, and where it comes from")
    for command in (init, check, show):
        command.add_argument("file", nargs="?", default=DEFAULT_FILE, metavar="FILE", help=f"default: {DEFAULT_FILE}")
    arguments = parser.parse_args(words)
    if arguments.command == "init":
        return _init(arguments.purpose, arguments.file)
    try:
        config = read_config(arguments.file, os.environ)
    except WrongConfiguration as error:
        _, further = load(error.listeners, quiet)
        return _tell(error.file, [*error.problems, *further])
    return _check(config) if arguments.command == "check" else _show(config)


def _init(purpose: str, file: str) -> int:
    """An existing file is left alone."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError as error:
        sys.stderr.write(f"mailfront config: {file}: {error.strerror}: name another file\n")
        return EX_CONFIG
    with os.fdopen(descriptor, "w", encoding="utf-8") as written:
        written.write(template(purpose, file, socket.getfqdn()))
    sys.stdout.write(f"{file} is written: edit it, then: mailfront config check {file}\n")
    return 0


def _check(config: Config) -> int:
    _, problems = load(config.listeners, quiet)
    code = _tell(config.file, [*problems, *dangers(config)])
    if code == 0:
        count = len(config.listeners)
        sys.stdout.write(f"{config.file}: good, {count} listener{'s' if count > 1 else ''}\n")
    return code


def _tell(file: str, problems: list[Problem]) -> int:
    """Print the problems; the exit code: warnings alone are no error."""
    for problem in sorted(problems, key=lambda problem: problem.line):
        sys.stderr.write(f"{problem.of(file)}\n")
    return EX_CONFIG if any(not problem.warning for problem in problems) else 0


def _show(config: Config) -> int:
    """In the form of the file, so that it could be one; what is a default is behind a ``#``."""
    tables = (("server", SERVER, config.server), ("log", LOG, config.log), ("metrics", METRICS, config.metrics))
    for table, keys, values in tables:
        sys.stdout.write(f"[{table}]\n")
        for key in keys:
            _show_key(key, values[key.name], config.origins.get(f"{table}.{key.name}"))
        sys.stdout.write("\n")
    for listener in config.listeners:
        sys.stdout.write(f"[[listener]]  # line {listener.line}\nname = {_toml(listener.name)}\n")
        for name in (
            "protocol", "listen", "backend", "plugins", "program", "proxies",
            "max_connections", "max_per_client", "max_per_network",
        ):  # fmt: skip
            if listener.options[name]:
                sys.stdout.write(f"{name} = {_toml(listener.options[name])}\n")
        sys.stdout.write("[listener.settings]\n")
        for setting in listener.settings:
            value = listener.environment.get(setting.variable)
            name = setting.variable.lower()
            if value is None:
                usual = setting.default or ("false" if setting.kind is Kind.FLAG else "unset")
                sys.stdout.write(f"# {name}: {usual}\n")
            else:
                origin = listener.origins[setting.variable]
                where = origin if isinstance(origin, str) else f"line {origin}"
                sys.stdout.write(f"{name} = {_toml(_typed(setting.kind, value))}  # {where}\n")
        sys.stdout.write("\n")
    return 0


def _show_key(key: Key, value: object, line: int | None) -> None:
    if line is not None:
        sys.stdout.write(f"{key.name} = {_toml(value)}  # line {line}\n")
    else:
        sys.stdout.write(f"# {key.name}: {key.usual or ('unset' if value is None else _toml(value))}\n")


def _typed(kind: Kind, value: str) -> Any:
    if kind is Kind.FLAG:
        return True
    if kind is Kind.LIST:
        return [each for each in value.split(":") if each]
    return int(value) if kind is Kind.NUMBER and value.isascii() and value.isdigit() else value


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'
    return str(value)
