"""require-auth: no mail before authentication."""

from mailfront_io.plugin import Kind, Plugin, Response, Setting
from mailfront_io.session import Path


class RequireAuth(Plugin):
    """Refuses every sender until the client has authenticated or ``$RELAYCLIENT`` is set."""

    name = "require-auth"
    settings = (Setting("RELAYCLIENT", Kind.TEXT, "set, even to nothing: needs no authentication"),)

    def sender(self, path: Path) -> Response | None:
        """530 (RFC 4954 section 6)."""
        if self.session.authenticated or self.session.getenv("RELAYCLIENT") is not None:
            return None
        return Response(530, "5.7.1 You must authenticate first.")
