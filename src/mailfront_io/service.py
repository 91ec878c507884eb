"""A service: one PROTOCOL BACKEND PLUGINS line, loaded and checked, ready to make sessions.

The one-shot programs make one session of it, the servers one for each connection.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from mailfront_io.calling import Plan
from mailfront_io.ops import Connection, Send
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.pipeline import Pipeline
from mailfront_io.plugin import Backend, Hooks, Kind, Plugin, Setting
from mailfront_io.registry import CannotLoad, load_backend, load_plugin, named_plugins, parse_plugin_list
from mailfront_io.session import Session, parse_number, parse_number_as_in_c
from mailfront_io.settings import ConfigurationError, check_settings, is_compat, load_tls, open_store
from mailfront_proto.record import replace
from mailfront_proto.smtp.profile import COMPAT, DEFAULT, LineEnds, Profile
from mailfront_proto.smtp.replies import Reply

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from mailfront_io.auth.store import CredentialStore
    from mailfront_io.metrics import Meter

H = TypeVar("H", bound=Hooks)

PROTOCOLS = ("smtp", "lmtp", "qmtp", "qmqp")
PACKAGE_PROTOCOLS = ("qmtp", "qmqp")

SETTINGS = (
    Setting("MAILFRONT_PROFILE", Kind.TEXT, "default, or compat for the original's tolerances", "default"),
    Setting("PLUGINS", Kind.LIST, "more plugins, behind those of the command line"),
    Setting("SMTPGREETING", Kind.TEXT, "the greeting, before ESMTP", "LOCALHOST mailfront"),
    Setting("TIMEOUT", Kind.NUMBER, "seconds that a client may be idle", "300 (compat: 1200)"),
    Setting("SESSION_TIMEOUT", Kind.NUMBER, "seconds that a session may last", "86400 (compat: no limit)"),
    Setting("MAXNOTIMPL", Kind.NUMBER, "unknown commands in a row before the session ends", "no limit"),
    Setting("MAXAUTHFAIL", Kind.NUMBER, "failed authentications before the session ends", "5"),
    Setting("AUTH_FAILURE_DELAY", Kind.NUMBER, "seconds before a failed authentication is answered", "1 (compat: 0)"),
    Setting("MAX_MESSAGE_SIZE", Kind.NUMBER, "bytes in a message, in all services", "52428800 (compat: none)"),
    Setting("BARE_LINE_ENDS", Kind.TEXT, "normalize, reject or accept a CR or LF that stands alone", "normalize"),
    Setting("EHLO_DISCARD", Kind.LIST, "extensions that are not offered, CHUNKING:SMTPUTF8 for instance"),
    Setting("XCLIENT_HOSTS", Kind.TEXT, "addresses and networks of proxies that may say XCLIENT, with commas", "none"),
    Setting("GREETING_DELAY", Kind.NUMBER, "seconds to wait for clients that talk before the greeting", "0"),
    Setting("MSG_DEBUG", Kind.NUMBER, "log every call of a plugin's hook", "0"),
)


class Service:
    """`protocol` by name, `backend` and `plugins` by name or as classes; `environment`: the settings; `log`: takes a
    line.

    `also_loaded`: names that must be there, too, though nobody asks for what they name.

    Raises `ConfigurationError`. A plugin or backend that cannot be loaded is told to each client instead
    (`load_error`), as is a fault of the settings of a service that is already running.
    """

    def __init__(
        self,
        protocol: str,
        backend: str | type[Backend],
        plugins: Iterable[str | type[Plugin]],
        environment: Mapping[str, str],
        log: Callable[[str], None],
        credentials: "CredentialStore | None" = None,
        also_loaded: Iterable[str] = (),
    ) -> None:
        self.protocol = protocol
        self.environment = environment
        self.log = log
        self.profile = profile_from(environment)
        self.load_error: CannotLoad | None = None
        self.alone = False
        """Whether there will be one session, in a process of its own."""
        self.credentials = credentials
        try:
            self._backend = load_backend(backend) if isinstance(backend, str) else backend
            for name in also_loaded:
                load_plugin(name)
            self._plugins = [load_plugin(plugin) if isinstance(plugin, str) else plugin for plugin in plugins]
        except CannotLoad as error:
            self.load_error = error
            return
        hooks: list[type[Hooks]] = [*self._plugins, self._backend]
        if self.profile.name != "compat":
            settings = [*SETTINGS, *(s for h in hooks for s in h.settings)]
            check_settings([s for s in settings if credentials is None or s.variable != "AUTH_STORE"], environment)
        self._plugins = [self._configured(kind) for kind in self._plugins]
        self._backend = self._configured(self._backend)
        self._plan: Plan | None = None
        if credentials is None and any(s.variable == "AUTH_STORE" for h in hooks for s in h.settings):
            self.credentials = open_store(environment)
        self._tls_context, self._tls_key_type = load_tls(environment, log)
        self._run = self._load_front_end()
        self._proxies = networks_from("XCLIENT_HOSTS", environment)

    def _configured(self, kind: type[H]) -> type[H]:
        """`kind` with what all connections of this service share."""
        if kind.configure.__func__ is Hooks.configure.__func__:  # type: ignore[attr-defined]
            return kind
        try:
            shared = kind.configure(self.environment, self.log)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        return type(kind.__name__, (kind,), {"__doc__": kind.__doc__, "shared": shared})

    def _load_front_end(self) -> Callable[[Session, Pipeline], SessionCoroutine]:
        """The front end of the protocol, and no other: a one-shot program loads it for each connection."""
        if self.protocol in PACKAGE_PROTOCOLS:
            from mailfront_io.frontends.qmtp import package_front_end

            return package_front_end(self.protocol, self.profile)
        from mailfront_io.frontends.smtp import SMTPFrontend
        from mailfront_proto.smtp.server import SMTPServer

        lmtp, greeting = self.protocol == "lmtp", self.environment.get("SMTPGREETING")

        def smtp(session: Session, pipeline: Pipeline) -> SessionCoroutine:
            machine = SMTPServer(session.local_host or "unknown", self.profile, lmtp=lmtp, greeting=greeting)
            if self._proxies:
                machine.offers_xclient = self._speaks_for_others(session.remote_ip)
            return SMTPFrontend(session, pipeline, machine).run()

        return smtp

    def check_required(self) -> None:
        """Raise `ConfigurationError` for a setting that is needed and missing. For servers, where somebody reads it;
        a one-shot program tells its client, as the original does."""
        for hooks in (*self._plugins, self._backend):
            if hooks.one_shot:
                raise ConfigurationError(
                    f"{hooks.name} works only in programs that tcpserver and its like start for each connection: "
                    "take it out of the list"
                )
            for setting in hooks.settings:
                given = setting.variable == "AUTH_STORE" and self.credentials is not None
                given = given or bool(setting.unless and self.environment.get(setting.unless))
                if setting.required and not given and not self.environment.get(setting.variable):
                    raise ConfigurationError(f"${setting.variable} is not set: {hooks.name} needs it ({setting.doc})")

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
        if self.load_error is not None:
            return self._refuse(self.load_error, log or self.log)
        session = Session(connection, self.environment, log or self.log, self.profile, facts)
        session.received = received
        session.id = id
        if self.alone:
            session.alone = True
        session.meter = meter
        session.tls_context = self._tls_context
        session.tls_key_type = self._tls_key_type
        session.credentials = self.credentials
        made: list[Hooks] = []
        plan = self._plan or self._make_plan()
        for kind in plan.kinds:
            try:
                made.append(kind(session))
            except Exception as error:
                what, name = "backend" if kind is self._backend else "plugin", kind.name or kind.__name__
                session.log(f"Error: {what} {name}: {type(error).__name__}: {error}")
                return self._refuse(CannotLoad(what, name, "it raised an error"), session.log)
        return self._run(session, Pipeline(session, plan, made))

    def _make_plan(self) -> Plan:
        parse = parse_number_as_in_c if self.profile.name == "compat" else parse_number
        debug = bool(parse(self.environment.get("MSG_DEBUG")))
        self._plan = plan = Plan((*self._plugins, self._backend), debug)
        return plan

    def _speaks_for_others(self, address: str | None) -> bool:
        """Whether ``$XCLIENT_HOSTS`` lists the peer."""
        if address is None:
            return False
        from ipaddress import ip_address

        try:
            peer = ip_address(address)
        except ValueError:
            return False
        mapped = getattr(peer, "ipv4_mapped", None)  # ::ffff:192.0.2.1 is 192.0.2.1
        return any((mapped or peer) in network for network in self._proxies)

    async def _refuse(self, error: CannotLoad, log: Callable[[str], None]) -> int:
        reply = Reply(451, f"4.3.0 {error}".replace("\n", " "))
        log(str(reply))
        data = encoded(self.protocol, reply)
        await Send(data)
        if self.profile.name != "compat":
            log(f"bytes in: 0 bytes out: {len(data)}")
        return 1


def encoded(protocol: str, reply: Reply) -> bytes:
    """`reply` as a client of `protocol` reads it."""
    if protocol not in PACKAGE_PROTOCOLS:
        return reply.encode(None)
    from mailfront_proto.qmtp.responses import encode_response

    return encode_response(reply)


def service_from_line(
    words: list[str],
    environment: Mapping[str, str],
    log: Callable[[str], None],
    credentials: "CredentialStore | None" = None,
) -> Service:
    """A service from the words of a line ``PROTOCOL BACKEND [PLUGINS…]``."""
    protocol, backend, *plugins = words
    if protocol not in PROTOCOLS:
        raise ConfigurationError(
            f"there is no protocol {protocol!r}: the first argument is one of {', '.join(PROTOCOLS)}"
        )
    variable = environment.get("PLUGINS")
    names = parse_plugin_list(plugins, variable)
    also = named_plugins(plugins, variable) if is_compat(environment) else ()
    return Service(protocol, backend, names, environment, log, credentials, also)


def profile_from(environment: Mapping[str, str]) -> Profile:
    """The profile that ``$MAILFRONT_PROFILE`` names, with the limits that variables change."""
    profile, parse = (COMPAT, parse_number_as_in_c) if is_compat(environment) else (DEFAULT, parse_number)
    limits = profile.limits
    number = {variable: parse(environment.get(variable)) or 0 for variable in _LIMIT_VARIABLES}
    line_ends = environment.get("BARE_LINE_ENDS")
    discarded = environment.get("EHLO_DISCARD")
    if not line_ends and not discarded and not any(number.values()):
        return profile
    if any(number.values()):
        limits = replace(
            limits,
            unknown_in_row=number["MAXNOTIMPL"] or limits.unknown_in_row,
            auth_failures=number["MAXAUTHFAIL"] or limits.auth_failures,
            message_size=number["MAX_MESSAGE_SIZE"] or limits.message_size,
        )
        profile = replace(profile, limits=limits)
    if discarded:
        words = {word.upper() for word in discarded.split(":") if word}
        if not words <= DEFAULT.extensions:
            raise ConfigurationError(
                f"$EHLO_DISCARD: {min(words - DEFAULT.extensions)} is none of {', '.join(sorted(DEFAULT.extensions))}"
            )
        profile = replace(profile, extensions=profile.extensions - words)
    if line_ends:
        try:
            profile = replace(profile, line_ends=LineEnds(line_ends))
        except ValueError:
            raise ConfigurationError(
                f"$BARE_LINE_ENDS is {line_ends!r}: set it to normalize, reject or accept, or unset it"
            ) from None
    return profile


def networks_from(variable: str, environment: Mapping[str, str]) -> "list[IPv4Network | IPv6Network]":
    """The addresses and networks that a setting lists, separated by commas or blanks."""
    words = (environment.get(variable) or "").replace(",", " ").split()
    if not words:
        return []
    from ipaddress import ip_network

    try:
        return [ip_network(word) for word in words]
    except ValueError as error:
        raise ConfigurationError(
            f"${variable}: {error}: write addresses and networks such as 192.0.2.1, 2001:db8::/32"
        ) from None


_LIMIT_VARIABLES = ("MAXNOTIMPL", "MAXAUTHFAIL", "MAX_MESSAGE_SIZE")
