"""The server's order of commands, as data: (state, command) -> what happens.

Strategy: everything that the *order* of commands decides stands in one table; `mailfront_proto.imap.server` only looks
it up. The drawing in the documentation is printed from it, and the tests go over every pair.

A row's value is either a `Reply`, with which the machine refuses the command by itself (the state stays), or the
`State` that follows when the command is accepted.
"""

from enum import Enum
from typing import Final

from mailfront_proto.imap.answers import TLS_ALREADY, UNIMPLEMENTED
from mailfront_proto.imap.profile import Profile
from mailfront_proto.imap.replies import Reply


class State(Enum):
    """Where a session stands. `CLEAR` and `PROTECTED` are the "not authenticated state" of RFC 9051 section 3.1."""

    GREETING = "greeting"
    """The greeting is owed."""
    CLEAR = "clear"
    """A login is awaited; TLS is not in use."""
    PROTECTED = "protected"
    """A login is awaited, inside TLS."""
    AUTH = "auth"
    """A response to a SASL challenge is awaited."""
    TLS = "tls"
    """The TLS handshake is awaited."""
    AUTHENTICATED = "authenticated"
    """The client role: the login is done, and the connection still the machine's."""
    HANDED_OVER = "handed-over"
    """The login is done, and the connection another's."""
    CLOSED = "closed"
    """Nothing more is read."""

    __hash__ = object.__hash__  # members are singletons; Enum's own hash is a call of Python code each time


Row = Reply | State

COMMANDS: Final = ("CAPABILITY", "NOOP", "ID", "STARTTLS", "LOGIN", "AUTHENTICATE", "LOGOUT")
"""The commands that the machine knows."""

COMMAND_STATES: Final = (State.CLEAR, State.PROTECTED)
"""The states in which lines are commands."""


def command_table(profile: Profile) -> dict[tuple[State, str], Row]:
    """The table for `profile`."""
    table: dict[tuple[State, str], Row] = {}
    for state in COMMAND_STATES:
        for name in ("CAPABILITY", "NOOP"):
            table[state, name] = state
        table[state, "ID"] = state if profile.extensions else UNIMPLEMENTED
        table[state, "LOGIN"] = table[state, "AUTHENTICATE"] = State.HANDED_OVER
        table[state, "LOGOUT"] = State.CLOSED
    if profile.extensions:
        table[State.CLEAR, "STARTTLS"] = State.TLS
        table[State.PROTECTED, "STARTTLS"] = TLS_ALREADY  # RFC 9051 section 6.2.1
    else:
        table[State.CLEAR, "STARTTLS"] = table[State.PROTECTED, "STARTTLS"] = UNIMPLEMENTED
    return table
