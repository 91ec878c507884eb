"""What one connection may spend: errors, idle commands, refused recipients, failed logins.

Each method counts one, and returns the reply to end with when that was one too many.
"""

from mailfront_proto.smtp import answers
from mailfront_proto.smtp.profile import Limits
from mailfront_proto.smtp.replies import Reply


class Budgets:
    """The counts of one connection, against `limits`. They last through RSET, EHLO and STARTTLS."""

    # Counts begin as those of the class: most connections change few.
    errors_in_row = 0
    """Put it to 0 for every command that was well formed."""
    idle_commands = 0
    """Put it to 0 for every message that was accepted: the client does what it is here for."""
    in_row = False
    """A row of unknown commands has begun: `known` is worth a call."""
    _errors = _unknown_in_row = _refused = _auth_failures = 0

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def error(self) -> Reply | None:
        """An unknown or malformed command."""
        self.in_row = True
        self._errors += 1
        self.errors_in_row += 1
        over = _over(self._errors, self._limits.errors) or _over(self.errors_in_row, self._limits.errors_in_row)
        return answers.TOO_MANY_ERRORS if over else None

    def unknown(self) -> Reply | None:
        """An unknown command, as the original counts them."""
        self.in_row = True
        self._unknown_in_row += 1
        return answers.TOO_MANY_UNKNOWN if _over(self._unknown_in_row, self._limits.unknown_in_row) else None

    def known(self) -> None:
        """A command that is known. (The row of errors ends only when it was well formed, too.)"""
        self._unknown_in_row = 0
        self.in_row = False

    def idle(self) -> Reply | None:
        """A command that brings no message nearer."""
        self.idle_commands += 1
        return answers.TOO_MANY_IDLE_COMMANDS if _over(self.idle_commands, self._limits.idle_commands) else None

    def refused_recipient(self) -> Reply | None:
        """A recipient was refused for good."""
        self._refused += 1
        return answers.TOO_MANY_REFUSED if _reached(self._refused, self._limits.refused_recipients) else None

    def auth_failure(self) -> Reply | None:
        """An AUTH exchange was refused."""
        self._auth_failures += 1
        if _reached(self._auth_failures, self._limits.auth_failures):
            return answers.TOO_MANY_AUTH_FAILURES
        return None


def _over(count: int, limit: int | None) -> bool:
    return limit is not None and count > limit


def _reached(count: int, limit: int | None) -> bool:
    return limit is not None and count >= limit
