"""The client role of IMAP (RFC 9051, RFC 3501) up to the login, as a pull machine.

Strategy: here are the methods that send; each puts one command into the output, and its answer comes as an event.
`ClientSession` matches the two, and believes nothing of a server that breaks the protocol. Once the login is done the
connection goes to its next owner, along with what the server has sent behind it::

    client = IMAPClient()
    # pull Greeting; client.capability(); pull CapabilityDone; client.login("joe", Secret(b"…"))
    while not isinstance(event := client.next_event(), Authenticated | AuthenticationFailed | ConnectionClosed):
        if event is NEED_DATA:
            sock.sendall(client.data_to_send())
            data = sock.recv(65536)
            client.receive_data(data) if data else client.receive_eof()
    first_bytes = client.hand_over()  # behind Authenticated alone
"""

import re
from collections.abc import Mapping
from typing import Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.imap.client_session import ClientSession
from mailfront_proto.imap.grammar import encode_quoted, is_quotable
from mailfront_proto.imap.response_reader import MAX_RESPONSE, MAX_RESPONSE_LINE
from mailfront_proto.imap.states import State
from mailfront_proto.sasl.client_exchange import ClientExchange, check_offered, check_protection
from mailfront_proto.sasl.mechanism import ClientMechanism
from mailfront_proto.secret import Secret

MAX_COMMAND_LINE: Final = 8192
"""Octets of a command line, CRLF included: what a server should take (RFC 7162 section 4)."""

MAX_UNASKED_LITERAL: Final = 4096
"""Octets of a literal that a server with LITERAL- takes without being asked (RFC 7888 section 5)."""

_MAX_QUOTED: Final = 1000
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


