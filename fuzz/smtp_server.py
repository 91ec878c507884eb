"""Harness: the SMTP and LMTP server machine.

The first byte chooses profile and features, the second how the rest is cut, the third what the application
answers (below 128 it accepts everything); the rest is what the client sends. What must hold, whatever that is:

* nothing escapes: no exception at all, since the application here makes no mistake;
* what is held stays below the limits, and what is sent is whole reply lines;
* events and output are the same for the bytes in one piece and cut.
"""

import random
from dataclasses import dataclass, field, replace

from mailfront_proto.sasl import ServerOptions
from mailfront_proto.smtp import (
    COMPAT,
    DEFAULT,
    NEED_DATA,
    PAUSED,
    Body,
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
MAX_WIRE = 4096


@dataclass
class Session:
    """One playing of the machine."""

    machine: SMTPServer
    answers: random.Random
    events: list[Event] = field(default_factory=list)
    output: bytes = b""
    refuses: bool = False

    def step(self) -> None:
        """Until the machine needs data."""
        while True:
            event = self.machine.next_event()
            if event is PAUSED:
                drained = self.machine.data_to_send()
                self.output += drained
                if not drained and self.machine.state is State.TLS:
                    self.machine.tls_established()
                continue
            if event is NEED_DATA:
                break
            assert isinstance(event, Event)
            last = self.events[-1] if self.events else None
            if isinstance(event, Body) and isinstance(last, Body):
                self.events[-1] = Body(last.data + event.data)
            elif event is not last:
                self.events.append(event)
            if isinstance(event, ConnectionClosed):
                break
            if self.machine.answer_owed:
                self.answer(event)
        self.output += self.machine.data_to_send()
        limits = self.machine.profile.limits
        assert len(self.machine._buffer) < max(limits.command_line, limits.auth_line)

    def answer(self, event: Event) -> None:
        """An answer that depends on what has come before, and not on how it was cut."""
        machine = self.machine
        code = self.answers.choice((0, 0, 0, 0, 0, 0, 421, 450, 550, 554)) if self.refuses else 0
        text = self.answers.choice(("", "no", "5.1.1 " + "x" * 600, "two\nlines", "odd\r\x1b\ud800\udcff"))
        if code:
            machine.reply(code, text)
        elif isinstance(event, VendorCommand):
            machine.reply(250, text)
        elif isinstance(event, MessageEnd) and machine.lmtp:
            machine.reply_each([Reply(250, text)] * machine._recipients)
        else:
            machine.accept()


def play(choice: int, seed: int, pieces: list[bytes]) -> Session:
    """A session with the features that `choice` says."""
    machine = SMTPServer("mx.example.org", PROFILES[choice & 7], lmtp=bool(choice & 8), lf_bodies=bool(choice & 16))
    machine.sasl = ServerOptions(("PLAIN", "LOGIN") if choice & 32 else ())
    machine.offers_starttls = bool(choice & 64)
    if choice & 128:
        machine.register_command("XVENDOR")
        machine.register_command("XNEEDS", "required")
    session = Session(machine, random.Random(seed), refuses=seed > 127)
    session.step()
    for piece in pieces:
        machine.receive_data(piece)
        session.step()
    machine.receive_eof()
    session.step()
    assert isinstance(session.events[-1], ConnectionClosed)
    return session


def check(data: bytes) -> None:
    """Play `data` whole and cut."""
    if len(data) < 4 or len(data) > MAX_WIRE:
        return
    choice, cutting, seed = data[0], data[1], data[2]
    wire = data[3:]
    whole = play(choice, seed, [wire])
    for line in whole.output.split(b"\r\n")[:-1]:
        assert len(line) >= 4 and line[:3].isdigit() and not set(line) & {0, 10, 13, 27, 127}
    assert whole.output.endswith(b"\r\n")
    if choice & 64:  # where TLS begins the cut decides: what comes behind is not the machine's
        return
    dice = random.Random(cutting)
    if cutting == 0:
        pieces = [wire[i : i + 1] for i in range(len(wire))]
    else:
        marks = sorted(dice.randrange(len(wire) + 1) for _ in range(dice.randint(1, 12)))
        pieces = [wire[a:b] for a, b in zip([0, *marks], [*marks, len(wire)], strict=True) if a < b]
    cut = play(choice, seed, pieces)
    assert cut.events == whole.events, (cut.events, whole.events)
    assert cut.output == whole.output, (cut.output, whole.output)
