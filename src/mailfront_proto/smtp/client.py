r"""The client role of SMTP (RFC 5321) and LMTP (RFC 2033), as a pull machine.

Strategy: here are the methods that send; each puts one command into the output, and its answer comes as an
event. `ClientSession` matches the two, and believes nothing of a server that breaks the protocol: replies
are bounded, and one that answers no command (or comes before its command went out) is a
`RemoteProtocolError`. On top, ``send_message`` sends one whole message by itself, as far as its body, which
the application supplies::

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
from collections.abc import Iterable, Sequence
from typing import Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl import ClientMechanism
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.client_auth import ClientExchange
from mailfront_proto.smtp.client_lines import command_line, envelope_line, to_address
from mailfront_proto.smtp.client_session import ClientSession, answer_awaited
from mailfront_proto.smtp.reply_reader import MAX_REPLY_LINE, MAX_REPLY_LINES
from mailfront_proto.smtp.states import State
from mailfront_proto.smtp.transaction import Transaction

_NAME: Final = re.compile(r"[!-~]+\Z", re.ASCII)


class SMTPClient(ClientSession):
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
        super().__init__(local_name, lmtp, max_reply_line, max_reply_lines)

    # -- commands ----------------------------------------------------------------------------------------

    def hello(self, extended: bool = True) -> None:
        """Introduce ourselves: EHLO (RFC 5321 section 4.1.1.1), or HELO if the server answers it with 5yz;
        LHLO in LMTP (RFC 2033 section 4.1), which has no other. `extended` False: HELO at once.

        `HelloDone` follows (behind a `ReplyReceived` for an EHLO that was refused).
        """
        if self.lmtp and not extended:
            raise LocalProtocolError("LMTP has no HELO: call hello()")
        verb = "LHLO" if self.lmtp else "EHLO" if extended else "HELO"
        self._command(verb, command_line(verb, f"{verb} {self._local_name}".encode("ascii")))

    def starttls(self) -> None:
        """STARTTLS (RFC 3207). `ReadyForTLS` follows, or a `ReplyReceived` if the server refuses.

        Raises `LocalProtocolError` when TLS is in use, or not offered: whether mail may then go in clear is
        for the application to decide.
        """
        if self.in_tls:
            raise LocalProtocolError("starttls(): TLS is in use already")
        if self._state is State.READY and "STARTTLS" not in self.capabilities:
            raise LocalProtocolError("starttls(): not offered; look into client.capabilities first")
        self._command("STARTTLS", b"STARTTLS\r\n")

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
        self._check_order("AUTH")
        exchange = ClientExchange(mechanism)
        self._send("AUTH", exchange.start())
        self._exchange = exchange
        self._state = State.AUTH

    def mail(self, address: Address | str, parameters: Sequence[str] = ()) -> None:
        """MAIL FROM (RFC 5321 section 4.1.1.2). An empty `address` is the null path.

        `parameters`: ``KEY`` or ``KEY=VALUE`` each, as the wire has them. Next: ``recipient()``.
        """
        utf8 = any(parameter.upper() == "SMTPUTF8" for parameter in parameters)
        self._command("MAIL", envelope_line("MAIL", to_address(address), parameters, utf8))
        self._utf8 = utf8

    def recipient(self, address: Address | str, parameters: Sequence[str] = ()) -> None:
        """RCPT TO (RFC 5321 section 4.1.1.3), behind ``mail()``. Next: another, or ``data()``."""
        self._command("RCPT", envelope_line("RCPT", to_address(address), parameters, self._utf8))

    def data(self) -> None:
        """DATA (RFC 5321 section 4.1.1.4), behind ``recipient()``. `ReadyForBody` follows, or a
        `ReplyReceived` if the server refuses.

        If it comes though every recipient was refused (that can happen when DATA was pipelined), call
        ``end_of_body()`` at once (RFC 2920 section 3.1).
        """
        self._command("DATA", b"DATA\r\n")

    def send_body(self, data: bytes) -> None:
        """The next piece of the message, cut anywhere; lines end in CRLF or LF, dots as they are.

        No CR or LF goes out alone: a bare LF becomes CRLF, a bare CR a space. Drain ``data_to_send()`` after
        each call, since nothing else bounds the output.
        """
        self._check_body()
        self._put(self._encoder.feed(data))

    def end_of_body(self) -> None:
        """The message is complete: send its last line end, if missing, and the final dot.

        `ReplyReceived` for ``.`` follows, in LMTP once for each accepted recipient (RFC 2033 section 4.2);
        under ``send_message()``, `MessageDone` after it.
        """
        self._check_body()
        self._finish_body()

    def reset(self) -> None:
        """RSET (RFC 5321 section 4.1.1.5): drop the transaction."""
        self._command("RSET", b"RSET\r\n")

    def noop(self) -> None:
        """NOOP (RFC 5321 section 4.1.1.9)."""
        self._command("NOOP", b"NOOP\r\n")

    def verify(self, name: str) -> None:
        """VRFY (RFC 5321 section 4.1.1.6) of a user or mailbox name, in ASCII."""
        if not name.strip() or not name.isascii():
            raise LocalProtocolError(f"verify({name!r}): the name is ASCII, and not empty")
        self._command("VRFY", command_line("VRFY", f"VRFY {name}".encode("ascii")))

    def quit(self) -> None:
        """QUIT (RFC 5321 section 4.1.1.10). `ReplyReceived` and `ConnectionClosed` follow."""
        self._command("QUIT", b"QUIT\r\n")

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
        the message has bytes of 128 and above; a server without 8BITMIME must not get such a message, so
        that all its recipients fail. `parameters`: further ones for MAIL.

        The envelope goes out in one piece where the server offers PIPELINING, else command by command. There
        is no body if every recipient was refused; those that were accepted get it, whatever befell others.
        A transaction left open is dropped first (RSET).
        """
        reset_first = self._state in (State.MAIL, State.RECIPIENTS)
        self._check_order("RSET" if reset_first else "MAIL")
        if self._awaiting:
            raise LocalProtocolError(f"send_message(): {answer_awaited(self._awaiting[-1])}")
        to = [to_address(recipient) for recipient in recipients]
        if not to or (size is not None and size < 0):
            raise LocalProtocolError("send_message() takes one recipient at least, and no size below 0")
        self._message = Transaction(
            to_address(sender),
            to,
            self.capabilities,
            size=size,
            eight_bit=eight_bit,
            parameters=parameters,
            reset_first=reset_first,
            lmtp=self.lmtp,
        )
        self._advance(self._message)
