"""What may stand in a configuration file: every table and every key, declared once.

From these come the checks, the file that ``mailfront config init`` writes, and the reference in the docs. The keys of a
``settings`` table are not among them: those are the `Setting`s that services, plugins and backends declare, in lower
case.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

from mailfront_io.admission import DEFAULT, PREFIXES
from mailfront_proto.record import record

MAX_WORKERS: Final = 256
"""More processes than a machine has cores for are a slip."""


class Type(Enum):
    """The type of a key's value, in words."""

    TEXT = "a string"
    NUMBER = "a whole number"
    SECONDS = "a number of seconds, 0 or more"
    FLAG = "true or false"
    TEXTS = "a list of strings"


@record(frozen=True)
class Key:
    """A key of a table. `default`: None if there is none; `usual` says in words what happens then. `choices`: the texts
    that it may have, if not any. `required`: a table without it is an error. `least`, `most`: of a number."""

    name: str
    type: Type
    doc: str
    default: object = None
    choices: tuple[str, ...] = ()
    required: bool = False
    usual: str = ""
    least: int = 1
    most: int = 2**31 - 1

    @property
    def expected(self) -> str:
        """What may be written, in words."""
        if self.choices:
            *others, last = self.choices
            return f"{', '.join(others)} or {last}" if others else last
        if self.type is Type.NUMBER:
            return f"a whole number, {self.least} {'or more' if self.most == 2**31 - 1 else f'to {self.most}'}"
        return str(self.type.value)


PROTOCOLS: Final = ("smtp", "lmtp", "qmtp", "qmqp", "pop3", "imap")

SERVER: Final = (
    Key("driver", Type.TEXT, "how sessions run", "asyncio", ("asyncio", "trio", "blocking", "fork")),
    Key("loop", Type.TEXT, "asyncio's event loop; auto: uvloop if it is installed", "auto",
        ("auto", "asyncio", "uvloop")),
    Key("workers", Type.NUMBER, "processes that share the listeners", 1, most=MAX_WORKERS),
    Key("user", Type.TEXT, "who the workers run as, once sockets and keys are open; started by root only"),
    Key("group", Type.TEXT, "their group", usual="that of the user"),
    Key("hostname", Type.TEXT, "the name of this host in greetings and trace lines", usual="the system's"),
    Key("grace", Type.SECONDS, "what sessions have to end in at SIGTERM", 30),
    Key("max_connections", Type.NUMBER, "connections that each worker takes at a time", DEFAULT.total),
    Key("max_per_client", Type.NUMBER, "and of one client, an IPv4 address or IPv6 /64", DEFAULT.client),
    Key("max_per_network", Type.NUMBER, "and of one network, an IPv4 /24 or IPv6 /48", DEFAULT.network),
    Key("client_prefix_ipv6", Type.NUMBER, "bits of an IPv6 address that are one client", PREFIXES.client_ipv6,
        least=17, most=128),
    Key("network_prefix_ipv4", Type.NUMBER, "bits of an IPv4 address that are one network", PREFIXES.network_ipv4,
        least=8, most=31),
    Key("network_prefix_ipv6", Type.NUMBER, "bits of an IPv6 address that are; fewer than those of a client",
        PREFIXES.network_ipv6, least=16, most=127),
)  # fmt: skip

LOG: Final = (
    Key("format", Type.TEXT, "lines for people, JSON objects, or the original's lines", "lines",
        ("lines", "json", "original")),
    Key("file", Type.TEXT, "a file that is appended to, and opened anew at SIGHUP", usual="standard error"),
)  # fmt: skip

METRICS: Final = (
    Key("listen", Type.TEXT, "where /metrics, /healthz and /readyz are: HOST:PORT, :PORT (of 127.0.0.1), unix:PATH or "
        "systemd:NAME", usual="nowhere"),
)  # fmt: skip

STORE: Final = (
    Key("kind", Type.TEXT, "what it is", None, ("sqlite", "passwd", "static", "cvm", "class"), required=True),
    Key("name", Type.TEXT, "its file; of cvm: the modules; of class: MODULE:CLASS", required=True),
)

LISTENER: Final = (
    Key("name", Type.TEXT, "for the log", usual="the protocol and its place"),
    Key("protocol", Type.TEXT, "what is spoken", None, PROTOCOLS, required=True),
    Key("listen", Type.TEXTS, "addresses: HOST:PORT, [IPV6]:PORT, :PORT (all of the host), unix:PATH, systemd:NAME",
        required=True),
    Key("backend", Type.TEXT, "where mail goes, for smtp, lmtp, qmtp and qmqp"),
    Key("plugins", Type.TEXTS, "what decides, in order", ()),
    Key("program", Type.TEXTS, "who takes over after an IMAP login: a program and its arguments"),
    Key("tls", Type.TEXT, "offered, there from the first byte, or not at all", None, ("starttls", "implicit", "off"),
        usual="starttls if there is a certificate"),
    Key("certificate", Type.TEXT, "PEM file with the certificate chain"),
    Key("key", Type.TEXT, "PEM file with the private key", usual="the certificate's file"),
    Key("profile", Type.TEXT, "default, or compat for the original's tolerances", "default", ("default", "compat")),
    Key("store", Type.TEXT, "where its users are: the NAME of a table [store.NAME]"),
    Key("proxies", Type.TEXTS, "peers that begin with the PROXY protocol: addresses, networks, or unix", ()),
    Key("socket_mode", Type.TEXT, "the mode of unix sockets, as octal digits", "0600"),
    Key("max_connections", Type.NUMBER, "connections that this listener takes in each worker, within [server]'s limits",
        usual="those"),
    Key("max_per_client", Type.NUMBER, "and of one client", usual="[server]'s"),
    Key("max_per_network", Type.NUMBER, "and of one network", usual="[server]'s"),
)  # fmt: skip

TABLES: Final[Mapping[str, tuple[Key, ...]]] = {
    "server": SERVER,
    "log": LOG,
    "metrics": METRICS,
    "store": STORE,
    "listener": LISTENER,
}
"""By name. ``store`` holds tables by name, ``listener`` is a list of tables."""
