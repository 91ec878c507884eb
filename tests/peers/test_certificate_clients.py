"""Users who log in by their certificates, with tokens and as nobody, with clients that are not ours, against every
driver: curl and the libraries of Python in SMTP, POP3 and IMAP, msmtp and openssl's s_client in SMTP."""

import base64
import hashlib
import imaplib
import os
import poplib
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import client_context, write_authority, write_pem, write_user_pem
from tests.conformance.served import Served
from tests.peers.programs import program
from tests.serving import DRIVERS, SECONDS

pytestmark = pytest.mark.peer

TOKEN = "a-token"

SERVER = """
[server]
driver = "{driver}"

[settings]
tls_client_ca = "authority.pem"
auth_failure_delay = 0

[store.users]
kind = "passwd"
name = "users"
"""
LISTENER = """
[[listener]]
protocol = "{protocol}"
listen = ["127.0.0.1:0"]
tls = "{tls}"
certificate = "server.pem"
store = "users"
{words}
"""
WORDS = {
    "smtp": 'plugins = ["authenticate", "require-auth", "accept"]\nbackend = "discard"',
    "pop3": 'settings.maildir_root = "{boxes}"\nsettings.auth_anonymous = "public"',
    "imap": 'program = ["/bin/sh", "-c", "{script}"]',
}
# In place of an IMAP server: says who has logged in, and goodbye.
SCRIPT = (
    "printf '%s OK [CAPABILITY IMAP4rev1] %s\\\\r\\\\n' $IMAPLOGINTAG $AUTHENTICATED; "
    "while read -r tag word rest; do case $word in "
    "LOGOUT*) printf '* BYE bye\\\\r\\\\n%s OK done\\\\r\\\\n' $tag; exit;; "
    "*) printf '%s OK done\\\\r\\\\n' $tag;; esac; done"
)
PLACES = [(protocol, tls) for protocol in WORDS for tls in ("starttls", "implicit")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with certificates, the users ann, who has a token, and public, and a message for each of them."""
    place = tmp_path_factory.mktemp("server")
    write_pem(place)
    write_authority(place)
    write_user_pem(place, "ann")
    # Only root can be somebody else; nobody runs a program as root.
    uid, gid = (os.geteuid(), os.getegid()) if os.geteuid() else (65534, 65534)
    (place / "users").write_text(
        f"ann:{{PLAIN}}pencil:{uid}:{gid}\npublic:{{PLAIN}}x:{uid}:{gid}\n"
        f"ann:{{TOKEN-SHA256}}{hashlib.sha256(TOKEN.encode()).hexdigest()}:{uid}:{gid}\n"
    )
    for name in ("ann", "public"):
        for part in ("cur", "new", "tmp"):
            (place / "boxes" / name / part).mkdir(parents=True)
        (place / "boxes" / name / "cur" / "1.a").write_text(f"Subject: for {name}\n\nhello\n")
    (place / "message").write_text("Subject: x\r\n\r\nhello\r\n")
    return place


@pytest.fixture(scope="module", params=DRIVERS)
def server(request: pytest.FixtureRequest, place: Path) -> Iterator[Served]:
    """Listeners for all that `PLACES` names."""
    text = SERVER.format(driver=request.param)
    for protocol, tls in PLACES:
        words = WORDS[protocol].replace("{boxes}", str(place / "boxes")).replace("{script}", SCRIPT)
        text += LISTENER.format(protocol=protocol, tls=tls, words=words)
    (place / "mailfront.toml").write_text(text)
    with Served(place, ["-c", "mailfront.toml"]) as served:
        yield served
        served.signal()
        assert served.finish()[0] == 0


def address(server: Served, protocol: str, tls: str) -> tuple[str, int]:
    return server.addresses[PLACES.index((protocol, tls))]


def context(place: Path, shown: bool = True) -> ssl.SSLContext:
    made = client_context()
    made.check_hostname = False
    if shown:
        made.load_cert_chain(place / "user.pem")
    return made


def connect(server: Served, tls: str, context: ssl.SSLContext) -> tuple[poplib.POP3, imaplib.IMAP4]:
    """Clients of POP3 and IMAP, in TLS."""
    pop_at, imap_at = address(server, "pop3", tls), address(server, "imap", tls)
    if tls == "implicit":
        imap_in_tls = imaplib.IMAP4_SSL(*imap_at, timeout=SECONDS, ssl_context=context)
        return poplib.POP3_SSL(*pop_at, timeout=SECONDS, context=context), imap_in_tls
    pop, imap = poplib.POP3(*pop_at, timeout=SECONDS), imaplib.IMAP4(*imap_at, timeout=SECONDS)
    pop.stls(context)
    imap.starttls(context)
    return pop, imap


def test_libraries_of_python_by_external(server: Served, place: Path) -> None:
    with smtplib.SMTP(*address(server, "smtp", "starttls"), timeout=SECONDS) as smtp:
        smtp.starttls(context=context(place))
        smtp.ehlo()
        assert smtp.auth("EXTERNAL", lambda challenge=None: "", initial_response_ok=True)[0] == 235
        assert smtp.mail("a@b.example")[0] == 250
    with smtplib.SMTP_SSL(*address(server, "smtp", "implicit"), timeout=SECONDS, context=context(place)) as smtp:
        smtp.ehlo()
        assert smtp.auth("EXTERNAL", lambda challenge=None: "ann", initial_response_ok=False)[0] == 235
    with smtplib.SMTP_SSL(
        *address(server, "smtp", "implicit"), timeout=SECONDS, context=context(place, False)
    ) as smtp:
        smtp.ehlo()
        assert "EXTERNAL" not in smtp.esmtp_features["auth"].split()
        assert smtp.login("ann", "pencil")[0] == 235
    for tls in ("starttls", "implicit"):
        pop, imap = connect(server, tls, context(place))
        assert "EXTERNAL" in pop.capa()["SASL"]
        pop._shortcmd("AUTH EXTERNAL =")  # type: ignore[attr-defined]
        assert b"Subject: for ann" in pop.retr(1)[1]
        pop.quit()
        assert imap.authenticate("EXTERNAL", lambda challenge: b"")[0] == "OK"
        imap.logout()


def curl(place: Path, url: str, *words: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [program("curl"), "-sS", "--insecure", "--ssl-reqd", url, *words],
        capture_output=True, timeout=SECONDS, cwd=place,
    )  # fmt: skip


LOGINS = {
    "certificate": (["--cert", "user.pem", "--login-options", "AUTH=EXTERNAL", "--user", "ann:"], True),
    "certificate-ir": (["--cert", "user.pem", "--login-options", "AUTH=EXTERNAL", "--user", "ann:", "--sasl-ir"], True),
    "somebody-else": (["--cert", "user.pem", "--login-options", "AUTH=EXTERNAL", "--user", "bob:", "--sasl-ir"], False),
    "no-certificate": (["--login-options", "AUTH=EXTERNAL", "--user", "ann:", "--sasl-ir"], False),
    "oauthbearer": (["--oauth2-bearer", TOKEN, "--login-options", "AUTH=OAUTHBEARER", "--user", "ann"], True),
    "xoauth2": (["--oauth2-bearer", TOKEN, "--login-options", "AUTH=XOAUTH2", "--user", "ann", "--sasl-ir"], True),
    "wrong-token": (["--oauth2-bearer", "x", "--login-options", "AUTH=XOAUTH2", "--user", "ann"], False),
}


def test_curl(server: Served, place: Path) -> None:
    for protocol, tls in PLACES:
        host, port = address(server, protocol, tls)
        scheme = protocol + ("s" if tls == "implicit" else "")
        for name, (words, good) in LOGINS.items():
            if protocol == "smtp":
                words = [*words, "--mail-from", "a@b.example", "--mail-rcpt", "c@d.example", "-T", "message"]
            elif protocol == "imap":
                words = [*words, "--request", "NOOP"]
            path = "/1" if protocol == "pop3" else ""
            done = curl(place, f"{scheme}://{host}:{port}{path}", *words)
            assert (done.returncode == 0) is good, (protocol, tls, name, done.stderr)
            if protocol == "pop3" and good:
                assert done.stdout.startswith(b"Subject: for ann")


def test_msmtp(server: Served, place: Path) -> None:
    for tls in ("starttls", "implicit"):
        host, port = address(server, "smtp", tls)
        for words, code in (
            (["--auth=external", "--user=ann", "--tls-cert-file=user.pem", "--tls-key-file=user.pem"], 0),
            (["--auth=oauthbearer", "--user=ann", f"--passwordeval=echo {TOKEN}"], 0),
            (["--auth=xoauth2", "--user=ann", "--passwordeval=echo x"], 77),
        ):
            done = subprocess.run(
                [program("msmtp"), "--file=/dev/null", f"--host={host}", f"--port={port}", "--tls=on",
                 f"--tls-starttls={'on' if tls == 'starttls' else 'off'}", "--tls-certcheck=off",
                 "--from=a@b.example", *words, "c@d.example"],
                input=b"Subject: x\n\nhello\n", capture_output=True, timeout=SECONDS, cwd=place,
                env={"HOME": str(place)},
            )  # fmt: skip
            assert done.returncode == code, (tls, words, done.stderr)


def test_openssl(server: Served, place: Path) -> None:
    host, port = address(server, "smtp", "starttls")
    lines = b"AUTH EXTERNAL =\r\nMAIL FROM:<a@b.example>\r\nQUIT\r\n"
    for words, expected in ((["-cert", "user.pem", "-key", "user.pem"], b"235 2.7.0"), ([], b"504 5.5.4")):
        done = subprocess.run(
            [program("openssl"), "s_client", "-connect", f"{host}:{port}", "-starttls", "smtp", "-quiet", "-crlf",
             "-ign_eof", *words],
            input=b"EHLO x\n" + lines.replace(b"\r", b""), capture_output=True, timeout=SECONDS, cwd=place,
        )  # fmt: skip
        assert b"\n" + expected in done.stdout, (done.stdout, done.stderr)


def test_nobody_reads_what_is_for_all(server: Served) -> None:
    pop = poplib.POP3(*address(server, "pop3", "starttls"), timeout=SECONDS)
    assert pop.capa()["SASL"] == ["ANONYMOUS"]
    pop._shortcmd("AUTH ANONYMOUS " + base64.b64encode(b"me@example.org").decode())  # type: ignore[attr-defined]
    assert b"Subject: for public" in pop.retr(1)[1]
    pop.quit()
