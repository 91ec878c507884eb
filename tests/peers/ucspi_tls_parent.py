"""A UCSPI-TLS server, as sslserver is one: ``python ucspi_tls_parent.py CERTIFICATE PROGRAM [ARGUMENTS…]``.

It listens on a port of 127.0.0.1, says which on standard output, takes one connection, and starts the program with that
as its descriptors 0 and 1. In its environment are the facts of the connection, `$UCSPITLS`, and the numbers of three
more descriptors: `$SSLCTLFD`, to which it writes a ``y`` where TLS is to begin, and `$SSLREADFD` and `$SSLWRITEFD`, on
which it goes on in plain text. The handshake and all of TLS is done here. The exit code is the program's.
"""

import os
import select
import socket
import ssl
import subprocess
import sys

SECONDS = 60


def main(certificate: str, program: list[str]) -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        print(listener.getsockname()[1], flush=True)
        connection, (remote_ip, remote_port) = listener.accept()
    control, child_control = os.pipe()
    child_input, to_child = os.pipe()
    from_child, child_output = os.pipe()
    facts = {"PROTO": "TCP", "TCPLOCALIP": "127.0.0.1", "TCPREMOTEIP": remote_ip, "TCPREMOTEPORT": str(remote_port)}
    numbers = {"SSLCTLFD": child_control, "SSLREADFD": child_input, "SSLWRITEFD": child_output}
    child = subprocess.Popen(
        program,
        stdin=connection.fileno(),
        stdout=connection.fileno(),
        pass_fds=tuple(numbers.values()),
        env={**os.environ, **facts, "UCSPITLS": "", **{name: str(fd) for name, fd in numbers.items()}},
    )
    for fd in numbers.values():
        os.close(fd)
    with child:
        if os.read(control, 1) == b"y":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            connection.settimeout(SECONDS)
            try:
                inside = context.wrap_socket(connection, server_side=True)
            except (OSError, ssl.SSLError) as error:
                print(f"handshake: {error}", file=sys.stderr)
            else:
                relay(inside, to_child, from_child)
                inside.close()
        connection.close()
        for fd in (to_child, from_child, control):
            os.close(fd)
        return child.wait(SECONDS)


def relay(inside: ssl.SSLSocket, to_child: int, from_child: int) -> None:
    """Until the program has closed its side."""
    reading = [inside.fileno(), from_child]
    while True:
        ready = [inside.fileno()] if inside.pending() else select.select(reading, [], [], SECONDS)[0]
        if not ready:
            raise TimeoutError("nobody says anything")
        if from_child in ready:
            data = os.read(from_child, 65536)
            if not data:
                return
            inside.sendall(data)
        if inside.fileno() in ready:
            try:
                data = inside.recv(65536)
            except OSError:
                data = b""
            if data:
                os.write(to_child, data)
            else:
                reading.remove(inside.fileno())
                os.dup2(os.open("/dev/null", os.O_WRONLY), to_child)  # its end, to the program


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
