"""SMTPServer in an asyncio.Protocol of one's own, without mailfront_io.

    python embed_asyncio_protocol.py [PORT]

The machine is stepped straight from the transport's callbacks. Serves until a client has delivered one message.
For a complete server (deadlines, TLS, plugins) use mailfront_io.drivers.asyncio instead.
"""

import asyncio
import sys
from collections.abc import Callable

from mailfront_proto.smtp import (
    NEED_DATA,
    PAUSED,
    Body,
    ConnectionClosed,
    Mail,
    MessageEnd,
    SMTPServer,
)


class SMTPProtocol(asyncio.Protocol):
    """One connection. `deliver` is called with each message, `ended` when the connection is closed."""

    def __init__(self, deliver: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._machine = SMTPServer("mx.example.org")
        self._deliver = deliver
        self._ended = ended
        self._slices: list[bytes] = []
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first event is there before the first byte: the greeting is owed."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._step()

    def data_received(self, data: bytes) -> None:
        """Feed, then pull."""
        self._machine.receive_data(data)
        self._step()

    def eof_received(self) -> bool:
        """The client has closed its side. What it is owed is still sent."""
        self._machine.receive_eof()
        self._step()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing is to be done for the machine: what was not received whole was not delivered."""
        self._ended()

    def pause_writing(self) -> None:
        """The client does not read: do nothing more for it, and read nothing more from it."""
        self._writable = False
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable = True
        self._transport.resume_reading()
        self._step()

    def _step(self) -> None:
        """Handle events until the machine wants bytes, or the client must read first."""
        machine = self._machine
        while self._writable:
            event = machine.next_event()
            if event is NEED_DATA or event is PAUSED or isinstance(event, ConnectionClosed):
                self._transport.write(machine.data_to_send())
                if isinstance(event, ConnectionClosed):
                    self._transport.close()
                if event is not PAUSED:
                    return
            elif isinstance(event, Mail):
                self._slices.clear()
                machine.accept()
            elif isinstance(event, Body):
                self._slices.append(event.data)
            elif isinstance(event, MessageEnd):
                self._deliver(b"".join(self._slices))
                machine.accept()
            elif machine.answer_owed:
                machine.accept()


async def main() -> None:
    """Serve until one message is here and its client has gone."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 2525
    loop = asyncio.get_running_loop()
    messages: list[bytes] = []
    done = asyncio.Event()

    def ended() -> None:
        if messages:
            done.set()

    server = await loop.create_server(lambda: SMTPProtocol(messages.append, ended), "127.0.0.1", port)
    print(f"listening on port {server.sockets[0].getsockname()[1]}", flush=True)
    await done.wait()
    server.close()
    await server.wait_closed()
    print(messages[0].decode("utf-8", "replace"), end="")


if __name__ == "__main__":
    asyncio.run(main())
