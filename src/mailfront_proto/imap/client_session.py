"""What an IMAP client keeps of its session: what was sent, what comes back, and how it ends.

Strategy: one command is under way at a time, with a tag of its own; its tagged answer ends it. Untagged responses are
told or noted as they come. The methods that send commands are in `mailfront_proto.imap.client`.
"""

from collections import deque
from typing import ClassVar, Final, NoReturn

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.imap.client_events import (
    Authenticated,
    AuthenticationFailed,
    CapabilityDone,
    ClientEvent,
    Greeting,
    IdDone,
    Notice,
    ReadyForTLS,
    ReplyReceived,
)
from mailfront_proto.imap.events import ConnectionClosed
from mailfront_proto.imap.replies import Reply, parse_status
from mailfront_proto.imap.response_reader import BadResponse, ResponseReader, parse_id
from mailfront_proto.imap.states import State
from mailfront_proto.machine import ClientMachine
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, NeedData, Paused
from mailfront_proto.sasl.client_exchange import ClientExchange

_LOGIN_STATES: Final = (State.CLEAR, State.PROTECTED)
_COMMAND_STATES: Final = (*_LOGIN_STATES, State.AUTHENTICATED)

ALLOWED: Final[dict[str, tuple[State, ...]]] = {
    **dict.fromkeys(("CAPABILITY", "NOOP", "ID", "LOGOUT"), _COMMAND_STATES),
    **dict.fromkeys(("STARTTLS", "LOGIN", "AUTHENTICATE"), _LOGIN_STATES),
}
"""The states in which each command may be sent."""

_WHAT_FIRST: Final = {
    State.GREETING: "the server has not greeted yet: call next_event() until it returns Greeting",
    State.AUTH: "a login is under way: call next_event() until it returns Authenticated or AuthenticationFailed",
    State.TLS: "the TLS handshake is awaited: call tls_established(), or receive_eof() if it has failed",
    State.AUTHENTICATED: "the login is done already",
    State.HANDED_OVER: "the connection is handed over",
    State.CLOSED: "the connection has ended: next_event() returns ConnectionClosed",
}


