"""Harness: the POP3 client machine.

The first byte chooses what the client does (bit 7: logs in, command by command; else it pipelines commands about
messages), the second how the rest is cut, the third which commands; the rest is what the server sends. What must hold
besides what holds for every machine: only `RemoteProtocolError` escapes, and its text can be shown.
"""

import random
from collections.abc import Callable

from fuzz.oracles import MAX_WIRE, check_machine
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.pop3 import ClientEvent, ConnectionClosed, POP3Client, ReadyForTLS, Secret, State
from mailfront_proto.pop3.client_session import MAX_PIPELINED
from mailfront_proto.sasl import LoginClient, PlainClient
from mailfront_proto.testing import Player, Raised

HELD = 400_000
"""Bytes: a thousand entries of a listing, and what is buffered."""
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


def pipelining(seed: int) -> POP3Client:
    """A client that has logged in, and said many commands."""
    client = POP3Client()
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

    client = POP3Client() if choice & 128 else pipelining(seed)
    return Player(client, react, raises=RemoteProtocolError)


def check(data: bytes) -> None:
    """Play one session."""
    if len(data) < 4 or len(data) > MAX_WIRE:
        return
    choice, cutting, seed = data[0], data[1], data[2]
    # An answer that comes before its command is no answer: command by command, the cut decides.
    outcome = check_machine(lambda: new_player(choice, seed), data[3:], cutting, held=HELD, invariant=not choice & 128)
    assert isinstance(outcome.events[-1], ConnectionClosed)
    errors = [event.text for event in outcome.events if isinstance(event, Raised)]
    assert len(errors) <= 1 and all(text.isprintable() for text in errors)
    assert b"secret" not in "".join(errors).encode()
