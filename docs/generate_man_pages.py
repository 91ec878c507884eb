"""Prints the man pages from the programs' own help: ``python docs/generate_man_pages.py`` writes ``docs/man/*.1``,
which the wheel installs, and ``docs/commands.md``, the same for the manual; with ``--check`` it names those that are
not current.

Options, arguments and the text below them are read off the parsers, so a page cannot say what ``--help`` does not. What
has no parser, the programs that tcpserver starts, is written here.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

MAN = Path(__file__).with_name("man")
PAGE = Path(__file__).with_name("commands.md")
DATE = "2026-11-22"
"""When what the pages say, other than options, was last gone over."""

MODULES = {
    "serve": "server",
    "send": "send",
    "config": "config.command",
    "user": "user_command",
    "rules": "rules_command",
    "plugins": "plugins_command",
    "queue": "queue_command",
}
"""The commands of ``mailfront`` that have a parser, and where it is."""

HELP = ("-h, --help", "print what there is to say, and exit")

Texts = tuple[str, ...]


@dataclass
class ManPage:
    """A page. Paragraphs are as in ``--help``: lines that begin with blanks stay as they are."""

    name: str
    summary: str
    synopsis: Texts
    description: Texts
    options: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    """Groups: a title, and each option with what it says."""
    exits: Texts = ()
    environment: Texts = ()
    examples: Texts = ()
    see: Texts = ()

    def sections(self) -> Iterator[tuple[str, Texts]]:
        """Those behind the options that have something in them."""
        for title, texts in (
            ("EXIT STATUS", self.exits), ("ENVIRONMENT", self.environment), ("EXAMPLES", self.examples),
        ):  # fmt: skip
            if texts:
                yield title, texts


class _ParserFound(Exception):
    """Carries the parser out of a ``main`` that was about to use it."""


def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser that the ``main`` of `module` makes."""

    def found(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _ParserFound(parser)

    main: Callable[[list[str]], int] = import_module(f"mailfront_io.{module}").main
    with patch.object(argparse.ArgumentParser, "parse_args", found):
        try:
            main([])
        except _ParserFound as error:
            [parser] = error.args
            assert isinstance(parser, argparse.ArgumentParser)
            return parser
    raise AssertionError(f"{module} has no parser")


def command_page(name: str, module: str) -> ManPage:
    """The page of ``mailfront NAME``, from its parser."""
    parser = parser_of(module)
    texts = paragraphs(parser.epilog or "")
    exits: list[str] = []
    examples: list[str] = []
    rest: list[str] = []
    kind = rest
    for text in texts:
        kind = (
            examples if text.lower().startswith("for instance")
            else exits if re.search(r"^Exit code|Exit code:$", text)
            else kind if text.startswith(" ")
            else rest
        )  # fmt: skip
        if not text.lower().startswith("for instance"):
            kind.append(text)
    subparsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    summary = " ".join((parser.description or "").split()).rstrip(".")
    synopsis = [usage(parser)]
    groups = list(option_groups(parser))
    for action in subparsers:
        synopsis = []
        for word, subparser in action.choices.items():
            synopsis.append(usage(subparser))
            said = next(choice.help or "" for choice in action._choices_actions if choice.dest == word)
            items = [item for _, group in option_groups(subparser) for item in group if item != HELP]
            groups.append((f"mailfront {name} {word}: {said}", items))
    return ManPage(
        f"mailfront-{name}",
        summary[0].lower() + summary[1:],
        tuple(synopsis),
        tuple(rest) or (parser.description or "",),
        groups,
        exits=tuple(exits),
        examples=tuple(examples),
        see=("mailfront",),
    )


def usage(parser: argparse.ArgumentParser) -> str:
    """Its usage, in one line."""
    return " ".join(parser.format_usage().removeprefix("usage: ").split())


def option_groups(parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Arguments and options as ``--help`` groups them."""
    for group in parser._action_groups:
        items = []
        for action in group._group_actions:
            if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
                continue
            if isinstance(action, argparse._HelpAction):
                items.append(HELP)
                continue
            formatter = parser._get_formatter()
            items.append((formatter._format_action_invocation(action), (action.help or "") % vars_of(action)))
        if items:
            yield (group.title or ""), items


def vars_of(action: argparse.Action) -> dict[str, object]:
    """What ``%(default)s`` and its like stand for."""
    return {**vars(action), "prog": "mailfront"}


def paragraphs(text: str) -> list[str]:
    """`text` at its empty lines."""
    return [part.strip("\n") for part in re.split(r"\n[ \t]*\n", text) if part.strip()]


ONE_SHOT_EXITS = (
    "0: the session has ended as sessions do. 1: it broke off, or was ended with an error. 78: a setting cannot be "
    "used; the client is told so. 111: wrong usage.",
)
CVM = "CVM_SASL_PLAIN, CVM_SASL_CRAM_MD5: the CVM modules that AUTH asks, with commas."
COMPAT = (
    "MAILFRONT_PROFILE: set to compat, the replies, log lines and tolerances are those of the original mailfront 2.22."
)
FACTS = "PROTO, TCPREMOTEIP, TCPLOCALHOST and the like: the connection, as tcpserver and inetd wrappers tell it."
SETTINGS = "All settings of the plugins and the backend; mailfront plugins NAME says what they are."

QMAIL = (
    "QMAILQUEUE, QMAILHOME: which qmail-queue to use, and where qmail's control files are.",
    COMPAT,
    FACTS,
    SETTINGS,
)


def wrapper(protocol: str, backend: str, plugins: str) -> ManPage:
    """The page of a program that is ``mailfront PROTOCOL BACKEND`` with plugins of its own."""
    name = f"{protocol}front-{backend}"
    line = f"mailfront {protocol} {backend} {plugins}".strip()
    what = "repeats what it got and keeps nothing" if backend == "echo" else "hands messages to qmail-queue"
    port = {"smtp": 25, "qmtp": 209, "qmqp": 628}[protocol]
    return ManPage(
        name,
        f"{protocol.upper()} front end that {what}",
        (f"{name} [PLUGINS...]",),
        (
            f"One {protocol.upper()} session on standard input and output, its log on standard error. The same as",
            f"  {line} [PLUGINS...]",
            "so PLUGINS come behind those that are in the list already; -name takes one out.",
        ),
        exits=ONE_SHOT_EXITS,
        environment=QMAIL if backend == "qmail" else (COMPAT, FACTS, SETTINGS),
        examples=(f"  tcpserver 0 {port} {name}",),
        see=("mailfront", "mailfront-plugins"),
    )


def pages() -> list[ManPage]:
    """All of them, the main page first."""
    from mailfront_io.cli import USAGE
    from mailfront_io.compat.wrappers import QMAIL_PLUGINS

    usage_lines, arguments, _, examples = USAGE.split("\n\n")
    synopsis = [re.split(r" {3,}", line.removeprefix("usage:").strip())[0] for line in usage_lines.splitlines()]
    said = re.findall(r"^([A-Z]+) +(.*(?:\n .*)*)", arguments, re.MULTILINE)
    qmail = " ".join(QMAIL_PLUGINS)
    main = ManPage(
        "mailfront",
        "mail front ends: SMTP, LMTP, QMTP, QMQP, POP3 and IMAP logins",
        tuple(synopsis),
        (
            "Receives mail, asks plugins whether to take it, and hands it to a backend. In its first form it serves "
            "one session on standard input and output, as tcpserver and inetd start it; mailfront serve is a server of "
            "its own. The other commands have pages of their own.",
        ),
        [
            ("arguments of the first form", [(name, " ".join(text.split())) for name, text in said]),
            ("options", [HELP, ("--version", "print the version")]),
        ],
        ONE_SHOT_EXITS,
        (COMPAT, FACTS, SETTINGS),
        (examples.strip("\n"),),
        (*(f"mailfront-{name}" for name in MODULES), "smtpfront-qmail", "pop3front-auth", "imapfront-auth"),
    )
    return [
        main,
        *(command_page(name, module) for name, module in MODULES.items()),
        wrapper("smtp", "echo", ""),
        wrapper("smtp", "qmail", f"cvm-authenticate {qmail}"),
        wrapper("qmtp", "echo", ""),
        wrapper("qmtp", "qmail", qmail),
        wrapper("qmqp", "echo", ""),
        wrapper("qmqp", "qmail", qmail),
        ManPage(
            "pop3front-auth",
            "POP3 up to the login, then a program",
            ("pop3front-auth CVM PROGRAM [ARGUMENTS...]",),
            (
                "Speaks POP3 on standard input and output until the user is known. CVM, one module or several with "
                "commas, is asked for USER and PASS. Then it becomes that user, goes to the user's directory, and is "
                "replaced by PROGRAM, which has the same connection.",
                "In TLS the program is a child, and what is said is passed on in both directions.",
            ),
            exits=("1: no login, or PROGRAM could not be started. 78: a setting is wrong. Else that of PROGRAM.",),
            environment=(CVM, COMPAT, FACTS),
            examples=("  tcpserver 0 110 pop3front-auth cvm-pwfile pop3front-maildir Maildir",),
            see=("mailfront", "pop3front-maildir"),
        ),
        ManPage(
            "pop3front-maildir",
            "POP3 from behind the login on, over a maildir",
            ("pop3front-maildir [DEFAULT-MAILDIR]",),
            (
                "Serves one maildir by POP3 on standard input and output, to whoever is there: pop3front-auth and its "
                "like check who that is.",
            ),
            exits=("0: the session has ended. 1: the maildir cannot be opened. 78: a setting cannot be used.",),
            environment=(
                "MAILBOX: the maildir, in place of DEFAULT-MAILDIR.",
                "MAX_MESSAGES, MAX_CUR_MESSAGES, MAX_NEW_MESSAGES: how many messages a session sees.",
                COMPAT,
                FACTS,
            ),
            examples=("  tcpserver 0 110 pop3front-auth cvm-pwfile pop3front-maildir Maildir",),
            see=("mailfront", "pop3front-auth"),
        ),
        ManPage(
            "imapfront-auth",
            "IMAP up to the login, then a program",
            ("imapfront-auth PROGRAM [ARGUMENTS...]",),
            (
                "Speaks IMAP on standard input and output until the user is known. Then it becomes that user, goes to "
                "the user's directory, and is replaced by PROGRAM, an IMAP server such as Dovecot's or Courier's, "
                "which has the same connection. In TLS the program is a child, and what is said is passed on.",
            ),
            exits=("1: no login, or PROGRAM could not be started. 78: a setting is wrong. Else that of PROGRAM.",),
            environment=(
                CVM,
                "AUTH_STORE: a credential store in place of CVM modules.",
                "SETUP_ENV: set to dovecot, PROGRAM is told the mailbox as Dovecot's imap wants it.",
                "IMAP_CAPABILITY, CAPABILITY: what PROGRAM can do.",
                COMPAT,
                FACTS,
            ),
            examples=("  tcpserver 0 143 imapfront-auth imapd Maildir",),
            see=("mailfront", "mailfront-user"),
        ),
    ]


def roff_text(text: str) -> str:
    """`text` as a line of roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("…", "...")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def roff(page: ManPage) -> str:
    """The page for man(1)."""
    out = [
        '.\\" Printed by docs/generate_man_pages.py.',
        f'.TH {page.name.upper()} 1 {DATE} "mailfront {version("mailfront")}" "mailfront"',
        ".SH NAME",
        f"{roff_text(page.name)} \\- {roff_text(page.summary)}",
        ".SH SYNOPSIS",
    ]
    for number, line in enumerate(page.synopsis):
        words = line.split(" ", 2 if page.name.startswith("mailfront-") else 1)
        command, rest = " ".join(words[:-1]) or words[0], words[-1] if len(words) > 1 else ""
        out += [".br"] * bool(number) + [f".B {roff_text(command)}", *([roff_text(rest)] if rest else [])]
    out += [".SH DESCRIPTION", *roff_paragraphs(page.description)]
    if page.options:
        out.append(".SH OPTIONS")
        for title, items in page.options:
            out.append(f".SS {roff_text(title)}")
            for flags, text in items:
                out += [".TP", f".B {roff_text(flags)}", roff_text(text) or "\\&"]
    for title, texts in page.sections():
        out += [f".SH {title}", *roff_paragraphs(texts)]
    out += [".SH SEE ALSO", *_with_commas([f".BR {roff_text(name)} (1)" for name in page.see])]
    return "\n".join(out) + "\n"


def _with_commas(lines: list[str]) -> list[str]:
    return [line + " ," * (line is not lines[-1]) for line in lines]


def roff_paragraphs(texts: Texts) -> Iterator[str]:
    """Those that begin with blanks as they are, the others filled."""
    begun = False
    for text in texts:
        if text.startswith(" "):
            yield from ([".PP"] * begun)
            yield from (".EX", *(roff_text(line) for line in text.splitlines()), ".EE")
        else:
            yield from [".PP"] * begun
            yield from (roff_text(line) for line in text.splitlines())
        begun = True


def markdown(page: ManPage) -> str:
    """The page as a section of the manual."""
    out = [f"## {page.name}", "", f"{escaped(page.summary)}.", "", "```text", *page.synopsis, "```", ""]
    out += markdown_paragraphs(page.description)
    for title, items in page.options:
        out += [f"**{escaped(title)}**", "", "| | |", "| --- | --- |"]
        out += [f"| `{flags.replace('|', '/')}` | {escaped(text)} |" for flags, text in items]
        out.append("")
    for title, texts in page.sections():
        out += [f"**{title.capitalize()}**", "", *markdown_paragraphs(texts)]
    return "\n".join(out)


def markdown_paragraphs(texts: Texts) -> Iterator[str]:
    for text in texts:
        yield from ("```text", text, "```") if text.startswith(" ") else (escaped(text),)
        yield ""


def escaped(text: str) -> str:
    return re.sub(r"([*_<>\[\]`|\\])", r"\\\1", text)


HEAD = """\
# Commands

The programs, with their options. Each has a man page, too, which says the same: `man mailfront-serve`. This page and
those are printed from the programs' own help by `docs/generate_man_pages.py`, and a test checks that they are current.

"""


def files() -> dict[Path, str]:
    """Every file, and what is in it."""
    every = pages()
    found = {MAN / f"{page.name}.1": roff(page) for page in every}
    found[PAGE] = HEAD + "\n".join(markdown(page) for page in every).rstrip("\n") + "\n"
    return found


def main(arguments: list[str]) -> None:
    """Write the files, or name those that are not current, or of no program."""
    wanted = files()
    if arguments == ["--check"]:
        there = {path: path.read_text(encoding="utf-8") for path in (*MAN.iterdir(), PAGE)}
        for path in sorted(path for path in {*wanted, *there} if wanted.get(path) != there.get(path)):
            print(path.name)
        return
    MAN.mkdir(exist_ok=True)
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
