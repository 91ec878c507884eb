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

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from math import inf
from typing import Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, NeedData, Paused
from mailfront_proto.sasl.requests import Request
from mailfront_proto.smtp import answers
from mailfront_proto.smtp.enhanced_codes import enhanced_code
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
    Verify,
    Xclient,
)
from mailfront_proto.smtp.offers import answer_to_ehlo
from mailfront_proto.smtp.profile import DEFAULT, PROMISES, LineEnds, Profile
from mailfront_proto.smtp.replies import MAX_REPLY_LINE, Reply, encode_reply
from mailfront_proto.smtp.rules import Rules
from mailfront_proto.smtp.server_commands import LONGEST_USUAL_LINE, ServerCommands, dispatch_table
from mailfront_proto.smtp.states import COMMAND_STATES, UNFINISHED_STATES, State, after_message

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

_ENVELOPE: Final = frozenset((Mail, Recipient, Data))

# The first digits of the codes that an event may be answered with, where they are not 2, 4 and 5
_POSSIBLE: Final[dict[type[Event], tuple[int, ...]]] = {Data: (3, 4, 5), Xclient: (4, 5)}

# "2.5.2" would be a syntax error that succeeded (RFC 3463 section 3.6); so speaks the original.
_ORIGINAL_USUAL: Final = {**_USUAL_REPLIES, Verify: Reply(252, "2.5.2 Send some mail, I'll try my best.")}

# Those of them that mean nothing but the next state
_PLAIN: Final[dict[type[Event], bytes]] = {
    kind: _USUAL_REPLIES[kind].encode() for kind in (Data, Help, Mail, Quit, Reset, Verify)
}
_ORIGINAL_PLAIN: Final = {kind: _ORIGINAL_USUAL[kind].encode() for kind in _PLAIN}

# Bound once: an attribute of an Enum costs a descriptor call each time.
_CONNECTED: Final = State.CONNECTED
_READY: Final = State.READY
_CHUNK: Final = State.CHUNK
_CLOSED: Final = State.CLOSED

# In which nothing is to be done while nothing has come
_WAITING_STATES: Final = frozenset((*COMMAND_STATES, State.BODY))

# What may be accepted with whatever words, nearly always the same: most servers know few
_ACCEPTED_ALIKE: Final = frozenset((Connected, Mail, Recipient, MessageEnd))

_QUIT: Final = ConnectionClosed("QUIT")


def _acceptance(enhances: bool, max_line: int | None) -> Callable[[type[Event | None], int, str], bytes | None]:
    """What knows the wire form of the 2yz answers to these: None for every other answer."""

    @lru_cache(maxsize=64)
    def wire(kind: type[Event | None], code: int, text: str) -> bytes | None:
        if kind not in _ACCEPTED_ALIKE or not 200 <= code < 300:
            return None
        enhanced = enhanced_code(kind, code) if enhances and kind is not Connected else ""
        return encode_reply(code, text, max_line, enhanced)

    return wire  # type: ignore[return-value]  # mypy forgets what it takes


_MAX_KNOWN_RULES: Final = 64
_known_rules: Final[dict[tuple[int, bool], Rules]] = {}


def _rules(profile: Profile, lmtp: bool) -> Rules:
    """Those of `profile`, which is known by its identity while its rules are kept: to compare two takes longer than to
    make rules."""
    found = _known_rules.get((id(profile), lmtp))
    if found is not None:
        return found
    limits = profile.limits
    max_wire_line = MAX_REPLY_LINE if profile.wraps_replies else None
    if len(_known_rules) >= _MAX_KNOWN_RULES:
        _known_rules.clear()
    made = _known_rules[id(profile), lmtp] = Rules(
        profile=profile,
        table=dispatch_table(profile, lmtp),
        usual=_USUAL_REPLIES if profile.enhanced_codes else _ORIGINAL_USUAL,
        plain=_PLAIN if profile.enhanced_codes else _ORIGINAL_PLAIN,
        acceptance=_acceptance(profile.enhanced_codes, max_wire_line),
        strict_lines=profile.line_ends is not LineEnds.ACCEPT,
        usual_line=min(LONGEST_USUAL_LINE, limits.command_line),
        command_limit=limits.command_line,
        frame_limit=max(limits.command_line, limits.auth_line),
        max_wire_line=max_wire_line,
        max_recipients=inf if limits.recipients is None else limits.recipients,
        after_message=after_message(profile),
        extensions=profile.extensions - PROMISES,
    )
    return made


