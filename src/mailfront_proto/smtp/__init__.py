"""SMTP (RFC 5321) and LMTP (RFC 2033), both roles, as machines without I/O.

The server role begins at `SMTPServer`, the client role at `SMTPClient`. The machines are imported when they are
first used: programs that are started for each connection have no use for the client, nor those of other protocols for
the server.
"""

from typing import TYPE_CHECKING

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
    Unavailable,
    VendorCommand,
    Verify,
    VerifyPassword,
    Xclient,
)
from mailfront_proto.smtp.parameters import BodyType, MailOptions, Notify, RecipientOptions, Return
from mailfront_proto.smtp.profile import COMPAT, DEFAULT, Limits, LineEnds, Profile
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.states import State

if TYPE_CHECKING:
    from mailfront_proto.smtp.capabilities import Capabilities
    from mailfront_proto.smtp.client import SMTPClient
    from mailfront_proto.smtp.client_events import (
        Authenticated,
        AuthenticationFailed,
        ClientEvent,
        Greeting,
        HelloDone,
        MessageDone,
        ReadyForBody,
        ReadyForTLS,
        RecipientResult,
        ReplyReceived,
        Stage,
    )
    from mailfront_proto.smtp.server import SMTPServer

_LATER = {
    "SMTPServer": "server",
    "Capabilities": "capabilities",
    "SMTPClient": "client",
    **dict.fromkeys(
        (
            "Authenticated",
            "AuthenticationFailed",
            "ClientEvent",
            "Greeting",
            "HelloDone",
            "MessageDone",
            "ReadyForBody",
            "ReadyForTLS",
            "RecipientResult",
            "ReplyReceived",
            "Stage",
        ),
        "client_events",
    ),
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
        globals()[name] = value
        return value


__all__ = [
    "COMPAT",
    "DEFAULT",
    "NEED_DATA",
    "PAUSED",
    "Address",
    "AddressError",
    "AddressSyntax",
    "Authenticated",
    "AuthenticationFailed",
    "Body",
    "BodyType",
    "Capabilities",
    "ClientEvent",
    "Connected",
    "ConnectionClosed",
    "Data",
    "Event",
    "Greeting",
    "HelloDone",
    "Helo",
    "Help",
    "Limits",
    "LineEnds",
    "LocalProtocolError",
    "Mail",
    "MailOptions",
    "MessageDone",
    "MessageEnd",
    "MessageRefused",
    "Notify",
    "Profile",
    "ProtocolError",
    "Quit",
    "ReadyForBody",
    "ReadyForTLS",
    "Recipient",
    "RecipientOptions",
    "RecipientResult",
    "Refused",
    "RemoteProtocolError",
    "Reply",
    "ReplyReceived",
    "Reset",
    "Return",
    "SMTPClient",
    "SMTPServer",
    "Secret",
    "Stage",
    "StartTLS",
    "State",
    "Unavailable",
    "VendorCommand",
    "Verify",
    "VerifyPassword",
    "Xclient",
]
