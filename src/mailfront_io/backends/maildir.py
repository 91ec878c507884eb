"""maildir: delivery into maildirs (cr.yp.to/proto/maildir.html): written, synced, linked into new, synced.

Into one maildir, whoever the recipients are; or into each recipient's own, which a pattern names, or the credential
store, so that POP3 finds it in the same place.
"""

import errno
import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping

from mailfront_io import durable
from mailfront_io.auth.asking import asker_for
from mailfront_io.auth.store import StoreUnavailable
from mailfront_io.mailboxes.location import Location, open_directory, open_subdirectory, user_location
from mailfront_io.ops import DeadlineExceeded, Thread
from mailfront_io.plugin import Backend, Kind, Response, Setting
from mailfront_io.session import ForwardPath, Session, fold, parse_number
from mailfront_io.spool import Spool

MISSING = Response(451, "4.3.0 Missing backend configuration parameter")
CANNOT_STORE = Response(451, "4.3.0 Could not store the message")
CANNOT_LOOK_UP = Response(451, "4.3.0 Could not look up that recipient")
NO_MAILBOX = Response(550, "5.1.1 There is no mailbox of that name")
FULL = Response(452, "4.2.2 That mailbox is full")
TOO_BIG = Response(552, "5.2.3 The message is larger than a mailbox may be")
STORED = Response(250)

LOOKUP_SECONDS = 60.0
"""How long the credential store may take for one recipient. A client waits for 300 seconds."""

_counter = itertools.count(1)

_swept: set[str] = set()
"""The maildirs that this process has freed of leftovers."""

_MANY = 10_000
"""Names in `_swept` at which it is begun anew."""


class Maildir(Backend):
    """Delivers to maildirs: once to each, whoever of the recipients it belongs to.

    The Return-Path line that final delivery adds (RFC 5321 section 4.4) stands in front.
    """

    name = "maildir"
    spools = True
    settings = (
        Setting(
            "MAILDIR_PATH",
            Kind.DIRECTORY,
            "the maildir of all mail; or each recipient's, with %u (the address), %n (its local part), %d (its domain)",
            required=True,
            unless="MAILDIR_ROOT",
        ),
        Setting("MAILDIR_ROOT", Kind.DIRECTORY, "where recipients that $AUTH_STORE knows have theirs, as in POP3"),
        Setting("MAILDIR_CREATE", Kind.FLAG, "make the maildir of a recipient that has none"),
        Setting("MAILDIR_QUOTA", Kind.NUMBER, "bytes in a maildir at which it takes no more mail", "no limit"),
        Setting("AUTH_STORE", Kind.TEXT, "where recipients are looked up: KIND:NAME"),
    )

    @classmethod
    def configure(cls, environment: Mapping[str, str], log: Callable[[str], None]) -> None:
        """Refuses a pattern that stands for nothing."""
        _variables(environment.get("MAILDIR_PATH") or "")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._locations: dict[ForwardPath, Location] = {}

    def reset(self) -> None:
        """No recipients."""
        self._locations.clear()

    async def recipient(self, path: ForwardPath) -> Response | None:
        """Refuses who has no mailbox here, and who has a full one."""
        getenv = self.session.getenv
        pattern, root = getenv("MAILDIR_PATH"), getenv("MAILDIR_ROOT")
        if not pattern and not root:
            return MISSING
        own = not pattern or "%" in pattern
        found = fill(pattern, path.address) if pattern else await self._look_up(root or "", path.address)
        if not isinstance(found, Location):
            return found
        quota = parse_number(getenv("MAILDIR_QUOTA")) or 0
        if own or quota:
            creates = own and getenv("MAILDIR_CREATE") is not None
            try:
                used = await Thread(_used, found, creates, bool(quota), commit=creates)
            except OSError as error:
                return self._failed(found, error.strerror)
            if used is None:
                return NO_MAILBOX if own else self._failed(found, os.strerror(errno.ENOENT))
            declared = self._declared_size()
            if quota and declared > quota:
                return TOO_BIG
            if quota and used + declared >= quota:
                return FULL
        self._locations[path] = found
        return None

    async def _look_up(self, root: str, address: str) -> Location | Response:
        """The mailbox of the user that the address names, or its local part."""
        store = self.session.credentials
        if store is None:
            return MISSING
        asker = asker_for(self.session, self.session.clock.monotonic() + LOOKUP_SECONDS)
        try:
            for name in (address, address.rpartition("@")[0]):
                identity = await store.look_up(name, asker) if name else None
                if identity is not None:
                    return user_location(root, identity.username, identity.mailbox) or NO_MAILBOX
        except (StoreUnavailable, DeadlineExceeded) as error:
            self.session.log(f"maildir: {error}")
            return CANNOT_LOOK_UP
        return NO_MAILBOX

    def _declared_size(self) -> int:
        sender = self.session.envelope.sender
        return (sender.options.size or 0) if sender is not None else 0

    async def message_end(self, spool: Spool | None) -> Response | list[Response]:
        """The message is on disk, under its final name in each maildir, when this answers."""
        assert spool is not None
        envelope = self.session.envelope
        recipients = envelope.recipients
        if envelope.sender is None or any(path not in self._locations for path in recipients):
            return CANNOT_STORE
        quota = parse_number(self.session.getenv("MAILDIR_QUOTA")) or 0
        if quota and spool.size > quota:
            return TOO_BIG
        return_path = f"Return-Path: <{envelope.sender.address}>\n".encode("utf-8", "surrogateescape")
        locations = [self._locations[path] for path in recipients]
        now = self.session.clock.time()
        failed = await Thread(_deliver, dict.fromkeys(locations), now, return_path, spool, commit=True)
        answers = {location: self._failed(location, why) for location, why in failed.items()}
        return [answers.get(location, STORED) for location in locations]

    def _failed(self, location: Location, why: str | None) -> Response:
        self.session.log(f"maildir: {location}: {why}")
        return CANNOT_STORE


