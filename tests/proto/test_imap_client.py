"""The IMAP client machine: what it sends, what it makes of responses, and misuse; against our server in memory; and
the standard library's client against our server."""

import contextlib
import imaplib
import re
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.imap import (
    COMPAT,
    DEFAULT,
    NEED_DATA,
    PAUSED,
    Authenticated,
    AuthenticationFailed,
    CapabilityDone,
    ConnectionClosed,
    Greeting,
    HandOver,
    IdDone,
    IMAPClient,
    IMAPServer,
    Notice,
    ReadyForTLS,
    Reply,
    ReplyReceived,
    Secret,
    ServerOptions,
    StartTLS,
    State,
    VerifyPassword,
)
from mailfront_proto.imap.client_session import ALLOWED
from mailfront_proto.imap.grammar import encode_quoted, is_quotable
from mailfront_proto.imap.replies import Status, parse_status
from mailfront_proto.imap.response_reader import parse_id
from mailfront_proto.sasl import LoginClient, PlainClient
from mailfront_proto.testing import (
    Pair,
    Player,
    assert_chunk_invariant,
    assert_linear,
    assert_memory_bounded,
    ignore,
    random_sizes,
)
from tests.proto.imap_script import application, server
from tests.proto.socket_server import PATIENCE

OK = b"* OK ready\r\n"
CAPABILITIES = b"* OK [CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN] ready\r\n"


def greeted(greeting: bytes = CAPABILITIES, *, tls: bool = False) -> IMAPClient:
    client = IMAPClient()
    if tls:
        client.tls_established()
    client.receive_data(greeting)
    assert isinstance(client.next_event(), Greeting)
    return client


def answered(client: IMAPClient, answer: bytes) -> Any:
    client.receive_data(answer)
    return client.next_event()


def test_greetings() -> None:
    client = IMAPClient()
    assert (client.state, client.awaiting, client.next_event()) == (State.GREETING, "greeting", NEED_DATA)
    assert answered(client, CAPABILITIES[:-2] + b"\r\n") == Greeting(
        Reply("OK", "ready", "CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN")
    )
    assert client.mechanisms == ("PLAIN", "LOGIN")
    assert client.next_event() is PAUSED
    bye = IMAPClient()
    assert answered(bye, b"* bye Too busy\r\n") == Greeting(Reply("BYE", "Too busy"))
    assert bye.next_event() == ConnectionClosed("BYE Too busy", False, Reply("BYE", "Too busy"))
    with pytest.raises(LocalProtocolError, match="has ended"):
        bye.noop()


def test_h37_preauth_keeps_us_from_starttls() -> None:
    client = IMAPClient()
    client.receive_data(b"* PREAUTH welcome\r\n")
    with pytest.raises(RemoteProtocolError, match="PREAUTH"):
        client.next_event()
    allowed = IMAPClient(allow_preauth=True)
    allowed.receive_data(b"* PREAUTH welcome\r\n* 3 EXISTS\r\n")
    assert allowed.next_event() == Greeting(Reply("PREAUTH", "welcome"))
    assert allowed.next_event() is PAUSED
    with pytest.raises(LocalProtocolError, match="login is done already"):
        allowed.starttls()
    assert allowed.hand_over() == b"* 3 EXISTS\r\n"


