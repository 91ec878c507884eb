"""relayclient: clients that may send to anywhere."""

from mailfront_io.plugin import ACCEPT, Kind, Plugin, Response, Setting
from mailfront_io.session import Path


class RelayClient(Plugin):
    """Accepts any recipient from a client with ``$RELAYCLIENT`` set, or one that has authenticated."""

    name = "relayclient"
    settings = (
        Setting("RELAYCLIENT", Kind.TEXT, "set, even to nothing: may relay; appended to each recipient"),
    )

    def recipient(self, path: Path) -> Response | None:
        """Appends the suffix and accepts."""
        suffix = self.session.getenv("RELAYCLIENT")
        if suffix is not None:
            path.address += suffix
            return ACCEPT
        return ACCEPT if self.session.authenticated else None
