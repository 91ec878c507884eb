"""The relaying backends under every driver: what the client is told, the log, and what the next server got are those
of the scripted driver, at whatever step that server refuses, closes or talks nonsense."""

import gc
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from mailfront_io.service import service_from_line
from mailfront_io.testing import EOF, REFUSED, RESET, Action, Outside, WaitFor, run_script
from tests.conformance.driver import DRIVERS, Driver
from tests.conformance.session_file import Act, Expect, Outcome, Send, Session, Step
from tests.conformance.upstream import Upstream
from tests.io.relay_script import BODY, hello, takes
from tests.io.test_relay import FAULTS, STEPS, _well_again

REAL = [name for name in DRIVERS if name != "scripted"]
NOTHING = Outcome(b"", (), "", {})
_numbers = count(1)


@pytest.fixture(scope="module", params=REAL)
def driver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: Path
) -> Iterator[Driver]:
    found = DRIVERS[request.param](tmp_path_factory.mktemp(request.param), certificate)
    found.start()
    yield found
    found.close()


def message(*recipients: str, body: bytes = BODY) -> bytes:
    to = "".join(f"RCPT TO:<{recipient}>\r\n" for recipient in recipients or ("b@b.example",))
    return f"MAIL FROM:<a@a.example>\r\n{to}BDAT {len(body)} LAST\r\n".encode() + body


@dataclass(frozen=True, slots=True)
class Case:
    """One session: what the client says in one go, and the scripts of the next server's connections."""

    said: bytes
    scripts: Sequence[Sequence[Action]]
    protocol: str = "smtp"
    backend: str = "smtp"

    def settings(self, path: Path) -> dict[str, str]:
        return {"UPSTREAM": f"{path}.none, {path}", "UPSTREAM_HELO": "relay.example"}


def cases() -> Iterator[tuple[str, Case]]:
    well: list[Action] = [*hello(), *takes()]
    gone: list[Action] = [WaitFor(b"MAIL"), EOF]  # not before: whether it would be seen in time is chance
    yield "two messages", Case(message() * 2, [[*hello(), *takes(), *takes()]])
    yield "kept in vain", Case(message() * 2, [[*well, *gone], well])
    yield "a large one", Case(message(body=b"Subject: x\r\n\r\n" + b".a line\r\n" * 200_000), [well])
    yield "nobody there", Case(message(), [])
    answers = b"250 2.0.0 kept\r\n550 5.2.1 not kept\r\n"
    lmtp: list[Action] = [*hello(verb="LHLO"), *takes(2, answer=answers)]
    yield "lmtp to lmtp", Case(message("b@b.example", "c@c.example"), [lmtp], "lmtp", "lmtp")
    yield "smtp to lmtp", Case(message("b@b.example", "c@c.example"), [lmtp], "smtp", "lmtp")
    for step, before in STEPS.items():
        scripts: list[list[Action]] = []
        for fault, actions in FAULTS.items():
            if fault in ("hangs", "is silent") or RESET in actions:  # minutes; and a unix socket cannot be reset
                continue
            if step == "in the message" and fault != "closes":  # whether it comes before the final dot is chance
                continue
            if fault in ("refuses", "refuses for now") and step in ("MAIL", "RCPT", "DATA", "final dot"):
                scripts.append([*before, *actions, *_well_again(step), *gone])
                continue
            sick = [*before, *actions]
            if (step, fault) == ("DATA", "says yes to what was not asked"):
                sick[-2:] = [b"250 go\r\n", EOF]
            if (step, fault) == ("EHLO", "refuses"):
                sick.append(EOF)  # HELO comes next
            scripts += [sick, [*well, *gone]]
        yield f"faults at {step}", Case(message() * 2 * len(FAULTS), [*scripts, [*hello(), *takes() * 2 * len(FAULTS)]])


CASES = dict(cases())


def normalized(log: Sequence[str]) -> list[str]:
    """Whether a connection was closed or broken is the system's to say."""
    return [re.sub(r"Connection (closed|lost).*|Broken pipe.*", "Connection gone", line) for line in log]


def reference(case: Case, path: Path) -> tuple[bytes, list[str], list[bytes]]:
    log: list[str] = []

    def sink(line: str) -> None:  # as the real drivers' log escapes
        log.append(line.replace("\\", "\\\\"))

    service = service_from_line([case.protocol, case.backend, "accept"], case.settings(path), sink)
    scripts = iter(case.scripts)
    first: list[Action] = [b"%sHLO c\r\n" % (b"L" if case.protocol == "lmtp" else b"E"), WaitFor(b"250 SMTPUTF8\r\n")]
    outside = Outside({f"{path}.none": REFUSED, str(path): (lambda: next(scripts)) if case.scripts else REFUSED})
    client = [*first, case.said + b"QUIT\r\n", EOF]
    played = run_script(service.session, client, outside=outside, all_read=False)
    return played.output, log, [said for _, said in played.peers]


@pytest.mark.parametrize("name", CASES)
def test_h63_the_same_under_every_driver(driver: Driver, name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = tmp_path / "up"
    output, log, said = reference(case, path)
    for absent in (f"{path}.none", *([] if case.scripts else [str(path)])):
        with socket.socket(socket.AF_UNIX) as nobody:  # a socket that is there and that nobody listens to
            nobody.bind(absent)
    verb = b"LHLO" if case.protocol == "lmtp" else b"EHLO"
    greeting = output[: output.index(b"250 SMTPUTF8\r\n") + 14]
    steps: list[Step] = [Send(verb + b" c\r\n"), Expect(greeting), Send(case.said + b"QUIT\r\n"), Act.FIN]
    words = (case.protocol, case.backend, "accept")
    session = Session(f"relay-{next(_numbers)}", words, case.settings(path), {}, tuple(steps), NOTHING)
    if not case.scripts:
        outcome = driver.run(session)
        received: list[bytes] = []
    else:
        with Upstream(path, case.scripts) as upstream:
            outcome = driver.run(session)
            gc.collect()  # the service goes with its session here, and its pool with it
        received = upstream.received
    assert outcome.output == output
    assert normalized(outcome.log) == normalized(log)
    assert outcome.result == "0"
    assert [data.removesuffix(b"QUIT\r\n") for data in received] == [data.removesuffix(b"QUIT\r\n") for data in said]
