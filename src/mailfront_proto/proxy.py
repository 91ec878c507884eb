r"""The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt), both roles.

A proxy in front of a server says first of all, once, whose connection it hands on::

    receiver = ProxyReceiver()
    receiver.receive_data(sock.recv(4096))
    match receiver.next_event():
        case ProxyHeader(source=source): ...       # receiver.trailing_data() belongs to the next owner: TLS, or SMTP
        case ProxyRefused(reason=reason): ...      # close the connection, without a word

Whoever may connect may say anything, so only listed peers are believed; that is the caller's part. What is no header
in its exact form is refused at its first wrong byte, never guessed at, and nothing but the header is read.
"""

from enum import Enum
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.pull import NEED_DATA, Event, NeedData
from mailfront_proto.record import record

MAX_V1_LINE: Final = 107
"""Bytes of a header of version 1, CRLF included: what the longest one has."""

MAX_V2_HEADER: Final = 4096
"""Bytes of a header of version 2 that a receiver takes by default. 232 is the least that one must take; certificates
in TLVs are what needs more."""

_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = 16  # signature, version and command, family and transport, length
_CRC32C: Final = 0x03  # the type of the TLV that holds a checksum of the whole header


class Family(Enum):
    """The kind of the addresses; the value is that of version 2."""

    UNKNOWN = 0
    INET = 1
    INET6 = 2
    UNIX = 3


class Transport(Enum):
    """What carries the connection; the value is that of version 2. Version 1 knows streams alone."""

    UNKNOWN = 0
    STREAM = 1
    DATAGRAM = 2


_BLOCK: Final = {Family.UNKNOWN: 0, Family.INET: 12, Family.INET6: 36, Family.UNIX: 216}


@record(frozen=True)
class ProxyAddress:
    """One end of a connection. `host`: an IP address as text in its shortest form, or the path of a unix socket.
    `port`: 0 to 65,535; 0 for a unix socket."""

    host: str
    port: int = 0


@record(frozen=True)
class ProxyHeader(Event):
    """What a proxy says about a connection. `source` is the client, `destination` what it has connected to.

    `local`: the proxy speaks for itself (a health check): the connection's own addresses count, and the rest of the
    header is thrown away. They count, too, when `source` is None: the proxy does not know. `tlvs`: type and value of
    what version 2 adds, in order, whatever they are; a checksum among them has been found right.
    """

    version: int
    source: ProxyAddress | None = None
    destination: ProxyAddress | None = None
    family: Family = Family.UNKNOWN
    transport: Transport = Transport.STREAM
    local: bool = False
    tlvs: tuple[tuple[int, bytes], ...] = ()

    def encode(self) -> bytes:
        """The bytes to send first of all. Raises `LocalProtocolError` for what the version cannot say."""
        return _encode_v1(self) if self.version == 1 else _encode_v2(self)


@record(frozen=True)
class ProxyRefused(Event):
    """What came is no PROXY header. Close the connection. Returned ever after. `reason`: fit for a log."""

    reason: str


class _BadHeader(ValueError):
    """The bytes are no PROXY header: one phrase."""


