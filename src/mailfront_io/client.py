"""Sending a message: one call, for programs without an event loop, with asyncio's and with trio's.

::

    from mailfront_io.client import TLSPolicy, send_message

    result = send_message("mx.example.org", 25, "me@example.net", ["you@example.org"], message, tls=TLSPolicy.MUST)
    for recipient in result.recipients:
        print(recipient.address, recipient.reply)

The three calls take the same arguments and do the same (`mailfront_io.frontends.smtp_client` is the session):

* `host`, `port`: the server. `sender` is empty for the null path; `recipients`: one at least, each an address or a
  pair of it and `RecipientOptions` (the reports that are wanted); `message`: bytes, a binary file or an iterable of
  bytes, with CRLF or LF line ends (`Message`). The rest is in `SendOptions`.
* They return a `SendResult` with one result for each recipient: look at ``result.delivered``, ``result.temporary``
  (to send again later) and ``result.refused``.
* They raise `SendError` where no message was begun (its ``temporary`` says whether to try again),
  `LocalProtocolError` for an argument that cannot be sent, before anything is connected, and what reading the
  message raises.
"""

import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from mailfront_io.tls import client_context
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.secret import Secret
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.client import EnvelopeRecipient
from mailfront_proto.smtp.client_events import RecipientResult, Stage
from mailfront_proto.smtp.parameters import BodyType, MailOptions, Notify, RecipientOptions, Return
from mailfront_proto.smtp.replies import Reply

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
    machine's, if it has one with a dot in it, else its address. `lmtp`: speak LMTP; default False. `deadlines`:
    seconds for each step.

    `mail_options`: what to ask for the message: ``MailOptions(ret=Return.HEADERS, envid="42")`` for reports,
    ``MailOptions(require_tls=True)`` to go over TLS all the way, ``MailOptions(body=BodyType.BINARY_MIME)`` for bytes
    that are not lines. Its size, 8BITMIME and SMTPUTF8 are found out. `chunking`: False for DATA even where BDAT is
    offered. `eight_bit_headers`: True to send a header that is not ASCII to a server without SMTPUTF8, too, which no
    RFC allows and many do; otherwise its recipients fail (554 5.6.7).

    `transcript`: called with each line that is said, without secrets; `on_step`: with each `Step` as it ends.
    """

    tls: TLSPolicy
    tls_context: "ssl.SSLContext"
    tls_name: str | None
    credentials: Credentials | None
    local_name: str | None
    lmtp: bool
    mail_options: MailOptions
    chunking: bool
    eight_bit_headers: bool
    deadlines: ClientDeadlines
    transcript: Callable[[str], None] | None
    on_step: Callable[[Step], None] | None


def send_message(
    host: str,
    port: int,
    sender: Address | str,
    recipients: Sequence[EnvelopeRecipient],
    message: Message,
    **options: Unpack[SendOptions],
) -> SendResult:
    """Send one message, blocking this thread meanwhile. Arguments, result and errors: see the module's head."""
    from mailfront_io.drivers import blocking

    call = _Call(host, port, sender, recipients, message, options)
    while call.unfinished:
        with call.connection():
            call.took(blocking.run_client(call.session, host, port, connect_timeout=call.connect_timeout))
    return call.result


async def send_message_asyncio(
    host: str,
    port: int,
    sender: Address | str,
    recipients: Sequence[EnvelopeRecipient],
    message: Message,
    **options: Unpack[SendOptions],
) -> SendResult:
    """The same in asyncio's event loop, or uvloop's. When it is cancelled before the final dot has gone out there
    is no message; after that nobody knows."""
    from mailfront_io.drivers import asyncio

    call = _Call(host, port, sender, recipients, message, options)
    while call.unfinished:
        with call.connection():
            call.took(await asyncio.run_client(call.session, host, port, connect_timeout=call.connect_timeout))
    return call.result


async def send_message_trio(
    host: str,
    port: int,
    sender: Address | str,
    recipients: Sequence[EnvelopeRecipient],
    message: Message,
    **options: Unpack[SendOptions],
) -> SendResult:
    """The same in trio. When it is cancelled before the final dot has gone out there is no message; after that
    nobody knows."""
    from mailfront_io.drivers import trio

    call = _Call(host, port, sender, recipients, message, options)
    while call.unfinished:
        with call.connection():
            call.took(await trio.run_client(call.session, host, port, connect_timeout=call.connect_timeout))
    return call.result


def _check_verifies(context: "ssl.SSLContext | None") -> None:
    """REQUIRETLS asks for a server whose certificate is verified (RFC 8689 section 4.2.1)."""
    import ssl

    if context is None or context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise LocalProtocolError("REQUIRETLS with a TLS context that takes any certificate: give one that verifies")


class _Call:
    """One call: its arguments, checked, and a session for each connection that it takes."""

    def __init__(
        self,
        host: str,
        port: int,
        sender: Address | str,
        recipients: Sequence[EnvelopeRecipient],
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
        if settings.mail_options.require_tls:
            _check_verifies(settings.tls_context)
        self._settings = settings
        self.connect_timeout = settings.deadlines.connect
        self._began = 0.0
        self._connected = False
        self._result: SendResult | None = None

    @property
    def unfinished(self) -> bool:
        """Whether there are recipients left for another connection."""
        return bool(self._message.left)

    @property
    def result(self) -> SendResult:
        """What came of it all, once nothing is unfinished."""
        assert self._result is not None
        return replace(self._result, recipients=self._message.results)

    @contextmanager
    def connection(self) -> Iterator[None]:
        """Around one connection: errors as they are to be raised."""
        self._began = time.monotonic()
        self._connected = False
        try:
            try:
                yield
            except (OSError, UnicodeError) as error:
                raise self._explained(error) from error
        except SendError as error:
            if self._result is None:
                self._message.source.close()
                raise
            # Some may have the message already: what became of each is to be told.
            self._message.decide_left(error.reply or Reply(451, f"4.4.2 {error}"))
        except BaseException:
            self._message.source.close()
            raise
        if not self.unfinished:
            self._message.source.close()

    def took(self, result: SendResult) -> None:
        """What came of a connection."""
        if self._result is not None:
            result = replace(self._result, steps=(*self._result.steps, *result.steps))
        self._result = result

    def session(self, connection: Connection) -> "Coroutine[Operation[Any], Any, SendResult]":
        """The coroutine for ``run_client``."""
        self._connected = True
        seconds = time.monotonic() - self._began
        return SMTPClientSession(connection, self._host, self._settings, seconds).run(self._message)

    def _explained(self, error: OSError | UnicodeError) -> Exception:
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
    "BodyType",
    "ClientDeadlines",
    "ConnectionFailed",
    "Credentials",
    "EnvelopeRecipient",
    "LocalProtocolError",
    "MailOptions",
    "Message",
    "Notify",
    "RecipientOptions",
    "RecipientResult",
    "Return",
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
