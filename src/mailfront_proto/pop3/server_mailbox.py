"""The server's mailbox: what is in it, the commands about it (RFC 1939 sections 5 and 7), and a message on its way."""

from collections.abc import Iterable, Sequence
from typing import Final

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.pop3 import answers
from mailfront_proto.pop3.events import Answered, OpenMailbox, Retrieve
from mailfront_proto.pop3.maildrop import LINES_AT_ONCE, Maildrop
from mailfront_proto.pop3.message_encoder import MessageEncoder
from mailfront_proto.pop3.replies import MAX_REPLY_LINE, Reply
from mailfront_proto.pop3.server_auth import ServerAuth
from mailfront_proto.pop3.states import Mode, State
from mailfront_proto.pull import MAX_PENDING_OUTPUT, PAUSED, Event, Paused

_NUMBER: Final = compile_later(rb"[0-9]+\Z")
_TWO_NUMBERS: Final = compile_later(rb"[0-9]+ +[0-9]+\Z")
_DIGITS: Final = compile_later(rb"[0-9]*")

_TRANSACTION: Final = State.TRANSACTION


class ServerMailbox(ServerAuth):
    """A session that has a mailbox, once it is open."""

    __slots__ = ()

    # -- the application's part ------------------------------------------------------------------------------

    def open_mailbox(
        self, sizes: Iterable[int], uids: Sequence[bytes], *, read: Iterable[int] = (), text: str = ""
    ) -> None:
        """Answer `OpenMailbox`: what is in the mailbox, in the order of the message numbers.

        `sizes`: the octets of each message as it will be sent, dots not stuffed (RFC 1939 section 11). `uids`: the
        unique-id of each (section 7), as bytes. The machine keeps the sequence, asks it when UIDL is said, and sends
        the SHA-256 digest in place of one that is not 1 to 70 octets 0x21 to 0x7E. `read`: the numbers of messages
        that are read already (for LAST). `text`: what stands behind the ``+OK``, in place of the greeting in
        `Mode.MAILBOX`.

        At 100,000 messages the machine holds some 11 bytes a message, beside `uids`. Commands follow.
        """
        event = self._pending
        if not isinstance(event, OpenMailbox):
            raise LocalProtocolError("open_mailbox() answers OpenMailbox, and that was not the last event")
        self._maildrop = Maildrop(sizes, uids, read)
        self._pending = None
        if not self._opened:
            self._opened = True
            self._budgets.progress()
            text = text or (self.greeting if self.mode is Mode.MAILBOX else "")
        self._state = _TRANSACTION
        self._say(Reply("+OK", text))

    def send_message_data(self, data: bytes) -> bool:
        """The next piece of the message that `Retrieve` asked for, cut anywhere; lines end in CRLF or LF, dots as they
        are. False: the client has all the lines that it wants, and what follows would be dropped.

        Drain ``data_to_send()`` between calls: while more than 256 KiB wait this raises `LocalProtocolError`. Call
        `end_of_message` at last, in either case.
        """
        encoder = self._encoder
        if encoder is None:
            raise LocalProtocolError("send_message_data() follows the accept() of a Retrieve")
        if self._output_size > MAX_PENDING_OUTPUT + MAX_REPLY_LINE:  # the +OK may have come on top of what was allowed
            raise LocalProtocolError(
                f"{self._output_size} bytes wait to be sent: drain data_to_send() between pieces of a message"
            )
        encoded = encoder.feed(data)
        if encoded:
            self._put(encoded)
        return not encoder.is_complete

    def end_of_message(self) -> None:
        """The message is complete: send a line end if the last line has none, and the final dot. Commands follow.

        If the message cannot be read to its end, call `abort` instead: nothing else tells a client that it is cut.
        """
        encoder = self._encoder
        if encoder is None:
            raise LocalProtocolError("end_of_message() follows the accept() of a Retrieve")
        self._put(encoder.finish())
        self._encoder = None
        if self._reading:
            self._maildrop.mark_read(self._reading)
        self._state = _TRANSACTION

    def _begin_message(self, event: Event) -> None:
        assert isinstance(event, Retrieve)
        profile = self.profile
        self._budgets.progress()
        self._encoder = MessageEncoder(event.lines, profile.crlf_files, profile.ends_with_empty_line)
        self._reading = event.number if event.lines is None else 0
        self._state = State.MESSAGE

    # -- what goes on without a command ----------------------------------------------------------------------

    def _next_of_opening(self) -> Event:
        return self._owe(OpenMailbox(self.username, again=self._opened), _TRANSACTION)

    def _next_of_message(self) -> Paused:
        return PAUSED

    def _next_of_listing(self) -> None:
        """Write some lines, and come again."""
        self._put(self._maildrop.lines(self._listing_uids, self._at))
        self._at += LINES_AT_ONCE
        if self._at >= len(self._maildrop):
            self._put(b".\r\n")
            self._state = _TRANSACTION

    # -- commands --------------------------------------------------------------------------------------------

    def _stat(self, argument: bytes, next_state: State) -> Event:
        drop = self._maildrop
        return Answered(self.last_line, self._say(Reply("+OK", f"{drop.count} {drop.octets}")))

    def _list(self, argument: bytes, next_state: State) -> Event:
        return self._listing(argument, False)

    def _uidl(self, argument: bytes, next_state: State) -> Event:
        return self._listing(argument, True)

    def _listing(self, argument: bytes, of_uids: bool) -> Event:
        drop = self._maildrop
        if argument:
            number = to_number(argument) if _NUMBER.match(argument) else None
            refusal = answers.SYNTAX_ERROR if number is None else self._missing(number)
            if refusal is not None or number is None:
                return self._refuse(refusal or answers.SYNTAX_ERROR)
            line = drop.unique_id(number) if of_uids else drop.scan_listing(number)
            return Answered(self.last_line, self._say(Reply("+OK", line.decode("ascii"))))
        if self._budgets.idle():
            return self._refuse_last(answers.TOO_MANY_IDLE_COMMANDS)
        self._listing_uids = of_uids
        self._at = 0
        self._state = State.LISTING
        return self._done()

    def _missing(self, number: int) -> Reply | None:
        """Why the message cannot be had, if it cannot."""
        if not 1 <= number <= len(self._maildrop):
            return answers.OUT_OF_RANGE
        return answers.DELETED if self._maildrop.is_deleted(number) else None

    def _retr(self, argument: bytes, next_state: State) -> Event:
        if not self.profile.retr_takes_lines and not _NUMBER.match(argument):
            return self._refuse(answers.SYNTAX_ERROR)
        return self._retrieve(argument, next_state)

    def _top(self, argument: bytes, next_state: State) -> Event:
        if not self.profile.retr_takes_lines and not _TWO_NUMBERS.match(argument):
            return self._refuse(answers.SYNTAX_ERROR)
        return self._retrieve(argument, next_state)

    def _retrieve(self, argument: bytes, next_state: State) -> Event:
        """A number, and a number of lines or none; in the original RETR and TOP are one command."""
        found = _DIGITS.match(argument)
        digits = found.group() if found else b""
        rest = argument[len(digits) :]
        if not digits and rest.startswith(b"-"):
            return self._refuse(answers.SYNTAX_ERROR)
        number = to_number(digits)
        refusal = self._missing(number)
        if refusal is not None:
            return self._refuse(refusal)
        wanted = rest.lstrip(b" ")
        if (rest and rest[:1] != b" ") or (wanted and not _NUMBER.match(wanted)):
            return self._refuse(answers.SYNTAX_ERROR)
        return self._owe(Retrieve(number, to_number(wanted) if wanted else None, self.in_utf8), next_state)

    def _dele(self, argument: bytes, next_state: State) -> Event:
        if not _NUMBER.match(argument):
            return self._refuse(answers.SYNTAX_ERROR)
        number = to_number(argument)
        refusal = self._missing(number)
        if refusal is not None:
            return self._refuse(refusal)
        self._maildrop.delete(number)
        self._budgets.progress()
        return self._done()

    def _rset(self, argument: bytes, next_state: State) -> Event | None:
        if next_state is State.OPENING:
            self._state = next_state
            return None
        self._maildrop.reset()
        return self._done()

    def _last(self, argument: bytes, next_state: State) -> Event:
        return Answered(self.last_line, self._say(Reply("+OK", str(self._maildrop.last))))

    def _noop(self, argument: bytes, next_state: State) -> Event:
        return self._done()


def to_number(digits: bytes) -> int:
    """A number in decimal digits, however many; no message has one of 19 and more, and no TOP needs it exactly."""
    digits = digits.lstrip(b"0")
    return int(digits[:19] or b"0")
