r"""The protocol between spamc and SpamAssassin's spamd (SPAMC/SPAMD 1.5, the file PROTOCOL of spamd), both roles, as
pull machines.

A connection carries one request: a line, headers, the message; and one answer of the same shape::

    client = SpamdClient()
    client.request("PROCESS", size=len(message), user="joe")
    client.send_body(message)
    client.end_of_body()
    while not isinstance(event := client.next_event(), ConnectionClosed):
        if isinstance(event, Response):
            print(event.spam)
        elif isinstance(event, Body):
            answer += event.data
        elif output := client.data_to_send():
            sock.sendall(output)
            if client.request_complete:
                sock.shutdown(socket.SHUT_WR)
        elif data := sock.recv(65536):
            client.receive_data(data)
        else:
            client.receive_eof()

spamd begins once its client has closed the sending side, whatever Content-length says (and judges what it has if that
is less): close it once the request is complete and written, and only then.

Use nothing of an answer before `ResponseEnd`: it comes only when every byte that the answer's Content-length
promised is here, and none beyond. The headers are checked for control characters; what is in the body is not, since
it is a message, and is the scanner's in whole.
"""

import re
from typing import Final, Literal, NoReturn

from mailfront_proto.buffer import OVERSIZED, ReceiveBuffer
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.machine import ClientMachine, ServerMachine
from mailfront_proto.pull import MAX_PENDING_OUTPUT, NEED_DATA, PAUSED, Event, NeedData, Paused
from mailfront_proto.record import record

Method = Literal["CHECK", "SYMBOLS", "REPORT", "REPORT_IFSPAM", "HEADERS", "PROCESS", "PING"]
"""What is wanted: the verdict; with it the names of the rules, a report, a report if it is spam, the new header, the
new message; or a sign of life."""

METHODS: Final[tuple[Method, ...]] = ("CHECK", "SYMBOLS", "REPORT", "REPORT_IFSPAM", "HEADERS", "PROCESS", "PING")

MAX_LINE: Final = 1024
"""Bytes of a line of an answer or request; spamd's have some dozens."""

MAX_HEADERS: Final = 32
"""Header lines of an answer or request; spamd sends 4 at most."""

MAX_SIZE: Final = 100 * 1024 * 1024
"""Bytes of a message that the server role takes by default."""

REPORT_ALLOWANCE: Final = 256 * 1024
"""Bytes that an answer may be longer than the message: headers, or a report with a preview."""

_STATUS: Final = re.compile(rb"SPAMD/([0-9]{1,3}\.[0-9]{1,3}) ([0-9]{1,3}) ([ -~]*)\Z")
_REQUEST: Final = re.compile(rb"([A-Z_]{1,20}) SPAMC/([0-9]{1,3}\.[0-9]{1,3})\Z")
_HEADER: Final = re.compile(rb"([!-9;-~]+):[ \t]*([ -~\t\x80-\xff]*)\Z")
_NUMBER: Final = rb"-?[0-9]{1,9}(?:\.[0-9]{1,9})?"
_SPAM: Final = re.compile(rb"(true|yes|false|no) ; (" + _NUMBER + rb") / (" + _NUMBER + rb")\Z", re.IGNORECASE)
_SIZE: Final = re.compile(rb"[0-9]{1,15}\Z")
_SYMBOLS: Final = re.compile(rb"[A-Za-z0-9_]+(?:,[A-Za-z0-9_]+)*\Z")
_USER: Final = re.compile(r"[!-~]{1,200}\Z")
_VERSION: Final = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\Z")

_WITH_VERDICT: Final = frozenset(("CHECK", "SYMBOLS", "REPORT", "REPORT_IFSPAM"))


@record(frozen=True)
class Spam:
    """The verdict: the header ``Spam: True ; 15.0 / 5.0``. `score`, `threshold`: as spamd wrote them."""

    is_spam: bool
    score: float
    threshold: float

    def __str__(self) -> str:
        return f"{self.is_spam} ; {self.score} / {self.threshold}"


@record
class Response(Event):
    """The head of the answer. `code`: 0 for success, otherwise an exit code of sysexits.h, `text` its name or what
    spamd says to it. `spam`: the verdict, where there is one. `size`: bytes of the body that follows, if that is
    said. `Body` follows, and `ResponseEnd`."""

    code: int
    text: str
    spam: Spam | None = None
    size: int | None = None


@record
class Body(Event):
    """A slice of the message, in either direction."""

    data: bytes


@record
class ResponseEnd(Event):
    """The answer was received in whole: what came before this may be used."""


