"""POP3 clients that are not ours against each of our drivers: in clear, with STLS, in TLS from the start. What they
fetch is compared byte for byte, and so is what is left of the maildir."""

import base64
import poplib
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import scramp

from mailfront_io.demo import make_certificate
from mailfront_io.tls import server_context, server_end_point
from tests.peers.programs import program
from tests.serving import SECONDS, environment, serving

pytestmark = pytest.mark.peer

PASSWORD = "pass word"
MESSAGES = (
    b"From: a@b.example\nSubject: one\n\n.\n..\n.begins with a dot\nthe end\n",
    b"From: a@b.example\nSubject: two\n\n" + (b"x" * 76 + b"\n") * 3000 + b"\n\n",
    b"From: a@b.example\nSubject: three\n\nGr\xc3\xbc\xc3\x9fe\n",
)

RUNNING = {
    "asyncio": ["--driver", "asyncio", "--loop", "asyncio"],
    "uvloop": ["--driver", "asyncio", "--loop", "uvloop"],
    "trio": ["--driver", "trio"],
    "threads": ["--driver", "blocking"],
    "fork": ["--driver", "fork"],
}
TLS = ("", "stls", "tls")


@dataclass
class Server:
    """A running server: its ports in clear (with STLS) and in TLS, and where joe's mail is."""

    port: int
    tls_port: int
    certificate: Path
    maildir: Path

    def fill(self) -> None:
        """Three new messages, and nothing else."""
        for part in ("cur", "new", "tmp"):
            (self.maildir / part).mkdir(parents=True, exist_ok=True)
            for path in (self.maildir / part).iterdir():
                path.unlink()
        for number, message in enumerate(MESSAGES, 1):
            (self.maildir / "new" / f"170000000{number}.M{number}.host").write_bytes(message)

    def left(self) -> list[str]:
        return sorted(str(p.relative_to(self.maildir)) for p in self.maildir.rglob("*") if p.is_file())


@dataclass
class Fetch:
    """What a client is to do: fetch all, and delete it. `tls`: one of `TLS`."""

    server: Server
    tls: str
    scratch: Path
    password: str = PASSWORD

    @property
    def port(self) -> int:
        return self.server.tls_port if self.tls == "tls" else self.server.port


@pytest.fixture(scope="module", params=RUNNING)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp(request.param)
    certificate = place / "certificate.pem"
    make_certificate(str(certificate))
    (place / "users").write_text(f"joe:{PASSWORD}\n")
    settings = {
        "AUTH_STORE": f"static:{place / 'users'}",
        "AUTH_REQUIRES_TLS": 0,
        "AUTH_FAILURE_DELAY": 0,
        "MAILDIR_ROOT": place / "boxes",
        "TLS_CERTFILE": certificate,
    }
    words = [*RUNNING[request.param], "pop3", "maildir"]
    for name in ("clear", "tls"):
        (place / name).mkdir()
    with (
        serving(place / "clear", *words, settings=settings) as [(_, port)],
        serving(place / "tls", *words, settings={**settings, "TLS_IMMEDIATE": ""}) as [(_, tls_port)],
    ):
        yield Server(port, tls_port, certificate, place / "boxes" / "joe")


def run(*command: object, code: int = 0, **settings: object) -> bytes:
    ran = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**environment(), **{name: str(value) for name, value in settings.items()}},
        timeout=SECONDS,
    )
    assert ran.returncode == code, (ran.stdout.decode("utf-8", "replace"), ran.stderr.decode("utf-8", "replace"))
    return ran.stdout


# -- the clients ------------------------------------------------------------------------------------------


def curl(fetch: Fetch) -> list[bytes]:
    secure = {"": [], "stls": ["--ssl-reqd"], "tls": []}[fetch.tls]
    scheme = "pop3s" if fetch.tls == "tls" else "pop3"
    base = [
        *(program("curl"), "--silent", "--show-error", "--disable", "--noproxy", "*", *secure),
        *("--cacert", fetch.server.certificate, "--user", f"joe:{fetch.password}"),
    ]
    url = f"{scheme}://localhost:{fetch.port}"
    numbers = [line.split()[0].decode() for line in run(*base, f"{url}/").splitlines()]
    found = [run(*base, f"{url}/{number}").replace(b"\r\n", b"\n") for number in numbers]
    for number in reversed(numbers):
        run(*base, "--request", "DELE", "--head", f"{url}/{number}")
    return found


def python(fetch: Fetch) -> list[bytes]:
    context = ssl.create_default_context(cafile=fetch.server.certificate)
    client: poplib.POP3
    if fetch.tls == "tls":
        client = poplib.POP3_SSL("localhost", fetch.port, context=context, timeout=SECONDS)
    else:
        client = poplib.POP3("localhost", fetch.port, timeout=SECONDS)
    with closing(client):
        if fetch.tls == "stls":
            client.stls(context)
        client.user("joe")
        client.pass_(fetch.password)
        return dialogue(client)