class IMAPClient(ClientSession):
    """One session, up to its login.

    `allow_preauth`: take a greeting that says that the login is done already (over a connection that something else
    protects); otherwise it is a `RemoteProtocolError`, since it keeps us from STARTTLS. `max_response_line`,
    `max_response`: bytes past which the server has lost us.

    Methods that send a command return None; drain ``data_to_send()``, and pull the answer as an event. They raise
    `LocalProtocolError`, and send nothing, for a command out of order and for an argument that holds CR, LF, NUL or
    another control character. One command at a time.

    ``next_event`` raises `RemoteProtocolError` when the server breaks the protocol. Call it again then: it returns
    `ConnectionClosed`.
    """

    def __init__(
        self,
        *,
        allow_preauth: bool = False,
        max_response_line: int = MAX_RESPONSE_LINE,
        max_response: int = MAX_RESPONSE,
    ) -> None:
        super().__init__(allow_preauth, max_response_line, max_response)

    def capability(self) -> None:
        """CAPABILITY (RFC 9051 section 6.1.1): what the server offers. `CapabilityDone` follows."""
        self._command("CAPABILITY")

    def noop(self) -> None:
        """NOOP (RFC 9051 section 6.1.2). `ReplyReceived` follows."""
        self._command("NOOP")

    def identify(self, fields: Mapping[str, str]) -> None:
        """ID (RFC 2971): say what we are, field to value, in printable ASCII; empty: nothing. `IdDone` follows.

        At most 30 pairs, field names of at most 30 octets, values of at most 1,024. Raises `LocalProtocolError` where
        the server does not offer it.
        """
        self._check_order("ID")
        if "ID" not in self.capabilities:
            raise LocalProtocolError("identify(): not offered; call capability(), and look into client.capabilities")
        words = [word.encode("utf-8", "surrogateescape") for pair in fields.items() for word in pair]
        if (
            len(fields) > 30
            or not all(map(is_quotable, words))
            or max(map(len, words[::2]), default=0) > 30
            or max(map(len, words[1::2]), default=0) > 1024
        ):
            raise LocalProtocolError("identify(): printable ASCII, 30 pairs at most, of 30 and 1,024 octets at most")
        self._id = {}
        listed = b"(" + b" ".join(map(encode_quoted, words)) + b")" if words else b"NIL"
        if len(listed) > MAX_COMMAND_LINE - 20:
            raise LocalProtocolError(f"identify(): a line of {len(listed)} octets is over {MAX_COMMAND_LINE}: say less")
        self._send("ID", b" " + listed + b"\r\n")

    def starttls(self) -> None:
        """STARTTLS (RFC 9051 section 6.2.1). `ReadyForTLS` follows, or a `ReplyReceived` if the server refuses.

        Raises `LocalProtocolError` when TLS is in use, or not offered.
        """
        if self.in_tls:
            raise LocalProtocolError("starttls(): TLS is in use already")
        self._check_order("STARTTLS")
        if "STARTTLS" not in self.capabilities:
            raise LocalProtocolError("starttls(): not offered; call capability(), and look into client.capabilities")
        self._command("STARTTLS")

    def login(self, username: str, password: Secret, *, allow_clear: bool = False) -> None:
        """LOGIN (RFC 9051 section 6.2.3). `Authenticated` or `AuthenticationFailed` follows.

        Both are not empty. What is not printable ASCII goes out as a literal, in UTF-8. `allow_clear`: send them
        without TLS; otherwise that raises `LocalProtocolError`, as does a server that says ``LOGINDISABLED``.
        """
        self._check_order("LOGIN")
        check_protection("login", self.in_tls, allow_clear)
        if "LOGINDISABLED" in self.capabilities:
            raise LocalProtocolError("login(): the server says LOGINDISABLED; call starttls(), or authenticate()")
        name, secret = username.encode("utf-8", "surrogateescape"), password.reveal()
        if not name or not secret or _CONTROL.search(name) or _CONTROL.search(secret):
            raise LocalProtocolError(
                "login() takes a user name and a password that are not empty, without CR, LF, NUL or another control "
                "character"
            )
        parts = [b""]
        for word in (name, secret):
            self._add_string(parts, word)
        parts[-1] += b"\r\n"
        self._send("LOGIN", *parts)
        self._state = State.AUTH

    def authenticate(self, mechanism: ClientMechanism, *, allow_clear: bool = False) -> None:
        """AUTHENTICATE (RFC 9051 section 6.2.2, RFC 4959) with `mechanism`, an object made for this one exchange.
        `Authenticated` or `AuthenticationFailed` follows.

        `allow_clear`: send credentials without TLS. Otherwise that raises `LocalProtocolError`, as does a mechanism
        that the server does not offer (``client.mechanisms``).
        """
        self._check_order("AUTHENTICATE")
        check_protection("authenticate", self.in_tls, allow_clear)
        check_offered(mechanism, self.mechanisms, "capability()")
        exchange, name = ClientExchange(mechanism), mechanism.name
        room = MAX_COMMAND_LINE - len(b"A00000 AUTHENTICATE  \r\n") - len(name) if "SASL-IR" in self.capabilities else 0
        initial = exchange.initial_response(room)
        line = b" " + name.encode("ascii")
        self._send("AUTHENTICATE", line + (b" " + initial if initial is not None else b"") + b"\r\n")
        self._exchange = exchange
        self._state = State.AUTH

    def logout(self) -> None:
        """LOGOUT (RFC 9051 section 6.1.3). `ReplyReceived` and `ConnectionClosed` follow."""
        self._command("LOGOUT")

    # -- how it is put -----------------------------------------------------------------------------------

    def _command(self, command: str) -> None:
        self._check_order(command)
        self._send(command, b"\r\n")

    def _add_string(self, parts: list[bytes], word: bytes) -> None:
        """A space and `word`, as a quoted string, or as a literal that waits where it must (a new part then)."""
        if len(word) <= _MAX_QUOTED and is_quotable(word):
            parts[-1] += b" " + encode_quoted(word)
        elif "LITERAL+" in self.capabilities or (
            "LITERAL-" in self.capabilities and len(word) <= MAX_UNASKED_LITERAL
        ):
            parts[-1] += b" {%d+}\r\n%b" % (len(word), word)
        else:
            parts[-1] += b" {%d}\r\n" % len(word)
            parts.append(word)
