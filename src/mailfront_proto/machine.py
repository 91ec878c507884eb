"""What every machine has below its commands: bytes in, bytes out; of a server machine also the event that is owed an
answer.

`mailfront_proto.pull` says in words how a machine is used; this is the part of it that does not depend on the
protocol. A machine adds its states, its reader for each state, and its answers or commands.
"""

from collections import deque
from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

from mailfront_proto.buffer import ReceiveBuffer
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.pull import MAX_HELD_INPUT

E = TypeVar("E")
"""The base class of the machine's events."""


class ServerMachine(Generic[E]):
    """The input, the output and the pending answer of one session. `E`: the base class of its events."""

    __slots__ = ("_buffer", "_closed", "_eof", "_more_output", "_output", "_output_size", "_pending", "_state")

    _handshake_state: ClassVar[object] = None
    """The state in which what comes is not ours but TLS's."""

    def __init__(self, state: object) -> None:
        self._buffer = ReceiveBuffer()
        self._eof = False
        self._output = b""
        self._more_output: list[bytes] = []
        """What goes out behind `_output`."""
        self._output_size = 0
        """Octets that `_put` has put there."""
        self._pending: E | None = None
        self._closed: E | None = None
        self._state = state

    @property
    def answer_owed(self) -> bool:
        """Whether the last event waits for its answer."""
        return self._pending is not None

    def receive_data(self, data: bytes) -> None:
        """Store bytes from the peer. Call `next_event` next. Bytes after the end are dropped."""
        if not data:
            raise LocalProtocolError('receive_data(b""): call receive_eof() when the peer has closed')
        if self._state is self._handshake_state:
            raise LocalProtocolError("a TLS handshake is awaited: feed the bytes to TLS, then tls_established()")
        if self._closed is None:
            buffer = self._buffer
            if buffer.has_unread or len(data) > MAX_HELD_INPUT:
                buffer.feed(data)
            else:  # `feed`, in place: nearly all that comes does when the machine has used up what came before
                buffer._data = data
                buffer.has_unread = True

    def receive_eof(self) -> None:
        """The peer will send nothing more, or the connection is lost."""
        self._eof = True

    def data_to_send(self) -> bytes:
        """Drain what is to be written to the peer; b"" when there is nothing."""
        data = self._output
        self._output = b""
        if self._output_size:
            if self._more_output:
                data = b"".join([data, *self._more_output])
                self._more_output = []
            self._output_size = 0
        return data

    def _put(self, data: bytes) -> None:
        if data:
            if self._output:
                self._more_output.append(data)
            else:
                self._output = data
            self._output_size += len(data)

    def _close(self, closed: E) -> None:
        """No more input is read; what is queued still goes out."""
        self._closed = closed
        self._buffer.clear()


class ClientMachine(Generic[E]):
    """The input, the output and the events of one session. `E`: what its events have in common. `feed` takes the bytes
    that come."""

    _handshake_state: ClassVar[object] = None
    """The state in which what comes is not ours but TLS's."""

    _state: object = ""
    """Where the session stands, if it has states."""

    def __init__(self, feed: Callable[[bytes], None]) -> None:
        self._feed = feed
        self._eof = False
        self._output: list[bytes] = []
        self._output_size = 0
        self._events: deque[E] = deque()
        self._closed: E | None = None
        self._received = 0
        """Octets that have come, in all."""

    def receive_data(self, data: bytes) -> None:
        """Store bytes from the server. Call `next_event` next. Bytes after the end are dropped."""
        if not data:
            raise LocalProtocolError('receive_data(b""): call receive_eof() when the server has closed')
        if self._state is self._handshake_state:
            raise LocalProtocolError("receive_data(): these bytes are for TLS; call tls_established() first")
        if self._closed is None:
            self._feed(data)
            self._received += len(data)

    def receive_eof(self) -> None:
        """The server will send nothing more, or the connection is lost."""
        self._eof = True

    def data_to_send(self) -> bytes:
        """Drain what is to be written to the server; b"" when there is nothing. While a login is awaited (``awaiting``
        says so) it holds credentials: show it nowhere."""
        data = b"".join(self._output)
        self._drop_output()
        return data

    def _put(self, data: bytes) -> None:
        if data:
            self._output.append(data)
            self._output_size += len(data)

    def _drop_output(self) -> None:
        self._output.clear()
        self._output_size = 0
