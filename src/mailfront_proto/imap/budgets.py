"""What one connection may spend: errors, idle commands, failed logins.

Each method counts one, and returns the last word to say once there are too many.
"""

from mailfront_proto.imap import answers
from mailfront_proto.imap.profile import Limits
from mailfront_proto.imap.replies import Reply


class Budgets:
    """The counts of one connection, against `limits`. They last through STARTTLS."""

    __slots__ = ("_auth_failures", "_errors", "_idle", "_limits", "errors_in_row")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._errors = self._idle = self._auth_failures = 0
        self.errors_in_row = 0
        """Put it to 0 for every command that was well formed."""

    def error(self) -> Reply | None:
        """An unknown or malformed command."""
        self._errors += 1
        self.errors_in_row += 1
        limits = self._limits
        if _over(self._errors, limits.errors) or _over(self.errors_in_row, limits.errors_in_row):
            return answers.TOO_MANY_ERRORS
        return None

    def idle(self) -> Reply | None:
        """A command that brings no login nearer."""
        self._idle += 1
        return answers.TOO_MANY_IDLE_COMMANDS if _over(self._idle, self._limits.idle_commands) else None

    def auth_failure(self) -> Reply | None:
        """A failed login: the last one that is taken is the one before the end."""
        self._auth_failures += 1
        limit = self._limits.auth_failures
        return answers.TOO_MANY_AUTH_FAILURES if limit is not None and self._auth_failures >= limit else None


def _over(count: int, limit: int | None) -> bool:
    return limit is not None and count > limit
