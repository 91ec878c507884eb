"""The client role of POP3 (RFC 1939), as a pull machine.

Strategy: here are the methods that send; each puts one command into the output, and its answer comes as events.
`ClientSession` matches the two, and believes nothing of a server that breaks the protocol: lines are bounded, and an
answer to no command is a `RemoteProtocolError`::

    client = POP3Client()
    # pull Greeting; client.capa(); pull CapaDone; client.login("joe", Secret(b"…")); pull Authenticated
    client.retr(1)
    message = b""
    while not isinstance(event := client.next_event(), ReplyReceived | ConnectionClosed):
        if event is NEED_DATA:
            sock.sendall(client.data_to_send())
            data = sock.recv(65536)
            client.receive_data(data) if data else client.receive_eof()
        elif isinstance(event, MessageData):
            message += event.data
    # a ReplyReceived with a positive reply: the message is complete
"""

import re
from typing import Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.pop3.client_lines import MAX_COMMAND_LINE, command_line, message_line
from mailfront_proto.pop3.client_session import MAX_REPLY_LINE, ClientSession
from mailfront_proto.pop3.states import State
from mailfront_proto.sasl.client_exchange import ClientExchange, check_offered, check_protection
from mailfront_proto.sasl.mechanism import ClientMechanism
from mailfront_proto.secret import Secret

_is_language: Final = re.compile(r"(?:\*|[A-Za-z0-9]{1,8}(?:-[A-Za-z0-9]{1,8})*)\Z", re.ASCII).match


