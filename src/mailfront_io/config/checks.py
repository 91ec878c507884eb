"""What cannot be seen in the file alone: whether what it names can be opened, and what is dangerous in it."""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from mailfront_io.config.reading import Config, ListenerConfig, Problem
from mailfront_io.listening import is_local, named, parse_listening_address, parse_monitor_address
from mailfront_io.plugin import Kind
from mailfront_io.session import parse_number
from mailfront_io.settings import ConfigurationError, load_tls, open_store
from mailfront_proto.record import record

if TYPE_CHECKING:
    from mailfront_io.login_service import LoginService
    from mailfront_io.service import Service

_KEYS = {
    "TLS_CERTFILE": "certificate",
    "TLS_KEYFILE": "key",
    "MAILFRONT_PROFILE": "profile",
    "AUTH_STORE": "store",
}
_VARIABLE = re.compile(r"\$([A-Z][A-Z0-9_]*)")

_ACCEPTING = frozenset({"accept", "accept-recipient"})
_RELAYING = frozenset({"smtp", "lmtp", "qmail", "queuedir"})
"""Backends that may carry mail anywhere."""


@record
class Loaded:
    """A listener whose service could be made."""

    config: ListenerConfig
    service: "Service | LoginService"


def load(listeners: Iterable[ListenerConfig], log: Callable[[str], None]) -> tuple[list[Loaded], list[Problem]]:
    """The services of `listeners`, and what keeps the others from being made."""
    from mailfront_io.server import service_of

    loaded, problems = [], []
    for listener in listeners:
        environment = {**os.environ, **listener.environment}
        try:
            service = service_of(listener.words, environment, log)
            if service.load_error is not None:
                raise ConfigurationError(str(service.load_error))
            service.check_required()
        except ConfigurationError as error:
            for text in dict.fromkeys([str(error), *_files_that_cannot_be_used(environment)]):
                problems.append(Problem(listener.line, f"listener {listener.name}", in_words_of_the_file(text)))
        else:
            loaded.append(Loaded(listener, service))
    return loaded, problems


def _files_that_cannot_be_used(environment: Mapping[str, str]) -> Iterator[str]:
    """A service is not made further than to its first fault: what else would be one."""
    for opened in (lambda: open_store(environment), lambda: load_tls(environment, quiet)):
        try:
            opened()
        except ConfigurationError as error:
            yield str(error)


def quiet(text: str) -> None:
    """The log of what is made only for a check: its faults are raised."""


def in_words_of_the_file(text: str) -> str:
    """`text` with the keys of the file in place of the variables that stand for them."""
    return _VARIABLE.sub(lambda match: _KEYS.get(match[1]) or f"settings.{match[1].lower()}", text)


def dangers(config: Config) -> list[Problem]:
    """What can be done, and should not."""
    found = [problem for listener in config.listeners for problem in _dangers(listener)]
    monitored = config.metrics["listen"]
    if monitored is not None:
        address = parse_monitor_address(monitored)
        if address.kind == "tcp" and not is_local(named(address)):
            text = f"{monitored}: others than this host can read what goes on here: name an address of loopback"
            found.append(Problem(config.origins["metrics.listen"], "metrics.listen", text, True))
    if config.server["driver"] == "fork":
        text = (
            "driver fork cannot count the clients that proxies name, so max_per_client and max_per_network do not hold "
            "for them: use another driver"
        )
        found += [
            Problem(listener.line, f"listener {listener.name}.proxies", text, True)
            for listener in config.listeners
            if listener.options["proxies"]
        ]
    if os.geteuid() == 0 and not config.server["user"]:
        found.append(Problem(0, "server.user", "the workers run as root: name a user who owns the mail", True))
    return found


def _dangers(listener: ListenerConfig) -> Iterator[Problem]:
    def warning(key: str, text: str) -> Problem:
        return Problem(listener.line, f"listener {listener.name}{key}", text, True)

    protocol, environment = listener.words[0], listener.environment
    everywhere = not all(is_local(address) for address in listener.options["listen"])
    if protocol in ("smtp", "lmtp", "qmtp", "qmqp"):
        backend, plugins = listener.words[1], {word.partition(",")[0] for word in listener.words[2:]}
        if everywhere and plugins & _ACCEPTING and backend in _RELAYING and "require-auth" not in plugins:
            yield warning(
                ".plugins",
                f"whoever connects may send mail to anyone through {backend}: an open relay; list accept-domains, "
                "mailrules or require-auth in place of accept",
            )
        for variable, directory in _mail_directories(listener):
            if not os.path.isdir(directory):
                text = f"{directory} is no directory, so no mail is taken: make it, owned by who the workers run as"
                yield warning(f".settings.{variable.lower()}", text)
    logins = protocol in ("pop3", "imap") or "AUTH_STORE" in environment
    if logins and everywhere and parse_number(environment.get("AUTH_REQUIRES_TLS")) == 0:
        yield warning(
            ".settings.auth_requires_tls", "passwords cross the network in clear: take it out, and offer TLS"
        )
    if logins and protocol in ("smtp", "lmtp") and not environment.get("TLS_CERTFILE"):
        yield warning(".certificate", "there is none, so PLAIN and LOGIN cannot be offered: name a certificate")
    if environment.get("TLS_CLIENT_CA"):
        if not environment.get("TLS_CERTFILE"):
            yield warning(".settings.tls_client_ca", "without TLS nobody can show a certificate: name one of our own")
        elif protocol == "smtp" and any(map(_is_port_25, listener.options["listen"])):
            yield warning(
                ".settings.tls_client_ca",
                "other mail servers show certificates of their own, and are turned away with them: take it out here, "
                "and let users log in on port 587 or 465",
            )
    if (name := environment.get("AUTH_ANONYMOUS")) and protocol in ("pop3", "imap") and everywhere:
        yield warning(
            ".settings.auth_anonymous",
            f"whoever connects may read and delete the mail of {name}: take it out, unless that is what it is for",
        )
    if environment.get("MAILFRONT_PROFILE") == "compat" and everywhere:
        yield warning(".profile", "compat has the original's tolerances, and few limits: use it behind tcpserver")
    for key, path in _secret_files(listener):
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue  # that is said when it is opened
        if stat.S_ISREG(mode) and mode & 0o004:
            yield warning(f".{key}", f"everybody on this host can read {path}: chmod o-r {path}")


def _is_port_25(text: str) -> bool:
    address = parse_listening_address(text)
    return address.kind == "tcp" and address.port == 25


def _mail_directories(listener: ListenerConfig) -> Iterator[tuple[str, str]]:
    """Where mail is to be written, but for what is made when mail comes."""
    environment = listener.environment
    for setting in listener.settings:
        variable, directory = setting.variable, environment.get(setting.variable, "")
        made = "%" in directory or (variable.startswith("MAILDIR_") and "MAILDIR_CREATE" in environment)
        if setting.kind is Kind.DIRECTORY and directory and not made and variable != "TLS_SNI_DIRECTORY":
            yield variable, directory


def _secret_files(listener: ListenerConfig) -> Iterator[tuple[str, str]]:
    environment = listener.environment
    if certificate := environment.get("TLS_CERTFILE"):
        yield "key", environment.get("TLS_KEYFILE") or certificate
    kind, _, name = environment.get("AUTH_STORE", "").partition(":")
    if kind in ("sqlite", "static", "passwd"):
        yield "store", name
    for variable, path in environment.items():
        if variable.endswith("PASSWORD_FILE"):
            yield f"settings.{variable.lower()}", path
