"""A fixed list of users, given in the program or read from a file of ``user:password`` lines."""

import hmac
from collections.abc import Mapping

from mailfront_io.auth.store import NOBODY, Asker, CredentialStore, Identity
from mailfront_proto.secret import Secret

_NOT_A_PASSWORD = b"\0"  # no password holds a NUL


class StaticStore(CredentialStore):
    """Users and passwords in memory.

    An unknown user costs the same comparison as a known one, with a password that nobody has.
    """

    mechanisms = ("LOGIN", "PLAIN", "EXTERNAL", "ANONYMOUS")
    weak_mechanisms = ("CRAM-MD5",)

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

    async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
        """Compares in constant time."""
        known = self._users.get(username)
        expected = known.reveal() if known is not None else _NOT_A_PASSWORD
        matches = hmac.compare_digest(expected, password.reveal())
        return Identity(username) if matches and known is not None else None

    async def verify_response(
        self, username: str, challenge: bytes, digest: bytes, asker: Asker = NOBODY
    ) -> Identity | None:
        """Keys the challenge with the user's password, or with one that nobody has."""
        known = self._users.get(username)
        expected = hmac.digest(known.reveal() if known is not None else _NOT_A_PASSWORD, challenge, "md5")
        matches = hmac.compare_digest(expected, digest)
        return Identity(username) if matches and known is not None else None

    async def look_up(self, name: str, asker: Asker = NOBODY) -> Identity | None:
        """Whether the name is in the list."""
        return Identity(name) if name in self._users else None