class POP3Client(ClientSession):
    """One session.

    `max_reply_line`: bytes of a line that is no part of a message, past which the server has lost us
    (`RemoteProtocolError`).

    Methods that send a command return None; drain ``data_to_send()``, and pull the answer as events. They raise
    `LocalProtocolError`, and send nothing, for a command out of order and for an argument that holds CR, LF, NUL or
    another control character. Where the server offers PIPELINING, commands about messages may be given before earlier
    ones are answered, at most 100 at a time.

    ``next_event`` raises `RemoteProtocolError` when the server breaks the protocol. Call it again then: it returns
    `ConnectionClosed`. **Messages are only deleted if ``quit()`` was answered with** ``+OK``.
    """

    def __init__(self, *, max_reply_line: int = MAX_REPLY_LINE) -> None:
        super().__init__(max_reply_line)

    # -- before the login --------------------------------------------------------------------------------

    def capa(self) -> None:
        """CAPA (RFC 2449 section 5): what the server offers. `CapaDone` follows."""
        self._command("CAPA", command_line("CAPA"))

    def stls(self) -> None:
        """STLS (RFC 2595 section 4). `ReadyForTLS` follows, or a `ReplyReceived` if the server refuses.

        Raises `LocalProtocolError` when TLS is in use, or not offered, or UTF8 was said (RFC 6856 section 2.1).
        """
        if self.in_tls:
            raise LocalProtocolError("stls(): TLS is in use already")
        if self.in_utf8:
            raise LocalProtocolError("stls(): after utf8() it is too late for TLS (RFC 6856 section 2.1)")
        if self._state is State.AUTHORIZATION and "STLS" not in self.capabilities:
            raise LocalProtocolError("stls(): not offered; call capa(), and look into client.capabilities")
        self._command("STLS", command_line("STLS"))

    def login(self, username: str, password: Secret, *, allow_clear: bool = False) -> None:
        """USER and PASS (RFC 1939 section 7), one after the other. `Authenticated` or `AuthenticationFailed` follows.

        Both are not empty, and ASCII unless the server offers ``UTF8 USER`` (RFC 6856 section 2.2); PLAIN, with
        ``authenticate()``, has no such limit. `allow_clear`: send them without TLS; otherwise that raises
        `LocalProtocolError`.
        """
        self._check_order("USER")
        check_protection("login", self.in_tls, allow_clear, "stls()")
        name, secret = username.encode("utf-8", "surrogateescape"), password.reveal()
        if not name or not secret:
            raise LocalProtocolError("login() takes a user name and a password that are not empty")
        if not (name + secret).isascii() and "USER" not in self.capabilities.get("UTF8", ()):
            raise LocalProtocolError("login(): the server takes ASCII only; try authenticate() with PLAIN")
        user_line = command_line("USER", name)
        self._pass_line = command_line("PASS", secret)
        self._send("USER", user_line)
        self._state = State.AUTH

    def authenticate(self, mechanism: ClientMechanism, *, allow_clear: bool = False) -> None:
        """AUTH (RFC 5034) with `mechanism`, an object made for this one exchange. `Authenticated` or
        `AuthenticationFailed` follows.

        `allow_clear`: send credentials without TLS. Otherwise that raises `LocalProtocolError`, as does a mechanism
        that the server does not offer (``client.mechanisms``).
        """
        self._check_order("AUTH")
        check_protection("authenticate", self.in_tls, allow_clear, "stls()")
        check_offered(mechanism, self.mechanisms, "capa()")
        exchange = ClientExchange(mechanism)
        line = mechanism.name.encode("ascii")
        # RFC 5034 section 4: an initial response only where the whole line has 255 octets at most
        initial_response = exchange.initial_response(MAX_COMMAND_LINE - len(b"AUTH  \r\n") - len(line))
        if initial_response is not None:
            line += b" " + initial_response
        self._send("AUTH", command_line("AUTH", line))
        self._exchange = exchange
        self._state = State.AUTH

    def utf8(self) -> None:
        """UTF8 (RFC 6856 section 2): messages may have UTF-8 in their headers from now on. `ReplyReceived` follows.

        Raises `LocalProtocolError` when it is not offered.
        """
        self._check_order("UTF8")
        if "UTF8" not in self.capabilities:
            raise LocalProtocolError("utf8(): not offered; call capa(), and look into client.capabilities")
        self._command("UTF8", command_line("UTF8"))

    def language(self, tag: str) -> None:
        """LANG (RFC 6856 section 3): the texts of answers are to be in the language `tag`, such as ``de``; ``*``: the
        server's choice. `ReplyReceived` follows."""
        if not _is_language(tag):
            raise LocalProtocolError(f"language({tag!r}): a language tag has letters, digits and hyphens")
        self._command("LANG", command_line("LANG", tag.encode("ascii")))

    # -- the mailbox -------------------------------------------------------------------------------------

    def stat(self) -> None:
        """STAT (RFC 1939 section 5). `MailboxStatus` follows."""
        self._command("STAT", command_line("STAT"))

    def list(self, number: int | None = None) -> None:
        """LIST (RFC 1939 section 5): the size of one message, or of all. `Sizes` and `ReplyReceived` follow."""
        line = command_line("LIST") if number is None else message_line("LIST", number)
        self._command("LIST", line, number or 0)

    def uidl(self, number: int | None = None) -> None:
        """UIDL (RFC 1939 section 7): the unique-id of one message, or of all. `UniqueIds` and `ReplyReceived`
        follow."""
        line = command_line("UIDL") if number is None else message_line("UIDL", number)
        self._command("UIDL", line, number or 0)

    def retr(self, number: int) -> None:
        """RETR (RFC 1939 section 5): a whole message. `MessageData` and `ReplyReceived` follow."""
        self._command("RETR", message_line("RETR", number), number)

    def top(self, number: int, lines: int) -> None:
        """TOP (RFC 1939 section 7): the header of a message and so many lines of its body. Followed as `retr` is."""
        self._command("TOP", message_line("TOP", number, lines), number)

    def dele(self, number: int) -> None:
        """DELE (RFC 1939 section 5): mark a message; it is deleted at ``quit()``. `ReplyReceived` follows."""
        self._command("DELE", message_line("DELE", number), number)

    def rset(self) -> None:
        """RSET (RFC 1939 section 5): take the marks back. `ReplyReceived` follows."""
        self._command("RSET", command_line("RSET"))

    def noop(self) -> None:
        """NOOP (RFC 1939 section 5). `ReplyReceived` follows."""
        self._command("NOOP", command_line("NOOP"))

    def quit(self) -> None:
        """QUIT (RFC 1939 sections 4 and 6): delete what is marked, and end. `ReplyReceived` and `ConnectionClosed`
        follow."""
        self._command("QUIT", command_line("QUIT"))
