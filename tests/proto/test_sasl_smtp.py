"""Every mechanism over SMTP, between our two machines in memory, and what an SMTP server makes of the answers."""

from collections.abc import Callable

import pytest

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.sasl import (
    AnonymousClient,
    Authorize,
    ClientMechanism,
    CramMD5Client,
    ExternalClient,
    FindKeys,
    LoginClient,
    OAuthBearerClient,
    PlainClient,
    Request,
    ScramClient,
    ServerOptions,
    VerifyPassword,
    VerifyResponse,
    VerifyToken,
    XOAuth2Client,
    derive_keys,
    random_challenges,
)
from mailfront_proto.sasl.options import NEEDED
from mailfront_proto.secret import Secret
from mailfront_proto.smtp import (
    COMPAT,
    DEFAULT,
    PAUSED,
    Authenticated,
    AuthenticationFailed,
    Event,
    Greeting,
    HelloDone,
    Mail,
    Profile,
    Refused,
    SMTPClient,
    SMTPServer,
    State,
)
from mailfront_proto.testing import Pair, Player, assert_chunk_invariant, random_sizes

PASSWORD, TOKEN = Secret(b"secret"), Secret(b"a-token")
BINDING = ("tls-server-end-point", b"\x00binding")
NONCE = b"eighteen octets..."
OPTIONS = ServerOptions(
    tuple(NEEDED),
    nonce_source=lambda size: b"s" * size,
    salt_secret=Secret(b"0123456789abcdef"),
    iterations=4096,
    channel_bindings=dict([BINDING]),
    challenge_source=random_challenges(lambda size: b"c" * size, "mx.example.org"),
    external_identity="joe",
)
KEYS = {name: derive_keys(PASSWORD, b"sixteen octets..", 4096, name) for name in ("sha1", "sha256")}


def scram(name: str) -> Callable[[Secret], ClientMechanism]:
    binding = BINDING if name.endswith("PLUS") else None
    return lambda password: ScramClient(name, "joe", password, NONCE, channel_binding=binding)


CLIENTS: dict[str, Callable[[Secret], ClientMechanism]] = {
    "PLAIN": lambda secret: PlainClient("joe", secret),
    "LOGIN": lambda secret: LoginClient("joe", secret),
    "CRAM-MD5": lambda secret: CramMD5Client("joe", secret),
    **{name: scram(name) for name in NEEDED if name.startswith("SCRAM")},
    "EXTERNAL": lambda secret: ExternalClient("" if secret == PASSWORD else "root"),
    "OAUTHBEARER": lambda secret: OAuthBearerClient(secret, "joe", "mx.example.org", 25),
    "XOAUTH2": lambda secret: XOAuth2Client("joe", secret),
    "ANONYMOUS": lambda secret: AnonymousClient("joe@example.org" if secret == PASSWORD else ""),
}


def is_good(request: Request) -> bool:
    """One user, joe, with the password ``secret``. Strangers without an address are refused."""
    match request:
        case VerifyPassword():
            return request.password == PASSWORD
        case VerifyResponse():
            return request.matches(PASSWORD)
        case VerifyToken():
            return request.token == PASSWORD
        case Authorize():
            return bool(request.username or request.trace)
    raise AssertionError(request)


def application(machine: SMTPServer, event: Event) -> None:
    """Asks `is_good`."""
    if isinstance(event, FindKeys):
        machine.supply_keys(KEYS[event.hash_name] if event.username == "joe" else None)
    elif not isinstance(event, Request) or is_good(event):
        machine.accept()
    else:
        machine.reply(machine.profile.auth_failed_code, "5.7.8 No")


def talk(
    name: str, secret: Secret, chunker: Callable[[bytes], int] = len, profile: Profile = DEFAULT
) -> Pair[SMTPClient, SMTPServer]:
    """The two machines, as far as they go by themselves."""
    server = SMTPServer("mx.example.org", profile)
    server.sasl = OPTIONS

    def serve(machine: SMTPServer, event: object) -> None:
        if machine.answer_owed:
            assert isinstance(event, Event)
            application(machine, event)

    def use(machine: SMTPClient, event: object) -> None:
        if isinstance(event, Greeting):
            machine.hello()
        elif isinstance(event, HelloDone):
            machine.authenticate(CLIENTS[name](secret), allow_clear=True)
        elif isinstance(event, Authenticated | AuthenticationFailed):
            machine.quit()

    pair = Pair(Player(SMTPClient("client.example"), use), Player(server, serve), chunker)
    pair.settle()
    return pair


@pytest.mark.parametrize("name", CLIENTS)
def test_every_mechanism(name: str) -> None:
    assert set(CLIENTS) == set(NEEDED)
    for chunker in (len, random_sizes(1)):
        pair = talk(name, PASSWORD, chunker)
        assert pair.client.machine.authenticated and "Authenticated" in pair.client.outcome.kinds()
        assert pair.server.outcome.kinds()[-1] == "ConnectionClosed"
        assert b"\r\n250-AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-1-PLUS" in pair.server.outcome.output


@pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
@pytest.mark.parametrize("name", CLIENTS)
def test_every_mechanism_with_a_wrong_secret(name: str, profile: Profile) -> None:
    pair = talk(name, Secret(b"wrong"), profile=profile)
    assert not pair.client.machine.authenticated
    failed = next(event for event in pair.client.outcome.events if isinstance(event, AuthenticationFailed))
    assert failed.reply.code == profile.auth_failed_code or (name == "EXTERNAL" and failed.reply.code == 535)
    assert pair.server.machine.state is State.CLOSED


# -- the server alone ------------------------------------------------------------------------------------


def server(*mechanisms: str, profile: Profile = DEFAULT) -> SMTPServer:
    machine = SMTPServer("mx.example.org", profile)
    machine.sasl = ServerOptions(
        mechanisms, nonce_source=OPTIONS.nonce_source, salt_secret=OPTIONS.salt_secret,
        challenge_source=lambda: b"<1@x>", external_identity="joe",
    )  # fmt: skip
    machine.next_event()
    machine.accept()
    machine.receive_data(b"EHLO x\r\n")
    machine.next_event()
    machine.accept()
    machine.data_to_send()
    return machine


def said(machine: SMTPServer, line: bytes) -> Event | None:
    """What the machine makes of a line: an event, or None; its output is drained by the caller."""
    machine.receive_data(line + b"\r\n")
    event = machine.next_event()
    return event if isinstance(event, Event) else None


def state_of(machine: SMTPServer) -> State:
    return machine.state


FIRST = b"AUTH SCRAM-SHA-256 biwsbj1qb2Uscj1hYmNkZWZnaA=="  # n,,n=joe,r=abcdefgh


def test_find_keys_is_answered_with_keys() -> None:
    machine = server("SCRAM-SHA-256")
    event = said(machine, FIRST)
    assert event == FindKeys("SCRAM-SHA-256", "SCRAM-SHA-256", "joe", "sha256", "")
    assert machine.next_event() is PAUSED
    with pytest.raises(LocalProtocolError, match=r"answered with supply_keys\(keys\)"):
        machine.accept()
    with pytest.raises(LocalProtocolError, match=r"answered with supply_keys\(keys\)"):
        machine.reply(250, "fine")
    with pytest.raises(LocalProtocolError, match="needs keys of sha256"):
        machine.supply_keys(KEYS["sha1"])
    machine.supply_keys(KEYS["sha256"])
    assert machine.data_to_send().startswith(b"334 cj1hYmNkZWZnaGMz")
    assert state_of(machine) is State.AUTH
    with pytest.raises(LocalProtocolError, match="answers FindKeys, and nothing else"):
        machine.supply_keys(None)


def test_a_store_that_cannot_be_asked() -> None:
    for code in (454, 535):
        machine = server("SCRAM-SHA-256")
        said(machine, FIRST)
        machine.reply(code, "5.7.8 Sorry")
        assert machine.data_to_send() == b"%d 5.7.8 Sorry\r\n" % code
        assert machine.state is State.READY and not machine.authenticated


def test_supply_keys_answers_nothing_else() -> None:
    machine = server("PLAIN")
    with pytest.raises(LocalProtocolError, match="answers FindKeys, and nothing else"):
        machine.supply_keys(None)
    said(machine, b"AUTH PLAIN AGpvZQBzZWNyZXQ=")
    with pytest.raises(LocalProtocolError, match="answers FindKeys, and nothing else"):
        machine.supply_keys(None)
    machine.accept("2.7.0 Come in")
    assert machine.data_to_send() == b"235 2.7.0 Come in\r\n"


BEARER = b"AUTH OAUTHBEARER biwsAWF1dGg9QmVhcmVyIHgBAQ=="  # n,,^Aauth=Bearer x^A^A


def test_a_refused_token_is_explained_first() -> None:
    machine = server("OAUTHBEARER")
    for answer in (b"AQ==", b"*", b"", b"!", b"A" * 20_000):
        assert isinstance(said(machine, BEARER), VerifyToken)
        machine.reply(535, "5.7.8 Bad\ntoken")
        assert machine.data_to_send() == b"334 eyJzdGF0dXMiOiAiaW52YWxpZF90b2tlbiJ9\r\n"
        assert state_of(machine) is State.AUTH
        event = said(machine, answer)
        if answer != b"A" * 20_000:
            assert event is None
            assert machine.data_to_send() == b"535-5.7.8 Bad\r\n535 5.7.8 token\r\n"
            assert state_of(machine) is State.READY
    assert state_of(machine) is State.CLOSED  # five failed attempts
    assert machine.data_to_send().endswith(b"421 4.7.0 Too many failed authentications, closing connection\r\n")


def test_a_token_that_cannot_be_checked_now_is_not_explained() -> None:
    machine = server("XOAUTH2")
    assert isinstance(said(machine, b"AUTH XOAUTH2 dXNlcj1hAWF1dGg9QmVhcmVyIHgBAQ=="), VerifyToken)
    machine.reply(454, "4.7.0 Not now")
    assert machine.data_to_send() == b"454 4.7.0 Not now\r\n"


