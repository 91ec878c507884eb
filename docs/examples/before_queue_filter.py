"""A before-queue filter: mailfront stands in front of a mail server, looks into every message while its client still
waits, and hands on what it lets pass.

    python before_queue_filter.py [LISTEN [NEXT-HOP]]        127.0.0.1:10025 127.0.0.1:10026

For Postfix, in master.cf (the filter speaks SMTP on both sides; nothing is stored here):

    smtp            inet n - n - 20 smtpd -o smtpd_proxy_filter=127.0.0.1:10025
    127.0.0.1:10026 inet n - n - 20 smtpd -o smtpd_authorized_xforward_hosts=127.0.0.1

A message with a program among its attachments is refused, and its sender hears why. What the next hop says is what the
client hears, and the client's 250 is the next hop's.
"""

import os
import socket
import sys
from collections.abc import Iterable
from email.header import decode_header, make_header
from email.parser import BytesFeedParser

from mailfront_io.drivers import asyncio as driver
from mailfront_io.drivers.listener import Listener
from mailfront_io.ops import Thread
from mailfront_io.plugin import CheckFailed, Plugin, Response
from mailfront_io.service import Service
from mailfront_io.spool import Spool

PROGRAMS = (".bat", ".cmd", ".com", ".exe", ".js", ".msi", ".scr", ".vbs")


class NoPrograms(Plugin):
    """Refuses messages that have a program attached, by its file name."""

    name = "no-programs"
    spools = True

    async def message_end(self, spool: Spool) -> Response | None:
        """The message is whole. To take it apart may take a while: in a thread, other sessions go on."""
        try:
            name = await Thread(attached_program, spool.blocks())
        except (LookupError, ValueError) as error:
            raise CheckFailed(Response(554, "5.6.0 The name of an attachment cannot be read"), str(error)) from error
        return Response(554, f"5.7.1 {name}: no programs, please") if name else None


def attached_program(blocks: Iterable[bytes]) -> str:
    """The file name of the first attached program; empty if there is none."""
    parser = BytesFeedParser()
    for block in blocks:
        parser.feed(block)
    for part in parser.close().walk():
        name = str(make_header(decode_header(part.get_filename(""))))
        if name.lower().rstrip(". ").endswith(PROGRAMS):
            return name
    return ""


def main(listen: str = "127.0.0.1:10025", next_hop: str = "127.0.0.1:10026") -> None:
    """Serve until SIGTERM. Whoever can connect may send mail to anyone, so that is only this machine."""
    settings = {"UPSTREAM": next_hop, "EHLO_DISCARD": "BINARYMIME:DSN", **os.environ}
    service = Service("smtp", "smtp", ["counters", NoPrograms, "accept"], settings, log)
    service.check_required()
    host, _, port = listen.rpartition(":")
    with socket.create_server((host, int(port))) as listening:
        log(f"listening on port {listening.getsockname()[1]}")
        driver.run_server([Listener(listening, service.session)])


def log(line: str) -> None:
    """One line, on standard error."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