class ProxyReceiver:
    """Reads the header of one connection. `max_header`: bytes that one of version 2 may have, all in all.

    Like a server machine it never raises because of its peer. Feed it with ``receive_data()``, ask ``next_event()``.
    """

    __slots__ = ("_data", "_eof", "_event", "_max_header")

    def __init__(self, *, max_header: int = MAX_V2_HEADER) -> None:
        if max_header < 232:
            raise LocalProtocolError(f"max_header is {max_header}: a receiver must take 232 bytes at least")
        self._data = b""
        self._eof = False
        self._max_header = max_header
        self._event: ProxyHeader | ProxyRefused | None = None

    def receive_data(self, data: bytes) -> None:
        """Store bytes from the peer. Call `next_event` next."""
        if not data:
            raise LocalProtocolError('receive_data(b""): call receive_eof() when the peer has closed')
        self._data += data

    def receive_eof(self) -> None:
        """The peer will send nothing more."""
        self._eof = True

    def next_event(self) -> ProxyHeader | ProxyRefused | NeedData:
        """The header, or that there is none, and the same ever after; `NEED_DATA` before."""
        if self._event is None:
            try:
                self._event = self._read()
            except _BadHeader as error:
                self._event = ProxyRefused(str(error))
            else:
                if self._event is None and self._eof:
                    self._event = ProxyRefused("the connection ended in the header")
        return self._event or NEED_DATA

    def trailing_data(self) -> bytes:
        """What came behind the header: the first bytes of what it introduces. They are handed out once."""
        if not isinstance(self._event, ProxyHeader):
            raise LocalProtocolError("trailing_data(): there is no header yet: call next_event() until it is returned")
        data, self._data = self._data, b""
        return data

    def _read(self) -> ProxyHeader | None:
        data = self._data
        if data[:6] == _V1[: len(data)]:
            end = data.find(b"\r\n", 0, MAX_V1_LINE)
            if end >= 0:
                self._data = data[end + 2 :]
                return _parse_v1(data[:end])
            if len(data) >= MAX_V1_LINE:
                raise _BadHeader(f"a header of version 1 has {MAX_V1_LINE} bytes at most")
        elif data[:12] == _V2[: len(data)]:
            if len(data) >= _V2_FIXED:
                size = _V2_FIXED + int.from_bytes(data[14:16], "big")
                if size > self._max_header:
                    raise _BadHeader(f"a header of {size} bytes: {self._max_header} at most")
                if len(data) >= size:
                    self._data = data[size:]
                    return _parse_v2(data[:size])
        else:
            raise _BadHeader("no PROXY header")
        return None


# -- version 1 -------------------------------------------------------------------------------------------

_V1_FAMILIES: Final = {"TCP4": Family.INET, "TCP6": Family.INET6}


def _parse_v1(line: bytes) -> ProxyHeader:
    """`line` without its CRLF."""
    try:
        words = line.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise _BadHeader("a header of version 1 is ASCII") from None
    if words[1] == "UNKNOWN":
        return ProxyHeader(1)  # whatever else the line has is to be ignored
    if len(words) != 6 or words[1] not in _V1_FAMILIES:
        raise _BadHeader("a header of version 1 is PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT")
    family = _V1_FAMILIES[words[1]]
    source, destination = (
        ProxyAddress(_parse_host(family, host), _parse_port(port))
        for host, port in zip(words[2:4], words[4:], strict=True)
    )
    return ProxyHeader(1, source, destination, family)


def _parse_host(family: Family, text: str) -> str:
    try:
        if family is Family.INET:
            return str(IPv4Address(text))
        if "%" not in text:  # a zone means nothing on another host
            return str(IPv6Address(text))
    except AddressValueError:
        pass
    raise _BadHeader("an address is none of its family")


def _parse_port(text: str) -> int:
    if not (text.isdigit() and len(text) <= 5 and (text == "0" or text[0] != "0") and int(text) <= 65535):
        raise _BadHeader("a port is a number of at most 65535")
    return int(text)


def _encode_v1(header: ProxyHeader) -> bytes:
    if header.local or header.source is None or header.destination is None:
        return b"PROXY UNKNOWN\r\n"
    name = next((name for name, family in _V1_FAMILIES.items() if family is header.family), None)
    if name is None or header.transport is not Transport.STREAM or header.tlvs:
        raise LocalProtocolError("version 1 says no more than TCP addresses: set version=2")
    _packed(header)  # the addresses are of their family
    source, destination = header.source, header.destination
    return f"PROXY {name} {source.host} {destination.host} {source.port} {destination.port}\r\n".encode("ascii")


# -- version 2 -------------------------------------------------------------------------------------------


