"""Ports for programs that must be told a number: they know no port 0, or do not say which they got."""

import random
import socket


def unused_port() -> int:
    """A port of 127.0.0.1 that nobody has, by TCP nor by UDP. Nobody gets it unasked either: it is below those that the
    kernel gives to whoever asks for any."""
    while True:
        port = random.randrange(20_000, 32_000)
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
