"""The server role of QMTP (D. J. Bernstein's Quick Mail Transfer Protocol, port 209), as a pull machine.

A client sends packages, as many as it likes, without waiting; each recipient gets a response. Strategy: the recipients
are held as they came until their netstring is complete, then asked about one by one; the responses wait for the
answer to the message. What does not differ from QMQP is in `mailfront_proto.qmtp.package`::

    machine = QMTPServer()
    while not isinstance(event := machine.next_event(), ConnectionClosed):
        if event is NEED_DATA or event is PAUSED:
            sock.sendall(machine.data_to_send())
            if event is NEED_DATA:
                machine.receive_data(sock.recv(65536))  # or receive_eof() for b""
        elif isinstance(event, Body):
            message += event.data
        elif machine.answer_owed:
            machine.accept()
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from mailfront_proto.buffer import ReceiveBuffer
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.netstring import Fault, NetstringReader
from mailfront_proto.pull import NEED_DATA
from mailfront_proto.qmtp.events import MessageEnd, Package
from mailfront_proto.qmtp.package import NO_RECIPIENTS, PackageServer, Result, State
from mailfront_proto.qmtp.profile import DEFAULT, Profile
from mailfront_proto.qmtp.responses import encode_response, encode_text
from mailfront_proto.qmtp.whole import QMTP_ENVELOPE, QMTP_HEAD
from mailfront_proto.smtp.replies import Reply

_RESPONSES_AT_ONCE: Final = 100
"""Responses between two looks at how much output is pending."""

_AT_FAULT: Final = {
    Fault.LENGTH: "Invalid netstring length",
    Fault.ROOM: "Netstring length too long",
    Fault.COMMA: "Netstring missing comma",
}
"""What is said to a broken netstring among the recipients."""


class QMTPServer(PackageServer):
    """One session: any number of packages.

    `profile`: `DEFAULT`, `COMPAT` or one of your own. `lf_bodies`: give the lines of messages with LF at their ends,
    as files have them, in place of CRLF. `message_size`: the largest message taken, in bytes as they are sent; None:
    no limit; set it when it changes. `whole_packages`: set it to get `Package` events where the profile has a response
    for each recipient and takes CRLF messages.
    """

    __slots__ = ("_list", "_list_reader", "_verdicts")

    _behind_sender: ClassVar[State] = State.RECIPIENT_LIST

    def __init__(self, profile: Profile = DEFAULT, *, lf_bodies: bool = False) -> None:
        super().__init__(State.MESSAGE, profile, lf_bodies)
        self._verdicts: deque[Reply | None] = deque()  # one a recipient; None: as the message
        self._takes_whole = self._takes_whole and profile.response_per_recipient and profile.crlf_messages
        limits = profile.limits
        self._list = ReceiveBuffer(limits.recipient_list)
        self._list_reader = NetstringReader(
            self._list, max_digits=limits.length_digits, free_lengths=profile.free_lengths
        )

    def reply_each(self, replies: Sequence[Reply]) -> None:
        """Answer `MessageEnd` with one reply for each accepted recipient, in order; `Package` with one for each of its
        recipients."""
        event = self._pending
        wanted = -1
        if isinstance(event, MessageEnd) and self.profile.response_per_recipient:
            wanted = event.recipients
        elif isinstance(event, Package):
            wanted = len(event.recipients)
            self._verdicts = deque([None] * wanted)
        if len(replies) != wanted:
            raise LocalProtocolError(
                "reply_each() answers MessageEnd with one reply for each of its accepted recipients, Package with one "
                "for each of all; reply(code, text) answers everything else"
            )
        self._pending = None
        each = iter(replies)
        self._verdicts = deque(next(each) if verdict is None else verdict for verdict in self._verdicts)
        self._state = State.RESPONSES

    # -- reading -----------------------------------------------------------------------------------------

    def _next_of_message(self) -> Result:
        if not self._buffer.has_unread:
            return NEED_DATA
        if self.whole_packages and self._takes_whole and (package := self._whole_package()) is not None:
            return package
        length = self._reader.read_length()
        if length is None:
            return NEED_DATA
        if not length:
            return self._give_up("Zero length message")
        self._state = State.LINE_ENDS
        return self._next_of_line_ends()

    def _whole_package(self) -> Package | None:
        """The next package, if all of it is here and nothing about it is odd; else None, and nothing is read."""
        data, start = self._buffer.view()
        head = QMTP_HEAD.match(data, start)
        if head is None:
            return None
        at = head.end()
        end = at + int(head[1]) - 1
        envelope = QMTP_ENVELOPE.match(data, end)
        if envelope is None:
            return None
        length, sender, list_length, recipients, first_length, first, more = envelope.groups()
        if not len(recipients) == int(list_length) <= self.profile.limits.recipient_list:
            return None
        return self._whole(data[at:end], envelope.end() - start, length, sender, first_length, first, more)

    def _next_of_line_ends(self) -> Result:
        first = self._reader.read_slice(1)
        if first is None:
            return NEED_DATA
        # LF and CRLF messages are read alike: what the first byte says is repaired where it is wrong.
        if first != b"\n" and (first != b"\r" or not self.profile.crlf_messages):
            return self._give_up("Cannot handle non-LF line terminator")
        assert self._reader.left is not None
        return self._start_message(self._reader.left)

    def _next_of_recipient_list(self) -> Result:
        reader = self._reader
        if reader.left is None:
            limit = self.profile.limits.recipient_list
            short = reader.read_short(limit)
            if short is not None:
                self._list.feed(short)
                self._list_reader.room = len(short)
                self._state = State.RECIPIENTS
                return self._next_of_recipients()
            length = reader.read_length()
            if length is None:
                return NEED_DATA
            if length > limit:
                return self._give_up("Recipient list too long")
            self._list_reader.room = length
        while piece := reader.read_slice():
            self._list.feed(piece)
        if piece is None:
            return NEED_DATA
        self._state = State.RECIPIENTS
        return self._next_of_recipients()

    def _next_of_recipients(self) -> Result:
        one_response = not self.profile.response_per_recipient
        if self._list_reader.room == 0 or (one_response and self._refusal is not None):
            self._state = State.END
            self._list.clear()  # of a package that is refused something may be left
            return self._end_of_package()
        raw = self._list_reader.read_whole(self.profile.limits.address)
        assert raw is not None  # the list is complete
        if not one_response:
            self._verdicts.append(None)
        return self._recipient(raw)

    def _fault_text(self, fault: Fault) -> str:
        return _AT_FAULT[fault] if self._state is State.RECIPIENTS else super()._fault_text(fault)

    # -- responses ---------------------------------------------------------------------------------------

    def _recipient_refused(self, refusal: Reply) -> None:
        if self.profile.response_per_recipient:
            self._verdicts[-1] = refusal
        else:
            self._refusal = refusal

    def _first_refusal(self) -> Reply:
        return next((verdict for verdict in self._verdicts if verdict is not None), NO_RECIPIENTS)

    def _respond(self, reply: Reply) -> None:
        if self.profile.response_per_recipient:
            self._verdicts = deque([reply if verdict is None else verdict for verdict in self._verdicts])
        else:
            self._verdicts = deque([reply])
        self._state = State.RESPONSES

    def _respond_to_whole(self, package: Package, code: int, text: str) -> None:
        if len(package.recipients) == 1:  # no detour for the usual one
            self._put(encode_text(code, text))
            self._state = State.MESSAGE
        else:
            self._verdicts = deque([Reply(code, text)] * len(package.recipients))
            self._state = State.RESPONSES

    def _next_of_responses(self) -> Result:
        for _ in range(_RESPONSES_AT_ONCE):
            if not self._verdicts:
                self._state = State.MESSAGE
                break
            verdict = self._verdicts.popleft()
            assert verdict is not None
            self._put(encode_response(verdict))
        return None

    _readers: ClassVar[Mapping[State, Callable[[Any], Result]]] = {
        State.MESSAGE: _next_of_message,
        State.LINE_ENDS: _next_of_line_ends,
        State.BODY: PackageServer._next_of_body,
        State.SENDER: PackageServer._next_of_sender,
        State.RECIPIENT_LIST: _next_of_recipient_list,
        State.RECIPIENTS: _next_of_recipients,
        State.END: PackageServer._end_of_package,
        State.RESPONSES: _next_of_responses,
        State.CLOSED: PackageServer._next_of_closed,
    }
