"""What the clients of each case say: the bytes of its messages and the steps of its connections."""

from tests.benchmarks.loadgen import Script, Step

SENDER = b"sender@client.example"
RECIPIENT = b"recipient@server.example"

# Messages on one connection in the S2 cases.
PER_CONNECTION = 100

_GREETING = Step(b"", (b"220",))
_EHLO = Step(b"EHLO client.example\r\n", (b"250",))
_MAIL = b"MAIL FROM:<" + SENDER + b">\r\n"
_RCPT = b"RCPT TO:<" + RECIPIENT + b">\r\n"
_DATA = b"DATA\r\n"
_QUIT = Step(b"QUIT\r\n", (b"221",))

_HEAD = b"From: <" + SENDER + b">\r\nTo: <" + RECIPIENT + b">\r\nSubject: benchmark\r\n\r\n"

# A line of 76 columns, as a base64 attachment has, and a short one that begins
# with a dot: the worst a body can be for a server that looks at dots or lines.
_LINE_76 = b"QmVuY2htYXJrIG1lc3NhZ2UsIG5vdCB3b3J0aCByZWFkaW5nLCBidXQgc29tZWJvZHkgZGlkISEh\r\n"
_LINE_DOT = b"..the line has 26 bytes.\r\n"
assert len(_LINE_76) == 78
assert len(_LINE_DOT) == 26


def _message(line: bytes, wire_bytes: int) -> bytes:
    """A message of about that many bytes on the wire, end of data not counted."""
    count = (wire_bytes - len(_HEAD)) // len(line)
    return _HEAD + line * count


def _kilobyte() -> bytes:
    body = _message(_LINE_76, 1024)
    padding = 1024 - len(body)
    return body + b"x" * (padding - 2) + b"\r\n" if padding >= 2 else body


def _lf_size(message: bytes) -> int:
    """Its length as a backend counts it: unstuffed, lines ended by LF."""
    dots = message.count(b"\r\n..") + message.startswith(b"..")
    return len(message) - message.count(b"\r\n") - dots


def _lock_step(message: bytes) -> tuple[Step, ...]:
    return (
        Step(_MAIL, (b"250",)),
        Step(_RCPT, (b"250",)),
        Step(_DATA, (b"354",)),
        Step(message + b".\r\n", (b"250",), messages=1, size=_lf_size(message)),
    )


def one_message(message: bytes) -> Script:
    """Greeting, EHLO, one message in lock-step, QUIT."""
    return Script((_GREETING, _EHLO, *_lock_step(message), _QUIT))


def many_lock_step(count: int = PER_CONNECTION) -> Script:
    """`count` messages of 1 KiB on one connection, each command after the reply to the last."""
    return Script((_GREETING, _EHLO, *(_lock_step(SMALL) * count), _QUIT))


def many_envelope_pipelined(count: int = PER_CONNECTION) -> Script:
    """MAIL, RCPT and DATA in one write, as RFC 2920 has it; the message after the 354."""
    envelope = Step(_MAIL + _RCPT + _DATA, (b"250", b"250", b"354"))
    message = Step(SMALL + b".\r\n", (b"250",), messages=1, size=_lf_size(SMALL))
    return Script((_GREETING, _EHLO, *((envelope, message) * count), _QUIT))


def many_all_pipelined(count: int = PER_CONNECTION) -> Script:
    """All messages and QUIT in one go, without waiting for a single 354.

    RFC 2920 forbids it to clients (DATA must end a group); servers are asked
    what they do at their limit, where nothing ever waits.
    """
    one = _MAIL + _RCPT + _DATA + SMALL + b".\r\n"
    codes = (b"250", b"250", b"354", b"250") * count + _QUIT.codes
    all_at_once = Step(one * count + _QUIT.send, codes, messages=count)
    return Script((_GREETING, _EHLO, all_at_once))


def idle() -> Script:
    """Greeting and EHLO, and no more: what an idle connection has said."""
    return Script((_GREETING, _EHLO), closes=False)


SMALL = _kilobyte()
assert len(SMALL) == 1024


def large() -> bytes:
    """25 MiB in lines of 76 columns."""
    return _message(_LINE_76, 25 * 1024 * 1024)


def large_dotted() -> bytes:
    """25 MiB in short lines that all begin with a stuffed dot."""
    return _message(_LINE_DOT, 25 * 1024 * 1024)
