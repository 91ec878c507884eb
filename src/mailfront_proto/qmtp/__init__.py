"""QMTP, both roles, as machines without I/O. The server role begins at `QMTPServer`, the client role at `QMTPClient`,
which is imported when it is first used. What QMQP shares with QMTP is here, too."""

from typing import TYPE_CHECKING

from mailfront_proto.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from mailfront_proto.pull import NEED_DATA, PAUSED, Event
from mailfront_proto.qmtp.events import (
    Body,
    ConnectionClosed,
    MessageEnd,
    MessageRefused,
    MessageStart,
    Package,
    Recipient,
    Sender,
)
from mailfront_proto.qmtp.package import State
from mailfront_proto.qmtp.profile import COMPAT, DEFAULT, Limits, Profile
from mailfront_proto.qmtp.server import QMTPServer
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.replies import Reply

if TYPE_CHECKING:
    from mailfront_proto.qmtp.client import QMTPClient
    from mailfront_proto.smtp.client_events import MessageDone, RecipientResult, Stage
else:

    def __getattr__(name: str) -> object:
        if name not in ("MessageDone", "QMTPClient", "RecipientResult", "Stage"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mailfront_proto.qmtp import client

        return getattr(client, name)


__all__ = [
    "COMPAT",
    "DEFAULT",
    "NEED_DATA",
    "PAUSED",
    "Address",
    "Body",
    "ConnectionClosed",
    "Event",
    "Limits",
    "LocalProtocolError",
    "MessageDone",
    "MessageEnd",
    "MessageRefused",
    "MessageStart",
    "Package",
    "Profile",
    "ProtocolError",
    "QMTPClient",
    "QMTPServer",
    "Recipient",
    "RecipientResult",
    "RemoteProtocolError",
    "Reply",
    "Sender",
    "Stage",
    "State",
]
