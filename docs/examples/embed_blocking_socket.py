"""SMTPServer on a plain blocking socket, with one's own rules and no mailfront_io.

    python embed_blocking_socket.py [PORT]

Serves one session and prints the message. Takes mail for example.org and refuses the rest.
"""

import socket
import sys

from mailfront_proto.smtp import (
    NEED_DATA,
    PAUSED,
    Body,
    ConnectionClosed,
    Mail,
    MessageEnd,
    Recipient,
    SMTPServer,
)


def serve(connection: socket.socket, machine: SMTPServer) -> list[bytes]:
    """Run one session to its end; the messages that were taken."""
    messages: list[bytes] = []
    slices: list[bytes] = []
    while True:
        event = machine.next_event()
        if event is NEED_DATA:
            connection.sendall(machine.data_to_send())
            data = connection.recv(65536)
            if data:
                machine.receive_data(data)
            else:
                machine.receive_eof()
        elif event is PAUSED:  # more output is pending than the machine holds: write it
            connection.sendall(machine.data_to_send())
        elif isinstance(event, ConnectionClosed):
            connection.sendall(machine.data_to_send())
            return messages
        elif isinstance(event, Mail):
            slices.clear()
            machine.accept()
        elif isinstance(event, Recipient) and event.address.domain.lower() != b"example.org":
            machine.reply(550, "5.7.1 Not a domain of ours")
        elif isinstance(event, Body):
            slices.append(event.data)
        elif isinstance(event, MessageEnd):
            messages.append(b"".join(slices))  # store it for good before the next line says that it is
            machine.accept()
        elif machine.answer_owed:
            machine.accept()


def main() -> None:
    """One session on the port named."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 2525
    with socket.create_server(("127.0.0.1", port)) as listener:
        print(f"listening on port {listener.getsockname()[1]}", flush=True)
        connection, _ = listener.accept()
    with connection:
        connection.settimeout(300)  # RFC 5321 section 4.5.3.2.7
        for message in serve(connection, SMTPServer("mx.example.org")):
            print(message.decode("utf-8", "replace"), end="")


if __name__ == "__main__":
    main()
