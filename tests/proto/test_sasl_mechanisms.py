"""CRAM-MD5, EXTERNAL, OAUTHBEARER, XOAUTH2 and ANONYMOUS in both roles; the examples of their RFCs; SASLprep."""

import base64
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.sasl import (
    AnonymousClient,
    Authorize,
    Cause,
    Challenge,
    ClientExchange,
    ClientMechanism,
    CramMD5Client,
    ExternalClient,
    Failed,
    OAuthBearerClient,
    PlainClient,
    Request,
    ServerExchange,
    ServerOptions,
    VerifyPassword,
    VerifyResponse,
    VerifyToken,
    XOAuth2Client,
    random_challenges,
)
from mailfront_proto.sasl.base64_line import encode_base64
from mailfront_proto.sasl.options import NEEDED
from mailfront_proto.sasl.saslprep import saslprep
from mailfront_proto.secret import Secret
from tests.proto.sasl_peers import talk

TOKEN = Secret(b"vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==")
SERVER = ServerOptions(
    tuple(NEEDED),
    nonce_source=bytes,
    salt_secret=Secret(b"0123456789abcdef"),
    channel_bindings={"tls-exporter": b"x"},
    challenge_source=lambda: b"<1896.697170952@postoffice.reston.mci.net>",
    external_identity="fred@example.com",
    token_scope="mail",
    openid_configuration="https://example.com/.well-known/openid-configuration",
)


def start(name: str, message: bytes, given: ServerOptions = SERVER) -> "Challenge | Request | Failed":
    return ServerExchange(given).start(name.encode(), encode_base64(message) or b"=")


def test_plain_in_rfc_4616() -> None:
    assert start("PLAIN", b"\0tim\0tanstaaftanstaaf") == VerifyPassword(
        "PLAIN", "PLAIN", "tim", Secret(b"tanstaaftanstaaf"), ""
    )
    assert PlainClient("tim", Secret(b"tanstaaftanstaaf")).initial_response() == b"\0tim\0tanstaaftanstaaf"
    assert PlainClient("Kurt", Secret(b"xipj3plmq"), "Ursel").initial_response() == b"Ursel\0Kurt\0xipj3plmq"


# -- CRAM-MD5 --------------------------------------------------------------------------------------------

CRAM = base64.b64decode("dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw")


def test_cram_md5_in_rfc_2195() -> None:
    exchange = ServerExchange(SERVER)
    step = exchange.start(b"CRAM-MD5", None)
    assert isinstance(step, Challenge)
    assert encode_base64(step.data) == b"PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"
    client = CramMD5Client("tim", Secret(b"tanstaaftanstaaf"))
    assert ClientExchange(client).initial_response() is None
    assert client.respond(step.data) == CRAM
    request = exchange.respond(encode_base64(CRAM))
    assert isinstance(request, VerifyResponse)
    assert request.username == "tim" and request.digest.reveal().hex() == "b913a602c7eda7a495b4e6e7334d3890"
    assert request.matches(Secret(b"tanstaaftanstaaf")) and not request.matches(Secret(b"tanstaaf"))


BAD_CRAM = [
    b"tim", b"tim ", b" b913a602c7eda7a495b4e6e7334d3890", b"tim b913a602c7eda7a495b4e6e7334d389",
    b"tim b913a602c7eda7a495b4e6e7334d38901", b"tim b913a602c7eda7a495b4e6e7334d389g", b"\xff " + b"0" * 32,
    b"ti\nm " + b"0" * 32, b"tim\t" + b"0" * 32, b"tim " + b"0" * 32 + b"\n", b"tim 0_" + b"0" * 30,
    b"a b " + b"0" * 32, b"tim +" + b"0" * 31,
]  # fmt: skip


@pytest.mark.parametrize("response", BAD_CRAM)
def test_bad_cram_md5(response: bytes) -> None:
    exchange = ServerExchange(SERVER)
    exchange.start(b"CRAM-MD5", None)
    cause = Cause.NOT_PROVEN if len(response.partition(b" ")[2]) == 32 else Cause.MALFORMED
    assert exchange.respond(encode_base64(response)) == Failed(cause)


def test_cram_md5_takes_no_initial_response_and_no_empty_one() -> None:
    assert start("CRAM-MD5", CRAM) == Failed(Cause.INITIAL_RESPONSE)
    assert start("CRAM-MD5", b"") == Failed(Cause.BAD_INITIAL_RESPONSE)
    exchange = ServerExchange(SERVER)
    exchange.start(b"CRAM-MD5", None)
    assert exchange.respond(b"") == Failed(Cause.ABORTED)


