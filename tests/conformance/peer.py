"""The client's end of a session, over a real socket or a pair of pipes: blocking, and never for long."""

import os
import select
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Protocol

from tests.certificates import user_certificate
from tests.conformance.session_file import Act, Expect, Send, Session, Wait

SECONDS = 60.0
"""How long a client waits for something that must come: reached only when a test fails."""


class Channel(Protocol):
    """Bytes to and from the server."""

    def send(self, data: bytes) -> None: ...
    def receive(self) -> bytes: ...
    def fin(self) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...


class SocketChannel:
    """A connected stream socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        connection.settimeout(SECONDS)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> bytes:
        return self._socket.recv(65536)

    def fin(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        self._socket.close()


class PipeChannel:
    """Two pipes."""

    def __init__(self, input_fd: int, output_fd: int) -> None:
        self._input = input_fd
        self._output = output_fd

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._output, view) :]

    def receive(self) -> bytes:
        if not select.select([self._input], [], [], SECONDS)[0]:
            raise TimeoutError
        return os.read(self._input, 65536)

    def fin(self) -> None:
        if self._output >= 0:
            os.close(self._output)
        self._output = -1

    def reset(self) -> None:
        raise NotImplementedError("a pipe cannot be reset")

    def close(self) -> None:
        self.fin()
        os.close(self._input)


def client_context(session: Session) -> ssl.SSLContext:
    """TLS without looking at the server's certificate, which is not what is tested here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if session.certificate:
        user_certificate(session.certificate, trusted=session.certified).configure_cert(context)
    return context


class Peer:
    """Plays a session's steps over a channel. `output` is what the server said, plain text where TLS is in
    use; what is wrong about how it ended stands behind it in angle brackets."""

    def __init__(self, channel: Channel) -> None:
        self.output = bytearray()
        self._channel = channel
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ended = False

    def play(self, session: Session) -> bytes:
        """Returns the output. The channel is closed in any case."""
        expected = bytearray()
        try:
            for step in session.steps:
                if isinstance(step, Send):
                    for piece in step.pieces():
                        self._send(piece)
                elif isinstance(step, Expect):
                    expected += step.data
                    self._read(expected)
                elif isinstance(step, Wait):
                    raise NotImplementedError("only virtual time can be waited for")
                elif step is Act.TLS:
                    self._handshake(client_context(session))
                elif step is Act.FIN:
                    self._try(self._channel.fin)
                else:
                    self._channel.reset()
                    return bytes(self.output)
            self._read(None)
        except TimeoutError:
            self.output += b"<and then nothing>"
        finally:
            self._channel.close()
        return bytes(self.output)

    def _send(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        self._try(self._channel.send, data)

    def _try(self, action: Callable[..., None], *arguments: bytes) -> None:
        try:
            action(*arguments)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server has closed already: what it said is read all the same

    def _read(self, expected: bytearray | None) -> None:
        """Read as much as is expected (None: to the end), or up to the first byte that is not."""
        while not self._ended and (
            expected is None or (len(self.output) < len(expected) and expected.startswith(self.output))
        ):
            try:
                data = self._channel.receive()
            except ConnectionResetError:
                self.output += b"<reset>"
                self._ended = True
                return
            self._received(data)

    def _received(self, data: bytes) -> None:
        if self._tls is None:
            self.output += data
            self._ended = not data
            return
        self._incoming.write(data)
        try:
            while plain := self._tls.read(65536):
                self.output += plain
            self._ended = True
        except ssl.SSLWantReadError:
            if not data:
                self.output += b"<cut off>"
                self._ended = True
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError:  # an alert: the server does not take our certificate, and says nothing else
            self._ended = True

    def _handshake(self, context: ssl.SSLContext) -> None:
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._channel.send(self._outgoing.read())
                data = self._channel.receive()
                assert data, "the server closed the connection during the handshake"
                self._incoming.write(data)
        self._channel.send(self._outgoing.read())
