"""The POP3 client machine: sessions in every cutting, broken servers (H37, H63), arguments (H64), order, bounds."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.pop3 import (
    NEED_DATA,
    PAUSED,
    Authenticated,
    AuthenticationFailed,
    CapaDone,
    ClientEvent,
    ConnectionClosed,
    Greeting,
    MailboxStatus,
    MessageData,
    POP3Client,
    ReadyForTLS,
    Reply,
    ReplyReceived,
    Secret,
    Sizes,
    State,
    UniqueIds,
)
from mailfront_proto.pop3.capabilities import parse_capabilities, print_capabilities
from mailfront_proto.pop3.client_session import ALLOWED, MAX_PIPELINED
from mailfront_proto.pop3.replies import parse_reply
from mailfront_proto.pull import MAX_PENDING_OUTPUT
from mailfront_proto.sasl import LoginClient, PlainClient
from mailfront_proto.testing import (
    Outcome,
    Player,
    Raised,
    assert_chunk_invariant,
    assert_linear,
    assert_memory_bounded,
)

Call = Callable[[POP3Client], Any]

GREETING = b"+OK POP3 ready <1896.697170952@dbc.mtview.ca.us>\r\n"
CAPA = b"+OK Capabilities:\r\nTOP\r\nUIDL\r\nSASL PLAIN login\r\nUSER\r\nSTLS\r\nUTF8 USER\r\nPIPELINING\r\n.\r\n"
OLD = b"-ERR what?\r\n"
SECRET = Secret(b"tanstaaf")


def log_in(client: POP3Client) -> None:
    client.login("mrose", SECRET, allow_clear=True)


def plain(client: POP3Client) -> None:
    client.authenticate(PlainClient("mrose", SECRET), allow_clear=True)


def sasl_login(client: POP3Client) -> None:
    client.authenticate(LoginClient("mrose", SECRET), allow_clear=True)


def show(event: ClientEvent | Raised) -> str:
    """An event on one short line."""
    match event:
        case Greeting(reply):
            return f"greeting {reply.status}"
        case CapaDone(reply, capabilities):
            return " ".join(["capa", reply.status, *capabilities])
        case ReadyForTLS():
            return "tls"
        case Authenticated():
            return "authenticated"
        case AuthenticationFailed(reply, cancelled):
            return f"failed {reply.code} {reply.text}" + (f" ({cancelled})" if cancelled else "")
        case MailboxStatus(messages, octets):
            return f"status {messages} {octets}"
        case Sizes(entries) | UniqueIds(entries):
            return f"{type(event).__name__} {entries}"
        case MessageData(data):
            return f"data {data!r}"
        case ReplyReceived(command, reply, number):
            return f"{command} {number or ''} {reply.status} {reply.text}"
        case ConnectionClosed(reason, unfinished):
            return f"closed {reason}" + (" unfinished" if unfinished else "")
        case Raised(_, text):
            return f"error: {text}"


def new_player(calls: Sequence[Call]) -> Callable[[], Player[POP3Client]]:
    """The application makes the next of `calls` when the server owes nothing; TLS is there at once."""

    def new() -> Player[POP3Client]:
        left = list(calls)

        def react(client: POP3Client, event: ClientEvent) -> None:
            if isinstance(event, ReadyForTLS):
                client.tls_established()
            if not client.awaiting and left and client.state is not State.CLOSED:
                left.pop(0)(client)

        return Player(POP3Client(), react, raises=RemoteProtocolError)

    return new


def play_every_way(calls: Sequence[Call], answers: Sequence[bytes], *, eof: bool = True) -> Outcome:
    return assert_chunk_invariant(new_player(calls), answers, eof=eof)


# name: calls, answers, what was sent, events
SESSIONS: dict[str, tuple[list[Call], list[bytes], bytes, list[str]]] = {
    "RFC 1939, section 10": (
        [log_in, POP3Client.stat, POP3Client.list, lambda c: c.retr(1), lambda c: c.dele(1), POP3Client.quit],
        [
            GREETING, b"+OK\r\n", b"+OK mrose's maildrop has 2 messages (320 octets)\r\n", b"+OK 2 320\r\n",
            b"+OK 2 messages (320 octets)\r\n1 120\r\n2 200\r\n.\r\n",
            b"+OK 120 octets\r\nSubject: x\r\n\r\n..x\r\n.\r\n",
            b"+OK message 1 deleted\r\n", b"+OK dewey POP3 server signing off (maildrop empty)\r\n",
        ],
        b"USER mrose\r\nPASS tanstaaf\r\nSTAT\r\nLIST\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n",
        [
            "greeting +OK", "authenticated", "status 2 320", "Sizes [(1, 120), (2, 200)]",
            "LIST  +OK 2 messages (320 octets)", "data b'Subject: x\\r\\n\\r\\n.x\\r\\n'", "RETR 1 +OK 120 octets",
            "DELE 1 +OK message 1 deleted", "QUIT  +OK dewey POP3 server signing off (maildrop empty)", "closed QUIT",
        ],
    ),
    "all the rest": (
        [
            POP3Client.capa, POP3Client.utf8, lambda c: c.language("es"), log_in, lambda c: c.list(2),
            lambda c: c.uidl(2), POP3Client.uidl, lambda c: c.top(1, 10), POP3Client.rset, POP3Client.noop,
            lambda c: c.language("*"), POP3Client.capa, POP3Client.list, POP3Client.uidl, POP3Client.quit,
        ],
        [
            GREETING, CAPA, b"+OK\r\n", b"+OK es Idioma cambiado\r\n", b"+OK \r\n", b"+OK \r\n", b"+OK 2 200\r\n",
            b"+OK 2 QhdPYR:00WBw1Ph7x7\r\n", b"+OK\r\n1 whqtswO00WBw418f9t5JxYwZ\r\n2 QhdPYR:00WBw1Ph7x7\r\n.\r\n",
            b"+OK\r\n.\r\n", b"+OK maildrop has 2 messages\r\n", b"+OK\r\n", b"-ERR es Idioma\r\n", b"+OK \r\n.\r\n",
            b"+OK \r\n.\r\n", b"+OK \r\n.\r\n", b"-ERR some deleted messages not removed\r\n",
        ],
        b"CAPA\r\nUTF8\r\nLANG es\r\nUSER mrose\r\nPASS tanstaaf\r\nLIST 2\r\nUIDL 2\r\nUIDL\r\nTOP 1 10\r\n"
        b"RSET\r\nNOOP\r\n"
        b"LANG *\r\nCAPA\r\nLIST\r\nUIDL\r\nQUIT\r\n",
        [
            "greeting +OK", "capa +OK TOP UIDL SASL USER STLS UTF8 PIPELINING", "UTF8  +OK ",
            "LANG  +OK es Idioma cambiado",
            "authenticated", "Sizes [(2, 200)]", "LIST 2 +OK 2 200", "UniqueIds [(2, b'QhdPYR:00WBw1Ph7x7')]",
            "UIDL 2 +OK 2 QhdPYR:00WBw1Ph7x7",
            "UniqueIds [(1, b'whqtswO00WBw418f9t5JxYwZ'), (2, b'QhdPYR:00WBw1Ph7x7')]", "UIDL  +OK ",
            "TOP 1 +OK ", "RSET  +OK maildrop has 2 messages", "NOOP  +OK ", "LANG  -ERR es Idioma", "capa +OK",
            "LIST  +OK ", "UIDL  +OK ", "QUIT  -ERR some deleted messages not removed", "closed QUIT",
        ],
    ),
    "refusals": (
        [
            POP3Client.capa, log_in, log_in, POP3Client.stat, POP3Client.list, lambda c: c.list(9), lambda c: c.uidl(9),
            POP3Client.uidl, lambda c: c.retr(9), lambda c: c.top(9, 0), lambda c: c.dele(9), POP3Client.capa,
        ],
        [
            GREETING, OLD, b"-ERR sorry, no mailbox for frated here\r\n", b"+OK\r\n", b"+OK\r\n", b"-ERR no\r\n",
            b"-ERR no\r\n",
            b"-ERR no\r\n", b"-ERR no\r\n", b"-ERR no\r\n", b"-ERR [UTF8] no\r\n", b"-ERR no\r\n", b"-ERR no\r\n",
            b"-ERR no\r\n",
        ],
        b"CAPA\r\nUSER mrose\r\nUSER mrose\r\nPASS tanstaaf\r\nSTAT\r\nLIST\r\nLIST 9\r\nUIDL 9\r\nUIDL\r\n"
        b"RETR 9\r\nTOP 9 0\r\nDELE 9\r\n"
        b"CAPA\r\n",
        [
            "greeting +OK", "capa -ERR", "failed  sorry, no mailbox for frated here", "authenticated", "STAT  -ERR no",
            "LIST  -ERR no", "LIST 9 -ERR no", "UIDL 9 -ERR no", "UIDL  -ERR no", "RETR 9 -ERR no", "TOP 9 -ERR no",
            "DELE 9 -ERR no", "capa -ERR", "closed EOF",
        ],
    ),
    "passwords": (
        [log_in, log_in, log_in],
        [
            GREETING, b"+OK\r\n", b"-ERR [IN-USE] Do you have another POP session running?\r\n", b"+OK\r\n",
            b"-ERR [AUTH] wrong\r\n", b"+OK\r\n", b"-ERR [SYS/TEMP] later\r\n",
        ],
        b"USER mrose\r\nPASS tanstaaf\r\n" * 3,
        [
            "greeting +OK", "failed IN-USE Do you have another POP session running?", "failed AUTH wrong",
            "failed SYS/TEMP later", "closed EOF",
        ],
    ),
    "AUTH": (
        [POP3Client.capa, plain, sasl_login, sasl_login, plain],
        [
            GREETING, CAPA, b"-ERR [AUTH] no\r\n", b"+ VXNlcm5hbWU6\r\n", b"+ UGFzc3dvcmQ6\r\n", b"-ERR no\r\n",
            b"+ !\r\n",
            b"-ERR cancelled\r\n", b"+\r\n", b"+OK \r\n",
        ],
        b"CAPA\r\nAUTH PLAIN AG1yb3NlAHRhbnN0YWFm\r\nAUTH LOGIN\r\nbXJvc2U=\r\ndGFuc3RhYWY=\r\nAUTH LOGIN\r\n*\r\n"
        b"AUTH PLAIN AG1yb3NlAHRhbnN0YWFm\r\nAG1yb3NlAHRhbnN0YWFm\r\n",
        [
            "greeting +OK", "capa +OK TOP UIDL SASL USER STLS UTF8 PIPELINING", "failed AUTH no", "failed  no",
            "failed  cancelled (the challenge is not base64)", "authenticated", "closed EOF",
        ],
    ),
    "STLS": (
        [POP3Client.capa, POP3Client.stls, POP3Client.stls, POP3Client.capa, lambda c: c.login("mrose", SECRET)],
        [GREETING, CAPA, b"-ERR not now\r\n", b"+OK go\r\n", CAPA, b"+OK\r\n", b"+OK\r\n"],
        b"CAPA\r\nSTLS\r\nSTLS\r\nCAPA\r\nUSER mrose\r\nPASS tanstaaf\r\n",
        [
            "greeting +OK", "capa +OK TOP UIDL SASL USER STLS UTF8 PIPELINING", "STLS  -ERR not now", "tls",
            "capa +OK TOP UIDL SASL USER STLS UTF8 PIPELINING", "authenticated", "closed EOF",
        ],
    ),
    "messages": (
        [log_in, *[partial(POP3Client.retr, number=number) for number in range(1, 6)]],
        [
            GREETING, b"+OK\r\n", b"+OK\r\n", b"+OK\r\n.\r\n", b"+OK\r\n\r\n.\r\n", b"+OK\r\n..\r\n...\r\n.\r\n",
            b"+OK\r\na\rb\n.\n\r.\r\nc\x00\xff\r\n.\r\n", b"+OK\r\n\n.\r\n.\r\n",
        ],
        b"USER mrose\r\nPASS tanstaaf\r\nRETR 1\r\nRETR 2\r\nRETR 3\r\nRETR 4\r\nRETR 5\r\n",
        [
            "greeting +OK", "authenticated", "RETR 1 +OK ", "data b'\\r\\n'", "RETR 2 +OK ", "data b'.\\r\\n..\\r\\n'",
            "RETR 3 +OK ", "data b'a\\rb\\n.\\n\\r.\\r\\nc\\x00\\xff\\r\\n'", "RETR 4 +OK ", "data b'\\n.\\r\\n'",
            "RETR 5 +OK ",
            "closed EOF",
        ],
    ),
    "bare line feeds and odd case": (
        [log_in, POP3Client.list, POP3Client.stat],
        [b"+ok ready\n", b"+Ok\n", b"+OK\n", b"+OK\n1 120 extra\n.\n", b"+OK 1 120 and more\n"],
        b"USER mrose\r\nPASS tanstaaf\r\nLIST\r\nSTAT\r\n",
        ["greeting +OK", "authenticated", "Sizes [(1, 120)]", "LIST  +OK ", "status 1 120", "closed EOF"],
    ),
    "a server that takes nobody": (
        [POP3Client.quit], [b"-ERR [SYS/TEMP] busy\r\n", b"+OK\r\n"], b"QUIT\r\n",
        ["greeting -ERR", "QUIT  +OK ", "closed QUIT"],
    ),
    "EOF before the greeting": ([], [b"+O"], b"", ["closed EOF unfinished"]),
    "EOF before the answer to QUIT": ([log_in, POP3Client.quit], [GREETING, b"+OK\r\n", b"+OK\r\n"],
        b"USER mrose\r\nPASS tanstaaf\r\nQUIT\r\n", ["greeting +OK", "authenticated", "closed EOF unfinished"]),
    "EOF in a message": (
        [log_in, lambda c: c.retr(1)], [GREETING, b"+OK\r\n", b"+OK\r\n", b"+OK\r\nhalf\r\nof it\r\n."],
        b"USER mrose\r\nPASS tanstaaf\r\nRETR 1\r\n",
        ["greeting +OK", "authenticated", "data b'half\\r\\nof it'", "closed EOF unfinished"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SESSIONS)
def test_sessions_in_every_cutting(name: str) -> None:
    calls, answers, sent, events = SESSIONS[name]
    outcome = play_every_way(calls, answers)
    assert outcome.output == sent
    assert [show(event) for event in outcome.events] == events


def test_listings_come_in_parts_of_a_thousand_however_they_are_cut() -> None:
    listing = b"+OK\r\n" + b"".join(b"%d %d\r\n" % (n, n * n) for n in range(1, 2101)) + b".\r\n"
    player = new_player([log_in, POP3Client.list])
    pieces = [[b"%c" % byte for byte in listing], [listing]]
    for cut in pieces:
        outcome = player().play([[GREETING], [b"+OK\r\n"], [b"+OK\r\n"], cut]).outcome
        sizes = [event.entries for event in outcome.events if isinstance(event, Sizes)]
        assert [len(entries) for entries in sizes] == [1000, 1000, 100]
        assert sizes[2][-1] == (2100, 2100 * 2100)


# -- pipelining --------------------------------------------------------------------------------------------


def pipelined(client: POP3Client) -> None:
    client.stat()
    client.uidl()
    client.retr(1)
    client.retr(2)
    client.top(2, 0)
    client.list(7)
    client.dele(1)
    client.rset()
    client.noop()
    client.quit()


def test_answers_to_pipelined_commands_in_every_cutting() -> None:
    answers = (
        b"+OK 2 320\r\n+OK\r\n1 a\r\n2 b\r\n.\r\n+OK\r\none\r\n.\r\n-ERR gone\r\n+OK\r\n..\r\n.\r\n"
        b"+OK 7 5\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n"
    )
    outcome = play_every_way([POP3Client.capa, log_in, pipelined], [GREETING, CAPA, b"+OK\r\n", b"+OK\r\n", answers])
    assert [show(event) for event in outcome.events[3:]] == [
        "status 2 320", "UniqueIds [(1, b'a'), (2, b'b')]", "UIDL  +OK ", "data b'one\\r\\n'", "RETR 1 +OK ",
        "RETR 2 -ERR gone", "data b'.\\r\\n'", "TOP 2 +OK ", "Sizes [(7, 5)]", "LIST 7 +OK 7 5", "DELE 1 +OK ",
        "RSET  +OK ",
        "NOOP  +OK ", "QUIT  +OK ", "closed QUIT",
    ]  # fmt: skip


def at_transaction(capa: bytes = CAPA) -> POP3Client:
    """A client whose mailbox is open."""
    client = POP3Client()
    player = Player(client, lambda client, event: None)
    player.receive(GREETING)
    client.capa()
    player.step()
    player.receive(capa)
    log_in(client)
    player.step()
    player.receive(b"+OK\r\n")
    player.receive(b"+OK\r\n")
    assert client.state is State.TRANSACTION
    return client


def at_authorization(capa: bytes = CAPA) -> POP3Client:
    client = POP3Client()
    player = Player(client, lambda client, event: None)
    player.receive(GREETING)
    client.capa()
    player.step()
    player.receive(capa)
    return client


def test_without_pipelining_each_answer_is_awaited() -> None:
    client = at_transaction(OLD)
    client.stat()
    with pytest.raises(LocalProtocolError, match="no PIPELINING"):
        client.list()
    client.receive_data(b"+OK 0 0\r\n")
    assert isinstance(client.next_event(), MailboxStatus)
    client.list()


def test_a_window_of_a_hundred() -> None:
    client = at_transaction()
    for number in range(1, MAX_PIPELINED + 1):
        client.dele(number)
    with pytest.raises(LocalProtocolError, match="100 answers are awaited"):
        client.noop()
    client.receive_data(b"+OK\r\n")
    assert client.next_event() == ReplyReceived("DELE", Reply("+OK"), 1)
    client.noop()


def test_undrained_output_pauses() -> None:
    client = at_transaction()
    assert client.next_event() is PAUSED
    client._output_size = MAX_PENDING_OUTPUT + 1
    client.stat()
    client.receive_data(b"+OK 0 0\r\n")
    assert client.next_event() is PAUSED
    client.data_to_send()
    assert isinstance(client.next_event(), MailboxStatus)


# -- the server breaks the protocol (H37, H63) -----------------------------------------------------------

BROKEN: dict[str, tuple[list[Call], list[bytes], str]] = {
    "no greeting": ([], [b"220 mx ESMTP\r\n"], r"a line that is no answer: b'220 mx ESMTP\r\n'"),
    "an empty line": ([], [b"\r\n"], r"a line that is no answer: b'\r\n'"),
    "a challenge as greeting": ([], [b"+ \r\n"], r"a line that is no answer: b'+ \r\n'"),
    "escapes": ([], [b"-OK \x1b[2J\xff\r\n"], r"a line that is no answer: b'-OK \x1b[2J\xff\r\n'"),
    "+OKAY": ([], [b"+OKAY\r\n"], r"a line that is no answer: b'+OKAY\r\n'"),
    "a long line": ([], [b"+OK " + b"x" * 507 + b"\r\n"], "a line of more than 512 bytes"),
    "two greetings": ([log_in], [GREETING * 2], "an answer to no command: b'+OK POP3 ready"),
    "half a line too early": ([log_in], [GREETING + b"+", b"OK\r\n"], r"an answer to no command: b'+OK\r\n'"),
    "an answer too many": ([log_in, POP3Client.noop], [GREETING, b"+OK\r\n", b"+OK\r\n+OK \r\n"],
    "an answer to no command"),
    "a challenge to PASS": ([log_in], [GREETING, b"+OK\r\n", b"+ \r\n"], r"a line that is no answer: b'+ \r\n'"),
    "STAT": ([log_in, POP3Client.stat], [GREETING, b"+OK\r\n", b"+OK\r\n", b"+OK two\r\n"],
    r"answered STAT with b'+OK two\r\n'"),
    "STAT without": ([log_in, POP3Client.stat], [GREETING, b"+OK\r\n", b"+OK\r\n", b"+OK\r\n"], "answered STAT with"),
    "LIST": (
        [log_in, POP3Client.list], [GREETING, b"+OK\r\n", b"+OK\r\n", b"+OK\r\n1 120\r\n2\r\n.\r\n"],
        r"a line that is no scan listing: b'2\r\n'",
    ),
    "LIST -1": (
        [log_in, POP3Client.list], [GREETING, b"+OK\r\n", b"+OK\r\n", b"+OK\r\n1 -1\r\n"],
        r"no scan listing: b'1 -1\r\n'",
    ),
    "LIST 1_0": (
        [log_in, POP3Client.list], [GREETING, b"+OK\r\n", b"+OK\r\n", b"+OK\r\n1_0 1\r\n"], "no scan listing",
    ),
    "LIST n": (
        [log_in, lambda c: c.list(1)], [GREETING, b"+OK\r\n", b"+OK\r\n", b"+OK 1 " + b"9" * 21 + b"\r\n"],
        "no scan listing",
    ),
    "UIDL": (
        [log_in, POP3Client.uidl], [GREETING, b"+OK\r\n", b"+OK\r\n", b"+OK\r\n1 a b\r\n"],
        r"a line that is no unique-id listing: b'1 a b\r\n'",
    ),
    "UIDL with control bytes": (
        [log_in, POP3Client.uidl], [GREETING, b"+OK\r\n", b"+OK\r\n", b"+OK\r\n1 \x1b[2J\r\n"], "no unique-id listing",
    ),
    "UIDL n": ([log_in, lambda c: c.uidl(1)], [GREETING, b"+OK\r\n", b"+OK\r\n", b"+OK 1\r\n"], "no unique-id listing"),
    "LIST of another": (
        [log_in, lambda c: c.list(1)], [GREETING, b"+OK\r\n", b"+OK\r\n", b"+OK 2 5\r\n"],
        r"answered LIST 1 with b'+OK 2 5\r\n'",
    ),
    "UIDL of another": (
        [log_in, lambda c: c.uidl(1)], [GREETING, b"+OK\r\n", b"+OK\r\n", b"+OK 2 x\r\n"],
        r"answered UIDL 1 with b'+OK 2 x\r\n'",
    ),
    "endless capabilities": ([POP3Client.capa], [GREETING, b"+OK\r\n" + b"X\r\n" * 257], "more than 256 capabilities"),
    "a long capability": ([POP3Client.capa], [GREETING, b"+OK\r\n" + b"X" * 600 + b"\r\n"],
    "a line of more than 512 bytes"),
    "a challenge too early": (
        [POP3Client.capa, sasl_login], [GREETING, CAPA + b"+ VXNlcm5hbWU6\r\n"], "an answer to no command: b'+ VXNl",
    ),
    "success behind a cancel": (
        [POP3Client.capa, sasl_login], [GREETING, CAPA, b"+ !\r\n", b"+OK \r\n"],
        "claims success in an exchange that was cancelled",
    ),
    "challenge behind a cancel": (
        [POP3Client.capa, sasl_login], [GREETING, CAPA, b"+ !\r\n", b"+ \r\n"], "one AUTH challenge after the other",
    ),
    "h37 bytes behind STLS": ([POP3Client.capa, POP3Client.stls], [GREETING, CAPA, b"+OK go\r\n+"],
    "bytes behind its answer to STLS"),
}  # fmt: skip


def test_h63_an_answer_too_many_among_pipelined_ones() -> None:
    """It came before the third command was sent, so it is no answer to that."""
    client = POP3Client()

    def hear(answer: bytes) -> Any:
        client.receive_data(answer)
        return client.next_event()

    hear(GREETING)
    client.capa()
    hear(CAPA)
    log_in(client)
    assert hear(b"+OK\r\n") is NEED_DATA
    assert isinstance(hear(b"+OK\r\n"), Authenticated)
    client.noop()
    client.noop()
    assert isinstance(hear(b"+OK\r\n" * 3), ReplyReceived)
    client.noop()
    assert isinstance(client.next_event(), ReplyReceived)
    with pytest.raises(RemoteProtocolError, match="an answer to no command"):
        client.next_event()


@pytest.mark.parametrize("name", BROKEN)
def test_h63_broken_answers(name: str) -> None:
    calls, answers, text = BROKEN[name]
    if name.startswith(("h37", "two", "half", "an answer too", "a challenge too")):
        # what arrives later meets another state: that is the point
        outcome = new_player(calls)().play([[answer] for answer in answers]).outcome
    else:
        outcome = play_every_way(calls, answers)
    error, closed = outcome.events[-2:]
    assert isinstance(error, Raised) and text in error.text
    assert isinstance(closed, ConnectionClosed) and closed.reason == error.text
    assert error.text.isprintable()


def test_h63_the_offending_line_is_attached() -> None:
    client = POP3Client()
    client.receive_data(b"x" * 100 + b"\x1b\r\n")
    with pytest.raises(RemoteProtocolError) as caught:
        client.next_event()
    assert caught.value.received == b"x" * 100 + b"\x1b\r\n"
    assert str(caught.value) == f"the server sent a line that is no answer: {b'x' * 60!r}"


def test_h63_a_line_may_have_512_bytes_and_more_if_asked() -> None:
    line = b"+OK " + b"x" * 506 + b"\r\n"
    client = POP3Client()
    client.receive_data(line)
    assert isinstance(client.next_event(), Greeting)
    client = POP3Client(max_reply_line=2000)
    client.receive_data(b"+OK " + b"x" * 1994 + b"\r\n")
    assert isinstance(client.next_event(), Greeting)


def test_h63_a_server_that_gives_up_may_say_so() -> None:
    client = at_transaction()
    assert client.next_event() is PAUSED
    client.receive_data(b"-ERR idle for too long\r\n")
    assert client.next_event() == ConnectionClosed(
        "-ERR idle for too long", reply=Reply("-ERR", "idle for too long")
    )


def test_h37_what_was_known_before_tls_is_forgotten() -> None:
    client = at_authorization()
    client.stls()
    client.receive_data(b"+OK go\r\n")
    assert isinstance(client.next_event(), ReadyForTLS)
    assert client.next_event() is PAUSED
    with pytest.raises(LocalProtocolError, match="for TLS"):
        client.receive_data(b"x")
    client.tls_established()
    assert not client.capabilities
    assert client.mechanisms == ()
    with pytest.raises(LocalProtocolError, match="no mechanism, as far as"):
        plain(client)


def test_memory_is_bounded_and_work_linear() -> None:
    calls = [log_in, lambda c: c.retr(1)]
    begun = [[GREETING], [b"+OK\r\n"], [b"+OK\r\n"], [b"+OK\r\n"]]

    def reading() -> Player[POP3Client]:
        return new_player(calls)().play(begun, eof=False)

    for pattern in (b"x", b"\r\n", b".\r\r\n", b"line\r\n..\r\n"):
        assert_memory_bounded(reading, pattern, 140_000, size=1024 * 1024)
        assert_linear(reading, pattern, size=500)

    def listing() -> Player[POP3Client]:
        return new_player([log_in, POP3Client.uidl])().play(begun, eof=False)

    assert_memory_bounded(listing, b"1 abc\r\n", 500_000, size=1024 * 1024)
    assert_linear(listing, b"1 abc\r\n", size=500)
    assert_memory_bounded(new_player([]), b"+OK ", 2000, size=1024 * 1024)
    assert_linear(new_player([]), b"+OK ", size=500)


# -- the application breaks the protocol (H64, order) ------------------------------------------------------

BAD_ARGUMENTS: dict[str, tuple[Call, str]] = {
    "name with CRLF": (lambda c: c.login("a\r\nPASS b", SECRET, allow_clear=True), "CR, LF, NUL"),
    "name with LF": (lambda c: c.login("a\nb", SECRET, allow_clear=True), "CR, LF, NUL"),
    "name with NUL": (lambda c: c.login("a\0", SECRET, allow_clear=True), "CR, LF, NUL"),
    "password with CRLF": (lambda c: c.login("a", Secret(b"b\r\nQUIT"), allow_clear=True), "CR, LF, NUL"),
    "no name": (lambda c: c.login("", SECRET, allow_clear=True), "not empty"),
    "no password": (lambda c: c.login("a", Secret(b""), allow_clear=True), "not empty"),
    "long name": (lambda c: c.login("a" * 249, SECRET, allow_clear=True), "a line of 256 bytes is over 255"),
    "in clear": (lambda c: c.login("a", SECRET), r"credentials in clear: call stls\(\)"),
    "AUTH in clear": (lambda c: c.authenticate(PlainClient("a", SECRET)), "credentials in clear"),
    "language": (lambda c: c.language("en\r\nQUIT"), "a language tag"),
    "language list": (lambda c: c.language(""), "a language tag"),
    "LANG with a space": (lambda c: c.language("en US"), "a language tag"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_h64_no_argument_can_end_its_command(name: str) -> None:
    call, text = BAD_ARGUMENTS[name]
    client = at_authorization()
    before = client.state
    with pytest.raises(LocalProtocolError, match=text) as caught:
        call(client)
    assert "tanstaaf" not in str(caught.value)
    assert client.data_to_send() == b""
    assert client.state is before and client.awaiting == ""


@pytest.mark.parametrize(
    "call",
    [lambda c: c.retr(0), lambda c: c.dele(-1), lambda c: c.top(1, -1), lambda c: c.list(0), lambda c: c.uidl(-5),
    lambda c: c.retr(10**300)],
)
def test_h64_numbers(call: Call) -> None:
    client = at_transaction()
    with pytest.raises(LocalProtocolError):
        call(client)
    assert client.data_to_send() == b"" and client.awaiting == ""


def test_names_beyond_ascii_need_utf8_user() -> None:
    client = at_authorization()
    client.login("jöe", Secret("sécret".encode()), allow_clear=True)
    assert client.data_to_send() == "USER jöe\r\n".encode()
    client = at_authorization(b"+OK\r\nUTF8\r\n.\r\n")
    with pytest.raises(LocalProtocolError, match="ASCII only; try authenticate"):
        client.login("jöe", SECRET, allow_clear=True)
    with pytest.raises(LocalProtocolError, match="ASCII only"):
        client.login("joe", Secret(b"\xff"), allow_clear=True)


def test_a_long_initial_response_waits_for_its_challenge() -> None:
    client = at_authorization()
    client.authenticate(PlainClient("joe", Secret(b"x" * 200)), allow_clear=True)
    assert client.data_to_send() == b"AUTH PLAIN\r\n"
    client.receive_data(b"+ \r\n")
    assert client.next_event() is NEED_DATA
    sent = client.data_to_send()
    assert len(sent) > 255 and sent.endswith(b"\r\n")
    client = at_authorization()
    client.authenticate(PlainClient("joe", Secret(b"x" * 173)), allow_clear=True)
    assert len(client.data_to_send()) <= 255


OPERATIONS: dict[str, Call] = {
    "CAPA": POP3Client.capa,
    "LANG": lambda c: c.language("en"),
    "STLS": POP3Client.stls,
    "UTF8": POP3Client.utf8,
    "USER": log_in,
    "AUTH": plain,
    "STAT": POP3Client.stat,
    "LIST": POP3Client.list,
    "UIDL": POP3Client.uidl,
    "RETR": lambda c: c.retr(1),
    "TOP": lambda c: c.top(1, 0),
    "DELE": lambda c: c.dele(1),
    "RSET": POP3Client.rset,
    "NOOP": POP3Client.noop,
    "QUIT": POP3Client.quit,
}


def at_tls() -> POP3Client:
    client = at_authorization()
    client.stls()
    client.receive_data(b"+OK\r\n")
    client.next_event()
    return client


def closed() -> POP3Client:
    client = at_transaction()
    client.receive_eof()
    client.next_event()
    return client


def logging_in() -> POP3Client:
    client = at_authorization()
    log_in(client)
    return client


STATES: dict[State, Callable[[], POP3Client]] = {
    State.GREETING: POP3Client,
    State.AUTHORIZATION: at_authorization,
    State.AUTH: logging_in,
    State.TLS: at_tls,
    State.TRANSACTION: at_transaction,
    State.CLOSED: closed,
}


@pytest.mark.parametrize("verb", OPERATIONS)
@pytest.mark.parametrize("state", STATES, ids=[state.value for state in STATES])
def test_every_command_in_every_state(state: State, verb: str) -> None:
    client = STATES[state]()
    assert client.state is state
    client.data_to_send()
    if state in ALLOWED[verb]:
        OPERATIONS[verb](client)
        assert client.data_to_send().startswith(verb.encode())
        assert client.awaiting == verb
    else:
        with pytest.raises(LocalProtocolError, match=f"{verb}: " if verb != "STLS" else "STLS|stls"):
            OPERATIONS[verb](client)
        assert client.data_to_send() == b"" and client.state is state


def test_what_must_be_offered_or_comes_too_late() -> None:
    client = at_authorization(OLD)
    for call, text in [
        (POP3Client.stls, r"not offered; call capa\(\)"),
        (POP3Client.utf8, r"not offered; call capa\(\)"),
        (plain, "no mechanism"),
    ]:
        with pytest.raises(LocalProtocolError, match=text):
            call(client)
    client = at_authorization()
    client.utf8()
    with pytest.raises(LocalProtocolError, match="the answer to UTF8 is awaited"):
        client.stls()
    client.receive_data(b"+OK\r\n")
    client.next_event()
    assert client.in_utf8
    with pytest.raises(LocalProtocolError, match="too late for TLS"):
        client.stls()
    with pytest.raises(LocalProtocolError, match="PLAIN LOGIN, not X"):
        mechanism = PlainClient("a", SECRET)
        mechanism.name = "X"
        client.authenticate(mechanism, allow_clear=True)


def test_other_misuse() -> None:
    client = POP3Client()
    with pytest.raises(LocalProtocolError, match=r"receive_eof\(\)"):
        client.receive_data(b"")
    client.tls_established()
    client.receive_data(GREETING)
    assert isinstance(client.next_event(), Greeting)
    with pytest.raises(LocalProtocolError, match="follows ReadyForTLS"):
        client.tls_established()
    with pytest.raises(LocalProtocolError, match="TLS is in use already"):
        client.stls()


def test_after_the_end_nothing_is_sent_or_read() -> None:
    client = closed()
    event = client.next_event()
    client.receive_data(b"+OK\r\n")
    assert client.next_event() is event
    assert client.data_to_send() == b""


def test_no_secret_shows() -> None:
    client = at_authorization()
    log_in(client)
    assert "tanstaaf" not in repr(client)
    client.receive_data(b"+OK\r\n")
    client.next_event()
    assert client.data_to_send().endswith(b"PASS tanstaaf\r\n")
    assert client._pass_line == b""


# -- print and parse ---------------------------------------------------------------------------------------

TAGS = st.text("ABCXYZ019-/", min_size=1, max_size=9)
PARAMETERS = st.lists(st.text("abcXYZ019-=+.", min_size=1, max_size=9), max_size=4, unique=True)


@given(st.dictionaries(TAGS, PARAMETERS, max_size=6))
def test_capabilities_print_parse_equal(offered: dict[str, list[str]]) -> None:
    parsed = parse_capabilities(print_capabilities(offered))
    assert parsed == {tag: tuple(parameters) for tag, parameters in offered.items()}
    assert parse_capabilities(print_capabilities(parsed)) == parsed


@given(st.lists(st.text(max_size=30), max_size=6))
def test_capabilities_of_any_text(lines: list[str]) -> None:
    parsed = parse_capabilities(lines)
    assert parse_capabilities(print_capabilities(parsed)) == parsed


def test_capabilities() -> None:
    parsed = parse_capabilities(["sasl PLAIN", "SASL  SCRAM-SHA-256 PLAIN ", "", "\tX", "EXPIRE 60 USER", "\u017ftls"])
    assert parsed == {"SASL": ("PLAIN", "SCRAM-SHA-256"), "EXPIRE": ("60", "USER")}


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    text = draw(st.text(st.sampled_from("abc XYZ.-<>()@é日"), max_size=60))
    code = draw(st.sampled_from(["", "", "AUTH", "SYS/TEMP", "IN-USE", "UTF8", "LOGIN-DELAY", "X/Y/Z"]))
    return Reply(draw(st.sampled_from(["+OK", "-ERR"])), text, code)


@given(replies())
def test_replies_print_parse_equal(reply: Reply) -> None:
    assert parse_reply(reply.encode()) == reply


@given(st.binary(max_size=60))
def test_any_line_is_a_reply_or_none(line: bytes) -> None:
    reply = parse_reply(line)
    if reply is not None:
        again = parse_reply(reply.encode())
        assert again is not None
        assert parse_reply(again.encode()) == again


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"-ERR [AUTH] PLAIN authentication is disabled\r\n", Reply("-ERR", "PLAIN authentication is disabled",
        "AUTH")),
        (b"-ERR [SYS/PERM] x\r\n", Reply("-ERR", "x", "SYS/PERM")),
        (b"-ERR [in-use]\r\n", Reply("-ERR", "", "in-use")),
        (b"-ERR [not a code] x\r\n", Reply("-ERR", "[not a code] x")),
        (b"-ERR [x\r\n", Reply("-ERR", "[x")),
        (b"-err\n", Reply("-ERR")),
        (b"+OK \xff\r\n", Reply("+OK", "\udcff")),
        (b"+OK\t\r\n", None),
        (b"+OKAY\r\n", None),
        (b"OK\r\n", None),
        ("+O\u212a\r\n".encode(), None),
    ],
)  # fmt: skip
def test_replies(line: bytes, reply: Reply | None) -> None:
    assert parse_reply(line) == reply


@pytest.mark.parametrize(
    ("code", "temporary"),
    [("", False), ("AUTH", False), ("SYS/PERM", False), ("SYS/TEMP", True), ("in-use", True), ("LOGIN-DELAY", True)],
)
def test_which_failures_may_pass(code: str, temporary: bool) -> None:
    assert Reply("-ERR", "x", code).is_temporary is temporary
    assert not Reply("+OK", "x", code).is_temporary


# -- any bytes ---------------------------------------------------------------------------------------------

CHUNKS = st.one_of(
    st.binary(min_size=1, max_size=30),
    st.sampled_from([b"+OK\r\n", b"-ERR no\r\n", b"+ \r\n", b".\r\n", b"1 2\r\n", b"+OK 1 2\r\n", GREETING, CAPA,
    b"\r\n.\r\n", b"x" * 600]),
)


@given(st.lists(CHUNKS, max_size=20), st.lists(st.sampled_from(sorted(OPERATIONS)), max_size=20))
def test_only_the_documented_exceptions_escape(chunks: list[bytes], verbs: list[str]) -> None:
    left = list(verbs)

    def react(client: POP3Client, event: ClientEvent) -> None:
        if isinstance(event, ReadyForTLS):
            client.tls_established()
        while left and client.state is not State.CLOSED:
            try:
                OPERATIONS[left.pop(0)](client)
            except LocalProtocolError:
                continue
            break

    player = Player(POP3Client(), react, raises=RemoteProtocolError)
    for chunk in chunks:
        if player.machine.state is State.TLS:
            break
        player.receive(chunk)
    player.end()
    assert player.ended
