"""Prints the SMTP reference from the code's own documentation: ``python docs/generate_smtp_reference.py`` writes
``docs/smtp-reference.md``; with ``--print`` it goes to standard output.
"""

import ast
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from printed_page import main

from mailfront_proto.pull import MAX_HELD_INPUT, MAX_PENDING_OUTPUT
from mailfront_proto.sasl import requests
from mailfront_proto.smtp import addresses, answers, client_events, events, profile, reply_reader, server
from mailfront_proto.smtp import parameters as options
from mailfront_proto.smtp.client import CHUNK_SIZE, SMTPClient
from mailfront_proto.smtp.client_order import ALLOWED, MAX_CHUNKS, MAX_PIPELINED
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.server_session import ServerSession

PAGE = Path(__file__).with_name("smtp-reference.md")

HEAD = """\
# SMTP reference

The server and the client of SMTP (RFC 5321) and LMTP (RFC 2033) in `mailfront_proto`. The order of commands is on a
page of its own, [](smtp-states.md). This page is printed from the documentation in the code by
`docs/generate_smtp_reference.py`, and a test checks that it is current.

Both machines are used in the same way; [](sans-io.md) shows it.

## RFCs

| RFC | what | where |
| --- | --- | --- |
| 5321 | SMTP | everywhere |
| 2033 | LMTP | both |
| 1870, 6152 | SIZE, 8BITMIME | both |
| 2034, 3463 | ENHANCEDSTATUSCODES | both |
| 2920 | PIPELINING | both |
| 3030 | CHUNKING, BINARYMIME | both |
| 3207 | STARTTLS | both |
| 3461, 6533 | DSN, with addresses in UTF-8 | both |
| 4954 | AUTH; the mechanisms are in [](sasl.md) | both |
| 6531 | SMTPUTF8 | both |
| 7504, 7505 | 521 and 556, with their enhanced codes | both |
| 8689 | REQUIRETLS, inside TLS only | both |
| 9422 | LIMITS: RCPTMAX is offered, and all three are kept | both |

XCLIENT is Postfix's, and has no RFC.
"""

SERVER_ANSWERS = """\
## Answers

Where an event owes an answer, one of these is due. Until then `next_event()` returns `PAUSED`.

- `machine.accept()` sends the usual reply, in the table below.
- `machine.accept(text)` sends its code with another text.
- `machine.reply(code, text)`: any code from 200 to 299 accepts, from 400 to 599 refuses. Lines of the text are
  separated by `\\n`. Control bytes become `?`. The machine wraps what is too long and adds an enhanced status code
  where there is none (both are fields of the profile).
- `machine.reply_each(replies)`: at `MessageEnd` in LMTP, one reply for each accepted recipient.
- `machine.abort(reply)`: at any time, to end the session from our side.
"""

PENDING = f"""\
## Bounds of the pull API

- `MAX_PENDING_OUTPUT` = {MAX_PENDING_OUTPUT}: bytes of undrained output past which `next_event()` returns
  `PAUSED`.
- `MAX_HELD_INPUT` = {MAX_HELD_INPUT}: bytes of unused input past which `receive_data()` raises
  `LocalProtocolError`. A driver that reads only after `NEED_DATA` never sees it.
"""

CLIENT_HEAD = f"""\
# The client

A command is a method of `SMTPClient`. Each puts its line into the output and returns; the answer comes as an
event. In brief:

1. `Greeting` comes by itself. Call `hello()`.
2. `HelloDone` says what the server offers. Call `starttls()`, `authenticate()` or `send_message()`.
3. `send_message()` does MAIL, RCPT, DATA or BDAT by itself, with what the server offers. At `ReadyForBody` call
   `send_body()` for each piece and `end_of_body()`; `MessageDone` has one result for each recipient.
4. `quit()`; `ConnectionClosed` is the last event.

A server that breaks the protocol is a `RemoteProtocolError` from `next_event()`. Replies are bounded:
{reply_reader.MAX_REPLY_LINE} bytes a line, {reply_reader.MAX_REPLY_LINES} lines a reply. At most
{MAX_PIPELINED} commands are unanswered at a time, and {MAX_CHUNKS} chunks of a message, which have {CHUNK_SIZE} octets
if you choose no other size.
"""

