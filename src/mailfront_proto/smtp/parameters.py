"""ESMTP parameters of MAIL and RCPT (RFC 5321 section 4.1.2), as values: read, checked and printed.

Strategy: one table for MAIL and one for RCPT say, for each keyword, which field it fills, which capability must
have been offered for it, and how its value is read. `MailOptions.parse` and `RecipientOptions.parse` go over the
words of a command once. What is wrong raises `ParameterError`, which carries the reply that the peer deserves.
Keywords of your own are `Registered`, and what came for them is in ``others``. (`xtext` is imported where it is
needed: most sessions have no use for it, and a server that is started for each connection pays for every import.)
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.record import record
from mailfront_proto.smtp.addresses import Address, AddressError
from mailfront_proto.smtp.answers import BAD_PARAMETER, REPEATED_PARAMETER, UNKNOWN_PARAMETER
from mailfront_proto.smtp.replies import Reply


class ParameterError(ValueError):
    """A parameter that is unknown, malformed or repeated; `reply` is the answer to send."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class BodyType(Enum):
    """BODY= of MAIL: what the message may hold."""

    SEVEN_BIT = "7BIT"
    """Lines of ASCII (RFC 6152 section 3): what a MAIL without BODY= says."""
    EIGHT_BIT_MIME = "8BITMIME"
    """Lines of any bytes (RFC 6152)."""
    BINARY_MIME = "BINARYMIME"
    """Any bytes, in lines or not; sent with BDAT only (RFC 3030 section 3)."""


class Return(Enum):
    """RET= of MAIL: how much of the message a report of failure brings back (RFC 3461 section 4.3)."""

    FULL = "FULL"
    """All of it."""
    HEADERS = "HDRS"
    """Its header."""


class Notify(Enum):
    """NOTIFY= of RCPT: what is reported to the sender (RFC 3461 section 4.1)."""

    NEVER = "NEVER"
    """Nothing; stands alone."""
    SUCCESS = "SUCCESS"
    """That it was delivered."""
    FAILURE = "FAILURE"
    """That it was not."""
    DELAY = "DELAY"
    """That it takes longer than usual."""


NULL_SUBMITTER: Final = "<>"
"""``AUTH=<>`` (RFC 4954 section 5): who submitted the message is not known, or not to be trusted."""


@record(frozen=True)
class Registered:
    """A parameter of your own. `capability`: what must be offered in EHLO for it, in upper case; empty: nothing.
    `check`: whether a value is good; it gets None for a parameter without ``=``. Default: everything is."""

    capability: str = ""
    check: Callable[[str | None], bool] | None = None


@record(frozen=True)
class MailOptions:
    """What the parameters of a MAIL say. A field that is None (or false) was not given.

    `size`: SIZE=, octets of the message (RFC 1870). `body`: BODY= (RFC 6152, RFC 3030). `smtputf8`: SMTPUTF8, the
    envelope or the header may hold UTF-8 (RFC 6531). `auth`: AUTH=, the submitter's mailbox decoded, or
    `NULL_SUBMITTER` (RFC 4954 section 5). `ret` and `envid`: RET=, and ENVID= decoded (RFC 3461). `require_tls`:
    REQUIRETLS, it may travel over verified TLS only (RFC 8689). `others`: (keyword in upper case, value or None) of
    each parameter that the application has registered, in order.
    """

    size: int | None = None
    body: BodyType | None = None
    smtputf8: bool = False
    auth: str | None = None
    ret: Return | None = None
    envid: str | None = None
    require_tls: bool = False
    others: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def parse(
        cls,
        parameters: Sequence[str],
        offered: Collection[str] | None = None,
        registered: Mapping[str, Registered] | None = None,
    ) -> "MailOptions":
        """Read `parameters`, each ``KEY`` or ``KEY=VALUE``. `offered`: the capability keywords, in upper case, that
        the client was told; None: all there are. `registered`: keywords of your own, in upper case. Raises
        `ParameterError`."""
        return cls(**_read(_MAIL, parameters, offered, registered or {})) if parameters else NO_MAIL_OPTIONS

    def with_auth(self, auth: str | None) -> "MailOptions":
        """These options with another submitter."""
        return MailOptions(
            self.size, self.body, self.smtputf8, auth, self.ret, self.envid, self.require_tls, self.others
        )

    def parameters(self) -> list[str]:
        """As MAIL takes them; `parse` reads it back."""
        from mailfront_proto.smtp import xtext

        words = []
        if self.size is not None:
            words.append(f"SIZE={self.size:d}")
        if self.body is not None:
            words.append(f"BODY={self.body.value}")
        if self.smtputf8:
            words.append("SMTPUTF8")
        if self.auth is not None:
            submitter = self.auth if self.auth == NULL_SUBMITTER else xtext.encode(self.auth.encode())
            words.append(f"AUTH={submitter}")
        if self.ret is not None:
            words.append(f"RET={self.ret.value}")
        if self.envid is not None:
            words.append(f"ENVID={xtext.encode(self.envid.encode())}")
        if self.require_tls:
            words.append("REQUIRETLS")
        return words + _others(self.others)


