"""The relaying backends between scripts: what the next server is told, and what of its answers the client learns."""

import gc
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mailfront_io.backends.relay import MAX_LOGGED, MAX_TEXT
from mailfront_io.backends.relay_pool import IDLE_SECONDS, MAX_MESSAGES
from mailfront_io.peers import Address
from mailfront_io.service import service_from_line
from mailfront_io.settings import ConfigurationError
from mailfront_io.testing import (
    CANCEL,
    EOF,
    REFUSED,
    RESET,
    SILENT,
    STALL,
    Action,
    Advance,
    Outside,
    PeerTLS,
    VirtualClock,
    WaitFor,
    run_script,
)
from tests import certificates
from tests.io.relay_script import BODY, LMTP, SECOND, UP, Relay, hello, offering, sends, served, takes

NO_SERVER = "451 4.4.1 The next mail server cannot be reached, try again later"
LOST = "451 4.4.2 The connection to the next mail server was lost, try again later"
OK = "250 2.0.0 Ok: queued as 17"


# -- a message, and the answers ------------------------------------------------------------------------------


def test_a_message_goes_on_and_its_answer_comes_back() -> None:
    relay = Relay()
    played = relay.play(sends("<b@b.example>", '<"c d"@c.example>'), {UP: [*hello(), *takes(2)]})
    assert f"\r\n{OK}\r\n221 ".encode() in played.output
    [(address, said)] = played.peers
    assert address == UP
    assert said == (
        b"EHLO relay.example\r\nMAIL FROM:<a@a.example> SIZE=22\r\nRCPT TO:<b@b.example>\r\n"
        b'RCPT TO:<"c d"@c.example>\r\nDATA\r\n' + BODY + b".\r\n"
    )
    assert "smtp: up.example:25: 250 2.0.0 Ok: queued as 17" in relay.log


def lmtp_answers(*answers: str) -> list[Action]:
    text = "".join(f"{answer}\r\n" for answer in answers).encode()
    return [*hello(verb="LHLO"), *takes(len(answers), answer=text)]


@pytest.mark.parametrize(
    ("answers", "folded"),
    [
        (("250 2.0.0 one", "250 2.0.0 two"), "250 2.0.0 one"),
        (("550 5.1.1 one", "550 5.2.1 two"), "550 5.1.1 one"),
        (("550 5.1.1 one", "452 4.2.2 two"), "452 4.2.2 two"),
        (("250 2.0.0 one", "452 4.2.2 two"), "451 4.3.0 Not every recipient's copy could be stored, try again"),
        (("550 5.1.1 one", "250 2.0.0 two"), "451 4.3.0 Not every recipient's copy could be stored, try again"),
    ],
)
def test_lmtp_and_qmtp_clients_learn_of_each_recipient_and_smtp_clients_the_sum(
    answers: tuple[str, str], folded: str
) -> None:
    to = ("<b@b.example>", "<c@c.example>")
    assert Relay("lmtp").answers(sends(*to), {LMTP: lmtp_answers(*answers)}) == [folded]
    played = Relay("lmtp", "lmtp").play(sends(*to), {LMTP: lmtp_answers(*answers)})
    assert "".join(f"{answer}\r\n" for answer in answers).encode() in played.output
    package = b"7:\nHello\n,11:a@a.example,30:11:b@b.example,11:c@c.example,,"
    outside = Outside({LMTP: lmtp_answers(*answers)})
    output = run_script(Relay("lmtp", "qmtp").service.session, [package, EOF], outside=outside).output
    expected = ["KZD"["245".index(answer[0])] + answer[4:] for answer in answers]
    assert output.decode() == "".join(f"{len(text)}:{text}," for text in expected)


def test_a_recipient_that_is_refused_at_rcpt() -> None:
    script = [
        *hello(),
        WaitFor(b"DATA\r\n"),
        b"250 ok\r\n550 5.1.1 <b@b.example>: nobody\r\n250 ok\r\n354 go\r\n",
        WaitFor(b"\r\n.\r\n"),
        b"250 2.0.0 kept\r\n",
    ]
    played = Relay("smtp", "lmtp").play(sends("<b@b.example>", "<c@c.example>"), {UP: script})
    assert b"\r\n550 5.1.1 <b@b.example>: nobody\r\n250 2.0.0 kept\r\n" in played.output


def test_no_answer_is_for_a_transaction_that_was_reset() -> None:
    client: list[Action] = [b"MAIL FROM:<a@a.example>\r\nRCPT TO:<z@z.example>\r\nRSET\r\n", *sends()]
    played = Relay().play(client, {UP: [*hello(), *takes()]})
    assert b"z@z.example" not in played.peers[0][1]


