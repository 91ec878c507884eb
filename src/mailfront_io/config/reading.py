"""From a configuration file to what ``mailfront serve`` is to do; everything that is wrong with it, at once.

Each listener becomes a service line and an environment, which is what every part of mailfront is configured by: a key
of a ``settings`` table is the variable of the same name in capitals. A variable that is set overrides its key.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from mailfront_io import imap_service, pop3_service, service, tls
from mailfront_io.config.keys import LISTENER, STORE, TABLES, Key, Type
from mailfront_io.config.lines import Path, key_lines
from mailfront_io.listening import BadAddress, parse_listening_address, parse_monitor_address
from mailfront_io.plugin import Hooks, Kind, Setting
from mailfront_io.proxied import Proxies
from mailfront_io.registry import CannotLoad, load_backend, load_plugin, parse_plugin_list
from mailfront_io.session import parse_number
from mailfront_proto.record import record

CREDENTIAL = "credential:"
"""In front of a name it makes any text the path of that systemd credential."""

_BY_KEY = {"certificate": "TLS_CERTFILE", "key": "TLS_KEYFILE", "profile": "MAILFRONT_PROFILE", "store": "AUTH_STORE"}
"""The variables that keys of a listener stand for, besides ``tls``."""

_MAIL = ("smtp", "lmtp", "qmtp", "qmqp")

_WORDS = {"imap": ("program", ("backend", "plugins")), "pop3": ("", ("backend", "plugins", "program"))}
"""Which key a protocol's service line needs, and which are of no use to it."""


@record(frozen=True, hashable=True)
class Problem:
    """Something that is wrong, or (`warning`) dangerous. `line`: 0 where there is none. `key`: its full name."""

    line: int
    key: str
    text: str
    warning: bool = False

    def __str__(self) -> str:
        return ": ".join(filter(None, ("warning" if self.warning else "", self.key, self.text)))

    def of(self, file: str) -> str:
        """With its place in `file`, as people and their editors read it."""
        return f"{file}:{self.line}: {self}" if self.line else f"{file}: {self}"


@record
class ListenerConfig:
    """A listener. `words`: its service line. `environment`: its settings. `origins`: of each where it comes from, a
    line of the file (a number) or ``environment``. `options`: its keys, as the file has them or by default."""

    name: str
    line: int
    words: list[str]
    environment: dict[str, str]
    origins: dict[str, int | str]
    options: dict[str, Any]
    settings: tuple[Setting, ...]
    """Those that it knows."""


@record
class Config:
    """What a file says. `server`, `log`, `metrics`: the keys of these tables, with their defaults."""

    file: str
    server: dict[str, Any]
    log: dict[str, Any]
    metrics: dict[str, Any]
    listeners: list[ListenerConfig]
    origins: dict[str, int]
    """The line of each key of the tables that are one each, by its full name."""


class WrongConfiguration(Exception):
    """A file cannot be used. `problems`: all that is wrong, in the order of the file. `listeners`: those that nothing
    is wrong with so far."""

    def __init__(self, file: str, problems: list[Problem], listeners: Iterable[ListenerConfig] = ()) -> None:
        super().__init__("\n".join(problem.of(file) for problem in problems))
        self.file = file
        self.problems = problems
        self.listeners = list(listeners)


def read_config(file: str, environment: Mapping[str, str]) -> Config:
    """Read and check `file`. Raises `WrongConfiguration`.

    Certificates, stores and so on are not opened here; see `mailfront_io.config.checks`.
    """
    try:
        with open(file, "rb") as source:
            text = source.read().decode()
    except OSError as error:
        why = error.strerror or str(error)
        raise WrongConfiguration(file, [Problem(0, "", f"{why}: mailfront config init writes a first one")]) from None
    except UnicodeDecodeError:
        raise WrongConfiguration(file, [Problem(0, "", "it is no UTF-8 text: save it as one")]) from None
    return parse_config(text, file, environment)