def dialogue(client: poplib.POP3) -> list[bytes]:
    assert "UIDL" in client.capa()
    count, octets = client.stat()
    assert octets == sum(map(len, MESSAGES))
    assert [line.split()[1] for line in client.uidl()[1]] == [b"170000000%d.M%d.host" % (n, n) for n in (1, 2, 3)]
    assert client.top(1, 1)[1] == [b"From: a@b.example", b"Subject: one", b"", b"."]
    found = []
    for number in range(1, count + 1):
        found.append(b"".join(line + b"\n" for line in client.retr(number)[1]))
        client.dele(number)
    client.rset()
    assert client.stat()[0] == count
    for number in range(1, count + 1):
        client.dele(number)
    client.quit()
    return found


def delivery_agent(fetch: Fetch) -> Path:
    """A program that writes its input into a file of its own."""
    deliver = fetch.scratch / "deliver"
    deliver.write_text(f"#!/bin/sh\nexec cat >{fetch.scratch}/message.$$\n")
    deliver.chmod(0o700)
    return deliver


def getmail(fetch: Fetch) -> list[bytes]:
    kind = "SimplePOP3SSLRetriever" if fetch.tls == "tls" else "SimplePOP3Retriever"
    trust = f"ca_certs = {fetch.server.certificate}\n" if fetch.tls == "tls" else ""
    config = fetch.scratch / "getmailrc"
    config.write_text(
        f"[retriever]\ntype = {kind}\nserver = localhost\nport = {fetch.port}\nusername = joe\n"
        f"password = {fetch.password}\n{trust}[destination]\ntype = MDA_external\npath = {delivery_agent(fetch)}\n"
        "allow_root_commands = true\n"
        "[options]\ndelete = true\ndelivered_to = false\nreceived = false\n"
    )
    config.chmod(0o600)
    run(program("getmail"), "--getmaildir", fetch.scratch, "--rcfile", config, "--quiet", HOME=fetch.scratch)
    field = b"Return-Path: <unknown>\n"  # it adds one
    return [path.read_bytes().removeprefix(field) for path in fetch.scratch.glob("message.*")]


def mpop(fetch: Fetch) -> list[bytes]:
    target = fetch.scratch / "mail"
    for part in ("cur", "new", "tmp"):
        (target / part).mkdir(parents=True)
    secure = {"": ["--tls=off"], "stls": ["--tls=on", "--tls-starttls=on"], "tls": ["--tls=on", "--tls-starttls=off"]}
    trust = [f"--tls-trust-file={fetch.server.certificate}"] if fetch.tls else []
    run(
        *(program("mpop"), "--file=/dev/null", "--host=localhost", f"--port={fetch.port}", *secure[fetch.tls], *trust),
        *("--auth=plain" if fetch.tls else "--auth=user", "--user=joe", f"--passwordeval=echo '{fetch.password}'"),
        *("--keep=off", "--received-header=off", f"--uidls-file={fetch.scratch / 'uidls'}"),
        f"--delivery=maildir,{target}",
        HOME=fetch.scratch,
    )
    return [path.read_bytes() for path in (target / "new").iterdir()]


def fetchmail(fetch: Fetch) -> list[bytes]:
    config = fetch.scratch / "fetchmailrc"
    secure = {"": "sslproto ''", "stls": "sslproto TLS1.2+", "tls": "ssl"}[fetch.tls]
    trust = f"sslcertck sslcertfile '{fetch.server.certificate}'" if fetch.tls else ""
    config.write_text(
        f"set no spambounce\npoll localhost protocol pop3 service {fetch.port} user joe password '{fetch.password}' "
        f"{secure} {trust} no rewrite no keep fetchall mda {delivery_agent(fetch)}\n"
    )
    config.chmod(0o600)
    run(
        *(program("fetchmail"), "--fetchmailrc", config, "--pidfile", fetch.scratch / "pid", "--invisible"),
        *("--idfile", fetch.scratch / "ids", "--nosyslog"),
        HOME=fetch.scratch,
        FETCHMAILHOME=fetch.scratch,
    )
    return [path.read_bytes() for path in fetch.scratch.glob("message.*")]


Client = Callable[[Fetch], list[bytes]]
CLIENTS: tuple[Client, ...] = (curl, python, getmail, mpop, fetchmail)
CASES = [
    pytest.param(client, tls, id=f"{client.__name__}-{tls or 'clear'}")
    for client in CLIENTS
    for tls in TLS
    if (client, tls) != (getmail, "stls")  # it cannot
]


