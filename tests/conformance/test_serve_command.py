"""``mailfront serve``: listening, stopping, refusing, and the demonstration server."""

import base64
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mailfront_io import server
from mailfront_io.admission import Admission, Limits
from mailfront_io.server import parse_address
from mailfront_io.settings import ConfigurationError
from tests.conformance.served import PROGRAM, Client, Served

DRIVERS = {
    "asyncio": ["--driver", "asyncio", "--loop", "asyncio"],
    "uvloop": ["--driver", "asyncio", "--loop", "uvloop"],
    "trio": ["--driver", "trio"],
    "blocking": ["--driver", "blocking"],
    "fork": ["--driver", "fork"],
}
ANY = ["--listen", "127.0.0.1:0"]
TO_DATA = ("EHLO x", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA")


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> list[str]:
    return DRIVERS[request.param]


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    for name in ("tmp", "new"):
        (tmp_path / "queue" / name).mkdir(parents=True)
    return tmp_path / "queue"


def in_data(client: Client) -> None:
    assert client.reply().startswith("220 ")
    assert [reply[:3] for reply in client.say(*TO_DATA)] == ["250", "250", "250", "354"]


def stored(queue: Path) -> list[bytes]:
    assert list((queue / "tmp").iterdir()) == []
    return [path.read_bytes() for path in (queue / "new").iterdir()]


# -- stopping --------------------------------------------------------------------------------------------


def test_sigterm_lets_a_message_be_finished(driver: list[str], tmp_path: Path, queue: Path) -> None:
    words = [*driver, *ANY, "smtp", "queuedir", "accept"]
    with Served(tmp_path, words, {"QUEUEDIR": str(queue)}) as served:
        assert re.fullmatch(r"127\.0\.0\.1:[0-9]+\n", served.port_file.read_text())
        assert [p.name for p in tmp_path.glob("ports*")] == ["ports"]
        with served.client() as idle, served.client() as busy:
            assert idle.reply() == "220 mx.example.org mailfront ESMTP"
            idle.say("EHLO x")
            in_data(busy)
            served.signal()
            assert idle.reply() == "421 4.3.2 The server is shutting down, closing connection"
            assert idle.reply() == ""
            assert served.is_deaf()
            busy.socket.sendall(b"Subject: the last one\r\n.\r\n")
            assert re.fullmatch(r"250 2\.6\.0 Message accepted, id [0-9a-f]+-[0-9a-f]+\.", busy.reply())
            assert busy.reply() == "421 4.3.2 The server is shutting down, closing connection"
            assert busy.reply() == ""
        code, out, err = served.finish()
    assert (code, out) == (0, "")
    assert "Traceback" not in err
    assert stored(queue) == [b"a@example.net\0b@example.org\0\0Subject: the last one\n"]


def test_a_second_signal_ends_it_at_once(driver: list[str], tmp_path: Path, queue: Path) -> None:
    words = [*driver, *ANY, "smtp", "queuedir", "accept"]
    with Served(tmp_path, words, {"QUEUEDIR": str(queue)}) as served:
        with served.client() as busy:
            in_data(busy)
            served.signal(signal.SIGINT)
            assert served.is_deaf()
            served.signal(signal.SIGINT)
            assert busy.reply() == ""
        code, out, err = served.finish()
    assert (code, out, stored(queue)) == (0, "", [])
    assert "Traceback" not in err


def test_the_grace_period_ends(driver: list[str], tmp_path: Path, queue: Path) -> None:
    words = [*driver, *ANY, "--grace", "0.1", "smtp", "queuedir", "accept"]
    with Served(tmp_path, words, {"QUEUEDIR": str(queue)}) as served:
        with served.client() as busy:
            in_data(busy)
            served.signal()
            assert busy.reply() == ""
        code, _, err = served.finish()
    assert (code, stored(queue)) == (0, [])
    assert "Traceback" not in err


# -- connection limits -----------------------------------------------------------------------------------


def test_h22_connections_in_all(driver: list[str], tmp_path: Path) -> None:
    words = [*driver, *ANY, "--max-connections", "2", "smtp", "echo", "accept"]
    with Served(tmp_path, words) as served:
        with served.client() as one, served.client() as two:
            assert one.reply()[:3] == two.reply()[:3] == "220"
            with served.client() as three:
                assert three.reply() == "421 4.7.0 Too many connections, try again later"
                assert three.reply() == ""
            assert one.say("QUIT") == ["221 2.0.0 Good bye."]
            assert one.reply() == ""
        assert admitted_again(served)
        served.signal()
        code, _, err = served.finish()
    assert code == 0
    assert err.count("Refused a connection from 127.0.0.1: 2 connections are open") >= 1


def admitted_again(served: Served) -> bool:
    """The place of a session that has ended is free, soon."""
    for _ in range(200):
        with served.client() as client:
            if client.reply().startswith("220 "):
                return True
    return False


def own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback's, which is exempt")
        host: str = probe.getsockname()[0]
    if host.startswith("127."):
        pytest.skip("this machine has no address but loopback's, which is exempt")
    return host


def test_h23_connections_of_one_client(driver: list[str], tmp_path: Path) -> None:
    host = own_address()
    words = [*driver, "--listen", f"{host}:0", "--max-per-client", "1", "smtp", "echo", "accept"]
    with Served(tmp_path, words) as served:
        with served.client() as one, served.client() as two:
            assert one.reply().startswith("220 ")
            assert two.reply() == "421 4.7.0 Too many connections from your network, try again later"
            assert one.say("QUIT") == ["221 2.0.0 Good bye."]
        assert admitted_again(served)


def test_h23_loopback_is_exempt(tmp_path: Path) -> None:
    words = [*ANY, "--max-per-client", "1", "smtp", "echo", "accept"]
    with Served(tmp_path, words) as served, served.client() as one, served.client() as two:
        assert one.reply()[:3] == two.reply()[:3] == "220"


def test_h23_a_client_is_an_ipv4_address_or_an_ipv6_network() -> None:
    log: list[str] = []
    admission = Admission(log.append, Limits(100, 2))

    def admits(host: str) -> bool:
        return admission.admit((host, 1)) is None

    assert admits("2001:db8:0:1::1") and admits("2001:db8:0:1:ffff::2")
    assert not admits("2001:db8:0:1::3")
    assert admits("2001:db8:0:2::1")
    assert admits("192.0.2.1") and admits("192.0.2.1") and admits("192.0.2.2")
    assert admission.admit(("192.0.2.1", 2)) == (
        b"421 4.7.0 Too many connections from your network, try again later\r\n"
    )
    assert log[0] == "Refused a connection from 2001:db8:0:1::3: 2001:db8:0:1::/64 has 2 open"
    admission.release(("2001:db8:0:1::9", 3))
    assert admits("2001:db8:0:1::4") and not admits("2001:db8:0:1::4")
    assert admits("fe80::1%eth0") and admits("fe80::2%eth1") and not admits("fe80::3")
    assert all(admits(host) for host in ("127.0.0.1", "127.1.2.3", "::1") * 5)


def test_h22_what_was_refused_or_has_ended_is_not_counted() -> None:
    admission = Admission(lambda line: None, Limits(2, 5))
    for _ in range(3):
        assert admission.admit(("192.0.2.1", 1)) is None and admission.admit(None) is None
        assert admission.admit(("192.0.2.2", 1)) == b"421 4.7.0 Too many connections, try again later\r\n"
        admission.release(("192.0.2.1", 1))
        admission.release(None)


# -- configuration ---------------------------------------------------------------------------------------


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence that a start with `words` ends with."""
    assert server.main(words) == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mailfront serve: ") and err.endswith("\n") and err.count("\n") == 1
    return err.removeprefix("mailfront serve: ").rstrip("\n")


# arguments, environment, what the sentence names
REFUSED = {
    "no number": (["smtp", "echo", "counters"], {"DATABYTES": "x"}, "$DATABYTES is 'x'"),
    "no profile": (["smtp", "echo"], {"MAILFRONT_PROFILE": "strict"}, "$MAILFRONT_PROFILE is 'strict'"),
    "no policy": (["smtp", "echo"], {"BARE_LINE_ENDS": "keep"}, "$BARE_LINE_ENDS is 'keep'"),
    "no protocol": (["pop4", "echo"], {}, "'pop4'"),
    "no backend": (["smtp", "nosuch"], {}, "nosuch"),
    "no plugin": (["smtp", "echo", "nosuch"], {}, "nosuch"),
    "one word": (["smtp"], {}, "smtp echo accept"),
    "no certificate": (["smtp", "echo"], {"TLS_CERTFILE": "/none.pem"}, "$TLS_CERTFILE: /none.pem does not exist"),
    "no PEM": (["smtp", "echo"], {"TLS_CERTFILE": os.devnull}, "$TLS_CERTFILE"),
    "a directory": (["smtp", "echo"], {"TLS_CERTFILE": "/"}, "$TLS_CERTFILE"),
    "no ciphers": (["smtp", "echo"], {"TLS_CERTFILE": "$CERT", "TLS_PRIORITY": "nonsense"}, "$TLS_PRIORITY"),
    "no store": (["smtp", "echo", "authenticate"], {"AUTH_STORE": "static:/none"}, "$AUTH_STORE: /none"),
    "no kind of store": (["smtp", "echo", "authenticate"], {"AUTH_STORE": "ldap:x"}, "$AUTH_STORE is 'ldap:x'"),
    "lmtp on 25": (["--listen", "127.0.0.1:25", "lmtp", "echo"], {}, "LMTP may not be served on port 25"),
    "no port": (["--listen", "127.0.0.1:smtp", "smtp", "echo"], {}, "--listen 127.0.0.1:smtp"),
    "a port too high": (["--listen", "127.0.0.1:65536", "smtp", "echo"], {}, "--listen 127.0.0.1:65536"),
    "a negative port": (["--listen", "127.0.0.1:-1", "smtp", "echo"], {}, "--listen 127.0.0.1:-1"),
    "an address of others": (["--listen", "192.0.2.1:0", "smtp", "echo"], {}, "cannot listen on 192.0.2.1:0"),
    "no host": (["--listen", "no.such.host.invalid:0", "smtp", "echo"], {}, "no.such.host.invalid"),
    "demo port": (["--listen", "127.0.0.1:99", "--data", "$DIR/d"], {}, "--listen 127.0.0.1:99"),
    "demo directory": (["--data", os.devnull], {}, "--data " + os.devnull),
    "port file": ([*ANY, "--port-file", "/none/ports", "smtp", "echo"], {}, "--port-file /none/ports"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_said_in_one_sentence(
    name: str,
    tmp_path: Path,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words, environment, named = REFUSED[name]
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value.replace("$CERT", str(certificate)))
    assert named in refusal([word.replace("$DIR", str(tmp_path)) for word in words], capsys)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_unreadable_certificate(tmp_path: Path, certificate: Path) -> None:
    certificate.chmod(0o600)
    tmp_path.chmod(0o755)
    run = subprocess.run(
        [sys.executable, "-c", NOBODY, *ANY, "smtp", "echo"],
        env={"PATH": os.environ["PATH"], "TLS_CERTFILE": str(certificate)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 78
    assert re.fullmatch(r"mailfront serve: \$TLS_CERTFILE.* cannot be read by this user: .*\n", run.stderr)


# Everything is imported before the change, since the tests need not run from where nobody may read.
NOBODY = """
import argparse, os, ssl, sys
from mailfront_io import server
argparse.ArgumentParser("")
import mailfront_io.backends.echo, mailfront_io.drivers.asyncio, mailfront_io.server_log, mailfront_io.service
os.setresuid(65534, 65534, 65534)
sys.exit(server.main(sys.argv[1:]))
"""


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        name = f"127.0.0.1:{taken.getsockname()[1]}"
        run = subprocess.run([PROGRAM, "serve", "--listen", name, "smtp", "echo"], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (78, "")
    assert run.stderr == (
        f"mailfront serve: cannot listen on {name}: Address already in use: choose another with --listen HOST:PORT\n"
    )


def test_it_says_where_it_listens(tmp_path: Path) -> None:
    with Served(tmp_path, ["--listen", "127.0.0.1:0", "smtp", "discard", "accept"]) as served:
        with served.client() as client:
            assert client.reply().startswith("220 ")
        served.signal()
        code, _, said = served.finish()
    assert code == 0
    assert said.splitlines()[0] == f"mailfront[{served.process.pid}]: Serving 127.0.0.1:{served.addresses[0][1]}"


def test_listen_takes_hosts_and_ports() -> None:
    assert parse_address("127.0.0.1:25", 2525) == ("127.0.0.1", 25)
    assert parse_address("127.0.0.1", 2525) == ("127.0.0.1", 2525)
    assert parse_address(":25", 2525) == ("127.0.0.1", 25)
    assert parse_address("[::1]:25", 2525) == ("::1", 25)
    assert parse_address("[::1]", 2525) == ("::1", 2525)
    assert parse_address("mx.example.org:0", 2525) == ("mx.example.org", 0)
    for bad in ("127.0.0.1:", "127.0.0.1:+5", "127.0.0.1: 5", "127.0.0.1:1_0", "127.0.0.1:\u0665", "x:000025"):
        with pytest.raises(ConfigurationError, match="--listen"):
            parse_address(bad, 2525)


def test_ipv6_and_its_facts(tmp_path: Path, queue: Path) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    words = ["--listen", "[::1]:0", "smtp", "queuedir", "add-received", "accept"]
    with Served(tmp_path, words, {"QUEUEDIR": str(queue)}) as served:
        assert served.port_file.read_text().startswith("[::1]:")
        with served.client() as client:
            in_data(client)
            client.socket.sendall(b".\r\n")
            assert client.reply().startswith("250 ")
    (message,) = stored(queue)
    assert b"Received: from x ([IPv6:::1])\n  by mx.example.org ([IPv6:::1])\n  with ESMTP via TCP6 id " in message


# -- the demonstration -----------------------------------------------------------------------------------


def test_h90_demonstration(driver: list[str], tmp_path: Path) -> None:
    words = [*driver, *ANY, "--data", "data"]
    data = tmp_path / "data"
    with Served(tmp_path, words) as served:
        password = (data / "demo-password").read_text().strip()
        assert len(password) >= 16
        modes = {str(p.relative_to(tmp_path)): stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
        del modes["ports"]
        assert {name for name, mode in modes.items() if mode == 0o600} == {
            "data/demo-password",
            "data/certificate.pem",
            "data/users.sqlite",
        }
        assert {mode for name, mode in modes.items() if not name.endswith(("password", ".pem", ".sqlite"))} == {0o700}
        deliver(served)
        submit(served, password)
        served.signal(signal.SIGINT)
        code, out, err = served.finish()
    assert code == 0
    assert "Traceback" not in err and password not in err
    for text in (
        "Ctrl-C stops it",
        f"user demo, password {password}",
        *(f"{host}:{port}" for host, port in served.addresses),
    ):
        assert text in out
    assert out.count(" send ") == 2
    mails = list((data / "maildirs" / "demo" / "new").iterdir())
    assert {stat.S_IMODE(mail.stat().st_mode) for mail in mails} == {0o600}
    assert sorted(b"with ESMTPSA " in mail.read_bytes() for mail in mails) == [False, True, True]


def deliver(served: Served) -> None:
    with served.client(0) as client:
        client.reply()
        replies = client.say("EHLO x", "MAIL FROM:<a@example.net>", "RCPT TO:<any@localhost>", "RCPT TO:<a@b.org>")
        assert [reply[:3] for reply in replies] == ["250", "250", "250", "550"]
        finish(client)


def submit(served: Served, password: str) -> None:
    secret = base64.b64encode(f"\0demo\0{password}".encode()).decode()
    for number in (1, 2):
        with served.client(number) as client:
            if number == 1:
                client.start_tls()
            client.reply()
            if number == 2:
                assert client.say("EHLO x", "AUTH PLAIN " + secret, "STARTTLS")[1:] == [
                    "504 5.5.4 Unrecognized authentication mechanism.",
                    "220 2.0.0 Ready to start TLS",
                ]
                client.start_tls()
            mail = ("MAIL FROM:<demo@localhost>", "RCPT TO:<demo@localhost>")
            replies = client.say("EHLO x", mail[0], "AUTH PLAIN " + secret, *mail)
            assert [reply[:3] for reply in replies] == ["250", "530", "235", "250", "250"]
            finish(client)


def finish(client: Client) -> None:
    assert client.say("DATA")[0].startswith("354 ")
    client.socket.sendall(b"Subject: x\r\n\r\ntext\r\n")
    assert [reply[:3] for reply in client.say(".", "QUIT")] == ["250", "221"]


def test_the_demonstration_keeps_its_password_and_certificate(tmp_path: Path) -> None:
    kept = []
    for _ in range(2):
        with Served(tmp_path, [*ANY, "--data", "data"]) as served:
            served.signal(signal.SIGINT)
            code, out, _ = served.finish()
        assert code == 0
        password, certificate = (tmp_path / "data" / name for name in ("demo-password", "certificate.pem"))
        assert f"password {password.read_text().strip()} " in out
        kept.append((password.read_bytes(), certificate.read_bytes()))
    assert kept[0] == kept[1]
