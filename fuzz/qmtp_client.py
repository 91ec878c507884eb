"""Harness: the QMTP and QMQP client machines.

The first byte chooses protocol and how much of what is to be sent was sent, the second how the rest is cut; the rest is
what the server sends. What must hold besides what holds for every machine: only `RemoteProtocolError` escapes, and
every recipient has one result, delivered only if all of its message was sent.
"""

from fuzz.oracles import MAX_WIRE, check_machine
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.qmqp import QMQPClient
from mailfront_proto.qmtp import ConnectionClosed, MessageDone, QMTPClient, Reply
from mailfront_proto.qmtp.client import PackageClient
from mailfront_proto.qmtp.responses import encode_response, parse_response
from mailfront_proto.testing import Player, ignore

HELD = 16_384
"""Bytes: a response, and the store behind it."""
TO = ("a@b.example", "c@d.example", "e@f.example")


def new_player(choice: int) -> tuple[Player[PackageClient], int]:
    """A client that has sent messages, and how many recipients they have in all."""
    client: QMTPClient | QMQPClient = QMQPClient() if choice & 1 else QMTPClient(one_response=bool(choice & 2))
    messages = 1 if choice & 1 else 1 + (choice >> 2 & 3)
    recipients = 0
    for number in range(messages):
        to = TO[: 1 + (choice >> 4 & 1) + number % 2]
        client.send_message("me@x.example", to, 3)
        recipients += len(to)
        if number < messages - 1 or not choice & 128:
            client.send_body(b"abc")
            client.end_of_body()
    client.data_to_send()
    return Player(client, ignore, raises=RemoteProtocolError), recipients


def check(data: bytes) -> None:
    """Play one session."""
    if len(data) < 3 or len(data) > MAX_WIRE:
        return
    choice, cutting = data[0], data[1]
    outcome = check_machine(lambda: new_player(choice)[0], data[2:], cutting, held=HELD)
    assert isinstance(outcome.events[-1], ConnectionClosed)
    done = [event for event in outcome.events if isinstance(event, MessageDone)]
    results = [result for event in done for result in event.results]
    assert len(results) == new_player(choice)[1]
    if choice & 128:
        assert not any(result.delivered for result in done[-1].results)
    for result in results:
        again = parse_response(encode_response(result.reply).partition(b":")[2][:-1])
        assert isinstance(again, Reply) and again.code // 100 == result.reply.code // 100
    assert outcome.output == b""
