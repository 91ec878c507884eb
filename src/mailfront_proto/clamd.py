r"""The protocol of ClamAV's daemon (clamd(8), INSTREAM and IDSESSION), both roles, as pull machines.

A scan is a command, the stream in chunks (four bytes of length in network order, then so many bytes; the length 0
ends it), and one line of answer::

    client = ClamdClient()
    client.scan()
    client.send_body(message)
    client.end_of_body()
    while not isinstance(event := client.next_event(), Scanned | ConnectionClosed):
        sock.sendall(client.data_to_send())
        data = sock.recv(4096)
        client.receive_data(data) if data else client.receive_eof()

What clamd says is believed only in its exact forms: a verdict before the stream has ended, a second one, or one that
was cut off by the end of the connection is none.
"""

import re
from enum import Enum
from typing import Final, NoReturn

from mailfront_proto.buffer import ReceiveBuffer
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.machine import ClientMachine, ServerMachine
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, Event, NeedData, Paused
from mailfront_proto.record import record

MAX_REPLY: Final = 1024
"""Bytes of an answer, past which clamd has lost us. Names of signatures have some dozens."""

MAX_STREAM: Final = 100 * 1024 * 1024
"""Bytes of a stream that the server role takes by default: clamd's own ``StreamMaxLength``."""

_MAX_COMMAND: Final = 64  # the longest that there is has 12
_ANSWER: Final = re.compile(rb"(?:([0-9]{1,10}): )?([ -~\x80-\xff]+)\Z")
_FOUND: Final = re.compile(rb"stream: .+ FOUND\Z")


class Verdict(Enum):
    """What a scan found."""

    CLEAN = "OK"
    FOUND = "FOUND"
    ERROR = "ERROR"
    """The scanner could not tell: the stream was too long for it, a limit was passed, its database is missing."""


@record
class Scanned(Event):
    """The answer to a scan. `text`: what clamd said, such as ``stream: OK``, ``stream: Eicar-Test FOUND`` or
    ``INSTREAM size limit exceeded. ERROR``, free of control characters."""

    verdict: Verdict
    text: str

    @property
    def signature(self) -> str:
        """The name of what was found; empty if nothing was."""
        return self.text[len("stream: ") : -len(" FOUND")] if self.verdict is Verdict.FOUND else ""


@record
class Pong(Event):
    """The answer to ``ping()``: clamd is there."""


@record
class ConnectionClosed(Event):
    """The connection has ended; close it. Returned ever after. `answered` False: a scan was under way, and is without
    an answer."""

    reason: str
    answered: bool = True


