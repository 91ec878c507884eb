"""Every SASL mechanism over POP3, between our two machines in memory, and what a POP3 server makes of the answers."""

from collections.abc import Callable

import pytest

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.pop3 import (
    COMPAT,
    DEFAULT,
    PAUSED,
    Authenticated,
    AuthenticationFailed,
    CapaDone,
    ConnectionClosed,
    Event,
    Greeting,
    OpenMailbox,
    POP3Client,
    POP3Server,
    Profile,
    State,
)
from mailfront_proto.sasl import (
    FindKeys,
    Request,
    ScramClient,
    ServerOptions,
    VerifyToken,
)
from mailfront_proto.sasl.options import NEEDED
from mailfront_proto.secret import Secret
from mailfront_proto.testing import Pair, Player, assert_chunk_invariant, random_sizes
from tests.proto.test_sasl_smtp import BEARER, CLIENTS, FIRST, KEYS, NONCE, OPTIONS, PASSWORD, is_good


def application(machine: POP3Server, event: Event) -> None:
    """Asks `is_good`."""
    if isinstance(event, OpenMailbox):
        machine.open_mailbox([1], [b"x"])
    elif isinstance(event, FindKeys):
        machine.supply_keys(KEYS[event.hash_name] if event.username == "joe" else None)
    elif not isinstance(event, Request) or is_good(event):
        machine.accept()
    else:
        machine.reply("-ERR")


def serve(machine: POP3Server, event: object) -> None:
    if machine.answer_owed:
        assert isinstance(event, Event)
        application(machine, event)


def talk(
    name: str, secret: Secret, chunker: Callable[[bytes], int] = len, profile: Profile = DEFAULT
) -> Pair[POP3Client, POP3Server]:
    """The two machines, as far as they go by themselves."""
    server = POP3Server(profile)
    server.sasl = OPTIONS

    def use(machine: POP3Client, event: object) -> None:
        if isinstance(event, Greeting):
            machine.capa()
        elif isinstance(event, CapaDone):
            machine.authenticate(CLIENTS[name](secret), allow_clear=True)
        elif isinstance(event, Authenticated | AuthenticationFailed):
            machine.quit()

    pair = Pair(Player(POP3Client(), use), Player(server, serve), chunker)
    pair.settle()
    return pair


@pytest.mark.parametrize("name", CLIENTS)
def test_every_mechanism(name: str) -> None:
    assert set(CLIENTS) == set(NEEDED)
    for chunker in (len, random_sizes(1)):
        pair = talk(name, PASSWORD, chunker)
        assert "Authenticated" in pair.client.outcome.kinds()
        opened = [event for event in pair.server.outcome.events if isinstance(event, OpenMailbox)]
        assert opened == [OpenMailbox("" if name == "ANONYMOUS" else "joe")]
        assert pair.server.outcome.kinds()[-2:] == ["Update", "ConnectionClosed"]
        assert b"\r\nSASL PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-1-PLUS" in pair.server.outcome.output


@pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
@pytest.mark.parametrize("name", CLIENTS)
def test_every_mechanism_with_a_wrong_secret(name: str, profile: Profile) -> None:
    pair = talk(name, Secret(b"wrong"), profile=profile)
    failed = next(event for event in pair.client.outcome.events if isinstance(event, AuthenticationFailed))
    assert failed.reply.code == ("AUTH" if profile is DEFAULT else "")
    assert "OpenMailbox" not in pair.server.outcome.kinds()
    assert pair.server.machine.state is State.CLOSED


def test_the_mechanisms_are_told_in_both_states() -> None:
    """RFC 2449 section 5: what is there before the login is announced behind it, too. The original had it otherwise."""
    for profile in (DEFAULT, COMPAT):
        machine = POP3Server(profile)
        machine.sasl = ServerOptions(["PLAIN"])
        outcome = Player(machine, serve).play([[b"CAPA\r\nAUTH PLAIN AGpvZQBzZWNyZXQ=\r\nCAPA\r\n"]]).outcome
        assert outcome.output.count(b"\r\nSASL PLAIN\r\n") == (2 if profile is DEFAULT else 1)


# -- the server alone ------------------------------------------------------------------------------------


def server(*mechanisms: str, profile: Profile = DEFAULT) -> POP3Server:
    machine = POP3Server(profile)
    machine.sasl = ServerOptions(
        mechanisms, nonce_source=OPTIONS.nonce_source, salt_secret=OPTIONS.salt_secret,
        challenge_source=lambda: b"<1@x>", external_identity="joe",
    )  # fmt: skip
    machine.next_event()
    machine.accept()
    machine.data_to_send()
    return machine


def said(machine: POP3Server, line: bytes) -> Event | None:
    """What the machine makes of a line: an event, or None; its output is drained by the caller."""
    machine.receive_data(line + b"\r\n")
    event = machine.next_event()
    return event if isinstance(event, Event) else None


def state_of(machine: POP3Server) -> State:
    return machine.state


