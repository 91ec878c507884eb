"""The POP3 harnesses find faults that are there."""

import pytest

from fuzz import run
from mailfront_proto.pop3 import POP3Client, message_decoder
from mailfront_proto.pop3.maildrop import Maildrop
from mailfront_proto.pop3.server_session import ServerSession


def test_a_verdict_that_depends_on_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = ServerSession.receive_data
    monkeypatch.setattr(
        ServerSession, "receive_data", lambda machine, data: receive(machine, data[:-1] if len(data) > 60 else data)
    )
    with pytest.raises(AssertionError, match="cut as"):
        run.play_seeds("pop3_server")


def test_a_uid_that_forges_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Maildrop.lines
    monkeypatch.setattr(
        Maildrop, "lines", lambda drop, of_uids, start: lines(drop, of_uids, start).replace(b"\r\n", b"\n.\r\n", 1)
    )
    with pytest.raises(AssertionError):
        run.play_seeds("pop3_server")


def test_an_exception_that_escapes_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailfront_proto.pop3.server_mailbox.to_number", lambda digits: int(digits[1:]))
    with pytest.raises(ValueError, match="invalid literal"):
        run.play_seeds("pop3_server")


def test_an_end_that_is_missed_when_it_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_decoder, "_HOLDS", (b"\r\n",))
    with pytest.raises(AssertionError, match="cut as"):
        run.play_seeds("pop3_client")


def test_an_exception_that_escapes_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(POP3Client, "_scan_listing", lambda client, text: tuple(map(int, text.split())))
    with pytest.raises(ValueError, match="invalid literal"):
        run.play_seeds("pop3_client")
