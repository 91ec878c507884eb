"""A load generator that costs little and believes nothing.

A `Script` is what one connection says: steps, each a prepared byte string and
the reply codes that must follow it. `rehearse` plays it once, slowly and with
care: every reply is parsed and its code compared, and what the server wrote is
remembered. `run` then plays it over many connections from one epoll loop, where
the usual answer to a step costs one comparison with the remembered bytes. Only
an answer that differs (a queue id in it, or two segments where there was one)
is parsed, so nothing is taken on trust and yet nothing is done for each message
that would let the server rest behind the generator.

Whatever is not as expected makes its connection fail, with a sentence: a wrong
code, a reply too many, an end too early, a count of bytes that is not ours, or
silence.
"""

import re
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Address = tuple[str, int]

# A benchmark's server answers in microseconds; who says nothing for this long has lost something.
SILENCE = 20.0

_RECEIVE = 65536

# The echo backends say how much of the message reached them, in its LF form.
RECEIVED = re.compile(rb"Received (\d+) bytes")


class Refused(Exception):
    """The server did not do what the script expects; the text says what it did."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is sent, the codes that must answer it, and how many messages are then accepted.

    `size` is the message's length with LF line ends, for servers that report it.
    """

    send: bytes
    codes: tuple[bytes, ...]
    messages: int = 0
    size: int | None = None


@dataclass(slots=True)
class Outcome:
    """What became of a run. It is good only if `errors` is empty."""

    connections: int = 0
    messages: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)


def split_replies(data: bytes) -> tuple[list[bytes], bytes]:
    """Cut what was received into whole replies (all lines of each) and the rest."""
    replies: list[bytes] = []
    start = position = 0
    while (end := data.find(b"\n", position)) >= 0:
        last = data[position + 3 : position + 4] != b"-"
        position = end + 1
        if last:
            replies.append(data[start:position])
            start = position
    return replies, data[start:]


def answered(step: Step, data: bytes) -> bool:
    """Whether `data` is the whole answer to the step; False if some of it is still to come.

    Raises:
        Refused: a reply has the wrong code, there is one too many, or the size is not ours.
    """
    replies, rest = split_replies(data)
    for reply, code in zip(replies, step.codes, strict=False):
        lines = reply.splitlines()
        if any(line[:3] != code for line in lines):
            raise Refused(f"expected {code.decode()}, got {shown(reply)}")
        if step.size is not None and (count := RECEIVED.search(reply)) and int(count[1]) != step.size:
            raise Refused(f"the message has {step.size} bytes, the server says {shown(reply)}")
    if len(replies) > len(step.codes) or (rest and len(replies) == len(step.codes)):
        unasked = b"".join(replies[len(step.codes) :]) + rest
        raise Refused(f"more than the expected replies: {shown(unasked)}")
    return len(replies) == len(step.codes)


def shown(data: bytes) -> str:
    """For a sentence."""
    text = data[:200].decode("latin-1").strip()
    return repr(text if len(data) <= 200 else text + "…")


@dataclass(frozen=True, slots=True)
class Script:
    """All that one connection says; after the last step the server must close, if `closes`. `answered`: judges what
    came in answer to a step, as `answered` does for SMTP."""

    steps: tuple[Step, ...]
    closes: bool = True
    answered: Callable[[Step, bytes], bool] = answered

    @property
    def messages(self) -> int:
        """Messages that one connection delivers."""
        return sum(step.messages for step in self.steps)


