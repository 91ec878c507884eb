"""Certificates of users: whom they name, which are taken, and who logs in by EXTERNAL with them."""

import base64
import datetime
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.auth.cvm import CVMStore
from mailfront_io.auth.sqlite import SQLiteStore, UserDatabase
from mailfront_io.auth.static import StaticStore
from mailfront_io.auth.store import NOBODY, Asker, CredentialStore, Identity, StoreUnavailable
from mailfront_io.ops import Connection
from mailfront_io.plugin import Plugin, Response
from mailfront_io.session import Session
from mailfront_io.testing import EOF, Action, Outside, PeerTLS, VirtualClock, WaitFor
from mailfront_io.tls import TLSSettingError, certificate_user, server_context
from mailfront_proto.cvm import Code, CVMRequest, CVMResponse, Fact
from mailfront_proto.sasl import Request
from mailfront_proto.secret import Secret
from tests.certificates import authority, client_context, user_certificate, write_authority, write_pem
from tests.front import Front, codes

ANN = StaticStore({"ann": Secret(b"x"), "ann@example.org": Secret(b"x")})
EXTERNAL = b"EHLO x\r\nAUTH EXTERNAL =\r\nQUIT\r\n"


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, str]:
    """The settings of a server that asks for certificates."""
    return {
        "TLS_CERTFILE": str(write_pem(tmp_path)),
        "TLS_CLIENT_CA": str(write_authority(tmp_path)),
        "TLS_IMMEDIATE": "",
    }


def shown(certificate: trustme.LeafCert | None) -> ssl.SSLContext:
    """The context of a client with that certificate."""
    context = client_context()
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def play(
    env: Mapping[str, str],
    context: ssl.SSLContext,
    say: bytes = EXTERNAL,
    store: CredentialStore = ANN,
    *plugins: type[Plugin],
    outside: Outside | None = None,
) -> tuple[list[int], list[str], bytes]:
    """The codes of the replies, the log, and the replies themselves."""
    front = Front("authenticate", *plugins, "accept", credentials=store, env={"AUTH_FAILURE_DELAY": "0", **env})
    output = front.play([PeerTLS(context, "mx.example.org"), say], all_read=False, outside=outside).output
    return codes(output), front.log, output


# -- whom a certificate names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("emails", "common_names", "user"),
    [
        (["ann@example.org"], [], "ann@example.org"),
        (["ann@example.org"], ["Ann Smith"], "ann@example.org"),
        ([], ["ann"], "ann"),
        ([], [], ""),
        ([], ["ann", "bob"], ""),
        (["ann@example.org", "bob@example.org"], ["ann"], ""),
        (["ann@example.org\0.example.net"], ["ann"], ""),
        ([""], ["ann"], ""),
        ([], ["ann\r\nbob"], ""),
        ([], ["\ud800"], ""),
        ([], ["Ä. B."], "Ä. B."),
        ([], ["\uff41nn"], ""),  # a store makes "ann" of it
        ([], ["a\u00adnn"], ""),
    ],
)
def test_whom_a_certificate_names(emails: list[str], common_names: list[str], user: str) -> None:
    content = {
        "subject": ((("organizationName", "x"),), *((("commonName", name),) for name in common_names)),
        "subjectAltName": (("DNS", "mx.example.org"), *(("email", name) for name in emails)),
    }
    assert certificate_user(content) == user


NAMES = st.tuples(st.sampled_from(["email", "DNS", "commonName", "URI"]), st.text(max_size=8))


@given(st.lists(NAMES, max_size=3), st.lists(st.lists(NAMES, max_size=3), max_size=3))
def test_h45_a_name_is_one_of_the_certificate_or_none(
    names: list[tuple[str, str]], subject: list[list[tuple[str, str]]]
) -> None:
    user = certificate_user({"subjectAltName": names, "subject": subject})
    assert user == "" or ("email", user) in names or ("commonName", user) in [pair for part in subject for pair in part]
    assert user.isprintable() or not any(c < " " or c == "\x7f" for c in user)
    if len([kind for kind, _ in names if kind == "email"]) > 1:
        assert user == ""
    assert certificate_user({}) == ""


# -- which are taken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("names", [("ann@example.org",), ("ann",)])
def test_one_of_our_users_logs_in(tls: dict[str, str], names: tuple[str, ...], version: ssl.TLSVersion) -> None:
    context = shown(user_certificate(*names))
    context.maximum_version = version
    said, log, _ = play(tls, context)
    assert said == [220, 250, 235, 221]
    assert f"TLS client certificate: {names[0]}" in log and f"SASL AUTH EXTERNAL username={names[0]}" in log


