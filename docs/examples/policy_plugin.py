"""A plugin of one's own: asks a policy file whether a sender may write to a recipient.

    POLICY_FILE=policy mailfront serve smtp maildir policy_plugin:Policy

Each line of the file is ``SENDER RECIPIENT VERDICT``, where ``*`` matches anything and the verdict is ``accept``,
``reject`` or ``defer``; the first line that matches decides. The file is read in a thread, since it may lie on a disk
that is slow or far away, and no other session is to wait for that.
"""

from mailfront_io.ops import Thread
from mailfront_io.plugin import ACCEPT, Kind, Plugin, Response, Setting
from mailfront_io.session import Path

REJECTED = Response(550, "5.7.1 Policy says no")
DEFERRED = Response(450, "4.7.1 Policy says not now")
NO_POLICY = Response(451, "4.3.0 The policy cannot be read")

VERDICTS = {"accept": ACCEPT, "reject": REJECTED, "defer": DEFERRED}

Rule = tuple[str, str, str]


class Policy(Plugin):
    """Accepts every sender, and decides on recipients by ``$POLICY_FILE``."""

    name = "policy"
    settings = (Setting("POLICY_FILE", Kind.TEXT, "lines of SENDER RECIPIENT VERDICT", required=True),)

    def sender(self, path: Path) -> Response:
        """The sender alone says nothing; remember who it is."""
        self._sender = path.address.lower()
        return ACCEPT

    async def recipient(self, path: Path) -> Response | None:
        """The verdict of the first rule that matches; None leaves it to the plugins behind this one."""
        name = self.session.getenv("POLICY_FILE")
        if not name:
            return NO_POLICY
        try:
            rules = await Thread(read_rules, name)
        except OSError as error:
            self.session.log(f"policy: {name}: {error.strerror}")
            return NO_POLICY
        recipient = path.address.lower()
        for wanted_sender, wanted_recipient, verdict in rules:
            if wanted_sender in ("*", self._sender) and wanted_recipient in ("*", recipient):
                return VERDICTS.get(verdict, NO_POLICY)
        return None


def read_rules(name: str) -> list[Rule]:
    """The rules in the file; lines of another form are left out."""
    with open(name, encoding="utf-8") as file:
        lines = [line.lower().split() for line in file]
    return [(line[0], line[1], line[2]) for line in lines if len(line) == 3]
