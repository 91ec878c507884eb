"""DNS questions and answers, by dnspython: text to wire and back, checked and capped. No I/O.

What comes from the DNS comes from whoever owns the name: hosts in answers are names as RFC 1123 and custom have them,
or left out, and a record set is cut at a size that no honest one has.
"""

import re
from typing import Any, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

PAYLOAD = 1232
"""Bytes of an answer by UDP that we ask for: they arrive unfragmented (DNS flag day 2020)."""

MAX_MESSAGE = 16 * 1024
"""Bytes of an answer that we read at all: a message full of records takes a while to take apart."""

MAX_RECORDS = 64
MAX_ANSWER_BYTES = 16 * 1024

_ASKABLE = re.compile(r"[A-Za-z0-9_\-\u0080-\U0010ffff]+(?:\.[A-Za-z0-9_\-\u0080-\U0010ffff]+)*\.?")
_HOST = re.compile(r"(?!.{254})[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


class Answer(NamedTuple):
    """A usable answer: records as `mailfront_io.peers.Resolve` has them, and seconds that they hold."""

    records: tuple[Any, ...]
    ttl: int


class NotOurs(Exception):
    """A message that does not answer the question; wait for another."""


class Truncated(Exception):
    """The whole answer is to be had by TCP."""


class Unusable(Exception):
    """The server cannot or will not answer; the text says why."""


def make_question(name: str, kind: str) -> dns.message.QueryMessage | None:
    """The question, with a random id; None: no such name can exist."""
    if not _ASKABLE.fullmatch(name):
        return None
    try:
        question = dns.message.make_query(
            dns.name.from_text(name), kind, use_edns=0, payload=PAYLOAD, flags=dns.flags.RD
        )
        question.to_wire()
    except (dns.exception.DNSException, UnicodeError):  # a label too long, the whole too long
        return None
    return question


def read_answer(question: dns.message.QueryMessage, wire: bytes) -> Answer:
    """The answer to `question` in `wire`. Raises NotOurs, Truncated, Unusable."""
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        raise NotOurs from error
    if not question.is_response(message) or not isinstance(message, dns.message.QueryMessage):
        raise NotOurs
    if message.flags & dns.flags.TC:
        raise Truncated
    if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise Unusable(f"the name server said {dns.rcode.to_text(message.rcode())}")
    try:
        found = message.resolve_chaining()
    except dns.exception.DNSException as error:
        raise Unusable(f"the answer makes no sense ({type(error).__name__})") from error
    return Answer(_records(found.answer) if found.answer is not None else (), found.minimum_ttl)


def _records(answer: Any) -> tuple[Any, ...]:
    records: list[Any] = []
    size = 0
    for rdata in answer:
        if answer.rdtype == dns.rdatatype.MX:
            host = _host(rdata.exchange)
            record: Any = None if host is None else (rdata.preference, host)
            size += len(host or "")
        elif answer.rdtype == dns.rdatatype.TXT:
            record = b"".join(rdata.strings)
            size += len(record)
        else:
            record = rdata.address
        if record is not None:
            records.append(record)
        if len(records) >= MAX_RECORDS or size >= MAX_ANSWER_BYTES:
            break
    if answer.rdtype == dns.rdatatype.MX:
        records.sort()
    return tuple(records)


def _host(name: dns.name.Name) -> str | None:
    if name == dns.name.root:
        return "."
    text = name.to_text(omit_final_dot=True).lower()
    return text if _HOST.fullmatch(text) else None
