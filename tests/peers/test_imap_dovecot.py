"""Dovecot's imap behind our login: in clear, with STARTTLS and in TLS, by ``mailfront serve imap`` under every driver
and by ``imapfront-auth`` under tcpserver and tcpsvd. Clients are imaplib (SCRAM by scramp), curl, fetchmail, getmail,
and bytes sent in one segment."""

import base64
import imaplib
import os
import poplib
import re
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import scramp

from mailfront_io.auth.sqlite import UserDatabase
from mailfront_io.demo import DOVECOT_IMAP, make_certificate
from mailfront_io.tls import server_context, server_end_point
from mailfront_proto.secret import Secret
from tests.peers.programs import program
from tests.serving import DRIVERS, MAILFRONT, SECONDS, environment, serving
from tests.ucspi import UCSPI_SERVERS, ucspi

DOVECOT = next((path for path in DOVECOT_IMAP if os.access(path, os.X_OK)), None)

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(DOVECOT is None, reason="Dovecot's imap is not installed (make peers installs it)."),
]

PASSWORD = "pass word"
MESSAGE = b"From: a@b.example\r\nSubject: one\r\n\r\n.\r\nGr\xc3\xbc\xc3\x9fe\r\nthe end\r\n"
NOBODY = 65534

TLS = ("clear", "starttls", "tls")


@dataclass
class Server:
    """What is running: ports in clear (with STARTTLS) and in TLS; where joe's mail is."""

    port: int
    tls_port: int
    certificate: Path
    maildir: Path

    def fill(self) -> None:
        """One new message, and nothing else."""
        for part in ("cur", "new", "tmp"):
            for path in (self.maildir / part).iterdir():
                path.unlink()
        (self.maildir / "new" / "1700000001.M1.host").write_bytes(MESSAGE.replace(b"\r\n", b"\n"))
        (self.maildir / "new" / "1700000001.M1.host").chmod(0o666)

    def left(self) -> list[str]:
        """The message's file and flags."""
        return [str(p.relative_to(self.maildir)) for part in ("cur", "new") for p in (self.maildir / part).iterdir()]

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.certificate)


@pytest.fixture(scope="module", params=(*DRIVERS, *UCSPI_SERVERS))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with TemporaryDirectory() as name, ExitStack() as stack:
        place = Path(name)
        place.chmod(0o755)  # Dovecot's imap runs as another user if we are root: it serves no mail to root
        ids = NOBODY if os.geteuid() == 0 else None
        maildir = place / "boxes" / "joe"
        for part in ("cur", "new", "tmp", ""):
            (maildir / part).mkdir(parents=True, exist_ok=True)
            if ids is not None:
                os.chown(maildir / part, ids, ids)
        database = UserDatabase(str(place / "users.sqlite"))
        database.create()
        database.add("joe", Secret(PASSWORD.encode()), uid=ids, gid=ids)
        make_certificate(str(place / "certificate.pem"))
        settings: dict[str, object] = {
            "AUTH_STORE": f"sqlite:{database.path}",
            "AUTH_REQUIRES_TLS": 0,
            "AUTH_FAILURE_DELAY": 0,
            "MAILDIR_ROOT": place / "boxes",
            "SETUP_ENV": "dovecot",
            "TLS_CERTFILE": place / "certificate.pem",
        }
        ports = []
        for kind, more in (("clear", {}), ("tls", {"TLS_IMMEDIATE": ""})):
            (place / kind).mkdir()
            if request.param in DRIVERS:
                words = ["--driver", request.param, "imap", str(DOVECOT)]
                [(_, port)] = stack.enter_context(serving(place / kind, *words, settings={**settings, **more}))
            else:
                command = [str(MAILFRONT.with_name("imapfront-auth")), str(DOVECOT)]
                context = ucspi(request.param, place / kind, command, {**settings, **more})
                _, port = stack.enter_context(context)
            ports.append(port)
        yield Server(ports[0], ports[1], place / "certificate.pem", maildir)


def connect(server: Server, tls: str) -> imaplib.IMAP4:
    """imaplib, in front of the login."""
    if tls == "tls":
        return imaplib.IMAP4_SSL("localhost", server.tls_port, ssl_context=server.context, timeout=SECONDS)
    client = imaplib.IMAP4("localhost", server.port, timeout=SECONDS)
    if tls == "starttls":
        client.starttls(server.context)
    return client


