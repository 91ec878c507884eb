"""SMTPServer on a trio stream, without mailfront_io.

    python embed_trio_stream.py [PORT]

Serves until a client has delivered one message, and prints it. Needs trio. For a complete server (deadlines of every
kind, TLS, plugins) use mailfront_io.drivers.trio instead.
"""

import sys

import trio

from mailfront_proto.smtp import NEED_DATA, PAUSED, Body, ConnectionClosed, Mail, MessageEnd, SMTPServer

IDLE_SECONDS = 300  # RFC 5321 section 4.5.3.2.7


async def serve(stream: trio.abc.Stream, machine: SMTPServer) -> list[bytes]:
    """Run one session to its end; the messages that were taken. Any stream does: sockets, TLS, memory."""
    messages: list[bytes] = []
    slices: list[bytes] = []
    while True:
        event = machine.next_event()
        if event is NEED_DATA or event is PAUSED or isinstance(event, ConnectionClosed):
            with trio.fail_after(IDLE_SECONDS):
                await stream.send_all(machine.data_to_send())
                if isinstance(event, ConnectionClosed):
                    return messages
                if event is NEED_DATA:
                    data = await stream.receive_some()
                    machine.receive_data(bytes(data)) if data else machine.receive_eof()
        elif isinstance(event, Mail):
            slices.clear()
            machine.accept()
        elif isinstance(event, Body):
            slices.append(event.data)
        elif isinstance(event, MessageEnd):
            messages.append(b"".join(slices))  # store it for good before the next line says that it is
            machine.accept()
        elif machine.answer_owed:
            machine.accept()


async def main() -> None:
    """Serve until one message is here and its client has gone."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 2525
    (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
    print(f"listening on port {listener.socket.getsockname()[1]}", flush=True)

    async with trio.open_nursery() as nursery:

        async def session(stream: trio.SocketStream) -> None:
            try:
                messages = await serve(stream, SMTPServer("mx.example.org"))
            except (trio.BrokenResourceError, trio.TooSlowError):
                return  # this client has gone; the others have not
            for message in messages:
                print(message.decode("utf-8", "replace"), end="")
            if messages:
                nursery.cancel_scope.cancel()

        await trio.serve_listeners(session, [listener])


if __name__ == "__main__":
    trio.run(main)
