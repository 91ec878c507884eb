"""The server's side of an exchange: which mechanisms there are, base64 lines, ``=`` for an empty initial response,
``*`` to cancel, the authorization identity, the refusal that a client must hear out.

`mailfront_proto.sasl.server_machine` drives one `ServerExchange` for each AUTH command:

1. The command: ``step = exchange.start(name, initial_response)``, both as they came; None for no initial response.
2. A line while the exchange runs: ``step = exchange.respond(line)``, without its line end. A line that is too long
   (12,288 octets with its end are to be taken) is thrown away to its end: ``step = exchange.oversized()``.
3. A **step** is one of three:

   * `Challenge`: write it, in base64 (`encode_base64`), and read the next line as a response;
   * a `Request`: hand it out as an event that owes an answer, and stop reading;
   * `Failed`: the exchange is over.

4. The application refuses a `Request` for good: ``challenge = exchange.refused()``. If that is not None the answer
   waits: write the challenge and go on at 2; the step that comes of it is ``Failed(Cause.REFUSED)``.
5. The application answers `FindKeys`: ``step = exchange.supply_keys(keys)``, and go on at 3.

No call raises because of what the client sent.
"""

from typing import TYPE_CHECKING, Final

from mailfront_proto.sasl.base64_line import decode_base64, encode_base64
from mailfront_proto.sasl.masking import shown_mechanism
from mailfront_proto.sasl.mechanism import Cause, Challenge, Failed, ServerMechanism, Step
from mailfront_proto.sasl.options import ServerOptions
from mailfront_proto.sasl.requests import Authorize, FindKeys, Request, VerifyPassword

if TYPE_CHECKING:
    from mailfront_proto.sasl.scram_keys import ScramKeys

NONCE_SIZE: Final = 18
"""Octets of chance in a nonce of ours: 24 in base64, without padding. Nobody guesses 16."""


class ServerExchange:
    """One exchange; see above how a machine drives it.

    `options`: what is offered. `ignores_authorization_identity`: in PLAIN any bytes pass for it, and none is handed on
    (compat). `as_original`: an initial response that is no base64 comes before a mechanism that is unknown, base64
    ends with its first ``=``, whatever stands behind, and PLAIN takes empty names and passwords (compat).
    """

    def __init__(
        self, options: ServerOptions, *, ignores_authorization_identity: bool = False, as_original: bool = False
    ) -> None:
        self._options = options
        self._as_original = as_original
        self._ignores_authorization_identity = ignores_authorization_identity
        self._mechanism: ServerMechanism | None = None
        self._refused = False
        self._sent_name = ""
        self.mechanism = ""
        """The name of the mechanism as sent, as a log may show it."""

    def start(self, name: bytes, initial_response: bytes | None) -> Step:
        """Begin with the mechanism `name`, in any case.

        `initial_response`: as sent, base64, or ``=`` for an empty one (RFC 4954 section 4); None for none.
        """
        self._sent_name = name.decode("utf-8", "surrogateescape")
        self.mechanism = shown_mechanism(self._sent_name)
        upper = name.upper().decode("ascii", "replace")
        if upper not in self._options.mechanisms:
            bad = self._as_original and initial_response is not None and self._decode(initial_response) is None
            return Failed(Cause.BAD_INITIAL_RESPONSE if bad else Cause.NO_SUCH_MECHANISM)
        if upper == "PLAIN":
            from mailfront_proto.sasl.plain import PlainServer

            self._mechanism = PlainServer(self._ignores_authorization_identity, self._as_original)
        else:
            self._mechanism = _new_mechanism(upper, self._options)
        if initial_response is None:
            return self._checked(self._mechanism.start(None))
        empty = initial_response == b"=" and self._mechanism.takes_empty
        decoded = b"" if empty else self._decode(initial_response)
        return Failed(Cause.BAD_INITIAL_RESPONSE) if decoded is None else self._checked(self._mechanism.start(decoded))

    def respond(self, line: bytes) -> Step:
        """The answer to a challenge, without its line end. A line that begins with ``*`` cancels; so does an empty one,
        where the mechanism has no use for an empty response."""
        if self._refused:
            return Failed(Cause.REFUSED)
        assert self._mechanism is not None
        if line.startswith(b"*") or (not line and not self._mechanism.takes_empty):
            return Failed(Cause.ABORTED)
        decoded = self._decode(line)
        return Failed(Cause.BAD_RESPONSE) if decoded is None else self._checked(self._mechanism.respond(decoded))

    def _decode(self, data: bytes) -> bytes | None:
        padding = data.find(b"=") if self._as_original else -1
        if padding % 4 > 1 and padding > 0:
            data = data[:padding] + b"=" * (4 - padding % 4)
        return decode_base64(data)

    def oversized(self) -> Failed:
        """In place of `respond`, for a line that was too long and is thrown away."""
        return Failed(Cause.REFUSED if self._refused else Cause.TOO_LONG)

    def supply_keys(self, keys: "ScramKeys | None") -> Challenge:
        """The application's answer to `FindKeys`."""
        assert self._mechanism is not None
        return self._mechanism.supply_keys(keys)

    def refused(self) -> Challenge | None:
        """The application refuses for good: what the client is to be told, and to answer, first; or None."""
        assert self._mechanism is not None
        challenge = self._mechanism.refused()
        self._refused = challenge is not None
        return challenge

    def _checked(self, step: Step) -> Step:
        if not isinstance(step, Request):
            return step
        step.sent_mechanism = self._sent_name
        # Whose token it is only the application knows: it compares.
        if (
            not self._options.allows_authorization_identity
            and isinstance(step, VerifyPassword | FindKeys | Authorize)
            and step.authorization_identity not in ("", step.username)
        ):
            return Failed(Cause.OTHER_IDENTITY)
        return step


def _new_mechanism(name: str, options: ServerOptions) -> ServerMechanism:
    """Any but PLAIN. Each is imported when a client first asks for it. What it needs is there: `ServerOptions` has seen
    to that."""
    if name == "LOGIN":
        from mailfront_proto.sasl.login import LoginServer

        return LoginServer()
    if name == "CRAM-MD5":
        from mailfront_proto.sasl.cram_md5 import CramMD5Server

        assert options.challenge_source is not None
        return CramMD5Server(options.challenge_source())
    if name == "EXTERNAL":
        from mailfront_proto.sasl.external import ExternalServer

        return ExternalServer(options.external_identity)
    if name == "OAUTHBEARER":
        from mailfront_proto.sasl.oauthbearer import OAuthBearerServer

        return OAuthBearerServer(options.token_scope, options.openid_configuration)
    if name == "XOAUTH2":
        from mailfront_proto.sasl.xoauth2 import XOAuth2Server

        return XOAuth2Server(options.token_scope)
    if name == "ANONYMOUS":
        from mailfront_proto.sasl.anonymous import AnonymousServer

        return AnonymousServer()
    from mailfront_proto.sasl.scram import ScramServer

    assert options.nonce_source is not None and options.salt_secret is not None
    nonce = encode_base64(options.nonce_source(NONCE_SIZE))
    offers_plus = f"{name}-PLUS" in options.mechanisms
    return ScramServer(name, nonce, options.salt_secret, options.iterations, options.channel_bindings, offers_plus)


__all__ = ["Cause", "Challenge", "Failed", "Request", "ServerExchange", "Step", "decode_base64", "encode_base64"]
