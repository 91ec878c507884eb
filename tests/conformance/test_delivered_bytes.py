"""Messages arrive octet by octet as they were sent, from every protocol, under every driver, in every backend that
stores or hands on: odd octets, long lines, dots, no final newline, and fifty megabytes."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.conformance.driver import DRIVERS, Driver, Scripted
from tests.conformance.session_file import FACTS, Act, Expect, Outcome, Send, Session
from tests.front import Front

EVERY_OCTET = bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"")

MESSAGES = {
    "8-bit and NUL": EVERY_OCTET + b"\n",
    "dots": b".\n..\n...\n.x\n\n.\n",
    "a long line": b"x" * 300_000 + b"\n",
    "many empty lines": b"\n" * 70_000,
    "a line across each block": b"".join(b"%d\n" % number for number in range(60_000)),
    "empty": b"",
}
BY_QMTP_ONLY = {  # in compat: the default profile lets no bare CR through
    "no final newline": b"one\ntwo",
    "bare CR": b"\rone\r\rtwo\r\n\r",
    "every octet": bytes(range(256)) * 300,
}
STORED = {
    "queuedir": b"a@b.org\0c@d.org\0\0%b",
    "maildir": b"Return-Path: <a@b.org>\n%b",
    "qmail": b"%b",
}
PLACES = {"queuedir": "new/", "maildir": "new/", "qmail": "taken/"}

COPY = rb"""#!/bin/sh
cat >taken/$$
cat <&1 >envelope
"""
DIGEST = rb"""#!/bin/sh
sha256sum >digest
cat <&1 >envelope
"""
ENVELOPE = b"MAIL FROM:<a@b.org>\r\nRCPT TO:<c@d.org>\r\nDATA\r\n"


@pytest.fixture(scope="module", params=DRIVERS)
def driver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: Path
) -> Iterator[Driver]:
    found = DRIVERS[request.param](tmp_path_factory.mktemp(request.param), certificate)
    found.start()
    yield found
    found.close()


def run(driver: Driver, protocol: str, backend: str, said: bytes, program: bytes = COPY) -> tuple[Outcome, Path]:
    """The outcome of a session in which the client says that, and the session's directory."""
    profile = "compat" if protocol == "qmtp" else "default"
    settings = {"QUEUEDIR": "$DIR", "MAILDIR_PATH": "$DIR", "QMAILHOME": "$DIR", "QMAILQUEUE": "./queue"}
    make = {"tmp/": None, "new/": None, "cur/": None, "taken/": None, "queue*": program}
    greeting = [Expect(b"220 mx.example.org mailfront ESMTP\r\n")] if protocol == "smtp" else []
    session = Session(
        "bytes",
        (protocol, backend, "accept"),
        {**FACTS, **settings, "PATH": "/usr/bin:/bin", "MAILFRONT_PROFILE": profile},
        make,
        (*greeting, Send(said, cut=1 << 20), Act.FIN),
        Outcome(b"", (), "", {}),
    )
    if isinstance(driver, Scripted) and backend == "qmail":
        pytest.skip("nothing real is started by a script")
    return driver.run(session), driver.scratch / str(driver._played) / "work"


def delivered(place: Path, backend: str) -> list[bytes]:
    return sorted(path.read_bytes() for path in (place / PLACES[backend]).iterdir())


def by_qmtp(message: bytes) -> bytes:
    package = b"\n" + message
    return b"%d:%b,7:a@b.org,10:7:c@d.org,," % (len(package), package)


def by_smtp(message: bytes) -> bytes:
    lines = message.replace(b"\n", b"\r\n").replace(b"\r\n.", b"\r\n..")
    return ENVELOPE + (b"." if message.startswith(b".") else b"") + lines + b".\r\n"


@pytest.mark.parametrize("backend", STORED)
def test_by_qmtp(driver: Driver, backend: str) -> None:
    messages = {**MESSAGES, **BY_QMTP_ONLY}
    del messages["empty"]  # there is no package without a line end
    outcome, place = run(driver, "qmtp", backend, b"".join(map(by_qmtp, messages.values())))
    assert outcome.result == "0" and outcome.output.count(b":K") == len(messages)
    assert delivered(place, backend) == sorted(STORED[backend] % message for message in messages.values())


@pytest.mark.parametrize("backend", STORED)
def test_by_smtp(driver: Driver, backend: str) -> None:
    said = b"EHLO x\r\n" + b"".join(map(by_smtp, MESSAGES.values())) + b"QUIT\r\n"
    outcome, place = run(driver, "smtp", backend, said)
    assert outcome.result == "0" and outcome.output.count(b"250 2.6.0 ") == len(MESSAGES)
    assert delivered(place, backend) == sorted(STORED[backend] % message for message in MESSAGES.values())


@pytest.mark.parametrize("backend", STORED)
def test_in_chunks(driver: Driver, backend: str) -> None:
    said = [b"EHLO x\r\n"]
    for message in MESSAGES.values():
        lines = message.replace(b"\n", b"\r\n")
        half = len(lines) // 2
        said.append(b"MAIL FROM:<a@b.org>\r\nRCPT TO:<c@d.org>\r\nBDAT %d\r\n%b" % (half, lines[:half]))
        said.append(b"BDAT %d LAST\r\n%b" % (len(lines) - half, lines[half:]))
    outcome, place = run(driver, "smtp", backend, b"".join(said) + b"QUIT\r\n")
    assert outcome.output.count(b"250 2.6.0 ") == len(MESSAGES)
    assert delivered(place, backend) == sorted(STORED[backend] % message for message in MESSAGES.values())


def test_fifty_megabytes_through_pipes(driver: Driver) -> None:
    """The program reads slowly, at its own pace; nobody waits for anybody for ever."""
    message = (b"0123456789" * 7 + b"\n") * 704_226
    assert len(message) >= 50_000_000
    outcome, place = run(driver, "smtp", "qmail", b"EHLO x\r\n" + by_smtp(message) + b"QUIT\r\n", DIGEST)
    assert outcome.output.endswith(b" bytes %d\r\n221 2.0.0 Good bye.\r\n" % len(message))
    assert (place / "digest").read_text().split()[0] == sha256(message).hexdigest()
    assert (place / "envelope").read_bytes() == b"Fa@b.org\0Tc@d.org\0\0"


@pytest.mark.parametrize("backend", ["queuedir", "maildir"])
def test_fifty_megabytes_in_a_file(backend: str, tmp_path: Path) -> None:
    for name in ("tmp", "new", "cur"):
        (tmp_path / name).mkdir()
    message = (b"0123456789" * 7 + b"\n") * 704_226
    front = Front("accept", backend=backend, env={"QUEUEDIR": str(tmp_path), "MAILDIR_PATH": str(tmp_path)})
    said = b"EHLO x\r\n" + by_smtp(message)
    front.say(*[said[at : at + 65_536] for at in range(0, len(said), 65_536)])
    assert [sha256(content).digest() for content in delivered(tmp_path, backend)] == [
        sha256(STORED[backend] % message).digest()
    ]
