"""ESMTP parameters of MAIL and RCPT (RFC 5321 section 4.1.2), checked against what was advertised."""

import re
from collections.abc import Callable, Collection

from mailfront_proto.smtp.answers import BAD_PARAMETER, REPEATED_PARAMETER, TOO_BIG, UNKNOWN_PARAMETER
from mailfront_proto.smtp.replies import Reply

# esmtp-keyword [ "=" esmtp-value ], RFC 5321 section 4.1.2; a value is any CHAR but "=", SP and controls
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?\Z", re.ASCII)
_SIZE = re.compile(r"[0-9]{1,20}\Z", re.ASCII)  # RFC 1870 section 4: up to 20 digits
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+\Z", re.ASCII)  # RFC 3461 section 4

def _is_size(value: str) -> bool:
    return _SIZE.match(value) is not None


def _is_body(value: str) -> bool:
    return value.upper() in ("7BIT", "8BITMIME")  # RFC 6152 section 3


def _is_mailbox(value: str) -> bool:
    return value == "<>" or _XTEXT.match(value) is not None  # RFC 4954 section 5


# keyword -> whether a value is good; the keyword is offered by the capability of the same line
_MAIL_VALUES: dict[str, tuple[str, Callable[[str], bool]]] = {
    "SIZE": ("SIZE", _is_size),
    "BODY": ("8BITMIME", _is_body),
    "AUTH": ("AUTH", _is_mailbox),
}


def check_parameters(
    verb: str, parameters: list[str], advertised: Collection[str], message_size: int | None
) -> Reply | None:
    """The reply that refuses `parameters` of `verb` (``MAIL`` or ``RCPT``), or None.

    `advertised`: the capability keywords that the client has been told. `message_size`: the SIZE limit.
    """
    seen: set[str] = set()
    for parameter in parameters:
        match = _PARAMETER.match(parameter)
        if match is None:
            return BAD_PARAMETER
        keyword, value = match[1].upper(), match[2]
        capability, is_good = _MAIL_VALUES.get(keyword, ("", None)) if verb == "MAIL" else ("", None)
        if is_good is None or capability not in advertised:
            return UNKNOWN_PARAMETER
        if keyword in seen:
            return REPEATED_PARAMETER
        seen.add(keyword)
        if value is None or not is_good(value):
            return BAD_PARAMETER
        if keyword == "SIZE" and message_size is not None and int(value) > message_size:
            return TOO_BIG
    return None
