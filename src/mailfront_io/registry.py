"""Names to plugins and backends: built in, from other packages' entry points, or ``module:Class``; plugin lists."""

from importlib import import_module
from typing import TypeVar

from mailfront_io.plugin import Backend, Hooks, Place, Plugin
from mailfront_io.session import parse_number

_PLUGINS = {
    "accept": "mailfront_io.plugins.accept:Accept",
    "accept-domains": "mailfront_io.plugins.accept_domains:AcceptDomains",
    "accept-recipient": "mailfront_io.plugins.accept:AcceptRecipient",
    "accept-sender": "mailfront_io.plugins.accept:AcceptSender",
    "add-received": "mailfront_io.plugins.add_received:AddReceived",
    "authenticate": "mailfront_io.plugins.authenticate:Authenticate",
    "check-fqdn": "mailfront_io.plugins.check_fqdn:CheckFQDN",
    "clamav": "mailfront_io.plugins.clamav:ClamAV",
    "counters": "mailfront_io.plugins.counters:Counters",
    "cvm-authenticate": "mailfront_io.plugins.cvm_authenticate:CVMAuthenticate",
    "cvm-validate": "mailfront_io.plugins.cvm_validate:CVMValidate",
    "force-file": "mailfront_io.plugins.force_file:ForceFile",
    "lua": "mailfront_io.plugins.lua:Lua",
    "mailrules": "mailfront_io.plugins.mailrules:MailRules",
    "patterns": "mailfront_io.plugins.patterns:Patterns",
    "qmail-validate": "mailfront_io.plugins.qmail_validate:QmailValidate",
    "rbl": "mailfront_io.plugins.rbl:RBL",
    "reject": "mailfront_io.plugins.reject:Reject",
    "relayclient": "mailfront_io.plugins.relayclient:RelayClient",
    "require-auth": "mailfront_io.plugins.require_auth:RequireAuth",
    "starttls-ucspi": "mailfront_io.plugins.starttls_ucspi:StartTLSUCSPI",
    "strip-auth-results": "mailfront_io.plugins.strip_auth_results:StripAuthResults",
    "submission": "mailfront_io.plugins.submission:Submission",
    "validate": "mailfront_io.plugins.validate:Validate",
    "spamassassin": "mailfront_io.plugins.spamassassin:SpamAssassin",
}
_BACKENDS = {
    "discard": "mailfront_io.backends.discard:Discard",
    "echo": "mailfront_io.backends.echo:Echo",
    "lmtp": "mailfront_io.backends.relay:LMTPRelay",
    "maildir": "mailfront_io.backends.maildir:Maildir",
    "qmail": "mailfront_io.backends.qmail:Qmail",
    "queuedir": "mailfront_io.backends.queuedir:QueueDir",
    "smtp": "mailfront_io.backends.relay:SMTPRelay",
}

PLUGIN_GROUP = "mailfront.plugins"
BACKEND_GROUP = "mailfront.backends"

LONGEST_DEADLINE = 600
"""Seconds: as long as a client waits for any answer (RFC 5321 section 4.5.3.2)."""

C = TypeVar("C")
H = TypeVar("H", bound=Hooks)


class CannotLoad(Exception):
    """No such plugin or backend, or it cannot be imported. `kind` is ``plugin`` or ``backend``."""

    def __init__(self, kind: str, name: str, cause: str, remedy: str = "") -> None:
        super().__init__(f"Error loading {kind} {name}: {cause}")
        self.kind = kind
        self.name = name
        self.cause = cause
        self.with_remedy = f"{self}: {remedy}" if remedy else str(self)
        """The same for people who can do something about it."""


def plugin_names() -> list[str]:
    """The built-in plugins."""
    return sorted(_PLUGINS)


def installed_plugins() -> list[str]:
    """The plugins that other packages have installed, but for names that are built in."""
    from importlib.metadata import entry_points

    return sorted({point.name for point in entry_points(group=PLUGIN_GROUP)} - _PLUGINS.keys())


def backend_names() -> list[str]:
    """The built-in backends."""
    return sorted(_BACKENDS)


