"""The spamd codec: what goes over the wire, under every split, both roles against each other, hostile answers."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.pull import PAUSED
from mailfront_proto.spamd import (
    MAX_HEADERS,
    MAX_LINE,
    METHODS,
    REPORT_ALLOWANCE,
    Body,
    ConnectionClosed,
    Method,
    Request,
    RequestEnd,
    Response,
    ResponseEnd,
    Spam,
    SpamdClient,
    SpamdServer,
    read_symbols,
)
from mailfront_proto.testing import (
    Outcome,
    Pair,
    Player,
    Raised,
    accept,
    assert_chunk_invariant,
    assert_linear,
    assert_memory_bounded,
    assert_total,
    ignore,
    random_sizes,
    strategies,
)

DONE = ConnectionClosed("done")


def asking(method: Method = "PROCESS", message: bytes = b"hello", **options: Any) -> Player[SpamdClient]:
    """A client whose request has gone out."""
    client = SpamdClient(**options)
    if method == "PING":
        client.ping()
    else:
        client.request(method, len(message))
        client.send_body(message)
        client.end_of_body()
    return Player(client, ignore, raises=RemoteProtocolError)


def answered(answer: bytes, method: Method = "PROCESS", message: bytes = b"hello") -> Outcome:
    """What an answer leads to, in every cutting."""
    return assert_chunk_invariant(lambda: asking(method, message), [answer])


# -- the wire ------------------------------------------------------------------------------------------------


def test_a_request_on_the_wire() -> None:
    client = SpamdClient()
    client.request("CHECK", 7, user="joe")
    client.send_body(b"Sub")
    client.send_body(b"")
    client.send_body(b"ject")
    client.end_of_body()
    assert client.data_to_send() == b"CHECK SPAMC/1.5\r\nContent-Length: 7\r\nUser: joe\r\n\r\nSubject"
    assert asking("PING").machine.data_to_send() == b"PING SPAMC/1.5\r\n\r\n"


def test_version_1_2_is_what_the_original_sends() -> None:
    """As it was seen on the wire from its spamassassin plugin, but for the length, which it got wrong."""
    message = b"Subject: x\n\nhello\ndot\n"
    client = SpamdClient("1.2")
    client.request("PROCESS", len(message), user="joe")
    client.send_body(message)
    client.end_of_body()
    assert client.data_to_send() == (
        b"PROCESS SPAMC/1.2\r\nContent-Length: 22\r\nUser: joe\r\n\r\nSubject: x\n\nhello\ndot\n"
    )


@pytest.mark.parametrize(
    ("method", "answer", "events"),
    [
        ("PROCESS", b"SPAMD/1.1 0 EX_OK\r\nContent-length: 11\r\nSpam: False ; 1.2 / 5.0\r\n\r\nX-Spam: no\n",
         [Response(0, "EX_OK", Spam(False, 1.2, 5.0), 11), Body(b"X-Spam: no\n"), ResponseEnd(), DONE]),
        ("PROCESS", b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\n\r\n",
         [Response(0, "EX_OK", None, 0), ResponseEnd(), DONE]),
        ("CHECK", b"SPAMD/1.5 0 EX_OK\r\nSpam: True ; 15 / 5\r\n\r\n",
         [Response(0, "EX_OK", Spam(True, 15.0, 5.0)), ResponseEnd(), DONE]),
        ("CHECK", b"SPAMD/1.1 0 EX_OK\nspam:yes ; -1.5 / 5.25\nX-Other: \xff\n\n",
         [Response(0, "EX_OK", Spam(True, -1.5, 5.25)), ResponseEnd(), DONE]),
        ("SYMBOLS", b"SPAMD/1.1 0 EX_OK\r\nContent-length: 5\r\nSpam: NO ; 0 / 5\r\n\r\nA,B_1",
         [Response(0, "EX_OK", Spam(False, 0.0, 5.0), 5), Body(b"A,B_1"), ResponseEnd(), DONE]),
        ("PING", b"SPAMD/1.5 0 PONG\r\n\r\n", [Response(0, "PONG"), ResponseEnd(), DONE]),
        ("PING", b"SPAMD/1.5 0 PONG\r\n", [Response(0, "PONG"), ResponseEnd(), DONE]),
        ("PROCESS", b"SPAMD/1.0 76 Bad header line\r\n", [Response(76, "Bad header line"), ResponseEnd(), DONE]),
        ("PROCESS", b"SPAMD/1.0 76 Bad header line: (EX_PROTOCOL)\r\n\r\n",
         [Response(76, "Bad header line: (EX_PROTOCOL)"), ResponseEnd(), DONE]),
        ("PROCESS", b"", [ConnectionClosed("EOF", answered=False)]),
    ],
)  # fmt: skip
def test_answers(method: Method, answer: bytes, events: list[object]) -> None:
    assert answered(answer, method).events == events


def test_in_version_1_2_the_answer_ends_with_the_connection() -> None:
    head = b"SPAMD/1.1 0 EX_OK\r\n\r\n"
    outcome = assert_chunk_invariant(lambda: asking(version="1.2"), [head + b"X: y\n\nhello"])
    assert outcome.events == [Response(0, "EX_OK"), Body(b"X: y\n\nhello"), ResponseEnd(), DONE]
    most = 5 + REPORT_ALLOWANCE
    for size, kinds in ((most, ["ResponseEnd", "ConnectionClosed"]), (most + 1, ["Raised", "ConnectionClosed"])):
        assert asking(version="1.2").play([[head, b"x" * size]]).outcome.kinds() == ["Response", "Body", *kinds]


# -- H65: hostile answers ------------------------------------------------------------------------------------

OK = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 3\r\nSpam: False ; 1 / 5\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"SPAMD/1.1 0 EX_OK\r\n", b"SPAMD/1.1 0 PONG", OK + b"\r\nab", OK + b"\r\nabcd", OK + b"\r\n", OK,
        OK[:-1], b"S", b"\r\n\r\n", b"SPAMD/1.1 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-length: 3\r\n\r\nabc", b"SPAMD/1.1 -1 EX_OK\r\n\r\n", b"SPAMD/1.1 +0 X\r\n\r\n",
        b"SPAMD/1.1 0 EX\0OK\r\n\r\n", b"SPAMD/1.1 0000 EX_OK\r\n\r\n", b"SPAMD/ 0 EX_OK\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\n\r\nabc",
    ],
)  # fmt: skip
def test_h65_what_is_no_answer_in_whole_is_none(answer: bytes) -> None:
    outcome = answered(answer)
    assert isinstance(outcome.events[-2], Raised) and outcome.events[-2].text.isprintable()
    assert ResponseEnd() not in outcome.events and not outcome.events[-1].answered


@pytest.mark.parametrize(
    "header",
    [
        b"Spam: True ; 1 / 5", b"spam: True ; 1 / 5", b"Content-length: 3", b"CONTENT-LENGTH: 4", b"no header", b": x",
        b"X: a\rSpam: True ; 9 / 5", b"X: a\0", b"X: \x1b[2J", b"X\x0b: a", b" folded", b"\tSpam: True ; 9 / 5",
        b"X: " + b"x" * MAX_LINE,
    ],
)  # fmt: skip
def test_h65_no_header_is_given_twice_or_smuggled_in(header: bytes) -> None:
    outcome = answered(OK + header + b"\r\n\r\nabc")
    assert outcome.kinds() == ["Raised", "ConnectionClosed"]


@pytest.mark.parametrize(
    "value",
    [
        b"", b"True", b"True ; 5", b"True ; 5 / ", b"True; 5 / 5", b"Maybe ; 1 / 5", b"True ; 1e3 / 5",
        b"True ; nan / 5", b"True ; inf / 5", b"True ; 1_0 / 5", b"True ; +5 / 5", b"True ; 5 / 5 / 5",
        b"\xd9\xa1", b"False ; 1 / 5, True",
        b"True ; " + b"9" * 400 + b" / 5",
    ],
)  # fmt: skip
def test_h65_a_verdict_that_makes_no_sense_is_none(value: bytes) -> None:
    for method in METHODS[:-1]:
        outcome = answered(b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: " + value + b"\r\n\r\n", method)
        assert outcome.kinds() == ["Raised", "ConnectionClosed"]


@pytest.mark.parametrize("method", ["CHECK", "SYMBOLS", "REPORT", "REPORT_IFSPAM"])
def test_h65_no_verdict_where_one_was_asked_for(method: Method) -> None:
    assert answered(b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\n\r\n", method).kinds() == ["Raised", "ConnectionClosed"]


@pytest.mark.parametrize("value", [b"", b"-1", b"+3", b"3 ", b"3x", b"1_0", b"0x3", b"\xd9\xa3", b"9" * 16, b"3, 3"])
def test_h65_lengths_that_are_none(value: bytes) -> None:
    outcome = answered(b"SPAMD/1.1 0 EX_OK\r\nContent-length: " + value + b"\r\n\r\nabc")
    assert outcome.kinds() == ["Raised", "ConnectionClosed"] or value == b"3 "


def test_h65_an_answer_is_not_much_longer_than_the_message() -> None:
    head = b"SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\n\r\n"
    assert asking().play([[head % (5 + REPORT_ALLOWANCE)]], eof=False).outcome.kinds() == ["Response"]
    assert answered(head % (6 + REPORT_ALLOWANCE)).kinds() == ["Raised", "ConnectionClosed"]


@pytest.mark.parametrize("where", ["before the request", "in the message", "before its end was said", "half before"])
def test_h65_a_verdict_before_the_message_has_ended_is_none(where: str) -> None:
    client = SpamdClient()
    if where == "before the request":
        client.receive_data(OK + b"\r\nabc")
    client.request("PROCESS", 5)
    client.send_body(b"hello")
    if where == "half before":
        client.receive_data(OK[:20])
        assert client.next_event() is PAUSED
        client.end_of_body()
        client.receive_data(OK[20:] + b"\r\nabc")
    elif where != "before the request":
        client.receive_data(OK + b"\r\nabc")
    if where == "before its end was said":
        client.end_of_body()
    with pytest.raises(RemoteProtocolError, match="before it had the message"):
        client.next_event()
    closed = client.next_event()
    assert isinstance(closed, ConnectionClosed) and not closed.answered


def test_giving_up_in_the_middle_is_an_answer() -> None:
    client = SpamdClient()
    client.request("PROCESS", 500)
    client.send_body(b"hello")
    client.receive_data(b"SPAMD/1.0 74 EX_IOERR\r\n\r\n")
    client.receive_eof()
    assert [client.next_event(), client.next_event()] == [Response(74, "EX_IOERR"), ResponseEnd()]
    with pytest.raises(LocalProtocolError, match="call request"):
        client.send_body(b"more")


def test_h65_an_answer_to_nothing_is_an_error() -> None:
    client = SpamdClient()
    assert client.next_event() is PAUSED
    client.receive_data(OK)
    with pytest.raises(RemoteProtocolError, match="what was not asked"):
        client.next_event()


def test_h65_names_of_rules_are_names_of_rules() -> None:
    assert read_symbols(b"BAYES_99,URIBL_BLACK\r\n") == ["BAYES_99", "URIBL_BLACK"]
    assert read_symbols(b"\r\n") == read_symbols(b"") == []
    for body in (b"A B", b"A,,B", b",A", b"A\r\nX-Spam: no", b"A\0", b"\xc3\xa4", b"A,B\n,C"):
        with pytest.raises(RemoteProtocolError, match="no list of rules"):
            read_symbols(body)


def test_the_client_is_bounded() -> None:
    head = b"SPAMD/1.1 0 EX_OK\r\n"
    for before, pattern in ((b"", b"x"), (head, b"\r"), (head, b"X: y\r\n"), (head + OK[19:] + b"\r\n", b"x")):
        for block in (1, 65536):
            assert_memory_bounded(
                lambda before=before: asking().play([[before]] if before else [], eof=False),  # type: ignore[misc]
                pattern, 4 * MAX_LINE, block=block, size=20 * 1024 if block == 1 else 1024 * 1024,
            )  # fmt: skip
    many = b"".join(b"X-%d: y\r\n" % number for number in range(MAX_HEADERS + 1))
    assert answered(head + many).kinds() == ["Raised", "ConnectionClosed"]
    assert_linear(asking, b"SPAMD/1.1 0 EX_OK " + b"x" * 980, size=200)


WORDS = [OK, b"SPAMD/1.1 ", b"0 EX_OK\r\n", b"Spam: ", b"True ; 1 / 5\r\n", b"Content-length: ", b"\r\n\r\n", b"4\r\n"]


@given(strategies.hostile_bytes(WORDS), st.sampled_from(METHODS))
def test_the_client_is_total(data: bytes, method: Method) -> None:
    assert_total(lambda: asking(method), data)


# -- misuse --------------------------------------------------------------------------------------------------


def test_misuse_is_told_what_is_right() -> None:
    client = SpamdClient()
    misuse: list[tuple[Callable[[], object], str]] = [
        (lambda: client.send_body(b"x"), "call request"),
        (client.end_of_body, "call request"),
        (lambda: client.receive_data(b""), "receive_eof"),
        (lambda: client.request("PING", 3), "call ping"),
        (lambda: client.request("TELL", 3), "take of"),  # type: ignore[arg-type]
        (lambda: client.request("CHECK", -1), "not below 0"),
        (lambda: client.request("CHECK", 1, user="a\r\nUser: b"), "one word"),
        (lambda: client.request("CHECK", 1, user="a b"), "one word"),
        (lambda: client.request("CHECK", 1, user="x" * 201), "one word"),
        (lambda: SpamdClient("1.5\r\nX: y"), "two numbers"),
    ]
    for call, text in misuse:
        with pytest.raises(LocalProtocolError, match=text):
            call()
    assert client.data_to_send() == b""
    client.request("CHECK", 3)
    with pytest.raises(LocalProtocolError, match="once a connection"):
        client.ping()
    with pytest.raises(LocalProtocolError, match="3 bytes are missing"):
        client.end_of_body()
    with pytest.raises(LocalProtocolError, match="3 are left"):
        client.send_body(b"four")
    server = SpamdServer()
    with pytest.raises(LocalProtocolError, match="RequestEnd"):
        server.reply(0, "EX_OK")
    server.receive_data(b"PING SPAMC/1.5\r\n\r\n")
    server.next_event()
    for code, text in ((-1, "x"), (256, "x"), (0, "a\r\nSpam: x")):
        with pytest.raises(LocalProtocolError, match="printable ASCII"):
            server.reply(code, text)


# -- the server role -----------------------------------------------------------------------------------------


def new_server() -> Player[SpamdServer]:
    return Player(SpamdServer(max_size=1000), accept)


EMPTY = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: False ; 0.0 / 5.0\r\n\r\n"


@pytest.mark.parametrize(
    ("wire", "output", "events"),
    [
        (b"PING SPAMC/1.2\r\n\r\n", b"SPAMD/1.1 0 PONG\r\n", [Request("PING", "1.2", "", None), DONE]),
        (b"CHECK SPAMC/1.5\r\nContent-length: 5\r\nUser: joe\r\n\r\nhello", EMPTY,
         [Request("CHECK", "1.5", "joe", 5), Body(b"hello"), RequestEnd(), DONE]),
        (b"PROCESS SPAMC/1.0\r\n\r\nhello", EMPTY,
         [Request("PROCESS", "1.0", "", None), Body(b"hello"), RequestEnd(), DONE]),
        (b"CHECK SPAMC/1.5\r\nContent-length: 5\r\n\r\nhell", b"SPAMD/1.1 74 EX_IOERR\r\n",
         [Request("CHECK", "1.5", "", 5), Body(b"hell"), ConnectionClosed("EX_IOERR", answered=False)]),
        (b"CHECK SPAMC/1.5\r\nContent-length: 5\r\n\r\nhello!", b"SPAMD/1.1 74 EX_IOERR\r\n",
         [Request("CHECK", "1.5", "", 5), Body(b"hello"), ConnectionClosed("EX_IOERR", answered=False)]),
        (b"CHECK SPAMC/1.5\r\nContent-length: 1001\r\n\r\n", b"SPAMD/1.1 74 EX_IOERR\r\n",
         [ConnectionClosed("EX_IOERR", answered=False)]),
        (b"CHECK SPAMC/1.5\r\nContent-length: x\r\n\r\n", b"SPAMD/1.1 76 Bad header line\r\n",
         [ConnectionClosed("Bad header line", answered=False)]),
        (b"TELL SPAMC/1.5\r\n\r\n", b"SPAMD/1.1 76 Bad header line\r\n",
         [ConnectionClosed("Bad header line", answered=False)]),
        (b"CHECK SPAMC/1.5\r\n", b"", [ConnectionClosed("EOF", answered=False)]),
    ],
)  # fmt: skip
def test_the_server_under_every_split(wire: bytes, output: bytes, events: list[object]) -> None:
    outcome = assert_chunk_invariant(new_server, [wire])
    assert (outcome.output, outcome.events) == (output, events)


@given(strategies.hostile_bytes([b"CHECK SPAMC/1.5\r\n", b"Content-length: 3", b"\r\n", b"User: x\r\n", b"PING "]))
def test_the_server_is_total(data: bytes) -> None:
    assert_total(new_server, data)


def test_the_server_is_bounded() -> None:
    for pattern in (b"x", b"CHECK SPAMC/1.5\r\n\r\n", b"X: y\r\n"):
        assert_memory_bounded(lambda: Player(SpamdServer(), accept), pattern, 4 * MAX_LINE)


# -- two peers -----------------------------------------------------------------------------------------------

verdicts = st.one_of(
    st.just(Spam(True, 15.0, 5.0)),
    st.builds(Spam, st.booleans(), *(st.integers(-99_999, 99_999).map(lambda n: n / 10) for _ in range(2))),
)


@given(
    st.sampled_from(METHODS[:-1]), st.lists(st.binary(max_size=40), max_size=5), verdicts, st.binary(max_size=200),
    st.sampled_from(["", "joe", "joe@example.org"]), st.integers(0, 99),
)  # fmt: skip
def test_what_is_asked_and_answered_arrives(
    method: Method, pieces: list[bytes], spam: Spam, body: bytes, user: str, seed: int
) -> None:
    def judge(server: SpamdServer, event: object) -> None:
        if isinstance(event, RequestEnd):
            server.reply(0, "EX_OK", spam=spam, body=body)

    client = SpamdClient()
    message = b"".join(pieces)
    pair = Pair(Player(client, ignore), Player(SpamdServer(), judge), random_sizes(seed))
    client.request(method, len(message), user=user)
    for piece in pieces:
        client.send_body(piece)
    client.end_of_body()
    pair.settle()
    assert client.request_complete
    pair.server.end()  # what a driver does then: it closes the sending side
    pair.settle()
    asked = pair.server.outcome
    assert asked.events[0] == Request(method, "1.5", user, len(message))
    assert b"".join(asked.bodies()) == message
    told = pair.client.outcome
    assert told.events[0] == Response(0, "EX_OK", spam, len(body))
    assert b"".join(told.bodies()) == body and told.events[-2:] == [ResponseEnd(), DONE]
