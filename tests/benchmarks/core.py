r"""The pure SMTP machine without a driver: what its own Python costs, as ratios taken in one process.

Absolute times of single calls say more about the machine than about the code,
so each is held against work that no SMTP server can avoid, done by the
interpreter's own C code on the same bytes:

- a command (MAIL, RCPT: fed, event taken, accepted, reply drained) against one
  precompiled `re.match` and one `bytes.partition` of the line;
- the body path against `chunk.replace(b"\r\n", b"\n")`, in pieces of 64 KiB: of DATA and of one BDAT, the lines
  given on with LF, as files have them, and with CRLF, as they came;
- a session fed byte by byte against the same, eight times as long: calls are
  counted, which is exact, and timed, which also sees what one call does.

Run it alone with `.venv/bin/python tests/benchmarks/core.py`.
"""

import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mailfront_proto.smtp import (
    NEED_DATA,
    PAUSED,
    Body,
    Connected,
    ConnectionClosed,
    Data,
    Event,
    Mail,
    MessageEnd,
    Recipient,
    SMTPServer,
)
from tests.benchmarks import scripts
from tests.benchmarks.report import CoreResult
from tests.benchmarks.targets import (
    CORE_BODY_DOTS_TARGET,
    CORE_BODY_TARGET,
    CORE_COMMAND_TARGET,
    CORE_LINEAR_CALLS_TARGET,
    CORE_LINEAR_TIME_TARGET,
)

_MAIL = b"MAIL FROM:<" + scripts.SENDER + b">\r\n"
_RCPT = b"RCPT TO:<" + scripts.RECIPIENT + b">\r\n"

# What a server that wants no more than to cut a path out of the line would write.
_REFERENCE = re.compile(
    rb"(?:MAIL FROM|RCPT TO):<([^<>@\x00-\x20]+)@([A-Za-z0-9.-]+)>((?: [^ \r\n]+)*)\r\n", re.IGNORECASE
)

# Commands in one timed run. There is a machine for each MAIL, and all of them
# have to stay in the cache, as a busy connection's does.
_COMMANDS = 100

_CHUNK = 65536

# Bytes of each part of the short session in the byte-by-byte comparison, and how much longer the long one is.
_SHORT = 4096
_LONGER = 8


class Unexpected(Exception):
    """The machine did something else than the benchmark is about."""


def _ready(lf: bool = False) -> SMTPServer:
    """A machine that has greeted and answered EHLO; `lf`: it gives lines with LF."""
    machine = SMTPServer("server.example", lf_bodies=lf)
    event = machine.next_event()
    if not isinstance(event, Connected):
        raise Unexpected(f"{event!r} instead of Connected")
    machine.accept()
    machine.receive_data(b"EHLO client.example\r\n")
    machine.next_event()
    machine.accept()
    machine.data_to_send()
    return machine


def _in_message(begin: bytes, lf: bool) -> SMTPServer:
    """A machine that waits for a message: it has taken `begin`, DATA or BDAT."""
    machine = _ready(lf)
    for line, kind in ((_MAIL, Mail), (_RCPT, Recipient), (begin, Data)):
        _command(machine, line, kind)
    return machine


def _command(machine: SMTPServer, line: bytes, kind: type[Event]) -> None:
    """One full turn of a driver: read, event, verdict, nothing more to do, write."""
    machine.receive_data(line)
    event = machine.next_event()
    if type(event) is not kind:
        raise Unexpected(f"{event!r} instead of {kind.__name__}")
    machine.accept()
    if machine.next_event() is not NEED_DATA:
        raise Unexpected(f"not at rest after {line!r}")
    machine.data_to_send()


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _ratio(prepare: Callable[[], Callable[[], None]], reference: Callable[[], None], seconds: float) -> float:
    """Median, over runs in turn for that long, of the time of ours over the time of the reference.

    `prepare` makes what a run uses up; its time is not counted.
    """
    ratios: list[float] = []
    until = time.perf_counter() + seconds
    while len(ratios) < 5 or time.perf_counter() < until:
        work = prepare()
        ratios.append(_timed(work) / _timed(reference))
    return statistics.median(ratios)


def _mail_ratio(seconds: float) -> float:
    def prepare() -> Callable[[], None]:
        # One machine each: a second MAIL in a transaction is an error.
        machines = [_ready() for _ in range(_COMMANDS)]

        def work() -> None:
            for machine in machines:
                _command(machine, _MAIL, Mail)

        return work

    return _ratio(prepare, _parse_only(_MAIL), seconds)


def _rcpt_ratio(seconds: float) -> float:
    def prepare() -> Callable[[], None]:
        machine = _ready()
        _command(machine, _MAIL, Mail)

        def work() -> None:
            for _ in range(_COMMANDS):
                _command(machine, _RCPT, Recipient)

        return work

    return _ratio(prepare, _parse_only(_RCPT), seconds)


def _parse_only(line: bytes) -> Callable[[], None]:
    if not _REFERENCE.match(line):
        raise Unexpected(f"the reference does not match {line!r}")

    def work() -> None:
        match = _REFERENCE.match
        for _ in range(_COMMANDS):
            match(line)
            line.partition(b":")

    return work


