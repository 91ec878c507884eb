"""starttls-ucspi: STARTTLS by the program that started this one (UCSPI-TLS).

It holds the certificate and does TLS; what we read and write after the handshake are pipes to it.
"""

from mailfront_io.ops import StartParentTLS
from mailfront_io.plugin import Kind, Plugin, Setting
from mailfront_io.session import Session, parse_number

_DESCRIPTORS = ("SSLCTLFD", "SSLREADFD", "SSLWRITEFD")

LARGEST_DESCRIPTOR = (1 << 31) - 1


class StartTLSUCSPI(Plugin):
    """Offers STARTTLS where `$UCSPITLS` is set, in place of TLS of our own. For programs that tcpserver and its like
    start for each connection."""

    name = "starttls-ucspi"
    one_shot = True
    settings = (
        Setting("UCSPITLS", Kind.FLAG, "TLS can be had from the program that started this one"),
        Setting("SSLCTLFD", Kind.NUMBER, "the descriptor on which it is asked for"),
        Setting("SSLREADFD", Kind.NUMBER, "the descriptor that is read then"),
        Setting("SSLWRITEFD", Kind.NUMBER, "the descriptor that is written then"),
    )

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        if session.getenv("UCSPITLS") is None:
            return
        descriptors: list[int] = []
        for name in _DESCRIPTORS:
            number = parse_number(session.getenv(name))
            if number is None or number > LARGEST_DESCRIPTOR:
                session.log(f"starttls-ucspi: STARTTLS cannot be had: ${name} is no descriptor")
                return
            descriptors.append(number)
        session.parent_tls = StartParentTLS(*descriptors)
        session.tls_context = None
        # Children have none of these descriptors.
        session.remove_settings(("UCSPITLS", *_DESCRIPTORS))

    def helo(self, host: str, capabilities: list[str]) -> None:
        """Lists STARTTLS at the plugin's place."""
        if self.session.parent_tls is not None and self.session.tls is None:
            capabilities.append("STARTTLS")
