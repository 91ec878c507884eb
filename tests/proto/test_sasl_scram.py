"""SCRAM: the vectors of the RFCs, a library that others wrote as the peer in both roles, and what is tampered with."""

import base64
import itertools
from collections.abc import Callable

import pytest
import scramp
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.sasl import (
    Authorize,
    Cause,
    Challenge,
    Failed,
    FindKeys,
    Request,
    ScramClient,
    ScramKeys,
    ScramServer,
    ServerExchange,
    ServerOptions,
    Step,
    derive_keys,
)
from mailfront_proto.sasl.base64_line import decode_base64, encode_base64
from mailfront_proto.sasl.scram import MAX_ITERATIONS, MAX_NAME
from mailfront_proto.secret import Secret
from tests.proto.sasl_peers import Talk, talk

MECHANISMS = ("SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS")
BINDING = ("tls-server-end-point", b"\x00\xffhash of the certificate,=")
SECRET = Secret(b"0123456789abcdef")
NONCE = b"eighteen octets..."
PASSWORD = Secret(b"pencil")
SALT = b"sixteen octets.."


def options(*mechanisms: str, counter: "itertools.count[int] | None" = None) -> ServerOptions:
    numbers = counter or itertools.count()
    return ServerOptions(
        mechanisms or MECHANISMS,
        nonce_source=lambda size: b"%d" % (10 ** (size - 1) + next(numbers)),
        salt_secret=SECRET,
        iterations=4096,
        channel_bindings=dict([BINDING]),
    )


def keys(hash_name: str = "sha256", password: Secret = PASSWORD) -> ScramKeys:
    return derive_keys(password, SALT, 4096, hash_name)


KEYS = {hash_name: keys(hash_name) for hash_name in ("sha1", "sha256")}


def store(request: Request) -> bool | ScramKeys | None:
    """One user, whose password is pencil."""
    if isinstance(request, FindKeys):
        return KEYS[request.hash_name] if request.username == "user" else None
    return True


def client(name: str = "SCRAM-SHA-256", password: Secret = PASSWORD, username: str = "user") -> ScramClient:
    return ScramClient(name, username, password, NONCE, channel_binding=BINDING if name.endswith("PLUS") else None)


# -- the RFCs' own examples ------------------------------------------------------------------------------

RFC_5802 = (
    "SCRAM-SHA-1",
    b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
    b"3rfcNHYJY1ZVvWVs7j",
    b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
    b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
)
RFC_7677 = (
    "SCRAM-SHA-256",
    b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
)


@pytest.mark.parametrize("vector", [RFC_5802, RFC_7677], ids=["RFC 5802 section 5", "RFC 7677 section 3"])
def test_the_examples_of_the_rfcs(vector: tuple[str, bytes, bytes, bytes, bytes, bytes]) -> None:
    name, client_first, server_nonce, server_first, client_final, server_final = vector
    nonce = base64.b64decode(client_first.rpartition(b"r=")[2])
    ours = ScramClient(name, "user", PASSWORD, nonce)
    assert ours.initial_response() == client_first
    assert ours.respond(server_first) == client_final
    assert ours.objection()
    assert ours.respond(server_final) == b""
    assert not ours.objection()

    salt = base64.b64decode(server_first.rpartition(b"s=")[2].partition(b",")[0])
    server = ScramServer(name, server_nonce, SECRET, 4096, {})
    hash_name = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}[name]
    assert server.start(client_first) == FindKeys(name, name, "user", hash_name, "")
    assert server.supply_keys(derive_keys(PASSWORD, salt, 4096, hash_name)) == Challenge(server_first)
    assert server.respond(client_final) == Challenge(server_final)
    assert server.respond(b"") == Authorize(name, name, "user", "")


# -- the two roles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [None, 0], ids=["at once", "asked for"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_between_the_two_roles(name: str, room: int | None) -> None:
    talked = talk(client(name), options(), store, room=room)
    assert talked.succeeded and not talked.objection and not talked.cancelled
    assert [type(request) for request in talked.requests] == [FindKeys, Authorize]
    assert {request.mechanism for request in talked.requests} == {name}
    assert talked.lines[-1] == b""  # the server's signature is answered with nothing


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_wrong_password(name: str) -> None:
    talked = talk(client(name, Secret(b"pen")), options(), store)
    assert talked.failed == Failed(Cause.NOT_PROVEN) and Cause.NOT_PROVEN.is_attempt
    assert [type(request) for request in talked.requests] == [FindKeys]


