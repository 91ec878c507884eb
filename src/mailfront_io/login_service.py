"""What the services share that begin with a login: POP3 and IMAP."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from mailfront_io.ops import Connection
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.plugin import Setting
from mailfront_io.session import Session, parse_number
from mailfront_io.settings import ConfigurationError, check_settings, is_compat, load_tls
from mailfront_proto.smtp.profile import COMPAT, DEFAULT

if TYPE_CHECKING:
    import ssl

    from mailfront_io.auth.store import CredentialStore
    from mailfront_io.metrics import Meter


class LoginService(ABC):
    """`environment`: the settings, checked against `settings`; `log`: takes a line. Raises `ConfigurationError`."""

    protocol: ClassVar[str]
    no_store: ClassVar[str]
    """What the administrator is told who names no credential store."""
    load_error = None
    credentials: "CredentialStore | None" = None
    _tls_context: "ssl.SSLContext | None" = None
    _tls_key_type = ""

    def __init__(
        self, environment: Mapping[str, str], log: Callable[[str], None], settings: Iterable[Setting]
    ) -> None:
        self.environment = environment
        self.log = log
        self._shared_profile = COMPAT if is_compat(environment) else DEFAULT
        if not is_compat(environment):
            check_settings(settings, environment)

    def _take_logins(self, credentials: "CredentialStore | None") -> None:
        """From users of the store `credentials`, with the TLS of the settings."""
        self.credentials = credentials
        self._tls_context, self._tls_key_type = load_tls(self.environment, self.log)

    def check_required(self) -> None:
        """Raise `ConfigurationError` for a setting that is needed and missing; for servers."""
        if self.credentials is None:
            raise ConfigurationError(self.no_store)
        needs_tls = parse_number(self.environment.get("AUTH_REQUIRES_TLS")) != 0 and not is_compat(self.environment)
        if needs_tls and self._tls_context is None:
            raise ConfigurationError(
                "$TLS_CERTFILE is not set, so no password would be taken: name a certificate there, or set "
                "AUTH_REQUIRES_TLS=0 to take passwords without TLS"
            )

    def session(
        self,
        connection: Connection,
        facts: Mapping[str, str] | None = None,
        log: Callable[[str], None] | None = None,
        received: bytes = b"",
        id: str = "",
        meter: "Meter | None" = None,
    ) -> SessionCoroutine:
        """The session coroutine for `connection`; `facts`: see `Session`; `log`: for this one alone; `received`: what
        the client has said already; `id`: what `log` calls the session; `meter`: who counts."""
        session = Session(connection, self.environment, log or self.log, self._shared_profile, facts)
        session.received = received
        session.id = id
        session.meter = meter
        session.protocol_name = self.protocol.upper()
        session.tls_context = self._tls_context
        session.tls_key_type = self._tls_key_type
        session.credentials = self.credentials
        return self._run(session)

    @abstractmethod
    def _run(self, session: Session) -> SessionCoroutine:
        """The protocol's front end, with a machine of its own, for `session`."""