@record
class ConnectionClosed(Event):
    """The connection has ended; close it. Returned ever after. `answered` False: without an answer in whole."""

    reason: str
    answered: bool = True


def read_symbols(body: bytes) -> list[str]:
    """The names of rules in the body of an answer to SYMBOLS (``BAYES_99,URIBL_BLACK``). Raises
    `RemoteProtocolError` for everything that is no such list, since the names end up in headers and logs."""
    line = body.rstrip(b"\r\n")
    if not line:
        return []
    if not _SYMBOLS.match(line):
        raise RemoteProtocolError(f"spamd sent no list of rules: {body[:60]!r}", received=body)
    return line.decode("ascii").split(",")


class SpamdClient(ClientMachine[Event]):
    """One connection to spamd, for one request.

    `version`: of the protocol that we name. The original mailfront says 1.2, and to that spamd answers without
    Content-length (it came with 1.3): such an answer is taken as it is, and one that was cut off is not known as such.

    ``next_event`` raises `RemoteProtocolError` when spamd breaks the protocol (which includes an answer that is
    shorter or longer than it said), and returns `ConnectionClosed` then.
    """

    def __init__(self, version: str = "1.5") -> None:
        if not _VERSION.match(version):
            raise LocalProtocolError(f"SpamdClient({version!r}): the version is two numbers with a dot between them")
        self._version = version
        self._has_lengths = tuple(map(int, version.split("."))) >= (1, 3)
        self._buffer = ReceiveBuffer()
        super().__init__(self._buffer.feed)
        self._method = ""
        self._size = 0
        self._unsent = 0  # bytes of the message that were not given yet
        self._in_body = False
        self._early = False  # there were bytes of the answer before the request had ended
        self._head = _Head()
        self._response: Response | None = None
        self._left = 0  # bytes of the answer's body
        self._until_eof = False

    @property
    def request_complete(self) -> bool:
        """Nothing more will be sent: once ``data_to_send()`` is drained and written, close the sending side."""
        return bool(self._method) and not self._in_body

    # -- the request -------------------------------------------------------------------------------------

    def request(self, method: Method, size: int, *, user: str = "") -> None:
        """Ask for `method` about a message of `size` bytes. ``send_body()`` follows, then ``end_of_body()``. `user`:
        whose preferences count; printable ASCII, without blanks."""
        if method not in METHODS or method == "PING":
            raise LocalProtocolError(f"request({method!r}): take of {', '.join(METHODS[:-1])}, or call ping()")
        if size < 0 or (user and not _USER.match(user)):
            raise LocalProtocolError(f"request({method!r}, {size}, user={user!r}): the size is not below 0, the user "
                                     "one word of at most 200 printable ASCII characters")  # fmt: skip
        self._begin(method, "request()")
        self._put(f"Content-Length: {size}\r\n".encode("ascii"))
        if user:
            self._put(f"User: {user}\r\n".encode("ascii"))
        self._put(b"\r\n")
        self._size = self._unsent = size
        self._in_body = True

    def ping(self) -> None:
        """Ask whether spamd is there. `Response` follows (its text is ``PONG``), and `ResponseEnd`."""
        self._begin("PING", "ping()")
        self._put(b"\r\n")

    def send_body(self, data: bytes) -> None:
        """The next piece of the message, cut anywhere; it goes out as it is. Drain ``data_to_send()`` after each
        call. More than the size that was given is a `LocalProtocolError`."""
        self._check_body("send_body")
        if len(data) > self._unsent:
            raise LocalProtocolError(f"send_body(): {len(data)} bytes, but {self._unsent} are left of the size given")
        self._unsent -= len(data)
        self._put(data)

    def end_of_body(self) -> None:
        """The message is complete. `Response` follows."""
        self._check_body("end_of_body")
        if self._unsent:
            raise LocalProtocolError(f"end_of_body(): {self._unsent} bytes are missing of the size given")
        self._in_body = False
        self._early = self._early or self._head.has_begun or len(self._buffer) > 0

    def _begin(self, method: str, call: str) -> None:
        if self._method or self._closed is not None:
            raise LocalProtocolError(f"{call}: spamd answers once a connection: open another")
        self._method = method
        self._early = len(self._buffer) > 0
        self._put(f"{method} SPAMC/{self._version}\r\n".encode("ascii"))

    def _check_body(self, call: str) -> None:
        if not self._in_body:
            raise LocalProtocolError(f"{call}(): no message is being sent: call request() first, once a connection")

    # -- the connection ----------------------------------------------------------------------------------

    def next_event(self) -> Event | NeedData | Paused:
        """The next event; `NEED_DATA` while the answer is awaited; `PAUSED` while the next call is the application's.

        The answer ends where the connection does: `ResponseEnd` comes with the end of input, when the answer has the
        length that it promised.
        """
        if self._closed is not None:
            return self._closed
        if self._output_size > MAX_PENDING_OUTPUT:
            return PAUSED
        if not self._method:
            return self._next_of_idle()
        return self._next_of_head() if self._response is None else self._next_of_body()

    def _next_of_idle(self) -> Event | Paused:
        if len(self._buffer):
            self._fail("answered what was not asked", self._buffer.peek(1))
        return self._close("EOF", True) if self._eof else PAUSED

    def _next_of_head(self) -> Event | NeedData | Paused:
        try:
            head = self._head.read(self._buffer)
        except _BadHead as error:
            self._fail(str(error), error.line)
        if head is not None:
            return self._responded(*head)
        if not self._eof:
            return PAUSED if self._in_body else NEED_DATA
        line = self._head.only_line
        if line is not None and not len(self._buffer):
            return self._responded(line, {})
        if self._head.has_begun or len(self._buffer):
            self._fail("closed in the middle of its answer", self._buffer.peek(60))
        return self._close("EOF", False)

    def _responded(self, line: bytes, headers: dict[bytes, bytes]) -> Response:
        status = _STATUS.match(line)
        if status is None:
            self._fail("sent an answer that is none", line)
        code = int(status[2])
        if not code and (self._in_body or self._early):
            self._fail("gave a verdict before it had the message", line)
        spam = _read_spam(headers.get(b"spam"))
        if spam is None and (b"spam" in headers or (not code and self._method in _WITH_VERDICT)):
            self._fail("sent no verdict that makes sense", headers.get(b"spam", line))
        size = _read_size(headers.get(b"content-length"))
        has_body = not code and self._method not in ("PING", "CHECK")
        if size is None and (b"content-length" in headers or (has_body and self._has_lengths)):
            self._fail("sent no Content-length that makes sense", headers.get(b"content-length", line))
        most = self._size + REPORT_ALLOWANCE
        if size is not None and size > most:
            self._fail(f"wants to answer {self._size} bytes with more than {most}", headers[b"content-length"])
        self._in_body = False
        self._left = most if size is None and has_body else size or 0
        self._until_eof = size is None
        self._response = Response(code, status[3].decode("ascii"), spam, size)
        return self._response

    def _next_of_body(self) -> Event | NeedData:
        data = self._buffer.read_some(self._left)
        self._left -= len(data)
        if data:
            return Body(data)
        if len(self._buffer):
            self._fail("sent more than its Content-length, or than it may", self._buffer.peek(1))
        if not self._eof:
            return NEED_DATA
        if self._left and not self._until_eof:
            self._fail(f"closed {self._left} bytes before the end of its answer", b"")
        self._close("done", True)
        return ResponseEnd()

    def _close(self, reason: str, answered: bool) -> ConnectionClosed:
        self._closed = ConnectionClosed(reason, answered)
        self._in_body = False
        self._buffer.clear()
        return self._closed

    def _fail(self, what: str, received: bytes) -> NoReturn:
        self._close(f"spamd {what}", False)
        raise RemoteProtocolError(f"spamd {what}: {received[:60]!r}", received=received)


