"""Draws the SMTP server's order of commands from the table itself: ``python docs/draw_states.py`` writes
``docs/smtp-states.md``; with ``--print`` it goes to standard output instead.
"""

from dataclasses import fields
from pathlib import Path

from printed_page import main

from mailfront_proto.smtp.profile import COMPAT, DEFAULT, Profile
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.states import COMMAND_STATES, COMMANDS, Row, State, after_message, command_table

PAGE = Path(__file__).with_name("smtp-states.md")

HEAD = """\
# The order of commands

Everything that the *order* of commands decides in the SMTP server stands in one table,
`mailfront_proto.smtp.states.command_table(profile, lmtp)`. This page is printed from it by
`docs/draw_states.py`, and a test checks that it still is what that prints.

A cell says what happens when the command comes in that state. `→ state`: the command goes on to its own checks
(syntax, parameters, limits), then to the application, and this is the state that follows when it is accepted. A
number: the machine refuses the command by itself with this reply, and the state stays. All replies are listed
below each table.

The states in which lines are commands are the columns; `chunks` is the one between two BDATs of a message. Six
others are passed through: `greeting` (before the 220), `body` (after 354, until the end of the message), `chunk`
(the octets of a BDAT), `drain` (the octets of a BDAT that is refused; the reply comes behind them), `auth` (a
response to a challenge is awaited) and `tls` (the handshake is awaited; then comes `connected` again). `closed` is
the end.

What the table does not decide: STARTTLS is an unknown command where TLS cannot be had, and 503 inside TLS; AUTH
is an unknown command while no mechanism is offered, BDAT without CHUNKING (as in the compat profile), XCLIENT unless
the client is listed; HELO, EHLO, LHLO, RSET and MAIL drop the transaction that is open; a command registered by a
plugin takes the place of the one in the table, in every state.
"""

DIAGRAM_HEAD = """\
## The way of a session

Accepted commands of the default profile that change the state. (QUIT leads from every state to `closed`.)
"""


def reply_name(reply: Reply) -> str:
    """The reply as a cell shows it: code and enhanced code."""
    return f"{reply.code} {reply.enhanced_code}".strip()


def cell(state: State, row: Row) -> str:
    """One cell."""
    if isinstance(row, Reply):
        return reply_name(row)
    return "→ " + ("*same*" if row is state else row.value)


def table(profile: Profile, lmtp: bool) -> list[str]:
    """The Markdown table, the reply texts behind it, and what follows a message."""
    rows = command_table(profile, lmtp)
    lines = [
        "| | " + " | ".join(state.value for state in COMMAND_STATES) + " |",
        "| --- |" + " --- |" * len(COMMAND_STATES),
    ]
    replies: dict[str, None] = {}
    for verb in COMMANDS:
        cells = []
        for state in COMMAND_STATES:
            row = rows[state, verb]
            cells.append(cell(state, row))
            if isinstance(row, Reply):
                replies[str(row)] = None
        lines.append(f"| **{verb}** | " + " | ".join(cells) + " |")
    lines += ["", "Replies:", ""]
    lines += [f"- `{reply}`" for reply in replies]
    lines += ["", f"After a message, taken or refused: `{after_message(profile).value}`."]
    return lines


def differences() -> list[str]:
    """How the table of the compat profile differs from the default one, cell by cell."""
    usual, other = command_table(DEFAULT), command_table(COMPAT)
    lines = ["| state | command | default | compat |", "| --- | --- | --- | --- |"]
    for (state, verb), row in usual.items():
        if other[state, verb] != row:
            lines.append(f"| {state.value} | {verb} | {cell(state, row)} | {cell(state, other[state, verb])} |")
    return lines


def diagram(profile: Profile) -> list[str]:
    """The diagram: one arrow for each pair of states, with its commands."""
    rows = command_table(profile)
    arrows: dict[tuple[State, State], list[str]] = {(State.GREETING, State.CONNECTED): ["220"]}
    for (state, verb), row in rows.items():
        if isinstance(row, State) and row is not state and row is not State.CLOSED:
            target: State = State.CONNECTED if row is State.TLS else row
            label = f"{verb} and handshake" if row is State.TLS else verb
            arrows.setdefault((state, target), []).append(label)
    arrows[State.CHUNK, State.CHUNKS] = ["end of the chunk"]
    for state in (State.BODY, State.CHUNK):
        arrows[state, after_message(profile)] = ["end of the message"]
    lines = ["```text"]
    width = max(len(state.value) for pair in arrows for state in pair)
    for (source, target), labels in arrows.items():
        lines.append(f"{source.value:>{width}} ──► {target.value:<{width}}  {', '.join(labels)}")
    return [*lines, "```"]


def choices() -> list[str]:
    """The fields of the profile that shape the table."""
    shaping = ("helo_required", "auth_in_transaction", "envelope_survives_message")
    return [
        f"- `{field.name}`: default {getattr(DEFAULT, field.name)}, compat {getattr(COMPAT, field.name)}"
        for field in fields(Profile)
        if field.name in shaping
    ]


def page() -> str:
    """The whole page."""
    parts: list[str] = [
        HEAD,
        DIAGRAM_HEAD,
        *diagram(DEFAULT),
        "",
        "## Default profile",
        "",
        *table(DEFAULT, lmtp=False),
        "",
        "## Compat profile",
        "",
        *table(COMPAT, lmtp=False),
        "",
        "### Where the two differ",
        "",
        *differences(),
        "",
        "These fields of the profile decide it (see [](smtp-reference.md)):",
        "",
        *choices(),
        "",
        "## LMTP",
        "",
        "RFC 2033 section 4.1: LHLO takes the place of HELO and EHLO. Default profile.",
        "",
        *table(DEFAULT, lmtp=True),
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main(PAGE, page)
