"""What leaves: replies, logs, the client role's commands: H60 to H62, H64."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.log import line_log
from mailfront_io.plugin import Backend, Plugin, Response
from mailfront_io.session import Path as AddressPath
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.smtp import Reply
from mailfront_proto.smtp.client import SMTPClient
from mailfront_proto.smtp.parameters import MailOptions, RecipientOptions
from tests.front import ENVELOPE, Front, codes
from tests.hostile.every import HELLO

NASTY = "no\r250 yes\r\n250 really\x00\x1b[2J\x7f\x85\u2028\ud800\udcff"


def is_replies(output: bytes) -> bool:
    """Whether `output` is whole reply lines, and nothing but."""
    lines = output.split(b"\r\n")
    return lines.pop() == b"" and all(
        len(line) >= 4 and line[:3].isdigit() and line[3:4] in b" -" and not set(line) & {0, 10, 13, 27, 127}
        for line in lines
    )


@pytest.mark.parametrize("hook", ["connect", "helo", "sender", "recipient", "data_start", "message_end"])
@pytest.mark.parametrize("who", [Plugin, Backend])
def test_h60_text_from_plugins_and_backends_adds_no_reply(hook: str, who: type) -> None:
    def say(self: object, *arguments: object) -> Response:
        return Response(550, NASTY)

    nasty = type("Nasty", (who,), {hook: say, "name": "nasty"})
    front = Front(nasty, "accept") if who is Plugin else Front("accept", backend=nasty)
    output = front.say(ENVELOPE + b"DATA\r\n", b"x\r\n.\r\nQUIT\r\n")
    assert is_replies(output)
    refused = [line for line in output.split(b"\r\n") if line.startswith(b"550")]
    # LF separates the lines of one reply; CR and the rest are shown as what they are not
    assert [line[:4] for line in refused[:2]] == [b"550-", b"550 "]
    assert not any(line.startswith((b"250 yes", b"250 really")) for line in output.split(b"\r\n"))
    assert front.messages == []


def test_h60_nor_in_capabilities() -> None:
    class Nasty(Plugin):
        def helo(self, host: str, capabilities: list[str]) -> None:
            capabilities += ["X-ONE\r\n250 X-TWO", "X\x00\x1b", "", "X-\ud800"]

    output = Front(Nasty, "accept").say(b"EHLO x\r\nQUIT\r\n")
    assert is_replies(output)
    assert codes(output) == [220, 250, 221]


@pytest.mark.parametrize(
    "kind", [RuntimeError, OSError, KeyError, UnicodeError, RecursionError, MemoryError, StopIteration, SystemExit]
)
def test_h60_an_exception_is_a_fixed_451_and_a_log_id(kind: type[BaseException]) -> None:
    class Raises(Plugin):
        name = "raises"

        def sender(self, path: AddressPath) -> None:
            raise kind(f"secret path /etc/shadow {path.address}\r\n250 yes")

    front = Front(Raises, "accept")
    output = front.say(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nMAIL FROM:<a@b.example>\r\nNOOP\r\n")
    assert output.endswith(b"451 4.3.0 Internal error.\r\n" * 2 + b"250 2.3.0 OK\r\n")
    assert b"shadow" not in output
    logged = [line for line in front.log if line.startswith("Error ")]
    assert len(logged) == len({line.split(":")[0] for line in logged}) == 2  # an id each
    assert all(f"plugin raises: {kind.__name__}" in line for line in logged)


@given(st.text(max_size=2000), st.integers(400, 599))
def test_h61_replies_over_512_octets_are_wrapped(text: str, code: int) -> None:
    output = Reply(code, text).with_enhanced_code().encode()
    lines = output.split(b"\r\n")
    assert lines.pop() == b""
    assert all(len(line) <= 510 and b"\n" not in line and b"\r" not in line for line in lines)
    assert [line[:4] for line in lines] == [b"%d-" % code] * (len(lines) - 1) + [b"%d " % code]


@pytest.mark.parametrize(
    "word", ["x" * 600, "x" * 5000, "é" * 600, "word " * 400, "5.1.1 " + "x" * 600, "5.1.1 x" + " " * 600]
)
def test_h61_through_the_front_end(word: str) -> None:
    class Verbose(Plugin):
        def sender(self, path: AddressPath) -> Response:
            return Response(550, word)

    output = Front(Verbose).say(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nQUIT\r\n")
    assert is_replies(output) and all(len(line) <= 510 for line in output.split(b"\r\n"))
    assert codes(output) == [220, 250, 550, 221]


def test_h61_what_a_client_sends_can_come_back_long() -> None:
    """The echo backend repeats parameters, and one of those may be long."""
    from mailfront_io.auth.static import StaticStore
    from mailfront_proto.secret import Secret

    store = StaticStore({"joe": Secret(b"secret")})
    front = Front("authenticate", "accept", backend="echo", credentials=store, env={"AUTH_REQUIRES_TLS": "0"})
    submitter = b"+78" * 60 + b"@" + (b"+78" * 60 + b".") * 3 + b"example"
    output = front.say(HELLO + b"MAIL FROM:<a@b.example> AUTH=" + submitter + b"\r\nQUIT\r\n")
    assert codes(output) == [220, 250, 250, 221]
    assert all(len(line) <= 510 for line in output.split(b"\r\n"))


CLIENT_BYTES = b"\x00\x07\x08\x1b[31m\x7f\x80\x9b\xff\xe2\x80\xae\xe2\x80\xa8\xc2\x9b\xc2\x85\\"


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_h62_nothing_reaches_a_log_unescaped(profile: str, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT, 0o600)
    front = Front(
        "accept",
        backend="echo",
        env={"MAILFRONT_PROFILE": profile},
        log=line_log("mailfront", profile == "compat", descriptor),
    )
    lines = [b"EHLO x", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"VRFY "]
    wire = b"".join(line + CLIENT_BYTES + b"\r\n" for line in [*lines, b"", b"X "]) + ENVELOPE + b"DATA\r\n"
    front.say(wire, b"Subject: " + CLIENT_BYTES + b"\r\n" + CLIENT_BYTES + b"\r\n.\r\n", b"QUIT\r\n")
    os.close(descriptor)
    log = (tmp_path / "log").read_bytes()
    assert log.count(b"\n") > 8
    assert not set(log) & {*range(0x00, 0x0A), *range(0x0B, 0x20), 0x7F}
    for line in log.split(b"\n")[:-1]:
        assert line.startswith(b"mailfront[%d]: " % os.getpid())
    text = log.decode("utf-8", "surrogateescape")
    assert not any("\x80" <= c <= "\x9f" or "\udc80" <= c <= "\udc9f" for c in text)
    if profile == "default":
        assert "\u202e" not in text and "\u2028" not in text


def test_h62_floods_are_capped(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT, 0o600)
    front = Front("accept", log=line_log("mailfront", False, descriptor))
    front.say(HELLO + (b"X" * 4000 + b"\r\n") * 100)
    os.close(descriptor)
    log = (tmp_path / "log").read_bytes()
    assert max(map(len, log.split(b"\n"))) < 2100
    assert len(log) < 30_000  # ten errors, then 421


LINE_ENDS = ["\r\n", "\n", "\r", "\0", "\r\nRCPT TO:<evil@example.net>"]
CLIENT_CALLS: dict[str, Callable[[SMTPClient, str], object]] = {
    "mail": lambda c, t: c.mail(f"a{t}@example.net"),
    "mail parameter": lambda c, t: c.mail("a@example.net", MailOptions(envid=f"1{t}")),
    "recipient": lambda c, t: c.recipient(f"a@example.net{t}"),
    "recipient parameter": lambda c, t: c.recipient("a@example.net", RecipientOptions(others=((f"X{t}", "1"),))),
    "verify": lambda c, t: c.verify(f"joe{t}"),
    "message": lambda c, t: c.send_message(f"a{t}@example.net", ["b@example.net"]),
    "message to": lambda c, t: c.send_message("a@example.net", ["b@example.net", f"b@example.net{t}"]),
}


@pytest.mark.parametrize("text", LINE_ENDS, ids=repr)
@pytest.mark.parametrize("name", CLIENT_CALLS)
def test_h64_a_line_end_in_an_argument_of_the_client_is_misuse(name: str, text: str) -> None:
    client = SMTPClient("client.example.net")
    client.receive_data(b"220 hi\r\n")
    client.next_event()
    client.hello()
    client.data_to_send()
    client.receive_data(b"250-hi\r\n250-SIZE\r\n250 PIPELINING\r\n")
    client.next_event()
    with pytest.raises(LocalProtocolError):
        CLIENT_CALLS[name](client, text)
    assert client.data_to_send() == b""


@pytest.mark.parametrize("text", LINE_ENDS, ids=repr)
def test_h64_nor_in_its_name(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        SMTPClient(f"client{text}.example.net")
