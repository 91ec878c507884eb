"""Which enhanced status code stands for a reply that has none of its own (RFC 2034 section 4: every 2yz, 4yz and 5yz
reply carries one). The meanings are those of RFC 3463 section 3 and of the IANA registry that grew from it.

Strategy: two tables. What a code means as the answer to one event stands in the first; what it means anywhere in the
second. A code that is used for many causes gets no more than its subject (a 550 or 553 to RCPT is ``5.1.0``, "other
address status"), or just its class, ``x.0.0``: what is too exact would often be wrong.
"""

from collections.abc import Mapping
from typing import Final

from mailfront_proto.smtp.events import Event, Mail, MessageEnd, Recipient

_AS_ANSWER: Final[Mapping[tuple[type[Event], int], str]] = {
    (Mail, 250): "2.1.0",  # other address status
    (Mail, 450): "4.1.0",
    (Mail, 550): "5.1.0",
    (Mail, 552): "5.3.4",  # message too big for system: RFC 1870 section 6.1
    (Mail, 553): "5.1.0",
    (Recipient, 250): "2.1.5",  # destination address valid
    (Recipient, 550): "5.1.0",
    (Recipient, 552): "5.2.2",  # mailbox full
    (Recipient, 553): "5.1.0",
    (MessageEnd, 250): "2.6.0",  # other media status
    (MessageEnd, 552): "5.3.4",
    (MessageEnd, 554): "5.6.0",
}

_ANYWHERE: Final[Mapping[int, str]] = {
    235: "2.7.0",  # RFC 4954 section 6, as the next of these
    421: "4.3.2",  # system not accepting network messages: RFC 5321 section 4.2.2, "service not available"
    432: "4.7.12",  # a password transition is needed
    450: "4.2.0",  # other mailbox status: "mailbox unavailable"
    451: "4.3.0",  # other mail system status: "local error in processing"
    452: "4.3.1",  # "insufficient system storage"
    453: "4.3.2",
    454: "4.7.0",  # temporary authentication failure; TLS not available now (RFC 3207 section 4)
    455: "4.5.4",  # invalid command arguments: "unable to accommodate parameters"
    500: "5.5.2",  # syntax error
    501: "5.5.4",
    502: "5.5.1",  # invalid command
    503: "5.5.1",
    504: "5.5.4",
    521: "5.3.2",  # RFC 7504 section 3
    530: "5.7.0",  # authentication required
    534: "5.7.9",  # the mechanism is too weak
    535: "5.7.8",  # authentication credentials invalid
    538: "5.7.11",  # encryption is needed for this mechanism
    552: "5.2.2",  # "exceeded storage allocation"
    555: "5.5.4",
    556: "5.1.10",  # the domain has a null MX: RFC 7505 section 4.2
}


def enhanced_code(kind: type[Event | None], code: int) -> str:
    """The enhanced status code for `code` as the answer to an event of `kind`."""
    return _AS_ANSWER.get((kind, code)) or _ANYWHERE.get(code) or f"{code // 100}.0.0"  # type: ignore[arg-type]