def test_a_cram_md5_client_answers_once() -> None:
    client = CramMD5Client("tim", Secret(b"x"))
    with pytest.raises(RemoteProtocolError):
        client.respond(b"")
    client.respond(b"<1@x>")
    with pytest.raises(RemoteProtocolError):
        client.respond(b"<2@x>")
    for username, password in (("", b"x"), ("tim", b""), ("t im", b"x")):
        with pytest.raises(LocalProtocolError):
            CramMD5Client(username, Secret(password))


def test_random_challenges() -> None:
    counter = itertools.count(10**15)
    source = random_challenges(lambda size: b"%016d" % next(counter), "mx.example.org")
    one, two = source(), source()
    assert one != two and re.match(rb"<[0-9a-f]{32}@mx\.example\.org>\Z", one)


@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters=" "), min_size=1), st.binary(min_size=1)
)
def test_cram_md5_between_the_two_roles(username: str, password: bytes) -> None:
    def answer(request: Request) -> bool:
        assert isinstance(request, VerifyResponse) and request.username == username
        return request.matches(Secret(password))

    assert talk(CramMD5Client(username, Secret(password)), SERVER, answer).succeeded
    assert not talk(CramMD5Client(username, Secret(password + b"x")), SERVER, answer).succeeded


# -- EXTERNAL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [None, 0], ids=["at once", "asked for"])
def test_external(room: int | None) -> None:
    fred = Authorize("EXTERNAL", "EXTERNAL", "fred@example.com", "")
    assert talk(ExternalClient(), SERVER, room=room).requests == [fred]
    same = talk(ExternalClient("fred@example.com"), SERVER, room=room)
    assert same.succeeded and same.requests == [
        Authorize("EXTERNAL", "EXTERNAL", "fred@example.com", "fred@example.com")
    ]
    other = talk(ExternalClient("root"), SERVER, room=room)
    assert other.failed == Failed(Cause.OTHER_IDENTITY) and not other.requests


@pytest.mark.parametrize("message", [b"\0", b"fred\0", b"\xff", b"fr\ned"])
def test_bad_external(message: bytes) -> None:
    assert start("EXTERNAL", message) == Failed(Cause.MALFORMED)


def test_external_needs_an_identity_from_outside() -> None:
    with pytest.raises(LocalProtocolError, match="EXTERNAL needs external_identity"):
        ServerOptions(["EXTERNAL"])
    with pytest.raises(LocalProtocolError):
        ExternalClient("a\0b")


# -- ANONYMOUS -------------------------------------------------------------------------------------------


def test_anonymous_in_rfc_4505() -> None:
    client = AnonymousClient("sirhc")
    assert encode_base64(client.initial_response()) == b"c2lyaGM="
    assert start("ANONYMOUS", b"sirhc") == Authorize("ANONYMOUS", "ANONYMOUS", "", "", "sirhc")
    assert talk(AnonymousClient(), SERVER, room=0).requests == [Authorize("ANONYMOUS", "ANONYMOUS", "", "")]


@pytest.mark.parametrize("message", [b"\0", b"x" * 256, b"\xff", b"a\rb"])
def test_bad_anonymous(message: bytes) -> None:
    assert start("ANONYMOUS", message) == Failed(Cause.MALFORMED)


def test_an_anonymous_client_refuses_what_it_could_not_say() -> None:
    for trace in ("x" * 256, "a\nb"):
        with pytest.raises(LocalProtocolError):
            AnonymousClient(trace)


# -- OAUTHBEARER -----------------------------------------------------------------------------------------


def test_oauthbearer_in_rfc_7628() -> None:
    # Section 4.1
    message = base64.b64decode(
        "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52Y"
        "jNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
    )
    client = OAuthBearerClient(TOKEN, "user@example.com", "server.example.com", 143)
    assert client.initial_response() == message
    properties = {"host": "server.example.com", "port": "143"}
    request = VerifyToken("OAUTHBEARER", "OAUTHBEARER", "user@example.com", TOKEN, properties)
    assert start("OAUTHBEARER", message) == request
    assert "vF9" not in repr(request)


def test_oauthbearer_refused_as_in_rfc_7628_section_4_2() -> None:
    client = OAuthBearerClient(TOKEN, "user@example.com")
    talked = talk(client, SERVER, lambda request: False)
    assert talked.failed == Failed(Cause.REFUSED)
    assert talked.lines[-1] == b"AQ=="
    assert json.loads(client.reason) == {
        "status": "invalid_token",
        "scope": "mail",
        "openid-configuration": "https://example.com/.well-known/openid-configuration",
    }
    bare = OAuthBearerClient(TOKEN)
    talk(bare, ServerOptions(["OAUTHBEARER"]), lambda request: False, room=0)
    assert json.loads(bare.reason) == {"status": "invalid_token"}


