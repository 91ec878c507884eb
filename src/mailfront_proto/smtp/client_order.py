"""The order of commands as a client keeps it: which may be sent when, and what to call instead.

Strategy: tables, as in `states` for the server role; the tests go over every pair of them.
"""

from typing import Final

from mailfront_proto.smtp.states import State

MAX_PIPELINED: Final = 100
"""Commands that may be unanswered. Their answers fit any socket buffer, so that server and client never
wait for each other's reading (RFC 2920 section 3.1), and 98 recipients fit into one write."""

MAX_CHUNKS: Final = 8
"""BDAT chunks that may be unanswered: enough that a distant server need not wait for us, and few enough that
we hear soon of one that it refuses."""

PIPELINED: Final = frozenset({"MAIL", "RCPT", "RSET"})
"""RFC 2920 section 3.1: these may stand anywhere in a group; every other command is the last one of its group.
(BDAT follows BDAT: RFC 3030 section 2. It never follows RCPT here, since nobody may be there to get it.)"""

_CONNECTED, _READY = State.CONNECTED, State.READY
_MAIL, _RECIPIENTS, _CHUNKS = State.MAIL, State.RECIPIENTS, State.CHUNKS

ALLOWED: Final[dict[str, tuple[State, ...]]] = {
    "EHLO": (_CONNECTED, _READY),
    "LHLO": (_CONNECTED, _READY),
    "HELO": (_CONNECTED, _READY),
    "STARTTLS": (_READY,),
    "AUTH": (_READY,),
    "XCLIENT": (_READY,),
    "MAIL": (_READY,),
    "RCPT": (_MAIL, _RECIPIENTS),
    "DATA": (_RECIPIENTS,),
    "BDAT": (_RECIPIENTS, _CHUNKS),
    "RSET": (_READY, _MAIL, _RECIPIENTS, _CHUNKS),
    "NOOP": (_CONNECTED, _READY, _MAIL, _RECIPIENTS, _CHUNKS),
    "VRFY": (_CONNECTED, _READY, _MAIL, _RECIPIENTS, _CHUNKS),
    "QUIT": (_CONNECTED, _READY, _MAIL, _RECIPIENTS, _CHUNKS),
}
"""The states in which each command may be sent (RFC 5321 section 4.1.4)."""

WHAT_FIRST: Final = {
    State.GREETING: "the server has not greeted yet: call next_event() until it returns Greeting",
    State.CONNECTED: "call hello() first, and next_event() until it returns HelloDone",
    State.READY: "call mail() first",
    State.MAIL: "a transaction is open: call recipient() to go on with it, or reset()",
    State.RECIPIENTS: "a transaction is open: call data() or bdat() to go on with it, or reset()",
    State.BODY: "the message is being sent: call send_body() and end_of_body()",
    State.CHUNKS: "a message is half sent: call bdat() to go on with it, or reset()",
    State.AUTH: "AUTH is under way: call next_event() until it returns Authenticated or AuthenticationFailed",
    State.TLS: "the TLS handshake is awaited: call tls_established(), or receive_eof() if it has failed",
    State.CLOSED: "the connection has ended: next_event() returns ConnectionClosed",
}
"""What to say to a command that is out of order."""

POSITIVE: Final[dict[str, tuple[int, ...]]] = {"DATA": (3,), "AUTH": (2, 3)}
"""First digits of a positive answer; 2 where nothing is said (RFC 5321 section 4.3.2)."""


def answer_awaited(verb: str) -> str:
    """What to say to a command that came too early."""
    what = "the message" if verb == "." else verb
    return f"the answer to {what} is awaited: call next_event() until it comes"
