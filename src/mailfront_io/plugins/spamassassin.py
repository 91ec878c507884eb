"""spamassassin: puts what SpamAssassin's daemon makes of a message in the message's place, and may refuse spam."""

import re

from mailfront_io.plugin import Kind, Plugin, Response, Setting
from mailfront_io.scanner import Refused, Scanner, ScannerConnection
from mailfront_io.spool import Spool
from mailfront_proto.pull import NEED_DATA
from mailfront_proto.spamd import Body, ConnectionClosed, ResponseEnd, SpamdClient
from mailfront_proto.spamd import Response as SpamdResponse

SPAM = "5.3.0 Spam detected, message refused"
FAILED = Response(451, "4.3.0 Could not SpamAssassin scan message")
UNRESOLVED = Response(451, "4.3.0 Could not resolve SpamAssassin hostname")
TOO_LARGE = "Warning: SpamAssassin scanning skipped: message larger than maximum"

PORT = 783

LARGEST_HEADER = 256 * 1024
"""Bytes of the new message in which X-Spam-Status is looked for; spamd puts it near the start."""

_BLANK_LINE = re.compile(rb"^\r?\n", re.MULTILINE)
_SPAM_STATUS = re.compile(rb"^X-Spam-Status: *(Y?)", re.MULTILINE | re.IGNORECASE)


class SpamAssassin(Plugin):
    """Goes on with what spamd makes of each message, and can refuse spam. What was found is in the new header.

    A path comes before hosts. All addresses of the host, or hosts, are tried from a random start, until one processes
    the message. Each step has its own time-out: connecting, each block that is sent, each wait for the answer. The
    message is replaced only once the whole answer is there.
    """

    name = "spamassassin"
    spools = True
    settings = (
        Setting("SPAMD_PATH", Kind.TEXT, "spamd's unix socket, in place of a host and port"),
        Setting("SPAMD_HOST", Kind.TEXT, "where it listens: a host name or address, or several with commas"),
        Setting("SPAMD_PORT", Kind.NUMBER, "its port", str(PORT)),
        Setting("SPAMD_USER", Kind.TEXT, "whose preferences count; unset: spamd's usual ones"),
        Setting("SPAMD_REJECT", Kind.TEXT, "set: spam is refused, with this text if it is not empty", f"unset; {SPAM}"),
        Setting("SPAMD_TIMEOUT", Kind.NUMBER, "milliseconds for each wait for the answer", "5000"),
        Setting("SPAMD_CONNECT_TIMEOUT", Kind.NUMBER, "milliseconds for connecting", "SPAMD_TIMEOUT"),
        Setting("SPAMD_SEND_TIMEOUT", Kind.NUMBER, "milliseconds for each block that is sent", "SPAMD_TIMEOUT"),
        Setting("SPAMD_MAXSIZE", Kind.NUMBER, "bytes; a larger message is not scanned, and passes", "0 (no limit)"),
    )

    async def message_end(self, spool: Spool) -> Response | None:
        """Replaces the message; 554 for spam, if it is to be refused; 451 where spamd gives no whole answer."""
        scanner = Scanner(self.session, ("SPAMD",), PORT, FAILED, UNRESOLVED)
        if scanner.is_too_large(spool):
            self.session.log(TOO_LARGE)
            return None
        await scanner.ask(lambda connection: self._process(connection, spool))
        text = self.session.getenv("SPAMD_REJECT")
        return Response(554, text or SPAM) if text is not None and _is_spam(spool) else None

    async def _process(self, connection: ScannerConnection, spool: Spool) -> None:
        # To the version that the original names spamd answers without a length, so that an answer which was cut off
        # looks like a whole one.
        client = SpamdClient("1.2" if self.session.profile.name == "compat" else "1.5")
        client.request("PROCESS", spool.size, user=self.session.getenv("SPAMD_USER") or "")
        for block in spool.blocks():
            client.send_body(block)
            await connection.send(client.data_to_send())
        client.end_of_body()
        await connection.send(client.data_to_send())
        await connection.send_eof()
        with spool.another() as new:
            while not isinstance(event := client.next_event(), ResponseEnd):
                if event is NEED_DATA:
                    data = await connection.recv()
                    client.receive_data(data) if data else client.receive_eof()
                elif isinstance(event, Body):
                    new.write(event.data)
                elif isinstance(event, ConnectionClosed):
                    raise Refused("it closed the connection without an answer")
                elif isinstance(event, SpamdResponse) and event.code:
                    raise Refused(f"it said {event.code} {event.text}")
            if spool.size and not new.size:
                raise Refused("it answered with an empty message")
            spool.take(new)


def _is_spam(spool: Spool) -> bool:
    head = b""
    for block in spool.blocks():
        head += block
        if _BLANK_LINE.search(head) or len(head) >= LARGEST_HEADER:
            break
    end = _BLANK_LINE.search(head)
    first = _SPAM_STATUS.search(head, 0, end.start() if end else len(head))
    return first is not None and bool(first[1])
