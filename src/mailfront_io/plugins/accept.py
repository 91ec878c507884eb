"""accept, accept-sender, accept-recipient: take everything, with no text of their own."""

from mailfront_io.plugin import ACCEPT, Plugin, Response
from mailfront_io.session import Path


class AcceptSender(Plugin):
    """Accepts every sender."""

    name = "accept-sender"

    def sender(self, path: Path) -> Response:
        """Yes."""
        return ACCEPT


class AcceptRecipient(Plugin):
    """Accepts every recipient. In front of a relaying backend this makes an open relay."""

    name = "accept-recipient"

    def recipient(self, path: Path) -> Response:
        """Yes."""
        return ACCEPT


class Accept(AcceptSender, AcceptRecipient):
    """Accepts every sender and recipient."""

    name = "accept"
