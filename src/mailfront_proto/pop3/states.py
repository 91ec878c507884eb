"""The server's order of commands, as data: (state, command) -> what happens.

Strategy: everything that the *order* of commands decides stands in one table, built from the mode and the profile's
few choices; `mailfront_proto.pop3.server` only looks it up. The drawing in the documentation is printed from it, and
the tests go over every pair.

A row's value is either a `Reply`, with which the machine refuses the command by itself (the state stays), or the
`State` that follows when the command is accepted.
"""

from enum import Enum
from typing import Final

from mailfront_proto.pop3.answers import NEED_USER, NOT_IMPLEMENTED
from mailfront_proto.pop3.profile import Profile
from mailfront_proto.pop3.replies import Reply


class Mode(Enum):
    """Which part of a session the machine serves."""

    WHOLE = "whole"
    """Login, and then the mailbox."""
    LOGIN = "login"
    """Up to the login. The connection is handed over then: whoever owns it next greets."""
    MAILBOX = "mailbox"
    """From the transaction state on: somebody else has seen to the login. The greeting tells that the mailbox is
    open."""

    __hash__ = object.__hash__


class State(Enum):
    """Where a session stands (RFC 1939 section 3 has three of these)."""

    GREETING = "greeting"
    """The application decides about the connection."""
    AUTHORIZATION = "authorization"
    """The client is to say who it is."""
    USER = "user"
    """It has said so with USER: PASS is expected."""
    AUTH = "auth"
    """A response to a SASL challenge is awaited."""
    TLS = "tls"
    """The TLS handshake is awaited."""
    OPENING = "opening"
    """The mailbox is to be opened."""
    TRANSACTION = "transaction"
    """The mailbox is open."""
    LISTING = "listing"
    """The answer to LIST or UIDL is being written."""
    MESSAGE = "message"
    """A message is being sent."""
    HANDED_OVER = "handed over"
    """The login is done, and the connection another's (`Mode.LOGIN`)."""
    CLOSED = "closed"
    """Nothing more is read. (RFC 1939's UPDATE state passes while the answer to `Update` is owed.)"""

    __hash__ = object.__hash__  # members are singletons; Enum's own hash is a call of Python code each time


Row = Reply | State

COMMANDS: Final = (
    *("CAPA", "AUTH", "USER", "PASS", "STLS", "UTF8", "LANG"),
    *("STAT", "LIST", "UIDL", "RETR", "TOP", "DELE", "RSET", "LAST", "NOOP", "QUIT"),
)
"""The commands that the machine knows."""

LOGIN_STATES: Final = (State.AUTHORIZATION, State.USER)
"""The states in which lines are commands, before the login."""


def command_states(mode: Mode) -> tuple[State, ...]:
    """The states in which lines are commands, in `mode`."""
    if mode is Mode.MAILBOX:
        return (State.TRANSACTION,)
    return LOGIN_STATES if mode is Mode.LOGIN else (*LOGIN_STATES, State.TRANSACTION)


def command_table(profile: Profile, mode: Mode = Mode.WHOLE) -> dict[tuple[State, str], Row]:
    """The table for `profile` and `mode`."""
    table: dict[tuple[State, str], Row] = {}
    for state in command_states(mode):
        table.update({(state, verb): NOT_IMPLEMENTED for verb in COMMANDS})
        table[state, "CAPA"] = state
        table[state, "QUIT"] = State.CLOSED
        if profile.extensions:
            table[state, "LANG"] = state  # RFC 6856 section 3
        if state is State.TRANSACTION:
            for verb in ("STAT", "LIST", "UIDL", "DELE", "LAST", "NOOP"):
                table[state, verb] = state
            table[state, "RETR"] = table[state, "TOP"] = State.MESSAGE
            table[state, "RSET"] = State.OPENING if profile.rescans_on_reset else state
            continue
        if profile.extensions:
            table[state, "UTF8"] = state  # RFC 6856 section 2
        logged_in = State.HANDED_OVER if mode is Mode.LOGIN else State.OPENING
        table[state, "AUTH"] = logged_in
        table[state, "USER"] = State.USER
        table[state, "PASS"] = logged_in if state is State.USER else NEED_USER
        table[state, "STLS"] = State.TLS
    return table
