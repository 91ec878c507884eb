"""A POP3 service: settings loaded and checked, ready to make sessions. The counterpart of `mailfront_io.service`.

``mailfront serve pop3 maildir`` is one of `Mode.WHOLE`: users from ``$AUTH_STORE``, mailboxes below
``$MAILDIR_ROOT``.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mailfront_io.auth.offer import ANONYMOUS
from mailfront_io.auth.offer import SETTINGS as OFFER_SETTINGS
from mailfront_io.frontends.pop3 import HandOff, POP3Frontend
from mailfront_io.login_service import LoginService
from mailfront_io.mailboxes.location import Location
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.plugin import Kind, Setting
from mailfront_io.session import Session, parse_number, parse_number_as_in_c
from mailfront_io.settings import ConfigurationError, is_compat, open_store
from mailfront_proto.pop3.profile import COMPAT, DEFAULT, Profile
from mailfront_proto.pop3.server import POP3Server
from mailfront_proto.pop3.states import Mode
from mailfront_proto.record import replace

if TYPE_CHECKING:
    from mailfront_io.auth.store import CredentialStore

SETTINGS = (
    Setting("AUTH_STORE", Kind.TEXT, "where users are looked up: KIND:NAME"),
    *OFFER_SETTINGS,
    ANONYMOUS,
    Setting("AUTH_FAILURE_DELAY", Kind.NUMBER, "seconds before a failed login is answered", "1 (compat: 0)"),
    Setting("MAXAUTHFAIL", Kind.NUMBER, "failed logins before the session ends", "5 (compat: no limit)"),
    Setting("MAXUSERCMD", Kind.NUMBER, "USER commands before the session ends", "20 (compat: no limit)"),
    Setting("MAILDIR_ROOT", Kind.DIRECTORY, "the directory of the users' maildirs, each by the name of its user"),
    Setting("MAX_MESSAGES", Kind.NUMBER, "messages that a session sees at most", "no limit"),
    Setting("MAX_CUR_MESSAGES", Kind.NUMBER, "the same, of the maildir's cur", "no limit"),
    Setting("MAX_NEW_MESSAGES", Kind.NUMBER, "the same, of the maildir's new", "no limit"),
    Setting("TIMEOUT", Kind.NUMBER, "seconds that a client may be idle", "600 (compat: 1200)"),
    Setting("SESSION_TIMEOUT", Kind.NUMBER, "seconds that a session may last", "86400 (compat: no limit)"),
    Setting("AUTH_TIMEOUT", Kind.NUMBER, "seconds that a client may be idle before the login", "that of TIMEOUT"),
    Setting("AUTH_SESSION_TIMEOUT", Kind.NUMBER, "seconds until the login must be done", "600 (compat: no limit)"),
)


class POP3Service(LoginService):
    """`environment`: the settings; `log`: takes a line; `mode`: which part of a session is served. `mailbox`: its path,
    in `Mode.MAILBOX`; `hand_off`: who takes over, in `Mode.LOGIN`; `credentials`: a store in place of ``$AUTH_STORE``.

    Raises `ConfigurationError`.
    """

    protocol = "pop3"
    no_store = "$AUTH_STORE is not set: pop3 needs it (where users are looked up: sqlite:FILE)"

    def __init__(
        self,
        environment: Mapping[str, str],
        log: Callable[[str], None],
        *,
        mode: Mode = Mode.WHOLE,
        mailbox: str | None = None,
        hand_off: HandOff | None = None,
        credentials: "CredentialStore | None" = None,
    ) -> None:
        super().__init__(environment, log, SETTINGS)
        self.mode = mode
        self.profile = profile_from(environment)
        self._location = Location(mailbox) if mailbox else None
        self._hand_off = hand_off
        # Behind somebody else's login TLS, if there is any, is somebody else's, too.
        if mode is not Mode.MAILBOX:
            self._take_logins(credentials if credentials is not None else open_store(environment))

    def check_required(self) -> None:
        """Raise `ConfigurationError` for a setting that is needed and missing; for servers."""
        if self.mode is not Mode.MAILBOX:
            super().check_required()

    def _run(self, session: Session) -> SessionCoroutine:
        machine = POP3Server(self.profile, mode=self.mode)
        return POP3Frontend(session, machine, mailbox=self._location, hand_off=self._hand_off).run()


def pop3_service_from_line(
    words: list[str],
    environment: Mapping[str, str],
    log: Callable[[str], None],
    credentials: "CredentialStore | None" = None,
) -> POP3Service:
    """A service from the words of a line ``pop3 maildir``."""
    if words[1:] != ["maildir"]:
        raise ConfigurationError(
            f"pop3 serves maildirs, and not {' '.join(words[1:]) or 'nothing'}: write pop3 maildir, and name the "
            "directory of the users' maildirs in $MAILDIR_ROOT"
        )
    return POP3Service(environment, log, credentials=credentials)


def profile_from(environment: Mapping[str, str]) -> Profile:
    """The profile that ``$MAILFRONT_PROFILE`` names, with the limits that variables change."""
    profile, parse = (COMPAT, parse_number_as_in_c) if is_compat(environment) else (DEFAULT, parse_number)
    users = parse(environment.get("MAXUSERCMD")) or profile.limits.user_commands
    failures = parse(environment.get("MAXAUTHFAIL")) or profile.limits.auth_failures
    if (users, failures) == (profile.limits.user_commands, profile.limits.auth_failures):
        return profile
    return replace(profile, limits=replace(profile.limits, user_commands=users, auth_failures=failures))
