"""submission: what a submission server may do to a message (RFC 6409 section 8)."""

import os
from itertools import chain

from mailfront_io.ops import Thread
from mailfront_io.plugin import Plugin
from mailfront_io.spool import Spool


class Submission(Plugin):
    """Adds Date and Message-ID to messages that have none. List it before add-received, on listeners where users
    submit mail, and nowhere else: mail from the world is not ours to change. A message whose header has more than 1 MiB
    is left as it is."""

    name = "submission"
    spools = True

    async def message_end(self, spool: Spool) -> None:
        """The header is whole now."""
        header = spool.header()
        if header is None:
            return
        names = _field_names(header)
        lines = b""
        if b"date" not in names:
            from email.utils import formatdate  # most messages have one

            lines += f"Date: {formatdate(self.session.clock.time())}\n".encode("ascii")
        if b"message-id" not in names:
            host = self.session.local_host or "localhost"
            lines += f"Message-ID: <{os.urandom(16).hex()}@{host}>\n".encode("utf-8", "surrogateescape")
        if not lines:
            return
        if not names and header:
            lines += b"\n"  # what there is, is no header
        if spool.descriptor < 0:
            spool.replace(chain([lines], spool.blocks()))
        else:
            await Thread(spool.replace, chain([lines], spool.blocks()))


def _field_names(header: bytes) -> set[bytes]:
    """The names of the fields, in lower case, as far as the first line that is none."""
    names: set[bytes] = set()
    for line in header.split(b"\n"):
        if line[:1] in (b" ", b"\t") and names:
            continue
        name, colon, _ = line.partition(b":")
        name = name.rstrip(b" \t")
        if not colon or not name or any(not 33 <= byte <= 126 for byte in name):
            break
        names.add(name.lower())
    return names
