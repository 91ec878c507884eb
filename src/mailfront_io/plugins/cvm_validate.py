"""cvm-validate: recipients that a credential validation module does not know are refused."""

from mailfront_io.auth.asking import asker_for
from mailfront_io.auth.cvm import Module, ask_modules, lookup, parse_modules
from mailfront_io.auth.store import StoreUnavailable
from mailfront_io.plugin import CheckFailed, Kind, Plugin, Response, Setting
from mailfront_io.session import Path, Session
from mailfront_proto.cvm import Verdict

UNKNOWN = Response(553, "5.1.1 Sorry, that recipient does not exist.")
UNAVAILABLE = Response(451, "4.1.0 Sorry, I could not verify that recipient (internal temporary error).")

LOOKUP_SECONDS = 60.0
"""How long the modules may take for one recipient. A client waits for 300 seconds."""


class CVMValidate(Plugin):
    """Asks for each recipient with a domain. It accepts none: it refuses, or leaves the decision to others."""

    name = "cvm-validate"
    settings = (
        Setting("CVM_LOOKUP", Kind.TEXT, "the modules that are asked, a comma list"),
        Setting("CVM_LOOKUP_SECRET", Kind.TEXT, "what is shared with modules that want a secret"),
        Setting("LOOKUP_SECRET", Kind.TEXT, "the same, where CVM_LOOKUP_SECRET is not set"),
    )

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._parsed: tuple[str | None, list[Module]] = (None, [])

    async def recipient(self, path: Path) -> Response | None:
        """553 for one that does not exist, 451 where nobody can say."""
        session = self.session
        compat = session.profile.name == "compat"
        names = session.getenv("CVM_LOOKUP")
        account, at, domain = path.address.rpartition("@")
        if names is None or not at or not (names or compat):
            return None
        if self._parsed[0] != names:
            self._parsed = (names, parse_modules(names, compat))
        asker = asker_for(session, session.clock.monotonic() + LOOKUP_SECONDS)
        if not account and not compat:
            return UNKNOWN
        request, asker = lookup(_octets(account), _octets(domain), asker)
        try:
            response = await ask_modules(self._parsed[1], request, asker)
        except StoreUnavailable as error:
            raise CheckFailed(UNAVAILABLE, str(error) if not compat else "") from None
        return None if response is None or response.verdict is Verdict.ACCEPTED else UNKNOWN


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
