"""The client's side of one AUTH exchange (RFC 4954 section 4): base64 around a `ClientMechanism`."""

from typing import Final

from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.sasl import ClientMechanism
from mailfront_proto.sasl.exchange import decode_base64, encode_base64
from mailfront_proto.smtp.client_lines import MAX_AUTH_LINE, command_line

MAX_CHALLENGES: Final = 16
"""Challenges in one exchange. No mechanism has more than three."""

CANCEL: Final = b"*\r\n"


class ClientExchange:
    """One exchange: send `start`'s line, then `respond`'s for each 334."""

    def __init__(self, mechanism: ClientMechanism) -> None:
        self._mechanism = mechanism
        self._challenges = 0
        self.cancelled = ""
        """Why we have cancelled the exchange, or an empty string."""

    def start(self) -> bytes:
        """The AUTH command, with the initial response if there is one that fits."""
        line = b"AUTH " + self._mechanism.name.encode("ascii")
        response = self._mechanism.initial_response()
        if response is not None:
            with_response = line + b" " + (encode_base64(response) or b"=")
            if len(with_response) + 2 <= MAX_AUTH_LINE:
                line = with_response  # otherwise the server asks for it with an empty challenge
        return command_line("AUTH", line, limit=MAX_AUTH_LINE)

    def respond(self, challenge: str) -> bytes | None:
        """The answer to the text of a 334: a response, or `CANCEL` for a challenge that makes no sense.
        None if there is no end of challenges, or one follows a `CANCEL`."""
        self._challenges += 1
        if self.cancelled or self._challenges > MAX_CHALLENGES:
            return None
        decoded = decode_base64(challenge.encode("ascii", "replace"))
        if decoded is None:
            self.cancelled = "the challenge is not base64"
            return CANCEL
        try:
            response = self._mechanism.respond(decoded)
        except RemoteProtocolError as error:
            self.cancelled = str(error)
            return CANCEL
        return encode_base64(response) + b"\r\n"