def _parse_v2(data: bytes) -> ProxyHeader:
    """`data`: a whole header, from its signature to the end of its TLVs."""
    if data[12] not in (0x20, 0x21):
        raise _BadHeader("the version is not 2, or the command unknown")
    if data[12] == 0x20:
        return ProxyHeader(2, local=True)  # whatever else the header has is to be thrown away
    try:
        family, transport = Family(data[13] >> 4), Transport(data[13] & 15)
    except ValueError:
        raise _BadHeader("an unknown family or transport") from None
    end = _V2_FIXED + _BLOCK[family]
    if len(data) < end:
        raise _BadHeader("a header too short for its addresses")
    source, destination = _unpack(family, data[_V2_FIXED:end])
    return ProxyHeader(2, source, destination, family, transport, tlvs=_parse_tlvs(data, end))


def _unpack(family: Family, block: bytes) -> tuple[ProxyAddress, ProxyAddress] | tuple[None, None]:
    if family is Family.UNKNOWN:
        return None, None
    if family is Family.UNIX:
        paths = (path.rstrip(b"\0").decode("utf-8", "surrogateescape") for path in (block[:108], block[108:]))
        return ProxyAddress(next(paths)), ProxyAddress(next(paths))
    kind, size = (IPv4Address, 4) if family is Family.INET else (IPv6Address, 16)
    source_port, destination_port = (int.from_bytes(block[-4:][n : n + 2], "big") for n in (0, 2))
    return (
        ProxyAddress(str(kind(block[:size])), source_port),
        ProxyAddress(str(kind(block[size : 2 * size])), destination_port),
    )


def _parse_tlvs(data: bytes, place: int) -> tuple[tuple[int, bytes], ...]:
    """Those that begin at `place` in `data`, a whole header."""
    found = []
    while place < len(data):
        start = place + 3
        end = start + int.from_bytes(data[place + 1 : start], "big")
        if start > len(data) or end > len(data):
            raise _BadHeader("a TLV is longer than the header")
        kind, value = data[place], data[start:end]
        if kind == _CRC32C and value != _crc32c(data[:start] + bytes(4) + data[end:]).to_bytes(4, "big"):
            raise _BadHeader("the checksum is wrong")
        found.append((kind, value))
        place = end
    return tuple(found)


def _encode_v2(header: ProxyHeader) -> bytes:
    if header.version != 2:
        raise LocalProtocolError(f"there is no version {header.version}: 1 or 2")
    if header.local:
        return _V2 + b"\x20\0\0\0"
    block = _packed(header)
    if any(not 0 <= kind <= 255 or kind == _CRC32C or len(value) > 65535 for kind, value in header.tlvs):
        raise LocalProtocolError("a TLV has a type of 0 to 255, 65,535 bytes at most, and is not the checksum (3)")
    tlvs = b"".join(bytes([kind]) + len(value).to_bytes(2, "big") + value for kind, value in header.tlvs)
    if len(block) + len(tlvs) > 65535:
        raise LocalProtocolError(f"the addresses and TLVs have {len(block) + len(tlvs)} bytes: 65,535 at most")
    head = bytes([0x21, header.family.value << 4 | header.transport.value])
    return _V2 + head + (len(block) + len(tlvs)).to_bytes(2, "big") + block + tlvs


def _packed(header: ProxyHeader) -> bytes:
    """The address block of version 2."""
    source, destination, family = header.source, header.destination, header.family
    if family is Family.UNKNOWN and source is destination is None:
        return b""
    if source is None or destination is None or family is Family.UNKNOWN:
        raise LocalProtocolError("both source and destination are known, or neither, and the family says of which kind")
    if family is Family.UNIX:
        paths = [end.host.encode("utf-8", "surrogateescape") for end in (source, destination)]
        if max(map(len, paths)) > 108:
            raise LocalProtocolError("the path of a unix socket has 108 bytes at most")
        return b"".join(path.ljust(108, b"\0") for path in paths)
    try:
        if family is Family.INET:
            hosts = IPv4Address(source.host).packed + IPv4Address(destination.host).packed
        else:
            hosts = IPv6Address(source.host).packed + IPv6Address(destination.host).packed
        return hosts + source.port.to_bytes(2, "big") + destination.port.to_bytes(2, "big")
    except (AddressValueError, OverflowError) as error:
        raise LocalProtocolError(f"no addresses and ports of the family {family.name}: {error}") from None


def _crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), bit by bit: a header is short, and few carry one."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