@record(frozen=True)
class RecipientOptions:
    """What the parameters of a RCPT say. A field that is None was not given.

    `notify`: NOTIFY=, at least one of `Notify`. `orcpt`: ORCPT=, the original recipient as (type of address, address
    decoded), the type as it came, ``rfc822`` or ``utf-8`` (RFC 6533) nearly always. `others`: as in `MailOptions`.
    """

    notify: frozenset[Notify] | None = None
    orcpt: tuple[str, str] | None = None
    others: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def parse(
        cls,
        parameters: Sequence[str],
        offered: Collection[str] | None = None,
        registered: Mapping[str, Registered] | None = None,
    ) -> "RecipientOptions":
        """As `MailOptions.parse`. A value with UTF-8 in it is read only where SMTPUTF8 is in `offered`."""
        return cls(**_read(_RCPT, parameters, offered, registered or {})) if parameters else NO_RECIPIENT_OPTIONS

    def parameters(self) -> list[str]:
        """As RCPT takes them; `parse` reads it back. ORCPT is written in ASCII, whatever it holds."""
        from mailfront_proto.smtp import xtext

        words = []
        if self.notify is not None:
            words.append("NOTIFY=" + ",".join(kind.value for kind in Notify if kind in self.notify))
        if self.orcpt is not None:
            kind, address = self.orcpt
            text = xtext.encode_unicode(address) if kind.lower() == "utf-8" else xtext.encode(address.encode())
            words.append(f"ORCPT={kind};{text}")
        return words + _others(self.others)


NO_MAIL_OPTIONS: Final = MailOptions()
NO_RECIPIENT_OPTIONS: Final = RecipientOptions()

# -- how a command's words are read ----------------------------------------------------------------------

# esmtp-keyword [ "=" esmtp-value ], RFC 5321 section 4.1.2; a value is any CHAR but "=", SP and controls, and with
# SMTPUTF8 any other character as well (RFC 6531 section 3.3). (No class here names characters beyond Latin-1: to
# compile one takes milliseconds.)
_PARAMETER = compile_later(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20=\x7f-\x9f]+))?\Z")

_Reader = Callable[[str | None], object]


def _read(
    table: "Mapping[str, tuple[str, Collection[str], _Reader]]",
    parameters: Sequence[str],
    offered: Collection[str] | None,
    registered: Mapping[str, Registered],
) -> dict[str, Any]:
    """The fields that `parameters` fill."""
    fields: dict[str, Any] = {}
    others: list[tuple[str, str | None]] = []
    seen: set[str] = set()
    for parameter in parameters:
        match = _PARAMETER.match(parameter)
        if match is None or not (parameter.isascii() or (_is_utf8(parameter) and _is_among("SMTPUTF8", offered))):
            raise ParameterError(BAD_PARAMETER)
        keyword, value = match[1].upper(), match[2]
        own = registered.get(keyword)
        field, capabilities, read = table.get(keyword, ("", (), None))
        if own is not None:
            known = not own.capability or _is_among(own.capability, offered)
        else:
            known = read is not None and any(_is_among(name, offered) for name in capabilities)
        if not known:
            raise ParameterError(UNKNOWN_PARAMETER)
        if keyword in seen:
            raise ParameterError(REPEATED_PARAMETER)
        seen.add(keyword)
        if own is not None:
            if own.check is not None and not own.check(value):
                raise ParameterError(BAD_PARAMETER)
            others.append((keyword, value))
            continue
        assert read is not None
        try:
            fields[field] = read(value)
        except ValueError:
            raise ParameterError(BAD_PARAMETER) from None
    if fields.get("body") is BodyType.BINARY_MIME and not _is_among("BINARYMIME", offered):
        raise ParameterError(BAD_PARAMETER)
    if others:
        fields["others"] = tuple(others)
    return fields


