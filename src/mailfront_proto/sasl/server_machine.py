"""How SMTP (RFC 4954), POP3 (RFC 5034) and IMAP (RFC 9051, RFC 4959) carry an exchange, in the server role.

What the three have in common is here and in `mailfront_proto.sasl.exchange`; a machine adds which command begins an
exchange, how a challenge is marked, and how it says no. To its application it has

* ``sasl``, a `ServerOptions` that the application sets: ``machine.sasl = ServerOptions(["PLAIN", "LOGIN"])``. At
  first it is `NOTHING_OFFERED`; AUTH is not offered while ``sasl.mechanisms`` is empty;
* ``accept()``, ``reply()`` and ``supply_keys(keys)``, with which the application answers the events of
  `mailfront_proto.sasl.requests`.

No call raises because of what the client sent.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from mailfront_proto.buffer import OVERSIZED
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.machine import ServerMachine
from mailfront_proto.pull import NEED_DATA, Event, NeedData
from mailfront_proto.sasl.options import NOTHING_OFFERED, ServerOptions
from mailfront_proto.sasl.requests import FindKeys

if TYPE_CHECKING:
    from mailfront_proto.sasl.exchange import ServerExchange
    from mailfront_proto.sasl.mechanism import Cause, Step
    from mailfront_proto.sasl.scram_keys import ScramKeys

R = TypeVar("R")
"""The machine's replies."""


class SASLServerMachine(ServerMachine[Event], ABC, Generic[R]):
    """A session that can carry an exchange. `R`: its replies.

    What is of SASL is imported when the first client asks for it. `auth_line`: octets in a response with its line end;
    `free_authorization_identity`: any bytes pass for one in PLAIN, and none is handed on (compat). `auth_as_original`:
    the end of the stream is a response that fails, and initial responses are decoded first (compat).
    """

    __slots__ = (
        "_as_original",
        "_auth_line",
        "_exchange",
        "_free_authorization_identity",
        "_held_refusal",
        "_state_before_auth",
        "_state_behind_auth",
        "sasl",
    )

    _auth_state: ClassVar[object]
    """The state in which the client's next line is a response."""
    _challenge_mark: ClassVar[bytes] = b"+ "
    """What stands in front of a challenge."""

    def __init__(
        self, state: object, *, auth_line: int, free_authorization_identity: bool, auth_as_original: bool
    ) -> None:
        super().__init__(state)
        self._auth_line = auth_line
        self._as_original = auth_as_original
        self._free_authorization_identity = free_authorization_identity
        self.sasl: ServerOptions = NOTHING_OFFERED
        self._exchange: ServerExchange | None = None
        self._held_refusal: R | None = None
        self._state_before_auth: Any = state
        self._state_behind_auth: Any = state

    # -- the exchange ------------------------------------------------------------------------------------

    def _begin_exchange(self, name: bytes, initial_response: bytes | None, next_state: object) -> Event | None:
        """The command that begins one: mechanism and initial response as they came, without blanks around them.
        `next_state`: once the client is authenticated."""
        from mailfront_proto.sasl.exchange import ServerExchange

        self._state_before_auth, self._state_behind_auth = self._state, next_state
        exchange = self._exchange = ServerExchange(
            self.sasl,
            ignores_authorization_identity=self._free_authorization_identity,
            as_original=self._as_original,
        )
        return self._take_step(exchange.start(name, initial_response))

    def _next_auth_response(self) -> Event | NeedData | None:
        line = self._buffer.read_line(self._auth_line) if self._buffer.has_unread else None
        if line is None and self._eof and self._as_original:
            return self._take_step(self._cut_off())
        if line is None:
            return self._end_of_input() if self._eof else NEED_DATA
        exchange = self._exchange
        assert exchange is not None
        if line == OVERSIZED:
            return self._take_step(exchange.oversized())
        return self._take_step(exchange.respond(line[:-2] if line.endswith(b"\r\n") else line[:-1]))

    @staticmethod
    def _cut_off() -> "Step":
        from mailfront_proto.sasl.mechanism import Cause, Failed

        return Failed(Cause.END_OF_FILE)

    def _take_step(self, step: "Step") -> Event | None:
        from mailfront_proto.sasl.base64_line import encode_base64
        from mailfront_proto.sasl.mechanism import Challenge, Failed

        if isinstance(step, Challenge):
            self._state = self._auth_state
            self._put(self._challenge_mark + encode_base64(step.data) + b"\r\n")
            return None
        self._state = self._state_before_auth
        if not isinstance(step, Failed):
            return self._owe(step, self._state_behind_auth)
        exchange, held = self._exchange, self._held_refusal
        assert exchange is not None
        self._end_exchange()
        return self._exchange_failed(exchange.mechanism, step.cause) if held is None else self._refuse_login(held)

    def _end_exchange(self) -> None:
        self._exchange = self._held_refusal = None
        self._expect_secrets()

    # -- the application's answers -----------------------------------------------------------------------

    def supply_keys(self, keys: "ScramKeys | None") -> None:
        """Answer `FindKeys`: the keys that are stored for the user, or None. Call `next_event` next.

        Raises `LocalProtocolError` for another event, and for keys of another hash than the mechanism's.
        """
        exchange = self._exchange
        if exchange is None or type(self._pending) is not FindKeys:
            raise LocalProtocolError("supply_keys() answers FindKeys, and nothing else")
        challenge = exchange.supply_keys(keys)
        self._pending = None
        self._take_step(challenge)

    def _check_acceptable(self) -> None:
        """Before a request is accepted: `FindKeys` cannot be. What a mechanism must tell the client at the end, such as
        SCRAM's server signature, has been told by then: none of the three protocols has additional data with
        success."""
        if type(self._pending) is FindKeys:
            raise LocalProtocolError("FindKeys is answered with supply_keys(keys), or refused with reply()")

    def _holds(self, refusal: R, *, permanent: bool) -> bool:
        """Whether the answer `refusal` to a request waits: the client is to hear out why first."""
        exchange = self._exchange
        challenge = exchange.refused() if exchange is not None and permanent else None
        if challenge is None:
            return False
        self._pending = None
        self._held_refusal = refusal
        self._take_step(challenge)
        return True

    # -- what the protocol adds --------------------------------------------------------------------------

    @abstractmethod
    def _owe(self, event: Event, next_state: Any) -> Event | None:
        """`event` owes an answer; once it is accepted, `next_state`."""

    @abstractmethod
    def _exchange_failed(self, mechanism: str, cause: "Cause") -> Event | None:
        """Say that the exchange has failed by itself, and tell the application: `mechanism` and ``cause.words`` are
        what a log may show. It counts as a failed attempt if ``cause.is_attempt``."""

    @abstractmethod
    def _refuse_login(self, reply: R) -> Event | None:
        """Say what the application has answered; a failed attempt."""

    @abstractmethod
    def _expect_secrets(self) -> None:
        """What comes next may be the responses of a client that did not wait."""

    @abstractmethod
    def _end_of_input(self) -> Event: ...
