"""A maildir as the mailbox of one session (cr.yp.to/proto/maildir.html).

Strategy: two directory descriptors, `cur` and `new`, and the names of the messages in them; everything else is read
off the names when it is asked for. Nothing is locked: a maildir needs no lock for deliveries, other programs would not
heed ours, and a client that hangs would keep its user out. So messages come, go, and change their names while we look;
one that has a new name is found again by the part of it that stays.

All methods block, and are called through `mailfront_io.ops.Thread`; but `close` and `read_already`, which never do.
"""

import os
from _thread import allocate_lock  # `threading` is slow to import, for a program that starts for each connection
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import EBADF, EEXIST, EINVAL
from itertools import compress, count, islice
from stat import S_ISREG

from mailfront_io.mailboxes import maildir_names as names_
from mailfront_io.mailboxes.location import Location, open_directory, open_subdirectory

PIECE = 16 * 1024
"""Bytes of a message that are read at once: large ones are streamed with little memory, most are read whole."""

AHEAD = 128 * 1024
"""Bytes of messages that are read before they are asked for: who takes one after the other saves most of the ways
through a thread, which cost more than the reading."""

_AT_ONCE = 500
"""Messages whose sizes are asked for in one go."""

_NO_LIMIT = 1 << 62
_IN_NEW = "\0"  # behind a name, which has none, it changes no order

_READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # non-blocking: a FIFO would wait for a writer


class CannotOpen(Exception):
    """A mailbox cannot be opened. `answer`: what a client may know of it; `cause`: the error; the text is for the
    log."""

    def __init__(self, answer: str, location: Location, cause: OSError) -> None:
        part = f"/{cause.filename}" if cause.filename in ("cur", "new") else ""
        super().__init__(f"maildir: {location}{part}: {cause.strerror}")
        self.answer = answer
        self.cause = cause