def fill(pattern: str, address: str) -> Location | Response:
    """The maildir that ``$MAILDIR_PATH`` stands for. What is variable in it is a name, or a part of one, and leads
    nowhere out of the directory that is not. Raises `ValueError` for a pattern that stands for nothing."""
    variables = _variables(pattern)
    if not variables:
        return Location(pattern)
    local, domain = address.rsplit("@", 1) if "@" in address else (address, "")
    values = {"u": fold(address), "n": fold(local), "d": fold(domain)}
    if any(not values[key] or "/" in values[key] for key in variables):
        return NO_MAILBOX
    root, slash, _ = pattern.partition("%")[0].rpartition("/")
    below = pattern[len(root + slash) :].rstrip("/")
    return Location(_VARIABLE.sub(lambda found: values[found[1]], below), root or (slash or "."))


def _variables(pattern: str) -> list[str]:
    variables: list[str] = _VARIABLE.findall(pattern)
    unknown = [key for key in variables if key not in ("u", "n", "d")]
    if unknown:
        raise ValueError(f"$MAILDIR_PATH: %{unknown[0]} is none of %u, %n and %d: write one of them")
    return variables


_VARIABLE = re.compile("%(.?)", re.DOTALL)
_SIZE = re.compile(r",S=([0-9]{1,15})(?![0-9])")


def _used(location: Location, create: bool, count: bool) -> int | None:
    """The bytes in a maildir, if they are to be counted. None: there is none, and none is to be made, or can be.
    Raises `OSError`: it cannot be delivered to."""
    try:
        directory = _open(location)
    except FileNotFoundError:
        if not create or location.root is None or "." in {part[:1] for part in location.path.split("/")}:
            return None
        directory = _create(location, location.root)
    try:
        for name in ("tmp", "new"):
            os.close(open_subdirectory(name, directory))
        return _bytes_in(directory) if count else 0
    finally:
        os.close(directory)


def _open(location: Location) -> int:
    """A descriptor of the maildir. A name that no file could have is one that is not there."""
    try:
        return open_directory(location)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
        raise


def _create(location: Location, root: str) -> int:
    """Make the maildir, below its root, and what leads to it; its descriptor."""
    above = Location(root)
    parts = location.path.split("/")
    for count, name in enumerate(parts, 1):
        _make_directory(_open(above), name)
        above = Location("/".join(parts[:count]), root)
    for name in ("cur", "tmp", "new"):
        _make_directory(_open(location), name)
    return _open(location)


def _make_directory(above: int, name: str) -> None:
    """Make it, if it is not there, so that it lasts; closes the descriptor of the one above."""
    try:
        os.mkdir(name, 0o700, dir_fd=above)
        os.fsync(above)
    except FileExistsError:
        return
    finally:
        os.close(above)


def _bytes_in(maildir: int) -> int:
    """The bytes of all messages, of those in Maildir++ folders, too; most names say their size."""
    total = 0
    folders = [".", *(name for name in os.listdir(maildir) if name.startswith("."))]
    for part in [f"{folder}/{name}" for folder in folders for name in ("cur", "new")]:
        try:
            descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=maildir)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            total += sum(_size(name, descriptor) for name in os.listdir(descriptor))
        finally:
            os.close(descriptor)
    return total


def _size(name: str, directory: int) -> int:
    found = _SIZE.search(name)
    if found is not None:
        return int(found[1])
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0  # it was moved or removed just now


def _deliver(locations: Iterable[Location], now: float, return_path: bytes, spool: Spool) -> dict[Location, str]:
    """Store the message in each maildir; why it is not in some of them."""
    failed = {}
    for location in locations:
        try:
            _deliver_to(location, now, return_path, spool)
        except OSError as error:
            failed[location] = error.strerror or str(error)
    return failed


def _deliver_to(location: Location, now: float, return_path: bytes, spool: Spool) -> None:
    opened: list[int] = []
    try:
        opened.append(_open(location))
        for name in ("tmp", "new"):
            opened.append(open_subdirectory(name, opened[0]))
        _, tmp, new = opened
        if str(location) not in _swept:
            if len(_swept) >= _MANY:
                _swept.clear()
            durable.remove_leftovers(tmp)
            _swept.add(str(location))
        with durable.NewFile(tmp, 0o600) as file:
            lines = return_path.count(b"\n")
            file.write([return_path])
            for block in spool.blocks():
                file.write([block])
                lines += block.count(b"\n")
            # S is the size on disk, W the size with CRLF line ends: POP3 need not read the file for either.
            size = len(return_path) + spool.size
            file.publish(new, lambda: f"{unique_name(now)},S={size},W={size + lines}")
    finally:
        for descriptor in opened:
            os.close(descriptor)


def unique_name(now: float) -> str:
    """A name that no other delivery has: time, microseconds, process, count in it, and host."""
    seconds, microseconds = divmod(int(now * 1_000_000), 1_000_000)
    host = os.uname().nodename.replace("/", r"\057").replace(":", r"\072").replace(",", r"\054")
    return f"{seconds}.M{microseconds:06}P{os.getpid()}Q{next(_counter)}.{host}"