def test_commands_and_their_answers() -> None:
    client = greeted(OK)
    client.capability()
    assert client.data_to_send() == b"A0001 CAPABILITY\r\n"
    assert client.awaiting == "CAPABILITY"
    done = answered(client, b"* CAPABILITY IMAP4rev1 ID auth=plain\r\nA0001 OK done\r\n")
    assert done == CapabilityDone(Reply("OK", "done"), ("IMAP4REV1", "ID", "AUTH=PLAIN"))
    client.identify({"name": 'a"b', "version": "1"})
    assert client.data_to_send() == b'A0002 ID ("name" "a\\"b" "version" "1")\r\n'
    done = answered(client, b'* ID ("name" {3}\r\nx)y "OS" NIL)\r\nA0002 OK done\r\n')
    assert done == IdDone(Reply("OK", "done"), {"name": "x)y", "os": None})
    client.identify({})
    assert client.data_to_send() == b"A0003 ID NIL\r\n"
    assert answered(client, b"* ID NIL\r\nA0003 OK done\r\n") == IdDone(Reply("OK", "done"), {})
    client.noop()
    client.data_to_send()
    assert answered(client, b"* OK [ALERT] Disk full\r\n* 3 EXISTS\r\n") == Notice(Reply("OK", "Disk full", "ALERT"))
    assert client.next_event() is NEED_DATA
    assert answered(client, b"A0004 BAD what?\r\n") == ReplyReceived("NOOP", Reply("BAD", "what?"))
    client.logout()
    assert client.data_to_send() == b"A0005 LOGOUT\r\n"
    client.receive_data(b"* BYE so long\r\nA0005 OK done\r\n")
    assert client.next_event() == ReplyReceived("LOGOUT", Reply("OK", "done"))
    assert client.next_event() == ConnectionClosed("LOGOUT", False, Reply("BYE", "so long"))


@pytest.mark.parametrize(
    ("capability", "name", "password", "writes"),
    [
        ("", "joe", b"secret", [b'A0001 LOGIN "joe" "secret"\r\n']),
        ("", "j o", b'a"b\\c', [b'A0001 LOGIN "j o" "a\\"b\\\\c"\r\n']),
        ("", "j\xfc", b"x", [b"A0001 LOGIN {3}\r\n", b'j\xc3\xbc "x"\r\n']),
        ("", "joe", b"\xff", [b'A0001 LOGIN "joe" {1}\r\n', b"\xff\r\n"]),
        ("", "\xfc", b"\xff", [b"A0001 LOGIN {2}\r\n", b"\xc3\xbc {1}\r\n", b"\xff\r\n"]),
        ("LITERAL-", "\xfc", b"\xff", [b"A0001 LOGIN {2+}\r\n\xc3\xbc {1+}\r\n\xff\r\n"]),
        ("LITERAL-", "a", b"x" * 4097, [b'A0001 LOGIN "a" {4097}\r\n', b"x" * 4097 + b"\r\n"]),
        ("LITERAL+", "a", b"x" * 4097, [b'A0001 LOGIN "a" {4097+}\r\n' + b"x" * 4097 + b"\r\n"]),
        ("", "a", b"x" * 1001, [b'A0001 LOGIN "a" {1001}\r\n', b"x" * 1001 + b"\r\n"]),
    ],
)
def test_login(capability: str, name: str, password: bytes, writes: list[bytes]) -> None:
    client = greeted(f"* OK [CAPABILITY IMAP4rev1 {capability}] x\r\n".encode(), tls=True)
    client.login(name, Secret(password))
    sent = [client.data_to_send()]
    while len(sent) < len(writes):
        assert answered(client, b"+ go on\r\n") is NEED_DATA
        sent.append(client.data_to_send())
    assert sent == writes
    assert client.state is State.AUTH
    assert answered(client, b"A0001 OK [CAPABILITY IMAP4rev1 IDLE] in\r\n* FLAGS ()\r\n") == Authenticated(
        Reply("OK", "in", "CAPABILITY IMAP4rev1 IDLE")
    )
    assert client.capabilities == ("IMAP4REV1", "IDLE")
    assert client.next_event() is PAUSED
    assert client.hand_over() == b"* FLAGS ()\r\n"
    assert client.next_event() == ConnectionClosed("handed over")
    with pytest.raises(LocalProtocolError, match="next owner"):
        client.receive_data(b"x")


def test_a_login_that_is_refused_at_its_first_literal() -> None:
    client = greeted(OK, tls=True)
    client.login("\xfc", Secret(b"\xff"))
    client.data_to_send()
    failed = answered(client, b"A0001 NO [AUTHENTICATIONFAILED] no\r\n")
    assert failed == AuthenticationFailed(Reply("NO", "no", "AUTHENTICATIONFAILED"))
    assert client.data_to_send() == b""
    assert client.state is State.PROTECTED
    client.login("joe", Secret(b"x"))


