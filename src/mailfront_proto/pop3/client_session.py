"""What a POP3 client keeps of its session: what was sent, what comes back, and how it ends.

Strategy: every command that goes out is noted in `_awaiting`. An answer is one line, and for some commands more: those
are read line by line (CAPA, LIST, UIDL) or as slices of a message (RETR, TOP) until the final dot, and come out in
bounded parts. Only then does the next answer begin. The methods that send commands are in
`mailfront_proto.pop3.client`.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import ClassVar, Final, NoReturn

from mailfront_proto.buffer import OVERSIZED, ReceiveBuffer
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.machine import ClientMachine
from mailfront_proto.pop3.capabilities import NOTHING, parse_capabilities
from mailfront_proto.pop3.client_events import (
    Authenticated,
    AuthenticationFailed,
    CapaDone,
    ClientEvent,
    Greeting,
    MailboxStatus,
    MessageData,
    ReadyForTLS,
    ReplyReceived,
    Sizes,
    UniqueIds,
)
from mailfront_proto.pop3.events import ConnectionClosed
from mailfront_proto.pop3.message_decoder import MessageDecoder
from mailfront_proto.pop3.replies import Reply, parse_reply
from mailfront_proto.pop3.states import State
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, NeedData, Paused
from mailfront_proto.sasl.client_exchange import ClientExchange

MAX_REPLY_LINE: Final = 512
"""Bytes of a line that is no part of a message, CRLF included (RFC 2449 section 4)."""

MAX_CAPABILITIES: Final = 256
"""Lines of an answer to CAPA. No RFC sets a limit; servers have some twenty."""

MAX_PIPELINED: Final = 100
"""Commands that may be unanswered: 25 kB at most, which fits any socket buffer, so that server and client never wait
for each other's reading."""

ENTRIES_AT_ONCE: Final = 1000
"""Entries of one `Sizes` or `UniqueIds`."""

# What may stand in front of another command that goes out before the answer is in (RFC 2449 section 6.6)
_PIPELINED: Final = ("STAT", "LIST", "UIDL", "RETR", "TOP", "DELE", "RSET", "NOOP")

_LOGIN, _TRANSACTION = State.AUTHORIZATION, State.TRANSACTION

ALLOWED: Final[dict[str, tuple[State, ...]]] = {
    "CAPA": (_LOGIN, _TRANSACTION),
    "LANG": (_LOGIN, _TRANSACTION),
    **dict.fromkeys(("STLS", "UTF8", "USER", "AUTH"), (_LOGIN,)),
    **dict.fromkeys(_PIPELINED, (_TRANSACTION,)),
    "QUIT": (_LOGIN, _TRANSACTION),
}
"""The states in which each command may be sent."""

_WHAT_FIRST: Final = {
    State.GREETING: "the server has not greeted yet: call next_event() until it returns Greeting",
    State.AUTHORIZATION: "call login() or authenticate() first, and next_event() until it returns Authenticated",
    State.AUTH: "a login is under way: call next_event() until it returns Authenticated or AuthenticationFailed",
    State.TLS: "the TLS handshake is awaited: call tls_established(), or receive_eof() if it has failed",
    State.TRANSACTION: "the login is done already",
    State.CLOSED: "the connection has ended: next_event() returns ConnectionClosed",
}

# "nn mm", and anything behind a blank (RFC 1939 section 5, STAT and LIST)
_two_numbers: Final = re.compile(rb"([0-9]{1,10}) ([0-9]{1,20})(?: [^\r\n]*)?\r?\n?\Z").match
_unique_id: Final = re.compile(rb"([0-9]{1,10}) ([!-~]{1,400})\r?\n?\Z").match

Awaited = tuple[str, int, int]
"""A verb, a message number, 0 where it has none, and how much had come when it was sent: in that is no answer to it."""


