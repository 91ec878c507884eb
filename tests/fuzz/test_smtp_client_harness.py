"""The harness of the SMTP client finds faults that are there."""

import pytest

from fuzz import run
from mailfront_proto.dot_encoder import LineEncoder
from mailfront_proto.smtp.capabilities import Capabilities
from mailfront_proto.smtp.client_events import Stage
from mailfront_proto.smtp.client_session import ClientSession
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.reply_reader import ReplyReader
from mailfront_proto.smtp.transaction import Transaction


def test_a_verdict_that_depends_on_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = ReplyReader.feed
    monkeypatch.setattr(ReplyReader, "feed", lambda reader, data: feed(reader, data.removeprefix(b"2") or data))
    with pytest.raises(AssertionError, match="but cut"):
        run.play_seeds("smtp_client")


def test_an_exception_that_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capabilities, "limit", lambda offered, name: int(offered["LIMITS"][0][:1]))
    with pytest.raises((ValueError, KeyError)):
        run.play_seeds("smtp_client")


def test_a_recipient_that_counts_as_delivered_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    replied = Transaction.replied

    def hopeful(message: Transaction, command: str, reply: Reply) -> None:
        if command == "RCPT" and reply.is_positive:
            message.lost(reply, Stage.MESSAGE)
        replied(message, command, reply)

    monkeypatch.setattr(Transaction, "replied", hopeful)
    with pytest.raises(AssertionError):
        run.play_seeds("smtp_client")


def test_a_bare_line_end_that_goes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LineEncoder, "feed", lambda encoder, data: data)
    with pytest.raises(AssertionError):
        run.play_seeds("smtp_client")


def test_a_reply_that_never_ends_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(reader: ReplyReader, data: bytes) -> None:
        reader._lines.append(data.decode("latin-1"))

    monkeypatch.setattr(ReplyReader, "feed", endless)
    with pytest.raises(AssertionError):
        run.play_seeds("smtp_client")


def test_a_session_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientSession, "receive_eof", lambda client: None)
    with pytest.raises(AssertionError):
        run.play_seeds("smtp_client")
