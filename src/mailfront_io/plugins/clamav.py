"""clamav: refuses messages in which ClamAV's daemon finds something."""

from mailfront_io.plugin import Kind, Plugin, Response, Setting
from mailfront_io.scanner import Refused, Scanner, ScannerConnection
from mailfront_io.spool import Spool
from mailfront_proto.clamd import ClamdClient, Scanned, Verdict
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.pull import NEED_DATA

FOUND = "5.7.0 Virus scan failed: {}"
FAILED = Response(451, "4.3.0 Could not virus scan message")
UNRESOLVED = Response(451, "4.3.0 Could not resolve virus scanner hostname")
TOO_LARGE = "Warning: ClamAV scanning skipped: message larger than maximum"

PORT = 3310
_BEFORE_VERDICT = "stream: "


class ClamAV(Plugin):
    """Refuses messages in which clamd finds something.

    All addresses of the host, or hosts, are tried from a random start, until one scans the message. Each step has its
    own time-out: connecting, each block that is sent, the wait for the verdict.
    """

    name = "clamav"
    spools = True
    settings = (
        Setting("CLAMAV_HOST", Kind.TEXT, "where clamd listens: a host name or address, or several with commas"),
        Setting("CLAMD_HOST", Kind.TEXT, "the same, where CLAMAV_HOST is not set"),
        Setting("CLAMAV_PORT", Kind.NUMBER, "its port", str(PORT)),
        Setting("CLAMD_PORT", Kind.NUMBER, "the same, where CLAMAV_PORT is not set"),
        Setting("CLAMAV_PATH", Kind.TEXT, "its unix socket, in place of a host and port"),
        Setting("CLAMAV_TIMEOUT", Kind.NUMBER, "milliseconds to wait for the verdict", "5000"),
        Setting("CLAMD_TIMEOUT", Kind.NUMBER, "the same, where CLAMAV_TIMEOUT is not set"),
        Setting("CLAMAV_CONNECT_TIMEOUT", Kind.NUMBER, "milliseconds for connecting", "CLAMAV_TIMEOUT"),
        Setting("CLAMAV_SEND_TIMEOUT", Kind.NUMBER, "milliseconds for each block that is sent", "CLAMAV_TIMEOUT"),
        Setting("CLAMAV_MAXSIZE", Kind.NUMBER, "bytes; a larger message is not scanned, and passes", "0 (no limit)"),
    )

    async def message_end(self, spool: Spool) -> Response | None:
        """554 where something was found, 451 where that cannot be told."""
        scanner = Scanner(self.session, ("CLAMAV", "CLAMD"), PORT, FAILED, UNRESOLVED)
        if scanner.is_too_large(spool):
            self.session.log(TOO_LARGE)
            return None
        return await scanner.ask(lambda connection: self._scan(connection, spool))

    async def _scan(self, connection: ScannerConnection, spool: Spool) -> Response | None:
        client = ClamdClient(newline=True)
        client.scan()
        for block in spool.blocks():
            client.send_body(block)
            await connection.send(client.data_to_send())
        client.end_of_body()
        await connection.send(client.data_to_send())
        try:
            while (event := client.next_event()) is NEED_DATA:
                data = await connection.recv()
                client.receive_data(data) if data else client.receive_eof()
        except RemoteProtocolError as error:
            text = error.received.decode("utf-8", "surrogateescape")
            if self.session.profile.name == "compat" and text.startswith(_BEFORE_VERDICT):
                return self._found(text)  # the original takes all but "OK" for the name of something bad
            raise
        if not isinstance(event, Scanned):
            raise Refused("it closed the connection without an answer")
        if event.verdict is Verdict.CLEAN:
            return None
        is_found = event.verdict is Verdict.FOUND or self.session.profile.name == "compat"
        if not is_found or not event.text.startswith(_BEFORE_VERDICT):
            raise Refused(event.text)
        return self._found(event.text)

    def _found(self, text: str) -> Response:
        return Response(554, FOUND.format(text.removeprefix(_BEFORE_VERDICT)))
