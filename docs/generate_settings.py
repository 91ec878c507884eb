"""Prints the configuration reference from the settings that the code declares: ``python
docs/generate_settings.py`` writes ``docs/configuration.md``; with ``--print`` it goes to standard output.
"""

from collections.abc import Iterable
from pathlib import Path

from printed_page import main

from mailfront_io import imap_service, pop3_service, service, tls
from mailfront_io.plugin import Hooks, Kind, Setting
from mailfront_io.registry import backend_names, load_backend, load_plugin, plugin_names

PAGE = Path(__file__).with_name("configuration.md")

HEAD = """\
# Configuration reference

Every setting is an environment variable, under the name that it has in the original. This page is printed from
the declarations in the code by `docs/generate_settings.py`, and a test checks that it is current.

The command line names the protocol, the backend and the plugins; the environment says the rest:

```console
$ QUEUEDIR=/var/spool/in DATABYTES=1000000 mailfront serve smtp queuedir counters accept
```

- A **number** is decimal digits. In the default profile anything else is refused when the program starts, with
  one sentence and exit code 78; in the compat profile it counts as unset.
- A **flag** is on when the variable is set, even to nothing.
- A **colon-separated list** has no escapes.
- A setting with a star must be set for the plugin or backend to work.
"""

FACTS = """\
## The facts of the connection

In the one-shot form (`mailfront PROTOCOL BACKEND …` on descriptors 0 and 1) the program that accepted the
connection says what is known of it, in the manner of UCSPI (tcpserver, sslserver, tcpsvd). `$PROTO` names the
prefix, `TCP` if unset. `mailfront serve` finds the addresses out itself, for each session, with the prefix `TCP`
or `TCP6`; of its own environment it takes `TCPLOCALHOST`, the host name to greet with (unset: the system's).

| variable | what it says |
| --- | --- |
| `PROTO` | prefix of the names below: `TCP`, `TCP6`, `SSL`, … |
| `TCPLOCALIP`, `TCPLOCALPORT` | our address and port |
| `TCPLOCALHOST` | our host name: in the greeting, in HELO's answer, in the trace line |
| `TCPREMOTEIP`, `TCPREMOTEPORT` | the client's address and port |
| `TCPREMOTEHOST` | the client's host name, where somebody has looked it up |
| `TCPREMOTEINFO` | what the client's ident server said |

A variable that is set but empty counts as unset. So does one with control bytes in it, since the client has its
part in its own host name.

## The plugin list

Each argument behind the backend, then `$PLUGINS`, is a colon-separated list. `name` puts a plugin at the end,
`+name` at the front, `-name` takes it out, `-*` empties the list. A plugin that is listed already is taken out
first, so none runs twice. `package.module:Class` names a plugin of your own; see [](plugins.md).

Hooks run in the order of the list. A sender or recipient that no plugin accepts is refused.

## Exit codes

| code | when |
| --- | --- |
| 0 | the session has ended as sessions do |
| 1 | it broke off, the server ended it with an error, or a plugin or backend could not be loaded |
| 78 | a setting or an argument of `mailfront serve` cannot be used; one sentence says which and what to do |
| 111 | fewer than two arguments |
| 128 + N | the one-shot program was ended by signal N |
"""


def table(settings: Iterable[Setting]) -> list[str]:
    """The settings as a Markdown table."""
    lines = ["| variable | kind | default | what it does |", "| --- | --- | --- | --- |"]
    for setting in settings:
        star = " \\*" if setting.required and not setting.unless else ""
        usual = setting.default or ("off" if setting.kind is Kind.FLAG else "unset")
        lines.append(f"| `{setting.variable}`{star} | {setting.kind.value} | {usual} | {setting.doc} |")
    return lines


def hooks(name: str, kind: type[Hooks]) -> list[str]:
    """A plugin or backend: its first paragraph and its settings."""
    text = " ".join((kind.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
    return [f"### {name}", "", text, "", *(table(kind.settings) if kind.settings else ["No settings."]), ""]


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## Every service", "", *table(service.SETTINGS), "", FACTS, "## TLS", ""]
    parts += ["Without `TLS_CERTFILE` there is no TLS.", "", *table(tls.SETTINGS), "", "## POP3", ""]
    parts += ["Of POP3 services; see [](pop3.md).", "", *table(pop3_service.SETTINGS), "", "## IMAP", ""]
    parts += ["Of IMAP logins; see [](imap.md).", "", *table(imap_service.SETTINGS), "", "## Plugins", ""]
    for name in plugin_names():
        parts += hooks(name, load_plugin(name))
    parts += ["## Backends", ""]
    for name in backend_names():
        parts += hooks(name, load_backend(name))
    return "\n".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    main(PAGE, page)