@pytest.mark.parametrize("ir", [True, False])
def test_authenticate(ir: bool) -> None:
    client = greeted(f"* OK [CAPABILITY IMAP4rev1 {'SASL-IR' if ir else ''} AUTH=PLAIN] x\r\n".encode(), tls=True)
    client.authenticate(PlainClient("joe", Secret(b"secret")))
    if ir:
        assert client.data_to_send() == b"A0001 AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=\r\n"
    else:
        assert client.data_to_send() == b"A0001 AUTHENTICATE PLAIN\r\n"
        assert answered(client, b"+ \r\n") is NEED_DATA
        assert client.data_to_send() == b"AGpvZQBzZWNyZXQ=\r\n"
    assert answered(client, b"A0001 OK in\r\n") == Authenticated(Reply("OK", "in"))


def test_a_challenge_that_makes_no_sense_is_cancelled() -> None:
    client = greeted(tls=True)
    client.authenticate(LoginClient("joe", Secret(b"secret")))
    client.data_to_send()
    assert answered(client, b"+ !\r\n") is NEED_DATA
    assert client.data_to_send() == b"*\r\n"
    failed = answered(client, b"A0001 BAD cancelled\r\n")
    assert failed == AuthenticationFailed(Reply("BAD", "cancelled"), "the challenge is not base64")


def test_starttls() -> None:
    client = greeted()
    with pytest.raises(LocalProtocolError, match="in clear"):
        client.login("joe", Secret(b"x"))
    client.starttls()
    assert client.data_to_send() == b"A0001 STARTTLS\r\n"
    assert answered(client, b"A0001 OK go\r\n") == ReadyForTLS(Reply("OK", "go"))
    assert client.next_event() is PAUSED
    with pytest.raises(LocalProtocolError, match="for TLS"):
        client.receive_data(b"x")
    with pytest.raises(LocalProtocolError, match="handshake"):
        client.noop()
    client.tls_established()
    assert (client.state, client.capabilities) == (State.PROTECTED, ())
    with pytest.raises(LocalProtocolError, match="in use already"):
        client.starttls()
    refused = greeted()
    refused.starttls()
    assert answered(refused, b"A0001 NO not now\r\n") == ReplyReceived("STARTTLS", Reply("NO", "not now"))
    assert refused.state is State.CLEAR


def test_h37_bytes_behind_the_answer_to_starttls_are_fatal() -> None:
    client = greeted()
    client.starttls()
    client.receive_data(b"A0001 OK go\r\n* CAPABILITY IMAP4rev1\r\n")
    with pytest.raises(RemoteProtocolError, match="behind its answer to STARTTLS"):
        client.next_event()
    closed = client.next_event()
    assert isinstance(closed, ConnectionClosed)


BROKEN = [
    (b"220 smtp\r\n", "answers no command"),
    (b"* 3 EXISTS\r\n", "greeting that is none"),
    (b"* NO go away\r\n", "greeting that is none"),
    (b"* OK x\r\n* PREAUTH y\r\n", "PREAUTH behind"),
    (b"* OK x\r\n+ go\r\n", "continuation for no command"),
    (b"* OK x\r\nA0001 OK done\r\n", "answers no command"),
    (b"* OK x\r\n\r\n", "answers no command"),
    (b"* OK " + b"x" * 9000 + b"\r\n", "a line of more than 8192 bytes"),
    (b"* OK x\r\n* ID {99999}\r\n", "a response of more than 65536 bytes"),
    (b"* OK x\r\n" + b"* OK \0\r\n", "NUL or a bare CR"),
    (b"* OK x\r\n" + b"* OK a\rb\r\n", "NUL or a bare CR"),
]