def rehearse(address: Address, script: Script) -> list[bytes]:
    """Play the script once on a blocking socket; the answer to each step, as bytes.

    Raises:
        Refused: an answer was not as expected.
        OSError: no connection, or nothing came in time.
    """
    answers: list[bytes] = []
    with socket.create_connection(address, timeout=SILENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for step in script.steps:
            # Pipelined input and its output may both be more than the buffers
            # between here and the server hold, so a plain sendall could lock up.
            answers.append(_converse(sock, step, script.answered))
        if script.closes and sock.recv(_RECEIVE):
            raise Refused("the server went on talking after its last reply")
    return answers


def _converse(sock: socket.socket, step: Step, answered: Callable[[Step, bytes], bool]) -> bytes:
    unsent = memoryview(step.send)
    data = b""
    while not answered(step, data) or unsent:
        poll = select.poll()
        poll.register(sock, select.POLLIN | (select.POLLOUT if unsent else 0))
        ready = poll.poll(SILENCE * 1000)
        if not ready:
            raise Refused(f"no answer for {SILENCE:g} s")
        if ready[0][1] & select.POLLOUT:
            unsent = unsent[sock.send(unsent[:_RECEIVE]) :]
        if ready[0][1] & ~select.POLLOUT:
            piece = sock.recv(_RECEIVE)
            if not piece:
                raise Refused(f"the connection ended after {shown(data)}")
            data += piece
    return data


class _Connection:
    """One connection's place in the script, and what is half sent and half received."""

    __slots__ = ("buffer", "sock", "step", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.step = 0
        self.buffer = b""
        self.unsent: memoryview | None = None


def run(address: Address, script: Script, connections: int, at_once: int, answers: list[bytes]) -> Outcome:
    """Play the script over `connections` connections, `at_once` of them open at a time.

    `answers` is what `rehearse` gave for the same script and server.
    """
    return _Run(address, script, answers).go(connections, at_once)


class _Run:
    """One run: the epoll loop and its connections by descriptor."""

    def __init__(self, address: Address, script: Script, answers: list[bytes]) -> None:
        self.address = address
        self.steps = script.steps
        self.closes = script.closes
        self.answered = script.answered
        self.answers = answers
        self.outcome = Outcome()
        self.open: dict[int, _Connection] = {}
        self.epoll = select.epoll()

    def go(self, connections: int, at_once: int) -> Outcome:
        outcome = self.outcome
        started = time.monotonic()
        left = connections
        try:
            while left or self.open:
                while left and len(self.open) < at_once:
                    left -= 1
                    self._connect()
                events = self.epoll.poll(SILENCE)
                if not events:
                    for connection in list(self.open.values()):
                        self._fail(connection, f"no answer for {SILENCE:g} s at step {connection.step}")
                    break
                for descriptor, mask in events:
                    connection = self.open[descriptor]
                    try:
                        if mask & select.EPOLLOUT:
                            self._send_rest(connection)
                        if mask & ~select.EPOLLOUT:
                            self._receive(connection)
                    except (Refused, OSError) as error:
                        self._fail(connection, f"step {connection.step}: {error}")
        finally:
            for connection in self.open.values():
                connection.sock.close()
            self.epoll.close()
        outcome.seconds = time.monotonic() - started
        return outcome

    def _connect(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(sock)
        self.open[sock.fileno()] = connection
        # A refused connection shows as an error event, like every other end.
        sock.connect_ex(self.address)
        if self.steps[0].send:  # this client speaks first
            connection.unsent = memoryview(self.steps[0].send)
        self.epoll.register(sock, select.EPOLLIN | (select.EPOLLOUT if connection.unsent else 0))

    def _receive(self, connection: _Connection) -> None:
        data = connection.sock.recv(_RECEIVE)
        if not data:
            if connection.step == len(self.steps) and not connection.buffer:
                self._end(connection)
                self.outcome.connections += 1
            else:
                self._fail(connection, f"the connection ended at step {connection.step}")
            return
        if connection.step == len(self.steps):
            raise Refused(f"the server went on talking after its last reply: {shown(data)}")
        if connection.buffer:
            data = connection.buffer + data
        usual = self.answers[connection.step]
        if data == usual:
            connection.buffer = b""
            self._advance(connection)
        elif len(data) < len(usual) and usual.startswith(data):
            connection.buffer = data
        elif self.answered(self.steps[connection.step], data):
            connection.buffer = b""
            self._advance(connection)
        else:
            connection.buffer = data

    def _advance(self, connection: _Connection) -> None:
        if connection.unsent:
            raise Refused("the answer came before all of the step was sent")
        self.outcome.messages += self.steps[connection.step].messages
        connection.step += 1
        if connection.step == len(self.steps):
            if not self.closes:
                self._end(connection)
                self.outcome.connections += 1
            return
        data = self.steps[connection.step].send
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            connection.unsent = memoryview(data)[sent:]
            self.epoll.modify(connection.sock, select.EPOLLIN | select.EPOLLOUT)

    def _send_rest(self, connection: _Connection) -> None:
        assert connection.unsent is not None
        try:
            connection.unsent = connection.unsent[connection.sock.send(connection.unsent) :]
        except BlockingIOError:
            return
        if not connection.unsent:
            connection.unsent = None
            self.epoll.modify(connection.sock, select.EPOLLIN)

    def _fail(self, connection: _Connection, why: str) -> None:
        self.outcome.errors.append(why)
        self._end(connection)

    def _end(self, connection: _Connection) -> None:
        self.epoll.unregister(connection.sock)
        del self.open[connection.sock.fileno()]
        connection.sock.close()
