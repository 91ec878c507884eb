"""The server role of IMAP (RFC 9051, RFC 3501) up to the login, as a pull machine.

Strategy: commands are framed and their words read by `CommandReader`, then looked up in the table of
`mailfront_proto.imap.states`. What the protocol alone decides is answered here. The login is the application's to
judge; with it the connection goes to its next owner, an IMAP server behind this one, along with the tag that is to be
answered and the bytes that came behind the command::

    machine = IMAPServer()
    machine.offers_login = True  # inside TLS, say
    while not isinstance(event := machine.next_event(), HandOver | ConnectionClosed):
        if event is NEED_DATA or event is PAUSED:
            sock.sendall(machine.data_to_send())
            if event is NEED_DATA:
                machine.receive_data(sock.recv(65536))  # or receive_eof() for b""
        elif isinstance(event, VerifyPassword) and event.password != passwords[event.username]:
            machine.reply("NO")
        elif machine.answer_owed:
            machine.accept()
"""

from collections.abc import Callable
from typing import Any, Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.imap import answers
from mailfront_proto.imap.command_reader import Argument, Atom, Command, Reading
from mailfront_proto.imap.events import Connected, Identified, StartTLS
from mailfront_proto.imap.grammar import encode_quoted
from mailfront_proto.imap.profile import DEFAULT, Profile
from mailfront_proto.imap.replies import Reply, Status, encode_line
from mailfront_proto.imap.server_auth import ServerAuth
from mailfront_proto.imap.server_session import Secrets
from mailfront_proto.imap.states import COMMAND_STATES, COMMANDS, State, command_table
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, Event, NeedData, Paused
from mailfront_proto.sasl.requests import Request

_HTTP_VERBS: Final = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS"))


