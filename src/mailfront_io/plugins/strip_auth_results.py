"""strip-auth-results: no Authentication-Results of others that claim to be ours (RFC 8601 section 5)."""

from collections.abc import Iterator
from itertools import chain

from mailfront_io.ops import Thread
from mailfront_io.plugin import Kind, Plugin, Response, Setting
from mailfront_io.spool import Spool
from mailfront_proto.lazy_patterns import compile_later

FIELD = b"authentication-results"
MAX_IDENTITY = 1000
"""Bytes of a field in which its name must end; nobody honest needs so many comments in front of it."""
TOO_LONG = Response(554, "5.6.0 The header is too long")

_FIELD_STARTS = compile_later(rb"(?<=\n)(?![ \t])")  # only LF ends a line; what begins with a blank goes on


class StripAuthResults(Plugin):
    """Removes Authentication-Results fields that claim to come from this server.

    Who filters mail behind this server believes these fields if they bear our name, so a message from the world may
    bring none. List it before the plugin or the program that adds real ones. Fields of other names stay; those without
    one in their first 1,000 bytes go. A message whose header has more than 1 MiB is refused.
    """

    name = "strip-auth-results"
    spools = True
    settings = (
        Setting("AUTHSERV_IDS", Kind.LIST, "the names that only our own fields may bear", "the local host name"),
    )

    async def message_end(self, spool: Spool) -> Response | None:
        """The header is whole now."""
        header = spool.header()
        if header is None:
            return TOO_LONG
        if FIELD not in header.lower():
            return None
        listed = self.session.getenv("AUTHSERV_IDS") or self.session.local_host or ""
        ours = {_folded(name.encode("utf-8", "surrogateescape")) for name in listed.split(":") if name}
        kept = b"".join(field for field in _FIELD_STARTS.split(header) if not _claims(field, ours))
        if len(kept) == len(header):
            return None
        message = chain([kept], _behind(spool.blocks(), len(header)))
        if spool.descriptor < 0:
            spool.replace(message)
        else:
            await Thread(spool.replace, message)
        return None


def _claims(field: bytes, ours: set[bytes]) -> bool:
    """Whether a field is an Authentication-Results of `ours`, or of nobody."""
    name, _, value = field.partition(b":")
    if name.strip().lower() != FIELD:
        return False
    identity = _identity(value)
    return not identity or identity in ours


def _identity(value: bytes) -> bytes:
    """The authserv-id: a token or a quoted string, with comments around it; nothing where it is too far off."""
    found = bytearray()
    depth, quoted, at = 0, False, 0
    while at < len(value):
        if at >= MAX_IDENTITY:
            return b""
        byte = value[at : at + 1]
        if byte == b"\\" and (depth or quoted):
            at += 1
            byte = value[at : at + 1]
            if not depth:
                found += byte
        elif quoted:
            if byte == b'"':
                break
            found += byte
        elif byte == b"(":
            if found:
                break
            depth += 1
        elif byte == b")" and depth:
            depth -= 1
        elif depth:
            pass
        elif byte == b'"' and not found:
            quoted = True
        elif byte in b";/":
            break
        elif byte.isspace():
            if found:
                break
        else:
            found += byte
        at += 1
    return _folded(bytes(found))


def _folded(name: bytes) -> bytes:
    return name.strip().rstrip(b".").lower()


def _behind(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """All but the first `size` bytes."""
    for block in blocks:
        yield block[size:]
        size = max(size - len(block), 0)
