"""A password file: users as lines of text, which other programs may write.

::

    ann:{SCRAM-SHA-256}SCRAM-SHA-256$15000:SALT$STORED-KEY:SERVER-KEY
    bob:{PBKDF2-SHA256}15000$SALT$KEY:1000:1000:Bob::/home/bob:/bin/sh
    eve:{PLAIN}secret
    ann:{TOKEN-SHA256}DIGEST

A line is ``name:{SCHEME}secret`` and may go on as in ``/etc/passwd``: user id, group id, real name, directory, shell,
each of which may be empty. Salts and keys are base64. What a scheme's secret holds of colons is part of it: SCRAM keys
have one, a plain password may have none. Hashes of ``crypt`` are not known, for Python has none.

A user has one password, and bearer tokens besides or instead, each in a line of its own: the SHA-256 of the token, in
hexadecimal. That is enough, for nobody can guess a token. A token's line that ends with it takes what the password's
says of the user: above all whether it is the superuser, who may not in.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Final

from mailfront_io.auth.derivation import TURNSTILE, matches
from mailfront_io.auth.store import LARGEST_ID, NOBODY, Asker, CredentialStore, Identity
from mailfront_io.ops import Thread
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.record import record
from mailfront_proto.sasl.base64_line import decode_base64
from mailfront_proto.sasl.scram_keys import SALT_SIZE, ScramKeys
from mailfront_proto.secret import Secret

_LINE: Final = re.compile(
    r"(?P<name>[^:\x00-\x1f\x7f]+):"
    r"\{(?P<scheme>SCRAM-SHA-256|SCRAM-SHA-1|PBKDF2-SHA256|PLAIN|TOKEN-SHA256)\}"
    r"(?P<secret>SCRAM-SHA-(?:256|1)\$[0-9]{1,9}:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+"
    r"|[^:]+)"
    r"(?::(?P<uid>[0-9]{0,10}))?(?::(?P<gid>[0-9]{0,10}))?(?::(?P<real_name>[^:]*))?"
    r"(?::(?P<directory>[^:]*))?(?::(?P<shell>[^:]*))?\Z",
    re.ASCII,
)
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}\Z")
_PBKDF2: Final = re.compile(rb"([1-9][0-9]{0,7})\$([A-Za-z0-9+/=]{1,256})\$([A-Za-z0-9+/=]{1,256})\Z")


@record(frozen=True)
class Hashed:
    """``{PBKDF2-SHA256}``."""

    iterations: int
    salt: bytes
    key: Secret

    @property
    def cost(self) -> int:
        """Iterations for the whole key: they are made anew for each 32 octets of it."""
        return self.iterations * -(-len(self.key.reveal()) // hashlib.sha256().digest_size)


@record(frozen=True)
class Entry:
    """A line: exactly one of `keys`, `hashed`, `plain` and `token` is there."""

    identity: Identity
    keys: ScramKeys | None = None
    hashed: Hashed | None = None
    plain: Secret | None = None
    token: bytes | None = None
    """The digest of a bearer token."""


class PasswdStore(CredentialStore):
    """The file at `path`, read once. SCRAM is offered if every password is SCRAM keys of one iteration count and hash
    with salts of 16 octets, CRAM-MD5 can be if every password is plain, and OAUTHBEARER and XOAUTH2 are if somebody has
    a token. Raises `OSError`, or `ValueError` naming file and line, never what is in it."""

    def __init__(self, path: str) -> None:
        self._users: dict[str, Entry] = {}
        self._tokens: dict[bytes, Identity] = {}
        self._holders: dict[str, Identity] = {}
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                line = line.removesuffix("\n")
                if not line.strip() or line.startswith("#"):
                    continue
                entry = _parse(line)
                if entry is None or not self._add(entry):
                    raise ValueError(
                        f"{path}, line {number}: write name:{{SCHEME}}secret with SCRAM-SHA-256, SCRAM-SHA-1, "
                        "PBKDF2-SHA256 or PLAIN for the scheme, and every name once; or TOKEN-SHA256, and every token "
                        "once"
                    )
        entries = self._users.values()
        counts = {entry.keys.iterations for entry in entries if entry.keys is not None}
        hashes = {entry.keys.hash_name if entry.keys is not None else "" for entry in entries}
        salts = {len(entry.keys.salt) for entry in entries if entry.keys is not None}
        if "sha1" in hashes and len(hashes) > 1:  # the time that a failure takes would tell who exists
            raise ValueError(f"{path}: SCRAM-SHA-1 is the scheme of all passwords, or of none: make the others anew")
        passwords: Sequence[str] = ("LOGIN", "PLAIN") if self._users or not self._tokens else ()
        if len(counts) == 1 and len(hashes) == 1 and salts == {SALT_SIZE}:  # as that of who does not exist
            passwords = ("SCRAM-SHA-1" if "sha1" in hashes else "SCRAM-SHA-256", *passwords)
        tokens = ("OAUTHBEARER", "XOAUTH2") if self._tokens else ()
        self.mechanisms = (*passwords, *tokens, "EXTERNAL", "ANONYMOUS")
        if passwords and all(entry.plain is not None for entry in entries):
            self.weak_mechanisms = ("CRAM-MD5",)
        self.iterations = max(counts, default=CredentialStore.iterations)
        hashed = {entry.hashed.cost for entry in entries if entry.hashed is not None}
        self._cost = max(counts | hashed, default=0)
        self._cost_hash = "sha1" if "sha1" in hashes else "sha256"
        self.salt_secret = _secret_of(path)
        for digest, holder in self._tokens.items():  # a line that tells no facts of its holder leaves them to the other
            if holder == Identity(holder.username) and holder.username in self._users:
                self._tokens[digest] = self._users[holder.username].identity

    def _add(self, entry: Entry) -> bool:
        """Whether it is the first of its kind."""
        name = entry.identity.username
        if entry.token is not None:
            self._holders.setdefault(name, entry.identity)
            return self._tokens.setdefault(entry.token, entry.identity) is entry.identity
        return self._users.setdefault(name, entry) is entry

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
            proven, spent = _matches(password, entry.hashed), entry.hashed.cost
        if spent < self._cost:
            TURNSTILE.call(hashlib.pbkdf2_hmac, self._cost_hash, b"nobody", b"nobody", self._cost - spent)
        return entry.identity if proven and entry is not None else None

    async def verify_response(
        self, username: str, challenge: bytes, digest: bytes, asker: Asker = NOBODY
    ) -> Identity | None:
        """Keys the challenge with the user's plain password, or with one that nobody has."""
        entry = self._users.get(username)
        plain = entry.plain.reveal() if entry is not None and entry.plain is not None else b"\0"
        same = hmac.compare_digest(hmac.digest(plain, challenge, "md5"), digest)
        return entry.identity if same and entry is not None and entry.plain is not None else None

    async def verify_token(
        self, username: str, token: Secret, properties: Mapping[str, str], asker: Asker = NOBODY
    ) -> Identity | None:
        """The line with its digest. How long the search takes tells of digests only, of which none can be chosen."""
        return self._tokens.get(hashlib.sha256(token.reveal()).digest())

    async def find_keys(self, username: str, hash_name: str, asker: Asker = NOBODY) -> ScramKeys | None:
        """The keys of a line with that hash."""
        entry = self._users.get(username)
        keys = entry.keys if entry is not None else None
        return keys if keys is not None and keys.hash_name == hash_name else None

    async def look_up(self, name: str, asker: Asker = NOBODY) -> Identity | None:
        """The line of that name: that of the password, else the first with a token."""
        entry = self._users.get(name)
        return entry.identity if entry is not None else self._holders.get(name)


def _parse(line: str) -> Entry | None:
    match = _LINE.match(line)
    if match is None:
        return None
    if any(int(match[name] or 0) > LARGEST_ID for name in ("uid", "gid")):
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
    if match["scheme"] == "TOKEN-SHA256":
        return Entry(identity, token=bytes.fromhex(match["secret"])) if _DIGEST.match(match["secret"]) else None
    if match["scheme"].startswith("SCRAM-"):
        if not match["secret"].startswith(match["scheme"] + "$"):
            return None
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
