"""Hostile bytes through the pure machine under every split."""

from collections.abc import Callable, Iterable, Sequence

from mailfront_proto.smtp import COMPAT, DEFAULT, Profile, SMTPServer
from tests.proto.server_script import Answer, Outcome, accept_all, play
from tests.splits import every_split, few_splits

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
    whole: Outcome | None = None
    for pieces in few_splits(segments) if few else every_split(segments):
        machine = SMTPServer("mx.example.org", profile, lmtp=lmtp)
        machine.mechanisms = mechanisms
        machine.offers_starttls = starttls
        outcome = play(machine, pieces, answer())
        if whole is None:
            whole = outcome
        assert outcome == whole, pieces
    assert whole is not None
    return whole


def codes_of(lines: Iterable[str], profile: Profile = DEFAULT, few: bool = False) -> list[int]:
    """The codes of the answers to `lines` behind EHLO (which is left out, as is the greeting)."""
    wire = HELLO + b"".join(line.encode("utf-8", "surrogateescape") + b"\r\n" for line in lines)
    return split_outcome([wire], profile, few=few).codes()[2:]


__all__ = ["COMPAT", "DEFAULT", "ENVELOPE", "HELLO", "MESSAGE", "codes_of", "split_outcome"]
