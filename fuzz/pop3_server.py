"""Harness: the POP3 server machine.

The first byte chooses profile, mode and features, the second how the rest is cut, the third what the application
answers (below 128 it accepts everything); the rest is what the client sends. What must hold besides what holds for
every machine: what is sent is whole lines without control bytes, and nothing is deleted but by QUIT.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from fuzz.oracles import MAX_WIRE, check_machine
from mailfront_proto.pop3 import (
    COMPAT,
    DEFAULT,
    ConnectionClosed,
    Event,
    HandOver,
    Limits,
    Mode,
    OpenMailbox,
    POP3Server,
    Retrieve,
    State,
    Update,
)
from mailfront_proto.sasl import ServerOptions
from mailfront_proto.testing import Player

LIMITS = Limits(command_line=100, auth_line=200, errors_in_row=5, errors=9, idle_commands=20, user_commands=4)
PROFILES = (DEFAULT, replace(DEFAULT, limits=LIMITS), COMPAT, replace(COMPAT, limits=LIMITS))
MODES = (Mode.WHOLE, Mode.WHOLE, Mode.MAILBOX, Mode.LOGIN)
HELD = (None, 8192, None, 8192)
"""Bytes, for each profile; lines are short where the limits are low."""
MESSAGES = (b"a: b\n\n.one\ntwo\n", b"c: d\r\n\r\n.\r\nno end", b"", b"\n" * 300)
UIDS = (b"one", b"two words\r\n", b"\xff" * 80, b"f" * 70)
REFUSALS = (None, None, "", "no", "x" * 600, "odd\r\n+OK\x1b\ud800\udcff")
CODES = ("", "", "AUTH", "SYS/TEMP", "IN-USE", "UTF8")


class Server(POP3Server):
    """A server whose connection, once handed over, has an owner that reads it."""

    def receive_data(self, data: bytes) -> None:
        if self.state is not State.HANDED_OVER:
            super().receive_data(data)


def new_application(seed: int) -> Callable[[POP3Server, Event], None]:
    """Answers that depend on what has come before, and not on how it was cut."""
    dice = random.Random(seed)
    refuses = seed > 127

    def answer(machine: POP3Server, event: Event) -> None:
        if not machine.answer_owed:
            return
        if refuses and dice.random() < 0.3:
            machine.reply("-ERR", dice.choice(REFUSALS), dice.choice(CODES))
        elif isinstance(event, OpenMailbox):
            machine.open_mailbox([len(message) for message in MESSAGES], UIDS, read=[2])
        elif isinstance(event, Retrieve):
            if not event.utf8 and refuses and dice.random() < 0.3:
                machine.reply_utf8_only()
                return
            machine.accept()
            message, slices = MESSAGES[event.number - 1], dice.choice((1, 2, 7, 1000))
            for start in range(0, len(message), slices):
                machine.send_message_data(message[start : start + slices])
            machine.end_of_message()
        else:
            machine.accept()
            if machine.state is State.TLS:
                machine.tls_established()

    return answer


def new_player(choice: int, seed: int) -> Player[POP3Server]:
    """A session with the features that `choice` says."""
    machine = Server(PROFILES[choice & 3], mode=MODES[choice >> 2 & 3])
    machine.offers_stls = bool(choice & 16)
    machine.sasl = ServerOptions(("PLAIN", "LOGIN") if choice & 32 else ())
    machine.offers_utf8 = bool(choice & 64)
    machine.offers_user = not choice & 128
    return Player(machine, new_application(seed))


def check(data: bytes) -> None:
    """Play one session."""
    if len(data) < 4 or len(data) > MAX_WIRE:
        return
    choice, cutting, seed = data[0], data[1], data[2]
    new, held = lambda: new_player(choice, seed), HELD[choice & 3]
    outcome = check_machine(new, data[3:], cutting, held=held, invariant=not choice & 16)
    last = outcome.events[-1]
    assert isinstance(last, ConnectionClosed | HandOver)
    for line in outcome.output.split(b"\r\n")[:-1]:
        # In compat a CR in a file is content.
        assert len(line) <= 510 and not set(line.removesuffix(b"\r") if choice & 2 else line) & {0, 10, 13, 27, 127}
    assert outcome.output.endswith(b"\r\n") or (seed > 127 and not outcome.output) or choice >> 2 & 3 == 2
    updates = [event for event in outcome.events if isinstance(event, Update)]
    assert len(updates) <= 1
    assert not updates or (isinstance(last, ConnectionClosed) and last.reason == "QUIT")
