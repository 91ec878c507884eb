"""validate: recipients that the credential store does not know are refused. For sites without CVM."""

from mailfront_io.auth.asking import asker_for
from mailfront_io.auth.store import Asker, CredentialStore, StoreUnavailable
from mailfront_io.calling import Bounded
from mailfront_io.ops import DeadlineExceeded
from mailfront_io.plugin import CheckFailed, Kind, Plugin, Response, Setting
from mailfront_io.session import Path, Session, fold
from mailfront_proto.lazy_patterns import compile_later

UNKNOWN = Response(553, "5.1.1 Sorry, that recipient does not exist.")
UNAVAILABLE = Response(451, "4.1.0 Sorry, I could not verify that recipient (internal temporary error).")

LOOKUP_SECONDS = 60.0
"""How long the store may take for one recipient. A client waits for 300 seconds."""

_NO_NAME = compile_later("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Validate(Plugin):
    """Asks the store for each recipient with a domain, by its whole address. It accepts none: it refuses, or leaves the
    decision to others."""

    name = "validate"
    settings = (
        Setting("AUTH_STORE", Kind.TEXT, "where users are looked up: KIND:NAME", required=True),
        Setting(
            "VALIDATE_DOMAINS",
            Kind.LIST,
            "only recipients of these domains are looked up; the local part alone may be the user's name, too",
            "all domains",
        ),
    )

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._store = session.credentials

    async def recipient(self, path: Path) -> Response | None:
        """553 for one that does not exist, 451 where the store cannot say."""
        session = self.session
        local_part, at, domain = path.address.rpartition("@")
        domain = fold(domain)
        listed = session.getenv("VALIDATE_DOMAINS")
        if not at or (listed and domain not in fold(listed).split(":")):
            return None
        if not local_part or _NO_NAME.search(path.address):
            return UNKNOWN
        if self._store is None:
            raise CheckFailed(UNAVAILABLE, "$AUTH_STORE is not set")
        until = session.clock.monotonic() + LOOKUP_SECONDS
        names = [f"{local_part}@{domain}", *([local_part] if listed else [])]
        asker = asker_for(session, until)
        try:
            known = await Bounded("the credential store", _is_known(self._store, names, asker), until)
        except StoreUnavailable as error:
            raise CheckFailed(UNAVAILABLE, str(error)) from error
        except DeadlineExceeded as error:
            raise CheckFailed(UNAVAILABLE, "the store did not answer in time") from error
        return None if known else UNKNOWN


async def _is_known(store: CredentialStore, names: list[str], asker: Asker) -> bool:
    for name in names:
        if await store.look_up(name, asker) is not None:
            return True
    return False
