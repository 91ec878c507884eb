"""What one connection may spend: errors, idle commands, USER commands, failed logins.

Each method counts one, and says whether that was one too many.
"""

from mailfront_proto.pop3.profile import Limits


class Budgets:
    """The counts of one connection, against `limits`. They last through STLS and a login."""

    __slots__ = ("_auth_failures", "_errors", "_idle", "_limits", "_users", "errors_in_row")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._errors = self._idle = self._users = self._auth_failures = 0
        self.errors_in_row = 0
        """Put it to 0 for every command that was well formed."""

    def error(self) -> bool:
        """An unknown or malformed command."""
        self._errors += 1
        self.errors_in_row += 1
        limits = self._limits
        return _over(self._errors, limits.errors) or _over(self.errors_in_row, limits.errors_in_row)

    def idle(self) -> bool:
        """A command that brings no message nearer."""
        self._idle += 1
        return _over(self._idle, self._limits.idle_commands)

    def progress(self) -> None:
        """The client does what it is here for."""
        self._idle = 0

    def user(self) -> bool:
        """A USER command."""
        self._users += 1
        return _over(self._users, self._limits.user_commands)

    def auth_failure(self) -> bool:
        """A PASS or an AUTH exchange was refused: true for the last one that is taken."""
        self._auth_failures += 1
        limit = self._limits.auth_failures
        return limit is not None and self._auth_failures >= limit


def _over(count: int, limit: int | None) -> bool:
    return limit is not None and count > limit
