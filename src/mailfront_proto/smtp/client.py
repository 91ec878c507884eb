r"""The client role of SMTP (RFC 5321) and LMTP (RFC 2033), as a pull machine.

Strategy: here are the methods that send; each puts one command into the output, and its answer comes as an
event. `ClientSession` matches the two, and believes nothing of a server that breaks the protocol: replies
are bounded, and one that answers no command (or comes before its command went out) is a
`RemoteProtocolError`. On top, ``send_message`` sends one whole message by itself, with all that the server
offers, as far as its body, which the application supplies::

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
from mailfront_proto.sasl.client_exchange import ClientExchange, check_offered, check_protection
from mailfront_proto.sasl.mechanism import ClientMechanism
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.body_encoder import DotEncoder
from mailfront_proto.smtp.client_auth import auth_line
from mailfront_proto.smtp.client_lines import command_line, envelope_line, to_address, xclient_line
from mailfront_proto.smtp.client_order import answer_awaited
from mailfront_proto.smtp.client_session import ClientSession
from mailfront_proto.smtp.events import Xclient
from mailfront_proto.smtp.parameters import (
    NO_MAIL_OPTIONS,
    NO_RECIPIENT_OPTIONS,
    BodyType,
    MailOptions,
    RecipientOptions,
)
from mailfront_proto.smtp.reply_reader import MAX_REPLY_LINE, MAX_REPLY_LINES
from mailfront_proto.smtp.states import State
from mailfront_proto.smtp.transaction import Transaction

CHUNK_SIZE: Final = 256 * 1024
"""Octets of a chunk. What is in it can be refused before the rest is sent; each costs an answer."""

_NAME: Final = re.compile(r"[!-~]+\Z", re.ASCII)

EnvelopeRecipient = Address | str | tuple[Address | str, RecipientOptions]
"""A recipient, and what is asked for it (RFC 3461: NOTIFY, ORCPT) if anything is."""


class SMTPClient(ClientSession):
    """One session.

    `local_name`: our name for HELO, a domain or an address literal (RFC 5321 section 4.1.4). `lmtp`: speak
    LMTP. `max_reply_line`, `max_reply_lines`: bytes of a line and lines of a reply, past which the server
    has lost us (`RemoteProtocolError`). `chunk_size`: octets of a BDAT chunk that ``send_message()`` makes; so much
    of a message may be held.

    Methods that send a command return None; drain ``data_to_send()``, and pull the answer as an event. They
    raise `LocalProtocolError`, and send nothing, for a command out of order and for an argument that holds
    CR, LF, NUL or another control character. Commands may be given before earlier ones are answered where
    the server offers PIPELINING and RFC 2920 allows it: MAIL, RCPT and RSET, and any one command but BDAT behind
    them; and BDAT behind BDAT.

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
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        if not _NAME.match(local_name):
            raise LocalProtocolError(
                f"SMTPClient({local_name!r}): the name is a domain or an address literal such as [192.0.2.1]"
            )
        if chunk_size < 1:
            raise LocalProtocolError(f"SMTPClient(chunk_size={chunk_size}): a chunk holds one octet at least")
        super().__init__(local_name, lmtp, max_reply_line, max_reply_lines, chunk_size)

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
        check_protection("authenticate", self.in_tls, allow_clear)
        if self.authenticated:
            raise LocalProtocolError("authenticate(): done already; RFC 4954 section 4 allows it once")
        self._check_order("AUTH")
        check_offered(mechanism, self.capabilities.mechanisms, "hello()")
        exchange = ClientExchange(mechanism)
        self._send("AUTH", auth_line(mechanism.name, exchange))
        self._exchange = exchange
        self._state = State.AUTH

    def mail(self, address: Address | str, options: MailOptions = NO_MAIL_OPTIONS) -> None:
        """MAIL FROM (RFC 5321 section 4.1.1.2). An empty `address` is the null path.

        `options` become its parameters as they are; see that the server offers them. Raises `LocalProtocolError` for
        REQUIRETLS without TLS (RFC 8689 section 4.2.1), and past the server's MAILMAX (RFC 9422). Next:
        ``recipient()``.
        """
        if options.require_tls and not self.in_tls:
            raise LocalProtocolError("mail(): REQUIRETLS without TLS: call starttls() first")
        line = envelope_line("MAIL", to_address(address), options, options.smtputf8)
        self._check_order("MAIL")
        self._use.check_transaction(self.capabilities)
        self._send("MAIL", line)
        self._utf8 = options.smtputf8
        self._binary = options.body is BodyType.BINARY_MIME

    def recipient(self, address: Address | str, options: RecipientOptions = NO_RECIPIENT_OPTIONS) -> None:
        """RCPT TO (RFC 5321 section 4.1.1.3), behind ``mail()``. Raises `LocalProtocolError` past the server's RCPTMAX
        and RCPTDOMAINMAX (RFC 9422). Next: another, ``data()`` or ``bdat()``."""
        address = to_address(address)
        line = envelope_line("RCPT", address, options, self._utf8)
        self._check_order("RCPT")
        self._use.check_recipient(address, self.capabilities)
        self._send("RCPT", line)
        self._use.recipient(address)

    def data(self) -> None:
        """DATA (RFC 5321 section 4.1.1.4), behind ``recipient()``. `ReadyForBody` follows, or a
        `ReplyReceived` if the server refuses.

        If it comes though every recipient was refused (that can happen when DATA was pipelined), call
        ``end_of_body()`` at once (RFC 2920 section 3.1). Raises `LocalProtocolError` for a BINARYMIME message, which
        goes by ``bdat()`` alone (RFC 3030 section 3).
        """
        if self._binary and self._state is State.RECIPIENTS:
            raise LocalProtocolError("data(): this message is BINARYMIME: call bdat()")
        self._command("DATA", b"DATA\r\n")

    def bdat(self, data: bytes, last: bool = False) -> None:
        """One chunk of the message (RFC 3030 section 2), `last` or with others to follow; as it is, so line ends are
        CRLF, unless it is BINARYMIME.

        `ReplyReceived` follows, for ``BDAT``, or for ``.`` if it was the last (in LMTP once for each accepted
        recipient). With PIPELINING more chunks may follow before it comes, though none is sent until every RCPT is
        answered: a message that nobody gets is not sent. Once a chunk was refused the message has failed: call
        ``reset()`` when all are answered. Raises `LocalProtocolError` where CHUNKING is not offered.
        """
        self._check_order("BDAT")
        if "CHUNKING" not in self.capabilities:
            raise LocalProtocolError("bdat(): the server offers no CHUNKING: call data()")
        if self._chunk_refused:
            raise LocalProtocolError("bdat(): a chunk was refused, and the message with it: call reset()")
        self._send_chunk(data, last)

    def send_body(self, data: bytes) -> None:
        """The next piece of the message, cut anywhere; lines end in CRLF or LF, dots as they are.

        No CR or LF goes out alone: a bare LF becomes CRLF, a bare CR a space (but nothing changes in a BINARYMIME
        message). Drain ``data_to_send()`` after each call, since nothing else bounds the output; see `ReadyForBody`
        for what is held in chunks.
        """
        self._check_body()
        if isinstance(self._body, DotEncoder):
            self._put(self._body.feed(data))
        elif self._body is not None:
            self._body.feed(data)
            self._send_chunks()

    def end_of_body(self) -> None:
        """The message is complete: send its last line end, if missing, and the final dot, or the last chunk.

        `ReplyReceived` for ``.`` follows, in LMTP once for each accepted recipient (RFC 2033 section 4.2);
        under ``send_message()``, `MessageDone` after it.
        """
        self._check_body()
        self._finish_body()

    def reset(self) -> None:
        """RSET (RFC 5321 section 4.1.1.5): drop the transaction."""
        self._command("RSET", b"RSET\r\n")

    def xclient(self, attributes: Xclient) -> None:
        """XCLIENT: tell the server for whom we speak, as a proxy that it trusts.

        `attributes`: those that are not None are sent; the server must offer them (``capabilities["XCLIENT"]``).
        `Greeting` follows, and the session begins anew: call ``hello()``. Or a `ReplyReceived`, if the server refuses.
        Raises `LocalProtocolError` for a value that no server would understand, and for a line over 512 bytes.
        """
        self._check_order("XCLIENT")
        self._send("XCLIENT", xclient_line(attributes, self.capabilities))

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

    def batch(self, recipients: Sequence[Address]) -> list[int]:
        """Which of `recipients`, by index, the next ``send_message()`` may have, if the server sets LIMITS (RFC 9422).

        All of them where it sets none. Send to the others in another transaction; an empty list says: in another
        session.
        """
        return self._use.batch(recipients, self.capabilities)

    def send_message(
        self,
        sender: Address | str,
        recipients: Iterable[EnvelopeRecipient],
        options: MailOptions = NO_MAIL_OPTIONS,
        *,
        chunking: bool = True,
    ) -> None:
        """Send one message: pull events until `MessageDone`, and supply the body at `ReadyForBody`.

        `sender`, `recipients` (one at least): the envelope, the sender empty for the null path. `options`: what is
        true of the message, and asked for it. What the server must have for it, or all recipients fail at
        `Stage.LOCAL`: ``body`` (8BITMIME; BINARYMIME and CHUNKING), ``smtputf8`` (set it for a header that is not
        ASCII; for addresses it is seen to, and only those fail), ``require_tls``, and room for ``size``. What is left
        out where it is not offered: ``size`` (the octets with CRLF line ends), ``auth``, ``ret``, ``envid``, NOTIFY
        and ORCPT. ``others`` are sent as they are. `chunking`: send the message with BDAT where CHUNKING is offered;
        False: with DATA, if it is not BINARYMIME.

        The envelope goes out in one piece where the server offers PIPELINING, else command by command. There
        is no body if every recipient was refused; those that were accepted get it, whatever befell others.
        A transaction left open is dropped first (RSET). Raises `LocalProtocolError` for more recipients than
        ``batch()`` grants.
        """
        reset_first = self._state in (State.MAIL, State.RECIPIENTS, State.CHUNKS)
        self._check_order("RSET" if reset_first else "MAIL")
        if self._awaiting:
            raise LocalProtocolError(f"send_message(): {answer_awaited(self._awaiting[-1])}")
        to = [
            (to_address(recipient[0]), recipient[1])
            if isinstance(recipient, tuple)
            else (to_address(recipient), NO_RECIPIENT_OPTIONS)
            for recipient in recipients
        ]
        if not to or (options.size is not None and options.size < 0):
            raise LocalProtocolError("send_message() takes one recipient at least, and no size below 0")
        if len(self.batch([address for address, _ in to])) < len(to):
            raise LocalProtocolError(
                "send_message(): the server sets LIMITS (RFC 9422): send to those that batch() names, and to the "
                "others in another transaction, or in another session if it names none"
            )
        self._message = Transaction(
            to_address(sender),
            to,
            options,
            self.capabilities,
            in_tls=self.in_tls,
            chunking=chunking,
            reset_first=reset_first,
            lmtp=self.lmtp,
        )
        for address, _ in to:
            self._use.recipient(address)
        self._advance(self._message)
