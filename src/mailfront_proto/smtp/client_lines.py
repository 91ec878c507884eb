"""Command lines as a client sends them. Here, and only here, arguments become bytes of the connection.

Strategy: what is no argument is refused before anything is sent, with `LocalProtocolError`: no control
character (RFC 5321 section 4.1.2 has none in any argument), so that an argument can neither end its command
nor start another; no byte of 128 or above unless SMTPUTF8 was asked for; no parameter that our own server would not
read; no line that is too long.
"""

import re
from typing import Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.smtp import xtext
from mailfront_proto.smtp.addresses import Address, AddressError
from mailfront_proto.smtp.capabilities import Capabilities
from mailfront_proto.smtp.events import Unavailable, Xclient
from mailfront_proto.smtp.parameters import MailOptions, RecipientOptions, Registered
from mailfront_proto.smtp.xclient import XCLIENT_ATTRIBUTES, XclientError, parse_xclient

MAX_COMMAND_LINE: Final = 4096
"""Bytes of a command line, CRLF included: what our own server takes. RFC 5321 section 4.5.3.1.4 sets 512,
and every extension adds to it; servers refuse what is too long for them."""

MAX_AUTH_LINE: Final = 12288
"""Bytes of a line in an AUTH exchange, CRLF included (RFC 4954 section 4)."""

MAX_XCLIENT_LINE: Final = 512
"""Bytes of an XCLIENT command, CRLF included: it extends no limit."""

_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


def command_line(verb: str, line: bytes, *, utf8: bool = False, limit: int = MAX_COMMAND_LINE) -> bytes:
    """`line` with its CRLF, if it is one line."""
    if _CONTROL.search(line):
        raise LocalProtocolError(
            f"{verb}: an argument holds CR, LF, NUL or another control character, which could end the "
            "command and start another; take it out, or refuse the message"
        )
    if not utf8 and not line.isascii():
        raise LocalProtocolError(
            f"{verb}: an argument is not ASCII; a server that offers SMTPUTF8 takes it "
            "behind mail(…, MailOptions(smtputf8=True))"
        )
    if len(line) + 2 > limit:
        raise LocalProtocolError(f"{verb}: a line of {len(line) + 2} bytes is over {limit}: shorten it")
    return line + b"\r\n"


def envelope_line(verb: str, address: Address, options: MailOptions | RecipientOptions, utf8: bool) -> bytes:
    """``MAIL FROM:<…>`` or ``RCPT TO:<…>`` and its parameters, with CRLF."""
    words = [b"MAIL FROM:" if verb == "MAIL" else b"RCPT TO:"]
    words[0] += address.path()
    for parameter in _printed(verb, options):
        words.append(parameter.encode("utf-8", "surrogateescape"))
    return command_line(verb, b" ".join(words), utf8=utf8)


def _printed(verb: str, options: MailOptions | RecipientOptions) -> list[str]:
    """The parameters that `options` stand for, if they are good ones."""
    said: object = options
    try:
        parameters = options.parameters()
        if parameters:
            said = " ".join(parameters)
            type(options).parse(parameters, registered={keyword.upper(): Registered() for keyword, _ in options.others})
    except ValueError as error:  # `ParameterError` is one
        raise LocalProtocolError(
            f"{verb}: {said!r} cannot be sent, no server would understand it ({error}): see what each field may hold"
        ) from None
    return parameters


def to_address(address: Address | str) -> Address:
    """An address that may have been written as text; empty text is the null path."""
    if isinstance(address, Address):
        return address
    try:
        return Address.from_str(address)
    except AddressError as error:
        raise LocalProtocolError(f"{address!r} is no address ({error.reply.text})") from None


def xclient_line(attributes: Xclient, capabilities: Capabilities) -> bytes:
    """``XCLIENT NAME=VALUE …`` with CRLF, the values in xtext; an IPv6 address with its tag in front."""
    offered = [name.upper() for name in capabilities.get("XCLIENT", ())]
    words = []
    for name in XCLIENT_ATTRIBUTES:
        value = getattr(attributes, name.lower())
        if value is None:
            continue
        if name not in offered:
            known = " ".join(offered) or "no XCLIENT"
            raise LocalProtocolError(f"xclient(): the server offers {known}, not {name}: leave it out")
        text = value.value if isinstance(value, Unavailable) else str(value)
        if name.endswith("ADDR") and ":" in text:
            text = "IPV6:" + text
        words.append(f"{name}={xtext.encode(text.encode('utf-8', 'surrogateescape'))}")
    argument = " ".join(words).encode("ascii")
    try:
        parse_xclient(argument)
    except XclientError as error:
        raise LocalProtocolError(
            f"xclient(): {attributes!r} cannot be sent, no server would understand it ({error}): see what each "
            "attribute may hold"
        ) from None
    return command_line("XCLIENT", b"XCLIENT " + argument, limit=MAX_XCLIENT_LINE)
