r"""The server role of POP3 (RFC 1939), as a pull machine.

Strategy: bytes are framed into lines (`ReceiveBuffer`), a line is looked up in the table of
`mailfront_proto.pop3.states`. What the protocol alone decides (syntax, order, limits, marks, listings) is answered
here and told as `Answered` or `Refused`; a login, the mailbox, a message and the update are events that wait for the
application. The machine keeps eleven bytes for each message and never a message itself::

    machine = POP3Server()
    machine.offers_user = True
    while not isinstance(event := machine.next_event(), ConnectionClosed):
        sock.sendall(machine.data_to_send())
        if event is NEED_DATA:
            machine.receive_data(sock.recv(65536))  # or receive_eof() for b""
        elif isinstance(event, OpenMailbox):
            machine.open_mailbox([len(m) for m in messages], [b"%d" % n for n in range(len(messages))])
        elif isinstance(event, Retrieve):
            machine.accept()
            machine.send_message_data(messages[event.number - 1])
            machine.end_of_message()
        elif machine.answer_owed:
            machine.accept()
    sock.sendall(machine.data_to_send())
"""

import re
from collections.abc import Callable
from typing import Any, Final

from mailfront_proto.buffer import OVERSIZED
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.pop3 import answers
from mailfront_proto.pop3.events import (
    Answered,
    Connected,
    ConnectionClosed,
    OpenMailbox,
    Retrieve,
    StartTLS,
    Update,
)
from mailfront_proto.pop3.profile import DEFAULT, Profile
from mailfront_proto.pop3.replies import Reply, Status, is_code
from mailfront_proto.pop3.server_mailbox import ServerMailbox
from mailfront_proto.pop3.states import COMMANDS, LOGIN_STATES, Mode, Row, State, command_states, command_table
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, Event, NeedData, Paused

_USUAL_REFUSALS: Final[dict[type[Event], Reply]] = {
    Connected: answers.INTERNAL_ERROR,
    OpenMailbox: answers.INTERNAL_ERROR,
    Retrieve: answers.CANNOT_OPEN,
    Update: answers.NOT_ALL_DELETED,
    StartTLS: answers.INTERNAL_ERROR,
}

_IDLE_VERBS: Final = frozenset(("CAPA", "USER", "STLS", "UTF8", "LANG", "STAT", "RSET", "LAST", "NOOP"))
_WITHOUT_ARGUMENT: Final = frozenset(("CAPA", "STLS", "UTF8", "STAT", "RSET", "LAST", "NOOP", "QUIT"))
_WITH_ARGUMENT: Final = frozenset(("USER", "PASS", "RETR", "TOP", "DELE"))
_CONTROL: Final = compile_later(rb"[\x00-\x1f\x7f]")
_ENGLISH: Final = compile_later(rb"(?:\*|i-default|en(?:-[A-Za-z0-9]{1,8})*+)\Z", re.I)

_CLOSED: Final = State.CLOSED
_TRANSACTION: Final = State.TRANSACTION