def test_a_refused_client_may_answer_what_it_likes() -> None:
    for answer in (b"AQ==", b"*", b"", b"!!", b"AAAA"):
        exchange = ServerExchange(SERVER)
        assert isinstance(exchange.start(b"OAUTHBEARER", encode_base64(b"n,,\x01auth=Bearer x\x01\x01")), VerifyToken)
        assert exchange.refused() is not None
        assert exchange.respond(answer) == Failed(Cause.REFUSED)
    exchange = ServerExchange(SERVER)
    exchange.start(b"OAUTHBEARER", encode_base64(b"n,,\x01auth=Bearer x\x01\x01"))
    exchange.refused()
    assert exchange.oversized() == Failed(Cause.REFUSED)


BAD_BEARER = [
    b"", b"\x01", b"n,,", b"n,,\x01\x01", b"n,,\x01auth=Bearer x\x01", b"n,,auth=Bearer x\x01\x01",
    b"n,,\x01auth=Bearer \x01\x01", b"n,,\x01auth=Basic x\x01\x01", b"n,,\x01auth=Bearer x y\x01\x01",
    b"n,,\x01auth=Bearer x\n\x01\x01", b"n\x01auth=Bearer x\x01\x01", b"p=tls-exporter,,\x01auth=Bearer x\x01\x01",
    b"n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01", b"n,,\x01=x\x01auth=Bearer x\x01\x01",
    b"n,,\x01host=a\r\nb\x01auth=Bearer x\x01\x01", b"n,,\x01\x01auth=Bearer x\x01\x01",
    b"n,a=\xff,\x01auth=Bearer x\x01\x01", b"n,a=u=x,\x01auth=Bearer x\x01\x01", b"n,,\x01host=x\x01\x01",
    b"n,,\x01h0st=x\x01auth=Bearer x\x01\x01", b"n,,\x01auth=Bearer \xc3\xa9\x01\x01",
]  # fmt: skip


@pytest.mark.parametrize("message", BAD_BEARER)
def test_bad_oauthbearer(message: bytes) -> None:
    assert start("OAUTHBEARER", message) == Failed(Cause.MALFORMED)


@given(
    st.from_regex(r"[A-Za-z0-9._~+/-]{1,60}={0,3}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cc", "Cs"])),
    st.text(st.characters(exclude_categories=["Cc", "Cs"])),
    st.integers(0, 65535),
)
def test_tokens_between_the_two_roles(token: str, username: str, host: str, port: int) -> None:
    properties = ({"host": host} if host else {}) | ({"port": str(port)} if port else {})
    secret = Secret(token.encode())
    talked = talk(OAuthBearerClient(secret, username, host, port), SERVER)
    assert talked.requests == [VerifyToken("OAUTHBEARER", "OAUTHBEARER", username, secret, properties)]
    if username:
        talked = talk(XOAuth2Client(username, secret), SERVER)
        assert talked.requests == [VerifyToken("XOAUTH2", "XOAUTH2", username, secret, {})]


# -- XOAUTH2 ---------------------------------------------------------------------------------------------


def test_xoauth2_as_the_providers_describe_it() -> None:
    message = base64.b64decode(
        "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ=="
    )
    token = Secret(b"ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg")
    client = XOAuth2Client("someuser@example.com", token)
    assert client.initial_response() == message
    assert start("XOAUTH2", message) == VerifyToken("XOAUTH2", "XOAUTH2", "someuser@example.com", token, {})
    talked = talk(client, SERVER, lambda request: False, room=0)
    assert talked.failed == Failed(Cause.REFUSED) and talked.lines[-1] == b""
    assert json.loads(client.reason) == {"status": "401", "schemes": "bearer", "scope": "mail"}
    client = XOAuth2Client("someuser@example.com", token)
    talk(client, ServerOptions(["XOAUTH2"]), lambda request: False)
    assert json.loads(client.reason) == {"status": "401", "schemes": "bearer"}


BAD_XOAUTH2 = [
    b"", b"user=a\x01auth=Bearer x\x01", b"user=\x01auth=Bearer x\x01\x01", b"user=a\x01auth=x\x01\x01",
    b"user=a\x01\x01", b"user=a\x01auth=Bearer x\x01\x01\x01", b"user=\xff\x01auth=Bearer x\x01\x01",
    b"user=a\nb\x01auth=Bearer x\x01\x01",
]  # fmt: skip


@pytest.mark.parametrize("message", BAD_XOAUTH2)
def test_bad_xoauth2(message: bytes) -> None:
    assert start("XOAUTH2", message) == Failed(Cause.MALFORMED)


