"""The server's order of commands, as data: (state, command) -> what happens.

Strategy: everything that the *order* of commands decides stands in one table, built from the profile's
few choices; `mailfront_proto.smtp.server` only looks it up. The drawing in the documentation is printed
from it, and the tests go over every pair.

A row's value is either a `Reply`, with which the machine refuses the command by itself (the state stays),
or the `State` that follows when the application accepts it.
"""

from enum import Enum

from mailfront_proto.smtp.answers import (
    IN_CHUNKS,
    NEED_HELO,
    NEED_LHLO,
    NEED_MAIL,
    NEED_RECIPIENT,
    NO_AUTH_IN_TRANSACTION,
    NO_XCLIENT_IN_TRANSACTION,
    NOT_IMPLEMENTED,
)
from mailfront_proto.smtp.profile import Profile
from mailfront_proto.smtp.replies import Reply


class State(Enum):
    """Where a session stands."""

    GREETING = "greeting"
    """The greeting is owed."""
    CONNECTED = "connected"
    """Greeted, or TLS has just begun: HELO or EHLO is expected."""
    READY = "ready"
    """Between transactions."""
    MAIL = "mail"
    """A sender was accepted."""
    RECIPIENTS = "recipients"
    """A recipient was accepted, too."""
    BODY = "body"
    """A message is coming in."""
    ENDED = "ended"
    """All of a message is here, and its answer is owed, or will be."""
    CHUNK = "chunk"
    """The octets of a chunk are coming in (BDAT, RFC 3030 section 2)."""
    CHUNKS = "chunks"
    """A chunk of a message has been sent (BDAT): another, the last one, or RSET is expected (RFC 3030 section 2)."""
    AUTH = "auth"
    """A response to a SASL challenge is awaited."""
    TLS = "tls"
    """The TLS handshake is awaited."""
    DRAIN = "drain"
    """The octets of a refused chunk are coming in, and are thrown away."""
    CLOSED = "closed"
    """Nothing more is read."""

    __hash__ = object.__hash__  # members are singletons; Enum's own hash is a call of Python code each time


Row = Reply | State

COMMANDS = (
    *("HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "QUIT"),
    *("STARTTLS", "AUTH", "XCLIENT"),
)
"""The commands that the machine knows."""

COMMAND_STATES = (State.CONNECTED, State.READY, State.MAIL, State.RECIPIENTS, State.CHUNKS)
"""The states in which lines are commands."""

MESSAGE_STATES = frozenset((State.BODY, State.ENDED, State.CHUNK, State.CHUNKS))
"""The states in which a message has begun and its answer has not gone out."""

TRANSACTION_STATES = MESSAGE_STATES | {State.MAIL, State.RECIPIENTS}
"""The states in which a sender was accepted and its message is not done."""

UNFINISHED_STATES = MESSAGE_STATES | {State.AUTH, State.TLS}
"""The states in which a message, an AUTH exchange or a handshake is begun and not done."""


def command_table(profile: Profile, lmtp: bool = False) -> dict[tuple[State, str], Row]:
    """The table for `profile`; `lmtp`: LHLO takes the place of HELO and EHLO (RFC 2033 section 4.1).

    A BDAT that is refused stays refused until its octets are read (RFC 3030 section 2): `State.DRAIN`.
    """
    connected, ready, mail, recipients, chunks = COMMAND_STATES
    table: dict[tuple[State, str], Row] = {}
    for state in COMMAND_STATES:
        without_transaction = connected if state is connected else ready
        for verb in ("HELO", "EHLO"):
            table[state, verb] = NOT_IMPLEMENTED if lmtp else ready
        table[state, "LHLO"] = ready if lmtp else NOT_IMPLEMENTED
        table[state, "MAIL"] = mail
        table[state, "RCPT"] = recipients
        table[state, "DATA"] = State.BODY
        table[state, "BDAT"] = State.CHUNK
        table[state, "RSET"] = without_transaction
        for verb in ("NOOP", "VRFY", "HELP", "AUTH"):
            table[state, verb] = state
        table[state, "EXPN"] = state if profile.knows_expn else NOT_IMPLEMENTED
        table[state, "QUIT"] = State.CLOSED
        table[state, "STARTTLS"] = State.TLS
        table[state, "XCLIENT"] = State.GREETING
    for state in (connected, ready):
        table[state, "RCPT"] = table[state, "DATA"] = table[state, "BDAT"] = NEED_MAIL
    table[mail, "DATA"] = table[mail, "BDAT"] = NEED_RECIPIENT
    table[chunks, "RCPT"] = table[chunks, "DATA"] = IN_CHUNKS  # RFC 3030 section 2
    for state in (mail, recipients, chunks):
        table[state, "XCLIENT"] = NO_XCLIENT_IN_TRANSACTION
        if not profile.auth_in_transaction:
            table[state, "AUTH"] = NO_AUTH_IN_TRANSACTION
    if profile.helo_required:
        for verb in ("MAIL", "STARTTLS", "AUTH"):
            table[connected, verb] = NEED_LHLO if lmtp else NEED_HELO
    return table


def after_message(profile: Profile) -> State:
    """The state behind a message, taken or not: in the default profile its envelope is gone."""
    return State.RECIPIENTS if profile.envelope_survives_message else State.READY
