"""What follows a login that is not ours to serve: the connection goes to a program.

`hand_off` is the same for IMAP and for POP3: who the program runs as, where, and with which environment. It fails
closed: a user whose id is not known gets no program from a process that runs as root.
"""

import os
from collections.abc import Mapping, Sequence
from errno import ENOENT

from mailfront_io.auth.store import Identity
from mailfront_io.child_environment import child_environment
from mailfront_io.children import HandOff, Ids, SpawnFailed
from mailfront_io.mailboxes.location import open_directory, user_location
from mailfront_io.ops import DeadlineExceeded, Thread
from mailfront_io.session import Session

START_SECONDS = 30.0
"""How long a program may take to start."""


class CannotHandOff(Exception):
    """Nothing was said to the client yet; the text is for the log. `step`: ``ids`` (user, groups, directory),
    ``environment`` (where the mail is) or ``execute``."""

    def __init__(self, text: str, step: str) -> None:
        super().__init__(text)
        self.step = step


async def hand_off(
    session: Session, arguments: Sequence[str], first: bytes, environment: Mapping[str, str] | None = None
) -> int:
    """Hand the connection of `session`, whose user has logged in, to the program `arguments`; returns its exit code.
    A one-shot program is replaced by it, and this does not return.

    `first`: what the client has sent behind its login. `environment`: what the program finds in its own besides the
    session's settings and the facts of the user. Raises `CannotHandOff`.
    """
    identity = session.identity
    assert identity is not None
    ids = None
    if identity.uid is not None and identity.gid is not None:
        ids = Ids(identity.uid, identity.gid, identity.groups)
    if (ids is None and os.geteuid() == 0) or identity.uid == 0:
        raise CannotHandOff(f"{identity.username} has no user id to run a program as", "ids")
    if "HOME" in identity.empty:
        raise CannotHandOff(f"the directory of {identity.username} is empty", "ids")
    try:
        return await HandOff(
            arguments,
            {**child_environment(session), **await _places(session, identity), **(environment or {})},
            first=first,
            directory=identity.directory or None,
            ids=ids,
        )
    except SpawnFailed as error:
        raise CannotHandOff(str(error), "execute" if error.step == "execute" else "ids") from error


async def _places(session: Session, identity: Identity) -> dict[str, str]:
    """Where the mail is: below ``$MAILDIR_ROOT``, if that is set; with ``SETUP_ENV=dovecot`` as Dovecot reads it."""
    root = session.getenv("MAILDIR_ROOT")
    for_dovecot = session.getenv("SETUP_ENV") == "dovecot"
    if not root and not for_dovecot:
        return {}
    deadline = session.clock.monotonic() + START_SECONDS
    try:
        path, is_directory = await Thread(_look_up, root, identity, deadline=deadline)
    except OSError as error:
        raise CannotHandOff(f"the mailbox of {identity.username}: {error.strerror}", "environment") from error
    except DeadlineExceeded:
        raise CannotHandOff(f"the mailbox of {identity.username} cannot be looked at", "environment") from None
    if not path:
        return {}
    if for_dovecot:
        path = f"{'maildir' if is_directory else 'mbox'}:{path.replace(':', '::')}"
    places = dict.fromkeys(("MAIL", "MAILBOX", "MAILDIR"), path)
    return {"DOVECONF_ENV": "1", **places} if for_dovecot else places


def _look_up(root: str | None, identity: Identity) -> tuple[str, bool]:
    """The path of the user's mailbox, empty if nobody knows it, and whether it is a directory. Raises `OSError`: a
    directory below `root` that is not there, or leads out of it."""
    if not root or identity.mailbox.startswith("/"):  # the program starts in the user's directory
        return identity.mailbox, os.path.isdir(os.path.join(identity.directory, identity.mailbox))
    location = user_location(os.path.abspath(root), identity.username, identity.mailbox)
    if location is None:
        raise FileNotFoundError(ENOENT, os.strerror(ENOENT))
    os.close(open_directory(location))
    return str(location), True