class IMAPServer(ServerAuth):
    """One session, up to its login.

    `profile`: `DEFAULT`, `COMPAT` or one of your own. `greeting`: the text of the greeting.

    Set these when they become true or change:

    - `offers_starttls`: TLS can be had, and is not in use yet;
    - `offers_login`: LOGIN is taken. Otherwise it is refused, and ``LOGINDISABLED`` listed: set it only where passwords
      may be sent (inside TLS, say);
    - `sasl`: the SASL mechanisms that AUTHENTICATE offers, a `ServerOptions`;
    - `application_capabilities`: what else CAPABILITY tells, behind the machine's own (in the compat profile behind
      ``IMAP4rev1`` alone). Of the next owner's, since a client may keep what it was told;
    - `server_id`: what ID tells of us (RFC 2971): field to value, printable ASCII; empty: NIL.
    """

    __slots__ = ("_table",)

    def __init__(self, profile: Profile = DEFAULT, *, greeting: str = "imapfront ready.") -> None:
        super().__init__(profile, greeting)
        self._table = command_table(profile)

    # -- bytes and events --------------------------------------------------------------------------------

    def next_event(self) -> Event | NeedData | Paused:
        """The next event, `NEED_DATA`, or `PAUSED` while an answer is owed or output is undrained."""
        while True:
            if self._events:
                return self._events.popleft()
            if self._pending is not None or self._output_size > MAX_PENDING_OUTPUT:
                return PAUSED
            event = _READERS[self._state](self)
            if event is not None:
                return event

    def _next_of_greeting(self) -> None:
        self._owe(Connected(early_talker=len(self._buffer) > 0), self._command_state)

    def _next_of_tls(self) -> Event | Paused:
        return self._end_of_input() if self._eof else PAUSED

    def _next_of_closed(self) -> Event:
        assert self._closed is not None
        return self._closed

    # -- answers -----------------------------------------------------------------------------------------

    def accept(self) -> None:
        """Answer the last event with yes: the greeting, ``OK`` to STARTTLS; after a login nothing is sent, and
        `HandOver` follows."""
        event = self._pending
        if isinstance(event, Connected):
            self._pending = None
            code = "CAPABILITY " + " ".join(self.capabilities) if self.profile.extensions else ""
            self._say(Reply("OK", self.greeting, code))
            self._state = self._next_state
        elif isinstance(event, StartTLS):
            self._pending = None
            if self._plain_text_follows():
                return
            self._say(answers.TLS_READY, self._tag)
            self._state = self._next_state
        elif isinstance(event, Request):
            self._login_accepted(event)
        else:
            raise LocalProtocolError("no answer is owed: call next_event() and answer the event it returns")

    def reply(self, status: Status, text: str = "", code: str = "") -> None:
        """Answer the last event with no. `status`: ``NO``, ``BAD``, or at `Connected` ``BYE``. `text`: empty for the
        usual one; control characters become ``?``. `code`: a response code without brackets; ``UNAVAILABLE`` says that
        a login could not be checked now.

        Raises `LocalProtocolError` when no answer is owed, and for a status that accepts.
        """
        event = self._pending
        if event is None:
            raise LocalProtocolError("no answer is owed: call next_event() and answer the event it returns")
        if status not in ("NO", "BAD", "BYE") or (status == "BYE") > isinstance(event, Connected):
            raise LocalProtocolError(f"reply({status!r}) is no refusal of {type(event).__name__}; accept() says yes")
        if isinstance(event, Connected):
            self._pending = None
            reply = self._say(Reply(status, text, code))
            self._end("refused", reply)
        elif isinstance(event, StartTLS):
            self._pending = None
            self._refuse(Reply(status, text or answers.TLS_REFUSED.text, code))
        else:
            usual = self._usual_refusal(code)
            self._login_refused(Reply(status, text or usual.text, usual.code))

    def abort(self, reply: Reply | None = None) -> None:
        """End the session from our side (a deadline, a shutdown), with an untagged `reply` as the last word: ``BYE``.

        An answer that was owed is owed no more. Drain ``data_to_send()``, then close. Not behind `HandOver`.
        """
        if self._state in (State.CLOSED, State.HANDED_OVER):
            return
        self._pending = None
        if reply is not None:
            reply = self._say(reply)
        self._end("aborted", reply)

    def tls_established(self) -> None:
        """The handshake behind `StartTLS` is done: the client is to ask for our capabilities anew (RFC 9051 section
        6.2.1). Set what is offered now.

        For implicit TLS call it before the first ``next_event()``; the greeting then comes inside TLS.
        """
        if self._state not in (State.TLS, State.GREETING) or self._pending is not None or len(self._buffer):
            raise LocalProtocolError("tls_established() follows an accepted StartTLS, or comes before all else")
        self.in_tls = True
        self._command_state = State.PROTECTED
        if self._state is State.TLS:
            self._state = State.PROTECTED

    # -- commands ----------------------------------------------------------------------------------------

    def _next_command(self) -> Event | NeedData | None:
        command = self._reader.read()
        if command is Reading.NEED_DATA:
            return self._end_of_input() if self._eof else NEED_DATA
        if command is Reading.CONTINUE:
            begun = self._reader.begun
            begun.error = self._refusal_of_begun(begun.name.decode("ascii", "replace"))
            if begun.error is None:
                self._say_line(b"+ OK")
                return None
            self._reader.abandon()
            command = begun
        if command is Reading.LOST:
            self._end_with(answers.LOST)
            return None
        assert isinstance(command, Command)
        self._carry_out(command)
        return None

    def _refusal_of_begun(self, name: str) -> Reply | None:
        """Why a command is refused whatever its next argument is: nobody is asked for a password in vain, least of all
        in clear."""
        if not self.profile.strict_grammar:
            return None
        if name not in COMMANDS:
            return answers.UNIMPLEMENTED
        row = self._table[self._state, name]
        if isinstance(row, Reply):
            return row
        if name == "LOGIN":
            return None if self.offers_login else self._login_disabled()
        if name == "AUTHENTICATE":
            return answers.AUTHENTICATE_ARGUMENTS
        return answers.NEEDS_NONE if name in _WITHOUT_ARGUMENTS else None

    def _carry_out(self, command: Command) -> None:
        name = command.name.decode("ascii", "replace")
        known = name in COMMANDS
        self._begin_command(command.tag or b"*", name if known else "", bool(command.name))
        if self.profile.refuses_http and self._tag in _HTTP_VERBS and _looks_like_http(command):
            return self._end_with(answers.NOT_IMAP)
        if command.error is not None:
            if name:
                self._secrets = Secrets.ANYTHING
            return self._refuse(command.error)
        if not known:
            if self._secrets is Secrets.NONE and command.arguments:
                self._secrets = Secrets.WORDS  # it may have been AUTHENTICATE, mistyped
            return self._refuse(answers.UNIMPLEMENTED)
        self._secrets = Secrets.NONE
        row = self._table[self._state, name]
        if isinstance(row, Reply):
            return self._refuse(row)
        if name in _WITHOUT_ARGUMENTS and command.arguments:
            return self._refuse(answers.NEEDS_NONE)
        if name not in ("LOGIN", "AUTHENTICATE"):
            self._budgets.errors_in_row = 0
        _HANDLERS[name](self, command.arguments, row)

    def _capability(self, arguments: list[Argument], next_state: State) -> None:
        self._say_line(encode_line(b"*", "CAPABILITY " + " ".join(self.capabilities))[:-2])
        self._done(answers.CAPABILITY_DONE)

    def _noop(self, arguments: list[Argument], next_state: State) -> None:
        self._done(answers.NOOP_DONE)

    def _id(self, arguments: list[Argument], next_state: State) -> None:
        fields = _id_fields(arguments)
        if fields is None:
            return self._refuse(answers.ID_ARGUMENTS)
        words = [encode_quoted(word) for pair in self.server_id.items() for word in pair]
        self._say_line(b"* ID " + (b"(" + b" ".join(words) + b")" if words else b"NIL"))
        self._events.append(Identified(fields))
        self._done(answers.ID_DONE)

    def _starttls(self, arguments: list[Argument], next_state: State) -> None:
        if not self.offers_starttls:
            return self._refuse(answers.TLS_UNAVAILABLE)
        if not self._plain_text_follows():
            self._owe(StartTLS(), next_state)

    def _plain_text_follows(self) -> bool:
        """Whether bytes came behind STARTTLS: they would be read as if they came inside TLS."""
        if not len(self._buffer):
            return False
        self._say(answers.TLS_PIPELINED, self._tag)
        self._end_with(answers.PLAIN_TEXT)
        return True

    def _logout(self, arguments: list[Argument], next_state: State) -> None:
        self._log_out()


