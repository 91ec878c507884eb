"""Harness: the dot decoder against the reference that goes byte by byte.

The first byte chooses the policy and the form, the second how the rest is cut; the rest is what follows DATA.
"""

from fuzz.oracles import MAX_WIRE, cut
from mailfront_proto.smtp.body import DotDecoder
from mailfront_proto.smtp.profile import LineEnds
from tests.proto.dot_reference import decode

POLICIES = tuple(LineEnds)
END = b"\r\n.\r\n"


def check(data: bytes) -> None:
    """Decode in pieces, and compare."""
    if len(data) < 2 or len(data) > MAX_WIRE:
        return
    policy = POLICIES[data[0] % 3]
    lf = bool(data[0] & 128)
    # Without an end some of it would be held back, rightly.
    wire = data[2:] + END
    expected = decode(wire, policy)
    assert expected.consumed is not None
    (pieces,) = cut(wire, data[1])
    decoder = DotDecoder(policy, lf)
    content = b""
    fed = 0
    for piece in pieces:
        refused = policy is LineEnds.REJECT and decoder.has_bare_line_ends
        decoded, rest = decoder.feed(piece)
        fed += len(piece)
        assert len(decoder._held) <= 6
        content += b"" if refused else decoded
        if rest is not None:
            assert fed - len(rest) == expected.consumed
            break
    else:
        raise AssertionError("no end was found")
    assert content == (expected.content.replace(b"\r\n", b"\n") if lf else expected.content)
    assert decoder.has_bare_line_ends == expected.bare
