"""Harness: the POP3 client machine.

The first byte chooses what the client does (bit 7: logs in, command by command; else it pipelines commands about
messages; bit 6: with low limits), the second how the rest is cut, the third which commands; the rest is what the server
sends. What must hold besides what holds for every machine: only `RemoteProtocolError` escapes, and its text can be
shown.
"""

import random
from collections.abc import Callable
from contextlib import nullcontext
from unittest.mock import patch

from fuzz.oracles import MAX_WIRE, check_machine
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.pop3 import ClientEvent, ConnectionClosed, POP3Client, ReadyForTLS, Secret, State, client_session
from mailfront_proto.pop3.client_session import MAX_PIPELINED
from mailfront_proto.sasl import LoginClient, PlainClient
from mailfront_proto.testing import Player, Raised

MAX_LINE = 80
HELD = 16_384
"""Bytes, with low limits: entries of a listing, capabilities, and what is buffered."""
LOW_LIMITS = 64
SECRET = Secret(b"secret")

BEFORE_LOGIN: tuple[Callable[[POP3Client], None], ...] = (
    POP3Client.capa,
    POP3Client.stls,
    POP3Client.utf8,
    lambda client: client.language("en"),
    lambda client: client.login("joe", SECRET, allow_clear=True),
    lambda client: client.authenticate(PlainClient("joe", SECRET), allow_clear=True),
    lambda client: client.authenticate(LoginClient("joe", SECRET), allow_clear=True),
)
ABOUT_MESSAGES: tuple[Callable[[POP3Client], None], ...] = (
    POP3Client.stat,
    POP3Client.list,
    POP3Client.uidl,
    lambda client: client.list(2),
    lambda client: client.uidl(2),
    lambda client: client.retr(1),
    lambda client: client.top(1, 5),
    lambda client: client.dele(1),
    POP3Client.rset,
    POP3Client.noop,
)


def pipelining(client: POP3Client, seed: int) -> POP3Client:
    """`client`, once it has logged in, and said many commands."""
    player = Player(client, lambda client, event: None)
    player.receive(b"+OK\r\n")
    client.capa()
    player.receive(b"+OK\r\nPIPELINING\r\n.\r\n")
    client.login("joe", SECRET, allow_clear=True)
    player.receive(b"+OK\r\n")
    player.receive(b"+OK\r\n")
    dice = random.Random(seed)
    for _ in range(MAX_PIPELINED - 1):
        dice.choice(ABOUT_MESSAGES)(client)
    client.quit()
    return client


def new_player(choice: int, seed: int) -> Player[POP3Client]:
    """A client, and an application that goes on by dice."""
    dice = random.Random(seed)

    def react(client: POP3Client, event: ClientEvent) -> None:
        if isinstance(event, ReadyForTLS):
            client.tls_established()
        while client.awaiting == "" and client.state is not State.CLOSED:
            commands = BEFORE_LOGIN if client.state is State.AUTHORIZATION else (*ABOUT_MESSAGES, POP3Client.quit)
            try:
                dice.choice(commands)(client)
            except LocalProtocolError:  # what is not offered
                continue

    client = POP3Client(max_reply_line=MAX_LINE) if choice & LOW_LIMITS else POP3Client()
    return Player(client if choice & 128 else pipelining(client, seed), react, raises=RemoteProtocolError)


def check(data: bytes) -> None:
    """Play one session."""
    if len(data) < 4 or len(data) > MAX_WIRE:
        return
    choice, cutting, seed = data[0], data[1], data[2]
    low = bool(choice & LOW_LIMITS)
    with patch.multiple(client_session, ENTRIES_AT_ONCE=20, MAX_CAPABILITIES=20) if low else nullcontext():
        # An answer that comes before its command is no answer: command by command, the cut decides.
        outcome = check_machine(
            lambda: new_player(choice, seed), data[3:], cutting, held=HELD if low else None, invariant=not choice & 128
        )
    assert isinstance(outcome.events[-1], ConnectionClosed)
    errors = [event.text for event in outcome.events if isinstance(event, Raised)]
    assert len(errors) <= 1 and all(text.isprintable() for text in errors)
    assert b"secret" not in "".join(errors).encode()
