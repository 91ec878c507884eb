"""maildir: delivery into a maildir (cr.yp.to/proto/maildir.html): tmp, fsync, link into new, fsync."""

import itertools
import os

from mailfront_io import durable
from mailfront_io.ops import Thread
from mailfront_io.plugin import Backend, Kind, Response, Setting
from mailfront_io.spool import Spool

MISSING = Response(451, "4.3.0 Missing backend configuration parameter")
CANNOT_STORE = Response(451, "4.3.0 Could not store the message")

_counter = itertools.count(1)


class Maildir(Backend):
    """Delivers every message to the maildir ``$MAILDIR_PATH``, once, whoever its recipients are.

    The Return-Path line that final delivery adds (RFC 5321 section 4.4) stands in front.
    """

    name = "maildir"
    spools = True
    settings = (
        Setting("MAILDIR_PATH", Kind.DIRECTORY, "the maildir, with tmp, new and cur in it", required=True),
    )

    async def message_end(self, spool: Spool | None) -> Response | None:
        """The message is on disk under its final name when this answers."""
        assert spool is not None
        session = self.session
        maildir = session.getenv("MAILDIR_PATH")
        if not maildir:
            return MISSING
        if session.envelope.sender is None:
            return CANNOT_STORE
        return_path = f"Return-Path: <{session.envelope.sender.address}>\n"
        try:
            await Thread(
                _deliver,
                maildir,
                session.clock.time(),
                return_path.encode("utf-8", "surrogateescape"),
                spool,
                commit=True,
            )
        except OSError as error:
            session.log(f"maildir: {maildir}: {error.strerror}")
            return CANNOT_STORE
        return None


def unique_name(now: float) -> str:
    """A name that no other delivery has: time, microseconds, process, count in it, and host."""
    seconds, microseconds = divmod(int(now * 1_000_000), 1_000_000)
    host = os.uname().nodename.replace("/", r"\057").replace(":", r"\072").replace(",", r"\054")
    return f"{seconds}.M{microseconds:06}P{os.getpid()}Q{next(_counter)}.{host}"


def _deliver(maildir: str, now: float, return_path: bytes, spool: Spool) -> None:
    name = unique_name(now)
    temporary = os.path.join(maildir, "tmp", name)
    descriptor = durable.create(temporary, 0o600)
    lines = size = 0
    try:
        for block in itertools.chain([return_path], spool.blocks()):
            durable.write_blocks(descriptor, [block])
            size += len(block)
            lines += block.count(b"\n")
    except OSError:
        durable.discard(descriptor, temporary)
        raise
    # S is the size on disk, W the size with CRLF line ends: POP3 need not read the file for either.
    final = os.path.join(maildir, "new", f"{name},S={size},W={size + lines}")
    try:
        durable.publish(descriptor, temporary, final)
    except OSError:
        durable.discard(None, temporary)
        raise
