"""What a server limits (RFC 9422), and what one session has used of it.

Strategy: the server tells three numbers in its EHLO reply, and here is counted against them. Who sends to more
recipients than a transaction or a session takes asks `batch` for those that go next.
"""

from collections.abc import Sequence

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.capabilities import Capabilities


class LimitsUse:
    """The commands of one session, as far as a server counts them: refused ones, too (RFC 9422 section 3)."""

    __slots__ = ("_domains", "_recipients", "_transactions")

    def __init__(self) -> None:
        self._transactions = 0  # in the session
        self._recipients = 0  # in the transaction
        self._domains: set[bytes] = set()  # in the session

    def transaction(self) -> None:
        """A MAIL was sent."""
        self._transactions += 1
        self._recipients = 0

    def recipient(self, address: Address) -> None:
        """A RCPT was sent."""
        self._recipients += 1
        self._domains.add(_domain(address))

    def check_transaction(self, limits: Capabilities) -> None:
        """Whether a MAIL may be sent."""
        most = limits.limit("MAILMAX")
        if most is not None and self._transactions >= most:
            raise LocalProtocolError(
                f"MAIL: the server takes {most} in a session (RFC 9422): call quit(), and connect again for the rest"
            )

    def check_recipient(self, address: Address, limits: Capabilities) -> None:
        """Whether a RCPT may be sent."""
        most = limits.limit("RCPTMAX")
        if most is not None and self._recipients >= most:
            raise LocalProtocolError(
                f"RCPT: the server takes {most} in a transaction (RFC 9422): send the message, and call mail() again "
                "for the other recipients"
            )
        if not self._has_room(self._domains, address, limits):
            raise LocalProtocolError(
                f"RCPT: the server takes {limits.limit('RCPTDOMAINMAX')} domains in a session (RFC 9422): connect "
                "again for the others"
            )

    def batch(self, recipients: Sequence[Address], limits: Capabilities) -> list[int]:
        """Which of `recipients`, by index, one more transaction of this session may name; none if it may not be."""
        most = limits.limit("MAILMAX")
        if most is not None and self._transactions >= most:
            return []
        most = limits.limit("RCPTMAX")
        domains = set(self._domains)
        batch: list[int] = []
        for index, address in enumerate(recipients):
            if len(batch) == most:
                break
            if self._has_room(domains, address, limits):
                domains.add(_domain(address))
                batch.append(index)
        return batch

    @staticmethod
    def _has_room(domains: set[bytes], address: Address, limits: Capabilities) -> bool:
        most = limits.limit("RCPTDOMAINMAX")
        return most is None or len(domains) < most or _domain(address) in domains


def _domain(address: Address) -> bytes:
    return address.domain.lower()