class ClientSession(ClientMachine[ClientEvent]):
    """The part of `POP3Client` that does not depend on which commands there are to call."""

    _handshake_state: ClassVar[object] = State.TLS
    _state: State

    def __init__(self, max_reply_line: int) -> None:
        self._buffer = ReceiveBuffer()
        super().__init__(self._buffer.feed)
        self.capabilities: Mapping[str, tuple[str, ...]] = NOTHING
        """What the server offers, tag in upper case to parameters; empty before `CapaDone`, and again after
        ``tls_established()``."""
        self.in_tls = False
        self.in_utf8 = False
        """The server has accepted UTF8 (RFC 6856 section 2)."""

        self._max_line = max_reply_line
        self._state = State.GREETING

        self._awaiting: deque[Awaited] = deque([("greeting", 0, 0)])
        self._first: Reply | None = None  # the first line of an answer whose other lines are being read
        self._sizes: list[tuple[int, int]] = []
        self._uids: list[tuple[int, bytes]] = []
        self._capa_lines: list[str] = []
        self._decoder: MessageDecoder | None = None
        self._exchange: ClientExchange | None = None
        self._pass_line = b""

    # -- the connection ----------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the session stands, were all unanswered commands accepted."""
        return self._state

    @property
    def awaiting(self) -> str:
        """What the server owes an answer to: ``greeting``, a verb, or an empty string."""
        return self._awaiting[0][0] if self._awaiting else ""

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms that the server offers (RFC 5034 section 3), in upper case and in order."""
        return tuple(mechanism.upper() for mechanism in self.capabilities.get("SASL", ()))

    def next_event(self) -> ClientEvent | NeedData | Paused:
        """The next event; `NEED_DATA` while an answer is awaited; `PAUSED` while the next call is the application's: a
        command, ``tls_established()``, ``data_to_send()``.

        Bytes may be received while it returns `PAUSED`, too: a server that closes an idle connection may say ``-ERR``
        first, and `ConnectionClosed` tells of it.
        """
        while True:
            if self._events:
                return self._events.popleft()
            if self._closed is not None:
                return self._closed
            if self._output_size > MAX_PENDING_OUTPUT:
                return PAUSED
            if self._state is State.TLS and not self._eof:
                return PAUSED
            if not self._read():
                if not self._eof:
                    return NEED_DATA if self._awaiting else PAUSED
                self._end("EOF")

    def tls_established(self) -> None:
        """The handshake behind `ReadyForTLS` is done: all knowledge of the server is forgotten; call ``capa()`` again
        (RFC 2595 section 4).

        For implicit TLS call it before the first ``next_event()``; the greeting then comes inside TLS.
        """
        if self._state not in (State.TLS, State.GREETING) or len(self._buffer):
            raise LocalProtocolError("tls_established() follows ReadyForTLS, or comes before all else")
        self.in_tls = True
        if self._state is State.TLS:
            self.capabilities = NOTHING
            self._state = State.AUTHORIZATION

    # -- sending -----------------------------------------------------------------------------------------

    def _command(self, verb: str, line: bytes, number: int = 0) -> None:
        """Send `line`, complete with CRLF, if `verb` may be sent now."""
        self._check_order(verb)
        self._send(verb, line, number)

    def _check_order(self, verb: str) -> None:
        """Whether `verb` may be sent now."""
        if self._state not in ALLOWED[verb]:
            raise LocalProtocolError(f"{verb}: {_WHAT_FIRST[self._state]}")
        if not self._awaiting:
            return
        last = self._awaiting[-1][0]
        if last not in _PIPELINED or (verb not in _PIPELINED and verb != "QUIT"):
            raise LocalProtocolError(f"{verb}: {answer_awaited(last)}")
        if "PIPELINING" not in self.capabilities:
            raise LocalProtocolError(
                f"{verb}: {answer_awaited(last)}; this server offers no PIPELINING, as far as capa() has told"
            )
        if len(self._awaiting) >= MAX_PIPELINED:
            raise LocalProtocolError(f"{verb}: {MAX_PIPELINED} answers are awaited: call next_event() first")

    def _send(self, verb: str, line: bytes, number: int = 0) -> None:
        self._awaiting.append((verb, number, self._received))
        self._put(line)

    # -- answers -----------------------------------------------------------------------------------------

    def _read(self) -> bool:
        """Go one step on in what was received; False when there is not enough of it."""
        if self._decoder is not None:
            return self._read_message(self._decoder)
        line = self._buffer.read_line(self._max_line) if self._buffer.has_unread else None
        if line is None:
            return False
        if line == OVERSIZED:
            self._fail(f"sent a line of more than {self._max_line} bytes")
        if self._first is not None:
            self._read_one_of_many(self._first, line)
        else:
            self._read_first(line)
        return True

    def _read_first(self, line: bytes) -> None:
        """The first line of an answer, or its only one."""
        if self.awaiting == "AUTH" and line[:2] in (b"+ ", b"+\r", b"+\n"):
            self._challenged(line)
            return
        reply = parse_reply(line)
        if reply is None:
            self._fail(f"sent a line that is no answer: {line[:60]!r}", line)
        if self._comes_too_early(line):
            # A server that gives up on us may say so; anything else would shift all answers that follow.
            if reply.is_positive or self._awaiting:
                self._fail(f"sent an answer to no command: {line[:60]!r}", line)
            self._end(str(reply), reply)
            return
        verb, number, _ = self._awaiting[0]
        if reply.is_positive and verb in _MANY_LINES and not (number and verb in ("LIST", "UIDL")):
            self._first = reply
            if verb in ("RETR", "TOP"):
                self._decoder = MessageDecoder()
            return
        self._awaiting.popleft()
        handler = _HANDLERS.get(verb)
        if handler is not None and (reply.is_positive or verb in _HANDLE_FAILURES):
            handler(self, verb, number, reply, line)
        else:
            self._events.append(ReplyReceived(verb, reply, number))

    def _comes_too_early(self, line: bytes) -> bool:
        """Whether `line`, which was read just now, began before the command that it would answer was sent."""
        begins_at = self._received - len(self._buffer) - len(line)
        return not self._awaiting or begins_at < self._awaiting[0][2]

    def _read_one_of_many(self, first: Reply, line: bytes) -> None:
        """A line behind the first, dots unstuffed (RFC 1939 section 3)."""
        verb = self._awaiting[0][0]
        if line[:1] == b".":
            if line in (b".\r\n", b".\n"):
                self._end_of_lines(first, verb)
                return
            line = line[1:]
        if verb == "CAPA":
            if len(self._capa_lines) == MAX_CAPABILITIES:
                self._fail(f"sent more than {MAX_CAPABILITIES} capabilities")
            self._capa_lines.append(line.rstrip(b"\r\n").decode("ascii", "replace"))
        elif verb == "LIST":
            self._sizes.append(self._scan_listing(line))
        else:
            self._uids.append(self._unique_id(line))
        if len(self._sizes) + len(self._uids) == ENTRIES_AT_ONCE:
            self._tell_entries()

    def _tell_entries(self) -> None:
        if self._sizes:
            self._events.append(Sizes(self._sizes))
            self._sizes = []
        if self._uids:
            self._events.append(UniqueIds(self._uids))
            self._uids = []

    def _end_of_lines(self, first: Reply, verb: str) -> None:
        self._first = None
        self._awaiting.popleft()
        if verb == "CAPA":
            self.capabilities = parse_capabilities(self._capa_lines)
            self._capa_lines = []
            self._events.append(CapaDone(first, self.capabilities))
        else:
            self._tell_entries()
            self._events.append(ReplyReceived(verb, first))

    def _read_message(self, decoder: MessageDecoder) -> bool:
        data = self._buffer.read_all()
        if not data:
            return False
        decoded, rest = decoder.feed(data)
        if decoded:
            self._events.append(MessageData(decoded))
        if rest is not None:
            self._buffer.push_back(rest)
            self._decoder = None
            assert self._first is not None
            verb, number, _ = self._awaiting.popleft()
            self._events.append(ReplyReceived(verb, self._first, number))
            self._first = None
        return True

    def _scan_listing(self, text: bytes) -> tuple[int, int]:
        found = _two_numbers(text)
        if found is None:
            self._fail(f"sent a line that is no scan listing: {text[:60]!r}", text)
        return int(found[1]), int(found[2])

    def _unique_id(self, text: bytes) -> tuple[int, bytes]:
        found = _unique_id(text)
        if found is None:
            self._fail(f"sent a line that is no unique-id listing: {text[:60]!r}", text)
        return int(found[1]), found[2]

    def _greeted(self, verb: str, number: int, reply: Reply, line: bytes) -> None:
        self._state = State.AUTHORIZATION
        self._events.append(Greeting(reply))

    def _capa_refused(self, verb: str, number: int, reply: Reply, line: bytes) -> None:
        self.capabilities = NOTHING
        self._events.append(CapaDone(reply, NOTHING))

    def _stls_answered(self, verb: str, number: int, reply: Reply, line: bytes) -> None:
        if len(self._buffer):
            # They came in clear, but would be read as protected: an injection (RFC 2595 section 9)
            self._fail("sent bytes behind its answer to STLS")
        self._state = State.TLS
        self._events.append(ReadyForTLS(reply))

    def _user_answered(self, verb: str, number: int, reply: Reply, line: bytes) -> None:
        pass_line, self._pass_line = self._pass_line, b""
        if reply.is_positive:
            self._send("PASS", pass_line)
        else:
            self._login_answered(verb, number, reply, line)

    def _challenged(self, line: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        if self._comes_too_early(line):
            self._fail(f"sent an answer to no command: {line[:60]!r}", line)
        response = exchange.respond(line[1:].strip(b" \r\n"))
        if response is None:
            self._fail("sends one AUTH challenge after the other")
        self._awaiting.popleft()
        self._send("AUTH", response + b"\r\n")

    def _login_answered(self, verb: str, number: int, reply: Reply, line: bytes) -> None:
        exchange, self._exchange = self._exchange, None
        if not reply.is_positive:
            self._state = State.AUTHORIZATION
            self._events.append(AuthenticationFailed(reply, exchange.cancelled if exchange is not None else ""))
            return
        objection = exchange.objection() if exchange is not None else ""
        if objection:
            self._fail(objection)
        self._state = State.TRANSACTION
        self._events.append(Authenticated(reply))

    def _status(self, verb: str, number: int, reply: Reply, line: bytes) -> None:
        found = _two_numbers(line[4:])
        if found is None:
            self._fail(f"answered STAT with {line[:60]!r}", line)
        self._events.append(MailboxStatus(int(found[1]), int(found[2])))

    def _one_entry(self, verb: str, number: int, reply: Reply, line: bytes) -> None:
        if verb == "LIST":
            self._sizes.append(self._scan_listing(line[4:]))
            told = self._sizes[0][0]
        else:
            self._uids.append(self._unique_id(line[4:]))
            told = self._uids[0][0]
        if told != number:
            self._fail(f"answered {verb} {number} with {line[:60]!r}", line)
        self._tell_entries()
        self._events.append(ReplyReceived(verb, reply, number))

    def _utf8_answered(self, verb: str, number: int, reply: Reply, line: bytes) -> None:
        self.in_utf8 = True
        self._events.append(ReplyReceived(verb, reply))

    def _quit_answered(self, verb: str, number: int, reply: Reply, line: bytes) -> None:
        self._events.append(ReplyReceived(verb, reply))
        self._end("QUIT", reply)

    # -- the end -----------------------------------------------------------------------------------------

    def _fail(self, what: str, line: bytes = b"") -> NoReturn:
        """The server has lost us."""
        error = RemoteProtocolError(f"the server {what}", received=line)
        self._end(str(error))
        raise error

    def _end(self, reason: str, reply: Reply | None = None) -> None:
        """Nothing more is read or written."""
        unfinished = bool(self._awaiting) or self._state is State.TLS
        self._closed = ConnectionClosed(reason, unfinished, reply)
        self._state = State.CLOSED
        self._awaiting.clear()
        self._buffer.clear()
        self._drop_output()
        self._decoder = None
        self._pass_line = b""


def answer_awaited(verb: str) -> str:
    """What to say to a command that came too early."""
    return f"the answer to {verb} is awaited: call next_event() until it comes"


_MANY_LINES: Final = frozenset(("CAPA", "LIST", "UIDL", "RETR", "TOP"))
"""Commands whose positive answer has several lines (LIST and UIDL of one message have one)."""

_HANDLE_FAILURES: Final = frozenset(("greeting", "CAPA", "USER", "PASS", "AUTH", "QUIT"))
"""Commands whose handlers take ``-ERR``, too."""

Handler = Callable[[ClientSession, str, int, Reply, bytes], None]

_HANDLERS: Final[dict[str, Handler]] = {
    "greeting": ClientSession._greeted,
    "CAPA": ClientSession._capa_refused,
    "STLS": ClientSession._stls_answered,
    "USER": ClientSession._user_answered,
    "PASS": ClientSession._login_answered,
    "AUTH": ClientSession._login_answered,
    "UTF8": ClientSession._utf8_answered,
    "STAT": ClientSession._status,
    "LIST": ClientSession._one_entry,
    "UIDL": ClientSession._one_entry,
    "QUIT": ClientSession._quit_answered,
}