# -- what the roles share ------------------------------------------------------------------------------------


class _BadHead(Exception):
    """The first line and the headers cannot be read. `line`: the one that is wrong."""

    def __init__(self, message: str, line: bytes) -> None:
        super().__init__(message)
        self.line = line


class _Head:
    """Reads a first line and headers up to the empty line."""

    def __init__(self) -> None:
        self._first: bytes | None = None
        self._headers: dict[bytes, bytes] = {}

    @property
    def has_begun(self) -> bool:
        return self._first is not None

    @property
    def only_line(self) -> bytes | None:
        """The first line, if nothing followed it: so spamd answers PING, and what it refuses."""
        return None if self._headers else self._first

    def read(self, buffer: ReceiveBuffer) -> tuple[bytes, dict[bytes, bytes]] | None:
        """The first line and the headers, their names in lower case; None when they are not all here."""
        while (line := buffer.read_line(MAX_LINE)) is not None:
            if line == OVERSIZED:
                raise _BadHead(f"sent a line of more than {MAX_LINE} bytes", b"")
            line = line[:-1].removesuffix(b"\r")
            if self._first is None:
                self._first = line
            elif not line:
                return self._first, self._headers
            else:
                self._add(line)
        return None

    def _add(self, line: bytes) -> None:
        match = _HEADER.match(line)
        if match is None:
            raise _BadHead("sent a header that is none", line)
        name = match[1].lower()
        if name in self._headers or len(self._headers) == MAX_HEADERS:
            raise _BadHead("sent a header twice, or too many", line)
        self._headers[name] = match[2].rstrip(b" \t")


