"""Hostile bytes through the pure machine under every split."""

from collections.abc import Callable, Iterable, Sequence

from mailfront_proto.sasl import ServerOptions
from mailfront_proto.smtp import COMPAT, DEFAULT, Profile, SMTPServer
from mailfront_proto.testing import Player, assert_chunk_invariant, few_splits
from tests.proto.server_script import Answer, Outcome, accept_all, player

HELLO = b"EHLO x\r\n"
ENVELOPE = HELLO + b"MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\n"
MESSAGE = [ENVELOPE + b"DATA\r\n"]
"""The segment in front of a message."""


def split_outcome(
    segments: Sequence[bytes],
    profile: Profile = DEFAULT,
    *,
    lmtp: bool = False,
    mechanisms: Sequence[str] = (),
    starttls: bool = False,
    answer: Callable[[], Answer] = lambda: accept_all,
    few: bool = False,
) -> Outcome:
    """What `segments` lead to; that it is the same under every split (or a few) is asserted here."""

    def new() -> Player[SMTPServer]:
        machine = SMTPServer("mx.example.org", profile, lmtp=lmtp)
        machine.sasl = ServerOptions(mechanisms)
        machine.offers_starttls = starttls
        return player(machine, answer())

    outcome = assert_chunk_invariant(new, segments, few_splits(segments) if few else None)
    return Outcome(outcome.events, outcome.output, outcome.ended)


def codes_of(lines: Iterable[str], profile: Profile = DEFAULT, few: bool = False) -> list[int]:
    """The codes of the answers to `lines` behind EHLO (which is left out, as is the greeting)."""
    wire = HELLO + b"".join(line.encode("utf-8", "surrogateescape") + b"\r\n" for line in lines)
    return split_outcome([wire], profile, few=few).codes()[2:]


__all__ = ["COMPAT", "DEFAULT", "ENVELOPE", "HELLO", "MESSAGE", "codes_of", "split_outcome"]