NAMES = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=30)


@settings(max_examples=25, deadline=None)
@given(NAMES, NAMES, NAMES)
def test_any_name_and_password(username: str, password: str, other: str) -> None:
    stored = derive_keys(Secret(password.encode()), SALT, 4096)
    for allowed in (True, False):
        given = ServerOptions(
            ["SCRAM-SHA-256"],
            nonce_source=bytes,
            salt_secret=SECRET,
            allows_authorization_identity=allowed,
        )
        ours = ScramClient(
            "SCRAM-SHA-256", username, Secret(password.encode()), NONCE, authorization_identity=other
        )
        talked = talk(ours, given, lambda request: stored if isinstance(request, FindKeys) else True)
        if allowed or other == username:
            assert talked.succeeded
            assert talked.requests[-1] == Authorize("SCRAM-SHA-256", "SCRAM-SHA-256", username, other)
        else:
            assert talked.failed == Failed(Cause.OTHER_IDENTITY) and not talked.requests


def test_an_application_may_refuse_whom_the_mechanism_knows() -> None:
    talked = talk(client(), options(), lambda request: isinstance(request, FindKeys) and KEYS["sha256"])
    assert not talked.succeeded and isinstance(talked.requests[-1], Authorize)


# -- a library that others wrote -------------------------------------------------------------------------


def their_store(username: str) -> tuple[bytes, bytes, bytes, int] | None:
    stored = KEYS["sha256"]
    return (stored.salt, stored.stored_key.reveal(), stored.server_key.reveal(), 4096) if username == "user" else None


