"""Which rules apply to an address.

`decide` compares rule by rule. A rule that matches applies, with its limit, its suffix and its assignments; the first
one that matches and is neither ``n`` nor ``&`` decides, and ends it. Rules with ``&`` in front of a rule are further
conditions of it: all of them apply if it does, and none if it does not.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from enum import Enum

from mailfront_io.rules.glob import Glob
from mailfront_io.rules.language import Code, ListReference, Pattern, Rule

Lists = Mapping[bytes, Container[bytes]]
"""The lists that rules refer to, by name, with their entries in lower case."""


class Address:
    """An address as rules compare it: bytes, and ASCII letters in lower case."""

    __slots__ = ("domain", "whole")

    def __init__(self, address: str) -> None:
        self.whole = address.encode("utf-8", "surrogateescape").lower()
        _, at, domain = self.whole.rpartition(b"@")
        self.domain: bytes | None = domain if at else None
        """What stands behind the last ``@``; None without one."""

    def is_in(self, entries: Container[bytes]) -> bool:
        """Whether `entries` have the whole of it, or ``@`` and its domain; in place of that nothing, where there is no
        domain. (A CDB file may have an empty entry.)"""
        return self.whole in entries or (b"" if self.domain is None else b"@" + self.domain) in entries


class Outcome(Enum):
    """What came of one rule."""

    MATCHED = "it matches"
    NOT_SENDER = "the sender does not match"
    NOT_RECIPIENT = "the recipient does not match"
    NOT_AND = "a rule with & in front of it does not match"


Trace = Callable[[Rule, Outcome], None]


def decide(
    rules: Iterable[Rule], sender: Address, recipient: Address | None, lists: Lists, trace: Trace | None = None
) -> list[Rule]:
    """The rules that apply, in order; the last one decides, unless it is ``n``. `recipient` is None for rules for
    senders. `trace` is told of every rule that was tried."""
    applied: list[Rule] = []
    conditions: list[Rule] = []
    hold = True
    for rule in rules:
        outcome = _compare(rule, sender, recipient, lists) if hold else Outcome.NOT_AND
        if trace is not None:
            trace(rule, outcome)
        if rule.code is Code.AND:
            hold = outcome is Outcome.MATCHED
            conditions.append(rule)
            continue
        if outcome is Outcome.MATCHED:
            applied += [*conditions, rule]
            if rule.code is not Code.NEXT:
                break
        conditions.clear()
        hold = True
    return applied


def _compare(rule: Rule, sender: Address, recipient: Address | None, lists: Lists) -> Outcome:
    if not matches(rule.sender, sender, lists):
        return Outcome.NOT_SENDER
    if recipient is not None and not matches(rule.recipient, recipient, lists):
        return Outcome.NOT_RECIPIENT
    return Outcome.MATCHED


def matches(pattern: Pattern, address: Address, lists: Lists) -> bool:
    """Whether `address` fits `pattern`."""
    target = pattern.target
    fits = target.matches(address.whole) if isinstance(target, Glob) else _is_listed(target, address, lists)
    return fits is not pattern.negated


def _is_listed(reference: ListReference, address: Address, lists: Lists) -> bool:
    entries = lists[reference.name]
    if reference.domains:
        return address.domain is not None and address.domain in entries
    return address.is_in(entries)
