"""SASL: PLAIN and LOGIN in both roles, base64, and the exchange that carries them."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.sasl import (
    Cause,
    Challenge,
    ClientExchange,
    ClientMechanism,
    Failed,
    LoginClient,
    LoginServer,
    PlainClient,
    PlainServer,
    Request,
    ServerExchange,
    ServerOptions,
    Step,
    VerifyPassword,
)
from mailfront_proto.sasl.base64_line import MAX_DECODED, decode_base64, encode_base64
from mailfront_proto.secret import Secret
from tests.proto.sasl_peers import talk

MALFORMED = Failed(Cause.MALFORMED)
BOTH = ServerOptions(["PLAIN", "LOGIN"])


def password(username: str, secret: Secret, other: str, mechanism: str = "PLAIN") -> VerifyPassword:
    return VerifyPassword(mechanism, mechanism, username, secret, other)


JOE = password("joe", Secret(b"secret"), "")
LOGIN_JOE = password("joe", Secret(b"secret"), "", "LOGIN")


# -- PLAIN -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "step"),
    [
        (b"\0joe\0secret", JOE),
        (b"joe\0joe\0secret", password("joe", Secret(b"secret"), "joe")),
        (b"ann\0joe\0secret", password("joe", Secret(b"secret"), "ann")),
        ("\0jörg\0gehéim".encode(), password("jörg", Secret("gehéim".encode()), "")),
        (b"\0joe\0\xff\xfe", password("joe", Secret(b"\xff\xfe"), "")),
    ],
)
def test_plain(message: bytes, step: Step) -> None:
    assert PlainServer().start(message) == step
    server = PlainServer()
    assert server.start(None) == Challenge(b"")
    assert server.respond(message) == step


BAD_PLAIN = [
    b"", b"joe", b"\0joe", b"joe\0secret", b"\0joe\0secret\0", b"\0\0secret", b"\0joe\0", b"\0\0", b"\0\0\0",
    b"\0jo\ne\0secret", b"\0joe\0sec\ret", b"\0joe\0sec\x7fret", b"\0\xff\0secret", b"\xff\0joe\0secret",
    b"a\x1bb\0joe\0secret", "\0jo\u0085e\0secret".encode(), b"\0joe\0s\x01",
]  # fmt: skip


@pytest.mark.parametrize("message", BAD_PLAIN)
def test_plain_malformed(message: bytes) -> None:
    assert PlainServer().start(message) == MALFORMED


def test_plain_compat_takes_any_authorization_identity_and_hands_on_none() -> None:
    assert PlainServer(ignores_authorization_identity=True).start(b"\xff\x01\0joe\0secret") == JOE
    assert PlainServer(ignores_authorization_identity=True).start(b"\0joe\n\0secret") == MALFORMED


# -- LOGIN -----------------------------------------------------------------------------------------------


def test_login() -> None:
    server = LoginServer()
    assert server.start(None) == Challenge(b"Username:")
    assert server.respond(b"joe") == Challenge(b"Password:")
    assert server.respond(b"secret") == LOGIN_JOE


def test_login_with_an_initial_response() -> None:
    server = LoginServer()
    assert server.start(b"joe") == Challenge(b"Password:")
    assert server.respond(b"secret") == LOGIN_JOE


@pytest.mark.parametrize("name", [b"", b"\0", b"jo\re", b"\xff", "jo\u0080e".encode()])
def test_login_bad_names(name: bytes) -> None:
    server = LoginServer()
    server.start(None)
    assert server.respond(name) == MALFORMED


@pytest.mark.parametrize("password", [b"", b"\0", b"sec\nret", b"\x7f"])
def test_login_bad_passwords(password: bytes) -> None:
    server = LoginServer()
    server.start(b"joe")
    assert server.respond(password) == MALFORMED


# -- the client role -------------------------------------------------------------------------------------


NAMES = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=40)
PASSWORDS = st.binary(min_size=1, max_size=40).filter(lambda p: not any(b < 32 or b == 127 for b in p))


@given(NAMES, PASSWORDS, NAMES, st.booleans())
def test_plain_between_the_two_roles(name: str, secret: bytes, other: str, at_once: bool) -> None:
    room = None if at_once else 0
    talked = talk(PlainClient(name, Secret(secret)), BOTH, room=room)
    assert talked.requests == [password(name, Secret(secret), "")] and talked.succeeded and not talked.objection
    options = ServerOptions(["PLAIN"], allows_authorization_identity=True)
    assert talk(PlainClient(name, Secret(secret), other), options, room=room).requests == [
        password(name, Secret(secret), other)
    ]
    talked = talk(PlainClient(name, Secret(secret), other), BOTH, room=room)
    if other != name:
        assert talked.failed == Failed(Cause.OTHER_IDENTITY) and not talked.requests


@given(NAMES, PASSWORDS)
def test_login_between_the_two_roles(name: str, secret: bytes) -> None:
    talked = talk(LoginClient(name, Secret(secret)), BOTH)
    assert talked.requests == [password(name, Secret(secret), "", "LOGIN")] and talked.succeeded


@pytest.mark.parametrize(
    ("name", "password", "other"),
    [("", b"x", ""), ("x", b"", ""), ("a\0b", b"x", ""), ("a", b"\0", ""), ("a", b"b", "\0")],
)
def test_a_plain_client_refuses_what_it_could_not_say(name: str, password: bytes, other: str) -> None:
    with pytest.raises(LocalProtocolError, match="PLAIN takes a user name and a password"):
        PlainClient(name, Secret(password), other)


@pytest.mark.parametrize(("name", "password"), [("", b"x"), ("x", b"")])
def test_a_login_client_refuses_what_it_could_not_say(name: str, password: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="LOGIN takes a user name and a password"):
        LoginClient(name, Secret(password))


def test_a_client_does_not_answer_what_makes_no_sense() -> None:
    with pytest.raises(RemoteProtocolError):
        PlainClient("joe", Secret(b"secret")).respond(b"who?")
    login = LoginClient("joe", Secret(b"secret"))
    assert login.respond(b"anything") == b"joe"
    assert login.respond(b"") == b"secret"
    with pytest.raises(RemoteProtocolError):
        login.respond(b"more?")


# -- the exchange ----------------------------------------------------------------------------------------


def begun(mechanism: bytes = b"PLAIN") -> ServerExchange:
    exchange = ServerExchange(BOTH)
    assert isinstance(exchange.start(mechanism, None), Challenge)
    return exchange


@pytest.mark.parametrize("line", [b"*", b"* ", b"*AGpvZQ==", b""])
def test_cancelling(line: bytes) -> None:
    step = begun().respond(line)
    assert step == Failed(Cause.ABORTED) and not Cause.ABORTED.is_attempt


def test_an_empty_initial_response_is_an_equals_sign() -> None:
    for compat in (False, True):
        anonymous = ServerExchange(ServerOptions(["ANONYMOUS"]), as_original=compat)
        assert isinstance(anonymous.start(b"ANONYMOUS", b"="), Request)
    unknown = ServerExchange(ServerOptions(["ANONYMOUS"]), as_original=True)
    assert unknown.start(b"FOO", b"=") == Failed(Cause.BAD_INITIAL_RESPONSE)
    # In these nothing is to be said with it, and it is refused as the original does.
    assert ServerExchange(BOTH).start(b"PLAIN", b"=") == Failed(Cause.BAD_INITIAL_RESPONSE)
    assert ServerExchange(BOTH).start(b"LOGIN", b"=") == Failed(Cause.BAD_INITIAL_RESPONSE)
    assert begun().respond(b"=") == Failed(Cause.BAD_RESPONSE)  # only an initial one: RFC 4954 section 4


def test_an_empty_line_is_a_response_where_that_makes_sense() -> None:
    anonymous = ServerExchange(ServerOptions(["ANONYMOUS"]))
    assert anonymous.start(b"ANONYMOUS", None) == Challenge(b"")
    assert isinstance(anonymous.respond(b""), Request)


@pytest.mark.parametrize("name", [b"plain", b"Plain", b"PLAIN"])
def test_names_are_taken_in_any_case_and_kept_as_sent(name: bytes) -> None:
    exchange = ServerExchange(BOTH)
    request = exchange.start(name, encode_base64(b"\0joe\0secret"))
    assert request == VerifyPassword("PLAIN", name.decode(), "joe", Secret(b"secret"), "")
    assert exchange.mechanism == name.decode()


NO_NAMES = [b"", b"PLAINX", b"CRAM-MD5", b"plai\xc4\xb1n", b"\xff", b"PLAIN\tAGpvZQ==", b"A" * 3000, b"AGpvZQBzZQ=="]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_not_offered(name: bytes) -> None:
    exchange = ServerExchange(BOTH)
    step = exchange.start(name, b"AGpvZQBzZWNyZXQ=")
    assert step == Failed(Cause.NO_SUCH_MECHANISM) and not Cause.NO_SUCH_MECHANISM.is_attempt
    assert len(exchange.mechanism) < 40 and "AGpvZQ" not in exchange.mechanism


def test_a_line_that_is_too_long() -> None:
    assert begun().oversized() == Failed(Cause.TOO_LONG)


@pytest.mark.parametrize("name", ["NTLM", "plain", "", "PLAIN "])
def test_what_is_not_known_cannot_be_offered(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="is not known; there are PLAIN, LOGIN, CRAM-MD5"):
        ServerOptions(["PLAIN", name])


def test_what_lacks_something_cannot_be_offered() -> None:
    with pytest.raises(LocalProtocolError, match="CRAM-MD5 needs challenge_source"):
        ServerOptions(["PLAIN", "CRAM-MD5"])


@pytest.mark.parametrize("cause", Cause)
def test_causes_have_words_and_a_text(cause: Cause) -> None:
    assert cause.words and cause.text and cause.text.isascii()


BAD_BASE64 = [
    b"A", b"AA", b"AAA", b"AAAAA", b"=", b"==", b"A===", b"====", b"AA=A", b"AAA=AAAA", b" AAAA", b"AAAA ", b"AA AA",
    b"AAAA\r", b"AAAA\n", b"AA-_", b"AA\0A", b"\xff\xff\xff\xff", b"AAAA=", b"AAAA==", b"AAAA\x0b", b"AA==\n",
]  # fmt: skip


@pytest.mark.parametrize("data", BAD_BASE64)
def test_what_is_no_base64(data: bytes) -> None:
    assert decode_base64(data) is None
    assert begun().respond(data) == Failed(Cause.BAD_RESPONSE)
    assert ServerExchange(BOTH).start(b"PLAIN", data) == Failed(Cause.BAD_INITIAL_RESPONSE)


@pytest.mark.parametrize("behind", [b"==", b"=", b"==x", b"== ", b"== x", b"==\t", b"====", b"=b=", b"==AHUAcA=="])
def test_base64_as_the_original_reads_it(behind: bytes) -> None:
    original = ServerExchange(BOTH, as_original=True)
    assert isinstance(original.start(b"PLAIN", b"AHUAdw" + behind), VerifyPassword)
    if behind != b"==":
        assert ServerExchange(BOTH).start(b"PLAIN", b"AHUAdw" + behind) == Failed(Cause.BAD_INITIAL_RESPONSE)
    for nothing in (b"=", b"A=", b"AHUAd=", b"AHUAdw", b"AHUA dw=="):
        assert ServerExchange(BOTH, as_original=True).start(b"PLAIN", nothing) == Failed(Cause.BAD_INITIAL_RESPONSE)


def test_spare_bits_pass() -> None:
    assert decode_base64(b"QQ==") == decode_base64(b"QR==") == b"A"


@given(st.binary(max_size=300))
def test_base64_there_and_back(data: bytes) -> None:
    assert decode_base64(encode_base64(data)) == data
    assert encode_base64(data) == base64.b64encode(data)


@given(st.binary(max_size=60))
def test_decoding_is_total_and_strict(data: bytes) -> None:
    decoded = decode_base64(data)
    if decoded is not None:
        assert len(encode_base64(decoded)) == len(data)
        assert base64.b64decode(data, validate=True) == decoded


def test_a_decoded_response_is_bounded() -> None:
    assert decode_base64(encode_base64(bytes(MAX_DECODED))) == bytes(MAX_DECODED)
    assert decode_base64(encode_base64(bytes(MAX_DECODED + 1))) is None


@given(st.sampled_from([b"PLAIN", b"LOGIN"]), st.lists(st.binary(max_size=60), max_size=4), st.booleans())
def test_no_line_makes_an_exchange_raise(mechanism: bytes, lines: list[bytes], initial: bool) -> None:
    exchange = ServerExchange(BOTH)
    step = exchange.start(mechanism, lines.pop(0) if initial and lines else None)
    for line in lines:
        if not isinstance(step, Challenge):
            break
        step = exchange.respond(line)
    assert isinstance(step, Challenge | Request | Failed)


# -- the client's exchange -------------------------------------------------------------------------------


def test_an_initial_response_that_has_no_room_is_held_back() -> None:
    exchange = ClientExchange(PlainClient("joe", Secret(b"secret")))
    assert exchange.initial_response(15) is None
    assert exchange.respond(b"") == b"AGpvZQBzZWNyZXQ="
    assert ClientExchange(PlainClient("joe", Secret(b"secret"))).initial_response(16) == b"AGpvZQBzZWNyZXQ="


def test_a_challenge_where_the_initial_response_is_awaited_must_be_empty() -> None:
    exchange = ClientExchange(PlainClient("joe", Secret(b"secret")))
    exchange.initial_response(0)
    assert exchange.respond(b"AAAA") == b"*"
    assert exchange.cancelled == "the server sent a challenge for PLAIN that is not empty"
    assert exchange.respond(b"") is None
    assert exchange.objection() == "claims success in an exchange that was cancelled"


def test_challenges_have_an_end() -> None:
    class Patient(ClientMechanism):
        name = "PATIENT"

        def initial_response(self) -> None:
            return None

        def respond(self, challenge: bytes) -> bytes:
            return b"x"

    exchange = ClientExchange(Patient())
    assert [exchange.respond(b"") for _ in range(17)] == [*[b"eA=="] * 16, None]


@given(st.binary(max_size=40))
def test_no_challenge_makes_the_clients_exchange_raise(challenge: bytes) -> None:
    for mechanism in (PlainClient("joe", Secret(b"x")), LoginClient("joe", Secret(b"x"))):
        exchange = ClientExchange(mechanism)
        exchange.initial_response(0)
        answer = exchange.respond(challenge)
        assert answer == b"*" if exchange.cancelled else decode_base64(answer or b"!") is not None


# -- secrets ---------------------------------------------------------------------------------------------


def test_a_secret_is_shown_nowhere() -> None:
    secret = Secret(b"hidden")
    assert "hidden" not in f"{secret} {secret!r} {[secret]} {password('joe', secret, '')!r}"
    assert secret.reveal() == b"hidden"
    assert secret == Secret(b"hidden") != Secret(b"other")
    assert secret != b"hidden"
    assert len({secret, Secret(b"hidden")}) == 1
    assert secret and not Secret(b"")
    with pytest.raises(AttributeError):
        secret.__dict__  # noqa: B018
