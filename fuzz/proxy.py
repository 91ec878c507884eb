"""Harness: reading PROXY headers.

The first byte chooses the largest header, the second how the rest is cut. However it is cut, the same comes of it, and
what was read is printed and read again.
"""

from fuzz.oracles import MAX_WIRE, check_round_trip, cut
from mailfront_proto.proxy import ProxyHeader, ProxyReceiver, ProxyRefused


def read(pieces: list[bytes], limit: int) -> ProxyHeader | ProxyRefused:
    """What comes of `pieces`, with the end of the connection behind them."""
    receiver = ProxyReceiver(max_header=limit)
    rest = b""
    for piece in pieces:
        if isinstance(receiver.next_event(), ProxyHeader):
            rest += piece
        elif not isinstance(receiver.next_event(), ProxyRefused):
            receiver.receive_data(piece)
    receiver.receive_eof()
    event = receiver.next_event()
    assert isinstance(event, ProxyHeader | ProxyRefused)
    if isinstance(event, ProxyHeader):
        assert b"".join(pieces).endswith(receiver.trailing_data() + rest)
    else:
        assert event.reason.isprintable()
    return event


def read_back(printed: bytes) -> ProxyHeader:
    """What was printed is a header."""
    event = read([printed], 70000)
    assert isinstance(event, ProxyHeader)
    return event


def check(data: bytes) -> None:
    """Read one header."""
    if len(data) < 3 or len(data) > MAX_WIRE:
        return
    limit, wire = 232 + data[0] * 16, data[2:]
    event = read([wire], limit)
    [pieces] = cut(wire, data[1])
    again = read(pieces, limit)
    assert event == again or (isinstance(event, ProxyRefused) and isinstance(again, ProxyRefused)), (event, again)
    if isinstance(event, ProxyHeader) and all(kind != 3 for kind, _ in event.tlvs):
        check_round_trip(event, ProxyHeader.encode, read_back)
