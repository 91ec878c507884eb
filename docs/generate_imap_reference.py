"""Prints the IMAP reference from the code's own documentation: ``python docs/generate_imap_reference.py`` writes
``docs/imap-reference.md``; with ``--print`` it goes to standard output.
"""

from pathlib import Path

from generate_pop3_reference import field_table, methods
from generate_smtp_reference import client_order, enum_list, event_section, markdown, members
from printed_page import main

from mailfront_proto.imap import answers, client_events, events, profile, server
from mailfront_proto.imap.client import IMAPClient
from mailfront_proto.imap.client_session import ALLOWED
from mailfront_proto.imap.replies import Reply
from mailfront_proto.imap.response_reader import MAX_RESPONSE, MAX_RESPONSE_LINE
from mailfront_proto.imap.states import COMMAND_STATES, COMMANDS, Row, State, command_table

PAGE = Path(__file__).with_name("imap-reference.md")

HEAD = """\
# IMAP reference

The server and the client of IMAP (RFC 9051, RFC 3501) **up to the login** in `mailfront_proto`. With the login the
connection goes to its next owner: an IMAP server behind the front end, or your client. This page is printed from the
documentation in the code by `docs/generate_imap_reference.py`, and a test checks that it is current.

Both machines are used as those of SMTP are: feed, pull, answer, drain; [](sans-io.md) shows it. Here is a login, as a
function from what a client says to what it gets, and to what the next owner must know:

```python
from mailfront_proto.imap import ConnectionClosed, HandOver, IMAPServer, VerifyPassword

def log_in(said, passwords):
    machine = IMAPServer()
    machine.offers_login = True  # let it be so where the connection is protected
    machine.receive_data(said)
    machine.receive_eof()
    while not isinstance(event := machine.next_event(), HandOver | ConnectionClosed):
        if isinstance(event, VerifyPassword) and event.password.reveal() != passwords.get(event.username):
            machine.reply("NO")
        elif machine.answer_owed:
            machine.accept()
    return machine.data_to_send(), event, machine.trailing_data

said = b"a LOGIN joe wrong\\r\\nb LOGIN joe {6+}\\r\\nsecret\\r\\nc SELECT INBOX\\r\\n"
got, event, rest = log_in(said, {"joe": b"secret"})
assert got.endswith(b"imapfront ready.\\r\\na NO [AUTHENTICATIONFAILED] LOGIN failed\\r\\n")
assert (event.tag, event.username, event.command) == (b"b", "joe", "LOGIN")
assert rest == b"c SELECT INBOX\\r\\n"  # the next owner answers b, and reads this first
```

What the machine does by itself: lines and literals, syntax, order, limits; CAPABILITY, NOOP, ID, LOGOUT; the SASL
exchange. What it asks for: whether a password is right, and the TLS handshake.

A command that is broken is read to its end, literals that do not wait included, and answered with a tagged `BAD`. Where
its end cannot be found (a line that is too long may end in a literal; a length has too many digits) the connection
ends: what follows must not be taken for commands. Where a literal waits to be asked for, a command that is refused
whatever it holds is refused at once: nobody is asked for a password in vain.

## RFCs

| RFC | what | where |
| --- | --- | --- |
| 9051, 3501 | greeting, CAPABILITY, NOOP, LOGOUT, STARTTLS, LOGIN, AUTHENTICATE, LOGINDISABLED | both |
| 2971 | ID | both |
| 4422 | SASL: see `machine.sasl` | both |
| 4959 | SASL-IR: the initial response in AUTHENTICATE | both |
| 5530 | response codes of failed logins | both |
| 7888 | literals that do not wait: LITERAL- in the server; LITERAL+ and LITERAL- in the client | both |

IMAP4rev2 is listed if the application says that the next owner speaks it.
"""

STATES = """\
## The order of commands

Everything that the *order* of commands decides stands in one table, which
`mailfront_proto.imap.states.command_table(profile)` returns; this is it. `→ state`: the command goes on to its own
checks, then, where that is for it to decide, to the application, and this is the state that follows when it is
accepted. An answer: the machine refuses the command by itself, and the state stays.
"""

