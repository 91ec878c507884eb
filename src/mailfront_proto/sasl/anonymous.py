"""ANONYMOUS (RFC 4505): a client that says who it is only for the log, if at all."""

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl.mechanism import (
    Cause,
    Failed,
    ServerMechanism,
    SingleMessageClient,
    Step,
    decode_identity,
)
from mailfront_proto.sasl.requests import Authorize

MAX_TRACE = 255
"""Characters of a trace (RFC 4505 section 2)."""


class AnonymousServer(ServerMechanism):
    """The server role: one message, the trace, then `Authorize` with an empty user name."""

    def respond(self, response: bytes) -> Step:
        """An e-mail address, or a token; may be empty. Nothing of it is believed."""
        trace = decode_identity(response)
        if trace is None or len(trace) > MAX_TRACE:
            return Failed(Cause.MALFORMED)
        return Authorize("ANONYMOUS", "ANONYMOUS", "", "", trace)


class AnonymousClient(SingleMessageClient):
    """The client role. `trace`: our e-mail address, or anything without ``@``, of at most 255 characters."""

    name = "ANONYMOUS"

    def __init__(self, trace: str = "") -> None:
        self._message = trace.encode()
        if decode_identity(self._message) is None or len(trace) > MAX_TRACE:
            raise LocalProtocolError(f"ANONYMOUS takes a trace of {MAX_TRACE} characters, without control characters")
