"""Authentication: H39 to H51, H87, H88."""

import base64
import hmac
import os
import re
from pathlib import Path
from typing import Any

import pytest

from mailfront_io.auth.asking import asker_for
from mailfront_io.auth.static import StaticStore
from mailfront_io.auth.store import NOBODY, Asker, CredentialStore, Identity
from mailfront_io.log import line_log
from mailfront_io.ops import Connection
from mailfront_io.plugin import Plugin, Response
from mailfront_io.session import Session
from mailfront_io.testing import EOF, Action, PeerTLS, WaitFor, run_script
from mailfront_proto.cvm import Code, CVMRequest, CVMResponse, Fact, Verdict
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.sasl import (
    Authorize,
    FindKeys,
    Request,
    ScramClient,
    ServerOptions,
    VerifyResponse,
    VerifyToken,
    derive_keys,
    random_challenges,
)
from mailfront_proto.sasl.options import NEEDED
from mailfront_proto.secret import Secret
from mailfront_proto.smtp import Event, SMTPServer, VerifyPassword
from mailfront_proto.testing import assert_chunk_invariant
from tests.certificates import client_context, server_context
from tests.front import Front, codes
from tests.hostile.every import COMPAT, DEFAULT, HELLO, split_outcome
from tests.proto.server_script import Outcome, accept_all, play, player

SECRET = "hunter2-secret"
STORE = StaticStore({"joe": Secret(SECRET.encode())})
CLEAR = {"AUTH_REQUIRES_TLS": "0"}


def plain(user: bytes, password: bytes, other: bytes = b"") -> bytes:
    """An AUTH PLAIN line."""
    return b"AUTH PLAIN " + base64.b64encode(other + b"\0" + user + b"\0" + password) + b"\r\n"


GOOD = plain(b"joe", SECRET.encode())
BAD = plain(b"joe", b"wrong")


def front(*plugins: type[Plugin], env: dict[str, str] | None = None, **options: object) -> Front:
    return Front("authenticate", *plugins, "accept", credentials=STORE, env=CLEAR if env is None else env, **options)  # type: ignore[arg-type]


def test_h39_no_password_without_tls_unless_configured() -> None:
    closed = front(env={})
    output = closed.say(HELLO + GOOD)
    assert b"AUTH" not in output and codes(output)[-1] == 500
    output = front().say(HELLO + GOOD)
    assert b"250-AUTH LOGIN PLAIN\r\n" in output and codes(output)[-1] == 235


@pytest.mark.parametrize("immediate", [False, True], ids=["STARTTLS", "immediate"])
def test_h39_but_under_tls(immediate: bool) -> None:
    server = front(env={"TLS_IMMEDIATE": "1"} if immediate else {}, tls=server_context())
    start: list[Action] = [] if immediate else [HELLO + b"STARTTLS\r\n", WaitFor(b"220 2.0.0")]
    script: list[Action] = [*start, PeerTLS(client_context(), "mx.example.org"), HELLO + GOOD + b"QUIT\r\n"]
    output = server.play(script, all_read=False).output
    assert codes(output)[-2:] == [235, 221]


def test_h40_another_authorization_identity_is_refused() -> None:
    wire = HELLO + plain(b"joe", SECRET.encode(), b"ann") + plain(b"joe", SECRET.encode(), b"joe")
    outcome = split_outcome([wire], mechanisms=("PLAIN",))
    assert outcome.codes() == [220, 250, 535, 235]
    assert codes(front().say(wire)) == [220, 250, 535, 235]


def test_h40_plugins_see_both_where_it_is_allowed() -> None:
    seen = []

    class Sees(Plugin):
        def auth(self, request: VerifyPassword) -> Response:
            seen.append((request.username, request.authorization_identity))
            return Response(250)

    machine = SMTPServer("x")
    machine.sasl = ServerOptions(("PLAIN",), allows_authorization_identity=True)
    outcome = play(machine, [[HELLO + plain(b"joe", b"pw", b"ann")]], accept_all)
    event = next(e for e in outcome.events if isinstance(e, VerifyPassword))
    assert (event.username, event.authorization_identity) == ("joe", "ann")
    server = Front("authenticate", Sees, "accept", credentials=STORE, env=CLEAR)
    server.service._plugins.reverse()
    server.say(HELLO + plain(b"joe", b"pw", b"joe"))
    assert seen == [("joe", "joe")]


