"""The embedded store: users in one SQLite file, with SCRAM keys in place of passwords.

For each user the file has SCRAM-SHA-256 keys in the form of RFC 5803. With them PLAIN, LOGIN and SCRAM can be verified,
and who steals the file can log in nowhere with it. The file has mode 0600, and its directory, if it is made here, 0700.

It is not in WAL mode: what reads it needs no right to write then, no second file appears that wants the same care, and
a table that is written by hand has no use for concurrent writers. It is opened anew for each question, in a `Thread`
(a tenth of a millisecond): so nothing is shared by threads or inherited by forked processes, and a file that was
replaced is the new one.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

from mailfront_io.auth.derivation import keys_of_nobody, matches
from mailfront_io.auth.store import NOBODY, Asker, CredentialStore, Identity, StoreUnavailable
from mailfront_io.ops import Thread
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl.saslprep import saslprep
from mailfront_proto.sasl.scram_keys import SALT_SIZE, ScramKeys, derive_keys
from mailfront_proto.secret import Secret

SCHEMA_VERSION: Final = 1

ITERATIONS: Final = 15_000
"""Rounds of PBKDF2 for every user. One count for all: another would tell a stranger who exists."""

BUSY_SECONDS: Final = 5.0
"""How long a writer is waited for."""

_SCHEMA: Final = f"""
    create table users (
        name text primary key not null,
        keys text not null,
        mailbox text not null default '',
        uid integer,
        gid integer
    ) without rowid;
    create table settings (name text primary key not null, value blob not null) without rowid;
    pragma user_version = {SCHEMA_VERSION};
