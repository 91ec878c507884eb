"""Prints the POP3 reference from the code's own documentation: ``python docs/generate_pop3_reference.py`` writes
``docs/pop3-reference.md``; with ``--print`` it goes to standard output.
"""

import inspect
import re
from dataclasses import fields
from pathlib import Path

from generate_smtp_reference import attribute_docs, client_order, enum_list, event_section, markdown, members, one_line
from printed_page import main

from mailfront_proto.pop3 import answers, client_events, events, profile, server
from mailfront_proto.pop3.client import POP3Client
from mailfront_proto.pop3.client_session import ALLOWED, MAX_CAPABILITIES, MAX_PIPELINED, MAX_REPLY_LINE
from mailfront_proto.pop3.replies import Reply
from mailfront_proto.pop3.states import Mode

PAGE = Path(__file__).with_name("pop3-reference.md")

HEAD = """\
# POP3 reference

The server and the client of POP3 (RFC 1939) in `mailfront_proto`. The order of commands is on a page of its own,
[](pop3-states.md). This page is printed from the documentation in the code by `docs/generate_pop3_reference.py`, and a
test checks that it is current.

Both machines are used as those of SMTP are: feed, pull, answer, drain; [](sans-io.md) shows it. Here is a server of one
mailbox, as a function from what a client says to what it gets:

```python
from mailfront_proto.pop3 import ConnectionClosed, OpenMailbox, POP3Server, Retrieve

def serve(said, messages):
    machine = POP3Server(greeting="ready")
    machine.offers_user = True  # let it be so where the connection is protected
    machine.receive_data(said)
    machine.receive_eof()
    got = b""
    while not isinstance(event := machine.next_event(), ConnectionClosed):
        got += machine.data_to_send()
        if isinstance(event, OpenMailbox):
            machine.open_mailbox([len(m) for m in messages], [b"uid%d" % n for n in range(len(messages))])
        elif isinstance(event, Retrieve):
            machine.accept()
            machine.send_message_data(messages[event.number - 1])
            machine.end_of_message()
        elif machine.answer_owed:  # greeting, password, Update: say yes
            machine.accept()
    return got + machine.data_to_send()

said = b"USER joe\\r\\nPASS secret\\r\\nSTAT\\r\\nRETR 1\\r\\nDELE 1\\r\\nQUIT\\r\\n"
got = serve(said, [b"Subject: hello\\n\\n.dots.\\n"])
assert got == (
    b"+OK ready\\r\\n+OK \\r\\n+OK \\r\\n+OK 1 23\\r\\n"
    b"+OK \\r\\nSubject: hello\\r\\n\\r\\n..dots.\\r\\n.\\r\\n+OK \\r\\n+OK \\r\\n"
)
```

What the machine does by itself: syntax, order, limits; the marks of DELE, RSET and LAST; STAT, LIST and UIDL, in
slices, from eleven bytes a message; CAPA; dots and line ends. What it asks for: whether a password is right, the
mailbox, a message's bytes, and at QUIT the update. Only `Update` may delete: a session that ends in any other way
leaves everything.

## RFCs

| RFC | what | where |
| --- | --- | --- |
| 1939 | POP3. APOP is not offered: it needs the password in clear, and MD5. | everywhere |
| 1460 | LAST, which RFC 1939 dropped | server |
| 1734, 5034 | AUTH, with initial response, and SASL in CAPA. AUTH alone lists the mechanisms, as before CAPA. | both |
| 2449 | CAPA, RESP-CODES, PIPELINING, EXPIRE, LOGIN-DELAY, IMPLEMENTATION; longer command lines | both |
| 2595 | STLS | both |
| 3206 | AUTH-RESP-CODE: `[AUTH]`, `[SYS/TEMP]`, `[SYS/PERM]` | both |
| 6856 | UTF8, LANG (our texts are in English), `[UTF8]`. To downgrade a message is the application's to do. | both |
"""

COMPAT_NOTES = """\
## The compat profile

Answers are those of the original, byte for byte, and its recorded sessions are replayed under every split. Also in this
profile, a number with a sign (`+1`) is none, a UID that cannot be sent is a digest, a password in a log is masked,
control characters in names and passwords are a syntax error, and a last line without its end is not executed.
"""

