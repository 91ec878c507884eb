"""Harness: SPAMC and SPAMD, both roles.

The first byte chooses the role and the method, the second how the rest is cut; the rest is what the peer sends. What
must hold besides what holds for every machine: an answer that is told as whole has the length that it promised, and
what its head says can be shown.
"""

from fuzz.oracles import MAX_WIRE, check_machine
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.spamd import METHODS, Response, ResponseEnd, SpamdClient, SpamdServer
from mailfront_proto.testing import Player, accept, ignore

HELD = 8192


def new_client(choice: int) -> Player[SpamdClient]:
    """A client that awaits its answer, or is in the middle of its message."""
    client = SpamdClient("1.2" if choice & 2 else "1.5")
    method = METHODS[(choice >> 4) % len(METHODS)]
    if method == "PING":
        client.ping()
    else:
        client.request(method, 5)
        client.send_body(b"hello")
        if not choice & 4:
            client.end_of_body()
    return Player(client, ignore, raises=RemoteProtocolError)


def check(data: bytes) -> None:
    """Play one connection."""
    if len(data) < 3 or len(data) > MAX_WIRE:
        return
    choice, cutting, wire = data[0], data[1], data[2:]
    if choice & 1:
        check_machine(lambda: Player(SpamdServer(max_size=1000), accept), wire, cutting, held=HELD)
        return
    outcome = check_machine(lambda: new_client(choice), wire, cutting, held=HELD)
    responses = [event for event in outcome.events if isinstance(event, Response)]
    ends = [event for event in outcome.events if isinstance(event, ResponseEnd)]
    assert len(ends) <= len(responses) <= 1
    assert all(response.text.isprintable() for response in responses)
    if ends and responses[0].size is not None:
        assert len(b"".join(outcome.bodies())) == responses[0].size
