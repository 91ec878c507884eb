"""``mailfront rules``: checks a file of mail rules, and shows what it does to an address.

``check`` prints every problem of a file. ``test`` asks the plugin itself, so it shows what a session would do, and
prints each rule that is tried on the way.
"""

import argparse
import sys
import time
from typing import NoReturn

from mailfront_io.control_files import MissingPackage, cause
from mailfront_io.frontends.client_transcript import printable
from mailfront_io.ops import Connection
from mailfront_io.plugin import Response
from mailfront_io.plugins.mailrules import MailRules
from mailfront_io.rules.decision import Address, Outcome, decide
from mailfront_io.rules.files import RULES, RuleFile
from mailfront_io.rules.language import Code, Rule, Severity, print_pattern
from mailfront_io.session import Path, Session

EX_PROBLEMS = 1
EX_USAGE = 64
EX_CONFIG = 78

DESCRIPTION = "Checks a file of mail rules, and shows what it does to an address."

EPILOG = """\
A file of rules, which $MAILRULES names and the plugin mailrules applies:

  # code, sender : recipient : text : databytes : relayclient : environment
  :sender
  d*@spam.example:*:We take no mail from there
  k[[/etc/mail/partners]]:*::50000000
  :recipient
  d*:[[/etc/mail/gone]]:5.1.6 That mailbox is gone
  k*:[[@/etc/mail/domains]]

The codes: k accept, K accept and ask no further plugin, d refuse, z defer, p pass on to the next plugin, n apply and
go on, & the next rule counts only if this one matches, too. The first rule that matches decides.

For instance:

  mailfront rules check /etc/mail/rules
  mailfront rules test /etc/mail/rules --sender me@spam.example --recipient you@example.org
  mailfront rules test /etc/mail/rules --recipient you@example.org --env DATABYTES=1000000

Exit code of check: 0 the file can be used (there may be warnings), 1 it has errors.
Exit code of test:  0 no address is refused or deferred, 1 one is.
Of both:            64 wrong usage, 78 the file cannot be read or, in test, has errors.
"""


class UsageError(Exception):
    """Arguments that make no sense together: one sentence with the remedy."""