CANNOT_SAY: list[Callable[[], ClientMechanism]] = [
    lambda: OAuthBearerClient(Secret(b"")),
    lambda: OAuthBearerClient(Secret(b"a b")),
    lambda: OAuthBearerClient(Secret(b"a\x01")),
    lambda: OAuthBearerClient(TOKEN, "a\x01b"),
    lambda: OAuthBearerClient(TOKEN, "a", "h\nx"),
    lambda: XOAuth2Client("", TOKEN),
    lambda: XOAuth2Client("a\x01", TOKEN),
    lambda: XOAuth2Client("a", Secret(b"\n")),
]


@pytest.mark.parametrize("make", CANNOT_SAY)
def test_a_token_client_refuses_what_it_could_not_say(make: Callable[[], ClientMechanism]) -> None:
    with pytest.raises(LocalProtocolError, match="OAUTH") as error:
        make()
    assert "vF9" not in str(error.value)


@pytest.mark.parametrize("make", [lambda: OAuthBearerClient(TOKEN), lambda: XOAuth2Client("a", TOKEN)])
def test_a_reason_is_read_once(make: Callable[[], ClientMechanism]) -> None:
    exchange = ClientExchange(make())
    exchange.initial_response()
    assert exchange.respond(encode_base64(b"{}")) in (b"AQ==", b"")
    assert exchange.respond(encode_base64(b"{}")) == b"*"
    assert exchange.cancelled == "the server sent a second reason for a failure"


# -- all of them -----------------------------------------------------------------------------------------

CLIENTS: dict[str, Callable[[], ClientMechanism]] = {
    "EXTERNAL": ExternalClient,
    "ANONYMOUS": AnonymousClient,
    "PLAIN": lambda: PlainClient("a", Secret(b"x")),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_that_says_it_all_at_once_takes_no_challenge(name: str) -> None:
    client = CLIENTS[name]()
    assert client.respond(b"") == client.initial_response()
    with pytest.raises(RemoteProtocolError, match=f"a challenge for {name} that is not empty"):
        client.respond(b"x")


@given(st.sampled_from(sorted(NEEDED)), st.lists(st.binary(max_size=80), min_size=1, max_size=3), st.booleans())
def test_no_message_makes_any_server_raise(name: str, messages: list[bytes], initial: bool) -> None:
    exchange = ServerExchange(SERVER)
    step = exchange.start(name.encode(), encode_base64(messages.pop(0)) or b"=" if initial else None)
    for message in messages:
        if not isinstance(step, Challenge):
            break
        step = exchange.respond(encode_base64(message))
    assert isinstance(step, Challenge | Request | Failed)


def test_no_mechanism_is_imported_before_it_is_asked_for() -> None:
    program = (
        "import sys; from mailfront_proto.sasl import ServerExchange, ServerOptions;"
        "ServerExchange(ServerOptions(['PLAIN', 'LOGIN'])).start(b'PLAIN', b'AGEAYg==');"
        "slow = ('hmac', 'hashlib', 'json', 'stringprep');"
        "print(*[m for m in sys.modules if m.startswith('mailfront_proto.sasl.') or m in slow])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.rpartition(".")[2] for name in done.stdout.split()}
    assert loaded == {"options", "requests", "mechanism", "masking", "base64_line", "exchange", "plain"}


# -- SASLprep --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        # RFC 4013 section 3
        ("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX"), ("\u0007", None),
        ("\u06271", None),
        # Others
        ("", ""), ("a b", "a b"), ("a\u00a0b", "a b"), ("\u0627a\u0628", None), ("\u06271\u0628", "\u06271\u0628"),
        ("a\x7f", None), ("é", "é"), ("e\u0301", "é"), ("\ue000", None), ("\ufffe", None), ("\ud800", None),
        ("\ufffd", None), ("a\u2ff0", None), ("a\u200e", None), ("\U000e0001", None), ("é\u0085", None), ("ﬁ", "fi"),
    ],
)  # fmt: skip
def test_saslprep(text: str, prepared: str | None) -> None:
    assert saslprep(text, stored=True) == prepared == saslprep(text, stored=False)


def test_saslprep_of_what_unicode_3_2_does_not_know() -> None:
    assert saslprep("é\u0221", stored=True) is None
    assert saslprep("é\u0221", stored=False) == "é\u0221"


@given(st.text(), st.booleans())
def test_saslprep_is_total_and_does_not_change_what_it_made(text: str, stored: bool) -> None:
    prepared = saslprep(text, stored=stored)
    if prepared is not None:
        assert saslprep(prepared, stored=stored) in (prepared, None)


