"""Draws the POP3 server's order of commands from the table itself: ``python docs/draw_pop3_states.py`` writes
``docs/pop3-states.md``; with ``--print`` it goes to standard output instead.
"""

from pathlib import Path

from printed_page import main

from mailfront_proto.pop3.answers import NOT_IMPLEMENTED
from mailfront_proto.pop3.profile import COMPAT, DEFAULT, Profile
from mailfront_proto.pop3.replies import Reply
from mailfront_proto.pop3.states import COMMANDS, Mode, Row, State, command_states, command_table

PAGE = Path(__file__).with_name("pop3-states.md")

HEAD = """\
# The order of commands in POP3

Everything that the *order* of commands decides in the POP3 server stands in one table,
`mailfront_proto.pop3.states.command_table(profile, mode)`. This page is printed from it by `docs/draw_pop3_states.py`,
and a test checks that it still is what that prints.

A cell says what happens when the command comes in that state. `→ state`: the command goes on to its own checks
(arguments, message numbers, limits), then, where that is for it to decide, to the application, and this is the state
that follows when it is accepted. An answer: the machine refuses the command by itself, and the state stays. A dash:
the command is not known there, `-ERR Unimplemented`.

The states in which lines are commands are the columns. The others are passed through:
"""

BELOW = """\
What the table does not decide: USER and PASS are unknown while `offers_user` is not set, STLS while `offers_stls` is
not, UTF8 while `offers_utf8` is not; STLS inside TLS is refused. LIST and UIDL of all messages pass through
`listing`, RETR and TOP through `message`, AUTH may pass through `auth`, and a refused PASS leads back to
`authorization`. After TLS start the state is `authorization`, whatever it was.
"""


def cell(state: State, row: Row) -> str:
    """One cell."""
    if isinstance(row, Reply):
        return "–" if row is NOT_IMPLEMENTED else f"`{row}`"
    return "→ " + ("*same*" if row is state else row.value)


def table(profile: Profile, mode: Mode) -> list[str]:
    """The Markdown table."""
    rows, states = command_table(profile, mode), command_states(mode)
    lines = ["| | " + " | ".join(state.value for state in states) + " |", "| --- |" + " --- |" * len(states)]
    for verb in COMMANDS:
        cells = [cell(state, rows[state, verb]) for state in states]
        if any(text != "–" for text in cells):
            lines.append(f"| **{verb}** | " + " | ".join(cells) + " |")
    return lines


def passed_through() -> list[str]:
    """The states in which lines are no commands, with their documentation."""
    return [f"- `{state.value}`: {DOCS[state]}" for state in State if state not in command_states(Mode.WHOLE)]


DOCS = {
    State.GREETING: "before the greeting; the application decides about the connection (`Connected`)",
    State.AUTH: "a response to a SASL challenge is awaited",
    State.TLS: "the TLS handshake is awaited",
    State.OPENING: "logged in; the mailbox is to be opened (`OpenMailbox`)",
    State.LISTING: "the answer to LIST or UIDL is being written",
    State.MESSAGE: "a message is being sent",
    State.HANDED_OVER: "the login is done, and the connection another's (`HandOver`)",
    State.CLOSED: "the end",
}


def diagram() -> list[str]:
    """The way of a session: one arrow for each pair of states, with its commands."""
    greeting, login, opening, transaction = State.GREETING, State.AUTHORIZATION, State.OPENING, State.TRANSACTION
    arrows: dict[tuple[State, State], list[str]] = {(greeting, login): ["greeting"]}
    for (state, verb), row in command_table(DEFAULT).items():
        if isinstance(row, State) and row is not state and row is not State.CLOSED:
            target: State = login if row is State.TLS else row
            arrows.setdefault((state, target), []).append(f"{verb} and handshake" if row is State.TLS else verb)
    arrows[opening, transaction] = ["mailbox opened"]
    arrows[opening, login] = ["mailbox refused"]
    arrows[State.MESSAGE, transaction] = ["end of message"]
    arrows[transaction, State.CLOSED] = ["QUIT (update)"]
    width = max(len(state.value) for pair in arrows for state in pair)
    lines = [
        f"{source.value:>{width}} ──► {target.value:<{width}}  {', '.join(labels)}"
        for (source, target), labels in arrows.items()
        if source is not target
    ]
    return ["```text", *lines, "```"]


def differences() -> list[str]:
    """How the table of the compat profile differs from the default one, cell by cell."""
    usual, other = command_table(DEFAULT), command_table(COMPAT)
    lines = ["| state | command | default | compat |", "| --- | --- | --- | --- |"]
    for (state, verb), row in usual.items():
        if other[state, verb] != row:
            lines.append(f"| {state.value} | {verb} | {cell(state, row)} | {cell(state, other[state, verb])} |")
    return lines


def page() -> str:
    """The whole page."""
    parts = [HEAD, *passed_through(), "", BELOW, "## The way of a session", ""]
    parts += ["Accepted commands of the default profile that change the state.", "", *diagram(), ""]
    parts += ["## A whole session", "", "`Mode.WHOLE`, default profile.", "", *table(DEFAULT, Mode.WHOLE), ""]
    parts += ["In the compat profile these differ:", "", *differences(), ""]
    parts += ["## The login alone", "", "`Mode.LOGIN`, default profile.", "", *table(DEFAULT, Mode.LOGIN), ""]
    parts += ["## The mailbox alone", "", "`Mode.MAILBOX`, default profile.", "", *table(DEFAULT, Mode.MAILBOX)]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main(PAGE, page)
