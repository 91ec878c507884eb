"""Harness: CVM packets.

The first byte chooses: a request; a response to a request of version 1 or 2; the output of a command, whose exit status
is the second byte. What must hold: nothing escapes but what is documented; what was read is written and read back the
same; nothing may
follow the end; no answer without the request's random bytes is one, and no exit status but 0 is a success.
"""

from mailfront_proto.cvm import MAX_PACKET, CVMRequest, CVMResponse, Verdict
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.secret import Secret

ONE = CVMRequest(b"joe", b"example.org", Secret(b"secret"), version=1)
TWO = CVMRequest(b"joe", b"example.org", Secret(b"secret"))
CHANCE = CVMRequest(b"joe", b"example.org", Secret(b"secret"), random_bytes=b"\x00random\xff")


def request(data: bytes) -> None:
    """Read, write and read again; answer."""
    read = CVMRequest.parse(data)
    if read is None:
        assert CVMResponse(2).encode(None) == b"\2\0\0"
        return
    assert len(data) <= MAX_PACKET and read.account
    for name in (read.account, read.domain or b""):
        assert not any(byte < 0x20 or byte == 0x7F for byte in name)
    again = read.encode()
    assert CVMRequest.parse(again) == read
    if read.version == 1:
        assert again == data
    assert CVMRequest.parse(data + b"x") is None and CVMRequest.parse(data + b"\0") is None
    response = CVMResponse(0, ((1, read.account[:20]),) if b"\0" not in read.account else ())
    assert CVMResponse.parse(response.encode(read), read) == response


def response(data: bytes, asked: CVMRequest) -> None:
    """Read, write and read again."""
    try:
        read = CVMResponse.parse(data, asked)
        verdict = read.verdict
    except RemoteProtocolError:
        return
    assert len(data) <= MAX_PACKET and read.code == data[0]
    if asked.random_bytes:
        assert data[1 : 2 + len(asked.random_bytes)] == bytes([len(asked.random_bytes)]) + asked.random_bytes
    assert (verdict is Verdict.ACCEPTED) <= (read.code == 0)
    assert CVMResponse.parse(read.encode(asked), asked) == read


def command(data: bytes, status: int) -> None:
    """The exit status counts."""
    read = CVMResponse.of_command(data, status, TWO)
    try:
        verdict = read.verdict
    except RemoteProtocolError:
        return
    assert (verdict is Verdict.ACCEPTED) <= (status == 0 and bool(data))


def check(data: bytes) -> None:
    """Choose and read."""
    if len(data) < 2 or len(data) > 1024:
        return
    choice = data[0] % 5
    if choice == 0:
        request(data[1:])
    elif choice == 4:
        command(data[2:], data[1] - 20)
    else:
        response(data[1:], (ONE, TWO, CHANCE)[choice - 1])
