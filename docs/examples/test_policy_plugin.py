"""How a plugin is tested: the whole front end against a scripted peer, without a socket or a second of waiting."""

from pathlib import Path

import pytest
from policy_plugin import Policy

from mailfront_io.backends.discard import Discard
from mailfront_io.frontends.smtp import SMTPFrontend
from mailfront_io.ops import Connection
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.pipeline import Pipeline
from mailfront_io.session import Session
from mailfront_io.testing import EOF, Action, Played, WaitFor, run_script
from mailfront_proto.smtp import SMTPServer


def play(policy_file: Path, *commands: bytes) -> tuple[Played, list[str]]:
    """Run a session with the plugin in it; what came of it, and the log."""
    log: list[str] = []

    def make(connection: Connection) -> SessionCoroutine:
        session = Session(connection, {"POLICY_FILE": str(policy_file)}, log.append)
        pipeline = Pipeline(session, [Policy(session)], Discard(session))
        return SMTPFrontend(session, pipeline, SMTPServer("mx.example.org", lf_bodies=True)).run()

    script: list[Action] = [WaitFor(b"220 "), b"EHLO me\r\n", *commands, EOF]
    return run_script(make, script), log


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy"
    path.write_text("spam@example.com * reject\n* slow@example.org defer\n* bob@example.org accept\n")
    return path


@pytest.mark.parametrize(
    ("sender", "recipient", "reply"),
    [
        ("alice@example.com", "bob@example.org", b"250 2.1.5 Recipient accepted."),
        ("alice@example.com", "BOB@example.org", b"250 2.1.5 Recipient accepted."),
        ("spam@example.com", "bob@example.org", b"550 5.7.1 Policy says no"),
        ("alice@example.com", "slow@example.org", b"450 4.7.1 Policy says not now"),
        ("alice@example.com", "carol@example.org", b"550 5.1.0 Mail system is not configured to accept that recipient"),
    ],
)
def test_verdicts(policy_file: Path, sender: str, recipient: str, reply: bytes) -> None:
    played, _ = play(policy_file, f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\n".encode())
    assert played.output.splitlines()[-1] == reply


def test_a_policy_that_cannot_be_read_defers_and_says_why(tmp_path: Path) -> None:
    played, log = play(tmp_path / "missing", b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n")
    assert played.output.endswith(b"451 4.3.0 The policy cannot be read\r\n")
    assert any(line.endswith("missing: No such file or directory") for line in log)
