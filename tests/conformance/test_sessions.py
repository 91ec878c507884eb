"""Every session under every driver: the same bytes, log lines, result and files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.driver import DRIVERS, VIRTUAL_TIME, Driver, Scripted
from tests.conformance.session_file import Act, Outcome, Send, Session, load, load_golden
from tests.conformance.stage import without_bytes_in
from tests.golden.test_replay import DIFFERENCES, is_selected
from tests.golden.test_replay import SESSIONS as RECORDED

# What is no session: it ends before one begins; and what the file system has a say in, or the length of a path, which
# Lua cuts in its errors (test_replay.py runs all of them).
NO_SESSION = {"plugin-missing-args", "pop3-limits-new", "lua-error"}
# These end in another program, in whose place a one-shot driver would put it: this one.
NO_SESSION |= {s.name for s in RECORDED if s.name.startswith(("imap-", "pop3-auth-"))}

OURS = load()
GOLDEN = load_golden({s.name for s in RECORDED if is_selected(s)} - NO_SESSION - set(DIFFERENCES))
SESSIONS = [*GOLDEN, *OURS]
ABOUT_HOOKS = [s for s in OURS if any("plugins:" in word for word in s.words)]

GOODBYES = (b"\r\n221 2.0.0 Good bye.\r\n", b"+OK \r\n")

# The client of these closes behind every one of its bytes in turn.
CLOSED_EVERYWHERE = (
    *("message-to-queuedir", "login-and-message", "starttls-message", "lmtp-two-recipients"),
    *("qmtp-message-to-queuedir", "qmqp-message-to-queuedir"),
)


@pytest.fixture(scope="module", params=DRIVERS)
def driver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: Path
) -> Iterator[Driver]:
    found = DRIVERS[request.param](tmp_path_factory.mktemp(request.param), certificate)
    found.start()
    yield found
    found.close()


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Driver:
    return Scripted(tmp_path_factory.mktemp("reference"), certificate)


@pytest.fixture(scope="module", params=VIRTUAL_TIME)
def virtual_driver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: Path
) -> Iterator[Driver]:
    found = VIRTUAL_TIME[request.param](tmp_path_factory.mktemp(request.param), certificate)
    yield found
    found.close()


def _named(sessions: list[Session]) -> list[object]:
    return [pytest.param(session, id=session.test_id) for session in sessions]


def _skip_what_it_cannot(driver: Driver, session: Session) -> None:
    if (why := driver.cannot(session)) is not None:
        pytest.skip(why)


def test_there_are_enough_sessions() -> None:
    assert len(OURS) >= 100
    assert len(GOLDEN) >= 55
    assert len({s.name for s in SESSIONS}) == len(SESSIONS)


@pytest.mark.parametrize("session", _named([s for s in SESSIONS if not s.waits]))
def test_session(driver: Driver, session: Session) -> None:
    _skip_what_it_cannot(driver, session)
    _compare(driver.run(session), session.outcome)


def _can_be_cut(session: Session) -> bool:
    """Whether the session ends by QUIT, or behind its packages, and not before: otherwise the rest may meet a closed
    connection. And what plugins do has nothing to do with how bytes arrive."""
    sent = b"".join(step.data for step in session.steps if isinstance(step, Send))
    ends_by_quit = sent.endswith(b"QUIT\r\n") and session.outcome.output.endswith(GOODBYES)
    is_package = session.words[0] in ("qmtp", "qmqp") and session.outcome.result == "0" and Act.RST not in session.steps
    return (ends_by_quit or is_package) and len(sent) < 500 and not session.waits and session not in ABOUT_HOOKS


@pytest.mark.parametrize("session", _named([s for s in OURS if _can_be_cut(s)]))
def test_session_byte_by_byte(driver: Driver, session: Session) -> None:
    _skip_what_it_cannot(driver, session)
    _compare(driver.run(session.bytewise()), without_bytes_in(session.outcome))


@pytest.mark.parametrize("session", _named([s for s in SESSIONS if s.waits]))
def test_session_in_virtual_time(virtual_driver: Driver, session: Session) -> None:
    _compare(virtual_driver.run(session), session.outcome)


@pytest.mark.parametrize("name", CLOSED_EVERYWHERE)
def test_client_closes_behind_every_byte(driver: Driver, scripted: Driver, name: str) -> None:
    (session,) = (s for s in OURS if s.name == name)
    delivered = 0
    for count in range(1, session.bytes_sent + 1):
        closed = session.up_to(count)
        expected = _expected(scripted, closed)
        assert "Error" not in str(expected.log)
        assert sorted(expected.files) in ([], sorted(session.outcome.files))
        delivered += bool(expected.files)
        if not isinstance(driver, Scripted):
            _compare(driver.run(closed), expected)
    # Nothing is delivered before the end of data is complete: what follows it is QUIT alone, or nothing.
    behind = b"" if session.words[0] in ("qmtp", "qmqp") else b"QUIT\r\n"
    assert delivered == (len(behind) + 1 if session.outcome.files else 0)


_EXPECTED: dict[tuple[str, int], Outcome] = {}


def _expected(scripted: Driver, session: Session) -> Outcome:
    key = session.name, session.bytes_sent
    if key not in _EXPECTED:
        _EXPECTED[key] = scripted.run(session)
    return _EXPECTED[key]


def _compare(ours: Outcome, expected: Outcome) -> None:
    assert ours.output == expected.output
    assert ours.log == expected.log
    assert ours.files == expected.files
    assert ours.result == expected.result
