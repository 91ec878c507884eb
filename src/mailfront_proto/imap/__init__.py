"""IMAP (RFC 9051, RFC 3501) up to the login, both roles, as machines without I/O.

The server role begins at `IMAPServer`, the client role at `IMAPClient`. The client's names are imported when they are
first used: a server that is started for each connection has no use for them.
"""

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

__all__ = [
    "COMPAT",
    "DEFAULT",
    "NEED_DATA",
    "PAUSED",
    "Answered",
    "Connected",
    "ConnectionClosed",
    "Event",
    "HandOver",
    "IMAPServer",
    "Identified",
    "Limits",
    "LocalProtocolError",
    "Profile",
    "ProtocolError",
    "RemoteProtocolError",
    "Reply",
    "Request",
    "Secret",
    "ServerOptions",
    "StartTLS",
    "State",
    "VerifyPassword",
]
