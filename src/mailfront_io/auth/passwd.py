"""A password file: users as lines of text, which other programs may write.

::

    ann:{SCRAM-SHA-256}SCRAM-SHA-256$15000:SALT$STORED-KEY:SERVER-KEY
    bob:{PBKDF2-SHA256}15000$SALT$KEY:1000:1000:Bob::/home/bob:/bin/sh
    eve:{PLAIN}secret

A line is ``name:{SCHEME}secret`` and may go on as in ``/etc/passwd``: user id, group id, real name, directory, shell,
each of which may be empty. Salts and keys are base64. What a scheme's secret holds of colons is part of it: SCRAM keys
have one, a plain password may have none. Hashes of ``crypt`` are not known, for Python has none.
"""

import hashlib
import hmac
import re
from typing import Final

from mailfront_io.auth.derivation import TURNSTILE, matches
from mailfront_io.auth.store import NOBODY, Asker, CredentialStore, Identity
from mailfront_io.ops import Thread
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.record import record
from mailfront_proto.sasl.base64_line import decode_base64
from mailfront_proto.sasl.scram_keys import ScramKeys
from mailfront_proto.secret import Secret

_LINE: Final = re.compile(
    r"(?P<name>[^:\x00-\x1f\x7f]+):"
    r"\{(?P<scheme>SCRAM-SHA-256|PBKDF2-SHA256|PLAIN)\}"
    r"(?P<secret>SCRAM-SHA-256\$[0-9]{1,9}:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+"
    r"|[^:]+)"
    r"(?::(?P<uid>[0-9]{0,10}))?(?::(?P<gid>[0-9]{0,10}))?(?::(?P<real_name>[^:]*))?"
    r"(?::(?P<directory>[^:]*))?(?::(?P<shell>[^:]*))?\Z",
    re.ASCII,
)
_PBKDF2: Final = re.compile(rb"([1-9][0-9]{0,7})\$([A-Za-z0-9+/=]{1,256})\$([A-Za-z0-9+/=]{1,256})\Z")


@record(frozen=True)
class Hashed:
    """``{PBKDF2-SHA256}``."""

    iterations: int
    salt: bytes
    key: Secret


@record(frozen=True)
class Entry:
    """A user: exactly one of `keys`, `hashed` and `plain` is there."""

    identity: Identity
    keys: ScramKeys | None = None
    hashed: Hashed | None = None
    plain: Secret | None = None


class PasswdStore(CredentialStore):
    """The file at `path`, read once. SCRAM is offered if every user has SCRAM keys of one iteration count, and CRAM-MD5
    can be if every password is plain. Raises `OSError`, or `ValueError` naming file and line, never what is in it."""

    def __init__(self, path: str) -> None:
        self._users: dict[str, Entry] = {}
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                line = line.removesuffix("\n")
                if not line.strip() or line.startswith("#"):
                    continue
                entry = _parse(line)
                if entry is None or entry.identity.username in self._users:
                    raise ValueError(
                        f"{path}, line {number}: write name:{{SCHEME}}secret with SCRAM-SHA-256, PBKDF2-SHA256 or "
                        "PLAIN for the scheme, and every name once"
                    )
                self._users[entry.identity.username] = entry
        entries = self._users.values()
        counts = {entry.keys.iterations for entry in entries if entry.keys is not None}
        self.mechanisms = ("LOGIN", "PLAIN")
        if len(counts) == 1 and all(entry.keys is not None for entry in entries):
            self.mechanisms = ("SCRAM-SHA-256", *self.mechanisms)
        if all(entry.plain is not None for entry in entries):
            self.weak_mechanisms = ("CRAM-MD5",)
        self.iterations = max(counts, default=CredentialStore.iterations)
        hashed = {entry.hashed.iterations for entry in entries if entry.hashed is not None}
        self._cost = max(counts | hashed, default=0)
        self.salt_secret = _secret_of(path)

    async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
        """By the user's scheme; whoever it is, it takes as long as the dearest scheme of the file."""
        if not self._cost:
            return self._verify(username, password)
        return await Thread(self._verify, username, password, deadline=asker.deadline)

    def _verify(self, username: str, password: Secret) -> Identity | None:
        entry = self._users.get(username)
        proven, spent = False, 0
        if entry is None:
            pass
        elif entry.plain is not None:
            proven = entry.plain == password
        elif entry.keys is not None:
            proven, spent = matches(password, entry.keys), entry.keys.iterations
        elif entry.hashed is not None:
            proven, spent = _matches(password, entry.hashed), entry.hashed.iterations
        if spent < self._cost:
            TURNSTILE.call(hashlib.pbkdf2_hmac, "sha256", b"nobody", b"nobody", self._cost - spent)
        return entry.identity if proven and entry is not None else None

    async def verify_response(
        self, username: str, challenge: bytes, digest: bytes, asker: Asker = NOBODY
    ) -> Identity | None:
        """Keys the challenge with the user's plain password, or with one that nobody has."""
        entry = self._users.get(username)
        plain = entry.plain.reveal() if entry is not None and entry.plain is not None else b"\0"
        same = hmac.compare_digest(hmac.digest(plain, challenge, "md5"), digest)
        return entry.identity if same and entry is not None and entry.plain is not None else None

    async def find_keys(self, username: str, hash_name: str, asker: Asker = NOBODY) -> ScramKeys | None:
        """The keys of a ``{SCRAM-SHA-256}`` line."""
        entry = self._users.get(username)
        return entry.keys if entry is not None and entry.keys is not None and hash_name == "sha256" else None

    async def look_up(self, name: str, asker: Asker = NOBODY) -> Identity | None:
        """The line of that name."""
        entry = self._users.get(name)
        return entry.identity if entry is not None else None


def _parse(line: str) -> Entry | None:
    match = _LINE.match(line)
    if match is None:
        return None
    identity = Identity(
        match["name"],
        uid=int(match["uid"]) if match["uid"] else None,
        gid=int(match["gid"]) if match["gid"] else None,
        real_name=match["real_name"] or "",
        directory=match["directory"] or "",
        shell=match["shell"] or "",
    )
    secret = match["secret"].encode()
    if match["scheme"] == "PLAIN":
        return Entry(identity, plain=Secret(secret))
    if match["scheme"] == "SCRAM-SHA-256":
        try:
            return Entry(identity, keys=ScramKeys.decode(Secret(secret)))
        except LocalProtocolError:
            return None
    parts = _PBKDF2.match(secret)
    salt, key = (decode_base64(parts[2]), decode_base64(parts[3])) if parts is not None else (None, None)
    if parts is None or not salt or not key or len(key) < 16:
        return None
    return Entry(identity, hashed=Hashed(int(parts[1]), salt, Secret(key)))


def _matches(password: Secret, hashed: Hashed) -> bool:
    size = len(hashed.key.reveal())
    key = TURNSTILE.call(
        hashlib.pbkdf2_hmac, "sha256", password.reveal(), hashed.salt, hashed.iterations, size
    )
    return Secret(key) == hashed.key


def _secret_of(path: str) -> Secret:
    """Made of what the file holds, so that every process has the same; who cannot read the file cannot know it. (Salts
    of users who do not exist change with the file.)"""
    with open(path, "rb") as file:
        return Secret(hmac.digest(hashlib.sha256(file.read()).digest(), b"salts of nobody", "sha256"))
