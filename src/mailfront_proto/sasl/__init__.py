"""SASL (RFC 4422): one file a mechanism, both roles, and the exchanges that SMTP, POP3 and IMAP share.

A server machine is told what to offer with `ServerOptions`, and asks the application with the events of
`mailfront_proto.sasl.requests`. A client machine takes one of the client mechanisms. Who writes a machine begins at
`mailfront_proto.sasl.exchange` or `mailfront_proto.sasl.client_exchange`. All names are imported when they are first
used: no mechanism is, before a client asks for it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailfront_proto.sasl.anonymous import AnonymousClient, AnonymousServer
    from mailfront_proto.sasl.client_exchange import ClientExchange
    from mailfront_proto.sasl.cram_md5 import CramMD5Client, CramMD5Server, random_challenges
    from mailfront_proto.sasl.exchange import ServerExchange
    from mailfront_proto.sasl.external import ExternalClient, ExternalServer
    from mailfront_proto.sasl.login import LoginClient, LoginServer
    from mailfront_proto.sasl.mechanism import Cause, Challenge, ClientMechanism, Failed, ServerMechanism, Step
    from mailfront_proto.sasl.oauthbearer import OAuthBearerClient, OAuthBearerServer
    from mailfront_proto.sasl.options import NOTHING_OFFERED, ServerOptions
    from mailfront_proto.sasl.plain import PlainClient, PlainServer
    from mailfront_proto.sasl.requests import (
        Authorize,
        FindKeys,
        Request,
        VerifyPassword,
        VerifyResponse,
        VerifyToken,
    )
    from mailfront_proto.sasl.scram import ScramClient, ScramServer
    from mailfront_proto.sasl.scram_keys import ScramKeys, derive_keys
    from mailfront_proto.sasl.xoauth2 import XOAuth2Client, XOAuth2Server

_MODULES = {
    **dict.fromkeys(("AnonymousClient", "AnonymousServer"), "anonymous"),
    "ClientExchange": "client_exchange",
    **dict.fromkeys(("CramMD5Client", "CramMD5Server", "random_challenges"), "cram_md5"),
    "ServerExchange": "exchange",
    **dict.fromkeys(("ExternalClient", "ExternalServer"), "external"),
    **dict.fromkeys(("LoginClient", "LoginServer"), "login"),
    **dict.fromkeys(("Cause", "Challenge", "ClientMechanism", "Failed", "ServerMechanism", "Step"), "mechanism"),
    **dict.fromkeys(("OAuthBearerClient", "OAuthBearerServer"), "oauthbearer"),
    **dict.fromkeys(("NOTHING_OFFERED", "ServerOptions"), "options"),
    **dict.fromkeys(("PlainClient", "PlainServer"), "plain"),
    **dict.fromkeys(
        ("Authorize", "FindKeys", "Request", "VerifyPassword", "VerifyResponse", "VerifyToken"), "requests"
    ),
    **dict.fromkeys(("ScramClient", "ScramServer"), "scram"),
    **dict.fromkeys(("ScramKeys", "derive_keys"), "scram_keys"),
    **dict.fromkeys(("XOAuth2Client", "XOAuth2Server"), "xoauth2"),
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


__all__ = [
    "NOTHING_OFFERED",
    "AnonymousClient",
    "AnonymousServer",
    "Authorize",
    "Cause",
    "Challenge",
    "ClientExchange",
    "ClientMechanism",
    "CramMD5Client",
    "CramMD5Server",
    "ExternalClient",
    "ExternalServer",
    "Failed",
    "FindKeys",
    "LoginClient",
    "LoginServer",
    "OAuthBearerClient",
    "OAuthBearerServer",
    "PlainClient",
    "PlainServer",
    "Request",
    "ScramClient",
    "ScramKeys",
    "ScramServer",
    "ServerExchange",
    "ServerMechanism",
    "ServerOptions",
    "Step",
    "VerifyPassword",
    "VerifyResponse",
    "VerifyToken",
    "XOAuth2Client",
    "XOAuth2Server",
    "derive_keys",
    "random_challenges",
]
