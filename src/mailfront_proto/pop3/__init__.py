"""POP3 (RFC 1939), both roles, as machines without I/O.

The server role begins at `POP3Server`, the client role at `POP3Client`. The client's names are imported when they are
first used: a server that is started for each connection has no use for them.
"""

from typing import TYPE_CHECKING

from mailfront_proto.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from mailfront_proto.pop3 import answers
from mailfront_proto.pop3.events import (
    Answered,
    Connected,
    ConnectionClosed,
    HandOver,
    OpenMailbox,
    Refused,
    Retrieve,
    StartTLS,
    Update,
)
from mailfront_proto.pop3.profile import COMPAT, DEFAULT, Limits, Profile
from mailfront_proto.pop3.replies import Reply
from mailfront_proto.pop3.server import POP3Server
from mailfront_proto.pop3.states import Mode, State
from mailfront_proto.pull import NEED_DATA, PAUSED, Event
from mailfront_proto.sasl.requests import VerifyPassword
from mailfront_proto.secret import Secret

if TYPE_CHECKING:
    from mailfront_proto.pop3.client import POP3Client
    from mailfront_proto.pop3.client_events import (
        Authenticated,
        AuthenticationFailed,
        CapaDone,
        ClientEvent,
        Greeting,
        MailboxStatus,
        MessageData,
        ReadyForTLS,
        ReplyReceived,
        Sizes,
        UniqueIds,
    )

_CLIENT_MODULES = {
    "POP3Client": "client",
    **dict.fromkeys(
        (
            "Authenticated",
            "AuthenticationFailed",
            "CapaDone",
            "ClientEvent",
            "Greeting",
            "MailboxStatus",
            "MessageData",
            "ReadyForTLS",
            "ReplyReceived",
            "Sizes",
            "UniqueIds",
        ),
        "client_events",
    ),
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in _CLIENT_MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_CLIENT_MODULES[name]}"), name)
        globals()[name] = value
        return value


__all__ = [
    "COMPAT",
    "DEFAULT",
    "NEED_DATA",
    "PAUSED",
    "Answered",
    "Authenticated",
    "AuthenticationFailed",
    "CapaDone",
    "ClientEvent",
    "Connected",
    "ConnectionClosed",
    "Event",
    "Greeting",
    "HandOver",
    "Limits",
    "LocalProtocolError",
    "MailboxStatus",
    "MessageData",
    "Mode",
    "OpenMailbox",
    "POP3Client",
    "POP3Server",
    "Profile",
    "ProtocolError",
    "ReadyForTLS",
    "Refused",
    "RemoteProtocolError",
    "Reply",
    "ReplyReceived",
    "Retrieve",
    "Secret",
    "Sizes",
    "StartTLS",
    "State",
    "UniqueIds",
    "Update",
    "VerifyPassword",
    "answers",
]
