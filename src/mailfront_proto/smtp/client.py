"""The client role of SMTP (RFC 5321) and LMTP (RFC 2033), as a pull machine.

Strategy: a method puts one command into the output and notes that its answer is awaited; ``next_event``
frames and reads the answers and matches them to the commands, in order. Nothing is believed of a server
that breaks the protocol: replies are bounded, and one that answers no command (or comes before its command
went out) is a `RemoteProtocolError`. On top, ``send_message`` sends one whole message by itself, as far as
its body, which the application supplies::

    client = SMTPClient("host.example.org")
    # pull Greeting; client.hello(); pull HelloDone
    client.send_message("me@example.org", ["you@example.net"])
    while not isinstance(event := client.next_event(), MessageDone):
        if isinstance(event, ReadyForBody):
            client.send_body(b"Subject: hello\r\n\r\nHello.\r\n")
            client.end_of_body()
        elif event is NEED_DATA:
            sock.sendall(client.data_to_send())
            data = sock.recv(65536)
            client.receive_data(data) if data else client.receive_eof()
    print(event.results)
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NoReturn

from mailfront_proto.buffer import OVERSIZED, ReceiveBuffer
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, NeedData, Paused
from mailfront_proto.sasl import ClientMechanism
from mailfront_proto.sasl.exchange import decode_base64, encode_base64
from mailfront_proto.smtp.addresses import Address, AddressError
from mailfront_proto.smtp.body_encoder import DotEncoder
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
    RecipientResult,
    ReplyReceived,
    Stage,
)
from mailfront_proto.smtp.events import ConnectionClosed
from mailfront_proto.smtp.replies import Reply, parse_reply_line
from mailfront_proto.smtp.states import State
from mailfront_proto.smtp.transaction import Transaction

MAX_REPLY_LINE: Final = 4096
"""Bytes of a reply line, CRLF included. RFC 5321 section 4.5.3.1.5 lets servers send 512; some send more."""

MAX_REPLY_LINES: Final = 256
"""Lines of one reply. No RFC sets a limit; EHLO answers have some twenty, and HELP texts a hundred."""

MAX_COMMAND_LINE: Final = 4096
"""Bytes of a command line that we send, CRLF included: what our own server takes. RFC 5321 section
4.5.3.1.4 sets 512, and every extension adds to it; servers refuse what is too long for them."""

MAX_AUTH_LINE: Final = 12288
"""Bytes of a line in an AUTH exchange (RFC 4954 section 4)."""

MAX_CHALLENGES: Final = 16
"""Challenges in one AUTH exchange. No mechanism has more than three."""

MAX_PIPELINED: Final = 100
"""Commands that may be unanswered. Their answers fit any socket buffer, so that server and client never
wait for each other's reading (RFC 2920 section 3.1), and 98 recipients fit into one write."""

IN_MESSAGE: Final = ("DATA", ".", "AUTH")

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

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NAME: Final = re.compile(r"[!-~]+\Z", re.ASCII)
# esmtp-keyword [ "=" esmtp-value ], RFC 5321 section 4.1.2
_PARAMETER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(?:=[!-<>-~]+)?\Z", re.ASCII)


