"""check-fqdn: fully qualified addresses only, completed where a default is configured."""

from mailfront_io.plugin import Kind, Plugin, Response, Setting
from mailfront_io.session import Path, fold

NO_DOMAIN = Response(554, "5.1.2 Address is missing a domain name")
NOT_QUALIFIED = Response(554, "5.1.2 Address does not contain a fully qualified domain name")
EMPTY_RECIPIENT = Response(554, "5.1.2 Recipient address may not be empty")
EMPTY_SENDER = Response(554, "5.1.2 Empty sender address prohibited")
WRONG_DOMAIN = Response(554, "5.1.2 Sender contains a disallowed domain")


class CheckFQDN(Plugin):
    """Appends ``@`` and ``$DEFAULTHOST`` to an address without ``@``, ``.`` and ``$DEFAULTDOMAIN`` to a
    domain without dot, and refuses what then is not fully qualified."""

    name = "check-fqdn"
    settings = (
        Setting("DEFAULTHOST", Kind.TEXT, "host name for addresses without one; unset: refuse them"),
        Setting("DEFAULTDOMAIN", Kind.TEXT, "domain for host names without one; unset: refuse them"),
        Setting("SENDER_DOMAINS", Kind.LIST, "the only domains that senders may have", "any"),
    )

    def sender(self, path: Path) -> Response | None:
        """The null sender passes, unless ``$SENDER_DOMAINS`` is set."""
        if path.address:
            response = self._qualify(path)
            if response is not None:
                return response
        domains = self.session.getenv("SENDER_DOMAINS")
        if domains is None:
            return None
        if not path.address:
            return EMPTY_SENDER
        return None if fold(path.domain) in filter(None, fold(domains).split(":")) else WRONG_DOMAIN

    def recipient(self, path: Path) -> Response | None:
        """A recipient may not be empty."""
        return self._qualify(path) if path.address else EMPTY_RECIPIENT

    def _qualify(self, path: Path) -> Response | None:
        local, _, domain = path.address.rpartition("@")
        if not local:  # an @ at the start has no local part in front: no host either
            host = self.session.getenv("DEFAULTHOST")
            if host is None:
                return NO_DOMAIN
            path.address += "@" + host
            domain = path.domain
        if "." not in domain:
            default = self.session.getenv("DEFAULTDOMAIN")
            if default is None:
                return NOT_QUALIFIED
            path.address += "." + default
        return None
