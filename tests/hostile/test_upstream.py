"""What an upstream server may do to us as a client: H63, and H64 for what we send it."""

from collections.abc import Callable

import pytest

from mailfront_io.client import LocalProtocolError, MailOptions, RecipientOptions, Stage
from mailfront_io.testing import EOF, Action, WaitFor
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.smtp.client import SMTPClient
from mailfront_proto.smtp.client_events import ReplyReceived
from mailfront_proto.smtp.events import Xclient
from mailfront_proto.smtp.reply_reader import MAX_KEPT, MAX_REPLY_LINE, MAX_REPLY_LINES
from mailfront_proto.testing import Player, assert_linear, assert_memory_bounded
from tests.io.test_client import EHLO, ENVELOPE, Talk

SHAPES: dict[str, bytes] = {
    "1 MB line": b"250 " + b"a" * 1_000_000 + b"\r\n",
    "1 MB without an end": b"2" * 1_000_000,
    "code changes in the middle": b"250-a\r\n250-b\r\n550 c\r\n",
    "blank line": b"\r\n",
    "blank line in the middle": b"250-a\r\n\r\n250 b\r\n",
    "no code": b"OK\r\n",
    "endless lines": b"250-a\r\n" * 100_000,
    "NUL and controls": b"2\x0050 \x1b[2J\r\n",
    "an HTTP server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "two answers": b"250 ok\r\n250 ok\r\n",
}
TAKEN = {
    "no text": b"250\r\n",
    "no text, with a blank": b"250 \r\n",
    "no text in lines": b"250-\r\n250\r\n",
    "bare LF": b"250 ok\n",
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("where", ["MAIL", "message"])
def test_h63_a_reply_that_is_none_is_temporary_for_every_recipient(name: str, where: str) -> None:
    before: list[Action] = EHLO if where == "MAIL" else [*EHLO, *ENVELOPE]
    wait = WaitFor(b"DATA\r\n") if where == "MAIL" else WaitFor(b"\r\n.\r\n")
    sent = SHAPES[name]
    pieces = [sent[at : at + 65536] for at in range(0, len(sent), 65536)]
    talk = Talk([*before, wait, *pieces, EOF], to=["a@x"] if where == "message" else ["a@x", "b@x"], all_read=False)
    for result in talk.result.recipients:
        assert (result.reply.is_temporary and not result.delivered) or name == "two answers"
        assert result.stage is Stage.CONNECTION or name == "two answers"
    assert all(line.isprintable() for line in talk.said)


@pytest.mark.parametrize("name", TAKEN)
def test_h63_odd_replies_are_replies(name: str) -> None:
    player = ready()
    player.machine.noop()
    player.step()
    player.receive(TAKEN[name])
    assert isinstance(player.outcome.events[-1], ReplyReceived)


def ready() -> Player[SMTPClient]:
    """A client that has said hello."""
    player = Player(SMTPClient("client.example"), lambda client, event: None, raises=RemoteProtocolError)
    player.receive(b"220 mx\r\n")
    player.machine.hello()
    player.step()
    player.receive(b"250-mx\r\n250-CHUNKING\r\n250-XCLIENT NAME HELO\r\n250 PIPELINING\r\n")
    return player


LONG_LINE = b"250-" + b"a" * 4000 + b"\r\n"


@pytest.mark.parametrize("pattern", [b"2", b"250", b"250-", LONG_LINE, b"250-a\r\n", b"\r\n", b"x"], ids=range(7))
def test_h63_memory_is_bounded_whatever_is_said_without_end(pattern: bytes) -> None:
    def waiting() -> Player[SMTPClient]:
        player = ready()
        player.machine.noop()
        player.step()
        return player

    # the lines of one reply as text, and their objects
    assert_memory_bounded(waiting, pattern, MAX_REPLY_LINES * (MAX_REPLY_LINE + 100))


@pytest.mark.parametrize("pattern", [b"250-a\r\n", b"250-" + b"a" * 300 + b"\r\n"], ids=["short", "long"])
def test_h63_work_is_linear_byte_by_byte(pattern: bytes) -> None:
    def waiting() -> Player[SMTPClient]:
        player = ready()
        player.machine.noop()
        player.step()
        return player

    assert_linear(waiting, pattern, size=400)


def test_h63_what_is_attached_is_bounded_and_what_is_said_is_escaped() -> None:
    player = ready()
    player.machine.noop()
    player.machine.receive_data(b"250-" + b"a" * 4000 + b"\r\n" + b"250-b\r\n\x1b[31m\xff\r\n")
    with pytest.raises(RemoteProtocolError) as caught:
        player.machine.next_event()
    assert len(caught.value.received) == MAX_KEPT and caught.value.received.endswith(b"250-b\r\n\x1b[31m\xff\r\n")
    assert str(caught.value).isascii() and str(caught.value).isprintable()


CALLS: dict[str, Callable[[SMTPClient, str], object]] = {
    "ENVID": lambda c, t: c.send_message("a@b", ["c@d"], MailOptions(envid=t)),
    "AUTH": lambda c, t: c.send_message("a@b", ["c@d"], MailOptions(auth=t)),
    "own parameter": lambda c, t: c.send_message("a@b", ["c@d"], MailOptions(others=(("X", t),))),
    "own keyword": lambda c, t: c.send_message("a@b", ["c@d"], MailOptions(others=((t, None),))),
    "ORCPT": lambda c, t: c.send_message("a@b", [("c@d", RecipientOptions(orcpt=("rfc822", t)))]),
    "ORCPT type": lambda c, t: c.send_message("a@b", [("c@d", RecipientOptions(orcpt=(t, "x@y")))]),
    "XCLIENT": lambda c, t: c.xclient(Xclient(name=t)),
    "XCLIENT HELO": lambda c, t: c.xclient(Xclient(helo=t)),
}


@pytest.mark.parametrize("text", ["\r\n", "a\r\nRSET", "\n", "\r", "\0", "a\x1b", "a\x7f"], ids=repr)
@pytest.mark.parametrize("name", CALLS)
def test_h64_no_option_can_end_its_command(name: str, text: str) -> None:
    """Where it is not offered it is not sent; where it is, it is refused."""
    client = ready().machine
    if name in ("ENVID", "AUTH", "ORCPT", "ORCPT type"):
        CALLS[name](client, text)
        assert client.data_to_send() == b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
        offering = SMTPClient("client.example")
        offering.receive_data(b"220 mx\r\n")
        offering.next_event()
        offering.hello()
        offering.data_to_send()
        offering.receive_data(b"250-mx\r\n250-DSN\r\n250 AUTH PLAIN\r\n")
        offering.next_event()
        client = offering
    with pytest.raises(LocalProtocolError):
        CALLS[name](client, text)
    assert client.data_to_send() == b""
