"""Clients that are not ours into each of our drivers; what arrives is compared byte for byte."""

import base64
import os
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.peers.programs import program
from tests.serving import DRIVERS, MAILFRONT, SECONDS, environment, queue_directory, queued, serving

pytestmark = pytest.mark.peer

SENDER = "me@client.example"
TO = "demo@localhost"

MESSAGE = (
    b"From: <me@client.example>\r\nTo: <demo@localhost>\r\nSubject: x\r\n"
    b"Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@client.example>\r\n"
    b"\r\n.\r\n..\r\n.begins with a dot\r\n" + b"a long line " * 75 + b"\r\n"
    b"Gr\xc3\xbc\xc3\x9fe\r\n\r\nthe end\r\n"
)


@dataclass
class Target:
    """A server to send to: how it speaks TLS (``""``, ``starttls``, ``tls``), and who may."""

    host: str
    port: int
    scratch: Path
    tls: str = ""
    ca: Path = Path()
    user: str = ""
    password: str = ""
    letter: Path = field(init=False)
    expected: bytes = MESSAGE.replace(b"\r\n", b"\n")

    def __post_init__(self) -> None:
        self.letter = self.scratch / "letter"
        self.letter.write_bytes(MESSAGE)


def run(*command: object, stdin: bytes = b"") -> None:
    ran = subprocess.run(
        [str(word) for word in command], input=stdin, capture_output=True, env=environment(), timeout=SECONDS
    )
    assert ran.returncode == 0, (ran.stdout.decode("utf-8", "replace"), ran.stderr.decode("utf-8", "replace"))


# -- the clients ------------------------------------------------------------------------------------------


def swaks(target: Target) -> None:
    tls = {"": [], "starttls": ["--tls"], "tls": ["--tls-on-connect"]}[target.tls]
    verify = ["--tls-verify", "--tls-ca-path", target.ca] if tls else []
    auth = ["--auth", "PLAIN", "--auth-user", target.user, "--auth-password", target.password] if target.user else []
    target.letter.write_bytes(MESSAGE.removesuffix(b"\r\n"))  # it adds a line end whether there is one or not
    run(
        *(program("swaks"), "--server", f"{target.host}:{target.port}", "--helo", "client.example"),
        *("--from", SENDER, "--to", TO, *tls, *verify, *auth, "--data", f"@{target.letter}"),
    )


def curl(target: Target) -> None:
    tls = {"": [], "starttls": ["--ssl-reqd"], "tls": []}[target.tls]
    trust = ["--cacert", target.ca] if target.tls else []
    auth = ["--user", f"{target.user}:{target.password}"] if target.user else []
    scheme = "smtps" if target.tls == "tls" else "smtp"
    run(
        *(program("curl"), "--silent", "--show-error", "--disable", "--noproxy", "*", *tls, *trust, *auth),
        *("--mail-from", SENDER, "--mail-rcpt", TO, "--upload-file", target.letter),
        f"{scheme}://{target.host}:{target.port}",
    )


def msmtp(target: Target) -> None:
    tls = {"": ["--tls=off"], "starttls": ["--tls=on", "--tls-starttls=on"], "tls": ["--tls=on", "--tls-starttls=off"]}
    trust = [f"--tls-trust-file={target.ca}"] if target.tls else []
    auth = ["--auth=off"]
    if target.user:
        auth = ["--auth=login", f"--user={target.user}", f"--passwordeval=echo {target.password}"]
    run(
        *(program("msmtp"), "--file=/dev/null", f"--host={target.host}", f"--port={target.port}"),
        *("--domain=client.example", *tls[target.tls], *trust, *auth, f"--from={SENDER}", TO),
        stdin=MESSAGE.replace(b"\r\n", b"\n"),
    )


def python(target: Target) -> None:
    context = ssl.create_default_context(cafile=target.ca) if target.tls else None
    connection: smtplib.SMTP
    if target.tls == "tls":
        connection = smtplib.SMTP_SSL(target.host, target.port, "client.example", context=context, timeout=SECONDS)
    else:
        connection = smtplib.SMTP(target.host, target.port, "client.example", timeout=SECONDS)
    with connection:
        if target.tls == "starttls":
            connection.starttls(context=context)
        if target.user:
            connection.login(target.user, target.password)
        assert connection.sendmail(SENDER, [TO], MESSAGE, ["BODY=8BITMIME"]) == {}


def smtp_source(target: Target) -> None:
    target.letter.write_bytes(MESSAGE.replace(b"\r\n", b"\n"))
    target.expected += b"\n"  # it adds an empty line
    run(
        *(program("smtp-source"), "-M", "client.example", "-f", SENDER, "-t", TO, "-F", target.letter),
        f"inet:{target.host}:{target.port}",
    )


