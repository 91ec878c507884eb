"""The message itself: DATA (RFC 5321 section 4.1.1.4) and BDAT (RFC 3030 section 2), to its end or to its refusal.

Strategy: both make the same events, `Data`, `Body` and `MessageEnd`, so whoever takes one takes the other. A chunk is
counted off before anything is made of it. One that is refused, for its order, its size or by the application, is
counted off all the same and thrown away; only then comes the answer. So octets of a message are never commands.
"""

import re
from collections.abc import Callable
from typing import Final

from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.pull import NEED_DATA, NeedData
from mailfront_proto.smtp import answers
from mailfront_proto.smtp.body import END_OF_DATA, ChunkDecoder, DotDecoder, LineDecoder, decode_whole
from mailfront_proto.smtp.events import Body, Data, Event, MessageEnd, MessageRefused
from mailfront_proto.smtp.profile import LineEnds
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.server_auth import ServerAuth
from mailfront_proto.smtp.server_session import as_text
from mailfront_proto.smtp.states import Row, State

# chunk-size [ SP "LAST" ], RFC 3030 section 2; digits that fit 63 bits
_CHUNK: Final = compile_later(rb"([0-9]{1,18})(?:[ \t]+(.*))?\Z", re.DOTALL)

_MESSAGE_END: Final = MessageEnd()
_ENDED: Final = State.ENDED  # bound once: an attribute of an Enum costs a descriptor call each time


