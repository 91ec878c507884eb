"""What a server offers in its answer to EHLO and LHLO (RFC 5321 section 4.1.1.1), as lines.

Most servers give the same answer to nearly all of their clients, so the last few are kept. What a client has sent is no
part of them.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from mailfront_proto.smtp.replies import encode_reply

# The extensions that a machine can offer by itself, in the order of their lines.
_IN_ORDER: Final = (
    *("8BITMIME", "BINARYMIME", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES", "LIMITS", "PIPELINING", "REQUIRETLS"),
    "SMTPUTF8",
)

Facts = tuple[frozenset[str], int | None, int | None, tuple[str, ...], bool, bool, bool]
"""What the offers depend on: the extensions that are allowed; the limits of a message's octets and of its recipients;
the SASL mechanisms; whether TLS is in use, whether it can be had, and whether XCLIENT is understood."""


@lru_cache(maxsize=64)
def offers(facts: Facts) -> Mapping[str, str]:
    """The machine's own capability lines, by keyword."""
    extensions, size, recipients, mechanisms, in_tls, starttls, xclient = facts
    lines: dict[str, str] = {}
    if size is not None and "SIZE" in extensions:
        lines["SIZE"] = f"SIZE {size}"
    if mechanisms:
        lines["AUTH"] = "AUTH " + " ".join(mechanisms)
    lines.update((keyword, keyword) for keyword in _IN_ORDER if keyword in extensions)
    if "CHUNKING" not in extensions:  # RFC 3030 section 3
        lines.pop("BINARYMIME", None)
    if not in_tls:  # RFC 8689 section 2
        lines.pop("REQUIRETLS", None)
    if recipients is None or not 0 < recipients < 1_000_000:  # RFC 9422 section 3: at most 6 digits
        lines.pop("LIMITS", None)
    elif "LIMITS" in lines:
        lines["LIMITS"] = f"LIMITS RCPTMAX={recipients}"
    if starttls and not in_tls:
        lines["STARTTLS"] = "STARTTLS"
    if xclient:
        from mailfront_proto.smtp.xclient import XCLIENT_ATTRIBUTES

        lines["XCLIENT"] = "XCLIENT " + " ".join(XCLIENT_ATTRIBUTES)
    return lines


@lru_cache(maxsize=64)
def answer_to_ehlo(hostname: str, first: tuple[str, ...], facts: Facts) -> tuple[bytes, frozenset[str]]:
    """The wire form of the answer, and the keywords in it. `first`: the application's lines, which go first and take
    the place of the machine's own."""
    theirs = {line.split(" ", 1)[0].upper() for line in first}
    ours = {keyword: line for keyword, line in offers(facts).items() if keyword not in theirs}
    return encode_reply(250, "\n".join([hostname, *first, *ours.values()]), None), frozenset((*theirs, *ours))