BELOW = """\
What the table does not decide: STARTTLS is unknown while `offers_starttls` is not set; LOGIN is refused while
`offers_login` is not; AUTHENTICATE may pass through `auth`, STARTTLS leads through `tls` to `protected`, and a refused
login leaves the state as it was.
"""

COMPAT_NOTES = """\
## The compat profile

Answers are those of the original's imapfront-auth, byte for byte; its recorded sessions are replayed under every split.
Also in this profile lengths of literals do not wrap, what follows a literal that does not wait is never run, control
characters in tags, names and passwords are refused, a last line without its end is not executed, and nothing behind the
login is lost.
"""

CLIENT_HEAD = f"""\
# The client

A command is a method of `IMAPClient`. Each puts its line into the output and returns; the answer comes as an event. In
brief:

1. `Greeting` comes by itself. Call `capability()`, unless `client.capabilities` is known from the greeting.
2. `CapabilityDone` says what the server offers. Call `starttls()`, `login()` or `authenticate()`.
3. After `Authenticated` call `hand_over()`, or `logout()`.

A server that breaks the protocol is a `RemoteProtocolError` from `next_event()`, with the offending line attached. A
line of a response is at most {MAX_RESPONSE_LINE} bytes, a whole response {MAX_RESPONSE}.
"""

ANSWERING = ("accept", "reply", "supply_keys", "tls_established", "abort")


def cell(state: State, row: Row) -> str:
    """One cell."""
    if isinstance(row, Reply):
        return f"`{row}`"
    return "→ " + ("*same*" if row is state else row.value)


def table(which: profile.Profile) -> list[str]:
    """The order of commands as a Markdown table."""
    rows = command_table(which)
    lines = ["| | " + " | ".join(state.value for state in COMMAND_STATES) + " |"]
    lines += ["| --- |" + " --- |" * len(COMMAND_STATES)]
    for name in COMMANDS:
        lines.append(f"| **{name}** | " + " | ".join(cell(state, rows[state, name]) for state in COMMAND_STATES) + " |")
    return lines


def page() -> str:
    """The whole page."""
    parts = [HEAD, "# The server", "", markdown(server.IMAPServer.__doc__), "", STATES]
    parts += ["Default profile:", "", *table(profile.DEFAULT), "", "Compat profile:", "", *table(profile.COMPAT), ""]
    parts += [BELOW, *enum_list(State), "", "## Events", "", markdown(events.__doc__), ""]
    for kind in members(events, lambda kind: True):
        parts += event_section(kind)
    parts += ["## Answers", "", "Where an event owes an answer, one of these is due.", ""]
    parts += [*methods(server.IMAPServer, ANSWERING), "## What the machine answers by itself", ""]
    parts += [f"- `{thing}`" for thing in vars(answers).values() if isinstance(thing, Reply)]
    parts += ["", "## Profile", "", markdown(profile.Profile.__doc__), ""]
    parts += ["Change one field with `dataclasses.replace(DEFAULT, refuses_http=False)`.", ""]
    parts += [*field_table(profile.Profile, profile.DEFAULT, profile.COMPAT), "", "## Limits", ""]
    parts += [markdown(profile.Limits.__doc__), ""]
    parts += [*field_table(profile.Limits, profile.DEFAULT.limits, profile.COMPAT.limits), "", COMPAT_NOTES]
    parts += [CLIENT_HEAD, "## Order", "", *client_order(ALLOWED), "## Commands", "", markdown(IMAPClient.__doc__), ""]
    parts += methods(IMAPClient)
    parts += ["### hand_over", "", "`hand_over() -> bytes`", "", markdown(IMAPClient.hand_over.__doc__), ""]
    parts += ["## Events of the client", "", markdown(client_events.__doc__), ""]
    for kind in members(client_events, lambda kind: True):
        parts += event_section(kind)
    return "\n".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    main(PAGE, page)
