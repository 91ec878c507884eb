"""What of an authentication command may be shown in a log."""

from typing import Final

MASK: Final = "XXXXXXXX"
"""Stands for what may be a secret."""


def shown_mechanism(name: str) -> str:
    """The name of a mechanism, for the log. What cannot be one (RFC 4422 section 3.1: at most 20 letters,
    digits, ``-`` and ``_``) may be a password in the wrong place."""
    head, tab, _ = name.partition("\t")
    shown = MASK if len(head) > 20 or "=" in head else head
    return f"{shown} {MASK}" if tab and shown != MASK else shown


def shown_argument(argument: str) -> str:
    """The argument of AUTH, a mechanism and maybe an initial response, for the log."""
    mechanism, blank, _ = argument.partition(" ")
    shown = shown_mechanism(mechanism)
    return f"{shown} {MASK}" if blank and not shown.endswith(MASK) else shown