SERVER_ANSWERS = """\
## Answers

Where an event owes an answer, one of these is due. Until then `next_event()` returns `PAUSED`.
"""

CLIENT_HEAD = f"""\
# The client

A command is a method of `POP3Client`. Each puts its line into the output and returns; the answer comes as events. In
brief:

1. `Greeting` comes by itself. Call `capa()`.
2. `CapaDone` says what the server offers. Call `stls()`, `login()` or `authenticate()`.
3. After `Authenticated` call `stat()`, `list()`, `uidl()`, `retr()`, `top()`, `dele()`.
4. `quit()`. Messages are deleted only if that was answered with `+OK`; `ConnectionClosed` is the last event.

A server that breaks the protocol is a `RemoteProtocolError` from `next_event()`, with the offending line attached.
Lines that are no part of a message are bounded ({MAX_REPLY_LINE} bytes), as are capabilities ({MAX_CAPABILITIES}). At
most {MAX_PIPELINED} commands are unanswered at a time.
"""


def value(thing: object) -> str:
    """A default, short."""
    if type(thing).__name__ == "Limits":
        return "see below"
    return "none" if thing is None else f"`{thing!r}`"


def field_table(kind: type, default: object, compat: object) -> list[str]:
    """The fields of a dataclass whose fields have docstrings, with their values in both profiles."""
    docs = attribute_docs(kind)
    lines = ["| field | default | compat | what it is |", "| --- | --- | --- | --- |"]
    for field in fields(kind):
        usual, other = value(getattr(default, field.name)), value(getattr(compat, field.name))
        lines.append(f"| `{field.name}` | {usual} | {other} | {one_line(docs.get(field.name, 'Its name.'))} |")
    return lines


def methods(kind: type, names: tuple[str, ...] = ()) -> list[str]:
    """The methods of `kind` with their signatures: those of `names`, or all."""
    lines = []
    for name in names or [name for name in vars(kind) if not name.startswith("_")]:
        method = getattr(kind, name)
        signature = str(inspect.signature(method)).replace("(self, ", "(").replace("(self)", "()")
        signature = re.sub(r" -> None$", "", re.sub(r"[\w.]+\.(\w+)", r"\1", signature))
        lines += [f"### {name}", "", f"`{name}{signature}`", "", markdown(method.__doc__), ""]
    return lines


ANSWERING = (
    *("accept", "reply", "open_mailbox", "send_message_data", "end_of_message", "reply_utf8_only", "supply_keys"),
    *("tls_established", "abort"),
)


def own_answers() -> list[str]:
    """What the machine says by itself."""
    return [f"- `{thing}`" for thing in vars(answers).values() if isinstance(thing, Reply) and thing.text]


def page() -> str:
    """The whole page."""
    parts = [HEAD, "# The server", "", markdown(server.POP3Server.__doc__), "", "## Mode", ""]
    parts += [markdown(Mode.__doc__), "", *enum_list(Mode), "", "## Events", ""]
    parts += [markdown((events.__doc__ or "").rpartition("\n\n")[0]), ""]
    for kind in members(events, lambda kind: True):
        parts += event_section(kind)
    parts += [SERVER_ANSWERS, *methods(server.POP3Server, ANSWERING), "## What the machine answers by itself", ""]
    parts += ["Besides `+OK` and numbers; and the usual words of the application's refusals.", ""]
    parts += [*own_answers(), "", "## Profile", "", markdown(profile.Profile.__doc__), ""]
    parts += ["Change one field with `dataclasses.replace(DEFAULT, refuses_http=False)`.", ""]
    parts += [*field_table(profile.Profile, profile.DEFAULT, profile.COMPAT), "", "## Limits", ""]
    parts += [markdown(profile.Limits.__doc__), ""]
    parts += [*field_table(profile.Limits, profile.DEFAULT.limits, profile.COMPAT.limits), "", COMPAT_NOTES]
    parts += [CLIENT_HEAD, "## Order", "", *client_order(ALLOWED), "## Commands", "", markdown(POP3Client.__doc__), ""]
    parts += methods(POP3Client)
    parts += ["## Events of the client", "", markdown(client_events.__doc__), ""]
    for kind in members(client_events, lambda kind: True):
        parts += event_section(kind)
    return "\n".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    main(PAGE, page)
