"""The server role of SMTP (RFC 5321) and LMTP (RFC 2033), as a pull machine.

Strategy: bytes are framed first (`ReceiveBuffer`, `DotDecoder`), then parsed, then looked up in the table
of `mailfront_proto.smtp.states`. What the protocol alone decides (syntax, order, limits, NOOP) is answered
here; everything else becomes an event and waits for the application's answer. The state is in
`ServerSession`, on which this file stands; it knows no socket, no clock and no policy on whom to trust::

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

from mailfront_proto.buffer import OVERSIZED
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, NeedData, Paused
from mailfront_proto.sasl.requests import Request
from mailfront_proto.smtp import answers
from mailfront_proto.smtp.addresses import NON_ASCII
from mailfront_proto.smtp.answers import NOT_IMPLEMENTED
from mailfront_proto.smtp.events import (
    Connected,
    ConnectionClosed,
    Data,
    Event,
    Helo,
    Help,
    Mail,
    MessageEnd,
    Quit,
    Recipient,
    Reset,
    StartTLS,
    VendorCommand,
    Verify,
    Xclient,
)
from mailfront_proto.smtp.profile import DEFAULT, LineEnds, Profile
from mailfront_proto.smtp.replies import Reply, encode_reply
from mailfront_proto.smtp.server_envelope import CONTROL_BUT_TAB, ServerEnvelope
from mailfront_proto.smtp.server_session import as_text
from mailfront_proto.smtp.states import (
    COMMAND_STATES,
    COMMANDS,
    UNFINISHED_STATES,
    Row,
    State,
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
    Verify: Reply(252, "2.0.0 Send some mail, I'll try my best."),
    Help: Reply(214, "2.0.0 Help not available."),
    Quit: Reply(221, "2.0.0 Good bye."),
    StartTLS: Reply(220, "2.0.0 Ready to start TLS"),
}
_AUTH_DONE: Final = Reply(235, "2.7.0 Authentication succeeded.")  # to every request of an AUTH exchange

# Whose answer is not simply sent
_SPECIAL: Final = frozenset((MessageEnd, StartTLS))

_USUAL: Final = {kind: (reply, reply.encode()) for kind, reply in _USUAL_REPLIES.items()}

# "2.5.2" would be a syntax error that succeeded (RFC 3463 section 3.6); so speaks the original.
_VERIFY: Final = Reply(252, "2.5.2 Send some mail, I'll try my best.")
_ORIGINAL_USUAL: Final = {**_USUAL, Verify: (_VERIFY, _VERIFY.encode())}

_HTTP_VERBS: Final = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS"))
_IDLE_VERBS: Final = frozenset(("NOOP", "RSET", "VRFY", "EXPN", "HELP", "HELO", "EHLO", "LHLO", "STARTTLS", "XCLIENT"))
_CHECKED_VERBS: Final = _IDLE_VERBS | {"AUTH", "BDAT"}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HELO_NAME: Final = re.compile(r"\S+[ \t]*\Z")

# Bound once: an attribute of an Enum costs a descriptor call each time.
_CONNECTED: Final = State.CONNECTED
_READY: Final = State.READY
_CLOSED: Final = State.CLOSED


class SMTPServer(ServerEnvelope):
    """One session.

    `hostname`: our name, for the greeting and HELO. `profile`: `DEFAULT`, `COMPAT` or one of your own.
    `lmtp`: speak LMTP. `greeting`: the text between ``220`` and ``ESMTP``; default ``HOSTNAME mailfront``.
    `lf_bodies`: give the lines of messages with LF at their ends, as files have them, in place of CRLF.

    Set these when they become true or change:

    - `offers_starttls`: TLS can be had, and is not in use yet;
    - `refuses_inside_tls`: what comes in plain text behind STARTTLS is thrown away, and refused inside TLS, as the
      original does with UCSPI-TLS; otherwise it is refused at once, and ends the connection;
    - `sasl`: the mechanisms that AUTH offers now, and what they need: a `ServerOptions`, such as
      ``ServerOptions(["PLAIN", "LOGIN"])`` (without mechanisms, as at first, AUTH is an unknown command);
    - `message_size`: the largest message taken, in octets as RFC 1870 counts; None: no limit;
    - `extensions`: the capability keywords that are offered, at first those of the profile without `PROMISES`. Add
      ``DSN`` (RFC 3461) and ``REQUIRETLS`` (RFC 8689; offered inside TLS only) if what they promise is kept behind you,
      ``BINARYMIME`` (RFC 3030) if messages without lines can be stored. A keyword that is not in it is neither offered
      nor taken;
    - `offers_xclient`: this client is a proxy of ours, and may say for whom it speaks (XCLIENT).

    Commands, capabilities and parameters of your own: `register_command`, `register_capability`,
    `register_parameter`. Other words for what the machine says: `override_reply`.
    """

    __slots__ = ("_table", "_usual", "refuses_inside_tls")

    def __init__(
        self,
        hostname: str,
        profile: Profile = DEFAULT,
        *,
        lmtp: bool = False,
        greeting: str | None = None,
        lf_bodies: bool = False,
    ) -> None:
        super().__init__(hostname, profile, lmtp, greeting, lf_bodies)
        self.refuses_inside_tls = False
        self._table = _dispatch_table(profile, lmtp)
        self._usual = _USUAL if profile.enhanced_codes else _ORIGINAL_USUAL

    # -- bytes and events --------------------------------------------------------------------------------

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
        early = len(self._buffer) > 0 and not self._greeted
        self._greeted = True
        return self._owe(Connected(early), _CONNECTED)

    def _next_of_tls(self) -> Event | Paused:
        return self._end_of_input() if self._eof else PAUSED

    def _next_of_closed(self) -> Event:
        assert self._closed is not None
        return self._closed

    # -- answers -----------------------------------------------------------------------------------------

    def accept(self, text: str | None = None, *, capabilities: Iterable[str] = ()) -> None:
        """Answer the last event with its usual positive reply; `text` takes the place of the usual text.

        `capabilities`: for `Helo`, capability lines of the application, in front of the machine's own.
        """
        kind = type(self._pending)
        usual = self._usual.get(kind)  # type: ignore[arg-type]  # None is in no dict
        if usual is not None:
            reply, wire = usual
            if text is not None:
                self.reply(reply.code, text)
            elif self._overrides or kind in _SPECIAL or (type(self._pending) is Data and self._pending.chunked):
                reply = self._overrides.get(reply, reply)
                self.reply(reply.code, reply.text)
            else:
                self._answer(kind, reply.code, reply.text, wire)
        elif kind is Helo:
            self._accept_helo(capabilities)
        elif kind is Xclient and text is None:
            self._restart()
        elif isinstance(self._pending, Request):
            reply = self._overrides.get(_AUTH_DONE, _AUTH_DONE)
            self.reply(reply.code, reply.text if text is None else text)
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
        if code < 200 or code > 599 or (code < 400 and ((code >= 300) is not (kind is Data) or kind is Xclient)):
            raise LocalProtocolError(f"{code} is no possible answer to {kind.__name__}")
        if kind is StartTLS and code < 400 and len(self._buffer) and not self.refuses_inside_tls:
            # Plain text came in the meantime: as if it had come with the command.
            self._pending = None
            self._end_with(answers.TLS_PIPELINED)
            return
        if self._exchange is not None and self._auth_goes_on(code, text):
            return
        wire = self._encode(code, text)
        if kind is MessageEnd:
            self._pending = None
            for _ in range(self._transaction.recipients if self.lmtp else 1):
                self._put(wire)
            self._message_done(code < 400)
        elif type(event) is Data and event.chunked and not (code == 421 and self.profile.closes_on_421):
            self._pending = None
            if code < 400:
                self._begin_message(chunked=True)
                self._state = self._next_state
            else:
                self._refuse_chunks(wire)
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
                self._transaction.recipients += 1
            elif code >= 500:
                self._end_with(self._budgets.refused_recipient())
        elif kind is not Mail:
            self._answered(kind, code, text)
        elif code >= 400:
            self._drop_transaction()

    def _answered(self, kind: type[Event | None], code: int, text: str) -> None:
        """What an answer changes, for the rarer events."""
        if kind is Data:
            if code < 400:
                self._begin_message(chunked=False)
            elif not self.profile.envelope_survives_message:
                # Who refuses the message has dropped its envelope: it may not be used for another.
                self._drop_transaction()
                self._state = _READY
        elif self._exchange is not None:
            self._auth_over(code < 400)
        elif kind is Quit:
            self._close(ConnectionClosed("QUIT"))
        elif kind is Connected and code >= 400:
            self._close_with(Reply(code, text))

    def reply_each(self, replies: Sequence[Reply]) -> None:
        """Answer `MessageEnd` in LMTP: one reply for each accepted recipient, in order (RFC 2033 4.2)."""
        recipients = self._transaction.recipients
        if type(self._pending) is not MessageEnd or not self.lmtp or len(replies) != recipients:
            raise LocalProtocolError(
                f"reply_each() answers MessageEnd in LMTP with one reply for each of the {recipients} "
                "accepted recipients"
            )
        for reply in replies:
            self._send(reply.code, reply.text)
        self._pending = None
        self._message_done(any(reply.code < 400 for reply in replies))

    def abort(self, reply: Reply | None = None) -> None:
        """End the session from our side (a deadline, a shutdown), with `reply` as the last word.

        An answer that was owed is owed no more. Drain ``data_to_send()``, then close.
        """
        if self._state is _CLOSED:
            return
        in_message = self._state in UNFINISHED_STATES
        self._pending = None
        if reply is not None:
            self._send(reply.code, reply.text)
        self._close(ConnectionClosed("aborted", in_message, reply))

    def tls_established(self) -> Reply | None:
        """The handshake behind `StartTLS` is done: everything known of the client is forgotten, and the
        client is expected to say EHLO again (RFC 3207 section 4.2).

        For implicit TLS call it before the first `next_event`; the greeting then comes inside TLS. Returns what it has
        refused of plain text, with `refuses_inside_tls`.
        """
        late = len(self._buffer) > 0
        if self._state not in (State.TLS, State.GREETING) or (late and not self.refuses_inside_tls):
            raise LocalProtocolError("tls_established() follows an accepted StartTLS, or comes before all else")
        self.in_tls = True
        if self._state is State.TLS:
            self._forget_client()
            self._state = _CONNECTED
        if not late:
            return None
        self._buffer.clear()
        self._say(answers.TLS_PIPELINED_INSIDE)
        return answers.TLS_PIPELINED_INSIDE

    def _restart(self) -> None:
        """XCLIENT was accepted: as before the greeting, but inside TLS if that is in use. The next event is
        `Connected`, and its answer is that of XCLIENT."""
        event = self._pending
        assert isinstance(event, Xclient)
        self._pending = None
        self._forget_client()
        self.authenticated = isinstance(event.login, str)
        self._state = State.GREETING

    def _accept_helo(self, capabilities: Iterable[str]) -> None:
        event = self._pending
        assert isinstance(event, Helo)
        self._pending = None
        lines = [self.hostname]
        if event.verb != "HELO":
            lines += capabilities
            lines += self._capabilities.values()
            given = {line.split(" ", 1)[0].upper() for line in lines[1:]}
            lines += [line for line in self.capabilities if line.split(" ", 1)[0] not in given]
            self._advertised = frozenset(line.split(" ", 1)[0].upper() for line in lines[1:])
            if self.authenticated:
                self._advertised |= {"AUTH"}  # the command is offered no more, its parameter of MAIL is
            self.esmtp = True
        else:
            self._advertised = frozenset()
        self.helo_host = event.host
        self._state = _READY
        self._put(encode_reply(250, "\n".join(lines), None))

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
            return None if self.sasl.mechanisms else self._unknown(raw_verb, argument)
        if verb == "BDAT":
            return None if "CHUNKING" in self.extensions else self._unknown(raw_verb, argument)
        if verb == "XCLIENT" and not self.offers_xclient:
            return self._unknown(raw_verb, argument)
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
        bare = b"\r" in command or line[-2:] != b"\r\n"
        if self.profile.line_ends is LineEnds.NORMALIZE or not bare:
            if b"\r" in command or b"\0" in command:
                return self._refuse("", "", answers.BAD_COMMAND)
            return None
        event = self._refuse("", "", answers.BARE_LINE_END)
        if self._state is not _CLOSED:
            self._close_with(event.reply)
        return event

    def _helo(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        host = as_text(argument)
        if _CONTROL.search(host) or not self._is_helo_name(host):
            return self._refuse(verb, host, answers.BAD_HELO)
        self._drop_transaction()
        if self._state is not _CONNECTED:
            self._state = _READY
        return self._owe(Helo(verb, host), next_state)

    def _is_helo_name(self, host: str) -> bool:
        """Whether there is one word, of a length that a domain may have (RFC 5321 section 4.5.3.1.2): more would
        look like facts of ours in a trace line. What the word means is not judged."""
        return not self.profile.helo_argument_required or (len(host) <= 255 and _HELO_NAME.match(host) is not None)

    def _rset(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        self._drop_transaction()
        self._state = next_state
        return self._owe(Reset(), next_state)

    def _noop(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        self._budgets.errors_in_row = 0
        self._say(answers.NOOP_DONE)
        return None

    def _vrfy(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        smtputf8 = False
        if "SMTPUTF8" in self._advertised:  # RFC 6531 section 3.7.4.1
            name, blank, word = argument.rstrip(b" \t").rpartition(b" ")
            if blank and word.upper() == b"SMTPUTF8":
                smtputf8, argument = True, name.rstrip(b" \t")
        if not smtputf8 and not argument.isascii() and not self.profile.addresses.eight_bit:
            return self._refuse(verb, as_text(argument), NON_ASCII)
        return self._owe(Verify(verb, as_text(argument), smtputf8), next_state)

    def _help(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        return self._owe(Help(as_text(argument)), next_state)

    def _quit(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        return self._owe(Quit(), next_state)

    def _starttls(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if argument and self.profile.parameters_checked:
            return self._refuse(verb, as_text(argument), answers.TLS_NO_PARAMETER)  # RFC 3207 section 4
        if argument and self.refuses_inside_tls:
            return self._refuse(verb, as_text(argument), self._wrong_parameter(needed=False))
        if len(self._buffer) and not self.refuses_inside_tls:
            # Plain text behind the command would be read as if it came inside TLS.
            event = self._refuse(verb, "", answers.TLS_PIPELINED)
            self._close_with(event.reply)
            return event
        return self._owe(StartTLS(), next_state)

    def _xclient(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        from mailfront_proto.smtp.xclient import XclientError, parse_xclient  # few servers need it

        try:
            return self._owe(parse_xclient(argument), self._state)
        except XclientError:
            return self._refuse(verb, as_text(argument), answers.BAD_XCLIENT)

    def _vendor_command(self, upper: bytes, argument: bytes) -> Event | None:
        wanted = self._vendor[upper]
        verb = upper.decode("ascii")
        text = as_text(argument)
        self._budgets.known()
        if len(upper) + len(argument) + 3 > self.profile.limits.command_line:
            return self._refuse(verb, "", answers.LINE_TOO_LONG)
        if (wanted == "required" and not argument) or (wanted == "forbidden" and argument):
            return self._refuse(verb, text, self._wrong_parameter(needed=wanted == "required"))
        if CONTROL_BUT_TAB.search(text):
            return self._refuse(verb, text, answers.BAD_COMMAND)
        return self._owe(VendorCommand(verb, text), self._state)


_READERS: Final[dict[State, Callable[[SMTPServer], Event | NeedData | Paused | None]]] = {
    **dict.fromkeys(COMMAND_STATES, SMTPServer._next_command),
    State.GREETING: SMTPServer._next_of_greeting,
    State.AUTH: SMTPServer._next_auth_response,
    State.BODY: SMTPServer._next_of_body,
    State.CHUNK: SMTPServer._next_of_chunk,
    State.DRAIN: SMTPServer._next_of_drain,
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
    "BDAT": SMTPServer._bdat,
    "RSET": SMTPServer._rset,
    "NOOP": SMTPServer._noop,
    "VRFY": SMTPServer._vrfy,
    "EXPN": SMTPServer._vrfy,
    "HELP": SMTPServer._help,
    "QUIT": SMTPServer._quit,
    "STARTTLS": SMTPServer._starttls,
    "AUTH": SMTPServer._auth,
    "XCLIENT": SMTPServer._xclient,
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
                    _HANDLERS[verb]
                    if verb == "BDAT" or isinstance(table[state, verb], State)  # BDAT reads its octets in any case
                    else SMTPServer._out_of_order,
                    table[state, verb],
                )
                for verb in COMMANDS
                if table[state, verb] is not NOT_IMPLEMENTED
            }
            for state in COMMAND_STATES
        }
    return found