def test_find_keys_is_answered_with_keys() -> None:
    machine = server("SCRAM-SHA-256")
    assert said(machine, FIRST) == FindKeys("SCRAM-SHA-256", "SCRAM-SHA-256", "joe", "sha256", "")
    assert machine.next_event() is PAUSED
    with pytest.raises(LocalProtocolError, match=r"answered with supply_keys\(keys\)"):
        machine.accept()
    with pytest.raises(LocalProtocolError, match=r"answered with supply_keys\(keys\)"):
        machine.reply("+OK")
    with pytest.raises(LocalProtocolError, match="needs keys of sha256"):
        machine.supply_keys(KEYS["sha1"])
    machine.supply_keys(KEYS["sha256"])
    assert machine.data_to_send().startswith(b"+ cj1hYmNkZWZnaGMz")
    assert state_of(machine) is State.AUTH
    with pytest.raises(LocalProtocolError, match="answers FindKeys, and nothing else"):
        machine.supply_keys(None)


def test_a_store_that_cannot_be_asked() -> None:
    machine = server("SCRAM-SHA-256")
    said(machine, FIRST)
    machine.reply("-ERR", code="SYS/TEMP")
    assert machine.data_to_send() == b"-ERR [SYS/TEMP] Internal error\r\n"
    assert machine.state is State.AUTHORIZATION


def test_a_refused_token_is_explained_first() -> None:
    machine = server("OAUTHBEARER")
    for answer in (b"AQ==", b"*", b"", b"!", b"A" * 20_000):
        assert isinstance(said(machine, BEARER), VerifyToken)
        machine.reply("-ERR", "Bad token", "AUTH")
        assert machine.data_to_send() == b"+ eyJzdGF0dXMiOiAiaW52YWxpZF90b2tlbiJ9\r\n"
        assert state_of(machine) is State.AUTH
        event = said(machine, answer)
        assert machine.data_to_send() == b"-ERR [AUTH] Bad token\r\n"
    assert isinstance(event, ConnectionClosed) and event.reason == "Bad token"  # five failed attempts


def test_a_token_that_cannot_be_checked_now_is_not_explained() -> None:
    machine = server("XOAUTH2")
    assert isinstance(said(machine, b"AUTH XOAUTH2 dXNlcj1hAWF1dGg9QmVhcmVyIHgBAQ=="), VerifyToken)
    machine.reply("-ERR", "Not now", "SYS/TEMP")
    assert machine.data_to_send() == b"-ERR [SYS/TEMP] Not now\r\n"


def test_the_end_while_a_refusal_is_held() -> None:
    machine = server("OAUTHBEARER")
    said(machine, BEARER)
    machine.reply("-ERR")
    machine.receive_eof()
    assert machine.next_event() == ConnectionClosed("EOF", unfinished=True)


def test_cram_md5_in_the_compat_profile_says_what_the_original_says() -> None:
    machine = server("CRAM-MD5", profile=COMPAT)
    machine.receive_data(b"AUTH CRAM-MD5 AAAA\r\n")
    machine.next_event()
    assert machine.data_to_send() == b"-ERR Initial response not allowed.\r\n"
    for response, text in (
        (b"dGlt", b"Could not decode the response."),
        (b"*", b"Authentication failed."),
        (b"", b"Authentication failed."),
    ):
        machine.receive_data(b"AUTH CRAM-MD5\r\n" + response + b"\r\n")
        machine.next_event()
        assert machine.data_to_send() == b"+ PDFAeD4=\r\n-ERR " + text + b"\r\n"


# -- the client alone ------------------------------------------------------------------------------------


@pytest.mark.parametrize("challenged", [False, True])
def test_a_client_does_not_believe_a_server_that_has_proven_nothing(challenged: bool) -> None:
    machine = POP3Client()
    machine.receive_data(b"+OK\r\n")
    machine.next_event()
    machine.capa()
    machine.receive_data(b"+OK\r\nSASL SCRAM-SHA-256\r\n.\r\n")
    machine.next_event()
    machine.authenticate(ScramClient("SCRAM-SHA-256", "joe", PASSWORD, NONCE), allow_clear=True)
    if challenged:
        machine.receive_data(b"+ dj1BQUFB\r\n")
        machine.next_event()
        assert machine.data_to_send().endswith(b"*\r\n")
    machine.receive_data(b"+OK welcome\r\n")
    with pytest.raises(RemoteProtocolError, match="claims success"):
        machine.next_event()
    assert machine.state is State.CLOSED


# -- every split -----------------------------------------------------------------------------------------

LINES = [
    FIRST + b"\r\n",
    b"Yz1iaXdzLHI9eCxwPUFBQUE=\r\n" + BEARER + b"\r\n",
    b"AQ==\r\nAUTH ANONYMOUS c2lkQGV4YW1wbGUub3Jn\r\nQUIT\r\n",
]


def test_the_exchange_does_not_depend_on_how_it_is_cut() -> None:
    def new() -> Player[POP3Server]:
        machine = POP3Server()
        machine.sasl = OPTIONS
        return Player(machine, serve)

    outcome = assert_chunk_invariant(new, LINES)
    assert outcome.kinds() == [
        "Connected", "FindKeys", "Refused", "VerifyToken", "Authorize", "OpenMailbox", "Update", "ConnectionClosed"
    ]  # fmt: skip
