"""Harness: the IMAP client machine, up to the login.

The first byte chooses what the client does (bit 2: with low limits), the second how the rest is cut, the third which
commands; the rest is what the server sends. What must hold besides what holds for every machine: only
`RemoteProtocolError` escapes, its text can be shown, and what is sent is whole lines.
"""

import random
from collections.abc import Callable

from fuzz.oracles import MAX_WIRE, check_machine
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.imap import Authenticated, ClientEvent, IMAPClient, ReadyForTLS, Secret, State
from mailfront_proto.sasl import LoginClient, PlainClient
from mailfront_proto.testing import Player, Raised

LIMITS = {"max_response_line": 400, "max_response": 1000}
HELD = 8192
"""Bytes, with `LIMITS`: a whole response, the store behind it, and capabilities."""
LOW_LIMITS = 4
SECRET = Secret(b"secret")

COMMANDS: tuple[Callable[[IMAPClient], None], ...] = (
    IMAPClient.capability,
    IMAPClient.noop,
    IMAPClient.starttls,
    lambda client: client.identify({"name": "x"}),
    lambda client: client.login("joe", SECRET, allow_clear=True),
    lambda client: client.login("jo\xe9", Secret(b"\xff"), allow_clear=True),
    lambda client: client.authenticate(PlainClient("joe", SECRET), allow_clear=True),
    lambda client: client.authenticate(LoginClient("joe", SECRET), allow_clear=True),
    IMAPClient.logout,
)


class Client(IMAPClient):
    """A client whose connection, once handed over, has an owner that reads it."""

    def receive_data(self, data: bytes) -> None:
        if self.state is not State.HANDED_OVER:
            super().receive_data(data)


def new_player(choice: int, seed: int) -> Player[IMAPClient]:
    """A client that gives a command, of those that are allowed, whenever it waits for none."""
    dice = random.Random(seed)

    def react(client: IMAPClient, event: ClientEvent | Raised) -> None:
        if isinstance(event, ReadyForTLS):
            client.tls_established()
        if isinstance(event, Authenticated) and not choice & 2:
            client.data_to_send()
            client.hand_over()
        if client.awaiting or client.state in (State.CLOSED, State.HANDED_OVER, State.GREETING):
            return
        for command in dice.sample(COMMANDS, len(COMMANDS)):
            try:
                command(client)
            except LocalProtocolError:
                continue
            return

    client = Client(allow_preauth=bool(choice & 1), **(LIMITS if choice & LOW_LIMITS else {}))
    return Player(client, react, raises=RemoteProtocolError)


def check(data: bytes) -> None:
    """Play one session."""
    if len(data) < 4 or len(data) > MAX_WIRE:
        return
    choice, cutting, seed = data[0], data[1], data[2]
    # Where TLS begins, what has come behind it is fatal, or is TLS's: the cut decides. So it does behind a hand-over.
    held = HELD if choice & LOW_LIMITS else None
    outcome = check_machine(lambda: new_player(choice, seed), data[3:], cutting, held=held, invariant=False)
    for event in outcome.events:
        if isinstance(event, Raised):
            assert event.text.isprintable(), event.text
    assert outcome.output == b"" or outcome.output.endswith(b"\r\n")