CONTROLS = [b"\r", b"\n", b"\r\n", b"\x00", b"\x1b", b"\x7f", b"\x01", b"\t"]


@pytest.mark.parametrize("control", CONTROLS, ids=repr)
def test_h41_control_bytes_in_names_and_passwords_go_nowhere(control: bytes) -> None:
    asked = []

    class Store(CredentialStore):
        mechanisms = ("LOGIN", "PLAIN")

        async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
            asked.append(username)
            return Identity(username)

    server = Front("authenticate", "accept", credentials=Store(), env=CLEAR)
    encode = base64.b64encode
    name, password = b"jo" + control + b"e", b"sec" + control + b"ret"
    login = [b"AUTH LOGIN", encode(name), b"AUTH LOGIN", encode(b"joe"), encode(password), b""]
    output = server.say(HELLO + plain(name, b"x") + plain(b"joe", password) + b"\r\n".join(login))
    assert [code for code in codes(output)[2:] if code != 334] == [501] * 4
    assert asked == []
    assert not any(set(line) & {"\r", "\n", "\0", "\x1b", "\x7f", "\x01", "\t"} for line in server.log)
    outcome = split_outcome([HELLO + plain(name, b"x")], mechanisms=("PLAIN",), few=True)
    assert not any(isinstance(event, VerifyPassword) for event in outcome.events)


BAD_RESPONSES = [
    (b"!", 501), (b"AAA", 501), (b"=", 501), (b"==", 501), (b"", 501), (b"*", 501), (b"* ", 501), (b"**", 501),
    (b"\xff\xfe", 501), (b"AA AA", 501), (b" AAAA", 501), (b"A" * 12_284, 501), (b"A" * 12_289, 500),
    (b"A" * 200_000, 500), (b"QUIT", 501), (b"\0", 501),
]  # fmt: skip


@pytest.mark.parametrize(("response", "code"), BAD_RESPONSES, ids=[repr(r[:9]) for r, _ in BAD_RESPONSES])
@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN"])
def test_h42_any_response_fails_properly_and_the_session_goes_on(mechanism: bytes, response: bytes, code: int) -> None:
    wire = [HELLO + b"AUTH " + mechanism + b"\r\n", response + b"\r\n" + b"NOOP\r\n"]
    outcome = split_outcome(wire, mechanisms=("PLAIN", "LOGIN"), few=len(response) > 100)
    if mechanism == b"LOGIN" and response == b"A" * 12_284:
        code = 501  # NULs are no name
    assert outcome.codes() == [220, 250, 334, code, 250]


@pytest.mark.parametrize("argument", [b"=", b"!", b"A", b"*", b"==", b"AA==AA==", b"\xff", b"= =", b"AGE= x"])
def test_h42_any_initial_response_too(argument: bytes) -> None:
    wire = HELLO + b"AUTH PLAIN " + argument + b"\r\nNOOP\r\n"
    assert split_outcome([wire], mechanisms=("PLAIN",)).codes() == [220, 250, 501, 250]
    assert split_outcome([wire], COMPAT, mechanisms=("PLAIN",)).codes() == [220, 250, 501, 250]


def test_h43_attempts_are_counted_delayed_and_ended() -> None:
    played = front().play([HELLO, *[BAD] * 9], all_read=False)
    assert codes(played.output) == [220, 250, 535, 535, 535, 535, 535, 421]
    assert played.elapsed == 5.0  # one second each
    cancelled = b"AUTH LOGIN\r\n*\r\nAUTH NTLM\r\n"
    output = front().say(HELLO, *[cancelled] * 3, *[BAD] * 4, GOOD)
    assert codes(output)[-1] == 235  # what was cancelled, or met no mechanism, was no attempt
    assert DEFAULT.limits.auth_failures == 5


