"""An IMAP login service: settings loaded and checked, ready to make sessions. The counterpart of
`mailfront_io.service`.

``mailfront serve imap PROGRAM [ARGUMENTS…]``: users from ``$AUTH_STORE``; who has logged in gets PROGRAM, Dovecot's or
Courier's IMAP server, on the same connection.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mailfront_io.auth.offer import ANONYMOUS
from mailfront_io.auth.offer import SETTINGS as OFFER_SETTINGS
from mailfront_io.child_environment import CHILD_ENVIRONMENT
from mailfront_io.frontends.imap import IMAPFrontend
from mailfront_io.login_service import LoginService
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.plugin import Kind, Setting
from mailfront_io.session import Session, parse_number, parse_number_as_in_c
from mailfront_io.settings import ConfigurationError, is_compat, open_store
from mailfront_proto.imap.profile import COMPAT, DEFAULT, Profile
from mailfront_proto.imap.server import IMAPServer
from mailfront_proto.record import replace

if TYPE_CHECKING:
    from mailfront_io.auth.store import CredentialStore

SETTINGS = (
    Setting("AUTH_STORE", Kind.TEXT, "where users are looked up: KIND:NAME"),
    Setting("CVM_SASL_PLAIN", Kind.TEXT, "the CVM modules for passwords, where AUTH_STORE is not set"),
    Setting("CVM_SASL_LOGIN", Kind.TEXT, "the CVM modules for LOGIN alone, where CVM_SASL_PLAIN is not set"),
    Setting("CVM_SASL_CRAM_MD5", Kind.TEXT, "the CVM modules for CRAM-MD5"),
    *OFFER_SETTINGS,
    ANONYMOUS,
    Setting("AUTH_FAILURE_DELAY", Kind.NUMBER, "seconds before a failed login is answered", "1 (compat: 0)"),
    Setting("MAXAUTHFAIL", Kind.NUMBER, "failed logins before the session ends", "5 (compat: no limit)"),
    Setting("IMAP_CAPABILITY", Kind.TEXT, "what the program offers, as CAPABILITY tells it; or CAPABILITY"),
    Setting("IMAP_ACL", Kind.NUMBER, "not 0: the program has access control lists"),
    Setting("OUTBOX", Kind.TEXT, "Courier's outbox, told as XCOURIEROUTBOX"),
    Setting("IMAP_MOVE_EXPUNGE_TO_TRASH", Kind.NUMBER, "not 0: the program has XMAGICTRASH"),
    Setting("MAILDIR_ROOT", Kind.DIRECTORY, "the users' maildirs, each by the name of its user: told as MAILDIR"),
    CHILD_ENVIRONMENT,
    Setting("SETUP_ENV", Kind.TEXT, "dovecot: MAIL, MAILBOX and MAILDIR in the form that Dovecot reads"),
    Setting("AUTH_TIMEOUT", Kind.NUMBER, "seconds that a client may be idle before its login", "600 (compat: 1200)"),
    Setting("AUTH_SESSION_TIMEOUT", Kind.NUMBER, "seconds until the login must be done", "600 (compat: no limit)"),
)


class IMAPService(LoginService):
    """`program`: who takes over, its name (looked up in the PATH) and arguments; `environment`: the settings; `log`:
    takes a line; `credentials`: a store in place of ``$AUTH_STORE``; `turned_away`: what every client is told in place
    of the greeting, if anything.

    Raises `ConfigurationError`.
    """

    protocol = "imap"
    no_store = "neither $AUTH_STORE nor $CVM_SASL_PLAIN is set: imap needs one of them (where users are looked up)"

    def __init__(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        log: Callable[[str], None],
        *,
        credentials: "CredentialStore | None" = None,
        turned_away: str = "",
    ) -> None:
        super().__init__(environment, log, SETTINGS)
        self.profile = profile_from(environment)
        self._program = program
        self._turned_away = turned_away
        if credentials is None:
            credentials = open_store(environment) or cvm_store(environment)
        self._take_logins(credentials)

    def _run(self, session: Session) -> SessionCoroutine:
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
    from mailfront_io.auth.cvm import CVMStore

    try:
        return CVMStore.from_settings(environment.get, is_compat(environment))
    except ValueError as error:
        raise ConfigurationError(f"$CVM_SASL_PLAIN, $CVM_SASL_CRAM_MD5: {error}") from error


def profile_from(environment: Mapping[str, str]) -> Profile:
    """The profile that ``$MAILFRONT_PROFILE`` names, with the limit that a variable changes."""
    profile, parse = (COMPAT, parse_number_as_in_c) if is_compat(environment) else (DEFAULT, parse_number)
    failures = parse(environment.get("MAXAUTHFAIL")) or profile.limits.auth_failures
    if failures == profile.limits.auth_failures:
        return profile
    return replace(profile, limits=replace(profile.limits, auth_failures=failures))
