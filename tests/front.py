r"""The SMTP front end between a script and plugins of a test's own, in virtual time.

``Front("accept", MyPlugin).play([b"EHLO x\r\n", EOF])``: the public kit, with the words of these tests.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mailfront_io import testing
from mailfront_io.plugin import Plugin, Response
from mailfront_io.session import Path
from mailfront_io.testing import Kept

if TYPE_CHECKING:
    import ssl

ENVIRONMENT = testing.CONNECTION

GREETING = b"220 mx.example.org mailfront ESMTP\r\n"
ENVELOPE = b"EHLO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\n"

NO_FACTS = dict.fromkeys(ENVIRONMENT, "")


class Front(testing.Front):
    """`env`: the settings; `bare_env`: nothing is known of the connection; `tls`: our side of TLS."""

    def __init__(
        self,
        *plugins: str | type[Plugin],
        env: Mapping[str, str] | None = None,
        tls: "ssl.SSLContext | None" = None,
        bare_env: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*plugins, settings={**(NO_FACTS if bare_env else {}), **(env or {})}, **options)
        if tls is not None:
            self.service._tls_context = tls


def codes(output: bytes) -> list[int]:
    """The codes of the replies in `output`, one for each last line."""
    return [int(line[:3]) for line in output.split(b"\r\n") if line[3:4] == b" "]


__all__ = ["ENVELOPE", "ENVIRONMENT", "GREETING", "Front", "Kept", "Path", "Response", "codes"]