@pytest.mark.parametrize(("wire", "text"), BROKEN)
def test_what_no_server_may_say(wire: bytes, text: str) -> None:
    def new() -> Player[IMAPClient]:
        return Player(IMAPClient(), ignore, raises=RemoteProtocolError)

    splits = None if len(wire) < 200 else [[[wire]], [[wire[i : i + 1] for i in range(len(wire))]]]
    outcome = assert_chunk_invariant(new, [wire], splits)
    assert outcome.kinds()[-2:] == ["Raised", "ConnectionClosed"]
    assert text in outcome.events[-2].text
    assert outcome.output == b""


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"A0002 OK x\r\n", "answers no command"),
        (b"A0001 MAYBE\r\n", "tagged response that is none"),
        (b"A0001 BYE x\r\n", "tagged response that is none"),
        (b"* ID x\r\n", "ID that is none"),
        (b"* ID (x)\r\n", "ID that is none"),
        (b'* ID ("a")\r\n', "ID that is none"),
        (b'* ID ("a" "b"\r\n', "ID that is none"),
        (b'* ID "a" ("b")\r\n', "ID that is none"),
        (b'* ID (NIL "b")\r\n', "ID that is none"),
    ],
)
def test_broken_answers(answer: bytes, text: str) -> None:
    client = greeted()
    client.identify({})
    client.receive_data(answer)
    with pytest.raises(RemoteProtocolError, match=text) as raised:
        client.next_event()
    assert raised.value.received == answer[:-2]


def test_endless_challenges_are_fatal() -> None:
    client = greeted(tls=True)
    client.authenticate(LoginClient("joe", Secret(b"x")))
    with pytest.raises(RemoteProtocolError, match="one challenge after the other"):
        for _ in range(20):
            assert answered(client, b"+ \r\n") is NEED_DATA


EARLY: list[tuple[Callable[[IMAPClient], None], bytes, bytes]] = [
    (IMAPClient.noop, b"A0001 OK done\r\n", b""),
    (IMAPClient.noop, b"A0001 OK d", b"one\r\n"),
    (IMAPClient.noop, b"* OK still here\r\nA0001 NO\r\n", b""),
    (IMAPClient.capability, b"* CAPABILITY IMAP4rev1\r\nA0001 OK\r\n", b""),
    (lambda client: client.login("joe", Secret(b"x")), b"A0001 OK in\r\n", b""),
    (lambda client: client.login("jo\xebl", Secret(b"x" * 9)), b"+ go on\r\n", b""),
    (lambda client: client.authenticate(LoginClient("joe", Secret(b"x"))), b"+ VXNlcm5hbWU6\r\n", b""),
]


@pytest.mark.parametrize(("command", "early", "rest"), EARLY)
def test_h37_an_answer_before_its_command_is_no_answer(
    command: Callable[[IMAPClient], None], early: bytes, rest: bytes
) -> None:
    """What came along with the greeting was not said to what was sent then, whatever its tag is."""
    client = greeted(b"* OK [CAPABILITY IMAP4rev1 AUTH=LOGIN] ready\r\n" + early, tls=True)
    command(client)
    with pytest.raises(RemoteProtocolError, match="an answer before its command"):
        while True:
            if client.next_event() is NEED_DATA:
                client.receive_data(rest)


def test_a_yes_before_all_of_a_command_is_no_answer_and_a_no_is() -> None:
    for answer, wanted in ((b"A0001 OK in\r\n", None), (b"A0001 NO not him\r\n", AuthenticationFailed)):
        client = greeted(b"* OK [CAPABILITY IMAP4rev1] ready\r\n", tls=True)
        client.login("joe", Secret(b"\xc3\xab" * 5))
        client.receive_data(b"+ go on\r\n" + answer)
        if wanted is not None:
            assert isinstance(client.next_event(), wanted)
            continue
        with pytest.raises(RemoteProtocolError, match="an answer before its command") as raised:
            client.next_event()
        assert raised.value.received == answer[:-2]


def test_a_server_that_says_bye() -> None:
    client = greeted()
    client.noop()
    client.receive_data(b"* BYE shutting down\r\n")
    assert client.next_event() == ConnectionClosed("BYE shutting down", False, Reply("BYE", "shutting down"))
    lost = greeted(tls=True)
    lost.login("joe", Secret(b"x"))
    lost.receive_eof()
    assert lost.next_event() == ConnectionClosed("EOF", unfinished=True)


