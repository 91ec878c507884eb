r"""The client role of QMTP, as a pull machine; what QMQP's client shares with it is `PackageClient`.

Strategy: a message goes out as one package, its length and its envelope given first, its bytes as the application has
them. Messages may follow each other without waiting (`window`); responses are matched to recipients in order::

    client = QMTPClient()
    client.send_message("me@example.org", ["you@example.net"], size=len(message))
    client.send_body(message)
    client.end_of_body()
    while not isinstance(event := client.next_event(), MessageDone):
        if event is NEED_DATA:
            sock.sendall(client.data_to_send())
            data = sock.recv(65536)
            client.receive_data(data) if data else client.receive_eof()
    print(event.results)
"""

import re
from collections import deque
from collections.abc import Iterable
from typing import Final, NoReturn

from mailfront_proto.buffer import ReceiveBuffer
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.machine import ClientMachine
from mailfront_proto.netstring import MAX_DIGITS, NetstringError, NetstringReader, Oversized, encode_netstring
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, NeedData, Paused
from mailfront_proto.qmtp.events import ConnectionClosed
from mailfront_proto.qmtp.responses import parse_response
from mailfront_proto.record import record
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.client_events import MessageDone, RecipientResult, Stage
from mailfront_proto.smtp.replies import Reply

MAX_RESPONSE: Final = 4096
"""Bytes of a response, past which the server has lost us; as long as a reply line in SMTP may be."""

WINDOW: Final = 50
"""Messages that may be unanswered: their responses fit a socket buffer, so that client and server never wait for each
other's reading."""

_KEPT: Final = 60
"""Bytes of what is no response that are attached to the exception."""

ClientEvent = MessageDone | ConnectionClosed
"""Every event of the client machine. They are SMTP's `MessageDone` and the servers' `ConnectionClosed`."""

_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


@record
class _Message:
    """A message whose results are not all known."""

    recipients: list[Address]
    results: list[RecipientResult]
    left: int  # bytes of its body that are still to be given
    tail: bytes  # what goes out behind them
    sent: bool = False
    sent_at: int = 0  # how much had come by then


