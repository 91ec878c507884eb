"""What the servers of QMTP and QMQP share: a package, that is a message, its sender and its recipients.

Strategy: a package is read by a small state for each of its netstrings, each a method here or in the two servers
(`mailfront_proto.qmtp.server`, `mailfront_proto.qmqp.server`), found by `_readers`. A netstring that is broken ends the
connection, since nothing behind it can be understood; one that is only too long is thrown away and refused, and the
reader stays in step. Nothing is asked to be accepted (`MessageEnd`) before the last comma of the package is here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, ClassVar, Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.machine import ServerMachine
from mailfront_proto.netstring import MAX_DIGITS, OVERSIZED, Fault, NetstringError, NetstringReader, Oversized
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, Event, NeedData, Paused
from mailfront_proto.qmtp.events import (
    Body,
    ConnectionClosed,
    MessageEnd,
    MessageRefused,
    MessageStart,
    Package,
    Recipient,
    Sender,
)
from mailfront_proto.qmtp.line_ends import CR, LineEndDecoder, convert
from mailfront_proto.qmtp.profile import Profile
from mailfront_proto.qmtp.responses import encode_response
from mailfront_proto.qmtp.whole import more_recipients
from mailfront_proto.smtp.addresses import SYNTAX_ERROR, Address
from mailfront_proto.smtp.answers import TOO_BIG, TOO_MANY_RECIPIENTS
from mailfront_proto.smtp.replies import Reply

ACCEPTED: Final = Reply(250, "2.6.0 Message accepted.")
SENDER_TOO_LONG: Final = Reply(501, "5.1.7 Address too long")
RECIPIENT_TOO_LONG: Final = Reply(501, "5.1.3 Address too long")
NO_RECIPIENTS: Final = Reply(554, "5.5.1 No recipients")

_CONTROL: Final = compile_later(rb"[\x00-\x1f\x7f]")


class State(Enum):
    """Which netstring of a package comes next."""

    WRAPPER = "wrapper"
    """QMQP: the one around the package."""
    MESSAGE = "message"
    """The message's length. In QMTP this is also the state between two packages."""
    LINE_ENDS = "line-ends"
    """QMTP: the first byte of the message, which says what its lines end in."""
    BODY = "body"
    """The rest of the message, and its comma."""
    SENDER = "sender"
    """The sender."""
    RECIPIENT_LIST = "recipient-list"
    """QMTP: the netstring around the recipients, held until it is complete."""
    RECIPIENTS = "recipients"
    """The next recipient."""
    END = "end"
    """All of the package is here."""
    RESPONSES = "responses"
    """QMTP: the responses go out."""
    CLOSED = "closed"
    """Nothing more is read."""

    __hash__ = object.__hash__  # members are singletons; Enum's own hash is a call of Python code each time


AT_END: Final = {
    State.LINE_ENDS: "EOF while reading body NL",
    State.BODY: "EOF while reading body",
    State.SENDER: "EOF while reading sender address",
    State.RECIPIENT_LIST: "EOF while reading recipient list",
    State.RECIPIENTS: "EOF while reading recipient list",
    State.END: "EOF before end of recipient list",
}
"""What is said where the client closes too early. In the other states nothing of a package is here."""

AT_FAULT: Final = {
    State.WRAPPER: "Invalid wrapper netstring",
    State.MESSAGE: "Invalid message body netstring",
    State.BODY: "Invalid netstring terminator",
    State.SENDER: "Invalid sender netstring",
    State.RECIPIENT_LIST: "Invalid recipient netstring",
    State.RECIPIENTS: "Invalid recipient netstring",
    State.END: "Invalid wrapper netstring",
}
"""What is said to a broken netstring; among QMTP's recipients, which are all here by then, another text."""

Result = Event | NeedData | None
"""What a reader gives: an event; `NEED_DATA`; or None where the next reader is to go on."""


