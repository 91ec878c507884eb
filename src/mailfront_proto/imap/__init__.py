"""IMAP (RFC 9051, RFC 3501) up to the login, both roles, as machines without I/O.

The server role begins at `IMAPServer`, the client role at `IMAPClient`. The client's names are imported when they are
first used: a server that is started for each connection has no use for them.
"""

from typing import TYPE_CHECKING

from mailfront_proto.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from mailfront_proto.imap.events import Answered, Connected, ConnectionClosed, HandOver, Identified, StartTLS
from mailfront_proto.imap.profile import COMPAT, DEFAULT, Limits, Profile
from mailfront_proto.imap.replies import Reply
from mailfront_proto.imap.server import IMAPServer
from mailfront_proto.imap.states import State
from mailfront_proto.pull import NEED_DATA, PAUSED, Event
from mailfront_proto.sasl.options import ServerOptions
from mailfront_proto.sasl.requests import Request, VerifyPassword
from mailfront_proto.secret import Secret

if TYPE_CHECKING:
    from mailfront_proto.imap.client import IMAPClient
    from mailfront_proto.imap.client_events import (
        Authenticated,
        AuthenticationFailed,
        CapabilityDone,
        ClientEvent,
        Greeting,
        IdDone,
        Notice,
        ReadyForTLS,
        ReplyReceived,
    )
else:
    _CLIENT_EVENTS = frozenset(
        (
            *("Authenticated", "AuthenticationFailed", "CapabilityDone", "ClientEvent", "Greeting", "IdDone", "Notice"),
            *("ReadyForTLS", "ReplyReceived"),
        )
    )

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name != "IMAPClient" and name not in _CLIENT_EVENTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"{__name__}.{'client' if name == 'IMAPClient' else 'client_events'}")
        return getattr(module, name)


__all__ = [
    "COMPAT",
    "DEFAULT",
    "NEED_DATA",
    "PAUSED",
    "Answered",
    "Authenticated",
    "AuthenticationFailed",
    "CapabilityDone",
    "ClientEvent",
    "Connected",
    "ConnectionClosed",
    "Event",
    "Greeting",
    "HandOver",
    "IMAPClient",
    "IMAPServer",
    "IdDone",
    "Identified",
    "Limits",
    "LocalProtocolError",
    "Notice",
    "Profile",
    "ProtocolError",
    "ReadyForTLS",
    "RemoteProtocolError",
    "Reply",
    "ReplyReceived",
    "Request",
    "Secret",
    "ServerOptions",
    "StartTLS",
    "State",
    "VerifyPassword",
]
