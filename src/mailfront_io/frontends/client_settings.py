"""How a client session is to go: TLS, deadlines, credentials."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Final

from mailfront_io.frontends.client_result import Step
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl import ClientMechanism, LoginClient, PlainClient
from mailfront_proto.secret import Secret
from mailfront_proto.smtp.client import SMTPClient
from mailfront_proto.smtp.client_lines import envelope_line, to_address
from mailfront_proto.smtp.parameters import NO_MAIL_OPTIONS, MailOptions

if TYPE_CHECKING:
    import ssl

MECHANISMS: Final[Mapping[str, Callable[[str, Secret], ClientMechanism]]] = {
    "PLAIN": PlainClient,
    "LOGIN": LoginClient,
}
"""The SASL mechanisms for a user name and a password, the preferred ones first."""


class TLSPolicy(Enum):
    """When a session uses TLS. Where it does, the server's name and certificate chain are verified, unless the
    context that is given says otherwise."""

    NONE = "none"
    """Never."""
    MAY = "may"
    """STARTTLS if the server offers it. That keeps out who listens, not who can change what is sent."""
    MUST = "must"
    """STARTTLS; a server that does not offer it, or refuses, gets no message."""
    IMPLICIT = "implicit"
    """The handshake comes first (RFC 8314 section 3), as on port 465."""


@dataclass(frozen=True, slots=True)
class ClientDeadlines:
    """Seconds that the server has, each counted from its previous answer and never extended by a part of the
    next one. RFC 5321 section 4.5.3.2 sets the minimum of those that it names."""

    connect: float = 30.0
    """For all addresses of the host together; no RFC says."""
    greeting: float = 300.0
    hello: float = 300.0
    mail: float = 300.0
    recipient: float = 300.0
    data: float = 120.0
    block: float = 180.0
    """For taking each block of the message, 64 KiB or a little more, and for the answer to a chunk."""
    message: float = 600.0
    """For the answer to the final dot: to give up early makes duplicates (RFC 1047)."""
    handshake: float = 30.0
    """TLS. No RFC says; it is what our server grants."""
    authentication: float = 300.0
    """STARTTLS, and each step of AUTH, as for other commands."""
    quit: float = 10.0
    """The message is settled then: to wait longer gains nothing."""

    def answer_to(self, awaited: str) -> float:
        """Seconds for the answer to `awaited`, which is what ``SMTPClient.awaiting`` says."""
        seconds: float = getattr(self, _FIELDS[awaited])
        return seconds

    def at_most(self, seconds: float) -> "ClientDeadlines":
        """The same, but none of them longer than `seconds`."""
        return ClientDeadlines(**{f.name: min(getattr(self, f.name), seconds) for f in fields(self)})


_FIELDS: Final[Mapping[str, str]] = {
    "greeting": "greeting",
    "EHLO": "hello",
    "LHLO": "hello",
    "HELO": "hello",
    "STARTTLS": "authentication",
    "AUTH": "authentication",
    "MAIL": "mail",
    "RCPT": "recipient",
    "DATA": "data",
    "BDAT": "block",
    "RSET": "mail",
    ".": "message",
    "QUIT": "quit",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who to authenticate as. `mechanism`: a name in `MECHANISMS`; None: the first of those that the server
    offers. `allow_clear`: even without TLS. Raises `LocalProtocolError` for what can be no credentials."""

    username: str
    password: Secret
    mechanism: str | None = None
    allow_clear: bool = False

    def __post_init__(self) -> None:
        if self.mechanism is not None and self.mechanism.upper() not in MECHANISMS:
            raise LocalProtocolError(f"there is no mechanism {self.mechanism!r}: take one of {', '.join(MECHANISMS)}")
        PlainClient(self.username, self.password)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How a session is to go.

    `tls`, `tls_context`: see `TLSPolicy`; every policy but ``NONE`` needs a context. `tls_name`: the name that
    the certificate must have; None: the host's. `credentials`: None for no AUTH. `local_name`: ours for EHLO;
    None: our end of the connection as an address literal (RFC 5321 section 4.1.4). `lmtp`: speak LMTP.

    `mail_options`: what is asked for the message (``ret``, ``envid``, ``auth``, ``require_tls``, ``others``), and
    whether it is BINARYMIME (``body``); its size, and what else of it is not ASCII, is found out. `chunking`: send it
    with BDAT where that is offered. `eight_bit_headers`: a header that is not ASCII goes to a server without SMTPUTF8
    all the same. `relays`: the messages are other people's. SMTPUTF8 is said then where it was said to us, whatever the
    header holds; and recipients for whom a report of success was promised are refused where none would come. Raises
    `LocalProtocolError` for a name or an option that cannot be sent, and for REQUIRETLS without TLS.

    `transcript` is called with each line said, fit for a terminal and without secrets (see
    `mailfront_io.frontends.client_transcript`); `on_step` with each `Step` as it ends. Neither may block.
    """

    tls: TLSPolicy = TLSPolicy.MAY
    tls_context: "ssl.SSLContext | None" = None
    tls_name: str | None = None
    credentials: Credentials | None = None
    local_name: str | None = None
    lmtp: bool = False
    mail_options: MailOptions = NO_MAIL_OPTIONS
    chunking: bool = True
    eight_bit_headers: bool = False
    relays: bool = False
    deadlines: ClientDeadlines = ClientDeadlines()
    transcript: Callable[[str], None] | None = None
    on_step: Callable[[Step], None] | None = None

    def __post_init__(self) -> None:
        if self.local_name is not None:
            SMTPClient(self.local_name)  # refuses what is no name
        envelope_line("MAIL", to_address(""), self.mail_options, True)
        if self.mail_options.require_tls and self.tls is TLSPolicy.NONE:
            raise LocalProtocolError("REQUIRETLS without TLS: take another policy than TLSPolicy.NONE")
