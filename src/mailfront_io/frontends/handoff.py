"""What follows a login that is not ours to serve: the connection goes to a program.

`hand_off` is the same for IMAP and for POP3: who the program runs as, where, and with which environment. It fails
closed: a user whose id is not known gets no program from a process that runs as root.
"""

import os
from collections.abc import Mapping, Sequence

from mailfront_io.children import HandOff, Ids, SpawnFailed
from mailfront_io.ops import DeadlineExceeded, Thread
from mailfront_io.session import Session

START_SECONDS = 30.0
"""How long a program may take to start."""


class CannotHandOff(Exception):
    """Nothing was said to the client yet; the text is for the log. `step`: ``ids`` (user, groups, directory) or
    ``execute``."""

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
    try:
        return await HandOff(
            arguments,
            {**session.exported_env(), **await _places(session, identity.mailbox), **(environment or {})},
            first=first,
            directory=identity.directory or None,
            ids=ids,
        )
    except SpawnFailed as error:
        raise CannotHandOff(str(error), "execute" if error.step == "execute" else "ids") from error


async def _places(session: Session, mailbox: str) -> dict[str, str]:
    """``SETUP_ENV=dovecot``: the mailbox as Dovecot's programs read it."""
    if session.getenv("SETUP_ENV") != "dovecot":
        return {}
    found = {"DOVECONF_ENV": "1"}
    if mailbox:
        deadline = session.clock.monotonic() + START_SECONDS
        try:
            is_directory = await Thread(os.path.isdir, mailbox, deadline=deadline)
        except DeadlineExceeded:
            raise CannotHandOff(f"{mailbox} cannot be looked at", "ids") from None
        place = f"{'maildir' if is_directory else 'mbox'}:{mailbox.replace(':', '::')}"
        found |= dict.fromkeys(("MAIL", "MAILBOX", "MAILDIR"), place)
    return found
