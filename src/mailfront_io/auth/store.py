"""The interface that every credential store has: who may log in, and who there is."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from mailfront_proto.record import record
from mailfront_proto.secret import Secret

if TYPE_CHECKING:
    from mailfront_proto.sasl.scram_keys import ScramKeys


class StoreUnavailable(Exception):
    """The store cannot say now (a temporary failure); the text says why, for the log, and holds no secret."""


LARGEST_ID: Final = 0xFFFF_FFFE
"""Of users and groups. To the system one more is none: a program that is to run as that goes on as who starts it."""


@record(frozen=True)
class Identity:
    """Who has logged in, or is looked up: what the store knows of the user; None or empty where it knows nothing.

    `mailbox`: where the user's mail is; `directory`: the home directory; `groups`: supplementary group ids;
    `system_username`: the account that the user's programs run as, where it has another name; `empty`: variables of
    `environment` that the store knows to be empty.
    """

    username: str
    domain: str = ""
    mailbox: str = ""
    uid: int | None = None
    gid: int | None = None
    real_name: str = ""
    directory: str = ""
    shell: str = ""
    group_name: str = ""
    groups: tuple[int, ...] = ()
    system_username: str = ""
    empty: frozenset[str] = frozenset()

    def environment(self) -> dict[str, str]:
        """What programs that serve the user find in their environment, under the original's names; what is not known
        is left out."""
        given = {
            "USER": self.username,
            "UID": "" if self.uid is None else str(self.uid),
            "GID": "" if self.gid is None else str(self.gid),
            "NAME": self.real_name,
            "HOME": self.directory,
            "SHELL": self.shell,
            "GROUP": self.group_name,
            "DOMAIN": self.domain,
            "MAIL": self.mailbox,
            "MAILBOX": self.mailbox,
            "MAILDIR": self.mailbox,
            "GIDS": ",".join(map(str, self.groups)),
        }
        return {name: value for name, value in given.items() if value or name in self.empty}


@record(frozen=True)
class Asker:
    """For whom a store is asked.

    `deadline`: a reading of the session's ``clock.monotonic()`` by which it must have answered; None: no limit.
    `environment`: the session's settings. `default_domain`: the domain of a login name that has none, for stores that
    split names. `program_environment`: what programs find that a store starts. `by_command`: a command beside SASL
    asks: POP3's PASS, IMAP's LOGIN.
    """

    deadline: float | None = None
    environment: Mapping[str, str] = MappingProxyType({})
    default_domain: str = ""
    program_environment: Mapping[str, str] = MappingProxyType({})
    by_command: bool = False


NOBODY: Final = Asker()
"""Asks without a session, a deadline or settings."""


class CredentialStore:
    """Base class of credential stores. One object serves all sessions of a process.

    A store defines the methods that its `mechanisms` need, and `look_up`. They await operations (`mailfront_io.ops`,
    `mailfront_io.peers`, `mailfront_io.children`) and nothing else. They get names that are valid UTF-8, without
    control bytes. Each raises `StoreUnavailable` when it cannot say now. Whether a user is unknown or has another
    password must show neither in an answer nor in the time that it takes.

    ================  ==============================================================
    PLAIN, LOGIN      `verify_password`; so do POP3's PASS and IMAP's LOGIN
    CRAM-MD5          `verify_response`
    SCRAM-…           `find_keys` and `look_up`; `salt_secret` and `iterations`
    OAUTHBEARER,      `verify_token`
    XOAUTH2
    EXTERNAL,         `look_up`
    ANONYMOUS
    ================  ==============================================================
    """

    mechanisms: Sequence[str] = ()
    """The SASL mechanisms that this store can serve, in the order in which they are listed. (A ``…-PLUS`` comes with
    the mechanism itself, wherever the channel can be bound.)"""

    weak_mechanisms: Sequence[str] = ()
    """Mechanisms that it can serve, too, and that are weaker: offered only where ``$AUTH_MECHANISMS`` names them."""

    salt_secret: Secret | None = None
    """SCRAM: makes up the salts of users who do not exist: 16 octets of chance or more, the same in every process."""

    iterations: int = 15_000
    """SCRAM: the iteration count of all users."""

    @property
    def takes_passwords(self) -> bool:
        """Whether POP3's USER and IMAP's LOGIN can be offered."""
        return not {"PLAIN", "LOGIN"}.isdisjoint(self.mechanisms)

    async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
        """The user whose password this is, or None."""
        raise StoreUnavailable(f"{type(self).__name__} cannot verify passwords")

    async def verify_response(
        self, username: str, challenge: bytes, digest: bytes, asker: Asker = NOBODY
    ) -> Identity | None:
        """The user whose password has keyed `digest`, 16 octets, of `challenge` (CRAM-MD5), or None."""
        raise StoreUnavailable(f"{type(self).__name__} cannot verify CRAM-MD5")

    async def verify_token(
        self, username: str, token: Secret, properties: Mapping[str, str], asker: Asker = NOBODY
    ) -> Identity | None:
        """The user that the bearer token was made for, or None. `username`: who the client says that it is; may be
        empty; who calls compares it with the answer. `properties`: see `mailfront_proto.sasl.VerifyToken`."""
        raise StoreUnavailable(f"{type(self).__name__} cannot verify tokens")

    async def find_keys(self, username: str, hash_name: str, asker: Asker = NOBODY) -> "ScramKeys | None":
        """The SCRAM keys that are stored for the user and the hash, ``sha1`` or ``sha256``, or None."""
        raise StoreUnavailable(f"{type(self).__name__} has no SCRAM keys")

    async def look_up(self, name: str, asker: Asker = NOBODY) -> Identity | None:
        """The user of that name, without any proof, or None: for who has proven it otherwise, and for recipients."""
        raise StoreUnavailable(f"{type(self).__name__} cannot look users up")
