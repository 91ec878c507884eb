"""authenticate: SMTP AUTH against a credential store (RFC 4954)."""

from collections.abc import Sequence

from mailfront_io.auth import offer
from mailfront_io.plugin import Kind, Plugin, Setting


class Authenticate(Plugin):
    """Offers what the store can serve; mechanisms that show the password to whoever listens only under TLS, unless
    told. The front end asks the store."""

    name = "authenticate"
    settings = (
        Setting("AUTH_STORE", Kind.TEXT, "where users are looked up: KIND:NAME", required=True),
        *offer.SETTINGS,
        offer.ANONYMOUS,
    )

    def mechanisms(self) -> Sequence[str]:
        """Those of the session's store."""
        return offer.offered_mechanisms(self.session)

    def helo(self, host: str, capabilities: list[str]) -> None:
        """Lists AUTH at the plugin's place."""
        mechanisms = self.mechanisms()
        if mechanisms and not (self.session.authenticated or self.session.anonymous):
            capabilities.append("AUTH " + " ".join(mechanisms))
