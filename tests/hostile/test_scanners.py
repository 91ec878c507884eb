"""H65: the answers of clamd and spamd."""

import pytest

from mailfront_proto.clamd import ClamdClient, Scanned
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.spamd import Response, ResponseEnd, SpamdClient
from mailfront_proto.testing import Player, assert_chunk_invariant, ignore

# Each would let mail pass, or put a line into it, if it were believed.
FORGED_BY_CLAMD = (
    b"stream: OK",  # cut off: it may go on as OK.Dropper FOUND
    b"stream: OK\nstream: Worm FOUND\0",
    b"stream: Worm\r\nX-Virus: none FOUND\0",
    b"stream: Worm\x1b]0;x\x07 FOUND\0",
    b"OK\0",
    b"stream: ok\0",
    b"\0stream: OK\0",
)
HEAD = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 4\r\nSpam: False ; 1 / 5\r\n"
FORGED_BY_SPAMD = (
    HEAD + b"Spam: True ; 9 / 5\r\n\r\nabc\n",
    HEAD + b"X: y\rSpam: True ; 9 / 5\r\n\r\nabc\n",
    HEAD + b" folded\r\n\r\nabc\n",
    HEAD + b"\r\nabc",
    HEAD + b"\r\nabc\nX-Injected: yes\n",
    HEAD.replace(b"1 / 5", b"nan / 5") + b"\r\nabc\n",
    HEAD.replace(b"EX_OK", b"EX_OK\0") + b"\r\nabc\n",
)


@pytest.mark.parametrize("answer", FORGED_BY_CLAMD)
def test_h65_clamd_cannot_forge_a_verdict(answer: bytes) -> None:
    def new() -> Player[ClamdClient]:
        client = ClamdClient()
        client.scan()
        client.end_of_body()
        return Player(client, ignore, raises=RemoteProtocolError)

    events = assert_chunk_invariant(new, [answer]).events
    assert not any(isinstance(event, Scanned) for event in events)
    assert not events[-1].answered


@pytest.mark.parametrize("answer", FORGED_BY_SPAMD)
def test_h65_spamd_cannot_forge_headers_or_a_verdict(answer: bytes) -> None:
    def new() -> Player[SpamdClient]:
        client = SpamdClient()
        client.request("PROCESS", 0)
        client.end_of_body()
        return Player(client, ignore, raises=RemoteProtocolError)

    events = assert_chunk_invariant(new, [answer]).events
    assert not any(isinstance(event, ResponseEnd) for event in events)
    assert not events[-1].answered
    for event in events:
        assert not isinstance(event, Response) or event.text.isprintable()
