"""Harness: the QMTP and QMQP server machines.

The first byte chooses protocol, profile and form, the second how the rest is cut, the third what the application
answers (below 128 it accepts everything); the rest is what the client sends. What must hold besides what holds for
every machine: what is sent is whole responses, one for each recipient or package; no control byte reaches an envelope;
and a message that is asked to be accepted came with all its bytes.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from fuzz.oracles import MAX_WIRE, check_machine
from mailfront_proto.qmqp import QMQPServer
from mailfront_proto.qmtp import (
    COMPAT,
    DEFAULT,
    Body,
    ConnectionClosed,
    Event,
    Limits,
    MessageEnd,
    MessageStart,
    QMTPServer,
    Recipient,
    Reply,
    Sender,
)
from mailfront_proto.qmtp.package import PackageServer
from mailfront_proto.testing import Player

LIMITS = Limits(message_size=40, address=12, recipients=3, recipient_list=100)
PROFILES = (DEFAULT, replace(DEFAULT, limits=LIMITS), COMPAT, replace(COMPAT, limits=LIMITS))
HELD = (16_384, 16_384, None, 16_384)
"""Bytes, for each profile: an address in `COMPAT` may have 65,536."""
TEXTS = ("", "no", "two\nlines", "odd\r\x1b\ud800\udcff", "x" * 300)


def new_application(seed: int) -> Callable[[PackageServer, Event], None]:
    """Answers that depend on what has come before, and not on how it was cut."""
    dice = random.Random(seed)

    def answer(machine: PackageServer, event: Event) -> None:
        if not machine.answer_owed:
            return
        code = dice.choice((250, 250, 250, 199, 450, 550)) if seed > 127 else 250
        text = dice.choice(TEXTS)
        if isinstance(event, MessageEnd) and isinstance(machine, QMTPServer) and machine.profile.response_per_recipient:
            machine.reply_each([Reply(code, text)] * event.recipients)
        else:
            machine.reply(code, text)

    return answer


def new_player(choice: int, seed: int) -> Player[PackageServer]:
    """A session as `choice` says."""
    profile, lf = PROFILES[choice & 3], bool(choice & 4)
    machine: PackageServer = QMQPServer(profile, lf_bodies=lf) if choice & 8 else QMTPServer(profile, lf_bodies=lf)
    return Player(machine, new_application(seed))


def check(data: bytes) -> None:
    """Play one session."""
    if len(data) < 4 or len(data) > MAX_WIRE:
        return
    choice, cutting, seed = data[0], data[1], data[2]
    outcome = check_machine(lambda: new_player(choice, seed), data[3:], cutting, held=HELD[choice & 3])
    assert isinstance(outcome.events[-1], ConnectionClosed)
    check_responses(outcome.output, outcome.events, choice)
    size = body = 0
    for event in outcome.events:
        if isinstance(event, MessageStart):
            size, body = event.size, 0
        elif isinstance(event, Body):
            body += len(event.data if choice & 4 else event.data.replace(b"\r\n", b"\n"))
            assert choice & 2 or b"\r" not in event.data.replace(b"\r\n", b"")
        elif isinstance(event, Sender | Recipient):
            assert event.refusal is not None or not set(event.address.raw) & {*range(32), 127}
        elif isinstance(event, MessageEnd):
            assert body <= size and (body == size or not choice & 2)


def check_responses(output: bytes, events: list[Event], choice: int) -> None:
    """Whole netstrings, each with its letter."""
    count = 0
    while output:
        length, colon, rest = output.partition(b":")
        assert colon and length.isdigit() and rest[int(length) : int(length) + 1] == b","
        content, output = rest[: int(length)], rest[int(length) + 1 :]
        assert content[:1] in (b"K", b"Z", b"D") and not set(content) & ({*range(32), 127} - {9, 10})
        count += 1
    ends = sum(type(event).__name__ in ("MessageEnd", "MessageRefused") for event in events)
    recipients = sum(isinstance(event, Recipient) for event in events)
    closed = events[-1]
    assert isinstance(closed, ConnectionClosed)
    gave_up = closed.reply is not None
    if choice & 8 or choice & 2:
        assert count == ends + gave_up
    else:
        assert count - gave_up <= recipients
