"""validate and authenticate against stores of any kind; every mechanism, spoken by our own client."""

import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mailfront_io.auth.sqlite import UserDatabase
from mailfront_io.auth.store import NOBODY, Asker, CredentialStore, Identity, StoreUnavailable
from mailfront_io.drivers.stepper import World, run
from mailfront_io.ops import Connection, Sleep, Thread
from mailfront_io.plugin import Place
from mailfront_io.plugins.validate import LOOKUP_SECONDS, Validate
from mailfront_io.service import service_from_line
from mailfront_io.session import ForwardPath, Session
from mailfront_io.testing import EOF, VirtualClock, run_script
from mailfront_proto.errors import RemoteProtocolError
from mailfront_proto.pull import NEED_DATA
from mailfront_proto.sasl import (
    CramMD5Client,
    LoginClient,
    OAuthBearerClient,
    PlainClient,
    ScramClient,
    XOAuth2Client,
)
from mailfront_proto.sasl.mechanism import ClientMechanism
from mailfront_proto.sasl.scram_keys import ScramKeys, derive_keys
from mailfront_proto.secret import Secret
from mailfront_proto.smtp import SMTPClient
from mailfront_proto.smtp import client_events as events
from tests.front import Front, codes

ANN = "ann@example.org"
PENCIL = Secret(b"pencil")


class Everything(CredentialStore):
    """One user, for all mechanisms."""

    mechanisms = (
        "SCRAM-SHA-256", "SCRAM-SHA-1", "LOGIN", "PLAIN", "CRAM-MD5", "OAUTHBEARER", "XOAUTH2",
    )  # fmt: skip
    salt_secret = Secret(b"sixteen octets..")
    iterations = 4096

    async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
        await Sleep(0.001)
        return Identity(ANN) if username == ANN and password == PENCIL else None

    async def verify_response(
        self, username: str, challenge: bytes, digest: bytes, asker: Asker = NOBODY
    ) -> Identity | None:
        right = hmac.compare_digest(hmac.digest(PENCIL.reveal(), challenge, "md5"), digest)
        return Identity(ANN) if username == ANN and right else None

    async def verify_token(
        self, username: str, token: Secret, properties: Mapping[str, str], asker: Asker = NOBODY
    ) -> Identity | None:
        return Identity(ANN) if token == PENCIL else None

    async def find_keys(self, username: str, hash_name: str, asker: Asker = NOBODY) -> ScramKeys | None:
        return derive_keys(PENCIL, b"salt of sixteen.", 4096, hash_name) if username == ANN else None

    async def look_up(self, name: str, asker: Asker = NOBODY) -> Identity | None:
        await Thread(len, b"")
        return Identity(ANN) if name == ANN else None


class Client(World):
    """A world in which the session's peer is our own client, which logs in."""

    clock: VirtualClock

    def __init__(self, mechanism: ClientMechanism) -> None:
        self.clock = VirtualClock()
        self._mechanism = mechanism
        self._machine = SMTPClient("client.example")
        self.results: list[object] = []

    def send(self, data: bytes, deadline: float | None) -> None:
        self._machine.receive_data(data)

    def recv(self, deadline: float | None, idle: bool) -> bytes:
        while True:
            try:
                event = self._machine.next_event()
            except RemoteProtocolError as error:
                self.results.append(error)
                return b""
            if isinstance(event, events.Greeting):
                self._machine.hello()
            elif isinstance(event, events.HelloDone):
                self._machine.authenticate(self._mechanism, allow_clear=True)
            elif isinstance(event, events.Authenticated | events.AuthenticationFailed):
                self.results.append(event)
                self._machine.quit()
            elif event is NEED_DATA:
                return self._machine.data_to_send()

    def sleep(self, seconds: float, deadline: float | None) -> None:
        self.clock.advance(seconds)

    def thread(self, operation: Thread[Any]) -> Any:
        return operation.function(*operation.arguments)

    def wait(self, interests: Sequence[Any], deadline: float | None) -> None:
        raise NotImplementedError

    def own_stream(self) -> Any:
        raise NotImplementedError


