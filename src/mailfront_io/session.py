"""What is known of one connection: its peers, settings, identity, envelope and counts.

A `Session` is shared by the front end and all plugins of one connection, and by nothing else. It holds
values; it does nothing.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from mailfront_io.ops import Connection, StartParentTLS, TLSFacts
from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.smtp.parameters import NO_MAIL_OPTIONS, NO_RECIPIENT_OPTIONS, MailOptions, RecipientOptions
from mailfront_proto.smtp.profile import DEFAULT, Profile

if TYPE_CHECKING:
    import ssl

    from mailfront_io.auth.store import CredentialStore, Identity
    from mailfront_io.metrics import Meter

_CONTROL = compile_later(r"[\x00-\x1f\x7f-\x9f]")
_DIGITS = compile_later(r"[0-9]{1,19}\Z", re.ASCII)  # what fits 63 bits: int() alone takes far too much


def parse_number(text: str | None) -> int | None:
    """A decimal number of ASCII digits, or None for anything else."""
    return int(text) if text is not None and _DIGITS.match(text) else None


LARGEST_NUMBER = (1 << 64) - 1
_AS_IN_C = compile_later(r"[ \t-\r]*([+-]?)([0-9]+)", re.ASCII)


def parse_number_as_in_c(text: str | None, *, whole: bool = False) -> int | None:
    """What C's ``strtoul`` makes of `text`, for the compat profile: blanks and a sign may stand in front, and anything
    behind, unless the number is to be the `whole`. None where there are no digits. Nothing wraps around: a number that
    is too large, or negative, is `LARGEST_NUMBER`."""
    match = _AS_IN_C.match(text or "")
    if match is None or (whole and match.end() != len(text or "")):
        return None
    digits = match[2].lstrip("0")
    if not digits:
        return 0
    return LARGEST_NUMBER if match[1] == "-" or len(digits) > 20 else min(int(digits), LARGEST_NUMBER)


_FOLD = str.maketrans({letter: letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"})


def fold(text: str) -> str:
    """`text` with its ASCII letters in lower case, and no other character changed: the Kelvin sign is no k."""
    return text.lower() if text.isascii() else text.translate(_FOLD)


class Path:
    """A reverse-path or forward-path on its way through the chain.

    `address`: the address; a plugin may assign another, which later plugins and the backend see.
    `parameters`: the ESMTP parameters, as they came. What they say is in `ReversePath` and `ForwardPath`.
    """

    __slots__ = ("address", "parameters")

    def __init__(self, address: str, parameters: list[str]) -> None:
        self.address = address
        self.parameters = parameters

    @property
    def domain(self) -> str:
        """What stands behind the last ``@``; empty when there is none."""
        _, at, domain = self.address.rpartition("@")
        return domain if at else ""

    def __repr__(self) -> str:
        return f"Path({self.address!r}, {self.parameters!r})"


class ReversePath(Path):
    """The sender. `options`: what the parameters of MAIL say (nothing, in the compat profile)."""

    __slots__ = ("options",)

    def __init__(self, address: str, parameters: list[str], options: MailOptions = NO_MAIL_OPTIONS) -> None:
        self.address = address
        self.parameters = parameters
        self.options = options


class ForwardPath(Path):
    """A recipient. `options`: what the parameters of RCPT say (nothing, in the compat profile)."""

    __slots__ = ("options",)

    def __init__(self, address: str, parameters: list[str], options: RecipientOptions = NO_RECIPIENT_OPTIONS) -> None:
        self.address = address
        self.parameters = parameters
        self.options = options


class Envelope:
    """Sender and recipients accepted so far. `sender` is None before MAIL and once a message is done."""

    __slots__ = ("recipients", "sender")

    def __init__(self) -> None:
        self.sender: ReversePath | None = None
        self.recipients: list[ForwardPath] = []


class Facts(dict[str, str]):
    """The facts of a connection, above the settings that it shares with others (`facts_above`)."""

    __slots__ = ()

    def __missing__(self, name: str) -> str | None:
        return None


def facts_above(environment: Mapping[str, str]) -> type[Facts]:
    """The class of the facts of connections that share `environment`: to look up a name that is no fact gives the
    setting, or None. All of that happens below the interpreter."""
    return type("Facts", (Facts,), {"__slots__": (), "__missing__": environment.get})


class Session:
    """One connection. `environment`: the settings, under the original's variable names. `facts`: the UCSPI
    variables of this connection, ``${PROTO}REMOTEIP`` and so on, where a server shares `environment` among
    many (for a server, they are of the class that `facts_above` makes of it); else they are part of it. `log`: takes a
    line of text without its end.
    """

    getenv: Callable[[str], str | None]
    """A setting, by its name: the first assignment of this session, else the environment's; None when unset. Another
    function takes the place of this one when settings change: do not keep it."""

    # What most connections leave as it is:

    id: str = ""
    """What the log calls this session; empty where it has no name for it."""
    alone: bool = False
    """Whether this process serves this connection and ends with it, as under tcpserver."""
    meter: "Meter | None" = None
    """Who counts what happens, if anybody does."""
    ended: str = ""
    """How the session has ended, for who counts: a value of ``reason`` of ``sessions_ended_total``."""
    settings_changed: int = 0
    """Grows whenever a setting may have another value than before; what was made of settings holds until then."""
    hooks_rest: bool = False
    """A plugin has said which of its hooks rest, and nobody has looked yet."""
    tls: TLSFacts | None = None
    """What was agreed, while TLS is in use."""
    certificate_user: str = ""
    """Whom the certificate names that the client has shown in its handshake; empty: nobody, or there is none."""
    certificate_counts: bool = True
    """Who shakes hands is the client itself, and no proxy that speaks for others."""
    tls_context: "ssl.SSLContext | None" = None
    """Server settings for TLS; None: it cannot be had."""
    parent_tls: StartParentTLS | None = None
    """How TLS can be had from the program that started this one, in place of our own."""
    tls_key_type: str = "RSA"
    """The kind of our certificate's key, ``RSA`` or ``ECDSA``, for the log."""
    credentials: "CredentialStore | None" = None
    """Where users are looked up: recipients, and who logs in unless `modules` are there."""
    modules: "CredentialStore | None" = None
    """Who is asked for logins in place of `credentials`: what cvm-authenticate has made of its settings."""
    identity: "Identity | None" = None
    """Who has logged in; where that was done anonymously, whose mail and ids the client gets all the same."""
    protocol_name: str = "SMTP"
    """For the trace header: SMTP, ESMTP, LMTP, …"""
    received: bytes = b""
    """What the client has said already, before the session could read anything."""

    def __init__(
        self,
        connection: Connection,
        environment: Mapping[str, str],
        log: Callable[[str], None],
        profile: Profile = DEFAULT,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        self.connection = connection
        self.clock = connection.clock
        self.environment = self._settings = environment
        self._shares_settings = facts is not None
        self._facts: Mapping[str, str]
        if isinstance(facts, Facts):
            self._facts = facts
            self.getenv = facts.__getitem__
        else:
            self._facts = facts or {}
            self.getenv = {**environment, **facts}.get if facts else environment.get
        self.profile = profile
        self.log = log
        """Writes a line to the log; the sink escapes what a terminal must not see."""
        self._assignments: list[tuple[str, str]] = []

        self.strings: dict[str, str] = {}
        """Named strings that plugins share: ``helo_domain``, ``auth_user``, ``tls_cipher``, …"""
        self.numbers: dict[str, int] = {}
        """Named numbers that plugins share: ``authenticated``, ``tls_state``, ``maxdatabytes``, …"""
        self.envelope = Envelope()
        self.added_lines: list[bytes] = []
        """Lines that plugins have put in front of the message in ``data_start``; see `add_lines`."""
        self.bytes_in = 0
        self.bytes_out = 0

    # -- the UCSPI facts -------------------------------------------------------------------------------

    @property
    def link(self) -> str:
        """What carries the connection: ``$PROTO``, default ``TCP``. (An empty one is none, but in compat.)"""
        link = self.getenv("PROTO")
        return "TCP" if link is None or (not link and self.profile.name != "compat") else link

    @property
    def local_ip(self) -> str | None:
        """Our IP address."""
        return self._fact("LOCALIP")

    @property
    def local_host(self) -> str | None:
        """Our host name."""
        return self._fact("LOCALHOST")

    @property
    def remote_ip(self) -> str | None:
        """The peer's IP address."""
        return self._fact("REMOTEIP")

    @property
    def remote_host(self) -> str | None:
        """The peer's host name, as its own DNS has it."""
        return self._fact("REMOTEHOST")

    @property
    def remote_info(self) -> str | None:
        """What the peer's ident server says."""
        return self._fact("REMOTEINFO")

    def _fact(self, name: str) -> str | None:
        # An empty one counts as unset; so does one with control bytes, since the peer has its part in
        # its own host name and ident answer.
        # Where a server hands in the facts, a variable of its own environment is none.
        value = (self._facts or self.environment).get(self.link + name)
        return value if value and not _CONTROL.search(value) else None

    def assume(self, facts: Mapping[str, str]) -> None:
        """Take `facts`, named ``REMOTEIP``, ``LOCALHOST`` and so on, for those of this connection from now on: a proxy
        speaks for another client. An empty one is unknown. The settings that were assigned are dropped;
        ``$RELAYCLIENT``, which a rule has given to the proxy's address, is not its client's, nor is the proxy's
        certificate."""
        self.certificate_user = ""
        self.certificate_counts = False
        known = self._facts or {name: v for name, v in self.environment.items() if name.startswith(self.link)}
        self._facts = {**known, **{self.link + name: value for name, value in facts.items()}}
        self._facts.pop("RELAYCLIENT", None)
        self._assignments.clear()
        self.remove_settings(("RELAYCLIENT",))

    # -- settings ----------------------------------------------------------------------------------------

    def putenv(self, name: str, value: str) -> None:
        """Assign a setting for this session; earlier assignments of the same name still win."""
        self._assignments.append((name, value))
        self._settle()

    def _settle(self) -> None:
        """Settings may have another value than before."""
        facts = self._facts
        own = {**facts, **dict(reversed(self._assignments))}  # the first assignment of a name wins
        if isinstance(facts, Facts) and self.environment is self._settings:
            self.getenv = type(facts)(own).__getitem__
        else:
            self.getenv = {**self.environment, **own}.get
        self.settings_changed += 1

    def setenv(self, name: str, value: str, *, overwrite: bool) -> None:
        """Assign a setting in place of this session's first assignment of it; with one and without `overwrite` do
        nothing."""
        first = next((at for at, (assigned, _) in enumerate(self._assignments) if assigned == name), None)
        if first is not None:
            if not overwrite:
                return
            del self._assignments[first]
        self.putenv(name, value)

    def remove_settings(self, names: Collection[str]) -> None:
        """Forget settings for the rest of the session: children do not get them, either."""
        self._facts = dict(self._facts)  # no longer above those that are shared
        self._settings = {name: value for name, value in self._settings.items() if name not in names}
        self.environment = {name: value for name, value in self.environment.items() if name not in names}
        self._settle()

    def reset_env(self) -> None:
        """Drop the assignments."""
        if self._assignments:
            self._assignments.clear()
            self._settle()

    def exported_env(self) -> dict[str, str]:
        """The environment for a child: the last assignment of a name wins."""
        return {**self.environment, **self._facts, **dict(self._assignments)}

    def own_env(self) -> dict[str, str]:
        """What of that is this session's own: all, unless the settings are those of a server."""
        if not self._shares_settings:
            return self.exported_env()
        of_user = self.identity.environment() if self.identity is not None else {}
        return {**of_user, **self._facts, **dict(self._assignments)}

    def _values(self, name: str) -> Iterator[str]:
        for assigned, value in self._assignments:
            if assigned == name:
                yield value
        if name in self.environment:
            yield self.environment[name]

    def smallest_number(self, name: str) -> int:
        """The smallest number over every assignment that is not zero; 0 when there is none."""
        return min(filter(None, self._numbers(name)), default=0)

    def first_number(self, name: str) -> int | None:
        """The first assignment that is a number; None when there is none."""
        return next(self._numbers(name), None)

    def _numbers(self, name: str) -> Iterator[int]:
        compat = self.profile.name == "compat"
        for text in self._values(name):
            number = parse_number_as_in_c(text, whole=True) if compat else parse_number(text)
            if number is not None:
                yield number

    def number(self, name: str) -> int:
        """The setting as a number; 0 where it is none."""
        text = self.getenv(name)
        if text is None:
            return 0
        return (parse_number_as_in_c(text) if self.profile.name == "compat" else parse_number(text)) or 0

    # -- what plugins do with it -------------------------------------------------------------------------

    @property
    def authenticated(self) -> bool:
        """Whether the client has authenticated."""
        return bool(self.numbers.get("authenticated"))

    @property
    def anonymous(self) -> bool:
        """Whether the client has logged in without saying who it is. It may do no more than one that has not."""
        return bool(self.numbers.get("anonymous"))

    @property
    def login_store(self) -> "CredentialStore | None":
        """Who is asked for logins."""
        return self.credentials if self.modules is None else self.modules

    def log_in(self, identity: "Identity") -> None:
        """The client is `identity`: its facts become the strings ``auth_…``, numbers, and settings."""
        self.log_out()
        self.identity = identity
        self.numbers["authenticated"] = 1
        strings = {
            "auth_user": identity.username,
            "auth_domain": identity.domain,
            "auth_mailbox": identity.mailbox,
            "auth_realname": identity.real_name,
            "auth_system_user": identity.system_username,
        }
        self.strings.update({name: value for name, value in strings.items() if value})
        numbers = {"auth_uid": identity.uid, "auth_gid": identity.gid}
        self.numbers.update({name: number for name, number in numbers.items() if number is not None})
        self.environment = {**self._settings, **identity.environment()}
        self._settle()

    def log_in_anonymously(self, identity: "Identity | None") -> None:
        """Somebody has logged in who does not say who it is: that is no authentication, and permits nothing.
        `identity`: whose mail and ids the client gets all the same, and with them the settings; None: nobody's."""
        self.log_out()
        self.numbers["anonymous"] = 1
        self.identity = identity
        if identity is not None:
            self.environment = {**self._settings, **identity.environment()}
            self._settle()

    def log_out(self) -> None:
        """Nobody has logged in (any more)."""
        self.identity = None
        for name in [name for name in self.strings if name.startswith("auth_")]:
            del self.strings[name]
        for name in ("authenticated", "anonymous", "auth_uid", "auth_gid"):
            self.numbers.pop(name, None)
        self.environment = self._settings
        self._settle()

    def add_lines(self, lines: bytes) -> None:
        """Put complete header lines (LF line ends) in front of the message. Only in ``data_start``."""
        self.added_lines.append(lines)
