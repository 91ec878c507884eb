"""The interface that every credential store has."""

from typing import Protocol

from mailfront_proto.record import record
from mailfront_proto.secret import Secret


class StoreUnavailable(Exception):
    """The store cannot say now (a temporary failure); the text says why, for the log."""


@record(frozen=True)
class Identity:
    """Who has logged in: what the store knows of the user; None or empty where it knows nothing."""

    username: str
    domain: str = ""
    mailbox: str = ""
    uid: int | None = None
    gid: int | None = None


class CredentialStore(Protocol):
    """A store. Its methods await operations (`mailfront_io.ops`) and nothing else."""

    async def verify_password(self, username: str, password: Secret) -> Identity | None:
        """The user whose password this is, or None, whether the user is unknown or the password wrong.
        Raises `StoreUnavailable`."""
        ...
