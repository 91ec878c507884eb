"""How a plugin is tested: the whole front end against a scripted peer, without a socket or a second of waiting."""

from pathlib import Path

import pytest
from policy_plugin import Policy

from mailfront_io.testing import Front


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
    front = Front(Policy, settings={"POLICY_FILE": str(policy_file)})
    output = front.say(f"EHLO me\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\n".encode())
    assert output.splitlines()[-1] == reply


def test_a_policy_that_cannot_be_read_defers_and_says_why(tmp_path: Path) -> None:
    front = Front(Policy, settings={"POLICY_FILE": str(tmp_path / "missing")})
    output = front.say(b"EHLO me\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n")
    assert output.endswith(b"451 4.3.0 The policy cannot be read\r\n")
    assert any(line.endswith("missing: No such file or directory") for line in front.log)