def s_client(target: Target) -> None:
    starttls = ["-starttls", "smtp", "-name", "client.example"] if target.tls == "starttls" else []
    command = [
        *(program("openssl"), "s_client", "-quiet", "-verify_return_error", "-CAfile", target.ca),
        *("-connect", f"{target.host}:{target.port}", *starttls),
    ]
    body = MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    with subprocess.Popen(
        [str(word) for word in command],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        dialogue = [b"", b"EHLO client.example\r\n", *_login(target), f"MAIL FROM:<{SENDER}>\r\n".encode()]
        dialogue += [f"RCPT TO:<{TO}>\r\n".encode(), b"DATA\r\n", body, b"QUIT\r\n"]
        if starttls:
            del dialogue[0]  # the greeting went to s_client
        try:
            for said in dialogue:
                process.stdin.write(said)
                process.stdin.flush()
                line = process.stdout.readline()
                while line[3:4] == b"-":
                    line = process.stdout.readline()
                assert line[:1] in (b"2", b"3"), (said, line)
            process.stdin.close()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


def _login(target: Target) -> list[bytes]:
    token = base64.b64encode(f"\0{target.user}\0{target.password}".encode())
    return [b"AUTH PLAIN " + token + b"\r\n"] if target.user else []


def ours(target: Target) -> None:
    tls = {"": ["--starttls", "none"], "starttls": ["--starttls"], "tls": ["--tls"]}[target.tls]
    trust = ["--ca", target.ca] if target.tls else []
    auth: list[object] = []
    if target.user:
        password = target.scratch / "password"
        password.write_text(target.password)
        auth = ["--user", target.user, "--password-file", password]
    run(
        *(MAILFRONT, "send", f"{target.host}:{target.port}", "--from", SENDER, "--to", TO, *tls, *trust, *auth),
        *("--message", target.letter),
    )


Client = Callable[[Target], None]
IN_CLEAR: Sequence[Client] = (swaks, curl, msmtp, python, smtp_source, ours)
IN_TLS: Sequence[Client] = (swaks, curl, msmtp, python, s_client, ours)


def named(clients: Sequence[Client]) -> list[object]:
    return [pytest.param(client, id=client.__name__) for client in clients]


# -- a line with queuedir, in clear -----------------------------------------------------------------------


@pytest.fixture(scope="module", params=DRIVERS)
def line(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The queue and port of a server without TLS."""
    directory = tmp_path_factory.mktemp("line")
    queue = queue_directory(directory)
    words = ["--driver", str(request.param), "smtp", "queuedir", "accept"]
    with serving(directory, *words, settings={"QUEUEDIR": queue}) as [(_, port)]:
        yield queue, port


@pytest.mark.parametrize("client", named(IN_CLEAR))
def test_in_clear(client: Client, line: tuple[Path, int], tmp_path: Path) -> None:
    queue, port = line
    target = Target("127.0.0.1", port, tmp_path)
    client(target)
    assert queued(queue) == [(SENDER, [TO], target.expected)]


def test_many_sessions_of_smtp_source(line: tuple[Path, int]) -> None:
    queue, port = line
    options = ["-s", "10", "-m", "200", "-r", "3", "-l", "20000", "-f", SENDER, "-t", TO]
    run(program("smtp-source"), *options, f"inet:127.0.0.1:{port}")
    messages = queued(queue)
    assert len(messages) == 200
    for sender, recipients, message in messages:
        assert (sender, len(recipients)) == (SENDER, 3)
        assert abs(len(message) - 20_000) < 1000


# -- the development server: STARTTLS, AUTH, implicit TLS, a maildir ---------------------------------------


@dataclass
class Development:
    """A running ``mailfront serve``."""

    data: Path
    smtp: int
    smtps: int
    submission: int

    def target(self, scratch: Path, tls: str, *, auth: bool) -> Target:
        port = {"tls": self.smtps, "starttls": self.submission if auth else self.smtp, "": self.smtp}[tls]
        target = Target("localhost", port, scratch, tls, self.data / "certificate.pem")
        if auth:
            target.user = "demo"
            target.password = (self.data / "demo-password").read_text().strip()
        return target

    def arrived(self) -> list[bytes]:
        """The messages in the maildir; away with them."""
        paths = sorted((self.data / "maildirs" / "demo" / "new").iterdir())
        messages = [path.read_bytes() for path in paths]
        for path in paths:
            path.unlink()
        return messages


@pytest.fixture(scope="module", params=DRIVERS)
def development(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Development]:
    directory = tmp_path_factory.mktemp("development")
    with serving(directory, "--driver", str(request.param), "--data", "data") as addresses:
        smtp, smtps, submission = [port for _, port in addresses][:3]
        yield Development(directory / "data", smtp, smtps, submission)


def deliver(client: Client, target: Target, development: Development, link: bytes) -> None:
    """Send; the message must arrive as it was, behind the fields that the server adds in front."""
    client(target)
    [message] = development.arrived()
    trace, found, rest = message.partition(b"From: ")
    assert found + rest == target.expected
    assert b"\n  with " + link + b" via TCP" in trace


@pytest.mark.parametrize("client", named(IN_CLEAR))
def test_mail_for_localhost(client: Client, development: Development, tmp_path: Path) -> None:
    target = development.target(tmp_path, "", auth=False)
    target.host = "127.0.0.1"
    deliver(client, target, development, b"SMTP" if client is smtp_source else b"ESMTP")


@pytest.mark.parametrize("client", named(IN_TLS))
def test_starttls(client: Client, development: Development, tmp_path: Path) -> None:
    deliver(client, development.target(tmp_path, "starttls", auth=False), development, b"ESMTPS")


@pytest.mark.parametrize("client", named(IN_TLS))
@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_auth(tls: str, client: Client, development: Development, tmp_path: Path) -> None:
    deliver(client, development.target(tmp_path, tls, auth=True), development, b"ESMTPSA")


@pytest.mark.parametrize("client", named([curl, ours]))
def test_a_wrong_password(client: Client, development: Development, tmp_path: Path) -> None:
    target = development.target(tmp_path, "starttls", auth=True)
    target.password = "wrong"
    with pytest.raises((AssertionError, smtplib.SMTPAuthenticationError)):
        client(target)
    assert development.arrived() == []


def test_files_are_private(development: Development) -> None:
    for directory, _, files in os.walk(development.data):
        assert Path(directory).stat().st_mode & 0o777 == 0o700
        for name in files:
            assert (Path(directory) / name).stat().st_mode & 0o777 == 0o600