def test_h64_arguments_that_hold_control_characters() -> None:
    for bad in ("a\0", "a\r\nA0002 LOGOUT", "\x7f", "\x1b[2J", ""):
        client = greeted(tls=True)
        calls: list[Callable[[], object]] = [
            lambda: client.login(bad, Secret(b"x")),  # noqa: B023  # called at once
            lambda: client.login("joe", Secret(bad.encode())),  # noqa: B023
        ]
        if bad:
            calls += [lambda: client.identify({bad: "x"}), lambda: client.identify({"x": bad})]  # noqa: B023
        for call in calls:
            with pytest.raises(LocalProtocolError):
                call()
        assert client.data_to_send() == b""
        assert client.awaiting == ""


CALLS: dict[str, Callable[[IMAPClient], None]] = {
    "CAPABILITY": IMAPClient.capability,
    "NOOP": IMAPClient.noop,
    "ID": lambda client: client.identify({}),
    "STARTTLS": IMAPClient.starttls,
    "LOGIN": lambda client: client.login("joe", Secret(b"x"), allow_clear=True),
    "AUTHENTICATE": lambda client: client.authenticate(PlainClient("joe", Secret(b"x")), allow_clear=True),
    "LOGOUT": IMAPClient.logout,
}


def at(state: State) -> IMAPClient:
    """A client in `state`, that knows what the server offers."""
    if state is State.GREETING:
        return IMAPClient()
    client = greeted(tls=state is State.PROTECTED)
    if state is State.TLS:
        client.starttls()
        assert isinstance(answered(client, b"A0001 OK go\r\n"), ReadyForTLS)
    if state in (State.AUTH, State.AUTHENTICATED, State.HANDED_OVER):
        client.login("joe", Secret(b"x"), allow_clear=True)
        client.data_to_send()
    if state in (State.AUTHENTICATED, State.HANDED_OVER):
        assert isinstance(answered(client, b"A0001 OK in\r\n"), Authenticated)
    if state is State.HANDED_OVER:
        client.hand_over()
    if state is State.CLOSED:
        client.receive_eof()
        assert isinstance(client.next_event(), ConnectionClosed)
    client.data_to_send()
    return client


@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
@pytest.mark.parametrize("command", CALLS)
def test_every_command_in_every_state(state: State, command: str) -> None:
    client = at(state)
    assert client.state is state and set(CALLS) == set(ALLOWED)
    if state in ALLOWED[command] and not (command == "STARTTLS" and state is State.PROTECTED):
        CALLS[command](client)
        assert client.data_to_send().partition(b" ")[2].startswith(command.encode())
        assert client.awaiting == command
    else:
        with pytest.raises(LocalProtocolError, match=r"[a-z]\(\)|in use already|done already|handed over"):
            CALLS[command](client)
        assert client.data_to_send() == b"" and client.state is state


def test_misuse() -> None:
    client = IMAPClient()
    with pytest.raises(LocalProtocolError, match="not greeted yet"):
        client.noop()
    with pytest.raises(LocalProtocolError, match="receive_eof"):
        client.receive_data(b"")
    with pytest.raises(LocalProtocolError, match="hand_over"):
        client.hand_over()
    client = greeted(b"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=PLAIN] x\r\n")
    with pytest.raises(LocalProtocolError, match="LOGINDISABLED"):
        client.login("joe", Secret(b"x"), allow_clear=True)
    with pytest.raises(LocalProtocolError, match="offers PLAIN, not LOGIN"):
        client.authenticate(LoginClient("joe", Secret(b"x")), allow_clear=True)
    with pytest.raises(LocalProtocolError, match="in clear"):
        client.authenticate(PlainClient("joe", Secret(b"x")))
    with pytest.raises(LocalProtocolError, match="not offered"):
        client.starttls()
    with pytest.raises(LocalProtocolError, match="not offered"):
        client.identify({})
    client.noop()
    with pytest.raises(LocalProtocolError, match="the answer to NOOP is awaited"):
        client.logout()
    greeted_client = greeted()
    for fields in ({str(n): "" for n in range(31)}, {"x" * 31: ""}, {"x": "y" * 1025}):
        with pytest.raises(LocalProtocolError, match="30 pairs at most"):
            greeted_client.identify(fields)
    with pytest.raises(LocalProtocolError, match="say less"):
        greeted_client.identify({str(n): "y" * 1000 for n in range(9)})


