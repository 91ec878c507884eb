"""What a program with an aiosmtpd handler becomes: rules in a plugin, messages in a backend, and a server in a thread.

    python migrate_from_aiosmtpd.py

Starts it, sends it one message as a test would, prints what arrived, and stops. See docs/migration.md.
"""

import smtplib
import socket
import threading
from collections.abc import Callable
from email import message_from_bytes, policy

from mailfront_io.drivers import blocking
from mailfront_io.drivers.listener import Listener
from mailfront_io.plugin import ACCEPT, Backend, Plugin, Response
from mailfront_io.service import service_from_line
from mailfront_io.session import Path
from mailfront_io.spool import Spool


class ExampleCom(Plugin):
    """Was handle_RCPT: takes mail for example.com."""

    name = "example-com"

    def sender(self, path: Path) -> Response:
        return ACCEPT

    def recipient(self, path: Path) -> Response:
        if path.address.endswith("@example.com"):
            return ACCEPT
        return Response(550, "5.7.1 not relaying to that domain")


class Print(Backend):
    """Was handle_DATA: gets the message once it is whole."""

    name = "print"
    spools = True

    def message_end(self, spool: Spool) -> Response:
        envelope = self.session.envelope
        assert envelope.sender is not None
        message = message_from_bytes(b"".join(spool.blocks()), policy=policy.default)
        recipients = ", ".join(path.address for path in envelope.recipients)
        print(f"{envelope.sender.address} to {recipients}: {message['Subject']}")
        return Response(250, "2.6.0 Message accepted for delivery")


class Controller:
    """aiosmtpd's Controller: serves in a thread of its own between start() and stop()."""

    def __init__(self, *words: str, hostname: str = "127.0.0.1", port: int = 0) -> None:
        service = service_from_line(list(words), {}, log=lambda line: None)
        self._listener = Listener(socket.create_server((hostname, port)), service.session)
        self.port: int = self._listener.socket.getsockname()[1]
        self._started = threading.Event()
        self._stop: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Return once it takes connections."""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        """Finish what is under way, and return."""
        self._stop()
        self._thread.join()

    def _serve(self) -> None:
        blocking.serve([self._listener], on_started=self._on_started)

    def _on_started(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._started.set()


def main() -> None:
    """One message in, one refused."""
    controller = Controller("smtp", "__main__:Print", "__main__:ExampleCom")
    controller.start()
    try:
        with smtplib.SMTP("127.0.0.1", controller.port) as client:
            client.sendmail("a@example.net", ["b@example.com"], "Subject: hello\r\n\r\nHello.\r\n")
            try:
                client.sendmail("a@example.net", ["b@example.org"], "Subject: no\r\n\r\n")
            except smtplib.SMTPRecipientsRefused as refused:
                print(refused.recipients["b@example.org"][1].decode())
    finally:
        controller.stop()


if __name__ == "__main__":
    main()