def _body_speed(message: bytes, seconds: float, *, bdat: bool = False, lf: bool = False) -> float:
    """Speed of the body path as a multiple of the speed of `replace`."""
    whole = message if bdat else message + b".\r\n"
    begin = b"BDAT %d LAST\r\n" % len(message) if bdat else b"DATA\r\n"
    chunks = [whole[start : start + _CHUNK] for start in range(0, len(whole), _CHUNK)]
    expected = len(message) - (0 if bdat else message.count(b"\r\n.."))
    if lf:
        expected -= message.count(b"\r\n")

    def prepare() -> Callable[[], None]:
        machine = _in_message(begin, lf)

        def work() -> None:
            received = _drain(machine, chunks)
            if received != expected:
                raise Unexpected(f"{received} bytes of body instead of {expected}")

        return work

    def reference() -> None:
        for chunk in chunks:
            chunk.replace(b"\r\n", b"\n")

    return 1 / _ratio(prepare, reference, seconds)


def replace_speed() -> float:
    """MB/s at which this interpreter replaces CRLF by LF in 64 KiB: the yardstick of the body ratios."""
    chunk = scripts.large()[:_CHUNK]
    repeats = 500

    def work() -> None:
        for _ in range(repeats):
            chunk.replace(b"\r\n", b"\n")

    return repeats * len(chunk) / min(_timed(work) for _ in range(5)) / 1e6


def _drain(machine: SMTPServer, chunks: Sequence[bytes]) -> int:
    """Feed a message to its end; how many bytes of it came out."""
    received = 0
    for chunk in chunks:
        machine.receive_data(chunk)
        while (event := machine.next_event()) is not NEED_DATA:
            if isinstance(event, Body):
                received += len(event.data)
            elif isinstance(event, MessageEnd):
                machine.accept()
            else:
                raise Unexpected(f"{event!r} in a message")
    machine.data_to_send()
    return received


def _drip(size: int) -> None:
    """A session of three parts of `size` bytes each, byte by byte: where a buffer could be gone over again.

    A command line far over its limit; a message; a message in chunks of 8 octets; and a
    message that comes while the answer to DATA is still owed, so that all of it has to be held.
    """
    machine = _ready()
    _feed(machine, b"x" * size + b"\r\n")
    message = (b"..line\r\n" * (size // 8)) + b".\r\n"
    _feed(machine, _MAIL + _RCPT + b"DATA\r\n")
    _feed(machine, message)
    _feed(machine, _MAIL + _RCPT + b"BDAT 8\r\n..line\r\n" * (size // 8) + b"BDAT 0 LAST\r\n")
    _feed(machine, _MAIL + _RCPT)
    _feed(machine, b"DATA\r\n", answer_data=False)
    _feed(machine, message, answer_data=False)
    machine.accept()
    _answer(machine)


def _feed(machine: SMTPServer, data: bytes, *, answer_data: bool = True) -> None:
    for position in range(len(data)):
        machine.receive_data(data[position : position + 1])
        _answer(machine, answer_data=answer_data)


def _answer(machine: SMTPServer, *, answer_data: bool = True) -> None:
    while (event := machine.next_event()) is not NEED_DATA and event is not PAUSED:
        if isinstance(event, ConnectionClosed):
            raise Unexpected("the machine gave up")
        if machine.answer_owed and (answer_data or not isinstance(event, Data)):
            machine.accept()
    machine.data_to_send()


def _calls(work: Callable[[], None]) -> int:
    """How many functions, Python's and C's, are called by `work`."""
    count = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def _growth() -> tuple[float, float]:
    """Growth of the calls and of the time for one byte when the session gets longer; 1 is linear."""
    short, long = (lambda: _drip(_SHORT)), (lambda: _drip(_SHORT * _LONGER))
    calls = _calls(long) / _calls(short) / _LONGER
    # The shortest time is the one that others disturbed least.
    times = [(_timed(long), min(_timed(short) for _ in range(3))) for _ in range(3)]
    return calls, min(long for long, _ in times) / min(short for _, short in times) / _LONGER


def measure(seconds: float) -> list[CoreResult]:
    """All ratios of the core; each of the timed ones takes that long."""
    calls, growth = _growth()
    longer = f"of a byte in a session {_LONGER} times as long, fed byte by byte"
    reference = "re.match and partition of the line"
    large = scripts.large()
    return [
        CoreResult(f"time of a MAIL / {reference}", _mail_ratio(seconds), CORE_COMMAND_TARGET, upper=True),
        CoreResult(f"time of a RCPT / {reference}", _rcpt_ratio(seconds), CORE_COMMAND_TARGET, upper=True),
        *(
            CoreResult(
                "speed of the body path / of replace(CRLF, LF): "
                f"{'BDAT' if bdat else 'DATA'}, {'LF' if lf else 'CRLF'}",
                _body_speed(large, seconds, bdat=bdat, lf=lf),
                CORE_BODY_TARGET,
                upper=False,
            )
            for bdat in (False, True)
            for lf in (False, True)
        ),
        CoreResult(
            "the same: DATA, CRLF, every line dot-stuffed and short",
            _body_speed(scripts.large_dotted(), seconds),
            CORE_BODY_DOTS_TARGET,
            upper=False,
        ),
        CoreResult(f"calls {longer}", calls, CORE_LINEAR_CALLS_TARGET, upper=True),
        CoreResult(f"time {longer}", growth, CORE_LINEAR_TIME_TARGET, upper=True),
    ]


def main() -> int:
    results = measure(1.0)
    for result in results:
        limit = f"{'at most' if result.upper else 'at least'} {result.limit:g}"
        print(f"{result.title}: {result.value:.2f} ({limit}: {'met' if result.met else 'NOT MET'})")
    return 0 if all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