class MaildirMailbox:
    """The maildir at `location`, for one session.

    `max_messages`, `max_cur`, `max_new`: as many messages are taken at most, in all and of either directory, in the
    order in which the directory has them; 0: no limit. `compat`: number messages of the same second, and cut UIDs, as
    the original did.
    """

    def __init__(
        self,
        location: Location,
        *,
        max_messages: int = 0,
        max_cur: int = 0,
        max_new: int = 0,
        compat: bool = False,
    ) -> None:
        self.location = location
        self._limits = max_messages, max_cur, max_new
        self._compat = compat
        self._cur = self._new = self._message = -1
        self._names: list[str] = []
        self._in_new = bytearray()
        self._renamed: Mapping[str, str] | None = None
        self._ahead: dict[int, bytes] = {}
        self._last = 0  # the message that was begun last
        self.sizes: Sequence[int] = ()
        """The octets of each message."""
        self.uids: Sequence[bytes] = ()
        """The unique-id of each message."""
        self.read: Sequence[int] = ()
        """The numbers of the messages that are marked read."""
        self._lock = allocate_lock()
        self._working = False
        self._closed = False

    # -- opening and closing -------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the maildir and look what is in it. Raises `CannotOpen`."""
        with self._at_work():
            try:
                directory = open_directory(self.location)
            except OSError as error:
                raise CannotOpen("Could not chdir to maildir", self.location, error) from error
            try:
                self._cur = open_subdirectory("cur", directory)
                self._new = open_subdirectory("new", directory)
            except OSError as error:
                raise CannotOpen("Could not access maildir", self.location, error) from error
            finally:
                os.close(directory)
            self._scan()

    def scan(self) -> None:
        """Look again what is in it. Raises `CannotOpen`; what was known is then known still."""
        with self._at_work():
            self._scan()

    def close(self) -> None:
        """Let go of it: at once, or as soon as the call ends that is still at work in some thread."""
        with self._lock:
            self._closed = True
            if not self._working:
                self._close_all()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise OSError(EBADF, os.strerror(EBADF))
            self._working = True
        try:
            yield
        finally:
            self._end_work()

    def _end_work(self) -> None:
        with self._lock:
            self._working = False
            if self._closed:
                self._close_all()

    def _close_all(self) -> None:
        self._close_message()
        for descriptor in (self._cur, self._new):
            if descriptor >= 0:
                os.close(descriptor)
        self._cur = self._new = -1

    # -- what is in it ---------------------------------------------------------------------------------------

    def _scan(self) -> None:
        of_all, of_cur, of_new = (limit or _NO_LIMIT for limit in self._limits)
        try:
            names = _messages(self._cur, min(of_cur, of_all))
            new = _messages(self._new, min(of_new, of_all - len(names)))
            names += [name + _IN_NEW for name in new]
            names_.sort(names, by_number_alone=self._compat)
            are_new = bytearray(len(names))
            if new:
                are_new = bytearray([name[-1] == _IN_NEW for name in names])
                names = [name.rstrip(_IN_NEW) for name in names]
            sizes = self._measure(names, are_new)
        except OSError as error:
            raise CannotOpen("Could not access maildir", self.location, error) from error
        self._names = names
        self._in_new = are_new
        self.sizes = sizes
        self.uids = names_.UniqueIds(names, cut=self._compat)
        self.read = names_.read_numbers(names)
        self._renamed = None
        self._ahead.clear()
        self._last = 0

    def _measure(self, names: list[str], are_new: bytearray) -> "array[int]":
        """The size of each message. In the lists, those that were moved since they were found get their new names, and
        those that are gone are left out."""
        sizes = array("Q")
        moved: dict[str, str] | None = None
        for at in range(0, len(names), _AT_ONCE):
            end = at + _AT_ONCE
            try:
                sizes.fromlist(self._sizes(names[at:end], are_new[at:end]))
            except FileNotFoundError:
                if moved is None:
                    known = frozenset(names)
                    moved = {key: name for key, name in self._names_in_cur().items() if name not in known}
                for index, name in enumerate(names[at:end], at):
                    names[index], are_new[index], size = self._find(name, are_new[index], moved)
                    sizes.append(size)
        if moved is not None:
            sizes = array("Q", compress(sizes, names))
            are_new[:] = bytes(compress(are_new, names))
            names[:] = filter(None, names)
        return sizes

    def _find(self, name: str, is_new: int, moved: dict[str, str]) -> tuple[str, int, int]:
        """What a message is called now, whether it is in `new`, and its size; without a name: it is gone."""
        for name_now, is_new_now in ((name, is_new), (moved.pop(_proper(name), ""), 0)):
            try:
                return name_now, is_new_now, self._sizes([name_now], bytes((is_new_now,)))[0]
            except FileNotFoundError:
                pass
        return "", 0, 0

    def _sizes(self, names: list[str], are_new: bytes | bytearray) -> list[int]:
        """The size of each as its name says, or else the file. Raises `OSError`."""
        stat, places = os.stat, (self._cur, self._new)
        marked = "=" in "".join(names)
        return [
            (marked and names_.size(name)) or stat(name, dir_fd=places[is_new], follow_symlinks=False).st_size
            for name, is_new in zip(names, are_new, strict=True)
        ]

    # -- a message ---------------------------------------------------------------------------------------------

    def read_already(self, number: int) -> bytes | None:
        """The whole message, if it was read ahead; this never blocks."""
        data = self._ahead.pop(number, None)
        if data is not None:
            self._last = number
        return data

    def begin_message(self, number: int) -> tuple[bytes, bool]:
        """The first piece of a message, and whether there is more. Raises `OSError`: it is gone, or no file.

        Where this is the message behind the last one, small ones that follow are read as well, for `read_already`."""
        with self._at_work():
            self._close_message()
            self._ahead.clear()
            in_order = number == self._last + 1
            data, self._message = self._read(number, PIECE)
            self._last = number
            if in_order and self._message < 0:
                self._read_ahead(number + 1)
            return data, self._message >= 0

    def _read(self, number: int, most: int) -> tuple[bytes, int]:
        """The first piece of a message, `most` bytes at most, and a descriptor for the rest; -1: there is none."""
        descriptor = self._open(number)
        try:
            status = os.fstat(descriptor)
            if not S_ISREG(status.st_mode):
                raise OSError(EINVAL, "not a regular file")
            data = os.read(descriptor, most)
        except BaseException:
            os.close(descriptor)
            raise
        if len(data) < status.st_size:
            return data, descriptor
        os.close(descriptor)
        return data, -1

    def _read_ahead(self, number: int) -> None:
        room = AHEAD
        while number <= len(self._names) and self.sizes[number - 1] <= min(room, PIECE):
            try:
                data, rest = self._read(number, PIECE)
            except OSError:
                return  # it will be said when it is asked for
            if rest >= 0:
                os.close(rest)
                return
            self._ahead[number] = data
            room -= max(len(data), 512)
            number += 1

    def next_piece(self) -> tuple[bytes, bool]:
        """The next piece of the message that was begun, and whether there may be more. Raises `OSError`."""
        with self._at_work():
            data = os.read(self._message, PIECE)
            if not data:
                self._close_message()
            return data, bool(data)

    def _open(self, number: int) -> int:
        name = self._names[number - 1]
        try:
            return os.open(name, _READ_ONLY, dir_fd=self._directory(number))
        except FileNotFoundError:
            if self._renamed is None:
                self._renamed = self._names_in_cur()
            other = self._renamed.get(_proper(name))
            if other is None:
                raise
            return os.open(other, _READ_ONLY, dir_fd=self._cur)

    def _close_message(self) -> None:
        if self._message >= 0:
            os.close(self._message)
            self._message = -1

    def _directory(self, number: int) -> int:
        return self._new if self._in_new[number - 1] else self._cur

    # -- the end of the session --------------------------------------------------------------------------------

    @property
    def has_new(self) -> bool:
        """There are messages in `new`: `update` moves them. This never blocks."""
        return 1 in self._in_new

    def update(self, deleted: Sequence[int], read: Sequence[int]) -> tuple[int, list[OSError]]:
        """Delete the messages of these numbers, mark those read, and move what is in `new` to `cur`.

        Returns how many of those deleted are still there, and the errors. A message that is gone is no error. One call
        in a thread does it all, so that no deadline comes in between."""
        with self._at_work():
            self._renamed = None
            errors: list[OSError] = []
            for number in deleted:
                try:
                    self._delete(number)
                except OSError as error:
                    errors.append(error)
            left = len(errors)
            gone = frozenset(deleted)
            seen = frozenset(read)
            for number in sorted((seen | set(compress(count(1), self._in_new))) - gone):
                name = self._names[number - 1]
                target = names_.with_seen(name) if number in seen else name
                if self._in_new[number - 1] or target is not name:
                    try:
                        self._move(number, target)
                    except FileNotFoundError:
                        continue  # another session has moved or deleted it
                    except OSError as error:
                        errors.append(error)
            return left, errors

    def _delete(self, number: int) -> None:
        name = self._names[number - 1]
        try:
            os.unlink(name, dir_fd=self._directory(number))
        except FileNotFoundError:
            if self._renamed is None:
                self._renamed = self._names_in_cur()
            other = self._renamed.get(_proper(name))
            if other is not None:
                try:
                    os.unlink(other, dir_fd=self._cur)
                except FileNotFoundError:
                    return  # it is gone, and that is what was wanted

    def _move(self, number: int, target: str) -> None:
        try:
            os.stat(target, dir_fd=self._cur, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(self._names[number - 1], target, src_dir_fd=self._directory(number), dst_dir_fd=self._cur)
        else:  # a rename would destroy it
            raise OSError(EEXIST, os.strerror(EEXIST))

    def _names_in_cur(self) -> dict[str, str]:
        """The names in `cur` as they are now, by the part that stays."""
        return {_proper(name): name for name in _messages(self._cur, _NO_LIMIT)}


def _proper(name: str) -> str:
    """The part of a name that stays: all in front of the flags."""
    return name.partition(":")[0]


def _messages(directory: int, limit: int) -> list[str]:
    """The names of the messages in a directory, `limit` at most, in its order: regular files that are not hidden."""
    with os.scandir(directory) as entries:
        names = (entry.name for entry in entries if entry.name[0] != "." and entry.is_file(follow_symlinks=False))
        return list(islice(names, limit))