def test_h43_a_malformed_response_is_an_attempt_too() -> None:
    outcome = split_outcome([HELLO + b"AUTH PLAIN !\r\n" * 9], mechanisms=("PLAIN",))
    assert outcome.codes() == [220, 250, *[501] * 5, 421]


@pytest.mark.parametrize("name", [b"\xff", b"\xc3", b"jo\x80e", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_h47_invalid_utf8_in_a_name_fails_and_nothing_else(name: bytes) -> None:
    wire = HELLO + plain(name, b"x") + b"AUTH LOGIN " + base64.b64encode(name) + b"\r\nNOOP\r\n"
    assert split_outcome([wire], mechanisms=("PLAIN", "LOGIN")).codes() == [220, 250, 501, 501, 250]
    assert codes(front().say(wire)) == [220, 250, 501, 501, 250]


def test_h46_no_verdict_is_kept() -> None:
    """Nothing between the session and its store remembers: each login is asked, with all that was given."""
    asked: list[tuple[str, bytes]] = []

    class Asked(StaticStore):
        async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
            asked.append((username, password.reveal()))
            return await super().verify_password(username, password, asker)

    server = Front("authenticate", "accept", credentials=Asked({"joe": Secret(SECRET.encode())}), env=CLEAR)
    assert [codes(server.say(HELLO + wire))[-1] for wire in (GOOD, BAD, GOOD)] == [235, 535, 235]
    assert asked == [("joe", SECRET.encode()), ("joe", b"wrong"), ("joe", SECRET.encode())]


ENCODED = base64.b64encode(b"\0joe\0" + SECRET.encode())
WORD = base64.b64encode(SECRET.encode())
LEAKS: dict[str, bytes] = {
    "accepted": b"AUTH PLAIN " + ENCODED,
    "refused for lack of TLS": b"AUTH PLAIN " + ENCODED,
    "with a tab": b"AUTH PLAIN\t" + ENCODED,
    "unknown mechanism": b"AUTH XPLAIN " + ENCODED,
    "in place of the mechanism": b"AUTH " + ENCODED,
    "no base64": b"AUTH PLAIN " + SECRET.encode(),
    "responses that were not asked for": b"AUTH LOGIN\r\nam9l\r\n" + WORD + b"\r\n" + WORD,
    "in a transaction": b"MAIL FROM:<a@b.example>\r\nAUTH LOGIN\r\nam9l\r\n" + WORD,
    "mistyped PASS": b"USER joe\r\nPASS " + SECRET.encode(),
    "mistyped pass with a tab": b"pass\t" + SECRET.encode(),
    "mistyped AUTH": b"AUHT PLAIN " + ENCODED,
    "the mechanism alone": b"PLAIN " + ENCODED,
    "malformed": b"AUTH PLAIN " + base64.b64encode(b"joe\0" + SECRET.encode()),
    "control byte": b"AUTH PLAIN " + base64.b64encode(b"\0joe\0" + SECRET.encode() + b"\n"),
    "two blanks": b"AUTH  PLAIN   " + ENCODED,
    "after being authenticated": b"AUTH PLAIN " + ENCODED + b"\r\nAUTH PLAIN " + ENCODED,
    "too long": b"AUTH PLAIN " + ENCODED * 2000,
    "cancelled half way": b"AUTH LOGIN\r\nam9l\r\n*" + WORD,
}


@pytest.mark.parametrize("profile", ["default", "compat"])
@pytest.mark.parametrize("offered", [True, False], ids=["offered", "not offered"])
@pytest.mark.parametrize("name", LEAKS)
def test_h48_no_password_in_any_log_or_answer(name: str, offered: bool, profile: str, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT, 0o600)
    server = Front(
        "authenticate", "accept", credentials=STORE,
        env={"MAILFRONT_PROFILE": profile, "MSG_DEBUG": "1", **(CLEAR if offered else {})},
        log=line_log("mailfront", profile == "compat", descriptor),
    )  # fmt: skip
    output = server.say(HELLO + LEAKS[name] + b"\r\nNOOP\r\nQUIT\r\n")
    os.close(descriptor)
    log = (tmp_path / "log").read_bytes()
    assert b"bytes in: " in log
    for hidden in (SECRET.encode(), ENCODED, WORD, ENCODED.rstrip(b"="), WORD.rstrip(b"=")):
        assert hidden not in log
        assert hidden not in output


def test_h48_nor_in_an_exception_of_a_store(tmp_path: Path) -> None:
    class Broken(CredentialStore):
        mechanisms = ("LOGIN", "PLAIN")

        async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
            raise RuntimeError(f"no answer for {username} {password} {password!r} {[password]}")

    server = Front("authenticate", "accept", credentials=Broken(), env=CLEAR)
    output = server.play([HELLO + GOOD + b"NOOP\r\n", EOF]).output
    assert codes(output) == [220, 250, 454, 250]
    assert not any(SECRET in line for line in server.log)
    assert sum("credential store: RuntimeError in " in line for line in server.log) == 1


# -- the other mechanisms: the pure machine -------------------------------------------------------------------

SALT_SECRET = Secret(b"0123456789abcdef")
BINDINGS = {"tls-exporter": b"this connection"}


def machine_with(**options: Any) -> SMTPServer:
    machine = SMTPServer("mx.example.org")
    given: dict[str, Any] = {
        "nonce_source": lambda size: b"n" * size, "salt_secret": SALT_SECRET, "channel_bindings": BINDINGS,
        "external_identity": "joe", "challenge_source": random_challenges(lambda size: b"c" * size, "mx.example.org"),
    }  # fmt: skip
    machine.sasl = ServerOptions(tuple(NEEDED), **given | options)
    return machine


KEYS = derive_keys(Secret(SECRET.encode()), b"sixteen octets..", 4096)


def answer(machine: SMTPServer, event: Event) -> None:
    """joe has keys; whom a mechanism has let through is let in."""
    if isinstance(event, FindKeys):
        machine.supply_keys(KEYS if event.username == "joe" else None)
    elif isinstance(event, VerifyPassword | VerifyResponse | VerifyToken):
        machine.reply(535, "5.7.8 No")
    else:
        machine.accept()


def split(lines: list[bytes], **options: Any) -> Outcome:
    """What `lines` lead to under every split. The client waits for the answer to each."""
    outcome = assert_chunk_invariant(lambda: player(machine_with(**options), answer), [HELLO + lines[0], *lines[1:]])
    return Outcome(outcome.events, outcome.output)


def auth(mechanism: str, message: bytes) -> bytes:
    return b"AUTH %s %s\r\n" % (mechanism.encode(), base64.b64encode(message) or b"=")


def scram_login(username: str, password: str, name: str = "SCRAM-SHA-256") -> tuple[list[bytes], Outcome]:
    """What a client of ours says to the machine, and what comes of it."""
    binding = ("tls-exporter", BINDINGS["tls-exporter"]) if name.endswith("-PLUS") else None
    client = ScramClient(name, username, Secret(password.encode()), b"eighteen octets...", channel_binding=binding)
    lines = [auth(name, client.initial_response())]
    challenge = split(lines).output.split(b"\r\n")[-2]
    lines.append(base64.b64encode(client.respond(base64.b64decode(challenge[4:]))) + b"\r\n")
    return lines, split(lines)


H41_MESSAGES = {
    "SCRAM-SHA-256": b"n,,n=jo%se,r=abcdefgh", "EXTERNAL": b"jo%se", "ANONYMOUS": b"jo%se",
    "OAUTHBEARER": b"n,a=jo%se,\x01auth=Bearer x\x01\x01", "XOAUTH2": b"user=jo%se\x01auth=Bearer x\x01\x01",
}  # fmt: skip


@pytest.mark.parametrize("control", [b"\r", b"\n", b"\x00", b"\x1b", b"\x7f", b"\xc2\x85"], ids=repr)
@pytest.mark.parametrize("name", H41_MESSAGES)
def test_h41_in_every_mechanism(name: str, control: bytes) -> None:
    outcome = split([auth(name, H41_MESSAGES[name] % control)])
    assert outcome.codes() == [220, 250, 501] and "Refused" in outcome.kinds()


@pytest.mark.parametrize("response", [b"!", b"=", b"*", b"", b"A" * 12_284, b"A" * 13_000, b"AAA", b"\xff"], ids=repr)
@pytest.mark.parametrize("name", [name for name in NEEDED if name not in ("PLAIN", "LOGIN")])
def test_h42_in_every_mechanism(name: str, response: bytes) -> None:
    machine = machine_with()
    outcome = play(machine, [[HELLO + b"AUTH " + name.encode() + b"\r\n"], [response + b"\r\nNOOP\r\n"]], answer)
    fine = not response and name in ("EXTERNAL", "ANONYMOUS")
    code = 500 if len(response) > 12_286 else 235 if fine else 501
    if name == "CRAM-MD5" and response == b"A" * 12_284:
        code = 501
    assert outcome.codes() == [220, 250, 334, code, 250]


def test_h44_proofs_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    compare = hmac.compare_digest

    def counting(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    _, outcome = scram_login("joe", "wrong")
    assert outcome.codes()[-1] == 535 and (32, 32) in compared
    compared.clear()
    assert not VerifyResponse("CRAM-MD5", "CRAM-MD5", "joe", b"<1@x>", Secret(bytes(16))).matches(Secret(b"x"))
    assert compared == [(16, 16)]


COUNTS = [b"1000001", b"999999999", b"4095", b"1", b"0", b"-1", b"+4096", b"4_096", b" 4096", b"1" * 5000]


@pytest.mark.parametrize("count", COUNTS)
def test_h44_a_client_does_not_count_as_far_as_a_server_likes(count: bytes) -> None:
    client = ScramClient("SCRAM-SHA-256", "joe", Secret(b"x"), b"eighteen octets...")
    with pytest.raises(RemoteProtocolError):
        client.respond(b"r=" + base64.b64encode(b"eighteen octets...") + b"more,s=c2FsdA==,i=" + count)


def test_h44_nonces_come_from_the_driver() -> None:
    asked = []

    def source(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    play(machine_with(nonce_source=source), [[HELLO + auth("SCRAM-SHA-256", b"n,,n=joe,r=abcdefgh")]], answer)
    assert asked == [18]
    with pytest.raises(LocalProtocolError, match="needs nonce_source"):
        ServerOptions(["SCRAM-SHA-256"], salt_secret=SALT_SECRET)


@pytest.mark.parametrize(("said", "code"), [(b"", 235), (b"joe", 235), (b"root", 535), (b"joe\0", 501), (b"JOE", 535)])
def test_h45_external_takes_the_name_from_outside_only(said: bytes, code: int) -> None:
    outcome = split([auth("EXTERNAL", said)])
    assert outcome.codes() == [220, 250, code]
    assert all(e.username == "joe" for e in outcome.events if isinstance(e, Authorize))
    with pytest.raises(LocalProtocolError, match="EXTERNAL needs external_identity"):
        ServerOptions(["EXTERNAL"])


@pytest.mark.parametrize(
    ("name", "message", "code"),
    [
        ("SCRAM-SHA-256", b"y,,n=joe,r=abcdefgh", 535), ("SCRAM-SHA-1", b"y,,n=joe,r=abcdefgh", 535),
        ("SCRAM-SHA-256", b"n,,m=x,n=joe,r=abcdefgh", 501), ("SCRAM-SHA-256", b"n,,n=joe,r=abcdefgh,m=x", 501),
        ("SCRAM-SHA-256-PLUS", b"p=tls-unique,,n=joe,r=abcdefgh", 535),
        ("SCRAM-SHA-256-PLUS", b"n,,n=joe,r=abcdefgh", 501),
        ("SCRAM-SHA-256", b"p=tls-exporter,,n=joe,r=abcdefgh", 501),
    ],
)  # fmt: skip
def test_h87_scram_takes_no_downgrade_and_no_mandatory_extension(name: str, message: bytes, code: int) -> None:
    outcome = split([auth(name, message)])
    assert outcome.codes() == [220, 250, code]
    assert not any(isinstance(event, FindKeys) for event in outcome.events)


def test_h87_an_unknown_user_is_told_nothing() -> None:
    challenges = {}
    for username in ("joe", "ann", "bob"):
        (_, outcome), (_, again) = scram_login(username, "wrong"), scram_login(username, "wrong")
        assert outcome == again and outcome.codes() == [220, 250, 334, 535]
        assert outcome.output.endswith(b"\r\n535 5.7.8 Authentication failed.\r\n")
        challenges[username] = base64.b64decode(outcome.output.split(b"334 ")[1].partition(b"\r\n")[0])
    salts = {challenge.partition(b",s=")[2].partition(b",")[0] for challenge in challenges.values()}
    assert len(salts) == 3 and len({len(salt) for salt in salts}) == 1
    assert [b",i=15000" in challenges[name] for name in ("ann", "bob")] == [True, True]
    _, outcome = scram_login("joe", SECRET)
    assert outcome.codes() == [220, 250, 334, 334]  # the server's signature, which only joe gets


def test_h88_a_challenge_tells_nothing_of_the_process() -> None:
    source = random_challenges(os.urandom, "mx.example.org")
    challenges = {source() for _ in range(50)}
    assert len(challenges) == 50
    for challenge in challenges:
        assert re.fullmatch(rb"<[0-9a-f]{32}@mx\.example\.org>", challenge)
    with pytest.raises(LocalProtocolError, match="CRAM-MD5 needs challenge_source"):
        ServerOptions(["CRAM-MD5"])


def test_h43_a_wrong_proof_is_an_attempt() -> None:
    lines, _ = scram_login("joe", "wrong")
    outcome = play(machine_with(), [[HELLO + b"".join(lines * 9)]], answer)
    assert outcome.codes() == [220, 250, *[334, 535] * 5, 421]


@pytest.mark.parametrize("name", ["SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "CRAM-MD5"])
def test_h48_no_event_of_a_mechanism_shows_a_secret(name: str) -> None:
    token = f"Bearer {SECRET}"
    lines = {
        "SCRAM-SHA-256": lambda: scram_login("joe", SECRET)[0] + [b"\r\n"],
        "OAUTHBEARER": lambda: [auth(name, f"n,a=joe,\x01auth={token}\x01\x01".encode()), b"AQ==\r\n"],
        "XOAUTH2": lambda: [auth(name, f"user=joe\x01auth={token}\x01\x01".encode()), b"\r\n"],
        "CRAM-MD5": lambda: [b"AUTH CRAM-MD5\r\n", base64.b64encode(b"joe " + b"0" * 32) + b"\r\n"],
    }[name]()
    outcome = split(lines)
    assert SECRET not in repr(outcome.events)
    assert any(isinstance(event, Request) for event in outcome.events)


# -- credential validation modules -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [256, 257, 300, 512, 70_000])
def test_h49_a_value_that_is_too_long_is_refused_and_never_wrapped(size: int) -> None:
    # 256 + 10 octets with their length wrapped would end after ten: the rest would be credentials of its own.
    evil = b"x" * (size - 8) + b"\3\6secret"[:8]
    for request in (
        CVMRequest(evil), CVMRequest(b"joe", evil), CVMRequest(b"joe", b"", Secret(evil)),
        CVMRequest(b"joe", b"", None, Secret(evil)), CVMRequest(b"joe", b"", challenge=evil),
    ):  # fmt: skip
        with pytest.raises(LocalProtocolError, match=r"control byte|255 octets"):
            request.encode()
    for packet in (b"\2\0\1\3joe\3\xff" + evil[:255] + b"\0", b"\1joe\0\0" + evil + b"\0\0"):
        read = CVMRequest.parse(packet)
        assert read is None or read.password is None or len(read.password.reveal()) == 255


def test_h49_an_empty_password_is_sent_as_empty_or_refused() -> None:
    assert CVMRequest(b"joe", b"", Secret(b"")).encode() == b"\2\0\1\3joe\2\0\3\0\0"
    with pytest.raises(LocalProtocolError, match="an empty one would end the list"):
        CVMRequest(b"joe", b"", Secret(b""), version=1).encode()


@pytest.mark.parametrize("chance", [b"", b"12345678", b"87654321", b"1234567", b"123456789", bytes(8)])
def test_h50_an_answer_without_the_right_random_bytes_is_none(chance: bytes) -> None:
    asked = CVMRequest(b"joe", b"", Secret(b"x"), random_bytes=b"\x00\xff345678")
    forged = CVMResponse(Code.SUCCESS, ((Fact.USERNAME, b"joe"),)).encode(CVMRequest(b"joe", random_bytes=chance))
    for packet in (forged, forged[:1], b"", b"\0\x08\x00\xff", b"\0\xff" + asked.random_bytes):
        with pytest.raises(RemoteProtocolError):
            CVMResponse.parse(packet, asked)
    # The right server is the driver's to check: it connects its socket.


def test_h51_a_login_that_maps_to_the_superuser_is_refused() -> None:
    asked = CVMRequest(b"root", b"", Secret(b"x"))
    packet = CVMResponse(Code.SUCCESS, ((Fact.USERNAME, b"root"), (Fact.USER_ID, b"0"))).encode(asked)
    assert CVMResponse.parse(packet, asked).verdict is Verdict.REFUSED
    assert CVMResponse.of_command(packet, 0, asked).verdict is Verdict.REFUSED
    for disguised in (b"00", b"0x0", b"-0", b" 0", b"4294967296"):
        response = CVMResponse.parse(CVMResponse(0, ((Fact.USER_ID, disguised),)).encode(asked), asked)
        with pytest.raises(RemoteProtocolError):
            response.verdict  # noqa: B018


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_h51_in_every_profile(profile: str) -> None:
    class Store(CredentialStore):
        mechanisms = ("LOGIN", "PLAIN")

        async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
            return Identity(username, uid=0 if username == "root" else 500)

    server = Front("authenticate", "accept", credentials=Store(), env={**CLEAR, "MAILFRONT_PROFILE": profile})
    output = server.say(HELLO + plain(b"root", b"x") + plain(b"joe", b"x"))
    assert codes(output)[2:] == [501 if profile == "compat" else 535, 235]


@pytest.mark.parametrize("in_server", [False, True])
def test_h58_modules_of_a_server_get_what_is_of_cvm_and_no_other_secrets(in_server: bool) -> None:
    settings = {
        "PATH": "/bin",
        "CVM_PWFILE_PATH": "/etc/pw",
        "CVM_LOOKUP_SECRET": "shared",
        "CVM_ODD": "a\nb",
        "DATABASE_PASSWORD": "hidden",
        "TLS_KEYFILE": "/etc/key",
        "MYSQL_TCP_PORT": "3306",
    }
    asked: list[Asker] = []

    async def run(connection: Connection) -> int:
        facts = {"PROTO": "TCP", "TCPREMOTEIP": "192.0.2.1"} if in_server else None
        asked.append(asker_for(Session(connection, settings, print, facts=facts), 90.0))
        return 0

    run_script(run, [])
    [asker] = asked
    of_cvm = {"PATH": "/bin", "CVM_PWFILE_PATH": "/etc/pw", "CVM_LOOKUP_SECRET": "shared"}
    own = {"PROTO": "TCP", "TCPREMOTEIP": "192.0.2.1"} if in_server else {}
    inherited = {} if in_server else {"TLS_KEYFILE": "/etc/key", "MYSQL_TCP_PORT": "3306"}
    assert asker.program_environment == {**of_cvm, **own, **inherited}
