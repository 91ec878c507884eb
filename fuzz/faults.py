"""Faults on purpose, to see whether the fuzzer finds them: ``python fuzz/run.py --fault NAME``.

Each stands for one kind of mistake, is planted into a part that works, and is met by no seed.
"""

from collections.abc import Callable

from mailfront_proto.buffer import ReceiveBuffer


def crash() -> None:
    """An exception leaves the machine: who wrote it forgot that an address may begin inside a character of UTF-8."""
    read_line = ReceiveBuffer.read_line

    def fragile(buffer: ReceiveBuffer, limit: int) -> bytes | None:
        line = read_line(buffer, limit)
        if line:
            _, begun, address = line.partition(b":<")
            if begun and 0x80 <= (address or b"@")[0] < 0xC0:
                address.decode("utf-8")
        return line

    ReceiveBuffer.read_line = fragile  # type: ignore[method-assign,assignment]


def cut() -> None:
    """A verdict depends on where the bytes were cut: a piece that begins with a byte that UTF-8 never has loses it."""
    feed = ReceiveBuffer.feed

    def forgetful(buffer: ReceiveBuffer, data: bytes) -> None:
        feed(buffer, data[1:] if len(buffer) and data[0] >= 0xF8 else data)

    ReceiveBuffer.feed = forgetful  # type: ignore[method-assign,assignment]


FAULTS: dict[str, tuple[str, str, Callable[[], None]]] = {
    "crash": ("smtp_server", "UnicodeDecodeError", crash),
    "cut": ("smtp_server", "cut as", cut),
}
"""The harness that must find it, what that then says, and the function that plants it."""
