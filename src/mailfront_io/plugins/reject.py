"""reject: turn a client away at MAIL."""

from mailfront_io.plugin import Kind, Plugin, Response, Setting
from mailfront_io.session import Path

USUAL_TEXT = "You are not allowed to use this mail server."


class Reject(Plugin):
    """With ``$SMTPREJECT`` or ``$REJECT`` set every sender is refused."""

    name = "reject"
    settings = (
        Setting("SMTPREJECT", Kind.TEXT, "refuse every sender with this text; in front a - makes it permanent"),
        Setting("REJECT", Kind.TEXT, "the same, when SMTPREJECT is unset"),
    )

    def sender(self, path: Path) -> Response | None:
        """451, or 553 with a leading ``-``."""
        text = self.session.getenv("SMTPREJECT")
        if text is None:
            text = self.session.getenv("REJECT")
        if text is None:
            return None
        code = 553 if text.startswith("-") else 451
        return Response(code, text.removeprefix("-") or USUAL_TEXT)