def load_plugin(element: str) -> type[Plugin]:
    """The class for an element of a plugin list: a name, and behind commas what is said of its place; see
    `parse_place`. Raises `CannotLoad`."""
    name, *options = element.split(",")
    kind = _load("plugin", name, _PLUGINS, PLUGIN_GROUP, Plugin)
    if not options:
        return kind
    try:
        place = parse_place(options)
    except ValueError as error:
        raise CannotLoad("plugin", element, str(error)) from None
    return type(kind.__name__, (kind,), {"__doc__": kind.__doc__, "place": place})


def parse_place(options: list[str]) -> Place:
    """``deadline=SECONDS``, 1 to `LONGEST_DEADLINE`, and ``failure=pass`` or ``failure=defer``, each at most once.
    Raises `ValueError`."""
    values = dict(option.partition("=")[::2] for option in options)
    repeated = len(values) < len(options)
    seconds, failure = values.pop("deadline", None), values.pop("failure", "defer")
    deadline = parse_number(seconds)
    bad_deadline = seconds is not None and (deadline is None or not 1 <= deadline <= LONGEST_DEADLINE)
    if values or repeated or bad_deadline or failure not in ("pass", "defer"):
        raise ValueError(
            f"write NAME,deadline=SECONDS,failure=pass with 1 to {LONGEST_DEADLINE} seconds; or failure=defer"
        )
    return Place(deadline, failure == "pass")


def load_backend(name: str) -> type[Backend]:
    """The class for `name`. Raises `CannotLoad`."""
    return _load("backend", name, _BACKENDS, BACKEND_GROUP, Backend)


def _load(kind: str, name: str, built_in: dict[str, str], group: str, base: type[H]) -> type[H]:
    target = built_in.get(name) or (name if ":" in name else _from_entry_point(name, group))
    if target is None:
        lists = "mailfront plugins" if kind == "plugin" else "mailfront --help"
        raise CannotLoad(kind, name, f"there is no {kind} of that name", f"{lists} lists the names")
    return load_class(kind, name, target, base)


def load_class(kind: str, name: str, target: str, base: type[C]) -> type[C]:
    """The class ``module:Class`` that `target` names, a subclass of `base`. `kind`, `name`: what it is for whom it
    cannot be loaded. Raises `CannotLoad`."""
    module_name, _, class_name = target.partition(":")
    try:
        found = getattr(import_module(module_name), class_name)
    except Exception as error:  # a stranger's module may raise anything when it is imported
        cause = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        remedy = "see that it is installed, or that $PYTHONPATH names its directory"
        raise CannotLoad(kind, name, cause, remedy if isinstance(error, ImportError) else "") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise CannotLoad(kind, name, f"{target} is no {base.__module__}.{base.__name__}")
    return found


def _from_entry_point(name: str, group: str) -> str | None:
    from importlib.metadata import entry_points  # slow to import, and only strangers' names need it

    return next((point.value for point in entry_points(group=group, name=name)), None)


def parse_plugin_list(arguments: list[str], variable: str | None) -> list[str]:
    """The elements of the plugin list, in order, from the arguments and then ``$PLUGINS``; each a colon-separated list.

    ``name`` appends, ``+name`` prepends, ``-name`` removes, ``-*`` empties the list. A name that is listed
    already is removed first. A ``module:Class`` name is one element: the part behind its colon begins with
    a capital letter, as no plugin's name does. What stands behind a comma belongs to the place, not to the name.
    """
    elements: list[str] = []
    for argument in [*arguments, variable or ""]:
        for word in _split(argument):
            if word == "-*":
                elements.clear()
                continue
            element = word[1:] if word[0] in "+-" else word
            name = element.partition(",")[0]
            elements = [other for other in elements if other.partition(",")[0] != name]
            if word[0] == "+":
                elements.insert(0, element)
            elif word[0] != "-":
                elements.append(element)
    return elements


def named_plugins(arguments: list[str], variable: str | None) -> list[str]:
    """Every element that the list names, in its order, also those that it removes again: the original loads each as
    soon as it is named."""
    words = [word for argument in [*arguments, variable or ""] for word in _split(argument)]
    return [word.removeprefix("+") for word in words if word[0] != "-"]


def _split(argument: str) -> list[str]:
    elements: list[str] = []
    for part in argument.split(":"):
        if part[:1].isupper() and elements:
            elements[-1] += ":" + part
        elif part:
            elements.append(part)
    return elements
