"""The PROXY protocol: both roles, every split, and what is no header. The bytes of the examples are those of HAProxy's
proxy-protocol.txt (2020/03/05), sections 2.1 and 2.2."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.proxy import (
    MAX_V1_LINE,
    Family,
    ProxyAddress,
    ProxyHeader,
    ProxyReceiver,
    ProxyRefused,
    Transport,
)
from mailfront_proto.pull import NEED_DATA

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT_V4 = ProxyHeader(1, ProxyAddress("192.168.0.1", 56324), ProxyAddress("192.168.0.11", 443), Family.INET)
FORM = "a header of version 1 is PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT"
HIGHEST = ProxyAddress("255.255.255.255", 65535)
HIGHEST6 = ProxyAddress("ffff:" * 7 + "ffff", 65535)
LONGEST = b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n"


def read(*pieces: bytes, eof: bool = False) -> tuple[object, bytes]:
    """The event that comes of `pieces`, and what was left for the next owner."""
    receiver = ProxyReceiver()
    event: object = receiver.next_event()
    for piece in pieces:
        receiver.receive_data(piece)
        event = receiver.next_event()
    if eof:
        receiver.receive_eof()
        event = receiver.next_event()
    assert receiver.next_event() == event
    return event, receiver.trailing_data() if isinstance(event, ProxyHeader) else b""


def v2(command: int, families: int, rest: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + bytes([command, families]) + (len(rest) if length is None else length).to_bytes(2, "big") + rest


ports = st.integers(0, 65535)
values = st.lists(st.tuples(st.integers(0, 255).filter(lambda kind: kind != 3), st.binary(max_size=40)), max_size=4)
paths = st.binary(max_size=108).map(lambda path: path.rstrip(b"\0").decode("utf-8", "surrogateescape"))


@st.composite
def headers(draw: st.DrawFn) -> ProxyHeader:
    version = draw(st.sampled_from([1, 2]))
    if draw(st.integers(0, 5)) == 0:
        return ProxyHeader(1) if version == 1 else ProxyHeader(2, local=True)
    family = draw(st.sampled_from([Family.INET, Family.INET6] if version == 1 else list(Family)))
    source = destination = None
    if family is Family.UNIX:
        source, destination = ProxyAddress(draw(paths)), ProxyAddress(draw(paths))
    elif family is not Family.UNKNOWN:
        kind = IPv4Address if family is Family.INET else IPv6Address
        hosts = st.integers(0, 2 ** (32 if family is Family.INET else 128) - 1).map(lambda host: str(kind(host)))
        source, destination = ProxyAddress(draw(hosts), draw(ports)), ProxyAddress(draw(hosts), draw(ports))
    transport = Transport.STREAM if version == 1 else draw(st.sampled_from(list(Transport)))
    tlvs = () if version == 1 else tuple(draw(values))
    return ProxyHeader(version, source, destination, family, transport, tlvs=tlvs)


@given(headers(), st.binary(max_size=20), st.lists(st.integers(0, 300), max_size=8))
def test_what_is_sent_is_received_however_it_is_cut(header: ProxyHeader, behind: bytes, cuts: list[int]) -> None:
    wire = header.encode() + behind
    assert read(wire) == (header, behind)
    places = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    pieces = [wire[start:end] for start, end in pairwise(places)]
    receiver = ProxyReceiver()
    left = b""
    for piece in pieces:
        if receiver.next_event() is NEED_DATA:
            receiver.receive_data(piece)
        else:
            left += piece
    assert receiver.next_event() == header
    assert receiver.trailing_data() + left == behind


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=60).map(lambda rest: SIGNATURE + rest),
                 st.binary(max_size=120).map(lambda rest: b"PROXY " + rest)))  # fmt: skip
def test_nothing_makes_it_raise_and_no_split_matters(wire: bytes) -> None:
    whole, behind = read(*([wire] if wire else []), eof=True)
    receiver = ProxyReceiver()
    read_so_far = 0
    for place in range(len(wire)):
        receiver.receive_data(wire[place : place + 1])
        read_so_far += 1
        if receiver.next_event() is not NEED_DATA:
            break
    receiver.receive_eof()
    event = receiver.next_event()
    assert event == whole or (isinstance(event, ProxyRefused) and isinstance(whole, ProxyRefused))
    if isinstance(event, ProxyHeader):
        assert receiver.trailing_data() + wire[read_so_far:] == behind


@pytest.mark.parametrize(
    ("wire", "header"),
    [
        (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", CLIENT_V4),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
         ProxyHeader(1, HIGHEST, HIGHEST, Family.INET)),
        (LONGEST, ProxyHeader(1, HIGHEST6, HIGHEST6, Family.INET6)),
        (b"PROXY UNKNOWN\r\n", ProxyHeader(1)),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", ProxyHeader(1)),
        (v2(0x20, 0x00, b""), ProxyHeader(2, local=True)),
        (v2(0x20, 0xFF, b"whatever"), ProxyHeader(2, local=True)),
        (v2(0x21, 0x11, bytes([192, 0, 2, 1, 192, 0, 2, 2, 0xDC, 4, 0, 25])),
         ProxyHeader(2, ProxyAddress("192.0.2.1", 56324), ProxyAddress("192.0.2.2", 25), Family.INET)),
        (v2(0x21, 0x00, b"\x04\0\x02\0\0"), ProxyHeader(2, transport=Transport.UNKNOWN, tlvs=((4, b"\0\0"),))),
    ],
)  # fmt: skip
def test_examples(wire: bytes, header: ProxyHeader) -> None:
    assert read(wire + b"EHLO", b" x\r\n") == (header, b"EHLO x\r\n") or read(wire) == (header, b"")
    assert read(*(wire[place : place + 1] for place in range(len(wire)))) == (header, b"")
    assert read(header.encode()) == (header, b"")


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"EHLO client.example\r\n", "no PROXY header"),
        (b"\r\n\r\n\0\r\nQUIX\n", "no PROXY header"),
        (b"proxy TCP4", "no PROXY header"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\n" + b"x" * MAX_V1_LINE, "a header of version 1 has 107 bytes at most"),
        (b"PROXY \r\n", FORM),
        (b"PROXY TCP5 1.2.3.4 1.2.3.5 1 2\r\n", FORM),
        (b"PROXY TCP4 1.2.3.4  1.2.3.5 1 2\r\n", FORM),
        (b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2 \r\n", FORM),
        (b"PROXY TCP4 1.2.3.04 1.2.3.5 1 2\r\n", "an address is none of its family"),
        (b"PROXY TCP4 ::1 1.2.3.5 1 2\r\n", "an address is none of its family"),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "an address is none of its family"),
        (b"PROXY TCP6 1.2.3.4 1.2.3.5 1 2\r\n", "an address is none of its family"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.5 01 2\r\n", "a port is a number of at most 65535"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.5 +1 2\r\n", "a port is a number of at most 65535"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.5 65536 2\r\n", "a port is a number of at most 65535"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.5 \xd9\xa1 2\r\n", "a header of version 1 is ASCII"),
        (v2(0x11, 0x11, bytes(12)), "the version is not 2, or the command unknown"),
        (v2(0x22, 0x11, bytes(12)), "the version is not 2, or the command unknown"),
        (v2(0x21, 0x41, bytes(12)), "an unknown family or transport"),
        (v2(0x21, 0x13, bytes(12)), "an unknown family or transport"),
        (v2(0x21, 0x11, bytes(11)), "a header too short for its addresses"),
        (v2(0x21, 0x21, bytes(35)), "a header too short for its addresses"),
        (v2(0x21, 0x31, bytes(215)), "a header too short for its addresses"),
        (v2(0x21, 0x11, bytes(12) + b"\x04\0\x05abcd"), "a TLV is longer than the header"),
        (v2(0x21, 0x11, bytes(12) + b"\x04\0"), "a TLV is longer than the header"),
        (v2(0x21, 0x11, bytes(12) + b"\x03\0\x04abcd"), "the checksum is wrong"),
        (v2(0x21, 0x11, bytes(12) + b"\x03\0\x01a"), "the checksum is wrong"),
        (v2(0x21, 0x11, b"", 65535), "a header of 65551 bytes: 4096 at most"),
    ],
)  # fmt: skip
def test_what_is_no_header(wire: bytes, reason: str) -> None:
    assert read(wire) == (ProxyRefused(reason), b"")
    event, _ = read(*(wire[place : place + 1] for place in range(len(wire))))
    assert isinstance(event, ProxyRefused)


@pytest.mark.parametrize("wire", [CLIENT_V4.encode(), replace(CLIENT_V4, version=2).encode()])
def test_an_end_in_the_header(wire: bytes) -> None:
    for end in range(len(wire)):
        assert read(*([wire[:end]] if end else []), eof=True)[0] == ProxyRefused(
            "the connection ended in the header"
        )


def test_the_checksum_that_others_compute() -> None:
    """RFC 3720, appendix B.4: the CRC-32C of 32 zeros is AA 36 91 8A (in the order of the wire there)."""
    from mailfront_proto import proxy

    assert proxy._crc32c(bytes(32)) == 0x8A9136AA
    assert proxy._crc32c(b"123456789") == 0xE3069283
    zero = v2(0x21, 0x11, bytes(12) + b"\x04\0\x01x" + b"\x03\0\x04" + bytes(4))
    right = zero[:-4] + proxy._crc32c(zero).to_bytes(4, "big")
    event, behind = read(right + b"behind")
    assert isinstance(event, ProxyHeader)
    assert event.tlvs == ((4, b"x"), (3, right[-4:]))
    assert behind == b"behind"
    for place in range(16, len(right) - 7):  # all in front of the checksum's own TLV
        damaged = right[:place] + bytes([right[place] ^ 1]) + right[place + 1 :]
        assert isinstance(read(damaged)[0], ProxyRefused), place


@pytest.mark.parametrize(
    "header",
    [
        ProxyHeader(3),
        ProxyHeader(1, ProxyAddress("/run/a"), ProxyAddress("/run/b"), Family.UNIX),
        replace(CLIENT_V4, tlvs=((4, b""),)),
        replace(CLIENT_V4, transport=Transport.DATAGRAM),
        replace(CLIENT_V4, family=Family.INET6),
        replace(CLIENT_V4, version=2, family=Family.UNKNOWN),
        replace(CLIENT_V4, version=2, destination=None),
        replace(CLIENT_V4, version=2, source=ProxyAddress("192.0.2.1", 65536)),
        replace(CLIENT_V4, version=2, source=ProxyAddress("192.0.2.1\r\nEHLO", 1)),
        replace(CLIENT_V4, source=ProxyAddress("192.0.2.1\r\nEHLO", 1)),
        replace(CLIENT_V4, version=2, tlvs=((3, b"1234"),)),
        replace(CLIENT_V4, version=2, tlvs=((256, b""),)),
        replace(CLIENT_V4, version=2, tlvs=((1, bytes(40000)), (1, bytes(40000)))),
        ProxyHeader(2, ProxyAddress("/" + "x" * 108), ProxyAddress("/"), Family.UNIX),
    ],
)
def test_what_cannot_be_said(header: ProxyHeader) -> None:
    with pytest.raises(LocalProtocolError):
        header.encode()


def test_misuse() -> None:
    receiver = ProxyReceiver()
    with pytest.raises(LocalProtocolError, match="receive_eof"):
        receiver.receive_data(b"")
    with pytest.raises(LocalProtocolError, match="next_event"):
        receiver.trailing_data()
    with pytest.raises(LocalProtocolError, match="232"):
        ProxyReceiver(max_header=100)
