"""Message framing in DATA: the decoder against a reference that goes byte by byte, exhaustively over the four
bytes that matter, under every policy and every split."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.smtp.body import ChunkDecoder, DotDecoder
from mailfront_proto.smtp.body_encoder import DotEncoder
from mailfront_proto.smtp.profile import LineEnds
from tests.proto.dot_reference import decode

POLICIES = list(LineEnds)
END = b"\r\n.\r\n"


def run(pieces: list[bytes], policy: LineEnds, lf: bool = False) -> tuple[bytes, bytes | None, bool]:
    """(content, what follows the end, bare line ends seen) of a decoder that is fed `pieces`."""
    decoder = DotDecoder(policy, lf)
    content = b""
    for number, piece in enumerate(pieces):
        if policy is LineEnds.REJECT and decoder.has_bare_line_ends:
            # The machine has refused the message by now and only looks for the end.
            _, rest = decoder.feed(piece)
        else:
            decoded, rest = decoder.feed(piece)
            content += decoded
            # REJECT stops counting where it stops handing on; both say where the refusal was.
            assert decoder.size == len(content) + (content.count(b"\n") if lf else 0)
        if rest is not None:
            return content, rest + b"".join(pieces[number + 1 :]), decoder.has_bare_line_ends
    return content, None, decoder.has_bare_line_ends


def every_cutting(data: bytes) -> list[list[bytes]]:
    """All 2 ** (n - 1) of them."""
    found = []
    for cuts in range(1 << (len(data) - 1) if data else 0):
        pieces, start = [], 0
        for at in range(1, len(data)):
            if cuts >> (at - 1) & 1:
                pieces.append(data[start:at])
                start = at
        found.append([*pieces, data[start:]])
    return found or [[]]


@pytest.mark.parametrize("lf", [False, True], ids=["crlf", "lf"])
@pytest.mark.parametrize("policy", POLICIES, ids=[p.value for p in POLICIES])
@pytest.mark.parametrize("length", range(7))
def test_every_message_of_up_to_six_bytes_in_every_cutting(policy: LineEnds, length: int, lf: bool) -> None:
    # Without an end of their own the bytes are held in part; the end behind them shows all of them. It is
    # in a piece of its own, except in the byte-by-byte cutting.
    for letters in itertools.product((b"\r", b"\n", b".", b"x"), repeat=length):
        data = b"".join(letters)
        with_end = data + END
        expected = decode(with_end, policy)
        assert expected.consumed is not None
        rest = with_end[expected.consumed :]
        content = expected.content.replace(b"\r\n", b"\n") if lf else expected.content
        wanted = content, rest, expected.bare
        for pieces in every_cutting(data):
            assert run([*pieces, END], policy, lf) == wanted, (data, pieces)
        assert run([with_end], policy, lf) == wanted, data
        assert run([bytes([b]) for b in with_end], policy, lf) == wanted, data


@pytest.mark.parametrize("policy", POLICIES, ids=[p.value for p in POLICIES])
def test_the_shortest_cut_is_never_late(policy: LineEnds) -> None:
    """The end is found with its last byte, not only when more follows."""
    for length in range(6):
        for letters in itertools.product((b"\r", b"\n", b".", b"x"), repeat=length):
            data = b"".join(letters)
            expected = decode(data, policy)
            content, rest, _ = run([data] if data else [], policy)
            if expected.consumed is None:
                assert rest is None, data
                # What is held back is at most what could begin an end.
                assert expected.content.startswith(content), data
                assert len(expected.content) - len(content) <= 5, data
            else:
                assert (content, rest) == (expected.content, data[expected.consumed :]), data


WORDS = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b".", b"\r\n.", b"\n.", b"\r\n.\r\n", b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"x", b"\0"]
)


@given(st.lists(WORDS, max_size=24), st.randoms(use_true_random=False), st.sampled_from(POLICIES), st.booleans())
def test_longer_messages_against_the_reference(
    words: list[bytes], dice: random.Random, policy: LineEnds, lf: bool
) -> None:
    data = b"".join(words) + END + b"NOOP\r\n"
    expected = decode(data, policy)
    assert expected.consumed is not None
    cuts = sorted(dice.sample(range(len(data) + 1), min(len(data), dice.randint(0, 6))))
    pieces = [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)]) if a < b]
    content = expected.content.replace(b"\r\n", b"\n") if lf else expected.content
    assert run(pieces, policy, lf) == (content, data[expected.consumed :], expected.bare)


@pytest.mark.parametrize("policy", POLICIES, ids=[p.value for p in POLICIES])
def test_no_slice_ends_between_cr_and_lf(policy: LineEnds) -> None:
    data = b"a\r\nb\r\n\r\n..c\r\n.d\r\n" + END
    for at in range(1, len(data)):
        decoder = DotDecoder(policy)
        first, _ = decoder.feed(data[:at])
        second, _ = decoder.feed(data[at:])
        assert not (first.endswith(b"\r") and second.startswith(b"\n")), at


@pytest.mark.parametrize("policy", [LineEnds.NORMALIZE, LineEnds.REJECT], ids=["normalize", "reject"])
@pytest.mark.parametrize(
    "smuggled",
    [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\n", b"\r\n.\r", b"\r\n.\0\r\n", b"\r\n.\r\r\n", b"\n\r.\n"],
    ids=repr,
)
def test_only_crlf_dot_crlf_ends_data(policy: LineEnds, smuggled: bytes) -> None:
    data = b"first" + smuggled + b"MAIL FROM:<evil@example.net>" + END
    for at in range(1, len(data)):
        _, rest, _ = run([data[:at], data[at:]], policy)
        assert rest == b"", at


def test_what_is_held_back_is_bounded() -> None:
    for policy in POLICIES:
        for data in (b"\r" * 5000, b"\n" * 5000, b"." * 5000, b"\n\r" * 2500, b"\r\n." * 2000, b"\n\r." * 2000):
            decoder = DotDecoder(policy)
            for byte in data:
                decoder.feed(bytes([byte]))
                assert len(decoder._held) <= 6


@pytest.mark.parametrize("policy", POLICIES, ids=[p.value for p in POLICIES])
@given(message=st.lists(st.sampled_from([b".", b"..", b"x", b"", b".x", b"\xff"]), max_size=20))
def test_what_the_encoder_writes_comes_back(policy: LineEnds, message: list[bytes]) -> None:
    data = b"".join(line + b"\r\n" for line in message)
    encoder = DotEncoder()
    wire = encoder.feed(data) + encoder.finish()
    content, rest, bare = run([wire], policy)
    assert (content, rest, bare) == (data, b"", False)


# -- chunks of BDAT --------------------------------------------------------------------------------------


def run_chunks(pieces: list[bytes], policy: LineEnds, lf: bool, binary: bool = False) -> tuple[bytes, bool, int]:
    """(content, bare line ends seen, size) of a `ChunkDecoder`. What follows a refusal does not count."""
    decoder = ChunkDecoder(policy, lf, binary)
    content = b""
    for piece in [*pieces, None]:
        if policy is LineEnds.REJECT and decoder.has_bare_line_ends:
            break
        decoded = decoder.finish() if piece is None else decoder.feed(piece)
        if not lf:
            assert not (content.endswith(b"\r") and decoded.startswith(b"\n")), "a slice ends inside a CRLF"
        content += decoded
    return content, decoder.has_bare_line_ends, decoder.size


def chunks_reference(data: bytes, policy: LineEnds) -> tuple[bytes, bool]:
    """What `data` means, in wire form, byte by byte."""
    content = b""
    bare = False
    position = 0
    while position < len(data):
        byte = data[position : position + 1]
        if data.startswith(b"\r\n", position):
            content += b"\r\n"
            position += 2
            continue
        if byte in (b"\r", b"\n"):
            bare = True
            if policy is LineEnds.REJECT:
                return content, bare
            if byte == b"\n":
                content += b"\r\n"
            else:
                content += b" " if policy is LineEnds.NORMALIZE else b"\r"
        else:
            content += byte
        position += 1
    return content, bare


@pytest.mark.parametrize("policy", POLICIES)
def test_chunks_against_the_reference_in_every_cutting(policy: LineEnds) -> None:
    for length in range(6):
        for letters in itertools.product(b"\r\n.a", repeat=length):
            data = bytes(letters)
            content, bare = chunks_reference(data, policy)
            for pieces in every_cutting(data):
                assert run_chunks(pieces, policy, False)[:2] == (content, bare), pieces
                got = run_chunks(pieces, policy, True)
                if policy is not LineEnds.ACCEPT:
                    assert got[:2] == (content.replace(b"\r\n", b"\n"), bare), pieces
                assert run_chunks(pieces, policy, True, binary=True) == (data, False, len(data))


@given(st.lists(st.binary(max_size=20), max_size=8), st.sampled_from(POLICIES), st.booleans())
def test_random_chunks(pieces: list[bytes], policy: LineEnds, lf: bool) -> None:
    whole = run_chunks([b"".join(pieces)], policy, lf)
    content, bare, size = run_chunks(pieces, policy, lf)
    assert (content, bare) == whole[:2]
    if not bare:
        assert size == whole[2] == len(b"".join(pieces))


@pytest.mark.parametrize("lf", [False, True])
def test_the_size_of_chunks_is_counted_as_on_the_wire(lf: bool) -> None:
    assert run_chunks([b"a\r\n", b"b\r", b"\nc"], LineEnds.NORMALIZE, lf)[2] == 7
    assert run_chunks([b"a\nb\rc"], LineEnds.NORMALIZE, lf)[2] == 6
