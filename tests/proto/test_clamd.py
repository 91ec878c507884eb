"""The clamd codec: what goes over the wire, under every split, both roles against each other, hostile answers."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.clamd import (
    MAX_REPLY,
    Body,
    ClamdClient,
    ClamdServer,
    ConnectionClosed,
    Pong,
    Scanned,
    StreamEnd,
    Verdict,
)
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.pull import NEED_DATA, PAUSED
from mailfront_proto.testing import (
    Outcome,
    Pair,
    Player,
    Raised,
    accept,
    assert_chunk_invariant,
    assert_linear,
    assert_memory_bounded,
    assert_output_bounded,
    assert_total,
    ignore,
    random_sizes,
    strategies,
)

STREAM = b"zINSTREAM\0" + b"\0\0\0\x05hello" + bytes(4)


def scanning(pieces: Sequence[bytes] = (b"hello",), **options: Any) -> Player[ClamdClient]:
    """A client whose stream has gone out."""
    client = ClamdClient(**options)
    client.scan()
    for piece in pieces:
        client.send_body(piece)
    client.end_of_body()
    return Player(client, ignore, raises=RemoteProtocolError)


def answered(*answers: bytes, **options: Any) -> Outcome:
    """What an answer leads to, in every cutting."""
    return assert_chunk_invariant(lambda: scanning(**options), [b"".join(answers)])


# -- the wire ----------------------------------------------------------------------------------------------


def test_a_scan_goes_out_in_chunks() -> None:
    assert b"".join(scanning().play([], eof=False).writes) == STREAM
    client = scanning([b"one", b"", b"x" * 70_000], newline=True).machine
    assert client.data_to_send() == b"nINSTREAM\n\0\0\0\x03one\0\x01\x11\x70" + b"x" * 70_000 + bytes(4)


def test_the_newline_form_is_what_the_original_sends() -> None:
    """As it was seen on the wire from its clamav plugin, for this message."""
    message = b"Subject: x\n\nhello\ndot\n"
    client = scanning([message], newline=True).machine
    assert client.data_to_send() == b"nINSTREAM\n\x00\x00\x00\x16Subject: x\n\nhello\ndot\n\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("answer", "verdict", "signature"),
    [
        (b"stream: OK", Verdict.CLEAN, ""),
        (b"stream: Eicar-Test-Signature FOUND", Verdict.FOUND, "Eicar-Test-Signature"),
        (b"stream: Odd Name(abc:12) FOUND", Verdict.FOUND, "Odd Name(abc:12)"),
        (b"stream: OK FOUND", Verdict.FOUND, "OK"),
        (b"stream: N\xc3\xa4me FOUND", Verdict.FOUND, "Näme"),
        (b"stream: \xff FOUND", Verdict.FOUND, "\\xff"),
        (b"INSTREAM size limit exceeded. ERROR", Verdict.ERROR, ""),
        (b"stream: Can't allocate memory ERROR", Verdict.ERROR, ""),
    ],
)
def test_answers(answer: bytes, verdict: Verdict, signature: str) -> None:
    for end, options in ((b"\0", {}), (b"\n", {"newline": True}), (b"\r\n", {"newline": True})):
        scanned, closed = answered(answer, end, **options).events
        assert scanned == Scanned(verdict, answer.decode("utf-8", "backslashreplace"))
        assert scanned.signature == signature
        assert closed == ConnectionClosed("done")
    scanned, closed = answered(b"1: ", answer, b"\0", session=True).events
    assert (scanned.verdict, scanned.signature, closed) == (verdict, signature, ConnectionClosed("EOF"))


def test_a_session_has_numbers() -> None:
    client = ClamdClient(session=True)
    client.ping()
    assert client.data_to_send() == b"zIDSESSION\0zPING\0"
    client.receive_data(b"1: PONG\0")
    assert client.next_event() == Pong()
    assert client.next_event() is PAUSED
    client.scan()
    client.end_of_body()
    assert client.data_to_send() == b"zINSTREAM\0" + bytes(4)
    client.receive_data(b"2: stream: OK\0")
    assert client.next_event() == Scanned(Verdict.CLEAN, "stream: OK")
    client.end_session()
    assert client.data_to_send() == b"zEND\0"
    client.receive_eof()
    assert client.next_event() == ConnectionClosed("EOF")


# -- H65: hostile answers ------------------------------------------------------------------------------------

NO_VERDICTS = [
    b"", b"OK", b"stream:", b"stream: ", b"stream:OK", b"stream: ok", b"Stream: OK", b"stream: OK ", b" stream: OK",
    b"stream: FOUND", b"stream:  FOUND", b"Eicar FOUND", b"stream: EicarFOUND", b"stream: x found", b"PONG", b"OK\0",
    b"stream: x\r\nX-Spam: no FOUND", b"stream: \x1b[2J FOUND", b"stream: a\nb FOUND", b"stream: \x7f FOUND",
    b"stream: x\ty FOUND", b"1: stream: OK", b"UNKNOWN COMMAND", b"COMMAND READ TIMED OUT", b"ERROR",
    b"stream: OK\nstream: x FOUND",
]  # fmt: skip


@pytest.mark.parametrize("answer", NO_VERDICTS)
def test_h65_what_is_no_verdict_exactly_is_none(answer: bytes) -> None:
    raised, closed = answered(answer, b"\0").events
    assert isinstance(raised, Raised) and raised.kind is RemoteProtocolError and raised.text.isprintable()
    assert isinstance(closed, ConnectionClosed) and not closed.answered


@pytest.mark.parametrize("number", [b"", b"0: ", b"2: ", b"-1: ", b"01: x: ", b"1:", b"\xd9\xa1: ", b"99999999999: "])
def test_h65_a_verdict_of_another_scan_is_none(number: bytes) -> None:
    kinds = answered(number, b"stream: OK\0", session=True).kinds()
    assert kinds == ["Raised", "ConnectionClosed"]


def test_h65_a_verdict_that_was_cut_off_is_none() -> None:
    """``stream: OK`` may be the beginning of ``stream: OK-Dropper FOUND``."""
    for answer in (b"", b"s", b"stream: OK", b"stream: x FOUND"):
        assert answered(answer).events == [ConnectionClosed("EOF", answered=False)]


def test_h65_only_the_first_verdict_counts() -> None:
    assert answered(b"stream: x FOUND\0stream: OK\0").kinds() == ["Scanned", "ConnectionClosed"]
    kinds = answered(b"1: stream: x FOUND\0001: stream: OK\0", session=True).kinds()
    assert kinds == ["Scanned", "Raised", "ConnectionClosed"]


@pytest.mark.parametrize("where", ["before the command", "in the stream", "before its end was said"])
def test_h65_a_verdict_before_the_stream_has_ended_is_none(where: str) -> None:
    client = ClamdClient()
    if where == "before the command":
        client.receive_data(b"stream: OK\0")
    client.scan()
    client.send_body(b"hello")
    if where == "in the stream":
        client.receive_data(b"stream: OK\0")
    elif where == "before its end was said":
        client.receive_data(b"stream: OK\0")
        client.end_of_body()
    with pytest.raises(RemoteProtocolError, match="before it was asked"):
        client.next_event()
    assert client.next_event() == ConnectionClosed("clamd gave an answer before it was asked", answered=False)


def test_h65_an_answer_to_nothing_is_an_error() -> None:
    client = ClamdClient(session=True)
    assert client.next_event() is PAUSED
    client.receive_data(b"1: stream: OK\0")
    with pytest.raises(RemoteProtocolError, match="what was not asked"):
        client.next_event()


def test_giving_up_in_the_middle_is_an_answer() -> None:
    client = ClamdClient()
    client.scan()
    client.send_body(b"hello")
    assert client.next_event() is PAUSED
    client.receive_data(b"INSTREAM size limit exceeded. ERROR\0")
    assert client.next_event() == Scanned(Verdict.ERROR, "INSTREAM size limit exceeded. ERROR")
    assert client.next_event() == ConnectionClosed("done")
    with pytest.raises(LocalProtocolError, match="no stream is open"):
        client.send_body(b"more")


def test_an_answer_without_end_is_bounded() -> None:
    assert answered(b"stream: " + b"x" * (MAX_REPLY - 9 - 6) + b" FOUND\0").kinds()[0] == "Scanned"
    assert answered(b"stream: " + b"x" * (MAX_REPLY - 8 - 6) + b" FOUND\0").kinds()[0] == "Raised"
    assert_memory_bounded(scanning, b"x", 4 * MAX_REPLY)
    assert_memory_bounded(scanning, b"x", 4 * MAX_REPLY, block=1, size=10_000)
    assert_linear(lambda: scanning(max_reply=10_000), b"x")


@given(strategies.hostile_bytes([b"stream: ", b"OK", b" FOUND", b" ERROR", b"\0", b"1: ", b"PONG"]), st.booleans())
def test_the_client_is_total(data: bytes, session: bool) -> None:
    assert_total(lambda: scanning(session=session), data)


# -- misuse --------------------------------------------------------------------------------------------------


def test_misuse_is_told_what_is_right() -> None:
    client = ClamdClient()
    misuse: list[tuple[Callable[[], object], str]] = [
        (lambda: client.send_body(b"x"), "call scan"),
        (client.end_of_body, "call scan"),
        (client.end_session, "an open session"),
        (lambda: client.receive_data(b""), "receive_eof"),
    ]
    for call, text in misuse:
        with pytest.raises(LocalProtocolError, match=text):
            call()
    client.scan()
    with pytest.raises(LocalProtocolError, match="INSTREAM is under way"):
        client.scan()
    client.end_of_body()
    client.receive_data(b"stream: OK\0")
    client.next_event()
    with pytest.raises(LocalProtocolError, match="open another"):
        client.ping()
    server = ClamdServer()
    for answer in (server.clean, lambda: server.found("x"), lambda: server.error("x")):
        with pytest.raises(LocalProtocolError, match="StreamEnd"):
            answer()
    for name in ("", "a\nb", "ä"):
        with pytest.raises(LocalProtocolError, match="printable ASCII"):
            server.found(name)


# -- the server role -----------------------------------------------------------------------------------------


def new_server() -> Player[ClamdServer]:
    return Player(ClamdServer(max_stream=1000), accept)


@pytest.mark.parametrize(
    ("wire", "output", "events"),
    [
        (STREAM, b"stream: OK\0", [Body(b"hello"), StreamEnd(), ConnectionClosed("done")]),
        (b"nPING\n", b"PONG\n", [ConnectionClosed("done")]),
        (b"zIDSESSION\0zPING\0zEND\0zPING\0", b"1: PONG\0", [ConnectionClosed("END")]),
        (b"nIDSESSION\n" + b"nINSTREAM\n\0\0\0\0" * 2, b"1: stream: OK\n2: stream: OK\n",
         [StreamEnd(), StreamEnd(), ConnectionClosed("EOF")]),
        (b"zNONSENSE\0", b"UNKNOWN COMMAND\0", [ConnectionClosed("unknown command")]),
        (b"PING\n", b"UNKNOWN COMMAND\0", [ConnectionClosed("unknown command")]),
        (b"z" * 64, b"UNKNOWN COMMAND\0", [ConnectionClosed("unknown command")]),
        (STREAM[:-3], b"", [Body(b"hello"), ConnectionClosed("EOF", answered=False)]),
        (b"zINSTREAM\0\0\0\3\xe9", b"INSTREAM size limit exceeded. ERROR\0", [ConnectionClosed("size limit exceeded")]),
        (b"zINSTREAM\0\xff\xff\xff\xff", b"INSTREAM size limit exceeded. ERROR\0",
         [ConnectionClosed("size limit exceeded")]),
    ],
)  # fmt: skip
def test_the_server_under_every_split(wire: bytes, output: bytes, events: list[object]) -> None:
    outcome = assert_chunk_invariant(new_server, [wire])
    assert (outcome.output, outcome.events) == (output, events)


@given(strategies.hostile_bytes([b"zINSTREAM\0", b"nPING\n", b"zIDSESSION\0", b"\0\0\0\x02", b"\0\0\0\0"]))
def test_the_server_is_total(data: bytes) -> None:
    assert_total(new_server, data)


def test_the_server_is_bounded() -> None:
    for pattern in (b"z", b"\0", STREAM, b"\n"):
        assert_memory_bounded(lambda: new_server().play([[b"zIDSESSION\0"]], eof=False), pattern, 2000)
    assert_memory_bounded(lambda: Player(ClamdServer(), accept).play([[b"zINSTREAM\0\7"]], eof=False), b"x", 2000)
    assert_output_bounded(lambda: Player(ClamdServer(), accept).play([[b"zIDSESSION\0"]], eof=False), b"zPING\0", 16)
    assert_linear(lambda: Player(ClamdServer(), accept).play([[b"zIDSESSION\0"]], eof=False), b"zPING\0")


# -- two peers -----------------------------------------------------------------------------------------------

streams = st.lists(st.binary(max_size=50), max_size=6)


scan_lists = st.lists(st.tuples(streams, st.sampled_from(Verdict)), min_size=1, max_size=4)


@given(scan_lists, st.booleans(), st.integers(0, 99))
def test_what_is_scanned_is_what_was_sent(scans: list[tuple[list[bytes], Verdict]], newline: bool, seed: int) -> None:
    seen = [b""]
    verdicts = iter([verdict for _, verdict in scans])

    def judge(server: ClamdServer, event: object) -> None:
        if isinstance(event, Body):
            seen[-1] += event.data
        elif isinstance(event, StreamEnd):
            seen.append(b"")
            match next(verdicts):
                case Verdict.CLEAN:
                    server.clean()
                case Verdict.FOUND:
                    server.found("Some.Thing-1")
                case Verdict.ERROR:
                    server.error("out of memory")

    client = ClamdClient(session=True, newline=newline)
    pair = Pair(Player(client, ignore), Player(ClamdServer(), judge), random_sizes(seed))
    for pieces, _ in scans:
        client.scan()
        for piece in pieces:
            client.send_body(piece)
        client.end_of_body()
        pair.settle()
    assert [event.verdict for event in pair.client.outcome.events] == [verdict for _, verdict in scans]
    assert seen[:-1] == [b"".join(pieces) for pieces, _ in scans]
    client.end_session()
    pair.settle()
    assert pair.client.ended and pair.server.ended


def test_the_server_waits_for_its_application() -> None:
    server = ClamdServer()
    server.receive_data(STREAM)
    assert [server.next_event(), server.next_event(), server.next_event()] == [Body(b"hello"), StreamEnd(), PAUSED]
    assert ClamdServer().next_event() is NEED_DATA
