"""What an SMTP client keeps of its session: what was sent, what comes back, and how it ends.

Strategy: every command that goes out is noted in `_awaiting`; answers are framed by `ReplyReader` and
matched to it in order, each by a handler of its own, which makes the event and moves the state. The state
is what it will be if the server accepts everything that is on its way, so that commands can be pipelined;
once all is answered it is put right. The methods that send commands are in `mailfront_proto.smtp.client`.
"""

from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final, NoReturn

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.machine import ClientMachine
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, NeedData, Paused
from mailfront_proto.sasl.client_exchange import ClientExchange
from mailfront_proto.smtp.body_encoder import ChunkEncoder, DotEncoder
from mailfront_proto.smtp.capabilities import Capabilities
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
from mailfront_proto.smtp.client_limits import LimitsUse
from mailfront_proto.smtp.client_lines import command_line
from mailfront_proto.smtp.client_order import (
    ALLOWED,
    MAX_CHUNKS,
    MAX_PIPELINED,
    PIPELINED,
    POSITIVE,
    WHAT_FIRST,
    answer_awaited,
)
from mailfront_proto.smtp.events import ConnectionClosed
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.reply_reader import MAX_KEPT, BadReply, ReplyReader
from mailfront_proto.smtp.states import State
from mailfront_proto.smtp.transaction import Transaction