class ConfigurationError(Exception):
    """A file that cannot be used: one sentence with the remedy."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see mailfront rules --help")


def main(words: list[str]) -> int:
    """``mailfront rules``; returns the exit code."""
    try:
        arguments = _arguments(words)
        return _check(arguments.file) if arguments.command == "check" else _test(arguments)
    except UsageError as error:
        return _fail(error, EX_USAGE)
    except (ConfigurationError, MissingPackage) as error:
        return _fail(error, EX_CONFIG)


def _fail(why: object, code: int) -> int:
    sys.stderr.write(f"mailfront rules: {printable(str(why))}\n")
    return code


def _arguments(words: list[str]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = _Parser("mailfront rules", description=DESCRIPTION, epilog=EPILOG, formatter_class=layout)
    commands = parser.add_subparsers(dest="command", required=True, metavar="check|test", parser_class=_Parser)
    about_check = "print every problem of a file, with its line, column and remedy"
    check = commands.add_parser("check", help=about_check, description=f"Use it to {about_check}.")
    check.add_argument("file", metavar="FILE")
    about_test = "show which rule decides on an address, and why"
    test = commands.add_parser("test", help=about_test, description=f"Use it to {about_test}.")
    test.add_argument("file", metavar="FILE")
    test.add_argument("--sender", metavar="ADDRESS", default="", help="default: the null sender, as bounces have it")
    test.add_argument("--recipient", metavar="ADDRESS", action="append", default=[], help="repeat for more")
    test.add_argument("--env", metavar="NAME=VALUE", action="append", default=[], help="a setting to begin with")
    return parser.parse_args(words)


def _read(name: str) -> RuleFile:
    try:
        return RULES.load(name)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{name}: {cause(error)}: give a file that can be read") from error


def _say(line: str) -> None:
    sys.stdout.write(printable(line) + "\n")


# -- check --------------------------------------------------------------------------------------------------


def _check(name: str) -> int:
    rules = _read(name)
    _print_problems(rules)
    warnings = len(rules.problems) - len(rules.errors)
    _say(
        f"{name}: rules for senders: {len(rules.senders)}, for recipients: {len(rules.recipients)}; "
        f"errors: {len(rules.errors)}, warnings: {warnings}"
    )
    return EX_PROBLEMS if rules.errors else 0


def _print_problems(rules: RuleFile) -> None:
    for problem in rules.problems:
        kind = "warning" if problem.severity is Severity.WARNING else "error"
        _say(f"{rules.path}:{problem.line}:{problem.column}: {kind}: {problem.found}: {problem.remedy}")


# -- test ---------------------------------------------------------------------------------------------------


def _test(arguments: argparse.Namespace) -> int:
    environment = {}
    for assignment in arguments.env:
        name, equals, value = assignment.partition("=")
        if not (name and equals):
            raise UsageError(f"--env {assignment} is no assignment: write --env NAME=VALUE")
        environment[name] = value
    rules = _read(arguments.file)
    if rules.errors:
        _print_problems(rules)
        raise ConfigurationError(f"{arguments.file} cannot be used as it is: mend the errors above")
    trial = _Trial(rules, environment)
    responses = [trial.sender(arguments.sender)]
    if responses[0] is not None and responses[0].refuses and arguments.recipient:
        _say("A sender who is refused has no recipients. If it were not refused:")
    responses += map(trial.recipient, arguments.recipient)
    trial.summary()
    return EX_PROBLEMS if any(response is not None and response.refuses for response in responses) else 0


class _Trial:
    """One transaction, told as it goes."""

    def __init__(self, rules: RuleFile, environment: dict[str, str]) -> None:
        self._rules = rules
        self._lines = _source_lines(rules.path)
        self._session = Session(Connection(time), environment, _say)
        self._plugin = MailRules(self._session)
        self._plugin.use(rules)
        self._sender = Address("")
        self._assigned: list[str] = []

    def sender(self, address: str) -> Response | None:
        """What becomes of MAIL."""
        _say(f"Sender <{address}>")
        self._sender = Address(address)
        applied = decide(self._rules.senders, self._sender, None, self._rules.lists, self._tell)
        response = self._plugin.sender(Path(address, []))
        self._conclude(applied, response)
        return response

    def recipient(self, address: str) -> Response | None:
        """What becomes of RCPT."""
        _say(f"Recipient <{address}>")
        applied = decide(self._rules.recipients, self._sender, Address(address), self._rules.lists, self._tell)
        path = Path(address, [])
        response = self._plugin.recipient(path)
        self._conclude(applied, response)
        if path.address != address:
            _say(f"  it goes on as <{path.address}>")
        return response

    def summary(self) -> None:
        """What the rules have set for the message."""
        limit = self._session.numbers.get("maxdatabytes")
        if limit:
            own = self._session.smallest_number("DATABYTES")
            _say(f"Message: at most {min(limit, own or limit)} bytes (the plugin counters sees to that)")
        for name in dict.fromkeys(self._assigned):
            _say(f"Setting: {name}={self._session.getenv(name)}")

    def _tell(self, rule: Rule, outcome: Outcome) -> None:
        pattern = {Outcome.NOT_SENDER: rule.sender, Outcome.NOT_RECIPIENT: rule.recipient}.get(outcome)
        why = outcome.value
        if pattern is not None:
            why += " " + (print_pattern(pattern).decode("utf-8", "surrogateescape") or "(empty)")
        _say(f"  line {rule.line}: {self._lines[rule.line - 1]}")
        _say(f"    {why}")

    def _conclude(self, applied: list[Rule], response: Response | None) -> None:
        self._assigned += [name for rule in applied for name, _ in rule.environment]
        if response is None:
            passed = applied and applied[-1].code is Code.PASS
            _say(f"  => {'passed on' if passed else 'no rule decides'}: it is up to the plugins behind mailrules")
            return
        verdict = "deferred" if response.code < 500 else "refused"
        if not response.refuses:
            verdict = "accepted, and no further plugin is asked" if response.final else "accepted"
        text = response.text.replace("\n", " / ") or "with the text of the backend"
        _say(f"  => {verdict}: {response.code} {text} (line {applied[-1].line})")


def _source_lines(path: str) -> list[str]:
    with open(path, "rb") as file:
        return [line.strip().decode("utf-8", "surrogateescape") for line in file.read().split(b"\n")]
