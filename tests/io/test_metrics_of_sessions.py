"""What sessions tell who counts, under the scripted driver: how they end, and what becomes of messages and logins."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mailfront_io.metrics import Page, Totals
from mailfront_io.ops import Cancelled, Thread
from mailfront_io.plugin import Backend, Plugin, Response
from mailfront_io.server import service_of
from mailfront_io.service import Service
from mailfront_io.session import ForwardPath, ReversePath
from mailfront_io.spool import Spool
from mailfront_io.testing import CANCEL, EOF, RESET, STOP, Advance, WaitFor, run_script
from mailfront_proto.netstring import encode_netstring
from mailfront_proto.sasl.requests import Request
from tests.certificates import write_pem
from tests.io.test_metrics import samples

Counts = dict[str, float]


class Slow(Backend):
    """Takes a second, and says what the first recipient wants."""

    name = "slow"

    async def message_end(self, spool: Spool | None) -> Response:
        code = int(self.session.envelope.recipients[0].address.partition("@")[0])
        self.session.clock.advance(1.0)  # type: ignore[attr-defined]
        await Thread(lambda: None)
        return Response(code, "so be it")


class Picky(Plugin):
    name = "picky"

    def sender(self, path: ReversePath) -> Response:
        return Response(250)

    def recipient(self, path: ForwardPath) -> Response | None:
        return Response(550, "No") if path.address.startswith("no") else Response(250)

    async def auth(self, request: Request) -> Response | None:
        return {"busy": Response(454, "Later"), "bad": Response(535, "No")}.get(request.username)


def counted(words: Sequence[str] | Service, script: Sequence[Any], **settings: object) -> Counts:
    """What a session has counted, as ``NAME LABEL…``; bytes and buckets apart."""
    environment = {name: str(value) for name, value in settings.items()}
    service = service_of(list(words), environment, lambda text: None) if not isinstance(words, Service) else words
    page = Page([("here", service.protocol)])
    meter = page.meter("here", service.protocol)
    with suppress(Cancelled):
        run_script(lambda connection: service.session(connection, meter=meter), script, all_read=False)
    found = {}
    for (name, labels), number in samples(Totals().text([page], 1)).items():
        if number and not name.endswith(("_bucket", "bytes_total", "_info")) and name != "workers":
            values = sorted(value for label, value in labels if label not in ("listener", "protocol"))
            found[" ".join([name, *values])] = number
    return found


SMTP = ("smtp", "discard", "accept")
GREETED = WaitFor(b"220 ")


@pytest.mark.parametrize(
    ("reason", "script", "settings"),
    [
        ("quit", [b"QUIT\r\n", EOF], {}),
        ("closed", [b"EHLO x\r\n", EOF], {}),
        ("closed", [GREETED, RESET], {}),
        ("closed", [b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nhalf", EOF], {}),
        ("timeout", [GREETED, Advance(400.0)], {}),
        ("refused", [b"X\r\nX\r\n", EOF], {"MAXNOTIMPL": 1}),
        ("stopped", [GREETED, STOP], {}),
        ("aborted", [GREETED, CANCEL], {}),
    ],
)
def test_how_a_session_ends(reason: str, script: list[Any], settings: Mapping[str, object]) -> None:
    ends = {name: number for name, number in counted(SMTP, script, **settings).items() if "ended" in name}
    assert ends == {f"sessions_ended_total {reason}": 1}


@pytest.mark.parametrize(
    ("words", "script"),
    [
        (("pop3", "maildir"), [WaitFor(b"+OK"), b"QUIT\r\n", EOF]),
        (("imap", "true"), [WaitFor(b"* OK"), b"a LOGOUT\r\n", EOF]),
    ],
)
def test_how_a_session_without_mail_ends(words: list[str], script: list[Any], tmp_path: Path) -> None:
    (tmp_path / "users").write_text("joe:secret\n")
    settings = {"AUTH_STORE": f"static:{tmp_path / 'users'}", "AUTH_REQUIRES_TLS": 0, "MAILDIR_ROOT": tmp_path}
    assert counted(words, script, **settings) == {"sessions_ended_total quit": 1}


def test_a_failed_handshake(tmp_path: Path) -> None:
    script = [b"EHLO x\r\n", WaitFor(b"250 "), b"STARTTLS\r\n", WaitFor(b"220 2"), b"this is no TLS\r\n", EOF]
    assert counted(SMTP, script, TLS_CERTFILE=write_pem(tmp_path)) == {
        "sessions_ended_total tls": 1, "tls_handshakes_total failed": 1
    }  # fmt: skip


def message(*recipients: str) -> bytes:
    to = "".join(f"RCPT TO:<{name}@b.example>\r\n" for name in recipients)
    return f"MAIL FROM:<a@a.example>\r\n{to}DATA\r\nhello\r\n.\r\n".encode()


def test_messages_recipients_and_the_time_of_the_backend() -> None:
    service = Service("smtp", Slow, [Picky], {}, lambda text: None)
    messages = message("250", "no") + message("451") + message("554", "no", "nobody")
    script = [b"EHLO x\r\n" + messages + b"RCPT TO:<>\r\nQUIT\r\n", EOF]
    assert counted(service, script) == {
        "messages_total accepted": 1, "messages_total deferred": 1, "messages_total refused": 1,
        "recipients_refused_total": 4, "backend_seconds_count": 3, "backend_seconds_sum": 3,
        "sessions_ended_total quit": 1,
    }  # fmt: skip


def test_a_message_that_is_too_large() -> None:
    script = [b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" + 100 * b"x" + b"\r\n.\r\nQUIT\r\n", EOF]
    assert counted(SMTP, script, MAX_MESSAGE_SIZE=50)["messages_total refused"] == 1


def test_packages() -> None:
    def package(*recipients: str) -> bytes:
        to = b"".join(encode_netstring(f"{name}@b.example".encode()) for name in recipients)
        parts = (b"\nhello\n", b"a@a.example", to)
        return b"".join(map(encode_netstring, parts))

    service = Service("qmtp", Slow, [Picky], {}, lambda text: None)
    whole = package("250", "no") + package("451") + package("no")
    for script in ([whole, EOF], [*(whole[at : at + 1] for at in range(len(whole))), EOF]):
        assert counted(service, script) == {
            "messages_total accepted": 1, "messages_total deferred": 1, "messages_total refused": 1,
            "recipients_refused_total": 2, "backend_seconds_count": 2, "backend_seconds_sum": 2,
            "sessions_ended_total closed": 1,
        }  # fmt: skip


def test_logins(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("joe:secret\n")
    settings = {"AUTH_STORE": f"static:{tmp_path / 'users'}", "AUTH_REQUIRES_TLS": "0", "AUTH_FAILURE_DELAY": "0"}
    service = Service("smtp", Slow, [Picky, "authenticate"], settings, lambda text: None)
    # bad, busy, joe with a wrong password and with the right one
    logins = [b"AGJhZAB4", b"AGJ1c3kAeA==", b"AGpvZQB4", b"AGpvZQBzZWNyZXQ="]
    script = [b"EHLO x\r\n" + b"".join(b"AUTH PLAIN " + each + b"\r\n" for each in logins), b"QUIT\r\n", EOF]
    assert counted(service, script) == {
        "authentications_total PLAIN failed": 2, "authentications_total PLAIN unavailable": 1,
        "authentications_total PLAIN ok": 1, "sessions_ended_total quit": 1,
    }  # fmt: skip
    script = [b"EHLO x\r\nAUTH Nonsense\r\nAUTH PLAIN\r\n", WaitFor(b"334"), b"*\r\nQUIT\r\n", EOF]
    assert counted(service, script) == {
        "authentications_total failed other": 1, "authentications_total PLAIN failed": 1,
        "sessions_ended_total quit": 1,
    }  # fmt: skip