def _looks_like_http(command: Command) -> bool:
    """``GET / HTTP/1.1``, ``CONNECT host:port HTTP/1.1``: the tag is the verb already."""
    return not command.name or b"/" in command.name or b":" in command.name


def _id_fields(arguments: list[Argument]) -> dict[str, str | None] | None:
    """The pairs of ID (RFC 2971 section 3.3); None for what is none: field names of more than 30 octets, a field twice,
    values of more than 1,024."""
    if len(arguments) != 1:
        return None
    listed = arguments[0]
    if not isinstance(listed, list):
        return {} if _is_nil(listed) else None
    fields: dict[str, str | None] = {}
    for field, value in zip(listed[::2], listed[1::2], strict=False):
        name = field.decode("utf-8", "surrogateescape").lower()
        if len(field) > 30 or len(value) > 1024 or name in fields or _is_nil(field):
            return None
        fields[name] = None if _is_nil(value) else value.decode("utf-8", "surrogateescape")
    return None if len(listed) % 2 else fields


def _is_nil(word: bytes) -> bool:
    return isinstance(word, Atom) and word.upper() == b"NIL"


_READERS: Final[dict[State, Callable[[IMAPServer], Event | NeedData | Paused | None]]] = {
    **dict.fromkeys(COMMAND_STATES, IMAPServer._next_command),
    State.GREETING: IMAPServer._next_of_greeting,
    State.AUTH: IMAPServer._next_auth_response,
    State.TLS: IMAPServer._next_of_tls,
    State.HANDED_OVER: IMAPServer._next_of_closed,
    State.CLOSED: IMAPServer._next_of_closed,
}

_WITHOUT_ARGUMENTS: Final = frozenset(("CAPABILITY", "NOOP", "STARTTLS", "LOGOUT"))

# A handler takes the arguments, and the state that follows.
_HANDLERS: Final[dict[str, Callable[[IMAPServer, list[Argument], Any], None]]] = {
    "CAPABILITY": IMAPServer._capability,
    "NOOP": IMAPServer._noop,
    "ID": IMAPServer._id,
    "STARTTLS": IMAPServer._starttls,
    "LOGIN": IMAPServer._login,
    "AUTHENTICATE": IMAPServer._authenticate,
    "LOGOUT": IMAPServer._logout,
}