ANSWERS = {
    "a line break in it": (b"550-5.1.1 one\r\n550 5.1.1 two\r\n", "550 5.1.1 one two"),
    "no enhanced code": (b"452 full\r\n", "452 4.0.0 full"),
    "another class": (b"550 4.2.2 odd\r\n", "550 5.0.0 odd"),
    "no text": (b"554\r\n", "554 5.0.0"),
    "controls and bytes": (b"554 5.6.0 \x1b[2J\xff\x00\xc3\xa4\r\n", "554 5.6.0 \\x1b[2J\\udcff\\x00\\xe4"),
    "much of it": (b"554 5.6.0 " + b"x" * 4000 + b"\r\n", "554 5.6.0 " + "x" * MAX_TEXT),
    "it closes": (b"421 4.3.2 going down\r\n", "451 4.3.2 going down"),
    "it wants a login": (b"530 5.7.0 log in\r\n", "451 4.7.0 The next mail server does not let us in, try again later"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_h60_the_next_servers_words_are_escaped_and_bounded(name: str) -> None:
    said, told = ANSWERS[name]
    assert Relay().answers(sends(), {UP: [*hello(), *takes(answer=said)]}) == [told]


def test_a_next_server_that_refuses_lhlo_is_logged_with_that_word() -> None:
    relay = Relay("lmtp")
    script: list[Action] = [b"220 up\r\n", WaitFor(b"LHLO relay.example\r\n"), b"550 5.7.1 no\r\n"]
    assert relay.answers(sends(), {LMTP: script}) == [NO_SERVER]
    assert "lmtp: /run/lmtp refused our LHLO with 550 5.7.1 no: its operator can say why" in relay.log


def test_a_thousand_answers_do_not_flood_the_log() -> None:
    count = 200
    to = [f"<b{number}@b.example>" for number in range(count)]
    relay = Relay("lmtp")
    answers = "".join(f"250 2.0.0 copy {number}\r\n" for number in range(count)).encode()
    rounds: list[Action] = [*hello("8BITMIME", verb="LHLO"), WaitFor(b"MAIL FROM"), b"250 ok\r\n"]
    for _ in range(count):
        rounds += [WaitFor(b"RCPT TO"), b"250 ok\r\n"]
    rounds += [WaitFor(b"DATA\r\n"), b"354 go\r\n", WaitFor(b"\r\n.\r\n"), answers]
    assert relay.answers(sends(*to), {LMTP: rounds}) == ["250 2.0.0 copy 0"]
    assert len([line for line in relay.log if line.startswith("lmtp:")]) == MAX_LOGGED


# -- a next server that fails at each step -------------------------------------------------------------------

STEPS: dict[str, list[Action]] = {
    "greeting": [],
    "EHLO": [b"220 up\r\n", WaitFor(b"EHLO relay.example\r\n")],
    "MAIL": [*hello("8BITMIME"), WaitFor(b"MAIL FROM:<a@a.example>\r\n")],
    "RCPT": [*hello("8BITMIME"), WaitFor(b"MAIL"), b"250 ok\r\n", WaitFor(b"RCPT TO:<b@b.example>\r\n")],
    "DATA": [*hello("8BITMIME"), WaitFor(b"MAIL"), b"250 ok\r\n", WaitFor(b"RCPT"), b"250 ok\r\n", WaitFor(b"DATA")],
    "in the message": [*hello(), WaitFor(b"DATA\r\n"), b"250 ok\r\n250 ok\r\n354 go\r\n"],
    "final dot": [*hello(), WaitFor(b"DATA\r\n"), b"250 ok\r\n250 ok\r\n354 go\r\n", WaitFor(b"\r\n.\r\n")],
}
FAULTS: dict[str, list[Action]] = {
    "closes": [EOF],
    "breaks": [RESET],
    "hangs": [STALL],
    "is silent": [],
    "refuses for now": [b"451 4.3.0 not now\r\n"],
    "refuses": [b"550 5.7.1 never\r\n"],
    "goes": [b"421 4.3.2 going\r\n", EOF],
    "talks nonsense": [b"HTTP/1.1 400 Bad Request\r\n\r\n", EOF],
    "says half a reply": [b"250-half\r\n250", EOF],
    "says two things": [b"250-ok\r\n550 no\r\n", EOF],
    "says yes to what was not asked": [b"354 go\r\n", EOF],
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS)
def test_h63_a_next_server_that_fails(step: str, fault: str) -> None:
    """The client gets a temporary answer, unless the server has refused this very message; the session goes on, and
    its next message is sent by a new connection, to a server that is well."""
    sick = [*STEPS[step], *FAULTS[fault]]
    scripts = iter([sick, [*hello(), *takes()]])
    relay = Relay()

    def somebody() -> Sequence[Action]:
        return next(scripts)

    if fault in ("refuses", "refuses for now") and step in ("MAIL", "RCPT", "DATA", "final dot"):
        sick += _well_again(step)
    if (step, fault) == ("DATA", "says yes to what was not asked"):
        sick[-2:] = [b"250 go\r\n", EOF]
    first, second = relay.answers([*sends(), *sends()], {UP: somebody})
    assert second == OK
    code = first.split(" ")[0]
    refused = fault == "refuses" and step not in ("greeting", "EHLO")
    assert code == ("550" if refused else "451"), first
    if step == "final dot" and fault in ("closes", "breaks", "hangs", "is silent", "says half a reply"):
        assert first == LOST


def _well_again(step: str) -> list[Action]:
    """The next message over the same connection."""
    reset = b"" if step in ("MAIL", "final dot") else b"RSET\r\n"
    if step == "final dot":
        return takes()
    answers = b"250 ok\r\n"
    script: list[Action] = [WaitFor(reset), answers] if reset else []
    script += [WaitFor(b"MAIL"), answers, WaitFor(b"RCPT"), answers, WaitFor(b"DATA"), b"354 go\r\n"]
    return [*script, WaitFor(b"\r\n.\r\n"), f"{OK}\r\n".encode()]


def test_h81_a_connection_that_is_lost_behind_the_final_dot_is_no_success() -> None:
    """H81: nobody knows whether it has the message. It is temporary, and for the client to repeat."""
    relay = Relay(UPSTREAM="up.example, second.example:2525")
    script: list[Action] = [*hello(), *takes()[:-1], EOF]
    played = relay.play(sends(), {UP: script, SECOND: [*hello(), *takes()]})
    assert LOST.encode() in played.output
    assert served(played) == [UP]
    assert "smtp: up.example:25: Connection closed before the answer to the message" in relay.log


def test_a_client_that_sends_much_gets_no_more_than_ten_minutes_of_the_next_server() -> None:
    """As long as it waits itself (RFC 5321 section 4.5.3.2.6), whatever the steps may take by themselves."""
    slow: list[Action] = [Advance(250), b"220 up\r\n", Advance(250), *offering(), Advance(250), b"250 ok\r\n"]
    played = Relay().play(sends(), {UP: slow}, all_read=False)
    assert b"\r\n451 4.4" in played.output
    assert played.elapsed == 600


# -- other servers -------------------------------------------------------------------------------------------

IN_VAIN: dict[str, Any] = {
    "nobody there": REFUSED,
    "no answer": SILENT,
    "not now": [b"421 4.3.2 busy\r\n", EOF],
    "no service": [b"554 no\r\n"],
    "EHLO refused": [b"220 up\r\n", WaitFor(b"EHLO"), b"451 no\r\n"],
    "goes at MAIL": [*hello(), WaitFor(b"DATA\r\n"), b"421 4.3.2 going\r\n", EOF],
    "closes at MAIL": [*hello(), WaitFor(b"DATA\r\n"), EOF],
    "closes behind RCPT": [*hello(), WaitFor(b"DATA\r\n"), b"250 ok\r\n250 ok\r\n", EOF],
    "goes in the message": [*hello(), WaitFor(b"DATA\r\n"), b"250 ok\r\n250 ok\r\n354 go\r\n", WaitFor(b"Sub"), RESET],
}


@pytest.mark.parametrize("name", IN_VAIN)
def test_the_next_server_in_the_list(name: str) -> None:
    body = BODY + b"a line of many\r\n" * 20_000  # more than one block
    peers: dict[Address, Any] = {UP: IN_VAIN[name], SECOND: [*hello(), *takes()]}
    relay = Relay(UPSTREAM="up.example second.example:2525")
    played = relay.play(sends(body=body), peers)
    assert OK.encode() in played.output
    assert played.peers[-1][0] == SECOND and played.peers[-1][1].endswith(b"DATA\r\n" + body + b".\r\n")
    assert any(line.startswith("smtp: up.example:25") for line in relay.log)


def test_no_server_at_all() -> None:
    relay = Relay(UPSTREAM="up.example,second.example:2525")
    assert relay.answers(sends(), {UP: REFUSED, SECOND: REFUSED}) == [NO_SERVER]
    assert "smtp: up.example:25: ('up.example', 25): connection refused" in relay.log


def test_what_one_server_has_decided_is_not_asked_of_the_next() -> None:
    first = [*hello(), WaitFor(b"DATA\r\n"), b"250 ok\r\n550 5.1.1 nobody\r\n250 ok\r\n", RESET]
    relay = Relay("smtp", "lmtp", UPSTREAM="up.example second.example:2525")
    played = relay.play(sends("<b@b.example>", "<c@c.example>"), {UP: first, SECOND: [*hello(), *takes()]})
    assert b"\r\n550 5.1.1 nobody\r\n250 2.0.0 Ok: queued as 17\r\n" in played.output
    assert b"RCPT TO:<c@c.example>" in played.peers[1][1] and b"b@b.example" not in played.peers[1][1]


# -- connections that are kept -------------------------------------------------------------------------------


def test_one_connection_for_many_messages() -> None:
    script = [*hello(), *takes(), *takes(2), *takes()]
    played = Relay().play([*sends(), *sends("<b@b.example>", "<c@c.example>"), *sends()], {UP: script})
    assert served(played) == [UP]
    assert played.output.count(b"Ok: queued") == 3
    assert played.peers[0][1].count(b"EHLO") == 1


def test_a_kept_connection_that_the_server_has_closed_is_replaced() -> None:
    for goodbye in ([EOF], [RESET], [b"421 4.4.2 idle\r\n", EOF]):
        scripts = iter([[*hello(), *takes(), *goodbye], [*hello(), *takes()]])
        relay = Relay()
        played = relay.play([*sends(), *sends()], {UP: lambda scripts=scripts: next(scripts)}, all_read=False)
        assert played.output.count(b"Ok: queued") == 2
        assert served(played) == [UP, UP]


@pytest.mark.parametrize("offers", [("PIPELINING",), ("PIPELINING", "CHUNKING")])
def test_h63_an_answer_too_many_acknowledges_nothing(offers: tuple[str, ...]) -> None:
    """It would be taken for the answer to MAIL, and that to RCPT for the answer to the message."""
    answers = b"250 2.0.0 one\r\n"
    first = takes(answer=answers)
    if "CHUNKING" in offers:
        first = [WaitFor(b"RCPT"), b"250 ok\r\n250 ok\r\n", WaitFor(b"BDAT"), answers]
    more: list[Action] = [b"250 2.0.0 extra\r\n", WaitFor(b"RCPT"), b"250 ok\r\n250 ok\r\n", WaitFor(b"\r\n\r\n"), EOF]
    scripts = iter([[*hello(*offers), *first, *more], [*hello(), *takes()]])
    relay = Relay()
    assert relay.answers([*sends(), *sends()], {UP: lambda: next(scripts)}) == ["250 2.0.0 one", OK]


def test_a_kept_connection_breaks_when_it_is_used_and_is_replaced() -> None:
    scripts = iter([[*hello(), *takes(), WaitFor(b"MAIL"), RESET], [*hello(), *takes()]])
    relay = Relay()
    played = relay.play([*sends(), *sends()], {UP: lambda: next(scripts)})
    assert played.output.count(b"Ok: queued") == 2 and served(played) == [UP, UP]
    assert any("Connection lost before the answer to MAIL" in line for line in relay.log)


def test_a_kept_connection_is_not_used_when_it_was_idle_for_long() -> None:
    scripts = iter([[*hello(), *takes(), WaitFor(b"QUIT\r\n")], [*hello(), *takes()]])
    played = Relay().play([*sends(), Advance(IDLE_SECONDS + 1), *sends()], {UP: lambda: next(scripts)})
    assert played.output.count(b"Ok: queued") == 2
    assert [said.count(b"QUIT") for _, said in played.peers] == [1, 0]


def test_a_connection_has_had_its_day() -> None:
    count = MAX_MESSAGES + 1
    scripts = iter([[*hello(), *takes() * MAX_MESSAGES, WaitFor(b"QUIT\r\n")], [*hello(), *takes()]])
    played = Relay().play([*sends() * count], {UP: lambda: next(scripts)})
    assert played.output.count(b"Ok: queued") == count
    assert [said.count(b"MAIL") for _, said in played.peers] == [MAX_MESSAGES, 1]


def test_no_connection_is_kept_without_a_pool() -> None:
    relay = Relay(UPSTREAM_POOL="0")
    played = relay.play([*sends(), *sends()], {UP: [*hello(), *takes(), WaitFor(b"QUIT\r\n")]})
    assert [said.count(b"MAIL") for _, said in played.peers] == [1, 1]


def test_a_transaction_that_came_to_nothing_is_dropped_before_the_next() -> None:
    refused: list[Action] = [WaitFor(b"DATA\r\n"), b"250 ok\r\n550 5.1.1 no\r\n503 no\r\n"]
    script = [*hello(), *refused, *takes(after=b"RSET\r\n")]
    assert Relay().answers([*sends(), *sends()], {UP: script}) == ["550 5.1.1 no", OK]


def test_the_server_limits_recipients_and_messages() -> None:
    """RFC 9422: two transactions, and another session for the third recipient."""
    scripts = iter(
        [
            [*hello("PIPELINING", "LIMITS RCPTMAX=1 MAILMAX=2"), *takes(), *takes(), WaitFor(b"QUIT\r\n")],
            [*hello("PIPELINING", "LIMITS RCPTMAX=1 MAILMAX=2"), *takes()],
        ]
    )
    to = ("<b@b.example>", "<c@c.example>", "<d@d.example>")
    played = Relay("smtp", "lmtp").play(sends(*to), {UP: lambda: next(scripts)})
    assert played.output.count(b"Ok: queued") == 3
    assert [said.count(b"MAIL") for _, said in played.peers] == [2, 1]


def test_h83_a_server_that_must_stop_now_leaves_no_half_message() -> None:
    relay = Relay()
    script: list[Action] = [*hello(), WaitFor(b"DATA\r\n"), b"250 ok\r\n250 ok\r\n354 go\r\n", STALL]
    client: list[Action] = [b"EHLO c\r\n", WaitFor(b"250 SMTPUTF8"), *sends()[:-1], Advance(5), CANCEL]
    played = run_script(relay.service.session, client, outside=Outside({UP: script}), catch=True)
    assert b"\r\n.\r\n" not in played.peers[0][1]
    assert played.output.endswith(b"by itself.\r\n")


# -- TLS and AUTH --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    certificates.authority().cert_pem.write_to_path(str(path))
    return str(path)


def secured(*offers: str, name: str = "up.example") -> list[Action]:
    """A server that does STARTTLS."""
    tls = PeerTLS(certificates.server_context(name), server_side=True)
    begin: list[Action] = [*hello("STARTTLS"), WaitFor(b"STARTTLS\r\n"), b"220 go\r\n", tls]
    return [*begin, *offering(*offers)]


@pytest.mark.parametrize("policy", ["may", "must", "verify"])
def test_starttls(policy: str, authority: str) -> None:
    relay = Relay(UPSTREAM_TLS=policy, UPSTREAM_TLS_CA=authority)
    played = relay.play(sends(), {UP: [*secured("PIPELINING"), *takes()]}, all_read=False)
    assert OK.encode() in played.output
    said = played.peers[0][1]
    assert said.count(b"EHLO") == 2 and said.index(b"STARTTLS") < said.index(b"MAIL")


def test_tls_is_verified_by_default(authority: str) -> None:
    relay = Relay(UPSTREAM_TLS="", UPSTREAM_TLS_CA=authority)
    assert relay.answers(sends(), {UP: [*secured("PIPELINING"), *takes()]}) == [OK]


@pytest.mark.parametrize("policy", ["must", "verify"])
@pytest.mark.parametrize("script", [hello("PIPELINING"), [*hello("STARTTLS"), WaitFor(b"STARTTLS"), b"454 no\r\n"]])
def test_h85_no_mail_in_clear_where_tls_must_be(policy: str, script: list[Action]) -> None:
    relay = Relay(UPSTREAM_TLS=policy)
    played = relay.play(sends(), {UP: script})
    assert NO_SERVER.encode() in played.output
    assert b"MAIL" not in played.peers[0][1]


@pytest.mark.parametrize(
    ("policy", "ca", "name", "sent"),
    [
        ("verify", True, "up.example", True),
        ("verify", True, "other.example", False),
        ("verify", False, "up.example", False),
        ("must", False, "other.example", True),
        ("may", False, "other.example", True),
    ],
)
def test_h85_certificates(policy: str, ca: bool, name: str, sent: bool, authority: str) -> None:
    relay = Relay(UPSTREAM_TLS=policy, **({"UPSTREAM_TLS_CA": authority} if ca else {}))
    played = relay.play(sends(), {UP: [*secured("PIPELINING", name=name), *takes()]}, all_read=False)
    assert (OK.encode() in played.output) == sent
    assert (NO_SERVER.encode() in played.output) != sent


def test_the_certificate_may_have_another_name(authority: str) -> None:
    relay = Relay(UPSTREAM_TLS="verify", UPSTREAM_TLS_CA=authority, UPSTREAM_TLS_NAME="other.example")
    assert relay.answers(sends(), {UP: [*secured("PIPELINING", name="other.example"), *takes()]}) == [OK]


def test_implicit_tls_has_a_port_of_its_own(authority: str) -> None:
    relay = Relay(UPSTREAM_TLS="implicit", UPSTREAM_TLS_CA=authority)
    tls = PeerTLS(certificates.server_context("up.example"), server_side=True)
    assert relay.answers(sends(), {("up.example", 465): [tls, *hello(), *takes()]}) == [OK]


def test_without_starttls_may_goes_in_clear() -> None:
    assert Relay(UPSTREAM_TLS="may").answers(sends(), {UP: [*hello(), *takes()]}) == [OK]


@pytest.fixture
def password(tmp_path: Path) -> str:
    path = tmp_path / "password"
    path.write_text("correct horse\n")
    return str(path)


def test_auth_is_for_each_connection_and_the_password_read_anew(password: str, authority: str) -> None:
    relay = Relay(UPSTREAM_TLS="verify", UPSTREAM_TLS_CA=authority, UPSTREAM_USER="us", UPSTREAM_PASSWORD_FILE=password)
    login: list[Action] = [WaitFor(b"AUTH PLAIN AHVzAGNvcnJlY3QgaG9yc2U=\r\n"), b"235 2.7.0 ok\r\n"]
    script = [*secured("AUTH PLAIN", "PIPELINING"), *login, *takes(), *takes(), EOF]
    other: list[Action] = [WaitFor(b"AUTH PLAIN AHVzAG90aGVy\r\n"), b"235 2.7.0 ok\r\n"]
    scripts = iter([script, [*secured("AUTH PLAIN", "PIPELINING"), *other, *takes()]])
    client = [*sends(), *sends()]
    clock = VirtualClock()
    assert relay.answers(client, {UP: lambda: next(scripts)}, clock=clock) == [OK, OK]
    Path(password).write_text("other")
    assert relay.answers(sends(), {UP: lambda: next(scripts)}, clock=clock) == [OK]
    assert not any("correct horse" in line or "Y29ycmVjd" in line for line in relay.log)


def test_h48_a_password_that_is_refused_shows_nowhere(password: str) -> None:
    relay = Relay(UPSTREAM_USER="us", UPSTREAM_PASSWORD_FILE=password, UPSTREAM_AUTH_CLEAR="")
    echo = b"535 5.7.8 bad AHVzAGNvcnJlY3QgaG9yc2U=\r\n"
    script = [*hello("AUTH PLAIN"), WaitFor(b"AUTH PLAIN"), echo]
    played = relay.play(sends(), {UP: script})
    assert NO_SERVER.encode() in played.output
    assert any("refused AUTH PLAIN" in line for line in relay.log)
    assert not any("AHVz" in line or "correct horse" in line for line in relay.log)


def test_h39_no_password_in_clear(password: str) -> None:
    relay = Relay(UPSTREAM_USER="us", UPSTREAM_PASSWORD_FILE=password)
    played = relay.play(sends(), {UP: hello("AUTH PLAIN")})
    assert NO_SERVER.encode() in played.output
    assert b"AUTH" not in played.peers[0][1]


def test_a_password_file_that_has_gone(password: str) -> None:
    relay = Relay(UPSTREAM_USER="us", UPSTREAM_PASSWORD_FILE=password, UPSTREAM_AUTH_CLEAR="")
    Path(password).unlink()
    assert relay.answers(sends(), {}) == [NO_SERVER]
    assert f"smtp: {password}: No such file or directory" in relay.log


# -- extensions ----------------------------------------------------------------------------------------------

UTF8 = "Subject: ä\r\n\r\nHello.\r\n".encode()
NEEDS = {
    "8BITMIME": (sends(body=b"Subject: x\r\n\r\n\xe4\r\n"), "554 5.6.3 ", b" BODY=8BITMIME"),
    "SMTPUTF8": (sends(body=UTF8, mail=" SMTPUTF8 BODY=8BITMIME"), "554 5.6.7 ", b" SMTPUTF8"),
    "SMTPUTF8 in an address": (sends("<ä@b.example>", mail=" SMTPUTF8"), "554 5.6.7 ", b" SMTPUTF8"),
    "DSN": (sends("<b@b.example> NOTIFY=SUCCESS"), "554 5.3.3 ", b"NOTIFY=SUCCESS"),
    "SIZE 10000": (sends(body=b"x\r\n" * 10_000), "552 5.3.4 ", b""),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_a_message_needs_and_the_next_server_lacks_refuses_it_in_the_session(name: str) -> None:
    client, refusal, _ = NEEDS[name]
    offers = ["PIPELINING", "8BITMIME" if "8BIT" not in name else "X", "SIZE 10000" if "SIZE" in name else "SIZE"]
    played = Relay().play(client, {UP: hello(*offers)})
    assert f"\r\n{refusal}".encode() in played.output
    assert b"MAIL" not in played.peers[0][1]


@pytest.mark.parametrize("name", [name for name in NEEDS if "SIZE" not in name])
def test_what_a_message_needs_is_asked_for_where_it_is_offered(name: str) -> None:
    client, _, said = NEEDS[name]
    script = [*hello("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN"), *takes()]
    played = Relay().play(client, {UP: script})
    assert OK.encode() in played.output
    assert said in played.peers[0][1]


def test_reports_are_asked_for_as_they_were() -> None:
    client = sends("<b@b.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;old@c.example", mail=" RET=HDRS ENVID=order+2B17")
    said = Relay().play(client, {UP: [*hello("PIPELINING", "DSN"), *takes()]}).peers[0][1]
    assert b"MAIL FROM:<a@a.example> RET=HDRS ENVID=order+2B17\r\n" in said
    assert b"RCPT TO:<b@b.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;old@c.example\r\n" in said
    # what nobody was promised does not keep the message from a server without DSN
    assert Relay().answers(client, {UP: [*hello("PIPELINING"), *takes()]}) == [OK]


def test_a_header_goes_on_as_it_is_and_nothing_is_said_of_it_that_was_not_said_to_us() -> None:
    """A bare 8-bit header is old mail's; to call it SMTPUTF8 would have it refused further on."""
    for offers in (("PIPELINING", "8BITMIME"), ("PIPELINING", "8BITMIME", "SMTPUTF8")):
        played = Relay().play(sends(body=UTF8), {UP: [*hello(*offers), *takes()]})
        assert OK.encode() in played.output
        assert b"MAIL FROM:<a@a.example> BODY=8BITMIME\r\n" in played.peers[0][1]
        assert UTF8 in played.peers[0][1]


BINARY = b"Subject: x\r\n\r\n\x00bare \r and \n.\r\n.\r\nno end"


@pytest.mark.parametrize("capable", [True, False])
def test_binary_messages_go_on_octet_by_octet_or_not_at_all(capable: bool) -> None:
    chunk = b"BDAT %d LAST\r\n" % len(BINARY) + BINARY
    client: list[Action] = [
        b"MAIL FROM:<a@a.example> BODY=BINARYMIME\r\nRCPT TO:<b@b.example>\r\n" + chunk,
        WaitFor(b"Recipient accepted.\r\n"),
        WaitFor(b"\r\n"),
    ]
    offers = ["PIPELINING", "CHUNKING", *(["BINARYMIME"] if capable else [])]
    takes_it: list[Action] = [WaitFor(b"RCPT"), b"250 ok\r\n250 ok\r\n", WaitFor(BINARY), b"250 2.0.0 kept\r\n"]
    played = Relay().play(client, {UP: [*hello(*offers), *(takes_it if capable else [])]})
    said = played.peers[0][1]
    if capable:
        assert b"\r\n250 2.0.0 kept\r\n" in played.output
        assert said.endswith(b"BODY=BINARYMIME\r\nRCPT TO:<b@b.example>\r\n" + chunk)
    else:
        assert b"\r\n554 5.6.3 " in played.output and b"MAIL" not in said


def test_requiretls_is_offered_where_it_can_be_kept(authority: str) -> None:
    clear, verified = Relay(), Relay(UPSTREAM_TLS="verify", UPSTREAM_TLS_CA=authority)
    offered = []
    for relay in (clear, verified):
        relay.service._tls_context = certificates.server_context()
        script: list[Action] = [b"EHLO c\r\n", WaitFor(b"250 STARTTLS\r\n"), b"STARTTLS\r\n", WaitFor(b"220 2")]
        script += [PeerTLS(_unverified()), b"EHLO c\r\n", WaitFor(b"250 SMTPUTF8\r\n")]
        if relay is verified:
            script += sends(mail=" REQUIRETLS")
        script += [b"QUIT\r\n", EOF]
        peers: dict[Address, Any] = {UP: [*secured("REQUIRETLS", "PIPELINING"), *takes()]}
        played = run_script(relay.service.session, script, outside=Outside(peers), all_read=False)
        offered.append(b"250-REQUIRETLS\r\n" in played.output)
    assert offered == [False, True]
    assert OK.encode() in played.output
    assert b"MAIL FROM:<a@a.example> REQUIRETLS\r\n" in played.peers[0][1]


def _unverified() -> ssl.SSLContext:
    context = certificates.client_context()
    context.check_hostname = False
    return context


# -- addresses -----------------------------------------------------------------------------------------------


def test_h53_quotes_that_the_compat_profile_removed_are_put_back() -> None:
    relay = Relay(MAILFRONT_PROFILE="compat")
    client: list[Action] = [
        b'EHLO c\r\nMAIL FROM:<"a b"@a.example>\r\nRCPT TO:<"x\\"y"@b.example>\r\nDATA\r\n',
        WaitFor(b"\r\n354 "),
        BODY + b".\r\n",
        WaitFor(b"queued"),
        EOF,
    ]
    played = run_script(relay.service.session, client, outside=Outside({UP: [*hello(), *takes()]}))
    said = played.peers[0][1]
    assert b'MAIL FROM:<"a b"@a.example>' in said and b'RCPT TO:<"x\\"y"@b.example>' in said


def netstrings(*texts: bytes) -> bytes:
    return b"".join(b"%d:%s," % (len(text), text) for text in texts)


@pytest.mark.parametrize(
    ("sender", "recipient", "answer"),
    [
        (b"a b@a.example", b"b@b.example", b"K2.0.0"),
        (b"a@a.example", b"b c@b.example", b"K2.0.0"),
        (b"", b"b@b.example", b"K2.0.0"),
        (b"#@[]", b"b@b.example", b"D5.1.7 No mail server can be told this sender"),
        (b"a@a.example", b"b@b..example", b"D5.1.3 No mail server can be told this recipient"),
        (b"a@a.example", b"", b"D5.1.3 No mail server can be told this recipient"),
        (b"a@a.example", b"b@b.example> NOTIFY=NEVER", b"D5.1.3"),
    ],
)
def test_h52_addresses_of_other_protocols(sender: bytes, recipient: bytes, answer: bytes) -> None:
    package = netstrings(b"\nHello\n", sender, netstrings(recipient))
    relay = Relay(protocol="qmtp")
    played = run_script(relay.service.session, [package, EOF], outside=Outside({UP: [*hello(), *takes()]}))
    assert played.output.partition(b":")[2].startswith(answer), played.output
    if answer.startswith(b"D"):
        assert played.peers == []


def test_a_package_without_recipients_is_nobodys() -> None:
    package = netstrings(b"\nHello\n", b"a@a.example", b"")
    played = run_script(Relay(protocol="qmtp").service.session, [package, EOF], outside=Outside(), all_read=False)
    assert played.peers == []


def test_what_plugins_make_of_an_address_is_checked_too() -> None:
    from mailfront_io.plugin import ACCEPT, Plugin, Response
    from mailfront_io.session import ForwardPath
    from tests.front import Front

    class Rewrites(Plugin):
        name = "rewrites"

        def recipient(self, path: ForwardPath) -> Response:
            path.address = "b@b.example>\r\nRSET\r\n"
            return ACCEPT

    environment = {"UPSTREAM": "up.example", "UPSTREAM_TLS": "none"}
    front = Front("accept", Rewrites, backend="smtp", env=environment)
    assert b"\r\n553 5.1.3 " in front.say(b"EHLO c\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<c@c.example>\r\nQUIT\r\n")


# -- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"UPSTREAM": "::1"}, "$UPSTREAM: '::1' is no server: write HOST, HOST:PORT, [IPv6]:PORT, or a path"),
        ({"UPSTREAM": "a:0"}, "is no server"),
        ({"UPSTREAM": "a:70000"}, "is no server"),
        ({"UPSTREAM": "a:1_0"}, "is no server"),
        ({"UPSTREAM": "[::g]:25"}, "is no server"),
        ({"UPSTREAM": "a.example, b.example:x"}, "'b.example:x' is no server"),
        ({"UPSTREAM_TLS": "always"}, "$UPSTREAM_TLS is 'always': set it to one of none, may, must, verify, implicit"),
        ({"UPSTREAM_TLS": "must", "UPSTREAM_TLS_CA": "/nowhere"}, "$UPSTREAM_TLS_CA: /nowhere holds no certificates"),
        ({"UPSTREAM_USER": "me"}, "$UPSTREAM_USER and $UPSTREAM_PASSWORD_FILE go together"),
        ({"UPSTREAM_USER": "me", "UPSTREAM_PASSWORD_FILE": "/nowhere"}, "/nowhere cannot be read"),
        ({"UPSTREAM_HELO": "two words"}, "$UPSTREAM_HELO: "),
        ({"UPSTREAM_TIMEOUT": "5s"}, "$UPSTREAM_TIMEOUT is '5s', which is no number"),
        ({"UPSTREAM_POOL": "-1"}, "$UPSTREAM_POOL is '-1', which is no number"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Relay(**settings)
    assert complaint in str(caught.value)


def test_h89_lmtp_is_not_spoken_on_port_25() -> None:
    with pytest.raises(ConfigurationError, match="LMTP is not spoken on port 25"):
        Relay("lmtp", UPSTREAM="up.example:25")


def test_lmtp_by_tcp_has_port_24() -> None:
    relay = Relay("lmtp", UPSTREAM="127.0.0.1")
    assert relay.answers(sends(), {("127.0.0.1", 24): lmtp_answers(OK)}) == [OK]


def test_an_ipv6_address_and_a_time_limit() -> None:
    relay = Relay(UPSTREAM="[2001:db8::1]:2500", UPSTREAM_TIMEOUT="7")
    played = relay.play(sends(), {("2001:db8::1", 2500): [Advance(8)]})
    assert NO_SERVER.encode() in played.output and played.elapsed == 7
    assert any("no answer" in line.lower() and "7 seconds" in line for line in relay.log)


def test_a_service_without_an_upstream() -> None:
    service = service_from_line(["smtp", "smtp", "accept"], {}, print)
    with pytest.raises(ConfigurationError, match=r"\$UPSTREAM is not set: smtp needs it"):
        service.check_required()
    output = run_script(service.session, [b"EHLO c\r\nMAIL FROM:<a@a.example>\r\n", EOF]).output
    assert output.endswith(b"\r\n451 4.3.0 Missing backend configuration parameter\r\n")


def test_kept_connections_go_with_their_service() -> None:
    """When a service is replaced, as at a reload, QUIT is said on what it has kept."""
    relay = Relay()
    played = relay.play(sends(), {UP: [*hello(), *takes()]})
    [kept] = relay.service._backend.shared[1]._idle
    received = kept.peer.stream.party.received
    assert played.peers[0][1] == bytes(received)
    del relay
    gc.collect()
    assert kept.peer.closed and received.endswith(b"\r\n.\r\nQUIT\r\n")
