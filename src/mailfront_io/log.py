"""The line log on a descriptor: ``PROGRAM[PID]: TEXT``, one ``write`` a line, nothing unescaped."""

import os
from collections.abc import Callable

from mailfront_proto.lazy_patterns import compile_later

MAX_LINE = 2000
"""Characters of a line; what is over is cut. A client cannot fill a disk with one command."""


class _Process:
    """This process; sessions may run in forked children of the one that made their log."""

    def __init__(self) -> None:
        self.number = os.getpid()
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.number = os.getpid()


_process = _Process()

# Control bytes, in ASCII, in Unicode and as bytes that are no UTF-8; and surrogates that stand for no byte
_UNSAFE_TO_TERMINALS = compile_later("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udc9f\udd00-\udfff]")


def line_log(program: str, compat: bool, descriptor: int = 2, prefix: str = "") -> Callable[[str], None]:
    """A sink for lines of text. `prefix`: stands in front of each text; it is printable.

    In the compat profile control bytes become ``?`` and other bytes stay as they are; in the default
    profile everything that is not printable is written as an escape, a backslash doubled.
    """

    escape = _compat_escape if compat else printable

    def write(text: str) -> None:
        if not text.isprintable() or "\\" in text or len(text) > MAX_LINE:
            text = escape(text)
        try:
            os.write(descriptor, f"{program}[{_process.number}]: {prefix}{text}\n".encode("utf-8", "surrogateescape"))
        except OSError:
            # Nobody reads the log any more. Mail goes on; there is no place left to say so.
            return

    return write


def described(error: BaseException) -> str:
    """An exception in a line, with the place where it was raised."""
    where = ""
    trace = error.__traceback__
    while trace is not None:
        where = f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}{where}"


def printable(text: str) -> str:
    """`text` with what is not printable as escapes, and a backslash doubled so that none can be forged; cut where it is
    too long."""
    text = text[: MAX_LINE + 1]  # escapes make it no shorter
    if "\\" in text or not text.isprintable():
        text = "".join(
            c if c.isprintable() and c != "\\" else c.encode("unicode_escape", "surrogatepass").decode("ascii")
            for c in text
        )
    return text if len(text) <= MAX_LINE else text[:MAX_LINE] + "…"


def _compat_escape(text: str) -> str:
    return _UNSAFE_TO_TERMINALS.sub("?", text)
