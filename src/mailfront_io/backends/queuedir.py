"""queuedir: a directory of message files with their envelopes, for another program to pick up.

A file holds: sender NUL, each recipient NUL, NUL, message. It is built in one directory and linked into
another, so that a reader of that one never sees half of it. `mailfront queue` reads such files and hands them on.
"""

import os

from mailfront_io import durable
from mailfront_io.ops import Thread
from mailfront_io.plugin import Backend, Kind, Response, Setting
from mailfront_io.session import Envelope, Path
from mailfront_io.spool import Spool

MISSING = Response(451, "4.3.0 Missing backend configuration parameter")
CANNOT_CREATE = Response(451, "4.3.0 Error creating queue file")
CANNOT_WRITE = Response(451, "4.3.0 Error writing queue file")
NO_WAY_THERE = Response(451, "4.3.0 Internal error.")

_checked: set[str] = set()
"""The directories in which files could be made, when this process looked at them last."""


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

    prefix = ""
    """What the names of the settings begin with: the plugin rbl writes messages, too."""

    _building = _final = ""

    def _setting(self, name: str) -> str | None:
        return self.session.getenv(self.prefix + name)

    async def sender(self, path: Path) -> Response | None:
        """A directory that cannot be written is known now, where this process has not written there yet."""
        root = self._setting("QUEUEDIR")
        if root is None or (not root and self.session.profile.name != "compat"):
            return MISSING
        building, final = self._setting("QUEUEDIR_TMP"), self._setting("QUEUEDIR_DEST")
        self._building = f"{root}/{'tmp' if building is None else building}"
        self._final = f"{root}/{'new' if final is None else final}"
        if self._building in _checked:
            return None
        try:
            if self.session.profile.name == "compat":
                await Thread(_look_into, self._building, self._final)
        except OSError as error:
            return self._failed(NO_WAY_THERE, root, error)
        try:
            await Thread(_check, self._building, self._mode, commit=True)
        except OSError as error:
            return self._failed(CANNOT_CREATE, self._building, error)
        _checked.add(self._building)
        return None

    async def message_end(self, spool: Spool | None) -> Response | None:
        """Makes, writes, syncs and links the file, in one go."""
        session = self.session
        if not self._building or session.envelope.sender is None:
            return CANNOT_WRITE
        assert spool is not None
        sync = self._setting("QUEUEDIR_NOSYNC") is None
        envelope = _envelope(session.envelope)
        now = session.clock.time()
        try:
            name = await Thread(
                _store, self._building, self._final, now, self._mode, envelope, spool, sync, commit=True
            )
        except OSError as error:
            _checked.discard(self._building)
            return self._failed(CANNOT_WRITE, self._final, error)
        if session.id and session.profile.name != "compat":
            session.log(f"queuedir: {os.path.join(self._final, name)}")
        return None

    @property
    def _mode(self) -> int:
        # Private by default; the original leaves it to the umask.
        return 0o666 if self.session.profile.name == "compat" else 0o600

    def _failed(self, response: Response, path: str, error: OSError) -> Response:
        if self.session.profile.name != "compat":
            self.session.log(f"queuedir: {path}: {error.strerror}")
        return response


def _look_into(*directories: str) -> None:
    """The original begins by looking whether the name of its file is there already. Raises what it finds in place of
    an answer; a directory that is missing has no such file."""
    for directory in directories:
        try:
            os.stat(f"{directory}/0.000000.0")
        except FileNotFoundError:
            pass


def _check(building: str, mode: int) -> None:
    with durable.open_directory(building) as directory:
        durable.remove_leftovers(directory)
        durable.NewFile(directory, mode).discard()


def _store(
    building: str, final: str, now: float, mode: int, envelope: bytes, spool: Spool, sync: bool
) -> str:
    """The name of the file."""
    with (
        durable.open_directory(building) as built_in,
        durable.open_directory(final) as readers_look_in,
        durable.NewFile(built_in, mode) as file,
    ):
        file.write([envelope])
        file.write(spool.blocks())
        return file.publish(readers_look_in, lambda: "{}.{:06}.{}".format(*durable.TIMES.next(now), os.getpid()), sync)


def _envelope(envelope: Envelope) -> bytes:
    assert envelope.sender is not None
    paths = [envelope.sender, *envelope.recipients]
    return b"".join(p.address.encode("utf-8", "surrogateescape") + b"\0" for p in paths) + b"\0"
