"""Harness: clamd, both roles.

The first byte chooses the role and the form, the second how the rest is cut; the rest is what the peer sends. What
must hold besides what holds for every machine: there is one verdict at most for each scan, and its text can be shown.
"""

from fuzz.oracles import MAX_WIRE, check_machine
from mailfront_proto.clamd import ClamdClient, ClamdServer, ConnectionClosed, Scanned
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.testing import Player, accept, ignore

HELD = 4096


def new_client(choice: int) -> Player[ClamdClient]:
    """A client that awaits its answer, or is in the middle of its stream."""
    client = ClamdClient(session=bool(choice & 2), newline=bool(choice & 4), max_reply=200)
    if choice & 8:
        client.ping()
    else:
        client.scan()
        client.send_body(b"hello")
        if not choice & 16:
            client.end_of_body()
    return Player(client, ignore, raises=RemoteProtocolError)


def check(data: bytes) -> None:
    """Play one connection."""
    if len(data) < 3 or len(data) > MAX_WIRE:
        return
    choice, cutting, wire = data[0], data[1], data[2:]
    if choice & 1:
        check_machine(lambda: Player(ClamdServer(max_stream=1000), accept), wire, cutting, held=HELD)
        return
    outcome = check_machine(lambda: new_client(choice), wire, cutting, held=HELD)
    verdicts = [event for event in outcome.events if isinstance(event, Scanned)]
    assert len(verdicts) <= 1
    assert all(verdict.text.isprintable() for verdict in verdicts)
    closed = outcome.events[-1]
    assert isinstance(closed, ConnectionClosed) and (not verdicts or closed.answered or len(outcome.events) > 2)
