"""The cases of QMTP and QMQP: what their clients say, how responses are checked, and the servers."""

from collections.abc import Iterable
from dataclasses import replace

from tests.benchmarks.loadgen import RECEIVED, Refused, Script, Step, shown
from tests.benchmarks.scripts import PER_CONNECTION, RECIPIENT, SENDER, SMALL
from tests.benchmarks.servers import OURS, PEERS, Kind, Place, c_program, serving, tcpserver

PROTOCOLS = {"Q1": "qmtp", "Q1W": "qmtp", "Q2": "qmqp"}
"""What each case speaks."""

WINDOW = 50
"""Packages that the client of Q1W sends before it waits for their responses."""

WINDOWS = 20
"""How often it does, on each connection."""

_MESSAGE = SMALL.replace(b"\r\n", b"\n")


def netstring(content: bytes) -> bytes:
    """`content` as a netstring."""
    return b"%d:%b," % (len(content), content)


def answered(step: Step, data: bytes) -> bool:
    """Whether `data` is the whole answer to the step: a response for each of its codes: ``K``, ``Z`` or ``D``.

    Raises:
        Refused: a response has the wrong letter, there is one too many, or the size is not ours.
    """
    for code in step.codes:
        length, colon, rest = data.partition(b":")
        if not length.isdigit() and (length or colon):
            raise Refused(f"expected a response, got {shown(data)}")
        if not colon or len(rest) <= int(length):
            return False
        response, data = rest[: int(length)], rest[int(length) :]
        if data[:1] != b"," or response[:1] != code:
            raise Refused(f"expected {code.decode()}, got {shown(response)}")
        count = RECEIVED.search(response)
        if step.size is not None and count and int(count[1]) != step.size:
            raise Refused(f"the message has {step.size} bytes, the server says {shown(response)}")
        data = data[1:]
    if data:
        raise Refused(f"more than the expected responses: {shown(data)}")
    return True


def script(case: str) -> Script:
    """What one connection says."""
    if case == "Q2":
        inner = netstring(_MESSAGE) + netstring(SENDER) + netstring(RECIPIENT)
        return Script((_step(netstring(inner), 1),), answered=answered)
    one = netstring(b"\n" + _MESSAGE) + netstring(SENDER) + netstring(netstring(RECIPIENT))
    steps = (_step(one, 1),) * PER_CONNECTION if case == "Q1" else (_step(one * WINDOW, WINDOW),) * WINDOWS
    return Script(steps, closes=False, answered=answered)


def _step(send: bytes, messages: int) -> Step:
    return Step(send, (b"K",) * messages, messages, len(_MESSAGE))


def kinds(case: str, wanted: Iterable[str]) -> list[Kind]:
    """The servers of `case` that are in `wanted`, by their names."""
    line = [PROTOCOLS[case], "echo", "accept"]

    def c_mailfront(at: Place) -> list[str]:
        return [*tcpserver(at), c_program("mailfront"), *line]

    found = [replace(PEERS[0], command=c_mailfront, greets=False)]
    found += [replace(kind, command=serving(kind, line), greets=False) for kind in OURS]
    return [kind for kind in found if kind.name in wanted]
