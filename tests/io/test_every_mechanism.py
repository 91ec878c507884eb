"""Every SASL mechanism that there is can be had by configuration alone: one file, four listeners, smtplib."""

import hashlib
import smtplib
import ssl
from collections.abc import Callable, Iterator

import pytest

from mailfront_io.tls import server_context, server_end_point
from mailfront_proto.sasl import (
    AnonymousClient,
    ClientMechanism,
    CramMD5Client,
    ExternalClient,
    LoginClient,
    OAuthBearerClient,
    PlainClient,
    ScramClient,
    XOAuth2Client,
    derive_keys,
)
from mailfront_proto.sasl.options import NEEDED
from mailfront_proto.secret import Secret
from tests.certificates import client_context, user_certificate, write_authority, write_pem
from tests.conformance.served import SECONDS, Served

PENCIL, TOKEN, WRONG = Secret(b"pencil"), Secret(b"a-token"), Secret(b"pen")
BINDING: list[bytes] = []

LISTENER = """
[store.{name}]
kind = "passwd"
name = "{name}"

[[listener]]
name = "{name}"
protocol = "smtp"
listen = ["127.0.0.1:0"]
certificate = "server.pem"
store = "{name}"
plugins = ["authenticate", "require-auth", "accept"]
backend = "discard"
[listener.settings]
tls_client_ca = "authority.pem"
auth_anonymous = "ann"
auth_failure_delay = 0
"""

STORES = ("sha256", "sha1", "plain")


def scram(name: str) -> Callable[[Secret], ClientMechanism]:
    def client(password: Secret) -> ClientMechanism:
        binding = ("tls-server-end-point", BINDING[0]) if name.endswith("-PLUS") else None
        return ScramClient(name, "ann", password, b"eighteen octets...", channel_binding=binding)

    return client


CLIENTS: dict[str, tuple[str, Callable[[Secret], ClientMechanism]]] = {
    "PLAIN": ("sha256", lambda password: PlainClient("ann", password)),
    "LOGIN": ("sha256", lambda password: LoginClient("ann", password)),
    "CRAM-MD5": ("plain", lambda password: CramMD5Client("ann", password)),
    "SCRAM-SHA-1": ("sha1", scram("SCRAM-SHA-1")),
    "SCRAM-SHA-1-PLUS": ("sha1", scram("SCRAM-SHA-1-PLUS")),
    "SCRAM-SHA-256": ("sha256", scram("SCRAM-SHA-256")),
    "SCRAM-SHA-256-PLUS": ("sha256", scram("SCRAM-SHA-256-PLUS")),
    "EXTERNAL": ("sha256", lambda password: ExternalClient("" if password == PENCIL else "bob")),
    "OAUTHBEARER": ("sha256", lambda password: OAuthBearerClient(TOKEN if password == PENCIL else WRONG, "ann")),
    "XOAUTH2": ("sha256", lambda password: XOAuth2Client("ann", TOKEN if password == PENCIL else WRONG)),
    "ANONYMOUS": ("sha256", lambda password: AnonymousClient("ann@example.org")),
}
"""Who serves it, and its client for a password."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("every")
    write_pem(directory)
    write_authority(directory)
    BINDING[:] = [server_end_point(server_context({"TLS_CERTFILE": str(directory / "server.pem")}.get))]
    token = f"ann:{{TOKEN-SHA256}}{hashlib.sha256(TOKEN.reveal()).hexdigest()}\n"
    for name in ("sha256", "sha1"):
        keys = derive_keys(PENCIL, b"salt of 16 bytes", 4096, name).encode().reveal().decode()
        (directory / name).write_text(f"ann:{{{keys.partition('$')[0]}}}{keys}\n{token}")
    (directory / "plain").write_text("ann:{PLAIN}pencil\n")
    text = "".join(LISTENER.format(name=name) for name in STORES)
    (directory / "mailfront.toml").write_text(text + 'auth_mechanisms = ["CRAM-MD5"]\n')
    with Served(directory, ["-c", "mailfront.toml"]) as served:
        yield served
        served.signal()
        assert served.finish()[0] == 0


def connect(server: Served, name: str, context: ssl.SSLContext) -> smtplib.SMTP:
    context.check_hostname = False
    smtp = smtplib.SMTP(*server.addresses[STORES.index(name)], timeout=SECONDS)
    smtp.starttls(context=context)
    smtp.ehlo()
    return smtp


def log_in(smtp: smtplib.SMTP, name: str, client: ClientMechanism) -> int:
    def authobject(challenge: bytes | None = None) -> str | None:
        said = client.initial_response() if challenge is None else client.respond(challenge)
        return None if said is None else said.decode()

    try:
        return int(smtp.auth(name, authobject)[0])  # type: ignore[arg-type]
    except smtplib.SMTPAuthenticationError as error:
        return error.smtp_code


def with_certificate() -> ssl.SSLContext:
    context = client_context()
    user_certificate("ann").configure_cert(context)
    return context


def test_no_mechanism_is_missing() -> None:
    assert set(CLIENTS) == set(NEEDED)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("name", CLIENTS)
def test_log_in_by(name: str, version: ssl.TLSVersion, server: Served) -> None:
    store, client = CLIENTS[name]
    context = with_certificate()
    context.maximum_version = version
    with connect(server, store, context) as smtp:
        assert name in smtp.esmtp_features["auth"].split()
        if name != "ANONYMOUS":
            assert log_in(smtp, name, client(WRONG)) == 535
            assert smtp.mail("a@b.example")[0] == 530
        assert log_in(smtp, name, client(PENCIL)) == 235
        assert smtp.mail("a@b.example")[0] == (530 if name == "ANONYMOUS" else 250)


def test_what_is_offered(server: Served) -> None:
    with smtplib.SMTP(*server.addresses[0], timeout=SECONDS) as smtp:
        smtp.ehlo()
        assert smtp.esmtp_features["auth"].split() == ["SCRAM-SHA-256", "ANONYMOUS"]
    tokens = ["LOGIN", "PLAIN", "OAUTHBEARER", "XOAUTH2"]
    for context, external in ((client_context(), []), (with_certificate(), ["EXTERNAL"])):
        for name, first in (("sha256", "SCRAM-SHA-256"), ("sha1", "SCRAM-SHA-1")):
            with connect(server, name, context) as smtp:
                offered = smtp.esmtp_features["auth"].split()
                assert offered == [f"{first}-PLUS", first, *tokens, *external, "ANONYMOUS"]
    with connect(server, "plain", with_certificate()) as smtp:
        assert smtp.esmtp_features["auth"].split() == ["CRAM-MD5"]


def test_a_token_is_good_for_its_user_only(server: Served) -> None:
    with connect(server, "sha256", client_context()) as smtp:
        assert log_in(smtp, "OAUTHBEARER", OAuthBearerClient(TOKEN, "bob")) == 535
        assert log_in(smtp, "XOAUTH2", XOAuth2Client("bob", TOKEN)) == 535
        assert log_in(smtp, "PLAIN", PlainClient("ann", TOKEN)) == 535
        assert log_in(smtp, "OAUTHBEARER", OAuthBearerClient(TOKEN)) == 235  # the token alone says whose it is
