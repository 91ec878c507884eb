"""The client's side of an exchange, as SMTP (RFC 4954), POP3 (RFC 5034) and IMAP (RFC 9051, 4959) carry it.

A client machine makes one `ClientExchange` for each AUTH command, and says what the server says:

1. ``initial = exchange.initial_response(room)``: to go out behind the mechanism's name, as it is; None: the name alone.
2. For each challenge, without ``334 `` or ``+ `` in front: ``line = exchange.respond(challenge)``. Send that and a line
   end. None: the server sends challenges without end; break the connection off (`RemoteProtocolError`).
3. Success: ``why = exchange.objection()``; if that is not empty the server has not proven that it knows the password,
   or takes what we have cancelled: break off, for it is not the server that it should be.
4. Failure: ``exchange.cancelled`` says why we have cancelled the exchange, if we have.

What is sent holds credentials: show it nowhere.
"""

from collections.abc import Sequence
from typing import Final

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.sasl.base64_line import decode_base64, encode_base64
from mailfront_proto.sasl.mechanism import ClientMechanism

MAX_CHALLENGES: Final = 16
"""Challenges in one exchange. No mechanism has more than three."""

CANCEL: Final = b"*"


def check_protection(call: str, in_tls: bool, allow_clear: bool, starttls: str = "starttls()") -> None:
    """Raise `LocalProtocolError` where the method `call` would send credentials in clear, and nobody has allowed it.
    `starttls`: the method that begins TLS."""
    if not in_tls and not allow_clear:
        raise LocalProtocolError(
            f"{call}() would send credentials in clear: call {starttls} first, or say {call}(…, allow_clear=True) if "
            "something else protects the connection"
        )


def check_offered(mechanism: ClientMechanism, offered: Sequence[str], told_by: str) -> None:
    """Raise `LocalProtocolError` for a mechanism that the server does not offer. `told_by`: the method with which one
    learns what it offers."""
    if mechanism.name not in offered:
        names = " ".join(offered) or f"no mechanism, as far as {told_by} has told"
        raise LocalProtocolError(f"authenticate(): the server offers {names}, not {mechanism.name}")


class ClientExchange:
    """One exchange with `mechanism`, an object made for it."""

    def __init__(self, mechanism: ClientMechanism) -> None:
        self._mechanism = mechanism
        self._challenges = 0
        self._held_back: bytes | None = None
        self.cancelled = ""
        """Why we have cancelled the exchange, or an empty string."""

    def initial_response(self, room: int | None = None) -> bytes | None:
        """The initial response in base64, ``=`` for an empty one; None where the server speaks first.

        `room`: octets that it may have (0 for a server that takes no initial response); None: any number. Where it does
        not fit None is returned, too, and the server asks for it with an empty challenge.
        """
        response = self._mechanism.initial_response()
        if response is None:
            return None
        encoded = encode_base64(response) or b"="
        if room is None or len(encoded) <= room:
            return encoded
        self._held_back = response
        return None

    def respond(self, challenge: bytes) -> bytes | None:
        """The answer to a challenge as it came, in base64: a line without its end, or `CANCEL` for a challenge that
        makes no sense. None if there is no end of challenges, or one follows a `CANCEL`."""
        self._challenges += 1
        if self.cancelled or self._challenges > MAX_CHALLENGES:
            return None
        decoded = decode_base64(challenge)
        if decoded is None:
            return self._cancel("the challenge is not base64")
        held_back, self._held_back = self._held_back, None
        if held_back is not None:
            if decoded:
                return self._cancel(f"the server sent a challenge for {self._mechanism.name} that is not empty")
            return encode_base64(held_back)
        try:
            return encode_base64(self._mechanism.respond(decoded))
        except RemoteProtocolError as error:
            return self._cancel(str(error))

    def objection(self) -> str:
        """Why a success that the server claims now cannot be believed, as in "the server …"; empty if it can."""
        if self.cancelled:
            return "claims success in an exchange that was cancelled"
        return self._mechanism.objection()

    def _cancel(self, why: str) -> bytes:
        self.cancelled = why
        return CANCEL
