"""accept-domains: the domains that this host takes mail for (not in the original)."""

from mailfront_io.plugin import ACCEPT, Kind, Plugin, Response, Setting
from mailfront_io.session import Path, fold


class AcceptDomains(Plugin):
    """Accepts every sender, and the recipients in ``$ACCEPT_DOMAINS``; says nothing of the others."""

    name = "accept-domains"
    settings = (
        Setting("ACCEPT_DOMAINS", Kind.LIST, "domains to take mail for, whole and without case", "none"),
    )

    _text: str | None = None
    _domains: frozenset[str] = frozenset()
    """What that text lists."""

    def sender(self, path: Path) -> Response:
        """Any sender may write to our own domains."""
        return ACCEPT

    def recipient(self, path: Path) -> Response | None:
        """Accepts the domains listed."""
        text = self.session.getenv("ACCEPT_DOMAINS")
        if text is not self._text:
            self._text = text
            self._domains = frozenset(fold(text or "").split(":")) - {""}
        _, at, domain = path.address.rpartition("@")
        return ACCEPT if at and (domain in self._domains or fold(domain) in self._domains) else None
