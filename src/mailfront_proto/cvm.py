"""CVM, the credential validation modules: the packets of version 1 and 2 of the protocol, both roles.

A client asks a module about an account: `CVMRequest.encode`, then `CVMResponse.parse`, or `CVMResponse.of_command`
for a module that is a program, whose exit status counts. A module reads `CVMRequest.parse` and answers
`CVMResponse.encode`. How packets travel (a pipe, a local socket, UDP), how often one is sent and which module is asked
next is not known here. In short::

    version 2 request    2, length and random bytes, credentials as (number, length, data), 0
    version 2 response   code, the same random bytes, facts as (number, length, data), 0
    version 1 request    1, account NUL, domain NUL, credentials NUL each, NUL
    version 1 response   code, facts as (number, data NUL), NUL

Lengths are exact: what is too long is refused, never wrapped into further credentials, and nothing may follow the end.
"""

from enum import Enum, IntEnum
from typing import Final

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.record import record
from mailfront_proto.secret import Secret

MAX_PACKET: Final = 512
"""Octets of a packet, either way. Read one more, to tell that there are more."""

MAX_VALUE: Final = 255
"""Octets of a value: its length is one octet. (Facts in version 1 have no length; only the packet bounds them.)"""

_CONTROL: Final = compile_later(rb"[\x00-\x1f\x7f]")
_CONTROL_BUT_TAB: Final = compile_later(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NUMBER: Final = compile_later(rb"(?:0|[1-9][0-9]{0,9})\Z")


class Credential(IntEnum):
    """The numbers of what a request says."""

    ACCOUNT = 1
    DOMAIN = 2
    PASSWORD = 3
    SECRET = 4
    CHALLENGE = 5
    RESPONSE = 6
    RESPONSE_TYPE = 7


class Fact(IntEnum):
    """The numbers of what a module knows of an account. From 128 on they are for local use."""

    USERNAME = 1
    USER_ID = 2
    GROUP_ID = 3
    REAL_NAME = 4
    DIRECTORY = 5
    SHELL = 6
    GROUP_NAME = 7
    SUPPLEMENTARY_GROUP_ID = 8
    """May be repeated; the others may not."""
    SYSTEM_USERNAME = 9
    SYSTEM_DIRECTORY = 10
    OFFICE_LOCATION = 11
    WORK_PHONE = 12
    HOME_PHONE = 13
    DOMAIN = 14
    MAILBOX = 15
    OUT_OF_SCOPE = 16
    """With a refusal: 1 if the account is none of this module's."""


class Code(IntEnum):
    """The codes of a response. Those that are not here are temporary errors, too."""

    SUCCESS = 0
    GENERAL = 1
    BAD_CLIENT_DATA = 2
    BAD_MODULE_DATA = 3
    IO = 4
    NO_FACT = 5
    CONFIGURATION = 6
    NO_CREDENTIAL = 7
    REFUSED = 100


class Verdict(Enum):
    """What a response comes to."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """The credentials are wrong, or they are the superuser's, who logs in nowhere."""
    OUT_OF_SCOPE = "out of scope"
    """Refused by a module that does not know such accounts: another one may."""
    UNAVAILABLE = "unavailable"
    """A temporary error: nobody can say now."""


@record(frozen=True)
class CVMRequest:
    """What a module is asked. None: this credential is not given (in `domain`, too).

    `account`, `domain`: octets without control bytes (`split_account` makes both of a login name); modules of ours take
    no empty account.
    `password`: to be compared. `challenge`, `response`, `response_type`: in place of it; for CRAM-MD5 the challenge as
    sent, the digest's 16 octets, and ``CRAM-MD5``. `secret`: what client and module share, for modules that look
    accounts up without a password. `random_bytes`: octets of chance, repeated in the response (version 2): 8 where the
    module is asked by UDP, otherwise none. `version`: 2, or 1.
    """

    account: bytes
    domain: bytes | None = None
    password: Secret | None = None
    secret: Secret | None = None
    challenge: bytes | None = None
    response: Secret | None = None
    response_type: bytes | None = None
    random_bytes: bytes = b""
    version: int = 2

    def encode(self) -> bytes:
        """The packet. It may hold a password: show it nowhere.

        Raises `LocalProtocolError`, without showing what, for a value of more than 255 octets, a packet of more than
        512, control bytes in account or domain, NUL in a secret, and what version 1 cannot say.
        """
        values = _values(self)
        if _CONTROL.search(self.account) or _CONTROL.search(self.domain or b""):
            raise LocalProtocolError("CVMRequest: no control byte is in account or domain")
        if any(secret is not None and b"\0" in secret.reveal() for secret in (self.password, self.secret)):
            raise LocalProtocolError("CVMRequest: a secret holds a NUL, at which modules would end it")
        if self.version == 2:
            return _packet(2, self.random_bytes, values)
        return self._encode_1()

    def _encode_1(self) -> bytes:
        if self.version != 1 or self.random_bytes or self.secret is not None:
            raise LocalProtocolError("CVMRequest: the version is 2, or 1, which has no random bytes and no secret")
        given = [self.password.reveal()] if self.password is not None else []
        given += [self.challenge] if self.challenge is not None else []
        given += [self.response.reveal()] if self.response is not None else []
        values = [self.account, self.domain or b"", *given]
        if any(b"\0" in value or len(value) > MAX_VALUE for value in values) or b"" in given:
            raise LocalProtocolError("CVMRequest: in version 1 values have no NUL, and an empty one would end the list")
        return _bounded(b"\1" + b"".join(value + b"\0" for value in values) + b"\0")

    @classmethod
    def parse(cls, packet: bytes) -> "CVMRequest | None":
        """What a client asks; None for a packet that is malformed in any way: answer `Code.BAD_CLIENT_DATA` then.

        In version 1 one credential is the password, two are challenge and response. Credentials with unknown numbers
        are left out.
        """
        if not 2 <= len(packet) <= MAX_PACKET:
            return None
        request = cls._parse_1(packet) if packet[0] == 1 else cls._parse_2(packet) if packet[0] == 2 else None
        if request is None or not request.account:
            return None
        if _CONTROL.search(request.account) or _CONTROL.search(request.domain or b""):
            return None
        if any(secret is not None and b"\0" in secret.reveal() for secret in (request.password, request.secret)):
            return None
        return request

    @classmethod
    def _parse_1(cls, packet: bytes) -> "CVMRequest | None":
        account, *rest = packet[1:].split(b"\0")
        # The list ends in an empty string, and nothing follows.
        if len(rest) < 3 or rest[-2:] != [b"", b""] or b"" in rest[1:-2] or len(rest) > 5:
            return None
        domain, *given = rest[:-2]
        if any(len(value) > MAX_VALUE for value in (account, domain, *given)):
            return None
        if len(given) == 2:
            return cls(account, domain, challenge=given[0], response=Secret(given[1]), version=1)
        return cls(account, domain, Secret(given[0]) if given else None, version=1)

    @classmethod
    def _parse_2(cls, packet: bytes) -> "CVMRequest | None":
        parsed = _tagged(packet)
        if parsed is None:
            return None
        random_bytes, pairs = parsed
        values = dict(pairs)
        if len(values) != len(pairs) or Credential.ACCOUNT not in values:
            return None

        def secret(number: Credential) -> Secret | None:
            return Secret(values[number]) if number in values else None

        return cls(
            values[Credential.ACCOUNT],
            values.get(Credential.DOMAIN),
            secret(Credential.PASSWORD),
            secret(Credential.SECRET),
            values.get(Credential.CHALLENGE),
            secret(Credential.RESPONSE),
            values.get(Credential.RESPONSE_TYPE),
            random_bytes,
        )


@record(frozen=True)
class CVMResponse:
    """What a module answers. `code`: a `Code`, or another temporary error from 1 to 255. `facts`: (number, value) each,
    in any order; `Fact` has the numbers."""

    code: int
    facts: tuple[tuple[int, bytes], ...] = ()

    @property
    def verdict(self) -> Verdict:
        """What it comes to. Raises `RemoteProtocolError` as `number` does."""
        if self.code == Code.SUCCESS:
            return Verdict.REFUSED if self.number(Fact.USER_ID) == 0 else Verdict.ACCEPTED
        if self.code == Code.REFUSED:
            return Verdict.OUT_OF_SCOPE if 1 in self.numbers(Fact.OUT_OF_SCOPE) else Verdict.REFUSED
        return Verdict.UNAVAILABLE

    @property
    def in_scope(self) -> bool:
        """Whether a refusal is the module's last word: it says that the account is one of its own. Otherwise the next
        module is asked, if there is one."""
        return 0 in self.numbers(Fact.OUT_OF_SCOPE)

    def text(self, fact: Fact) -> str | None:
        """A fact as text, what is no UTF-8 as surrogate escapes; None if it is not there."""
        return next((value.decode("utf-8", "surrogateescape") for number, value in self.facts if number == fact), None)

    def number(self, fact: Fact) -> int | None:
        """A fact as a number; None if it is not there. Raises `RemoteProtocolError` if it is none that fits 32 bits."""
        return next(iter(self.numbers(fact)), None)

    def numbers(self, fact: Fact) -> list[int]:
        """Every number of a fact that may be repeated. Raises as `number` does."""
        found = [value for number, value in self.facts if number == fact]
        if any(_NUMBER.match(value) is None or int(value) > 0xFFFFFFFF for value in found):
            raise RemoteProtocolError(f"the module's fact {fact.name} is no number")
        return [int(value) for value in found]

    def encode(self, request: CVMRequest | None) -> bytes:
        """The packet that answers `request`; None for a request that could not be read.

        Raises `LocalProtocolError` for what does not fit, and for NUL in a fact.
        """
        if not 0 <= self.code <= 255 or not all(1 <= number <= 255 for number, _ in self.facts):
            raise LocalProtocolError("CVMResponse: the code is 0 to 255, the number of a fact 1 to 255")
        if any(b"\0" in value for _, value in self.facts):
            raise LocalProtocolError("CVMResponse: a fact holds a NUL")
        if request is None or request.version == 2:
            return _packet(self.code, b"" if request is None else request.random_bytes, list(self.facts))
        return _bounded(bytes([self.code]) + b"".join(b"%c%s\0" % fact for fact in self.facts) + b"\0")

    @classmethod
    def parse(cls, packet: bytes, request: CVMRequest) -> "CVMResponse":
        """The answer to `request`.

        Raises `RemoteProtocolError` for a packet that is malformed or does not repeat the random bytes. By UDP such a
        one is not the answer: wait on. Of the facts of an error only those count that say "out of scope".
        """
        if not 1 <= len(packet) <= MAX_PACKET:
            raise RemoteProtocolError(f"the module's answer has {len(packet)} octets, not 1 to {MAX_PACKET}")
        parsed = _tagged(packet) if request.version == 2 else _strings(packet)
        chance = bytes([len(request.random_bytes)]) + request.random_bytes
        if request.version == 2 and Secret(packet[1 : 1 + len(chance)]) != Secret(chance):
            raise RemoteProtocolError("the module's answer does not repeat the random bytes of the request")
        if parsed is None and (request.version == 2 or packet[0] == Code.SUCCESS):
            raise RemoteProtocolError("the module's answer is malformed")
        facts = parsed[1] if parsed is not None else []  # an error of version 1 may be its code alone
        if packet[0] != Code.SUCCESS:
            said = [fact for fact in facts if fact[0] == Fact.OUT_OF_SCOPE and _NUMBER.match(fact[1])]
            return cls(packet[0], tuple(said))
        once = [number for number, _ in facts if number != Fact.SUPPLEMENTARY_GROUP_ID and number < 128]
        if len(set(once)) != len(once):
            raise RemoteProtocolError("the module's answer has a fact twice")
        if any(_CONTROL_BUT_TAB.search(value) for _, value in facts):
            raise RemoteProtocolError("a fact in the module's answer holds a control byte")
        return cls(Code.SUCCESS, tuple(facts))

    @classmethod
    def of_command(cls, output: bytes, status: int, request: CVMRequest) -> "CVMResponse":
        """The answer of a module that is a program: what it has written, and its exit status (below 0: the signal that
        ended it), which takes the place of the code. No output, a crash, or nonsense: `Code.IO`."""
        if not output or not 0 <= status <= 255:
            return cls(Code.IO)
        try:
            return cls.parse(bytes([status]) + output[1:], request)
        except RemoteProtocolError:
            return cls(Code.IO)


def split_account(name: str, characters: str = "@", default_domain: str = "") -> tuple[bytes, bytes]:
    """Account and domain of a login name, split at the last of `characters` that is in it; `default_domain` where none
    is. With no characters nothing is split."""
    at = max((name.rfind(character) for character in characters), default=-1)
    account, domain = (name, default_domain) if at < 0 else (name[:at], name[at + 1 :])
    return account.encode("utf-8", "surrogateescape"), domain.encode("utf-8", "surrogateescape")


def _values(request: CVMRequest) -> list[tuple[int, bytes]]:
    """The credentials that are given, empty ones among them."""
    given = (
        (Credential.ACCOUNT, request.account),
        (Credential.DOMAIN, request.domain),
        (Credential.PASSWORD, request.password),
        (Credential.SECRET, request.secret),
        (Credential.CHALLENGE, request.challenge),
        (Credential.RESPONSE, request.response),
        (Credential.RESPONSE_TYPE, request.response_type),
    )
    return [
        (number, value.reveal() if isinstance(value, Secret) else value) for number, value in given if value is not None
    ]


def _packet(first: int, random_bytes: bytes, pairs: list[tuple[int, bytes]]) -> bytes:
    """A packet of version 2."""
    if len(random_bytes) > MAX_VALUE or any(len(value) > MAX_VALUE for _, value in pairs):
        raise LocalProtocolError(f"CVM: a value has more than {MAX_VALUE} octets; refuse the login")
    tagged = b"".join(bytes([number, len(value)]) + value for number, value in pairs)
    return _bounded(bytes([first, len(random_bytes)]) + random_bytes + tagged + b"\0")


def _bounded(packet: bytes) -> bytes:
    if len(packet) > MAX_PACKET:
        raise LocalProtocolError(f"CVM: a packet has {len(packet)} octets, more than {MAX_PACKET}; refuse the login")
    return packet


def _tagged(packet: bytes) -> tuple[bytes, list[tuple[int, bytes]]] | None:
    """The random bytes and the tagged values of version 2; None if they do not end exactly with the packet."""
    if len(packet) < 3:
        return None
    at = 2 + packet[1]
    random_bytes, pairs = packet[2:at], []
    while at < len(packet) and packet[at]:
        end = at + 2 + packet[at + 1] if at + 1 < len(packet) else len(packet)
        pairs.append((packet[at], packet[at + 2 : end]))
        at = end
    return (random_bytes, pairs) if at == len(packet) - 1 else None


def _strings(packet: bytes) -> tuple[bytes, list[tuple[int, bytes]]] | None:
    """The facts of a version 1 response."""
    facts = packet[1:].split(b"\0")
    # The list ends in an empty string, and nothing follows.
    if facts[-2:] != [b"", b""] or b"" in (facts := facts[:-2]):
        return None
    return b"", [(fact[0], fact[1:]) for fact in facts]
