"""What the sessions of a profile have in common, worked out once; and what an application adds to one of them."""

from collections.abc import Callable
from typing import Any, Final

from mailfront_proto.record import record
from mailfront_proto.smtp.events import Event
from mailfront_proto.smtp.parameters import Registered
from mailfront_proto.smtp.profile import Profile
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.states import State


@record
class Rules:
    """By which a session goes, as it follows from `profile` and from whether it speaks LMTP.

    `table`: what `mailfront_proto.smtp.server_commands.dispatch_table` says. `usual`: the usual answer to each event;
    `plain`: the wire form of those that mean nothing but the next state. `acceptance`: the wire form of an answer that
    accepts, from its event, code and text; None for all but the usual events. `usual_line`, `command_limit`,
    `frame_limit`: octets in a usual line, in a command, and in any line at all. `max_recipients`: infinite where there
    is no limit. `after_message`: the state behind a message. `extensions`: those that are offered at first.
    """

    profile: Profile
    table: dict[State, dict[bytes, tuple[str, Callable[..., Event | None] | None, Callable[..., Event | None], Any]]]
    usual: dict[type[Event], Reply]
    plain: dict[type[Event], bytes]
    acceptance: Callable[[type[Event | None], int, str], bytes | None]
    strict_lines: bool
    usual_line: int
    command_limit: int
    frame_limit: int
    max_wire_line: int | None
    max_recipients: float
    after_message: State
    extensions: frozenset[str]


class Additions:
    """What an application has added: commands, capability lines, parameters, and replies in place of the machine's."""

    __slots__ = ("capabilities", "commands", "parameters", "replies")

    def __init__(self) -> None:
        self.commands: dict[bytes, str] = {}
        self.capabilities: dict[str, str] = {}
        self.parameters: dict[str, dict[str, Registered]] = {"MAIL": {}, "RCPT": {}}
        self.replies: dict[Reply, Reply] = {}


NOTHING_ADDED: Final = Additions()
"""What a session begins with. It stays empty: who adds something has `Additions` of its own first."""
