"""qmail-validate: accepts and refuses by qmail's control files."""

import os
from collections.abc import Callable, Container, Coroutine, Iterator
from typing import Any

from mailfront_io.control_files import Cache, DamagedFile, MissingPackage, Sources, open_cdb, read_list
from mailfront_io.ops import Thread
from mailfront_io.plugin import ACCEPT, Kind, Plugin, Response, Setting
from mailfront_io.rules.decision import Address
from mailfront_io.session import Path, Session
from mailfront_proto.record import record, replace

NO_DIRECTORY = Response(451, "4.3.0 Could not change to the qmail directory.")
NOT_READ = Response(451, "4.3.0 Could not read the qmail control files.")
BAD_SENDER = Response(553, "5.1.0 Sorry, your envelope sender is in my badmailfrom list.")
BAD_RECIPIENT = Response(553, "5.1.1 Sorry, that address is in my badrcptto list.")

QMAIL_HOME = "/var/qmail"


@record(frozen=True)
class ControlFiles:
    """The four lists, entries in lower case. A file that is missing, or cannot be opened, is an empty list.
    `unreadable`: why the first of those that are there cannot be opened; empty: there is none."""

    badmailfrom: Container[bytes]
    badrcptto: Container[bytes]
    rcpthosts: Container[bytes]
    morercpthosts: Container[bytes]
    unreadable: str = ""

    def accepts(self, recipient: Address) -> bool:
        """Whether its domain, or a part of that from a dot on, is listed. In front of the ``@`` is something."""
        domain = recipient.domain
        if domain is None or len(recipient.whole) == len(domain) + 1:
            return False
        return any(name in self.rcpthosts or name in self.morercpthosts for name in _names(domain))


def _names(domain: bytes) -> Iterator[bytes]:
    yield domain
    at = domain.find(b".", 1)
    while at >= 0:
        yield domain[at:]
        at = domain.find(b".", at + 1)


class NoDirectory(Exception):
    """``$QMAILHOME`` is no directory."""


def load_control_files(home: str, sources: Sources) -> ControlFiles:
    """Read them. Raises `NoDirectory`, and `DamagedFile` or `MissingPackage` for a file that is there and cannot be
    used."""
    if not os.path.isdir(home):
        raise NoDirectory(home)
    unreadable: list[str] = []

    def load(name: str, read: Callable[[str, Sources], Container[bytes]]) -> Container[bytes]:
        try:
            return read(os.path.join(home, "control", name), sources)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            unreadable.append(str(error))
        return frozenset()

    files = ControlFiles(
        load("badmailfrom", read_list),
        load("badrcptto", read_list),
        load("rcpthosts", read_list),
        load("morercpthosts.cdb", open_cdb),
    )
    return replace(files, unreadable=unreadable[0]) if unreadable else files


CONTROL_FILES = Cache(load_control_files)
"""Those of this process, by the directory."""


class QmailValidate(Plugin):
    """Refuses senders in `badmailfrom` and recipients in `badrcptto`; accepts other senders, and recipients in the
    domains of `rcpthosts` and `morercpthosts.cdb`. The files are in `control` below `$QMAILHOME`.

    In the compat profile a process that serves one connection goes to that directory, as the original does: relative
    names of files that plugins open from then on start there.
    """

    name = "qmail-validate"
    settings = (Setting("QMAILHOME", Kind.DIRECTORY, "where control is", QMAIL_HOME),)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._files = ControlFiles(frozenset(), frozenset(), frozenset(), frozenset())

    def connect(self) -> Response | Coroutine[Any, Any, Response | None] | None:
        """Takes the files as they are now. Those that have changed are read in a thread."""
        home = self.session.getenv("QMAILHOME")
        home = QMAIL_HOME if home is None else home
        files = CONTROL_FILES.current(home)
        if files is None:
            return self._load(home)
        return self._use(files, home)

    def _use(self, files: ControlFiles, home: str) -> Response | None:
        self._files = files
        if self.session.profile.name != "compat":
            return self._not_read(files.unreadable) if files.unreadable else None
        if self.session.alone:
            try:
                os.chdir(home)
            except OSError:
                return NO_DIRECTORY
        return None

    def _not_read(self, why: str) -> Response:
        self.session.log(f"qmail-validate: {why}")
        return NOT_READ

    async def _load(self, home: str) -> Response | None:
        try:
            return self._use(await Thread(CONTROL_FILES.load, home), home)
        except NoDirectory:
            return NO_DIRECTORY
        except (DamagedFile, MissingPackage) as error:
            return self._not_read(str(error))

    def sender(self, path: Path) -> Response:
        """`badmailfrom`; any other sender is accepted."""
        return BAD_SENDER if Address(path.address).is_in(self._files.badmailfrom) else ACCEPT

    def recipient(self, path: Path) -> Response | None:
        """`badrcptto`, then `rcpthosts`; nothing is said of the rest."""
        address = Address(path.address)
        if address.is_in(self._files.badrcptto):
            return BAD_RECIPIENT
        return ACCEPT if self._files.accepts(address) else None

