"""The client role of QMQP, as a pull machine: used as `mailfront_proto.qmtp.client.QMTPClient` is, for one message."""

from collections.abc import Iterable

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.qmtp.client import PackageClient
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.replies import Reply


class QMQPClient(PackageClient):
    """One session: one message, one response that holds for all its recipients; then the connection ends."""

    def __init__(self) -> None:
        super().__init__(one_response=True, window=1)

    def send_message(self, sender: Address | str, recipients: Iterable[Address | str], size: int) -> None:
        """Begin the message: ``send_body()`` follows, then ``end_of_body()``; its lines end in LF. Arguments as in
        `mailfront_proto.qmtp.client.QMTPClient.send_message`."""
        sender_netstring, recipients_netstrings = self._begin(sender, recipients, size)
        head = b"%d:" % size
        tail = b"," + sender_netstring + recipients_netstrings
        total = len(head) + size + len(tail)
        if len(str(total)) > 10:
            self._messages.clear()
            raise LocalProtocolError(f"send_message(): a package of {total} bytes has a length of over 10 digits")
        self._put(b"%d:%b" % (total, head))
        self._messages[-1].tail = tail + b","

    def _message_done(self) -> None:
        self._end("done", Reply(451, ""))