@pytest.mark.parametrize(("client", "tls"), CASES)
def test_all_is_fetched_and_deleted(client: Client, tls: str, server: Server, tmp_path: Path) -> None:
    server.fill()
    fetched = client(Fetch(server, tls, tmp_path))
    assert sorted(fetched) == sorted(MESSAGES)
    assert server.left() == []


@pytest.mark.parametrize("tls", TLS)
def test_a_wrong_password(tls: str, server: Server, tmp_path: Path) -> None:
    server.fill()
    before = server.left()
    with pytest.raises((poplib.error_proto, AssertionError)):
        python(Fetch(server, tls, tmp_path, "wrong"))
    assert server.left() == before


def test_what_is_read_is_marked(server: Server) -> None:
    server.fill()
    client = poplib.POP3("localhost", server.port, timeout=SECONDS)
    client.user("joe")
    client.pass_(PASSWORD)
    client.retr(2)
    client.quit()
    assert server.left() == ["cur/1700000001.M1.host", "cur/1700000002.M2.host:2,S", "cur/1700000003.M3.host"]


def test_a_maildir_that_cannot_be_opened(server: Server) -> None:
    """The protocol's own error, and the session goes on; afterwards so does the mailbox."""
    server.fill()
    before = server.left()
    (server.maildir / "new").rename(server.maildir / "away")
    client = poplib.POP3("localhost", server.port, timeout=SECONDS)
    for _ in range(2):
        client.user("joe")
        with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/PERM\] Could not access maildir"):
            client.pass_(PASSWORD)
    (server.maildir / "away").rename(server.maildir / "new")
    client.user("joe")
    client.pass_(PASSWORD)
    assert client.stat()[0] == len(MESSAGES)
    client.close()
    assert server.left() == before


# -- the development server -------------------------------------------------------------------------------


@pytest.mark.parametrize("running", RUNNING)
def test_what_was_sent_by_smtp_is_fetched_over_pop3(running: str, tmp_path: Path) -> None:
    words = [*RUNNING[running], "--data", "data"]
    with serving(tmp_path, *words) as addresses:
        ports = [port for _, port in addresses]
        with smtplib.SMTP("127.0.0.1", ports[0], timeout=SECONDS) as smtp:
            for message in MESSAGES:
                smtp.sendmail("a@b.example", ["demo@localhost"], message.replace(b"\n", b"\r\n"), ["BODY=8BITMIME"])
        context = ssl.create_default_context(cafile=tmp_path / "data" / "certificate.pem")
        password = (tmp_path / "data" / "demo-password").read_text().strip()
        pop3, pop3s = ports[5:7]
        with closing(poplib.POP3("localhost", pop3, timeout=SECONDS)) as client:
            with pytest.raises(poplib.error_proto):  # not in clear
                client.user("demo")
            client.stls(context)
            client.user("demo")
            client.pass_(password)
            found = [b"".join(line + b"\n" for line in client.retr(number)[1]) for number in (1, 2, 3)]
            client.quit()
        assert [message[-len(expected) :] for message, expected in zip(found, MESSAGES, strict=True)] == [*MESSAGES]
        with closing(poplib.POP3_SSL("localhost", pop3s, context=context, timeout=SECONDS)) as client:
            client.user("demo")
            client.pass_(password)
            assert client.stat() == (3, sum(len(message) + message.count(b"\n") for message in found))
            client.quit()
        binding = server_end_point(server_context({"TLS_CERTFILE": str(tmp_path / "data" / "certificate.pem")}.get))
        for name, tls in (("SCRAM-SHA-256", False), ("SCRAM-SHA-256-PLUS", True)):
            for right in (False, True):
                bound = ("tls-server-end-point", binding) if tls else None
                scram = scramp.ScramClient([name], "demo", password if right else "wrong", channel_binding=bound)
                with closing(poplib.POP3("localhost", pop3, timeout=SECONDS)) as client:
                    if tls:
                        client.stls(context)
                    if right:
                        log_in_by(scram, name, client)
                        assert client.stat()[0] == 3
                    else:
                        with pytest.raises(poplib.error_proto, match="Authentication failed"):
                            log_in_by(scram, name, client)


def log_in_by(scram: scramp.ScramClient, name: str, client: poplib.POP3) -> None:
    """The exchange, as RFC 5034 carries it."""

    def say(command: str, message: str) -> str:
        line: bytes = client._shortcmd(command + base64.b64encode(message.encode()).decode())  # type: ignore[attr-defined]
        return base64.b64decode(line.removeprefix(b"+").strip()).decode() if line.startswith(b"+ ") else ""

    scram.set_server_first(say(f"AUTH {name} ", scram.get_client_first()))
    scram.set_server_final(say("", scram.get_client_final()))
    say("", "")
