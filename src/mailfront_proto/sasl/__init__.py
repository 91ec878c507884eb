"""SASL (RFC 4422): one file a mechanism, both roles, and the exchange that SMTP, POP3 and IMAP share."""

from mailfront_proto.sasl.exchange import Aborted, ServerExchange, Undecodable
from mailfront_proto.sasl.login import LoginClient, LoginServer
from mailfront_proto.sasl.mechanism import (
    Challenge,
    ClientMechanism,
    Malformed,
    PasswordRequest,
    ServerMechanism,
    Step,
)
from mailfront_proto.sasl.plain import PlainClient, PlainServer

__all__ = [
    "Aborted",
    "Challenge",
    "ClientMechanism",
    "LoginClient",
    "LoginServer",
    "Malformed",
    "PasswordRequest",
    "PlainClient",
    "PlainServer",
    "ServerExchange",
    "ServerMechanism",
    "Step",
    "Undecodable",
]
