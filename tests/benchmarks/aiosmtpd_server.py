"""aiosmtpd as a peer: its own server class and its own sink, on one event loop, with no thread between.

    python tests/benchmarks/aiosmtpd_server.py PORT-FILE [CERTIFICATE]

Prints nothing; PORT-FILE gets one HOST:PORT line, as from `mailfront serve`.
"""

import asyncio
import logging
import ssl
import sys
from pathlib import Path

from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP

# Above the 25 MiB of the large cases; its default (32 MiB) would do for them on
# the wire as well, but only just.
_SIZE_LIMIT = 64 * 1024 * 1024


async def serve(port_file: Path, certificate: Path | None) -> None:
    context: ssl.SSLContext | None = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Sink(), data_size_limit=_SIZE_LIMIT, tls_context=context, hostname="server.example"),
        "127.0.0.1",
        0,
        # asyncio's default of 100 overflows when 500 connections come for S4.
        backlog=1024,
    )
    host, port = server.sockets[0].getsockname()
    unfinished = port_file.with_suffix(".new")
    unfinished.write_text(f"{host}:{port}\n")
    unfinished.rename(port_file)
    await server.serve_forever()


if __name__ == "__main__":
    # It logs every command at INFO and a warning where its class is used by hand.
    logging.disable(logging.CRITICAL)
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
