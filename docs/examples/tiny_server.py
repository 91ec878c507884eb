"""A small SMTP server as an asyncio protocol, as many programs have one. It uses nothing of mailfront: it is here to be
tested; see test_tiny_server.py.

    python tiny_server.py [PORT]
"""

import asyncio
import sys
from collections.abc import Callable

MAX_LINE = 1000
MAX_MESSAGE = 1_000_000


class TinySMTP(asyncio.Protocol):
    """One connection. `deliver` gets each message as it was meant: no dots doubled, lines that end in CRLF."""

    def __init__(self, deliver: Callable[[bytes], None]) -> None:
        self.deliver = deliver
        self.buffer = bytearray()
        self.message: bytearray | None = None
        self.sender = self.recipient = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        self.say("220 tiny ESMTP")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while not self.transport.is_closing():
            end = self.buffer.find(b"\r\n")
            if end > MAX_LINE or (end < 0 and len(self.buffer) > MAX_LINE + 1):  # its CR may be here already
                self.say("500 5.5.2 Line too long")
                self.transport.close()
            elif end < 0:
                return
            else:
                line = bytes(self.buffer[:end])
                del self.buffer[: end + 2]
                if self.message is None:
                    self.command(line)
                else:
                    self.message_line(line)

    def say(self, reply: str) -> None:
        self.transport.write(reply.encode("ascii") + b"\r\n")

    def command(self, line: bytes) -> None:
        verb, _, argument = line.decode("ascii", "replace").partition(" ")
        match verb.upper():
            case "HELO" | "EHLO":
                self.reset()
                self.say("250 tiny")
            case "MAIL" if argument[:5].upper() == "FROM:" and not self.sender:
                self.sender = True
                self.say("250 2.1.0 OK")
            case "RCPT" if argument[:3].upper() == "TO:" and self.sender:
                self.recipient = True
                self.say("250 2.1.5 OK")
            case "DATA" if self.recipient:
                self.message = bytearray()
                self.say("354 Go on")
            case "RSET":
                self.reset()
                self.say("250 2.0.0 OK")
            case "NOOP":
                self.say("250 2.0.0 OK")
            case "QUIT":
                self.say("221 2.0.0 Bye")
                self.transport.close()
            case "MAIL" | "RCPT" | "DATA":
                self.say("503 5.5.1 Not now, or not so")
            case _:
                self.say("500 5.5.1 What?")

    def message_line(self, line: bytes) -> None:
        assert self.message is not None
        if line != b".":
            if len(self.message) <= MAX_MESSAGE:
                self.message += line.removeprefix(b".") + b"\r\n"
            return
        if len(self.message) > MAX_MESSAGE:
            self.say("552 5.3.4 Too large")
        else:
            self.deliver(bytes(self.message))
            self.say("250 2.6.0 OK")
        self.reset()

    def reset(self) -> None:
        self.message = None
        self.sender = self.recipient = False


async def main(port: int) -> None:
    """Serve on loopback, and print what comes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: TinySMTP(lambda message: print(message.decode("latin-1"))), "::1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2525))