def _read_spam(value: bytes | None) -> Spam | None:
    match = _SPAM.match(value) if value is not None else None
    return Spam(match[1].lower() in (b"true", b"yes"), float(match[2]), float(match[3])) if match is not None else None


def _read_size(value: bytes | None) -> int | None:
    return int(value) if value is not None and _SIZE.match(value) else None


# -- the server role -----------------------------------------------------------------------------------------


@record
class Request(Event):
    """The head of a request. `size`: bytes of the message as the client has them, None if it does not say. `Body`
    follows, and `RequestEnd`; PING has neither, and is owed its answer at once."""

    method: str
    version: str
    user: str
    size: int | None


@record
class RequestEnd(Event):
    """The message is complete. Call ``reply()``."""


class SpamdServer(ServerMachine[Event]):
    """The server role, as tests of a client need it.

    `max_size`: bytes of a message; a longer one gets code 74 (``EX_IOERR``), as one does that is longer or shorter
    than it said. Events are `Request`, `Body`, `RequestEnd`, which is owed an answer, and `ConnectionClosed`.
    """

    __slots__ = ("_head", "_left", "_request", "max_size")

    def __init__(self, max_size: int = MAX_SIZE) -> None:
        super().__init__("open")
        self.max_size = max_size
        self._head = _Head()
        self._request: Request | None = None
        self._left = 0

    def accept(self) -> None:
        """Give the usual answer: no spam, nothing changed."""
        if self._request is not None and self._request.method == "PING":
            self.reply(0, "PONG")
        else:
            self.reply(0, "EX_OK", spam=Spam(False, 0.0, 5.0), body=b"")

    def reply(self, code: int, text: str, *, spam: Spam | None = None, body: bytes | None = None) -> None:
        """Answer the request: `code` with `text` (printable ASCII), the verdict, and a body. Then it ends."""
        if self._pending is None:
            raise LocalProtocolError("no answer is owed: call next_event() until it returns RequestEnd")
        if not 0 <= code <= 255 or not text.isascii() or not text.isprintable():
            raise LocalProtocolError(f"reply({code}, {text!r}): a code of 0 to 255, and printable ASCII")
        self._pending = None
        self._say(code, text, spam, body)

    def _say(self, code: int, text: str, spam: Spam | None = None, body: bytes | None = None) -> ConnectionClosed:
        headers = [f"Content-length: {len(body)}"] if body is not None else []
        if spam is not None:
            headers.append(f"Spam: {spam}")
        if headers:
            headers.append("")
        self._put("".join(f"{line}\r\n" for line in [f"SPAMD/1.1 {code} {text}", *headers]).encode("ascii"))
        self._put(body or b"")
        closed = ConnectionClosed("done" if code == 0 else text, code == 0)
        self._close(closed)
        return closed

    def next_event(self) -> Event | NeedData | Paused:
        """The next event, `NEED_DATA`, or `PAUSED` while an answer is owed."""
        if self._pending is not None:
            return PAUSED
        if self._closed is not None:
            return self._closed
        return self._next_of_head() if self._request is None else self._next_of_body(self._request)

    def _next_of_head(self) -> Event | NeedData:
        try:
            head = self._head.read(self._buffer)
        except _BadHead:
            return self._say(76, "Bad header line")
        if head is None:
            if not self._eof:
                return NEED_DATA
            closed = ConnectionClosed("EOF", False)
            self._close(closed)
            return closed
        line, headers = head
        match = _REQUEST.match(line)
        size = _read_size(headers.get(b"content-length"))
        if match is None or match[1].decode() not in METHODS or (size is None and b"content-length" in headers):
            return self._say(76, "Bad header line")
        if size is not None and size > self.max_size:
            return self._say(74, "EX_IOERR")
        self._left = self.max_size if size is None else size
        user = headers.get(b"user", b"").decode("utf-8", "surrogateescape")
        self._request = Request(match[1].decode(), match[2].decode(), user, size)
        if match[1] == b"PING":
            self._left = 0
            self._pending = self._request
        return self._request

    def _next_of_body(self, request: Request) -> Event | NeedData:
        data = self._buffer.read_some(self._left)
        self._left -= len(data)
        if data:
            return Body(data)
        if len(self._buffer) or (self._eof and self._left and request.size is not None):
            return self._say(74, "EX_IOERR")
        if not self._eof:
            return NEED_DATA
        self._pending = RequestEnd()
        return self._pending