PASSWORDS = ["pencil", "p,=n", "pässwörd", "I\u00adX", "\u2168", "日本語", "correct horse battery staple", "a\u00a0b"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("name", MECHANISMS)
def test_their_client_and_our_server(name: str, password: str) -> None:
    hash_name = "sha1" if "SHA-1" in name else "sha256"
    binding = BINDING if name.endswith("PLUS") else None
    theirs = scramp.ScramClient([name], "us=e,r", password, channel_binding=binding)
    exchange = ServerExchange(options(name))
    step: Step = exchange.start(name.encode(), encode_base64(theirs.get_client_first().encode()))
    assert isinstance(step, FindKeys) and step.username == "us=e,r"
    step = exchange.supply_keys(keys(hash_name, Secret(password.encode())))
    assert isinstance(step, Challenge)
    theirs.set_server_first(step.data.decode())
    step = exchange.respond(encode_base64(theirs.get_client_final().encode()))
    assert isinstance(step, Challenge)
    theirs.set_server_final(step.data.decode())  # raises for a wrong signature
    assert exchange.respond(b"") == Authorize(name, name, "us=e,r", "")


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("name", MECHANISMS)
def test_our_client_and_their_server(name: str, password: str) -> None:
    mechanism = scramp.ScramMechanism(name)
    salt, stored_key, server_key, iterations = mechanism.make_auth_info(password, iteration_count=5000, salt=SALT)
    binding = BINDING if name.endswith("PLUS") else None
    server = mechanism.make_server(lambda username: (salt, stored_key, server_key, iterations), channel_binding=binding)
    ours = client(name, Secret(password.encode()))
    server.set_client_first(ours.initial_response().decode())
    server.set_client_final(ours.respond(server.get_server_first().encode()).decode())
    assert ours.respond(server.get_server_final().encode()) == b""
    assert not ours.objection()
    hash_name = "sha1" if "SHA-1" in name else "sha256"
    derived = derive_keys(Secret(password.encode()), SALT, 5000, hash_name)
    assert (derived.stored_key, derived.server_key) == (Secret(stored_key), Secret(server_key))


def test_their_client_with_a_wrong_password() -> None:
    theirs = scramp.ScramClient(["SCRAM-SHA-256"], "user", "wrong")
    exchange = ServerExchange(options())
    exchange.start(b"SCRAM-SHA-256", encode_base64(theirs.get_client_first().encode()))
    step = exchange.supply_keys(KEYS["sha256"])
    theirs.set_server_first(step.data.decode())
    assert exchange.respond(encode_base64(theirs.get_client_final().encode())) == Failed(Cause.NOT_PROVEN)


def test_their_server_and_a_wrong_password_of_ours() -> None:
    server = scramp.ScramMechanism("SCRAM-SHA-256").make_server(their_store)
    ours = client(password=Secret(b"wrong"))
    server.set_client_first(ours.initial_response().decode())
    with pytest.raises(scramp.ScramException):
        server.set_client_final(ours.respond(server.get_server_first().encode()).decode())
    with pytest.raises(RemoteProtocolError, match="the server says b'invalid-proof'"):
        ours.respond(server.get_server_final().encode())
    assert ours.objection()


# -- tampering -------------------------------------------------------------------------------------------


def tampered(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """`change` on what a line says."""

    def tamper(line: bytes) -> bytes:
        decoded = decode_base64(line)
        return line if decoded is None else encode_base64(change(decoded))

    return tamper


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return tampered(lambda message: message.replace(old, new))


def on_the_way(change: Callable[[bytes], bytes], name: str = "SCRAM-SHA-256") -> Talk:
    return talk(client(name), options(), store, tamper=change)


SIDES = {
    "the server's nonce": (replaced(b",s=", b"x,s="), "server"),
    "the salt": (replaced(b"s=c2l4", b"s=c2l5"), "server"),
    "a lower iteration count": (replaced(b"i=4096", b"i=4095"), "client"),
    "a higher iteration count": (replaced(b"i=4096", b"i=4097"), "server"),
    "no iteration count": (replaced(b",i=4096", b""), "client"),
    "an iteration count of a year": (replaced(b"i=4096", b"i=999999999"), "client"),
    "an iteration count with a sign": (replaced(b"i=4096", b"i=+4096"), "client"),
    "an iteration count that is no ASCII": (replaced(b"i=4096", "i=٤٠٩٦".encode()), "client"),
    "a mandatory extension of the server": (tampered(lambda m: b"m=x," + m if m.startswith(b"r=") else m), "client"),
    "a mandatory extension of the client": (replaced(b"n,,n=", b"n,,m=x,n="), "server"),
    "the client's nonce, on its way": (replaced(b"n=user,r=", b"n=user,r=x"), "client"),
    "the client's nonce, on its way back": (tampered(lambda m: b"r=x" + m[2:] if b",s=" in m else m), "client"),
    "a server that adds nothing to the nonce": (
        tampered(lambda m: b"r=" + base64.b64encode(NONCE) + b",s=c2FsdA==,i=4096" if b",s=" in m else m), "client",
    ),
    "the user": (replaced(b"n=user", b"n=root"), "server"),
    "the nonce in the proof": (tampered(lambda m: m.replace(b",p=", b"x,p=") if m.startswith(b"c=") else m), "server"),
    "the binding flag, removed from the proof": (replaced(b"c=biws", b"c=eSws"), "server"),
    "the proof": (tampered(lambda m: m[:-4] + b"AAA=" if m.startswith(b"c=") else m), "server"),
    "a short proof": (tampered(lambda m: m.partition(b",p=")[0] + b",p=AAAA" if m.startswith(b"c=") else m), "server"),
    "no proof": (tampered(lambda m: m.partition(b",p=")[0] if m.startswith(b"c=") else m), "server"),
    "the server's signature": (tampered(lambda m: m[:-4] + b"AAA=" if m.startswith(b"v=") else m), "client"),
    "an error for a signature": (tampered(lambda m: b"e=other-error" if m.startswith(b"v=") else m), "client"),
    "nonsense for a signature": (tampered(lambda m: b"v=!" if m.startswith(b"v=") else m), "client"),
    "an answer to the signature": (lambda line: line or b"AAAA", "server"),
}  # fmt: skip


@pytest.mark.parametrize("what", SIDES)
def test_tampering_is_seen(what: str) -> None:
    change, side = SIDES[what]
    talked = on_the_way(change)
    assert not talked.succeeded and talked.failed is not None
    if side == "client":
        assert talked.cancelled and talked.failed.cause is Cause.ABORTED
    else:
        assert not talked.cancelled and talked.failed.cause in (Cause.NOT_PROVEN, Cause.MALFORMED)


def test_a_client_says_why_it_has_cancelled() -> None:
    assert on_the_way(SIDES["the server's signature"][0]).cancelled.startswith("the server does not know the password")
    assert on_the_way(SIDES["a lower iteration count"][0]).cancelled.startswith("the server asks for 4095 iterations")


def test_a_success_that_comes_too_early_is_not_believed() -> None:
    ours = client()
    assert ours.objection()
    ours.initial_response()
    ours.respond(b"r=" + base64.b64encode(NONCE) + b"more,s=c2FsdA==,i=4096")
    assert ours.objection() == "claims success before it has proven that it knows the password"


# -- channel binding -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "cause"),
    [
        (b"p=tls-unique,,n=user,r=abcdefgh", Cause.NOT_PROVEN),
        (b"n,,n=user,r=abcdefgh", Cause.MALFORMED),
        (b"y,,n=user,r=abcdefgh", Cause.MALFORMED),
    ],
)
def test_plus_takes_only_a_binding_that_is_there(first: bytes, cause: Cause) -> None:
    assert ServerExchange(options()).start(b"SCRAM-SHA-256-PLUS", encode_base64(first)) == Failed(cause)


def test_another_connections_binding_fails() -> None:
    other = ScramClient("SCRAM-SHA-256-PLUS", "user", PASSWORD, NONCE, channel_binding=(BINDING[0], b"other"))
    assert talk(other, options(), store).failed == Failed(Cause.NOT_PROVEN)


def test_a_list_without_plus_is_seen_by_who_could_have_bound() -> None:
    able = ScramClient("SCRAM-SHA-256", "user", PASSWORD, NONCE, channel_binding=BINDING)
    assert able.initial_response().startswith(b"y,,")
    talked = talk(able, options(), store)
    assert talked.failed == Failed(Cause.NOT_PROVEN) and not talked.requests
    able = ScramClient("SCRAM-SHA-256", "user", PASSWORD, NONCE, channel_binding=BINDING)
    assert talk(able, options("SCRAM-SHA-256"), store).succeeded  # it was never on the list
    without = ServerExchange(options()).start(b"SCRAM-SHA-256", encode_base64(b"p=tls-unique,,n=user,r=abcdefgh"))
    assert without == Failed(Cause.MALFORMED)


def test_plus_needs_a_binding() -> None:
    with pytest.raises(LocalProtocolError, match="SCRAM-SHA-1-PLUS needs channel_bindings"):
        ServerOptions(["SCRAM-SHA-1-PLUS"], nonce_source=bytes, salt_secret=SECRET)
    with pytest.raises(LocalProtocolError, match="SCRAM-SHA-1-PLUS needs channel_binding"):
        ScramClient("SCRAM-SHA-1-PLUS", "user", PASSWORD, NONCE)


# -- users who do not exist ------------------------------------------------------------------------------


def first_challenge(username: str, given: ServerOptions) -> bytes:
    talked = talk(client(username=username), given, store)
    assert talked.failed == Failed(Cause.NOT_PROVEN) or username == "user"
    return decode_base64(talked.lines[1]) or b""


def test_an_unknown_user_looks_like_a_known_one() -> None:
    one, again = first_challenge("nobody", options()), first_challenge("nobody", options())
    other, known = first_challenge("anybody", options()), first_challenge("user", options())
    assert one.partition(b",s=")[2] == again.partition(b",s=")[2] != other.partition(b",s=")[2]
    assert len(one) == len(other) == len(known) and one.endswith(b",i=4096")
    elsewhere = ServerOptions(
        ["SCRAM-SHA-256"], nonce_source=bytes, salt_secret=Secret(b"another secret.."), iterations=4096
    )
    assert first_challenge("nobody", elsewhere).partition(b",s=")[2] != one.partition(b",s=")[2]


def test_a_store_cannot_be_asked_with_keys_of_another_hash() -> None:
    exchange = ServerExchange(options())
    exchange.start(b"SCRAM-SHA-256", encode_base64(b"n,,n=user,r=abcdefgh"))
    with pytest.raises(LocalProtocolError, match="SCRAM-SHA-256 needs keys of sha256"):
        exchange.supply_keys(KEYS["sha1"])


@pytest.mark.parametrize("missing", ["nonce_source", "salt_secret"])
def test_what_scram_needs(missing: str) -> None:
    given = {"nonce_source": bytes, "salt_secret": SECRET, missing: None}
    with pytest.raises(LocalProtocolError, match=f"SCRAM-SHA-256 needs {missing}"):
        ServerOptions(["SCRAM-SHA-256"], **given)  # type: ignore[arg-type]


def test_a_short_secret_is_none() -> None:
    with pytest.raises(LocalProtocolError, match="16 octets of chance or more"):
        ServerOptions(["SCRAM-SHA-256"], nonce_source=bytes, salt_secret=Secret(b"short"))


# -- grammar ---------------------------------------------------------------------------------------------

BAD_FIRST = [
    b"", b"n", b"n,", b"n,,", b"n,,n=user", b"n,,r=abc,n=user", b"n,,n=,r=abc", b"n,,n=user,r=", b"n,,n=us=er,r=abc",
    b"n,,n=us=2cer,r=abc", b"n,,n=user,r=a b", b"n,,n=user,r=ab\x7f", b"n,,n=user,r=\xc3\xa9", b"x,,n=user,r=abc",
    b"n,user,n=user,r=abc", b"n,a=,n=user,r=abc", b"n,a=u=,n=user,r=abc", b"p=,,n=user,r=abc", b"n,,n=\xff,r=abc",
    b"n,,n=us\0er,r=abc", b"n,,n=us\ner,r=abc", b"n,,n=user,r=abc,", b"n,,n=user,r=abc,1=x", b"n,,n=user,r=abc,x",
    b"n,,n=user,r=abc,m=x", b"n,,n=user,r=" + b"a" * 513, b"n,,n=" + b"u" * (MAX_NAME + 1) + b",r=abc",
    b"n,,n=\xc2\xad,r=a",
    "n,,n=\u0627x,r=abc".encode(), "n,,n=\ufffd,r=abc".encode(), b"y,,m=x,n=user,r=abc", b"n,a=\xff,n=user,r=abc",
]  # fmt: skip


@pytest.mark.parametrize("message", BAD_FIRST)
def test_a_first_message_that_is_none(message: bytes) -> None:
    step = ServerExchange(options("SCRAM-SHA-256")).start(b"SCRAM-SHA-256", encode_base64(message) or b"=")
    assert step == Failed(Cause.MALFORMED)


def test_optional_extensions_are_ignored() -> None:
    step = ServerExchange(options()).start(b"SCRAM-SHA-256", encode_base64(b"n,,n=user,r=abc,x=y,M=z"))
    assert isinstance(step, FindKeys)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.sampled_from(MECHANISMS))
