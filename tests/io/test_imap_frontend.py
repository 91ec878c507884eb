"""The IMAP login front end: scripted sessions, up to the hand-off; and real programs behind it."""


import pytest

from mailfront_io.auth.static import StaticStore
from mailfront_io.auth.store import NOBODY, Asker, CredentialStore, Identity, StoreUnavailable
from mailfront_io.imap_service import IMAPService, imap_service_from_line
from mailfront_io.settings import ConfigurationError
from mailfront_io.testing import EOF, STOP, Action, Advance, Played, WaitFor, run_script
from mailfront_proto.secret import Secret

STORE = StaticStore({"joe": Secret(b"secret")})
OPEN = {"AUTH_REQUIRES_TLS": "0", "AUTH_FAILURE_DELAY": "0"}
COMPAT = {"MAILFRONT_PROFILE": "compat"}


class Down(CredentialStore):
    mechanisms = ("LOGIN", "PLAIN")

    async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
        raise StoreUnavailable("the disk is not well")


class OneUser(CredentialStore):
    """Everybody is `identity`, with the password ``secret``."""

    mechanisms = ("LOGIN", "PLAIN")

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
        return self._identity if password.reveal() == b"secret" else None


def play(
    *script: Action,
    environment: dict[str, str] = OPEN,
    store: CredentialStore | None = STORE,
    log: list[str] | None = None,
    turned_away: str = "",
) -> Played:
    sink = log.append if log is not None else lambda line: None
    service = IMAPService(["true"], environment, sink, credentials=store, turned_away=turned_away)
    return run_script(service.session, script, all_read=False)


def test_greeting_capability_and_logout() -> None:
    log: list[str] = []
    played = play(b"a CAPABILITY\r\nb NOOP\r\nc LOGOUT\r\n", log=log)
    tells = b"IMAP4rev1 LITERAL- SASL-IR ID AUTH=LOGIN AUTH=PLAIN"
    assert played.output == (
        b"* OK [CAPABILITY " + tells + b"] imapfront ready.\r\n* CAPABILITY " + tells + b"\r\n"
        b"a OK CAPABILITY completed\r\nb OK NOOP completed\r\n* BYE Logging out\r\nc OK LOGOUT completed\r\n"
    )
    assert played.result == 0
    assert log[-2:] == ["c OK LOGOUT completed", f"bytes in: 32 bytes out: {len(played.output)}"]


def test_no_password_is_taken_in_clear() -> None:
    played = play(b"a LOGIN joe secret\r\nb AUTHENTICATE PLAIN\r\nc LOGOUT\r\n", environment={})
    assert b"LOGINDISABLED" in played.output
    assert b"a NO [PRIVACYREQUIRED] LOGIN is disabled\r\n" in played.output
    assert b"b NO " in played.output


def test_failures_are_delayed_and_counted() -> None:
    log: list[str] = []
    said = b"".join(b"%d LOGIN joe wrong\r\n" % number for number in range(9))
    played = play(said, environment={"AUTH_REQUIRES_TLS": "0"}, log=log)
    assert played.output.count(b" NO [AUTHENTICATIONFAILED] LOGIN failed\r\n") == 5
    assert played.output.endswith(b"* BYE Too many failed logins, closing connection\r\n")
    assert played.elapsed == 5
    assert not any("wrong" in line for line in log)
    compat = play(said, environment={**COMPAT, "MAXAUTHFAIL": "2"})
    assert compat.output == b"* OK imapfront ready.\r\n0 NO LOGIN failed\r\n1 NO LOGIN failed\r\n"
    assert compat.elapsed == 0


def test_a_store_that_is_down_is_a_temporary_failure() -> None:
    log: list[str] = []
    said = b"a LOGIN joe secret\r\nb AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=\r\nc LOGOUT\r\n"
    played = play(said, store=Down(), log=log)
    assert b"a NO [UNAVAILABLE] LOGIN failed\r\n" in played.output
    assert b"b NO [UNAVAILABLE] AUTHENTICATE failed: Internal error.\r\n" in played.output
    assert "credential store: the disk is not well" in log


def test_what_the_original_says_in_place_of_a_greeting() -> None:
    played = play(environment=COMPAT, store=None, turned_away="$CVM_SASL_PLAIN is not set")
    assert (played.output, played.result) == (b"* NO $CVM_SASL_PLAIN is not set\r\n", 0)


@pytest.mark.parametrize(
    ("environment", "seconds", "word"),
    [(OPEN, 600, b"* BYE"), (COMPAT, 1200, b"* NO"), ({**COMPAT, "TIMEOUT": "9", "AUTH_TIMEOUT": "7"}, 7, b"* NO")],
)
def test_idle(environment: dict[str, str], seconds: int, word: bytes) -> None:
    played = play(WaitFor(b"ready.\r\n"), Advance(3000), environment=environment)
    assert played.output.endswith(b"\r\n" + word + b" Connection timed out\r\n")
    assert played.elapsed == seconds or played.writes[-1][0] == seconds
    assert played.result == 0


def test_dripping_gains_nothing() -> None:
    script: list[Action] = [WaitFor(b"ready.\r\n")]
    for _ in range(9):
        script += [Advance(100), b"a"]
    played = play(*script, EOF)
    assert played.writes[-1][0] == 600
    assert played.output.endswith(b"* BYE Connection timed out\r\n")


def test_a_stopping_server_says_so() -> None:
    assert play(WaitFor(b"ready.\r\n"), STOP).output.endswith(
        b"* BYE [UNAVAILABLE] The server is shutting down\r\n"
    )


def test_capabilities_of_the_program() -> None:
    settings = {
        **COMPAT,
        "CAPABILITY": "IMAP4REV1 IDLE UIDPLUS",
        "IMAP_ACL": "1",
        "OUTBOX": ".Out",
        "IMAP_MOVE_EXPUNGE_TO_TRASH": "1",
    }
    expected = b"* CAPABILITY IMAP4rev1 IDLE UIDPLUS ACL ACL2=UNION XCOURIEROUTBOX=INBOX.Out XMAGICTRASH\r\n"
    assert expected in play(b"a CAPABILITY\r\nz LOGOUT\r\n", environment=settings).output
    default = play(b"a CAPABILITY\r\nz LOGOUT\r\n", environment={**OPEN, "IMAP_CAPABILITY": "IMAP4rev1 IDLE"})
    assert b"* CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=LOGIN AUTH=PLAIN IDLE\r\n" in default.output


def test_a_line_names_a_program() -> None:
    with pytest.raises(ConfigurationError, match="PROGRAM"):
        imap_service_from_line(["imap"], {}, print)
    with pytest.raises(ConfigurationError, match="AUTH_STORE"):
        imap_service_from_line(["imap", "true"], {}, print).check_required()
    with pytest.raises(ConfigurationError, match="TLS_CERTFILE"):
        IMAPService(["true"], {}, print, credentials=STORE).check_required()
