"""A fixed list of users, given in the program or read from a file of ``user:password`` lines."""

import hmac
from collections.abc import Mapping

from mailfront_io.auth.store import Identity
from mailfront_proto.secret import Secret


class StaticStore:
    """Users and passwords in memory.

    An unknown user costs the same comparison as a known one, with a password that nobody has.
    """

    def __init__(self, users: Mapping[str, Secret]) -> None:
        self._users = dict(users)

    @classmethod
    def from_file(cls, path: str) -> "StaticStore":
        """Read `path`: a user a line, ``user:password``; blank lines and ``#`` lines are skipped.

        Raises `OSError`, or `ValueError` naming file and line.
        """
        users: dict[str, Secret] = {}
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                line = line.rstrip("\n")
                if not line.strip() or line.startswith("#"):
                    continue
                user, colon, password = line.partition(":")
                if not user or not colon or not password:
                    raise ValueError(f"{path}, line {number}: write user:password")
                users[user] = Secret(password.encode())
        return cls(users)

    async def verify_password(self, username: str, password: Secret) -> Identity | None:
        """Compares in constant time."""
        known = self._users.get(username)
        expected = known.reveal() if known is not None else b"\0"  # no password holds a NUL
        matches = hmac.compare_digest(expected, password.reveal())
        return Identity(username) if matches and known is not None else None