def test_the_end_while_a_refusal_is_held() -> None:
    machine = server("OAUTHBEARER")
    said(machine, BEARER)
    machine.reply(535, "5.7.8 No")
    machine.receive_eof()
    closed = machine.next_event()
    assert closed == type(closed)("EOF", True)  # type: ignore[call-arg]


@pytest.mark.parametrize(("line", "submitter"), [(b"AUTH ANONYMOUS =", "<>"), (b"AUTH anonymous =", "<>"),
                                                (b"AUTH EXTERNAL =", "ann@example.org")])  # fmt: skip
def test_nobody_is_not_trusted_with_the_name_of_a_submitter(line: bytes, submitter: str) -> None:
    machine = server("ANONYMOUS", "EXTERNAL")
    assert isinstance(said(machine, line), Authorize)
    machine.accept()
    assert machine.authenticated and machine.anonymous == (submitter == "<>")
    event = said(machine, b"MAIL FROM:<ann@example.org> AUTH=ann@example.org")
    assert isinstance(event, Mail) and event.options.auth == submitter  # RFC 4954 section 5
    machine.accept()
    assert isinstance(said(machine, line), Refused)  # no second login (RFC 4954 section 4)


def test_a_new_session_in_tls_knows_nothing_of_an_exchange() -> None:
    machine = server("OAUTHBEARER")
    said(machine, BEARER)
    machine.reply(535, "5.7.8 No")
    said(machine, b"*")
    machine.offers_starttls = True
    said(machine, b"STARTTLS")
    machine.accept()
    machine.data_to_send()
    machine.tls_established()
    assert said(machine, b"*") is not None and b"500 5.5.1" in machine.data_to_send()


def test_an_initial_response_where_the_server_speaks_first() -> None:
    for profile, wire in (
        (DEFAULT, b"501 5.7.0 Initial response not allowed.\r\n"),
        (COMPAT, b"535 Initial response not allowed.\r\n"),
    ):
        machine = server("CRAM-MD5", profile=profile)
        said(machine, b"AUTH CRAM-MD5 AAAA")
        assert machine.data_to_send() == wire


def test_cram_md5_in_the_compat_profile_says_what_the_original_says() -> None:
    machine = server("CRAM-MD5", profile=COMPAT)
    for response, wire in (
        (b"dGlt", b"501 Could not decode the response.\r\n"),
        (b"YSBiIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw", b"501 Could not decode the response.\r\n"),
        (b"dGltIHp6MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw", b"501 Authentication failed.\r\n"),
        (b"*", b"501 Authentication failed.\r\n"),
        (b"", b"501 Authentication failed.\r\n"),
    ):
        machine.receive_data(b"AUTH CRAM-MD5\r\n" + response + b"\r\n")
        machine.next_event()
        assert machine.data_to_send() == b"334 PDFAeD4=\r\n" + wire


# -- the client alone ------------------------------------------------------------------------------------


@pytest.mark.parametrize("challenged", [False, True])
def test_a_client_does_not_believe_a_server_that_has_proven_nothing(challenged: bool) -> None:
    machine = SMTPClient("client.example")
    machine.receive_data(b"220 mx\r\n")
    machine.next_event()
    machine.hello()
    machine.receive_data(b"250-mx\r\n250 AUTH SCRAM-SHA-256\r\n")
    machine.next_event()
    machine.authenticate(ScramClient("SCRAM-SHA-256", "joe", PASSWORD, NONCE), allow_clear=True)
    if challenged:
        machine.receive_data(b"334 dj1BQUFB\r\n")
        machine.next_event()
        assert machine.data_to_send().endswith(b"*\r\n")
    machine.receive_data(b"235 2.7.0 welcome\r\n")
    with pytest.raises(RemoteProtocolError, match="claims success"):
        machine.next_event()
    assert not machine.authenticated


# -- every split -----------------------------------------------------------------------------------------

LINES = [
    b"EHLO x\r\n" + FIRST + b"\r\n",
    b"Yz1iaXdzLHI9eCxwPUFBQUE=\r\n" + BEARER + b"\r\n",
    b"AQ==\r\nAUTH ANONYMOUS =\r\nQUIT\r\n",
]


def test_the_exchange_does_not_depend_on_how_it_is_cut() -> None:
    def new() -> Player[SMTPServer]:
        machine = SMTPServer("mx.example.org")
        machine.sasl = OPTIONS

        def serve(machine: SMTPServer, event: object) -> None:
            if machine.answer_owed:
                assert isinstance(event, Event)
                application(machine, event)

        return Player(machine, serve)

    outcome = assert_chunk_invariant(new, LINES)
    assert outcome.kinds() == [
        "Connected", "Helo", "FindKeys", "Refused", "VerifyToken", "Authorize", "Quit", "ConnectionClosed",
    ]  # fmt: skip