def test_no_message_makes_a_server_raise(messages: list[bytes], name: str) -> None:
    exchange = ServerExchange(options())
    step: Step = exchange.start(name.encode(), encode_base64(messages[0]))
    for message in messages[1:]:
        if isinstance(step, FindKeys):
            step = exchange.supply_keys(None)
        if not isinstance(step, Challenge):
            break
        step = exchange.respond(encode_base64(message))
    assert not isinstance(step, Authorize)


WORDS = st.sampled_from(
    [b"r=", b"s=c2FsdA==", b"i=4096", b",", b"m=x", b"v=", b"e=x", b"AAAA", base64.b64encode(NONCE), b"x"]
)


@given(st.lists(WORDS, max_size=8).map(b"".join) | st.binary(max_size=40), st.booleans())
@settings(deadline=None)
def test_a_client_raises_only_what_is_documented(message: bytes, later: bool) -> None:
    ours = client()
    ours.initial_response()
    if later:
        ours.respond(b"r=" + base64.b64encode(NONCE) + b"more,s=c2FsdA==,i=4096")
    try:
        answer = ours.respond(message)
    except RemoteProtocolError:
        answer = b"*"
    assert answer == b"*" or (not later and answer.startswith(b"c=biws,r="))
    assert ours.objection()


@pytest.mark.parametrize(
    ("name", "username", "password", "nonce", "says"),
    [
        ("SCRAM-MD5", "user", b"x", NONCE, "SCRAM-MD5 is no SCRAM mechanism; there are SCRAM-SHA-1, SCRAM-SHA-256"),
        ("SCRAM-SHA-1", "", b"x", NONCE, "takes names that SASLprep"),
        ("SCRAM-SHA-1", "us\ner", b"x", NONCE, "takes names that SASLprep"),
        ("SCRAM-SHA-1", "user", b"", NONCE, "takes a password that is UTF-8, not empty"),
        ("SCRAM-SHA-1", "user", b"\xff", NONCE, "takes a password that is UTF-8, not empty"),
        ("SCRAM-SHA-1", "user", b"a\0b", NONCE, "takes a password that is UTF-8, not empty"),
        ("SCRAM-SHA-1", "user", b"x", b"short", "12 to 256 octets"),
        ("SCRAM-SHA-1", "user", b"x", b"x" * 257, "12 to 256 octets"),
    ],
)
def test_a_client_refuses_what_it_could_not_say(
    name: str, username: str, password: bytes, nonce: bytes, says: str
) -> None:
    with pytest.raises(LocalProtocolError, match=says):
        ScramClient(name, username, Secret(password), nonce)