def log_in(mechanism: ClientMechanism, store: CredentialStore) -> tuple[list[object], list[str]]:
    """What the client was told, and the log."""
    front = Front("authenticate", "accept", credentials=store, env={"AUTH_REQUIRES_TLS": "0"})
    client = Client(mechanism)
    assert run(front.session(Connection(client.clock)), client) == 0
    return client.results, front.log


def mechanisms(name: str, password: Secret) -> list[ClientMechanism]:
    return [
        PlainClient(name, password),
        LoginClient(name, password),
        CramMD5Client(name, password),
        ScramClient("SCRAM-SHA-1", name, password, b"nonce of twenty-four oct"),
        ScramClient("SCRAM-SHA-256", name, password, b"nonce of twenty-four oct"),
        OAuthBearerClient(password, name),
        XOAuth2Client(name, password),
    ]


@pytest.mark.parametrize("mechanism", mechanisms(ANN, PENCIL), ids=lambda m: m.name)
def test_authenticate_serves_every_mechanism(mechanism: ClientMechanism) -> None:
    (result,), log = log_in(mechanism, Everything())
    assert isinstance(result, events.Authenticated)
    assert f"SASL AUTH {mechanism.name} username={ANN}" in log


@pytest.mark.parametrize("mechanism", mechanisms(ANN, Secret(b"pen")), ids=lambda m: m.name)
def test_and_refuses_by_every_mechanism(mechanism: ClientMechanism) -> None:
    (result,), log = log_in(mechanism, Everything())
    assert isinstance(result, events.AuthenticationFailed)
    assert f"SASL AUTH {mechanism.name} failed" in log
    assert not any("username" in line for line in log)


@pytest.mark.parametrize("mechanism", mechanisms("eve@example.org", Secret(b"pen")), ids=lambda m: m.name)
def test_h40_a_stranger_is_nobody(mechanism: ClientMechanism) -> None:
    (result,), _ = log_in(mechanism, Everything())
    assert isinstance(result, events.AuthenticationFailed)


# -- validate ----------------------------------------------------------------------------------------------

HELO = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n"


def rcpt(*recipients: str) -> bytes:
    return b"".join(f"RCPT TO:<{recipient}>\r\n".encode() for recipient in recipients)


def answers(front: Front, *recipients: str) -> list[bytes]:
    """The reply to each."""
    return front.say(HELO + rcpt(*recipients) + b"QUIT\r\n").split(b"\r\n")[-2 - len(recipients) : -2]


YES = b"250 2.1.5 Recipient accepted."
UNKNOWN = b"553 5.1.1 Sorry, that recipient does not exist."
UNAVAILABLE = b"451 4.1.0 Sorry, I could not verify that recipient (internal temporary error)."


def test_recipients_are_users_by_their_whole_address() -> None:
    front = Front("validate", "accept", credentials=Everything())
    assert answers(front, ANN, "ann@EXAMPLE.org", "eve@example.org", "ann@example.net", "postmaster") == [
        YES, YES, UNKNOWN, UNKNOWN, YES,
    ]  # fmt: skip


def test_only_domains_that_are_listed_are_looked_up_and_the_local_part_alone_will_do() -> None:
    class Locals(Everything):
        async def look_up(self, name: str, asker: Asker = NOBODY) -> Identity | None:
            asked.append(name)
            return Identity(name) if name == "ann" else None

    asked: list[str] = []
    env = {"VALIDATE_DOMAINS": "example.org:Example.NET"}
    front = Front("validate", "accept", credentials=Locals(), env=env)
    assert answers(front, ANN, "eve@example.org", "ann@example.net", "eve@example.com") == [YES, UNKNOWN, YES, YES]
    assert asked == [ANN, "ann", "eve@example.org", "eve", "ann@example.net", "ann"]


def test_it_accepts_nobody() -> None:
    front = Front("validate", "accept-sender", credentials=Everything())
    assert answers(front, ANN)[0].startswith(b"550 5.1.0 ")


