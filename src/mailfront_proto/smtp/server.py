"""The server role of SMTP (RFC 5321) and LMTP (RFC 2033), as a pull machine.

Strategy: bytes are framed first (`ReceiveBuffer`, `DotDecoder`), then parsed, then looked up in the table
of `mailfront_proto.smtp.states`. What the protocol alone decides (syntax, order, limits, NOOP) is answered
here; everything else becomes an event and waits for the application's answer. All state is in
`SMTPServer`; it knows no socket, no clock and no policy on whom to trust::

    machine = SMTPServer("mx.example.org")
    while not isinstance(event := machine.next_event(), ConnectionClosed):
        if event is NEED_DATA or event is PAUSED:
            sock.sendall(machine.data_to_send())
            if event is NEED_DATA:
                machine.receive_data(sock.recv(65536))  # or receive_eof() for b""
        elif isinstance(event, Body):
            message += event.data
        elif machine.answer_owed:
            machine.accept()
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from mailfront_proto.buffer import OVERSIZED, ReceiveBuffer
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, NeedData, Paused
from mailfront_proto.sasl import (
    Aborted,
    Challenge,
    LoginServer,
    Malformed,
    PasswordRequest,
    PlainServer,
    ServerExchange,
    ServerMechanism,
    Step,
    Undecodable,
)
from mailfront_proto.sasl.exchange import encode_base64
from mailfront_proto.smtp import answers
from mailfront_proto.smtp.addresses import AddressError, parse_path, split_parameters
from mailfront_proto.smtp.answers import NOT_IMPLEMENTED
from mailfront_proto.smtp.body import DotDecoder
from mailfront_proto.smtp.budgets import Budgets
from mailfront_proto.smtp.events import (
    Body,
    Connected,
    ConnectionClosed,
    Data,
    Event,
    Helo,
    Help,
    Mail,
    MessageEnd,
    MessageRefused,
    Quit,
    Recipient,
    Refused,
    Reset,
    StartTLS,
    VendorCommand,
    Verify,
    VerifyPassword,
)
from mailfront_proto.smtp.parameters import check_parameters
from mailfront_proto.smtp.profile import DEFAULT, LineEnds, Profile
from mailfront_proto.smtp.replies import Reply, encode_reply
from mailfront_proto.smtp.states import (
    COMMAND_STATES,
    COMMANDS,
    TRANSACTION_STATES,
    Row,
    State,
    after_message,
    command_table,
)

# The usual answer to each event that accept() answers. All have enhanced codes: the wire form is the same in
# every profile.
_USUAL_REPLIES: Final[dict[type[Event], Reply]] = {
    Mail: Reply(250, "2.1.0 Sender accepted."),
    Recipient: Reply(250, "2.1.5 Recipient accepted."),
    Data: Reply(354, "End your message with a period on a line by itself."),
    MessageEnd: Reply(250, "2.6.0 Message accepted."),
    Reset: Reply(250, "2.3.0 OK"),
    Verify: Reply(252, "2.5.2 Send some mail, I'll try my best."),
    Help: Reply(214, "2.0.0 Help not available."),
    Quit: Reply(221, "2.0.0 Good bye."),
    StartTLS: Reply(220, "2.0.0 Ready to start TLS"),
    VerifyPassword: Reply(235, "2.7.0 Authentication succeeded."),
}

_USUAL: Final = {kind: (reply, reply.encode()) for kind, reply in _USUAL_REPLIES.items()}

_HTTP_VERBS: Final = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS"))
_IDLE_VERBS: Final = frozenset(("NOOP", "RSET", "VRFY", "HELP", "HELO", "EHLO", "LHLO", "STARTTLS"))
_CHECKED_VERBS: Final = _IDLE_VERBS | {"AUTH"}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_TAB: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MASK: Final = "XXXXXXXX"

# Bound once: an attribute of an Enum costs a descriptor call each time.
_CONNECTED: Final = State.CONNECTED
_READY: Final = State.READY
_BODY: Final = State.BODY
_CLOSED: Final = State.CLOSED


class SMTPServer:
    """One session.

    `hostname`: our name, for the greeting and HELO. `profile`: `DEFAULT`, `COMPAT` or one of your own.
    `lmtp`: speak LMTP. `greeting`: the text between ``220`` and ``ESMTP``; default ``HOSTNAME mailfront``.
    `lf_bodies`: give the lines of messages with LF at their ends, as files have them, in place of CRLF.

    Set these when they become true or change:

    - `offers_starttls`: TLS can be had, and is not in use yet;
    - `mechanisms`: the SASL mechanisms that AUTH offers now, in order (``PLAIN`` and ``LOGIN``; empty:
      AUTH is an unknown command);
    - `allows_authorization_identity`: hand on an authorization identity that differs from the user name,
      instead of refusing it;
    - `message_size`: the largest message taken, in octets as RFC 1870 counts; None: no limit.
    """

    __slots__ = (
        "_advertised",
        "_body_ended",
        "_budgets",
        "_buffer",
        "_closed",
        "_command_limit",
        "_decoder",
        "_enhances",
        "_eof",
        "_exchange",
        "_frame_limit",
        "_max_wire_line",
        "_mechanism",
        "_next_state",
        "_output",
        "_output_size",
        "_pending",
        "_recipients",
        "_refusal",
        "_secrets_may_follow",
        "_state",
        "_state_before_auth",
        "_strict_lines",
        "_table",
        "_vendor",
        "allows_authorization_identity",
        "authenticated",
        "esmtp",
        "greeting",
        "helo_host",
        "hostname",
        "in_tls",
        "lf_bodies",
        "lmtp",
        "mechanisms",
        "message_size",
        "offers_starttls",
        "profile",
    )

    def __init__(
        self,
        hostname: str,
        profile: Profile = DEFAULT,
        *,
        lmtp: bool = False,
        greeting: str | None = None,
        lf_bodies: bool = False,
    ) -> None:
        self.lf_bodies = lf_bodies
        self.profile = profile
        self.hostname = hostname
        self.lmtp = lmtp
        self.greeting = greeting if greeting is not None else f"{hostname} mailfront"
        self.offers_starttls = False
        self.mechanisms: Sequence[str] = ()
        self.allows_authorization_identity = False
        self.message_size = profile.limits.message_size
        self.in_tls = False
        """TLS is in use."""

        self._strict_lines = profile.line_ends is not LineEnds.ACCEPT
        self._enhances = profile.enhanced_codes
        self._max_wire_line = 512 if profile.wraps_replies else None
        self._command_limit = profile.limits.command_line
        self._frame_limit = max(profile.limits.command_line, profile.limits.auth_line)
        self._table = _dispatch_table(profile, lmtp)
        self._vendor: dict[bytes, str] = {}
        self._budgets = Budgets(profile.limits)

        self._buffer = ReceiveBuffer()
        self._eof = False
        self._output: list[bytes] = []
        self._output_size = 0
        self._closed: ConnectionClosed | None = None
        self._secrets_may_follow = False
        self._state = State.GREETING
        self._pending: Event | None = None
        self._next_state = _CONNECTED
        self._forget_client()

    def _forget_client(self) -> None:
        """What TLS start makes us forget (RFC 3207 section 4.2)."""
        self.helo_host: str | None = None
        self.esmtp = False
        """EHLO was given: the protocol's name is ESMTP for the rest of the session."""
        self.authenticated = False
        self._advertised: frozenset[str] = frozenset()
        self._exchange: ServerExchange | None = None
        self._mechanism = ""
        self._state_before_auth = _CONNECTED
        self._drop_transaction()

    def _drop_transaction(self) -> None:
        self._recipients = 0
        self._decoder: DotDecoder | None = None
        self._refusal: Reply | None = None
        self._body_ended = False

    # -- what the application asks -----------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    @property
    def answer_owed(self) -> bool:
        """Whether the last event waits for `accept` or `reply`."""
        return self._pending is not None

    @property
    def in_transaction(self) -> bool:
        """A sender was accepted and its message is not done."""
        return self._state in TRANSACTION_STATES

    @property
    def capabilities(self) -> list[str]:
        """The machine's own capability lines, behind those of the application."""
        offered = []
        if self.message_size is not None:
            offered.append(f"SIZE {self.message_size}")
        if self.mechanisms:
            offered.append("AUTH " + " ".join(self.mechanisms))
        offered += ["8BITMIME", "ENHANCEDSTATUSCODES", "PIPELINING"]
        if self.offers_starttls and not self.in_tls:
            offered.append("STARTTLS")
        return offered

    def register_command(self, verb: str, parameter: str = "optional") -> None:
        """Hand the command `verb` to the application as `VendorCommand`, in place of a built-in one.

        `parameter`: ``required``, ``forbidden`` or ``optional``; a command that differs is refused here.
        """
        if not verb.isascii() or not verb.isalnum() or parameter not in ("required", "forbidden", "optional"):
            raise LocalProtocolError(
                f"register_command({verb!r}, {parameter!r}): the verb is ASCII letters and digits, "
                "the parameter 'required', 'forbidden' or 'optional'"
            )
        self._vendor[verb.upper().encode()] = parameter

    def unregister_command(self, verb: str) -> None:
        """Take `verb` back: the built-in command, or none, is in force again."""
        self._vendor.pop(verb.upper().encode(), None)

    # -- bytes and events --------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Store bytes from the peer. Call `next_event` next. Bytes after the end are dropped."""
        if not data:
            raise LocalProtocolError('receive_data(b""): call receive_eof() when the peer has closed')
        if self._state is State.TLS:
            raise LocalProtocolError("a TLS handshake is awaited: feed the bytes to TLS, then tls_established()")
        if self._state is not _CLOSED:
            self._buffer.feed(data)

    def receive_eof(self) -> None:
        """The peer will send nothing more, or the connection is lost."""
        self._eof = True

    def data_to_send(self) -> bytes:
        """Drain what is to be written to the peer; b"" when there is nothing."""
        output = self._output
        if not output:
            return b""
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        self._output_size = 0
        return data

    def next_event(self) -> Event | NeedData | Paused:
        """The next event, `NEED_DATA`, or `PAUSED` while an answer is owed or output is undrained."""
        if self._pending is not None:
            return PAUSED
        while True:
            if self._output_size > MAX_PENDING_OUTPUT:
                return PAUSED
            event = _READERS[self._state](self)
            if event is not None:
                return event

    def _next_of_greeting(self) -> Event:
        return self._owe(Connected(early_talker=len(self._buffer) > 0), _CONNECTED)

    def _next_of_tls(self) -> Event | Paused:
        return self._end_of_input() if self._eof else PAUSED

    def _next_of_closed(self) -> Event:
        assert self._closed is not None
        return self._closed

    def _end_of_input(self) -> ConnectionClosed:
        closed = ConnectionClosed("EOF", in_message=self._state in (_BODY, State.AUTH, State.TLS))
        self._close(closed)
        return closed

    def _close(self, closed: ConnectionClosed) -> None:
        """No more input is read; what is queued still goes out."""
        self._closed = closed
        self._state = _CLOSED
        self._buffer.clear()

    # -- answers -----------------------------------------------------------------------------------------

    def accept(self, text: str | None = None, *, capabilities: Iterable[str] = ()) -> None:
        """Answer the last event with its usual positive reply; `text` takes the place of the usual text.

        `capabilities`: for `Helo`, capability lines of the application, in front of the machine's own.
        """
        kind = type(self._pending)
        usual = _USUAL.get(kind)  # type: ignore[arg-type]  # None is in no dict
        if usual is not None:
            reply, wire = usual
            if text is not None:
                self.reply(reply.code, text)
            elif kind is MessageEnd or kind is StartTLS:
                self.reply(reply.code, reply.text)
            else:
                self._answer(kind, reply.code, reply.text, wire)
        elif kind is Helo:
            self._accept_helo(capabilities)
        elif kind is Connected:
            self.reply(220, f"{self.greeting} {'LMTP' if self.lmtp else 'ESMTP'}" if text is None else text)
        else:
            raise LocalProtocolError("accept() needs an event with a usual reply; reply(code, text) is for others")

    def reply(self, code: int, text: str = "") -> None:
        r"""Answer the last event with `code` and `text` (lines separated by ``\n``).

        A code below 400 accepts. Raises `LocalProtocolError` when no answer is owed, or the code makes no
        sense (3yz is 354 for `Data` and nothing else).
        """
        event = self._pending
        if event is None:
            raise LocalProtocolError("no answer is owed: call next_event() and answer the event it returns")
        kind = type(event)
        if code < 200 or code > 599 or (code < 400 and (code >= 300) is not (kind is Data)):
            raise LocalProtocolError(f"{code} is no possible answer to {kind.__name__}")
        if kind is StartTLS and code < 400 and len(self._buffer):
            # Plain text came in the meantime: as if it had come with the command.
            self._pending = None
            self._end_with(answers.TLS_PIPELINED)
            return
        wire = encode_reply(code, text, self._max_wire_line, self._enhances and kind is not Connected)
        if kind is MessageEnd:
            self._pending = None
            for _ in range(self._recipients if self.lmtp else 1):
                self._put(wire)
            self._message_done(code < 400)
        else:
            self._answer(kind, code, text, wire)
        if code == 421 and self.profile.closes_on_421 and self._state is not _CLOSED:
            self._close_with(Reply(code, text))

    def _answer(self, kind: type[Event | None], code: int, text: str, wire: bytes) -> None:
        """Every answer but those to `Helo` and `MessageEnd`."""
        self._pending = None
        self._output.append(wire)
        self._output_size += len(wire)
        if code < 400:
            self._state = self._next_state
        if kind is Recipient:
            if code < 400:
                self._recipients += 1
            elif code >= 500:
                self._end_with(self._budgets.refused_recipient())
        elif kind is not Mail:
            self._answered(kind, code, text)

    def _answered(self, kind: type[Event | None], code: int, text: str) -> None:
        """What an answer changes, for the rarer events."""
        if kind is Data:
            if code < 400:
                self._decoder = DotDecoder(self.profile.line_ends, self.lf_bodies)
        elif kind is VerifyPassword:
            self._state = self._state_before_auth
            self._secrets_may_follow = True
            if code < 400:
                self.authenticated = True
            else:
                self._end_with(self._budgets.auth_failure())
        elif kind is Quit:
            self._close(ConnectionClosed("QUIT"))
        elif kind is Connected and code >= 400:
            self._close_with(Reply(code, text))

    def reply_each(self, replies: Sequence[Reply]) -> None:
        """Answer `MessageEnd` in LMTP: one reply for each accepted recipient, in order (RFC 2033 4.2)."""
        if type(self._pending) is not MessageEnd or not self.lmtp or len(replies) != self._recipients:
            raise LocalProtocolError(
                f"reply_each() answers MessageEnd in LMTP with one reply for each of the {self._recipients} "
                "accepted recipients"
            )
        self._pending = None
        for reply in replies:
            self._send(reply.code, reply.text)
        self._message_done(any(reply.code < 400 for reply in replies))

    def abort(self, reply: Reply | None = None) -> None:
        """End the session from our side (a deadline, a shutdown), with `reply` as the last word.

        An answer that was owed is owed no more. Drain ``data_to_send()``, then close.
        """
        if self._state is _CLOSED:
            return
        in_message = self._state in (_BODY, State.AUTH, State.TLS)
        self._pending = None
        if reply is not None:
            self._send(reply.code, reply.text)
        self._close(ConnectionClosed("aborted", in_message, reply))

    def tls_established(self) -> None:
        """The handshake behind `StartTLS` is done: everything known of the client is forgotten, and the
        client is expected to say EHLO again (RFC 3207 section 4.2).

        For implicit TLS call it before the first `next_event`; the greeting then comes inside TLS.
        """
        if self._state not in (State.TLS, State.GREETING) or len(self._buffer):
            raise LocalProtocolError("tls_established() follows an accepted StartTLS, or comes before all else")
        self.in_tls = True
        if self._state is State.TLS:
            self._forget_client()
            self._state = _CONNECTED

    def _owe(self, event: Event, next_state: State) -> Event:
        self._pending = event
        self._next_state = next_state
        self._budgets.errors_in_row = 0
        return event

    def _accept_helo(self, capabilities: Iterable[str]) -> None:
        event = self._pending
        assert isinstance(event, Helo)
        self._pending = None
        lines = [self.hostname]
        if event.verb != "HELO":
            lines += capabilities
            given = {line.split(" ", 1)[0].upper() for line in lines[1:]}
            lines += [line for line in self.capabilities if line.split(" ", 1)[0] not in given]
            self._advertised = frozenset(line.split(" ", 1)[0].upper() for line in lines[1:])
            self.esmtp = True
        else:
            self._advertised = frozenset()
        self.helo_host = event.host
        self._state = _READY
        self._put(encode_reply(250, "\n".join(lines)))

    def _message_done(self, accepted: bool) -> None:
        recipients = self._recipients
        self._drop_transaction()
        self._state = after_message(self.profile)
        if self._state is State.RECIPIENTS:
            self._recipients = recipients
        if accepted:
            self._budgets.message_accepted()

    def _send(self, code: int, text: str) -> None:
        enhanced = self._enhances and self._state is not State.GREETING
        self._put(encode_reply(code, text, self._max_wire_line, enhanced))

    def _put(self, data: bytes) -> None:
        self._output.append(data)
        self._output_size += len(data)

    def _close_with(self, reply: Reply) -> None:
        self._close(ConnectionClosed(str(reply).split("\n", 1)[0], reply=reply))

    def _end_with(self, reply: Reply | None) -> None:
        """Say `reply` and close, if a budget is spent and it is not said yet."""
        if reply is not None and self._state is not _CLOSED:
            self._send(reply.code, reply.text)
            self._close_with(reply)

    # -- commands ----------------------------------------------------------------------------------------

    def _next_command(self) -> Event | NeedData | None:
        line = self._buffer.read_line(self._frame_limit) if self._buffer.has_unread else None
        if line is None:
            return self._end_of_input() if self._eof else NEED_DATA
        if line == OVERSIZED:
            return self._refuse("", "", answers.LINE_TOO_LONG)
        command = line[:-2] if line[-2:] == b"\r\n" else line[:-1]
        if self._strict_lines and (b"\r" in command or b"\0" in command or line[-2:] != b"\r\n"):
            refusal = self._bare_line_end(line, command)
            if refusal is not None:
                return refusal
        raw_verb, _, argument = command.partition(b" ")
        if b"\t" in raw_verb:  # the command ends at the first space or tab
            raw_verb, _, argument = command.partition(b"\t")
        if argument[:1].isspace():
            argument = argument.lstrip(b" \t")
        upper = raw_verb.upper()
        if self._vendor and upper in self._vendor:
            return self._vendor_command(upper, argument)
        entry = self._table[self._state].get(upper)
        if len(line) > self._command_limit and upper != b"AUTH":
            return self._refuse("", "", answers.LINE_TOO_LONG)
        if entry is None:
            return self._unknown(raw_verb, argument)
        verb, handler, row = entry
        if verb in _CHECKED_VERBS:
            refusal = self._check_verb(verb, raw_verb, argument)
            if refusal is not None:
                return refusal
        if self._budgets.in_row:
            self._budgets.known()
        self._secrets_may_follow = False
        return handler(self, verb, argument, row)

    def _check_verb(self, verb: str, raw_verb: bytes, argument: bytes) -> Event | None:
        """The refusal of a command that is not always there, or idle once too often; or None."""
        if verb == "AUTH":
            return None if self.mechanisms else self._unknown(raw_verb, argument)
        if verb == "STARTTLS" and (self.in_tls or not self.offers_starttls):
            # Neither counted nor told as an unknown command (but it may not go on for ever).
            spent = self._budgets.idle()
            if spent is not None:
                return self._refuse(verb, "", spent)
            already = self.in_tls and self.profile.helo_required
            return self._refuse(verb, "", answers.TLS_ALREADY if already else NOT_IMPLEMENTED)
        spent = self._budgets.idle()
        return None if spent is None else self._refuse(verb, "", spent)

    def _out_of_order(self, verb: str, argument: bytes, refusal: Row) -> Event:
        assert isinstance(refusal, Reply)
        return self._refuse(verb, self._shown(verb, argument), refusal)

    def _bare_line_end(self, line: bytes, command: bytes) -> Event | None:
        """The refusal of a CR, LF or NUL that has no place in a command, or None."""
        if b"\r" in command or b"\0" in command:
            if self.profile.line_ends is LineEnds.NORMALIZE:
                return self._refuse("", "", answers.BAD_COMMAND)
        elif self.profile.line_ends is LineEnds.NORMALIZE or line[-2:] == b"\r\n":
            return None
        event = self._refuse("", "", answers.BARE_LINE_END)
        if self._state is not _CLOSED:
            self._close_with(answers.BARE_LINE_END)
        return event

    def _mail(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if self._state is not _CONNECTED and self._state is not _READY:
            self._state = _READY
            self._drop_transaction()
        return self._path(Mail, verb, b"FROM", argument, next_state)

    def _rcpt(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        limit = self.profile.limits.recipients
        if limit is not None and self._recipients >= limit:
            return self._refuse(verb, _text(argument), answers.TOO_MANY_RECIPIENTS)
        return self._path(Recipient, verb, b"TO", argument, next_state)

    def _path(
        self, kind: type[Mail] | type[Recipient], verb: str, keyword: bytes, argument: bytes, next_state: State
    ) -> Event | None:
        profile = self.profile
        try:
            address, rest = parse_path(argument, keyword, profile.addresses)
        except AddressError as error:
            return self._refuse_path(verb, argument, error.reply)
        text = argument.decode("utf-8", "surrogateescape")
        if not rest:
            return self._owe(kind(address, [], text), next_state)
        parameters = [_text(parameter) for parameter in split_parameters(rest, profile.addresses)]
        refusal: Reply | None = None
        if len(parameters) > profile.limits.parameters:
            refusal = answers.TOO_MANY_PARAMETERS
        elif profile.parameters_checked:
            refusal = check_parameters(verb, parameters, self._advertised, self.message_size)
        elif any(_CONTROL_BUT_TAB.search(parameter) for parameter in parameters):
            refusal = answers.BAD_ADDRESS
        if refusal is not None:
            return self._refuse_path(verb, argument, refusal)
        return self._owe(kind(address, parameters, text), next_state)

    def _refuse_path(self, verb: str, argument: bytes, reply: Reply) -> Event:
        event = self._refuse(verb, _text(argument), reply, transaction_dropped=verb == "MAIL")
        if verb == "RCPT" and reply.code >= 500:
            self._end_with(self._budgets.refused_recipient())
        return event

    def _helo(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        host = _text(argument)
        if _CONTROL.search(host) or not self._is_helo_name(host):
            return self._refuse(verb, host, answers.BAD_HELO)
        self._drop_transaction()
        if self._state is not _CONNECTED:
            self._state = _READY
        return self._owe(Helo(verb, host), next_state)

    def _is_helo_name(self, host: str) -> bool:
        """Whether there is a name, of a length that a domain may have (RFC 5321 section 4.5.3.1.2)."""
        return not self.profile.helo_argument_required or (bool(host.strip()) and len(host) <= 255)

    def _data(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if argument and self.profile.parameters_checked:
            return self._refuse(verb, _text(argument), answers.PARAMETER_NOT_ALLOWED)
        return self._owe(Data(), next_state)

    def _rset(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        self._drop_transaction()
        self._state = next_state
        return self._owe(Reset(), next_state)

    def _noop(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        self._budgets.errors_in_row = 0
        self._send(answers.NOOP_DONE.code, answers.NOOP_DONE.text)
        return None

    def _vrfy(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        return self._owe(Verify(verb, _text(argument)), next_state)

    def _help(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        return self._owe(Help(_text(argument)), next_state)

    def _quit(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        return self._owe(Quit(), next_state)

    def _starttls(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if argument and self.profile.parameters_checked:
            return self._refuse(verb, _text(argument), answers.TLS_NO_PARAMETER)  # RFC 3207 section 4
        if len(self._buffer):
            # Plain text behind the command would be read as if it came inside TLS.
            event = self._refuse(verb, "", answers.TLS_PIPELINED)
            self._close_with(answers.TLS_PIPELINED)
            return event
        return self._owe(StartTLS(), next_state)

    def _vendor_command(self, upper: bytes, argument: bytes) -> Event | None:
        wanted = self._vendor[upper]
        verb = upper.decode("ascii")
        text = _text(argument)
        self._budgets.known()
        if len(upper) + len(argument) + 3 > self.profile.limits.command_line:
            return self._refuse(verb, "", answers.LINE_TOO_LONG)
        if (wanted == "required" and not argument) or (wanted == "forbidden" and argument):
            return self._refuse(verb, text, self._wrong_parameter(needed=wanted == "required"))
        if _CONTROL_BUT_TAB.search(text):
            return self._refuse(verb, text, answers.BAD_COMMAND)
        return self._owe(VendorCommand(verb, text), self._state)

    def _wrong_parameter(self, needed: bool) -> Reply:
        if needed != self.profile.swapped_parameter_texts:
            return answers.PARAMETER_NEEDED
        return answers.PARAMETER_NOT_ALLOWED

    # -- refusals ----------------------------------------------------------------------------------------

    def _refuse(
        self,
        verb: str,
        argument: str,
        reply: Reply,
        *,
        unknown: bool = False,
        transaction_dropped: bool = False,
        mechanism: str = "",
        cause: str = "",
    ) -> Event:
        """Answer with `reply`, count it, and tell the application. 421 closes."""
        if reply.code in (500, 501, 555):
            reply = self._budgets.error() or reply
        else:
            self._budgets.errors_in_row = 0
        self._send(reply.code, reply.text)
        if reply.code == 421:
            self._close_with(reply)
        if verb == "AUTH":
            # What follows may be the responses of a client that did not wait.
            self._secrets_may_follow = True
        return Refused(verb, argument, reply, unknown, transaction_dropped, mechanism, cause)

    def _unknown(self, raw_verb: bytes, argument: bytes) -> Event:
        verb, text = _text(raw_verb), _text(argument)
        upper = raw_verb.upper()
        if self.profile.refuses_http and upper in _HTTP_VERBS:
            return self._refuse(verb, "", answers.NOT_SMTP, unknown=True)
        if upper == b"AUTH":
            text = self._shown("AUTH", argument)
            self._secrets_may_follow = True
        elif self._secrets_may_follow:
            # What follows a refused AUTH may be its response, a password in base64.
            verb, text = _MASK, ""
        too_many = self._budgets.unknown()
        event = self._refuse(verb, text, too_many or NOT_IMPLEMENTED, unknown=True)
        if too_many is not None and self._state is not _CLOSED:
            self._close_with(too_many)
        return event

    def _shown(self, verb: str, argument: bytes) -> str:
        """An argument for the log, without what may be secret in it."""
        text = _text(argument)
        if verb != "AUTH":
            return text
        mechanism, blank, _ = text.partition(" ")
        shown = _shown_mechanism(mechanism)
        return f"{shown} {_MASK}" if blank and not shown.endswith(_MASK) else shown

    # -- AUTH (RFC 4954) ---------------------------------------------------------------------------------

    def _auth(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if not argument:
            return self._refuse(verb, "", self._wrong_parameter(needed=True))
        if self.authenticated:
            return self._refuse(verb, self._shown(verb, argument), answers.ALREADY_AUTHENTICATED)
        name, _, response = argument.partition(b" ")
        self._mechanism = _text(name)
        self._state_before_auth = self._state
        mechanism = self._new_mechanism(_text(name.upper()))
        if mechanism is None:
            self._mechanism = _shown_mechanism(self._mechanism)
            return self._auth_refused(answers.NO_SUCH_MECHANISM, "no such mechanism")
        self._exchange = ServerExchange(mechanism)
        return self._auth_step(self._exchange.start(response.strip(b" ") or None), initial=True)

    def _new_mechanism(self, name: str) -> ServerMechanism | None:
        if name not in self.mechanisms:
            return None
        if name == "PLAIN":
            return PlainServer(self.profile.free_authorization_identity)
        return LoginServer() if name == "LOGIN" else None

    def _next_auth_response(self) -> Event | NeedData | None:
        line = self._buffer.read_line(self.profile.limits.auth_line)
        if line is None:
            return self._end_of_input() if self._eof else NEED_DATA
        if line == OVERSIZED:
            return self._auth_refused(answers.RESPONSE_TOO_LONG, "bad response")
        assert self._exchange is not None
        return self._auth_step(self._exchange.line(line[:-2] if line.endswith(b"\r\n") else line[:-1]))

    def _auth_step(self, step: Step | Aborted | Undecodable, initial: bool = False) -> Event | None:
        if isinstance(step, Challenge):
            self._state = State.AUTH
            self._put(b"334 " + encode_base64(step.data) + b"\r\n")
            return None
        if isinstance(step, PasswordRequest):
            authorization = step.authorization_identity
            if authorization not in ("", step.username) and not self.allows_authorization_identity:
                return self._auth_refused(answers.AUTHORIZATION_REFUSED, "failed")
            self._state = self._state_before_auth
            name = self._mechanism
            return self._owe(
                VerifyPassword(name.upper(), name, step.username, step.password, authorization), self._state
            )
        if isinstance(step, Aborted):
            return self._auth_refused(answers.AUTH_CANCELLED, "aborted")
        assert isinstance(step, Undecodable | Malformed)
        cause = "failed"
        if isinstance(step, Undecodable):
            cause = "bad initial response" if initial else "bad response"
        return self._auth_refused(answers.UNDECODABLE_RESPONSE, cause)

    def _auth_refused(self, reply: Reply, cause: str) -> Event:
        """End the exchange; what was not cancelled, and reached a mechanism, counts as a failure."""
        self._exchange = None
        self._state = self._state_before_auth
        if not self._enhances and reply.enhanced_code:
            reply = Reply(reply.code, reply.text.partition(" ")[2])
        event = self._refuse("AUTH", "", reply, mechanism=self._mechanism, cause=cause)
        if cause not in ("aborted", "no such mechanism"):
            self._end_with(self._budgets.auth_failure())
        return event

    # -- the message -------------------------------------------------------------------------------------

    def _next_of_body(self) -> Event | NeedData | None:
        if self._body_ended:
            refusal = self._refusal
            if refusal is None:
                return self._owe(MessageEnd(), after_message(self.profile))
            for _ in range(self._recipients if self.lmtp else 1):
                self._send(refusal.code, refusal.text)
            self._message_done(False)
            if refusal is answers.BARE_LINE_END_IN_MESSAGE:
                self._close_with(refusal)
            return MessageRefused(refusal)
        data = self._buffer.read_all()
        if not data:
            return self._end_of_input() if self._eof else NEED_DATA
        decoder = self._decoder
        assert decoder is not None
        room = None if self.message_size is None else self.message_size - decoder.size
        decoded, rest = decoder.feed(data)
        if rest is not None:
            self._buffer.push_back(rest)
            self._body_ended = True
        if self._refusal is not None:
            return None
        if decoder.has_bare_line_ends and self.profile.line_ends is LineEnds.REJECT:
            self._refusal = answers.BARE_LINE_END_IN_MESSAGE
        if self.message_size is not None and decoder.size > self.message_size:
            assert room is not None
            decoded = self._cut(decoded, room)
            self._refusal = answers.TOO_BIG
        return Body(decoded) if decoded else None

    def _cut(self, decoded: bytes, room: int) -> bytes:
        """The first `room` octets of a slice, counted on the wire: the same however the message was cut."""
        if not self.lf_bodies:
            return decoded[:room]
        return decoded.replace(b"\n", b"\r\n")[:room].replace(b"\r\n", b"\n").removesuffix(b"\r")


def _shown_mechanism(name: str) -> str:
    """The name of a mechanism, for the log. What cannot be one (RFC 4422 section 3.1: at most 20 letters,
    digits, ``-`` and ``_``) may be a password in the wrong place."""
    head, tab, _ = name.partition("\t")
    shown = _MASK if len(head) > 20 or "=" in head else head
    return f"{shown} {_MASK}" if tab and shown != _MASK else shown


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


_READERS: Final[dict[State, Callable[[SMTPServer], Event | NeedData | Paused | None]]] = {
    **dict.fromkeys(COMMAND_STATES, SMTPServer._next_command),
    State.GREETING: SMTPServer._next_of_greeting,
    State.AUTH: SMTPServer._next_auth_response,
    State.BODY: SMTPServer._next_of_body,
    State.TLS: SMTPServer._next_of_tls,
    State.CLOSED: SMTPServer._next_of_closed,
}

# A handler takes the verb, the argument, and the state that follows.
Handler = Callable[[SMTPServer, str, bytes, Any], Event | None]

_HANDLERS: Final[dict[str, Handler]] = {
    "HELO": SMTPServer._helo,
    "EHLO": SMTPServer._helo,
    "LHLO": SMTPServer._helo,
    "MAIL": SMTPServer._mail,
    "RCPT": SMTPServer._rcpt,
    "DATA": SMTPServer._data,
    "RSET": SMTPServer._rset,
    "NOOP": SMTPServer._noop,
    "VRFY": SMTPServer._vrfy,
    "EXPN": SMTPServer._vrfy,
    "HELP": SMTPServer._help,
    "QUIT": SMTPServer._quit,
    "STARTTLS": SMTPServer._starttls,
    "AUTH": SMTPServer._auth,
}

_dispatch_tables: dict[tuple[Profile, bool], dict[State, dict[bytes, tuple[str, Handler, Row]]]] = {}


def _dispatch_table(profile: Profile, lmtp: bool) -> dict[State, dict[bytes, tuple[str, Handler, Row]]]:
    """The order table of `mailfront_proto.smtp.states` with the handlers beside it, for one lookup by what
    came in. Commands that are not there are unknown. Made once for each profile: profiles do not change."""
    found = _dispatch_tables.get((profile, lmtp))
    if found is None:
        table = command_table(profile, lmtp)
        found = _dispatch_tables[profile, lmtp] = {
            state: {
                verb.encode(): (
                    verb,
                    SMTPServer._out_of_order if isinstance(table[state, verb], Reply) else _HANDLERS[verb],
                    table[state, verb],
                )
                for verb in COMMANDS
                if table[state, verb] is not NOT_IMPLEMENTED
            }
            for state in COMMAND_STATES
        }
    return found
