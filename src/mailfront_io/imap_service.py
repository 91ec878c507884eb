"""An IMAP login service: settings loaded and checked, ready to make sessions. The counterpart of
`mailfront_io.service`.

``mailfront serve imap PROGRAM [ARGUMENTS…]``: users from ``$AUTH_STORE``; who has logged in gets PROGRAM, Dovecot's or
Courier's IMAP server, on the same connection.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mailfront_io.auth.offer import SETTINGS as OFFER_SETTINGS
from mailfront_io.frontends.imap import IMAPFrontend
from mailfront_io.ops import Connection
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.plugin import Kind, Setting
from mailfront_io.service import ConfigurationError, NoImmediateTLS, check_settings, open_store
from mailfront_io.session import Session, parse_number
from mailfront_io.tls import TLSSettingError, key_type, server_context
from mailfront_proto.imap.profile import COMPAT, DEFAULT, Profile
from mailfront_proto.imap.server import IMAPServer
from mailfront_proto.smtp import profile as smtp_profile

if TYPE_CHECKING:
    import ssl

    from mailfront_io.auth.store import CredentialStore

SETTINGS = (
    Setting("AUTH_STORE", Kind.TEXT, "where users are looked up: KIND:NAME"),
    Setting("CVM_SASL_PLAIN", Kind.TEXT, "the CVM modules for passwords, where AUTH_STORE is not set"),
    Setting("CVM_SASL_CRAM_MD5", Kind.TEXT, "the CVM modules for CRAM-MD5"),
    *OFFER_SETTINGS,
    Setting("AUTH_FAILURE_DELAY", Kind.NUMBER, "seconds before a failed login is answered", "1 (compat: 0)"),
    Setting("MAXAUTHFAIL", Kind.NUMBER, "failed logins before the session ends", "5 (compat: no limit)"),
    Setting("IMAP_CAPABILITY", Kind.TEXT, "what the program offers, as CAPABILITY tells it; or CAPABILITY"),
    Setting("IMAP_ACL", Kind.NUMBER, "not 0: the program has access control lists"),
    Setting("OUTBOX", Kind.TEXT, "Courier's outbox, told as XCOURIEROUTBOX"),
    Setting("IMAP_MOVE_EXPUNGE_TO_TRASH", Kind.NUMBER, "not 0: the program has XMAGICTRASH"),
    Setting("SETUP_ENV", Kind.TEXT, "dovecot: MAIL, MAILBOX and MAILDIR in the form that Dovecot reads"),
    Setting("AUTH_TIMEOUT", Kind.NUMBER, "seconds that a client may be idle before its login", "600 (compat: 1200)"),
    Setting("AUTH_SESSION_TIMEOUT", Kind.NUMBER, "seconds until the login must be done", "600 (compat: no limit)"),
)


class IMAPService:
    """`program`: who takes over, its name (looked up in the PATH) and arguments; `environment`: the settings; `log`:
    takes a line; `credentials`: a store in place of ``$AUTH_STORE``; `turned_away`: what every client is told in place
    of the greeting, if anything.

    Raises `ConfigurationError`.
    """

    protocol = "imap"
    load_error = None

    def __init__(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        log: Callable[[str], None],
        *,
        credentials: "CredentialStore | None" = None,
        turned_away: str = "",
    ) -> None:
        self.environment = environment
        self.log = log
        self.profile = profile_from(environment)
        self._program = program
        self._turned_away = turned_away
        if self.profile.name != "compat":
            check_settings(SETTINGS, environment)
        self.credentials = credentials if credentials is not None else open_store(environment) or cvm_store(environment)
        self._tls_context: ssl.SSLContext | None = None
        self._tls_key_type = ""
        if environment.get("TLS_CERTFILE"):
            self._load_tls()

    def _load_tls(self) -> None:
        getenv = self.environment.get
        try:
            self._tls_context, self._tls_key_type = server_context(getenv), key_type(getenv)
        except TLSSettingError as error:
            if self.profile.name != "compat":
                raise ConfigurationError(str(error)) from error
            self.log(error.log_line)
            if "TLS_IMMEDIATE" in self.environment:
                raise NoImmediateTLS(str(error)) from error

    def check_required(self) -> None:
        """Raise `ConfigurationError` for a setting that is needed and missing; for servers."""
        if self.credentials is None:
            raise ConfigurationError(
                "neither $AUTH_STORE nor $CVM_SASL_PLAIN is set: imap needs one of them (where users are looked up)"
            )
        needs_tls = parse_number(self.environment.get("AUTH_REQUIRES_TLS")) != 0 and self.profile.name != "compat"
        if needs_tls and self._tls_context is None:
            raise ConfigurationError(
                "$TLS_CERTFILE is not set: nobody could log in (AUTH_REQUIRES_TLS=0 takes passwords without TLS, too)"
            )

    def session(self, connection: Connection, facts: Mapping[str, str] | None = None) -> SessionCoroutine:
        """The session coroutine for `connection`; `facts`: see `Session`."""
        compat = self.profile.name == "compat"
        shared = smtp_profile.COMPAT if compat else smtp_profile.DEFAULT
        session = Session(connection, self.environment, self.log, shared, facts)
        session.protocol_name = "IMAP"
        session.tls_context = self._tls_context
        session.tls_key_type = self._tls_key_type
        session.credentials = self.credentials
        return IMAPFrontend(session, IMAPServer(self.profile), self._program, self._turned_away).run()


def imap_service_from_line(
    words: list[str], environment: Mapping[str, str], log: Callable[[str], None]
) -> IMAPService:
    """A service from the words of a line ``imap PROGRAM [ARGUMENTS…]``."""
    if len(words) < 2:
        raise ConfigurationError("imap hands each login to a program: write imap PROGRAM [ARGUMENTS...]")
    return IMAPService(words[1:], environment, log)


def cvm_store(environment: Mapping[str, str]) -> "CredentialStore | None":
    """The store that asks the CVM modules of the settings; None if there are none. Raises `ConfigurationError`."""
    passwords = environment.get("CVM_SASL_PLAIN", "")
    responses = environment.get("CVM_SASL_CRAM_MD5", "")
    if not passwords and not responses:
        return None
    from mailfront_io.auth.cvm import CVMStore

    try:
        return CVMStore(passwords, responses)
    except ValueError as error:
        raise ConfigurationError(f"$CVM_SASL_PLAIN, $CVM_SASL_CRAM_MD5: {error}") from error


def profile_from(environment: Mapping[str, str]) -> Profile:
    """The profile that ``$MAILFRONT_PROFILE`` names, with the limit that a variable changes."""
    name = environment.get("MAILFRONT_PROFILE") or "default"
    if name not in ("default", "compat"):
        raise ConfigurationError(f"$MAILFRONT_PROFILE is {name!r}: set it to default or compat, or unset it")
    profile = COMPAT if name == "compat" else DEFAULT
    failures = parse_number(environment.get("MAXAUTHFAIL")) or profile.limits.auth_failures
    if failures == profile.limits.auth_failures:
        return profile
    from dataclasses import replace  # costs a one-shot program 10 ms that most need not spend

    return replace(profile, limits=replace(profile.limits, auth_failures=failures))