def test_bounds() -> None:
    def new() -> Player[IMAPClient]:
        return Player(greeted(), ignore, raises=RemoteProtocolError)

    assert_memory_bounded(new, b"x" * 10, 100_000)
    assert_memory_bounded(new, b"* OK x\r\n", 100_000, size=256 * 1024)
    assert_memory_bounded(new, b"* ID {1000}\r\n" + b"x" * 1000, 200_000)
    assert_linear(new, b"* OK x\r\n", size=300)
    assert_linear(new, b"* X {5}\r\nxxxxx {3}\r\nabc\r\n", size=300)


@given(
    st.sampled_from(["OK", "NO", "BAD", "BYE", "PREAUTH"]),
    st.text("aZ 1.[(*", max_size=20),
    st.text("A B=+-", max_size=9),
)
def test_status_responses_are_parsed_as_they_were_printed(status: Status, text: str, code: str) -> None:
    if not code and text.startswith("["):
        return  # a text that begins with a bracket is taken for a code
    reply = Reply(status, text, code)
    assert parse_status(reply.encode(b"t")[2:-2]) == reply


@given(st.binary(max_size=40))
def test_any_bytes_are_a_status_response_or_none(data: bytes) -> None:
    parse_status(data)
    parse_id([data])
    parse_id([b"(", data, b" NIL)"])


@given(st.text(max_size=40))
def test_replies_hold_no_control_bytes(text: str) -> None:
    line = Reply("NO", text).encode(b"t")
    assert line.endswith(b"\r\n") and not set(line[:-2]) & {*range(0x20), 0x7F}
    long = Reply("NO", "ü" * 5000 + text).encode(b"t" * 256)
    assert len(long) <= 8192 and long[:-2].decode().endswith("ü")


@given(st.binary(max_size=40).filter(is_quotable))
def test_quoted_strings_are_read_as_they_were_printed(data: bytes) -> None:
    assert parse_id([b"(" + encode_quoted(data) + b" NIL)"]) == {data.decode().lower(): None}


# -- two peers ---------------------------------------------------------------------------------------------


class HandedOver(Pair[IMAPClient, IMAPServer]):
    """A pair whose server does not close when it hands over: somebody else goes on."""

    def _tell_the_end(self) -> bool:
        return self.server.machine.state is not State.HANDED_OVER and super()._tell_the_end()


