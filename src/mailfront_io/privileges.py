"""Giving up being root."""

import grp
import os
import pwd

from mailfront_proto.record import record


class BadUser(ValueError):
    """A user or group cannot be had: one sentence with the remedy."""


@record(frozen=True)
class User:
    """Who a process is to be. `groups`: the supplementary ones."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    def become(self) -> None:
        """Be this user, and nobody else ever again. Raises OSError."""
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


def find_user(user: str | None, group: str | None) -> User | None:
    """The user and group of these names; None if there is nothing to change. Raises `BadUser`."""
    if user is None:
        if group is not None:
            raise BadUser(f"group is {group}, and there is no user: write user = NAME, too")
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise BadUser(f"there is no user {user}: make one, or name another") from None
    try:
        gid = grp.getgrnam(group).gr_gid if group is not None else entry.pw_gid
    except KeyError:
        raise BadUser(f"there is no group {group}: make one, or name another") from None
    if os.geteuid() != 0:
        if entry.pw_uid == os.geteuid():
            return None
        raise BadUser(f"only root can become {user}: start mailfront as root, or as {user}")
    return User(entry.pw_uid, gid, tuple(os.getgrouplist(user, gid)))
