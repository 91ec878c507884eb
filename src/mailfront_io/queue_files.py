"""Files of the queuedir backend, read and handed on: what `mailfront queue` does.

A file is taken by a lock (flock) on it, which ends with who took it. So two may deliver one directory at a time, and
neither waits for the other; and a file that is gone from its place by the time it is locked was delivered by somebody
else. It is removed once the program that it was handed to has said that it has it. If the machine stops between these
two, the program gets it twice: better than not at all.
"""

import fcntl
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum

from mailfront_proto.record import record

MAX_ENVELOPE = 16 * 1024 * 1024
"""Bytes of an envelope; a file whose envelope is longer is none of ours. 1,000 recipients have 256 KiB."""


class NotQueued(Exception):
    """The file is no queuedir file, or cannot be read; the text says why."""


@record(frozen=True)
class Queued:
    """What a queuedir file holds: `sender` and `recipients` as they came, and the message from the octet `message_at`
    on, `size` octets of it, with LF line ends."""

    sender: str
    recipients: Sequence[str]
    message_at: int
    size: int


def read_envelope(descriptor: int) -> Queued:
    """Read the envelope of an open file. Raises `NotQueued`."""
    data, at = b"", 0
    addresses: list[bytes] = []
    while True:
        end = data.find(b"\0", at)
        if end < 0:
            block = _read(descriptor, len(data)) if len(data) < MAX_ENVELOPE else b""
            if not block:
                raise NotQueued("it does not begin with an envelope")
            data += block
            continue
        if end == at and addresses:
            break
        addresses.append(data[at:end])
        at = end + 1
    if len(addresses) < 2:
        raise NotQueued("it has no recipient")
    sender, *recipients = [address.decode("utf-8", "surrogateescape") for address in addresses]
    return Queued(sender, recipients, end + 1, os.fstat(descriptor).st_size - end - 1)


def _read(descriptor: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, 65536, offset)
    except OSError as error:
        raise NotQueued(error.strerror) from error


def files_of(directory: str) -> list[str]:
    """The paths of the queue's files, the oldest first. `directory`: a queue, whose files are in its ``new`` (or
    ``$QUEUEDIR_DEST``), or that directory itself. Raises `OSError`."""
    inner = os.path.join(directory, os.environ.get("QUEUEDIR_DEST", "new"))
    place = inner if os.path.isdir(inner) else directory
    with os.scandir(place) as entries:
        found = [entry.name for entry in entries if entry.name[0] != "." and entry.is_file(follow_symlinks=False)]
    return [os.path.join(place, name) for name in sorted(found)]


@contextmanager
def taken(path: str) -> Iterator[int | None]:
    """The file at `path`, open and locked, for the block; None: somebody else has it, or had it. Raises `NotQueued`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise NotQueued(error.strerror) from error
    try:
        yield descriptor if _lock(descriptor, path) else None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: str) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))  # or it was delivered before we had the lock
    except (BlockingIOError, FileNotFoundError):
        return False


class Form(Enum):
    """How a program takes a message."""

    QMAIL_QUEUE = "qmail-queue"
    """The message on descriptor 0, the envelope on descriptor 1 (qmail-queue(8))."""
    SENDMAIL = "sendmail"
    """The message on descriptor 0, the envelope as arguments: ``-f SENDER -- RECIPIENT…`` (sendmail(8))."""


def hand_on(
    descriptor: int, queued: Queued, program: Sequence[str], form: Form, seconds: float, environment: Mapping[str, str]
) -> int | None:
    """Run `program` with the message of an open file; its exit code, or minus the signal's number, or None if it was
    killed, with its process group, because it took more than `seconds`. Raises `OSError`: it cannot be started.

    It gets files and no pipes, so nothing here can wait for anything but its end.
    """
    arguments = [*program]
    if form is Form.SENDMAIL:
        arguments += ["-f", queued.sender, "--", *queued.recipients]
    with tempfile.TemporaryFile() as envelope:
        if form is Form.QMAIL_QUEUE:
            recipients = "".join(f"T{recipient}\0" for recipient in queued.recipients)
            envelope.write(f"F{queued.sender}\0{recipients}\0".encode("utf-8", "surrogateescape"))
            envelope.seek(0)
        os.lseek(descriptor, queued.message_at, os.SEEK_SET)
        with subprocess.Popen(
            arguments,
            stdin=descriptor,
            stdout=envelope if form is Form.QMAIL_QUEUE else subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        ) as process:
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def remove(path: str) -> None:
    """Remove a file that was handed on, for good. Raises `OSError`."""
    os.unlink(path)
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
