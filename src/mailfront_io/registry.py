"""Names to plugins and backends: built in, from other packages' entry points, or ``module:Class``."""

from importlib import import_module
from typing import TypeVar

from mailfront_io.plugin import Backend, Hooks, Plugin

_PLUGINS = {
    "accept": "mailfront_io.plugins.accept:Accept",
    "accept-domains": "mailfront_io.plugins.accept_domains:AcceptDomains",
    "accept-recipient": "mailfront_io.plugins.accept:AcceptRecipient",
    "accept-sender": "mailfront_io.plugins.accept:AcceptSender",
    "add-received": "mailfront_io.plugins.add_received:AddReceived",
    "authenticate": "mailfront_io.plugins.authenticate:Authenticate",
    "check-fqdn": "mailfront_io.plugins.check_fqdn:CheckFQDN",
    "counters": "mailfront_io.plugins.counters:Counters",
    "cvm-authenticate": "mailfront_io.plugins.cvm_authenticate:CVMAuthenticate",
    "cvm-validate": "mailfront_io.plugins.cvm_validate:CVMValidate",
    "force-file": "mailfront_io.plugins.force_file:ForceFile",
    "mailrules": "mailfront_io.plugins.mailrules:MailRules",
    "patterns": "mailfront_io.plugins.patterns:Patterns",
    "qmail-validate": "mailfront_io.plugins.qmail_validate:QmailValidate",
    "reject": "mailfront_io.plugins.reject:Reject",
    "relayclient": "mailfront_io.plugins.relayclient:RelayClient",
    "require-auth": "mailfront_io.plugins.require_auth:RequireAuth",
}
_BACKENDS = {
    "discard": "mailfront_io.backends.discard:Discard",
    "echo": "mailfront_io.backends.echo:Echo",
    "maildir": "mailfront_io.backends.maildir:Maildir",
    "queuedir": "mailfront_io.backends.queuedir:QueueDir",
}

PLUGIN_GROUP = "mailfront.plugins"
BACKEND_GROUP = "mailfront.backends"

H = TypeVar("H", bound=Hooks)


class CannotLoad(Exception):
    """No such plugin or backend, or it cannot be imported. `kind` is ``plugin`` or ``backend``."""

    def __init__(self, kind: str, name: str, cause: str) -> None:
        super().__init__(f"Error loading {kind} {name}: {cause}")
        self.kind = kind
        self.name = name
        self.cause = cause


def plugin_names() -> list[str]:
    """The built-in plugins."""
    return sorted(_PLUGINS)


def backend_names() -> list[str]:
    """The built-in backends."""
    return sorted(_BACKENDS)


def load_plugin(name: str) -> type[Plugin]:
    """The class for `name`. Raises `CannotLoad`."""
    return _load("plugin", name, _PLUGINS, PLUGIN_GROUP, Plugin)


def load_backend(name: str) -> type[Backend]:
    """The class for `name`. Raises `CannotLoad`."""
    return _load("backend", name, _BACKENDS, BACKEND_GROUP, Backend)


def _load(kind: str, name: str, built_in: dict[str, str], group: str, base: type[H]) -> type[H]:
    target = built_in.get(name) or (name if ":" in name else _from_entry_point(name, group))
    if target is None:
        raise CannotLoad(kind, name, f"there is no {kind} of that name")
    module_name, _, class_name = target.partition(":")
    try:
        found = getattr(import_module(module_name), class_name)
    except Exception as error:  # a stranger's module may raise anything when it is imported
        cause = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise CannotLoad(kind, name, cause) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise CannotLoad(kind, name, f"{target} is no {base.__module__}.{base.__name__}")
    return found


def _from_entry_point(name: str, group: str) -> str | None:
    from importlib.metadata import entry_points  # slow to import, and only strangers' names need it

    return next((point.value for point in entry_points(group=group, name=name)), None)


def parse_plugin_list(arguments: list[str], variable: str | None) -> list[str]:
    """The plugin names, in order, from the arguments and then ``$PLUGINS``; each a colon-separated list.

    ``name`` appends, ``+name`` prepends, ``-name`` removes, ``-*`` empties the list. A name that is listed
    already is removed first. A ``module:Class`` name is one element: the part behind its colon begins with
    a capital letter, as no plugin's name does.
    """
    names: list[str] = []
    for argument in [*arguments, variable or ""]:
        for element in _split(argument):
            if element == "-*":
                names.clear()
                continue
            name = element.lstrip("+-") if element[0] in "+-" else element
            if name in names:
                names.remove(name)
            if element[0] == "+":
                names.insert(0, name)
            elif element[0] != "-":
                names.append(name)
    return names


def _split(argument: str) -> list[str]:
    elements: list[str] = []
    for part in argument.split(":"):
        if part[:1].isupper() and elements:
            elements[-1] += ":" + part
        elif part:
            elements.append(part)
    return elements