def look(client: imaplib.IMAP4) -> None:
    """Behind the login: fetch the message, and mark it."""
    assert client.select() == ("OK", [b"1"])
    kind, [(_, text), _] = client.fetch("1", "(BODY.PEEK[])")  # type: ignore[misc]
    assert (kind, text) == ("OK", MESSAGE)
    assert client.store("1", "+FLAGS", r"(\Flagged)")[0] == "OK"
    assert client.logout()[0] == "BYE"


@pytest.mark.parametrize("tls", TLS)
def test_imaplib(server: Server, tls: str) -> None:
    server.fill()
    client = connect(server, tls)
    with pytest.raises(imaplib.IMAP4.error, match="LOGIN failed"):
        client.login("joe", '"wrong"')
    client.login("joe", PASSWORD)
    look(client)
    assert server.left() == ["cur/1700000001.M1.host:2,F"]


@pytest.mark.parametrize(("tls", "plus"), [("clear", ""), ("starttls", "-PLUS"), ("tls", "-PLUS")])
def test_scram_by_scramp(server: Server, tls: str, plus: str) -> None:
    server.fill()
    context = server_context({"TLS_CERTFILE": str(server.certificate)}.get)
    binding = ("tls-server-end-point", server_end_point(context)) if plus else None
    name = f"SCRAM-SHA-256{plus}"
    for password in ("wrong", PASSWORD):
        scram = scramp.ScramClient([name], "joe", password, channel_binding=binding)
        client = connect(server, tls)
        assert f"AUTH={name}" in client.capabilities

        if password == "wrong":
            with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATE failed"):
                client.authenticate(name, partial(answer, scram))
            client.shutdown()
        else:
            client.authenticate(name, partial(answer, scram))
            look(client)


def answer(scram: scramp.ScramClient, challenge: bytes) -> bytes:
    """What the client says next."""
    if not challenge:
        return str(scram.get_client_first()).encode()
    if challenge.startswith(b"v="):
        scram.set_server_final(challenge.decode())
        return b""
    scram.set_server_first(challenge.decode())
    return str(scram.get_client_final()).encode()


@pytest.mark.parametrize("tls", TLS)
def test_curl(server: Server, tls: str) -> None:
    server.fill()
    scheme, port = ("imaps", server.tls_port) if tls == "tls" else ("imap", server.port)
    for password, code, output in (("wrong", 67, b""), (PASSWORD, 0, MESSAGE)):
        done = subprocess.run(
            [
                *(program("curl"), "--silent", "--show-error", "--disable", "--noproxy", "*"),
                *("--cacert", server.certificate, "--user", f"joe:{password}"),
                *(["--ssl-reqd"] if tls == "starttls" else []),
                f"{scheme}://localhost:{port}/INBOX;MAILINDEX=1",
            ],
            capture_output=True,
            env=environment(),
            timeout=SECONDS,
        )
        assert (done.returncode, done.stdout) == (code, output), done.stderr