"""


class NoSuchUser(Exception):
    """There is no user of that name."""


class UserExists(Exception):
    """There is a user of that name already."""


class UserDatabase:
    """The file at `path`, for who keeps it: its methods block. Each raises `StoreUnavailable`, in words."""

    def __init__(self, path: str) -> None:
        self.path = path

    def create(self) -> None:
        """Make the file, if it does not exist, and its directory."""
        directory = os.path.dirname(self.path) or "."
        try:
            if not os.path.isdir(directory):
                os.makedirs(directory, mode=0o700)
            if os.path.exists(self.path):
                return
            # Nobody meets a file without its tables: it gets its name when it is whole.
            temporary = f"{self.path}.{os.getpid()}.{os.urandom(4).hex()}"
            os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            try:
                with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                    connection.executescript(f"begin; {_SCHEMA} commit;")
                    connection.execute("insert into settings values ('salt_secret', ?)", (os.urandom(32),))
                try:
                    os.link(temporary, self.path)
                except FileExistsError:
                    return
            finally:
                os.unlink(temporary)
        except OSError as error:
            raise StoreUnavailable(f"{error.filename or self.path}: {error.strerror}") from error
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self.path}: {error}") from error

    @contextmanager
    def _open(self, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            if not os.path.exists(self.path):
                remedy = f"make it with mailfront user --database {self.path} add NAME"
                raise StoreUnavailable(f"{self.path} does not exist: {remedy}")
            uri = f"file:{_quoted(os.path.abspath(self.path))}?mode={'rw' if writes else 'ro'}"
            with closing(
                sqlite3.connect(uri, timeout=BUSY_SECONDS, isolation_level=None, uri=True)
            ) as connection:
                version = connection.execute("pragma user_version").fetchone()[0]
                if version != SCHEMA_VERSION:
                    raise StoreUnavailable(
                        f"{self.path} is of version {version}, and this program knows {SCHEMA_VERSION}"
                        if version
                        else f"{self.path} is no database of users"
                    )
                yield connection
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self.path}: {error}") from error

    def salt_secret(self) -> Secret:
        """What the salts of users who do not exist are made from; as old as the file."""
        with self._open() as connection:
            row = connection.execute("select value from settings where name = 'salt_secret'").fetchone()
        if row is None or len(row[0]) < SALT_SIZE:
            raise StoreUnavailable(f"{self.path} has no salt_secret: it is not whole")
        return Secret(row[0])

    def find(self, name: str) -> tuple[ScramKeys, Identity] | None:
        """The user of that name."""
        with self._open() as connection:
            row = connection.execute(
                "select keys, mailbox, uid, gid from users where name = ?", (name,)
            ).fetchone()
        if row is None:
            return None
        try:
            keys = ScramKeys.decode(Secret(row[0].encode()))
        except (LocalProtocolError, AttributeError) as error:
            raise StoreUnavailable(f"{self.path}: the keys of {name!r} cannot be read") from error
        return keys, Identity(name, mailbox=row[1], uid=row[2], gid=row[3])

    def users(self) -> list[Identity]:
        """All users, in the order of their names."""
        with self._open() as connection:
            rows = connection.execute("select name, mailbox, uid, gid from users order by name").fetchall()
        return [Identity(name, mailbox=mailbox, uid=uid, gid=gid) for name, mailbox, uid, gid in rows]

    def add(
        self, name: str, password: Secret, *, mailbox: str = "", uid: int | None = None, gid: int | None = None
    ) -> None:
        """Add a user. Raises `UserExists`, and `ValueError` for a name or password that cannot be one."""
        row = (checked_name(name), _new_keys(password), _checked_mailbox(mailbox), uid, gid)
        with self._open(writes=True) as connection:
            try:
                connection.execute("insert into users values (?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError as error:
                raise UserExists(name) from error

    def set_password(self, name: str, password: Secret) -> None:
        """Give a user another password. Raises `NoSuchUser`, and `ValueError` for what can be no password."""
        keys = _new_keys(password)
        with self._open(writes=True) as connection:
            if not connection.execute("update users set keys = ? where name = ?", (keys, name)).rowcount:
                raise NoSuchUser(name)

    def remove(self, name: str) -> None:
        """Remove a user; the mail stays. Raises `NoSuchUser`."""
        with self._open(writes=True) as connection:
            if not connection.execute("delete from users where name = ?", (name,)).rowcount:
                raise NoSuchUser(name)

    def verify(self, name: str, password: Secret) -> Identity | None:
        """The user, if that is the password. Takes as long for a user who does not exist."""
        prepared = saslprep(name, stored=False)
        found = self.find(prepared) if prepared else None
        secret = self.salt_secret()
        keys = found[0] if found is not None else keys_of_nobody(name, secret, ITERATIONS)
        return found[1] if matches(password, keys) and found is not None else None


class SQLiteStore(CredentialStore):
    """The store at `path`. Raises `StoreUnavailable` if it cannot be read."""

    mechanisms = ("SCRAM-SHA-256", "LOGIN", "PLAIN", "EXTERNAL", "ANONYMOUS")
    iterations = ITERATIONS

    def __init__(self, path: str) -> None:
        self._database = UserDatabase(path)
        self.salt_secret = self._database.salt_secret()

    async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
        """Derives the keys anew."""
        return await Thread(self._database.verify, username, password, deadline=asker.deadline)

    async def find_keys(self, username: str, hash_name: str, asker: Asker = NOBODY) -> ScramKeys | None:
        """Keys of SHA-256; there are no others."""
        found = await Thread(self._database.find, username, deadline=asker.deadline)
        return found[0] if found is not None and found[0].hash_name == hash_name else None

    async def look_up(self, name: str, asker: Asker = NOBODY) -> Identity | None:
        """The user of exactly that name."""
        prepared = saslprep(name, stored=False)
        found = await Thread(self._database.find, prepared, deadline=asker.deadline) if prepared else None
        return found[1] if found is not None else None


def checked_name(name: str) -> str:
    """`name` as users will send it. Raises `ValueError` for one that cannot be sent, or would be two things at once."""
    prepared = saslprep(name, stored=True)
    if not prepared or len(name.encode()) > 255:
        raise ValueError("a user name has 1 to 255 octets, and no control characters")
    if prepared != name:
        raise ValueError(f"write the name as {prepared!r}: clients and servers make that of it (SASLprep, RFC 4013)")
    if "/" in name or ":" in name or name.startswith(".") or name != name.strip():
        raise ValueError("a user name has no slash, no colon, no dot in front and no blanks around it")
    return name


def _checked_mailbox(mailbox: str) -> str:
    if not all(c.isprintable() for c in mailbox):
        raise ValueError("a mailbox has no control characters in its name")
    return mailbox


def _new_keys(password: Secret) -> str:
    try:
        return derive_keys(password, os.urandom(SALT_SIZE), ITERATIONS).encode().reveal().decode("ascii")
    except LocalProtocolError as error:
        raise ValueError("a password is not empty, is UTF-8, and has no control characters") from error


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(path))
