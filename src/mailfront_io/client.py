"""Sending a message: one call, for programs without an event loop, with asyncio's and with trio's.

::

    from mailfront_io.client import TLSPolicy, send_message

    result = send_message("mx.example.org", 25, "me@example.net", ["you@example.org"], message, tls=TLSPolicy.MUST)
    for recipient in result.recipients:
        print(recipient.address, recipient.reply)

The three calls take the same arguments and do the same (`mailfront_io.frontends.smtp_client` is the session):

* `host`, `port`: the server. `sender` is empty for the null path; `recipients`: one at least; `message`: bytes, a
  binary file or an iterable of bytes, with CRLF or LF line ends (`Message`). The rest is in `SendOptions`.
* They return a `SendResult` with one result for each recipient: look at ``result.delivered``, ``result.temporary``
  (to send again later) and ``result.refused``.
* They raise `SendError` where no message was begun (its ``temporary`` says whether to try again),
  `LocalProtocolError` for an argument that cannot be sent, before anything is connected, and what reading the
  message raises.
"""

import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict, Unpack

from mailfront_io.frontends.client_result import (
    AuthenticationRefused,
    ConnectionFailed,
    SendError,
    SendResult,
    ServerRefused,
    Step,
    TLSUnavailable,
)
from mailfront_io.frontends.client_settings import ClientDeadlines, ClientSettings, Credentials, TLSPolicy
from mailfront_io.frontends.outgoing import Message, OutgoingMessage
from mailfront_io.frontends.smtp_client import SMTPClientSession
from mailfront_io.ops import Connection
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.secret import Secret
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.client_events import RecipientResult, Stage

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine
    from typing import Any

    from mailfront_io.ops import Operation

_FULL_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+\Z", re.ASCII)


class SendOptions(TypedDict, total=False):
    """What the calls take by name, all of it optional.

    `tls`: default ``TLSPolicy.MAY``, STARTTLS if it is offered. `tls_context`: see `client_context`, whose
    defaults verify the server's name and certificate chain. `tls_name`: the name that its certificate must
    have, if not `host`. `credentials`: for AUTH; default: none. `local_name`: our name for EHLO; default: this
    machine's, if it has one with a dot in it, else its address. `lmtp`: speak LMTP; default False. `parameters`:
    further ones for MAIL, ``KEY`` or ``KEY=VALUE``. `deadlines`: seconds for each step.

    `transcript`: called with each line that is said, without secrets; `on_step`: with each `Step` as it ends.
    """

    tls: TLSPolicy
    tls_context: "ssl.SSLContext"
    tls_name: str | None
    credentials: Credentials | None
    local_name: str | None
    lmtp: bool
    parameters: Sequence[str]
    deadlines: ClientDeadlines
    transcript: Callable[[str], None] | None
    on_step: Callable[[Step], None] | None


def send_message(
    host: str,
    port: int,
    sender: Address | str,
    recipients: Sequence[Address | str],
    message: Message,
    **options: Unpack[SendOptions],
) -> SendResult:
    """Send one message, blocking this thread meanwhile. Arguments, result and errors: see the module's head."""
    from mailfront_io.drivers import blocking

    call = _Call(host, port, sender, recipients, message, options)
    try:
        return blocking.run_client(call.session, host, port, connect_timeout=call.connect_timeout)
    except (OSError, UnicodeError) as error:
        raise call.explained(error) from error


async def send_message_asyncio(
    host: str,
    port: int,
    sender: Address | str,
    recipients: Sequence[Address | str],
    message: Message,
    **options: Unpack[SendOptions],
) -> SendResult:
    """The same in asyncio's event loop, or uvloop's. When it is cancelled before the final dot has gone out there
    is no message; after that nobody knows."""
    from mailfront_io.drivers import asyncio

    call = _Call(host, port, sender, recipients, message, options)
    try:
        return await asyncio.run_client(call.session, host, port, connect_timeout=call.connect_timeout)
    except (OSError, UnicodeError) as error:
        raise call.explained(error) from error


async def send_message_trio(
    host: str,
    port: int,
    sender: Address | str,
    recipients: Sequence[Address | str],
    message: Message,
    **options: Unpack[SendOptions],
) -> SendResult:
    """The same in trio. When it is cancelled before the final dot has gone out there is no message; after that
    nobody knows."""
    from mailfront_io.drivers import trio

    call = _Call(host, port, sender, recipients, message, options)
    try:
        return await trio.run_client(call.session, host, port, connect_timeout=call.connect_timeout)
    except (OSError, UnicodeError) as error:
        raise call.explained(error) from error


def client_context(ca_file: str | None = None, *, verify: bool = True) -> "ssl.SSLContext":
    """A context for a client: TLS 1.2 at least, no compression, no renegotiation.

    `ca_file`: a PEM file with the authorities to trust in place of the system's. `verify`: False takes any
    certificate: nobody can listen then, but who can change what is sent can pose as the server. Raises OSError
    for a file that cannot be read, or holds no certificate (`ssl.SSLError`).
    """
    import ssl

    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Call:
    """One call: its arguments, checked, and the session for the connection."""

    def __init__(
        self,
        host: str,
        port: int,
        sender: Address | str,
        recipients: Sequence[Address | str],
        message: Message,
        options: SendOptions,
    ) -> None:
        self._where = f"{host}:{port}"
        self._host = host
        self._message = OutgoingMessage(sender, recipients, message)
        settings = ClientSettings(**options)
        if settings.lmtp and port == 25:  # RFC 2033 section 5
            raise LocalProtocolError("LMTP is not spoken on port 25: give the server's port for LMTP")
        if settings.tls is not TLSPolicy.NONE and settings.tls_context is None:
            settings = replace(settings, tls_context=client_context())
        if settings.tls_name is None:
            settings = replace(settings, tls_name=host.partition("%")[0].rstrip("."))
        if settings.local_name is None and _FULL_NAME.match(name := socket.gethostname()):
            settings = replace(settings, local_name=name)
        self._settings = settings
        self.connect_timeout = settings.deadlines.connect
        self._began = time.monotonic()
        self._connected = False

    def session(self, connection: Connection) -> "Coroutine[Operation[Any], Any, SendResult]":
        """The coroutine for ``run_client``."""
        self._connected = True
        seconds = time.monotonic() - self._began
        return SMTPClientSession(connection, self._host, self._message, self._settings, seconds).run()

    def explained(self, error: OSError | UnicodeError) -> Exception:
        """`error` as it is to be raised."""
        if self._connected:
            return error  # of the message's file
        if isinstance(error, UnicodeError) or (
            isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
        ):
            return ConnectionFailed(f"there is no host {self._host!r}: see that its name is right", temporary=False)
        if isinstance(error, TimeoutError):
            reason = f"no connection within {self.connect_timeout:g} seconds"
        else:
            reason = error.strerror or str(error)
        return ConnectionFailed(f"cannot connect to {self._where}: {reason}: see that a server listens there")


__all__ = [
    "AuthenticationRefused",
    "ClientDeadlines",
    "ConnectionFailed",
    "Credentials",
    "LocalProtocolError",
    "Message",
    "RecipientResult",
    "Secret",
    "SendError",
    "SendOptions",
    "SendResult",
    "ServerRefused",
    "Stage",
    "Step",
    "TLSPolicy",
    "TLSUnavailable",
    "client_context",
    "send_message",
    "send_message_asyncio",
    "send_message_trio",
]
