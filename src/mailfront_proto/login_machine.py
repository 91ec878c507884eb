"""What the server machines of POP3 and IMAP share: a login, behind which the connection may be another's."""

from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl.server_machine import SASLServerMachine

if TYPE_CHECKING:
    from mailfront_proto.sasl.requests import Request


class Refusal(Protocol):
    """What a reply must tell of itself."""

    @property
    def is_temporary(self) -> bool:
        """Whether another attempt may succeed."""


L = TypeVar("L", bound=Refusal)
"""The machine's replies."""


class LoginMachine(SASLServerMachine[L]):
    """A session that begins with a login. `L`: its replies."""

    __slots__ = ("_trailing_data", "username")

    _handed_over_state: ClassVar[object]
    """The state in which what comes is the next owner's."""

    username: str
    """Who has logged in."""
    _trailing_data: bytes

    @property
    def trailing_data(self) -> bytes:
        """Behind `HandOver`: what the client has sent behind its login, for the next owner of the connection."""
        return self._trailing_data

    def receive_data(self, data: bytes) -> None:
        """Store bytes from the peer. Call `next_event` next. Bytes after the end are dropped."""
        if self._state is self._handed_over_state:
            raise LocalProtocolError("receive_data(): the connection is handed over; feed the bytes to its next owner")
        super().receive_data(data)

    def _note_login(self, event: "Request") -> None:
        """The application has said yes to `event`. Nothing is said to the client: that is for who is next."""
        self._check_acceptable()
        self._pending = None
        self._exchange = None
        self.username = getattr(event, "authorization_identity", "") or event.username

    def _login_refused(self, reply: L) -> None:
        """`reply` goes out, unless the mechanism has something to tell first."""
        if self._holds(reply, permanent=not reply.is_temporary):
            return
        self._pending = None
        if self._exchange is not None:
            self._end_exchange()
        self._refuse_login(reply)
