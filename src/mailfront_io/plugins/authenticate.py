"""authenticate: SMTP AUTH against a credential store (RFC 4954)."""

from collections.abc import Sequence

from mailfront_io.auth.store import StoreUnavailable
from mailfront_io.plugin import ACCEPT, Kind, Plugin, Response, Setting
from mailfront_io.session import parse_number
from mailfront_proto.smtp.events import VerifyPassword

REFUSED = Response(535, "5.7.8 Authentication failed.")
UNAVAILABLE = Response(454, "4.7.0 Temporary authentication failure")


class Authenticate(Plugin):
    """Offers PLAIN and LOGIN, which show the password to whoever listens, only under TLS, unless told."""

    name = "authenticate"
    settings = (
        Setting("AUTH_STORE", Kind.TEXT, "where users are looked up: static:FILE", required=True),
        Setting("AUTH_REQUIRES_TLS", Kind.NUMBER, "0: offer AUTH without TLS, too", "1"),
    )

    def mechanisms(self) -> Sequence[str]:
        """LOGIN PLAIN, when there is a store and TLS is in use or not asked for."""
        session = self.session
        if session.credentials is None:
            return ()
        allowed_in_clear = parse_number(session.getenv("AUTH_REQUIRES_TLS")) == 0
        return ("LOGIN", "PLAIN") if session.tls is not None or allowed_in_clear else ()

    def helo(self, host: str, capabilities: list[str]) -> None:
        """Lists AUTH at the plugin's place."""
        mechanisms = self.mechanisms()
        if mechanisms and not self.session.authenticated:
            capabilities.append("AUTH " + " ".join(mechanisms))

    async def auth(self, request: VerifyPassword) -> Response:
        """Asks the store. An unknown user and a wrong password get the same answer; a user who maps to
        the superuser is refused whatever the password."""
        session = self.session
        if session.credentials is None:
            return UNAVAILABLE
        try:
            identity = await session.credentials.verify_password(request.username, request.password)
        except StoreUnavailable as error:
            session.log(f"authenticate: {error}")
            return UNAVAILABLE
        if identity is None or identity.uid == 0:
            return REFUSED
        session.strings["auth_user"] = identity.username
        if identity.domain:
            session.strings["auth_domain"] = identity.domain
        if identity.mailbox:
            session.strings["auth_mailbox"] = identity.mailbox
        if identity.uid is not None:
            session.numbers["auth_uid"] = identity.uid
        if identity.gid is not None:
            session.numbers["auth_gid"] = identity.gid
        return ACCEPT