class POP3Server(ServerMailbox):
    """One session.

    `profile`: `DEFAULT`, `COMPAT` or one of your own. `mode`: which part of a session is served. `greeting`: the text
    behind the ``+OK`` of the greeting.

    Set these when they become true or change:

    - `offers_user`: USER and PASS are taken; let it be so where the connection is protected;
    - `sasl`: the SASL mechanisms that AUTH offers now, and what they need;
    - `offers_stls`: TLS can be had, and is not in use yet;
    - `offers_utf8`: the mailbox can be served in UTF8 mode (RFC 6856);
    - `expire`, `login_delay`, `implementation`: what CAPA says behind EXPIRE (``NEVER``, days, or days and ``USER``),
      LOGIN-DELAY (seconds) and IMPLEMENTATION (RFC 2449 section 6); empty: it does not say that.
    """

    __slots__ = ("_table",)

    def __init__(self, profile: Profile = DEFAULT, *, mode: Mode = Mode.WHOLE, greeting: str = "") -> None:
        super().__init__(profile, mode, greeting)
        self._table = _dispatch_table(profile, mode)

    # -- bytes and events --------------------------------------------------------------------------------

    def next_event(self) -> Event | NeedData | Paused:
        """The next event, `NEED_DATA`, or `PAUSED` while an answer is owed, a message is being sent, or output is
        undrained."""
        if self._pending is not None:
            return PAUSED
        while True:
            if self._output_size > MAX_PENDING_OUTPUT:
                return PAUSED
            event = _READERS[self._state](self)
            if event is not None:
                return event

    def _next_of_greeting(self) -> Event:
        mailbox = self.mode is Mode.MAILBOX
        return self._owe(Connected(early_talker=len(self._buffer) > 0), State.OPENING if mailbox else LOGIN_STATES[0])

    def _next_of_tls(self) -> Event | Paused:
        return self._end_of_input() if self._eof else PAUSED

    def _next_of_closed(self) -> Event:
        assert self._closed is not None
        return self._closed

    # -- answers -----------------------------------------------------------------------------------------

    def accept(self, text: str = "") -> None:
        """Answer the last event with ``+OK`` and `text`. `OpenMailbox` is accepted with `open_mailbox`, which also
        has the text that answers a login, and the greeting in `Mode.MAILBOX`: nothing is said before it."""
        event = self._pending
        if event is None:
            raise LocalProtocolError("no answer is owed: call next_event() and answer the event it returns")
        kind = type(event)
        if kind is OpenMailbox:
            raise LocalProtocolError("accept(): say what is in the mailbox, with open_mailbox(sizes, uids)")
        if kind is StartTLS and len(self._buffer):
            # Plain text came in the meantime: as if it had come with the command.
            self._pending = None
            self._refuse_last(answers.TLS_PIPELINED)
            return
        if kind not in _USUAL_REFUSALS:
            self._login_accepted(event)
            return
        self._pending = None
        if kind is Connected:
            self._state = self._next_state
            if self._state is State.OPENING:
                return
            text = text or self.greeting
        elif kind is StartTLS:
            self._state = self._next_state
            text = text or answers.BEGIN_TLS.text
        elif kind is Retrieve:
            self._begin_message(event)
        self._say(Reply("+OK", text))
        if kind is Update:
            self._close(ConnectionClosed("QUIT"))

    def reply(self, status: Status, text: str | None = None, code: str = "") -> None:
        """Answer the last event. ``reply("+OK", text)`` is ``accept(text)``; ``reply("-ERR")`` refuses in the usual
        words, or with `text`, and the response `code` (RFC 2449 section 8): ``AUTH``, ``SYS/TEMP``, ``SYS/PERM``,
        ``IN-USE``, ``LOGIN-DELAY``; it is left out by profiles without ``response_codes``."""
        if status == "+OK":
            self.accept(text or "")
            return
        event = self._pending
        if event is None:
            raise LocalProtocolError("no answer is owed: call next_event() and answer the event it returns")
        if code and not is_code(code):
            raise LocalProtocolError(f"reply(): {code!r} is no response code; AUTH or SYS/TEMP is one")
        usual = _USUAL_REFUSALS.get(type(event))
        if code == answers.INTERNAL_ERROR.code:
            usual = answers.INTERNAL_ERROR
        elif usual is None:
            usual = answers.AUTH_FAILED if self._exchange is None else answers.SASL_FAILED
        reply = Reply("-ERR", text, code) if text is not None else Reply("-ERR", usual.text, code or usual.code)
        if type(event) not in _USUAL_REFUSALS:
            self._login_refused(reply)
            return
        self._pending = None
        self._refused_by_application(event, reply)

    def reply_utf8_only(self) -> None:
        """Answer `Retrieve` for a message with UTF-8 in its header, where the client has not said UTF8: ``-ERR [UTF8]``
        (RFC 6856 section 2.1)."""
        event = self._pending
        if not isinstance(event, Retrieve) or event.utf8:
            raise LocalProtocolError("reply_utf8_only() answers a Retrieve whose utf8 is False; otherwise accept()")
        self.reply("-ERR", answers.UTF8_ONLY.text, answers.UTF8_ONLY.code)

    def abort(self, reply: Reply | None = None) -> None:
        """End the session from our side (a deadline, a shutdown), with `reply` as the last word, such as
        ``answers.TIMED_OUT``. In the middle of a message or a listing it would be read as a part of that, and is not
        said.

        An answer that was owed is owed no more; there is no `Update`. Drain ``data_to_send()``, then close.
        """
        state = self._state
        if state is _CLOSED or state is State.HANDED_OVER:
            return
        sending = state in (State.MESSAGE, State.LISTING)
        unfinished = sending or self._pending is not None or state in (State.AUTH, State.TLS, State.OPENING)
        self._pending = None
        if reply is not None and not sending:
            reply = self._say(reply)
        self._close(ConnectionClosed("aborted", unfinished, reply))

    def tls_established(self) -> None:
        """The handshake behind `StartTLS` is done: what was known of the client is forgotten (RFC 2595 section 4).

        For implicit TLS call it before the first `next_event`; the greeting then comes inside TLS.
        """
        if self._state not in (State.TLS, State.GREETING) or len(self._buffer):
            raise LocalProtocolError("tls_established() follows an accepted StartTLS, or comes before all else")
        self.in_tls = True
        if self._state is State.TLS:
            self._forget_client()
            self._state = State.AUTHORIZATION

    def _refused_by_application(self, event: Event, reply: Reply) -> None:
        if isinstance(event, OpenMailbox) and event.again:
            self._maildrop.reset()
            self._state = _TRANSACTION
        elif isinstance(event, OpenMailbox) and self.mode is not Mode.MAILBOX:
            self.username = self._user_name = ""
            self._state = State.AUTHORIZATION
            if self._budgets.idle():
                self._refuse_last(answers.TOO_MANY_IDLE_COMMANDS)
                return
        elif isinstance(event, Connected | OpenMailbox):
            self._close(ConnectionClosed("refused", reply=self._say(reply)))
            return
        elif isinstance(event, Update):
            self._close(ConnectionClosed("QUIT", reply=self._say(reply)))
            return
        self._say(reply)

    # -- commands ----------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> list[str]:
        """What CAPA tells now (RFC 2449 section 5), line by line."""
        login = self._state is not _TRANSACTION
        lines = []
        if self.sasl.mechanisms and (login or self.profile.extensions):
            # RFC 5034 section 3, in both states: a client may ask once (RFC 2449 section 5)
            lines.append("SASL " + " ".join(self.sasl.mechanisms))
        lines += ["PIPELINING", "TOP", "UIDL"]
        if self.offers_user:
            lines.append("USER")
        if not self.profile.extensions:
            return lines
        if self.profile.response_codes:
            lines += ["RESP-CODES", "AUTH-RESP-CODE"]  # RFC 2449 section 6.4, RFC 3206 section 5
        if login and self.offers_stls and not self.in_tls:
            lines.append("STLS")
        if self.offers_utf8:
            lines.append("UTF8")
        lines.append("LANG")
        told = (("EXPIRE", self.expire), ("LOGIN-DELAY", self.login_delay), ("IMPLEMENTATION", self.implementation))
        return lines + [f"{name} {value}" for name, value in told if value]

    def _next_command(self) -> Event | NeedData | None:
        line = self._buffer.read_line(self._frame_limit) if self._buffer.has_unread else None
        if line is None:
            return self._end_of_input() if self._eof else NEED_DATA
        if line == OVERSIZED:
            self.last_line = ""
            return self._refuse(answers.LINE_TOO_LONG)
        command = line[:-2] if line[-2:] == b"\r\n" else line[:-1]
        raw_verb, blank, argument = command.partition(b" ")
        upper = raw_verb.upper()
        entry = self._table[self._state].get(upper)
        if len(line) > self.profile.limits.command_line and upper != b"AUTH":
            self.last_line = ""
            return self._refuse(answers.LINE_TOO_LONG)
        self.last_line = self._shown(raw_verb, blank, argument)
        if self.profile.strict_lines and _CONTROL.search(command):
            return self._refuse(answers.SYNTAX_ERROR)
        if entry is None:
            return self._unknown(raw_verb)
        verb, handler, row = entry
        if verb != "PASS" or not self.profile.spaces_in_password:
            argument = argument.lstrip(b" ")
        if (not argument and verb in _WITH_ARGUMENT) or (argument and verb in _WITHOUT_ARGUMENT):
            return self._refuse(answers.SYNTAX_ERROR)
        if isinstance(row, Reply):
            return self._refuse(row if self.offers_user else answers.NOT_IMPLEMENTED)
        budgets = self._budgets
        budgets.errors_in_row = 0
        if verb in _IDLE_VERBS and budgets.idle():
            return self._refuse_last(answers.TOO_MANY_IDLE_COMMANDS)
        self._secrets_may_follow = False
        return handler(self, argument, row)

    def _capa(self, argument: bytes, next_state: State) -> Event:
        self._put_lines(answers.DONE, self.capabilities)
        return Answered(self.last_line, answers.DONE)

    def _stls(self, argument: bytes, next_state: State) -> Event:
        if self.in_tls and self.offers_stls:
            return self._refuse(answers.TLS_ALREADY)
        if not self.offers_stls:
            return self._refuse(answers.NOT_IMPLEMENTED)
        if len(self._buffer):
            # Plain text behind the command would be read as if it came inside TLS.
            return self._refuse_last(answers.TLS_PIPELINED)
        return self._owe(StartTLS(), next_state)

    def _utf8(self, argument: bytes, next_state: State) -> Event:
        if not self.offers_utf8:
            return self._refuse(answers.NOT_IMPLEMENTED)
        self.in_utf8 = True
        return self._done()

    def _lang(self, argument: bytes, next_state: State) -> Event:
        """All texts of ours are in English, and stay so (RFC 6856 section 3)."""
        if not argument:
            self._put_lines(answers.LANGUAGES, ("en English", "i-default English"))
            return Answered(self.last_line, answers.LANGUAGES)
        if not _ENGLISH.match(argument):
            return self._refuse(answers.NO_SUCH_LANGUAGE)
        return Answered(self.last_line, self._say(answers.LANGUAGE_CHANGED))

    def _quit(self, argument: bytes, next_state: State) -> Event:
        if self._state is _TRANSACTION:
            return self._owe(Update(self._maildrop.deleted(), self._maildrop.newly_read()), next_state)
        event = self._done()
        self._close(ConnectionClosed("QUIT"))
        return event