def parse_config(text: str, file: str, environment: Mapping[str, str]) -> Config:
    """The same of a text."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at line ")
        line = parse_number(place.partition(",")[0]) or text.count("\n") + 1
        problem = Problem(line, "", f"{message[:1].lower()}{message[1:]}: see toml.io for how TOML is written")
        raise WrongConfiguration(file, [problem]) from None
    except (RecursionError, ValueError) as error:  # lists in lists without end, a number without end
        why = "too deep" if isinstance(error, RecursionError) else str(error)
        raise WrongConfiguration(file, [Problem(0, "", f"it cannot be read: {why}")]) from None
    return _Reader(document, key_lines(text), environment).read(file)


class _Reader:
    def __init__(self, document: dict[str, Any], lines: dict[Path, int], environment: Mapping[str, str]) -> None:
        self._document = document
        self._lines = lines
        self._environment = environment
        self._problems: list[Problem] = []

    def read(self, file: str) -> Config:
        document = self._document
        known = {**TABLES, "settings": ()}
        for name in document:
            if name not in known:
                self._wrong((name,), f"there is no such table{_like(name, known)}")
        one = {name: self._table((name,), self._given((name,), document.get(name, {})), TABLES[name])
               for name in ("server", "log", "metrics")}  # fmt: skip
        self._check_metrics(one["metrics"]["listen"])
        stores = self._stores(document.get("store", {}))
        shared = self._given(("settings",), document.get("settings", {}))
        if one["server"]["network_prefix_ipv6"] >= one["server"]["client_prefix_ipv6"]:
            path: Path = ("server", "network_prefix_ipv6")
            self._wrong(path, "is not less than client_prefix_ipv6: a network has many clients")
        listeners = document.get("listener", [])
        if isinstance(listeners, dict):
            self._wrong(("listener",), "is in single brackets: write [[listener]], since there may be several")
            listeners = []
        elif not isinstance(listeners, list) or not listeners:
            self._wrong(("listener",), "there is none: write a table [[listener]] for each")
            listeners = []
        made = [self._listener(place, table, stores, shared) for place, table in enumerate(listeners)]
        self._settings_that_nobody_has(shared, made)
        if self._problems:
            problems = sorted(self._problems, key=lambda problem: problem.line)
            raise WrongConfiguration(file, problems, filter(None, made))
        origins = {
            f"{table}.{key}": self._line((table, key)) for table in one for key in document.get(table, {})
        }
        return Config(file, one["server"], one["log"], one["metrics"], [each for each in made if each], origins)

    def _check_metrics(self, text: str | None) -> None:
        if text is not None:
            try:
                parse_monitor_address(text)
            except BadAddress as error:
                self._wrong(("metrics", "listen"), str(error))

    # -- tables ------------------------------------------------------------------------------------------

    def _given(self, path: Path, value: object) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self._wrong(path, f"is a table: write [{_name(path)}]")
        return {}

    def _table(self, path: Path, given: Mapping[str, Any], keys: tuple[Key, ...]) -> dict[str, Any]:
        """The values of the table's keys, defaults among them; what is wrong with one is noted, and it is left out."""
        by_name = {key.name: key for key in keys}
        values = {key.name: key.default for key in keys}
        for name, value in given.items():
            if name == "settings" and keys is LISTENER:
                continue
            if name not in by_name:
                self._wrong((*path, name), f"there is no such key{_like(name, by_name)}")
            elif (fault := _fault(by_name[name], value)) is not None:
                self._wrong((*path, name), fault)
            else:
                values[name] = self._secret((*path, name), value)
        for key in keys:
            if key.required and key.name not in given:
                self._wrong((*path, key.name), f"is missing: it is {key.doc}: write {key.expected}", path)
        return values

    def _secret(self, path: Path, value: Any) -> Any:
        """A text that names a systemd credential becomes its path."""
        if not isinstance(value, str) or not value.startswith(CREDENTIAL):
            return value
        directory = self._environment.get("CREDENTIALS_DIRECTORY")
        if not directory:
            self._wrong(path, f"is {value!r}, and systemd has handed over none: write LoadCredential= in the unit")
            return value
        return os.path.join(directory, value.removeprefix(CREDENTIAL))

    def _stores(self, tables: object) -> dict[str, str]:
        """``$AUTH_STORE`` of each store."""
        stores: dict[str, str] = {}
        for name, table in self._given(("store",), tables).items():
            values = self._table(("store", name), self._given(("store", name), table), STORE)
            stores[name] = f"{values['kind']}:{values['name']}"
        return stores

    # -- listeners ---------------------------------------------------------------------------------------

    def _listener(
        self, place: int, table: object, stores: Mapping[str, str], shared: Mapping[str, Any]
    ) -> ListenerConfig | None:
        path: Path = ("listener", place)
        before = len(self._problems)
        given = self._given(path, table)
        values = self._table(path, given, LISTENER)
        protocol = values["protocol"]
        self._check_addresses(path, values)
        if len(self._problems) > before:
            return None
        words = self._words(path, values)
        settings = self._known_settings(path, protocol, words)
        environment: dict[str, str] = {}
        origins: dict[str, int | str] = {}
        own = self._given((*path, "settings"), given.get("settings", {}))
        by_name = {setting.variable.lower(): setting for setting in settings}
        for where, table_ in ((("settings",), shared), ((*path, "settings"), own)):
            for name, value in table_.items():
                setting = by_name.get(name)
                if setting is not None:
                    self._set((*where, name), setting, value, environment, origins)
                elif table_ is own:
                    self._wrong((*where, name), f"no part of this listener has that setting{_like(name, by_name)}")
        for key, variable in _BY_KEY.items():
            if key in given:
                value = values[key]
                if key == "store":
                    if value not in stores:
                        self._wrong((*path, key), f"is {value!r}, and there is no table [store.{value}]")
                    value = stores.get(value)
                environment[variable], origins[variable] = value, self._line((*path, key))
        self._set_tls(path, values, environment, origins)
        for setting in settings:
            if setting.variable in self._environment:
                environment[setting.variable] = self._environment[setting.variable]
                origins[setting.variable] = "environment"
        if len(self._problems) > before:
            return None
        name = values["name"] or f"{protocol}-{place + 1}"
        return ListenerConfig(name, self._line(path), words, environment, origins, values, settings)

    def _check_addresses(self, path: Path, values: Mapping[str, Any]) -> None:
        if values["listen"] == []:
            self._wrong((*path, "listen"), "is empty: name an address, or take the listener out")
        for text in values["listen"] or ():
            try:
                address = parse_listening_address(text)
            except BadAddress as error:
                self._wrong((*path, "listen"), str(error))
            else:
                if values["protocol"] == "lmtp" and address.kind == "tcp" and address.port == 25:
                    self._wrong((*path, "listen"), f"{text}: LMTP may not be served on port 25 (RFC 2033)")
        try:
            Proxies(values["proxies"] or ())
        except ValueError as error:
            self._wrong((*path, "proxies"), f"{error}: write addresses and networks such as 192.0.2.1, 2001:db8::/32")
        if not re.fullmatch(r"0?[0-7]{3}", values["socket_mode"] or ""):
            self._wrong((*path, "socket_mode"), f"is {values['socket_mode']!r}: write octal digits, such as 0660")

    def _words(self, path: Path, values: Mapping[str, Any]) -> list[str]:
        protocol, backend, program = values["protocol"], values["backend"], values["program"]
        needs, unused = _WORDS.get(protocol, ("backend", ("program",)))
        if needs and not values[needs]:
            self._wrong((*path, needs), f"is missing: {protocol} needs it", path)
        for key in unused:
            if values[key]:
                self._wrong((*path, key), f"is of no use: {protocol} has none")
        if protocol == "pop3":
            return ["pop3", "maildir"]
        return [protocol, *(program or ())] if protocol == "imap" else [protocol, backend or "", *values["plugins"]]

    def _known_settings(self, path: Path, protocol: str, words: list[str]) -> tuple[Setting, ...]:
        if protocol not in _MAIL:
            return (*(pop3_service if protocol == "pop3" else imap_service).SETTINGS, *tls.SETTINGS)
        hooks: list[type[Hooks]] = []
        for key, names, load in (
            ("backend", words[1:2], load_backend), ("plugins", parse_plugin_list(words[2:], None), load_plugin)
        ):  # fmt: skip
            for name in filter(None, names):
                try:
                    hooks.append(load(name))
                except CannotLoad as error:
                    self._wrong((*path, key), error.with_remedy)
        found = {s.variable: s for s in (*service.SETTINGS, *tls.SETTINGS, *(s for h in hooks for s in h.settings))}
        return tuple(found.values())

    def _set_tls(
        self, path: Path, values: Mapping[str, Any], environment: dict[str, str], origins: dict[str, int | str]
    ) -> None:
        wish = values["tls"]
        if wish in ("starttls", "implicit") and not environment.get("TLS_CERTFILE"):
            self._wrong((*path, "certificate"), f"is missing: tls is {wish}: name a PEM file", path)
        if wish == "implicit":
            environment["TLS_IMMEDIATE"], origins["TLS_IMMEDIATE"] = "", self._line((*path, "tls"))
        elif wish == "off":
            environment.pop("TLS_CERTFILE", None)

    def _set(
        self, path: Path, setting: Setting, value: Any, environment: dict[str, str], origins: dict[str, int | str]
    ) -> None:
        text = self._text(path, setting, value)
        if text is not None:
            environment[setting.variable], origins[setting.variable] = text, self._line(path)

    def _text(self, path: Path, setting: Setting, value: Any) -> str | None:
        """`value` as the variable has it; None: unset, or wrong."""
        match setting.kind, value:
            case Kind.FLAG, bool():
                return "" if value else None
            case Kind.NUMBER, int() if not isinstance(value, bool) and value >= 0:
                return str(value)
            case Kind.LIST, list() if all(isinstance(each, str) and ":" not in each for each in value):
                return ":".join(value)
            case (Kind.TEXT | Kind.DIRECTORY), str() if "\0" not in value:
                return str(self._secret(path, value))
        expected = {
            Kind.FLAG: "true or false",
            Kind.NUMBER: "a whole number, 0 or more",
            Kind.LIST: "a list of strings without colons",
            Kind.DIRECTORY: "a directory, as a string",
        }.get(setting.kind, "a string")
        self._wrong(path, f"is {_shown(value)}: write {expected} ({setting.doc})")
        return None

    def _settings_that_nobody_has(self, shared: Mapping[str, Any], listeners: list[ListenerConfig | None]) -> None:
        if not listeners or None in listeners:
            return  # what they would know is not known
        known = {setting.variable.lower() for listener in listeners if listener for setting in listener.settings}
        for name in shared:
            if name not in known:
                self._wrong(("settings", name), f"no part of any listener has that setting{_like(name, known)}")

    # -- problems ----------------------------------------------------------------------------------------

    def _line(self, path: Path) -> int:
        """That of `path`, or of the nearest thing around it that is there."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 0)

    def _wrong(self, path: Path, text: str, near: Path | None = None) -> None:
        problem = Problem(self._line(near or path), _name(path), text)
        if problem not in self._problems:
            self._problems.append(problem)


def _fault(key: Key, value: object) -> str | None:
    """What is wrong with the value of `key`; None if it is good."""
    match key.type, value:
        case Type.TEXT, str():
            good = (not key.choices or value in key.choices) and "\0" not in value and bool(value)
        case Type.FLAG, bool():
            good = True
        case Type.NUMBER, int():
            good = not isinstance(value, bool) and key.least <= value <= key.most
        case Type.SECONDS, int() | float():
            good = not isinstance(value, bool) and 0 <= value < 2**31
        case Type.TEXTS, list():
            good = all(isinstance(each, str) and each and "\0" not in each for each in value)
        case _:
            good = False
    return None if good else f"is {_shown(value)}: write {key.expected} ({key.doc})"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, str | int | float | list) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _name(path: Path) -> str:
    """``listener 2, settings.timeout``: places in lists count from 1, for people."""
    text = ""
    for part in path:
        text += f" {part + 1}," if isinstance(part, int) else f" {part}" if text.endswith(",") else f".{part}"
    return text.strip(".,")


def _like(name: str, known: Mapping[str, Any] | set[str]) -> str:
    """A remedy: the name that may have been meant, or all of them where they are few."""
    if close := get_close_matches(name, known, 1):
        return f": is it {close[0]}?"
    return f": known: {', '.join(known)}" if 0 < len(known) <= 20 else ""
