"""Harness: the IMAP server machine, up to the login.

The first byte chooses profile and features, the second how the rest is cut, the third what the application answers
(below 128 it accepts everything but logins); the rest is what the client sends. What must hold besides what holds for
every machine: what is sent is whole lines without control bytes, and every one that is told is one that was sent.
"""

import random
import re
from collections.abc import Callable
from dataclasses import replace

from fuzz.oracles import MAX_WIRE, check_machine
from mailfront_proto.imap import (
    COMPAT,
    DEFAULT,
    Answered,
    ConnectionClosed,
    Event,
    HandOver,
    IMAPServer,
    Limits,
    Request,
    ServerOptions,
    State,
    VerifyPassword,
)
from mailfront_proto.testing import Player

LIMITS = Limits(command_line=99, auth_line=150, literal=30, arguments=4, id_pairs=3, tag=8, errors=20, idle_commands=9)
PROFILES = (DEFAULT, replace(DEFAULT, limits=LIMITS), COMPAT, replace(COMPAT, limits=LIMITS))
HELD = (None, 8192, None, 8192)
"""Bytes, for each profile; lines are short where the limits are low."""
_CHALLENGE = re.compile(rb"\+ [A-Za-z0-9+/=]*")
CODES = ("", "UNAVAILABLE", "EXPIRED")


class Server(IMAPServer):
    """A server whose connection, once handed over, has an owner that reads it."""

    def receive_data(self, data: bytes) -> None:
        if self.state is not State.HANDED_OVER:
            super().receive_data(data)


def new_application(seed: int) -> Callable[[IMAPServer, Event], None]:
    """Answers that depend on what has come before, and not on how it was cut."""
    dice = random.Random(seed)

    def answer(machine: IMAPServer, event: Event) -> None:
        if isinstance(event, VerifyPassword):
            assert event.username and not [character for character in event.username if ord(character) < 32]
            assert not set(event.password.reveal()) & {*range(32), 127}
        if not machine.answer_owed:
            return
        if isinstance(event, Request) and dice.random() < 0.7:
            machine.reply("NO", dice.choice(("", "odd\r\n* OK\x1b\ud800\udcff")), dice.choice(CODES))
        elif seed > 127 and dice.random() < 0.2:
            machine.reply("NO", "no")
        else:
            machine.accept()
            if machine.state is State.TLS:
                machine.tls_established()

    return answer


def new_player(choice: int, seed: int) -> Player[IMAPServer]:
    """A session with the features that `choice` says."""
    machine = Server(PROFILES[choice & 3])
    machine.offers_login = bool(choice & 4)
    machine.offers_starttls = bool(choice & 8)
    if choice & 16:
        machine.sasl = ServerOptions(("PLAIN", "LOGIN", "CRAM-MD5"), challenge_source=lambda: b"<1.2@x>")
    machine.application_capabilities = ("IMAP4rev1", "IDLE") if choice & 32 else ()
    return Player(machine, new_application(seed))


def check(data: bytes) -> None:
    """Play one session."""
    if len(data) < 4 or len(data) > MAX_WIRE:
        return
    choice, cutting, seed = data[0], data[1], data[2]
    new, held = lambda: new_player(choice, seed), HELD[choice & 3]
    outcome = check_machine(new, data[3:], cutting, held=held, invariant=not choice & 8)
    assert isinstance(outcome.events[-1], ConnectionClosed | HandOver)
    assert outcome.output.endswith(b"\r\n")
    lines = outcome.output.split(b"\r\n")[:-1]
    for line in lines:
        assert line and not set(line) & {0, 10, 13, 27, 127}
    told = [event.said for event in outcome.events if isinstance(event, Answered)]
    # All but challenges; in compat + is a tag like any other.
    answers = [line for line in lines if line == b"+ OK" or not _CHALLENGE.fullmatch(line)]
    shown = [line.decode("utf-8", "surrogateescape") for line in answers]
    for said, text in zip(told, shown, strict=True):
        assert said == text or (said.startswith("XXXXXXXX ") and said.partition(" ")[2] == text.partition(" ")[2])
