"""The application protocols that a TLS client asks for (ALPN, RFC 7301), read off its ClientHello.

A server must end a handshake in which the client names protocols of which it speaks none (section 3.2); that
keeps a browser that was made to talk to a mail server from being answered (the ALPACA attack). TLS libraries
that go on instead need this look beforehand. Nothing else of the handshake is judged here.
"""

import struct

MAX_CLIENT_HELLO = 65536
"""Bytes looked at before giving up: key shares of post-quantum groups make a ClientHello a few kilobytes."""

_HANDSHAKE = 22  # RFC 8446 section 5.1, ContentType
_CLIENT_HELLO = 1  # section 4, HandshakeType
_ALPN = 16  # RFC 7301 section 3.1, ExtensionType

NO_APPLICATION_PROTOCOL = bytes((21, 3, 3, 0, 2, 2, 120))
"""The fatal alert that says so (RFC 7301 section 3.2), as a plain TLS record."""


def offered_protocols(data: bytes) -> list[bytes] | None:
    """The protocol names that the ClientHello at the start of `data` offers, in the client's order.

    None: more bytes are needed. An empty list: it offers none, or is no ClientHello that makes sense (which
    the TLS library will say in its own way). `data` is not kept.
    """
    try:
        hello = _client_hello(data)
        return None if hello is None else _protocols(hello)
    except (IndexError, struct.error):
        return []


def _client_hello(data: bytes) -> bytes | None:
    """The ClientHello's body, put together from its records; None when it is not complete."""
    body = bytearray()
    position = 0
    while True:
        if len(data) - position < 5:
            return None if len(data) < MAX_CLIENT_HELLO else b""
        if data[position] != _HANDSHAKE:
            return b""
        (length,) = struct.unpack_from(">H", data, position + 3)
        body += data[position + 5 : position + 5 + length]
        position += 5 + length
        if len(body) >= 4:
            if body[0] != _CLIENT_HELLO:
                return b""
            size = int.from_bytes(body[1:4], "big")
            if len(body) >= 4 + size:
                return bytes(body[4 : 4 + size])
            if size > MAX_CLIENT_HELLO:
                return b""
        if position > len(data):
            return None if len(data) < MAX_CLIENT_HELLO else b""


def _protocols(hello: bytes) -> list[bytes]:
    """Walk to the ALPN extension (RFC 8446 section 4.1.2) and read its list."""
    position = 2 + 32  # legacy_version, random
    position += 1 + hello[position]  # legacy_session_id
    (length,) = struct.unpack_from(">H", hello, position)
    position += 2 + length  # cipher_suites
    position += 1 + hello[position]  # legacy_compression_methods
    position += 2  # the length of the extensions, which end where the message does
    while position + 4 <= len(hello):
        kind, length = struct.unpack_from(">HH", hello, position)
        position += 4
        if kind == _ALPN:
            return _names(hello[position + 2 : position + length])
        position += length
    return []


def _names(data: bytes) -> list[bytes]:
    names = []
    position = 0
    while position < len(data):
        length = data[position]
        names.append(data[position + 1 : position + 1 + length])
        position += 1 + length
    return names