class ClientSession(ClientMachine[ClientEvent]):
    """The part of `IMAPClient` that does not depend on which commands there are to call."""

    _handshake_state: ClassVar[object] = State.TLS
    _state: State

    def __init__(self, allow_preauth: bool, max_line: int, max_response: int) -> None:
        self._reader = ResponseReader(max_line, max_response)
        super().__init__(self._reader.feed)
        self.capabilities: tuple[str, ...] = ()
        """What the server offers, in upper case; empty while that is not known, and again after
        ``tls_established()``."""
        self.in_tls = False

        self._allow_preauth = allow_preauth
        self._state = State.GREETING

        self._commands = 0
        self._tag = b""
        self._awaiting = "greeting"
        self._parts: deque[bytes] = deque()  # of a command whose literals wait to be asked for
        self._exchange: ClientExchange | None = None
        # Where in what came a response begins, and how much had come when a command, or a part of it, was sent
        self._response_at = self._next_at = 0
        self._begun_at = self._sent_at = 0
        self._id: dict[str, str | None] = {}
        self._bye: Reply | None = None

    # -- the connection ----------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    @property
    def awaiting(self) -> str:
        """What the server owes an answer to: ``greeting``, a command, or an empty string."""
        return self._awaiting

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms that the server offers, in upper case and in order."""
        return tuple(word[5:] for word in self.capabilities if word.startswith("AUTH="))

    def receive_data(self, data: bytes) -> None:
        """Store bytes from the server. Call `next_event` next. Bytes after the end are dropped."""
        if self._state is State.HANDED_OVER:
            raise LocalProtocolError("receive_data(): the connection is handed over; feed the bytes to its next owner")
        super().receive_data(data)

    def next_event(self) -> ClientEvent | NeedData | Paused:
        """The next event; `NEED_DATA` while an answer is awaited; `PAUSED` while the next call is the application's: a
        command, ``tls_established()``, ``hand_over()``, ``data_to_send()``.

        Bytes may be received while it returns `PAUSED`, too: a server that closes an idle connection says ``BYE``
        first, and `ConnectionClosed` tells of it.
        """
        while True:
            if self._events:
                return self._events.popleft()
            if self._closed is not None:
                return self._closed
            if self._output_size > MAX_PENDING_OUTPUT:
                return PAUSED
            if not self._eof and (
                self._state is State.TLS or (self._state is State.AUTHENTICATED and not self._awaiting)
            ):
                return PAUSED
            try:
                response = self._reader.next_response()
            except BadResponse as error:
                self._fail(f"sent {error}", error.received)
            if response is not None:
                self._response_at, self._next_at = self._next_at, self._received - self._reader.held
                self._responded(response)
            elif self._eof:
                self._end("EOF" if self._bye is None else str(self._bye), self._bye)
            else:
                return NEED_DATA if self._awaiting else PAUSED

    def tls_established(self) -> None:
        """The handshake behind `ReadyForTLS` is done: all knowledge of the server is forgotten; call ``capability()``
        again (RFC 9051 section 6.2.1).

        For implicit TLS call it before the first ``next_event()``; the greeting then comes inside TLS.
        """
        if self._state not in (State.TLS, State.GREETING) or self._reader.has_begun:
            raise LocalProtocolError("tls_established() follows ReadyForTLS, or comes before all else")
        self.in_tls = True
        if self._state is State.TLS:
            self.capabilities = ()
            self._state = State.PROTECTED

    def hand_over(self) -> bytes:
        """The login is done, and the connection another's from now on: returns what the server has sent behind the
        answer to the login, for the next owner to read first.

        Raises `LocalProtocolError` before `Authenticated`, and while an answer is awaited.
        """
        if self._state is not State.AUTHENTICATED or self._awaiting or self._output:
            raise LocalProtocolError("hand_over() follows Authenticated, once all output is drained")
        trailing = self._reader.read_all()
        self._end("handed over", None)
        self._state = State.HANDED_OVER
        return trailing

    # -- sending -----------------------------------------------------------------------------------------

    def _check_order(self, command: str) -> None:
        """Whether `command` may be sent now."""
        if self._state not in ALLOWED[command]:
            raise LocalProtocolError(f"{command}: {_WHAT_FIRST[self._state]}")
        if self._awaiting:
            raise LocalProtocolError(
                f"{command}: the answer to {self._awaiting} is awaited: call next_event() until it comes"
            )

    def _send(self, command: str, *parts: bytes) -> None:
        """Send a command: its name, and what stands behind it, cut where a literal waits to be asked for."""
        self._commands += 1
        self._tag = b"A%04d" % self._commands
        self._awaiting = command
        first, *others = parts or (b"",)
        self._parts.extend(others)
        self._begun_at = self._sent_at = self._received
        self._put(b"%b %b%b" % (self._tag, command.encode("ascii"), first))

    # -- responses ---------------------------------------------------------------------------------------

    def _responded(self, pieces: list[bytes]) -> None:
        line = pieces[0]
        head, _, text = line.partition(b" ")
        if head == b"*":
            self._untagged(text, pieces)
        elif head == b"+":
            self._continued(text, line)
        elif self._awaiting not in ("", "greeting") and head == self._tag:
            reply = parse_status(text)
            if reply is None or reply.status in ("BYE", "PREAUTH"):
                self._fail("sent a tagged response that is none", line)
            # A refusal may come in the middle of a command; who accepts has received all of it.
            if self._response_at < (self._sent_at if reply.is_positive else self._begun_at):
                self._fail("sent an answer before its command", line)
            self._answered(reply)
        else:
            self._fail("sent what answers no command", line)

    def _untagged(self, text: bytes, pieces: list[bytes]) -> None:
        word = text.partition(b" ")[0].upper()
        reply = parse_status(text) if len(pieces) == 1 else None
        if self._state is State.GREETING:
            if reply is None or reply.status not in ("OK", "PREAUTH", "BYE"):
                self._fail("sent a greeting that is none", pieces[0])
            self._greeted(reply)
        elif reply is not None:
            if reply.status == "PREAUTH":
                self._fail("sent PREAUTH behind its greeting", pieces[0])
            self._note_code(reply)
            if reply.status == "BYE":
                self._bye = reply
                if self._awaiting != "LOGOUT":
                    self._end(str(reply), reply)
            else:
                self._events.append(Notice(reply))
        elif word == b"CAPABILITY" and len(pieces) == 1:
            self._note_capabilities(text[len(word) :].decode("ascii", "replace"))
        elif word == b"ID" and self._awaiting == "ID":
            fields = parse_id([text[len(word) :], *pieces[1:]])
            if fields is None:
                self._fail("sent an ID that is none", pieces[0])
            self._id = fields
        # Any other may come at any time (RFC 9051 section 7), and does not concern a login.

    def _greeted(self, reply: Reply) -> None:
        self._awaiting = ""
        self._note_code(reply)
        if reply.status == "PREAUTH" and not self._allow_preauth:
            # Nobody has authenticated, and STARTTLS is not possible any more (RFC 9051 section 11.1).
            self._fail("greets with PREAUTH", b"")
        self._events.append(Greeting(reply))
        if reply.status == "BYE":
            self._end(str(reply), reply)
        elif reply.status == "PREAUTH":
            self._state = State.AUTHENTICATED
        else:
            self._state = State.PROTECTED if self.in_tls else State.CLEAR

    def _note_code(self, reply: Reply) -> None:
        word, _, rest = reply.code.partition(" ")
        if word.upper() == "CAPABILITY":
            self._note_capabilities(rest)

    def _note_capabilities(self, text: str) -> None:
        self.capabilities = tuple(text.upper().split(" ")) if text.strip() else ()
        self.capabilities = tuple(word for word in self.capabilities if word)

    def _continued(self, text: bytes, line: bytes) -> None:
        if self._response_at < self._sent_at:
            self._fail("sent an answer before its command", line)
        self._sent_at = self._received
        if self._parts:
            self._put(self._parts.popleft())
        elif self._exchange is not None:
            answer = self._exchange.respond(text)
            if answer is None:
                self._fail("sends one challenge after the other", line)
            self._put(answer + b"\r\n")
        else:
            self._fail("sent a continuation for no command", line)

    def _answered(self, reply: Reply) -> None:
        command, self._awaiting = self._awaiting, ""
        self._parts.clear()
        self._note_code(reply)
        if command in ("LOGIN", "AUTHENTICATE"):
            self._login_answered(reply)
        elif command == "STARTTLS" and reply.is_positive:
            if self._reader.has_begun:
                # They came in clear, but would be read as protected: an injection
                self._fail("sent bytes behind its answer to STARTTLS", b"")
            self._state = State.TLS
            self._events.append(ReadyForTLS(reply))
        elif command == "CAPABILITY" and reply.is_positive:
            self._events.append(CapabilityDone(reply, self.capabilities))
        elif command == "ID" and reply.is_positive:
            self._events.append(IdDone(reply, self._id))
        else:
            self._events.append(ReplyReceived(command, reply))
            if command == "LOGOUT" and reply.is_positive:
                self._end("LOGOUT", self._bye)

    def _login_answered(self, reply: Reply) -> None:
        exchange, self._exchange = self._exchange, None
        if reply.is_positive:
            objection = exchange.objection() if exchange is not None else ""
            if objection:
                self._fail(objection, b"")
            self._state = State.AUTHENTICATED
            self._events.append(Authenticated(reply))
        else:
            self._state = State.PROTECTED if self.in_tls else State.CLEAR
            self._events.append(AuthenticationFailed(reply, exchange.cancelled if exchange is not None else ""))

    # -- the end -----------------------------------------------------------------------------------------

    def _fail(self, what: str, received: bytes) -> NoReturn:
        """The server has lost us."""
        self._end(f"the server {what}", None)
        shown = f": {received[:60]!r}" if received else ""
        raise RemoteProtocolError(f"the server {what}{shown}", received=received)

    def _end(self, reason: str, reply: Reply | None) -> None:
        """Nothing more is read or written."""
        if self._closed is not None:
            return
        self._closed = ConnectionClosed(reason, self._state in (State.AUTH, State.TLS), reply)
        self._state = State.CLOSED
        self._awaiting = ""
        self._parts.clear()
        self._exchange = None
        self._reader.clear()
        self._drop_output()