class ClamdClient(ClientMachine[Event]):
    """One connection to clamd.

    `session`: keep it open for several scans (IDSESSION), one after the other; otherwise clamd closes behind its
    answer. `newline`: commands and answers end in LF (the ``n`` form), as the original mailfront has it, instead of
    NUL. `max_reply`: bytes of an answer.

    ``next_event`` raises `RemoteProtocolError` when clamd breaks the protocol, and returns `ConnectionClosed` then.
    """

    def __init__(self, *, session: bool = False, newline: bool = False, max_reply: int = MAX_REPLY) -> None:
        self._session = session
        self._prefix, self._end = (b"n", b"\n") if newline else (b"z", b"\0")
        self._max_reply = max_reply
        self._buffer = ReceiveBuffer()
        super().__init__(self._buffer.feed)
        self._commands = 0  # those that were sent
        self._awaited = ""  # the one whose answer is still to come
        self._in_body = False
        self._early = False  # there were bytes of an answer before the stream had ended

    # -- commands ----------------------------------------------------------------------------------------

    def ping(self) -> None:
        """Ask whether clamd is there. `Pong` follows."""
        self._command("PING")

    def scan(self) -> None:
        """Begin a stream. ``send_body()`` follows, then ``end_of_body()``."""
        self._command("INSTREAM")
        self._in_body = True

    def send_body(self, data: bytes) -> None:
        """The next piece of the stream, cut anywhere; it goes out as one chunk. Drain ``data_to_send()`` after each
        call, and pull: clamd may give up in the middle (`Scanned` with `Verdict.ERROR`)."""
        self._check_body("send_body")
        if data:
            self._put(len(data).to_bytes(4, "big"))
            self._put(data)

    def end_of_body(self) -> None:
        """The stream is complete. `Scanned` follows."""
        self._check_body("end_of_body")
        self._in_body = False
        self._early = len(self._buffer) > 0
        self._put(bytes(4))

    def end_session(self) -> None:
        """Say that no more scans follow (END). `ConnectionClosed` comes when clamd has closed."""
        if not self._session or self._awaited or self._closed is not None:
            raise LocalProtocolError("end_session() ends an open session between two scans")
        self._put(self._prefix + b"END" + self._end)

    def _command(self, command: str) -> None:
        call = "ping()" if command == "PING" else "scan()"
        if self._closed is not None:
            raise LocalProtocolError(f"{call}: the connection has ended: open another")
        if self._awaited:
            raise LocalProtocolError(f"{call}: {self._awaited} is under way: call next_event() until it is answered")
        if self._commands and not self._session:
            raise LocalProtocolError(f"{call}: clamd answers once a connection: open another, or make a session")
        if self._session and not self._commands:
            self._put(self._prefix + b"IDSESSION" + self._end)
        self._put(self._prefix + command.encode() + self._end)
        self._commands += 1
        self._awaited = command
        self._early = len(self._buffer) > 0

    def _check_body(self, call: str) -> None:
        if not self._in_body:
            raise LocalProtocolError(f"{call}(): no stream is open: call scan() first, and once for each stream")

    # -- the connection ----------------------------------------------------------------------------------

    def next_event(self) -> Event | NeedData | Paused:
        """The next event; `NEED_DATA` while an answer is awaited; `PAUSED` while the next call is the application's."""
        if self._closed is not None:
            return self._closed
        if self._output_size > MAX_PENDING_OUTPUT:
            return PAUSED
        answer = self._next_answer()
        if answer is not None:
            return self._answered(answer)
        if self._eof:
            return self._close("EOF")
        return PAUSED if self._in_body or not self._awaited else NEED_DATA

    def _next_answer(self) -> bytes | None:
        held = self._buffer.peek(self._max_reply)
        if not held:
            return None
        if not self._awaited:
            self._fail("answered what was not asked", held[:1])
        end = held.find(self._end)
        if end < 0:
            if len(held) == self._max_reply:
                self._fail(f"sent an answer of more than {self._max_reply} bytes", held)
            return None
        self._buffer.read_exactly(end + 1)
        return held[:end].removesuffix(b"\r")

    def _answered(self, answer: bytes) -> Event:
        match = _ANSWER.match(answer)
        if match is None or (match[1] is None) is self._session:
            self._fail("sent an answer that is none", answer)
        if match[1] is not None and int(match[1]) != self._commands:
            self._fail("answered another command than the last", answer)
        event = self._event(match[2])
        # In the middle of a stream clamd gives up, and closes; it cannot have judged what it has not received.
        before_the_end = self._in_body or self._early
        if before_the_end and not (isinstance(event, Scanned) and event.verdict is Verdict.ERROR):
            self._fail("gave an answer before it was asked", answer)
        self._awaited = ""
        self._in_body = False
        if before_the_end or not self._session:
            self._close("done")
        return event

    def _event(self, text: bytes) -> Scanned | Pong:
        shown = text.decode("utf-8", "backslashreplace")
        if self._awaited == "PING":
            if text == b"PONG":
                return Pong()
        elif text == b"stream: OK":
            return Scanned(Verdict.CLEAN, shown)
        elif _FOUND.match(text):
            return Scanned(Verdict.FOUND, shown)
        elif text.endswith(b" ERROR"):
            return Scanned(Verdict.ERROR, shown)
        self._fail("sent an answer that is none", text)

    def _close(self, reason: str) -> ConnectionClosed:
        self._closed = ConnectionClosed(reason, not self._awaited)
        self._in_body = False
        self._buffer.clear()
        return self._closed

    def _fail(self, what: str, received: bytes) -> NoReturn:
        self._close(f"clamd {what}")
        raise RemoteProtocolError(f"clamd {what}: {received[:60]!r}", received=received)


# -- the server role -----------------------------------------------------------------------------------------


class State(Enum):
    """What the server expects next."""

    COMMAND = "command"
    CHUNKS = "chunks"
    ANSWER = "answer"
    CLOSED = "closed"


@record
class Body(Event):
    """A slice of the stream."""

    data: bytes


@record
class StreamEnd(Event):
    """The stream is complete. Call ``clean()``, ``found()`` or ``error()``."""