@pytest.mark.parametrize("tls", TLS)
def test_fetchmail(server: Server, tls: str, tmp_path: Path) -> None:
    server.fill()
    secure = {"clear": "sslproto ''", "starttls": "sslproto TLS1.2+", "tls": "ssl"}[tls]
    trust = f"sslcertck sslcertfile '{server.certificate}'" if tls != "clear" else ""
    config = tmp_path / "fetchmailrc"
    config.write_text(
        f"set no spambounce\npoll localhost protocol imap service {server.tls_port if tls == 'tls' else server.port} "
        f"user joe password '{PASSWORD}' {secure} {trust} no rewrite no keep fetchall mda 'cat >{tmp_path}/message'\n"
    )
    config.chmod(0o600)
    done = subprocess.run(
        [
            *(program("fetchmail"), "--fetchmailrc", config, "--pidfile", tmp_path / "pid", "--invisible"),
            *("--idfile", tmp_path / "ids", "--nosyslog"),
        ],
        capture_output=True,
        env=environment(FETCHMAILHOME=tmp_path),
        timeout=SECONDS,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert (tmp_path / "message").read_bytes() == MESSAGE.replace(b"\r\n", b"\n")
    assert server.left() == []


@pytest.mark.parametrize("tls", ["clear", "tls"])  # it has no STARTTLS
def test_getmail(server: Server, tls: str, tmp_path: Path) -> None:
    server.fill()
    deliver = tmp_path / "deliver"
    deliver.write_text(f"#!/bin/sh\nexec cat >{tmp_path}/message\n")
    deliver.chmod(0o700)
    config = tmp_path / "getmailrc"
    kind, port = ("IMAPSSL", server.tls_port) if tls == "tls" else ("IMAP", server.port)
    trust = f"ca_certs = {server.certificate}\n" if tls == "tls" else ""
    config.write_text(
        f"[retriever]\ntype = Simple{kind}Retriever\nserver = localhost\nport = {port}\nusername = joe\n"
        f"password = {PASSWORD}\nmailboxes = ('INBOX',)\n{trust}[destination]\ntype = MDA_external\n"
        f"path = {deliver}\nallow_root_commands = true\n"
        "[options]\ndelete = true\ndelivered_to = false\nreceived = false\n"
    )
    config.chmod(0o600)
    done = subprocess.run(
        [program("getmail"), "--getmaildir", tmp_path, "--rcfile", config, "--quiet"],
        capture_output=True,
        env=environment(HOME=tmp_path),
        timeout=SECONDS,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    added = rb"Return-Path: <unknown>\n|X-getmail-retrieved-from-mailbox: INBOX\n"
    assert re.sub(added, b"", (tmp_path / "message").read_bytes()) == MESSAGE.replace(b"\r\n", b"\n")
    assert server.left() == []


@pytest.mark.parametrize("tls", TLS)
def test_what_comes_behind_the_login_in_one_segment(server: Server, tls: str) -> None:
    server.fill()
    plain = base64.b64encode(b"\0joe\0" + PASSWORD.encode())
    connection = socket.create_connection(("localhost", server.tls_port if tls == "tls" else server.port), SECONDS)
    if tls == "starttls":
        assert connection.recv(65536).startswith(b"* OK ")
        connection.sendall(b"s STARTTLS\r\n")
        assert connection.recv(65536).startswith(b"s OK ")
    if tls != "clear":
        connection = server.context.wrap_socket(connection, server_hostname="localhost")
    with connection:
        connection.sendall(
            b"a AUTHENTICATE PLAIN " + plain + b"\r\nb SELECT INBOX\r\nc FETCH 1 BODY[]\r\nd LOGOUT\r\n"
        )
        received = b""
        while data := connection.recv(65536):
            received += data
    lines = received.split(b"\r\n")
    tagged = [line[:4] for line in lines if line[:2] in (b"a ", b"b ", b"c ", b"d ")]
    assert tagged == [b"a OK", b"b OK", b"c OK", b"d OK"]
    assert MESSAGE in received
    assert server.left() == ["cur/1700000001.M1.host:2,S"]


# -- the development server -------------------------------------------------------------------------------

_OTHER_USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]


def test_what_was_sent_by_smtp_is_fetched_over_pop3_and_imap(tmp_path: Path) -> None:
    prefix: list[str] = []
    if os.geteuid() == 0:  # to Dovecot we are somebody else then
        if subprocess.run([*_OTHER_USER, "true"], capture_output=True).returncode:
            pytest.skip("Dovecot's imap serves no mail to root, and this system lets nobody be another user.")
        prefix = _OTHER_USER
    with serving(tmp_path, "--data", "data", prefix=prefix) as addresses:
        ports = [port for _, port in addresses]
        with smtplib.SMTP("127.0.0.1", ports[0], timeout=SECONDS) as smtp:
            smtp.sendmail("a@b.example", ["demo@localhost"], MESSAGE, ["BODY=8BITMIME"])
        context = ssl.create_default_context(cafile=tmp_path / "data" / "certificate.pem")
        password = (tmp_path / "data" / "demo-password").read_text().strip()
        with closing(poplib.POP3_SSL("localhost", ports[6], context=context, timeout=SECONDS)) as pop3:
            pop3.user("demo")
            pop3.pass_(password)
            by_pop3 = b"".join(line + b"\r\n" for line in pop3.retr(1)[1])
        found = []
        imap: imaplib.IMAP4
        for tls in (False, True):
            if tls:
                imap = imaplib.IMAP4_SSL("localhost", ports[8], ssl_context=context, timeout=SECONDS)
            else:
                imap = imaplib.IMAP4("localhost", ports[7], timeout=SECONDS)
                imap.starttls(context)
            imap.login("demo", password)
            assert imap.select() == ("OK", [b"1"])
            found.append(imap.fetch("1", "(BODY[])")[1][0][1])  # type: ignore[index]
            imap.logout()
        assert found == [by_pop3, by_pop3]
        assert by_pop3.endswith(MESSAGE)


def test_a_sentence_says_what_is_missing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("Only root has no IMAP here.")
    with serving(tmp_path, "--data", "data") as addresses:
        with socket.create_connection(addresses[7], SECONDS) as connection:
            said = connection.makefile("rb").read()
        assert said == b"* BYE Dovecot's imap serves no mail to root: start mailfront as another user\r\n"