class ClientSession(ClientMachine[ClientEvent]):
    """The part of `SMTPClient` that does not depend on which commands there are to call."""

    _handshake_state: ClassVar[object] = State.TLS
    _state: State

    def __init__(
        self, local_name: str, lmtp: bool, max_reply_line: int, max_reply_lines: int, chunk_size: int
    ) -> None:
        self._reader = ReplyReader(max_reply_line, max_reply_lines)
        super().__init__(self._reader.feed)
        self.lmtp = lmtp
        self.capabilities = Capabilities()
        """What the server offers; empty before `HelloDone`, and again after ``tls_established()``."""
        self.in_tls = False
        self.authenticated = False
        self._local_name = local_name
        self._chunk_size = chunk_size

        self._state = State.GREETING

        self._awaiting: deque[str] = deque(["greeting"])
        self._expected_at: deque[int] = deque([0])  # how much had come when each was sent: in that is no answer to it
        self._reply_at = self._next_at = 0  # where in what came a reply begins

        self._sender_accepted = False
        self._recipients_accepted = 0
        self._utf8 = False
        self._binary = False  # MAIL said BODY=BINARYMIME
        self._message: Transaction | None = None
        self._body: DotEncoder | ChunkEncoder | None = None  # None: no piece of a message is awaited
        self._chunk_refused = False
        self._use = LimitsUse()
        self._exchange: ClientExchange | None = None

    # -- the connection ----------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the session stands, were all unanswered commands accepted."""
        return self._state

    @property
    def awaiting(self) -> str:
        """What the server owes an answer to: ``greeting``, a verb, ``.`` for a message (also for its last chunk), or
        an empty string.
        Each has its own deadline (RFC 5321 section 4.5.3.2)."""
        return self._awaiting[0] if self._awaiting else ""

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
                return NEED_DATA if self._awaiting and not self._wants_body() else PAUSED

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
            self._awaiting[-1] in PIPELINED
            and "PIPELINING" in self.capabilities
            and len(self._awaiting) < MAX_PIPELINED
        ):
            command = message.next_command(all_answered=not self._awaiting)
            if command is None:
                break
            if command[0] == "BDAT":  # asked for, it would be the message itself
                self._body = ChunkEncoder(self._chunk_size, message.is_binary)
                self._events.append(ReadyForBody())
                break
            self._send(*command)
        if message.is_over and not self._awaiting:
            self._message = None
            self._body = None
            self._events.append(MessageDone(message.results))

    def _check_order(self, verb: str) -> None:
        """Whether `verb` may be sent now."""
        if self._message is not None:
            raise LocalProtocolError(
                f"{verb}: send_message() is under way: call next_event() until it returns MessageDone"
            )
        last = self._awaiting[-1] if self._awaiting else ""
        # In LMTP nobody can say how often a server answers to a last chunk behind one that it refuses.
        follows = last == "BDAT" and not self.lmtp if verb == "BDAT" else last in PIPELINED
        if last and not follows:
            raise LocalProtocolError(f"{verb}: {answer_awaited(last)}")
        if self._state not in ALLOWED[verb]:
            raise LocalProtocolError(f"{verb}: {WHAT_FIRST[self._state]}")
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
            self._use.transaction()
        elif verb == "RCPT":
            self._state = State.RECIPIENTS
        elif verb == "RSET":
            self._state = State.READY

    def _expect(self, verb: str, answers: int = 1) -> None:
        """Note that `verb` will be answered. What is here before it went out is no answer to it."""
        self._awaiting.extend([verb] * answers)
        self._expected_at.extend([self._received] * answers)

    def _check_body(self) -> None:
        if self._state is State.CLOSED:
            raise LocalProtocolError(WHAT_FIRST[State.CLOSED])
        if self._body is None or self._body.ended:
            raise LocalProtocolError(
                "the server awaits no message: call send_body() and end_of_body() behind ReadyForBody"
            )

    def _finish_body(self) -> None:
        body = self._body
        if isinstance(body, ChunkEncoder):
            body.finish()
            self._send_chunks()
        elif body is not None:
            self._put(body.finish())
            self._expect(".", self._recipients_accepted if self.lmtp else 1)

    def _wants_body(self) -> bool:
        """Whether more of a message can be sent before the next answer."""
        body = self._body
        return isinstance(body, ChunkEncoder) and not body.ended and not self._chunk_refused and self._may_send_chunk()

    def _may_send_chunk(self) -> bool:
        """Whether the server lets us send a chunk now (RFC 3030 section 4.2: behind others, with PIPELINING)."""
        in_flight = len(self._awaiting)
        return not in_flight or ("PIPELINING" in self.capabilities and not self.lmtp and in_flight < MAX_CHUNKS)

    def _send_chunks(self) -> None:
        """Send the chunks that are complete, as far as the server lets us; none behind one that was refused."""
        body = self._body
        if not isinstance(body, ChunkEncoder):
            return
        if self._chunk_refused:
            body.clear()
        while self._may_send_chunk() and (chunk := body.next_chunk()) is not None:
            self._send_chunk(*chunk)

    def _send_chunk(self, data: bytes, last: bool) -> None:
        """BDAT (RFC 3030 section 2); the last one is answered as a message is."""
        if last:
            self._expect(".", self._recipients_accepted if self.lmtp else 1)
        else:
            self._expect("BDAT")
        self._put(b"BDAT %d LAST\r\n" % len(data) if last else b"BDAT %d\r\n" % len(data))
        self._put(data)
        self._state = State.CHUNKS

    # -- answers -----------------------------------------------------------------------------------------

    def _next_reply(self) -> Reply | None:
        try:
            reply = self._reader.next_reply()
        except BadReply as error:
            self._fail(f"sent {error}", error.received)
        if reply is not None:
            self._reply_at, self._next_at = self._next_at, self._received - self._reader.held
        return reply

    def _replied(self, reply: Reply) -> None:
        """Match `reply` to its command."""
        if not self._awaiting or self._reply_at < self._expected_at[0]:
            self._replied_unasked(reply)
            return
        verb = self._awaiting.popleft()
        self._expected_at.popleft()
        expected = POSITIVE.get(verb, (2,))
        if reply.is_positive and reply.code // 100 not in expected:
            self._fail(f"answered {verb} with {reply.code}", reply)
        _HANDLERS[verb](self, verb, reply)
        if reply.code == 421:  # RFC 5321 section 3.8: the server closes
            self._end(str(reply), reply, verb)
        elif not self._awaiting:
            self._settle()

    def _replied_unasked(self, reply: Reply) -> None:
        """A reply to no command. 421 may come at any time (RFC 5321 section 3.8), and some servers refuse a
        message before its end; both end the session."""
        if reply.code != 421 and not (self._state is State.BODY and reply.code >= 400):
            self._fail(f"sent a reply to no command: {reply.code}", reply)
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
            self._fail("sent bytes behind its answer to STARTTLS", reply)
        self._state = State.TLS
        self._events.append(ReadyForTLS(reply))

    def _xclient_answered(self, verb: str, reply: Reply) -> None:
        if not reply.is_positive:
            self._events.append(ReplyReceived(verb, reply))
            return
        self.capabilities = Capabilities()
        self.authenticated = False
        self._greeted(verb, reply)  # as if we had just connected

    def _auth_answered(self, verb: str, reply: Reply) -> None:
        exchange = self._exchange
        assert exchange is not None
        if reply.code // 100 == 3:
            answer = exchange.respond(reply.text.encode("ascii", "replace"))
            if answer is None:
                self._fail("sends one AUTH challenge after the other", reply)
            self._expect(verb)
            self._put(answer + b"\r\n")
            return
        objection = exchange.objection() if reply.is_positive else ""
        if objection:
            self._fail(objection, reply)
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
            self._chunk_refused = False
        self._tell(verb, reply)

    def _data_answered(self, verb: str, reply: Reply) -> None:
        if not reply.is_positive:
            self._tell(verb, reply)
            return
        if self.lmtp and not self._recipients_accepted:  # RFC 2033 section 4.2: it must be 503
            self._fail("takes a message for no recipient", reply)
        self._state = State.BODY
        self._body = DotEncoder()
        if self._message is not None and not self._message.has_recipients:
            # RFC 2920 section 3.1: DATA was pipelined in vain, "the client SHOULD send a single dot"
            self._events.append(ReplyReceived(verb, reply))
            self._finish_body()
        else:
            self._events.append(ReadyForBody(reply))

    def _chunk_answered(self, verb: str, reply: Reply) -> None:
        if not reply.is_positive:  # RFC 3030 section 2: the message has failed, and only RSET clears it away
            self._chunk_refused = True
        self._tell(verb, reply)
        self._send_chunks()

    def _message_answered(self, verb: str, reply: Reply) -> None:
        if not self._awaiting:
            self._body = None
            if not self._chunk_refused:
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

    def _fail(self, what: str, received: Reply | bytes) -> NoReturn:
        """The server has lost us, by what was `received`."""
        if isinstance(received, Reply):
            received = received.encode(None)[-MAX_KEPT:]
        error = RemoteProtocolError(f"the server {what}", received=received)
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
        half_sent = self._state is State.CHUNKS and not self._chunk_refused
        in_message = half_sent or self._state in (State.BODY, State.AUTH, State.TLS)
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
        self._body = None
        self._awaiting.clear()
        self._reader.clear()
        self._drop_output()


_HANDLERS: Final[dict[str, Callable[[ClientSession, str, Reply], None]]] = {
    "greeting": ClientSession._greeted,
    "EHLO": ClientSession._hello_answered,
    "LHLO": ClientSession._hello_answered,
    "HELO": ClientSession._hello_answered,
    "STARTTLS": ClientSession._starttls_answered,
    "XCLIENT": ClientSession._xclient_answered,
    "AUTH": ClientSession._auth_answered,
    "MAIL": ClientSession._envelope_answered,
    "RCPT": ClientSession._envelope_answered,
    "RSET": ClientSession._envelope_answered,
    "DATA": ClientSession._data_answered,
    "BDAT": ClientSession._chunk_answered,
    ".": ClientSession._message_answered,
    "NOOP": ClientSession._tell,
    "VRFY": ClientSession._tell,
    "QUIT": ClientSession._quit_answered,
}
