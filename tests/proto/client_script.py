"""A scripted server for the client machine: what the client must send, what it gets, which events follow.

A script is a list of (bytes the client sends, bytes the server answers), one pair for each time that the
client must wait; splits do not cross these marks. The same script plays whole and in every cutting.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.pull import NEED_DATA, PAUSED
from mailfront_proto.smtp.client import CHUNK_SIZE, SMTPClient
from mailfront_proto.smtp.client_events import (
    Authenticated,
    AuthenticationFailed,
    ClientEvent,
    Greeting,
    HelloDone,
    MessageDone,
    ReadyForBody,
    ReadyForTLS,
    ReplyReceived,
)
from mailfront_proto.smtp.events import ConnectionClosed
from mailfront_proto.testing import Pieces, Player, Raised, every_split

EOF = b"<EOF>"
"""In place of the server's bytes, or at their end: the connection is lost."""

App = Callable[[SMTPClient, ClientEvent], None]
"""Reacts to an event with the client's next calls."""


@dataclass
class Script:
    """One session and the events it must give (as `show` writes them). `new_app` makes the application; `name` is
    the client's, `chunk_size` that of its chunks."""

    new_app: Callable[[], App]
    steps: Sequence[tuple[bytes, bytes]]
    events: Sequence[str]
    lmtp: bool = False
    name: str = "client.example"
    chunk_size: int = CHUNK_SIZE


def show(event: ClientEvent | Raised) -> str:
    """An event on one short line."""
    match event:
        case Greeting(reply):
            return f"greeting {reply.code}"
        case HelloDone(reply, capabilities):
            return " ".join(["hello", str(reply.code), *capabilities])
        case ReadyForTLS():
            return "tls"
        case Authenticated(reply):
            return f"authenticated {reply.code}"
        case AuthenticationFailed(reply, cancelled):
            return f"authentication failed {reply.code}" + (f" ({cancelled})" if cancelled else "")
        case ReplyReceived(command, reply):
            return f"{command} {reply.code}"
        case ReadyForBody():
            return "body"
        case Raised(_, text):
            return f"error: {text}"
        case MessageDone(results):
            return " ".join(["done", *(f"{r.stage.value}:{r.reply.code}" for r in results)])
        case ConnectionClosed(reason, in_message):
            return f"closed {reason}" + (" in message" if in_message else "")


def pull(client: SMTPClient, app: App, seen: list[str]) -> None:
    """Pull events, and let `app` react, until the client wants something from outside. Nothing is drained."""
    while True:
        try:
            event = client.next_event()
        except RemoteProtocolError as error:
            seen.append(f"error: {error}")
            continue
        if event is NEED_DATA or event is PAUSED:
            return
        if isinstance(event, ConnectionClosed):
            if not seen or seen[-1] != show(event):  # it is returned ever after
                seen.append(show(event))
            return
        seen.append(show(event))
        app(client, event)


def segments(script: Script) -> list[bytes]:
    """What the server sends, between the marks."""
    return [answer.removesuffix(EOF) for _, answer in script.steps]


def play(script: Script, pieces: Pieces | None = None) -> list[str]:
    """Play `script`, with what the server sends in `pieces` (default: whole); returns the events."""
    client = SMTPClient(script.name, lmtp=script.lmtp, chunk_size=script.chunk_size)
    player = Player(client, script.new_app(), raises=RemoteProtocolError)
    player.step()
    taken = 0
    for number, (expected, answer) in enumerate(script.steps):
        assert b"".join(player.writes[taken:]) == expected, f"step {number}"
        taken = len(player.writes)
        for piece in pieces[number] if pieces is not None else filter(None, [answer.removesuffix(EOF)]):
            player.receive(piece)
        if answer.endswith(EOF):
            player.end()
    assert player.writes[taken:] == [], "more was sent than the script says"
    return [show(event) for event in player.outcome.events]


def play_every_way(script: Script) -> None:
    """Under every split: always the same events and the same output."""
    assert play(script) == script.events
    for pieces in every_split(segments(script)):
        assert play(script, pieces) == script.events, pieces
