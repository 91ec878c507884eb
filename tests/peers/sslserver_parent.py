"""A server as sslserver is one: ``python -m tests.peers.sslserver_parent CERTIFICATE PROGRAM [ARGUMENTS…]``.

It listens on a port of 127.0.0.1, says which on standard output, takes one connection, does the handshake, and starts
the program in plain text on two pipes. The facts of the connection are those of ``$PROTO``, which is SSL. The exit code
is the program's.
"""

import os
import socket
import ssl
import subprocess
import sys

from tests.peers.ucspi_tls_parent import SECONDS, relay


def main(certificate: str, program: list[str]) -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        print(listener.getsockname()[1], flush=True)
        connection, (remote_ip, remote_port) = listener.accept()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    connection.settimeout(SECONDS)
    facts = {"LOCALIP": "127.0.0.1", "REMOTEIP": remote_ip, "REMOTEPORT": str(remote_port)}
    env = {**os.environ, "PROTO": "SSL", **{f"SSL{name}": value for name, value in facts.items()}}
    child_input, to_child = os.pipe()
    from_child, child_output = os.pipe()
    with context.wrap_socket(connection, server_side=True) as inside:
        child = subprocess.Popen(program, stdin=child_input, stdout=child_output, env=env)
        os.close(child_input)
        os.close(child_output)
        with child:
            relay(inside, to_child, from_child)
            os.close(to_child)
            os.close(from_child)
            return child.wait(SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
