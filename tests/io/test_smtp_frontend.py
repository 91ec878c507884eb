"""The SMTP front end where machine, pipeline and plugins could fall out of step."""

from pathlib import Path

import pytest

from mailfront_io.plugin import Backend, Plugin, Response
from mailfront_io.service import service_from_line
from mailfront_io.session import Session
from mailfront_io.settings import ConfigurationError
from mailfront_io.spool import Spool
from mailfront_io.testing import run_script


class ForgetsOne(Backend):
    """Answers for two recipients, however many there are."""

    name = "forgets-one"

    def message_end(self, spool: Spool | None) -> list[Response]:
        return [Response(250, "2.6.0 Stored one"), Response(451, "4.3.0 Not the other")]


class CannotBeMade(Plugin):
    """Raises when it is made, with what is nobody's business."""

    name = "cannot-be-made"

    def __init__(self, session: Session) -> None:
        raise RuntimeError("secret=hunter2\r\n220 fake")


def play(line: str, said: bytes, environment: dict[str, str], log: list[str]) -> bytes:
    settings = {"TCPLOCALHOST": "mx.example.org", **environment}
    service = service_from_line(line.split(), settings, log.append)
    return run_script(service.session, [said] if said else [], all_read=False).output


@pytest.mark.parametrize(("protocol", "hello"), [("smtp", b"EHLO"), ("lmtp", b"LHLO")])
def test_a_refused_data_leaves_no_envelope(protocol: str, hello: bytes) -> None:
    said = (
        hello + b" x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@d.example>\r\nDATA\r\n"
        b"RCPT TO:<f@d.example>\r\nDATA\r\nQUIT\r\n"
    )
    limits = {"MAXRCPTS": "1", "MAXRCPTS_REJECT": ""}
    output = play(f"{protocol} discard counters accept", said, limits, [])
    assert output.count(b"550 5.5.3 Too many recipients\r\n") == 2  # the second RCPT, and DATA
    assert output.count(b"503 5.5.1 You must send MAIL FROM: first\r\n") == 2
    assert b"354 " not in output
    assert output.endswith(b"221 2.0.0 Good bye.\r\n")


def test_a_list_of_responses_has_one_for_each_recipient() -> None:
    recipients = b"".join(b"RCPT TO:<%d@d.example>\r\n" % number for number in range(3))
    said = b"LHLO x\r\nMAIL FROM:<a@b.example>\r\n" + recipients + b"DATA\r\nx\r\n.\r\nQUIT\r\n"
    log: list[str] = []
    output = play(f"lmtp {__name__}:ForgetsOne accept", said, {}, log)
    assert output.count(b"451 4.3.0 Internal error.\r\n") == 3
    assert b"Stored one" not in output
    assert any("one Response for each recipient" in line for line in log)


def test_what_a_plugin_raises_when_it_is_made_stays_in_the_log() -> None:
    log: list[str] = []
    output = play(f"smtp echo {__name__}:CannotBeMade accept", b"", {}, log)
    assert output == b"451 4.3.0 Error loading plugin cannot-be-made: it raised an error\r\n"
    assert any("hunter2" in line for line in log)


def test_senders_in_turn_meet_the_idle_budget() -> None:
    output = play("smtp echo accept", b"EHLO x\r\n" + b"MAIL FROM:<a@b.example>\r\n" * 200, {}, [])
    assert output.count(b"250 2.1.0 Sender=") == 100
    assert output.endswith(b"421 4.7.0 Too many commands without a message, closing connection\r\n")


def test_what_a_server_needs_is_asked_for_at_its_start(tmp_path: Path) -> None:
    for line in ("smtp maildir accept", "smtp echo authenticate accept"):
        with pytest.raises(ConfigurationError, match="is not set"):
            service_from_line(line.split(), {}, print).check_required()
    service_from_line(["smtp", "maildir", "accept"], {"MAILDIR_PATH": str(tmp_path)}, print).check_required()