class PackageServer(ServerMachine[Event], ABC):
    """One session; see `mailfront_proto.qmtp.server.QMTPServer`, `mailfront_proto.qmqp.server.QMQPServer`."""

    __slots__ = (
        "_accepted",
        "_decoder",
        "_reader",
        "_recipients",
        "_refusal",
        "_takes_whole",
        "lf_bodies",
        "message_size",
        "profile",
        "whole_packages",
    )

    _readers: ClassVar[Mapping[State, Callable[[Any], Result]]]
    """The reader for each state."""
    _behind_sender: ClassVar[State]
    """The state behind the sender."""

    _state: State

    def __init__(self, state: State, profile: Profile, lf_bodies: bool) -> None:
        super().__init__(state)
        limits = profile.limits
        self.profile = profile
        self.lf_bodies = lf_bodies
        self.message_size = limits.message_size
        self.whole_packages = False
        # Profiles of which more would have to be asked for each package go the general way.
        self._takes_whole = limits.length_digits >= MAX_DIGITS and limits.recipients != 0
        self._reader = NetstringReader(
            self._buffer, max_digits=limits.length_digits, free_lengths=profile.free_lengths
        )
        self._decoder: LineEndDecoder  # of the message in hand
        self._refusal: Reply | None = None  # of the package as a whole
        self._recipients = 0
        self._accepted = 0  # of these

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    # -- bytes and events --------------------------------------------------------------------------------

    def next_event(self) -> Event | NeedData | Paused:
        """The next event, `NEED_DATA`, or `PAUSED` while an answer is owed or output is undrained."""
        if self._pending is not None:
            return PAUSED
        while True:
            if self._output_size > MAX_PENDING_OUTPUT:
                return PAUSED
            try:
                event = self._readers[self._state](self)
            except NetstringError as error:
                return self._give_up(self._fault_text(error.fault))
            if event is NEED_DATA:
                return self._end_of_input() if self._eof else NEED_DATA
            if event is not None:
                return event

    def _next_of_closed(self) -> Event:
        assert self._closed is not None
        return self._closed

    def _start_message(self, size: int) -> Event:
        """The message's length is known: `size`, without what is not content."""
        self._state = State.BODY
        self._recipients = self._accepted = 0
        self._decoder = LineEndDecoder(self.profile.repairs_line_ends, self.lf_bodies)
        too_big = self.message_size is not None and size > self.message_size
        self._refusal = TOO_BIG if too_big else None
        return self._tell(MessageStart(size, self._refusal))

    def _next_of_body(self) -> Result:
        reader = self._reader
        piece = reader.read_slice()
        if piece is None:
            return NEED_DATA
        if not piece:
            self._state = State.SENDER
            return self._next_of_sender()
        if self._refusal is None:
            decoded = self._decoder.feed(piece, last=reader.left == 0)
            return Body(decoded) if decoded else None
        return None

    def _next_of_sender(self) -> Result:
        raw = self._reader.read_whole(self.profile.limits.address)
        if raw is None:
            return NEED_DATA
        self._state = self._behind_sender
        if self._refusal is None:
            self._refusal = _refusal_of(raw, SENDER_TOO_LONG)
        return self._tell(Sender(_address(raw), self._refusal))

    def _recipient(self, raw: bytes | Oversized) -> Event:
        limit = self.profile.limits.recipients
        refusal = self._refusal or _refusal_of(raw, RECIPIENT_TOO_LONG)
        if refusal is None and limit is not None and self._recipients >= limit:
            refusal = TOO_MANY_RECIPIENTS
        self._recipients += 1
        if refusal is not None:
            self._recipient_refused(refusal)
        return self._tell(Recipient(_address(raw), refusal))

    @abstractmethod
    def _recipient_refused(self, refusal: Reply) -> None:
        """Note what becomes of the last recipient, or of the package."""

    def _tell(self, event: MessageStart | Sender | Recipient) -> Event:
        """Hand on `event`; it owes an answer if nothing refuses it yet."""
        if event.refusal is None:
            self._pending = event
        return event

    def _whole(
        self,
        message: bytes | bytearray,
        used: int,
        length: bytes,
        sender: bytes,
        first_length: bytes,
        first: bytes,
        more: bytes,
    ) -> Package | None:
        """The package of this `message`, which takes `used` bytes; `length`, that of the sender, and all behind it are
        as `mailfront_proto.qmtp.whole` has found them. None for one that is to be read in parts."""
        profile, most, size = self.profile, self.message_size, len(message)
        limits = profile.limits
        longest = limits.address
        if (
            not len(sender) == int(length) <= longest
            or not len(first) == int(first_length) <= longest
            or (most is not None and size > most)
        ):
            return None
        recipients = [first]
        if more:
            others = more_recipients(more, limits)
            if others is None:
                return None
            recipients += others
        self._buffer.skip(used)
        self._state = State.END
        data = bytes(message)
        if not self.lf_bodies or CR in data:
            data = convert(data, profile.repairs_line_ends, self.lf_bodies)
        self._pending = package = Package(size, data, sender, recipients)
        return package

    # -- answers -----------------------------------------------------------------------------------------

    def accept(self, text: str | None = None) -> None:
        """Answer the last event with yes; at `MessageEnd` and `Package` with ``K`` and `text`, or the usual one."""
        event = self._pending
        if event is None or isinstance(event, MessageEnd | Package):
            self.reply(250, ACCEPTED.text if text is None else text)
            return
        self._pending = None
        if isinstance(event, Recipient):
            self._accepted += 1

    def reply(self, code: int, text: str = "") -> None:
        r"""Answer the last event with an SMTP reply code and a text (lines separated by ``\n``).

        200 to 399 accept, and send nothing but at `MessageEnd` and `Package`, where all is answered. Codes from 400 to
        499 and below 200 become ``Z``, those from 500 ``D``. Control bytes in the text become ``?``. Raises
        `LocalProtocolError` when no answer is owed.
        """
        event = self._pending
        if event is None:
            raise LocalProtocolError("no answer is owed: call next_event() and answer the event it returns")
        if not 100 <= code <= 599:
            raise LocalProtocolError(f"{code} is no reply code: 200 to 399 accept, 400 to 599 refuse")
        self._pending = None
        if type(event) is Package:
            self._respond_to_whole(event, code, text)
            return
        accepted = 200 <= code < 400
        if isinstance(event, MessageEnd):
            self._respond(Reply(code, text))
        elif isinstance(event, Recipient):
            if accepted:
                self._accepted += 1
            else:
                self._recipient_refused(Reply(code, text))
        elif not accepted:
            self._refusal = Reply(code, text)

    @abstractmethod
    def _respond(self, reply: Reply) -> None:
        """The package is answered, as far as it was not refused."""

    @abstractmethod
    def _respond_to_whole(self, package: Package, code: int, text: str) -> None:
        """A package that came as a whole is answered alike for all its recipients."""

    def _end_of_package(self) -> Event:
        """All of it is here: ask, or tell that nothing was accepted."""
        refusal = self._refusal
        if refusal is None and not self._accepted and self.profile.recipients_needed:
            refusal = self._first_refusal()
        if refusal is not None:
            self._respond(refusal)
            return MessageRefused(refusal)
        self._pending = MessageEnd(self._accepted)
        return self._pending

    def _first_refusal(self) -> Reply:
        """Why there is no recipient."""
        return NO_RECIPIENTS

    # -- the end -----------------------------------------------------------------------------------------

    def abort(self, reply: Reply | None = None) -> None:
        """End the session from our side (a deadline, a shutdown, no service), with `reply` as the last response.

        An answer that was owed is owed no more. Drain ``data_to_send()``, then close.
        """
        if self._state is State.CLOSED:
            return
        self._pending = None
        if reply is not None:
            self._put(encode_response(reply))
        self._end("aborted", reply)

    def _give_up(self, text: str) -> Event:
        """Say what is wrong, and close: the client may try again."""
        reply = Reply(451, text)
        self._put(encode_response(reply))
        return self._end(text, reply)

    def _end_of_input(self) -> Event:
        state = self._state
        if state is State.BODY and self._reader.left == 0:
            return self._give_up("EOF while reading comma")
        if state is State.RECIPIENTS and self._reader.left is None and not self._buffer.has_unread:
            return self._give_up(AT_END[State.END])
        if state in AT_END:
            return self._give_up(AT_END[state])
        return self._end("EOF")

    def _end(self, reason: str, reply: Reply | None = None) -> Event:
        closed = ConnectionClosed(reason, self._state in AT_END, reply)
        self._state = State.CLOSED
        self._close(closed)
        return closed

    def _fault_text(self, fault: Fault) -> str:
        return AT_FAULT[self._state]


def _refusal_of(raw: bytes | Oversized, too_long: Reply) -> Reply | None:
    """What the machine itself has against an address: no control byte may reach an envelope, a log or a header."""
    if raw is OVERSIZED:
        return too_long
    return SYNTAX_ERROR if _CONTROL.search(raw) else None


def _address(raw: bytes | Oversized) -> Address:
    return Address(b"" if raw is OVERSIZED else raw)
