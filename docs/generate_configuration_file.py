"""Prints the reference of the configuration file from the keys that the code declares: ``python
docs/generate_configuration_file.py`` writes ``docs/configuration-file.md``; with ``--print`` it goes to standard
output.
"""

from pathlib import Path

from printed_page import main

from mailfront_io.config.keys import TABLES, Key

PAGE = Path(__file__).with_name("configuration-file.md")

HEAD = """\
# The configuration file

`mailfront serve -c FILE` serves what a TOML file says. This page is printed from the declarations in the code by
`docs/generate_configuration_file.py`, and a test checks that it is current; how such a server is run is told in
[](serve.md).

```console
$ mailfront config init --for mx        # or submission, pop3, lmtp, dev: writes mailfront.toml, with comments
$ mailfront config check                # what is wrong with it, by line; what is dangerous in it
$ mailfront config show                 # every setting that is in force, and where it comes from
```

A key with a star must be there. A text that begins with `credential:` is the path of the systemd credential of that
name (`LoadCredential=`).

"""

TITLES = {
    "server": ("[server]", "The processes."),
    "log": ("[log]", "See [](logging.md)."),
    "metrics": ("[metrics]", "See [](metrics.md)."),
    "store": ("[store.NAME]", "Where users are looked up; any number of them. See [](stores.md)."),
    "listener": ("[[listener]]", "One for each service, at one or more addresses."),
}

TAIL = """\
## [settings] and [listener.settings]

Every other setting is one of the [configuration reference](configuration.md), by its name in lower case:
`DATABYTES` is `databytes`. In `[settings]` it is for all listeners that know it, in `[listener.settings]` for the
listener above. Numbers, flags (`true`), lists and texts are written as TOML has them:

```toml
[listener.settings]
databytes = 10485760
accept_domains = ["example.org", "example.net"]
maxrcpts_reject = true
```

A setting that no part of a listener knows is an error, and so is a value of the wrong kind. **An environment variable
of that name overrides its key**, in every listener; `mailfront config show` tells where a value comes from.
"""


def default(key: Key) -> str:
    """What counts without the key."""
    if key.usual or key.default is None or key.default == ():
        return key.usual or ("none" if not key.required else "")
    return f"`{key.default}`"


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for table, (title, text) in TITLES.items():
        parts.append(f"## {title}\n\n{text}\n\n| key | value | default | what it says |\n| --- | --- | --- | --- |\n")
        for key in TABLES[table]:
            star = " \\*" if key.required else ""
            parts.append(f"| `{key.name}`{star} | {key.expected} | {default(key)} | {key.doc} |\n")
        parts.append("\n")
    return "".join(parts) + TAIL


if __name__ == "__main__":
    main(PAGE, page)
