"""The server side of an exchange, as SMTP (RFC 4954), POP3 (RFC 5034) and IMAP (RFC 9051) carry it:
base64 lines, ``*`` to cancel, ``=`` for an empty initial response."""

import binascii
import re

from mailfront_proto.record import record
from mailfront_proto.sasl.mechanism import Malformed, ServerMechanism, Step

# RFC 4648 section 4, padding required. Spare bits that are not zero pass (section 3.5 allows it).
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\Z")

MAX_DECODED = 9216
"""Octets of a decoded response: 12,288 of base64 with CRLF (RFC 4954 section 4) hold no more."""


def encode_base64(data: bytes) -> bytes:
    """Base64 on one line, without a line end."""
    return binascii.b2a_base64(data, newline=False)


@record
class Aborted:
    """The client cancelled the exchange: a line that begins with ``*``, or an empty one."""


@record
class Undecodable:
    """The line is not base64."""


def decode_base64(data: bytes) -> bytes | None:
    """Strict base64; None for anything else (blanks, a lone ``=``, a wrong length, too much)."""
    if _BASE64.match(data) is None:
        return None
    decoded = binascii.a2b_base64(data)
    return decoded if len(decoded) <= MAX_DECODED else None


class ServerExchange:
    """One exchange with `mechanism`, over the lines that the protocol carries.

    Call `start`, then `line` for each line while the last step was a `Challenge`; a `PasswordRequest` is
    the application's to answer, anything else has failed.
    """

    def __init__(self, mechanism: ServerMechanism) -> None:
        self._mechanism = mechanism

    def start(self, initial_response: bytes | None) -> Step | Undecodable:
        """`initial_response` as sent: base64, ``=`` for an empty one (RFC 4954 section 4), None for none."""
        if initial_response is None:
            return self._mechanism.start(None)
        decoded = b"" if initial_response == b"=" else decode_base64(initial_response)
        return Undecodable() if decoded is None else self._mechanism.start(decoded)

    def line(self, line: bytes) -> Step | Aborted | Undecodable:
        """The answer to a challenge, without its line end."""
        if not line or line.startswith(b"*"):
            return Aborted()
        decoded = decode_base64(line)
        return Undecodable() if decoded is None else self._mechanism.respond(decoded)


__all__ = ["Aborted", "Malformed", "ServerExchange", "Undecodable", "decode_base64", "encode_base64"]