def test_bounds_of_the_iteration_count_are_the_callers() -> None:
    first = b"r=" + base64.b64encode(NONCE) + b"more,s=c2FsdA==,i="
    lenient = ScramClient("SCRAM-SHA-1", "user", PASSWORD, NONCE, min_iterations=1)
    assert lenient.respond(first + b"1")
    with pytest.raises(RemoteProtocolError, match="1000001 iterations"):
        client().respond(first + b"%d" % (MAX_ITERATIONS + 1))


# -- the stored form -------------------------------------------------------------------------------------


@given(
    st.sampled_from([("sha1", 20), ("sha256", 32)]),
    st.binary(min_size=1, max_size=64),
    st.integers(1, 999_999_999),
    st.data(),
)
def test_stored_keys_read_back(kind: tuple[str, int], salt: bytes, iterations: int, data: st.DataObject) -> None:
    stored_key, server_key = (Secret(data.draw(st.binary(min_size=kind[1], max_size=kind[1]))) for _ in range(2))
    written = ScramKeys(kind[0], salt, iterations, stored_key, server_key)
    assert ScramKeys.decode(written.encode()) == written


def test_the_stored_form() -> None:
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    stored = derive_keys(PASSWORD, salt, 4096).encode()
    assert stored.reveal() == (
        b"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        b"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    assert "WG5d8" not in f"{stored} {ScramKeys.decode(stored)!r}"


BAD_STORED = [
    b"", b"x", b"SCRAM-MD5$4096:c2FsdA==$QUJD:QUJD", b"SCRAM-SHA-256$4096:c2FsdA==$QUJD:QUJD",
    b"SCRAM-SHA-1$0:c2FsdA==$a:b", b"SCRAM-SHA-1$4096:!$a:b", b"SCRAM-SHA-1$4096:c2FsdA=$QUJD:QUJD",
    b"SCRAM-SHA-256$4096:c2FsdA==",
    b"SCRAM-SHA-1$4_096:c2FsdA==$QUJDQUJDQUJDQUJDQUJDQUJDQUI=:QUJDQUJDQUJDQUJDQUJDQUJDQUI=",
    b"SCRAM-SHA-1$9999999999:c2FsdA==$QUJDQUJDQUJDQUJDQUJDQUJDQUI=:QUJDQUJDQUJDQUJDQUJDQUJDQUI=",
]  # fmt: skip


@pytest.mark.parametrize("stored", BAD_STORED)
def test_what_is_no_stored_form(stored: bytes) -> None:
    with pytest.raises(LocalProtocolError) as error:
        ScramKeys.decode(Secret(stored))
    assert "QUJD" not in str(error.value)


@pytest.mark.parametrize(
    ("hash_name", "salt", "iterations", "key"),
    [("md5", b"x", 1, 16), ("sha1", b"", 1, 20), ("sha1", b"x", 0, 20), ("sha1", b"x", 1, 32)],
)
def test_what_are_no_keys(hash_name: str, salt: bytes, iterations: int, key: int) -> None:
    with pytest.raises(LocalProtocolError, match="ScramKeys: "):
        ScramKeys(hash_name, salt, iterations, Secret(bytes(key)), Secret(bytes(key)))


@pytest.mark.parametrize(
    ("salt", "iterations", "hash_name"), [(b"", 4096, "sha256"), (SALT, 0, "sha256"), (SALT, 4096, "md5")]
)
def test_keys_that_cannot_be_derived(salt: bytes, iterations: int, hash_name: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"^derive_keys\(\): "):
        derive_keys(PASSWORD, salt, iterations, hash_name)
