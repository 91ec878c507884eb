"""XCLIENT: a proxy of ours says for which client it speaks (Postfix's extension, documented in its XCLIENT_README).

``XCLIENT ATTRIBUTE=VALUE…``, values in xtext. Whoever may say this can claim any address and any login, so the
machine knows the command only while ``machine.offers_xclient`` is set.
"""

import re
from typing import Final

from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.smtp import xtext
from mailfront_proto.smtp.addresses import is_ipv4, is_ipv6
from mailfront_proto.smtp.events import Unavailable, Xclient

XCLIENT_ATTRIBUTES: Final = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
"""The attributes that are understood, as the capability line names them."""

_NAME: Final = compile_later(r"[!-~]{1,255}\Z")
_PORT: Final = compile_later(r"[0-9]{1,5}\Z", re.ASCII)
_UNAVAILABLE: Final = {kind.value: kind for kind in Unavailable}


class XclientError(ValueError):
    """An attribute that is unknown, malformed or repeated, or none at all."""


def parse_xclient(argument: bytes) -> Xclient:
    """The event that `argument`, what follows the verb, stands for. Raises `XclientError`."""
    event = Xclient()
    seen: set[str] = set()
    try:
        for word in argument.decode("ascii").split():
            name, equals, value = word.partition("=")
            name = name.upper()
            if not equals or name not in XCLIENT_ATTRIBUTES or name in seen:
                raise XclientError(word)
            seen.add(name)
            unavailable = _UNAVAILABLE.get(value.upper())
            setattr(event, name.lower(), unavailable or _read(name, xtext.decode_text(value)))
    except XclientError:
        raise
    except ValueError as error:
        raise XclientError(str(error)) from error
    if not seen:
        raise XclientError("no attribute")
    return event


def _read(name: str, text: str) -> str | int:
    """The value of the attribute `name`."""
    if name in ("PORT", "DESTPORT"):
        if _PORT.match(text) and int(text) < 65536:
            return int(text)
    elif name in ("ADDR", "DESTADDR"):
        prefixed = text[:5].upper() == "IPV6:"
        address = text[5:] if prefixed else text
        if is_ipv6(address.encode()) or (not prefixed and is_ipv4(address.encode())):
            return address
    elif name == "PROTO":
        if text.upper() in ("SMTP", "ESMTP"):
            return text.upper()
    elif name == "LOGIN":
        if 0 < len(text) <= 255:
            return text
    elif _NAME.match(text):
        return text
    raise XclientError(f"{name}={text}")
