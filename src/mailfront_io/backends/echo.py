"""echo: takes mail, says what it got, and keeps nothing. For tests and benchmarks."""

from mailfront_io.plugin import Backend, Response
from mailfront_io.session import Path
from mailfront_io.spool import Spool

_FIRST_BLOCK = 4096
_FIRST_BLOCK_OF_PACKAGE = 8192
"""Bytes looked at for the log line, as many as the original handles in one block, over SMTP and over QMTP and QMQP."""


class Echo(Backend):
    """Repeats addresses and parameters, counts bytes, logs the first two lines."""

    name = "echo"

    _bytes = 0

    _first: bytes | None = b""
    """Beginning of the first block, until that is logged."""

    _spooled = False

    def reset(self) -> None:
        """The count starts again, and the next block is a first one."""
        self._bytes = 0
        self._first = b""

    def sender(self, path: Path) -> Response:
        """``Sender='ADDR'.`` and each parameter in brackets."""
        text = f"Sender='{path.address}'."
        return Response(250, text + _brackets(path) if path.parameters else text)

    def recipient(self, path: Path) -> Response:
        """``Recipient='ADDR'.`` and each parameter in brackets."""
        text = f"Recipient='{path.address}'."
        return Response(250, text + _brackets(path) if path.parameters else text)

    def data_start(self, spool: Spool | None) -> None:
        """With a spool, added lines are none of the first block: they are logged at the end."""
        self._spooled = spool is not None

    def data_block(self, data: bytes) -> None:
        """Counts. Added lines are the first block, when there are any."""
        self._bytes += len(data)
        first = self._first
        if first is None:
            return
        if self.session.added_lines:
            if not self._spooled:
                self._log_lines(data[:_FIRST_BLOCK])
                self._first = None
            return
        self._first = first = first + data
        if len(first) < _FIRST_BLOCK:
            return
        size = _FIRST_BLOCK_OF_PACKAGE if self.session.protocol_name in ("QMTP", "QMQP") else _FIRST_BLOCK
        if len(first) >= size:
            self._log_lines(first[:size])
            self._first = None

    def data_end(self) -> None:
        """A message shorter than a block is logged now."""
        if self._first:
            self._log_lines(self._first)
            self._first = None

    def message_end(self, spool: Spool | None) -> Response:
        """``Received N bytes.``"""
        if spool is not None:
            self._log_lines(next(spool.blocks(), b"")[:_FIRST_BLOCK])
        return Response(250, f"Received {self._bytes if spool is None else spool.size} bytes.")

    def _log_lines(self, block: bytes) -> None:
        """The first two lines, joined without a separator; an unended second line is left out. For the original a NUL
        is the end of all."""
        if b"\0" in block and self.session.profile.name == "compat":
            block = block.partition(b"\0")[0]
        if block:
            *ended, _ = block.split(b"\n", 2)
            self.session.log(b"".join(ended or [block]).decode("utf-8", "surrogateescape"))


def _brackets(path: Path) -> str:
    return "".join([f" [{parameter}]" for parameter in path.parameters])