@settings(max_examples=120)
@given(
    st.sampled_from(["joe", "jo e", "temp", "nobody", "grün"]),
    st.sampled_from([b"secret", b'se"cr\\et', b"wrong", b"\xff\xfe", b"x" * 1500]),
    st.sampled_from(["LOGIN", "PLAIN", "login", ""]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_the_two_agree(name: str, password: bytes, how: str, compat: bool, tls: bool, seed: int) -> None:
    machine = server(COMPAT if compat else DEFAULT, mechanisms=("PLAIN", "LOGIN"))
    machine.offers_starttls = True
    client = IMAPClient()
    wants_tls = tls and not compat

    def begin() -> None:
        if how in ("LOGIN", "PLAIN") and how in client.mechanisms:
            kind = PlainClient if how == "PLAIN" else LoginClient
            client.authenticate(kind(name, Secret(password)), allow_clear=True)
        else:
            client.login(name, Secret(password), allow_clear=True)

    def react(client: IMAPClient, event: object) -> None:
        match event:
            case Greeting():
                client.capability()
            case CapabilityDone() if wants_tls and not client.in_tls:
                client.starttls()
            case CapabilityDone() if "ID" in client.capabilities:
                client.identify({"name": "test"})
            case CapabilityDone() | IdDone():
                begin()
            case AuthenticationFailed():
                client.logout()

    pair = HandedOver(Player(client, react), Player(machine, application), random_sizes(seed))
    pair.settle()
    if wants_tls:
        assert machine.state is client.state is State.TLS
        machine.tls_established()
        client.tls_established()
        client.capability()
        pair.settle()
    known = (name, password) in (("joe", b"secret"), ("jo e", b'se"cr\\et'))
    if known:
        assert machine.state is State.HANDED_OVER and client.state is State.AUTH
        assert machine.username == name
        handed = pair.server.outcome.events[-1]
        assert isinstance(handed, HandOver)
        client.receive_data(handed.tag + b" OK Logged in\r\n* next owner\r\n")
        pair.client.step()
        assert isinstance(pair.client.outcome.events[-1], Authenticated)
        assert client.hand_over() == b"* next owner\r\n"
        assert machine.in_tls is client.in_tls is wants_tls
    else:
        assert machine.state is client.state is State.CLOSED
        failed = next(e for e in pair.client.outcome.events if isinstance(e, AuthenticationFailed))
        assert failed.reply.is_temporary == (name == "temp" and not compat)
        assert b"wrong" not in b"".join(pair.server.writes) and not failed.cancelled


# -- the standard library's client into our server ---------------------------------------------------------


class Connected(imaplib.IMAP4):
    """imaplib on one end of a socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        super().__init__("nowhere")

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return self._end


def serve(connection: socket.socket, machine: IMAPServer) -> object:
    """Our server up to the hand-over, and then a next owner that knows LOGOUT."""
    while not isinstance(event := machine.next_event(), HandOver | ConnectionClosed):
        if event is NEED_DATA or event is PAUSED:
            connection.sendall(machine.data_to_send())
            if event is NEED_DATA:
                data = connection.recv(65536)
                machine.receive_data(data) if data else machine.receive_eof()
        else:
            application(machine, event)
    connection.sendall(machine.data_to_send())
    if isinstance(event, HandOver):
        connection.sendall(event.tag + b" OK [CAPABILITY IMAP4rev1] Logged in\r\n")
        logout = re.match(rb"(\S+) LOGOUT\r\n", machine.trailing_data or connection.recv(65536))
        assert logout is not None
        connection.sendall(b"* BYE\r\n" + logout[1] + b" OK done\r\n")
    return event


def with_imaplib(use: Callable[[imaplib.IMAP4], None], machine: IMAPServer) -> object:
    """What became of the server."""
    ours, theirs = socket.socketpair()
    ended: list[object] = []
    with ours, theirs:
        ours.settimeout(PATIENCE)
        theirs.settimeout(PATIENCE)
        thread = threading.Thread(target=lambda: ended.append(serve(ours, machine)))
        thread.start()
        try:
            client = Connected(theirs)
            use(client)
            client.logout()
        finally:
            with contextlib.suppress(OSError):  # logout() has done it already
                theirs.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
    return ended[0]


@pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
def test_imaplib_logs_in(profile: Any) -> None:
    def login(client: imaplib.IMAP4) -> None:
        assert client.noop()[0] == "OK"
        assert "IMAP4REV1" in client.capabilities
        with pytest.raises(imaplib.IMAP4.error, match="LOGIN failed"):
            client.login("joe", "wrong")
        assert client.login('"jo e"', 'se"cr\\et')[0] == "OK"

    event = with_imaplib(login, server(profile))
    assert isinstance(event, HandOver) and event.username == "jo e"


@pytest.mark.parametrize("mechanism", ["PLAIN", "CRAM-MD5"])
def test_imaplib_authenticates(mechanism: str) -> None:
    def authenticate(client: imaplib.IMAP4) -> None:
        with pytest.raises(imaplib.IMAP4.error, match="Could not decode"):
            client.authenticate(mechanism, lambda challenge: b"nonsense")
        assert client.authenticate("PLAIN", lambda challenge: b"\0joe\0secret")[0] == "OK"

    machine = server(mechanisms=("PLAIN", "CRAM-MD5"))
    event = with_imaplib(authenticate, machine)
    assert isinstance(event, HandOver) and (event.username, event.command) == ("joe", "AUTHENTICATE")


def test_imaplib_logs_out() -> None:
    event = with_imaplib(lambda client: None, server())
    assert isinstance(event, ConnectionClosed) and event.reason == "LOGOUT"


def test_types_of_the_server_are_shared() -> None:
    assert StartTLS() == StartTLS()
    assert VerifyPassword("LOGIN", "", "joe", Secret(b"x"), "") == VerifyPassword("LOGIN", "", "joe", Secret(b"x"), "")
    assert ServerOptions().mechanisms == ()