class ServerMessage(ServerAuth):
    """A session that takes messages."""

    __slots__ = ()

    # -- DATA --------------------------------------------------------------------------------------------

    def _data(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if argument and self.profile.parameters_checked:
            return self._refuse(verb, as_text(argument), answers.PARAMETER_NOT_ALLOWED)
        if self._transaction.binary:
            return self._refuse(verb, "", answers.BINARY_NEEDS_BDAT)
        return self._owe(Data(), next_state)

    def _next_of_body(self) -> Event | None:
        transaction = self._transaction
        buffer = self._buffer
        decoder = transaction.decoder
        data = None
        if decoder is None:
            # All of the message in one piece. (`size` is a little more than what counts against the limit: a message
            # just below it goes the general way.)
            whole = decode_whole(*buffer.view(), self.lf_bodies)
            if whole is not None:
                message, size = whole
                if self.message_size is None or size <= self.message_size:
                    buffer.skip(size)
                    self._state = _ENDED
                    return Body(message)
            decoder = transaction.decoder = DotDecoder(self.profile.line_ends, self.lf_bodies)
            data = buffer.read_through(END_OF_DATA)  # what is behind it is not for the decoder
        assert type(decoder) is DotDecoder
        before = decoder.size
        decoded, rest = decoder.feed(data or buffer.read_all())
        if rest is not None:
            buffer.push_back(rest)
            self._state = _ENDED
        return self._slice(decoder, decoded, before)

    # -- BDAT --------------------------------------------------------------------------------------------

    def _bdat(self, verb: str, argument: bytes, row: Row) -> Event | None:
        match = _CHUNK.match(argument)
        if match is None:
            # How much follows is not known, so what follows cannot be told from commands.
            event = self._refuse(verb, as_text(argument), answers.BAD_CHUNK)
            if self._state is not State.CLOSED:
                self._close_with(event.reply)
            return event
        size, last = int(match[1]), (match[2] or b"").rstrip(b" \t").upper()
        refusal: Reply | None = None
        if last not in (b"", b"LAST"):
            refusal = answers.BAD_CHUNK
        elif not size and not last:
            refusal = self._budgets.idle()  # it brings the message no nearer
        if refusal is None and isinstance(row, Reply):
            refusal = row
        if refusal is not None:
            reply, text = refusal, as_text(argument)
            return self._drain(size, self._state, lambda: self._refuse(verb, text, reply))
        assert isinstance(row, State)
        transaction = self._transaction
        transaction.chunk_left, transaction.last_chunk = size, bool(last)
        if self._state is State.CHUNKS:
            self._budgets.errors_in_row = 0
            self._state = row
            return None
        return self._owe(Data(chunked=True), row)

    def _begin_chunks(self) -> None:
        """The application takes the message."""
        transaction = self._transaction
        transaction.decoder = ChunkDecoder(self.profile.line_ends, self.lf_bodies, transaction.binary)

    def _refuse_chunks(self, wire: bytes) -> None:
        """The application does not take the message that a chunk begins: `wire` is its answer, and due when the
        chunk is over (RFC 3030 section 2). No envelope survives this, lest the next chunk be a message of its own."""
        transaction = self._transaction
        if self.lmtp and transaction.last_chunk:  # which RFC 2033 answers for each recipient
            wire *= transaction.recipients
        self._drop_transaction()
        self._drain(transaction.chunk_left, State.READY, lambda: self._put(wire))

    def _next_of_chunk(self) -> Event | NeedData | None:
        transaction = self._transaction
        decoder = transaction.decoder
        assert type(decoder) is ChunkDecoder
        if transaction.chunk_left:
            data = self._buffer.read_some(transaction.chunk_left)
            if not data:
                return self._end_of_input() if self._eof else NEED_DATA
            transaction.chunk_left -= len(data)
            before = decoder.size
            return self._slice(decoder, decoder.feed(data), before)
        if transaction.last_chunk:
            self._state = _ENDED
            before = decoder.size
            return self._slice(decoder, decoder.finish(), before)
        if transaction.refusal is not None:
            # The chunk is over, and the client is told now; the chunks that it has sent in the meantime are refused
            # for want of a transaction.
            said = self._say(transaction.refusal)
            return self._message_refused(transaction.refusal, said, State.READY)
        self._state = State.CHUNKS
        self._say(answers.CHUNK_RECEIVED)
        return None

    # -- a chunk that is refused -------------------------------------------------------------------------

    def _drain(self, size: int, state: State, done: Callable[[], Event | None]) -> Event | None:
        """Throw `size` octets away, then be in `state` and do what is to be done."""
        if not size:
            self._state = state
            return done()
        self._state = State.DRAIN
        self._drain_left, self._drain_state, self._after_drain = size, state, done
        return None

    def _next_of_drain(self) -> Event | NeedData | None:
        data = self._buffer.read_some(self._drain_left)
        if not data:
            return self._end_of_input() if self._eof else NEED_DATA
        self._drain_left -= len(data)
        return None if self._drain_left else self._drain(0, self._drain_state, self._after_drain)

    # -- both --------------------------------------------------------------------------------------------

    def _slice(self, decoder: LineDecoder, decoded: bytes, before: int) -> Event | None:
        """What was decoded as an event, if the machine does not refuse the message. `before`: octets before it."""
        transaction = self._transaction
        if transaction.refusal is not None:
            return None
        if decoder.has_bare_line_ends and self.profile.line_ends is LineEnds.REJECT:
            transaction.refusal = answers.BARE_LINE_END_IN_MESSAGE
        if self.message_size is not None and decoder.size > self.message_size:
            decoded = decoder.cut(decoded, max(0, self.message_size - before))
            transaction.refusal = answers.TOO_BIG
        return Body(decoded) if decoded else None

    def _end_of_message(self) -> Event:
        refusal = self._transaction.refusal
        if refusal is None:
            self._next_state = self._rules.after_message
            self._pending = _MESSAGE_END
            return _MESSAGE_END
        said = refusal
        for _ in range(self._transaction.recipients if self.lmtp else 1):  # RFC 2033 section 4.2
            said = self._say(refusal)
        return self._message_refused(refusal, said, self._rules.after_message)

    def _message_refused(self, refusal: Reply, said: Reply, state: State) -> Event:
        self._message_done(False)
        if state is State.READY and self._state is not State.READY:
            self._drop_transaction()
            self._state = state
        if refusal is answers.BARE_LINE_END_IN_MESSAGE:
            self._close_with(said)
        return MessageRefused(said)
