r"""The SMTP front end between a script and plugins of a test's own, in virtual time.

``Front("accept", MyPlugin, backend=Kept).play([b"EHLO x\r\n", EOF])``: plugins and the backend are names or
classes. `log` collects the lines as the session wrote them, before any sink escapes them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mailfront_io.auth.store import CredentialStore
from mailfront_io.ops import Connection
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.plugin import Backend, Plugin, Response
from mailfront_io.registry import load_backend, load_plugin
from mailfront_io.service import Service
from mailfront_io.session import Path
from mailfront_io.spool import Spool
from mailfront_io.testing import EOF, Action, Played, VirtualClock, run_script

if TYPE_CHECKING:
    import ssl

ENVIRONMENT = {
    "PROTO": "TCP",
    "TCPLOCALHOST": "mx.example.org",
    "TCPLOCALIP": "192.0.2.1",
    "TCPREMOTEIP": "198.51.100.7",
    "TCPREMOTEHOST": "client.example.net",
}

GREETING = b"220 mx.example.org mailfront ESMTP\r\n"
ENVELOPE = b"EHLO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\n"


class Kept(Backend):
    """Keeps what was delivered in `Kept.messages`: (sender, recipients, message)."""

    name = "kept"
    messages: list[tuple[str, list[str], bytes]]
    begun = 0

    def data_start(self, spool: Spool | None) -> None:
        """Begins a message."""
        self._blocks: list[bytes] = []
        type(self).begun += 1

    def data_block(self, data: bytes) -> None:
        """Keeps a block."""
        self._blocks.append(data)

    def message_end(self, spool: Spool | None) -> None:
        """The message counts."""
        envelope = self.session.envelope
        assert envelope.sender is not None or self.session.profile.name == "compat"
        sender = envelope.sender.address if envelope.sender is not None else ""
        self.messages.append((sender, [p.address for p in envelope.recipients], b"".join(self._blocks)))

    def reset(self) -> None:
        """Drops what came so far."""
        self._blocks = []


class Front:
    """A service of the given plugins and backend."""

    def __init__(
        self,
        *plugins: str | type[Plugin],
        backend: str | type[Backend] = Kept,
        env: Mapping[str, str] | None = None,
        protocol: str = "smtp",
        credentials: CredentialStore | None = None,
        tls: "ssl.SSLContext | None" = None,
        log: Callable[[str], None] | None = None,
        bare_env: bool = False,
    ) -> None:
        self.log: list[str] = []
        self.messages: list[tuple[str, list[str], bytes]] = []
        environment = {**({} if bare_env else ENVIRONMENT), **(env or {})}
        self.service = Service(protocol, "discard", [], environment, log or self.log.append, credentials)
        kinds = [load_plugin(p) if isinstance(p, str) else p for p in plugins]
        self.service._plugins = [self.service._configured(kind) for kind in kinds]
        self.service._backend = load_backend(backend) if isinstance(backend, str) else backend
        if self.service._backend is Kept:
            self.service._backend = type("Kept", (Kept,), {"messages": self.messages})
        if tls is not None:
            self.service._tls_context = tls

    def session(self, connection: Connection) -> SessionCoroutine:
        """The session of a connection."""
        return self.service.session(connection)

    def play(self, script: Sequence[Action], *, clock: VirtualClock | None = None, **options: Any) -> Played:
        """Run the session against `script`."""
        return run_script(self.session, script, clock=clock, **options)

    def say(self, *pieces: bytes, all_read: bool = False) -> bytes:
        """The output, when the peer sends `pieces`, each in a read of its own, and then closes."""
        return self.play([*pieces, EOF], all_read=all_read).output


def codes(output: bytes) -> list[int]:
    """The codes of the replies in `output`, one for each last line."""
    return [int(line[:3]) for line in output.split(b"\r\n") if line[3:4] == b" "]


__all__ = ["ENVELOPE", "ENVIRONMENT", "GREETING", "Front", "Kept", "Path", "Response", "codes"]
