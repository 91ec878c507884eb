"""The end of data and dot-unstuffing, one byte at a time: an independent reading of the specification, against
which `DotDecoder` is tested and fuzzed. It is slow, plain, and shares nothing with the decoder.
"""

from dataclasses import dataclass

from mailfront_proto.smtp.profile import LineEnds

CR, LF, DOT = b"\r", b"\n", b"."


@dataclass(frozen=True, slots=True)
class Decoded:
    """`content`: the message in wire form; for REJECT what stands before the first bare line end.
    `consumed`: bytes up to and with the end of data, None without one. `bare`: whether a CR or LF stood
    alone in the message."""

    content: bytes
    consumed: int | None
    bare: bool


def decode(data: bytes, policy: LineEnds) -> Decoded:
    """What `data`, everything behind the line of the DATA command, says."""
    return _accept(data) if policy is LineEnds.ACCEPT else _strict(data, policy)


def _accept(data: bytes) -> Decoded:
    # The original: lines end at LF, one CR in front of it is dropped; a dot is special while nothing of
    # its line is stored, which a pending CR does not change.
    content = bytearray()
    stored = 0
    cr = dot = bare = False
    for at in range(len(data)):
        byte = data[at : at + 1]
        if byte == LF:
            if dot and stored == 0:
                # The line end in front of the dot may have been bare; that of the dot does not count.
                return Decoded(bytes(content), at + 1, bare)
            bare = bare or not cr
            content += b"\r\n"
            stored, cr, dot = 0, False, False
        elif byte == CR:
            if cr:
                content += CR
                stored += 1
                bare = True
            cr = True
        elif byte == DOT and stored == 0 and not dot:
            dot = True
        else:
            if cr:
                content += CR
                stored += 1
                bare = True
                cr = False
            content += byte
            stored += 1
    return Decoded(bytes(content), None, bare)


def _strict(data: bytes, policy: LineEnds) -> Decoded:
    # Only CRLF . CRLF ends it, the first CRLF being that of the DATA command where nothing stands before.
    framed = b"\r\n" + data
    end = consumed = None
    for at in range(len(framed) - 4):
        if framed[at : at + 5] == b"\r\n.\r\n":
            end, consumed = at + 2, at + 3
            break
    content = bytearray()
    line_start = True
    bare = False
    message = framed[2 : len(framed) if end is None else end]
    at = 0
    while at < len(message):
        byte = message[at : at + 1]
        if byte == CR and message[at + 1 : at + 2] == LF:
            content += b"\r\n"
            line_start = True
            at += 2
            continue
        if byte in (CR, LF):
            bare = True
            if policy is LineEnds.REJECT:
                break
        if byte == LF:
            content += b"\r\n"
            line_start = True
        elif byte == CR:
            content += b" "
            line_start = False
        elif byte == DOT and line_start:
            line_start = False
        else:
            content += byte
            line_start = False
        at += 1
    return Decoded(bytes(content), consumed, bare)
