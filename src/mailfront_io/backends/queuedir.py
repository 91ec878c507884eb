"""queuedir: a directory of message files with their envelopes, for another program to pick up.

A file holds: sender NUL, each recipient NUL, NUL, message. It is built in one directory and linked into
another, so that a reader of that one never sees half of it.
"""

import os
from _thread import allocate_lock

from mailfront_io import durable
from mailfront_io.ops import Thread
from mailfront_io.plugin import Backend, Kind, Response, Setting
from mailfront_io.session import Envelope, Path
from mailfront_io.spool import Spool

MISSING = Response(451, "4.3.0 Missing backend configuration parameter")
CANNOT_CREATE = Response(451, "4.3.0 Error creating queue file")
CANNOT_WRITE = Response(451, "4.3.0 Error writing queue file")


class QueueDir(Backend):
    """Writes each message to ``$QUEUEDIR``."""

    name = "queuedir"
    spools = True
    settings = (
        Setting("QUEUEDIR", Kind.DIRECTORY, "the directory that holds the two below", required=True),
        Setting("QUEUEDIR_TMP", Kind.TEXT, "in it, where files are built", "tmp"),
        Setting("QUEUEDIR_DEST", Kind.TEXT, "in it, where complete files are linked", "new"),
        Setting("QUEUEDIR_NOSYNC", Kind.FLAG, "do not wait for the disk: faster, and a crash may lose mail"),
    )

    _descriptor: int | None = None
    _temporary = ""
    _final = ""

    async def sender(self, path: Path) -> Response | None:
        """Makes the file, so that a directory that cannot be written is known now."""
        getenv = self.session.getenv
        root = getenv("QUEUEDIR")
        if not root:
            return MISSING
        building = os.path.join(root, getenv("QUEUEDIR_TMP") or "tmp")
        final = os.path.join(root, getenv("QUEUEDIR_DEST") or "new")
        # Private by default; the original leaves it to the umask.
        mode = 0o666 if self.session.profile.name == "compat" else 0o600
        try:
            self._descriptor, name = await Thread(_create, building, self.session.clock.time(), mode, commit=True)
        except OSError as error:
            self._log(building, error)
            return CANNOT_CREATE
        self._temporary = os.path.join(building, name)
        self._final = os.path.join(final, name)
        return None

    async def message_end(self, spool: Spool | None) -> Response | None:
        """Writes, syncs and links the file, in one go."""
        if self._descriptor is None or self.session.envelope.sender is None:
            return CANNOT_WRITE
        assert spool is not None
        descriptor, self._descriptor = self._descriptor, None
        sync = self.session.getenv("QUEUEDIR_NOSYNC") is None
        try:
            await Thread(
                _store,
                descriptor,
                self._temporary,
                self._final,
                _envelope(self.session.envelope),
                spool,
                sync,
                commit=True,
            )
        except OSError as error:
            self._log(self._final, error)
            return CANNOT_WRITE
        return None

    def reset(self) -> None:
        """Nothing stays behind."""
        if self._descriptor is not None:
            durable.discard(self._descriptor, self._temporary)
            self._descriptor = None

    def _log(self, path: str, error: OSError) -> None:
        if self.session.profile.name != "compat":
            self.session.log(f"queuedir: {path}: {error.strerror}")


class _UniqueTimes:
    """Times in microseconds, each later than any that this process has had before, also when the clock is set
    back. A name whose file has moved on must not come again: it could not be linked."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._last = 0

    def next(self, now: float) -> int:
        """`now`, or a little later."""
        with self._lock:
            self._last = max(int(now * 1_000_000), self._last + 1)
            return self._last


_times = _UniqueTimes()


def _create(directory: str, now: float, mode: int) -> tuple[int, str]:
    while True:
        seconds, microseconds = divmod(_times.next(now), 1_000_000)
        name = f"{seconds}.{microseconds:06}.{os.getpid()}"
        try:
            return durable.create(os.path.join(directory, name), mode), name
        except FileExistsError:
            continue  # another process of our number, in a container that shares the directory


def _envelope(envelope: Envelope) -> bytes:
    assert envelope.sender is not None
    paths = [envelope.sender, *envelope.recipients]
    return b"".join(p.address.encode("utf-8", "surrogateescape") + b"\0" for p in paths) + b"\0"


def _store(descriptor: int, temporary: str, final: str, envelope: bytes, spool: Spool, sync: bool) -> None:
    try:
        durable.write_blocks(descriptor, [envelope])
        durable.write_blocks(descriptor, spool.blocks())
    except OSError:
        durable.discard(descriptor, temporary)
        raise
    try:
        durable.publish(descriptor, temporary, final, sync)
    except OSError:
        durable.discard(None, temporary)
        raise