OPTIONS_HEAD = """\
# Options of MAIL and RCPT

What ESMTP parameters say, as values. The server role reads them (`options` of `Mail` and `Recipient`), the client role
prints them; what it prints, the server reads as the same value.
"""


def client_order(allowed: Mapping[str, Sequence[Enum]]) -> list[str]:
    """The table of a client machine: which command may be sent in which state."""
    used = {state for states in allowed.values() for state in states}
    columns = [state for state in type(next(iter(used))) if state in used]
    lines = ["Which command may be sent when; in no other state is one. A command that is out of order is a"]
    lines += ["`LocalProtocolError` that says what to call first.", ""]
    lines.append("| | " + " | ".join(str(state.value) for state in columns) + " |")
    lines.append("| --- |" + " --- |" * len(columns))
    for verb, states in allowed.items():
        lines.append(f"| **{verb}** | " + " | ".join("yes" if state in states else "–" for state in columns) + " |")
    return [*lines, ""]


def markdown(text: str | None) -> str:
    """A docstring as Markdown: one line for each paragraph or list item, single backticks."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        items = re.split(r"\n(?=- )", paragraph)
        paragraphs.append("\n".join(" ".join(item.split()) for item in items))
    return "\n\n".join(paragraphs).replace("``", "`")


def one_line(text: str | None) -> str:
    """A docstring in one cell of a table."""
    return markdown(text).replace("\n\n", " ").replace("|", "\\|")


def attribute_docs(kind: type) -> dict[str, str]:
    """The docstring behind each attribute in the source of `kind`."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    name = ""
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs[name] = str(node.value.value)
        else:
            name = ""
    return docs


def value(thing: object) -> str:
    """A default, short."""
    if isinstance(thing, Enum):
        return f"`{thing.name}`"
    for name in ("TOLERANT", "ORIGINAL", "STRICT"):
        if thing is getattr(addresses, name):
            return f"`{name}`"
    if isinstance(thing, profile.Limits):
        return "see below"
    if isinstance(thing, frozenset):
        return ", ".join(f"`{word}`" for word in sorted(thing))
    return "none" if thing is None else f"`{thing!r}`"


def field_table(kind: type, default: object, compat: object) -> list[str]:
    """The fields of a dataclass whose fields have docstrings, with their values in both profiles."""
    assert is_dataclass(kind)
    docs = attribute_docs(kind)
    lines = ["| field | default | compat | what it is |", "| --- | --- | --- | --- |"]
    for field in fields(kind):
        usual, other = value(getattr(default, field.name)), value(getattr(compat, field.name))
        lines.append(f"| `{field.name}` | {usual} | {other} | {one_line(docs.get(field.name, 'Its name.'))} |")
    return lines


def enum_list(kind: type[Enum]) -> list[str]:
    """The members of an enum with their docstrings."""
    docs = attribute_docs(kind)
    return [f"- `{member.name}` (`{member.value}`): {one_line(docs[member.name])}" for member in kind]


def address_flags() -> list[str]:
    """The flags and limits of `AddressSyntax` in its three named values."""
    syntaxes = (addresses.STRICT, addresses.TOLERANT, addresses.ORIGINAL)
    lines = ["| field | `STRICT` | `TOLERANT` (default) | `ORIGINAL` (compat) |", "| --- | --- | --- | --- |"]
    for field in fields(addresses.AddressSyntax):
        cells = " | ".join(value(getattr(syntax, field.name)) for syntax in syntaxes)
        lines.append(f"| `{field.name}` | {cells} |")
    return lines


def event_section(kind: type, level: str = "###") -> list[str]:
    """An event: its docstring and its fields."""
    lines = [f"{level} {kind.__name__}", "", markdown(kind.__doc__)]
    if is_dataclass(kind) and fields(kind):
        names = ", ".join(f"`{field.name}`" for field in fields(kind))
        lines += ["", f"Fields: {names}."]
    return [*lines, ""]


def members(module: Any, chosen: Callable[[Any], bool]) -> list[Any]:
    """The classes that `module` itself defines, in their order."""
    return [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type) and thing.__module__ == module.__name__ and chosen(thing)
    ]


