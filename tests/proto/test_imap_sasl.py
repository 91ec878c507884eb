"""Every SASL mechanism over IMAP, between our two machines in memory, and what an IMAP server makes of the answers."""

from collections.abc import Callable

import pytest

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.imap import (
    COMPAT,
    DEFAULT,
    Answered,
    Authenticated,
    AuthenticationFailed,
    Event,
    Greeting,
    HandOver,
    IMAPClient,
    IMAPServer,
    Profile,
    Secret,
    State,
)
from mailfront_proto.sasl import FindKeys, Request, VerifyToken
from mailfront_proto.testing import Pair, Player, random_sizes
from tests.proto.test_imap_client import HandedOver
from tests.proto.test_sasl_smtp import BEARER, CLIENTS, FIRST, KEYS, OPTIONS, PASSWORD, is_good


def application(machine: IMAPServer, event: object) -> None:
    """Asks `is_good`."""
    if not machine.answer_owed:
        return
    if isinstance(event, FindKeys):
        machine.supply_keys(KEYS[event.hash_name] if event.username == "joe" else None)
    elif not isinstance(event, Request) or is_good(event):
        machine.accept()
    else:
        machine.reply("NO")


def talk(
    name: str, secret: Secret, chunker: Callable[[bytes], int] = len, profile: Profile = DEFAULT
) -> Pair[IMAPClient, IMAPServer]:
    """The two machines, as far as they go by themselves."""
    server = IMAPServer(profile)
    server.sasl = OPTIONS
    if profile is COMPAT:
        server.application_capabilities = [f"AUTH={mechanism}" for mechanism in OPTIONS.mechanisms]

    def use(machine: IMAPClient, event: object) -> None:
        if isinstance(event, Greeting) and not machine.capabilities:
            machine.capability()
        elif isinstance(event, AuthenticationFailed):
            machine.logout()
        elif machine.capabilities and not machine.awaiting and machine.state is State.CLEAR:
            machine.authenticate(CLIENTS[name](secret), allow_clear=True)

    pair = HandedOver(Player(IMAPClient(), use), Player(server, application), chunker)
    pair.settle()
    return pair


@pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
@pytest.mark.parametrize("name", CLIENTS)
def test_every_mechanism(name: str, profile: Profile) -> None:
    """With an initial response in the default profile, without one in the other, which does not list SASL-IR."""
    for chunker in (len, random_sizes(1)):
        pair = talk(name, PASSWORD, chunker, profile)
        handed = pair.server.outcome.events[-1]
        assert isinstance(handed, HandOver)
        assert (handed.username, handed.command) == ("" if name == "ANONYMOUS" else "joe", "AUTHENTICATE")
        pair.client.receive(handed.tag + b" OK in\r\n")
        assert isinstance(pair.client.outcome.events[-1], Authenticated)
        assert "secret" not in repr(pair.server.outcome.events)


@pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
@pytest.mark.parametrize("name", CLIENTS)
def test_every_mechanism_with_a_wrong_secret(name: str, profile: Profile) -> None:
    if name == "EXTERNAL":
        return  # the certificate speaks
    pair = talk(name, Secret(b"wrong"), profile=profile)
    failed = next(event for event in pair.client.outcome.events if isinstance(event, AuthenticationFailed))
    assert failed.reply.status == "NO" and failed.reply.text == "AUTHENTICATE failed: Authentication failed."
    assert failed.reply.code == ("AUTHENTICATIONFAILED" if profile is DEFAULT else "")
    assert pair.server.machine.state is State.CLOSED


# -- the server alone --------------------------------------------------------------------------------------


def server() -> IMAPServer:
    machine = IMAPServer()
    machine.sasl = OPTIONS
    Player(machine, application).step()
    return machine


def said(machine: IMAPServer, line: bytes) -> Event | None:
    machine.receive_data(line + b"\r\n")
    event = machine.next_event()
    return event if isinstance(event, Event) else None


def test_find_keys_is_answered_with_keys() -> None:
    machine = server()
    asked = said(machine, FIRST.replace(b"AUTH ", b"a AUTHENTICATE "))
    assert isinstance(asked, FindKeys)
    with pytest.raises(LocalProtocolError, match=r"answered with supply_keys\(keys\)"):
        machine.accept()
    with pytest.raises(LocalProtocolError, match="no refusal"):
        machine.reply("OK")
    machine.supply_keys(KEYS[asked.hash_name])
    assert machine.data_to_send().startswith(b"+ ")
    assert machine.state is State.AUTH
    with pytest.raises(LocalProtocolError, match="answers FindKeys, and nothing else"):
        machine.supply_keys(None)


def test_a_store_that_cannot_be_asked() -> None:
    machine = server()
    said(machine, FIRST.replace(b"AUTH ", b"a AUTHENTICATE "))
    machine.reply("NO", code="UNAVAILABLE")
    assert machine.data_to_send() == b"a NO [UNAVAILABLE] AUTHENTICATE failed: Internal error.\r\n"
    assert machine.state is State.CLEAR


@pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
@pytest.mark.parametrize(
    "lines",
    [
        [b"a AUTHENTICATE PLAIN", b"*"],  # RFC 9051 section 6.2.2: these MUST get BAD
        [b"a AUTHENTICATE PLAIN", b"!"],
        [b"a AUTHENTICATE PLAIN !"],
        [b"a AUTHENTICATE CRAM-MD5 eA=="],  # RFC 4959 section 3: this too
    ],
)
def test_what_is_answered_with_bad(lines: list[bytes], profile: Profile) -> None:
    machine = IMAPServer(profile)
    machine.sasl = OPTIONS
    Player(machine, application).step()
    for line in lines:
        said(machine, line)
    status = b"BAD" if profile is DEFAULT else b"NO"
    assert machine.data_to_send().splitlines()[-1].startswith(b"a " + status + b" AUTHENTICATE failed: ")


@pytest.mark.parametrize("line", [b'a AUTHENTICATE "PLAIN"', b'a AUTHENTICATE PLAIN "AGpvZQBzZWNyZXQ="'])
def test_mechanism_and_initial_response_are_no_strings(line: bytes) -> None:
    """RFC 9051 section 9 has an atom for the one, RFC 4959 section 7 bare base64 for the other."""
    machine = server()
    said(machine, line)
    assert machine.data_to_send() == b"a BAD AUTHENTICATE command requires only one or two arguments\r\n"


def test_a_refused_token_is_told_why_before_the_answer() -> None:
    machine = server()
    asked = said(machine, BEARER.replace(b"AUTH ", b"a AUTHENTICATE "))
    assert isinstance(asked, VerifyToken)
    machine.reply("NO", "expired", "EXPIRED")
    assert machine.data_to_send().startswith(b"+ eyJ")
    assert machine.state is State.AUTH
    event = said(machine, b"AQ==")
    assert isinstance(event, Answered) and event.said == "a NO [EXPIRED] expired"
    assert machine.data_to_send() == b"a NO [EXPIRED] expired\r\n"


def test_a_server_that_proves_nothing_is_not_believed() -> None:
    client = IMAPClient()
    client.receive_data(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=SCRAM-SHA-256] x\r\n")
    client.next_event()
    client.authenticate(CLIENTS["SCRAM-SHA-256"](PASSWORD), allow_clear=True)
    client.data_to_send()
    client.receive_data(b"A0001 OK welcome\r\n")
    with pytest.raises(RemoteProtocolError):
        client.next_event()