def test_a_certificate_that_names_two_users_is_nobody_s(tls: dict[str, str]) -> None:
    said, log, output = play(tls, shown(user_certificate("ann@example.org", "bob@example.org")))
    assert said == [220, 250, 504, 221] and b"EXTERNAL" not in output.partition(b"504")[0]
    assert "TLS client certificate: it names no user" in log


def test_who_shows_none_is_as_welcome_as_before(tls: dict[str, str]) -> None:
    said, log, _ = play(tls, shown(None))
    assert said == [220, 250, 504, 221] and not any("client certificate" in line for line in log)


def made(
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    days: int = 1,
    serial: int = 77,
    by: trustme.CA | None = None,
) -> trustme.LeafCert:
    """A certificate of our authority, or of one below it, for ann, with what `trustme` makes no certificates with."""
    above = by or authority()
    issuer = x509.load_pem_x509_certificate(above.cert_pem.bytes())
    ours = serialization.load_pem_private_key(above.private_key_pem.bytes(), None)
    theirs = serialization.load_pem_private_key(user_certificate("ann").private_key_pem.bytes(), None)
    assert isinstance(ours, EllipticCurvePrivateKey) and isinstance(theirs, EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ann")]))
        .issuer_name(issuer.subject)
        .public_key(theirs.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        .sign(ours, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    between = [by.cert_pem.bytes()] if by is not None else []
    return trustme.LeafCert(user_certificate("ann").private_key_pem.bytes(), pem, between)


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        (made(), ""),
        (made(days=-1), "expired"),
        (made(usage=ExtendedKeyUsageOID.SERVER_AUTH), "purpose"),
        (user_certificate("ann", trusted=False), "issuer"),
    ],
    ids=["good", "expired", "a server's", "forged"],
)
def test_h45_what_does_not_verify_is_turned_away(tls: dict[str, str], certificate: trustme.LeafCert, why: str) -> None:
    said, log, output = play(tls, shown(certificate))
    if why:
        assert output == b"" and log[1].startswith("TLS handshake failed: the certificate was not accepted: ")
        assert why in log[1]
    else:
        assert said == [220, 250, 235, 221]


def revoked(*serials: int, by: trustme.CA | None = None) -> bytes:
    """A list of revoked certificates."""
    issuer = x509.load_pem_x509_certificate((by or authority()).cert_pem.bytes())
    ours = serialization.load_pem_private_key((by or authority()).private_key_pem.bytes(), None)
    assert isinstance(ours, EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
    builder = builder.last_update(now).next_update(now + datetime.timedelta(days=9))
    for serial in serials:
        one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(one)
    return builder.sign(ours, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_h45_a_revoked_certificate_is_turned_away(tls: dict[str, str]) -> None:
    with open(tls["TLS_CLIENT_CA"], "ab") as file:
        file.write(revoked(78))
    assert play(tls, shown(made()))[0] == [220, 250, 235, 221]
    said, log, _ = play(tls, shown(made(serial=78)))
    assert said == [] and "revoked" in log[1]
    assert play(tls, shown(None))[0] == [220, 250, 504, 221]


def test_h45_users_of_a_revoked_authority_are_turned_away(tls: dict[str, str]) -> None:
    """One between ours and the user's."""
    between = authority().create_child_ca()
    serial = x509.load_pem_x509_certificate(between.cert_pem.bytes()).serial_number
    path = Path(tls["TLS_CLIENT_CA"])
    ours = path.read_bytes()
    assert play(tls, shown(made(by=between)))[0] == [220, 250, 235, 221]
    for revoked_serial, taken in ((1, True), (serial, False)):
        path.write_bytes(ours + revoked(revoked_serial) + revoked(by=between))
        said, log, _ = play(tls, shown(made(by=between)))
        assert said == ([220, 250, 235, 221] if taken else []) and any("revoked" in line for line in log) is not taken


@pytest.mark.parametrize("before", [False, True], ids=["TLS behind XCLIENT", "TLS before XCLIENT"])
def test_h70_the_certificate_of_a_proxy_is_not_its_client_s(tls: dict[str, str], before: bool) -> None:
    del tls["TLS_IMMEDIATE"]
    context = shown(user_certificate("ann"))
    secure: list[Action] = [b"EHLO x\r\nSTARTTLS\r\n", WaitFor(b"220 2.0.0"), PeerTLS(context, "mx.example.org")]
    speak: list[Action] = [b"XCLIENT ADDR=203.0.113.5\r\n", WaitFor(b"220 mx")]
    front = Front("authenticate", "accept", credentials=ANN, env={**tls, "XCLIENT_HOSTS": "198.51.100.0/25"})
    script = [*secure, *speak] if before else [b"EHLO x\r\n", *speak, *secure]
    output = front.play([*script, EXTERNAL], all_read=False).output
    assert b"XCLIENT unknown" not in output and b"EXTERNAL" not in output and codes(output)[-2:] == [504, 221]
    assert "XCLIENT unknown [203.0.113.5]" in front.log
    assert ("TLS client certificate: ann" in front.log) is before


def test_hosts_of_their_own_ask_for_certificates_too(tls: dict[str, str], tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.mkdir()
    write_pem(hosts).rename(hosts / "mx.example.org.pem")
    assert play({**tls, "TLS_SNI_DIRECTORY": str(hosts)}, shown(user_certificate("ann")))[0] == [220, 250, 235, 221]
    forged = play({**tls, "TLS_SNI_DIRECTORY": str(hosts)}, shown(user_certificate("ann", trusted=False)))
    assert forged[2] == b""


def resume(
    context: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[Any, ssl.SSLObject]:
    """A handshake of the two in memory: what the server knows of the client, and the client."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = context.wrap_bio(to_client, to_server, server_hostname="mx.example.org", session=session)
    for _ in range(4):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    ours.write(b"x")  # behind the tickets
    assert theirs.read(1) == b"x"
    return ours.getpeercert(), theirs


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_h35_a_resumed_session_is_still_the_user_s(tls: dict[str, str], version: ssl.TLSVersion) -> None:
    """And another server, or one with other settings, does not resume it."""
    server, other = server_context(tls.get), server_context(tls.get)
    assert server is not None and other is not None
    context = shown(user_certificate("ann"))
    context.maximum_version = version
    first, client = resume(context, server, None)
    again, second = resume(context, server, client.session)
    assert second.session_reused and certificate_user(first) == certificate_user(again) == "ann"
    assert not resume(context, other, client.session)[1].session_reused


def test_h45_a_certificate_that_expires_between_two_handshakes_counts_no_more(tls: dict[str, str]) -> None:
    """OpenSSL resumes its session all the same."""
    now = datetime.datetime.now(datetime.UTC).timestamp()
    for days, code in ((0.5, 235), (1.5, 504)):
        front = Front("authenticate", "accept", credentials=ANN, env=tls)
        script: list[Action] = [PeerTLS(shown(made()), "mx.example.org"), EXTERNAL]
        output = front.play(script, clock=VirtualClock(now + days * 86_400), all_read=False).output
        assert codes(output) == [220, 250, code, 221] and (b"EXTERNAL" in output) is (code == 235)
        assert ("TLS client certificate: it has expired since it was shown" in front.log) is (code == 504)


NO_CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("content", [None, b"", b"nothing", NO_CERTIFICATE])
def test_a_file_that_holds_no_authority_is_named(tls: dict[str, str], content: bytes | None) -> None:
    path = Path(tls["TLS_CLIENT_CA"])
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(TLSSettingError, match=r"^\$TLS_CLIENT_CA: .*authority.pem .*: name a PEM file"):
        server_context(tls.get)


def test_a_file_of_revoked_certificates_alone_certifies_nobody(tls: dict[str, str]) -> None:
    Path(tls["TLS_CLIENT_CA"]).write_bytes(revoked(1))
    with pytest.raises(TLSSettingError, match=r"^\$TLS_CLIENT_CA: .*authority.pem holds no certificate, only lists"):
        server_context(tls.get)


# -- who logs in --------------------------------------------------------------------------------------------------


def test_the_store_says_who_that_is(tls: dict[str, str], tmp_path: Path) -> None:
    seen: list[Identity | None] = []

    class Look(Plugin):
        def sender(self, path: object) -> None:
            seen.append(self.session.identity)
            assert self.session.strings["auth_user"] == "ann" and self.session.numbers["auth_uid"] == 500

    database = UserDatabase(str(tmp_path / "users.sqlite"))
    database.create()
    database.add("ann", Secret(b"pencil"), mailbox="boxes/ann", uid=500, gid=501)
    say = b"EHLO x\r\nAUTH EXTERNAL =\r\nMAIL FROM:<a@b.example>\r\nQUIT\r\n"
    said, _, _ = play(tls, shown(user_certificate("ann")), say, SQLiteStore(database.path), Look)
    assert said == [220, 250, 235, 250, 221]
    assert seen == [Identity("ann", mailbox="boxes/ann", uid=500, gid=501)]


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (CVMResponse(Code.SUCCESS, ((Fact.USERNAME, b"ann"),)), 235),
        (CVMResponse(Code.REFUSED), 535),
        (CVMResponse(Code.IO), 454),
        (CVMResponse(Code.SUCCESS, ((Fact.USER_ID, b"0"),)), 535),
    ],
)
def test_modules_are_asked_without_a_password(tls: dict[str, str], response: CVMResponse, code: int) -> None:
    store = CVMStore("cvm-local:/run/cvm", lookups="cvm-local:/run/cvm")
    outside = Outside(peers={"/run/cvm": [response.encode(CVMRequest(b"x")), EOF]})
    said, _, _ = play(tls, shown(user_certificate("ann@example.org")), EXTERNAL, store, outside=outside)
    assert said == [220, 250, code, 221]


def test_a_store_that_cannot_look_up_offers_neither(tls: dict[str, str]) -> None:
    class PasswordsOnly(CredentialStore):
        mechanisms = ("PLAIN",)

    for store in (PasswordsOnly(), CVMStore("cvm-local:/run/cvm")):
        said, _, output = play({**tls, "AUTH_ANONYMOUS": "ann"}, shown(user_certificate("ann")), EXTERNAL, store)
        assert said == [220, 250, 504, 221] and b"EXTERNAL" not in output and b"ANONYMOUS" not in output


def test_a_store_that_cannot_say_is_a_temporary_failure(tls: dict[str, str]) -> None:
    class Broken(CredentialStore):
        mechanisms = ("EXTERNAL", "ANONYMOUS")

        async def look_up(self, name: str, asker: Asker = NOBODY) -> Identity | None:
            raise StoreUnavailable("not now")

    say = b"EHLO x\r\nAUTH EXTERNAL =\r\nAUTH ANONYMOUS =\r\nQUIT\r\n"
    said, log, _ = play({**tls, "AUTH_ANONYMOUS": "ann"}, shown(user_certificate("ann")), say, Broken())
    assert said == [220, 250, 454, 454, 221] and log.count("credential store: not now") == 2


def test_mechanisms_can_be_chosen(tls: dict[str, str]) -> None:
    for listed, code in (("PLAIN", 504), ("external:plain", 235)):
        assert play({**tls, "AUTH_MECHANISMS": listed}, shown(user_certificate("ann")))[0] == [220, 250, code, 221]


# -- nobody -------------------------------------------------------------------------------------------------------


def test_nobody_is_never_authenticated_whoever_says_so() -> None:
    """Not even a plugin's 235 makes an anonymous client one that may relay."""
    requests: list[Request] = []

    class Welcome(Plugin):
        def auth(self, request: Request) -> Response:
            requests.append(request)
            self.session.numbers["authenticated"] = 1
            return Response(235, "2.7.0 Welcome")

    class Look(Plugin):
        def sender(self, path: object) -> None:
            session = self.session
            seen.append((session.anonymous, session.authenticated, session.identity, session.getenv("USER")))

    seen: list[object] = []
    say = b"EHLO x\r\nAUTH ANONYMOUS YW5u\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
    for plugins, name in (((Look,), "ann"), ((Look, Welcome), "")):
        front = Front(
            "authenticate", *plugins, "accept-sender", "relayclient", credentials=ANN, env={"AUTH_ANONYMOUS": "ann"},
        )  # fmt: skip
        assert codes(front.say(say)) == [220, 250, 235, 250, 550]
        assert front.log[0] == f'SASL AUTH ANONYMOUS username={name} trace="ann"'
    assert len(requests) == 1 and seen == [(True, False, None, None)] * 2


def test_facts_of_a_session_without_a_name() -> None:
    session = Session(Connection(VirtualClock()), {}, print)
    public = Identity("public", uid=500, gid=500, directory="/home/public", mailbox="./Maildir")

    def state() -> tuple[bool, bool, Identity | None, str | None]:
        return session.anonymous, session.authenticated, session.identity, session.getenv("HOME")

    assert state() == (False, False, None, None)
    session.log_in_anonymously(public)
    assert state() == (True, False, public, "/home/public") and not session.strings
    session.log_in_anonymously(None)
    assert state() == (True, False, None, None) and session.numbers == {"anonymous": 1}
    session.log_in(public)
    assert state() == (False, True, public, "/home/public")
    session.log_out()
    assert state() == (False, False, None, None)


def test_the_longest_trace_is_one_line() -> None:
    for trace, code in (("x" * 255, 235), ("x" * 256, 501), ("\N{SNOWMAN}" * 255, 235), ('"' * 255, 235)):
        env = {"AUTH_ANONYMOUS": "ann", "AUTH_FAILURE_DELAY": "0"}
        front = Front("authenticate", "accept", credentials=ANN, env=env)
        line = b"AUTH ANONYMOUS " + base64.b64encode(trace.encode()) + b"\r\n"
        assert codes(front.say(b"EHLO x\r\n" + line)) == [220, 250, code]
        if code == 235:
            assert front.log[0] == 'SASL AUTH ANONYMOUS username=ann trace="' + trace.replace('"', "'") + '"'
