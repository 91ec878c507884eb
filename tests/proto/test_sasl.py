"""SASL: PLAIN and LOGIN in both roles, base64, and the exchange that carries them."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.sasl import (
    Aborted,
    Challenge,
    ClientMechanism,
    LoginClient,
    LoginServer,
    Malformed,
    PasswordRequest,
    PlainClient,
    PlainServer,
    ServerExchange,
    ServerMechanism,
    Step,
    Undecodable,
)
from mailfront_proto.sasl.exchange import MAX_DECODED, decode_base64, encode_base64
from mailfront_proto.secret import Secret

JOE = PasswordRequest("joe", Secret(b"secret"), "")


# -- PLAIN -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "step"),
    [
        (b"\0joe\0secret", JOE),
        (b"joe\0joe\0secret", PasswordRequest("joe", Secret(b"secret"), "joe")),
        (b"ann\0joe\0secret", PasswordRequest("joe", Secret(b"secret"), "ann")),
        ("\0jörg\0gehéim".encode(), PasswordRequest("jörg", Secret("gehéim".encode()), "")),
        (b"\0joe\0\xff\xfe", PasswordRequest("joe", Secret(b"\xff\xfe"), "")),
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
    assert PlainServer().start(message) == Malformed()


def test_plain_compat_takes_any_authorization_identity_and_hands_on_none() -> None:
    assert PlainServer(free_authorization_identity=True).start(b"\xff\x01\0joe\0secret") == JOE
    assert PlainServer(free_authorization_identity=True).start(b"\0joe\n\0secret") == Malformed()


# -- LOGIN -----------------------------------------------------------------------------------------------


def test_login() -> None:
    server = LoginServer()
    assert server.start(None) == Challenge(b"Username:")
    assert server.respond(b"joe") == Challenge(b"Password:")
    assert server.respond(b"secret") == JOE


def test_login_with_an_initial_response() -> None:
    server = LoginServer()
    assert server.start(b"joe") == Challenge(b"Password:")
    assert server.respond(b"secret") == JOE


@pytest.mark.parametrize("name", [b"", b"\0", b"jo\re", b"\xff", "jo\u0080e".encode()])
def test_login_bad_names(name: bytes) -> None:
    server = LoginServer()
    server.start(None)
    assert server.respond(name) == Malformed()


@pytest.mark.parametrize("password", [b"", b"\0", b"sec\nret", b"\x7f"])
def test_login_bad_passwords(password: bytes) -> None:
    server = LoginServer()
    server.start(b"joe")
    assert server.respond(password) == Malformed()


# -- the client role -------------------------------------------------------------------------------------


def talk(client: ClientMechanism, server: ServerMechanism) -> Step:
    """An exchange between the two roles, over base64 lines; the last step."""
    exchange = ServerExchange(server)
    initial = client.initial_response()
    step: Step | Aborted | Undecodable
    step = exchange.start(None if initial is None else encode_base64(initial) or b"=")
    while isinstance(step, Challenge):
        step = exchange.line(encode_base64(client.respond(step.data)))
    assert not isinstance(step, Aborted | Undecodable)
    return step


NAMES = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=40)
PASSWORDS = st.binary(min_size=1, max_size=40).filter(lambda p: not any(b < 32 or b == 127 for b in p))


@given(NAMES, PASSWORDS, NAMES)
def test_plain_between_the_two_roles(name: str, password: bytes, other: str) -> None:
    assert talk(PlainClient(name, Secret(password)), PlainServer()) == PasswordRequest(name, Secret(password), "")
    wanted = PasswordRequest(name, Secret(password), other)
    assert talk(PlainClient(name, Secret(password), other), PlainServer()) == wanted


@given(NAMES, PASSWORDS)
def test_login_between_the_two_roles(name: str, password: bytes) -> None:
    assert talk(LoginClient(name, Secret(password)), LoginServer()) == PasswordRequest(name, Secret(password), "")


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


@pytest.mark.parametrize("line", [b"*", b"* ", b"*AGpvZQ==", b""])
def test_cancelling(line: bytes) -> None:
    exchange = ServerExchange(PlainServer())
    assert exchange.start(None) == Challenge(b"")
    assert exchange.line(line) == Aborted()


def test_an_empty_initial_response_is_an_equals_sign() -> None:
    assert ServerExchange(PlainServer()).start(b"=") == Malformed()
    assert ServerExchange(LoginServer()).start(b"=") == Malformed()
    exchange = ServerExchange(PlainServer())
    exchange.start(None)
    assert exchange.line(b"=") == Undecodable()  # only an initial one: RFC 4954 section 4


BAD_BASE64 = [
    b"A", b"AA", b"AAA", b"AAAAA", b"=", b"==", b"A===", b"====", b"AA=A", b"AAA=AAAA", b" AAAA", b"AAAA ", b"AA AA",
    b"AAAA\r", b"AAAA\n", b"AA-_", b"AA\0A", b"\xff\xff\xff\xff", b"AAAA=", b"AAAA==", b"AAAA\x0b", b"AA==\n",
]  # fmt: skip


@pytest.mark.parametrize("data", BAD_BASE64)
def test_what_is_no_base64(data: bytes) -> None:
    assert decode_base64(data) is None
    exchange = ServerExchange(PlainServer())
    exchange.start(None)
    assert exchange.line(data) == Undecodable()


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


@given(st.sampled_from([PlainServer, LoginServer]), st.lists(st.binary(max_size=60), max_size=4), st.booleans())
def test_no_line_makes_an_exchange_raise(kind: type[ServerMechanism], lines: list[bytes], initial: bool) -> None:
    exchange = ServerExchange(kind())
    step: Step | Aborted | Undecodable
    step = exchange.start(lines.pop(0) if initial and lines else None)
    for line in lines:
        if not isinstance(step, Challenge):
            break
        step = exchange.line(line)
    assert isinstance(step, Challenge | PasswordRequest | Malformed | Aborted | Undecodable)


# -- secrets ---------------------------------------------------------------------------------------------


def test_a_secret_is_shown_nowhere() -> None:
    secret = Secret(b"hidden")
    assert "hidden" not in f"{secret} {secret!r} {[secret]} {PasswordRequest('joe', secret, '')}"
    assert secret.reveal() == b"hidden"
    assert secret == Secret(b"hidden") != Secret(b"other")
    assert secret != b"hidden"
    assert len({secret, Secret(b"hidden")}) == 1
    assert secret and not Secret(b"")
    with pytest.raises(AttributeError):
        secret.__dict__  # noqa: B018