class Trouble(Everything):
    async def look_up(self, name: str, asker: Asker = NOBODY) -> Identity | None:
        if name.startswith("hangs"):
            await Sleep(1e9)
        raise StoreUnavailable("the disk is gone")


def test_trouble_defers_and_is_told() -> None:
    front = Front("validate", "accept", credentials=Trouble())
    played = front.play([HELO, rcpt("ann@x.example"), rcpt("hangs@x.example"), b"QUIT\r\n", EOF])
    assert played.output.count(UNAVAILABLE) == 2
    assert played.elapsed == LOOKUP_SECONDS
    assert [line.partition(": ")[2] for line in front.faults] == [
        "plugin validate: the disk is gone",
        "plugin validate: the store did not answer in time",
    ]


def test_trouble_passes_where_the_list_says_so() -> None:
    kind = type("Validate", (Validate,), {"place": Place(5, True)})
    front = Front(kind, "accept", credentials=Trouble())
    played = front.play([HELO, rcpt("ann@x.example"), rcpt("hangs@x.example"), b"QUIT\r\n", EOF])
    assert codes(played.output) == [220, 250, 250, 250, 250, 221]
    assert played.elapsed == 5


def test_a_store_that_cannot_look_up_is_trouble() -> None:
    class Passwords(CredentialStore):
        mechanisms = ("PLAIN",)

    front = Front("validate", "accept", credentials=Passwords())
    assert answers(front, ANN) == [UNAVAILABLE]
    assert front.faults[0].endswith(": plugin validate: Passwords cannot look users up")


@pytest.mark.parametrize("plugins", [("cvm-authenticate", "validate"), ("validate", "cvm-authenticate")])
def test_modules_for_logins_are_not_asked_for_recipients(plugins: tuple[str, ...]) -> None:
    env = {"CVM_SASL_PLAIN": "cvm-pwfile", "AUTH_REQUIRES_TLS": "0"}
    front = Front(*plugins, "accept", credentials=Everything(), env=env)
    output = front.say(b"EHLO c\r\nMAIL FROM:<a@b.example>\r\n", b"RCPT TO:<ann@example.org>\r\n")
    assert b"AUTH LOGIN PLAIN\r\n" in output
    assert codes(output)[-1] == 250


def test_without_a_store_it_defers() -> None:
    front = Front("validate", "accept")
    assert answers(front, ANN) == [UNAVAILABLE]


@pytest.mark.parametrize("address", ["a\udc80b@example.org", "a\x85b@example.org", "@example.org"])
def test_h59_what_can_be_no_name_is_not_asked_for(address: str) -> None:
    class Never(Everything):
        async def look_up(self, name: str, asker: Asker = NOBODY) -> Identity | None:
            raise AssertionError("asked")

    front = Front("validate", credentials=Never())
    plugin = front.service._plugins[0]
    session = Session(Connection(VirtualClock()), {}, print)
    session.credentials = Never()
    steps = plugin(session).recipient(ForwardPath(address, []))  # type: ignore[attr-defined]
    with pytest.raises(StopIteration) as end:
        steps.send(None)
    assert end.value.value.code == 553


@pytest.mark.parametrize("kind", ["static", "passwd", "sqlite"])
def test_every_kind_of_store(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "users"
    if kind == "sqlite":
        database = UserDatabase(str(path))
        database.create()
        database.add("ann", PENCIL)
    else:
        path.write_text("ann:pencil\n" if kind == "static" else "ann:{PLAIN}pencil\n")
    settings = {"AUTH_STORE": f"{kind}:{path}", "VALIDATE_DOMAINS": "example.org", "TCPLOCALHOST": "mx"}
    service = service_from_line(["smtp", "discard", "validate", "authenticate", "accept"], settings, print)
    service.check_required()
    said = HELO + rcpt(ANN, "eve@example.org") + b"QUIT\r\n"
    assert codes(run_script(service.session, [said, EOF]).output)[-3:] == [250, 553, 221]