class PackageClient(ClientMachine[ClientEvent]):
    """What the two clients share; see `QMTPClient`, `mailfront_proto.qmqp.client.QMQPClient`."""

    def __init__(self, one_response: bool, window: int) -> None:
        self._one_response = one_response
        self._window = window
        self._buffer = ReceiveBuffer()
        super().__init__(self._buffer.feed)
        self._reader = NetstringReader(self._buffer)
        self._messages: deque[_Message] = deque()
        self._response_at = self._next_at = 0  # where in what came a response begins

    @property
    def awaiting(self) -> int:
        """How many messages are not answered yet."""
        return len(self._messages)

    # -- sending -----------------------------------------------------------------------------------------

    def _begin(self, sender: Address | str, recipients: Iterable[Address | str], size: int) -> tuple[bytes, bytes]:
        """The sender as a netstring, and the recipients; the message is noted."""
        if self._closed is not None:
            raise LocalProtocolError("send_message(): the connection has ended")
        if self._messages and not self._messages[-1].sent:
            raise LocalProtocolError("send_message(): another message is being sent: call end_of_body() first")
        if len(self._messages) >= self._window:
            raise LocalProtocolError(
                f"send_message(): {len(self._messages)} messages are not answered yet: call next_event() until it "
                "returns MessageDone"
            )
        if isinstance(recipients, str):
            raise LocalProtocolError("send_message(): recipients is a list of addresses, not one: [recipient]")
        to = [_to_address(recipient) for recipient in recipients]
        if not to or not 0 <= size < 10**MAX_DIGITS:
            raise LocalProtocolError("send_message() takes one recipient at least, and a size of 10 digits at most")
        envelope = encode_netstring(_to_address(sender).raw), b"".join([encode_netstring(each.raw) for each in to])
        self._messages.append(_Message(to, [], size, b""))
        return envelope

    def send_body(self, data: bytes) -> None:
        """The next piece of the message, cut anywhere; it goes out as it is. Drain ``data_to_send()`` after each
        call, since nothing else bounds the output. More than the size that was given is a `LocalProtocolError`."""
        message = self._being_sent("send_body")
        if len(data) > message.left:
            raise LocalProtocolError(
                f"send_body(): {len(data)} bytes, but only {message.left} are left of the size that was given"
            )
        message.left -= len(data)
        self._put(data)

    def end_of_body(self) -> None:
        """The message is complete: send the envelope. `MessageDone` follows, once all of it is answered."""
        message = self._being_sent("end_of_body")
        if message.left:
            raise LocalProtocolError(f"end_of_body(): {message.left} bytes are missing of the size that was given")
        message.sent, message.sent_at = True, self._received
        self._put(message.tail)

    def _being_sent(self, call: str) -> _Message:
        if self._closed is not None:
            raise LocalProtocolError(f"{call}(): the connection has ended; next_event() tells what became of it")
        if not self._messages or self._messages[-1].sent:
            raise LocalProtocolError(f"{call}(): call send_message() first")
        return self._messages[-1]

    # -- receiving ---------------------------------------------------------------------------------------

    def next_event(self) -> ClientEvent | NeedData | Paused:
        """The next event; `NEED_DATA` while a response is awaited; `PAUSED` while the next call is the application's:
        a message, a piece of it, ``data_to_send()``.

        Bytes may be received while it returns `PAUSED`, too: a server may give up in the middle of a message. Raises
        `RemoteProtocolError` when the server breaks the protocol. Call it again then: it returns what is still to be
        told, and `ConnectionClosed`.
        """
        while True:
            if self._events:
                return self._events.popleft()
            if self._closed is not None:
                return self._closed
            if self._output_size > MAX_PENDING_OUTPUT:
                return PAUSED
            content = self._next_response()
            if content is None:
                if not self._eof:
                    return NEED_DATA if self._messages and self._messages[-1].sent else PAUSED
                self._end("EOF", Reply(451, "4.4.2 Connection lost before the message was answered"))
            else:
                self._responded(content)

    def _next_response(self) -> bytes | None:
        head = self._buffer.peek(_KEPT)
        try:
            if self._reader.left is None:
                length = self._reader.read_length()
                if length is None:
                    return None
                if length > MAX_RESPONSE:
                    self._fail("sent a response that is too long", head)
            content = self._reader.read_whole(MAX_RESPONSE)
        except NetstringError:
            self._fail("sent a response that is no netstring", head)
        assert not isinstance(content, Oversized)
        if content is not None:
            self._response_at, self._next_at = self._next_at, self._received - len(self._buffer)
        return content

    def _responded(self, content: bytes) -> None:
        reply = parse_response(content)
        if reply is None:
            self._fail("sent a response that begins with none of K, Z and D", content)
        if not self._messages:
            self._fail("sent a response to no message", content)
        message = self._messages[0]
        if not message.sent or self._response_at < message.sent_at:
            # A server gives up in the middle, and closes; it cannot have accepted what it has not received.
            if reply.is_positive:
                self._fail("accepted a message before its end", content)
            self._finish(message, reply, Stage.MESSAGE)
            self._end("refused", reply)
            return
        if self._one_response:
            self._finish(message, reply, Stage.MESSAGE)
        else:
            recipient = message.recipients[len(message.results)]
            message.results.append(RecipientResult(recipient, reply, Stage.MESSAGE))
        if len(message.results) == len(message.recipients):
            self._messages.popleft()
            self._events.append(MessageDone(message.results))
            self._message_done()

    def _message_done(self) -> None:
        """What follows a message that was answered."""

    def _finish(self, message: _Message, reply: Reply, stage: Stage) -> None:
        """Everything that is not known of `message` yet is `reply`."""
        for recipient in message.recipients[len(message.results) :]:
            message.results.append(RecipientResult(recipient, reply, stage))

    # -- the end -----------------------------------------------------------------------------------------

    def _fail(self, what: str, received: bytes) -> NoReturn:
        """The server has lost us. What it sent is attached; how much of it is here depends on the network."""
        self._end(f"the server {what}", Reply(451, f"4.5.0 The server broke the protocol: it {what}"))
        raise RemoteProtocolError(f"the server {what}", received=received)

    def _end(self, reason: str, lost: Reply) -> None:
        """Nothing more is read or written; what is not answered was lost."""
        in_message = bool(self._messages)
        for message in self._messages:
            self._finish(message, lost, Stage.CONNECTION)
            self._events.append(MessageDone(message.results))
        self._messages.clear()
        self._closed = ConnectionClosed(reason, in_message)
        self._drop_output()
        self._buffer.clear()


class QMTPClient(PackageClient):
    """One session: any number of messages.

    `one_response`: the server sends one response for a package (the original mailfront does), not one for each of its
    recipients. `window`: messages that may be unanswered.

    Methods raise `LocalProtocolError`, and send nothing, for a call out of order and for an address that holds a
    control character. There is no command to end a session: close the connection when all is answered.
    """

    def __init__(self, *, one_response: bool = False, window: int = WINDOW) -> None:
        super().__init__(one_response, window)

    def send_message(
        self, sender: Address | str, recipients: Iterable[Address | str], size: int, *, crlf: bool = False
    ) -> None:
        r"""Begin a message: ``send_body()`` follows, then ``end_of_body()``.

        `sender`, `recipients` (one at least): the envelope, the sender empty for the null path. QMTP quotes nothing:
        an address is what stands between the quotes. `size`: the message's bytes. `crlf`: its lines end in CRLF; LF
        otherwise. A message in CRLF form is refused by the original mailfront.
        """
        sender_netstring, recipients_netstrings = self._begin(sender, recipients, size)
        self._put(b"%d:%b" % (size + 1, b"\r" if crlf else b"\n"))
        self._messages[-1].tail = b"," + sender_netstring + encode_netstring(recipients_netstrings)


def _to_address(address: Address | str) -> Address:
    if isinstance(address, str):
        address = Address(address.encode("utf-8", "surrogateescape"))
    if _CONTROL.search(address.raw):
        raise LocalProtocolError("an address holds CR, LF, NUL or another control character; refuse the message")
    return address
