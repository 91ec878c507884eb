"""What an SMTP client keeps of its session: what was sent, what comes back, and how it ends.

Strategy: every command that goes out is noted in `_awaiting`; answers are framed by `ReplyReader` and
matched to it in order, each by a handler of its own, which makes the event and moves the state. The state
is what it will be if the server accepts everything that is on its way, so that commands can be pipelined;
once all is answered it is put right. The methods that send commands are in `mailfront_proto.smtp.client`.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, NeedData, Paused
from mailfront_proto.smtp.body_encoder import DotEncoder
from mailfront_proto.smtp.capabilities import Capabilities
from mailfront_proto.smtp.client_auth import ClientExchange
from mailfront_proto.smtp.client_events import (
    Authenticated,
    AuthenticationFailed,
    ClientEvent,
    Greeting,
    HelloDone,
    MessageDone,
    ReadyForBody,
    ReadyForTLS,
    ReplyReceived,
    Stage,
)
from mailfront_proto.smtp.client_lines import command_line
from mailfront_proto.smtp.events import ConnectionClosed
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.reply_reader import BadReply, ReplyReader
from mailfront_proto.smtp.states import State
from mailfront_proto.smtp.transaction import Transaction

MAX_PIPELINED: Final = 100
"""Commands that may be unanswered. Their answers fit any socket buffer, so that server and client never
wait for each other's reading (RFC 2920 section 3.1), and 98 recipients fit into one write."""

# RFC 2920 section 3.1: these may stand anywhere in a group; every other command is the last one of its group.
_PIPELINED: Final = frozenset({"MAIL", "RCPT", "RSET"})

_CONNECTED, _READY = State.CONNECTED, State.READY
_MAIL, _RECIPIENTS = State.MAIL, State.RECIPIENTS

ALLOWED: Final[dict[str, tuple[State, ...]]] = {
    "EHLO": (_CONNECTED, _READY),
    "LHLO": (_CONNECTED, _READY),
    "HELO": (_CONNECTED, _READY),
    "STARTTLS": (_READY,),
    "AUTH": (_READY,),
    "MAIL": (_READY,),
    "RCPT": (_MAIL, _RECIPIENTS),
    "DATA": (_RECIPIENTS,),
    "RSET": (_READY, _MAIL, _RECIPIENTS),
    "NOOP": (_CONNECTED, _READY, _MAIL, _RECIPIENTS),
    "VRFY": (_CONNECTED, _READY, _MAIL, _RECIPIENTS),
    "QUIT": (_CONNECTED, _READY, _MAIL, _RECIPIENTS),
}
"""The states in which each command may be sent (RFC 5321 section 4.1.4)."""

_WHAT_FIRST: Final = {
    State.GREETING: "the server has not greeted yet: call next_event() until it returns Greeting",
    State.CONNECTED: "call hello() first, and next_event() until it returns HelloDone",
    State.READY: "call mail() first",
    State.MAIL: "a transaction is open: call recipient() to go on with it, or reset()",
    State.RECIPIENTS: "a transaction is open: call data() to go on with it, or reset()",
    State.BODY: "the message is being sent: call send_body() and end_of_body()",
    State.AUTH: "AUTH is under way: call next_event() until it returns Authenticated or AuthenticationFailed",
    State.TLS: "the TLS handshake is awaited: call tls_established(), or receive_eof() if it has failed",
    State.CLOSED: "the connection has ended: next_event() returns ConnectionClosed",
}


