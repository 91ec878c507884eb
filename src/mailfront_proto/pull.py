"""The pull shape that every machine of this package shares, and the two answers that are not events.

A machine is fed and asked in this order::

    machine.receive_data(data)        # only stores the bytes; b"" is refused, use receive_eof()
    event = machine.next_event()      # parses up to one event, and no further
    machine.accept() or .reply(...)   # when the event owes the peer an answer
    data = machine.data_to_send()     # drains what is to be written

State never runs ahead of the event in hand: while an answer is owed, ``next_event`` returns `PAUSED`,
so pipelined input waits its turn and the answers go out in order.
"""

from enum import Enum
from typing import Final, Literal


class Signal(Enum):
    """What ``next_event`` returns when there is no event to return."""

    NEED_DATA = "NEED_DATA"
    PAUSED = "PAUSED"

    def __repr__(self) -> str:
        return self.name


class Event:
    """Base class of all events of the server machines."""

    __slots__ = ()


NEED_DATA: Final = Signal.NEED_DATA
"""The machine has used up its input: drain ``data_to_send()``, then read and call ``receive_data()``."""

PAUSED: Final = Signal.PAUSED
"""The machine waits for the application: an answer is owed, the TLS handshake is awaited, or more than
`MAX_PENDING_OUTPUT` bytes of output wait to be drained with ``data_to_send()``."""

NeedData = Literal[Signal.NEED_DATA]
Paused = Literal[Signal.PAUSED]

MAX_PENDING_OUTPUT: Final = 256 * 1024
"""Bytes of undrained output past which ``next_event`` returns `PAUSED`: a peer that sends commands but
never reads replies costs this much and no more."""

MAX_HELD_INPUT: Final = 1024 * 1024
"""Bytes of unparsed input past which ``receive_data`` raises `LocalProtocolError`: a driver reads again
only after `NEED_DATA`, so more than a few receive buffers (64 KiB each) held is a driver's fault."""
