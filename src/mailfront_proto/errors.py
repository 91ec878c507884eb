"""The exceptions of the machines.

A *server* machine never raises because of what its peer sent: the peer gets the proper reply, and where
the protocol is lost the connection ends with the cause attached to the closing event. A *client* machine
raises `RemoteProtocolError`. Misuse by the application raises `LocalProtocolError` in either role.
"""


class ProtocolError(Exception):
    """Base class of both; never raised itself."""


class LocalProtocolError(ProtocolError):
    """The application broke the protocol; the text says which call is right. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol beyond repair.

    `reply` is the answer the peer deserves, in the protocol's own words (for instance
    ``"500 5.5.2 Line too long"``), or an empty string where the protocol has none. `received`: what the peer sent
    that cannot be, as it came (the end of it, where it is long; ``b""`` where it is not known). The text is fit to be
    shown: it has of that no more than an escaped beginning.
    """

    def __init__(self, message: str, reply: str = "", received: bytes = b"") -> None:
        super().__init__(message)
        self.reply = reply
        self.received = received