class ClientSession:
    """The part of `SMTPClient` that does not depend on which commands there are to call."""

    def __init__(
        self, local_name: str, lmtp: bool, max_reply_line: int, max_reply_lines: int
    ) -> None:
        self.lmtp = lmtp
        self.capabilities = Capabilities()
        """What the server offers; empty before `HelloDone`, and again after ``tls_established()``."""
        self.in_tls = False
        self.authenticated = False
        self._local_name = local_name

        self._state = State.GREETING
        self._reader = ReplyReader(max_reply_line, max_reply_lines)
        self._eof = False
        self._output: list[bytes] = []
        self._output_size = 0
        self._events: deque[ClientEvent] = deque()
        self._closed: ConnectionClosed | None = None

        self._awaiting: deque[str] = deque(["greeting"])
        self._answered_too_early = False  # bytes of an answer came before its command went out

        self._sender_accepted = False
        self._recipients_accepted = 0
        self._utf8 = False
        self._encoder = DotEncoder()
        self._message: Transaction | None = None
        self._exchange: ClientExchange | None = None

    # -- the connection ----------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the session stands, were all unanswered commands accepted."""
        return self._state

    @property
    def awaiting(self) -> str:
        """What the server owes an answer to: ``greeting``, a verb, ``.`` for a message, or an empty string.
        Each has its own deadline (RFC 5321 section 4.5.3.2)."""
        return self._awaiting[0] if self._awaiting else ""

    def receive_data(self, data: bytes) -> None:
        """Store bytes from the server. Call `next_event` next. Bytes after the end are dropped."""
        if not data:
            raise LocalProtocolError('receive_data(b""): call receive_eof() when the server has closed')
        if self._state is State.TLS:
            raise LocalProtocolError("receive_data(): these bytes are for TLS; call tls_established() first")
        if self._state is not State.CLOSED:
            self._reader.feed(data)

    def receive_eof(self) -> None:
        """The server will send nothing more, or the connection is lost."""
        self._eof = True

    def data_to_send(self) -> bytes:
        """Drain what is to be written to the server; b"" when there is nothing. While ``awaiting`` is
        ``AUTH`` it holds credentials: show it nowhere."""
        data = b"".join(self._output)
        self._output.clear()
        self._output_size = 0
        return data

    def next_event(self) -> ClientEvent | NeedData | Paused:
        """The next event; `NEED_DATA` while an answer is awaited; `PAUSED` while the next call is the
        application's: a command, a piece of the body, ``tls_established()``, ``data_to_send()``.

        Bytes may be received while it returns `PAUSED`, too: a server that closes an idle connection says
        421 first (RFC 5321 section 3.8), and `ConnectionClosed` tells of it.
        """
        while True:
            if self._events:
                return self._events.popleft()
            if self._closed is not None:
                return self._closed
            if self._output_size > MAX_PENDING_OUTPUT:
                return PAUSED
            if self._message is not None:
                self._advance(self._message)
                if self._events:
                    continue
            if self._state is State.TLS and not self._eof:
                return PAUSED
            reply = self._next_reply()
            if reply is not None:
                self._replied(reply)
            elif self._eof:
                self._connection_lost()
            else:
                return NEED_DATA if self._awaiting else PAUSED

    def tls_established(self) -> None:
        """The handshake behind `ReadyForTLS` is done: all knowledge of the server is forgotten; call
        ``hello()`` again (RFC 3207 section 4.2).

        For implicit TLS call it before the first ``next_event()``; the greeting then comes inside TLS.
        """
        if self._state not in (State.TLS, State.GREETING) or self._reader.has_begun:
            raise LocalProtocolError("tls_established() follows ReadyForTLS, or comes before all else")
        self.in_tls = True
        if self._state is State.TLS:
            self.capabilities = Capabilities()
            self.authenticated = False
            self._state = State.CONNECTED

    # -- sending -----------------------------------------------------------------------------------------

    def _advance(self, message: Transaction) -> None:
        """Send what may be sent now, and tell the end."""
        while not self._awaiting or (
            self._awaiting[-1] in _PIPELINED
            and "PIPELINING" in self.capabilities
            and len(self._awaiting) < MAX_PIPELINED
        ):
            command = message.next_command(all_answered=not self._awaiting)
            if command is None:
                break
            self._send(*command)
        if message.is_over and not self._awaiting:
            self._message = None
            self._events.append(MessageDone(message.results))

    def _check_order(self, verb: str) -> None:
        """Whether `verb` may be sent now."""
        if self._message is not None:
            raise LocalProtocolError(
                f"{verb}: send_message() is under way: call next_event() until it returns MessageDone"
            )
        last = self._awaiting[-1] if self._awaiting else ""
        if last and last not in _PIPELINED:
            raise LocalProtocolError(f"{verb}: {answer_awaited(last)}")
        if self._state not in ALLOWED[verb]:
            raise LocalProtocolError(f"{verb}: {_WHAT_FIRST[self._state]}")
        if last and "PIPELINING" not in self.capabilities:
            raise LocalProtocolError(f"{verb}: {answer_awaited(last)}; this server offers no PIPELINING")

    def _command(self, verb: str, line: bytes) -> None:
        """Send `line`, complete with CRLF, if `verb` may be sent now."""
        self._check_order(verb)
        self._send(verb, line)

    def _send(self, verb: str, line: bytes) -> None:
        self._expect(verb)
        self._put(line)
        if verb == "MAIL":
            self._state = State.MAIL
        elif verb == "RCPT":
            self._state = State.RECIPIENTS
        elif verb == "RSET":
            self._state = State.READY

    def _expect(self, verb: str, answers: int = 1) -> None:
        """Note that `verb` will be answered. What is here before it went out is no answer to it."""
        if not self._awaiting and self._reader.has_begun:
            self._answered_too_early = True
        self._awaiting.extend([verb] * answers)

    def _check_body(self) -> None:
        if self._state is State.CLOSED:
            raise LocalProtocolError(_WHAT_FIRST[State.CLOSED])
        if self._state is not State.BODY or self._awaiting:
            raise LocalProtocolError(
                "the server awaits no message: call send_body() and end_of_body() behind ReadyForBody"
            )

    def _finish_body(self) -> None:
        self._put(self._encoder.finish())
        self._expect(".", self._recipients_accepted if self.lmtp else 1)

    def _put(self, data: bytes) -> None:
        if data:
            self._output.append(data)
            self._output_size += len(data)

    # -- answers -----------------------------------------------------------------------------------------

    def _next_reply(self) -> Reply | None:
        try:
            return self._reader.next_reply()
        except BadReply as error:
            self._fail(f"sent {error}")

    def _replied(self, reply: Reply) -> None:
        """Match `reply` to its command."""
        if not self._awaiting or self._answered_too_early:
            self._replied_unasked(reply)
            return
        verb = self._awaiting.popleft()
        expected = _POSITIVE.get(verb, (2,))
        if reply.is_positive and reply.code // 100 not in expected:
            self._fail(f"answered {verb} with {reply.code}")
        _HANDLERS[verb](self, verb, reply)
        if reply.code == 421:  # RFC 5321 section 3.8: the server closes
            self._end(str(reply), reply, verb)
        elif not self._awaiting:
            self._settle()

    def _replied_unasked(self, reply: Reply) -> None:
        """A reply to no command. 421 may come at any time (RFC 5321 section 3.8), and some servers refuse a
        message before its end; both end the session."""
        if reply.code != 421 and not (self._state is State.BODY and reply.code >= 400):
            self._fail(f"sent a reply to no command: {reply.code}")
        if self._state is State.BODY and self._message is None:
            self._events.append(ReplyReceived(".", reply))
        self._end(str(reply), reply, "." if self._state is State.BODY else self.awaiting)

    def _settle(self) -> None:
        """All commands are answered: the state is what was accepted of them."""
        if self._state in (State.MAIL, State.RECIPIENTS):
            if not self._sender_accepted:
                self._state = State.READY
            else:
                self._state = State.RECIPIENTS if self._recipients_accepted else State.MAIL

    def _greeted(self, verb: str, reply: Reply) -> None:
        self._state = State.CONNECTED
        self._events.append(Greeting(reply))

    def _hello_answered(self, verb: str, reply: Reply) -> None:
        if verb == "EHLO" and reply.code >= 500:  # RFC 5321 section 3.2: fall back to HELO
            self._events.append(ReplyReceived(verb, reply))
            self._send("HELO", command_line("HELO", f"HELO {self._local_name}".encode("ascii")))
            return
        capabilities = Capabilities.parse(reply.lines[1:] if verb != "HELO" and reply.is_positive else ())
        if reply.is_positive:
            self._state = State.READY
            self.capabilities = capabilities
        self._events.append(HelloDone(reply, capabilities))

    def _starttls_answered(self, verb: str, reply: Reply) -> None:
        if not reply.is_positive:
            self._events.append(ReplyReceived(verb, reply))
            return
        if self._reader.has_begun:
            # They came in clear, but would be read as protected: an injection (RFC 3207 section 6)
            self._fail("sent bytes behind its answer to STARTTLS")
        self._state = State.TLS
        self._events.append(ReadyForTLS(reply))

    def _auth_answered(self, verb: str, reply: Reply) -> None:
        exchange = self._exchange
        assert exchange is not None
        if reply.code // 100 == 3:
            answer = exchange.respond(reply.text)
            if answer is None:
                self._fail("sends one AUTH challenge after the other")
            self._expect(verb)
            self._put(answer)
            return
        self._state = State.READY
        self._exchange = None
        if reply.is_positive:
            self.authenticated = True
            self._events.append(Authenticated(reply))
        else:
            self._events.append(AuthenticationFailed(reply, exchange.cancelled))

    def _envelope_answered(self, verb: str, reply: Reply) -> None:
        if verb == "RCPT":
            self._recipients_accepted += reply.is_positive
        elif verb == "MAIL" or reply.is_positive:
            self._sender_accepted = verb == "MAIL" and reply.is_positive
            self._recipients_accepted = 0
        self._tell(verb, reply)

    def _data_answered(self, verb: str, reply: Reply) -> None:
        if not reply.is_positive:
            self._tell(verb, reply)
            return
        if self.lmtp and not self._recipients_accepted:  # RFC 2033 section 4.2: it must be 503
            self._fail("takes a message for no recipient")
        self._state = State.BODY
        self._encoder = DotEncoder()
        if self._message is not None and not self._message.has_recipients:
            # RFC 2920 section 3.1: DATA was pipelined in vain, "the client SHOULD send a single dot"
            self._events.append(ReplyReceived(verb, reply))
            self._finish_body()
        else:
            self._events.append(ReadyForBody(reply))

    def _message_answered(self, verb: str, reply: Reply) -> None:
        if not self._awaiting:
            self._state = State.READY
            self._sender_accepted = False
            self._recipients_accepted = 0
        self._tell(verb, reply)

    def _quit_answered(self, verb: str, reply: Reply) -> None:
        self._events.append(ReplyReceived(verb, reply))
        self._end("QUIT", reply, verb)

    def _tell(self, verb: str, reply: Reply) -> None:
        self._events.append(ReplyReceived(verb, reply))
        if self._message is not None:
            self._message.replied(verb, reply)

    # -- the end -----------------------------------------------------------------------------------------

    def _fail(self, what: str) -> NoReturn:
        """The server has lost us."""
        error = RemoteProtocolError(f"the server {what}")
        self._end(str(error), None, "", Reply(451, f"4.5.0 The server broke the protocol: it {what}"))
        raise error

    def _connection_lost(self) -> None:
        verb = self.awaiting
        what = f"before the answer to {verb}" if verb not in ("", ".") else "before the message was answered"
        self._end("QUIT" if verb == "QUIT" else "EOF", None, "", Reply(451, f"4.4.2 Connection lost {what}"))

    def _end(self, reason: str, reply: Reply | None, verb: str, lost: Reply | None = None) -> None:
        """Nothing more is read or written. A message under way fails with `lost` where the connection was
        lost, else with `reply`, the answer to `verb`."""
        if self._closed is not None:
            return
        in_message = self._state in (State.BODY, State.AUTH, State.TLS)
        message = self._message
        if message is not None:
            self._message = None
            in_message = not message.is_over
            if lost is not None:
                message.lost(lost, Stage.CONNECTION)
            elif reply is not None:
                message.lost_by(reply, verb)
            self._events.append(MessageDone(message.results))
        self._closed = ConnectionClosed(reason, in_message, reply)
        self._state = State.CLOSED
        self._awaiting.clear()
        self._reader.clear()
        self._output.clear()
        self._output_size = 0


def answer_awaited(verb: str) -> str:
    """What to say to a command that came too early."""
    what = "the message" if verb == "." else verb
    return f"the answer to {what} is awaited: call next_event() until it comes"


_POSITIVE: Final[dict[str, tuple[int, ...]]] = {"DATA": (3,), "AUTH": (2, 3)}
"""First digits of a positive answer; 2 where nothing is said (RFC 5321 section 4.3.2)."""

_HANDLERS: Final[dict[str, Callable[[ClientSession, str, Reply], None]]] = {
    "greeting": ClientSession._greeted,
    "EHLO": ClientSession._hello_answered,
    "LHLO": ClientSession._hello_answered,
    "HELO": ClientSession._hello_answered,
    "STARTTLS": ClientSession._starttls_answered,
    "AUTH": ClientSession._auth_answered,
    "MAIL": ClientSession._envelope_answered,
    "RCPT": ClientSession._envelope_answered,
    "RSET": ClientSession._envelope_answered,
    "DATA": ClientSession._data_answered,
    ".": ClientSession._message_answered,
    "NOOP": ClientSession._tell,
    "VRFY": ClientSession._tell,
    "QUIT": ClientSession._quit_answered,
}