class ClamdServer(ServerMachine[Event]):
    """The server role: PING, INSTREAM, IDSESSION and END, as tests of a client need it.

    `max_stream`: bytes of a stream, past which the client gets ``INSTREAM size limit exceeded. ERROR`` and the
    connection ends, as with clamd itself. Events are `Body`, `StreamEnd`, which is owed an answer, and
    `ConnectionClosed`.
    """

    __slots__ = ("_chunk", "_number", "_room", "_session", "_terminator", "max_stream")

    def __init__(self, max_stream: int = MAX_STREAM) -> None:
        super().__init__(State.COMMAND)
        self.max_stream = max_stream
        self._session = False
        self._number = 0  # commands of a session
        self._chunk = 0  # bytes left of the chunk
        self._room = 0  # bytes that the stream may still have
        self._terminator = b"\0"

    def clean(self) -> None:
        """Nothing was found."""
        self._answer("stream: OK")

    def found(self, signature: str) -> None:
        """`signature`, printable ASCII, was found."""
        if not signature.isascii() or not signature.isprintable() or not signature:
            raise LocalProtocolError(f"found({signature!r}): the name of a signature is printable ASCII")
        self._answer(f"stream: {signature} FOUND")

    accept = clean

    def error(self, text: str) -> None:
        """The scanner could not tell, because of `text`, printable ASCII."""
        if not text.isascii() or not text.isprintable():
            raise LocalProtocolError(f"error({text!r}): the text is printable ASCII")
        self._answer(f"{text} ERROR")

    def _answer(self, text: str) -> None:
        if self._pending is None:
            raise LocalProtocolError("no answer is owed: call next_event() until it returns StreamEnd")
        self._pending = None
        self._say(text)
        self._state = State.COMMAND
        if not self._session:
            self._close(ConnectionClosed("done"))

    def _say(self, text: str) -> None:
        number = f"{self._number}: " if self._session else ""
        self._put(f"{number}{text}".encode("ascii") + self._terminator)

    def next_event(self) -> Event | NeedData | Paused:
        """The next event, `NEED_DATA`, or `PAUSED` while an answer is owed or output is undrained."""
        if self._pending is not None or self._output_size > MAX_PENDING_OUTPUT:
            return PAUSED
        while self._closed is None:
            event = self._next_of_stream() if self._state is State.CHUNKS else self._next_command()
            if event is NEED_DATA and self._eof:
                self._close(ConnectionClosed("EOF", self._state is State.COMMAND))
            elif event is not None:
                return event
            elif self._output_size > MAX_PENDING_OUTPUT:
                return PAUSED
        return self._closed

    def _next_command(self) -> NeedData | None:
        held = self._buffer.peek(_MAX_COMMAND)
        if not held:
            return NEED_DATA
        self._terminator = b"\n" if held[:1] == b"n" else b"\0"
        end = held.find(self._terminator)
        if end < 0 and len(held) < _MAX_COMMAND and held[:1] in (b"n", b"z"):
            return NEED_DATA
        command = held[1:end] if end >= 0 and held[:1] in (b"n", b"z") else b""
        self._buffer.read_exactly(end + 1)
        self._number += command != b"IDSESSION"
        if command == b"PING":
            self._say("PONG")
            if not self._session:
                self._close(ConnectionClosed("done"))
        elif command == b"INSTREAM":
            self._state, self._chunk, self._room = State.CHUNKS, 0, self.max_stream
        elif command == b"IDSESSION" and not self._session:
            self._session = True
        elif command == b"END" and self._session:
            self._close(ConnectionClosed("END"))
        else:
            self._say("UNKNOWN COMMAND")
            self._close(ConnectionClosed("unknown command"))
        return None

    def _next_of_stream(self) -> Event | NeedData | None:
        if self._chunk:
            data = self._buffer.read_some(self._chunk)
            self._chunk -= len(data)
            return Body(data) if data else NEED_DATA
        length = self._buffer.read_exactly(4)
        if length is None:
            return NEED_DATA
        self._chunk = int.from_bytes(length, "big")
        if not self._chunk:
            self._state = State.ANSWER
            self._pending = StreamEnd()
            return self._pending
        if self._chunk > self._room:
            self._say("INSTREAM size limit exceeded. ERROR")
            self._close(ConnectionClosed("size limit exceeded"))
        self._room -= self._chunk
        return None
