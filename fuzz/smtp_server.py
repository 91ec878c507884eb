"""Harness: the SMTP and LMTP server machine.

The first byte chooses profile and features, the second how the rest is cut, the third what the application
answers (below 128 it accepts everything); the rest is what the client sends. What must hold besides what holds for
every machine: what is sent is whole reply lines.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from fuzz.oracles import MAX_WIRE, MOST_HELD, check_machine
from mailfront_proto.sasl import ServerOptions
from mailfront_proto.smtp import (
    COMPAT,
    DEFAULT,
    ConnectionClosed,
    Event,
    Limits,
    LineEnds,
    MessageEnd,
    Reply,
    SMTPServer,
    State,
    VendorCommand,
)
from mailfront_proto.smtp.profile import PROMISES
from mailfront_proto.testing import Player

LIMITS = Limits(command_line=300, auth_line=400, message_size=200, recipients=4, refused_recipients=5, idle_commands=20)
PROFILES = (
    DEFAULT,
    replace(DEFAULT, limits=LIMITS),
    COMPAT,
    replace(DEFAULT, limits=LIMITS, line_ends=LineEnds.REJECT),
    replace(DEFAULT, line_ends=LineEnds.ACCEPT),
    replace(COMPAT, limits=LIMITS),
    replace(COMPAT, line_ends=LineEnds.NORMALIZE),
    replace(DEFAULT, enhanced_codes=False, wraps_replies=False, helo_required=False),
)
OBJECTS = 4096
"""Bytes for what a session holds besides its input: the transaction, an exchange."""


def new_application(seed: int) -> Callable[[SMTPServer, Event], None]:
    """Answers that depend on what has come before, and not on how it was cut."""
    dice = random.Random(seed)
    refuses = seed > 127

    def answer(machine: SMTPServer, event: Event) -> None:
        if not machine.answer_owed:
            return
        code = dice.choice((0, 0, 0, 0, 0, 0, 421, 450, 550, 554)) if refuses else 0
        text = dice.choice(("", "no", "5.1.1 " + "x" * 600, "two\nlines", "odd\r\x1b\ud800\udcff"))
        if code:
            machine.reply(code, text)
        elif isinstance(event, VendorCommand):
            machine.reply(250, text)
        elif isinstance(event, MessageEnd) and machine.lmtp:
            machine.reply_each([Reply(250, text)] * machine._transaction.recipients)
        else:
            machine.accept()
            if machine.state is State.TLS:
                machine.tls_established()

    return answer


def new_player(choice: int, seed: int) -> Player[SMTPServer]:
    """A session with the features that `choice` says."""
    machine = SMTPServer("mx.example.org", PROFILES[choice & 7], lmtp=bool(choice & 8), lf_bodies=bool(choice & 16))
    machine.sasl = ServerOptions(("PLAIN", "LOGIN") if choice & 32 else ())
    machine.offers_starttls = bool(choice & 64)
    if choice & 128:
        machine.register_command("XVENDOR")
        machine.register_command("XNEEDS", "required")
        machine.register_parameter("MAIL", "XTAG", lambda value: value != "bad")
        machine.extensions |= PROMISES & machine.profile.extensions
        machine.offers_xclient = True
    return Player(machine, new_application(seed))


def check(data: bytes) -> None:
    """Play one session."""
    if len(data) < 4 or len(data) > MAX_WIRE:
        return
    choice, cutting, seed = data[0], data[1], data[2]
    held = 3 * PROFILES[choice & 7].limits.auth_line + OBJECTS
    outcome = check_machine(
        lambda: new_player(choice, seed),
        data[3:],
        cutting,
        held=held if held <= MOST_HELD else None,
        invariant=not choice & 64,
    )
    assert isinstance(outcome.events[-1], ConnectionClosed)
    for line in outcome.output.split(b"\r\n")[:-1]:
        assert len(line) >= 4 and line[:3].isdigit() and not set(line) & {0, 10, 13, 27, 127}
    assert outcome.output.endswith(b"\r\n")
