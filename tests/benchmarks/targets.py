"""What the benchmark measures and what it holds the results against: all of it data, in this one place.

A target is a ratio of server CPU to C mailfront's in the same run, because
rates and absolute times drift by a fifth and more from machine to machine and
from hour to hour, while the ratio of two servers measured in turn stays. Only
memory (S4) has an absolute target, in kB for each idle connection: it does not
depend on who else uses the machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Unit(Enum):
    """What one result counts: printed behind the number."""

    MESSAGE = "µs/message"
    MEGABYTE = "ms/MB"
    CONNECTION = "kB/connection"
    START = "ms/start"
    SESSION = "ms/session"
    RETRIEVAL = "µs/RETR"


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table: what it is called, what happens in it, how it is counted."""

    name: str
    title: str
    unit: Unit


CASES: tuple[Case, ...] = (
    Case("S1", "one 1 KiB message per connection, 20 at once", Unit.MESSAGE),
    Case("S1src", "the same, sent by Postfix's smtp-source", Unit.MESSAGE),
    Case("S2", "100 messages per connection, lock-step", Unit.MESSAGE),
    Case("S2src", "the same, sent by Postfix's smtp-source", Unit.MESSAGE),
    Case("S2ten", "S2 through ten plugins that wait for nothing, beside accept alone", Unit.MESSAGE),
    Case("S2Q", "100 messages per connection, envelope pipelined", Unit.MESSAGE),
    Case("S2P", "100 messages per connection, everything pipelined", Unit.MESSAGE),
    Case("S3", "25 MiB message, lines of 76 columns", Unit.MEGABYTE),
    Case("S3dot", "25 MiB message, every line short and dot-stuffed", Unit.MEGABYTE),
    Case("R1", "the same as S1, handed on to a next server by ours, to a synced queue by the original", Unit.MESSAGE),
    Case("D1", "the same as S1, into queuedir, synced; the original's queuedir", Unit.MESSAGE),
    Case("D2", "the same as S1, into a maildir, synced; the original's queuedir", Unit.MESSAGE),
    Case("D3", "the same as S1, to a program in the place of qmail-queue", Unit.MESSAGE),
    Case("S4", "memory (PSS) of an idle connection after EHLO", Unit.CONNECTION),
    Case("S4TLS", "the same under TLS (STARTTLS)", Unit.CONNECTION),
    Case("S5", "one shot: exec to greeting", Unit.START),
    Case("P1", "POP3 session over 1,000 messages (STAT, LIST, UIDL)", Unit.SESSION),
    Case("P2", "RETR pipelined, 4 KiB", Unit.RETRIEVAL),
    Case("P3", "POP3 session over 100,000 messages", Unit.SESSION),
    Case("Q1", "QMTP, 100 packages per connection, each behind the response to the last", Unit.MESSAGE),
    Case("Q1W", "QMTP, 1,000 packages per connection, 50 before their responses", Unit.MESSAGE),
    Case("Q2", "QMQP, one package per connection, 20 at once", Unit.MESSAGE),
    Case("W1", "S1 with two workers, beside one", Unit.MESSAGE),
    Case("W2", "100 messages per connection, 20 at once, with two workers, beside one", Unit.MESSAGE),
)

# Our drivers, in the order of the columns. "asyncio" is the standard library's
# loop, "uvloop" the same driver on uvloop.
DRIVERS: tuple[str, ...] = ("uvloop", "asyncio", "trio", "blocking")

C_MAILFRONT = "C mailfront"
POSTFIX = "Postfix"
BARE_PYTHON = "python -c pass"

ALONE = " alone"
"""Behind the name of one of our drivers: what S2ten (`accept` alone), W1 and W2 (one worker alone) compare it with."""


def _row(uvloop: float, asyncio: float, trio: float, blocking: float) -> Mapping[str, float]:
    return {"uvloop": uvloop, "asyncio": asyncio, "trio": trio, "blocking": blocking}


_S1 = _row(0.15, 0.25, 0.40, 0.25)
_S2 = _row(0.90, 1.4, 3.0, 1.5)
_S2_PIPELINED = _row(0.80, 0.90, 1.5, 1.0)

_P1 = _row(1.0, 1.0, 1.2, 1.0)

_TWO_WORKERS = _row(1.15, 1.15, 1.15, 1.15)

# Ratios of CPU to C mailfront, in S2ten, W1 and W2 to the same driver alone. These are limits that a change may not
# pass, not goals to stop at.
RATIO_TARGETS: Mapping[str, Mapping[str, float]] = {
    "S1": _S1,
    "S1src": _S1,
    "S2": _S2,
    "S2src": _S2,
    "S2ten": _row(1.1, 1.1, 1.1, 1.1),
    "S2Q": _S2_PIPELINED,
    "S2P": _S2_PIPELINED,
    "S3": _row(0.70, 0.70, 0.80, 0.70),
    "S3dot": _row(0.90, 0.90, 1.0, 0.90),
    "R1": _row(1.0, 1.0, 1.0, 1.0),
    "D1": _row(1.0, 1.0, 1.0, 1.0),
    "D2": _row(1.0, 1.0, 1.0, 1.0),
    "D3": _row(1.0, 1.0, 1.0, 1.0),
    "P1": _P1,
    "P2": _row(1.3, 1.5, 2.5, 1.3),
    "P3": _P1,
    "Q1": _row(0.8, 1.2, 2.5, 1.2),
    "Q1W": _row(2.0, 2.5, 4.0, 2.5),
    "Q2": _S1,
    "W1": _TWO_WORKERS,
    "W2": _TWO_WORKERS,
}

# The smaller part of the connections that one of two workers may have, in W1 and W2.
SHARE_TARGET = 0.30

_S4 = _row(12, 12, 25, 60)

# kB of PSS for each connection; TLS may take 30 kB more, most of it OpenSSL's.
MEMORY_TARGETS: Mapping[str, Mapping[str, float]] = {
    "S4": _S4,
    "S4TLS": {driver: limit + 30 for driver, limit in _S4.items()},
}

# The one-shot program's CPU up to its greeting, as a multiple of a Python that
# does nothing: most of what it may spend goes on imports.
START_TARGET = 4.0

# The pure core, as ratios in one process. COMMAND is an upper limit (time of a
# MAIL or RCPT with its event and reply, over the time of one precompiled
# re.match and one bytes.partition of the same line); the BODY ones are lower
# limits (speed of the body path over that of chunk.replace(b"\r\n", b"\n"), in
# chunks of 64 KiB).
CORE_COMMAND_TARGET = 12.0
CORE_BODY_TARGET = 0.6
CORE_BODY_DOTS_TARGET = 0.35

# How much more a byte may cost when a session that is fed byte by byte becomes
# eight times as long. Calls are counted exactly, and what is not linear in them
# stands out at once; time is noisy, but 8 is what quadratic work in C would give.
CORE_LINEAR_CALLS_TARGET = 1.05
CORE_LINEAR_TIME_TARGET = 2.0


def case(name: str) -> Case:
    """The case of that name; KeyError names the ones that exist."""
    for known in CASES:
        if known.name == name:
            return known
    raise KeyError(f"no case {name!r}; there are: {', '.join(known.name for known in CASES)}, core")