class SMTPServer(ServerCommands):
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

    __slots__ = ()

    def __init__(
        self,
        hostname: str,
        profile: Profile = DEFAULT,
        *,
        lmtp: bool = False,
        greeting: str | None = None,
        lf_bodies: bool = False,
    ) -> None:
        super().__init__(_rules(profile, lmtp), hostname, lmtp, greeting, lf_bodies)

    # -- bytes and events --------------------------------------------------------------------------------

    def next_event(self) -> Event | NeedData | Paused:
        """The next event, `NEED_DATA`, or `PAUSED` while an answer is owed or output is undrained."""
        if self._pending is not None:
            return PAUSED
        while True:
            if not self._buffer.has_unread and self._state in _WAITING_STATES:
                return self._end_of_input() if self._eof else NEED_DATA
            if self._output_size > MAX_PENDING_OUTPUT:
                return PAUSED
            event = _READERS[self._state](self)
            if event is not None:
                return event

    def _next_of_greeting(self) -> Event:
        early = self._buffer.has_unread and not self._greeted
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
        wire = self._plain.get(kind) if text is None else None  # type: ignore[arg-type]  # None is in no dict
        if wire is None or self._next_state is _CHUNK:  # with BDAT, `Data` is answered when the octets are here
            self._accept_otherwise(text, capabilities)
            return
        self._pending = None
        if self._output:
            self._put(wire)
        else:
            self._output = wire
        self._state = self._next_state
        if kind is Quit:
            self._close(_QUIT)

    def _accept_otherwise(self, text: str | None, capabilities: Iterable[str]) -> None:
        """What means more than the next state, or is said in other words than the usual ones."""
        event = self._pending
        kind = type(event)
        if kind is Connected:
            self.reply(220, f"{self.greeting} {'LMTP' if self.lmtp else 'ESMTP'}" if text is None else text)
        elif kind is Helo:
            self._accept_helo(capabilities)
        elif (usual := self._rules.usual.get(kind)) is not None:  # type: ignore[arg-type]
            said = self._additions.replies.get(usual, usual) if text is None else Reply(usual.code, text)
            self.reply(said.code, said.text)
        elif kind is Xclient and text is None:
            self._restart()
        elif isinstance(event, Request):
            said = self._additions.replies.get(_AUTH_DONE, _AUTH_DONE)
            self.reply(said.code, said.text if text is None else text)
        else:
            raise LocalProtocolError("accept() needs an event with a usual reply; reply(code, text) is for others")

    def reply(self, code: int, text: str = "") -> None:
        r"""Answer the last event with `code` and `text` (lines separated by ``\n``).

        A code below 400 accepts. Raises `LocalProtocolError` when no answer is owed, or the code makes no
        sense (3yz is 354 for `Data` and nothing else).
        """
        kind = type(self._pending)
        wire = self._rules.acceptance(kind, code, text) if code < 300 else None
        if wire is None:
            self._reply_otherwise(code, text)
            return
        self._pending = None
        if kind is Recipient:
            self._transaction.recipients += 1
        elif kind is MessageEnd:
            if self.lmtp:  # an answer for each recipient: RFC 2033 section 4.2
                wire *= self._transaction.recipients
            self._message_done(True)
        if self._output:  # `_put`, in place: nearly all commands come this way
            self._more_output.append(wire)
            self._output_size += len(wire)
        else:
            self._output = wire
        self._state = self._next_state

    def _reply_otherwise(self, code: int, text: str) -> None:
        """A refusal, or what means more."""
        event = self._pending
        kind = type(event)
        if event is None:
            raise LocalProtocolError("no answer is owed: call next_event() and answer the event it returns")
        if code // 100 not in _POSSIBLE.get(type(event), (2, 4, 5)):
            raise LocalProtocolError(f"{code} is no possible answer to {kind.__name__}")
        if kind is MessageEnd:
            wire = self._encode(kind, code, text)
            self._pending = None
            self._put(wire * self._transaction.recipients if self.lmtp else wire)
            self._message_done(False)
            if code == 421:
                self._closed_by(code, text)
            return
        if kind is StartTLS and code < 400 and len(self._buffer) and not self.refuses_inside_tls:
            # Plain text came in the meantime: as if it had come with the command.
            self._pending = None
            self._end_with(answers.TLS_PIPELINED)
            return
        if self._exchange is not None and self._auth_goes_on(code, text):
            return
        wire = self._encode(kind, code, text)
        if type(event) is Data and event.chunked and not (code == 421 and self.profile.closes_on_421):
            self._pending = None
            if code < 400:
                self._begin_chunks()
                self._state = self._next_state
            else:
                self._refuse_chunks(wire)
        else:
            self._answer(kind, code, text, wire)
        if code == 421:
            self._closed_by(code, text)

    def _closed_by(self, code: int, text: str) -> None:
        """The application has said 421."""
        if self.profile.closes_on_421 and self._state is not _CLOSED:
            self._close_with(Reply(code, text))

    def _answer(self, kind: type[Event | None], code: int, text: str, wire: bytes) -> None:
        """Every answer but those to `Helo`, to `MessageEnd` and to a chunk."""
        self._pending = None
        self._put(wire)
        if code < 400:
            self._state = self._next_state
        elif kind in _ENVELOPE:
            self._envelope_refused(kind, code)
        elif kind is Connected:
            self._close_with(Reply(code, text))
        if self._exchange is not None:
            self._auth_over(code < 400)
        elif kind is Quit:
            self._close(_QUIT)

    def _envelope_refused(self, kind: type[Event | None], code: int) -> None:
        """What it means that the application does not take a MAIL, a RCPT or a DATA."""
        if kind is Recipient:
            if code >= 500:
                self._end_with(self._budgets.refused_recipient())
        elif kind is Mail:
            self._drop_transaction()
        elif not self.profile.envelope_survives_message:
            # Who refuses the message has dropped its envelope: it may not be used for another.
            self._drop_transaction()
            self._state = _READY

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
        if event.verb == "HELO":
            wire, self._advertised = encode_reply(250, self.hostname, None), frozenset()
        else:
            first = (*capabilities, *self._additions.capabilities.values())
            wire, self._advertised = answer_to_ehlo(self.hostname, first, self._facts())
            if self.authenticated:
                self._advertised |= {"AUTH"}  # the command is offered no more, its parameter of MAIL is
            self.esmtp = True
        self.helo_host = event.host
        self._state = _READY
        self._put(wire)


_READERS: Final[dict[State, Callable[[SMTPServer], Event | NeedData | Paused | None]]] = {
    **dict.fromkeys(COMMAND_STATES, SMTPServer._next_command),
    State.READY: SMTPServer._next_sender,
    State.MAIL: SMTPServer._next_recipient_or_data,
    State.RECIPIENTS: SMTPServer._next_recipient_or_data,
    State.GREETING: SMTPServer._next_of_greeting,
    State.AUTH: SMTPServer._next_auth_response,
    State.BODY: SMTPServer._next_of_body,
    State.ENDED: SMTPServer._end_of_message,
    State.CHUNK: SMTPServer._next_of_chunk,
    State.DRAIN: SMTPServer._next_of_drain,
    State.TLS: SMTPServer._next_of_tls,
    State.CLOSED: SMTPServer._next_of_closed,
}
