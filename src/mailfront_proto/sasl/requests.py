"""What a SASL exchange asks of the application: the same events in SMTP, POP3 and IMAP.

Each **owes an answer**. ``machine.accept()`` says yes, and the client is authenticated then; ``machine.reply(…)`` says
no, in the protocol's own words. `FindKeys` alone is answered with ``machine.supply_keys(…)``, and the exchange goes
on. No event of this file shows a secret when it is printed.
"""

from typing import TYPE_CHECKING

from mailfront_proto.pull import Event
from mailfront_proto.record import record
from mailfront_proto.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping


@record
class Request(Event):
    """Base class of the requests.

    `mechanism`: the name of the SASL mechanism in upper case, `sent_mechanism` as the client wrote it. Two logins stand
    beside SASL: POP3's USER and PASS, where both are ``USER``, and IMAP's LOGIN command, where they are ``LOGIN`` and
    empty. `username`: who the client is, or says that it is.
    """

    mechanism: str
    sent_mechanism: str
    username: str


@record
class VerifyPassword(Request):
    """PLAIN, LOGIN, POP3's PASS, IMAP's LOGIN: is `password` that of `username`?

    `username`: the authentication identity; `authorization_identity`: the identity to act as, empty when none was
    sent. Both as sent, valid UTF-8, without control bytes. An authorization identity that differs from the user name
    is refused before this event, unless ``ServerOptions.allows_authorization_identity`` says otherwise.

    ``accept()`` authenticates; ``reply()`` with a permanent error fails it, with a temporary one says that the check
    itself failed.
    """

    password: Secret
    authorization_identity: str


@record
class VerifyResponse(Request):
    """CRAM-MD5 (RFC 2195): does `digest` (16 octets, secret: who has both can try passwords) answer `challenge`
    (octets, as sent) for `username`?

    Either ``matches(password)`` says so, where the password can be had, or a credential validation module is asked
    with challenge and digest. Answered as `VerifyPassword`.
    """

    challenge: bytes
    digest: Secret

    def matches(self, password: Secret) -> bool:
        """Whether the digest is that of the user's `password`; compared in constant time."""
        from mailfront_proto.sasl.cram_md5 import keyed_digest

        return Secret(keyed_digest(password, self.challenge)) == self.digest


@record
class VerifyToken(Request):
    """OAUTHBEARER (RFC 7628) and XOAUTH2: is `token` good for a login as `username`?

    `username`: who the client says that it is; may be empty in OAUTHBEARER, and the token alone tells then. If it is
    not empty, **compare it with the user that the token was made for**. `properties`: what OAUTHBEARER sends besides,
    such as ``host`` and ``port`` of the server that the client meant to reach (RFC 7628 section 3.1).

    Answered as `VerifyPassword`; behind a permanent error the client is told why first (RFC 7628 section 3.2.2), by
    the machine.
    """

    token: Secret
    properties: "Mapping[str, str]"


@record
class FindKeys(Request):
    """SCRAM (RFC 5802): the keys that are stored for `username` (prepared with SASLprep) and `mechanism`.

    Answer with ``machine.supply_keys(keys)``, a `ScramKeys`; None if there is no such user or no such keys: the
    exchange goes on with made-up ones and fails as with a wrong password. ``machine.reply()`` with a temporary error
    says that the store cannot be asked now.

    `hash_name`: ``sha1`` or ``sha256``, as `hashlib` has it. `authorization_identity`: as in `VerifyPassword`.
    """

    hash_name: str
    authorization_identity: str


@record
class Authorize(Request):
    """The mechanism has established who the client is: may it in? SCRAM, EXTERNAL, ANONYMOUS.

    `username`: the identity (SCRAM: whose keys were proven; EXTERNAL: the one that the application gave in
    ``ServerOptions.external_identity``; ANONYMOUS: empty); `authorization_identity`: as in `VerifyPassword`;
    `trace`: what an anonymous client says of itself (RFC 4505), to log and nothing else.

    ``accept()`` authenticates, ``reply()`` refuses.
    """

    authorization_identity: str
    trace: str = ""