_READERS: Final[dict[State, Callable[[POP3Server], Event | NeedData | Paused | None]]] = {
    **dict.fromkeys((*LOGIN_STATES, _TRANSACTION), POP3Server._next_command),
    State.GREETING: POP3Server._next_of_greeting,
    State.AUTH: POP3Server._next_auth_response,
    State.TLS: POP3Server._next_of_tls,
    State.OPENING: POP3Server._next_of_opening,
    State.LISTING: POP3Server._next_of_listing,
    State.MESSAGE: POP3Server._next_of_message,
    State.HANDED_OVER: POP3Server._next_of_closed,
    State.CLOSED: POP3Server._next_of_closed,
}

# A handler takes the argument, and the state that follows.
Handler = Callable[[POP3Server, bytes, Any], Event | None]

_HANDLERS: Final[dict[str, Handler]] = {
    "CAPA": POP3Server._capa,
    "AUTH": POP3Server._auth,
    "USER": POP3Server._user,
    "PASS": POP3Server._pass,
    "STLS": POP3Server._stls,
    "UTF8": POP3Server._utf8,
    "LANG": POP3Server._lang,
    "STAT": POP3Server._stat,
    "LIST": POP3Server._list,
    "UIDL": POP3Server._uidl,
    "RETR": POP3Server._retr,
    "TOP": POP3Server._top,
    "DELE": POP3Server._dele,
    "RSET": POP3Server._rset,
    "LAST": POP3Server._last,
    "NOOP": POP3Server._noop,
    "QUIT": POP3Server._quit,
}

Entry = tuple[str, Handler, Row]

_dispatch_tables: dict[tuple[Profile, Mode], dict[State, dict[bytes, Entry]]] = {}


def _dispatch_table(profile: Profile, mode: Mode) -> dict[State, dict[bytes, Entry]]:
    """The order table of `mailfront_proto.pop3.states` with the handlers beside it, for one lookup by what came in.
    Made once for each profile and mode: profiles do not change."""
    found = _dispatch_tables.get((profile, mode))
    if found is None:
        table = command_table(profile, mode)
        found = _dispatch_tables[profile, mode] = {
            state: {
                verb.encode(): (verb, _HANDLERS[verb], table[state, verb])
                for verb in COMMANDS
                if table[state, verb] is not answers.NOT_IMPLEMENTED
            }
            for state in command_states(mode)
        }
    return found
