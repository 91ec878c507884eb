"""The server role of SMTP (RFC 5321) and LMTP (RFC 2033), as a pull machine.

Strategy: bytes are framed first (`ReceiveBuffer`, `DotDecoder`), then parsed, then looked up in the table
of `mailfront_proto.smtp.states`. What the protocol alone decides (syntax, order, limits, NOOP) is answered
here; everything else becomes an event and waits for the application's answer. All state is in
`SMTPServer`; it knows no socket, no clock and no policy on whom to trust::

    machine = SMTPServer("mx.example.org")
    while not isinstance(event := machine.next_event(), ConnectionClosed):
        if event is NEED_DATA:
            sock.sendall(machine.data_to_send())
            machine.receive_data(sock.recv(65536)) # or receive_eof() for b""
        elif isinstance(event, Body):
            message += event.data
        elif machine.answer_owed:
            machine.accept()
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

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
from mailfront_proto.smtp import states
from mailfront_proto.smtp.addresses import AddressError, parse_path, split_parameters
from mailfront_proto.smtp.body import DotDecoder
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
from mailfront_proto.smtp.parameters import TOO_BIG, TOO_MANY_PARAMETERS, check_parameters
from mailfront_proto.smtp.profile import DEFAULT, LineEnds, Profile
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.states import NOT_IMPLEMENTED, State, after_message, command_table

LINE_TOO_LONG = Reply(500, "5.5.2 Line too long")
RESPONSE_TOO_LONG = Reply(500, "5.5.6 Authentication exchange line is too long")  # RFC 4954 section 4
BARE_LINE_END = Reply(500, "5.5.2 Bare CR or LF in a command is not allowed")
BARE_LINE_END_IN_MESSAGE = Reply(554, "5.6.0 Bare CR or LF in a message is not allowed")
BAD_COMMAND = Reply(500, "5.5.2 Syntax error in command")
BAD_ADDRESS = Reply(501, "5.5.2 Syntax error in address parameter.")
BAD_HELO = Reply(501, "5.5.2 HELO and EHLO take a host name")
PARAMETER_NEEDED = Reply(501, "5.5.2 Syntax error, command requires a parameter.")
PARAMETER_NOT_ALLOWED = Reply(501, "5.5.2 Syntax error, no parameters allowed.")
TOO_MANY_UNKNOWN = Reply(503, "5.5.0 Too many unimplemented commands.\n5.5.0 Closing connection.")
TOO_MANY_ERRORS = Reply(421, "4.7.0 Too many errors, closing connection")
TOO_MANY_IDLE_COMMANDS = Reply(421, "4.7.0 Too many commands without a message, closing connection")
TOO_MANY_REFUSED = Reply(421, "4.7.0 Too many refused recipients, closing connection")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3 Too many recipients")
TOO_MANY_AUTH_FAILURES = Reply(421, "4.7.0 Too many failed authentications, closing connection")
NOT_SMTP = Reply(421, "4.7.0 This is an SMTP server, closing connection")
TLS_ALREADY = Reply(503, "5.5.1 TLS is already in use")
TLS_NO_PARAMETER = Reply(501, "5.5.4 STARTTLS takes no parameter")
TLS_PIPELINED = Reply(554, "5.5.0 Unexpected pipelined commands following STARTTLS")
ALREADY_AUTHENTICATED = Reply(503, "5.5.1 You are already authenticated.")
NO_SUCH_MECHANISM = Reply(504, "Unrecognized authentication mechanism.")
AUTHORIZATION_REFUSED = Reply(535, "5.7.8 Acting for another identity is not allowed")
UNDECODABLE_RESPONSE = Reply(501, "Could not decode the response.")
NOOP_DONE = Reply(250, "2.3.0 OK")

_USUAL: Final[dict[type[Event], Reply]] = {
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

_VERBS: Final = {verb.encode(): verb for verb in states.COMMANDS}
_HTTP_VERBS: Final = frozenset(b"GET POST PUT HEAD CONNECT OPTIONS".split())
_IDLE_VERBS: Final = frozenset(["NOOP", "RSET", "VRFY", "HELO", "EHLO", "LHLO", "STARTTLS"])
_COMMAND: Final = re.compile(rb"([^ \t]*)[ \t]*(.*)\Z", re.DOTALL)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_BUT_TAB: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MASK: Final = "XXXXXXXX"


class SMTPServer:
    """One session.

    `hostname`: our name, for the greeting and HELO. `profile`: `DEFAULT`, `COMPAT` or one of your own.
    `lmtp`: speak LMTP. `greeting`: the text between ``220`` and ``ESMTP``; default ``HOSTNAME mailfront``.

    Set these when they become true or change:

    - `offers_starttls`: TLS can be had, and is not in use yet;
    - `mechanisms`: the SASL mechanisms that AUTH offers now, in order (``PLAIN`` and ``LOGIN``; empty:
      AUTH is an unknown command).
    """

    def __init__(
        self,
        hostname: str,
        profile: Profile = DEFAULT,
        *,
        lmtp: bool = False,
        greeting: str | None = None,
    ) -> None:
        self.profile = profile
        self.hostname = hostname
        self.lmtp = lmtp
        self.greeting = greeting if greeting is not None else f"{hostname} mailfront"
        self.offers_starttls = False
        self.mechanisms: Sequence[str] = ()
        self.allows_authorization_identity = False
        """Hand on an authorization identity that differs from the user name, instead of refusing it."""
        self.message_size = profile.limits.message_size
        """The largest message taken, in octets as RFC 1870 counts; None: no limit. May be lowered."""

        self._buffer = ReceiveBuffer()
        self._eof = False
        self._output: list[bytes] = []
        self._output_size = 0
        table = command_table(profile, lmtp)
        self._rows = {s: {v: table[s, v] for v in states.COMMANDS} for s in states.COMMAND_STATES}
        self._vendor: dict[bytes, str] = {}
        self._frame_limit = max(profile.limits.command_line, profile.limits.auth_line)
        self._closed: ConnectionClosed | None = None
        self._secrets_may_follow = False

        self._state = State.GREETING
        self._pending: Event | None = None
        self._next_state = State.CONNECTED
        self._forget_client()

        self._errors_in_row = self._errors = 0
        self._unknown_in_row = 0
        self._idle_commands = 0
        self._refused_recipients = 0
        self._auth_failures = 0
        self.in_tls = False
        """TLS is in use."""

    def _forget_client(self) -> None:
        """What TLS start makes us forget (RFC 3207 section 4.2)."""
        self.helo_host: str | None = None
        self.esmtp = False
        """EHLO was given: the protocol's name is ESMTP for the rest of the session."""
        self.authenticated = False
        self._advertised: frozenset[str] = frozenset()
        self._drop_transaction()
        self._exchange: ServerExchange | None = None
        self._mechanism = ""
        self._state_before_auth = State.CONNECTED

    def _drop_transaction(self) -> None:
        self._recipients = 0
        self._decoder: DotDecoder | None = None
        self._refusal: Reply | None = None
        self._body_ended = False
        self._size = 0

    # -- what the application calls ----------------------------------------------------------------------

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
        return self._state in (State.MAIL, State.RECIPIENTS, State.BODY)

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

    def receive_data(self, data: bytes) -> None:
        """Store bytes from the peer. Call `next_event` next. Bytes after the end are dropped."""
        if not data:
            raise LocalProtocolError('receive_data(b""): call receive_eof() when the peer has closed')
        if self._state is State.TLS:
            raise LocalProtocolError("a TLS handshake is awaited: feed the bytes to TLS, then tls_established()")
        if self._closed is None and self._state is not State.CLOSED:
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
        if self._pending is not None or self._output_size > MAX_PENDING_OUTPUT:
            return PAUSED
        while True:
            state = self._state
            if state is State.BODY:
                event = self._next_of_body()
            elif state is State.CLOSED:
                return self._closed_event()
            elif state is State.GREETING:
                event = self._owe(Connected(early_talker=len(self._buffer) > 0), State.CONNECTED)
            elif state is State.TLS:
                if not self._eof:
                    return PAUSED
                event = self._end_of_input()
            elif state is State.AUTH:
                event = self._next_auth_response()
            else:
                event = self._next_command()
            if event is not None:
                return event
            if self._output_size > MAX_PENDING_OUTPUT:
                return PAUSED

    def accept(self, text: str | None = None, *, capabilities: Iterable[str] = ()) -> None:
        """Answer the last event with its usual positive reply; `text` takes the place of the usual text.

        `capabilities`: for `Helo`, capability lines of the application, in front of the machine's own.
        """
        event = self._pending
        if isinstance(event, Helo):
            self._accept_helo(event, capabilities)
        elif isinstance(event, Connected):
            self.reply(220, text if text is not None else f"{self.greeting} {'LMTP' if self.lmtp else 'ESMTP'}")
        elif event is None or isinstance(event, VendorCommand):
            raise LocalProtocolError("accept() needs an event with a usual reply; reply(code, text) is for others")
        else:
            usual = _USUAL[type(event)]
            self.reply(usual.code, text if text is not None else usual.text)

    def reply(self, code: int, text: str = "") -> None:
        """Answer the last event with `code` and `text` (lines separated by ``\\n``).

        A code below 400 accepts. Raises `LocalProtocolError` when no answer is owed, or the code makes no
        sense (3yz is 354 for `Data` and nothing else).
        """
        event = self._pending
        if event is None:
            raise LocalProtocolError("no answer is owed: call next_event() and answer the event it returns")
        if not 200 <= code <= 599 or (300 <= code < 400) != (code < 400 and type(event) is Data):
            raise LocalProtocolError(f"{code} is no possible answer to {type(event).__name__}")
        self._pending = None
        reply = Reply(code, text)
        if type(event) is MessageEnd:
            for _ in range(self._recipients if self.lmtp else 1):
                self._send(reply)
            self._message_done(code < 400)
        else:
            self._send(reply)
            self._answered(event, code)
        if code == 421 and self.profile.closes_on_421 and self._state is not State.CLOSED:
            self._close(reply)

    def reply_each(self, replies: Sequence[Reply]) -> None:
        """Answer `MessageEnd` in LMTP: one reply for each accepted recipient, in order (RFC 2033 4.2)."""
        if type(self._pending) is not MessageEnd or not self.lmtp or len(replies) != self._recipients:
            raise LocalProtocolError(
                f"reply_each() answers MessageEnd in LMTP with one reply for each of the {self._recipients} "
                "accepted recipients"
            )
        self._pending = None
        for reply in replies:
            self._send(reply)
        self._message_done(any(reply.code < 400 for reply in replies))

    def abort(self, reply: Reply | None = None) -> None:
        """End the session from our side (a deadline, a shutdown), with `reply` as the last word.

        An answer that was owed is owed no more. Drain ``data_to_send()``, then close.
        """
        if self._state is State.CLOSED:
            return
        in_message = self._state in (State.BODY, State.AUTH, State.TLS)
        self._pending = None
        if reply is not None:
            self._send(reply)
        self._close(reply)
        self._closed = ConnectionClosed("aborted", in_message, reply)

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
            self._state = State.CONNECTED

    # -- answers -----------------------------------------------------------------------------------------

    def _owe(self, event: Event, next_state: State) -> Event:
        self._pending = event
        self._next_state = next_state
        return event

    def _answered(self, event: Event, code: int) -> None:
        accepted = code < 400
        kind = type(event)
        if accepted:
            self._state = self._next_state
        if kind is Recipient:
            if accepted:
                self._recipients += 1
            elif code >= 500:
                self._count_refused_recipient()
        elif kind is VerifyPassword:
            self._state = self._state_before_auth
            if accepted:
                self.authenticated = True
            else:
                self._count_auth_failure()
        elif kind is Data:
            if accepted:
                self._decoder = DotDecoder(self.profile.line_ends)
                self._size = 0
        elif kind is Quit or (kind is Connected and not accepted):
            self._close(None if kind is Quit else Reply(code))

    def _accept_helo(self, event: Helo, capabilities: Iterable[str]) -> None:
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
        self._state = State.READY
        self._put(Reply(250, "\n".join(lines)).encode(None))

    def _message_done(self, accepted: bool) -> None:
        recipients = self._recipients
        self._drop_transaction()
        self._state = after_message(self.profile)
        if self._state is State.RECIPIENTS:
            self._recipients = recipients
        if accepted:
            self._idle_commands = 0

    def _send(self, reply: Reply) -> None:
        if self.profile.enhanced_codes and self._state is not State.GREETING:
            reply = reply.with_enhanced_code()
        self._put(reply.encode() if self.profile.wraps_replies else reply.encode(None))

    def _put(self, data: bytes) -> None:
        self._output.append(data)
        self._output_size += len(data)

    def _close(self, reply: Reply | None) -> None:
        """No more input is read; what is queued still goes out."""
        self._closed = ConnectionClosed("QUIT" if reply is None else str(reply).split("\n", 1)[0], reply=reply)
        self._state = State.CLOSED
        self._buffer.clear()

    def _closed_event(self) -> ConnectionClosed:
        assert self._closed is not None
        return self._closed

    def _end_of_input(self) -> Event | None:
        in_message = self._state in (State.BODY, State.AUTH, State.TLS)
        self._closed = ConnectionClosed("EOF", in_message)
        self._state = State.CLOSED
        self._buffer.clear()
        return None

    # -- commands ----------------------------------------------------------------------------------------

    def _next_command(self) -> Event | NeedData | None:
        line = self._buffer.read_line(self._frame_limit)
        if line is None:
            return self._end_of_input() if self._eof else NEED_DATA
        if line == OVERSIZED:
            return self._refuse("", "", LINE_TOO_LONG)
        command = line[:-2] if line.endswith(b"\r\n") else line[:-1]
        policy = self.profile.line_ends
        if policy is not LineEnds.ACCEPT:
            if b"\r" in command or b"\0" in command:
                return self._refuse_line_end(BAD_COMMAND if policy is LineEnds.NORMALIZE else BARE_LINE_END)
            if policy is LineEnds.REJECT and not line.endswith(b"\r\n"):
                return self._refuse_line_end(BARE_LINE_END)
        match = _COMMAND.match(command)
        assert match is not None  # the pattern takes any bytes
        raw_verb, argument = match.groups()
        upper = raw_verb.upper()
        if self._vendor and upper in self._vendor:
            return self._vendor_command(upper, argument)
        verb = _VERBS.get(upper)
        if len(line) > self.profile.limits.command_line and verb != "AUTH":
            return self._refuse("", "", LINE_TOO_LONG)
        if verb is None:
            return self._unknown(raw_verb, argument)
        if verb == "STARTTLS" and not (self.offers_starttls and not self.in_tls):
            # Neither counted nor told as an unknown command.
            refusal = TLS_ALREADY if self.in_tls and self.profile.helo_required else NOT_IMPLEMENTED
            return self._refuse(verb, "", refusal)
        row = self._rows[self._state][verb]
        if row is NOT_IMPLEMENTED or (verb == "AUTH" and not self.mechanisms):
            return self._unknown(raw_verb, argument)
        self._errors_in_row = self._unknown_in_row = 0
        self._secrets_may_follow = False
        if verb in _IDLE_VERBS and self._idle_budget_is_spent():
            return self._refuse(verb, "", TOO_MANY_IDLE_COMMANDS)
        if isinstance(row, Reply):
            return self._refuse(verb, self._shown(verb, argument), row)
        return _HANDLERS[verb](self, verb, argument, row)

    def _mail(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if self._state is not State.CONNECTED:
            self._state = State.READY
        self._drop_transaction()
        return self._path(Mail, verb, b"FROM", argument, next_state)

    def _rcpt(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        limit = self.profile.limits.recipients
        if limit is not None and self._recipients >= limit:
            return self._refuse(verb, _text(argument), TOO_MANY_RECIPIENTS)
        return self._path(Recipient, verb, b"TO", argument, next_state)

    def _path(
        self,
        kind: type[Mail] | type[Recipient],
        verb: str,
        keyword: bytes,
        argument: bytes,
        next_state: State,
    ) -> Event | None:
        profile = self.profile
        try:
            address, rest = parse_path(argument, keyword, profile.addresses)
        except AddressError as error:
            return self._refuse_path(verb, argument, error.reply)
        text = _text(argument)
        if not rest:
            return self._owe(kind(address, [], text), next_state)
        parameters = [_text(parameter) for parameter in split_parameters(rest, profile.addresses)]
        refusal: Reply | None = None
        if len(parameters) > profile.limits.parameters:
            refusal = TOO_MANY_PARAMETERS
        elif profile.parameters_checked:
            refusal = check_parameters(verb, parameters, self._advertised, self.message_size)
        elif any(_CONTROL_BUT_TAB.search(parameter) for parameter in parameters):
            refusal = BAD_ADDRESS
        if refusal is not None:
            return self._refuse_path(verb, argument, refusal)
        return self._owe(kind(address, parameters, text), next_state)

    def _refuse_path(self, verb: str, argument: bytes, reply: Reply) -> Event:
        if verb == "RCPT" and reply.code >= 500:
            event = self._refuse(verb, _text(argument), reply)
            if self._state is not State.CLOSED:
                self._count_refused_recipient()
            return event
        return self._refuse(verb, _text(argument), reply, transaction_dropped=verb == "MAIL")

    def _helo(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        host = _text(argument)
        if _CONTROL.search(host) or (not host.strip() and self.profile.helo_argument_required):
            return self._refuse(verb, host, BAD_HELO)
        self._drop_transaction()
        if self._state is not State.CONNECTED:
            self._state = State.READY
        return self._owe(Helo(verb, host), next_state)

    def _data(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if argument and self.profile.parameters_checked:
            return self._refuse(verb, _text(argument), PARAMETER_NOT_ALLOWED)
        return self._owe(Data(), next_state)

    def _rset(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        self._drop_transaction()
        self._state = next_state
        return self._owe(Reset(), next_state)

    def _noop(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        self._send(NOOP_DONE)
        return None

    def _vrfy(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        return self._owe(Verify(verb, _text(argument)), next_state)

    def _help(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        return self._owe(Help(_text(argument)), next_state)

    def _quit(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        return self._owe(Quit(), next_state)

    def _starttls(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if argument and self.profile.parameters_checked:
            return self._refuse(verb, _text(argument), TLS_NO_PARAMETER)  # RFC 3207 section 4
        if len(self._buffer):
            # Plain text behind the command would be read as if it came inside TLS.
            self._close(TLS_PIPELINED)
            return self._refuse(verb, "", TLS_PIPELINED)
        return self._owe(StartTLS(), next_state)

    def _vendor_command(self, upper: bytes, argument: bytes) -> Event | None:
        wanted = self._vendor[upper]
        verb = upper.decode("ascii")
        self._errors_in_row = self._unknown_in_row = 0
        if (wanted == "required" and not argument) or (wanted == "forbidden" and argument):
            return self._refuse(verb, _text(argument), self._wrong_parameter(needed=wanted == "required"))
        if _CONTROL_BUT_TAB.search(_text(argument)):
            return self._refuse(verb, _text(argument), BAD_COMMAND)
        return self._owe(VendorCommand(verb, _text(argument)), self._state)

    def _wrong_parameter(self, needed: bool) -> Reply:
        if needed != self.profile.swapped_parameter_texts:
            return PARAMETER_NEEDED
        return PARAMETER_NOT_ALLOWED

    # -- refusals and limits -----------------------------------------------------------------------------

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
        """Answer with `reply`, count it, and tell the application."""
        if reply.code in (500, 501, 555) and self._errors_are_too_many():
            reply = TOO_MANY_ERRORS
        self._send(reply)
        if reply.code == 421:
            self._close(reply)
        return Refused(verb, argument, reply, unknown, transaction_dropped, mechanism, cause)

    def _refuse_line_end(self, reply: Reply) -> Event:
        event = self._refuse("", "", reply)
        if reply is BARE_LINE_END and self._state is not State.CLOSED:
            self._close(reply)
        return event

    def _unknown(self, raw_verb: bytes, argument: bytes) -> Event:
        verb, text = _text(raw_verb), _text(argument)
        if self.profile.refuses_http and raw_verb.upper() in _HTTP_VERBS:
            return self._refuse(verb, "", NOT_SMTP, unknown=True)
        if raw_verb.upper() == b"AUTH":
            text = self._shown("AUTH", argument)
            self._secrets_may_follow = True
        elif self._secrets_may_follow:
            # What follows a refused AUTH may be its response, a password in base64.
            verb, text = _MASK, ""
        reply = NOT_IMPLEMENTED
        self._unknown_in_row += 1
        limit = self.profile.limits.unknown_in_row
        if limit is not None and self._unknown_in_row > limit:
            reply = TOO_MANY_UNKNOWN
        event = self._refuse(verb, text, reply, unknown=True)
        if reply is TOO_MANY_UNKNOWN and self._state is not State.CLOSED:
            self._close(reply)
        return event

    def _errors_are_too_many(self) -> bool:
        limits = self.profile.limits
        self._errors += 1
        self._errors_in_row += 1
        return (limits.errors is not None and self._errors > limits.errors) or (
            limits.errors_in_row is not None and self._errors_in_row > limits.errors_in_row
        )

    def _idle_budget_is_spent(self) -> bool:
        self._idle_commands += 1
        limit = self.profile.limits.idle_commands
        return limit is not None and self._idle_commands > limit

    def _count_refused_recipient(self) -> None:
        self._refused_recipients += 1
        limit = self.profile.limits.refused_recipients
        if limit is not None and self._refused_recipients >= limit:
            self._send(TOO_MANY_REFUSED)
            self._close(TOO_MANY_REFUSED)

    def _count_auth_failure(self) -> None:
        self._auth_failures += 1
        limit = self.profile.limits.auth_failures
        if limit is not None and self._auth_failures >= limit and self._state is not State.CLOSED:
            self._send(TOO_MANY_AUTH_FAILURES)
            self._close(TOO_MANY_AUTH_FAILURES)

    # -- AUTH (RFC 4954) ---------------------------------------------------------------------------------

    def _auth(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if not argument:
            return self._refuse(verb, "", self._wrong_parameter(needed=True))
        if self.authenticated:
            return self._refuse(verb, self._shown(verb, argument), ALREADY_AUTHENTICATED)
        name, _, response = argument.partition(b" ")
        self._mechanism = _text(name)
        self._state_before_auth = self._state
        mechanism = self._new_mechanism(self._mechanism.upper())
        if mechanism is None:
            self._secrets_may_follow = True
            return self._auth_refused(NO_SUCH_MECHANISM, "no such mechanism")
        self._exchange = ServerExchange(mechanism)
        initial_response = response.strip(b" ") if response.strip(b" ") else None
        return self._auth_step(self._exchange.start(initial_response), initial=True)

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
            return self._auth_refused(RESPONSE_TOO_LONG, "bad response")
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
                return self._auth_refused(AUTHORIZATION_REFUSED, "failed")
            self._state = self._state_before_auth
            return self._owe(
                VerifyPassword(
                    self._mechanism.upper(), self._mechanism, step.username, step.password, authorization
                ),
                self._state,
            )
        if isinstance(step, Aborted):
            return self._auth_refused(Reply(501, "Authentication failed."), "aborted")
        assert isinstance(step, Undecodable | Malformed)
        cause = "failed"
        if isinstance(step, Undecodable):
            cause = "bad initial response" if initial else "bad response"
        return self._auth_refused(UNDECODABLE_RESPONSE, cause)

    def _auth_refused(self, reply: Reply, cause: str) -> Event:
        """End the exchange; what was not cancelled, and reached a mechanism, counts as a failure."""
        self._exchange = None
        self._state = self._state_before_auth
        event = self._refuse("AUTH", "", reply, mechanism=self._mechanism, cause=cause)
        if cause not in ("aborted", "no such mechanism") and self._state is not State.CLOSED:
            self._count_auth_failure()
        return event

    # -- the message -------------------------------------------------------------------------------------

    def _next_of_body(self) -> Event | NeedData | None:
        if self._body_ended:
            refusal = self._refusal
            if refusal is None:
                return self._owe(MessageEnd(), after_message(self.profile))
            for _ in range(self._recipients if self.lmtp else 1):
                self._send(refusal)
            self._message_done(False)
            return MessageRefused(refusal)
        data = self._buffer.read_all()
        if not data:
            return self._end_of_input() if self._eof else NEED_DATA
        assert self._decoder is not None
        decoded, rest = self._decoder.feed(data)
        if rest is not None:
            self._buffer.push_back(rest)
            self._body_ended = True
        if self._refusal is not None:
            return None
        if self._decoder.has_bare_line_ends and self.profile.line_ends is LineEnds.REJECT:
            self._refusal = BARE_LINE_END_IN_MESSAGE
        room = None if self.message_size is None else self.message_size - self._size
        if room is not None and len(decoded) > room:
            decoded = decoded[:room]
            self._refusal = TOO_BIG
        self._size += len(decoded)
        return Body(decoded) if decoded else None

    def _shown(self, verb: str, argument: bytes) -> str:
        """An argument for the log, without what may be secret in it."""
        text = _text(argument)
        if verb == "AUTH" and " " in text:
            return f"{text.split(' ', 1)[0]} {_MASK}"
        return text


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


_HANDLERS: Final[dict[str, Callable[[SMTPServer, str, bytes, State], Event | None]]] = {
    "HELO": SMTPServer._helo,
    "EHLO": SMTPServer._helo,
    "LHLO": SMTPServer._helo,
    "MAIL": SMTPServer._mail,
    "RCPT": SMTPServer._rcpt,
    "DATA": SMTPServer._data,
    "RSET": SMTPServer._rset,
    "NOOP": SMTPServer._noop,
    "VRFY": SMTPServer._vrfy,
    "HELP": SMTPServer._help,
    "QUIT": SMTPServer._quit,
    "STARTTLS": SMTPServer._starttls,
    "AUTH": SMTPServer._auth,
}