class SMTPClient:
    """One session.

    `local_name`: our name for HELO, a domain or an address literal (RFC 5321 section 4.1.4). `lmtp`: speak
    LMTP. `max_reply_line`, `max_reply_lines`: bytes of a line and lines of a reply, past which the server
    has lost us (`RemoteProtocolError`).

    Methods that send a command return None; drain ``data_to_send()``, and pull the answer as an event. They
    raise `LocalProtocolError`, and send nothing, for a command out of order and for an argument that holds
    CR, LF, NUL or another control character. Commands may be given before earlier ones are answered where
    the server offers PIPELINING and RFC 2920 allows it: MAIL, RCPT and RSET, and any one command behind them.

    ``next_event`` raises `RemoteProtocolError` when the server breaks the protocol. Call it again then: it
    returns what is still to be told (`MessageDone`, where a message was under way), and `ConnectionClosed`.
    """

    def __init__(
        self,
        local_name: str,
        *,
        lmtp: bool = False,
        max_reply_line: int = MAX_REPLY_LINE,
        max_reply_lines: int = MAX_REPLY_LINES,
    ) -> None:
        if not _NAME.match(local_name):
            raise LocalProtocolError(
                f"SMTPClient({local_name!r}): the name is a domain or an address literal such as [192.0.2.1]"
            )
        self.lmtp = lmtp
        self.capabilities = Capabilities()
        """What the server offers; empty before `HelloDone`, and again after ``tls_established()``."""
        self.in_tls = False
        self.authenticated = False
        self._local_name = local_name
        self._max_reply_line = max_reply_line
        self._max_reply_lines = max_reply_lines

        self._state = State.GREETING
        self._buffer = ReceiveBuffer()
        self._eof = False
        self._output: list[bytes] = []
        self._output_size = 0
        self._events: deque[ClientEvent] = deque()
        self._closed: ConnectionClosed | None = None

        self._awaiting: deque[str] = deque(["greeting"])
        self._reply_lines: list[str] = []
        self._reply_code = 0
        self._answered_too_early = False  # bytes of an answer came before its command went out

        self._sender_accepted = False
        self._recipients_accepted = 0
        self._utf8 = False
        self._encoder = DotEncoder()
        self._message: Transaction | None = None

        self._mechanism: ClientMechanism | None = None
        self._challenges = 0
        self._cancelled = ""

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
            raise LocalProtocolError("a TLS handshake is awaited: feed the bytes to TLS, then tls_established()")
        if self._state is not State.CLOSED:
            self._buffer.feed(data)

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
            reply = self._read_reply()
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
        if self._state not in (State.TLS, State.GREETING) or len(self._buffer):
            raise LocalProtocolError("tls_established() follows ReadyForTLS, or comes before all else")
        self.in_tls = True
        if self._state is State.TLS:
            self.capabilities = Capabilities()
            self.authenticated = False
            self._state = State.CONNECTED

    # -- commands ----------------------------------------------------------------------------------------

    def hello(self, extended: bool = True) -> None:
        """Introduce ourselves: EHLO (RFC 5321 section 4.1.1.1), or HELO if the server answers it with 5yz;
        LHLO in LMTP (RFC 2033 section 4.1), which has no other. `extended` False: HELO at once.

        `HelloDone` follows (behind a `ReplyReceived` for an EHLO that was refused).
        """
        if self.lmtp and not extended:
            raise LocalProtocolError("LMTP has no HELO: call hello()")
        verb = "LHLO" if self.lmtp else "EHLO" if extended else "HELO"
        self._command(verb, f"{verb} {self._local_name}".encode("ascii"))

    def starttls(self) -> None:
        """STARTTLS (RFC 3207). `ReadyForTLS` follows, or a `ReplyReceived` if the server refuses.

        Raises `LocalProtocolError` when TLS is in use, or not offered: whether mail may then go in clear is
        for the application to decide.
        """
        if self.in_tls:
            raise LocalProtocolError("starttls(): TLS is in use already")
        if self._state is State.READY and "STARTTLS" not in self.capabilities:
            raise LocalProtocolError('starttls(): not offered; look for "STARTTLS" in client.capabilities first')
        self._command("STARTTLS", b"STARTTLS")

    def authenticate(self, mechanism: ClientMechanism, *, allow_clear: bool = False) -> None:
        """AUTH (RFC 4954) with `mechanism`, an object made for this one exchange. `Authenticated` or
        `AuthenticationFailed` follows.

        `allow_clear`: send credentials without TLS. Otherwise that raises `LocalProtocolError`, as does a
        mechanism that the server does not offer (``capabilities.mechanisms``).
        """
        if not self.in_tls and not allow_clear:
            raise LocalProtocolError(
                "authenticate() would send credentials in clear: call starttls() first, or say "
                "authenticate(…, allow_clear=True) if something else protects the connection"
            )
        if self.authenticated:
            raise LocalProtocolError("authenticate(): done already; RFC 4954 section 4 allows it once")
        name = mechanism.name
        if self._state is State.READY and name not in self.capabilities.mechanisms:
            offered = " ".join(self.capabilities.mechanisms) or "no mechanism"
            raise LocalProtocolError(f"authenticate(): the server offers {offered}, not {name}")
        line = b"AUTH " + name.encode("ascii")
        self._check_order("AUTH")
        response = mechanism.initial_response()
        if response is not None:
            with_response = line + b" " + (encode_base64(response) or b"=")  # RFC 4954 section 4
            if len(with_response) + 2 <= MAX_AUTH_LINE:
                line = with_response
        self._mechanism = mechanism
        self._challenges = 0
        self._cancelled = ""
        self._command("AUTH", line, MAX_AUTH_LINE)
        self._state = State.AUTH

    def mail(self, address: Address | str, parameters: Sequence[str] = ()) -> None:
        """MAIL FROM (RFC 5321 section 4.1.1.2). An empty `address` is the null path.

        `parameters`: ``KEY`` or ``KEY=VALUE`` each, as the wire has them. Next: ``recipient()``.
        """
        utf8 = any(parameter.upper() == "SMTPUTF8" for parameter in parameters)
        self._command("MAIL", _envelope_line("MAIL FROM:", address, parameters, utf8))
        self._utf8 = utf8

    def recipient(self, address: Address | str, parameters: Sequence[str] = ()) -> None:
        """RCPT TO (RFC 5321 section 4.1.1.3), behind ``mail()``. Next: another, or ``data()``."""
        self._command("RCPT", _envelope_line("RCPT TO:", address, parameters, self._utf8))

    def data(self) -> None:
        """DATA (RFC 5321 section 4.1.1.4), behind ``recipient()``. `ReadyForBody` follows, or a
        `ReplyReceived` if the server refuses.

        If it comes though every recipient was refused (that can happen when DATA was pipelined), call
        ``end_of_body()`` at once (RFC 2920 section 3.1).
        """
        self._command("DATA", b"DATA")

    def send_body(self, data: bytes) -> None:
        """The next piece of the message, cut anywhere; lines end in CRLF or LF, dots as they are.

        No CR or LF goes out alone: a bare LF becomes CRLF, a bare CR a space. Drain ``data_to_send()`` after
        each call, since nothing else bounds the output.
        """
        self._check_body("send_body()")
        self._put(self._encoder.feed(data))

    def end_of_body(self) -> None:
        """The message is complete: send its last line end, if missing, and the final dot.

        `ReplyReceived` for ``.`` follows, in LMTP once for each accepted recipient (RFC 2033 section 4.2);
        under ``send_message()``, `MessageDone` after it.
        """
        self._check_body("end_of_body()")
        self._finish_body()

    def reset(self) -> None:
        """RSET (RFC 5321 section 4.1.1.5): drop the transaction."""
        self._command("RSET", b"RSET")

    def noop(self) -> None:
        """NOOP (RFC 5321 section 4.1.1.9)."""
        self._command("NOOP", b"NOOP")

    def verify(self, name: str) -> None:
        """VRFY (RFC 5321 section 4.1.1.6) of a user or mailbox name, in ASCII."""
        if not name.strip() or not name.isascii():
            raise LocalProtocolError(f"verify({name!r}): the name is ASCII, and not empty")
        self._command("VRFY", f"VRFY {name}".encode("ascii"))

    def quit(self) -> None:
        """QUIT (RFC 5321 section 4.1.1.10). `ReplyReceived` and `ConnectionClosed` follow."""
        self._command("QUIT", b"QUIT")

    # -- a whole message ---------------------------------------------------------------------------------

    def send_message(
        self,
        sender: Address | str,
        recipients: Iterable[Address | str],
        *,
        size: int | None = None,
        eight_bit: bool = False,
        parameters: Sequence[str] = (),
    ) -> None:
        """Send one message: pull events until `MessageDone`, and supply the body at `ReadyForBody`.

        `sender`, `recipients` (one at least): the envelope, the sender empty for the null path. `size`: the
        message's octets with CRLF line ends, if known; told to a server with SIZE (RFC 1870). `eight_bit`:
        the message has bytes of 128 and above; a server without 8BITMIME must not get such a message (RFC
        6152 section 3), so that all its recipients fail. `parameters`: further ones for MAIL.

        The envelope goes out in one piece where the server offers PIPELINING, else command by command. There
        is no body if every recipient was refused; those that were accepted get it, whatever befell others.
        A transaction left open is dropped first (RSET).
        """
        to = [_address(recipient) for recipient in recipients]
        if not to:
            raise LocalProtocolError("send_message(): there are no recipients")
        if self._state not in (State.MAIL, State.RECIPIENTS):
            self._check_order("MAIL")
        elif self._awaiting:
            self._check_order("RSET")
        sent_from = _address(sender)
        unmet = Reply(554, "5.6.3 The server does not take 8-bit messages")
        told = list(parameters)
        if size is not None and "SIZE" in self.capabilities:
            told.append(f"SIZE={size:d}")
        utf8 = not all(address.is_ascii for address in (sent_from, *to))
        if utf8 and "SMTPUTF8" not in self.capabilities:
            unmet = Reply(553, "5.6.7 The server does not take non-ASCII addresses")  # RFC 6531 section 3.5
        elif utf8:
            told.append("SMTPUTF8")
        if eight_bit and "8BITMIME" in self.capabilities:
            told.append("BODY=8BITMIME")
        envelope = [("MAIL", _envelope_line("MAIL FROM:", sent_from, told, utf8))]
        envelope += [("RCPT", _envelope_line("RCPT TO:", address, (), utf8)) for address in to]
        if (utf8 and "SMTPUTF8" not in self.capabilities) or (eight_bit and "8BITMIME" not in self.capabilities):
            self._events.append(MessageDone([RecipientResult(address, unmet, Stage.LOCAL) for address in to]))
            return
        if self._state is not State.READY:
            envelope.insert(0, ("RSET", b"RSET"))
        self._message = Transaction(envelope, to, self.lmtp)
        self._advance(self._message)

    def _advance(self, message: Transaction) -> None:
        """Send what may be sent now."""
        while not self._awaiting or (
            self._awaiting[-1] in _PIPELINED
            and "PIPELINING" in self.capabilities
            and len(self._awaiting) < MAX_PIPELINED
        ):
            command = message.next_command(all_answered=not self._awaiting)
            if command is None:
                break
            self._send_command(*command)
        if message.is_over:
            self._message_over(message)

    def _message_over(self, message: Transaction) -> None:
        self._message = None
        self._events.append(MessageDone(message.results))

    # -- sending -----------------------------------------------------------------------------------------

    def _command(self, verb: str, line: bytes, limit: int = MAX_COMMAND_LINE) -> None:
        """Send `line`, if `verb` may be sent now."""
        self._check_order(verb)
        if _CONTROL.search(line.decode("utf-8", "surrogateescape")):
            raise LocalProtocolError(
                f"{verb}: an argument holds CR, LF, NUL or another control character, which would end the "
                "command and start another; take it out, or refuse the mail"
            )
        if len(line) + 2 > limit:
            raise LocalProtocolError(f"{verb}: a line of {len(line) + 2} bytes is over {limit}; shorten the arguments")
        self._send_command(verb, line)