def _is_among(capability: str, offered: Collection[str] | None) -> bool:
    return offered is None or capability in offered


def _is_utf8(text: str) -> bool:
    """Whether there are no surrogate escapes in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _others(others: tuple[tuple[str, str | None], ...]) -> list[str]:
    return [keyword if value is None else f"{keyword}={value}" for keyword, value in others]


# -- how their values are read ---------------------------------------------------------------------------

_SIZE = compile_later(r"[0-9]{1,20}\Z", re.ASCII)  # RFC 1870 section 4: up to 20 digits
_ADDRESS_TYPE = compile_later(r"[A-Za-z0-9!#$%&'*/?^_`{|}~-]+\Z", re.ASCII)  # an atom, RFC 3461 section 4.2
_PRINTABLE = compile_later(r"[ -~]+\Z")


def _size(value: str | None) -> int:
    if value is None or not _SIZE.match(value):
        raise ValueError
    return int(value)


def _word(value: str | None) -> str:
    """`value` in upper case; only ASCII folds: a long s is no S."""
    if value is None or not value.isascii():
        raise ValueError
    return value.upper()


def _body(value: str | None) -> BodyType:
    return BodyType(_word(value))


def _flag(value: str | None) -> bool:
    if value is not None:
        raise ValueError
    return True


def _submitter(value: str | None) -> str:
    """RFC 4954 section 5: a mailbox in xtext, or ``<>``."""
    from mailfront_proto.smtp import xtext

    if value is None:
        raise ValueError
    mailbox = xtext.decode_text(value)
    if mailbox == NULL_SUBMITTER:
        return mailbox
    try:
        if Address.from_str(mailbox).is_null:
            raise ValueError
    except AddressError as error:
        raise ValueError from error
    return mailbox


def _ret(value: str | None) -> Return:
    return Return(_word(value))


def _envid(value: str | None) -> str:
    """RFC 3461 section 4.4: at most 100 characters; decoded, printable ASCII and nothing else."""
    from mailfront_proto.smtp import xtext

    if value is None or len(value) > 100:
        raise ValueError
    decoded = xtext.decode_text(value)
    if not _PRINTABLE.match(decoded):
        raise ValueError
    return decoded


def _notify(value: str | None) -> frozenset[Notify]:
    """RFC 3461 section 4.1."""
    kinds = frozenset(Notify(word) for word in _word(value).split(","))
    if Notify.NEVER in kinds and len(kinds) > 1:
        raise ValueError
    return kinds


def _orcpt(value: str | None) -> tuple[str, str]:
    """RFC 3461 section 4.2: at most 500 characters; RFC 6533 section 3 for the type utf-8."""
    from mailfront_proto.smtp import xtext

    if value is None or len(value) > 500:
        raise ValueError
    kind, semicolon, text = value.partition(";")
    if not semicolon or not _ADDRESS_TYPE.match(kind):
        raise ValueError
    address = xtext.decode_unicode(text) if kind.lower() == "utf-8" else xtext.decode_text(text)
    if not address or (kind.lower() != "utf-8" and not _PRINTABLE.match(address)):
        raise ValueError
    return kind, address


# keyword -> field, the capabilities of which one must be offered, how the value is read
_MAIL: Final[Mapping[str, tuple[str, Collection[str], _Reader]]] = {
    "SIZE": ("size", ("SIZE",), _size),
    "BODY": ("body", ("8BITMIME", "BINARYMIME"), _body),
    "SMTPUTF8": ("smtputf8", ("SMTPUTF8",), _flag),
    "AUTH": ("auth", ("AUTH",), _submitter),
    "RET": ("ret", ("DSN",), _ret),
    "ENVID": ("envid", ("DSN",), _envid),
    "REQUIRETLS": ("require_tls", ("REQUIRETLS",), _flag),
}
_RCPT: Final[Mapping[str, tuple[str, Collection[str], _Reader]]] = {
    "NOTIFY": ("notify", ("DSN",), _notify),
    "ORCPT": ("orcpt", ("DSN",), _orcpt),
}
