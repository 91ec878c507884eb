"""SMTP (RFC 5321) and LMTP (RFC 2033), both roles, as machines without I/O.

The names of the server role are here; the client role is in `mailfront_proto.smtp.client`.
"""

from mailfront_proto.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from mailfront_proto.pull import NEED_DATA, PAUSED
from mailfront_proto.secret import Secret
from mailfront_proto.smtp.addresses import Address, AddressError, AddressSyntax
from mailfront_proto.smtp.events import (
    Body,
    Connected,
    ConnectionClosed,
    Data,
    Event,
    Helo,
    Help,
    Mail,
    MessageEnd,
    MessageRefused,
    Quit,
    Recipient,
    Refused,
    Reset,
    StartTLS,
    VendorCommand,
    Verify,
    VerifyPassword,
)
from mailfront_proto.smtp.profile import COMPAT, DEFAULT, Limits, LineEnds, Profile
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.server import SMTPServer
from mailfront_proto.smtp.states import State

__all__ = [
    "COMPAT",
    "DEFAULT",
    "NEED_DATA",
    "PAUSED",
    "Address",
    "AddressError",
    "AddressSyntax",
    "Body",
    "Connected",
    "ConnectionClosed",
    "Data",
    "Event",
    "Helo",
    "Help",
    "Limits",
    "LineEnds",
    "LocalProtocolError",
    "Mail",
    "MessageEnd",
    "MessageRefused",
    "Profile",
    "ProtocolError",
    "Quit",
    "Recipient",
    "Refused",
    "RemoteProtocolError",
    "Reply",
    "Reset",
    "SMTPServer",
    "Secret",
    "StartTLS",
    "State",
    "VendorCommand",
    "Verify",
    "VerifyPassword",
]
