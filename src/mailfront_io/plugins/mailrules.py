"""mailrules: accepts, refuses and configures by sender and recipient, as a file of rules says.

The language is in `mailfront_io.rules`; docs/rules.md is its guide.
"""

from collections.abc import Coroutine
from typing import Any

from mailfront_io.control_files import MissingPackage, cause
from mailfront_io.ops import Thread
from mailfront_io.plugin import Kind, Plugin, Response, Setting
from mailfront_io.rules.decision import Address, decide
from mailfront_io.rules.files import RULES, RuleFile
from mailfront_io.rules.language import Code, Rule, Severity
from mailfront_io.session import Path, Session

NOT_OPENED = Response(421, "4.3.0 Could not open $MAILRULES file")
SYNTAX_ERROR = Response(421, "4.3.0 Syntax error in $MAILRULES")
LIST_NOT_OPENED = Response(421, "4.3.0 Error opening file referenced from $MAILRULES")

LOGGED_ERRORS = 5
"""Errors of a file that each connection writes to the log."""

_RESPONSES = {
    Code.ACCEPT: (250, "", False),
    Code.FINISH: (250, "", True),
    Code.REFUSE: (553, "Rejected", False),
    Code.DEFER: (451, "Deferred", False),
}


class MailRules(Plugin):
    """Applies the rules in the file that `$MAILRULES` names; unset, it does nothing.

    Once there are rules, all that was assigned for a message is dropped at its reset, whoever assigned it.
    """

    name = "mailrules"
    settings = (Setting("MAILRULES", Kind.TEXT, "the file of mail rules; unset: no rules"),)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._rules: RuleFile | None = None
        self._sender = Address("")

    def connect(self) -> Response | Coroutine[Any, Any, Response | None] | None:
        """Takes the rules as they are now. A file that has changed is read in a thread."""
        path = self.session.getenv("MAILRULES")
        if path is None:
            if self._rules is None:
                self.rest("sender", "recipient", "reset")
            return None
        self.rest()
        rules = RULES.current(path)
        return self.use(rules) if rules is not None else self._load(path)

    async def _load(self, path: str) -> Response | None:
        try:
            return self.use(await Thread(RULES.load, path))
        except MissingPackage as error:
            self.session.log(f"mailrules: {error}")
            return LIST_NOT_OPENED
        except (OSError, ValueError) as error:
            self._log(f"{path}: {cause(error)}: set $MAILRULES to a file that can be read")
            return NOT_OPENED

    def use(self, rules: RuleFile) -> Response | None:
        """Takes these rules; the refusal where they have errors."""
        errors = rules.errors
        for problem in errors[:LOGGED_ERRORS]:
            self._log(f"{rules.path}:{problem}")
        if len(errors) > LOGGED_ERRORS:
            self._log(f"{len(errors) - LOGGED_ERRORS} more errors: run mailfront rules check {rules.path}")
        if errors:
            return SYNTAX_ERROR if errors[0].severity is Severity.SYNTAX else LIST_NOT_OPENED
        self._rules = rules
        return None

    def _log(self, line: str) -> None:
        if self.session.profile.name != "compat":  # the original logs the reply alone
            self.session.log(f"mailrules: {line}")

    def reset(self) -> None:
        """Drops what rules have assigned. What they made of ``maxdatabytes`` goes, too: counters sets it anew."""
        if self._rules is not None:
            self.session.reset_env()
            self.session.numbers.pop("maxdatabytes", None)

    def sender(self, path: Path) -> Response | None:
        """The rules for senders."""
        if self._rules is None:
            return None
        self._sender = Address(path.address)
        rules = decide(self._rules.senders, self._sender, None, self._rules.lists)
        for rule in rules:
            self._apply(rule)
        return verdict(rules)

    def recipient(self, path: Path) -> Response | None:
        """The rules for recipients, with the sender as its rules saw it."""
        if self._rules is None:
            return None
        rules = decide(self._rules.recipients, self._sender, Address(path.address), self._rules.lists)
        for rule in rules:
            self._apply(rule)
            path.address += rule.relayclient
        return verdict(rules)

    def _apply(self, rule: Rule) -> None:
        numbers = self.session.numbers
        if rule.databytes:
            numbers["maxdatabytes"] = min(rule.databytes, numbers.get("maxdatabytes") or rule.databytes)
        for name, value in rule.environment:
            self.session.putenv(name, value)


def verdict(rules: list[Rule]) -> Response | None:
    """The response of the last of the rules that apply."""
    if not rules or rules[-1].code not in _RESPONSES:
        return None
    code, usual_text, final = _RESPONSES[rules[-1].code]
    return Response(code, rules[-1].text or usual_text, final)