def usual_replies() -> list[str]:
    """What ``accept()`` sends."""
    lines = ["| event | `accept()` sends |", "| --- | --- |", "| `Connected` | `220 GREETING ESMTP` |"]
    lines += ["| `Helo` | `250` with our name, and for EHLO and LHLO the capabilities |"]
    for kind, reply in server._USUAL_REPLIES.items():
        lines.append(f"| `{kind.__name__}` | `{reply}` |")
    lines.append(f"| `VerifyPassword` and its like | `{server._AUTH_DONE}` |")
    return lines


def own_answers() -> list[str]:
    """What the machine says by itself."""
    replies = [thing for thing in vars(answers).values() if isinstance(thing, Reply)]
    return [f"- `{line}`" for reply in replies for line in [str(reply).replace("\n", " / ")]]


def method_sections(kind: type, chosen: Callable[[str], bool]) -> list[str]:
    """The methods of `kind` whose names are chosen, each with its signature."""
    lines = []
    for name, method in vars(kind).items():
        if chosen(name):
            signature = str(inspect.signature(method)).replace("(self, ", "(").replace("(self)", "()")
            signature = re.sub(r" -> None$", "", re.sub(r"[\w.]+\.(\w+)", r"\1", signature))
            for nothing in (options.NO_MAIL_OPTIONS, options.NO_RECIPIENT_OPTIONS):
                signature = signature.replace(repr(nothing), f"{type(nothing).__name__}()")
            lines += [f"### {name}", "", f"`{name}{signature}`", "", markdown(method.__doc__), ""]
    return lines


def page() -> str:
    """The whole page."""
    server_events = members(events, lambda kind: kind is not events.Event)
    parts = [HEAD, "# The server", "", markdown(server.SMTPServer.__doc__), "", "## Events", ""]
    parts += [markdown((events.__doc__ or "").rpartition("\n\n")[0]), ""]
    for kind in server_events:
        parts += event_section(kind)
    parts += ["### Of an AUTH exchange", "", markdown(requests.__doc__), ""]
    for kind in members(requests, lambda kind: kind is not requests.Request):
        parts += event_section(kind, "####")
    parts += ["## Of your own", "", "Methods of the machine; call them before the command that they change.", ""]
    parts += method_sections(ServerSession, lambda name: name.startswith(("register_", "unregister_", "override_")))
    parts += [SERVER_ANSWERS, *usual_replies(), "", "## What the machine answers by itself", ""]
    parts += ["Each is told to the application as `Refused` (or `MessageRefused`), but for NOOP's.", ""]
    parts += [*own_answers(), "", "## Profile", "", markdown(profile.Profile.__doc__), ""]
    parts += ["Change one field with `dataclasses.replace(DEFAULT, helo_required=False)`.", ""]
    parts += [*field_table(profile.Profile, profile.DEFAULT, profile.COMPAT), "", "## Limits", ""]
    parts += [markdown(profile.Limits.__doc__), ""]
    parts += [*field_table(profile.Limits, profile.DEFAULT.limits, profile.COMPAT.limits), ""]
    parts += ["## LineEnds", "", markdown(profile.LineEnds.__doc__), "", *enum_list(profile.LineEnds), ""]
    parts += ["## AddressSyntax", "", markdown(addresses.AddressSyntax.__doc__), "", *address_flags(), "", PENDING]
    parts += [OPTIONS_HEAD]
    for kind in members(options, lambda kind: not issubclass(kind, Exception)):
        parts += ["## " + kind.__name__, "", markdown(kind.__doc__), ""]
        parts += [*enum_list(kind), ""] if issubclass(kind, Enum) else []
    parts += [CLIENT_HEAD, "## Order", "", *client_order(ALLOWED), "## Commands", "", markdown(SMTPClient.__doc__), ""]
    parts += method_sections(SMTPClient, lambda name: not name.startswith("_"))
    parts += ["## Events of the client", "", markdown(client_events.__doc__), ""]
    for kind in members(client_events, lambda kind: not issubclass(kind, Enum)):
        parts += event_section(kind)
    parts += ["### Stage", "", markdown(client_events.Stage.__doc__), "", *enum_list(client_events.Stage)]
    return "\n".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    main(PAGE, page)
