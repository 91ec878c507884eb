"""The server role of QMQP (D. J. Bernstein's Quick Mail Queueing Protocol, port 628), as a pull machine.

A client sends one package, all of it in one netstring; it gets one response, and the connection ends. Recipients are
asked about as they come. What does not differ from QMTP is in `mailfront_proto.qmtp.package`; the events are QMTP's,
and the machine is used in the same way.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from mailfront_proto.netstring import Fault, NetstringError
from mailfront_proto.pull import NEED_DATA
from mailfront_proto.qmtp.events import Package
from mailfront_proto.qmtp.package import PackageServer, Result, State
from mailfront_proto.qmtp.profile import DEFAULT, Profile
from mailfront_proto.qmtp.responses import encode_response
from mailfront_proto.qmtp.whole import QMQP_ENVELOPE, QMQP_HEAD
from mailfront_proto.smtp.replies import Reply


class QMQPServer(PackageServer):
    """One session: one package. Arguments and settings as in `mailfront_proto.qmtp.server.QMTPServer`."""

    __slots__ = ()

    _behind_sender: ClassVar[State] = State.RECIPIENTS

    def __init__(self, profile: Profile = DEFAULT, *, lf_bodies: bool = False) -> None:
        super().__init__(State.WRAPPER, profile, lf_bodies)

    def _next_of_wrapper(self) -> Result:
        if not self._buffer.has_unread:
            return NEED_DATA
        if self.whole_packages and self._takes_whole and (package := self._whole_package()) is not None:
            return package
        reader = self._reader
        length = reader.read_length()
        if length is None:
            return NEED_DATA
        reader.left = None  # what it holds are netstrings
        if self.profile.wrapper_enforced:
            reader.room = length
        self._state = State.MESSAGE
        return None

    def _whole_package(self) -> Package | None:
        """The package, if all of it is here and nothing about it is odd; else None, and nothing is read."""
        data, start = self._buffer.view()
        head = QMQP_HEAD.match(data, start)
        if head is None:
            return None
        at = head.end()
        message_end = at + int(head[2])
        envelope = QMQP_ENVELOPE.match(data, message_end)
        if envelope is None:
            return None
        end = envelope.end()
        if end - head.end(1) - 2 != int(head[1]):  # what stands between the first colon and the last comma
            return None
        return self._whole(data[at:message_end], end - start, *envelope.groups())

    def _next_of_message(self) -> Result:
        length = self._reader.read_length()
        if length is None:
            return NEED_DATA
        return self._start_message(length) if length else self._give_up("Zero length message")

    def _next_of_recipients(self) -> Result:
        reader = self._reader
        if reader.left is None and self._at_wrapper_end():
            self._state = State.END
            return None
        raw = reader.read_whole(self.profile.limits.address)
        if raw is None:
            return NEED_DATA
        return self._recipient(raw)

    def _at_wrapper_end(self) -> bool:
        if self.profile.wrapper_enforced:
            return self._reader.room == 0
        return self._buffer.peek(1) == b","

    def _next_of_end(self) -> Result:
        comma = self._buffer.read_exactly(1)
        if comma is None:
            return NEED_DATA
        if comma != b",":
            raise NetstringError(Fault.COMMA)
        return self._end_of_package()

    def _recipient_refused(self, refusal: Reply) -> None:
        self._refusal = refusal

    def _respond(self, reply: Reply) -> None:
        self._put(encode_response(reply))
        self._state = State.RESPONSES

    def _respond_to_whole(self, package: Package, code: int, text: str) -> None:
        self._respond(Reply(code, text))

    def _next_of_responses(self) -> Result:
        return self._end("done")

    _readers: ClassVar[Mapping[State, Callable[[Any], Result]]] = {
        State.WRAPPER: _next_of_wrapper,
        State.MESSAGE: _next_of_message,
        State.BODY: PackageServer._next_of_body,
        State.SENDER: PackageServer._next_of_sender,
        State.RECIPIENTS: _next_of_recipients,
        State.END: _next_of_end,
        State.RESPONSES: _next_of_responses,
        State.CLOSED: PackageServer._next_of_closed,
    }
